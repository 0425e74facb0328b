"""The things of a clause from left to right, each with what is said of where in the scene it stands."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from bridgevla_ros.planner.lexer import Token
from bridgevla_ros.planner.phrases import NounPhrase, Relation, noun_phrase, with_tail
from bridgevla_ros.planner.relation_words import (
    NOTHING_SAID,
    OBSERVERS,
    OF_TABLE,
    PLACES,
    POSTURE,
    RANKED_FROM,
    RELATIONS,
)

_COPULA = re.compile(
    r"(?:that|which) (?P<neg>is not|isn't|are not|aren't)"
    r"|(?:that|which) (?:is|are|stands?|lies?|sits?)|that's"
)


@dataclass
class Part:
    """A noun phrase with the tokens that stand before it, since the one before; indices of tokens."""

    phrase: NounPhrase
    first: int
    after: int
    before: tuple[int, int]
    group: int = -1
    goal: str = ""


def parts_of(tokens: tuple[Token, ...]) -> list[Part]:
    """Noun phrases from left to right, each with the places that are said of it."""
    parts: list[Part] = []
    at = before = 0
    while at < len(tokens):
        found = noun_phrase(tokens, at)
        if found is None:
            at += 1
            continue
        phrase, after = found
        phrase, after = _places(phrase, tokens, after)
        parts.append(Part(phrase, at, after, (before, at)))
        at = before = after
    return parts


def _places(phrase: NounPhrase, tokens: tuple[Token, ...], at: int) -> tuple[NounPhrase, int]:
    """Tails without another thing: "on the left", "in the corner", "nearest to you", "from the left"."""
    while at < len(tokens):
        after = _nothing_said(tokens, at)
        if after:
            at = after  # kept in the plain words: the language part knows these
            phrase = replace(phrase, end=tokens[at - 1].end)
            continue
        begin = copula(tokens, at)[1]
        place = _place(tokens, begin)
        if place is not None:
            kind, at = place
            phrase = with_tail(phrase, tokens[at - 1].end, relations=(*phrase.relations, Relation(kind)))
            continue
        ranked = _ranked(phrase, tokens, begin)
        if ranked is None:
            return phrase, at
        phrase, at = ranked
    return phrase, at


def _nothing_said(tokens: tuple[Token, ...], at: int) -> int:
    for said in sorted(NOTHING_SAID, key=len, reverse=True):
        end = at + len(said.split())
        if words_of(tokens, at, end) == tuple(said.split()) and not _marked(tokens, at, end):
            follows = tokens[end].word if end < len(tokens) else ""
            if follows not in ("of", "to") and (said not in ("there", "here") or follows != "is"):
                return end
    return 0


def _place(tokens: tuple[Token, ...], at: int) -> tuple[str, int] | None:
    """A place of the scene and the token after it; corners with their side."""
    corner = _corner(tokens, at)
    if corner is not None:
        return corner
    for words in sorted(PLACES, key=len, reverse=True):
        end = at + len(words)
        if words_of(tokens, at, end) != words or _marked(tokens, at, end):
            continue
        if words_of(tokens, end, end + 3) == OF_TABLE:
            return PLACES[words], end + 3
        if end < len(tokens) and tokens[end].word in ("of", "side", "corner"):
            continue
        return PLACES[words], end
    return None


def _corner(tokens: tuple[Token, ...], at: int) -> tuple[str, int] | None:
    said = words_of(tokens, at, at + 6)
    if said[:2] in (("in", "the"), ("at", "the")) and "corner" in said:
        end = at + said.index("corner") + 1
        sides = said[2 : said.index("corner")]
        known = {"left": "left", "right": "right", "back": "back", "rear": "back", "far": "back",
                 "front": "front", "near": "front"}  # fmt: skip
        if all(side in known for side in sides) and not _marked(tokens, at, end):
            if words_of(tokens, end, end + 3) == OF_TABLE:
                end += 3
            return "at_corner " + " ".join(sorted({known[s] for s in sides})), end
    return None


def _ranked(phrase: NounPhrase, tokens: tuple[Token, ...], at: int) -> tuple[NounPhrase, int] | None:
    """ "nearest to you", "farthest from the camera", "(second) from the left"."""
    if phrase.ordinal > 1 or phrase.rank == "?":
        said = words_of(tokens, at, at + 3)
        if said[:2] == ("from", "the") and len(said) == 3 and said[2] in RANKED_FROM:
            rank = RANKED_FROM[said[2]]
            return with_tail(phrase, tokens[at + 2].end, rank=rank), at + 3
        return None
    for words, kind in sorted(RELATIONS.items(), key=lambda item: -len(item[0])):
        end = at + len(words)
        if kind not in ("nearest", "farthest", "behind", "front") or words_of(tokens, at, end) != words:
            continue
        for observer, names in OBSERVERS.items():
            for name in sorted(names, key=len, reverse=True):
                stop = end + len(name.split())
                if words_of(tokens, end, stop) == tuple(name.split()) and kind in ("nearest", "farthest"):
                    relation = Relation(kind, (observer,))
                    relations = (*phrase.relations, relation)
                    if phrase.rank in ("nearest", "farthest"):
                        phrase = replace(phrase, rank="")
                    return with_tail(phrase, tokens[stop - 1].end, relations=relations), stop
    for observer, names in OBSERVERS.items():  # "the nearest block to the robot"
        for name in names:
            stop = at + 1 + len(name.split())
            if phrase.rank in ("nearest", "farthest") and words_of(tokens, at, stop) in (
                ("to", *name.split()), ("from", *name.split()),
            ):  # fmt: skip
                relation = Relation(phrase.rank, (observer,))
                return with_tail(
                    phrase, tokens[stop - 1].end, rank="", relations=(*phrase.relations, relation)
                ), stop
    return None


def words_of(tokens: tuple[Token, ...], start: int, end: int) -> tuple[str, ...]:
    """Words of the tokens from ``start`` up to ``end``, fewer where there are no more."""
    return tuple(t.word for t in tokens[start : min(end, len(tokens))])


def _marked(tokens: tuple[Token, ...], start: int, end: int) -> bool:
    """Whether a full stop, colon or the like stands inside or before these tokens."""
    return any(t.gap.strip(" ,()-'\"") for t in tokens[start:end])


def copula(tokens: tuple[Token, ...], at: int) -> tuple[bool, int]:
    """ "that is (not) standing": whether negated, and the token after it; unchanged where none is there."""
    negated = False
    for length in (3, 2, 1):
        said = " ".join(words_of(tokens, at, at + length))
        found = _COPULA.fullmatch(said)
        if found and len(said.split()) == length:
            negated, at = bool(found["neg"]), at + length
            break
    while at < len(tokens) and tokens[at].word in POSTURE and not _marked(tokens, at, at + 1):
        if tokens[at].word == "right" and words_of(tokens, at, at + 2) == ("right", "of"):
            break
        at += 1
    return negated, at
