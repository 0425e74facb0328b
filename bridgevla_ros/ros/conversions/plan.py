"""Plan requests, waypoint plans and guidance."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TypeVar

import numpy as np
from bridgevla.msg import Guidance as GuidanceMsg
from bridgevla.msg import Keypoint as KeypointMsg
from bridgevla.msg import PlanRequest as PlanRequestMsg
from bridgevla.msg import Waypoint as WaypointMsg
from bridgevla.msg import WaypointPlan as WaypointPlanMsg
from geometry_msgs.msg import Point, PoseStamped, Twist, Vector3
from nav_msgs.msg import Path
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import (
    CameraIntrinsics,
    GripperEvent,
    Guidance,
    Keypoint,
    PlanRequest,
    Role,
    Waypoint,
    WaypointKind,
    WaypointPlan,
)
from bridgevla_ros.ros.conversions.common import (
    code_from_msg,
    floats,
    header,
    optional_stamp_from_msg,
    optional_stamp_to_msg,
    point_from_msg,
    point_to_msg,
    pose_from_msg,
    pose_to_msg,
    poses_from_msg,
    poses_to_msg,
    stamp_from_msg,
    transform_from_msg,
    transform_to_msg,
)
from bridgevla_ros.ros.conversions.sensors import intrinsics_from_msg, intrinsics_to_msg

_E = TypeVar("_E", bound=IntEnum)


def plan_request_to_msg(request: PlanRequest, frame: str = "base_link") -> PlanRequestMsg:
    """One sub-goal for the planner."""
    return PlanRequestMsg(
        header=header(request.stamp, frame),
        task_id=request.task_id,
        request_id=request.request_id,
        instruction=request.instruction,
        step=request.step,
        attempt=request.attempt,
        seed=request.seed,
    )


def plan_request_from_msg(msg: PlanRequestMsg) -> PlanRequest:
    """One sub-goal for the planner."""
    return PlanRequest(
        stamp_from_msg(msg.header.stamp),
        msg.task_id,
        msg.request_id,
        msg.instruction,
        msg.step,
        msg.attempt,
        msg.seed,
    )


def keypoint_to_msg(keypoint: Keypoint) -> KeypointMsg:
    """Anchor; pixel, depth, sigma and confidence travel as float32."""
    return KeypointMsg(
        role=int(keypoint.role),
        label=keypoint.label,
        pixel=np.asarray(keypoint.pixel, np.float32),
        depth=float(keypoint.depth),
        position=point_to_msg(keypoint.position_camera),
        sigma=float(keypoint.sigma),
        confidence=float(keypoint.confidence),
    )


def keypoint_from_msg(msg: KeypointMsg) -> Keypoint:
    """Anchor."""
    return Keypoint(
        _member(Role, msg.role, "role"),
        msg.label,
        floats(msg.pixel),
        msg.depth,
        point_from_msg(msg.position),
        msg.sigma,
        msg.confidence,
    )


def waypoint_to_msg(waypoint: Waypoint) -> WaypointMsg:
    """Waypoint; the isotropic sigma becomes a diagonal covariance."""
    return WaypointMsg(
        pose=pose_to_msg(waypoint.T_camera_tcp),
        position_covariance=(np.eye(3) * waypoint.position_sigma**2).reshape(9),
        gripper_width=float(waypoint.gripper_width),
        gripper_event=int(waypoint.gripper_event),
        kind=int(waypoint.kind),
        pixel=np.asarray(waypoint.pixel, np.float32),
        depth=float(waypoint.depth),
        confidence=float(waypoint.confidence),
        orientation_valid=bool(waypoint.orientation_valid),
        exact=bool(waypoint.exact),
        contact_offset=point_to_msg(waypoint.contact_offset),
    )


def waypoint_from_msg(msg: WaypointMsg) -> Waypoint:
    """Waypoint; sigma is the root of the mean of the covariance's diagonal."""
    covariance = floats(msg.position_covariance).reshape(3, 3)
    return Waypoint(
        pose_from_msg(msg.pose),
        _member(WaypointKind, msg.kind, "kind"),
        _member(GripperEvent, msg.gripper_event, "gripper_event"),
        msg.gripper_width,
        floats(msg.pixel),
        msg.depth,
        msg.confidence,
        float(np.sqrt(max(np.trace(covariance) / 3.0, 0.0))),
        msg.orientation_valid,
        msg.exact,
        point_from_msg(msg.contact_offset),
    )


