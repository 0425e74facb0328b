"""Is depth good enough where the plan rests on it?"""

from __future__ import annotations

import numpy as np

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.gate.draft import Draft

NEAR_ANCHOR = 0.08
"""Share of the image's width on each side of an anchor that ``check_depth`` looks at."""

UNDER, MOST_UNDER = 0.015, 0.25
"""Metres under the support, and the share of points there that is still believed (our choice)."""


def check_certain(draft: Draft, config: PlannerConfig) -> None:
    """It is known well enough where the anchors are."""
    for anchor in draft.anchors:
        if not anchor.sigma <= config.max_sigma:
            raise BridgeError(
                ErrorCode.DEPTH_HOLE,
                f"where {anchor.label!r} is, is known to {1000 * anchor.sigma:.0f} mm only",
                value=anchor.sigma,
                limit=config.max_sigma,
                unit="m",
                remedy="look from nearer or from another side; shiny, dark and clear things have bad depth",
            )


def check_depth(draft: Draft) -> None:
    """Next to an anchor hardly anything is measured under what things stand on."""
    points, support = draft.cloud.points, draft.support
    reach = max(round(points.shape[1] * NEAR_ANCHOR), 1)
    for anchor in draft.anchors:
        u, v = np.round(anchor.pixel).astype(int)
        z = points[max(v - reach, 0) : v + reach + 1, max(u - reach, 0) : u + reach + 1, 2]
        z = z[np.isfinite(z) & (z > support - 0.15)]  # what is lower lies beside the table
        under = float((z < support - UNDER).mean()) if z.size else 0.0
        if under > MOST_UNDER:
            raise BridgeError(
                ErrorCode.DEPTH_HOLE,
                f"{100 * under:.0f}% of the points around {anchor.label!r} are measured under the table",
                value=under,
                limit=MOST_UNDER,
                remedy="depth is wrong there: look for glass, reflections and a second depth camera",
            )
