"""What the small vision-language model answers to instructions that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.planner import conventions, parse
from bridgevla_ros.training.small_vlm_data import Scene
from bridgevla_ros.training.small_vlm_model import CONVENTION
from bridgevla_ros.training.small_vlm_step import Writer, pixels

MAX_TOKENS = 40
TOGETHER = 16
"""Instructions that are answered at once."""


@torch.inference_mode()
def answers(model: Any, writer: Writer, scenes: Sequence[Scene]) -> list[list[str]]:
    """What the model writes, greedily, to each lesson of each scene."""
    words, count = writer.words, writer.grid[0] * writer.grid[1]
    image, pad = int(model.config.image_token_id), int(words.pad_token_id)
    asked = [(s, lesson) for s in scenes for lesson in s.lessons]
    written: list[str] = []
    for start in range(0, len(asked), TOGETHER):
        part = asked[start : start + TOGETHER]
        rows = [words(writer.text(lesson), add_special_tokens=False)["input_ids"] for _, lesson in part]
        longest = max(map(len, rows)) + count
        tokens = torch.tensor([[pad] * (longest - count - len(r)) + [image] * count + r for r in rows])
        out = model.generate(
            input_ids=tokens,
            attention_mask=(tokens != pad).long(),
            pixel_values=pixels([s.rgb for s, _ in part]),
            max_new_tokens=MAX_TOKENS,
            do_sample=False,
        )
        written += words.batch_decode(out[:, longest:], skip_special_tokens=True)
    split, at = [], 0
    for s in scenes:
        split.append(written[at : at + len(s.lessons)])
        at += len(s.lessons)
    return split


def measure(model: Any, writer: Writer, scenes: Sequence[Scene]) -> dict[str, float]:
    """Shares: answers that can be read, both points on what was meant, absent things refused, things that are
    there refused; and the median distance in pixels of the network's input."""
    training = model.training
    model.eval()
    readable, right, absent, refused, apart = [], [], [], [], []
    for scene, texts in zip(scenes, answers(model, writer, scenes), strict=True):
        for lesson, text in zip(scene.lessons, texts, strict=True):
            found = _points(text, scene)
            readable.append(found is not None)
            if not len(lesson.targets):
                absent.append(found is not None and not len(found))
                continue
            refused.append(found is not None and not len(found))
            good = found is not None and len(found) == len(lesson.targets)
            if good and found is not None:
                apart += np.linalg.norm(found - lesson.targets, axis=1).tolist()
                good = all(_on(scene, p, o) for p, o in zip(found, lesson.objects, strict=True))
            right.append(good)
    model.train(training)
    shares = {"readable": readable, "right": right, "absent_refused": absent, "false_refusals": refused}
    out = {name: float(np.mean(values)) for name, values in shares.items() if values}
    return out | ({"pixels_median": float(np.median(apart))} if apart else {})


def _points(text: str, scene: Scene) -> Array | None:
    height, width = scene.rgb.shape[:2]
    try:
        found = parse.points(text, CONVENTION)
        written = np.array([p[:2] for p in found]).reshape(-1, 2)
        return conventions.to_pixels(written, CONVENTION, width, height)
    except BridgeError:
        return None


def _on(scene: Scene, pixel: Array, wanted: int) -> bool:
    """Whether a pixel's cell, or one next to it, belongs to the object: cells are four pixels wide."""
    column, row = np.round((pixel + 0.5) / 4 - 0.5).astype(int)
    rows, columns = scene.owner.shape
    near = scene.owner[max(0, row) : min(rows, row + 1), max(0, column) : min(columns, column + 1)]
    return bool((near == wanted).any())
