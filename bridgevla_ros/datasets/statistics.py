"""Statistics of columns, as LeRobotDataset keeps them beside the data: for normalising, never for judging."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.datasets.features import Feature

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
IMAGES = 100
"""Frames of an episode that image statistics are taken from at most."""

Stats = dict[str, dict[str, NDArray[Any]]]


def episode_stats(features: Mapping[str, Feature], columns: Mapping[str, NDArray[Any]]) -> Stats:
    """min, max, mean, std, count and five quantiles of each column; none of strings.

    Vectors: one value an element. Arrays of more axes (clouds): pooled over all but the last axis. Colour:
    (3, 1, 1), scaled to 0..1. Depth: (1, 1, 1), metres. NaN is left out; where all is NaN, statistics are 0.
    """
    stats = {}
    for name, feature in features.items():
        if feature.dtype == "string":
            continue
        rows = _rows(feature, columns[name])
        count = len(columns[name]) if not feature.is_image else min(len(columns[name]), IMAGES)
        shape = (rows.shape[1], 1, 1) if feature.is_image else (rows.shape[1],)
        stats[name] = {k: v.reshape(shape) for k, v in _summary(rows).items()} | {"count": np.array([count])}
    return stats


def _rows(feature: Feature, column: NDArray[Any]) -> NDArray[np.float64]:
    """(rows, elements) float64."""
    if not feature.is_image:
        width = feature.shape[-1] if feature.row else 1
        return np.asarray(column.reshape(-1, width), np.float64)
    chosen = np.unique(np.linspace(0, len(column) - 1, min(len(column), IMAGES)).round().astype(int))
    step = max(1, max(feature.shape[:2]) // 150)
    picked: NDArray[Any] = column[chosen][:, ::step, ::step]
    if feature.depth:
        return np.asarray(picked.reshape(-1, 1), np.float64)
    return np.asarray(picked.reshape(-1, 3) / 255.0, np.float64)


def _summary(rows: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    out: dict[str, NDArray[np.float64]] = {
        k: np.zeros(rows.shape[1]) for k in ("min", "max", "mean", "std", *QUANTILES)
    }
    for j in range(rows.shape[1]):
        values = rows[:, j]
        values = values[np.isfinite(values)]
        if len(values) == 0:
            continue
        out["min"][j], out["max"][j] = values.min(), values.max()
        out["mean"][j], out["std"][j] = values.mean(), values.std()
        for key, value in zip(QUANTILES, np.quantile(values, list(QUANTILES.values())), strict=True):
            out[key][j] = value
    return out


def merge(parts: Iterable[Stats]) -> Stats:
    """Statistics of several episodes together, each weighted by its count.

    Quantiles of a union do not follow from quantiles of its parts: the lower ones take the least, the upper
    ones the greatest, so that they enclose. That is also what LeRobot does.
    """
    total: Stats = {}
    for part in parts:
        for name, new in part.items():
            old = total.get(name)
            total[name] = new if old is None else _merge_two(old, new)
    return total


def _merge_two(a: dict[str, NDArray[Any]], b: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    n, m = float(a["count"][0]), float(b["count"][0])
    mean = (n * a["mean"] + m * b["mean"]) / (n + m)
    spread = n * (a["std"] ** 2 + (a["mean"] - mean) ** 2) + m * (b["std"] ** 2 + (b["mean"] - mean) ** 2)
    out = {
        "min": np.minimum(a["min"], b["min"]),
        "max": np.maximum(a["max"], b["max"]),
        "mean": mean,
        "std": np.sqrt(spread / (n + m)),
        "count": a["count"] + b["count"],
    }
    for key, q in QUANTILES.items():
        if key in a and key in b:
            out[key] = np.minimum(a[key], b[key]) if q <= 0.5 else np.maximum(a[key], b[key])
    return out


def to_json(stats: Stats) -> dict[str, Any]:
    """Arrays as lists."""
    return {name: {k: np.asarray(v).tolist() for k, v in entry.items()} for name, entry in stats.items()}


def from_json(stats: Mapping[str, Any]) -> Stats:
    """Inverse of ``to_json``."""
    return {
        name: {k: np.atleast_1d(np.asarray(v)) for k, v in entry.items()} for name, entry in stats.items()
    }
