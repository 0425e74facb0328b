"""Named checks that every plan passes before anybody hears of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bridgevla_ros.core.camera import project
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import CameraIntrinsics, Keypoint, Role, Waypoint, WaypointKind
from bridgevla_ros.planner.config import PlannerConfig

PLACE_REPROJECTION = 3.0
"""A place is wide: its middle may lie this many times further from its anchor than a thing's."""


@dataclass(frozen=True, eq=False)
class Draft:
    """What the checks look at: waypoints with their poses in the base frame, and anchors."""

    waypoints: tuple[Waypoint, ...]
    poses_base: tuple[Transform, ...]
    anchors: tuple[Keypoint, ...]
    intrinsics: CameraIntrinsics
    T_base_camera: Transform


def check(draft: Draft, config: PlannerConfig, arm: ArmModel) -> tuple[str, ...]:
    """Run all checks in order; returns their names.

    Raises:
        BridgeError: Of the first check that fails, with value and limit.
    """
    check_finite(draft)
    check_workspace(draft, config)
    check_reprojection(draft, config)
    check_reachable(draft, config, arm)
    return ("finite", "workspace", "reprojection", "reachable")


def check_finite(draft: Draft) -> None:
    """Numbers are numbers."""
    for i, pose in enumerate(draft.poses_base):
        if not (np.isfinite(pose.translation).all() and np.isfinite(pose.rotation).all()):
            raise BridgeError(ErrorCode.OUT_OF_RANGE, f"waypoint {i} is not finite: {pose.translation}")


def check_workspace(draft: Draft, config: PlannerConfig) -> None:
    """Every waypoint lies in the workspace box."""
    low, high = np.array(config.workspace_min), np.array(config.workspace_max)
    for i, (waypoint, pose) in enumerate(zip(draft.waypoints, draft.poses_base, strict=True)):
        position = pose.translation
        for axis in range(3):
            below, above = position[axis] < low[axis], position[axis] > high[axis]
            if below or above:
                raise BridgeError(
                    ErrorCode.OUT_OF_WORKSPACE,
                    f"waypoint {i} ({waypoint.kind.name.lower()}) has {'xyz'[axis]} = {position[axis]:.3f} m",
                    value=float(position[axis]),
                    limit=float(low[axis] if below else high[axis]),
                    unit="m",
                    remedy="move the thing or the place into the workspace",
                )


def check_reprojection(draft: Draft, config: PlannerConfig) -> None:
    """Contacts project to where their anchors are."""
    scale = draft.intrinsics.width / 320.0
    T_camera_base = draft.T_base_camera.inverse()
    contacts = [
        p for w, p in zip(draft.waypoints, draft.poses_base, strict=True) if w.kind == WaypointKind.CONTACT
    ]
    for anchor, pose in zip(draft.anchors, contacts, strict=False):
        point = T_camera_base.apply(pose.translation)
        if point[2] <= 0.0:
            raise BridgeError(
                ErrorCode.REPROJECTION, f"the contact for {anchor.label!r} lies behind the camera"
            )
        distance = float(np.linalg.norm(project(point[None], draft.intrinsics)[0] - anchor.pixel))
        wide = PLACE_REPROJECTION if anchor.role == Role.DESTINATION else 1.0
        limit = config.max_reprojection * scale * wide
        if distance > limit:
            raise BridgeError(
                ErrorCode.REPROJECTION,
                f"the contact for {anchor.label!r} projects {distance:.0f} px from its anchor",
                value=distance,
                limit=limit,
                unit="px",
                remedy="check the camera's calibration and depth",
            )


def check_reachable(draft: Draft, config: PlannerConfig, arm: ArmModel) -> Array:
    """The arm reaches every waypoint, one after the other; returns (W, 7) rad."""
    joints, q = [], arm.home
    for i, (waypoint, pose) in enumerate(zip(draft.waypoints, draft.poses_base, strict=True)):
        result = arm.ik(pose, q, restarts=2)
        where = f"waypoint {i} ({waypoint.kind.name.lower()}) at {np.round(pose.translation, 3).tolist()} m"
        if not result.ok:
            raise BridgeError(
                ErrorCode.UNREACHABLE,
                f"{where} is out of the arm's reach by {1000 * result.position_error:.0f} mm",
                value=result.position_error,
                limit=1e-4,
                unit="m",
                remedy="move the thing or the place nearer to the middle of the table",
            )
        if result.condition > config.max_condition:
            raise BridgeError(
                ErrorCode.SINGULARITY,
                f"{where} is next to a singularity",
                value=result.condition,
                limit=config.max_condition,
                remedy="move the thing or the place",
            )
        q = result.q
        joints.append(q)
    return np.array(joints)
