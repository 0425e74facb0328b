"""Our side of robosuite: a cell that the graph steps, looks at and commands, in another process."""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core import resources
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import JointState, RgbdFrame
from bridgevla_ros.evaluation.robosuite.tasks import HEIGHT, WIDTH, TaskSetup
from bridgevla_ros.robosuite_server import protocol
from bridgevla_ros.robosuite_server.protocol import Message
from bridgevla_ros.simulation.joint_trajectory import JointTrajectory
from bridgevla_ros.simulation.noise import DepthNoise

ENVIRONMENT = ".venv-robosuite"
COMMAND = "make setup-robosuite"
ROBOT = "panda_robosuite"
GRIPPER_SPEED = 0.1
"""m/s of the opening, as in this package's own simulator."""
JUDGE_PERIOD = 0.1
PATIENCE = 600.0
"""Wall seconds that an answer may take; the first ``reset`` compiles, half a minute on an idle core."""
T_SITE_TCP = Transform(np.zeros(3), np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
"""robosuite's grip site has its x where our tcp has its -y."""


def interpreter() -> Path:
    """The Python of robosuite's environment, in the tree; BRIDGEVLA_ROBOSUITE_PYTHON names another.

    Raises:
        BridgeError: BAD_INPUT, it has not been set up.
    """
    given = os.environ.get("BRIDGEVLA_ROBOSUITE_PYTHON")
    path = Path(given) if given else resources.roots()[0] / ENVIRONMENT / "bin" / "python"
    if not path.exists():
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"suite robosuite needs an environment of its own, and {path} does not exist",
            remedy=f"Run `{COMMAND}` once (about 1.1 GB), then again.",
        )
    return path


