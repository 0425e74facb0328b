"""Figures of the paper (arXiv 2510.03896), of RoboTwin, that reports and plots set beside ours."""

from __future__ import annotations

GOAL_NOISE: dict[str, tuple[float | None, ...]] = {
    "short": (0.71, None, 0.82, None, 0.68),
    "mid": (0.67, None, 0.77, None, 0.68),
    "long": (0.43, None, 0.60, None, 0.41),
}
"""Success by length of task, trained with goal noise of scale 0, .05, .10, .20, .50; None: not given."""
SUCCESS = {length: rates[2] for length, rates in GOAL_NOISE.items() if rates[2] is not None}
"""Success by length of task, with the goal noise that the paper settles on, 0.10."""
DEPTH_NOISE = {"expert": (0.57, 0.49, 0.33, 0.21), "ik": (0.42, 0.30, 0.11, 0.04)}
"""Success by policy, with depth noise of 0, 1, 10, 50 cm."""
