"""The server: one robosuite task in this process, driven through pipes.

Started by ``bridgevla_ros.evaluation.robosuite.client`` with the interpreter of robosuite's environment.
Requests (see ``protocol``) and their answers:

- ``reset``: task, seed, width, height, fovy; camera_position (3,), camera_rotation (3, 3) in the base frame.
  Answers limits (7, 2), T_base_tcp (4, 4), timestep, and the state.
- ``step``: positions (n, 7), velocities (n, 7), widths (n,), one row a physics step.
  Answers the state, and error: rad, the greatest of a joint.
- ``render``: answers rgb (H, W, 3) uint8 and depth (H, W) float32: metres along the axis,
  +Inf where nothing is.
- ``judge``: answers success, robosuite's own check.
- ``truth``: answers name -> (4, 4) pose in the base frame, and numbers of the task.
- ``shapes``: answers name -> (n, 16) geoms of the same things: mjtGeom, size (3,), pose in the base frame
  (rotation row by row, position); meshes as the boxes around them.

The state is position (7,), velocity (7,), gripper (2,): width in metres and its rate.
"""

from __future__ import annotations

import importlib
import os
import random
import sys
from typing import IO, Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.robosuite_server import protocol
from bridgevla_ros.robosuite_server.arm import TorqueArm
from bridgevla_ros.robosuite_server.protocol import Message

Array = NDArray[np.float64]

TASKS = ("Lift", "Stack", "PickPlaceCan", "NutAssemblySquare", "Door")
SETTLE = 1.0
"""Simulated seconds that objects get to fall and come to rest before the episode begins."""
BODIES = {
    "Lift": {"cube": "cube_main"},
    "Stack": {"cubeA": "cubeA_main", "cubeB": "cubeB_main"},
    "PickPlaceCan": {"can": "Can_main", "bin1": "bin1", "bin2": "bin2"},
    "NutAssemblySquare": {"nut": "SquareNut_main", "peg": "peg1"},
    "Door": {"frame": "Door_frame", "door": "Door_door", "latch": "Door_latch"},
}
"""Our name -> robosuite's of the bodies that a task is about."""
HIDDEN_GROUP = 5
CAMERA = "robot0_robotview"
"""The adapter's camera takes the place of this one: it is fixed to the robot's base."""
PADS_APART = 0.001
"""Metres between the finger joints' zero and the pads' faces, of robosuite's Panda gripper."""


