"""Small vision-language checkpoints that tests make for themselves: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    PreTrainedTokenizerFast,
)

SPECIAL = (
    "<|pad|>", "<|im_start|>", "<end_of_utterance>", "<image>", "<fake_token_around_image>", "<global-img>",
)  # fmt: skip
TEMPLATE = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}:"
    "{% for p in m['content'] %}{% if p['type'] == 'image' %}<image>{% else %}{{ p['text'] }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def idefics3(folder: Path, width: int = 48) -> tuple[Idefics3ForConditionalGeneration, Idefics3Processor]:
    """Idefics3 (the class of SmolVLM) at 100 thousand random weights, in a folder; writes bytes as tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    base = Tokenizer(models.BPE({t: i for i, t in enumerate((*SPECIAL, *alphabet))}, merges=[]))
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.decoder = decoders.ByteLevel()
    words = PreTrainedTokenizerFast(
        tokenizer_object=base, pad_token=SPECIAL[0], bos_token=SPECIAL[1], eos_token=SPECIAL[2],
        additional_special_tokens=list(SPECIAL[3:]),
    )  # fmt: skip
    images = Idefics3ImageProcessor(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 64}, do_image_splitting=False
    )
    processor = Idefics3Processor(images, words, image_seq_len=4, chat_template=TEMPLATE)
    torch.manual_seed(0)
    config = Idefics3Config(
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 64, "patch_size": 16,
        },
        text_config={
            "model_type": "llama", "vocab_size": len(words), "hidden_size": width,
            "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 4, "max_position_embeddings": 4096, "pad_token_id": 0, "bos_token_id": 1,
            "eos_token_id": 2,
        },
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )  # fmt: skip
    model = Idefics3ForConditionalGeneration(config)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 2, 0
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


def learn_by_heart(
    folder: Path,
    messages: list[dict[str, Any]],
    image: Any,
    answer: str,
    steps: int = 80,
) -> float:
    """Teach a folder's model one answer to one question about one image; returns the last loss."""
    model, processor = idefics3(folder)
    asked = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    inputs = processor(text=asked + answer + "<end_of_utterance>", images=image, return_tensors="pt")
    start = processor(text=asked, images=image, return_tensors="pt")["input_ids"].shape[1]
    labels = inputs["input_ids"].clone()
    labels[:, :start] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    model.train()
    loss = torch.zeros(())
    for _ in range(steps):
        loss = model(**inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval().save_pretrained(folder)
    return float(loss.detach())
