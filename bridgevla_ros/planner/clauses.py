"""A clause as things and what joins them: relations, exclusions, lists; and the plain words that remain.

``read`` finds the noun phrases, attaches to each what is said of where it is and what it is not, and
leaves one or two things to which the learned language part gives their roles. Words around them that the
frame vocabulary lacks, or that would change the meaning ("not", "unless", "instead of"), are refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.planner import frame_words
from bridgevla_ros.planner.lexer import Token, tokens_of
from bridgevla_ros.planner.parts import Part, copula, parts_of, words_of
from bridgevla_ros.planner.phrases import ALL, NounPhrase, Relation, not_understood, with_tail
from bridgevla_ros.planner.relation_words import (
    ADVERBS,
    EXCEPT,
    HELD,
    INTO,
    LISTS,
    NO_PLACES,
    OUT_OF,
    PLACEABLE,
    RELATIONS,
    SAYS_WHERE,
)
from bridgevla_ros.planner.vocabulary import THING_ANY


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
        goal: How the first goes to the second: of ``PLACEABLE``; empty: in or on it.
    """

    text: str
    things: tuple[NounPhrase, ...]
    plain: str
    spans: tuple[tuple[int, int], ...]
    groups: tuple[int, ...]
    told: bool = False
    goal: str = ""

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
        used = _told_beside(out, parts, i, tokens)
        if used:
            out += parts[i : i + used]
            i += used
            continue
        used = _relate(owner, parts, i, tokens)
        if used:
            i += used
            continue
        part.group = owner.group if _listed(parts, i, tokens) else owner.group + 1
        out.append(part)
        i += 1
    return _contained(_without_names(out, tokens), tokens)


def _told_beside(out: list[Part], parts: list[Part], i: int, tokens: tuple[Token, ...]) -> int:
    """Read "put A next to B": B tells where A goes. Returns how many parts that took, 0 where it is not said.

    "put A next to B in C" and "take A next to B" tell which A is meant instead.
    """
    part = parts[i]
    kind, begin = _leading(tokens, part.before)
    if not kind or any(p.group != 0 for p in out):
        return 0
    prefix = words_of(tokens, part.before[0], begin)
    taken = 2 if kind == "between" and not _pair(part.phrase) else 1
    told = frame_words.acts(prefix)
    if not told:
        verbs = words_of(tokens, *out[0].before)
        place = _place_follows(parts[min(i + taken, len(parts)) - 1 :], tokens)
        told = set(prefix) <= ADVERBS and frame_words.wants_place(verbs) and not place
    if not told:
        return 0
    told_by = _told_by(kind, parts, i, tokens)
    if any(p.phrase.count == ALL or (p.phrase.count != 1 and not p.phrase.one_of) for p in out):
        raise not_understood(reference_words(part.phrase, tokens), "one thing at a time goes next to another")
    for reference in told_by:
        reference.group, reference.goal = out[-1].group + 1, kind
    for second in told_by[1:]:
        second.before = (second.first, second.first)
    part.before = (part.before[0], begin)
    return len(told_by)


def _leading(tokens: tuple[Token, ...], span: tuple[int, int]) -> tuple[str, int]:
    """The relation that the last words of a stretch say, and its first token; empty where they say none."""
    for begin in range(*span):
        kind = RELATIONS.get(words_of(tokens, begin, span[1]), "")
        if kind in PLACEABLE:
            return kind, begin
    return "", span[1]


def _place_follows(parts: list[Part], tokens: tuple[Token, ...]) -> bool:
    """Whether the things from here on, or a pronoun behind them, tell of a place: "in C", "into it"."""
    said = words_of(tokens, parts[-1].after, len(tokens))
    joined = any(words_of(tokens, *p.before) not in RELATIONS for p in parts[1:])
    return joined or any((word,) in INTO for word in said)


