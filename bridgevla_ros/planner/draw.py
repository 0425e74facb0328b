"""A plan drawn back on the image that it was made from."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.camera import project
from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import GripperEvent, Guidance, Role, WaypointPlan

_COLOURS = {Role.SOURCE: (255, 210, 0), Role.DESTINATION: (0, 220, 255)}
_EVENTS = {
    GripperEvent.NONE: (235, 235, 235),
    GripperEvent.OPEN: (80, 255, 80),
    GripperEvent.CLOSE: (255, 70, 70),
}


def annotate(
    rgb: NDArray[np.uint8], plan: WaypointPlan, guidance: Guidance | None = None
) -> NDArray[np.uint8]:
    """Draw anchors, waypoints and path, and the words of plan or refusal.

    Args:
        rgb: (H, W, 3) uint8, the image that the plan was made from; is not changed.
        plan: Plan or refusal.
        guidance: Its spline; without one, waypoints are joined by straight lines.

    Returns:
        (H', W', 3) uint8; small images are doubled so that the words can be read.
    """
    scale = 2 if rgb.shape[1] < 500 else 1
    image = rgb.copy()
    if scale > 1:
        image = np.asarray(
            cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR), np.uint8
        )
    T_camera_base = plan.T_base_camera.inverse()
    if guidance is not None and len(guidance.position):
        path = _pixels(T_camera_base.apply(guidance.position), plan, scale)
    elif plan.waypoints:
        path = _pixels(np.array([w.T_camera_tcp.translation for w in plan.waypoints]), plan, scale)
    else:
        path = np.zeros((0, 2), np.int32)
    if len(path) > 1:
        cv2.polylines(image, [path.reshape(-1, 1, 2)], False, (255, 255, 255), 3, cv2.LINE_AA)
        cv2.polylines(image, [path.reshape(-1, 1, 2)], False, (40, 90, 255), 1, cv2.LINE_AA)
    for i, waypoint in enumerate(plan.waypoints):
        u, v = _pixels(waypoint.T_camera_tcp.translation[None], plan, scale)[0]
        cv2.circle(image, (int(u), int(v)), 5, (0, 0, 0), -1, cv2.LINE_AA)
        cv2.circle(image, (int(u), int(v)), 4, _EVENTS[waypoint.gripper_event], -1, cv2.LINE_AA)
        half = 0.5 * max(waypoint.gripper_width, 0.02) * waypoint.T_camera_tcp.rotation[:, 1]
        ends = waypoint.T_camera_tcp.translation + np.array([-half, half])
        if waypoint.gripper_event != GripperEvent.NONE:
            a, b = _pixels(ends, plan, scale)
            cv2.line(
                image,
                (int(a[0]), int(a[1])),
                (int(b[0]), int(b[1])),
                _EVENTS[waypoint.gripper_event],
                2,
                cv2.LINE_AA,
            )
        _write(image, str(i), (int(u) + 6, int(v) - 5), 0.4)
    for anchor in plan.anchors:
        u, v = (round(scale * float(x)) for x in anchor.pixel)
        cv2.drawMarker(image, (u, v), (0, 0, 0), cv2.MARKER_TILTED_CROSS, 16, 4)
        cv2.drawMarker(image, (u, v), _COLOURS[anchor.role], cv2.MARKER_TILTED_CROSS, 14, 2)
        _write(image, f"{anchor.label} {anchor.confidence:.2f}", (u + 9, v + 14), 0.45)
    words = plan.subgoal or plan.instruction
    _write(image, words[:90], (8, 18), 0.5)
    if plan.code != ErrorCode.NONE:
        _write(image, f"{plan.code.name}: {plan.message}"[:110], (8, 38), 0.45, (255, 120, 120))
    elif not plan.waypoints:
        _write(image, plan.message[:110], (8, 38), 0.45, (140, 255, 140))
    return image


def _pixels(points_camera: Array, plan: WaypointPlan, scale: int) -> NDArray[np.int32]:
    safe = np.array(points_camera, np.float64)
    safe[:, 2] = np.maximum(safe[:, 2], 0.05)
    limits = 20.0 * np.array([plan.intrinsics.width, plan.intrinsics.height])
    return np.round(np.clip(scale * project(safe, plan.intrinsics), -limits, limits)).astype(np.int32)


def _write(
    image: NDArray[np.uint8],
    text: str,
    at: tuple[int, int],
    size: float,
    colour: tuple[int, int, int] = (255, 255, 255),
) -> None:
    plain = text.encode("ascii", "replace").decode()
    for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (1, 1), (-1, 1), (1, -1)):
        shadow = (at[0] + dx, at[1] + dy)
        cv2.putText(image, plain, shadow, cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.putText(image, plain, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)
