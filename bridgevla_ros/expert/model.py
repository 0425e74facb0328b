"""The network: an encoder that looks at the cloud, a denoiser that draws a chunk.

Which encoder and which denoiser was measured: docs/adr/0005-expert-network.md.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from bridgevla_ros.expert.config import ModelConfig
from bridgevla_ros.expert.denoiser import Denoiser
from bridgevla_ros.expert.diffusion import DdimStep
from bridgevla_ros.expert.encoder import make_encoder
from bridgevla_ros.expert.features import POSITION_SCALE


class Look(NamedTuple):
    """What a model makes of a cloud.

    Attributes:
        contact: (B, 5) estimate, last its presence, 0..1.
        features: (B, C) of the cloud; zero without cloud.
        dissent: (B,) see ``Glimpse``.
    """

    contact: Tensor
    features: Tensor
    dissent: Tensor


class ExpertModel(nn.Module):
    """Encoder and denoiser of one checkpoint."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = make_encoder(config)
        self.denoiser = Denoiser(config)

    def look(self, cloud: Tensor, mask: Tensor, features: Tensor) -> Look:
        """What the cloud tells; presence is a probability here.

        A contact found far from guidance is looked at again from where it was found: there the estimate
        is better (held-out scenes, guidance 30 mm off, median error: picks 5.1 -> 4.5 mm, places
        5.8 -> 4.9 mm). Nearer than 8 mm nothing is gained, so there the second look changes nothing.
        """
        first = self._glance(cloud, mask, features)
        return self.look_again(first.contact, cloud, mask, features)

    def look_again(self, first: Tensor, cloud: Tensor, mask: Tensor, features: Tensor) -> Look:
        """The second half of ``look``, from a first estimate; training sees the same as inference."""
        limit = self.config.position_limit
        found = first[:, :3] * first[:, 4:]
        far = torch.clamp((found.norm(dim=1, keepdim=True) * limit - 0.008) / 0.008, 0.0, 1.0)
        moved = found * far
        shift = moved * (limit / POSITION_SCALE)
        shifted = torch.cat([cloud[..., :3] - shift[:, None], cloud[..., 3:]], dim=-1)
        beside = torch.cat([features[:, :3] - shift, features[:, 3:]], dim=-1)
        second = self._glance(shifted, mask, beside)
        contact = torch.cat([second.contact[:, :3] + moved, second.contact[:, 3:]], dim=-1)
        return second._replace(contact=contact)

    def _glance(self, cloud: Tensor, mask: Tensor, features: Tensor) -> Look:
        glimpse = self.encoder(cloud, mask, features)
        return Look(estimate_of(glimpse.contact, mask), glimpse.features, glimpse.dissent)

    def step(self, x: Tensor, conditioning: Tensor, prior: Tensor, step: DdimStep) -> Tensor:
        """One DDIM step, eta 0."""
        timestep = torch.full((1,), step.timestep, dtype=torch.float32, device=x.device)
        out: Tensor = self.denoiser(x, timestep, conditioning, prior)
        if self.config.prediction_type == "sample":
            return step.clip_gain * out.clamp(-1.0, 1.0) + step.eps_gain * (x - step.root * out)
        sample = (x - step.noise_root * out) / step.root
        return step.clip_gain * sample.clamp(-1.0, 1.0) + step.next_noise * out


def estimate_of(raw: Tensor, mask: Tensor) -> Tensor:
    """(B, 5) contact estimate of the encoder's output: its last column a probability, 0 without points."""
    some = (mask.sum(dim=1, keepdim=True) > 0).to(raw.dtype)
    return torch.cat([raw[:, :4], torch.sigmoid(raw[:, 4:]) * some], dim=-1)


class Sampler(nn.Module):
    """The whole inference as one module: what the onnx runtime's graph is exported from."""

    def __init__(self, model: ExpertModel, steps: tuple[DdimStep, ...]) -> None:
        super().__init__()
        self.model = model
        self.steps = steps

    def forward(
        self, features: Tensor, cloud: Tensor, mask: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Denoise S samples of one observation, or one of each of S observations.

        Args:
            features: (1 or S, F); cloud: (1 or S, N, 4); mask: (1 or S, N) float; noise: (S, H * 10).

        Returns:
            (S, H * 10) actions in [-1, 1], (1 or S, 5) contact estimate, (1 or S,) dissent of its votes
            over position_limit.
        """
        contact, cloud_features, dissent = self.model.look(cloud, mask, features)
        conditioning, prior = self.model.denoiser.observe(features, contact, cloud_features)
        x = noise
        for step in self.steps:
            x = self.model.step(x, conditioning, prior, step)
        return x, contact, dissent
