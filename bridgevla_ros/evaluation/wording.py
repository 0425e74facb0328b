"""Instructions of the suites, in words drawn at random."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from bridgevla_ros.core import resources
from bridgevla_ros.core.config import ConfigError
from bridgevla_ros.planner.language import COLOURS, THINGS, Concept
from bridgevla_ros.simulation.scene import ObjectSpec

DEFAULT_WORDINGS = "wordings/heldout.txt"

COMMON = (
    "put {object} in {place}",
    "place {object} on {place}",
    "pick up {object} and put it into {place}",
    "move {object} to {place}",
    "drop {object} into {place}",
    "please take {object} and set it on {place}",
)
"""Ways that most people would say it; half of the instructions. The other half are held-out families."""

DETERMINERS = {"the", "a", "an", "that", "this", "my", "your", "one"}
"""Words after which no article is added."""


@lru_cache(maxsize=1)
def _heldout() -> tuple[str, ...]:
    return tuple(read_wordings(resources.find_config(DEFAULT_WORDINGS)))


def instruct(rng: np.random.Generator, source: ObjectSpec, destination: ObjectSpec) -> str:
    """Words that ask for source to be put in or on destination."""
    template = str(rng.choice(COMMON if rng.random() < 0.5 else _heldout()))
    return fill(template, words_for(source, rng, "synonyms"), words_for(destination, rng, "synonyms"))


def read_wordings(path: Path) -> list[str]:
    """Templates of a file.

    Raises:
        ConfigError: None, one without {object}, or one with another brace.
    """
    templates = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        rest = text.replace("{object}", "").replace("{place}", "")
        if "{object}" not in text or "{" in rest or "}" in rest:
            raise ConfigError(
                f"{path}:{number}: {text!r} must hold {{object}}, may hold {{place}}, and no other brace"
            )
        templates.append(text)
    if not templates:
        raise ConfigError(f"{path} holds no template")
    return templates


def fill(template: str, thing: str, place: str) -> str:
    """Put words into a template, with "the" unless a determiner stands there already."""
    text = template
    for key, words in (("{object}", thing), ("{place}", place)):
        while key in text:
            head, tail = text.split(key, 1)
            before = head.split()[-1].casefold() if head.split() else ""
            article = "" if before in DETERMINERS else "the "
            text = head + article + words + tail
    return text


def words_for(thing: ObjectSpec, rng: np.random.Generator, which: str) -> str:
    """Colour and kind of a thing in words."""
    colour = next(c for c in COLOURS if c.name == thing.colour)
    kind = next(t for t in THINGS if t.name == thing.kind)
    return f"{_word(colour, rng, which)} {_word(kind, rng, which)}"


def _word(concept: Concept, rng: np.random.Generator, which: str) -> str:
    if which == "canonical" or (which == "synonyms" and rng.random() < 0.5):
        return concept.name
    pool = concept.heldout if which == "heldout" and concept.heldout else concept.words
    return str(rng.choice(pool))
