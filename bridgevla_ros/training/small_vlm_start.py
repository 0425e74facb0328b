"""How the small vision-language model begins: what its eyes and the lexicon know, written into its weights.

The residual stream's first dimensions are given a meaning, which training may change:

  KINDS   colours and kinds of the lexicon, one each: words of the lexicon begin with those of their class,
          image tokens with what the tower sees in them
  PLACE   sines and cosines of column and row: tokens of numbers begin with those of the number, image tokens
          with those of where what they show lies
  FOUND   colours and kinds of what was looked at
  SIDES   a constant in words, another in image tokens

One head of two layers begins by comparing KINDS, from words to image tokens, and by adding PLACE and FOUND
of what it finds to the word; the last two heads of every layer begin by copying KINDS and PLACE from
whatever they look at. The rest is random. Attention that begins near an identity is known to help small
data (Trockman and Kolter 2023, arXiv 2305.09828); which identities, and all sizes, are our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.planner.language import COLOURS, THINGS
from bridgevla_ros.planner.sight import POSITION, TURNS, waves
from bridgevla_ros.planner.vocabulary import COLOUR_CLASSES, THING_CLASSES

SIZE = 2.0
"""Of each part of an embedding: kind, place, and all that is random. It is large beside what layers add in
the first steps of training; at 0.7 they drowned it within a hundred."""

LOGITS = 0.35
"""Weight of the last norm, so that such embeddings give logits of the usual size."""

MATCH, SIDE, COPY, QUIET = 2.0, 6.4, 0.33, 0.3
"""Weights of the comparing heads, of their liking for image tokens, of what they bring, and of all that shall
begin small beside it: what other heads copy, and what the tower's features add at random."""

CLASSES = len(COLOURS) + len(THINGS)
KINDS = slice(0, CLASSES)
PLACE = slice(CLASSES, CLASSES + POSITION)
FOUND = slice(PLACE.stop, PLACE.stop + CLASSES)
WORD_SIDE, IMAGE_SIDE = FOUND.stop, FOUND.stop + 1
FREE = slice(IMAGE_SIDE + 1, None)


@torch.no_grad()
def begin(
    model: Any,
    words: PreTrainedTokenizerFast,
    names: dict[str, tuple[str, ...]],
    numbers: Sequence[Tensor],
    layer: int,
) -> None:
    """Set the weights of an untrained model.

    Args:
        model: LlavaForConditionalGeneration with our tower.
        words: Its tokenizer.
        names: Tokens that name a colour, a kind or both, and those.
        numbers: Ids of the tokens of first and of second coordinates, from 0 to the whole image.
        layer: Whose attention, and that of the one before, begins by comparing.

    Raises:
        BridgeError: OUT_OF_RANGE: heads are too narrow, or there is no such layer.
    """
    text = model.config.text_config
    wide = text.hidden_size // text.num_attention_heads
    for name, value, least in (
        ("values in a head", wide, PLACE.stop),
        ("values in the residual stream", text.hidden_size, FREE.start + 16),
        ("layers", text.num_hidden_layers, layer + 1),
    ):
        if value < least:
            raise BridgeError(
                ErrorCode.OUT_OF_RANGE, f"{value} {name}", value=float(value), limit=float(least),
                remedy="raise width, lower heads, or set layers and pointing_layer so that they fit",
            )  # fmt: skip
    _embeddings(model.get_input_embeddings().weight, words, names, numbers)
    _projector(model)
    model.model.language_model.norm.weight.fill_(LOGITS)
    layers = model.model.language_model.layers
    for number, block in enumerate(layers):
        for head in range(2, text.num_attention_heads):
            _copying(block.self_attn, head, wide)
        if number in (layer - 1, layer):
            _comparing(block.self_attn, wide)


