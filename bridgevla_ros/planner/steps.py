"""From an instruction to sub-goals, each one thing taken and perhaps put somewhere.

Lists ("the cube and the ball"), counts ("two blocks", "both"), "all", and places said once for several
things become steps of their own. Which thing comes next of "all the blocks" is seen in the fresh image of
each step, and so is how many are left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.planner import frame_words
from bridgevla_ros.planner.clauses import Clause, frame, read
from bridgevla_ros.planner.language import MAX_CLAUSES, MOVABLE_THINGS, THINGS, split_clauses, too_many
from bridgevla_ros.planner.lexer import Token, tokens_of
from bridgevla_ros.planner.parts import parts_of
from bridgevla_ros.planner.phrases import ALL, NounPhrase, Relation, not_understood
from bridgevla_ros.planner.relation_words import GOALS, PLACEABLE, RELATIONS
from bridgevla_ros.planner.saying import say


@dataclass(frozen=True)
class SubGoal:
    """One step, or as many as there are things.

    Attributes:
        words: A clause that names one thing and perhaps a place.
        every: Repeated for each thing that fits.
    """

    words: str
    every: bool = False


def sub_goals(instruction: str, *, strict: bool = True) -> tuple[SubGoal, ...]:
    """Split an instruction into steps.

    Args:
        instruction: Cleaned by ``language.normalise``.
        strict: Refuse what the grammar does not know; otherwise such a clause is one step as it stands,
            for models that read more than the grammar does.

    Raises:
        BridgeError: NOT_UNDERSTOOD, with the words.
    """
    goals: list[SubGoal] = []
    clauses = _places_said_later(_pairs(split_clauses(instruction), strict), strict)
    for words in clauses:
        try:
            goals += _expand(read(words))
        except BridgeError:
            if strict:
                raise
            goals.append(SubGoal(words))
    if len(goals) > MAX_CLAUSES:
        raise too_many(len(goals))
    return tuple(goals)


def _read(words: str, strict: bool) -> Clause | None:
    try:
        return read(words)
    except BridgeError:
        if strict:
            raise
        return None


def _pairs(clauses: tuple[str, ...], strict: bool) -> list[str]:
    """ "put A in B and C on D" is two clauses, of which the second borrows the verb."""
    out = []
    for words in clauses:
        cut = _cut(words)
        if cut is None:
            out.append(words)
        else:
            tokens = tokens_of(words)
            verb = next((t.word for t in tokens if t.word in frame_words.PUT | frame_words.CARRY), "put")
            out += [words[: cut[0]].rstrip(" ,"), f"{verb} {words[cut[1] :]}"]
    return out


def _cut(words: str) -> tuple[int, int] | None:
    """Where a second pair of thing and place begins: the end of the first, the start of the second."""
    tokens = tokens_of(words)
    try:
        parts = parts_of(tokens)
    except BridgeError:
        return None
    between = [_between(tokens, p.before) for p in parts]
    for i in range(2, len(parts) - 1):
        listed = between[i] == ("and",) or (not between[i] and "," in tokens[parts[i].first].gap)
        more = i + 2 < len(parts) and between[i + 2] in GOALS
        if listed and _leads(between[i - 1]) and _leads(between[i + 1]) and not more:
            return tokens[parts[i - 1].after - 1].end, tokens[parts[i].first].start
    return None


def _leads(words: tuple[str, ...]) -> bool:
    """Whether words before a thing tell where another goes."""
    return words in GOALS or RELATIONS.get(words) in PLACEABLE - {"between"}


def _between(tokens: tuple[Token, ...], span: tuple[int, int]) -> tuple[str, ...]:
    return tuple(t.word for t in tokens[span[0] : span[1]])


def _places_said_later(clauses: list[str], strict: bool) -> list[str]:
    """ "put the cube, then the ball in the bowl": what wants a place and has none takes the next one's."""
    out = list(clauses)
    for i in range(len(out) - 2, -1, -1):
        here, following = _read(out[i], strict), _read(out[i + 1], strict)
        if here is None or following is None or len(set(here.groups)) != 1 or len(set(following.groups)) != 2:
            continue
        place = following.things[-1]
        head = following.groups.index(following.groups[-1])
        before = following.things[head - 1]
        joining = following.text[before.end : following.things[head].start].strip(" ,")
        if frame_words.wants_place(frame(here)) and joining and place.end > 0:
            out[i] = f"{out[i].rstrip(' ,')} {joining} {following.text[following.things[head].start :]}"
    return out


def _expand(clause: Clause) -> list[SubGoal]:
    """Steps of one clause."""
    groups = list(dict.fromkeys(clause.groups))
    members = {g: [p for p, h in zip(clause.things, clause.groups, strict=True) if h == g] for g in groups}
    several = [g for g in groups if len(members[g]) > 1 or _counted(members[g][0])]
    if clause.goal:
        several = [g for g in several if g != groups[-1]]  # "between A and B" is one place
    if not several or len(groups) > 2:
        return [SubGoal(clause.text)]
    many = several[0]
    if len(several) > 1 or _is_place(members[many], members, groups, many):
        last = members[several[-1]][-1]
        raise not_understood(clause.text[last.start : last.end], "a step puts one thing in one place")
    other = members[next(g for g in groups if g != many)][0] if len(groups) == 2 else None
    if other is None:
        raise not_understood(
            clause.text[members[many][0].start : members[many][-1].end],
            "the arm holds one thing at a time; say where to put each",
        )
    out: list[SubGoal] = []
    for phrase in members[many]:
        out += [
            SubGoal(_with(clause, members[many], said), every) for said, every in _one_by_one(phrase, other)
        ]
    return out


def _counted(phrase: NounPhrase) -> bool:
    """Whether a phrase stands for several steps."""
    return phrase.count != 1 and not phrase.one_of


def _is_place(
    listed: list[NounPhrase], members: dict[int, list[NounPhrase]], groups: list[int], many: int
) -> bool:
    """Whether the list is of places, for one thing that can be taken."""
    others = [p for g in groups if g != many for p in members[g]]
    return all(_holds(p) for p in listed) and any(not _holds(p) and p.thing for p in others)


def _holds(phrase: NounPhrase) -> bool:
    return 0 < phrase.thing <= len(THINGS) and THINGS[phrase.thing - 1].name not in MOVABLE_THINGS


def _one_by_one(phrase: NounPhrase, place: NounPhrase) -> list[tuple[NounPhrase, bool]]:
    """One phrase a step: what is there already does not count again."""
    if not _counted(phrase):
        return [(phrase, False)]
    left = Relation("in", (place,), negated=True)
    one = replace(phrase, relations=(*phrase.relations, left), simple=False)
    if phrase.count == ALL:
        return [(replace(one, count=1, definite=False, plural=False), True)]
    steps = []
    for done in range(phrase.count):
        still = phrase.count - done
        last = replace(one, count=1, definite=phrase.exact, exact=False, plural=False)
        steps.append((last if still == 1 else replace(one, count=still, one_of=True), False))
    return steps


def _with(clause: Clause, listed: list[NounPhrase], phrase: NounPhrase) -> str:
    """The clause with one thing in place of a list of them."""
    start, end = listed[0].start, listed[-1].end
    said = clause.text[phrase.start : phrase.end] if phrase in listed else say(phrase)
    if said.split() and said.split()[0] in ("one", "and"):
        said = say(phrase)
    return clause.text[:start] + said + clause.text[end:]
