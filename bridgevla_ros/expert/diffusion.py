"""Noise schedule and DDIM coefficients, as plain numbers.

The same process as diffusers' ``DDIMScheduler`` (eta 0, clip_sample, set_alpha_to_one, trailing
spacing), written as one multiply-add a step so that the whole loop unrolls into one graph; a test
holds the two together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bridgevla_ros.core.transforms import Array


def alphas_cumprod(timesteps: int, schedule: str = "squaredcos_cap_v2") -> Array:
    """Cumulative product of 1 - beta, (timesteps,).

    Raises:
        ValueError: The schedule is unknown.
    """
    if schedule == "squaredcos_cap_v2":

        def bar(t: float) -> float:
            return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

        steps = range(timesteps)
        betas = np.array([min(1 - bar((i + 1) / timesteps) / bar(i / timesteps), 0.999) for i in steps])
    elif schedule == "linear":
        betas = np.linspace(1e-4, 0.02, timesteps)
    else:
        raise ValueError(f"beta schedule {schedule!r}; expected 'squaredcos_cap_v2' or 'linear'")
    return np.asarray(np.cumprod(1.0 - betas.astype(np.float32)), np.float64)


@dataclass(frozen=True)
class DdimStep:
    """One denoising step.

    With prediction type "sample": ``x0 = f(x, t); x = clip_gain * clip(x0) + eps_gain * (x - root * x0)``;
    with "epsilon": ``x0 = (x - noise_root * f) / root; x = clip_gain * clip(x0) + next_noise * f``.

    Attributes:
        timestep: Index into the training schedule.
        root: sqrt(alpha_bar); ``noise_root``: sqrt(1 - alpha_bar).
        clip_gain: sqrt(alpha_bar) of the next step; ``next_noise``: sqrt(1 - alpha_bar) of it.
    """

    timestep: int
    root: float
    noise_root: float
    clip_gain: float
    next_noise: float

    @property
    def eps_gain(self) -> float:
        """Factor from the residual x - root * x0 to the next step's noise."""
        return self.next_noise / self.noise_root


def ddim_steps(timesteps: int, schedule: str, count: int) -> tuple[DdimStep, ...]:
    """Steps from noise to sample.

    Raises:
        ValueError: More steps than the training schedule has.
    """
    if not 1 <= count <= timesteps:
        raise ValueError(f"{count} denoising steps; expected 1..{timesteps}")
    bar = alphas_cumprod(timesteps, schedule)
    chosen = np.round(np.arange(timesteps, 0, -timesteps / count)).astype(int) - 1
    steps = []
    for t in chosen:
        previous = int(t) - timesteps // count
        following = bar[previous] if previous >= 0 else 1.0
        steps.append(
            DdimStep(
                int(t),
                math.sqrt(bar[t]),
                math.sqrt(1.0 - bar[t]),
                math.sqrt(following),
                math.sqrt(1.0 - following),
            )
        )
    return tuple(steps)
