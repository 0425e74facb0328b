"""Any local AutoModelForImageTextToText checkpoint as the planner."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import RgbdFrame
from bridgevla_ros.planner import conventions, parse, prompt
from bridgevla_ros.planner.backends import Anchor, Anchors, LocalWaypoint
from bridgevla_ros.planner.config import PlannerConfig


class TransformersBackend:
    """Two turns with a checkpoint folder; nothing is downloaded."""

    def __init__(self, config: PlannerConfig) -> None:
        self.config = config
        conventions.convention(config.convention)
        folder = Path(config.weights)
        if not folder.is_dir():
            raise BridgeError(ErrorCode.MODEL_ERROR, f"there is no checkpoint folder {folder}")
        torch.set_num_threads(config.threads)
        try:
            self.processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
            self.model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True).eval()
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise BridgeError(
                ErrorCode.MODEL_ERROR,
                f"{folder} could not be loaded: {error}",
                remedy="give a folder written by save_pretrained of model and processor",
            ) from error
        self.name = f"transformers:{self.model.config.model_type}"
        self.sha256 = _hash(folder)
        self._history: list[prompt.Message] = []
        self._answer = ""

    def anchors(self, frame: RgbdFrame, T_base_camera: Transform, clause: str, seed: int) -> Anchors:
        """First turn. Zero points mean NO_TARGET."""
        self._history = prompt.first_turn(clause, self.config.convention)
        self._answer = self.generate(self._history, frame, seed)
        return read_anchors(self._answer, self.config.convention, frame, clause)

    def waypoints(
        self, frame: RgbdFrame, clause: str, anchors: Anchors, depths: Array, seed: int
    ) -> list[LocalWaypoint]:
        """Second turn, in the same conversation."""
        messages = prompt.second_turn(self._history, self._answer, depths, frame.intrinsics)
        return parse.waypoints(self.generate(messages, frame, seed), len(depths))

    @torch.inference_mode()
    def generate(self, messages: list[prompt.Message], frame: RgbdFrame, seed: int) -> str:
        """The model's next answer."""
        image = Image.fromarray(np.ascontiguousarray(frame.rgb))
        text = self._render(messages)
        inputs = self.processor(text=text, images=image, return_tensors="pt")
        torch.manual_seed(seed)
        sampling = {"do_sample": False}
        if self.config.temperature > 0.0:
            sampling = {"do_sample": True, "temperature": self.config.temperature}  # type: ignore[dict-item]
        output = self.model.generate(**inputs, max_new_tokens=self.config.max_new_tokens, **sampling)
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


def read_anchors(text: str, name: str, frame: RgbdFrame, clause: str) -> Anchors:
    """Points of an answer as anchors: the first is the source, the second the destination.

    Raises:
        BridgeError: PARSE, OUT_OF_RANGE, NO_TARGET (the model says that there is nothing).
    """
    found = parse.points(text, name)
    if not found:
        raise BridgeError(
            ErrorCode.NO_TARGET,
            f"the model sees nothing to take for {clause!r}",
            remedy="name what is on the table",
        )
    if len(found) > 2:
        raise BridgeError(
            ErrorCode.AMBIGUOUS,
            f"the model wrote {len(found)} points; a thing and a place are two",
            value=float(len(found)),
            limit=2.0,
            candidates=tuple(label for _, _, label in found if label),
        )
    height, width = frame.rgb.shape[:2]
    pixels = conventions.to_pixels(np.array([p[:2] for p in found]), name, width, height)
    pixels = np.clip(pixels, 0.0, np.array([width - 1.0, height - 1.0]))
    names = [label or ("source", "destination")[i] for i, (_, _, label) in enumerate(found)]
    anchors = [Anchor(n, p, 1.0) for n, p in zip(names, pixels, strict=True)]
    return Anchors(anchors[0], anchors[1] if len(anchors) > 1 else None)


def _hash(folder: Path) -> str:
    """SHA-256 over the weight files, in order of their names."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
