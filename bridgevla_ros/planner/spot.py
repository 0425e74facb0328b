"""A free spot on the table beside something: "next to the bowl", "left of the cube", "between the two boxes".

Only ground that the camera sees is free: what a thing hides may hold another. Our choice throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.planner.grasp import ABOVE, Cloud3d
from bridgevla_ros.planner.relations import AHEAD

if TYPE_CHECKING:
    from bridgevla_ros.planner.candidates import Measured

CELL = 0.008
"""Metres; a camera at 1 m sees two points or more of each cell of the table, 640 pixels wide."""

FINGERS = 0.035
"""Metres that the opened fingers and their carriers need around a thing that is let go."""

CARRIERS = 0.055
"""Metres that fingers and carriers have beside something tall, too; less counts as a longer way."""

NEAR = 0.09
"""Metres from edge to edge up to which a spot is beside a thing."""

FAR = 0.16
"""The same for left of, right of, behind and in front of it."""

CONE = np.radians(35.0)
"""Half opening of the cone in which a spot is left of, behind, ... something."""

MIDDLE = 0.25
"""Share of the way between two things, on each side of its middle, that still is between them."""


@dataclass(frozen=True, eq=False)
class Table:
    """Where a spot may lie.

    Attributes:
        low, high: (2,) metres, the workspace on the ground, base frame.
        turn: (2, 2) from the base frame's ground to the viewer's (x away, y to the left).
    """

    low: Array
    high: Array
    turn: Array


def free_spot(
    cloud: Cloud3d, kind: str, thing: Measured, references: Sequence[Measured], table: Table, label: str
) -> Array:
    """Find the nearest free spot that stands as is said.

    Args:
        cloud: The frame as points, base frame.
        kind: Of ``relation_words.PLACEABLE``.
        thing: What is to go there; where it stands now becomes free.
        references: One thing, or two for "between".
        table: Bounds and viewpoint.
        label: The spot in words, for a refusal.

    Returns:
        (3,) metres, base frame, on the support.

    Raises:
        BridgeError: NO_TARGET: no such spot is free and seen.
    """
    middle = np.mean([r.center for r in references], 0)
    reach = 0.45 if kind == "between" else references[0].radius + thing.radius + FAR + FINGERS
    origin = middle - reach
    size = int(2 * reach / CELL)
    seen, standing = _maps(cloud, origin, size)
    centers = origin + (np.indices((size, size)).reshape(2, -1).T + 0.5) * CELL
    at_thing = np.linalg.norm(centers - thing.center, axis=1).reshape(size, size)
    standing &= at_thing > thing.radius + 0.012
    seen |= at_thing < thing.radius + 0.006
    clear = _distance(~standing)
    open_ground = np.minimum(_distance(seen), clear)
    fits = (open_ground >= thing.radius).ravel() & (clear >= thing.radius + FINGERS).ravel()
    fits &= (centers >= table.low + thing.radius).all(1) & (centers <= table.high - thing.radius).all(1)
    cost = _cost(kind, centers, thing, references, table.turn)
    cost += 2.0 * np.maximum(thing.radius + CARRIERS - clear.ravel(), 0.0)
    cost[~fits] = np.inf
    best = int(cost.argmin())
    if not np.isfinite(cost[best]):
        raise BridgeError(
            ErrorCode.NO_TARGET,
            f"there is no free place {label} that can be seen",
            value=float((cost < np.inf).sum()),
            limit=1.0,
            remedy="make room there, or name another place",
        )
    return np.array([*centers[best], cloud.support])


def _maps(cloud: Cloud3d, origin: Array, size: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Cells where the table is seen, and cells where something stands; what a rim encloses is no table."""
    points = cloud.points.reshape(-1, 3)
    points = points[np.isfinite(points).all(1)]
    index = np.floor((points[:, :2] - origin) / CELL).astype(int)
    inside = (index >= 0).all(1) & (index < size).all(1)
    index, z = index[inside], points[inside, 2] - cloud.support
    seen, standing = np.zeros((size, size), bool), np.zeros((size, size), int)
    flat = np.abs(z) < ABOVE
    seen[index[flat, 0], index[flat, 1]] = True
    np.add.at(standing, tuple(index[z > ABOVE].T), 1)
    things = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(standing >= 2, 1))[1:-1, 1:-1])
    return ndimage.binary_closing(seen) | seen, np.asarray(things)


def _distance(free: NDArray[np.bool_]) -> Array:
    """Metres from each free cell to the nearest that is not; 0 in those."""
    return np.asarray(ndimage.distance_transform_edt(free) * CELL)


def _cost(kind: str, centers: Array, thing: Measured, references: Sequence[Measured], turn: Array) -> Array:
    """(N,) metres to be kept small; infinite where a spot does not stand as is said."""
    way = 0.05 * np.linalg.norm(centers - thing.center, axis=1)
    reference = references[0]
    if kind == "between":
        between = references[1].center - reference.center
        length = max(float(np.linalg.norm(between)), 1e-9)
        along = (centers - reference.center) @ between / length**2
        off = np.abs((centers - reference.center) @ np.array([-between[1], between[0]])) / length
        cost = off + np.abs(along - 0.5) * length
        return np.where((np.abs(along - 0.5) < MIDDLE) & (off < 0.25 * length), cost, np.inf)
    offset = centers - reference.center
    distance = np.linalg.norm(offset, axis=1)
    gap = distance - reference.radius - thing.radius
    if kind == "beside":
        return np.where((gap > 0.0) & (gap < NEAR), gap + way, np.inf)
    ahead = offset @ turn.T @ np.array(AHEAD[kind])
    angle = np.arccos(np.clip(ahead / np.maximum(distance, 1e-9), -1.0, 1.0))
    return np.where((angle < CONE) & (gap > 0.0) & (gap < FAR), gap + way + 0.2 * angle, np.inf)
