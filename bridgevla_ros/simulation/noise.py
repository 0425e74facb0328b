"""Depth and colour faults of a structured-light or stereo camera, seeded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NOISE_AT_1M = 0.0015
"""Metres, standard deviation at 1 m; grows with the square of distance, as disparity noise does."""
BIAS_AT_1M = 0.0015
"""Metres, standard deviation of the per-scene bias at 1 m, which also grows with the square."""
HOLE_RATE = 2.0
"""Mean number of holes (blobs without depth) in an image."""
EDGE_STEP = 0.02
"""Metres of depth between neighbours that make an edge."""
FLYING_SHARE = 0.25
"""Share of edge pixels that read a depth between front and back."""
EDGE_HOLE_SHARE = 0.25
"""Share of edge pixels that read nothing."""


class DepthNoise:
    """Faults of one sensor in one scene.

    Args:
        scale: Multiplies all faults; 0 switches them off (quantisation to 1 mm too).
        seed: Of bias and of every image's faults.
    """

    def __init__(self, scale: float, seed: int) -> None:
        self._scale = scale
        self._rng = np.random.default_rng([seed, 0xDE97])
        self._bias = float(np.clip(self._rng.normal(), -2, 2)) * BIAS_AT_1M * scale

    def apply(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """A faulty copy.

        Args:
            depth: (H, W) float32 metres; not finite where nothing is seen.

        Returns:
            (H, W) float32 metres in steps of 1 mm; NaN in holes.
        """
        if self._scale <= 0.0:
            return depth.copy()
        rng, height, width = self._rng, *depth.shape
        out = np.where(np.isfinite(depth), depth, 0.0)
        out, edge = self._edges(out)
        spread = NOISE_AT_1M * self._scale
        grain = rng.standard_normal((height, width), dtype=np.float32)
        # Matching windows make neighbouring errors alike.
        smooth = (grain + np.roll(grain, 1, 0) + np.roll(grain, 1, 1) + np.roll(grain, (1, 1), (0, 1))) / 2
        out = out + (spread * smooth + self._bias) * out**2
        out = np.round(out, 3).astype(np.float32)
        out[edge & (rng.random((height, width)) < min(EDGE_HOLE_SHARE * self._scale, 0.9))] = np.nan
        rows, columns = np.ogrid[:height, :width]
        for _ in range(rng.poisson(HOLE_RATE * self._scale)):
            row, column = rng.integers(height), rng.integers(width)
            a, b = rng.uniform(1.0, 5.0, 2) * height / 240
            out[((rows - row) / a) ** 2 + ((columns - column) / b) ** 2 <= 1.0] = np.nan
        out[~np.isfinite(depth)] = np.nan
        return out

    def _edges(self, depth: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Flying pixels between front and back, and where the edges are."""
        lowest, highest = depth.copy(), depth.copy()
        for axis in (0, 1):
            for step in (-1, 1):
                neighbour = np.roll(depth, step, axis)
                lowest, highest = np.minimum(lowest, neighbour), np.maximum(highest, neighbour)
        edge = highest - lowest > EDGE_STEP
        flying = edge & (self._rng.random(depth.shape) < min(FLYING_SHARE * self._scale, 0.9))
        share = self._rng.random(depth.shape, dtype=np.float32)
        return np.where(flying, lowest + share * (highest - lowest), depth).astype(np.float32), edge


def colour_noise(rgb: NDArray[np.uint8], sigma: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(H, W, 3) or (H, W) uint8 with normal noise of ``sigma`` grey levels."""
    if sigma <= 0.0:
        return rgb
    noise = rng.standard_normal(rgb.shape, dtype=np.float32) * np.float32(sigma)
    return np.clip(rgb + noise + 0.5, 0, 255).astype(np.uint8)
