"""What is evaluated: suites of seeded episodes, run on all cores, counted with intervals."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np

from bridgevla_ros.evaluation.spec import EpisodeResult, EpisodeSpec
from bridgevla_ros.evaluation.stats import wilson_interval
from bridgevla_ros.simulation.suites import TASKS

SUITES = {
    "main": "one pick-and-place a seed: objects, colours, places, wordings and camera drawn at random",
    "named": "each scene twice, another object named each time: that one must move",
    "black": "the camera shows black: nothing may move",
    "short": "press, lift, push to a mark, turn a knob, lift a lid: seeds take turns",
    "mid": "place in or on, open and close a drawer, stack, ring on a post",
    "long": "stack three, put away and close, sort by colour, swap through a free place",
}


def specs_for(suite: str, seed: int, episodes: int, **settings: Any) -> list[EpisodeSpec]:
    """Episodes of a suite, seeds ``seed`` to ``seed + episodes - 1``.

    Raises:
        ValueError: No such suite.
    """
    if suite not in SUITES and suite not in TASKS:
        raise ValueError(f"suite {suite!r}; expected one of {sorted(SUITES)}, or a task: {sorted(TASKS)}")
    variants = (0, 1) if suite == "named" else (0,)
    return [EpisodeSpec(suite, seed + i, v, **settings) for i in range(episodes) for v in variants]


def summarise(results: list[EpisodeResult], wall_seconds: float) -> dict[str, Any]:
    """The JSON of a suite: one policy, one planner.

    Returns:
        success_rate, ci95, episodes, failures (by cause), policy, planner, seeds, seconds and
        every episode.
    """
    ordered = sorted(results, key=lambda r: (r.seed, r.variant))
    wins = sum(r.success for r in ordered)
    causes = Counter(r.cause for r in ordered if not r.success)
    return {
        "suite": ordered[0].suite,
        "policy": ordered[0].policy,
        "planner": ordered[0].planner,
        "success_rate": wins / len(ordered),
        "ci95": list(wilson_interval(wins, len(ordered))),
        "episodes": len(ordered),
        "failures": dict(causes.most_common()),
        "seeds": sorted({r.seed for r in ordered}),
        "seconds": wall_seconds,
        "sim_seconds_median": float(np.median([r.sim_seconds for r in ordered])),
        "details": [asdict(r) for r in ordered],
    }
