"""The plots of the reports. A policy has the same colour everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bridgevla_ros.core.transforms import Array
from bridgevla_ros.evaluation.stats import percent

COLOURS = {"expert": "#2563b8", "ik": "#7a8594", "snap": "#d9822b"}
"""Of the policies; anything else takes from ``OTHERS`` in turn."""
OTHERS = ("#2563b8", "#d9822b", "#2f8f6b", "#9b4fa5", "#b3372f", "#7a8594", "#b59a1c", "#3aa0b5")
CAUSES = (
    "#b3372f", "#d9822b", "#b59a1c", "#2f8f6b", "#3aa0b5", "#6a6fc2", "#9b4fa5", "#7a8594", "#c98aa0",
    "#4b5563",
)  # fmt: skip
INK, DIM, GRID = "#1d2530", "#5b6674", "#e6eaef"

Rate = tuple[float, float, float]
"""Rate and its interval, 0..1."""


def colour(name: str, index: int) -> str:
    """Of the series of this name, the index-th in its plot."""
    return COLOURS.get(name, OTHERS[index % len(OTHERS)])


def _canvas(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = [figure.add_subplot(1, columns, i + 1) for i in range(columns)]
    for ax in axes:
        _plain(ax)
    return figure, axes


def _plain(ax: Axes) -> None:
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color(DIM)
    ax.tick_params(colors=DIM, length=0, labelsize=10)
    ax.set_axisbelow(True)


def success(groups: Mapping[str, Mapping[str, Rate]]) -> Figure:
    """Success with its interval: a block of rows a group (suite or task), a row a policy."""
    count = sum(len(policies) for policies in groups.values())
    figure, (ax,) = _canvas(8.6, 0.9 + 0.34 * count + 0.26 * len(groups))
    y, ticks, labels = 0.0, [], []
    for group, policies in groups.items():
        if len(groups) > 1:
            ax.text(0.0, y - 0.1, group, color=INK, fontsize=10.5, fontweight="bold", va="center")
            y += 0.9
        for i, (policy, (rate, low, high)) in enumerate(policies.items()):
            shade = colour(policy, i)
            ax.plot([100 * low, 100 * high], [y, y], color=shade, lw=5, alpha=0.3, solid_capstyle="round")
            ax.plot([100 * rate], [y], "o", color=shade, ms=8)
            ax.text(
                102.5,
                y,
                f"{percent(rate)}  ({100 * low:.0f} to {100 * high:.0f})",
                va="center",
                fontsize=10,
            )
            ticks.append(y)
            labels.append(policy)
            y += 1.0
        y += 0.25
    ax.set_yticks(ticks, labels)
    ax.tick_params(axis="y", labelcolor=INK)
    ax.set_xlim(-1, 126)
    ax.set_xticks(range(0, 101, 20))
    ax.set_ylim(y - 0.4, -0.7)
    ax.grid(axis="x", color=GRID)
    ax.set_xlabel("success, %, with 95% interval", color=DIM)
    return figure


def failures(rows: Mapping[str, Mapping[str, int]], totals: Mapping[str, int]) -> Figure:
    """Shares of the episodes that failed, by cause: a stacked bar a policy."""
    causes = list(dict.fromkeys(cause for row in rows.values() for cause in row))
    figure, (ax,) = _canvas(8.6, 1.2 + 0.5 * len(rows))
    for i, cause in enumerate(causes):
        shares = np.array([100 * row.get(cause, 0) / max(totals[p], 1) for p, row in rows.items()])
        before = np.array(
            [100 * sum(row.get(c, 0) for c in causes[:i]) / max(totals[p], 1) for p, row in rows.items()]
        )
        ax.barh(
            range(len(rows)), shares, left=before, color=CAUSES[i % len(CAUSES)], label=cause, height=0.62
        )
    ax.set_yticks(range(len(rows)), list(rows))
    ax.tick_params(axis="y", labelcolor=INK)
    ax.invert_yaxis()
    ax.grid(axis="x", color=GRID)
    ax.set_xlabel("failed episodes, % of all", color=DIM)
    if causes:
        ax.legend(frameon=False, fontsize=9, ncols=3, loc="upper left", bbox_to_anchor=(0.0, -0.32))
    return figure


def sweep(
    labels: Sequence[str],
    series: Mapping[str, Sequence[Rate | None]],
    xlabel: str,
    reference: Mapping[str, Sequence[float | None]] | None = None,
    places: Sequence[float] | None = None,
) -> Figure:
    """Success over settings: a line a series with its interval; references dashed and pale.

    Args:
        labels: Of the settings.
        series: Name -> a rate a setting.
        xlabel: Of the axis.
        reference: Name -> a rate a setting, without intervals.
        places: Of the settings on the axis; by default side by side.
    """
    figure, (ax,) = _canvas(8.6, 4.4)
    at = np.arange(len(labels), dtype=float) if places is None else np.array(places, float)
    gap = float(np.ptp(at)) / max(len(at) - 1, 1)
    for i, (name, rates) in enumerate(series.items()):
        known = [k for k, rate in enumerate(rates) if rate is not None]
        values = 100 * np.array([rates[k] for k in known], float).reshape(-1, 3)
        nudge = 0.05 * gap * (i - (len(series) - 1) / 2)
        x, shade = at[known] + nudge, colour(name, i)
        ax.plot(x, values[:, 0], "o-", color=shade, lw=2, ms=7, label=name)
        ax.vlines(x, values[:, 1], values[:, 2], color=shade, lw=4, alpha=0.3)
    for i, (name, points) in enumerate((reference or {}).items()):
        known = [k for k, point in enumerate(points) if point is not None]
        shade = colour(name.split(" (")[0], i)
        heights = [100 * float(points[k]) for k in known]  # type: ignore[arg-type]
        ax.plot(at[known], heights, "s--", color=shade, lw=1.2, ms=5, mfc="white", alpha=0.65, label=name)
    ax.set_xticks(at, labels)
    ax.set_ylim(-3, 103)
    ax.grid(axis="y", color=GRID)
    ax.set_xlabel(xlabel, color=DIM)
    ax.set_ylabel("success, %", color=DIM)
    ax.legend(frameon=False, fontsize=10)
    return figure


def followed(measures: Mapping[str, tuple[Array, Array]]) -> Figure:
    """How far the outcome went with what was moved, along it: a panel a measure, (M, 3) metres each."""
    figure, axes = _canvas(3.6 * len(measures), 3.7, len(measures))
    for ax, (name, (shifts, answers)) in zip(axes, measures.items(), strict=True):
        length = np.linalg.norm(shifts, axis=1)
        along = np.sum(shifts * answers, axis=1) / np.maximum(length, 1e-9)
        top = 1e3 * float(length.max(initial=0.01))
        ax.plot([0, top], [0, top], "--", color=DIM, lw=1)
        ax.plot([0, top], [0, 0], color=DIM, lw=1)
        ax.plot(1e3 * length, 1e3 * along, "o", color=COLOURS["expert"], ms=4, alpha=0.45, mew=0)
        ax.set_title(name, fontsize=11, color=INK, loc="left")
        ax.set_xlabel("moved by, mm", color=DIM)
        ax.set_ylim(-0.6 * top, 1.6 * top)
        ax.grid(color=GRID)
    axes[0].set_ylabel("outcome went along by, mm", color=DIM)
    return figure


def bars(values: Mapping[str, float], xlabel: str) -> Figure:
    """One bar a name."""
    figure, (ax,) = _canvas(8.6, 0.8 + 0.34 * len(values))
    heights = list(values.values())
    ax.barh(range(len(values)), heights, color=COLOURS["expert"], height=0.6)
    for y, value in enumerate(heights):
        ax.text(value, y, f" {value:.1f}", va="center", fontsize=9.5)
    ax.set_yticks(range(len(values)), list(values))
    ax.tick_params(axis="y", labelcolor=INK)
    ax.invert_yaxis()
    ax.grid(axis="x", color=GRID)
    ax.set_xlabel(xlabel, color=DIM)
    return figure


def curves(lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], xlabel: str, ylabel: str) -> Figure:
    """A line a name over a common axis."""
    figure, (ax,) = _canvas(8.6, 4.2)
    for i, (name, (x, y)) in enumerate(lines.items()):
        ax.plot(x, y, "o-", color=colour(name, i), lw=2, ms=4, label=name)
    ax.set_ylim(bottom=0)
    ax.grid(color=GRID)
    ax.set_xlabel(xlabel, color=DIM)
    ax.set_ylabel(ylabel, color=DIM)
    ax.legend(frameon=False, fontsize=10)
    return figure


def calibration(bins: Sequence[Mapping[str, Any]], spread: Array, error: Array) -> Figure:
    """Spread of samples against error: each view a dot, bins of equal count as medians with 80% bars."""
    figure, (ax,) = _canvas(6.8, 4.8)
    ax.plot(spread, error, "o", color=COLOURS["expert"], ms=3, alpha=0.22, mew=0, label="a view")
    x = [b["spread_mm"] for b in bins]
    ax.vlines(x, [b["p10_mm"] for b in bins], [b["p90_mm"] for b in bins], color=INK, lw=1.5)
    ax.plot(
        x, [b["error_mm"] for b in bins], "o-", color=INK, lw=1.8, ms=6, label="median of a bin, 10 to 90%"
    )
    ax.set_xlabel("spread as published, mm", color=DIM)
    ax.set_ylabel("error at the contact, mm", color=DIM)
    ax.set_xlim(left=0)
    ax.set_ylim(0, 1.3 * float(np.quantile(error, 0.98)) if len(error) else 1.0)
    ax.grid(color=GRID)
    ax.legend(frameon=False, fontsize=10)
    return figure
