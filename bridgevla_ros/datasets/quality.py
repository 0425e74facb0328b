"""Whether an episode is fit to learn from: rates, gaps, synchrony, depth, calibration, outcome."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.config import param
from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.datasets.bag_episodes import (
    CLOUD,
    COLOUR,
    DEPTH,
    JOINTS,
    QUALITY,
    BagEpisode,
    Series,
    qualities,
)


@dataclass(frozen=True)
class QualityLimits:
    """What an episode must hold to. Our choice but for the residual, which is what stops the arm."""

    rate: float = param(2.0, "Least images a second", unit="Hz", ge=0.1, le=120.0)
    gap: float = param(2.5, "Longest gap between images, in typical periods", ge=1.1, le=100.0)
    joint_gap: float = param(0.1, "Longest gap between joint states", unit="s", ge=0.001, le=10.0)
    sync: float = param(0.02, "Colour to depth, and depth to joint state, 95% of images", unit="s", ge=0.0)
    valid: float = param(0.5, "Least median share of depth pixels that are valid", ge=0.0, le=1.0)
    noise: float = param(0.006, "Largest median depth noise about the table", unit="m", ge=0.0)
    residual: float = param(0.010, "Largest median distance of the robot from its model", unit="m", ge=0.0)
    seconds: float = param(1.0, "Shortest episode", unit="s", ge=0.1)
    success: bool = param(True, "Only what ended well, and was judged to")


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: What was looked at.
        value, limit: In ``unit``; NaN where it could not be measured.
        unit: Unit.
        passed: Whether it holds; None where it could not be measured and is not counted.
        note: What else to know.
    """

    name: str
    value: float
    limit: float
    unit: str
    passed: bool | None
    note: str = ""


def assess(episode: BagEpisode, limits: QualityLimits) -> list[Check]:
    """All checks of one episode; clock of the stamps, not of receipt."""
    first, last = episode.bounds
    checks = [_least("length", last - first, limits.seconds, "s")]
    for name, topic in (("colour", COLOUR), ("depth", DEPTH), ("cloud", CLOUD)):
        series = episode.series[topic]
        if not series.stamps:
            checks.append(Check(f"{name} rate", math.nan, limits.rate, "Hz", None, "not in the bag"))
            continue
        checks += _stream(name, series, limits)
    joints = _periods(episode.series[JOINTS])
    checks.append(_most("joint gap", float(joints.max()) if len(joints) else math.nan, limits.joint_gap, "s"))
    checks.append(_in_order(episode))
    depth = np.array(episode.series[DEPTH].stamps)
    for name, topic in (("colour to depth", COLOUR), ("depth to joints", JOINTS)):
        off = _nearest(depth, np.array(episode.series[topic].stamps))
        value = float(np.percentile(off, 95)) if len(off) else math.nan
        checks.append(_most(name, value, limits.sync, "s"))
    checks += _depth(episode, limits)
    return [*checks, *_outcome(episode, limits)]


def fit(checks: Sequence[Check]) -> bool:
    """Whether no check failed."""
    return all(c.passed is not False for c in checks)


def why_not(checks: Sequence[Check]) -> str:
    """The failed checks in words."""
    return "; ".join(
        f"{c.name} {c.note or f'{c.value:.4g} {c.unit} (limit {c.limit:.4g})'}"
        for c in checks
        if c.passed is False
    )


def _stream(name: str, series: Series, limits: QualityLimits) -> list[Check]:
    periods = _periods(series)
    if not len(periods):
        return [Check(f"{name} rate", 0.0, limits.rate, "Hz", False, "one image only")]
    typical = float(np.median(periods))
    wide = int((periods > limits.gap * typical).sum())
    note = f"{wide} gaps over {limits.gap:g} periods" if wide else ""
    return [
        _least(f"{name} rate", 1.0 / typical, limits.rate, "Hz"),
        Check(
            f"{name} gap",
            float(periods.max()) / typical,
            limits.gap,
            "periods",
            not wide,
            note,
        ),
    ]


def _depth(episode: BagEpisode, limits: QualityLimits) -> list[Check]:
    said = qualities(episode)
    valid = [q.valid_fraction for q in said]
    if not said and episode.there(DEPTH):  # no cropper ran: look at the images
        valid = [float(np.isfinite(d).mean()) for d in episode.series[DEPTH].values]
    return [
        _least("depth valid", _median(valid), limits.valid, "share"),
        _most("depth noise", _median([q.noise for q in said]), limits.noise, "m"),
        _most("calibration residual", _median([q.robot_residual for q in said]), limits.residual, "m"),
    ]


def _outcome(episode: BagEpisode, limits: QualityLimits) -> list[Check]:
    span = episode.span
    ended = span.ended and span.code is ErrorCode.NONE
    told = span.code.name if span.ended else "the bag ends before the task"
    checks = [Check("task", float(ended), 1.0, "", ended or not limits.success, "" if ended else told)]
    if episode.success is not None:
        passed = episode.success or not limits.success
        checks.append(
            Check("judge", float(episode.success), 1.0, "", passed, "" if passed else "goal not reached")
        )
    return checks


def _in_order(episode: BagEpisode) -> Check:
    back = sum(int((np.diff(s.stamps) < 0).sum()) for t, s in episode.series.items() if t != QUALITY)
    return Check("stamps that go back", float(back), 0.0, "", back == 0)


def _periods(series: Series) -> NDArray[np.float64]:
    periods = np.diff(np.array(series.stamps, np.float64))
    return periods[periods > 0.0]


def _nearest(stamps: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each stamp from the nearest of the others, seconds."""
    if not len(stamps) or not len(others):
        return np.zeros(0)
    others = np.sort(others)
    at = np.clip(np.searchsorted(others, stamps), 1, max(len(others) - 1, 1))
    before, after = others[at - 1], others[np.minimum(at, len(others) - 1)]
    return np.asarray(np.minimum(np.abs(stamps - before), np.abs(stamps - after)))


def _median(values: Sequence[float]) -> float:
    finite = [v for v in values if math.isfinite(v)]
    return float(np.median(finite)) if finite else math.nan


def _most(name: str, value: float, limit: float, unit: str) -> Check:
    if math.isnan(value):
        return Check(name, value, limit, unit, None, "not measured")
    return Check(name, value, limit, unit, value <= limit)


def _least(name: str, value: float, limit: float, unit: str) -> Check:
    if math.isnan(value):
        return Check(name, value, limit, unit, None, "not measured")
    return Check(name, value, limit, unit, value >= limit)
