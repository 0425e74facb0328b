"""Held-out figures of an expert: how far from the true contact does each policy end?

For frames of scenes never trained on, guidance is put off by an error, and the last step of the chunk near
the contact, undone by its gain, is compared with the true contact. ``ik`` is guidance itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.expert import features
from bridgevla_ros.expert.checkpoint import Checkpoint
from bridgevla_ros.expert.config import ExpertConfig, ModelConfig
from bridgevla_ros.expert.diffusion import ddim_steps
from bridgevla_ros.expert.model import ExpertModel
from bridgevla_ros.expert.model import Sampler as Network
from bridgevla_ros.expert.policy import SnapPolicy, disagreement, medoid
from bridgevla_ros.expert.runtime_torch import build
from bridgevla_ros.training.data_bank import Bank
from bridgevla_ros.training.episodes_sampling import Batch, GuidanceLibrary, Recipe, Sampler

LENGTHS = (0.0, 0.01, 0.02, 0.03)
"""Metres of guidance error."""
FEWEST = 20
"""Frames of a verb; with fewer it has no figures."""
REACH = 0.3
"""Metres from the contact: from farther away a chunk carries nothing of the correction."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What a network makes of a batch, undone by the gain of the chunk's last step.

    Attributes:
        position: (B, 3) metres, local frame, correction of the contact; ``yaw``: (B,) rad.
        contact: (B, 3) metres, the encoder's own estimate; ``presence``: (B,) 0..1.
    """

    position: Array
    yaw: Array
    contact: Array
    presence: Array


def network(model: ExpertModel, steps: int = 8) -> Network:
    """The whole inference of a model."""
    shape = model.config
    return Network(model, ddim_steps(shape.train_timesteps, shape.beta_schedule, steps)).eval()


def predict(net: Network, batch: Batch, seed: int, part: int = 64) -> Answer:
    """Run a network, one sample of noise for each row of a batch."""
    model = net.model.config
    rng = np.random.default_rng(seed)
    count = len(batch.features)
    noise = rng.standard_normal((count, model.horizon * model.action_dim)).astype(np.float32)
    arrays = [torch.from_numpy(a) for a in (batch.features, batch.cloud, batch.mask, noise)]
    actions, contacts = [], []
    with torch.inference_mode():
        for first in range(0, count, part):
            action, contact, _ = net(*(a[first : first + part] for a in arrays))
            actions.append(action.numpy())
            contacts.append(contact.numpy())
    shaped = np.concatenate(actions).reshape(count, model.horizon, model.action_dim)
    moved, rotvec, _ = features.decode_action(shaped, model)
    gain = gains_of(batch, model)[:, -1]
    found = np.concatenate(contacts).astype(np.float64)
    return Answer(
        moved[:, -1] / gain[:, None],
        rotvec[:, -1, 2] / gain,
        found[:, :3] * model.position_limit,
        found[:, 4],
    )


def gains_of(batch: Batch, model: ModelConfig) -> Array:
    """(B, H) gains of the chunk's steps."""
    first = features.first_gain(model)
    return batch.features[:, first : first + model.horizon].astype(np.float64)


class HeldOut:
    """Batches of held-out frames near their contacts, drawn once; each verb has its own.

    Args:
        bank: Held-out frames.
        recipe: Settings of the data; nothing is erased, whole clouds are looked at.
        model: Shape of the network.
        size: Samples of a verb.
        seed: Of the draws.
        error: Length of guidance's error, metres, horizontal; the recipe's own errors if None.
    """

    def __init__(
        self, bank: Bank, recipe: Recipe, model: ModelConfig, size: int, seed: int,
        error: float | None = None, library: GuidanceLibrary | None = None,
    ) -> None:  # fmt: skip
        self.model, self.seed = model, seed
        library = library or near_library(model, seed)
        sampler = Sampler(bank, library, model, plain(recipe, model))
        apart = np.linalg.norm(bank["tcp"][:, :3] - bank["pose"][:, :3], axis=1)
        usable = (apart < REACH) & (bank.targets() >= recipe.min_target)
        self.batches: dict[str, Batch] = {}
        self.frames: dict[str, NDArray[np.int64]] = {}
        for verb in np.unique(bank.verbs):
            frames = np.flatnonzero(usable & (bank.verbs == verb))
            if len(frames) < FEWEST:
                continue
            rng = np.random.default_rng([seed, 0x4E])
            chosen = rng.choice(frames, size)
            given = None if error is None else error * _headings(rng, size)
            self.batches[str(verb)] = sampler.clouds(rng, size, chosen, given)
            self.frames[str(verb)] = chosen

    def figures(self, net: Network) -> dict[str, float]:
        """Median errors by verb in mm and degrees, and over all verbs the share over 10 mm."""
        out: dict[str, float] = {}
        beyond = []
        for verb, batch in self.batches.items():
            answer = predict(net, batch, self.seed)
            miss = errors(batch, answer, self.model)
            out[f"{verb}_mm"] = _milli(np.median(miss["horizontal"]))
            out[f"{verb}_z_mm"] = _milli(np.median(miss["z"]))
            out[f"{verb}_yaw_deg"] = round(float(np.degrees(np.median(miss["yaw"]))), 2)
            beyond.append(miss["horizontal"] > 0.010)
        if beyond:
            out["over_10"] = round(float(np.mean(np.concatenate(beyond))), 3)
        return out


