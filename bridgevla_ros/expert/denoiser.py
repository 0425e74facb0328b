"""Denoisers of a chunk: a FiLM residual MLP and a 1-D convolutional U-Net with FiLM.

Both read the same conditioning: state, guidance, contact estimate, the cloud's features, the time step.
docs/adr/0005-expert-network.md compares them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bridgevla_ros.expert.config import ModelConfig
from bridgevla_ros.expert.diffusion import alphas_cumprod
from bridgevla_ros.expert.encoder import CONTACT_DIM
from bridgevla_ros.expert.features import first_gain


class Block(nn.Module):
    """Residual MLP block, modulated by FiLM."""

    def __init__(self, width: int, conditioning: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.film = nn.Linear(conditioning, 2 * width)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        for layer in (self.film, self.second):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        """(B, W) from (B, W) and conditioning (B, C)."""
        scale, shift = self.film(conditioning).chunk(2, dim=-1)
        h = self.norm(x) * (1.0 + scale) + shift
        out: Tensor = x + self.second(nn.functional.silu(self.first(h)))
        return out


class MlpBody(nn.Module):
    """FiLM residual MLP over the flattened chunk."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        action = config.horizon * config.action_dim
        self.inlet = nn.Linear(action, config.width)
        self.blocks = nn.ModuleList(
            [Block(config.width, config.conditioning_width) for _ in range(config.blocks)]
        )
        self.outlet = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, action))

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        """(B, H * 10) from (B, H * 10) and conditioning (B, C)."""
        h = self.inlet(x)
        for block in self.blocks:
            h = block(h, conditioning)
        out: Tensor = self.outlet(h)
        return out


class ConvBlock(nn.Module):
    """Two convolutions along time with GroupNorm; FiLM between them (as in Diffusion Policy's U-Net)."""

    def __init__(self, inlet: int, outlet: int, conditioning: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(inlet, outlet, 5, padding=2)
        self.norm = nn.GroupNorm(8, outlet)
        self.film = nn.Linear(conditioning, 2 * outlet)
        self.second = nn.Conv1d(outlet, outlet, 5, padding=2)
        self.past = nn.Conv1d(inlet, outlet, 1) if inlet != outlet else nn.Identity()
        for layer in (self.film, self.second):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # both have one

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        """(B, outlet, T) from (B, inlet, T) and conditioning (B, C)."""
        scale, shift = self.film(conditioning)[..., None].chunk(2, dim=1)
        h = nn.functional.silu(self.norm(self.first(x)) * (1.0 + scale) + shift)
        out: Tensor = self.past(x) + self.second(h)
        return out


class UNetBody(nn.Module):
    """1-D U-Net along the chunk's steps; widths double at each of two halvings."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c, w = config.conditioning_width, config.width
        self.action_dim = config.action_dim
        self.inlet = nn.Conv1d(config.action_dim, w, 1)
        self.down = nn.ModuleList([ConvBlock(w, w, c), ConvBlock(w, 2 * w, c)])
        self.narrow = nn.ModuleList([nn.Conv1d(n, n, 3, 2, 1) for n in (w, 2 * w)])
        self.middle = ConvBlock(2 * w, 4 * w, c)
        self.widen = nn.ModuleList([nn.ConvTranspose1d(n, n // 2, 4, 2, 1) for n in (4 * w, 2 * w)])
        self.up = nn.ModuleList([ConvBlock(4 * w, 2 * w, c), ConvBlock(2 * w, w, c)])
        self.outlet = nn.Conv1d(w, config.action_dim, 1)

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        """(B, H * 10) from (B, H * 10) and conditioning (B, C)."""
        conditioning = conditioning.expand(x.shape[0], -1)
        h = self.inlet(x.reshape(x.shape[0], -1, self.action_dim).transpose(1, 2))
        kept = []
        for block, narrow in zip(self.down, self.narrow, strict=True):
            h = block(h, conditioning)
            kept.append(h)
            h = narrow(h)
        h = self.middle(h, conditioning)
        for block, widen in zip(self.up, self.widen, strict=True):
            h = block(torch.cat([widen(h), kept.pop()], dim=1), conditioning)
        out: Tensor = self.outlet(h)
        return out.transpose(1, 2).reshape(x.shape[0], -1)


class Denoiser(nn.Module):
    """Conditioning, time step and body."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, action = config.conditioning_width, config.horizon * config.action_dim
        inlet = config.feature_dim + CONTACT_DIM + config.cloud_features + 4 * config.horizon
        self.observation = nn.Sequential(
            nn.Linear(inlet, width), nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width)
        )
        self.time = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        self.body = UNetBody(config) if config.denoiser == "unet" else MlpBody(config)
        self.prior = nn.Linear(4 * config.horizon, action)
        nn.init.zeros_(self.prior.weight)
        nn.init.zeros_(self.prior.bias)
        self.first_gain = first_gain(config)
        self.horizon = config.horizon
        self.predicts_sample = config.prediction_type == "sample"
        frequencies = torch.exp(-math.log(1e4) * torch.arange(32) / 31)
        self.register_buffer("frequencies", frequencies, persistent=False)
        kept = torch.tensor(alphas_cumprod(config.train_timesteps, config.beta_schedule), dtype=torch.float32)
        self.register_buffer("kept", kept, persistent=False)

    def observe(self, features: Tensor, contact: Tensor, cloud_features: Tensor) -> tuple[Tensor, Tensor]:
        """What is the same for all denoising steps.

        The correction that step k should carry is, but for what the cloud's free features add, the
        product of the contact estimate and the step's gain. A product costs an MLP precision (about
        2 mm here), so it is given; a linear skip from it to the sample starts at zero and is learned. Who
        predicts the noise is given the noise that would lead to that sample.

        Returns:
            (B, W) conditioning and (B, H * 10) skip.
        """
        gain = features[:, self.first_gain : self.first_gain + self.horizon]
        product = (gain[:, :, None] * (contact[:, None, :4] * contact[:, None, 4:])).flatten(1)
        conditioning = self.observation(torch.cat([features, contact, cloud_features, product], dim=-1))
        return conditioning, self.prior(product)

    def forward(self, x: Tensor, timestep: Tensor, conditioning: Tensor, prior: Tensor) -> Tensor:
        """(B, H * 10) prediction from (B, H * 10) noisy actions at (B,) or (1,) timesteps."""
        frequencies = self.get_buffer("frequencies")
        angle = timestep[:, None].to(x.dtype) * frequencies
        embedded = self.time(torch.cat([angle.sin(), angle.cos()], dim=-1))
        out: Tensor = self.body(x, nn.functional.silu(conditioning + embedded))
        if self.predicts_sample:
            return out + prior
        kept = self.get_buffer("kept")[timestep.long()][:, None]
        return out + (x - kept.sqrt() * prior) / (1.0 - kept).sqrt()
