"""Stage 2: image trunk and heatmap head on rendered frames, asked by class labels.

The words are no part of it: a query is what the language part would believe, made from labels, so
that one rendered frame answers many questions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bridgevla_ros.core.transforms import Array
from bridgevla_ros.planner.grounding import GroundingModel, ImageFeatures
from bridgevla_ros.planner.image import HEIGHT_UNKNOWN, network_input
from bridgevla_ros.planner.vocabulary import (
    COLOUR_ANY,
    COLOUR_CLASSES,
    COLOUR_OTHER,
    THING_ANY,
    THING_CLASSES,
    THING_OTHER,
)
from bridgevla_ros.training.planner_data import MAX_OBJECTS, MIN_PIXELS, Frames

TARGET_SIGMA = 1.3
"""Cells, of the Gaussian about a target (our choice)."""

MIN_CELLS = 2
"""Fewest heatmap cells of a thing that can be asked for."""


Pairs = tuple[tuple[int, int], ...]
"""Classes of colour and thing."""


@dataclass(frozen=True)
class Query:
    """One question about a frame: class of colour and thing, and which objects answer (none: absent)."""

    colour: int
    thing: int
    answers: tuple[int, ...]


class Frame:
    """Objects of one frame and questions about them; ``banned`` (colour, thing) pairs are never asked."""

    def __init__(self, frames: Frames, index: int, banned: Pairs = ()) -> None:
        self.banned = banned
        self.owner = frames.owner[index]
        self.colours = frames.colours[index].astype(int)
        self.things = frames.things[index].astype(int)
        self.anchors = frames.anchors[index]
        cells = np.bincount(self.owner.ravel(), minlength=MAX_OBJECTS + 1)[1:]
        self.there = self.colours > 0
        self.seen = self.there & (frames.pixels[index] >= MIN_PIXELS) & (cells >= MIN_CELLS)

    def mirror(self) -> None:
        """Swap left and right."""
        self.owner = np.ascontiguousarray(self.owner[:, ::-1])
        self.anchors = np.stack([self.anchors[:, 0], self.owner.shape[1] - 1 - self.anchors[:, 1]], 1)

    def ask(self, colour: int, thing: int) -> Query | None:
        """The question, or None when its answer hides behind something or it is banned."""
        if (colour, thing) in self.banned:
            return None
        match = self.there.copy()
        if colour != COLOUR_ANY:
            match &= self.colours == colour
        if thing != THING_ANY:
            match &= self.things == thing
        if (match & ~self.seen).any():
            return None
        return Query(colour, thing, tuple(int(i) for i in np.flatnonzero(match)))

    def draw(self, rng: np.random.Generator) -> Query | None:
        """A random question: named, absent, by colour alone, by kind alone."""
        kind = rng.random()
        present = np.flatnonzero(self.seen)
        if kind < 0.05 or len(present) == 0:
            return (
                self.ask(COLOUR_OTHER, int(rng.integers(1, THING_OTHER)))
                if rng.random() < 0.5
                else self.ask(int(rng.integers(1, COLOUR_OTHER)), THING_OTHER)
            )
        i = int(rng.choice(present))
        if kind < 0.52:
            return self.ask(int(self.colours[i]), int(self.things[i]))
        if kind < 0.74:  # colour of one thing, kind of another
            return self.ask(int(self.colours[i]), int(self.things[int(rng.choice(present))]))
        if kind < 0.80:
            return self.ask(int(self.colours[i]), int(rng.integers(1, THING_OTHER)))
        if kind < 0.86:
            return self.ask(int(rng.integers(1, COLOUR_OTHER)), int(self.things[i]))
        if kind < 0.94:
            return self.ask(COLOUR_ANY, int(self.things[i]))
        return self.ask(int(self.colours[i]), THING_ANY)

    def target(self, query: Query) -> Array:
        """(cells + 1,) probability that the heatmap shall have; the last is the null cell."""
        rows, columns = self.owner.shape
        out = np.zeros(rows * columns + 1)
        if not query.answers:
            out[-1] = 1.0
            return out
        grid_rows, grid_columns = np.mgrid[:rows, :columns]
        for i in query.answers:
            mine = self.owner == i + 1
            if np.isfinite(self.anchors[i]).all():
                row, column = self.anchors[i]
                allowed = mine if mine[_clip(row, rows), _clip(column, columns)] else np.ones_like(mine)
            else:
                row, column = grid_rows[mine].mean(), grid_columns[mine].mean()
                allowed = mine
            weight = np.exp(-((grid_rows - row) ** 2 + (grid_columns - column) ** 2) / (2 * TARGET_SIGMA**2))
            weight = weight * allowed + 1e-9 * mine
            out[:-1] += (weight / weight.sum()).ravel() / len(query.answers)
        return out


def _clip(value: float, size: int) -> int:
    return int(np.clip(round(float(value)), 0, size - 1))


def belief(rng: np.random.Generator | None, queries: list[Query]) -> tuple[Tensor, Tensor]:
    """What the language part would believe: (Q, colours) and (Q, things), with a little doubt in training."""
    colours = np.eye(COLOUR_CLASSES, dtype=np.float32)[[q.colour for q in queries]]
    things = np.eye(THING_CLASSES, dtype=np.float32)[[q.thing for q in queries]]
    if rng is not None:
        for rows in (colours, things):
            doubt = rng.exponential(0.02, (len(queries), 1)).clip(0, 0.3)
            rows *= 1 - doubt
            rows += doubt * rng.dirichlet(np.full(rows.shape[1], 0.3), len(queries))
    return torch.from_numpy(colours), torch.from_numpy(things)


def augment(
    rng: np.random.Generator, rgb: NDArray[np.uint8], heights: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Other light, white balance, blur and noise; holes, an offset, or no depth at all."""
    image: NDArray[Any] = rgb.astype(np.float32)
    if rng.random() < 0.8:
        gain = rng.uniform(0.7, 1.3) * rng.uniform(0.93, 1.07, 3)
        image = 255.0 * (np.clip(image * gain / 255.0, 0, 1) ** rng.uniform(0.8, 1.25))
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.9))
    if rng.random() < 0.4:
        image = image + rng.normal(0.0, rng.uniform(1.0, 6.0), image.shape)
    heights = heights.copy()
    known = heights != HEIGHT_UNKNOWN
    if rng.random() < 0.15:
        heights[:] = HEIGHT_UNKNOWN
    elif rng.random() < 0.5:
        shifted = np.clip(heights.astype(np.int16) + int(rng.integers(-4, 5)), 0, HEIGHT_UNKNOWN - 1)
        heights = np.where(known, shifted, HEIGHT_UNKNOWN).astype(np.uint8)
    return np.clip(image, 0, 255).astype(np.uint8), heights


