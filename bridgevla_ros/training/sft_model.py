"""The planner's own transformers backend as a learner: what it is asked at run time is what it is taught."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.types import RgbdFrame
from bridgevla_ros.planner.backends.transformers import TransformersBackend
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.prompt import Message
from bridgevla_ros.training.sft_examples import Example, Turn

IGNORE = -100
"""Label of a token that is not learned."""
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".safetensors.index.json", ".bin.index.json")


def check_folder(folder: Path) -> None:
    """See that a folder holds a model that can be taught, before anything is loaded.

    Raises:
        BridgeError: MODEL_ERROR: no folder, no checkpoint, an adapter, no vision part, an encoder-decoder.
    """
    if not folder.is_dir():
        raise _unfit(f"there is no checkpoint folder {folder}", "name a folder with config.json and weights")
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise _unfit(
                f"{folder} holds a LoRA adapter, not a model",
                "name the folder that `train vlm` merged it into",
            )
        raise _unfit(
            f"{folder} holds no checkpoint: there is no config.json",
            "name a folder written by save_pretrained of model and processor",
        )
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise _unfit(f"{folder}: {error}", "take a model that this version of transformers knows") from error
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING or not hasattr(config, "vision_config"):
        raise _unfit(
            f"{folder} holds a {config.model_type}, which has no vision part",
            "take a vision-language model: Qwen2.5-VL, Qwen3-VL, PaliGemma, SmolVLM, ...",
        )
    if config.is_encoder_decoder:
        raise _unfit(
            f"{folder} holds a {config.model_type}, an encoder with a decoder; only models that go on "
            "from their prompt can be fine-tuned here",
            "take Qwen2.5-VL, Qwen3-VL, PaliGemma, SmolVLM, ...",
        )
    if not any(path.suffix in (".safetensors", ".bin") for path in folder.iterdir()):
        raise _unfit(f"{folder} holds no weights (*.safetensors)", "download or copy them there as well")


def _unfit(what: str, remedy: str) -> BridgeError:
    return BridgeError(ErrorCode.MODEL_ERROR, what, remedy=remedy)


class Learner(TransformersBackend):
    """A backend whose model is being taught."""

    def __init__(self, config: PlannerConfig) -> None:
        """Raises BridgeError MODEL_ERROR as ``check_folder`` and the backend do."""
        check_folder(Path(config.weights))
        super().__init__(config)
        if self.device.type == "cpu":
            self.model.float()

    def prompt(self, messages: list[Message]) -> str:
        """What the model is given to continue."""
        return self._render(messages)

    def end(self, messages: list[Message], answer: str) -> str:
        """What the model writes after an answer: the template's end of a turn, else its end token."""
        if getattr(self.processor, "chat_template", None):
            said = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
            whole = str(self.processor.apply_chat_template([*messages, said], tokenize=False))
            before = self.prompt(messages) + answer
            if whole.startswith(before) and len(whole) > len(before):
                return whole[len(before) :]
        return str(self.processor.tokenizer.eos_token or "")

    def encode(self, turn: Turn, example: Example) -> dict[str, torch.Tensor]:
        """Tensors of one conversation: prompt and image just as at run time, then the answer's tokens.

        The prompt's tokens are not learned, the answer's and the end are.
        """
        tokenizer = self.processor.tokenizer
        prompt = self.prompt(turn.messages)
        image = Image.fromarray(example.rgb())
        inputs = dict(self.processor(text=prompt, images=image, return_tensors="pt"))
        text = turn.answer + self.end(turn.messages, turn.answer)
        answer = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"].long()
        length = inputs["input_ids"].shape[1]
        if self.model.config.model_type == "paligemma":  # looks both ways within what it does not learn
            inputs.setdefault("token_type_ids", torch.zeros_like(inputs["input_ids"]))
        labels = torch.cat([torch.full((1, length), IGNORE), answer], 1)
        for name, fill in (("attention_mask", 1), ("token_type_ids", int("paligemma" in self.name)),
                           ("mm_token_type_ids", 0)):  # fmt: skip
            if name in inputs:
                inputs[name] = torch.cat([inputs[name], torch.full_like(answer, fill)], 1)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], answer], 1)
        return inputs | {"labels": labels}

    def answer(self, messages: list[Message], example: Example) -> str:
        """What the model writes now, as the planner would hear it."""
        rgb = example.rgb()
        nowhere = np.full(rgb.shape[:2], np.nan, np.float32)
        training = self.model.training
        self.model.eval()
        try:
            return self.generate(messages, RgbdFrame(0.0, rgb, nowhere, example.intrinsics), 0)
        finally:
            self.model.train(training)


def collate(parts: Sequence[dict[str, torch.Tensor]], pad: int) -> dict[str, torch.Tensor]:
    """One batch of several conversations, padded on the right.

    Args:
        parts: From ``Learner.encode``.
        pad: Token that fills up.
    """
    longest = max(p["input_ids"].shape[1] for p in parts)
    fills = {
        "input_ids": pad,
        "labels": IGNORE,
        "attention_mask": 0,
        "token_type_ids": 0,
        "mm_token_type_ids": 0,
    }
    out = {}
    for name in parts[0]:
        tensors = [p[name] for p in parts]
        if name in fills:
            tensors = [nn.functional.pad(t, (0, longest - t.shape[1]), value=fills[name]) for t in tensors]
        out[name] = torch.cat(tensors, 0)
    return out


def targets(model: nn.Module, which: str) -> list[str]:
    """Names of the linear layers that LoRA changes; the output layer is left as it is.

    Args:
        model: The whole model.
        which: "language" or "all".
    """
    head = model.get_output_embeddings()  # type: ignore[operator]
    inside = model if which == "all" else model.get_decoder()  # type: ignore[operator]
    mine = {id(m) for m in inside.modules()}
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module) in mine and module is not head
    ]


def merge(base: Path, adapter: Path, out: Path) -> None:
    """Write a whole checkpoint: the base's weights with the adapter's added, and the base's other files.

    Args:
        base: Checkpoint folder that was fine-tuned.
        adapter: Folder of the LoRA adapter.
        out: Loads as ``base`` does.
    """
    from peft import PeftModel

    model = AutoModelForImageTextToText.from_pretrained(base, local_files_only=True)
    merged: Any = PeftModel.from_pretrained(model, adapter)
    write(merged.merge_and_unload(), base, out)


def copy(weights: Path, base: Path, out: Path) -> None:
    """Write a whole checkpoint of weights that were all trained."""
    write(AutoModelForImageTextToText.from_pretrained(weights, local_files_only=True), base, out)


def write(model: Any, base: Path, out: Path) -> None:
    """Write a model as a checkpoint folder; tokenizer, processor and template are the base's."""
    model.save_pretrained(out)
    for path in base.iterdir():
        mine = out / path.name
        if path.is_file() and not path.name.endswith(WEIGHTS) and not mine.exists():
            shutil.copy2(path, mine)


def note(folder: Path, card: dict[str, Any]) -> None:
    """Write what is told of a fine-tuning beside its result."""
    (folder / "sft.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
