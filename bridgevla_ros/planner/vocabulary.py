"""Class indices of the planner's language and vision heads, from the lexicon."""

from __future__ import annotations

from bridgevla_ros.planner.language import COLOURS, THINGS

COLOUR_ANY = 0
COLOUR_OTHER = len(COLOURS) + 1
COLOUR_CLASSES = len(COLOURS) + 2
"""Not said; the lexicon's colours; a colour that the lexicon lacks."""

THING_ANY = 0
THING_OTHER = len(THINGS) + 1
THING_NONE = len(THINGS) + 2
THING_CLASSES = len(THINGS) + 3
"""A generic word; the lexicon's things; a thing that the lexicon lacks; the role is not filled."""

COLOUR_NAMES = ("any", *(c.name for c in COLOURS), "other")
THING_NAMES = ("thing", *(t.name for t in THINGS), "other", "none")


def label(colour: int, thing: int) -> str:
    """Words for a pair of classes, e.g. "red cube"; "thing" where no kind was said."""
    noun = THING_NAMES[thing]
    return f"{COLOUR_NAMES[colour]} {noun}" if 0 < colour < COLOUR_OTHER else noun
