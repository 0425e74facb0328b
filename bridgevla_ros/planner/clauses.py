"""A clause as things and what joins them: relations, exclusions, lists; and the plain words that remain.

``read`` finds the noun phrases, attaches to each what is said of where it is and what it is not, and
leaves one or two things to which the learned language part gives their roles. Words around them that the
frame vocabulary lacks, or that would change the meaning ("not", "unless", "instead of"), are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.planner import frame_words
from bridgevla_ros.planner.lexer import Token, tokens_of
from bridgevla_ros.planner.phrases import NounPhrase, Relation, not_understood, noun_phrase, with_tail
from bridgevla_ros.planner.relation_words import (
    EXCEPT,
    HELD,
    INTO,
    LISTS,
    NOTHING_SAID,
    OBSERVERS,
    OF_TABLE,
    OUT_OF,
    PLACES,
    POSTURE,
    RANKED_FROM,
    RELATIONS,
    SAYS_WHERE,
)
from bridgevla_ros.planner.vocabulary import THING_ANY

_COPULA = re.compile(
    r"(?:that|which) (?P<neg>is not|isn't|are not|aren't)"
    r"|(?:that|which) (?:is|are|stands?|lies?|sits?)|that's"
)


@dataclass(frozen=True)
class Clause:
    """What a clause says.

    Attributes:
        text: As given.
        things: One or two, in the order of the words; more only in lists.
        plain: The words with each thing said as the language part was trained on.
        spans: Character range of each thing in ``plain``.
        groups: Index of the list that each thing belongs to.
        told: Grammar alone says that the first thing goes to the second: "X ..., it ... in Y".
    """

    text: str
    things: tuple[NounPhrase, ...]
    plain: str
    spans: tuple[tuple[int, int], ...]
    groups: tuple[int, ...]
    told: bool = False

    @property
    def simple(self) -> bool:
        """Whether the words stay as they are."""
        return self.plain == self.text


def read(text: str) -> Clause:
    """Read a clause.

    Args:
        text: One clause, as ``language.split_clauses`` makes them.

    Raises:
        BridgeError: NOT_UNDERSTOOD, with the words.
    """
    tokens = tokens_of(text)
    parts = parts_of(tokens)
    parts = _attach(parts, tokens)
    _check_frame(parts, tokens)
    return _plain(text, parts, tokens)


@dataclass
class Part:
    """A noun phrase with the tokens that stand before it, since the one before; indices of tokens."""

    phrase: NounPhrase
    first: int
    after: int
    before: tuple[int, int]
    group: int = -1


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
        begin = _copula(tokens, at)[1]
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
        if _words(tokens, at, end) == tuple(said.split()) and not _marked(tokens, at, end):
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
        if _words(tokens, at, end) != words or _marked(tokens, at, end):
            continue
        if _words(tokens, end, end + 3) == OF_TABLE:
            return PLACES[words], end + 3
        if end < len(tokens) and tokens[end].word in ("of", "side", "corner"):
            continue
        return PLACES[words], end
    return None


def _corner(tokens: tuple[Token, ...], at: int) -> tuple[str, int] | None:
    said = _words(tokens, at, at + 6)
    if said[:2] in (("in", "the"), ("at", "the")) and "corner" in said:
        end = at + said.index("corner") + 1
        sides = said[2 : said.index("corner")]
        known = {"left": "left", "right": "right", "back": "back", "rear": "back", "far": "back",
                 "front": "front", "near": "front"}  # fmt: skip
        if all(side in known for side in sides) and not _marked(tokens, at, end):
            if _words(tokens, end, end + 3) == OF_TABLE:
                end += 3
            return "at_corner " + " ".join(sorted({known[s] for s in sides})), end
    return None


def _ranked(phrase: NounPhrase, tokens: tuple[Token, ...], at: int) -> tuple[NounPhrase, int] | None:
    """ "nearest to you", "farthest from the camera", "(second) from the left"."""
    if phrase.ordinal > 1 or phrase.rank == "?":
        said = _words(tokens, at, at + 3)
        if said[:2] == ("from", "the") and len(said) == 3 and said[2] in RANKED_FROM:
            rank = RANKED_FROM[said[2]]
            return with_tail(phrase, tokens[at + 2].end, rank=rank), at + 3
        return None
    for words, kind in sorted(RELATIONS.items(), key=lambda item: -len(item[0])):
        end = at + len(words)
        if kind not in ("nearest", "farthest", "behind", "front") or _words(tokens, at, end) != words:
            continue
        for observer, names in OBSERVERS.items():
            for name in sorted(names, key=len, reverse=True):
                stop = end + len(name.split())
                if _words(tokens, end, stop) == tuple(name.split()) and kind in ("nearest", "farthest"):
                    relation = Relation(kind, (observer,))
                    relations = (*phrase.relations, relation)
                    if phrase.rank in ("nearest", "farthest"):
                        phrase = replace(phrase, rank="")
                    return with_tail(phrase, tokens[stop - 1].end, relations=relations), stop
    for observer, names in OBSERVERS.items():  # "the nearest block to the robot"
        for name in names:
            stop = at + 1 + len(name.split())
            if phrase.rank in ("nearest", "farthest") and _words(tokens, at, stop) in (
                ("to", *name.split()), ("from", *name.split()),
            ):  # fmt: skip
                relation = Relation(phrase.rank, (observer,))
                return with_tail(
                    phrase, tokens[stop - 1].end, rank="", relations=(*phrase.relations, relation)
                ), stop
    return None


def _words(tokens: tuple[Token, ...], start: int, end: int) -> tuple[str, ...]:
    return tuple(t.word for t in tokens[start : min(end, len(tokens))])


def _marked(tokens: tuple[Token, ...], start: int, end: int) -> bool:
    """Whether a full stop, colon or the like stands inside or before these tokens."""
    return any(t.gap.strip(" ,()-'\"") for t in tokens[start:end])


def _copula(tokens: tuple[Token, ...], at: int) -> tuple[bool, int]:
    """ "that is (not) standing": whether negated, and the token after it; unchanged where none is there."""
    negated = False
    for length in (3, 2, 1):
        said = " ".join(_words(tokens, at, at + length))
        found = _COPULA.fullmatch(said)
        if found and len(said.split()) == length:
            negated, at = bool(found["neg"]), at + length
            break
    while at < len(tokens) and tokens[at].word in POSTURE and not _marked(tokens, at, at + 1):
        if tokens[at].word == "right" and _words(tokens, at, at + 2) == ("right", "of"):
            break
        at += 1
    return negated, at


def _attach(parts: list[Part], tokens: tuple[Token, ...]) -> list[Part]:
    """Make relations and exclusions of what stands between two things; number the lists."""
    out: list[Part] = []
    i = 0
    while i < len(parts):
        part = parts[i]
        if not out:
            part.group = 0
            out.append(part)
            i += 1
            continue
        owner = out[-1]
        used = _relate(owner, parts, i, tokens)
        if used:
            i += used
            continue
        part.group = owner.group if _listed(parts, i, tokens) else owner.group + 1
        out.append(part)
        i += 1
    return _contained(_without_names(out, tokens), tokens)


def _listed(parts: list[Part], i: int, tokens: tuple[Token, ...]) -> bool:
    """Whether part i goes on with a list: "A and B", "A, B and C", but not "on P, O goes"."""
    words = _words(tokens, *parts[i].before)
    if words in LISTS and words:
        following = _words(tokens, parts[i].after, len(tokens))
        return len(parts) > 2 or not SAYS_WHERE & set(following)
    if words or tokens[parts[i].first].gap.strip() != "," or i + 1 >= len(parts):
        return False
    return _words(tokens, *parts[i + 1].before) in LISTS or _listed(parts, i + 1, tokens)


def _without_names(parts: list[Part], tokens: tuple[Token, ...]) -> list[Part]:
    """Leave out what only renames another thing: "the red box is the container for the ball", "the one"."""
    out = list(parts)
    for part in parts:
        if len({p.group for p in out}) <= 2 or part.phrase.colour or not part.phrase.simple:
            continue
        before = tokens[part.first - 1].word if part.first else ""
        if part.phrase.thing == THING_ANY or before in ("is", "as", "be", "was"):
            out.remove(part)
    for number, group in enumerate(dict.fromkeys(p.group for p in out)):
        for part in out:
            if part.group == group:
                part.group = -1 - number
    for part in out:
        part.group = -1 - part.group
    return out


def _relate(owner: Part, parts: list[Part], i: int, tokens: tuple[Token, ...]) -> int:
    """Attach part i (and more) to what stands before it; returns how many parts that took."""
    part = parts[i]
    start, end = part.before
    negated, begin = _copula(tokens, start)
    words = _words(tokens, begin, end)
    if not negated and (words in EXCEPT or (words == ("but",) and not owner.phrase.definite)):
        without = _exclusion(owner.phrase, part.phrase)
        _extend(owner, part, without=(*owner.phrase.without, without))
        return 1
    kind = RELATIONS.get(words)
    if kind is None and _words(tokens, start, start + 1)[:1] in (("that",), ("which",), ("that's",)):
        kind = "in" if words in HELD and begin > start else None  # "that is (not) in"
        if kind is None and words == () and negated:  # "that is not the red one"
            _extend(owner, part, without=(*owner.phrase.without, _exclusion(owner.phrase, part.phrase)))
            return 1
    if kind is None and words in OUT_OF and start == begin and owner.phrase.end > 0:
        kind = "in"
    if kind is None and owner.phrase.rank in ("nearest", "farthest") and words in (("to",), ("from",)):
        kind, owner.phrase = owner.phrase.rank, replace(owner.phrase, rank="")
    if kind is None:
        return 0
    taken = 1
    references: tuple[NounPhrase, ...] = (part.phrase,)
    if kind == "between" and not (part.phrase.plural or part.phrase.count == 2):
        following = parts[i + 1] if i + 1 < len(parts) else None
        if following is None or _words(tokens, *following.before) != ("and",):
            raise not_understood("between", "it needs two things")
        taken, references = 2, (part.phrase, following.phrase)
        part = following
    for reference in references:
        if kind != "between" and (reference.count != 1 or reference.plural):
            raise not_understood(reference_words(reference, tokens), "a relation needs one thing")
    if kind == "between" and taken == 1 and part.phrase.count not in (2, -1):
        raise not_understood("between", "it needs two things")
    relation = Relation(kind, references, negated)
    owner.phrase = _innermost(owner.phrase, relation, part.phrase.end)
    owner.after = part.after
    return taken


def _innermost(phrase: NounPhrase, relation: Relation, end: int) -> NounPhrase:
    """Say it of what was named last: in "the cube left of the bowl behind the box" of the bowl."""
    last = phrase.relations[-1] if phrase.relations else None
    if last is not None and last.references and isinstance(last.references[-1], NounPhrase):
        inner = _innermost(last.references[-1], relation, end)
        changed = replace(last, references=(*last.references[:-1], inner))
        return with_tail(phrase, end, relations=(*phrase.relations[:-1], changed))
    return with_tail(phrase, end, relations=(*phrase.relations, relation))


def reference_words(phrase: NounPhrase, tokens: tuple[Token, ...]) -> str:
    """The words of a phrase as they were said."""
    return " ".join(t.word for t in tokens if phrase.start <= t.start < phrase.end)


def _exclusion(what: NounPhrase, excluded: NounPhrase) -> NounPhrase:
    if what.colour and what.colour == excluded.colour and excluded.thing in (0, what.thing):
        raise not_understood("not", "it contradicts itself")
    return excluded


def _extend(owner: Part, part: Part, **changes: object) -> None:
    owner.phrase = with_tail(owner.phrase, part.phrase.end, **changes)
    owner.after = part.after


def _contained(parts: list[Part], tokens: tuple[Token, ...]) -> list[Part]:
    """ "the cube in the box" tells which cube where another place follows, or where nothing is put."""
    i = 1
    while i < len(parts):
        groups = len({p.group for p in parts})
        words = _words(tokens, _copula(tokens, parts[i].before[0])[1], parts[i].before[1])
        lifted = len(parts) == 2 and frame_words.only_takes(_frame_of(parts, tokens))
        more = groups > 2 or lifted
        if more and words in HELD and parts[i].group != parts[i - 1].group and i < len(parts) - (not lifted):
            relation = Relation("in", (parts[i].phrase,))
            _extend(parts[i - 1], parts[i], relations=(*parts[i - 1].phrase.relations, relation))
            taken = parts.pop(i).group
            for part in parts[i:]:
                part.group -= part.group >= taken
        else:
            i += 1
    return parts


def plain(text: str) -> str:
    """The words with each thing said plainly; as they are where the grammar does not know them."""
    try:
        return read(text).plain
    except BridgeError:
        return text


def frame(clause: Clause) -> tuple[str, ...]:
    """Words of a clause that belong to no thing, in order."""
    inside = [(p.start, p.end) for p in clause.things]
    return tuple(t.word for t in tokens_of(clause.text) if not any(a <= t.start < b for a, b in inside))


def _frame_of(parts: list[Part], tokens: tuple[Token, ...]) -> tuple[str, ...]:
    """Words that belong to no thing."""
    inside = set()
    for part in parts:
        inside |= set(range(part.first, part.after))
    return tuple(t.word for i, t in enumerate(tokens) if i not in inside)


def _check_frame(parts: list[Part], tokens: tuple[Token, ...]) -> None:
    """Refuse words around the things that are not known, or that would change what is meant."""
    if not parts:
        return  # nothing named: the language part says so
    bounds = [(parts[0].first, parts[0].after)] + [(p.first, p.after) for p in parts[1:]]
    stretches, at = [], 0
    for first, after in bounds:
        stretches.append((at, first))
        at = after
    stretches.append((at, len(tokens)))
    for start, end in stretches:
        said = [t.word for t in tokens[start:end]]
        wrong = frame_words.refused(said, before_thing=end < len(tokens))
        if wrong:
            raise not_understood(wrong)
    for part in parts:
        if part.phrase.rank == "?":
            raise not_understood(reference_words(part.phrase, tokens), "say from where it is counted")


def _plain(text: str, parts: list[Part], tokens: tuple[Token, ...]) -> Clause:
    """Say each thing plainly, lists by their first thing."""
    out, spans, at = "", [], 0
    group_at: dict[int, tuple[int, int]] = {}
    for part in parts:
        start = tokens[part.first].start
        end = tokens[part.after - 1].end
        again = part.group in group_at
        if not again:
            out += text[at:start]
            said = text[start:end] if part.phrase.simple else part.phrase.words
            group_at[part.group] = (len(out), len(out) + len(said))
            out += said
        spans.append(group_at[part.group])
        at = end
    return Clause(
        text,
        tuple(p.phrase for p in parts),
        out + text[at:],
        tuple(spans),
        tuple(p.group for p in parts),
        _told(parts, tokens),
    )


def _told(parts: list[Part], tokens: tuple[Token, ...]) -> bool:
    """ "X is here, it should be in Y": the pronoun stands for X, and the preposition says where it goes."""
    heads = [p for i, p in enumerate(parts) if p.group not in {q.group for q in parts[:i]}]
    if len(heads) != 2:
        return False
    words = _words(tokens, *heads[1].before)
    said = words[words.index("it") :] if "it" in words else ()
    return said[-1:] in INTO or said[-2:] == ("be", "with")
