"""Where to let go: the inside of a bowl, box, plate or drawer around an anchor, by depth alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bridgevla_ros.core.transforms import Array
from bridgevla_ros.planner.contents import ALIKE, CELL, MARGIN, SEARCH, Relief, lying, spot_among
from bridgevla_ros.planner.grasp import ABOVE, MIN_GRIP, Cloud3d, Grasp, chroma, extents
from bridgevla_ros.planner.lifting import Lifted
from bridgevla_ros.planner.rim import BRIM, FLAT, Rim, rim

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
        things: (M, 3) what lies in it: middle and top of each cell.
    """

    center: Array
    floor: float
    rim: float
    walls: Array
    sigma: float
    things: Array = field(default_factory=lambda: np.zeros((0, 3)))

    @property
    def flat(self) -> bool:
        """Whether what it holds rests on it, as on a plate, and not within walls."""
        return self.rim - self.floor < FLAT


WALL = 0.014
"""Metres above a place's floor from which something is its wall, or lies in it."""

AGREE = 0.75
"""Share of the directions whose walls have the anchor's colour, from which nothing lies in a place."""

CORNER = 1.3
"""Distance of a place's corners, in shares of that of its walls: what is farther was seen through a gap."""

RAISED = 0.02
"""Metres above the support, the highest floor of a place that something hides."""

OUTLINE = 0.005
"""Metres, standard deviation of a place's middle: 95% of 77 outlines with a thing within were off by less."""

SPOT = 0.03
"""Metres around a free spot that still are it."""

DIRECTIONS = 2 * np.pi * np.arange(16) / 16


def place(cloud: Cloud3d, pixel: Array, anchor: Lifted) -> Place:
    """Middle of the inside of a bowl, box, plate or drawer around an anchor.

    From the anchor, walks over a height map in 16 directions to the walls and moves to the middle
    between them; a flat place without walls gives the middle of its visible surface. Where the walls so
    found have more than one colour, things lie in the place: its walls are those of the one colour that
    encloses most. A bowl, box or plate in which something lies is known by its outline.
    """
    start = anchor.position
    relief, near = _relief(cloud, start)
    told = rim(relief, start[:2], cloud.support)
    if told is not None and len(told.things):
        return _told(told)
    disc = np.hypot(near[:, 0] - start[0], near[:, 1] - start[1]) < 0.03
    floor = float(np.percentile(near[disc, 2], 20)) if disc.sum() > 10 else float(start[2])
    walk = _enclose(relief, start[:2], floor + WALL)
    hues = _hues(relief, walk, start[:2])
    if len(hues) > 1:
        low = min(floor, cloud.support + RAISED)
        walks = [(hue, _outline(relief, start[:2], low + WALL, hue)) for hue in hues]
        walks = [(hue, w) for hue, w in walks if w.closed(start[:2])]
        if walks:
            hue, widest = max(walks, key=lambda w: float((w[1].walls ** 2).sum()))
            filled = _filled(relief, widest, hue, floor, anchor.sigma)
            if len(filled.things):
                return filled
    if walk.closed(start[:2]):
        return Place(walk.center, floor, float(np.median(walk.rims)), walk.walls, max(anchor.sigma, OUTLINE))
    return _surface(cloud, pixel, anchor)


def outline(cloud: Cloud3d, anchor: Lifted) -> Rim | None:
    """The rim around an anchor, whether or not something lies within; None where there is none."""
    return rim(_relief(cloud, anchor.position)[0], anchor.position[:2], cloud.support)


def free_ground(anchor: Lifted, support: float) -> Place:
    """A free spot of the table: what stands around it is no wall."""
    walls = np.full(len(DIRECTIONS), SPOT)
    return Place(anchor.position[:2], support, support, walls, max(anchor.sigma, OUTLINE))


def _told(where: Rim) -> Place:
    """A place in which something lies: it holds what is let go within its rim, and is known by that."""
    walls = where.shape.walls(DIRECTIONS) - BRIM / 2
    return Place(where.shape.center, where.floor, where.top, walls, OUTLINE, where.things)


