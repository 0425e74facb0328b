"""Forward and inverse kinematics of the arm, on pinocchio.

``T_base_tcp`` is the pose of the tool centre point in the base frame. One ``ArmModel`` is for one
thread: pinocchio keeps scratch data in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pinocchio as pin
from numpy.typing import NDArray

from bridgevla_ros.core import resources
from bridgevla_ros.core.robot import GripperShape, RobotConfig, capsule_rows
from bridgevla_ros.core.transforms import Array, Transform

DEFAULT_ROBOT = "panda_2f85"

# Damped least squares: damping grows with the error (Sugihara 2011), so far targets don't throw the arm.
_DAMPING_FLOOR = 1e-6
_DAMPING_GAIN = 0.05
_MAX_STEP = 0.35
_POSTURE_GAIN = 0.1


@dataclass(frozen=True, eq=False)
class IkResult:
    """Answer of ``ArmModel.ik``.

    Attributes:
        q: (7,) rad, inside the joint limits, best found.
        ok: Both errors are within the tolerance.
        position_error: Metres.
        rotation_error: Radians.
        iterations: Steps taken.
        jacobian: (6, 7) at ``q``, in the tcp frame.
    """

    q: Array
    ok: bool
    position_error: float
    rotation_error: float
    iterations: int
    jacobian: Array

    @property
    def condition(self) -> float:
        """Condition number of the Jacobian at ``q``: large near a singularity."""
        return _condition(self.jacobian)


@dataclass(frozen=True, eq=False)
class Bodies:
    """Answer of ``ArmModel.bodies``: the body in S postures, base frame, metres.

    Attributes:
        start, end: (S, C, 3) of the capsules, in the order of ``ArmModel.body_capsules``.
        radius: (C,).
        tips: (S, 8, 3) outermost corners of the pads.
    """

    start: Array
    end: Array
    radius: Array
    tips: Array

    def at(self, chosen: NDArray[np.bool_]) -> Bodies:
        """In some of the postures, by an (S,) mask."""
        return Bodies(self.start[chosen], self.end[chosen], self.radius, self.tips[chosen])


def conditions(jacobians: Array) -> Array:
    """(...,) condition numbers of (..., 6, 7) Jacobians."""
    singular = np.linalg.svd(jacobians, compute_uv=False)
    return np.asarray(singular[..., 0] / np.maximum(singular[..., -1], 1e-12))


def _condition(jacobian: Array) -> float:
    return float(conditions(jacobian))


def _damped_step(jacobian: Array, error: Array, pull: Array, damping: float) -> Array:
    """dq = J# e + (1 - J# J) pull, with J# = J^T (J J^T + damping)^-1."""
    square = jacobian @ jacobian.T
    square.flat[::7] += damping
    return np.asarray(pull + jacobian.T @ np.linalg.solve(square, error - jacobian @ pull))


