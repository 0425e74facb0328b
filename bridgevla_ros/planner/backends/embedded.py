"""The embedded planner: role queries on MiniLM tokens steer a heatmap with a null cell."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModel

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import RgbdFrame
from bridgevla_ros.planner.backends import Anchor, Anchors, LocalWaypoint
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.eyes import Eyes
from bridgevla_ros.planner.grounding import STRIDE, GroundingModel, ImageFeatures, TextBelief, TokenEncoder
from bridgevla_ros.planner.language import (
    COLOURS,
    MOVABLE_THINGS,
    OTHER_COLOURS,
    THINGS,
    known_words,
    names,
    strange_modifier,
)
from bridgevla_ros.planner.vocabulary import (
    COLOUR_ANY,
    COLOUR_OTHER,
    THING_ANY,
    THING_NONE,
    THING_OTHER,
    label,
)

SHIPPED = Path(__file__).resolve().parents[2] / "weights" / "planner"

CLUSTER = 3
"""Cells about a peak that belong to it."""

DARK = 6.0
"""Brightest 1% of an image below this (0..255) is no image."""


class EmbeddedBackend:
    """Loads ``GroundingModel`` and MiniLM; one instance serves one thread."""

    name = "embedded"

    def __init__(self, config: PlannerConfig) -> None:
        self.config = config
        folder = Path(config.weights) if config.weights else SHIPPED
        file = folder / "model.safetensors"
        if not file.exists():
            raise BridgeError(
                ErrorCode.MODEL_ERROR,
                f"no weights of the embedded planner in {folder}",
                remedy="bridgevla train planner, or set the parameter weights",
            )
        torch.set_num_threads(config.threads)
        model = AutoModel.from_pretrained(folder, local_files_only=True)
        if not isinstance(model, GroundingModel):
            raise BridgeError(
                ErrorCode.MODEL_ERROR, f"{folder} holds a {type(model).__name__}, not a GroundingModel"
            )
        self.model = model.eval()
        self.eyes = Eyes(self.model, TokenEncoder())
        self.sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        self.threshold = config.null_threshold or float(model.config.null_threshold)

    @torch.inference_mode()
    def anchors(self, frame: RgbdFrame, T_base_camera: Transform, clause: str, seed: int) -> Anchors:
        """Ground both roles of a clause. The seed is not used: nothing is sampled."""
        belief, offsets = self.eyes.read(clause)
        self._understood(clause, belief, offsets)
        if float(np.percentile(frame.rgb, 99)) < DARK:
            raise BridgeError(
                ErrorCode.NO_TARGET,
                "the camera image is black: nothing can be seen",
                value=float(np.percentile(frame.rgb, 99)),
                limit=DARK,
                remedy="check the light and the camera",
            )
        seen = self.eyes.look(frame, T_base_camera)
        colours, things = belief.colours[0].softmax(-1), belief.things[0].softmax(-1)
        has_place = int(things[1].argmax()) != THING_NONE
        roles = torch.arange(2 if has_place else 1)
        logits = self.model.head(seen, colours[roles], things[roles], roles, torch.zeros_like(roles))
        found: list[Anchor] = []
        nulls: list[float] = []
        for role in range(len(roles)):
            words = label(int(colours[role].argmax()), int(things[role].argmax()))
            anchor, null = self._peak(frame, seen, logits[role], role, int(things[role].argmax()), words)
            found.append(anchor)
            nulls.append(null)
        if has_place and float(np.linalg.norm(found[0].pixel - found[1].pixel)) < 0.01 * frame.rgb.shape[1]:
            raise BridgeError(
                ErrorCode.NOT_UNDERSTOOD,
                f"{found[0].label!r} and {found[1].label!r} are the same thing in the image",
                remedy="name what to take and where to put it",
            )
        return Anchors(found[0], found[1] if has_place else None, max(nulls))

    def waypoints(
        self, frame: RgbdFrame, clause: str, anchors: Anchors, depths: Array, seed: int
    ) -> list[LocalWaypoint]:
        """The embedded model has no second turn."""
        raise BridgeError(
            ErrorCode.MODEL_ERROR,
            "the embedded planner predicts anchors only",
            remedy="set waypoint_source to geometry",
        )

    def _understood(self, clause: str, belief: TextBelief, offsets: list[tuple[int, int]]) -> None:
        """Refuse what is no task, and words that are not known."""
        colours, things = belief.colours[0].argmax(-1).tolist(), belief.things[0].argmax(-1).tolist()
        task = float(torch.sigmoid(belief.task[0]))
        if task < 0.5 or things[0] == THING_NONE or (colours[0] == COLOUR_ANY and things[0] == THING_ANY):
            raise BridgeError(
                ErrorCode.NOT_UNDERSTOOD,
                f"{_short(clause)!r} names nothing that the arm could take",
                value=task,
                limit=0.5,
                remedy=f'say for example "put the red cube in the blue bowl"; known {known_words()}',
            )
        for role in range(2):
            words = _attended(clause, belief.attention[0, role], offsets)
            if things[role] == THING_OTHER:
                raise _unknown(words)
            if things[role] == THING_NONE:
                continue
            for classes, chosen in ((COLOURS, colours[role]), (THINGS, things[role])):
                if 0 < chosen <= len(classes) and not names(clause, classes[chosen - 1]):
                    raise _unknown(words)  # believed, but no word of the lexicon says so
            known_thing = 0 < things[role] <= len(THINGS)
            if colours[role] == COLOUR_ANY and known_thing:
                strange = strange_modifier(clause, THINGS[things[role] - 1])
                if strange:
                    raise _unknown(strange)
            if colours[role] == COLOUR_OTHER:
                if not any(word in words.casefold() for word in OTHER_COLOURS):
                    raise _unknown(words)
                raise BridgeError(
                    ErrorCode.NO_TARGET,
                    f"nothing here is known to be {words!r}",
                    remedy=f"known {known_words()}",
                )

    def _peak(
        self, frame: RgbdFrame, seen: ImageFeatures, logits: Tensor, role: int, thing: int, words: str
    ) -> tuple[Anchor, float]:
        """The strongest peak of one role's heatmap; refuses absence and rivals."""
        probability = logits.softmax(-1).numpy()
        null = float(probability[-1])
        if null > self.threshold:
            raise BridgeError(
                ErrorCode.NO_TARGET,
                f"there is no {words} to be seen"
                if thing != THING_ANY
                else f"nothing to be seen is a {words}",
                value=null,
                limit=self.threshold,
                remedy="name something that is on the table, or move what hides it",
            )
        rows, columns = seen.colours.shape[-2:]
        heat = probability[:-1].reshape(rows, columns)
        kinds = seen.things[0].softmax(0).numpy()
        if thing == THING_ANY:  # "the red one": what can be taken, or what holds things
            movable = [i + 1 for i, t in enumerate(THINGS) if (t.name in MOVABLE_THINGS) == (role == 0)]
            heat = heat * (kinds[movable].sum(0) + 1e-3)
        heat = heat / max(float(heat.sum()), 1e-12)
        peaks = _clusters(heat)
        rivals = [p for p in peaks[1:] if p[2] > self.config.ambiguity * peaks[0][2]]
        if rivals:
            tints = seen.colours[0].softmax(0).numpy()
            named = tuple(_name(tints, kinds, p) for p in [peaks[0], *rivals])
            raise BridgeError(
                ErrorCode.AMBIGUOUS,
                f"{words!r} could be any of {len(named)} things: {', '.join(named)}",
                value=rivals[0][2] / peaks[0][2],
                limit=self.config.ambiguity,
                remedy="say which by its colour and kind",
                candidates=named,
            )
        row, column, mass = peaks[0]
        size = self.model.config
        u = (column + 0.5) * STRIDE * frame.rgb.shape[1] / size.image_width - 0.5
        v = (row + 0.5) * STRIDE * frame.rgb.shape[0] / size.image_height - 0.5
        return Anchor(words, np.array([u, v]), float(min(1.0, mass * (1.0 - null)))), null


