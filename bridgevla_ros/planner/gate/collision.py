"""Does the arm, on its way, hit itself, the table or what the camera sees?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.safety import Envelope, EnvelopeConfig
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import GripperEvent, WaypointKind
from bridgevla_ros.perception.kernels import nearest_gaps
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.gate.draft import Draft
from bridgevla_ros.planner.gate.sweep import Sweep
from bridgevla_ros.planner.grasp import segment
from bridgevla_ros.planner.own_body import own_body

ABOVE = 0.015
"""Metres over the support from which a point is an obstacle; the support itself is ``check_body``'s."""

VOXEL = 0.005
"""Metres, edge of the voxels that hold one obstacle point each."""

FLYING_SLOPE, FLYING_NEIGHBOURS = 4.0, 4
"""A neighbour farther in depth than so many pixel widths lies on another surface; a pixel with fewer than so
many of its 8 neighbours on its own reads a depth between two: it is in mid-air."""

STRAY = 3
"""Obstacle points are believed by threes: what is left of flying pixels stands alone."""

THING = 4
"""Pixels around a thing that are its own, at 320 of width: its edge, blurred by depth."""

PLACE = 0.14
"""Metres around a release within which what is lower than the hand belongs to the place: its walls."""

HELD = 0.010
"""Metres, radius of the middle of what is held: how wide it is, is not told."""


def check_body(draft: Draft, sweep: Sweep, arm: ArmModel) -> None:
    """The arm hits neither the table, as it is seen, nor itself: what the streamer will demand."""
    envelope = Envelope(EnvelopeConfig(table_height=draft.support), arm)
    hits = np.flatnonzero(envelope.touch_margins(sweep.bodies(arm)) < 0.0)
    if len(hits):
        found = envelope.touch(sweep.joints[hits[0]], float(sweep.widths[hits[0]]))
        raise BridgeError(
            found.code,
            f"on the way to {draft.name(int(sweep.toward[hits[0]]))} {found.message}",
            value=found.value,
            limit=found.limit,
            unit=found.unit,
            remedy="move the thing or the place away from the arm's base and from the table's edge",
        )


def check_cloud(draft: Draft, sweep: Sweep, config: PlannerConfig, arm: ArmModel) -> None:
    """The arm, its fingers and what they hold keep out of what is seen beside the thing.

    On the way into a release and out of it the walls of the place do not count: the release was put there
    because of them.
    """
    points = obstacles(draft, arm)
    place, releasing = _of_place(draft, points), _releasing(draft, sweep)
    gaps, part = np.full(len(sweep.joints), np.inf), np.full(len(sweep.joints), -1.0)
    for chosen, seen in ((~releasing, points), (releasing, points[~place])):
        if chosen.any() and len(seen) >= STRAY:
            gaps[chosen], part[chosen] = clearances(draft, sweep.at(chosen), seen, arm)
    worst = int(gaps.argmin())
    if gaps[worst] < -config.max_overlap:
        links = (*arm.capsule_links, *["fingers"] * len(arm.gripper.radius), "what is held")
        at, into = np.round(sweep.poses[worst].translation, 3).tolist(), -1000 * gaps[worst]
        raise BridgeError(
            ErrorCode.COLLISION,
            f"on the way to {draft.name(int(sweep.toward[worst]))}, at {at} m, {links[int(part[worst])]} "
            f"would go {into:.0f} mm into something that is seen there",
            value=float(-gaps[worst]),
            limit=config.max_overlap,
            unit="m",
            remedy="take away what stands in the way, or raise travel_height",
        )


def clearances(draft: Draft, sweep: Sweep, points: Array, arm: ArmModel) -> tuple[Array, Array]:
    """(S,) metres between the body in each posture and the obstacles, and the part that is nearest."""
    bodies, hang = sweep.bodies(arm), np.array(_hang(draft))
    held = np.array([pose.translation for pose in sweep.poses])
    down = np.array([pose.rotation[:, 2] for pose in sweep.poses])
    low = held + np.maximum(hang[sweep.toward] - HELD, 0.0)[:, None] * down
    start = np.concatenate([bodies.start, held[:, None]], 1)
    end = np.concatenate([bodies.end, low[:, None]], 1)
    return nearest_gaps(points, start, end, np.append(bodies.radius, HELD), STRAY)