def near_library(model: ModelConfig, seed: int) -> GuidanceLibrary:
    """Guidances at points where the chunk's last step carries nearly all of the correction."""
    library = GuidanceLibrary(20, seed + 1, model)
    library.keep(library.rows["gain"][:, -1] > 0.9)
    return library


def plain(recipe: Recipe, model: ModelConfig) -> Recipe:
    """The recipe without what only training needs."""
    whole = (model.points, model.points)
    return Recipe(**{**vars(recipe), "erase_share": 0.0, "blind_share": 0.0, "points": whole})


def errors(batch: Batch, answer: Answer, model: ModelConfig) -> dict[str, Array]:
    """Metres and rad beside the truth, of the rows where the thing is in sight."""
    known = batch.contact[:, 4] > 0
    truth = batch.contact[known, :3].astype(np.float64) * model.position_limit
    yaw = batch.contact[known, 3].astype(np.float64) * model.rotation_limit
    away = answer.position[known] - truth
    return {
        "horizontal": np.linalg.norm(away[:, :2], axis=1),
        "z": np.abs(away[:, 2]),
        "yaw": np.abs(answer.yaw[known] - yaw),
        "contact": np.linalg.norm((answer.contact[known] - truth)[:, :2], axis=1),
    }


def measure(
    checkpoint: Checkpoint, bank: Bank, recipe: Recipe, size: int = 400, seed: int = 0,
    lengths: Sequence[float] = LENGTHS,
) -> dict[str, Any]:  # fmt: skip
    """Horizontal error at the contact in mm by policy and guidance error, and conditioning probes.

    Returns:
        For each verb and guidance error: median, 90th percentile and share over 10 mm of ``ik``, ``snap``
        and ``expert``. Probes: what the expert adds when the cloud is erased, how far its answer follows a
        cloud shifted by 10 mm, and a TCP shifted by 10 mm.
    """
    model = checkpoint.config
    net = build(checkpoint, 8)
    snap = SnapPolicy(ExpertConfig(policy="snap"), arm=None, model=model)  # type: ignore[arg-type]
    library = near_library(model, seed)
    report: dict[str, Any] = {"unit": "mm", "samples": size}
    for length in lengths:
        held = HeldOut(bank, recipe, model, size, seed, length, library)
        for verb, batch in held.batches.items():
            answer = predict(net, batch, seed)
            miss = errors(batch, answer, model)
            known = batch.contact[:, 4] > 0
            truth = batch.contact[:, :2].astype(np.float64) * model.position_limit
            clouds = zip(batch.cloud, batch.mask, strict=True)
            shifts = np.array([snap.shift(c[m > 0, :3] * features.POSITION_SCALE) for c, m in clouds])
            report[f"{verb}_{round(length * 1e3)}mm"] = {
                "ik": _spread(np.linalg.norm(truth, axis=1)[known]),
                "snap": _spread(np.linalg.norm(truth - shifts, axis=1)[known]),
                "expert": {
                    **_spread(miss["horizontal"]),
                    "yaw_deg_median": round(float(np.degrees(np.median(miss["yaw"]))), 2),
                    "z_mm_median": _milli(np.median(miss["z"])),
                },
            }
            if length == 0.02 and verb == "pick":
                report["probes"] = _probes(net, batch, answer, seed)
    return report


