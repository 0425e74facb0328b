"""Small vision-language models made from a configuration, with a tokenizer of their own.

Nothing is downloaded, and they know nothing: they show that load, fine-tuning, merging and planning run, and
what fine-tuning does to what a model was taught before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.planner import prompt
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.processors import image_only
from bridgevla_ros.training.sft_model import Learner
from bridgevla_ros.training.sft_questions import LETTERS, Question, Score, score

FAMILIES = {"qwen2.5": 28, "qwen3": 32}
"""Convention, which names the family too -> pixels of an image token's side."""

KNOWN = 0.02
"""Loss (nats a question) at which the questions count as learned by heart."""

END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer(texts: Iterable[str], size: int = 600) -> PreTrainedTokenizerFast:
    """Byte-level BPE learned from texts, digits one by one; any text can be written with it."""
    base = Tokenizer(models.BPE())
    base.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    base.decoder = decoders.ByteLevel()
    special = [END, START, STOP, *VISION]
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    base.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=base, pad_token=END, eos_token=STOP, additional_special_tokens=list(VISION)
    )


def make(
    folder: Path,
    family: str,
    texts: Iterable[str],
    *,
    width: int = 64,
    layers: int = 2,
    pixels: int = 320 * 256,
    seed: int = 0,
) -> None:
    """Write a checkpoint folder of random weights.

    Args:
        folder: Where to.
        family: Key of FAMILIES.
        texts: To learn the tokenizer from.
        width, layers: Of the language model; the vision part has half the width and as many layers.
        pixels: Images are brought below this area.
        seed: Of the weights.

    Raises:
        KeyError: No such family.
    """
    side = FAMILIES[family]
    words = tokenizer(texts)
    ids = {name: words.convert_tokens_to_ids(name) for name in (*VISION, END, STOP)}
    images = Qwen2VLImageProcessorPil(
        patch_size=side // 2, merge_size=2, size={"shortest_edge": side * side, "longest_edge": pixels}
    )
    common: dict[str, Any] = {
        "image_token_id": ids["<|image_pad|>"], "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"], "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": True,
    }  # fmt: skip
    heads = max(2, width // 32)
    text: dict[str, Any] = {
        "vocab_size": len(words), "hidden_size": width, "intermediate_size": 2 * width,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": heads,
        "max_position_embeddings": 2048, "bos_token_id": ids[END], "eos_token_id": ids[STOP],
        "pad_token_id": ids[END], "tie_word_embeddings": True,
    }  # fmt: skip
    section = width // heads // 2
    rope = {"mrope_section": [section - 2 * (section // 3), section // 3, section // 3]}
    vision: dict[str, Any] = {
        "depth": layers, "hidden_size": width, "num_heads": 2, "intermediate_size": 2 * width,
        "patch_size": side // 2, "spatial_merge_size": 2, "out_hidden_size": width,
    }  # fmt: skip
    torch.manual_seed(seed)
    model: Any
    kind: Any
    if family == "qwen2.5":
        text["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0, **rope}
        vision |= {"window_size": 4 * side, "fullatt_block_indexes": list(range(layers)), "in_channels": 3}
        config: Any = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **common)
        model, kind = Qwen2_5_VLForConditionalGeneration(config), Qwen2_5_VLProcessor
    else:
        text["head_dim"] = width // heads
        text["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0, **rope}
        vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 256}
        config = Qwen3VLConfig(text_config=text, vision_config=vision, **common)
        model, kind = Qwen3VLForConditionalGeneration(config), Qwen3VLProcessor
    model.generation_config.eos_token_id = ids[STOP]
    model.generation_config.pad_token_id = ids[END]
    model.save_pretrained(folder)
    image_only(kind)(image_processor=images, tokenizer=words, chat_template=TEMPLATE).save_pretrained(folder)


def make_taught(folder: Path, family: str, questions: list[Question], *, steps: int = 200) -> Score:
    """A small model that was taught general questions by heart, so that it has something to forget.

    Args:
        folder: Of the checkpoint; taught.json beside it tells how well it knows them.
        family: Key of FAMILIES.
        questions: To be learned.
        steps: At most, each with all questions; it ends when all are known well.

    Raises:
        BridgeError: BAD_INPUT: no such family.
    """
    if family not in FAMILIES:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"no small model writes by convention {family!r}",
            remedy=f"take one of {', '.join(FAMILIES)}, or give a --checkpoint",
        )
    asked = [part["text"] for q in questions for m in q.messages() for part in m["content"]]
    pointed = prompt.first_turn("put the red cube in the blue bowl", family)[0]["content"][1]["text"]
    make(folder, family, [*asked, *[pointed] * 20])
    learner = Learner(PlannerConfig(backend="transformers", weights=str(folder), convention=family))
    model, words = learner.model, learner.processor.tokenizer
    words.padding_side = "left"
    prompts = words([learner.prompt(q.messages()) for q in questions], padding=True, return_tensors="pt")
    letters = torch.tensor([words.convert_tokens_to_ids(LETTERS[q.answer]) for q in questions])
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.0)
    with Progress() as bar:
        task = bar.add_task("teaching the questions", total=steps)
        for _ in range(steps):
            logits = model(**prompts, logits_to_keep=1).logits[:, -1]
            loss = torch.nn.functional.cross_entropy(logits, letters)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            bar.advance(task)
            if float(loss.detach()) < KNOWN:
                break
    found = score(model, words, learner.prompt, questions)
    model.save_pretrained(folder)
    (folder / "taught.json").write_text(
        json.dumps({"questions": found.count, "right": found.right, "likelihood": found.likelihood}) + "\n"
    )
    return found
