"""Held-out figures of an expert: how far from the true contact does each policy end?

For views of scenes never trained on, guidance is put off by a given length in a random direction, and
the last step of the chunk near the contact is compared with the true contact. ``ik`` is guidance itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bridgevla_ros.core.transforms import Array
from bridgevla_ros.expert import features
from bridgevla_ros.expert.checkpoint import Checkpoint
from bridgevla_ros.expert.config import ExpertConfig
from bridgevla_ros.expert.policy import SnapPolicy
from bridgevla_ros.expert.runtime_torch import TorchRuntime
from bridgevla_ros.training.episodes import View
from bridgevla_ros.training.episodes_sampling import Batch, GuidanceLibrary, Recipe, Sampler

LENGTHS = (0.0, 0.01, 0.02, 0.03)
"""Metres of guidance error."""


def predict(
    runtime: TorchRuntime, checkpoint: Checkpoint, batch: Batch, seed: int
) -> tuple[Array, Array, Array]:
    """Correction (B, 3) metres and turn (B,) rad at the last step, undone by its gain, and presence (B,)."""
    model = checkpoint.config
    rng = np.random.default_rng(seed)
    count = len(batch.features)
    action = np.empty((count, model.horizon * model.action_dim), np.float32)
    contact = np.empty((count, 5), np.float32)
    for first in range(0, count, 50):
        part = slice(first, first + 50)
        noise = rng.standard_normal(action[part].shape).astype(np.float32)
        action[part], contact[part] = runtime(
            batch.features[part], batch.cloud[part], batch.mask[part], noise
        )
    moved, rotvec, _ = features.decode_action(action.reshape(count, model.horizon, model.action_dim), model)
    gain = batch.features[:, 18 + 9 * model.horizon + model.horizon - 1].astype(np.float64)
    return moved[:, -1] / gain[:, None], rotvec[:, -1, 2] / gain, contact[:, 4].astype(np.float64)


def _spread(values: Array) -> dict[str, float]:
    return {
        "median": round(float(np.median(values)) * 1e3, 2),
        "p90": round(float(np.quantile(values, 0.9)) * 1e3, 2),
        "over_10": round(float(np.mean(values > 0.010)), 3),
    }


def measure(
    checkpoint: Checkpoint, views: list[View], recipe: Recipe, size: int = 400, seed: int = 0
) -> dict[str, Any]:
    """Horizontal error at the contact in mm by policy and guidance error, and conditioning probes.

    Returns:
        For pick and place and each guidance error: median, 90th percentile and share over 10 mm of
        ``ik``, ``snap`` and ``expert``. Probes: what the expert adds when the cloud is erased, how far
        its answer follows a cloud shifted by 10 mm, and a guidance shifted by 10 mm.
    """
    model = checkpoint.config
    library = GuidanceLibrary(20, seed + 1, model)
    near = library.rows["gain"][:, -1] > 0.9
    for kind, (index, distance) in library._sorted.items():
        keep = near[index]
        library._sorted[kind] = (index[keep], distance[keep])
    plain = {**vars(recipe), "erase_share": 0.0, "blind_share": 0.0, "points": (512, 512)}
    runtime = TorchRuntime(checkpoint, 8, "cpu", 1)
    snap = SnapPolicy(ExpertConfig(policy="snap"), arm=None, model=model)  # type: ignore[arg-type]
    report: dict[str, Any] = {"unit": "mm", "samples": size}
    for phase in ("pick", "place"):
        mine = [
            v
            for v in views
            if v.phase == phase and v.height < 0.3 and int(v.target.sum()) >= recipe.min_target
        ]
        sampler = Sampler(mine, library, model, Recipe(**plain))
        for length in LENGTHS:
            rng = np.random.default_rng([seed, round(length * 1e3)])
            angle = rng.uniform(-np.pi, np.pi, size)
            error = length * np.stack([np.cos(angle), np.sin(angle), np.zeros(size)], axis=1)
            batch = sampler.clouds(rng, size, rng.integers(len(mine), size=size), error)
            truth = batch.contact[:, :3] * model.position_limit
            found, turned, _ = predict(runtime, checkpoint, batch, seed)
            shifts = np.array(
                [
                    snap.shift(batch.cloud[b][batch.mask[b] > 0, :3] * features.POSITION_SCALE)
                    for b in range(size)
                ]
            )
            row = {
                "ik": _spread(np.linalg.norm(truth[:, :2], axis=1)),
                "snap": _spread(np.linalg.norm(truth[:, :2] - shifts, axis=1)),
                "expert": _spread(np.linalg.norm(truth[:, :2] - found[:, :2], axis=1)),
            }
            if phase == "pick":
                yaw = np.degrees(np.abs(batch.contact[:, 3] * model.rotation_limit - turned))
                row["expert"]["yaw_deg_median"] = round(float(np.median(yaw)), 2)
                row["expert"]["z_mm_median"] = round(
                    float(np.median(np.abs(truth[:, 2] - found[:, 2]))) * 1e3, 2
                )
            report[f"{phase}_{round(length * 1e3)}mm"] = row
            if phase == "pick" and length == 0.02:
                report["probes"] = _probes(runtime, checkpoint, batch, found, seed)
    return report


def _probes(
    runtime: TorchRuntime, checkpoint: Checkpoint, batch: Batch, found: Array, seed: int
) -> dict[str, float]:
    empty = Batch(batch.features, batch.cloud * 0.0, batch.mask * 0.0, batch.contact, batch.action)
    erased, _, _ = predict(runtime, checkpoint, empty, seed)
    shifted_cloud = batch.cloud.copy()
    shifted_cloud[..., 0] += 0.010 / features.POSITION_SCALE
    shifted, _, _ = predict(
        runtime,
        checkpoint,
        Batch(batch.features, shifted_cloud, batch.mask, batch.contact, batch.action),
        seed,
    )
    moved = batch.features.copy()
    moved[:, 0] += 0.010 / features.POSITION_SCALE
    moved[:, 15] += 0.010 / 0.03
    beside, _, _ = predict(
        runtime, checkpoint, Batch(moved, batch.cloud, batch.mask, batch.contact, batch.action), seed
    )
    return {
        "erased_cloud_correction_mm": round(float(np.median(np.linalg.norm(erased, axis=1))) * 1e3, 2),
        "cloud_shifted_10mm_follows_mm": round(float(np.median(shifted[:, 0] - found[:, 0])) * 1e3, 2),
        "tcp_shifted_10mm_changes_mm": round(float(np.median(np.abs(beside[:, 0] - found[:, 0]))) * 1e3, 2),
    }