def waypoint_plan_to_msg(plan: WaypointPlan) -> WaypointPlanMsg:
    """Plan or refusal; the waypoints are given in the base frame as well."""
    return WaypointPlanMsg(
        header=header(plan.stamp, plan.camera_frame),
        plan_id=plan.plan_id,
        task_id=plan.task_id,
        request_id=plan.request_id,
        instruction=plan.instruction,
        subgoal=plan.subgoal,
        step=plan.step,
        steps_total=plan.steps_total,
        anchors=[keypoint_to_msg(k) for k in plan.anchors],
        waypoints=[waypoint_to_msg(w) for w in plan.waypoints],
        base_frame=plan.base_frame,
        poses_base=[pose_to_msg(plan.T_base_camera @ w.T_camera_tcp) for w in plan.waypoints],
        base_from_camera=transform_to_msg(plan.T_base_camera),
        camera_info=intrinsics_to_msg(plan.intrinsics, plan.stamp),
        model=plan.model,
        model_sha256=plan.model_sha256,
        seed=plan.seed,
        digest=plan.digest,
        code=int(plan.code),
        message=plan.message,
        candidates=list(plan.candidates),
        null_probability=float(plan.null_probability),
        latency=float(plan.latency),
        color_stamp=optional_stamp_to_msg(plan.color_stamp),
        joint_stamp=optional_stamp_to_msg(plan.joint_stamp),
        computed_at=optional_stamp_to_msg(plan.computed_at),
    )


def waypoint_plan_from_msg(msg: WaypointPlanMsg) -> WaypointPlan:
    """Plan or refusal. A refusal made before any image came has intrinsics of size 0."""
    info = msg.camera_info
    intrinsics = (
        intrinsics_from_msg(info)
        if info.width
        else CameraIntrinsics(0, 0, 0.0, 0.0, 0.0, 0.0, info.header.frame_id)
    )
    return WaypointPlan(
        stamp=stamp_from_msg(msg.header.stamp),
        camera_frame=msg.header.frame_id,
        base_frame=msg.base_frame,
        plan_id=msg.plan_id,
        task_id=msg.task_id,
        request_id=msg.request_id,
        instruction=msg.instruction,
        subgoal=msg.subgoal,
        step=msg.step,
        steps_total=msg.steps_total,
        anchors=tuple(keypoint_from_msg(k) for k in msg.anchors),
        waypoints=tuple(waypoint_from_msg(w) for w in msg.waypoints),
        T_base_camera=transform_from_msg(msg.base_from_camera),
        intrinsics=intrinsics,
        model=msg.model,
        model_sha256=msg.model_sha256,
        seed=msg.seed,
        digest=msg.digest,
        null_probability=msg.null_probability,
        code=code_from_msg(msg.code),
        message=msg.message,
        candidates=tuple(msg.candidates),
        latency=msg.latency,
        color_stamp=optional_stamp_from_msg(msg.color_stamp),
        joint_stamp=optional_stamp_from_msg(msg.joint_stamp),
        computed_at=optional_stamp_from_msg(msg.computed_at),
    )


def guidance_to_msg(guidance: Guidance) -> GuidanceMsg:
    """Timed spline or refusal."""
    return GuidanceMsg(
        header=header(guidance.stamp, guidance.base_frame),
        guidance_id=guidance.guidance_id,
        plan_id=guidance.plan_id,
        task_id=guidance.task_id,
        progress=floats(guidance.progress).tolist(),
        poses=poses_to_msg(guidance.position, guidance.quat),
        twists=[
            Twist(linear=Vector3(x=x, y=y, z=z), angular=Vector3(x=a, y=b, z=c))
            for (x, y, z), (a, b, c) in zip(
                np.asarray(guidance.linear_velocity, float).tolist(),
                np.asarray(guidance.angular_velocity, float).tolist(),
                strict=True,
            )
        ],
        nominal_time=floats(guidance.nominal_time).tolist(),
        kinds=[int(k) for k in guidance.kind],
        event_progress=floats(guidance.event_progress).tolist(),
        gripper_events=[int(e) for e in guidance.events],
        event_widths=floats(guidance.event_width).tolist(),
        contact_positions=[point_to_msg(p) for p in guidance.contact_position],
        contact_progress=floats(guidance.contact_progress).tolist(),
        contact_offsets=[point_to_msg(p) for p in guidance.contact_offset if guidance.contact_offset.any()],
        code=int(guidance.code),
        message=guidance.message,
        value=float(guidance.value),
        limit=float(guidance.limit),
        unit=guidance.unit,
        joint_stamp=optional_stamp_to_msg(guidance.joint_stamp),
        computed_at=optional_stamp_to_msg(guidance.computed_at),
    )


