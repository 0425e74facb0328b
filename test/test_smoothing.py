"""Noise of depth: measured in the image, and smoothed where there is much."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bridgevla_ros.perception.smoothing import NOISY, noise_of, smooth

STEP = 100
"""Column at which the surface rises by ``RISE``."""
RISE = 0.05


def surface(noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Depth of a tilted plane with a step, and what was measured of it: noise, holes of both kinds."""
    v, u = np.mgrid[:240, :320]
    true = 0.9 + 0.0005 * v - RISE * (u >= STEP)
    rng = np.random.default_rng(seed)
    measured = (true + noise * rng.standard_normal(true.shape)).astype(np.float32)
    measured[20:40, 30:60] = np.nan
    measured[200:210, 200:220] = 0.0
    return true, measured


@pytest.mark.parametrize("noise", [0.001, 0.003, 0.01, 0.1])
def test_noise_is_measured_beside_slope_step_and_holes(noise: float) -> None:
    _, measured = surface(noise)
    assert noise_of(measured, 0.05, 20.0) == pytest.approx(noise, rel=0.06)


def test_nothing_seen_has_no_noise_and_stays() -> None:
    blind = np.full((240, 320), np.nan, np.float32)
    assert math.isnan(noise_of(blind, 0.05, 20.0))
    assert smooth(blind) is blind


def test_a_quiet_image_is_not_touched() -> None:
    _, measured = surface(0.8 * NOISY)
    assert smooth(measured) is measured


def test_a_noisy_image_loses_its_noise_and_keeps_its_edge() -> None:
    true, measured = surface(0.01)
    given = measured.copy()
    smoothed = smooth(measured)
    np.testing.assert_array_equal(measured, given)
    holes = ~(given > 0.05)
    assert np.array_equal(np.isnan(smoothed), holes), "holes are not filled, and are NaN of whatever kind"
    error = np.where(holes, 0.0, smoothed - true)
    assert error[:, : STEP - 3].std() < 0.0025
    assert abs(error.mean()) < 2e-4
    edge = error[:, STEP - 2 : STEP + 2]
    assert np.abs(edge.mean(0)).max() < 0.2 * RISE