def calibration(
    checkpoint: Checkpoint, bank: Bank, recipe: Recipe, size: int = 400, seed: int = 0
) -> list[dict[str, float]]:
    """Does the spread tell the error? As the policy runs by default; one row for each held-out observation.

    Returns:
        ``spread_mm``: as the running policy publishes it (correction_sigma, ``policy.disagreement``);
        ``samples_mm``: what of it the samples alone make;
        ``error_mm``: at the contact, horizontal, of the sample that it executes.
    """
    config = ExpertConfig()
    model, net, samples = checkpoint.config, build(checkpoint, config.denoising_steps), config.samples
    held = HeldOut(bank, recipe, model, size, seed)
    rng = np.random.default_rng([seed, 0xCA])
    rows = []
    for batch in held.batches.values():
        gains = gains_of(batch, model)
        for b in np.flatnonzero(batch.contact[:, 4] > 0):
            noise = rng.standard_normal((samples, model.horizon * model.action_dim)).astype(np.float32)
            inputs = (batch.features[b : b + 1], batch.cloud[b : b + 1], batch.mask[b : b + 1], noise)
            with torch.inference_mode():
                action, _, dissent = net(*map(torch.from_numpy, inputs))
            shaped = action.numpy().reshape(samples, model.horizon, model.action_dim)
            moved, _, _ = features.decode_action(shaped, model)
            truth = batch.contact[b, :2].astype(np.float64) * model.position_limit
            away = moved[medoid(moved), -1, :2] / gains[b, -1] - truth
            votes = float(dissent[0]) * model.position_limit
            row = {
                "spread_mm": disagreement(moved, votes, gains[b]),
                "samples_mm": disagreement(moved, 0.0, gains[b]),
                "error_mm": np.linalg.norm(away),
            }
            rows.append({name: _milli(value) for name, value in row.items()})
    return rows


def origins(
    checkpoint: Checkpoint, bank: Bank, recipe: Recipe, size: int = 400, seed: int = 0
) -> dict[str, float]:
    """Does the encoder err, or what the denoiser makes of its estimate? All verbs alike.

    Returns:
        Horizontal medians in mm over the views in which the thing is in sight: "encoder", its contact
        estimate beside the truth; "chunk", the contact that the chunk aims at beside the truth;
        "denoiser", the two beside one another.

    Raises:
        BridgeError: BAD_INPUT, no verb has enough held-out frames.
    """
    model, net = checkpoint.config, build(checkpoint, ExpertConfig().denoising_steps)
    found: dict[str, list[Array]] = {"encoder": [], "chunk": [], "denoiser": []}
    batches = HeldOut(bank, recipe, model, size, seed).batches
    if not batches:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{len(bank)} held-out frames; no kind of contact has {FEWEST}",
            value=len(bank),
            limit=FEWEST,
            remedy="make more episodes with bridgevla data generate",
        )
    for batch in batches.values():
        answer = predict(net, batch, seed)
        miss = errors(batch, answer, model)
        found["encoder"].append(miss["contact"])
        found["chunk"].append(miss["horizontal"])
        apart = (answer.position - answer.contact)[batch.contact[:, 4] > 0, :2]
        found["denoiser"].append(np.linalg.norm(apart, axis=1))
    return {part: _milli(np.median(np.concatenate(values))) for part, values in found.items()}


def _probes(net: Network, batch: Batch, answer: Answer, seed: int) -> dict[str, float]:
    found = answer.position
    empty = _replaced(batch, cloud=batch.cloud * 0.0, mask=batch.mask * 0.0)
    erased = predict(net, empty, seed).position
    cloud = batch.cloud.copy()
    cloud[..., 0] += 0.010 / features.POSITION_SCALE
    shifted = predict(net, _replaced(batch, cloud=cloud), seed).position
    moved = batch.features.copy()
    moved[:, 0] += 0.010 / features.POSITION_SCALE
    moved[:, 15] += 0.010 / 0.03
    beside = predict(net, _replaced(batch, features=moved), seed).position
    return {
        "erased_cloud_correction_mm": _milli(np.median(np.linalg.norm(erased, axis=1))),
        "cloud_shifted_10mm_follows_mm": _milli(np.median(shifted[:, 0] - found[:, 0])),
        "tcp_shifted_10mm_changes_mm": _milli(np.median(np.abs(beside[:, 0] - found[:, 0]))),
    }


def _replaced(batch: Batch, **changes: Any) -> Batch:
    return Batch(**{**vars(batch), **changes})


def _headings(rng: np.random.Generator, size: int) -> Array:
    angle = rng.uniform(-np.pi, np.pi, size)
    return np.stack([np.cos(angle), np.sin(angle), np.zeros(size)], axis=1)


def _milli(metres: Any) -> float:
    return round(float(metres) * 1e3, 2)


def _spread(values: Array) -> dict[str, float]:
    return {
        "median": _milli(np.median(values)),
        "p90": _milli(np.quantile(values, 0.9)),
        "over_10": round(float(np.mean(values > 0.010)), 3),
    }