def guidance_from_msg(msg: GuidanceMsg) -> Guidance:
    """Timed spline or refusal.

    Raises:
        BridgeError: BAD_INPUT where the lengths of its sequences disagree or progress does not grow.
    """
    position, quat = poses_from_msg(msg.poses)
    linear = np.array([(t.linear.x, t.linear.y, t.linear.z) for t in msg.twists], float)
    angular = np.array([(t.angular.x, t.angular.y, t.angular.z) for t in msg.twists], float)
    progress = floats(msg.progress)
    samples = {
        len(progress),
        len(position),
        len(msg.twists),
        len(msg.nominal_time),
        len(msg.kinds),
    }
    events = {len(msg.event_progress), len(msg.gripper_events), len(msg.event_widths)}
    positions = _points(msg.contact_positions)
    offsets = _points(msg.contact_offsets) if msg.contact_offsets else np.zeros_like(positions)
    contacts = {len(positions), len(msg.contact_progress), len(offsets)}
    if max(len(samples), len(events), len(contacts)) > 1 or (np.diff(progress) <= 0).any():
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"guidance {msg.guidance_id} is inconsistent: lengths {samples} of samples, {events} of "
            f"events, {contacts} of contacts, or progress that does not grow",
        )
    return Guidance(
        stamp=stamp_from_msg(msg.header.stamp),
        base_frame=msg.header.frame_id,
        guidance_id=msg.guidance_id,
        plan_id=msg.plan_id,
        task_id=msg.task_id,
        progress=progress,
        nominal_time=floats(msg.nominal_time),
        position=position,
        quat=quat,
        linear_velocity=linear.reshape(-1, 3),
        angular_velocity=angular.reshape(-1, 3),
        event_progress=floats(msg.event_progress),
        events=tuple(_member(GripperEvent, e, "gripper event") for e in msg.gripper_events),
        event_width=floats(msg.event_widths),
        kind=np.asarray(msg.kinds, np.int64).reshape(-1),
        contact_position=positions,
        contact_progress=floats(msg.contact_progress),
        contact_offset=offsets,
        code=code_from_msg(msg.code),
        message=msg.message,
        value=msg.value,
        limit=msg.limit,
        unit=msg.unit,
        joint_stamp=optional_stamp_from_msg(msg.joint_stamp),
        computed_at=optional_stamp_from_msg(msg.computed_at),
    )


def _points(points: Sequence[Point]) -> Array:
    return np.array([(p.x, p.y, p.z) for p in points], float).reshape(-1, 3)


def path_to_msg(stamp: float, frame: str, position: Array, quat: Array) -> Path:
    """(K, 3) metres and (K, 4) x, y, z, w to a path, for people."""
    head = header(stamp, frame)
    return Path(
        header=head,
        poses=[PoseStamped(header=head, pose=pose) for pose in poses_to_msg(position, quat)],
    )


def guidance_to_path(guidance: Guidance) -> Path:
    """The spline's samples as a path."""
    return path_to_msg(guidance.stamp, guidance.base_frame, guidance.position, guidance.quat)


_EVENT_COLOUR = {
    GripperEvent.NONE: ColorRGBA(r=0.6, g=0.6, b=0.6, a=1.0),
    GripperEvent.OPEN: ColorRGBA(r=0.1, g=0.7, b=0.2, a=1.0),
    GripperEvent.CLOSE: ColorRGBA(r=0.9, g=0.2, b=0.1, a=1.0),
}


def guidance_to_markers(guidance: Guidance) -> MarkerArray:
    """The spline as a line and a sphere at each gripper event (green opens, red closes).

    A refusal clears what was shown before.
    """
    head = header(guidance.stamp, guidance.base_frame)
    markers = [Marker(header=head, action=Marker.DELETEALL)]
    if len(guidance.position):
        line = Marker(header=head, ns="guidance", id=0, type=Marker.LINE_STRIP, action=Marker.ADD)
        line.pose.orientation.w = 1.0
        line.scale.x = 0.004
        line.color = ColorRGBA(r=0.1, g=0.4, b=0.9, a=1.0)
        line.points = [point_to_msg(p) for p in guidance.position]
        markers.append(line)
    for i, (progress, event) in enumerate(zip(guidance.event_progress, guidance.events, strict=True)):
        sphere = Marker(header=head, ns="events", id=i, type=Marker.SPHERE, action=Marker.ADD)
        at = int(np.argmin(np.abs(guidance.progress - progress)))
        sphere.pose.position = point_to_msg(guidance.position[at])
        sphere.pose.orientation.w = 1.0
        sphere.scale = Vector3(x=0.015, y=0.015, z=0.015)
        sphere.color = _EVENT_COLOUR[event]
        markers.append(sphere)
    return MarkerArray(markers=markers)


def _member(enum: type[_E], value: int, what: str) -> _E:
    try:
        return enum(value)
    except ValueError:
        known = [f"{m.value} {m.name}" for m in enum]
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{what} {value}; expected one of {known}",
            value=float(value),
        ) from None
