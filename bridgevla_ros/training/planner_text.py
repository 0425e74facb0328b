"""Stage 1: the language part alone, on generated phrasings with direct labels."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bridgevla_ros.planner.grounding import GroundingModel, TextBelief, TokenEncoder
from bridgevla_ros.training.planner_phrasings import Phrase, sample

Report = Callable[[str, int, int], None]
"""Called with what is under way, how much is done, and of how much."""


@dataclass(frozen=True)
class EncodedPhrases:
    """Phrases with frozen token states, padded to the longest.

    Attributes:
        tokens: (P, L, D) float16.
        mask: (P, L) bool.
        spans: (P, 2, L) bool, tokens of source and destination.
        colours, things: (P, 2) int64.
        task: (P,) float32, 1 where the arm could do it.
    """

    tokens: Tensor
    mask: Tensor
    spans: Tensor
    colours: Tensor
    things: Tensor
    task: Tensor


def encode(phrases: list[Phrase], encoder: TokenEncoder, report: Report, batch: int = 64) -> EncodedPhrases:
    """Run MiniLM over phrases."""
    order = sorted(range(len(phrases)), key=lambda i: len(phrases[i].text))
    length = 48
    tokens = torch.zeros(len(phrases), length, encoder.width, dtype=torch.float16)
    mask = torch.zeros(len(phrases), length, dtype=torch.bool)
    spans = torch.zeros(len(phrases), 2, length, dtype=torch.bool)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        states, valid, offsets = encoder([phrases[i].text for i in rows])
        n = min(length, states.shape[1])
        tokens[rows, :n] = states[:, :n].half()
        mask[rows, :n] = valid[:, :n]
        for i, ranges in zip(rows, offsets, strict=True):
            for role, span in enumerate(phrases[i].spans):
                if span is not None:
                    inside = [a >= span[0] and b <= span[1] and b > a for a, b in ranges[:n]]
                    spans[i, role, :n] = torch.tensor(inside)
        report("encoding phrases", start + len(rows), len(order))
    return EncodedPhrases(
        tokens,
        mask,
        spans,
        torch.tensor([p.colours for p in phrases]),
        torch.tensor([p.things for p in phrases]),
        torch.tensor([float(p.task) for p in phrases]),
    )


def loss(belief: TextBelief, data: EncodedPhrases, rows: Tensor) -> Tensor:
    """Labels of each role, attention on its words, and whether it is a task at all."""
    task = data.task[rows]
    colours, things = data.colours[rows], data.things[rows]
    said = (things != things.max()) & (task[:, None] > 0)  # the last class is "none"
    by_colour = F.cross_entropy(belief.colours.flatten(0, 1), colours.flatten(), reduction="none")
    by_thing = F.cross_entropy(belief.things.flatten(0, 1), things.flatten(), reduction="none")
    spans = data.spans[rows][..., : belief.attention.shape[-1]]
    inside = (belief.attention * spans).sum(-1).clamp_min(1e-4)
    told = spans.any(-1)
    terms = [
        (by_colour * said.flatten()).sum() / said.sum().clamp_min(1),
        (by_thing * (task[:, None] > 0).expand_as(things).flatten()).mean(),
        -(inside.log() * told).sum() / told.sum().clamp_min(1),
        F.binary_cross_entropy_with_logits(belief.task, task),
    ]
    return torch.stack(terms).sum()


@torch.no_grad()
def accuracy(model: GroundingModel, data: EncodedPhrases) -> dict[str, float]:
    """Share right: each role's colour and thing together, both roles, and task or not."""
    model.eval()
    right, is_task = [], []
    for start in range(0, len(data.task), 256):
        rows = torch.arange(start, min(start + 256, len(data.task)))
        belief = model.text(data.tokens[rows].float(), data.mask[rows])
        said = data.things[rows] != belief.things.shape[-1] - 1
        colour = (belief.colours.argmax(-1) == data.colours[rows]) | ~said
        right.append(colour & (belief.things.argmax(-1) == data.things[rows]))
        is_task.append((belief.task > 0) == (data.task[rows] > 0))
    roles, tasks = torch.cat(right).numpy(), torch.cat(is_task).numpy()
    asked = data.task.numpy() > 0
    return {
        "source": float(roles[asked, 0].mean()),
        "destination": float(roles[asked, 1].mean()),
        "both": float(roles[asked].all(1).mean()),
        "task": float(tasks.mean()),
        "task_accepted": float(tasks[asked].mean()),
        "other_refused": float(tasks[~asked].mean()) if (~asked).any() else float("nan"),
    }


def train(
    model: GroundingModel,
    encoder: TokenEncoder,
    *,
    phrases: int,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    report: Report,
) -> dict[str, float]:
    """Train ``model.text``; returns the accuracy on phrasings of the same families, drawn anew."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    data = encode([sample(rng) for _ in range(phrases)], encoder, report)
    check = encode([sample(rng) for _ in range(max(200, phrases // 10))], encoder, report)
    draws = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.text.parameters(), 1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    for step in range(steps):
        model.train()
        rows = torch.from_numpy(draws.integers(0, phrases, batch))
        longest = int(data.mask[rows].sum(1).max())
        belief = model.text(data.tokens[rows, :longest].float(), data.mask[rows, :longest])
        total = loss(belief, data, rows)
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.text.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            report(f"language, loss {float(total.detach()):.3f}", step, steps)
    report("language", steps, steps)
    return accuracy(model, check)