def _listed(parts: list[Part], i: int, tokens: tuple[Token, ...]) -> bool:
    """Whether part i goes on with a list: "A and B", "A, B and C", but not "on P, O goes"."""
    words = words_of(tokens, *parts[i].before)
    if words in LISTS and words:
        following = words_of(tokens, parts[i].after, len(tokens))
        return len(parts) > 2 or not SAYS_WHERE & set(following)
    if words or tokens[parts[i].first].gap.strip() != "," or i + 1 >= len(parts):
        return False
    return words_of(tokens, *parts[i + 1].before) in LISTS or _listed(parts, i + 1, tokens)


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
    negated, begin = copula(tokens, start)
    words = words_of(tokens, begin, end)
    if not negated and (words in EXCEPT or (words == ("but",) and not owner.phrase.definite)):
        without = _exclusion(owner.phrase, part.phrase)
        _extend(owner, part, without=(*owner.phrase.without, without))
        return 1
    kind = RELATIONS.get(words)
    if kind is None and words_of(tokens, start, start + 1)[:1] in (("that",), ("which",), ("that's",)):
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
    told_by = _told_by(kind, parts, i, tokens)
    relation = Relation(kind, tuple(p.phrase for p in told_by), negated)
    owner.phrase = _innermost(owner.phrase, relation, told_by[-1].phrase.end)
    owner.after = told_by[-1].after
    return len(told_by)


def _pair(phrase: NounPhrase) -> bool:
    """Whether "between" needs no second phrase: "the two bowls", "the boxes"."""
    return phrase.plural or phrase.count == 2


def _told_by(kind: str, parts: list[Part], i: int, tokens: tuple[Token, ...]) -> list[Part]:
    """What a relation refers to, from part i on: two things for "between A and B", else one part.

    Raises:
        BridgeError: NOT_UNDERSTOOD: more things or fewer than the relation needs.
    """
    phrase = parts[i].phrase
    if kind != "between":
        if phrase.count != 1 or phrase.plural:
            raise not_understood(reference_words(phrase, tokens), "a relation needs one thing")
        return [parts[i]]
    if _pair(phrase):
        if phrase.count not in (2, ALL):
            raise not_understood("between", "it needs two things")
        return [parts[i]]
    if i + 1 >= len(parts) or words_of(tokens, *parts[i + 1].before) != ("and",):
        raise not_understood("between", "it needs two things")
    return parts[i : i + 2]


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
        words = words_of(tokens, copula(tokens, parts[i].before[0])[1], parts[i].before[1])
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
    at = 0
    for part in parts:
        _check_stretch(tokens, at, part.before[1] if part.goal else part.first, before_thing=True)
        at = part.after
    _check_stretch(tokens, at, len(tokens), before_thing=False)
    for part in parts:
        if part.phrase.rank == "?":
            raise not_understood(reference_words(part.phrase, tokens), "say from where it is counted")


def _check_stretch(tokens: tuple[Token, ...], start: int, end: int, *, before_thing: bool) -> None:
    """Refuse words between two things, or around them."""
    said = words_of(tokens, start, end)
    wrong = frame_words.refused(list(said), before_thing=before_thing)
    if wrong:
        raise not_understood(wrong)
    tails = [said[k:] for k in range(len(said))] if before_thing else []
    nowhere = [t for t in tails if t in NO_PLACES or t in RELATIONS]
    if nowhere:
        raise not_understood(" ".join(nowhere[0]), "it does not say of what, or where to let go")


def _plain(text: str, parts: list[Part], tokens: tuple[Token, ...]) -> Clause:
    """Say each thing plainly, lists by their first thing."""
    out, spans, at = "", [], 0
    group_at: dict[int, tuple[int, int]] = {}
    for part in parts:
        start = tokens[part.first].start
        end = tokens[part.after - 1].end
        again = part.group in group_at
        if not again:
            until = tokens[part.before[1]].start if part.goal else start
            out += text[at:until] + ("in " if part.goal else "")
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
        next((p.goal for p in parts if p.goal), ""),
    )


def _told(parts: list[Part], tokens: tuple[Token, ...]) -> bool:
    """ "X is here, it should be in Y": the pronoun stands for X, and the preposition says where it goes."""
    heads = [p for i, p in enumerate(parts) if p.group not in {q.group for q in parts[:i]}]
    if len(heads) != 2:
        return False
    if heads[1].goal:
        return True
    words = words_of(tokens, *heads[1].before)
    said = words[words.index("it") :] if "it" in words else ()
    return said[-1:] in INTO or said[-2:] == ("be", "with")
