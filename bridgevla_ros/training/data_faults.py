"""How the depth of a real camera is wrong, drawn anew for each episode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.simulation.noise import DepthNoise


@dataclass(frozen=True)
class DepthFaults:
    """Faults of one episode's camera, on top of those that ``simulation.noise`` knows.

    Attributes:
        scale: Of noise growing with distance, bias, holes and flying pixels; 1 is the simulator's default.
        pixel: Metres, standard deviation of noise that is the same near and far.
        step: Metres of quantisation.
        valid: Share of pixels that measure at all.
        dropped: Share of frames that never arrive.
    """

    scale: float = 1.0
    pixel: float = 0.0
    step: float = 0.001
    valid: float = 1.0
    dropped: float = 0.0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> DepthFaults:
        """Mostly a good camera, sometimes a poor one (our choice of shares)."""
        scale = float(np.clip(np.exp(rng.normal(0.0, 0.5)), 0.2, 3.0))
        pixel = float(rng.uniform(0.0, 0.012)) if rng.random() < 0.25 else 0.0
        step = float(rng.choice([0.001, 0.001, 0.002, 0.005]))
        valid = float(rng.uniform(0.3, 0.95)) if rng.random() < 0.15 else 1.0
        dropped = float(rng.uniform(0.1, 0.4)) if rng.random() < 0.3 else 0.0
        return cls(scale, pixel, step, valid, dropped)


class FaultyDepth:
    """Applies the faults of an episode to clean depth images.

    Args:
        faults: Settings.
        seed: Of all of its randomness.
    """

    def __init__(self, faults: DepthFaults, seed: int) -> None:
        self.faults = faults
        self._sensor = DepthNoise(faults.scale, seed)
        self._rng = np.random.default_rng([seed, 0xFA])

    def arrives(self) -> bool:
        """Whether the next frame does."""
        return bool(self._rng.random() >= self.faults.dropped)

    def apply(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """(H, W) float32 metres with faults, from clean ones; NaN where nothing is measured."""
        faults, rng = self.faults, self._rng
        out = self._sensor.apply(depth)
        if faults.pixel > 0.0:
            out += np.float32(faults.pixel) * rng.standard_normal(out.shape, np.float32)
        if faults.step > 0.001:
            out = np.round(out / np.float32(faults.step)) * np.float32(faults.step)
        if faults.valid < 1.0:
            out[rng.random(out.shape, np.float32) >= faults.valid] = np.nan
        return out
