"""Things in words: the inverse of ``phrases`` and ``clauses``, for sub-goals that are made of others."""

from __future__ import annotations

from bridgevla_ros.planner.phrases import ALL, NounPhrase, Relation
from bridgevla_ros.planner.vocabulary import THING_ANY, label

_RANK_WORDS = {
    "left": "leftmost", "right": "rightmost", "front": "front", "back": "back", "middle": "middle",
    "nearest": "nearest", "farthest": "farthest", "biggest": "biggest", "smallest": "smallest",
    "tallest": "tallest", "shortest": "shortest", "back left": "back left", "back right": "back right",
    "front left": "front left", "front right": "front right",
}  # fmt: skip
_SIZE_WORDS = {"biggest": "big", "smallest": "small", "tallest": "tall", "shortest": "short"}
_ORDINALS = {2: "second", 3: "third", 4: "fourth", 5: "fifth"}
RELATION_WORDS = {
    "left": "left of", "right": "right of", "behind": "behind", "front": "in front of", "beside": "next to",
    "nearest": "nearest to", "farthest": "farthest from", "between": "between", "in": "in",
}  # fmt: skip
_OBSERVERS = {"robot": "the robot", "camera": "the camera"}


def say(phrase: NounPhrase) -> str:
    """Words for a phrase, which ``clauses.read`` reads as the same phrase."""
    noun = label(phrase.colour, phrase.thing) if phrase.colour or phrase.thing else "thing"
    before, after = _number(phrase), ""
    if phrase.ordinal > 1:
        before += f"{_ORDINALS[phrase.ordinal]} "
        after = f" from the {phrase.rank}"
    elif phrase.rank:
        before += f"{_RANK_WORDS[phrase.rank]} "
    if phrase.size:
        before += f"{_SIZE_WORDS[phrase.size]} "
    several = phrase.count != 1 or phrase.one_of
    noun = plural(noun) if several else noun
    tails = [_excluded(other, several) for other in phrase.without]
    tails += [_relation(r, several) for r in phrase.relations]
    return before + noun + after + "".join(f" {tail}" for tail in tails)


def _number(phrase: NounPhrase) -> str:
    if phrase.one_of:
        number = f"{phrase.count} " if phrase.count != 1 else ""
        return f"one of {'the ' if phrase.exact or not number else ''}{number}"
    if phrase.count == ALL:
        return "all "
    if phrase.count == 2 and phrase.exact:
        return "both "
    if phrase.count != 1:
        return f"{'the ' if phrase.exact else ''}{phrase.count} "
    return "the " if phrase.definite else "any "


def plural(noun: str) -> str:
    """Several of them."""
    return noun + ("es" if noun.endswith("x") else "s")


def _excluded(other: NounPhrase, several: bool) -> str:
    if other.thing == THING_ANY and other.colour and not (other.relations or other.rank or other.size):
        return f"that {_be(several)} not {label(other.colour, other.thing).removesuffix(' thing')}"
    return f"but not {say(other)}"


def _be(several: bool) -> str:
    return "are" if several else "is"


def _relation(relation: Relation, several: bool) -> str:
    if relation.kind.startswith("at_corner"):
        sides = relation.kind.removeprefix("at_corner").strip()
        words = f"in the {sides + ' ' if sides else ''}corner"
    elif relation.kind.startswith("at_"):
        side = relation.kind.removeprefix("at_")
        words = {"left": "on the left", "right": "on the right", "middle": "in the middle"}.get(
            side, f"at the {side}"
        )
    else:
        names = [_OBSERVERS[r] if isinstance(r, str) else say(r) for r in relation.references]
        words = f"{RELATION_WORDS[relation.kind]} {' and '.join(names)}"
    if relation.negated:
        return f"that {_be(several)} not {words}"
    return f"that {_be(several)} in {words.removeprefix('in ')}" if relation.kind == "in" else words