def obstacles(draft: Draft, arm: ArmModel) -> Array:
    """(M, 3) metres, base frame: what is seen above the support, without the arm and what anchors lie on."""
    cloud = draft.cloud
    keep = cloud.points[..., 2] > cloud.support + ABOVE
    keep &= ~flying(draft, keep)
    margin = round(THING * max(draft.intrinsics.width / 320.0, 1.0))
    for anchor in draft.anchors:
        try:
            mask, window = segment(cloud, anchor.pixel)
        except BridgeError:
            continue  # nothing stands out there: nothing is to be left out
        keep[window] &= ~ndimage.binary_dilation(mask, iterations=margin)
    points = cloud.points[keep & ~own_body(cloud, draft.joints, arm)]
    points = points[np.hypot(points[:, 0], points[:, 1]) < 1.2]
    _, first = np.unique(_voxels(points), return_index=True)
    return np.ascontiguousarray(points[first])


def _voxels(points: Array) -> NDArray[np.int64]:
    """(M,) number of the voxel that each point lies in; they count along z, then y, then x."""
    cells = np.floor(points / VOXEL).astype(np.int64) + 2**19
    return np.asarray((cells[:, 0] << 40) + (cells[:, 1] << 20) + cells[:, 2])


def flying(draft: Draft, seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(H, W) which of the pixels ``seen`` read a depth between front and back."""
    camera = draft.T_base_camera
    depth = np.pad(
        (draft.cloud.points - camera.translation) @ camera.rotation[:, 2], 1, constant_values=np.nan
    )
    rows, columns = np.nonzero(seen)
    middle = depth[rows + 1, columns + 1]
    limit = FLYING_SLOPE / draft.intrinsics.fx * middle
    count = np.zeros(len(rows), np.int64)
    for dv in range(3):
        for du in range(3):
            count += np.abs(depth[rows + dv, columns + du] - middle) < limit
    out = np.zeros_like(seen)
    out[rows, columns] = count - 1 < FLYING_NEIGHBOURS
    return out


def _of_place(draft: Draft, points: Array) -> NDArray[np.bool_]:
    """Which points lie around a release and lower than the hand there."""
    found = np.zeros(len(points), bool)
    for waypoint, pose in zip(draft.waypoints, draft.poses_base, strict=True):
        if waypoint.kind == WaypointKind.CONTACT and waypoint.gripper_event == GripperEvent.OPEN:
            near = np.linalg.norm(points[:, :2] - pose.translation[:2], axis=1) < PLACE
            found |= near & (points[:, 2] < pose.translation[2] + ABOVE)
    return found


def _releasing(draft: Draft, sweep: Sweep) -> NDArray[np.bool_]:
    """(S,) which postures lie on the way into a release, or out of it."""
    found = np.zeros(len(sweep.toward), bool)
    for i, waypoint in enumerate(draft.waypoints):
        if waypoint.kind == WaypointKind.CONTACT and waypoint.gripper_event == GripperEvent.OPEN:
            found |= (sweep.toward == i) | (sweep.toward == i + 1)
    return found


def _hang(draft: Draft) -> list[float]:
    """Metres that something hangs below the TCP on the way to each waypoint."""
    out, hang = [], 0.0
    for waypoint, pose in zip(draft.waypoints, draft.poses_base, strict=True):
        out.append(hang)
        if waypoint.gripper_event == GripperEvent.CLOSE and waypoint.kind == WaypointKind.CONTACT:
            hang = max(float(pose.translation[2]) - draft.support, 0.0)
        elif waypoint.gripper_event == GripperEvent.OPEN:
            hang = 0.0
    return out
