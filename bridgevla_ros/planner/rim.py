"""What lies in a bowl or a box or on a plate, told by depth and colour from the outline of its rim.

Nothing but its rim is known of such a place: things may cover its middle. All of one colour around the anchor
whose outline is a circle or a rectangle is the place. The surface of a round one is one of revolution, at a
distance from the axis as high on all sides; that of a box is flat. What stands out of it lies in it, and so
does what has another colour. All our choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bridgevla_ros.core.transforms import Array
from bridgevla_ros.planner.contents import STANDS_OUT, Relief, alike

LEAST, MOST = 0.05, 0.125
"""Metres, half the width of the smallest and largest place: smaller is what lies there."""

OFF = 0.005
"""Metres by which an outline may differ from circle or rectangle, a cell of the height map."""

ROUND, SQUARE = 0.72, 0.65
"""Least share of the directions in which it does not. A square has 0.6 of a circle's."""

GROUND = 0.0045
"""Metres above the support from which a cell, the highest of its points, is none of the table's."""

BRIM = 0.012
"""Metres inside the rim that are its own: there the height of a cell says nothing."""

RISES = 0.015
"""Metres above the surface of revolution from which a cell of the place's own colour belongs to a thing."""

FLAT = 0.020
"""Metres from its floor to its rim below which a place is flat."""

SPECK = 6
"""Cells, fewer than which are noise of colour or depth."""

SECTORS = 40
"""Directions in which an outline is looked at."""


@dataclass(frozen=True, eq=False)
class Rim:
    """A place with a rim around. Base frame, metres.

    Attributes:
        shape: Its outline.
        top: z of its edge.
        floor: z of its lowest seen surface.
        things: (M, 3) cells of what lies in it: middle and top.
    """

    shape: Circle | Rectangle
    top: float
    floor: float
    things: Array

    @property
    def kind(self) -> str:
        """What has such a rim: a bowl, a plate or a box."""
        if isinstance(self.shape, Rectangle):
            return "box"
        return "plate" if self.top - self.floor < FLAT else "bowl"


@dataclass(frozen=True, eq=False)
class Circle:
    """Outline of a bowl or a plate: ``center`` (2,) and ``radius`` of its outer edge, metres."""

    center: Array
    radius: float

    def room(self, xy: Array) -> Array:
        """Metres from (..., 2) points to the edge, negative outside."""
        return np.asarray(self.radius - np.hypot(xy[..., 0] - self.center[0], xy[..., 1] - self.center[1]))

    def walls(self, directions: Array) -> Array:
        """Metres from the middle to the edge."""
        return np.full(len(directions), self.radius)


@dataclass(frozen=True, eq=False)
class Rectangle:
    """Outline of a box: ``center`` (2,), ``axis`` (2,) unit vector, ``half`` (2,) its half size; metres."""

    center: Array
    axis: Array
    half: Array

    def local(self, xy: Array) -> Array:
        """(..., 2) points along and across its axis."""
        turn = np.array([self.axis, [-self.axis[1], self.axis[0]]])
        return np.asarray((xy - self.center) @ turn.T)

    def room(self, xy: Array) -> Array:
        """Metres from (..., 2) points to the edge, negative outside."""
        return np.asarray((self.half - np.abs(self.local(xy))).min(-1))

    def walls(self, directions: Array) -> Array:
        """Metres from the middle to the edge."""
        rays = np.abs(self.local(self.center + np.stack([np.cos(directions), np.sin(directions)], -1)))
        return np.asarray((self.half / np.maximum(rays, 1e-9)).min(-1))


def rim(relief: Relief, start: Array, support: float) -> Rim | None:
    """The place around an anchor that its outline tells; None where there is none.

    Args:
        relief: Around the anchor.
        start: (2,) metres, the anchor.
        support: z of the table.
    """
    xy = relief.centers()
    away = np.hypot(xy[..., 0] - start[0], xy[..., 1] - start[1])
    with np.errstate(invalid="ignore"):
        high = relief.top > support + GROUND
    best, found = 0.0, None
    for hue in _hues(relief, high & (away < LEAST), away):
        points = _joined(xy, high & relief.alike(hue), away)
        for fit, least in ((_circle, ROUND), (_rectangle, SQUARE)):
            shape, share = fit(points)
            if shape is not None and share > max(best, least) and shape.room(start) > -OFF:
                best, found = share, (shape, hue)
                break
    return None if found is None else _measured(relief, xy, *found, high)


def _hues(relief: Relief, near: NDArray[np.bool_], away: Array) -> list[Array]:
    """At most four colours that differ, nearest to the anchor first."""
    colours = relief.colour[near][np.argsort(away[near])]
    colours = colours[np.isfinite(colours).all(1)]
    hues: list[Array] = []
    while len(colours) and len(hues) < 4:
        same = alike(colours, colours[0])
        if same.sum() >= 4:
            hues.append(np.median(colours[same], 0))
        colours = colours[~same]
    return hues


def _joined(xy: Array, own: NDArray[np.bool_], away: Array) -> Array:
    """(N, 2) cells that hang together with those around the anchor."""
    near = own & (away < LEAST)
    if not near.any():
        return np.zeros((0, 2))
    labels, _ = ndimage.label(ndimage.binary_dilation(own), np.ones((3, 3)))
    points = xy[own & (labels == int(np.bincount(labels[near]).argmax()))]
    wide = 2.0 * LEAST < float(np.ptp(points, axis=0).max()) < 2.6 * MOST
    return points if wide else np.zeros((0, 2))


