"""Statistics of success counts and of what follows what; how rates are said."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bridgevla_ros.core.transforms import Array


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a success rate, 95% by default.

    Args:
        successes: Number of successes.
        trials: Number of trials.
        z: Normal quantile of the two-sided level.

    Returns:
        (low, high), both in 0..1; (0, 1) without trials.

    Raises:
        ValueError: More successes than trials, or a negative count.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials")
    if trials == 0:
        return 0.0, 1.0
    rate = successes / trials
    denominator = 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / denominator
    half = z / denominator * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    # At no success, or none failed, the bound is exact; rounding would leave it a hair inside.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high


def paired_difference(
    both: int, first_only: int, second_only: int, neither: int, z: float = 1.959964
) -> tuple[float, float, float]:
    """Difference of two success rates on the same trials, with Newcombe's square-and-add interval.

    Method 10 of Newcombe (1998), "Improved confidence intervals for the difference between binomial
    proportions based on paired data": Wilson intervals of each rate, joined with their correlation.

    Args:
        both, first_only, second_only, neither: Trials by who succeeded.
        z: Normal quantile of the two-sided level.

    Returns:
        (difference, low, high): first minus second, each in -1..1; (0, -1, 1) without trials.

    Raises:
        ValueError: A count is negative.
    """
    if min(both, first_only, second_only, neither) < 0:
        raise ValueError(f"negative count among {both}, {first_only}, {second_only}, {neither}")
    trials = both + first_only + second_only + neither
    if trials == 0:
        return 0.0, -1.0, 1.0
    wins1, wins2 = both + first_only, both + second_only
    rate1, rate2 = wins1 / trials, wins2 / trials
    low1, high1 = wilson_interval(wins1, trials, z)
    low2, high2 = wilson_interval(wins2, trials, z)
    spread = wins1 * (trials - wins1) * wins2 * (trials - wins2)
    phi = 0.0
    if spread > 0:
        # Newcombe's continuity-corrected correlation: a positive one is shrunk towards none.
        shared = float(both * neither - first_only * second_only)
        shared = max(shared - trials / 2, 0.0) if shared > 0 else shared
        phi = shared / math.sqrt(spread)

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2.0 * phi * a * b + b * b, 0.0))

    difference = rate1 - rate2
    low = difference - reach(rate1 - low1, high2 - rate2)
    high = difference + reach(rate2 - low2, high1 - rate1)
    return difference, max(low, -1.0), min(high, 1.0)


def slope(
    shifts: Array, answers: Array, *, seed: int = 0, resamples: int = 2000
) -> tuple[float, float, float]:
    """How much of a shift an answer follows: least squares through zero, 95% by bootstrap over trials.

    Args:
        shifts: (M, 3) metres, what was moved and where to.
        answers: (M, 3) metres, how much the outcome moved.
        seed: Of the resampling.
        resamples: Bootstrap samples (percentile interval).

    Returns:
        (slope, low, high): 1 follows wholly, 0 not at all; NaN without trials.
    """
    if not len(shifts):
        return float("nan"), float("nan"), float("nan")
    along = np.sum(shifts * answers, axis=1)
    length = np.sum(shifts * shifts, axis=1)
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(along), size=(resamples, len(along)))
    slopes = along[draws].sum(axis=1) / length[draws].sum(axis=1)
    low, high = np.quantile(slopes, [0.025, 0.975])
    return float(along.sum() / length.sum()), float(low), float(high)


def percent(rate: float) -> str:
    """E.g. "83%"; "99.5%" is not rounded to all, nor "0.4%" to none."""
    all_or_none = rate in (0.0, 1.0)
    return f"{100 * rate:.{0 if all_or_none or 0.005 < rate < 0.995 else 1}f}%"


def interval(ci: Sequence[float]) -> str:
    """E.g. "71 to 91%"."""
    return f"{100 * ci[0]:.0f} to {100 * ci[1]:.0f}%"