def _clusters(heat: Array) -> list[tuple[float, float, float]]:
    """Peaks of a normalised heatmap as (row, column, mass), heaviest first; at most 4."""
    left = heat.copy()
    peaks = []
    for _ in range(4):
        row, column = np.unravel_index(int(left.argmax()), left.shape)
        window = (
            slice(max(row - CLUSTER, 0), row + CLUSTER + 1),
            slice(max(column - CLUSTER, 0), column + CLUSTER + 1),
        )
        part = left[window]
        mass = float(part.sum())
        if mass < 1e-3:
            break
        near = (slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2))
        weight = left[near]
        grid = np.mgrid[near]
        peaks.append(
            (
                float((grid[0] * weight).sum() / weight.sum()),
                float((grid[1] * weight).sum() / weight.sum()),
                mass,
            )
        )
        left[window] = 0.0
    return sorted(peaks, key=lambda p: -p[2])


def _name(colours: Array, things: Array, peak: tuple[float, float, float]) -> str:
    row, column = round(peak[0]), round(peak[1])
    return label(int(colours[1:-1, row, column].argmax()) + 1, int(things[1:-2, row, column].argmax()) + 1)


def _attended(clause: str, attention: Tensor, offsets: list[tuple[int, int]]) -> str:
    """The words that a role query looks at."""
    spans = [
        span
        for share, span in zip(attention.tolist(), offsets, strict=False)
        if share > 0.08 and span[1] > span[0]
    ]
    if not spans:
        return _short(clause)
    start, end = min(a for a, _ in spans), max(b for _, b in spans)
    while start > 0 and clause[start - 1].isalnum():
        start -= 1
    while end < len(clause) and clause[end].isalnum():
        end += 1
    return clause[start:end]


def _unknown(words: str) -> BridgeError:
    return BridgeError(
        ErrorCode.NOT_UNDERSTOOD, f"the planner does not know {words!r}", remedy=f"known {known_words()}"
    )


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
