"""Paths through waypoints: a cubic B-spline for position, a C2 slerp spline for rotation.

The control points are set rather than solved for. Around each waypoint W that is passed without
stopping they are W - m, W, W + m: a uniform cubic B-spline then goes exactly through W with tangent m,
and by its convex hull property stays inside the hull of its control points. So the path cannot
overshoot below a table or out of a box that holds them, and legs whose control points are collinear
(those into and out of a contact) are exactly straight.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.transforms import Array

MIN_LEG = 1e-3
"""Metres; a shorter leg only turns, and the path rests at both its ends."""
_MAX_HANDLE = 0.06
"""Metres; bounds how far an arch swings beyond a waypoint (its peak is 2/3 of this)."""
_MAX_TURN = np.deg2rad(150.0)
"""Where the path turns by more, it rests instead of squeezing a hairpin through the waypoint."""


@dataclass(frozen=True, eq=False)
class PathSpline:
    """A path between two rests, over a parameter u from 0 to ``knots[-1]``; C2 in position and rotation.

    Attributes:
        control: (M, 3) metres, B-spline control points.
        knots: (n + 1,) u at which each of the n + 1 waypoints is passed.
        rotations: (n + 1, 4) x, y, z, w at each waypoint.
        turns: (n, 3) rotation vector of each leg, rad, in the frame of the path.
    """

    control: Array
    knots: Array
    rotations: Array
    turns: Array

    @property
    def end(self) -> float:
        """Last parameter."""
        return float(self.knots[-1])

    def position(self, u: Array, derivative: int = 0) -> Array:
        """(K, 3) position in metres, or its derivative by u, at (K,) parameters."""
        return np.asarray(self._curve(np.clip(u, 0.0, self.end), nu=derivative), np.float64)

    @cached_property
    def _curve(self) -> BSpline:
        return BSpline(_clamped_knots(len(self.control)), self.control, 3)

    def legs(self, u: Array) -> tuple[NDArray[np.int64], Array]:
        """Leg index (K,) and fraction of that leg (K,) at each parameter."""
        leg = np.clip(np.searchsorted(self.knots, u, side="right") - 1, 0, len(self.turns) - 1)
        return leg, np.clip((u - self.knots[leg]) / (self.knots[leg + 1] - self.knots[leg]), 0.0, 1.0)

    def quat(self, u: Array) -> Array:
        """(K, 4) x, y, z, w at (K,) parameters."""
        leg, x = self.legs(u)
        turned = Rotation.from_rotvec(self.turns[leg] * self._ease(x, 0)[:, None])
        return np.asarray((turned * Rotation.from_quat(self.rotations[leg])).as_quat(), np.float64)

    def turn_rate(self, u: Array, derivative: int = 1) -> Array:
        """(K, 3) angular velocity per unit of u (derivative 1), or its derivatives, frame of the path."""
        leg, x = self.legs(u)
        span = self.knots[leg + 1] - self.knots[leg]
        return np.asarray(self.turns[leg] * (self._ease(x, derivative) / span**derivative)[:, None])

    def _ease(self, x: Array, derivative: int) -> Array:
        # One leg starts and ends at rest: its time law does the easing. Several legs: quintic
        # smoothstep, so that the rotation rests at each waypoint and never overshoots.
        if len(self.turns) == 1:
            return (x, np.ones_like(x), np.zeros_like(x), np.zeros_like(x))[derivative]
        if derivative == 0:
            return x**3 * (10 - 15 * x + 6 * x**2)
        if derivative == 1:
            return 30 * x**2 * (1 - x) ** 2
        if derivative == 2:
            return 60 * x * (1 - x) * (1 - 2 * x)
        return 60 * (1 - 6 * x + 6 * x**2)


def _clamped_knots(controls: int) -> Array:
    inner = np.arange(controls - 2, dtype=np.float64)
    return np.concatenate([np.zeros(3), inner, np.full(3, inner[-1])])


def build(
    positions: Array,
    quats: Array,
    straight: NDArray[np.bool_],
    forced_rests: NDArray[np.bool_],
    box: tuple[Array, Array],
) -> list[tuple[PathSpline, int, int]]:
    """Cut the waypoints at rests and lay a spline through each piece.

    Args:
        positions: (n, 3) metres, n >= 2, inside ``box``.
        quats: (n, 4) x, y, z, w.
        straight: (n - 1,) legs that must be straight lines.
        forced_rests: (n,) waypoints at which the path must stop. It always stops at the ends, beside
            legs shorter than ``MIN_LEG`` and at hairpins.
        box: Lowest and highest corner, metres; no control point lies outside.

    Returns:
        (spline, first, last) for each piece, with the indices of its first and last waypoint.
    """
    positions, quats = np.asarray(positions, np.float64), np.asarray(quats, np.float64)
    legs = np.diff(positions, axis=0)
    lengths = np.linalg.norm(legs, axis=1)
    rests = np.array(forced_rests, bool)
    rests[[0, -1]] = True
    rests[:-1] |= lengths < MIN_LEG
    rests[1:] |= lengths < MIN_LEG
    handles = np.zeros_like(positions)
    for i in np.flatnonzero(~rests):
        handle = _handle(positions[i], legs[i - 1], legs[i], bool(straight[i - 1]), bool(straight[i]), box)
        if handle is None:
            rests[i] = True
        else:
            handles[i] = handle
    cuts = np.flatnonzero(rests)
    return [
        (_piece(positions[a : b + 1], quats[a : b + 1], handles[a : b + 1]), int(a), int(b))
        for a, b in pairwise(cuts)
    ]


def _handle(
    point: Array, before: Array, after: Array, straight_in: bool, straight_out: bool, box: tuple[Array, Array]
) -> Array | None:
    """Offset (3,) of the control points on either side of a waypoint; None where the path must rest."""
    length_in, length_out = float(np.linalg.norm(before)), float(np.linalg.norm(after))
    unit_in, unit_out = before / length_in, after / length_out
    turn = float(np.arccos(np.clip(unit_in @ unit_out, -1.0, 1.0)))
    if turn > _MAX_TURN or (straight_in and straight_out and turn > 1e-3):
        return None
    if straight_in:
        direction = unit_in
    elif straight_out:
        direction = unit_out
    else:
        direction = unit_in + unit_out
        if before[2] * after[2] <= 0.0:  # lowest or highest of its neighbours: never swing beyond it
            direction = direction * np.array([1.0, 1.0, 0.0])
        norm = float(np.linalg.norm(direction))
        if norm < 1e-3:
            return None
        direction = direction / norm
    reach = min(length_in / 3, length_out / 3, _MAX_HANDLE)
    low, high = box
    room = np.minimum(point - low, high - point)
    with np.errstate(divide="ignore", invalid="ignore"):
        fits = np.where(np.abs(direction) > 1e-9, room / np.abs(direction), np.inf)
    reach = min(reach, float(np.min(fits)))
    return None if reach < MIN_LEG / 4 else np.asarray(reach * direction)


def _piece(positions: Array, quats: Array, handles: Array) -> PathSpline:
    rotations = Rotation.from_quat(quats)
    turns = (rotations[1:] * rotations[:-1].inv()).as_rotvec()
    if len(positions) == 2:
        line = np.linspace(positions[0], positions[1], 4)
        return PathSpline(line, np.array([0.0, 1.0]), quats, turns)
    control: list[Array] = [positions[0], 0.5 * (positions[0] + positions[1] - handles[1])]
    for point, handle in zip(positions[1:-1], handles[1:-1], strict=True):
        control += [point - handle, point, point + handle]
    control += [0.5 * (positions[-1] + positions[-2] + handles[-2]), positions[-1]]
    # The i-th waypoint is control point 3 i; a uniform span's middle control point peaks at index - 1.
    knots = np.array([0.0, *(3.0 * i - 1.0 for i in range(1, len(positions) - 1)), len(control) - 3.0])
    return PathSpline(np.array(control, np.float64), knots, quats, turns)
