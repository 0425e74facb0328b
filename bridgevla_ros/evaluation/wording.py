"""Instructions of the suites, in words drawn at random."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from bridgevla_ros.core import resources
from bridgevla_ros.planner.language import COLOURS, THINGS, Concept
from bridgevla_ros.simulation.scene import ObjectSpec

COMMON = (
    "put the {object} {preposition} the {place}",
    "place the {object} {preposition} the {place}",
    "pick up the {object} and put it {preposition} the {place}",
    "move the {object} to the {place}",
    "drop the {object} into the {place}",
    "please take the {object} and set it {preposition} the {place}",
)
"""Ways that most people would say it; half of the instructions. The other half are held-out families."""

CANONICAL = 0.5
"""Probability of the plain word for a colour or a kind instead of a synonym."""


def read_templates(path: Path) -> tuple[str, ...]:
    """One template a line; empty lines and lines that begin with # are passed over.

    Raises:
        ValueError: A template lacks {object}, or has another field than {object} and {place}.
    """
    templates = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            text.format(object="", place="")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"{path}:{number}: {text!r}: only {{object}} and {{place}} are filled in"
            ) from error
        if "{object}" not in text:
            raise ValueError(f"{path}:{number}: {text!r} lacks {{object}}")
        templates.append(text)
    return tuple(templates)


@lru_cache(maxsize=1)
def _heldout() -> tuple[str, ...]:
    return read_templates(resources.find_config("wordings/heldout.txt"))


def _word(rng: np.random.Generator, concepts: tuple[Concept, ...], name: str) -> str:
    concept = next(c for c in concepts if c.name == name)
    if rng.random() < CANONICAL or len(concept.words) == 1:
        return concept.name
    return str(rng.choice(concept.words[1:]))


def instruct(rng: np.random.Generator, source: ObjectSpec, destination: ObjectSpec) -> str:
    """Words that ask for source to be put in or on destination."""
    templates = COMMON if rng.random() < 0.5 else _heldout()
    template = str(rng.choice(templates))
    return template.format(
        object=f"{_word(rng, COLOURS, source.colour)} {_word(rng, THINGS, source.kind)}",
        place=f"{_word(rng, COLOURS, destination.colour)} {_word(rng, THINGS, destination.kind)}",
        preposition="on" if destination.kind == "plate" else "in",
    )
