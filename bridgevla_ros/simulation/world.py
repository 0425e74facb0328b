"""The simulated cell: steps physics, takes commands, shows what a camera and encoders would."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import CameraIntrinsics, JointState, RgbdFrame
from bridgevla_ros.simulation import robot, stereo
from bridgevla_ros.simulation.assets import BUTTON_TRAVEL
from bridgevla_ros.simulation.camera import OffscreenCamera
from bridgevla_ros.simulation.config import SimConfig
from bridgevla_ros.simulation.goals import Goal, parse_goal
from bridgevla_ros.simulation.joint_trajectory import JointTrajectory
from bridgevla_ros.simulation.noise import DepthNoise, colour_noise
from bridgevla_ros.simulation.scene import SceneSpec
from bridgevla_ros.simulation.scene_model import build
from bridgevla_ros.simulation.tasks import default_task, has_task, scene_from_config

SETTLE_TIME = 0.4
"""Simulated seconds that objects are given to come to rest before time 0."""


_BAD = tuple(
    int(kind)
    for kind in (
        mujoco.mjtWarning.mjWARN_BADQPOS,
        mujoco.mjtWarning.mjWARN_BADQVEL,
        mujoco.mjtWarning.mjWARN_BADQACC,
    )
)


# MuJoCo's own handler appends to MUJOCO_LOG.TXT in whatever folder the program was started from.
mujoco.set_mju_user_warning(logging.getLogger("mujoco").warning)


class SimulationError(RuntimeError):
    """Physics is no longer finite: what the world shows means nothing until ``load`` or ``reset``."""


class World:
    """A scene with arm, gripper and camera. Base frame, SI units, simulated time.

    Args:
        config: Sensors, faults and gripper.
        scene: What stands on the table; None draws one from ``config`` (or reads its file).

    Attributes:
        scene: What stands on the table.
        goals, goal_words: What ``judge.outcome`` compares with; see ``set_goal``.
        grainy: Images get colour noise; False where nobody looks at colour (5 ms an image).
    """

    scene: SceneSpec

    def __init__(self, config: SimConfig | None = None, scene: SceneSpec | None = None) -> None:
        self.config = config if config is not None else SimConfig()
        self._camera: OffscreenCamera | None = None
        self.grainy = True
        if scene is None:
            if self.config.scene_file:
                scene = SceneSpec.from_json(Path(self.config.scene_file).read_text(encoding="utf-8"))
            else:
                scene = scene_from_config(self.config)
        self.load(scene)

    def load(self, scene: SceneSpec) -> None:
        """Replace the scene; time starts at 0 again. Cheaper than a new World."""
        self.scene = scene
        self.model: Any = build(scene)
        self.data: Any = mujoco.MjData(self.model)
        model = self.model
        self._arm_qpos = np.array([model.joint(n).qposadr[0] for n in robot.JOINT_NAMES])
        self._arm_dof = np.array([model.joint(n).dofadr[0] for n in robot.JOINT_NAMES])
        self._arm_ctrl = np.array([model.actuator(f"actuator{i}").id for i in range(1, 8)])
        self._gripper_ctrl = int(model.actuator("fingers_actuator").id)
        drivers = [model.joint(f"{side}_driver_joint") for side in ("left", "right")]
        self._driver_qpos = np.array([j.qposadr[0] for j in drivers])
        self._driver_dof = np.array([j.dofadr[0] for j in drivers])
        # Tendon "split" averages the two drivers (coefficients 0.5): its force is halved on each,
        # and one N m on a driver presses with 1 / (d width/2 / d angle) newtons, about 18.
        model.actuator_forcerange[self._gripper_ctrl] = (
            np.array([-1.0, 1.0]) * self.config.gripper_force / 9.0
        )
        self._tcp = int(model.site(robot.TCP_SITE).id)
        owner = {model.body(thing.name).id: i for i, thing in enumerate(scene.objects)}
        self._robot_root = int(model.body("link0").id)
        self._object_of_geom = np.zeros(model.ngeom + 1, np.int32)
        for geom in range(model.ngeom):
            body = int(model.geom_bodyid[geom])
            while body not in owner and body != 0 and body != self._robot_root:
                body = int(model.body_parentid[body])
            self._object_of_geom[geom] = owner[body] + 1 if body in owner else (-1 if body else 0)
        self._buttons = {
            thing.name: int(model.joint(f"{thing.name}/press").qposadr[0])
            for thing in scene.objects
            if thing.kind == "button"
        }
        if self._camera is not None:
            self._camera.load(model)
        self.set_goal(self.config.goal)
        self.reset()

    def set_goal(self, words: str) -> None:
        """Judge this goal from now on; an empty text means the scene's own task."""
        scene = self.scene
        if not words and has_task(scene):
            task = default_task(scene)
            self.goals: tuple[Goal, ...] = (Goal("placed", task.source, task.destination),)
            self.goal_words = task.instruction
        else:
            self.goals, self.goal_words = parse_goal(words, scene), words

    def reset(self) -> None:
        """Objects where the scene says, at rest; arm where it starts, gripper open; time 0."""
        model, data = self.model, self.data
        mujoco.mj_resetData(model, data)
        start = np.array(self.scene.start) if self.scene.start else robot.HOME
        data.qpos[self._arm_qpos] = start
        for thing in self.scene.objects:
            if thing.opening > 0.0:
                data.qpos[model.joint(f"{thing.name}/slide").qposadr[0]] = thing.opening
        self._trajectory = JointTrajectory.hold(start)
        self._pressed = dict.fromkeys(self._buttons, 0.0)
        self._width_goal = self._width_command = robot.GRIPPER_MAX_WIDTH
        self._noise = DepthNoise(self.config.depth_noise, self.scene.seed)
        self._rng = np.random.default_rng([self.scene.seed, 0xC0])
        mujoco.mj_forward(model, data)
        self._advance(round(SETTLE_TIME / model.opt.timestep))
        data.time = 0.0
        self._steps = 0
        self.initial_positions = {
            thing.name: self.object_pose(thing.name).translation for thing in self.scene.objects
        }

    # -- time and commands ---------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Simulated seconds since ``reset``."""
        return self._steps * float(self.model.opt.timestep)

    def step(self, dt: float) -> None:
        """Let ``dt`` seconds pass (rounded to whole physics steps, at least one).

        Raises:
            SimulationError: Physics is not finite any more.
        """
        count = max(1, round(dt / self.model.opt.timestep))
        self._advance(count)
        for name, address in self._buttons.items():
            share = float(self.data.qpos[address]) / BUTTON_TRAVEL
            self._pressed[name] = max(self._pressed[name], share)

    def _advance(self, count: int) -> None:
        model, data = self.model, self.data
        timestep = float(model.opt.timestep)
        stride = self.config.gripper_speed * timestep
        lead = robot.SERVO_KV / robot.SERVO_KP
        for _ in range(count):
            position, velocity = self._trajectory.sample(data.time + timestep)
            # The servo damps the joint's own velocity; the lead term makes that velocity error.
            data.ctrl[self._arm_ctrl] = position + lead * velocity
            self._width_command += min(max(self._width_goal - self._width_command, -stride), stride)
            data.ctrl[self._gripper_ctrl] = robot.angle_from_width(self._width_command) * (255.0 / 0.8)
            mujoco.mj_step(model, data)
        if any(data.warning[kind].number for kind in _BAD):
            raise SimulationError(
                f"scene {self.scene.seed}: physics is not finite after {self.now:.3f} s; load a scene anew"
            )
        self._steps = getattr(self, "_steps", 0) + count

    def command_joint_trajectory(
        self, stamp: float, times: Array, positions: Array, velocities: Array
    ) -> None:
        """Follow these points from now on, instead of what was commanded before.

        Between what the arm is commanded now and the first point that is still to come, it goes
        by a cubic as well. After the last point it holds that point.

        Args:
            stamp: Seconds that ``times`` count from.
            times: (M,) seconds after ``stamp``, increasing.
            positions: (M, 7) rad.
            velocities: (M, 7) rad/s.

        Raises:
            ValueError: Shapes differ, times do not increase, a value is not finite, or all of it
                lies in the past (going there would be a jump).
        """
        self._trajectory = self._trajectory.replaced(
            float(self.data.time), stamp, times, positions, velocities
        )

    def command_gripper(self, width: float) -> None:
        """Open or close to ``width`` metres, at the configured speed and force.

        Raises:
            ValueError: Not finite.
        """
        if not np.isfinite(width):
            raise ValueError(f"gripper width {width}")
        self._width_goal = float(np.clip(width, 0.0, robot.GRIPPER_MAX_WIDTH))

    # -- what sensors tell ---------------------------------------------------------------------

    def joint_state(self) -> JointState:
        """Encoders of arm and gripper."""
        data = self.data
        angle = float(data.qpos[self._driver_qpos].mean())
        rate = float(data.qvel[self._driver_dof].mean())
        slope = (robot.width_from_angle(angle + 0.01) - robot.width_from_angle(angle - 0.01)) / 0.02
        return JointState(
            stamp=self.now,
            position=data.qpos[self._arm_qpos].copy(),
            velocity=data.qvel[self._arm_dof].copy(),
            gripper_width=robot.width_from_angle(angle),
            gripper_velocity=rate * slope,
        )

    @property
    def T_base_camera(self) -> Transform:
        """Pose of the optical frame."""
        return self.scene.camera.pose

    @property
    def intrinsics(self) -> CameraIntrinsics:
        """Of colour and depth image."""
        return self.scene.camera.intrinsics(self.config.image_width, self.config.image_height)

    def render(self, *, faults: bool = True) -> RgbdFrame:
        """Expose both images now.

        Args:
            faults: False gives colour and depth without noise.
        """
        rgb, depth = self._offscreen().rgbd(self.data)
        if faults:
            if self.grainy:
                rgb = colour_noise(rgb, self.config.colour_noise, self._rng)
            depth = self._noise.apply(depth)
        return RgbdFrame(self.now, rgb, depth, self.intrinsics)

    def render_pair(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Left and right (H, W) uint8 grey image of the stereo pair that ``config`` describes, now."""
        camera, config = self._offscreen(), self.config
        images = stereo.pair(
            lambda aside: camera.rgbd(self.data, aside),
            self.intrinsics,
            config.stereo_baseline,
            config.projector,
        )
        left, right = (colour_noise(image, config.colour_noise, self._rng) for image in images)
        return left, right

    def render_segmentation(self) -> NDArray[np.int32]:
        """(H, W) int32: i + 1 for ``scene.objects[i]``, -1 for the robot, 0 for the rest. Truth."""
        ids = self._offscreen().geom_ids(self.data)
        return np.where(ids >= 0, self._object_of_geom[ids], 0).astype(np.int32)

    def _offscreen(self) -> OffscreenCamera:
        if self._camera is None:
            self._camera = OffscreenCamera(
                self.model, self.config.image_width, self.config.image_height, self.config.renderer
            )
        return self._camera

    def link_transforms(self) -> dict[str, Transform]:
        """T_base_link of the arm's own links and the TCP, by the names of the robot's URDF."""
        names = {f"link{i}": f"link{i}" for i in range(1, 8)} | {"gripper_base": "base"}
        out = {}
        for frame, body in names.items():
            view = self.data.body(body)
            out[frame] = Transform(view.xpos.copy(), view.xmat.reshape(3, 3).copy())
        out["tcp"] = self.T_base_tcp
        return out

    @property
    def T_base_tcp(self) -> Transform:
        """Pose of the tool centre point."""
        return Transform(
            self.data.site_xpos[self._tcp].copy(), self.data.site_xmat[self._tcp].reshape(3, 3).copy()
        )

    # -- truth, for judge, data generation and tests -------------------------------------------

    def object_pose(self, name: str) -> Transform:
        """T_base_object, origin in the middle of its base (of a drawer: of its cabinet)."""
        view = self.data.body(name)
        return Transform(view.xpos.copy(), view.xmat.reshape(3, 3).copy())

    def object_speed(self, name: str) -> float:
        """Metres per second, plus 5 cm for each rad/s."""
        velocity = np.zeros(6)
        body = self.model.body(name).id
        mujoco.mj_objectVelocity(self.model, self.data, mujoco.mjtObj.mjOBJ_BODY, body, velocity, 0)
        return float(np.linalg.norm(velocity[3:]) + 0.05 * np.linalg.norm(velocity[:3]))

    def drawer_opening(self, name: str) -> float:
        """Metres that a drawer is pulled out."""
        return float(self.data.joint(f"{name}/slide").qpos[0])

    def pressed_most(self, name: str) -> float:
        """Share of its travel that a button was pressed down at most since ``reset``."""
        return self._pressed[name]

    def knob_angle(self, name: str) -> float:
        """Rad that a knob was turned, about base z."""
        return float(self.data.joint(f"{name}/hinge").qpos[0])

    def touching(self, name: str) -> set[str]:
        """Names of the objects that ``name`` touches; "robot" and "table" too."""
        wanted = [o.name for o in self.scene.objects].index(name) + 1
        found: set[str] = set()
        contact = self.data.contact
        for a, b in np.asarray(contact.geom)[np.asarray(contact.dist) < 0.0005]:
            first, second = int(self._object_of_geom[a]), int(self._object_of_geom[b])
            if wanted not in (first, second) or first == second:
                continue
            other = second if first == wanted else first
            found.add("robot" if other < 0 else "table" if other == 0 else self.scene.objects[other - 1].name)
        return found

    def close(self) -> None:
        """Free the renderer."""
        if self._camera is not None:
            self._camera.close()
            self._camera = None
