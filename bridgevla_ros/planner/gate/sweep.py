"""The arm's postures all along the path that the waypoints stand for, and how fast they would follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
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

    def at(self, chosen: NDArray[np.bool_]) -> Sweep:
        """Some of the postures, by an (S,) mask."""
        poses = [pose for pose, kept in zip(self.poses, chosen, strict=True) if kept]
        return Sweep(self.joints[chosen], self.widths[chosen], self.toward[chosen], poses)


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
    joints = np.empty((len(poses), len(q)))
    for i, pose in enumerate(poses):
        result = arm.ik(pose, q, tolerance=TOLERANCE)
        at = f"on the way to {draft.name(int(toward[i]))}, at {np.round(pose.translation, 3).tolist()} m,"
        if not result.ok:
            raise BridgeError(
                ErrorCode.UNREACHABLE,
                f"{at} the arm comes no nearer than {1000 * result.position_error:.0f} mm and "
                f"{np.degrees(result.rotation_error):.0f} degrees",
                value=result.position_error,
                limit=TOLERANCE[0],
                unit="m",
                remedy="move the thing or the place nearer to the middle of the table",
            )
        if result.condition > config.max_condition:
            raise BridgeError(
                ErrorCode.SINGULARITY,
                f"{at} the arm is next to a singularity",
                value=result.condition,
                limit=config.max_condition,
                remedy="move the thing or the place",
            )
        if i:
            _check_speed(at, poses[i - 1], pose, result.q - q, arm, config, limits)
        q = joints[i] = result.q
    return Sweep(joints, widths, toward, poses)


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
        for position, quat, k in zip(path.position(u), path.quat(u), leg, strict=True):
            poses.append(Transform.from_quat(position, quat))
            widths.append(route.widths[first + int(k)])
            toward.append(max(first + int(k) + 1 - route.before, 0))
    return poses, np.array(widths), np.array(toward, np.int64)


def _check_speed(
    at: str,
    before: Transform,
    pose: Transform,
    step: Array,
    arm: ArmModel,
    config: PlannerConfig,
    limits: TrajectoryConfig,
) -> None:
    """Joints need no more speed than ``max_joint_speed`` times their limit when the TCP goes at its own."""
    distance = float(np.linalg.norm(pose.translation - before.translation))
    cosine = (float(np.sum(before.rotation * pose.rotation)) - 1.0) / 2.0
    turn = float(np.arccos(min(max(cosine, -1.0), 1.0)))
    period = max(distance / limits.max_speed, turn / limits.max_angular_speed, limits.sample_period)
    share = np.abs(step) / period / arm.velocity_limit
    worst = int(share.argmax())
    if share[worst] > config.max_joint_speed:
        raise BridgeError(
            ErrorCode.TOO_FAST,
            f"{at} {arm.joint_names[worst]} would need {share[worst]:.1f} times its speed",
            value=float(share[worst] * arm.velocity_limit[worst]),
            limit=float(config.max_joint_speed * arm.velocity_limit[worst]),
            unit="rad/s",
            remedy="turn the thing, or move it away from the arm's base and from the edge of its reach",
        )