def _embeddings(
    table: Tensor,
    words: PreTrainedTokenizerFast,
    names: dict[str, tuple[str, ...]],
    numbers: Sequence[Tensor],
) -> None:
    free = table.shape[1] - FREE.start
    spread = SIZE / free**0.5
    table.zero_()
    table[:, FREE] = spread * torch.randn(len(table), free)
    table[:, WORD_SIDE] = SIZE
    for token, classes in _kinds(words).items():
        table[token, classes] = SIZE
    for text, parts in names.items():
        token = words.convert_tokens_to_ids(text)
        table[token, [d for part in parts for d in _class(part)]] = SIZE
    for axis, mine in enumerate(numbers):  # alike but for the number
        table[mine, FREE] = spread * torch.randn(free) + 0.3 * table[mine, FREE]
        code = waves(torch.arange(len(mine)) / (len(mine) - 1)) * SIZE / len(TURNS) ** 0.5
        start = PLACE.start + axis * code.shape[1]
        table[mine, start : start + code.shape[1]] = code


def _class(name: str) -> list[int]:
    """Dimension of a class of the lexicon; none for other names."""
    return [i for i, concept in enumerate((*COLOURS, *THINGS)) if concept.name == name]


def _kinds(words: PreTrainedTokenizerFast) -> dict[int, list[int]]:
    """Dimensions of tokens that are a word of the lexicon, or that end one and no word of another class."""
    found: dict[int, set[int]] = {}
    for number, concept in enumerate((*COLOURS, *THINGS)):
        for word in concept.words:
            for text in (f" {word}", word):
                found.setdefault(words(text, add_special_tokens=False)["input_ids"][-1], set()).add(number)
    return {token: list(classes) for token, classes in found.items() if len(classes) == 1}


def _projector(model: Any) -> None:
    """Hidden units for what the tower says of a token; the other units stay as they are, random."""
    projector = model.model.multi_modal_projector
    shown = projector.linear_1.in_features - POSITION - COLOUR_CLASSES - THING_CLASSES
    channels = [shown + 1 + i for i in range(len(COLOURS))]
    channels += [shown + COLOUR_CLASSES + 1 + i for i in range(len(THINGS))]
    unit = 0
    for number, channel in enumerate(channels):
        _pass(projector, unit, channel, 8.0, number, SIZE)
        unit += 1
    for number in range(POSITION):  # gelu(x) - gelu(-x) = x
        channel = projector.linear_1.in_features - POSITION + number
        for sign in (2.0, -2.0):
            _pass(projector, unit, channel, sign, PLACE.start + number, SIZE / len(TURNS) ** 0.5)
            unit += 1
    projector.linear_2.weight[: FREE.start, unit:] = 0.0  # the others leave alone what has a meaning
    projector.linear_2.weight[:, unit:] *= QUIET
    projector.linear_2.bias.zero_()
    projector.linear_2.bias[IMAGE_SIDE] = SIZE


def _pass(projector: Any, unit: int, channel: int, gain: float, to: int, size: float) -> None:
    projector.linear_1.weight[unit] = 0.0
    projector.linear_1.bias[unit] = 0.0
    projector.linear_1.weight[unit, channel] = gain
    projector.linear_2.weight[:, unit] = 0.0
    projector.linear_2.weight[to, unit] = size / gain


def _slow(wide: int) -> list[int]:
    """Dimensions of a head whose pairs turn slowest, slowest first: rotary pairs are i and i + wide / 2."""
    half = wide // 2
    return [i + side for i in reversed(range(half)) for side in (0, half)]


def _comparing(attention: Any, wide: int) -> None:
    """Let the first head look from words to image tokens of the same KINDS, and bring PLACE and FOUND."""
    query, key = attention.q_proj.weight, attention.k_proj.weight
    slow = _slow(wide)
    query[:wide], key[:wide] = 0.0, 0.0
    for i in range(CLASSES):
        query[slow[i], i] = key[slow[i], i] = MATCH
    query[slow[CLASSES], WORD_SIDE] = key[slow[CLASSES], IMAGE_SIDE] = SIDE**0.5
    _carry(attention, 0, wide, SIZE / 2, found=True)


def _copying(attention: Any, head: int, wide: int) -> None:
    _carry(attention, head, wide, QUIET * SIZE / 2, found=False)


def _carry(attention: Any, head: int, wide: int, gain: float, found: bool) -> None:
    rows = slice(head * wide, (head + 1) * wide)
    value, output = attention.v_proj.weight, attention.o_proj.weight
    value[rows] = 0.0
    output[:, rows] = 0.0
    for i in range(PLACE.stop):
        value[rows.start + i, i] = COPY
        output[FOUND.start + i if found and i < CLASSES else i, rows.start + i] = gain
