"""Is a step done? Judged from depth before and after it, never from one image alone.

Before is the image that the step was planned from, after is one taken when the arm has come to rest. What
counts is the free space between camera and surfaces: where a ray now goes through where the thing was, it has
left; a point that lies where a ray went freely before is new. The camera may have moved in between; the arm's
own body is left out of both images.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import CameraIntrinsics, GripperEvent, JointState, RgbdFrame, Waypoint
from bridgevla_ros.planner.grasp import ABOVE, Cloud3d, chroma, segment
from bridgevla_ros.planner.lifting import Lifted
from bridgevla_ros.planner.own_body import own_body
from bridgevla_ros.planner.place import REACH, Place, free_ground, place, wall

SAME = 0.010
"""Metres of depth within which a surface is where it was, three sigma of a depth camera at 1.2 m."""

ALIKE = 0.25
"""Distance of colours without brightness within which a point looks like the thing, as in ``segment``."""

LEFT = 0.5
"""Least share of the thing's surface through which the camera must see for it to have left."""

KNOWN = 0.25
"""Least share of a surface that must be seen, or seen through, for a word about it."""

ARRIVED = 0.35
"""Least share of the thing's visible size that must be new at the place."""

ASTRIDE = 0.3
"""Share of what is new inside a place that may be new outside: else it lies on the rim, or leans on it."""

WHOLE = 0.9
"""The same share as ``ARRIVED``, from which what lies beside it does not count: it may be something else."""

EDGE = 0.012
"""Metres by which a place's inside may be wider than measured."""


class Finding(Enum):
    """What depth says of a step. The value is the sentence for the operator."""

    DONE = "it has left its place and lies where it should"
    HELD = "it has left its place and nothing was to be put down"
    STILL_THERE = "it is still where it was"
    BESIDE = "it has left its place and lies beside where it should"
    NOT_ARRIVED = "it has left its place and is not where it should be"
    NOT_SEEN = "the camera does not see enough of both places to tell"


@dataclass(frozen=True)
class Verdict:
    """What was found, with its numbers.

    Attributes:
        finding: In one word.
        left: Share of the thing's surface that the camera now sees through; NaN where too little is seen.
        arrived: New surface of its look inside the place, in shares of its own; NaN without a place.
        beside: The same outside the place.
        visible: Share of the thing that could be seen at the place; NaN without a place.
        height: Metres of the new surface's top above the place's floor; NaN where nothing is new.
    """

    finding: Finding
    left: float
    arrived: float
    beside: float
    visible: float
    height: float

    @property
    def code(self) -> ErrorCode:
        """NONE for done, DEPTH_HOLE where it cannot be seen, else VERIFY_FAILED."""
        if self.finding in (Finding.DONE, Finding.HELD):
            return ErrorCode.NONE
        return ErrorCode.DEPTH_HOLE if self.finding is Finding.NOT_SEEN else ErrorCode.VERIFY_FAILED

    def sentence(self) -> str:
        """One line for the operator, with the numbers."""
        numbers = [
            f"{name} {100 * share:.0f}% (limit {100 * limit:.0f}%)"
            for name, share, limit in (
                ("left", self.left, LEFT), ("arrived", self.arrived, ARRIVED),
                ("beside", self.beside, ARRIVED), ("visible", self.visible, KNOWN),
            )
            if np.isfinite(share)
        ]  # fmt: skip
        return f"{self.finding.name}: {self.finding.value}; {', '.join(numbers) or 'nothing was measured'}"


@dataclass(frozen=True, eq=False)
class Before:
    """What a step was planned from.

    Attributes:
        task_id, step: Which.
        cloud, intrinsics, T_base_camera: Of its image.
        pixels: (2,) u, v of each anchor: the thing, and the place if there is one.
        lifted: The anchors in space.
        events: Gripper events of the plan, in order.
        free: The second anchor is a free spot of the table.
    """

    task_id: str
    step: int
    cloud: Cloud3d
    intrinsics: CameraIntrinsics
    T_base_camera: Transform
    pixels: tuple[Array, ...]
    lifted: tuple[Lifted, ...]
    events: tuple[GripperEvent, ...]
    free: bool = False

    @property
    def moves_a_thing(self) -> bool:
        """A thing is taken, and put at a second anchor or kept: depth can tell whether it was."""
        put = (GripperEvent.CLOSE, GripperEvent.OPEN) if len(self.pixels) == 2 else (GripperEvent.CLOSE,)
        happens = tuple(e for e in self.events if e != GripperEvent.NONE)
        return happens[happens.index(GripperEvent.CLOSE) :] == put if GripperEvent.CLOSE in happens else False


def events_of(waypoints: tuple[Waypoint, ...]) -> tuple[GripperEvent, ...]:
    """Gripper events of a plan, in order."""
    return tuple(w.gripper_event for w in waypoints)


