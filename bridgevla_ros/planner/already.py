"""Does a thing lie in its place before anything has moved? From one image, therefore told with care.

A false "already" leaves the work undone, a false "not yet" does it once more: so all witnesses must agree.
The bounds are our choice, by development scenes.
"""

from __future__ import annotations

import numpy as np

from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.planner.grasp import Cloud3d, segment
from bridgevla_ros.planner.place import DIRECTIONS, Place, wall

SEEN = 0.6
"""Least share of a thing's surface that must be among what lies in the place."""

WITHIN = 0.95
"""Least share of a thing's surface that must lie within the place's walls."""

BESIDE = 0.007
"""Metres from a cell of what lies there to a point that is of it."""

BELOW = 0.008
"""Metres below the rim of a bowl, box or drawer that a thing in it reaches at least, as far as it is seen."""

RESTS = 0.022
"""Metres above a flat place's floor that the lowest that is seen of a thing on it may have."""


def lies_in(cloud: Cloud3d, pixel: Array, where: Place) -> bool:
    """Whether the thing at an anchor lies in a place: in a bowl, box or drawer, or on a plate.

    Args:
        cloud: The frame as points.
        pixel: (2,) u, v of the thing's anchor.
        where: The place, with what lies there.
    """
    if not len(where.things):
        return False
    try:
        mask, window = segment(cloud, pixel)
    except BridgeError:
        return False
    points = cloud.points[window][mask]
    offset = points[:, :2] - where.center
    within = np.hypot(*offset.T) < wall(where.walls, np.ones(len(DIRECTIONS), bool), offset)
    if within.mean() < WITHIN:
        return False
    apart = np.abs(points[:, None, :2] - where.things[None, :, :2]).max(-1).min(1)
    if (apart < BESIDE).mean() < SEEN:
        return False
    lowest = float(np.percentile(points[:, 2], 3))
    return lowest < (where.floor + RESTS if where.flat else where.rim - BELOW)