@dataclass(frozen=True, eq=False)
class _Walk:
    """Where walking from the middle to the walls ends."""

    center: Array
    walls: Array
    found: NDArray[np.bool_]
    rims: list[float]
    cells: list[tuple[int, int]]

    def closed(self, start: Array) -> bool:
        """Most directions end at a wall, and the middle is near the anchor."""
        return bool(self.found.sum() >= 9 and np.linalg.norm(self.center - start) < REACH)


def _outline(relief: Relief, start: Array, level: float, hue: Array) -> _Walk:
    """Walls of one colour, which things hide in part: their middle is that of all that is seen of them.

    A place is as wide on one side as on the other: where no wall is seen, or a farther one, that of the
    opposite side counts.
    """
    with np.errstate(invalid="ignore"):
        high = (relief.top > level) & relief.alike(hue)
    seen = relief.centers()[high]
    seen = seen[np.linalg.norm(seen - start, axis=1) < REACH]
    if len(seen) < 12:
        return _walk(relief, high, start)
    low_x, high_x, low_y, high_y = extents(seen, 0.0)
    walk = _walk(relief, high, np.array([(low_x + high_x) / 2, (low_y + high_y) / 2]))
    walls = np.minimum(walk.walls, np.roll(walk.walls, len(DIRECTIONS) // 2))
    found = walls < REACH
    if found.any():
        walls = np.minimum(walls, CORNER * np.median(walls[found]))
    return dataclasses.replace(walk, walls=walls, found=found)


def _enclose(relief: Relief, start: Array, level: float) -> _Walk:
    """Walk to what is higher than ``level``, and move to the middle between."""
    with np.errstate(invalid="ignore"):
        high = relief.top > level
    center = start.copy()
    for _ in range(6):
        walk = _walk(relief, high, center)
        if walk.found.sum() < 9:
            break
        step = np.array([(walk.walls * np.cos(DIRECTIONS)).mean(), (walk.walls * np.sin(DIRECTIONS)).mean()])
        center = center + 1.2 * step
        if np.linalg.norm(step) < 0.001:
            break
    return dataclasses.replace(walk, center=center)


def _hues(relief: Relief, walk: _Walk, start: Array) -> list[Array]:
    """Colours that differ, of the walls found and of the anchor; that of the walls alone where most agree."""
    i, j, _ = relief.at(start)
    colours = relief.colour[tuple(np.array([*walk.cells, (int(i), int(j))]).T)]
    colours = colours[np.isfinite(colours).all(1)]
    if not len(colours):
        return []
    alike = np.linalg.norm(colours[:, None] - colours, axis=-1) < ALIKE
    most = int(alike.sum(1).argmax())
    if alike[most].mean() >= AGREE and alike[most, -1]:
        return [colours[most]]
    hues: list[Array] = []
    for colour in colours:
        if all(np.linalg.norm(colour - h) > ALIKE for h in hues):
            hues.append(colour)
    return hues


def _filled(relief: Relief, walk: _Walk, hue: Array, floor: float, sigma: float) -> Place:
    """A place in which something may lie; its floor is seen beside that, and its walls count from there."""
    seen = relief.top[(_inside(relief, walk) > 0.01) & np.isfinite(relief.top) & relief.alike(hue)]
    floor = float(np.percentile(seen, 20)) if len(seen) > 10 else floor
    nearer = _outline(relief, walk.center, floor + WALL, hue)
    walk = nearer if nearer.closed(walk.center) else walk
    things = lying(relief, hue, floor, _inside(relief, walk))
    return Place(walk.center, floor, float(np.median(walk.rims)), walk.walls, max(sigma, OUTLINE), things)


def _inside(relief: Relief, walk: _Walk) -> Array:
    """(S, S) metres from each cell to the wall."""
    offset = relief.centers() - walk.center
    return wall(walk.walls, walk.found, offset) - np.hypot(offset[..., 0], offset[..., 1])


def wall(walls: Array, found: NDArray[np.bool_], offset: Array) -> Array:
    """Metres to the wall in the directions of (..., 2) offsets; where none was found as beside."""
    angle = np.arctan2(offset[..., 1], offset[..., 0])
    return np.interp(angle, DIRECTIONS[found], walls[found], period=2 * np.pi)


def _relief(cloud: Cloud3d, start: Array) -> tuple[Relief, Array]:
    """Height map around an anchor, and the (M, 3) points that it is made of."""
    x, y = cloud.points[..., 0], cloud.points[..., 1]  # NaN is not near
    near = (np.abs(x - start[0]) < 2 * REACH) & (np.abs(y - start[1]) < 2 * REACH)
    points = cloud.points[near]
    rows, columns = np.nonzero(near)
    colour = np.zeros((0, 3))
    if len(rows):
        window = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
        colour = chroma(cloud.rgb[window])[rows - rows.min(), columns - columns.min()]
    size = int(4 * REACH / CELL)
    low = start[:2] - 2 * REACH
    i, j = (np.floor((points[:, axis] - low[axis]) / CELL).astype(int) for axis in (0, 1))
    inside = (i >= 0) & (i < size) & (j >= 0) & (j < size)
    return _height_map(low, i[inside] * size + j[inside], points[inside, 2], colour[inside], size), points


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
    return Place(center, floor, max(rim, floor), np.full(16, radius), max(anchor.sigma, OUTLINE))


def _height_map(low: Array, cell: NDArray[np.int64], z: Array, colour: Array, size: int) -> Relief:
    """Highest z, and its colour, of each cell with two points or more; NaN where nothing was seen."""
    top, hue = np.full(size * size, -np.inf), np.full((size * size, 3), np.nan)
    np.maximum.at(top, cell, z)
    highest = z == top[cell]
    hue[cell[highest]] = colour[highest]
    top[np.bincount(cell, minlength=size * size) < 2] = np.nan
    return Relief(low, CELL, top.reshape(size, size), hue.reshape(size, size, 3))


def _walk(relief: Relief, high: NDArray[np.bool_], center: Array) -> _Walk:
    """Distance to the first high cell in each direction, whether there is one, its height."""
    steps = np.arange(0.012, REACH, CELL / 2)
    rays = np.stack([np.cos(DIRECTIONS), np.sin(DIRECTIONS)], -1)
    rows, columns, ok = relief.at(center + steps[None, :, None] * rays[:, None])
    hit = ok & high[rows, columns]
    found = np.asarray(hit.any(1))
    first = hit.argmax(1)
    walls = np.where(found, steps[first], REACH)
    tops, rims, cells = relief.top[rows, columns], [], []
    for k in np.flatnonzero(found):
        beyond = slice(first[k], first[k] + 6)
        rims.append(float(np.nanmax(tops[k, beyond])))
        cells.append((int(rows[k, first[k]]), int(columns[k, first[k]])))
    return _Walk(center, walls, found, rims, cells)


@dataclass(frozen=True, eq=False)
class Release:
    """How a gripped thing is let go. Base frame.

    Attributes:
        position: (3,) metres, of the TCP.
        finger: (2,) unit vector along which the fingers open.
        beside: (3,) metres to there from where it would be let go were the place empty.
    """

    position: Array
    finger: Array
    beside: Array


def release(thing: Grasp, where: Place, open_width: float) -> Release:
    """Where and how to let a gripped thing go.

    The thing is turned only where it or the fingers would meet a wall; the finger tips stay above the
    rim or the thing's own hang keeps them so. Where things lie in the place, it is let go beside them.

    Raises:
        BridgeError: OUT_OF_RANGE, no room is left.
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
    z = max(z, where.floor + MIN_GRIP)
    empty = np.array([where.center[0], where.center[1], z])
    if not len(where.things):
        return Release(empty, finger, np.zeros(3))
    steps = np.arange(-REACH, REACH, SEARCH)
    offset = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    away = np.hypot(*offset.T)
    room = wall(where.walls, where.walls < REACH, offset) - away
    nearest = np.argsort(away, kind="stable")
    nearest = nearest[room[nearest] > 0.0]
    spot = spot_among(thing, where.things, where.center + offset[nearest], room[nearest], z, open_width)
    z = max(z, spot.under + thing.hang + MARGIN)  # it is not pressed on what it comes down on
    goal = np.array([*spot.center, z])
    return Release(goal, spot.finger, goal - empty)


def _room(where: Place, angle: float) -> float:
    """Distance to the wall in a direction, metres."""
    return float(
        np.interp(angle % (2 * np.pi), np.r_[DIRECTIONS, 2 * np.pi], np.r_[where.walls, where.walls[0]])
    )
