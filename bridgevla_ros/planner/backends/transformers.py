"""Any local AutoModelForImageTextToText checkpoint as the planner."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    StoppingCriteria,
    StoppingCriteriaList,
)

from bridgevla_ros.core import resources
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.types import RgbdFrame
from bridgevla_ros.planner import (
    prompt,
    sight,  # noqa: F401  registers our vision tower with transformers' Auto classes
)
from bridgevla_ros.planner.backends.chat import ChatBackend
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.processors import load_processor


class TransformersBackend(ChatBackend):
    """Two turns with a checkpoint folder; nothing is downloaded."""

    def __init__(self, config: PlannerConfig) -> None:
        super().__init__(config)
        folder = Path(config.weights)
        torch.set_num_threads(config.threads)
        wanted = "set weights to a folder written by save_pretrained of model and processor"
        with resources.loading(folder, config.device, wanted):
            self.device = torch.device(config.device)
            self.processor = load_processor(folder)
            model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True)
            self.model = model.to(self.device).eval()
        self.name = f"transformers:{self.model.config.model_type}"
        self.sha256 = _hash(folder)

    @torch.inference_mode()
    def generate(self, messages: list[prompt.Message], frame: RgbdFrame, seed: int) -> str:
        """See ``ChatBackend``; greedy unless a temperature is set."""
        image = Image.fromarray(np.ascontiguousarray(frame.rgb))
        inputs = self.processor(text=self._render(messages), images=image, return_tensors="pt")
        torch.manual_seed(seed)
        sampling: dict[str, Any] = {"do_sample": False}
        if self.config.temperature > 0.0:
            sampling = {"do_sample": True, "temperature": self.config.temperature}
        watch = _Watch(self, time.monotonic() + self.config.answer_timeout)
        output = self.model.generate(
            **inputs.to(self.device),
            max_new_tokens=self.config.max_new_tokens,
            stopping_criteria=StoppingCriteriaList([watch]),
            **sampling,
        )
        watch.check()
        fresh = output[0, inputs["input_ids"].shape[1] :]
        # <loc> tokens of pointing models may be special: only padding and ends are dropped.
        special = set(self.processor.tokenizer.all_special_ids)
        kept = [
            int(t)
            for t in fresh
            if int(t) not in special or "loc" in self.processor.tokenizer.decode([int(t)])
        ]
        return str(self.processor.tokenizer.decode(kept))

    def _render(self, messages: list[prompt.Message]) -> str:
        """The conversation as the model wants it; without a chat template, its image token and the words."""
        if getattr(self.processor, "chat_template", None):
            return str(
                self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            )
        said = [part["text"] for m in messages for part in m["content"] if part["type"] == "text"]
        token = getattr(self.processor, "image_token", None) or "<image>"
        return f"{getattr(token, 'content', token)}" + "\n".join(said)


class _Watch(StoppingCriteria):
    """Counts tokens, and ends a generation that is cancelled or late."""

    def __init__(self, backend: TransformersBackend, deadline: float) -> None:
        self._backend, self._deadline = backend, deadline
        self._stopped: BridgeError | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **more: Any) -> torch.Tensor:
        try:
            self._backend._wrote()
            if time.monotonic() > self._deadline:
                limit = self._backend.config.answer_timeout
                raise BridgeError(
                    ErrorCode.TIMEOUT, "the model is still writing", value=limit, limit=limit, unit="s",
                    remedy="raise answer_timeout, or take a smaller model",
                )  # fmt: skip
        except BridgeError as error:
            self._stopped = error
        done = self._stopped is not None
        return torch.full((input_ids.shape[0],), done, dtype=torch.bool, device=input_ids.device)

    def check(self) -> None:
        """Raises what ended the generation early."""
        if self._stopped is not None:
            raise self._stopped


def _hash(folder: Path) -> str:
    """SHA-256 over the weight files, in order of their names."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
