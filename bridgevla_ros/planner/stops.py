"""Where the hand goes, before it is a plan: stops in the base frame, and the postures that do the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from bridgevla_ros.core.camera import project
from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import CameraIntrinsics, GripperEvent, Keypoint, Waypoint, WaypointKind

HALF_TURN = np.diag([-1.0, -1.0, 1.0])
"""About the TCP's own z."""

POSTURE = frozenset((ErrorCode.UNREACHABLE, ErrorCode.SINGULARITY, ErrorCode.TOO_FAST, ErrorCode.COLLISION))
"""What a path may be refused for that another posture of the hand may not be refused for."""


@dataclass(frozen=True, eq=False)
class Stop:
    """A waypoint in the making, base frame."""

    pose: Transform
    kind: WaypointKind
    event: GripperEvent
    width: float
    anchor: int
    exact: bool = False
    beside: Array = field(default_factory=lambda: np.zeros(3))
    """(3,) metres, ``Release.beside``."""


def by_either_hand(stops: tuple[Stop, ...]) -> Iterator[tuple[Stop, ...]]:
    """The same stops, and with the hand turned half a turn about its approach axis: the fingers are alike.

    It is turned at all the stops of an anchor together. What was chosen comes first, then one anchor turned,
    the last one first, then both.
    """
    anchors = sorted({stop.anchor for stop in stops})
    for turned in product((False, True), repeat=len(anchors)):
        which = {anchor for anchor, is_turned in zip(anchors, turned, strict=True) if is_turned}
        yield tuple(
            dataclasses.replace(s, pose=Transform(s.pose.translation, s.pose.rotation @ HALF_TURN))
            if s.anchor in which
            else s
            for s in stops
        )


def waypoints_of(
    stops: tuple[Stop, ...],
    anchors: tuple[Keypoint, ...],
    intrinsics: CameraIntrinsics,
    T_base_camera: Transform,
) -> tuple[Waypoint, ...]:
    """Stops as a plan tells them: in the camera's frame, with what is known of their anchors."""
    T_camera_base = T_base_camera.inverse()
    out = []
    for stop in stops:
        pose = T_camera_base @ stop.pose
        pixel = project(pose.translation[None], intrinsics)[0]
        out.append(
            Waypoint(
                T_camera_tcp=pose,
                kind=stop.kind,
                gripper_event=stop.event,
                gripper_width=stop.width,
                pixel=pixel,
                depth=float(pose.translation[2]),
                confidence=anchors[stop.anchor].confidence,
                position_sigma=max(anchors[stop.anchor].sigma, 0.003),
                exact=stop.exact,
            )
        )
    return tuple(out)
