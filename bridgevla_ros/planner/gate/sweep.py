"""The arm's postures all along the path that the waypoints stand for, and how fast they would follow."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel, Bodies, IkResult, conditions
from bridgevla_ros.core.trajectory import Route, TrajectoryConfig, TrajectoryGenerator
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.gate.draft import Draft

SPACING, TURN = 0.02, 0.15
"""Metres and radians between the postures that are looked at (our choice): a finger is 18 mm thick."""

TOLERANCE = (5e-4, 2e-3)
"""Metres and radians that a posture may miss the path by."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """Postures along a path.

    Attributes:
        joints: (S, 7) rad.
        widths: (S,) metres between the pads.
        toward: (S,) index of the waypoint that each is on the way to.
        poses: S poses of the TCP, base frame.
    """

    joints: Array
    widths: Array
    toward: NDArray[np.int64]
    poses: list[Transform]

    _bodies: list[Bodies] = field(default_factory=list, init=False, repr=False)

    def at(self, chosen: NDArray[np.bool_]) -> Sweep:
        """Some of the postures, by an (S,) mask."""
        poses = [pose for pose, kept in zip(self.poses, chosen, strict=True) if kept]
        some = Sweep(self.joints[chosen], self.widths[chosen], self.toward[chosen], poses)
        some._bodies.extend(bodies.at(chosen) for bodies in self._bodies)
        return some

    def bodies(self, arm: ArmModel) -> Bodies:
        """The arm's body in each posture; worked out once."""
        if not self._bodies:
            self._bodies.append(arm.bodies(self.joints, self.widths))
        return self._bodies[0]


def check_path(draft: Draft, config: PlannerConfig, arm: ArmModel) -> Sweep:
    """The arm can follow the path from where it is, without a jump, a singularity or too much speed.

    Raises:
        BridgeError: UNREACHABLE, SINGULARITY, TOO_FAST; OUT_OF_WORKSPACE, BAD_INPUT of the path itself.
    """
    q, width = draft.joints.position, draft.joints.gripper_width
    limits = TrajectoryConfig(
        workspace_min=config.workspace_min,
        workspace_max=config.workspace_max,
        table_height=config.table_height,
    )
    route = TrajectoryGenerator(limits).route(draft.waypoints, draft.T_base_camera, arm.fk(q), width)
    poses, widths, toward = _samples(route)
    found: list[IkResult] = []
    for pose in poses:
        found.append(arm.ik(pose, found[-1].q if found else q, tolerance=TOLERANCE))
        if not found[-1].ok:
            break
    joints = np.array([result.q for result in found])
    condition = conditions(np.array([result.jacobian for result in found]))
    share = _speed_shares(poses[: len(found)], joints, arm, limits)
    bad = ~np.array([result.ok for result in found]) | (condition > config.max_condition)
    bad |= share.max(1) > config.max_joint_speed
    if bad.any():
        i = int(bad.argmax())
        at = f"on the way to {draft.name(int(toward[i]))}, at {np.round(poses[i].translation, 3).tolist()} m,"
        raise _refusal(at, found[i], float(condition[i]), share[i], arm, config)
    return Sweep(joints, widths, toward, poses)


def _refusal(
    at: str, result: IkResult, condition: float, share: Array, arm: ArmModel, config: PlannerConfig
) -> BridgeError:
    """What is wrong with one posture."""
    if not result.ok:
        return BridgeError(
            ErrorCode.UNREACHABLE,
            f"{at} the arm comes no nearer than {1000 * result.position_error:.0f} mm and "
            f"{np.degrees(result.rotation_error):.0f} degrees",
            value=result.position_error,
            limit=TOLERANCE[0],
            unit="m",
            remedy="move the thing or the place nearer to the middle of the table",
        )
    if condition > config.max_condition:
        return BridgeError(
            ErrorCode.SINGULARITY,
            f"{at} the arm is next to a singularity",
            value=condition,
            limit=config.max_condition,
            remedy="move the thing or the place",
        )
    worst = int(share.argmax())
    return BridgeError(
        ErrorCode.TOO_FAST,
        f"{at} {arm.joint_names[worst]} would need {share[worst]:.1f} times its speed",
        value=float(share[worst] * arm.velocity_limit[worst]),
        limit=float(config.max_joint_speed * arm.velocity_limit[worst]),
        unit="rad/s",
        remedy="turn the thing, or move it away from the arm's base and from the edge of its reach",
    )


def _samples(route: Route) -> tuple[list[Transform], Array, NDArray[np.int64]]:
    """Poses along a route no farther apart than ``SPACING`` and ``TURN``, pad widths, waypoints ahead."""
    poses, widths, toward = [], [], []
    for path, first, last in route.pieces:
        dense = np.linspace(0.0, path.end, 32 * (last - first) + 1)
        moved = np.linalg.norm(np.diff(path.position(dense), axis=0), axis=1)
        quats = path.quat(dense)
        alike = np.clip(np.abs(np.einsum("ij,ij->i", quats[1:], quats[:-1])), 0.0, 1.0)
        steps = np.concatenate([[0.0], np.maximum(moved / SPACING, 2.0 * np.arccos(alike) / TURN).cumsum()])
        even = np.linspace(0.0, steps[-1], int(np.ceil(max(steps[-1], 1.0))) + 1)
        u = np.union1d(np.interp(even, steps, dense), path.knots)
        leg, _ = path.legs(u)
        turns = Rotation.from_quat(path.quat(u)).as_matrix()
        for position, turn, k in zip(path.position(u), turns, leg, strict=True):
            poses.append(Transform(position, turn))
            widths.append(route.widths[first + int(k)])
            toward.append(max(first + int(k) + 1 - route.before, 0))
    return poses, np.array(widths), np.array(toward, np.int64)


def _speed_shares(poses: list[Transform], joints: Array, arm: ArmModel, limits: TrajectoryConfig) -> Array:
    """(S, 7) speed of each joint, in its limits, on the way to each posture when the TCP goes at its own."""
    position, turn = np.array([p.translation for p in poses]), np.array([p.rotation for p in poses])
    distance = np.linalg.norm(np.diff(position, axis=0), axis=1)
    cosine = (np.einsum("sij,sij->s", turn[:-1], turn[1:]) - 1.0) / 2.0
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    period = np.maximum(
        np.maximum(distance / limits.max_speed, angle / limits.max_angular_speed), limits.sample_period
    )
    share = np.abs(np.diff(joints, axis=0)) / period[:, None] / arm.velocity_limit
    return np.concatenate([np.zeros((1, joints.shape[1])), share])
