"""Noise of a depth image, measured in the image itself, and its smoothing where there is much.

What cropper and planner do with depth was made for sensors that err by a millimetre or two. Where each pixel
errs by a centimetre, things fray and the table throws up points; a pixel's neighbours know better.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.perception.kernels import F32, compiled

NOISY = 0.004
"""Metres, standard deviation of a pixel from which depth is smoothed: over twice what the simulated sensor
has, so that its images stay as they are (our choice)."""
REACH = 2.5
"""Neighbours within so many standard deviations count as the same surface: with that many, Lee keeps 98.8% of
a surface's pixels and loses edges of more than as much (our choice)."""
_SECOND = 0.5
"""Share of the noise that is still there after the first pass, for the second's reach."""
_SAMPLES = 10_000
"""Pixels, about, at which the noise is measured."""


def noise_of(depth: F32, low: float, high: float) -> float:
    """Standard deviation of a pixel's own error, metres; NaN where too little is valid.

    The median distance between a pixel and the mean of its four neighbours: slopes cancel, edges are few.
    Errors that neighbours share are not seen.

    Args:
        depth: (H, W) metres; not finite, or outside ``low`` .. ``high``, where nothing is measured.
        low: Metres.
        high: Metres.
    """
    stride = max(1, round(math.sqrt(depth.size / _SAMPLES)))
    around = (depth[:-2, 1:-1], depth[2:, 1:-1], depth[1:-1, :-2], depth[1:-1, 2:])
    stack = np.stack([a[::stride, ::stride] for a in (*around, depth[1:-1, 1:-1])])
    valid = np.all((stack >= low) & (stack <= high), axis=0)
    if np.count_nonzero(valid) < 100:
        return math.nan
    seen = stack[:, valid]
    gaps = np.abs(seen[4] - seen[:4].mean(0))
    return float(1.4826 * np.median(gaps) / math.sqrt(1.25))


def smooth(depth: NDArray[np.float32], low: float = 0.05, high: float = 20.0) -> NDArray[np.float32]:
    """The image itself where a pixel errs by up to ``NOISY``; else a smoothed copy.

    Two passes of Lee's sigma filter (Digital image smoothing and the sigma filter, 1983) over 5 by 5 pixels.

    Args:
        depth: (H, W) metres; not finite, or outside ``low`` .. ``high``, where nothing is measured.
        low: Metres.
        high: Metres.
    """
    noise = noise_of(depth, low, high)
    if not noise > NOISY:
        return depth
    known = np.where((depth >= low) & (depth <= high), depth, np.float32(np.nan)).astype(np.float32)
    first = _sigma_filter(known, REACH * noise)
    return _sigma_filter(first, REACH * _SECOND * noise)


@compiled
def _sigma_filter(depth: F32, reach: float) -> F32:
    """Each pixel becomes the mean of those of its 5 by 5 neighbours that lie within ``reach``; NaN stays."""
    rows, columns = depth.shape
    out = np.full_like(depth, np.nan)
    for v in range(rows):
        total, count = np.zeros(columns, np.float32), np.zeros(columns, np.float32)
        for a in range(max(v - 2, 0), min(v + 3, rows)):
            for step in range(-2, 3):
                begin, end = max(-step, 0), columns - max(step, 0)
                line = depth[a, begin + step : end + step]
                _add_near(total[begin:end], count[begin:end], depth[v, begin:end], line, np.float32(reach))
        for u in range(columns):
            if count[u] > 0.0:
                out[v, u] = total[u] / count[u]
    return out


@compiled
def _add_near(total: F32, count: F32, center: F32, line: F32, reach: np.float32) -> None:
    """Add what of a line lies within ``reach`` of ``center``; apart, so that the compiler vectorises it."""
    for u in range(len(total)):
        if abs(line[u] - center[u]) <= reach:  # not so for NaN
            total[u] += line[u]
            count[u] += np.float32(1.0)
