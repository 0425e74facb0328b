"""Waypoints by themselves: where they lie, what they touch, what they project to."""

from __future__ import annotations

import numpy as np

from bridgevla_ros.core.camera import project
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.safety import EnvelopeConfig, tips_over
from bridgevla_ros.core.types import Role, WaypointKind
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.gate.draft import Draft

PLACE_REPROJECTION = 3.0
"""A place is wide: its middle may lie this many times further from its anchor than a thing's."""


def check_finite(draft: Draft) -> None:
    """Numbers are numbers."""
    for i, (waypoint, pose) in enumerate(zip(draft.waypoints, draft.poses_base, strict=True)):
        numbers = np.concatenate([pose.translation, pose.rotation.ravel(), waypoint.contact_offset])
        if not np.isfinite(numbers).all():
            raise BridgeError(
                ErrorCode.OUT_OF_RANGE,
                f"{draft.name(i)} is not finite: {pose.translation.tolist()}",
                remedy="take a model that writes numbers, and check the camera's pose",
            )


def check_workspace(draft: Draft, config: PlannerConfig) -> None:
    """Every waypoint lies in the workspace box."""
    low, high = np.array(config.workspace_min), np.array(config.workspace_max)
    for i, pose in enumerate(draft.poses_base):
        position = pose.translation
        for axis in range(3):
            below, above = position[axis] < low[axis], position[axis] > high[axis]
            if below or above:
                raise BridgeError(
                    ErrorCode.OUT_OF_WORKSPACE,
                    f"{draft.name(i)} has {'xyz'[axis]} = {position[axis]:.3f} m",
                    value=float(position[axis]),
                    limit=float(low[axis] if below else high[axis]),
                    unit="m",
                    remedy="move the thing or the place into the workspace",
                )


def check_support(draft: Draft, arm: ArmModel) -> None:
    """The finger tips stay above what things stand on, as the streamer will demand."""
    clearance = EnvelopeConfig().tip_clearance
    for i, (waypoint, pose) in enumerate(zip(draft.waypoints, draft.poses_base, strict=True)):
        found = tips_over(arm.finger_tips(pose, waypoint.gripper_width), draft.support, clearance)
        if found.margin < 0.0:
            raise BridgeError(
                found.code,
                f"at {draft.name(i)} {found.message}, {-1000 * found.value:.0f} mm deep",
                value=found.value,
                limit=found.limit,
                unit=found.unit,
                remedy="check the camera's calibration and depth, and the parameter table_height",
            )


def check_reprojection(draft: Draft, config: PlannerConfig) -> None:
    """Contacts project to where their anchors are."""
    scale = draft.intrinsics.width / 320.0
    T_camera_base = draft.T_base_camera.inverse()
    contacts = [
        pose.apply(waypoint.contact_offset)
        for waypoint, pose in zip(draft.waypoints, draft.poses_base, strict=True)
        if waypoint.kind == WaypointKind.CONTACT
    ]
    for anchor, made_at in zip(draft.anchors, contacts, strict=False):
        place = anchor.role == Role.DESTINATION
        point = T_camera_base.apply(made_at - (draft.beside if place else 0.0))
        if point[2] <= 0.0:
            raise BridgeError(
                ErrorCode.REPROJECTION,
                f"the contact for {anchor.label!r} lies behind the camera",
                value=float(point[2]),
                limit=0.0,
                unit="m",
                remedy="check the camera's pose and depth",
            )
        distance = float(np.linalg.norm(project(point[None], draft.intrinsics)[0] - anchor.pixel))
        wide = PLACE_REPROJECTION if place else 1.0
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
