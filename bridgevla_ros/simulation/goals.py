"""From an operator's words to a goal that truth can be compared with, by the simulator's own lexicon.

This is the judge's reading, not the planner's: it knows the true scene, matches words deterministically
and says nothing (no goal) rather than guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bridgevla_ros.simulation.scene import MOVABLE, SceneSpec


@dataclass(frozen=True)
class Goal:
    """One thing to reach.

    Attributes:
        predicate: "placed" (source in, on or at destination), "held", "open" or "closed"; of the suites
            also "lifted", "pressed", "turned" and "uncovered" (lid off the pot).
        source: Name of the object, drawer, button, knob or lid.
        destination: Name of the place, or of the pot; empty for the others.
    """

    predicate: str
    source: str
    destination: str = ""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_COLOUR_WORDS = {
    "red": "red crimson scarlet ruby reddish vermilion carmine garnet cardinal rosso cherry",
    "green": "green emerald lime greenish jade shamrock",
    "blue": "blue navy azure sapphire bluish cobalt ultramarine cerulean",
    "yellow": "yellow golden gold lemon yellowish mustard canary saffron",
    "orange": "orange tangerine amber orangish pumpkin mandarin carrot apricot",
    "purple": "purple violet lilac plum purplish lavender mauve amethyst grape aubergine eggplant",
    "pink": "pink rose rosy pinkish salmon bubblegum",
    "white": "white ivory whitish snowy pearly alabaster chalk",
}
_NOUN_WORDS = {
    "cube": "cube block dice die brick",
    "ball": "ball sphere marble orb globe",
    "cylinder": "cylinder can tube tin drum canister column",
    "bar": "bar stick rod beam baton pole plank",
    "bowl": "bowl dish basin porringer",
    "plate": "plate saucer platter disc tray",
    "box": "box crate bin container carton chest case",
    "drawer": "drawer cabinet compartment cupboard",
    "": "thing object item one toy piece",
}
_COLOUR_OF = {word: colour for colour, words in _COLOUR_WORDS.items() for word in words.split()}
_NOUN_OF = {word: kind for kind, words in _NOUN_WORDS.items() for word in words.split()}
_PREPOSITIONS = _words("in into inside on onto to upon atop within over at")
_STOP = _PREPOSITIONS | _words(
    "the a an and then of from with put place drop set lay pick grab take move up it that which is please you"
    " off out its lift hold by near there goes"
)
_TAKING = _words("pick lift grab hold raise grasp take get fetch collect")
_ELSEWHERE = _words("out off from away beside near next left right behind front between under below")
_LINKS = _words("that which is s of in the a colour color coloured colored painted looks hue")
_CLAUSE = re.compile(
    r"(?:[.;!?]|\bthen\b|\bafter that\b|\bafterwards\b|\bnext\b|\bfinally\b"
    r"|\band\s+(?=(?:put|place|drop|move|set|lay|pick|grab|take|get|fetch|collect|open|close|shut|lift)\b))"
)


@dataclass(frozen=True)
class _Mention:
    colour: str
    kind: str
    towards: bool
    """A preposition of place stands before it."""


def parse_goal(text: str, scene: SceneSpec) -> tuple[Goal, ...]:
    """Read an instruction against the true scene.

    Returns:
        The goals, one for each clause, in order; empty where any clause is not understood or names
        something that is not there or not unique.
    """
    goals: list[Goal] = []
    carried = ""
    for clause in _CLAUSE.split(text.casefold()):
        tokens = re.findall(r"[a-z]+", clause)
        if not tokens:
            continue
        named = [(m, _resolve(m, scene)) for m in _mentions(tokens)]
        if any(not name for _, name in named):
            return ()
        pronoun = any(t in ("it", "this", "them") for t in tokens)
        goal = _goal(tokens, [(m, name) for m, name in named if name], scene, carried if pronoun else "")
        if goal is None:
            if not named:
                continue
            return ()
        if goals and goals[-1].predicate == "held" and goal.source == goals[-1].source:
            goals.pop()
        goals.append(goal)
        carried = goal.source
    return tuple(goals)


def describe(goals: tuple[Goal, ...]) -> str:
    """Goals in words."""
    return " and ".join(
        f"{g.source} at {g.destination}" if g.predicate == "placed" else f"{g.source} {g.predicate}"
        for g in goals
    )


def _goal(
    tokens: list[str], named: list[tuple[_Mention, str]], scene: SceneSpec, carried: str
) -> Goal | None:
    def movable(name: str) -> bool:
        return scene.object(name).kind in MOVABLE

    if len(named) == 1:
        mention, name = named[0]
        if carried and mention.towards and carried != name:
            return Goal("placed", carried, name)
        if scene.object(name).kind == "drawer":
            if "open" in tokens or {"pull", "out"} <= set(tokens):
                return Goal("open", name)
            if {"close", "shut", "push"} & set(tokens):
                return Goal("closed", name)
        if movable(name) and _TAKING & set(tokens):
            return Goal("held", name)
        return None
    if len(named) != 2 or named[0][1] == named[1][1] or _ELSEWHERE & set(tokens):
        return None
    (first, a), (second, b) = named
    if movable(a) != movable(b):
        return Goal("placed", a, b) if movable(a) else Goal("placed", b, a)
    if movable(a) and first.towards != second.towards:
        return Goal("placed", b, a) if first.towards else Goal("placed", a, b)
    return None


def _resolve(mention: _Mention, scene: SceneSpec) -> str:
    """The only object that fits, or an empty string."""
    fits = [
        o.name
        for o in scene.objects
        if (not mention.colour or o.colour == mention.colour) and (not mention.kind or o.kind == mention.kind)
    ]
    return fits[0] if len(fits) == 1 else ""


def _singular(token: str) -> str:
    return token[:-1] if token not in _NOUN_OF and token.endswith("s") else token


def _mentions(tokens: list[str]) -> list[_Mention]:
    """Noun phrases: colour words and unknown adjectives, then a noun; or a noun, then its colour."""
    found: list[_Mention] = []
    i = 0
    start = 0
    while i < len(tokens):
        if tokens[i] in _STOP or (_singular(tokens[i]) not in _NOUN_OF and tokens[i] not in _COLOUR_OF):
            if tokens[i] in _STOP:
                start = i + 1
            i += 1
            continue
        # A run of words that are no stop words; its last noun is the head.
        end = i
        while end < len(tokens) and tokens[end] not in _STOP:
            end += 1
        nouns = [k for k in range(start, end) if _singular(tokens[k]) in _NOUN_OF]
        if not nouns:
            i = start = end
            continue
        head = nouns[-1]
        colour = next((_COLOUR_OF[t] for t in reversed(tokens[start:head]) if t in _COLOUR_OF), "")
        end = head + 1
        if not colour:
            colour, end = _colour_after(tokens, end)
        before = start - 1
        while before >= 0 and tokens[before] in ("the", "a", "an", "of", "top"):
            before -= 1
        found.append(
            _Mention(
                colour, _NOUN_OF[_singular(tokens[head])], before >= 0 and tokens[before] in _PREPOSITIONS
            )
        )
        i = start = end
    return found


def _colour_after(tokens: list[str], i: int) -> tuple[str, int]:
    """Colour in "... that is red", "... in the colour red", or just "... coloured red"; and where it ends."""
    k = i
    while k < len(tokens) and tokens[k] in _LINKS:
        k += 1
    bare = set(tokens[i:k]) <= {"in", "the", "a", "of"}
    follows = _singular(tokens[k + 1]) if k + 1 < len(tokens) else ""
    if i < k < len(tokens) and tokens[k] in _COLOUR_OF and not (bare and follows in _NOUN_OF):
        return _COLOUR_OF[tokens[k]], k + 1
    return "", i
