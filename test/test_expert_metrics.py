"""Held-out figures of an expert: what it executes and publishes is what is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bank_rig import cube_bank

from bridgevla_ros.expert import checkpoint
from bridgevla_ros.expert.config import ExpertConfig, ModelConfig
from bridgevla_ros.expert.model import ExpertModel
from bridgevla_ros.training import appf, expert_metrics
from bridgevla_ros.training.episodes_sampling import Recipe

SMALL = ModelConfig(
    encoder="vote", point_widths=(8, 8, 16), cloud_features=8, width=32, blocks=1, conditioning_width=16
)


def test_the_medoid_is_the_sample_nearest_to_the_others() -> None:
    position = np.zeros((4, 16, 3))
    position[:, :, 0] = np.array([0.0, 0.010, 0.012, 0.090])[:, None]
    assert expert_metrics.medoid(position) in (1, 2)
    assert expert_metrics.medoid(position[[3, 0, 1]]) == 2


def test_calibration_runs_as_the_policy_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many samples, the medoid's error; spread with the votes' part of it."""
    appf.write(tmp_path, ExpertModel(SMALL), {})
    seen: list[tuple[int, ...]] = []
    medoid, disagreement = expert_metrics.medoid, expert_metrics.disagreement
    spreads: list[float] = []
    dissents: list[float] = []

    def note(position: np.ndarray) -> int:
        seen.append(position.shape)
        return medoid(position)

    def published(position: np.ndarray, dissent: float, gains: np.ndarray) -> float:
        spreads.append(disagreement(position, dissent, gains))
        dissents.append(dissent)
        return spreads[-1]

    monkeypatch.setattr(expert_metrics, "medoid", note)
    monkeypatch.setattr(expert_metrics, "disagreement", published)
    points = expert_metrics.calibration(checkpoint.load(tmp_path), cube_bank(30), Recipe(), 12)
    assert points
    assert set(seen) == {(ExpertConfig().samples, SMALL.horizon, 3)}
    assert [p[key] for p in points for key in ("spread_mm", "samples_mm")] == [
        round(1e3 * s, 2) for s in spreads
    ]
    assert all(d > 0.0 for d in dissents[::2]), "the votes of the cloud"
    assert not any(dissents[1::2]), "the samples alone"