class ArmModel:
    """Kinematics, limits and body of one arm.

    Attributes:
        joint_names: Arm joints, from the base outwards.
        lower, upper: (7,) rad.
        velocity_limit, acceleration_limit, jerk_limit: (7,), rad and s, already scaled.
        home, null_posture: (7,) rad.
        reach_bound: (7,) metres, no point of the body is farther from each joint's axis.
        gripper_min_width, gripper_max_width: Metres.
    """

    def __init__(self, config: RobotConfig, urdf: Path) -> None:
        self.config = config
        self._model = pin.buildModelFromUrdf(str(urdf))
        self._data = self._model.createData()
        names = tuple(n for n in self._model.names if n != "universe")
        if names != config.joint_names:
            raise ValueError(f"{urdf}: joints {names}, but the robot's YAML says {config.joint_names}")
        self._tcp = self._frame_id(config.tcp_frame)
        self._links = {
            frame.name: i
            for i, frame in enumerate(self._model.frames)
            if frame.type == pin.FrameType.BODY and frame.name != config.base_frame
        }
        self.joint_names = config.joint_names
        self.lower, self.upper = np.array(config.lower), np.array(config.upper)
        self.velocity_limit = config.velocity_scale * np.array(config.velocity_limit)
        self.acceleration_limit = config.acceleration_scale * np.array(config.acceleration_limit)
        self.jerk_limit = config.jerk_scale * np.array(config.jerk_limit)
        self.home, self.null_posture = np.array(config.home), np.array(config.null_posture)
        self.gripper_min_width = config.gripper_min_width
        self.gripper_max_width = config.gripper_max_width
        self.gripper = GripperShape(config)
        start, end, radius = capsule_rows(config.capsules)
        self.capsule_links = config.capsule_links
        self._capsule_frames = [self._frame_id(link) for link in config.capsule_links]
        self._capsule_local, self._capsule_radius = np.stack([start, end], axis=1), radius
        self._all_radius = np.concatenate([radius, self.gripper.radius])
        self.reach_bound = self._bound_reach()

    @classmethod
    def load(cls, robot: Path | str = DEFAULT_ROBOT) -> ArmModel:
        """Load a robot by the path of its YAML file or by its name in ``config/robots``."""
        path = resources.find_robot(str(robot))
        config = RobotConfig.load(path)
        return cls(config, path.parent / config.urdf)

    def _bound_reach(self) -> Array:
        """(7,) metres: the chain stretched straight beyond each joint, plus the gripper's tips."""
        beyond = np.zeros(len(self.joint_names))
        placements = self._model.jointPlacements
        tips = np.linalg.norm(self.gripper.tips(self.gripper_min_width), axis=1).max()
        length = float(np.linalg.norm(self._model.frames[self._tcp].placement.translation) + tips)
        for i in reversed(range(len(beyond))):
            beyond[i] = length + float(self._capsule_radius[1:].max())
            length += float(np.linalg.norm(placements[i + 1].translation))
        return beyond

    def _frame_id(self, name: str) -> int:
        if not self._model.existFrame(name):
            raise ValueError(f"the URDF has no link {name!r}")
        return int(self._model.getFrameId(name))

    def fk(self, q: Array) -> Transform:
        """``T_base_tcp`` at joints q (7,) rad."""
        pin.forwardKinematics(self._model, self._data, q)
        placement = pin.updateFramePlacement(self._model, self._data, self._tcp)
        return Transform(placement.translation.copy(), placement.rotation.copy())

    def link_transforms(self, q: Array) -> dict[str, Transform]:
        """Link name -> ``T_base_link`` at joints q (7,) rad, the base itself left out."""
        pin.framesForwardKinematics(self._model, self._data, q)
        placements = self._data.oMf
        return {
            name: Transform(placements[i].translation.copy(), placements[i].rotation.copy())
            for name, i in self._links.items()
        }

    def jacobian(self, q: Array) -> Array:
        """(6, 7): joint velocities -> (linear m/s, angular rad/s) of the tcp, along the base axes."""
        jacobian = pin.computeFrameJacobian(
            self._model,
            self._data,
            q,
            self._tcp,
            pin.ReferenceFrame.LOCAL_WORLD_ALIGNED,
        )
        return np.asarray(jacobian)

    def condition(self, q: Array) -> float:
        """Condition number of the Jacobian (m and rad mixed, as MoveIt Servo counts it)."""
        return _condition(self.jacobian(q))

    def ik(
        self,
        T_base_tcp: Transform,
        seed: Array,
        *,
        iterations: int = 100,
        tolerance: tuple[float, float] = (1e-4, 1e-3),
        restarts: int = 0,
    ) -> IkResult:
        """Find joints that put the tcp at a pose: damped least squares, posture in the null space.

        Args:
            T_base_tcp: Wanted pose.
            seed: (7,) rad, where to start; the answer stays on its branch.
            iterations: Most steps from one start.
            tolerance: Metres and radians that count as reached.
            restarts: Further starts after a failure: home, null posture, then postures drawn from a
                fixed sequence. For planning; tracking keeps 0.

        Returns:
            The first result within tolerance, else the nearest found (``ok`` False).
        """
        best = self._solve(T_base_tcp, np.asarray(seed, np.float64), iterations, tolerance)
        if not restarts:
            return best  # before a generator is made: that takes a sixth of an answer's time
        rng = np.random.default_rng(0)
        for attempt in range(restarts):
            if best.ok:
                break
            if attempt < 2:
                start = (self.home, self.null_posture)[attempt]
            else:
                start = rng.uniform(self.lower, self.upper)
            result = self._solve(T_base_tcp, start, iterations, tolerance)
            if result.ok or result.position_error < best.position_error:
                best = result
        return best

    def _solve(
        self,
        target: Transform,
        seed: Array,
        iterations: int,
        tolerance: tuple[float, float],
    ) -> IkResult:
        model, data, frame = self._model, self._data, self._tcp
        goal = pin.SE3(target.rotation, target.translation)
        q = np.clip(seed, self.lower, self.upper)
        step = 0
        while True:
            pin.computeJointJacobians(model, data, q)
            placement = pin.updateFramePlacement(model, data, frame)
            jacobian = pin.getFrameJacobian(model, data, frame, pin.ReferenceFrame.LOCAL)
            motion = pin.log6(placement.actInv(goal))
            error = motion.vector
            position = float(np.sqrt(error[:3] @ error[:3]))
            rotation = float(np.sqrt(error[3:] @ error[3:]))
            ok = position <= tolerance[0] and rotation <= tolerance[1]
            if ok or step >= iterations:
                break
            damping = _DAMPING_FLOOR + _DAMPING_GAIN * float(error @ error)
            pull = _POSTURE_GAIN * (self.null_posture - q)
            dq = _damped_step(jacobian, error, pull, damping)
            # A joint at its limit that is pushed outwards takes no part: the others do its share.
            blocked = ((q <= self.lower) & (dq < 0)) | ((q >= self.upper) & (dq > 0))
            if blocked.any():
                free = ~blocked
                dq = np.where(free, _damped_step(jacobian * free, error, pull * free, damping), 0.0)
            largest = float(np.abs(dq).max())
            if largest > _MAX_STEP:
                dq *= _MAX_STEP / largest
            q = np.minimum(np.maximum(q + dq, self.lower), self.upper)
            step += 1
        return IkResult(q, ok, position, rotation, step, jacobian)

    def body_capsules(self, q: Array, gripper_width: float) -> tuple[Array, Array, Array]:
        """The robot's own body, gripper and fingers included, as capsules.

        Args:
            q: (7,) rad.
            gripper_width: Metres between the pads.

        Returns:
            (C, 3) starts, (C, 3) ends, (C,) radii, metres, base frame: first the capsules of
            ``capsule_links`` in order, then the fingers.
        """
        pin.framesForwardKinematics(self._model, self._data, q)
        placements = self._data.oMf
        n = len(self._capsule_frames)
        fingers = self.gripper.capsules(gripper_width)
        ends = np.empty((n + len(fingers[2]), 2, 3))
        frames = np.stack([placements[frame].homogeneous for frame in self._capsule_frames])
        ends[:n] = self._capsule_local @ frames[:, :3, :3].transpose(0, 2, 1) + frames[:, None, :3, 3]
        tcp = placements[self._tcp].homogeneous
        ends[n:] = np.stack(fingers[:2], axis=1) @ tcp[:3, :3].T + tcp[:3, 3]
        return ends[:, 0], ends[:, 1], self._all_radius

    def bodies(self, joints: Array, gripper_widths: Array) -> Bodies:
        """``body_capsules`` and ``finger_tips`` in many postures: 30 us each, where one by one they take 200.

        Args:
            joints: (S, 7) rad.
            gripper_widths: (S,) metres between the pads.
        """
        frames = [*self._capsule_frames, self._tcp]
        known = sorted(set(frames))
        placements = np.empty((len(joints), len(known), 4, 4))
        for s, q in enumerate(joints):
            pin.framesForwardKinematics(self._model, self._data, q)
            for k, frame in enumerate(known):
                placements[s, k] = self._data.oMf[frame].homogeneous
        at = placements[:, [known.index(frame) for frame in frames]]
        widths, which = np.unique(gripper_widths, return_inverse=True)
        shapes = [(*self.gripper.capsules(w)[:2], self.gripper.tips(w)) for w in widths.tolist()]
        start, end, tips = (np.stack(rows)[which] for rows in zip(*shapes, strict=True))
        n = len(self._capsule_frames)
        ends = np.empty((len(joints), len(self._all_radius), 2, 3))
        ends[:, :n] = self._capsule_local @ at[:, :n, :3, :3].swapaxes(2, 3) + at[:, :n, None, :3, 3]
        turn, place = at[:, n, :3, :3].swapaxes(1, 2), at[:, n, None, :3, 3]
        ends[:, n:, 0], ends[:, n:, 1] = start @ turn + place, end @ turn + place
        return Bodies(ends[:, :, 0], ends[:, :, 1], self._all_radius, tips @ turn + place)

    def finger_tips(self, T_base_tcp: Transform, gripper_width: float) -> Array:
        """(8, 3) metres, base frame: outermost corners of the pads."""
        return T_base_tcp.apply(self.gripper.tips(gripper_width))
