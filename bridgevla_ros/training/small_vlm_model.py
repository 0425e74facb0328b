"""A small vision-language model that points: LLaVA's classes around the embedded planner's image trunk.

Tower: ``planner.sight``, with trained weights. Language model: a Llama of a few layers, from random weights.
Its tokenizer is learned from the training phrasings; whole numbers 0 to 1000 are a token each, and so are the
fixed words of the planner's prompt and of its answers (all taken from the tables that write them).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from bridgevla_ros.planner import conventions, prompt
from bridgevla_ros.planner.backends.embedded import SHIPPED
from bridgevla_ros.planner.grounding import GroundingModel
from bridgevla_ros.planner.sight import SightConfig, tower_of
from bridgevla_ros.planner.vocabulary import COLOUR_NAMES, COLOUR_OTHER, THING_NAMES, THING_OTHER
from bridgevla_ros.training import small_vlm_start

CONVENTION = "qwen3"
"""It can say that there is nothing to take, which PaliGemma's cannot, and names what it points at."""

SCALE = int(conventions.convention(CONVENTION).scale)

PAD, IMAGE, ASK, ANSWER, END = "<pad>", "<image>", "<ask>", "<answer>", "<end>"
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}<image>{% else %}<ask>{{ p['text'] }}{% endif %}{% endfor %}"
    "{% else %}<answer>{% for p in m['content'] %}{{ p['text'] }}{% endfor %}<end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<answer>{% endif %}"
)


TURNING = 1e8
"""Base of the rotary embedding. A word must find its image token over up to 250 tokens: two thirds of each
head's pairs turn by less than half a radian on that way. With 1e4 it is one third (our choice)."""

SHAPES = ("square", "circle", "triangle")
"""What drawings show; the rest of the names are those of the lexicon."""

THINK, THOUGHT, THERE, MISSING, NOTHING = "<think>", "</think>", " is there", " is missing", "nothing to do"
"""Before it points, the model names what it was told of, and whether it sees it; the reader of answers
leaves out thoughts. Coordinates come before the name in the convention's JSON: without a thought it would
have to find out what is meant, to look, and to read off where, all within one token."""


def names() -> dict[str, tuple[str, ...]]:
    """Tokens of thoughts that name a thing, by colour and kind or kind alone, and their words."""
    kinds = (*THING_NAMES[1:THING_OTHER], *SHAPES)
    colours = COLOUR_NAMES[1:COLOUR_OTHER]
    pairs = [(c, k) for c in colours for k in kinds] + [(k,) for k in kinds]
    return {f"<{' '.join(p)}>": p for p in pairs}


def think(labels: Sequence[str], there: Sequence[bool]) -> str:
    """The thought that belongs to an answer."""
    seen = "".join(f"<{n}>{THERE if t else MISSING}" for n, t in zip(labels, there, strict=True))
    return f"{THINK}{seen or NOTHING}{THOUGHT}"


def fixed_prompt() -> tuple[str, str]:
    """What the planner's first turn says before and after the quoted instruction."""
    text = prompt.first_turn("\0", CONVENTION)[0]["content"][1]["text"]
    before, _, after = text.partition(repr("\0"))
    return before, after


def fixed_answer() -> tuple[str, ...]:
    """What stands in an answer beside numbers and names: before the first x, after a y, and at the end."""
    pair = conventions.write(np.zeros((2, 2)), ["\0", "\0"], CONVENTION, 2, 2)
    pieces = [p for p in re.split(r"\d+, \d+|\0", pair) if p]
    return (*dict.fromkeys(pieces), conventions.write(np.zeros((0, 2)), [], CONVENTION, 2, 2))


def tokenizer(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE in lower case; a second coordinate with the comma before it is a token of its own."""
    base = Tokenizer(models.BPE())
    base.normalizer = normalizers.Lowercase()
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.decoder = decoders.ByteLevel()
    special = [PAD, IMAGE, ASK, ANSWER, END]
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    base.train_from_iterator(texts, trainer)
    numbers = [str(n) for n in range(SCALE + 1)]
    whole = [*numbers, *(f", {n}" for n in numbers), *fixed_prompt(), *fixed_answer()]
    whole += [*names(), THINK, THOUGHT, THERE, MISSING, NOTHING]
    base.add_tokens([AddedToken(t, normalized=False) for t in whole])
    words = PreTrainedTokenizerFast(
        tokenizer_object=base,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[IMAGE, ASK, ANSWER],
        clean_up_tokenization_spaces=False,
    )
    words.chat_template = TEMPLATE
    return words


def make(
    folder: Path,
    texts: Iterable[str],
    *,
    eyes: Path = SHIPPED,
    width: int = 192,
    layers: int = 4,
    heads: int = 4,
    words: int = 2400,
    layer: int = 2,
    seed: int = 0,
) -> None:
    """Write a checkpoint folder: trained tower, untrained language model, tokenizer, processor.

    Args:
        folder: Where to.
        texts: To learn the tokenizer from.
        eyes: Checkpoint of the embedded planner whose trunk is taken.
        width, layers, heads: Of the language model.
        words: Tokens beside numbers and fixed pieces.
        layer: Whose attention, and that of the one before, begins by looking at what a token names.
        seed: Of the weights.
    """
    vocabulary = tokenizer(texts, words)
    tower = tower_of(GroundingModel.from_pretrained(eyes))
    sizes: SightConfig = tower.config
    ids = {name: vocabulary.convert_tokens_to_ids(name) for name in (PAD, IMAGE, END)}
    config = LlavaConfig(
        vision_config=sizes,
        text_config=LlamaConfig(
            vocab_size=len(vocabulary), hidden_size=width, intermediate_size=2 * width,
            num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads,
            max_position_embeddings=2048, pad_token_id=ids[PAD], bos_token_id=None, eos_token_id=ids[END],
            tie_word_embeddings=True, initializer_range=0.02,
            rope_parameters={"rope_type": "default", "rope_theta": TURNING},
        ),
        image_token_index=ids[IMAGE],
        image_seq_length=sizes.image_height * sizes.image_width // sizes.patch_size**2,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    small_vlm_start.begin(model, vocabulary, names(), list(coordinates(vocabulary).values()), layer)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = ids[END], ids[PAD]
    model.save_pretrained(folder)
    processor(vocabulary, sizes).save_pretrained(folder)


def processor(words: PreTrainedTokenizerFast, sizes: SightConfig) -> LlavaProcessor:
    """Images shrunk by averaging, as the trunk was trained, to -1..1; each becomes one token a patch."""
    images = LlavaImageProcessorPil(
        size={"height": sizes.image_height, "width": sizes.image_width}, resample=4, do_center_crop=False,
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    return LlavaProcessor(
        image_processor=images, tokenizer=words, patch_size=sizes.patch_size, image_token=IMAGE,
        vision_feature_select_strategy="full", chat_template=TEMPLATE,
    )  # fmt: skip


def coordinates(words: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Ids of the tokens of first and second coordinates, in order of their value: (1001,) each."""
    first = [words.convert_tokens_to_ids(str(n)) for n in range(SCALE + 1)]
    second = [words.convert_tokens_to_ids(f", {n}") for n in range(SCALE + 1)]
    return {"x": torch.tensor(first), "y": torch.tensor(second)}
