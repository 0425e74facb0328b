"""The embedded planner's image trunk as a vision tower, for language models that take image tokens.

It sees colour alone: an image-text-to-text model is given a picture, no depth. The trunk was trained with
depth missing in 15% of its images. Registered with transformers' Auto classes, so that any model class that
makes its tower with ``AutoModel`` takes it (LLaVA's does).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from bridgevla_ros.planner.grounding import STRIDE, GroundingConfig, GroundingModel, ImageTrunk
from bridgevla_ros.planner.vocabulary import COLOUR_CLASSES, THING_CLASSES

PATCH = 16
"""Pixels of the network's input to an image token: four by four cells of the trunk (our choice)."""

TURNS = tuple(2.0**k for k in range(-3, 5))
"""Turns over the image of the sines and cosines that say where something lies: 1/8, 1/4, ... 16."""

POSITION = 4 * len(TURNS)
"""Values of an image token that say where it lies: sines and cosines of column, then of row."""

DOUBT, REST = 1.0, 0.1
"""Cells of background that a token's account of what it shows, and of where, is diluted with (our choice):
a thing at its edge counts less, and a token of the bare table lies in its own middle."""


class SightConfig(PretrainedConfig):
    """Sizes of the vision tower; ``hidden_size`` follows from them."""

    model_type = "bridgevla_sight"

    def __init__(
        self,
        image_height: int = 192,
        image_width: int = 256,
        channels: tuple[int, int, int, int] | list[int] = (16, 40, 64, 96),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.image_height, self.image_width, self.patch_size = image_height, image_width, PATCH
        self.channels = list(channels)
        cells = (PATCH // STRIDE) ** 2
        shown = COLOUR_CLASSES + THING_CLASSES
        self.hidden_size = cells * (self.channels[1] + shown) + shown + POSITION


class SightModel(PreTrainedModel):
    """Pixels to image tokens: features, colours and kinds of 4x4 cells each; then what stands out from the
    background in them: its mean colour and kind, and where its middle lies."""

    config_class = SightConfig
    main_input_name = "pixel_values"
    _supports_sdpa = True  # there is no attention in it: any implementation will do
    _supports_flash_attn = True

    def __init__(self, config: SightConfig) -> None:
        super().__init__(config)
        sizes = GroundingConfig(
            image_height=config.image_height, image_width=config.image_width, channels=config.channels
        )
        self.trunk = ImageTrunk(sizes)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Torch's own initialisation is kept."""

    def train(self, mode: bool = True) -> SightModel:
        """As usual, but for the trunk's BatchNorm, which keeps the statistics that it was trained with."""
        super().train(mode)
        self.trunk.eval()
        return self

    def forward(self, pixel_values: Tensor, **more: Any) -> BaseModelOutput:
        """(B, 3, H, W) colour in -1..1 to (B, H/16 * W/16, hidden_size), tokens row by row."""
        blank = pixel_values.new_zeros(pixel_values.shape[0], 2, *pixel_values.shape[-2:])
        seen = self.trunk(torch.cat([pixel_values, blank], 1))  # height and validity of depth: unknown
        colours, things = seen.colours.softmax(1), seen.things.softmax(1)
        cells = F.pixel_unshuffle(torch.cat([seen.features, colours, things], 1), PATCH // STRIDE)
        solid = 1.0 - torch.minimum(colours[:, :1], things[:, :1])
        shown = _mean(torch.cat([colours, things], 1), solid, DOUBT)
        middle = _cells(*solid.shape[-2:]).to(solid).expand(len(solid), -1, -1, -1)
        where = positions(_mean(middle, solid, REST, F.avg_pool2d(middle, PATCH // STRIDE)))
        tokens = torch.cat([cells, shown, where], 1).flatten(2).transpose(1, 2)
        return BaseModelOutput(last_hidden_state=tokens, hidden_states=(tokens,))


def _mean(values: Tensor, weights: Tensor, more: float, rest: Tensor | float = 0.0) -> Tensor:
    """Weighted mean over the cells of each token; ``more`` cells are added that have the value ``rest``."""
    size = PATCH // STRIDE
    weighted, whole = F.avg_pool2d(values * weights, size), F.avg_pool2d(weights, size)
    return (weighted * size**2 + more * rest) / (whole * size**2 + more)


def _cells(rows: int, columns: int) -> Tensor:
    """(2, rows, columns): column and row of the middle of each cell, as shares of the image."""
    row, column = (torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns
    return torch.stack([column.expand(rows, -1), row[:, None].expand(-1, columns)])


def waves(share: Tensor) -> Tensor:
    """Sines, then cosines, of a coordinate's share of the image: (...) to (..., 2 * turns)."""
    phase = 2 * math.pi * share[..., None] * torch.tensor(TURNS).to(share)
    return torch.cat([phase.sin(), phase.cos()], -1)


def positions(where: Tensor) -> Tensor:
    """(B, 2, rows, columns) shares of the image to (B, POSITION, rows, columns)."""
    return waves(where).permute(0, 1, 4, 2, 3).flatten(1, 2)


def tower_of(model: GroundingModel) -> SightModel:
    """A tower with the trained trunk of the embedded planner."""
    sizes = model.config
    tower = SightModel(SightConfig(sizes.image_height, sizes.image_width, sizes.channels))
    tower.trunk.load_state_dict(model.trunk.state_dict())
    return tower


AutoConfig.register(SightConfig.model_type, SightConfig, exist_ok=True)
AutoModel.register(SightConfig, SightModel, exist_ok=True)