def _circle(points: Array) -> tuple[Circle | None, float]:
    """The circle around points, and the share of the directions in which they end there."""
    if not len(points):
        return None, 0.0
    low, high = points.min(0), points.max(0)
    shape = Circle((low + high) / 2, float((high - low).max()) / 2)
    for band in (4 * OFF, 2 * OFF, OFF, OFF):
        edge, seen = _outline(points, shape.center)
        fits = seen & (np.abs(shape.room(edge)) < band)
        if fits.sum() < SECTORS // 2:
            return None, 0.0
        a = np.column_stack([2 * edge[fits], np.ones(int(fits.sum()))])
        solution, *_ = np.linalg.lstsq(a, (edge[fits] ** 2).sum(1), rcond=None)
        center = solution[:2]
        shape = Circle(center, float(np.sqrt(max(solution[2] + center @ center, 0.0))))
    return (shape, _share(points, shape)) if LEAST < shape.radius < MOST else (None, 0.0)


def _rectangle(points: Array) -> tuple[Rectangle | None, float]:
    """The rectangle around points, and the share of the directions in which they end there."""
    if not len(points):
        return None, 0.0
    low, high = points.min(0), points.max(0)
    edge, seen = _outline(points, (low + high) / 2)
    edge, angles = edge[seen], np.radians(np.arange(0.0, 90.0, 3.0))
    axes = np.stack([np.cos(angles), np.sin(angles)], -1)
    along, across = edge @ axes.T, edge @ np.stack([-axes[:, 1], axes[:, 0]])
    best = int((np.ptp(along, axis=0) * np.ptp(across, axis=0)).argmin())
    axis, at = axes[best], np.stack([along[:, best], across[:, best]], -1)
    sides = np.stack([at.min(0), at.max(0)], -1)
    gap = np.abs(at[:, :, None] - sides).reshape(-1, 4)
    for side in range(4):  # a corner that sticks out does not move a side
        own = (gap.argmin(1) == side) & (gap[:, side] < 3 * OFF)
        if own.sum() >= 3:
            sides[side // 2, side % 2] = np.median(at[own, side // 2])
    middle, half = sides.mean(1), (sides[:, 1] - sides[:, 0]) / 2
    shape = Rectangle(axis * middle[0] + np.array([-axis[1], axis[0]]) * middle[1], axis, half)
    return (shape, _share(points, shape)) if half.min() > LEAST and half.max() < MOST else (None, 0.0)


def _share(points: Array, shape: Circle | Rectangle) -> float:
    """Share of the directions in which points end at an outline."""
    edge, seen = _outline(points, shape.center)
    return float((seen & (np.abs(shape.room(edge)) < OFF)).mean())


def _outline(points: Array, center: Array) -> tuple[Array, NDArray[np.bool_]]:
    """(SECTORS, 2) farthest point in each direction, and in which there is one."""
    offset = points - center
    sector = ((np.arctan2(offset[:, 1], offset[:, 0]) / (2 * np.pi) % 1.0) * SECTORS).astype(int) % SECTORS
    order = np.argsort(np.hypot(offset[:, 0], offset[:, 1]))
    last = np.full(SECTORS, -1)
    last[sector[order]] = order
    return points[last], last >= 0


def _measured(
    relief: Relief, xy: Array, shape: Circle | Rectangle, hue: Array, high: NDArray[np.bool_]
) -> Rim:
    """Its surface, and what stands out of it."""
    room = shape.room(xy)
    disc = high & (room > -relief.cell)
    tops, room, own = relief.top[disc], room[disc], alike(relief.colour[disc], hue)
    edge = tops[own & (room < 2 * relief.cell)]
    top = float(np.percentile(edge, 85)) if len(edge) else float(tops.max())
    ring = np.zeros(len(room), int)  # the floor of a box is one flat ring
    if isinstance(shape, Circle):
        ring = np.maximum((shape.radius - room) / relief.cell, 0.0).astype(int)
    inner = own & (room > BRIM) if isinstance(shape, Rectangle) else own
    level = np.array([_low(tops[inner & (ring == k)]) for k in range(int(ring.max()) + 2)])
    level = np.minimum(np.minimum.accumulate(level[::-1])[::-1], top)
    floor = float(level.min())
    outwards = 1 if isinstance(shape, Circle) else 0  # a bowl rises
    surface = level[ring + outwards]
    above = np.where(own, surface + RISES, np.maximum(surface - 0.004, floor + STANDS_OUT))
    stands = np.zeros_like(disc)
    stands[disc] = (tops > above) & (room > np.where(own & isinstance(shape, Rectangle), 2 * BRIM, BRIM))
    labels, count = ndimage.label(stands, np.ones((3, 3)))
    sizes = np.asarray(ndimage.sum_labels(stands, labels, np.arange(count + 1)))
    stands &= sizes[labels] >= SPECK
    return Rim(shape, top, floor, np.column_stack([xy[stands], relief.top[stands]]))


def _low(heights: Array) -> float:
    """Lower quarter of a ring's heights: a thing that lies there covers less than three quarters of it."""
    quarter = (len(heights) - 1) // 4
    return float(np.partition(heights, quarter)[quarter]) if len(heights) >= 3 else float("inf")