def dense_loss(seen: ImageFeatures, frames: list[Frame]) -> Tensor:
    """Colour and thing of every cell; background is thinned by its weight (0.15, our choice)."""
    owner = np.stack([f.owner for f in frames]).astype(int)
    lookup_colour = np.stack([np.concatenate([[0], f.colours]) for f in frames])
    lookup_thing = np.stack([np.concatenate([[0], f.things]) for f in frames])
    batch = np.arange(len(frames))[:, None, None]
    total = seen.colours.new_zeros(())
    for logits, lookup in ((seen.colours, lookup_colour), (seen.things, lookup_thing)):
        labels = torch.from_numpy(lookup[batch, owner])
        weight = torch.full((logits.shape[1],), 1.0)
        weight[0] = 0.15
        total = total + F.cross_entropy(logits, labels, weight)
    return total


def batch_loss(
    model: GroundingModel,
    frames: Frames,
    indices: NDArray[np.int64],
    questions: int,
    rng: np.random.Generator,
    banned: Pairs = (),
) -> Tensor:
    """Heatmap cross-entropy plus dense labels on one batch; some batches hold a black or noise image."""
    images, heights, items = [], [], []
    for index in indices:
        rgb, height = augment(rng, frames.rgb[index], frames.heights[index])
        item = Frame(frames, int(index), banned)
        if rng.random() < 0.5:
            rgb, height = rgb[:, ::-1], height[:, ::-1]
            item.mirror()
        if rng.random() < 0.02:  # nothing to see: every question is absent
            rgb = (
                np.zeros_like(rgb) if rng.random() < 0.5 else rng.integers(0, 256, rgb.shape).astype(np.uint8)
            )
            item.there[:] = False
            item.seen[:] = False
            item.owner = np.zeros_like(item.owner)
        images.append(rgb)
        heights.append(height)
        items.append(item)
    queries, targets, owner = [], [], []
    for i, item in enumerate(items):
        for _ in range(questions):
            query = item.draw(rng)
            if query is not None:
                queries.append(query)
                targets.append(item.target(query))
                owner.append(i)
    seen = model.trunk(torch.from_numpy(network_input(np.stack(images), np.stack(heights))))
    colours, things = belief(rng, queries)
    roles = torch.from_numpy(rng.integers(0, 2, len(queries)))
    logits = model.head(seen, colours, things, roles, torch.tensor(owner))
    target = torch.from_numpy(np.stack(targets)).float()
    heat: Tensor = -(target * logits.log_softmax(-1)).sum(-1).mean()
    return heat + 0.7 * dense_loss(seen, items)


