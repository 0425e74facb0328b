"""What the expert's training minimises, and the batches it is fed with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from bridgevla_ros.expert.config import ModelConfig
from bridgevla_ros.expert.model import ExpertModel, estimate_of
from bridgevla_ros.training.appf_config import TrainConfig
from bridgevla_ros.training.episodes_sampling import Sampler

Tensors = dict[str, Tensor]


def noising_of(shape: ModelConfig) -> DDIMScheduler:
    """diffusers' scheduler with the process of a model; ``expert.diffusion`` unrolls the same."""
    return DDIMScheduler(
        shape.train_timesteps,
        beta_schedule=shape.beta_schedule,
        prediction_type=shape.prediction_type,
        clip_sample=True,
        set_alpha_to_one=True,
        steps_offset=0,
    )


class Objective(nn.Module):
    """Loss of one micro-batch. A module, so that accelerate may spread it over devices.

    The denoising loss is the mean square of the prediction. With clouds there are two more, with true
    labels that no input holds: the contact estimate, and each point's vote.
    """

    def __init__(self, model: ExpertModel, config: TrainConfig) -> None:
        super().__init__()
        self.model = model
        self.auxiliary, self.voting = config.auxiliary, config.voting
        self.noising = noising_of(model.config)

    def forward(self, data: Mapping[str, Tensor]) -> tuple[Tensor, Tensors]:
        """Loss and its parts (detached scalars) of a batch that ``Draws`` yields."""
        if "cloud" not in data:
            loss, parts = self.denoise(data, data["contact"], None)
        else:
            loss, parts = self.with_clouds(data)
        if "told" in data:  # joint training: trajectories beside clouds
            told = {k.removeprefix("told_"): v for k, v in data.items() if k.startswith("told_")}
            beside, _ = self.denoise(told, data["told"], None)
            loss = loss + beside
        return loss, parts

    def with_clouds(self, data: Mapping[str, Tensor]) -> tuple[Tensor, Tensors]:
        """Denoising from what the encoder sees, and the losses that teach it to see."""
        limit = self.model.config.position_limit
        truth, mask = data["contact"], data["mask"]
        raw, _, logits, votes, _ = self.model.encoder(data["cloud"], mask, data["features"])
        some = (mask.sum(dim=1, keepdim=True) > 0).to(raw.dtype)
        first = estimate_of(raw, mask).detach()
        contact, seen, _ = self.model.look_again(first, data["cloud"], mask, data["features"])
        known = truth[:, 4:]
        miss = functional.smooth_l1_loss(raw[:, :4] * known, truth[:, :4] * known, beta=0.02)
        presence = functional.binary_cross_entropy_with_logits(raw[:, 4:], known, weight=some)
        loss, parts = self.denoise(data, contact, seen)
        loss = loss + self.auxiliary * miss + 0.05 * presence
        if logits is not None and votes is not None:
            own = data["target"] * known
            belongs = functional.binary_cross_entropy_with_logits(logits, own, weight=mask)
            apart = functional.smooth_l1_loss(
                votes, truth[:, None, :3].expand_as(votes), beta=0.02, reduction="none"
            ).mean(dim=-1)
            voted = (apart * own).sum() / own.sum().clamp(min=1.0)
            loss = loss + self.voting * (voted + 0.2 * belongs)
        away = (raw[:, :3] - truth[:, :3]).detach().norm(dim=-1) * limit * 1e3
        parts["contact_mm"] = (away * known[:, 0]).sum() / known.sum().clamp(min=1.0)
        return loss, parts

    def denoise(
        self, data: Mapping[str, Tensor], contact: Tensor, seen: Tensor | None
    ) -> tuple[Tensor, Tensors]:
        """Denoising loss; without clouds their features are zero."""
        model = self.model
        if seen is None:
            seen = contact.new_zeros(len(contact), model.config.cloud_features)
        conditioning, prior = model.denoiser.observe(data["features"], contact, seen)
        noise, timestep = data["noise"], data["timestep"]
        repeats = len(noise) // len(contact)
        action = data["action"].repeat(repeats, 1)
        noisy = self.noising.add_noise(action, noise, timestep)
        out = model.denoiser(noisy, timestep, conditioning.repeat(repeats, 1), prior.repeat(repeats, 1))
        target = action if model.config.prediction_type == "sample" else noise
        loss = functional.mse_loss(out, target)
        return 100.0 * loss, {"denoise": loss.detach()}


class Draws(IterableDataset[Tensors]):
    """Micro-batches k, k + 1, ...; each from a seed of its own, whoever draws it.

    Args:
        sampler: Of trajectories and clouds.
        config: Seed and repeats.
        stage: 1 yields trajectories; 2 clouds; "joint" both.
        size: Samples of a micro-batch.
        first: Index of the first micro-batch; ``rank`` and ``world``: this process takes every
            ``world``-th one from there.
    """

    def __init__(
        self, sampler: Sampler, config: TrainConfig, stage: int | str, size: int, first: int,
        rank: int = 0, world: int = 1,
    ) -> None:  # fmt: skip
        self.sampler, self.config, self.stage, self.size = sampler, config, stage, size
        self.first, self.rank, self.world = first, rank, world

    def __iter__(self) -> Iterator[Tensors]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        index = self.first * self.world + self.rank + number * self.world
        while True:
            yield self.draw(index)
            index += self.world * workers

    def draw(self, index: int) -> Tensors:
        """Micro-batch of an index."""
        rng = np.random.default_rng([self.config.seed, 1 if self.stage == 1 else 2, index])
        if self.stage == 1:
            batch = vars(self.sampler.trajectories(rng, self.size))
            return self._noised(rng, _tensors(batch, ("features", "contact", "action")), 1)
        names = ("features", "contact", "action", "cloud", "mask", "target")
        batch = vars(self.sampler.clouds(rng, self.size))
        data = self._noised(rng, _tensors(batch, names), self.config.denoising_repeats)
        if self.stage == "joint":
            told = vars(self.sampler.trajectories(rng, self.size))
            beside = self._noised(rng, _tensors(told, ("features", "contact", "action")), 1)
            data |= {f"told_{k}": v for k, v in beside.items()}
            data["told"] = beside["contact"]
        return data

    def _noised(self, rng: np.random.Generator, data: Tensors, repeats: int) -> Tensors:
        count, width = len(data["action"]) * repeats, data["action"].shape[1]
        data["noise"] = torch.from_numpy(rng.standard_normal((count, width), dtype=np.float32))
        steps = self.sampler.model.train_timesteps
        data["timestep"] = torch.from_numpy(rng.integers(0, steps, count))
        return data

    def loader(self, workers: int) -> DataLoader[Any]:
        """The loader that draws in ``workers`` processes; the order does not depend on how many."""
        return DataLoader(
            self, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None,
            worker_init_fn=_one_thread if workers else None,
        )  # fmt: skip


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def _tensors(batch: Mapping[str, Any], names: tuple[str, ...]) -> Tensors:
    return {name: torch.from_numpy(batch[name]) for name in names}
