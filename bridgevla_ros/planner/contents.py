"""What lies in a place (bowl, box, drawer, plate), told from the place by colour, and the room beside it.

All of it our choice: things in a place are seen to be things because they do not look like its walls.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.planner.grasp import Grasp

ALIKE = 0.25
"""Distance of colours without brightness within which a cell looks like another, as in ``grasp.segment``."""

CELL = 0.005
"""Metres, of a cell of the height map."""

STANDS_OUT = 0.008
"""Metres above a place's floor from which a cell of another colour belongs to a thing."""

MARGIN = 0.004
"""Metres kept between a thing that is let go and what lies there."""

PUSHED = 0.3
"""Share of a thing's footprint that may come down on what lies there: it slides aside (our choice)."""

SEARCH = 0.006
"""Metres between the spots that are tried."""

TIPS, FINGER = 0.019, (0.020, 0.018)
"""Metres: from the TCP down to the finger tips; half the breadth and thickness of a finger, with margin."""


@dataclass(frozen=True, eq=False)
class Relief:
    """A square height map around an anchor, north up in the base frame.

    Attributes:
        low: (2,) metres, its corner with the least x and y.
        cell: Metres.
        top: (S, S) metres, highest z of each cell; NaN where nothing was seen.
        colour: (S, S, 3) without brightness, of the point that is highest.
    """

    low: Array
    cell: float
    top: Array
    colour: Array

    def at(self, xy: Array) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Indices of the cells under (..., 2) points, and which lie on the map."""
        cells = np.floor((xy - self.low) / self.cell).astype(np.int64)
        ok = np.asarray(((cells >= 0) & (cells < len(self.top))).all(-1))
        cells = np.clip(cells, 0, len(self.top) - 1)
        return cells[..., 0], cells[..., 1], ok

    def centers(self) -> Array:
        """(S, S, 2) metres, middle of each cell."""
        grid = np.stack(np.meshgrid(*[np.arange(len(self.top))] * 2, indexing="ij"), -1)
        return np.asarray(self.low + (grid + 0.5) * self.cell)

    def alike(self, hue: Array) -> NDArray[np.bool_]:
        """(S, S) which cells have a colour."""
        return alike(self.colour, hue)


def alike(colours: Array, hue: Array) -> NDArray[np.bool_]:
    """(...) which of (..., 3) colours without brightness are like another; NaN is like none."""
    off = colours - hue
    with np.errstate(invalid="ignore"):
        return np.asarray(np.einsum("...i,...i->...", off, off) < ALIKE**2)  # 3 times as fast as the norm


def lying(relief: Relief, hue: Array, floor: float, room: Array) -> Array:
    """(M, 3) metres, cells of things in a place: middle and top.

    Args:
        relief: Around it.
        hue: (3,) colour of the place.
        floor: z of its floor.
        room: (S, S) metres to its wall; what has less than a cell of it is no thing.
    """
    with np.errstate(invalid="ignore"):
        high = (relief.top > floor + STANDS_OUT) & ~relief.alike(hue) & (room > relief.cell)
    # A cell on its own is noise of colour or depth.
    labels, count = ndimage.label(high, np.ones((3, 3)))
    sizes = ndimage.sum_labels(high, labels, np.arange(count + 1))
    high &= np.asarray(sizes)[labels] >= 4
    return np.column_stack([relief.centers()[high], relief.top[high]])


@dataclass(frozen=True, eq=False)
class Spot:
    """Where a thing finds room. Base frame, metres.

    Attributes:
        center: (2,) where it is let go.
        finger: (2,) unit vector along which the fingers open.
        under: z of the highest of what it comes down on; -inf for nothing.
    """

    center: Array
    finger: Array
    under: float


def spot_among(thing: Grasp, things: Array, spots: Array, room: Array, z: float, open_width: float) -> Spot:
    """The spot where a thing comes down least on what lies there; of such the nearest to the place's middle.

    Args:
        thing: What is held.
        things: (M, 3) metres, cells of what lies there.
        spots: (N, 2) metres, candidates, nearest to the middle first.
        room: (N,) metres to the wall from each.
        z: Of the TCP when the fingers open.
        open_width: Metres between the fingers then.

    Raises:
        BridgeError: OUT_OF_RANGE, there is no room left.
    """
    half = np.array([thing.width, thing.length]) / 2
    best, chosen = PUSHED, None
    for turn in np.radians([0.0, 90.0, 30.0, 60.0, -60.0, -30.0]):
        angle = np.arctan2(thing.finger[1], thing.finger[0]) + turn
        finger = np.array([np.cos(angle), np.sin(angle)])
        offset = things[None, :, :2] - spots[:, None]
        along, aside = np.abs(offset @ finger), np.abs(offset @ np.array([-finger[1], finger[0]]))
        under = (along < half[0] + MARGIN) & (aside < half[1] + MARGIN)
        share = under.sum(1) * CELL**2 / (4 * (half[0] + MARGIN) * (half[1] + MARGIN))
        fingers = (np.abs(along - open_width / 2 - FINGER[1] / 2) < FINGER[1]) & (aside < FINGER[0])
        hit = (fingers & (things[:, 2] > z - TIPS)).any(1)
        share[hit | (room < max(half) + MARGIN)] = np.inf
        if len(share) and share.min() < best - 0.02:
            i = int(share.argmin())
            tops = things[under[i], 2]
            best, chosen = float(share[i]), Spot(spots[i], finger, float(tops.max(initial=-np.inf)))
    if chosen is not None:
        return chosen
    gaps = np.linalg.norm(things[None, :, :2] - spots[:, None], axis=-1).min(1)
    free = 2 * float(np.minimum(gaps, room).max()) if len(spots) else 0.0
    fingers = open_width + 2 * FINGER[1]
    needed = next((side for side in sorted(2 * half) if side > free), max(fingers, free + MARGIN))
    raise BridgeError(
        ErrorCode.OUT_OF_RANGE,
        f"no room is left: the thing is {1000 * thing.width:.0f} x {1000 * thing.length:.0f} mm, the open "
        f"fingers {1000 * fingers:.0f}; beside what lies there {1000 * free:.0f} mm are free",
        value=free,
        limit=float(needed),
        unit="m",
        remedy="take something out, or name another place",
    )
