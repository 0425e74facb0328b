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

NEAR_ANCHOR = 0.08
"""Share of the image's width on each side of an anchor that ``check_depth`` looks at."""

UNDER, MOST_UNDER = 0.015, 0.25
"""Metres under the support, and the share of points there that is still believed (our choice)."""

INTO_SUPPORT = 0.006
"""Metres below the seen plane that the finger tips may reach: error of plane and grasp (our choice)."""


@dataclass(frozen=True, eq=False)
class Draft:
    """What the checks look at: waypoints with their poses in the base frame, and anchors.

    Attributes:
        support: Metres, height of the plane that things stand on, as seen.
    """

    waypoints: tuple[Waypoint, ...]
    poses_base: tuple[Transform, ...]
    anchors: tuple[Keypoint, ...]
    intrinsics: CameraIntrinsics
    T_base_camera: Transform
    support: float


def check(draft: Draft, config: PlannerConfig, arm: ArmModel) -> tuple[str, ...]:
    """Run all checks in order; returns their names.

    Raises:
        BridgeError: Of the first check that fails, with value and limit.
    """
    check_finite(draft)
    check_workspace(draft, config)
    check_support(draft, arm)
    check_reprojection(draft, config)
    check_reachable(draft, config, arm)
    return ("finite", "workspace", "support", "reprojection", "reachable")


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


def check_depth(points_base: Array, support: float, anchors: tuple[Keypoint, ...]) -> None:
    """Next to an anchor hardly anything is measured under what things stand on.

    Args:
        points_base: (H, W, 3) metres, NaN where depth fails.
        support: Metres.
        anchors: Of the plan.
    """
    reach = max(round(points_base.shape[1] * NEAR_ANCHOR), 1)
    for anchor in anchors:
        u, v = np.round(anchor.pixel).astype(int)
        z = points_base[max(v - reach, 0) : v + reach + 1, max(u - reach, 0) : u + reach + 1, 2]
        z = z[np.isfinite(z) & (z > support - 0.15)]  # what is lower lies beside the table
        under = float((z < support - UNDER).mean()) if z.size else 0.0
        if under > MOST_UNDER:
            raise BridgeError(
                ErrorCode.DEPTH_HOLE,
                f"{100 * under:.0f}% of the points around {anchor.label!r} are measured under the table",
                value=under,
                limit=MOST_UNDER,
                remedy="depth is wrong there: look for glass, reflections and a second depth camera",
            )


def check_support(draft: Draft, arm: ArmModel) -> None:
    """The finger tips stay above what things stand on."""
    for i, (waypoint, pose) in enumerate(zip(draft.waypoints, draft.poses_base, strict=True)):
        lowest = float(arm.finger_tips(pose, waypoint.gripper_width)[:, 2].min())
        if lowest < draft.support - INTO_SUPPORT:
            raise BridgeError(
                ErrorCode.COLLISION,
                f"at waypoint {i} ({waypoint.kind.name.lower()}) the fingers would go "
                f"{1000 * (draft.support - lowest):.0f} mm into the table",
                value=lowest,
                limit=draft.support - INTO_SUPPORT,
                unit="m",
                remedy="check the camera's calibration and depth, and the parameter table_height",
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
