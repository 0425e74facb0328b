"""Where to let go: the inside of a bowl, box, plate or drawer around an anchor, by depth alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bridgevla_ros.core.transforms import Array
from bridgevla_ros.planner.grasp import ABOVE, MIN_GRIP, Cloud3d, Grasp, chroma, extents
from bridgevla_ros.planner.lifting import Lifted

REACH = 0.14
"""Metres from its middle within which a place must have its walls."""


@dataclass(frozen=True, eq=False)
class Place:
    """Where to let go. Base frame, metres.

    Attributes:
        center: (2,) middle of the inside.
        floor: z of what the thing will come to rest on.
        rim: z of the walls around, ``floor`` where there are none.
        walls: (16,) distance to the wall in directions 2 pi k / 16; ``REACH`` where none is.
        sigma: Standard deviation of the centre.
    """

    center: Array
    floor: float
    rim: float
    walls: Array
    sigma: float


CELL = 0.005
DIRECTIONS = 2 * np.pi * np.arange(16) / 16


def place(cloud: Cloud3d, pixel: Array, anchor: Lifted) -> Place:
    """Middle of the inside of a bowl, box, plate or drawer around an anchor.

    From the anchor, walks over a height map in 16 directions to the walls and moves to the middle
    between them; a flat place without walls gives the middle of its visible surface.
    """
    start = anchor.position
    points = cloud.points.reshape(-1, 3)
    near = points[np.abs(points[:, :2] - start[:2]).max(1) < 2 * REACH] if len(points) else points
    near = near[np.isfinite(near).all(1)]
    size = int(4 * REACH / CELL)
    index = np.floor((near[:, :2] - start[:2] + 2 * REACH) / CELL).astype(int)
    inside = (index >= 0).all(1) & (index < size).all(1)
    heights = _height_map(index[inside], near[inside, 2], size)
    disc = np.hypot(near[:, 0] - start[0], near[:, 1] - start[1]) < 0.03
    floor = float(np.percentile(near[disc, 2], 20)) if disc.sum() > 10 else float(start[2])
    center = start[:2].copy()
    walls, found = np.full(16, REACH), np.zeros(16, bool)
    rims: list[float] = []
    for _ in range(6):
        walls, found, rims = _walk(heights, start[:2], center, floor + 0.014)
        if found.sum() < 9:
            break
        step = np.array([(walls * np.cos(DIRECTIONS)).mean(), (walls * np.sin(DIRECTIONS)).mean()])
        center = center + 1.2 * step
        if np.linalg.norm(step) < 0.001:
            break
    if found.sum() >= 9 and np.linalg.norm(center - start[:2]) < REACH:
        return Place(center, floor, float(np.median(rims)), walls, max(anchor.sigma, 0.005))
    return _surface(cloud, pixel, anchor)


def _surface(cloud: Cloud3d, pixel: Array, anchor: Lifted) -> Place:
    """A place without walls: the middle of the smooth surface that the anchor lies on."""
    height, width = cloud.points.shape[:2]
    u, v = round(float(pixel[0])), round(float(pixel[1]))
    window = 70
    roi = (
        slice(max(v - window, 0), min(v + window + 1, height)),
        slice(max(u - window, 0), min(u + window + 1, width)),
    )
    points = cloud.points[roi]
    colour = chroma(cloud.rgb[roi])
    row, column = v - roi[0].start, u - roi[1].start
    seed = np.median(colour[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3].reshape(-1, 3), 0)
    alike = (np.linalg.norm(colour - seed, axis=-1) < 0.20) & (points[..., 2] > cloud.support + 0.003)
    alike = ndimage.binary_closing(alike | (points[..., 2] > cloud.support + ABOVE), iterations=1) & alike
    labels, _ = ndimage.label(alike)
    mask = labels == labels[row, column] if labels[row, column] else np.zeros_like(alike)
    mine = points[mask]
    mine = mine[np.isfinite(mine).all(1)]
    mine = mine[np.abs(mine[:, :2] - anchor.position[:2]).max(1) < REACH] if len(mine) else mine
    if len(mine) < 30:
        return Place(
            anchor.position[:2], float(anchor.position[2]), float(anchor.position[2]), np.full(16, 0.03), 0.01
        )
    low_x, high_x, low_y, high_y = extents(mine[:, :2], 0.0)
    center = np.array([(low_x + high_x) / 2, (low_y + high_y) / 2])
    floor = (
        float(np.percentile(mine[np.hypot(*(mine[:, :2] - center).T) < 0.03, 2], 50))
        if (np.hypot(*(mine[:, :2] - center).T) < 0.03).sum() > 5
        else float(np.median(mine[:, 2]))
    )
    rim = float(np.percentile(mine[:, 2], 95))
    radius = min(high_x - low_x, high_y - low_y) / 2
    return Place(center, floor, max(rim, floor), np.full(16, radius), max(anchor.sigma, 0.005))


def _height_map(index: NDArray[np.int64], z: Array, size: int) -> Array:
    """(size, size) highest z of each cell with two points or more; NaN where nothing was seen."""
    flat = index[:, 0] * size + index[:, 1]
    order = np.lexsort((z, flat))
    flat, z = flat[order], z[order]
    last = np.r_[flat[1:] != flat[:-1], True] if len(flat) else np.zeros(0, bool)
    out = np.full(size * size, np.nan)
    out[flat[last]] = z[last]
    counts = np.bincount(flat, minlength=size * size)
    out[counts < 2] = np.nan
    return out.reshape(size, size)


def _walk(
    heights: Array, origin: Array, center: Array, level: float
) -> tuple[Array, NDArray[np.bool_], list[float]]:
    """Distance to the first cell above ``level`` in each direction, whether there is one, its height."""
    size = len(heights)
    walls, found = np.full(16, REACH), np.zeros(16, bool)
    rims: list[float] = []
    steps = np.arange(0.012, REACH, CELL / 2)
    for k, angle in enumerate(DIRECTIONS):
        xy = center + steps[:, None] * np.array([np.cos(angle), np.sin(angle)])
        cells = np.floor((xy - origin + 2 * REACH) / CELL).astype(int)
        ok = (cells >= 0).all(1) & (cells < size).all(1)
        cells = np.clip(cells, 0, size - 1)
        seen = heights[cells[:, 0], cells[:, 1]]
        high = ok & (np.nan_to_num(seen, nan=-1.0) > level)
        if high.any():
            first = int(high.argmax())
            walls[k], found[k] = steps[first], True
            rims.append(float(np.nanmax(seen[first : first + 6])))
    return walls, found, rims


def release(thing: Grasp, where: Place, open_width: float) -> tuple[Array, Array]:
    """TCP position and finger direction to let a gripped thing go.

    The thing is turned only where it or the fingers would meet a wall; the finger tips stay above the
    rim or the thing's own hang keeps them so.

    Returns:
        (3,) metres and (2,) unit vector, base frame.
    """
    base = np.arctan2(thing.finger[1], thing.finger[0])
    best, finger = np.inf, thing.finger
    for turn in np.radians(np.arange(-75.0, 90.0, 15.0)):
        angle = base + turn
        room_fingers = min(_room(where, angle), _room(where, angle + np.pi))
        room_length = min(_room(where, angle + np.pi / 2), _room(where, angle - np.pi / 2))
        cost = (
            max(0.0, thing.length / 2 + 0.008 - room_length)
            + max(0.0, open_width / 2 + 0.012 - room_fingers)
            + 0.008 * abs(float(turn))
        )
        if cost < best - 1e-9:
            best, finger = cost, np.array([np.cos(angle), np.sin(angle)])
    z = max(where.floor + thing.hang + 0.010, where.rim + 0.012 if where.rim > where.floor + 0.012 else 0.0)
    return np.array([where.center[0], where.center[1], max(z, where.floor + MIN_GRIP)]), finger


def _room(where: Place, angle: float) -> float:
    """Distance to the wall in a direction, metres."""
    return float(
        np.interp(angle % (2 * np.pi), np.r_[DIRECTIONS, 2 * np.pi], np.r_[where.walls, where.walls[0]])
    )
