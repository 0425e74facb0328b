"""From what the words say of a thing to one candidate in the image, or a refusal that says why."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.planner import relations
from bridgevla_ros.planner.answers import AlreadyDone
from bridgevla_ros.planner.candidates import HOLDING, MOVABLE, Candidate, Found, Measured, Query, View
from bridgevla_ros.planner.phrases import ALL, NounPhrase, Relation
from bridgevla_ros.planner.relations import Ground
from bridgevla_ros.planner.saying import plural
from bridgevla_ros.planner.vocabulary import COLOUR_ANY, THING_ANY, THING_NAMES, label

SAME = 24.0
"""Pixels, at 640 of width, within which two candidates are one."""

EVERY_KIND = [(COLOUR_ANY, kind, 0 if kind in MOVABLE else 1) for kind in (*MOVABLE, *HOLDING)]
"""Questions for whatever is there, one a kind: colour, kind, role."""


@dataclass(frozen=True, eq=False)
class Setting:
    """What choosing depends on beside words and image.

    Attributes:
        null_threshold: Probability of "not there" that refuses.
        ambiguity: Share of the strongest candidate's mass that makes a rival.
        viewer_yaw: rad, heading of the viewer's look on the ground, base frame.
        viewer: (2,) metres, where the viewer stands, base frame; ``robot`` and ``camera`` alike.
        corners: (4, 2) metres, of the workspace, base frame.
    """

    null_threshold: float
    ambiguity: float
    viewer_yaw: float
    viewer: Array
    robot: Array
    camera: Array
    corners: Array


@dataclass(frozen=True, eq=False)
class Choice:
    """The thing that is meant.

    Attributes:
        candidate: It.
        null: Probability that nothing of the kind is there.
        others: What fitted the words as well.
    """

    candidate: Candidate
    null: float
    others: tuple[Candidate, ...]

    @property
    def remaining(self) -> int:
        """How many things fitted the words, itself among them."""
        return 1 + len(self.others)


class Resolver:
    """Chooses among candidates; one serves one clause and one view."""

    def __init__(self, view: View, setting: Setting) -> None:
        self.view, self.setting = view, setting
        self._turn = relations.viewer_frame(setting.viewer_yaw)
        self._answers: dict[tuple[int, int, int], Found] = {}

    def prepare(self, asked: list[tuple[NounPhrase, Query]]) -> list[Found]:
        """Ask for all things of a clause at once, references among them."""
        queries = [query for _, query in asked]
        keys = [key for phrase, _ in asked for key in self._nested(phrase)]
        keys = [key for key in dict.fromkeys(keys) if key not in self._answers]
        found = self.view.ask([*queries, *(Query.of(*key) for key in keys)])
        self._answers |= dict(zip(keys, found[len(queries) :], strict=True))
        return found[: len(queries)]

    def _nested(self, phrase: NounPhrase) -> list[tuple[int, int, int]]:
        """Questions about what a phrase refers to, and about what stands for "everything"."""
        keys = []
        for other in [p for r in phrase.relations for p in r.references if isinstance(p, NounPhrase)]:
            keys += [*_keys(other), *self._nested(other)]
        for other in phrase.without:
            if not _bare(other):
                other = _as_kind_of(other, phrase)
                keys += [*_keys(other), *self._nested(other)]
        if phrase.colour == COLOUR_ANY and phrase.thing == THING_ANY:
            keys += _keys(phrase)
        return keys

    def choose(self, phrase: NounPhrase, found: Found, words: str, role: int) -> Choice:
        """One candidate for a phrase.

        Args:
            phrase: What is said of it.
            found: Answer to its query.
            words: What was asked for, for a refusal.
            role: 0 source, 1 destination.

        Raises:
            BridgeError: NO_TARGET, AMBIGUOUS; DEPTH_HOLE where a relation cannot be measured.
        """
        if phrase.colour == COLOUR_ANY and phrase.thing == THING_ANY:
            found = self._anything(phrase, role)
        if found.null > self.setting.null_threshold:
            found = self.view.confirmed(Query.of(phrase.colour, phrase.thing, role), found)
        if found.null > self.setting.null_threshold:
            seen = [name for name in self._seen() if name != words]  # what is doubted is not offered
            there = f" ({', '.join(seen)})" if seen else ""
            raise BridgeError(
                ErrorCode.NO_TARGET,
                f"nothing to be seen is a {words}"
                if phrase.thing == THING_ANY
                else f"there is no {words} to be seen",
                value=found.null,
                limit=self.setting.null_threshold,
                remedy=f"name something that is on the table{there}, or move what hides it",
            )
        fitting = self._fitting(phrase, list(found.candidates), words)
        self._count(phrase, fitting, words)
        return Choice(fitting[0], found.null, tuple(fitting[1:]))

    def left_over(self, phrase: NounPhrase, found: Found, goal: NounPhrase, place: Found) -> Choice:
        """What is left of several things where none, or too few, stand outside their place.

        Args:
            phrase: One of several things, "that is not in" their place (``steps.sub_goals``).
            found: Answer to its query.
            goal: Their place.
            place: Answer to its query.

        Returns:
            A thing whose middle is in the place, but which does not lie there.

        Raises:
            AlreadyDone: As many as are asked for lie there.
            BridgeError: As ``choose``.
        """
        words = label(phrase.colour, phrase.thing)
        into = self.choose(goal, place, label(goal.colour, goal.thing), 1).candidate
        several = replace(phrase, definite=False, exact=False)
        rest = replace(several, relations=phrase.relations[:-1], count=1)
        there = self.choose(rest, found, words, 0)
        among = [there.candidate, *there.others]
        self._count(several, among, words)
        inside = self.view.lying(among, into)
        out = [c for c in among if c not in inside]
        if len(out) >= phrase.count:
            return Choice(out[0], there.null, tuple(out[1:]))
        lying, preposition = len(inside), "on" if THING_NAMES[goal.thing] == "plate" else "in"
        who = f"the {words} is" if len(among) == 1 else f"all {lying} {plural(words)} are"
        if out:
            who = f"{lying} of {len(among)} {plural(words)} {'is' if lying == 1 else 'are'}"
        raise AlreadyDone(f"{who} already {preposition} {goal.words}")

    def _fitting(self, phrase: NounPhrase, among: list[Candidate], words: str) -> list[Candidate]:
        """Those that are what the words say, one after the other condition."""
        for excluded in phrase.without:
            among = self._but(among, excluded, phrase)
            self._some(among, words, "none but what is excluded")
        for relation in phrase.relations:
            among = self._related(among, relation)
            self._some(among, words, f"none stands as is said ({relation.kind.replace('_', ' ')})")
        if phrase.rank and among:
            among = self._ranked(phrase, among)
            self._some(among, words, f"there are fewer than {phrase.ordinal}")
        elif phrase.size and len(among) > 1:
            among = self._by(among, phrase.size, 1)
        return among

    def _some(self, among: list[Candidate], words: str, why: str) -> None:
        if not among:
            raise BridgeError(
                ErrorCode.NO_TARGET,
                f"there is a {words}, but {why}",
                value=0.0,
                limit=1.0,
                remedy="look at the picture and say what is there",
            )

    def _count(self, phrase: NounPhrase, fitting: list[Candidate], words: str) -> None:
        """Compare how many fit with how many are meant."""
        count, there = phrase.count, len(fitting)
        if count not in (1, ALL) and there < count:
            raise BridgeError(
                ErrorCode.NO_TARGET,
                f"{count} of {words!r} are asked for; {there} can be seen",
                value=float(there),
                limit=float(count),
                remedy="ask for as many as there are",
            )
        several = (phrase.definite and there > 1) or (phrase.exact and there > count > 1)
        if several:
            names = tuple(c.label for c in fitting)
            raise BridgeError(
                ErrorCode.AMBIGUOUS,
                f"{words!r} could be any of {there} things: {', '.join(names)}",
                value=fitting[1].mass / fitting[0].mass,
                limit=self.setting.ambiguity,
                remedy="say which by colour, kind or where it is",
                candidates=names,
            )

    def _but(self, among: list[Candidate], excluded: NounPhrase, owner: NounPhrase) -> list[Candidate]:
        """Without what a phrase names."""
        if _bare(excluded):
            query = Query.of(excluded.colour, excluded.thing, 0)
            return [c for c in among if self.view.agreement(query, c) < 0.5]
        excluded = _as_kind_of(excluded, owner)
        found = self._answers[_keys(excluded)[0]]
        out = self._fitting(excluded, list(found.candidates), label(excluded.colour, excluded.thing))
        limit = SAME * self.view.frame.rgb.shape[1] / 640.0
        return [c for c in among if all(np.linalg.norm(c.pixel - o.pixel) > limit for o in out)]

    def _seen(self) -> list[str]:
        """What the eyes find of each kind, in words."""
        found = self.view.ask([Query.of(*key) for key in EVERY_KIND])
        there = [f for f in found if f.null <= self.setting.null_threshold]
        return sorted({candidate.label for f in there for candidate in f.candidates})

    def _anything(self, phrase: NounPhrase, role: int) -> Found:
        """Whatever can be taken, or holds things."""
        found = [self._answers[key] for key in _keys(phrase) if (key[1] in MOVABLE) == (role == 0)]
        there = [f for f in found if f.null <= self.setting.null_threshold]
        limit = SAME * self.view.frame.rgb.shape[1] / 640.0
        kept: list[Candidate] = []
        for one in sorted((c for f in there for c in f.candidates), key=lambda c: -c.mass):
            if all(np.linalg.norm(one.pixel - other.pixel) > limit for other in kept):
                kept.append(one)  # two kinds may claim one thing
        return Found(tuple(kept), min(f.null for f in found))

    # ---- where things are

    def _ground(self, among: list[Candidate]) -> Ground:
        measured = [self.view.measure(c) for c in among]
        xy = np.array([m.center for m in measured]).reshape(-1, 2) @ self._turn.T
        values = np.array([(m.radius, m.size, m.height) for m in measured]).reshape(-1, 3)
        return Ground(xy, values[:, 0], values[:, 1], values[:, 2])

    def _corners(self) -> Array:
        return np.asarray(self.setting.corners @ self._turn.T)

    def _by(self, among: list[Candidate], rank: str, ordinal: int) -> list[Candidate]:
        things = self._ground(among)
        values, margin = relations.order(things, rank, self._turn @ self.setting.viewer, self._corners())
        chosen = relations.pick(values, range(len(among)), ordinal, margin)
        return [among[i] for i in chosen]

    def _ranked(self, phrase: NounPhrase, among: list[Candidate]) -> list[Candidate]:
        return self._by(among, phrase.rank, phrase.ordinal)

    def _related(self, among: list[Candidate], relation: Relation) -> list[Candidate]:
        kept = self._holding(among, relation)
        if relation.negated:
            return [c for i, c in enumerate(among) if i not in kept]
        return [among[i] for i in kept]

    def _holding(self, among: list[Candidate], relation: Relation) -> list[int]:
        """Indices of those for which a relation holds."""
        things, kind = self._ground(among), relation.kind
        if kind.startswith("at_"):
            return self._at(things, kind[3:])
        points = [self._point(reference) for reference in relation.references]
        xy = [self._turn @ p.center for p in points]
        everything = list(range(len(among)))
        if kind == "between":
            if len(points) == 1:
                xy, points = self._pair(relation)
            return relations.between(things, xy[0], xy[1])
        others = [i for i in everything if np.linalg.norm(things.xy[i] - xy[0]) > APART_SELF]
        if kind in ("nearest", "farthest"):
            distance = relations.nearest(things, xy[0]) * (1.0 if kind == "nearest" else -1.0)
            return relations.pick(distance, others, 1, relations.APART)
        if kind == "in":
            return relations.inside(things, xy[0], points[0].radius)
        if kind == "beside":
            kept = relations.beside(things, xy[0], points[0].radius)
        else:
            kept = relations.beyond(things, kind, xy[0])
        return [i for i in kept if i in others]

    def _at(self, things: Ground, where: str) -> list[int]:
        rank = where if where.startswith("corner") else where.replace("_", " ")
        corners = self._corners()
        among = relations.on_side(things, range(len(things.xy)), rank, corners)
        if not among:
            return []
        values, margin = relations.order(things, rank, self._turn @ self.setting.viewer, corners)
        return relations.pick(values, among, 1, 2 * margin)

    def _point(self, reference: NounPhrase | str) -> Measured:
        if isinstance(reference, str):
            at = self.setting.robot if reference == "robot" else self.setting.camera
            return Measured(at, 0.0, 0.0, 0.0)
        if reference.count == 2:
            return Measured(np.zeros(2), 0.0, 0.0, 0.0)  # a pair: see ``_pair``
        found = self._answers[_keys(reference)[0]]
        words = label(reference.colour, reference.thing)
        role = 0 if reference.thing in MOVABLE else 1
        return self.view.measure(self.choose(reference, found, words, role).candidate)

    def _pair(self, relation: Relation) -> tuple[list[Array], list[Measured]]:
        """ "between the two bowls": the two that there are."""
        reference = relation.references[0]
        assert isinstance(reference, NounPhrase)
        found = self._answers[_keys(reference)[0]]
        words = label(reference.colour, reference.thing)
        two = list(found.candidates)
        if found.null > self.setting.null_threshold or len(two) != 2:
            raise BridgeError(
                ErrorCode.NO_TARGET if len(two) < 2 else ErrorCode.AMBIGUOUS,
                f"two of {words!r} are asked for; {len(two)} can be seen",
                value=float(len(two)),
                limit=2.0,
                remedy="name both by colour and kind",
            )
        points = [self.view.measure(c) for c in two]
        return [self._turn @ p.center for p in points], points


APART_SELF = 0.02
"""Metres within which a candidate is its own reference."""


def _bare(phrase: NounPhrase) -> bool:
    """Said by colour and kind alone."""
    return not (phrase.relations or phrase.rank or phrase.without or phrase.size)


def _as_kind_of(phrase: NounPhrase, owner: NounPhrase) -> NounPhrase:
    """ "the one on the left" is a cube where cubes are spoken of."""
    thing = owner.thing if phrase.thing == THING_ANY else phrase.thing
    return replace(phrase, thing=thing, colour=phrase.colour or owner.colour)


def _keys(phrase: NounPhrase) -> list[tuple[int, int, int]]:
    """Questions for a phrase: one, or one a kind where no colour and no kind is said."""
    if phrase.colour == COLOUR_ANY and phrase.thing == THING_ANY:
        return EVERY_KIND
    return [(phrase.colour, phrase.thing, 0 if phrase.thing in (*MOVABLE, THING_ANY) else 1)]