def judge(
    before: Before, frame: RgbdFrame, T_base_camera: Transform, joints: JointState, arm: ArmModel
) -> Verdict:
    """Compare a step's two images.

    Args:
        before: What it was planned from.
        frame: Taken when the arm had come to rest.
        T_base_camera: At the frame's stamp.
        joints: Where the arm was then.
        arm: Its body is left out.
    """
    nothing = Verdict(Finding.NOT_SEEN, *[float("nan")] * 5)
    if not before.moves_a_thing:
        return nothing
    try:
        mask, window = segment(before.cloud, before.pixels[0])
    except BridgeError:
        return nothing
    after = Cloud3d.of(frame, T_base_camera, before.cloud.support)
    own = own_body(after, joints, arm)
    now = _View(_depth(after.points, T_base_camera), frame.intrinsics, T_base_camera)
    then = _View(_depth(before.cloud.points, before.T_base_camera), before.intrinsics, before.T_base_camera)
    thing = before.cloud.points[window][mask]
    left = _left(thing, now, own)
    if len(before.pixels) == 1:
        gone = np.isfinite(left) and left >= LEFT
        stays = Finding.STILL_THERE if np.isfinite(left) else Finding.NOT_SEEN
        return Verdict(Finding.HELD if gone else stays, left, *[float("nan")] * 4)
    if before.free:
        where = free_ground(before.lifted[1], before.cloud.support)
    else:
        where = place(before.cloud, before.pixels[1], before.lifted[1])
    hue = np.median(chroma(before.cloud.rgb[window])[mask], 0)
    fresh = _new(after, own, then, hue)
    new = after.points[fresh]
    inside = _inside(where, new)
    bottom, top = np.percentile(thing[:, 2], (2, 97))
    there = thing + np.array([*(where.center - np.median(thing[:, :2], 0)), where.floor + 0.004 - bottom])
    size = _pixels(thing, then)
    visible = _visible(there, now, own, fresh, then)
    arrived = _pixels(new[inside], now) / (size * max(visible, KNOWN))
    beside = _pixels(new[~inside], now) / size
    height = float(np.percentile(new[inside, 2], 97)) - where.floor if inside.any() else float("nan")
    stands = np.isfinite(height) and height > 0.35 * (top - bottom)
    finding = _finding(left, arrived if stands else 0.0, beside, visible)
    return Verdict(finding, left, arrived, beside, visible, height)


def _finding(left: float, arrived: float, beside: float, visible: float) -> Finding:
    """From shares to a word; what was seen counts before what was not."""
    if np.isfinite(left) and left < LEFT:
        return Finding.STILL_THERE
    if arrived >= WHOLE or (arrived >= ARRIVED and beside <= ASTRIDE * arrived):
        return Finding.DONE
    if arrived >= ARRIVED or beside >= ARRIVED:
        return Finding.BESIDE
    if visible >= KNOWN and np.isfinite(left):
        return Finding.NOT_ARRIVED
    return Finding.NOT_SEEN


@dataclass(frozen=True, eq=False)
class _View:
    """(H, W) metres of depth, NaN where none, with its camera."""

    depth: Array
    intrinsics: CameraIntrinsics
    T_base_camera: Transform

    def expected(
        self, points: Array
    ) -> tuple[Array, tuple[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]:
        """(N,) metres of depth that base-frame points have here, their pixels, and which lie in the image."""
        camera, k = self.T_base_camera.inverse().apply(points), self.intrinsics
        depth = np.maximum(camera[:, 2], 1e-6)
        u = np.round(camera[:, 0] / depth * k.fx + k.cx).astype(np.int64)
        v = np.round(camera[:, 1] / depth * k.fy + k.cy).astype(np.int64)
        height, width = self.depth.shape
        ok = (camera[:, 2] > 0.05) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        return camera[:, 2], (np.clip(v, 0, height - 1), np.clip(u, 0, width - 1)), ok


def _depth(points: Array, T_base_camera: Transform) -> Array:
    return np.asarray((points - T_base_camera.translation) @ T_base_camera.rotation[:, 2])


def _left(thing: Array, now: _View, own: NDArray[np.bool_]) -> float:
    """Share of the thing's surface behind which something is seen now."""
    expected, pixel, ok = now.expected(thing)
    measured = now.depth[pixel]
    ok &= np.isfinite(measured) & ~(own[pixel] & (measured < expected + SAME))
    if ok.sum() < max(KNOWN * len(thing), 6):
        return float("nan")
    return float((measured[ok] > expected[ok] + SAME).mean())


def _new(after: Cloud3d, own: NDArray[np.bool_], then: _View, hue: Array) -> NDArray[np.bool_]:
    """(H, W) pixels of the thing's look, above the support, where the camera saw farther before."""
    new = (after.points[..., 2] > after.support + ABOVE) & ~own
    new &= np.linalg.norm(chroma(after.rgb) - hue, axis=-1) < ALIKE
    expected, pixel, ok = then.expected(after.points[new])
    seen = then.depth[pixel]
    new[new] = ok & np.isfinite(seen) & (seen > expected + SAME)
    return new


def _visible(
    points: Array, now: _View, own: NDArray[np.bool_], fresh: NDArray[np.bool_], then: _View
) -> float:
    """Share of a surface that would be seen now, and where the camera saw farther before.

    What hides it is the arm and whatever stands before it, but for what is new: that may be the thing itself.
    """
    expected, pixel, ok = now.expected(points)
    measured = now.depth[pixel]
    ok &= np.isfinite(measured) & ((measured > expected - SAME) | fresh[pixel]) & ~own[pixel]
    expected, pixel, inside = then.expected(points)
    measured = then.depth[pixel]
    return float((ok & inside & np.isfinite(measured) & (measured > expected + SAME)).mean())


def _inside(where: Place, points: Array) -> NDArray[np.bool_]:
    """(N,) which points lie within a place's walls and not below its floor."""
    offset = points[:, :2] - where.center
    found = where.walls < REACH
    room = wall(where.walls, found if found.any() else ~found, offset)
    return np.asarray((np.hypot(*offset.T) < room + EDGE) & (points[:, 2] > where.floor))


def _pixels(points: Array, view: _View) -> float:
    """Number of pixels, each as large as it would be at 1 m: a size that does not hang on distance."""
    if not len(points):
        return 0.0
    depth = _depth(points, view.T_base_camera)
    return float(((depth / view.intrinsics.fx) ** 2).sum()) * 1e6