class Server:
    """The process with robosuite in it.

    Args:
        python: Interpreter of its environment.
    """

    def __init__(self, python: Path) -> None:
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "VIRTUAL_ENV")}
        env |= {"PYTHONPATH": str(resources.roots()[0]), "MUJOCO_GL": "osmesa", "OMP_NUM_THREADS": "1"}
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._said = "nothing"
        self._process = subprocess.Popen(
            [str(python), "-m", "bridgevla_ros.robosuite_server.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=env,
        )

    def ask(
        self, op: str, fields: dict[str, Any] | None = None, arrays: dict[str, NDArray[Any]] | None = None
    ) -> Message:
        """Send a request and wait for its answer.

        Raises:
            BridgeError: MODEL_ERROR with what it said; TIMEOUT; CONTROLLER_INACTIVE, it ended.
        """
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        try:
            protocol.write(requests, Message(op, fields or {}, arrays or {}))
            if not select.select([answers], [], [], PATIENCE)[0]:
                self.close()
                raise BridgeError(
                    ErrorCode.TIMEOUT,
                    f"robosuite does not answer {op!r}",
                    value=PATIENCE,
                    limit=PATIENCE,
                    unit="s",
                )
            reply = protocol.read(answers)
        except protocol.ProtocolError as error:
            raise self._ended(str(error)) from error
        if reply is None:
            raise self._ended("it closed its end")
        if reply.op != "ok":
            raise BridgeError(ErrorCode.MODEL_ERROR, f"robosuite: {reply.fields.get('message', reply.op)}")
        return reply

    def _ended(self, what: str) -> BridgeError:
        self.close()
        return BridgeError(
            ErrorCode.CONTROLLER_INACTIVE,
            f"robosuite's process broke off: {what}; it last said: {self._said}",
            remedy=f"Run `{COMMAND}` again if its environment is incomplete.",
        )

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if not self._errors.closed:
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            self._said = " | ".join(lines[-3:]) or "nothing"
            self._errors.close()


class RobosuiteCell:
    """One episode of a task at a time; see ``rollout.Cell``.

    Args:
        server: Asked for everything.
        arm: Kinematics of robosuite's Panda; held against its model at each reset.
        depth_noise: Scale of this package's depth faults (robosuite itself has none); 0 for none.

    Attributes:
        arm: Kinematics.
        success: robosuite's own check, when it was last asked.
        ever: It was true at any time it was asked.
        tracking_error: rad, greatest difference of a joint from its command so far.
    """

    def __init__(self, server: Server, arm: ArmModel, *, depth_noise: float = 1.0) -> None:
        self._server, self.arm, self._depth_scale = server, arm, depth_noise
        self.setup: TaskSetup | None = None

    def reset(self, setup: TaskSetup, seed: int) -> None:
        """Draw the scene of a seed; time is 0.

        Raises:
            BridgeError: MODEL_ERROR, the arm in robosuite is another than the one we know.
        """
        camera = setup.camera.pose
        reply = self._server.ask(
            "reset",
            {"task": setup.name, "seed": seed, "width": WIDTH, "height": HEIGHT, "fovy": setup.camera.fovy},
            {"camera_position": camera.translation, "camera_rotation": camera.rotation},
        )
        self.setup = setup
        self._camera = camera
        self._timestep = float(reply.fields["timestep"])
        self._steps = 0
        self._noise = DepthNoise(self._depth_scale, seed)
        self._take(reply)
        check_kinematics(self.arm, self._state.position, reply.arrays["T_base_tcp"], reply.arrays["limits"])
        self._trajectory = JointTrajectory.hold(self._state.position)
        self._width = self._width_goal = self.arm.gripper_max_width
        self._next_judge = 0.0
        self.success = self.ever = False
        self.tracking_error = 0.0

    @property
    def now(self) -> float:
        """Simulated seconds since ``reset``."""
        return self._steps * self._timestep

    @property
    def T_base_camera(self) -> Transform:
        """Pose of the optical frame."""
        return self._camera

    def step(self, dt: float) -> None:
        """Let ``dt`` seconds pass (rounded to whole physics steps, at least one)."""
        count = max(1, round(dt / self._timestep))
        positions, velocities, widths = np.empty((count, 7)), np.empty((count, 7)), np.empty(count)
        stride = GRIPPER_SPEED * self._timestep
        for k in range(count):
            positions[k], velocities[k] = self._trajectory.sample(self.now + (k + 1) * self._timestep)
            self._width += min(max(self._width_goal - self._width, -stride), stride)
            widths[k] = self._width
        reply = self._server.ask(
            "step", arrays={"positions": positions, "velocities": velocities, "widths": widths}
        )
        self._steps += count
        self._take(reply)
        self.tracking_error = max(self.tracking_error, float(reply.fields["error"]))
        if self.now >= self._next_judge - 1e-9:
            self._next_judge += JUDGE_PERIOD
            self.judge()

    def judge(self) -> bool:
        """robosuite's own success check, now."""
        self.success = bool(self._server.ask("judge").fields["success"])
        self.ever = self.ever or self.success
        return self.success

    def joint_state(self) -> JointState:
        """Encoders of arm and gripper."""
        return self._state

    @property
    def T_base_tcp(self) -> Transform:
        """Where encoders and kinematics say that the TCP is."""
        return self.arm.fk(self._state.position)

    def render(self, *, faults: bool = True) -> RgbdFrame:
        """Expose colour and depth now, with the depth faults of this package's sensor model or without."""
        assert self.setup is not None
        reply = self._server.ask("render")
        depth = self._noise.apply(reply.arrays["depth"]) if faults else reply.arrays["depth"]
        return RgbdFrame(self.now, reply.arrays["rgb"], depth, self.setup.intrinsics)

    def command_joint_trajectory(
        self, stamp: float, times: Array, positions: Array, velocities: Array
    ) -> None:
        """Follow these points from now on; see ``JointTrajectory.replaced``.

        Raises:
            ValueError: They cannot be followed.
        """
        self._trajectory = self._trajectory.replaced(self.now, stamp, times, positions, velocities)

    def command_gripper(self, width: float) -> None:
        """Open or close to ``width`` metres.

        Raises:
            ValueError: Not finite.
        """
        if not np.isfinite(width):
            raise ValueError(f"gripper width {width}")
        self._width_goal = float(np.clip(width, 0.0, self.arm.gripper_max_width))

    def truth(self) -> tuple[dict[str, Transform], dict[str, Any]]:
        """Poses in the base frame, and what else the demonstrator needs. Truth: for guidance oracle only."""
        reply = self._server.ask("truth")
        return {name: Transform.from_matrix(pose) for name, pose in reply.arrays.items()}, reply.fields

    def shapes(self) -> dict[str, Array]:
        """Things of ``truth`` -> (n, 16) their geoms, as of ``server.Cell.shapes``; for labels only."""
        return {name: np.asarray(rows) for name, rows in self._server.ask("shapes").arrays.items()}

    def _take(self, reply: Message) -> None:
        gripper = reply.arrays["gripper"]
        self._state = JointState(
            self.now,
            reply.arrays["position"],
            reply.arrays["velocity"],
            float(gripper[0]),
            float(gripper[1]),
        )


def check_kinematics(arm: ArmModel, q: Array, T_base_site: Array, limits: Array) -> None:
    """Hold our description of the arm against the simulator's.

    Args:
        arm: Ours.
        q: (7,) rad.
        T_base_site: (4, 4), robosuite's grip site at ``q``.
        limits: (7, 2) rad, robosuite's.

    Raises:
        BridgeError: MODEL_ERROR, they differ.
    """
    distance, angle = arm.fk(q).distance(Transform.from_matrix(T_base_site) @ T_SITE_TCP)
    if distance > 1e-3 or angle > 2e-3:
        raise BridgeError(
            ErrorCode.MODEL_ERROR,
            f"{arm.config.name}: the TCP is {1000 * distance:.1f} mm and {angle:.4f} rad beside robosuite's",
            value=distance,
            limit=1e-3,
            unit="m",
            remedy=f"Use the robosuite version that `{COMMAND}` installs.",
        )
    beyond = float(np.maximum(limits[:, 0] - arm.lower, arm.upper - limits[:, 1]).max())
    if beyond > 1e-3:
        raise BridgeError(
            ErrorCode.MODEL_ERROR,
            f"{arm.config.name}: a joint limit lies outside robosuite's",
            value=beyond,
            limit=1e-3,
            unit="rad",
        )
