"""How often the planner's language part reads both roles right, on splits of phrasing families.

``python -m bridgevla_ros.training.planner_check --weights DIR``. "validation" families are never
trained on; the others are, with phrasings drawn anew.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch

from bridgevla_ros.planner.grounding import GroundingModel, TokenEncoder
from bridgevla_ros.training import planner_families, planner_text
from bridgevla_ros.training.planner_phrasings import IMPERATIVE, STATEMENT, Phrase, of_family, sample

SPLITS = {
    "plain families": {template: template for template in (*IMPERATIVE, *STATEMENT)},
    "widened families": planner_families.TRAINING,
    "validation families": planner_families.VALIDATION,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the check."""
    parser.add_argument("--weights", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--count", type=int, default=600, help="phrasings of each split")
    parser.add_argument("--seed", type=int, default=4242, help="of the phrasings")
    parser.add_argument("--families", action="store_true", help="also each validation family")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")


def is_hard(phrase: Phrase) -> bool:
    """Both roles share their noun or their colour, so that only their place in the sentence tells."""
    return phrase.task and (
        phrase.things[0] == phrase.things[1] or 0 < phrase.colours[0] == phrase.colours[1]
    )


def check(
    model: GroundingModel, encoder: TokenEncoder, count: int, seed: int, each: bool
) -> dict[str, dict[str, float]]:
    """Accuracy of each split; with ``each``, of each validation family as well."""
    out: dict[str, dict[str, float]] = {}
    hard: list[Phrase] = []

    def measure(phrases: list[Phrase]) -> dict[str, float]:
        data = planner_text.encode(phrases, encoder, lambda *_: None)
        figures = planner_text.accuracy(model, data)
        rounded = {key: round(value, 4) for key, value in figures.items() if value == value}
        return {"count": float(len(phrases))} | rounded

    for split, families in SPLITS.items():
        rng = random.Random(f"{split} {seed}")
        drawn = [of_family(rng, families) for _ in range(count)]
        out[split] = measure([phrase for _, phrase in drawn])
        hard += [phrase for _, phrase in drawn if is_hard(phrase)]
        if each and families is planner_families.VALIDATION:
            for name in sorted(families):
                out[name] = measure([phrase for family, phrase in drawn if family == name])
    out["shared noun or colour"] = measure(hard)
    rng = random.Random(f"no task {seed}")
    others = [p for p in (sample(rng) for _ in range(5 * count)) if not p.task][: count // 2]
    refused = measure([*others, hard[0]])["other_refused"]
    out["no task"] = {"count": float(len(others)), "refused": refused}
    return out


def run(args: argparse.Namespace) -> int:
    """Print the figures as JSON; returns 0."""
    torch.set_num_threads(args.threads)
    model = GroundingModel.from_pretrained(args.weights).eval()
    result = check(model, TokenEncoder(), args.count, args.seed, args.families)
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    raise SystemExit(run(parser.parse_args()))
