"""How guidance is wrong: drawn once a plan, as a planner is wrong, and never anew at each step.

Independent noise at each step averages away within a chunk; a planner that pointed 2 cm beside its target
keeps pointing there. What is drawn: an error of position, larger along the viewing ray than across it (depth
is what a camera knows worst), a target that moved since the image, an error of yaw; and for the path beside
the contact (``data_guidance``) waypoints that are missing or off, slow drift, timing and detours.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.transforms import Array

NOISE_UNIT = 0.20
"""Metres that goal-noise scale 1 stands for. The paper gives scales (0 to 0.50, best 0.10) without a unit;
ours is the width of what the expert looks at, so that 0.10 is a standard deviation of 2 cm per axis."""


@dataclass(frozen=True)
class Recipe:
    """Settings of the samples, stored in the checkpoint. Lengths in metres, angles in rad; our choice.

    Attributes:
        error_sigmas, error_shares: Standard deviations per axis across the ray, and how often each.
        along: Factor of the standard deviation along the viewing ray.
        error_limit: Longer errors are shortened to this (the action's normaliser ends at 0.08).
        displaced_share, displaced: How often the target moved after the image too, and how far at most.
        yaw_sigmas, yaw_shares, yaw_limit: The same for the turn about the vertical.
        onward_sigmas: Metres, standard deviations per horizontal axis of the way from a contact to the next
            one of its chain, one of them drawn a sample: most of their error is the same.
        nearest: The guided point is at most this share as far from the true contact as from anything else
            that could be meant: what lies nearer to another thing names that thing.
        offset_sigmas: Of the state beside the path, one of them drawn a sample.
        velocity_sigma: m/s of residual velocity.
        cloud_age: Seconds, clouds are up to this stale.
        guidance_ages, guidance_age_shares: Seconds, upper ends of the age of the plan's image.
        erase_share: Of samples whose target is taken out of the cloud; ``blind_share``: no cloud at all.
        min_target: Fewer points of the target are too few: the label is guidance.
        points: Fewest and most points kept of a cloud.
        hint_sigma: Of the contact that stage 1 is told, in units of the normaliser.
        own_share: Of samples that are states of an expert (where the bank has any).
    """

    error_sigmas: tuple[float, ...] = (0.001, 0.008, 0.015, 0.020, 0.026)
    error_shares: tuple[float, ...] = (0.08, 0.17, 0.25, 0.30, 0.20)
    along: float = 1.3
    error_limit: float = 0.072
    displaced_share: float = 0.10
    displaced: float = 0.05
    yaw_sigmas: tuple[float, ...] = (0.01, 0.10, 0.19)
    yaw_shares: tuple[float, ...] = (0.10, 0.45, 0.45)
    yaw_limit: float = 0.45
    onward_sigmas: tuple[float, ...] = (0.0, 0.005, 0.015)
    nearest: float = 0.85
    offset_sigmas: tuple[float, ...] = (0.0, 0.004, 0.012, 0.025)
    velocity_sigma: float = 0.03
    cloud_age: float = 0.25
    guidance_ages: tuple[float, ...] = (3.0, 20.0)
    guidance_age_shares: tuple[float, ...] = (0.6, 0.4)
    erase_share: float = 0.06
    blind_share: float = 0.04
    min_target: int = 25
    points: tuple[int, int] = (96, 144)
    hint_sigma: float = 0.02
    own_share: float = 0.15

    def scaled(self, scale: float) -> Recipe:
        """Errors of guidance times ``scale``; 1 is this recipe: 2 cm per axis, 8 degrees (RMS)."""
        return dataclasses.replace(
            self,
            error_sigmas=tuple(scale * s for s in self.error_sigmas),
            yaw_sigmas=tuple(scale * s for s in self.yaw_sigmas),
            displaced=scale * self.displaced,
            onward_sigmas=tuple(scale * s for s in self.onward_sigmas),
        )


def position_errors(rng: np.random.Generator, recipe: Recipe, ray: Array) -> Array:
    """(B, 3) metres, base frame, the planner's error and the target's way since.

    Args:
        rng: Source of randomness.
        recipe: Settings.
        ray: (B, 3) unit vectors from the contact to the camera, base frame.
    """
    size = len(ray)
    sigma = rng.choice(recipe.error_sigmas, size=size, p=recipe.error_shares)
    error = rng.normal(size=(size, 3))
    error += (recipe.along - 1.0) * np.sum(error * ray, axis=1, keepdims=True) * ray
    error *= sigma[:, None]
    away = recipe.displaced * np.sqrt(rng.random(size)) * (rng.random(size) < recipe.displaced_share)
    heading = rng.uniform(-np.pi, np.pi, size)
    error[:, 0] += away * np.cos(heading)
    error[:, 1] += away * np.sin(heading)
    length = np.linalg.norm(error, axis=1, keepdims=True)
    return np.asarray(error * np.minimum(1.0, recipe.error_limit / np.maximum(length, 1e-9)))


def yaw_errors(rng: np.random.Generator, recipe: Recipe, size: int) -> Array:
    """(B,) rad about the vertical."""
    sigma = rng.choice(recipe.yaw_sigmas, size=size, p=recipe.yaw_shares)
    return np.asarray(np.clip(rng.normal(size=size) * sigma, -recipe.yaw_limit, recipe.yaw_limit))


def keep_nearest(error: Array, others: Array, share: float) -> Array:
    """Errors (B, 3), shortened until guidance is nearest to what it means.

    Args:
        error: Metres, base frame; of the horizontal part alone is decided.
        others: (B, K, 2) metres, from the true contact to what else could be meant; NaN where nothing is.
        share: Distance to the truth over distance to another thing, at most.
    """
    flat = error[:, None, :2]
    # |s e|^2 <= m^2 |s e - d|^2 is a quadratic in the factor s with one positive root (m < 1).
    m2 = share * share
    a = (1.0 - m2) * np.sum(flat * flat, axis=-1)
    b = m2 * np.sum(flat * others, axis=-1)
    c = m2 * np.sum(others * others, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        root = c / (b + np.sqrt(b * b + a * c))
    factor = np.fmin.reduce(np.where(np.isfinite(root) & (root > 0.0), root, np.inf), axis=1, initial=1.0)
    return np.asarray(error * factor[:, None])


def wrap(angle: Array, period: Array) -> Array:
    """Angles to -period/2 .. period/2; 0 where the period is 0 (any yaw is as good)."""
    safe = np.where(period > 0.0, period, 1.0)
    return np.asarray(np.where(period > 0.0, (angle + safe / 2) % safe - safe / 2, 0.0))


def horizontal_yaw(rotation: Array) -> Array:
    """(B,) rad about base z of the contact frames of (B, 3, 3) TCP orientations; see features.local_frame."""
    out = np.zeros(len(rotation))
    todo: NDArray[np.bool_] = np.ones(len(rotation), bool)
    for axis in range(3):
        x, y = rotation[:, 0, axis], rotation[:, 1, axis]
        good = todo & (np.hypot(x, y) > 0.5)
        out[good] = np.arctan2(y[good], x[good])
        todo &= ~good
    return out
