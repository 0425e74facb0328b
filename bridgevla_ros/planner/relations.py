"""Which of several candidates is meant: by where it stands, how large it is, and what it is not.

Everything is measured on the ground in metres, seen from the operator's side: x goes away from the viewer,
y to the viewer's left. The viewer is the camera (left is left in the picture) or the robot, by the
parameter ``viewpoint``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bridgevla_ros.core.transforms import Array

CLEAR = np.radians(50.0)
"""Half opening of the cone in which a thing is clearly left of, behind, ... another (our choice)."""

WIDE = np.radians(75.0)
"""The cone where nothing is in the clear one."""

APART = 0.015
"""Metres by which one must be nearer, farther left, ... than the next, three sigma of a measured middle."""

LARGER = 1.2
"""Ratio of volumes (of heights: its cube root) from which one thing is larger than another."""

BESIDE = 0.22
"""Metres from middle to middle within which a thing can stand beside another (our choice)."""

AHEAD = {"left": (0.0, 1.0), "right": (0.0, -1.0), "behind": (1.0, 0.0), "front": (-1.0, 0.0)}
"""Directions in the viewer's frame."""


@dataclass(frozen=True, eq=False)
class Ground:
    """Things on the ground, in the viewer's frame.

    Attributes:
        xy: (N, 2) metres, middles.
        radius: (N,) metres.
        volume: (N,) cubic metres.
        height: (N,) metres.
    """

    xy: Array
    radius: Array
    volume: Array
    height: Array


def viewer_frame(yaw: float) -> Array:
    """(2, 2) rotation from the base frame's ground to a viewer's who looks along ``yaw``."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, s], [-s, c]])


def beyond(things: Ground, kind: str, reference: Array) -> list[int]:
    """Those left of, right of, behind or in front of a point; in the clear cone if there are any."""
    offset = things.xy - reference
    along = offset @ np.array(AHEAD[kind])
    angle = np.arccos(np.clip(along / np.maximum(np.linalg.norm(offset, axis=1), 1e-9), -1.0, 1.0))
    for cone in (CLEAR, WIDE):
        inside = [i for i in range(len(along)) if along[i] > APART and angle[i] < cone]
        if inside:
            return inside
    return []


def beside(things: Ground, reference: Array, radius: float) -> list[int]:
    """The one that stands next to a point; two where both are as near."""
    distance = np.linalg.norm(things.xy - reference, axis=1)
    near = [i for i in range(len(distance)) if 0.3 * radius < distance[i] < BESIDE + 0.5 * radius]
    return _least(distance, near, 2 * APART)


def between(things: Ground, a: Array, b: Array) -> list[int]:
    """Those whose middle lies between two points, not far off the line."""
    way = b - a
    length = max(float(np.linalg.norm(way)), 1e-9)
    share = (things.xy - a) @ way / length**2
    off = np.abs((things.xy - a) @ np.array([-way[1], way[0]])) / length
    for width in (0.25, 0.4):
        found = [i for i in range(len(share)) if 0.15 < share[i] < 0.85 and off[i] < width * length]
        if found:
            return found
    return []


def inside(things: Ground, reference: Array, radius: float) -> list[int]:
    """Those whose middle lies within a place."""
    distance = np.linalg.norm(things.xy - reference, axis=1)
    return [i for i in range(len(distance)) if distance[i] < 0.85 * radius]


def _least(values: Array, among: Sequence[int], margin: float) -> list[int]:
    """The one of the least value, with all that are as little within the margin."""
    if not among:
        return []
    best = min(values[i] for i in among)
    return [i for i in among if values[i] < best + margin]


def nearest(things: Ground, reference: Array) -> Array:
    """(N,) metres to a point: the order of "nearest", negated that of "farthest"."""
    return np.asarray(np.linalg.norm(things.xy - reference, axis=1))


def order(things: Ground, rank: str, viewer: Array, corners: Array) -> tuple[Array, float]:
    """Values by which a rank sorts, least first, and the difference that parts two.

    Args:
        things: In the viewer's frame.
        rank: Of ``lexer.RANKS``, or corner with its sides.
        viewer: (2,) where the viewer stands.
        corners: (4, 2) of the workspace.
    """
    x, y = things.xy[:, 0], things.xy[:, 1]
    middle = corners.mean(0)
    if rank.startswith("corner"):
        far = x[:, None] * 0
        chosen = corners[[_at_sides(c - middle, rank) for c in corners]]
        far = np.linalg.norm(things.xy[:, None] - chosen[None], axis=2)
        return far.min(1), APART
    if " " in rank:  # "back left": both sides count
        return sum((order(things, part, viewer, corners)[0] for part in rank.split()), 0 * x), APART
    table: dict[str, Callable[[], tuple[Array, float]]] = {
        "left": lambda: (-y, APART),
        "right": lambda: (y, APART),
        "front": lambda: (x, APART),
        "back": lambda: (-x, APART),
        "middle": lambda: (_from_middle(things, middle), APART),
        "nearest": lambda: (nearest(things, viewer), APART),
        "farthest": lambda: (-nearest(things, viewer), APART),
        "biggest": lambda: (-np.log(things.volume + 1e-9), float(np.log(LARGER))),
        "smallest": lambda: (np.log(things.volume + 1e-9), float(np.log(LARGER))),
        "tallest": lambda: (-np.log(things.height + 1e-3), float(np.log(LARGER)) / 3),
        "shortest": lambda: (np.log(things.height + 1e-3), float(np.log(LARGER)) / 3),
    }
    return table[rank]()


def _at_sides(offset: Array, rank: str) -> bool:
    """Whether a corner at ``offset`` from the middle is on the named sides."""
    sides = {"left": offset[1] > 0, "right": offset[1] < 0, "back": offset[0] > 0, "front": offset[0] < 0}
    return all(bool(sides[word]) for word in rank.split()[1:])


def _from_middle(things: Ground, middle: Array) -> Array:
    """Three in a row have a middle one: distance from the middle of those that are asked about."""
    own = (things.xy.max(0) + things.xy.min(0)) / 2 if len(things.xy) >= 3 else middle
    return np.asarray(np.linalg.norm(things.xy - own, axis=1))


def pick(values: Array, among: Sequence[int], ordinal: int, margin: float) -> list[int]:
    """The n-th least, with those that cannot be told from it; none where there are fewer."""
    ranked = sorted(among, key=lambda i: float(values[i]))
    if len(ranked) < ordinal:
        return []
    chosen = ranked[ordinal - 1]
    return [i for i in ranked if abs(float(values[i] - values[chosen])) < margin]


def on_side(things: Ground, among: Sequence[int], kind: str, corners: Array) -> list[int]:
    """Those on the named half of the workspace, with 5 cm of grace."""
    offset = things.xy - corners.mean(0)
    sign = {"left": offset[:, 1], "right": -offset[:, 1], "back": offset[:, 0], "front": -offset[:, 0]}
    return [i for i in among if kind not in sign or sign[kind][i] > -0.05]
