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

POSITION = 32
"""Values of an image token that say where it lies: sines and cosines of row and column."""


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
        self.hidden_size = cells * (self.channels[1] + COLOUR_CLASSES + THING_CLASSES) + POSITION


class SightModel(PreTrainedModel):
    """Pixels to image tokens: features, colours and kinds of 4x4 cells each, and where they lie."""

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
        cells = torch.cat([seen.features, seen.colours.softmax(1), seen.things.softmax(1)], 1)
        tokens = F.pixel_unshuffle(cells, PATCH // STRIDE)
        where = _positions(*tokens.shape[-2:]).to(tokens).expand(tokens.shape[0], -1, -1, -1)
        tokens = torch.cat([tokens, where], 1).flatten(2).transpose(1, 2)
        return BaseModelOutput(last_hidden_state=tokens, hidden_states=(tokens,))


def _positions(rows: int, columns: int) -> Tensor:
    """(POSITION, rows, columns): sines and cosines of 1, 2, 4, ... eighths of a turn over the image."""
    turns = math.pi / 4 * 2.0 ** torch.arange(POSITION // 4)
    row = turns[:, None] * (torch.arange(rows) + 0.5) / rows
    column = turns[:, None] * (torch.arange(columns) + 0.5) / columns
    down = torch.cat([row.sin(), row.cos()])[:, :, None].expand(-1, -1, columns)
    along = torch.cat([column.sin(), column.cos()])[:, None, :].expand(-1, rows, -1)
    return torch.cat([down, along])


def tower_of(model: GroundingModel) -> SightModel:
    """A tower with the trained trunk of the embedded planner."""
    sizes = model.config
    tower = SightModel(SightConfig(sizes.image_height, sizes.image_width, sizes.channels))
    tower.trunk.load_state_dict(model.trunk.state_dict())
    return tower


AutoConfig.register(SightConfig.model_type, SightConfig, exist_ok=True)
AutoModel.register(SightConfig, SightModel, exist_ok=True)
