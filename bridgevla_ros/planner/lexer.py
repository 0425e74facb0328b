"""Words of a clause: tokens with their places in the text, and the lexicon's phrases among them.

The grammar of ``phrases`` and ``clauses`` reads these; its vocabulary is described in docs/language.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from bridgevla_ros.planner.language import COLOURS, GENERIC_THINGS, OTHER_COLOURS, THINGS
from bridgevla_ros.planner.vocabulary import COLOUR_OTHER, THING_ANY

_TOKEN = re.compile(r"[a-z]+(?:['\u2019][a-z]+)?|\d+", re.IGNORECASE)

NUMBERS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    **{str(n): n for n in range(1, 9)},
}  # fmt: skip
ORDINALS = {"second": 2, "third": 3, "fourth": 4, "fifth": 5, "2nd": 2, "3rd": 3}
DETERMINERS = frozenset(
    {"the", "a", "an", "that", "this", "those", "these", "my", "your", "our", "his", "her", "its"}
)
INDEFINITE = frozenset({"a", "an", "any", "some"})
FILLERS = frozenset(
    {"nice", "shiny", "bright", "plain", "lovely", "dark", "light", "coloured", "colored", "wooden", "toy"}
)
"""Adjectives that name no property that is checked: a matter of courtesy."""

RANKS = {
    "nearest": "nearest", "closest": "nearest", "nearer": "nearest", "closer": "nearest",
    "farthest": "farthest", "furthest": "farthest", "farther": "farthest", "remotest": "farthest",
    "biggest": "biggest", "largest": "biggest", "bigger": "biggest", "larger": "biggest",
    "smallest": "smallest", "tiniest": "smallest", "smaller": "smallest", "littlest": "smallest",
    "tallest": "tallest", "highest": "tallest", "taller": "tallest",
    "lowest": "shortest", "shortest": "shortest", "shorter": "shortest",
    "leftmost": "left", "rightmost": "right", "left": "left", "right": "right",
    "front": "front", "frontmost": "front", "foremost": "front",
    "back": "back", "rear": "back", "backmost": "back", "rearmost": "back", "hindmost": "back",
    "middle": "middle", "central": "middle", "centre": "middle", "center": "middle",
}  # fmt: skip
"""Adjectives that choose among things of a kind by where they are or how large."""

SIZES = {
    "big": "biggest", "large": "biggest", "huge": "biggest",
    "small": "smallest", "little": "smallest", "tiny": "smallest", "tall": "tallest", "short": "shortest",
}  # fmt: skip
"""Adjectives that choose only where there is a choice: a single cube is as small as it likes."""


@dataclass(frozen=True)
class Token:
    """A word, lower case, and its character range in the text; ``gap`` is what stands before it."""

    word: str
    start: int
    end: int
    gap: str


def tokens_of(text: str) -> tuple[Token, ...]:
    """Words and numbers in order; hyphens part words."""
    out, before = [], 0
    for match in _TOKEN.finditer(text):
        word = match[0].lower().replace("\u2019", "'")
        out.append(Token(word, match.start(), match.end(), text[before : match.start()]))
        before = match.end()
    return tuple(out)


@dataclass(frozen=True)
class Entry:
    """What a phrase of the lexicon names: ``kind`` is "colour" or "noun"."""

    kind: str
    value: int
    plural: bool = False


@lru_cache(maxsize=1)
def _lexicon() -> tuple[dict[tuple[str, ...], Entry], int]:
    table: dict[tuple[str, ...], Entry] = {}

    def add(phrase: str, entry: Entry) -> None:
        table.setdefault(tuple(phrase.casefold().replace("-", " ").split()), entry)

    for i, concept in enumerate(COLOURS, 1):
        for word in concept.words:
            add(word, Entry("colour", i))
    for word in OTHER_COLOURS:
        add(word, Entry("colour", COLOUR_OTHER))
    nouns = [(word, i) for i, concept in enumerate(THINGS, 1) for word in concept.words]
    nouns += [(word, THING_ANY) for word in GENERIC_THINGS]
    for word, i in nouns:
        add(word, Entry("noun", i))
    for word, i in nouns:
        for ending in ("s", "es"):
            add(word + ending, Entry("noun", i, plural=True))
    add("boxes", Entry("noun", _thing("box"), plural=True))
    add("chests of drawers", Entry("noun", _thing("drawer"), plural=True))
    return table, max(len(key) for key in table)


def _thing(name: str) -> int:
    return next(i for i, concept in enumerate(THINGS, 1) if concept.name == name)


def match(tokens: tuple[Token, ...], at: int, kind: str) -> tuple[Entry, int] | None:
    """The longest phrase of the lexicon of that kind from token ``at`` on, and the token after it."""
    table, longest = _lexicon()
    for end in range(min(at + longest, len(tokens)), at, -1):
        if any(t.gap.strip(" -") for t in tokens[at + 1 : end]):
            continue  # a comma or another mark parts the words
        entry = table.get(tuple(t.word for t in tokens[at:end]))
        if entry is not None and entry.kind == kind:
            return entry, end
    return None