class Cell:
    """One task of robosuite with its Panda; seeded, stepped and looked at."""

    def __init__(self, task: str) -> None:
        robosuite = importlib.import_module("robosuite")  # in this process's environment only
        if task not in TASKS:
            raise ValueError(f"task {task!r}; expected one of {', '.join(TASKS)}")
        self.task = task
        self.env: Any = robosuite.make(
            task,
            robots="Panda",
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            use_object_obs=False,
            ignore_done=True,
            hard_reset=True,
            seed=0,
        )
        self.camera: Any = None

    def reset(self, seed: int, message: Message) -> Message:
        """Draw the scene of the seed and let it come to rest with the arm holding still."""
        from bridgevla_ros.simulation.camera import OffscreenCamera

        # The samplers keep the generator they were made with: it is set back, not replaced.
        self.env.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
        np.random.seed(seed)  # noqa: NPY002 - parts of robosuite draw from the global generators
        random.seed(seed)
        self.env.reset()
        self.model, self.data = self.env.sim.model._model, self.env.sim.data._data
        model = self.model
        model.vis.quality.offsamples = 0  # as in our own scenes: a depth pixel is of one surface, not blended
        for geom in range(model.ngeom):  # translucent copies that mark goals: no camera sees them
            if model.body(model.geom_bodyid[geom]).name.startswith("Visual"):
                model.geom_group[geom] = HIDDEN_GROUP
        self.arm = TorqueArm(
            model,
            self.data,
            tuple(f"robot0_joint{i}" for i in range(1, 8)),
            tuple(f"robot0_torq_j{i}" for i in range(1, 8)),
            ("gripper0_right_finger_joint1", "gripper0_right_finger_joint2"),
            ("gripper0_right_gripper_finger_joint1", "gripper0_right_gripper_finger_joint2"),
            PADS_APART,
        )
        camera = model.camera(CAMERA)
        camera.pos = message.arrays["camera_position"]
        camera.quat = _quat_of_optical(message.arrays["camera_rotation"])
        camera.fovy = float(message.fields["fovy"])
        width, height = int(message.fields["width"]), int(message.fields["height"])
        if self.camera is None:
            self.camera = OffscreenCamera(model, width, height, camera=CAMERA, groups=(1,))
        else:
            self.camera.load(model)
        rest = max(1, round(SETTLE / model.opt.timestep))
        still = np.tile(self.arm.position, (rest, 1))
        self.arm.follow(still, np.zeros_like(still), np.full(rest, np.inf))
        state = self.state()
        state.arrays["limits"] = self.arm.limits
        state.arrays["T_base_tcp"] = self._in_base("site", "gripper0_right_grip_site")
        state.fields["timestep"] = float(model.opt.timestep)
        return state

    def state(self) -> Message:
        """Encoders."""
        arm = self.arm
        return Message(
            "ok",
            {},
            {
                "position": arm.position,
                "velocity": arm.velocity,
                "gripper": np.array([arm.width, arm.width_rate]),
            },
        )

    def step(self, message: Message) -> Message:
        """Follow joint targets."""
        arrays = message.arrays
        error = self.arm.follow(arrays["positions"], arrays["velocities"], arrays["widths"])
        state = self.state()
        state.fields["error"] = error
        return state

    def render(self) -> Message:
        """Colour and depth."""
        rgb, depth = self.camera.rgbd(self.data)
        return Message("ok", {}, {"rgb": rgb, "depth": depth})

    def judge(self) -> Message:
        """robosuite's own success check, now."""
        return Message("ok", {"success": bool(self.env._check_success())})

    def truth(self) -> Message:
        """Poses that the demonstrator needs; what measures the robot never asks for them."""
        bodies = BODIES[self.task]
        poses = {name: self._in_base("body", body) for name, body in bodies.items()}
        fields: dict[str, Any] = {}
        model, data = self.model, self.data
        if self.task in ("Lift", "Stack"):
            for name, body in bodies.items():
                geom = model.body(body).geomadr[0]
                fields[f"{name}_size"] = [2.0 * float(s) for s in model.geom_size[geom]]
        if self.task == "PickPlaceCan":
            fields["bin_size"] = [float(s) for s in self.env.bin_size[:2]]
        if self.task == "Door":
            for name in ("hinge", "latch_joint"):
                fields[name] = float(data.qpos[model.joint(f"Door_{name}").qposadr[0]])
        return Message("ok", fields, poses)

    def shapes(self) -> Message:
        """What the things of ``truth`` that move as one consist of, now: geoms that collide."""
        model, data = self.model, self.data
        base = data.body("robot0_base")
        R_world_base = base.xmat.reshape(3, 3)
        found = {}
        for name, body in BODIES[self.task].items():
            rows = []
            for geom in np.flatnonzero((model.geom_bodyid == model.body(body).id) & (model.geom_group == 0)):
                kind, size, middle = int(model.geom_type[geom]), model.geom_size[geom], np.zeros(3)
                if kind == mujoco.mjtGeom.mjGEOM_MESH:
                    kind = int(mujoco.mjtGeom.mjGEOM_BOX)
                    middle, size = np.split(model.geom_aabb[geom], 2)
                rotation = data.geom_xmat[geom].reshape(3, 3)
                position = data.geom_xpos[geom] + rotation @ middle - base.xpos
                rows.append([kind, *size, *(R_world_base.T @ rotation).ravel(), *(R_world_base.T @ position)])
            found[name] = np.array(rows, np.float64).reshape(-1, 16)
        return Message("ok", {}, found)

    def close(self) -> None:
        """Free the renderer: two at a time disturb one another."""
        if self.camera is not None:
            self.camera.close()
        self.env.close()

    def _in_base(self, kind: str, name: str) -> Array:
        """(4, 4) pose of a body or site in the frame of the arm's base."""
        base, view = self.data.body("robot0_base"), getattr(self.data, kind)(name)
        R_world_base = base.xmat.reshape(3, 3)
        pose = np.eye(4)
        pose[:3, :3] = R_world_base.T @ view.xmat.reshape(3, 3)
        pose[:3, 3] = R_world_base.T @ (view.xpos - base.xpos)
        return pose


def _quat_of_optical(rotation: Array) -> Array:
    """(4,) w, x, y, z of MuJoCo's camera (x right, y up, looks along -z) from an optical frame's axes."""
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.ascontiguousarray(rotation * np.array([1.0, -1.0, -1.0])).ravel())
    return quat


def answer(cell: Cell | None, message: Message) -> tuple[Cell | None, Message]:
    """One request; the cell is made or changed by ``reset``."""
    if message.op == "reset":
        task = str(message.fields["task"])
        if cell is None or cell.task != task:
            if cell is not None:
                cell.close()
            cell = Cell(task)
        return cell, cell.reset(int(message.fields["seed"]), message)
    if cell is None:
        raise ValueError(f"{message.op} before reset")
    if message.op == "step":
        return cell, cell.step(message)
    if message.op in ("render", "judge", "truth", "shapes"):
        return cell, getattr(cell, message.op)()
    raise ValueError(f"no such request: {message.op!r}")


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until the other side closes its end."""
    cell: Cell | None = None
    while (message := protocol.read(requests)) is not None:
        try:
            cell, reply = answer(cell, message)
        except (ImportError, KeyError, ValueError, RuntimeError) as error:
            reply = Message("error", {"message": f"{type(error).__name__}: {error}"})
        protocol.write(answers, reply)


def main() -> None:
    """Speak through the standard pipes; what robosuite prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