@torch.no_grad()
def validate(
    model: GroundingModel, frames: Frames, seed: int, batch: int = 16, banned: Pairs = ()
) -> dict[str, Array]:
    """Ask every named thing, hard absent pairs and kinds alone of held-out frames; ``banned`` pairs never.

    Returns:
        ``null_present``, ``null_absent``: (n,) null probabilities of answerable and of absent questions;
        ``right``: (n,) whether the strongest cell of answerable ones lies on an answer.
    """
    model.eval()
    rng = np.random.default_rng(seed)
    null_present: list[float] = []
    null_absent: list[float] = []
    right: list[bool] = []
    for start in range(0, len(frames), batch):
        index = np.arange(start, min(start + batch, len(frames)))
        seen = model.trunk(torch.from_numpy(network_input(frames.rgb[index], frames.heights[index])))
        items = [Frame(frames, int(i), banned) for i in index]
        queries, owner = [], []
        for i, item in enumerate(items):
            for _ in range(8):
                query = item.draw(rng)
                if query is not None and len(query.answers) <= 1:
                    queries.append(query)
                    owner.append(i)
        colours, things = belief(None, queries)
        roles = torch.from_numpy(rng.integers(0, 2, len(queries)))
        probability = model.head(seen, colours, things, roles, torch.tensor(owner)).softmax(-1).numpy()
        for query, i, row in zip(queries, owner, probability, strict=True):
            if not query.answers:
                null_absent.append(float(row[-1]))
                continue
            null_present.append(float(row[-1]))
            hit = int(items[i].owner.ravel()[int(row[:-1].argmax())]) - 1
            right.append(hit in query.answers)
    return {
        "null_present": np.array(null_present),
        "null_absent": np.array(null_absent),
        "right": np.array(right, np.float64),
    }


Progress = Callable[[int, float], None]
"""Called with the step and its loss."""


def summary(result: dict[str, Array], threshold: float) -> dict[str, float]:
    """Shares right, refused though there, refused when absent, at a null threshold."""
    answered = result["null_present"] <= threshold
    return {
        "right": float((result["right"] * answered).mean()),
        "false_refusals": float((~answered).mean()),
        "absent_refused": float((result["null_absent"] > threshold).mean()),
    }


def calibrate(result: dict[str, Array]) -> float:
    """Null threshold with the best balance: least of missed absences plus false refusals."""
    candidates = np.linspace(0.05, 0.95, 91)
    cost = [(result["null_absent"] <= t).mean() + (result["null_present"] > t).mean() for t in candidates]
    best = float(np.min(cost))
    near = candidates[np.asarray(cost) <= best + 0.002]
    return float(np.median(near))
