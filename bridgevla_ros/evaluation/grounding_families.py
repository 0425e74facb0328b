"""Kinds of questions for suite ``grounding``: scenes with words whose meaning the simulator's truth decides.

Truth is where things really stand, seen from the camera's side: x away from it, y to its left. A question
is asked only where truth leaves no doubt, by the margins below; they are wider than what the planner asks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.planner.viewpoint import camera_yaw
from bridgevla_ros.simulation import tasks
from bridgevla_ros.simulation.lookalikes import with_lookalike
from bridgevla_ros.simulation.scene import ObjectSpec, SceneSpec
from bridgevla_ros.simulation.suites import randomise

MARGIN = 0.04
"""Metres by which one thing must be nearer, farther left, ... than any other."""

CONE = np.radians(40.0)
"""Within it a thing is left of another; outside 80 degrees it is not; between, nothing is asked."""

OUTSIDE = np.radians(80.0)


@dataclass(frozen=True)
class Question:
    """What is asked of a scene, and what is right.

    Attributes:
        instruction: The operator's words.
        source: Indices of the objects that may be taken first; none where it must be refused.
        place: Index of the place; -1 where none is named.
        code: Of the refusal; NONE where it must be carried out.
        candidates: Names in words that an AMBIGUOUS refusal must give.
        steps: How many steps there are.
        second: Source and place of the second step, where that is another thing.
        kind: Finer kind, for the table.
    """

    instruction: str
    source: tuple[int, ...] = ()
    place: int = -1
    code: ErrorCode = ErrorCode.NONE
    candidates: tuple[str, ...] = ()
    steps: int = 1
    second: tuple[int, int] | None = None
    kind: str = ""


Visible = tuple[int, ...]
Ask = Callable[[SceneSpec, Visible, np.random.Generator], Question | None]


def said(thing: ObjectSpec) -> str:
    """Colour and kind."""
    return f"{thing.colour} {thing.kind}"


def _onto(place: ObjectSpec) -> str:
    return f"{'on' if place.kind == 'plate' else 'in'} the {said(place)}"


def _places(scene: SceneSpec, seen: Visible) -> list[int]:
    """Places that colour and kind name."""
    names = [said(o) for o in scene.objects]
    return [i for i in seen if not scene.objects[i].movable and names.count(names[i]) == 1]


def _movable(scene: SceneSpec, seen: Visible) -> list[int]:
    return [i for i in seen if scene.objects[i].movable]


def _unique(scene: SceneSpec, i: int) -> bool:
    return [said(o) for o in scene.objects].count(said(scene.objects[i])) == 1


def _pick(rng: np.random.Generator, choices: list[int]) -> int:
    return int(choices[int(rng.integers(len(choices)))])


def ground(scene: SceneSpec) -> Array:
    """(N, 2) metres, where things stand as the camera sees it."""
    yaw = camera_yaw(scene.camera.pose)
    turn = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
    return np.asarray(np.array([o.position[:2] for o in scene.objects]) @ turn.T)


def kinds_there(scene: SceneSpec, seen: Visible) -> dict[str, list[int]]:
    """Movable things by kind, where all of a kind are seen."""
    out: dict[str, list[int]] = {}
    for i, thing in enumerate(scene.objects):
        if thing.movable:
            out.setdefault(thing.kind, []).append(i)
    return {kind: ids for kind, ids in out.items() if set(ids) <= set(seen)}


# ---- relations

_WAYS = {
    "left": ("left of", "to the left of"), "right": ("right of", "to the right of"),
    "behind": ("behind",), "front": ("in front of",),
}  # fmt: skip
_AHEAD = {"left": (0.0, 1.0), "right": (0.0, -1.0), "behind": (1.0, 0.0), "front": (-1.0, 0.0)}


def _told(scene: SceneSpec, xy: Array, among: list[int], kind: str, other: int) -> int | None:
    """The only one of ``among`` that stands so to another; None where truth leaves doubt."""
    clear = []
    for i in among:
        offset = xy[i] - xy[other]
        along = float(offset @ np.array(_AHEAD[kind]))
        angle = np.arccos(np.clip(along / max(float(np.linalg.norm(offset)), 1e-9), -1.0, 1.0))
        if angle < CONE:
            clear.append(i)
        elif angle < OUTSIDE:
            return None
    return clear[0] if len(clear) == 1 else None


def _extreme(values: Array, among: list[int]) -> int | None:
    order = sorted(among, key=lambda i: float(values[i]))
    apart = len(order) < 2 or values[order[1]] - values[order[0]] > MARGIN
    return order[0] if apart else None


def _relation(scene: SceneSpec, seen: Visible, rng: np.random.Generator) -> tuple[str, int, str, int] | None:
    """Words for a thing by where it is, which it is, the kind of relation, and what it was told by."""
    xy = ground(scene)
    groups = [ids for ids in kinds_there(scene, seen).values() if len(ids) > 1]
    if not groups:
        return None
    among = groups[int(rng.integers(len(groups)))]
    noun = scene.objects[among[0]].kind
    others = [i for i in seen if i not in among and _unique(scene, i) and scene.objects[i].kind != "drawer"]
    tries: list[tuple[str, int, str, int]] = []
    for other in others:
        name = said(scene.objects[other])
        for kind, words in _WAYS.items():
            i = _told(scene, xy, among, kind, other)
            if i is not None:
                tries.append((f"the {noun} {rng.choice(words)} the {name}", i, kind, other))
        distance = np.linalg.norm(xy - xy[other], axis=1)
        near, far = _extreme(distance, among), _extreme(-distance, among)
        if near is not None:
            tries.append((f"the {noun} nearest to the {name}", near, "nearest to", other))
            if distance[near] < 0.20:
                tries.append((f"the {noun} next to the {name}", near, "beside", other))
        if far is not None:
            tries.append((f"the {noun} farthest from the {name}", far, "farthest from", other))
        tries += _between(scene, xy, among, noun, other, others)
    if not tries:
        return None
    kinds = sorted({t[2] for t in tries})
    chosen = kinds[int(rng.integers(len(kinds)))]
    fits = [t for t in tries if t[2] == chosen]
    return fits[int(rng.integers(len(fits)))]


def _between(
    scene: SceneSpec, xy: Array, among: list[int], noun: str, a: int, others: list[int]
) -> list[tuple[str, int, str, int]]:
    out = []
    for b in others:
        way = xy[b] - xy[a]
        length = float(np.linalg.norm(way))
        if b <= a or length < 0.15:
            continue
        share = (xy - xy[a]) @ way / length**2
        off = np.abs((xy - xy[a]) @ np.array([-way[1], way[0]])) / length
        clear = [i for i in among if 0.2 < share[i] < 0.8 and off[i] < 0.2 * length]
        doubt = [i for i in among if i not in clear and 0.05 < share[i] < 0.95 and off[i] < 0.5 * length]
        if len(clear) == 1 and not doubt:
            names = f"the {said(scene.objects[a])} and the {said(scene.objects[b])}"
            out.append((f"the {noun} between {names}", clear[0], "between", b))
    return out


def relations(scene: SceneSpec, seen: Visible, rng: np.random.Generator) -> Question | None:
    """ "put the cube left of the red ball in the blue bowl"."""
    found = _relation(scene, seen, rng)
    if found is None:
        return None
    words, i, kind, _ = found
    places = _places(scene, seen)
    if not places:
        return None
    goal = _pick(rng, places)
    return Question(f"put {words} {_onto(scene.objects[goal])}", (i,), goal, kind=kind)


_RANKS: dict[str, tuple[str, ...]] = {
    "leftmost": ("leftmost {n}", "{n} on the left", "left {n}"),
    "rightmost": ("rightmost {n}", "{n} on the right", "right {n}"),
    "nearest": ("nearest {n}", "closest {n}", "{n} closest to me"),
    "farthest": ("farthest {n}", "{n} at the back"),
    "to the robot": ("{n} closest to you", "{n} nearest to the robot"),
    "biggest": ("biggest {n}", "largest {n}"),
    "smallest": ("smallest {n}", "small {n}"),
    "corner": ("{n} in the {c} corner",),
}


def ranks(scene: SceneSpec, seen: Visible, rng: np.random.Generator) -> Question | None:
    """ "put the nearest cube in the blue bowl", "the biggest ball", "the cube in the left back corner"."""
    groups = [ids for ids in kinds_there(scene, seen).values() if len(ids) > 1]
    places = _places(scene, seen)
    if not groups or not places:
        return None
    among = groups[int(rng.integers(len(groups)))]
    goal = _pick(rng, places)
    xy = ground(scene)
    volume = np.array([np.prod(o.size) for o in scene.objects])
    robot = np.linalg.norm(np.array([o.position[:2] for o in scene.objects]), axis=1)
    camera = np.linalg.norm(
        np.array([o.position[:2] for o in scene.objects]) - np.array(scene.camera.position[:2]), axis=1
    )
    middle = xy[among].mean(0)
    scale = MARGIN / np.log(1.45)  # 45% more volume is larger beyond doubt
    values = {
        "leftmost": -xy[:, 1], "rightmost": xy[:, 1], "nearest": camera, "farthest": -camera,
        "to the robot": robot, "biggest": -np.log(volume) * scale, "smallest": np.log(volume) * scale,
    }  # fmt: skip
    kind = str(rng.choice(list(_RANKS)))
    side = ""
    if kind == "corner":
        low, high = (0.25, -0.40), (0.80, 0.40)
        turned = _corners(scene, low, high)
        side, at = turned[int(rng.integers(4))]
        i = _extreme(np.linalg.norm(xy - at, axis=1), among)
    else:
        i = _extreme(values[kind], among)
    if i is None or (kind in ("leftmost", "rightmost") and not _on_side(xy[i], kind)):
        return None
    if kind == "farthest" and xy[i][0] < middle[0]:
        return None
    words = str(rng.choice(_RANKS[kind])).format(n=scene.objects[i].kind, c=side)
    return Question(f"put the {words} {_onto(scene.objects[goal])}", (i,), goal, kind=kind)


def _on_side(xy: Array, kind: str) -> bool:
    return bool(xy[1] > 0.0) if kind == "leftmost" else bool(xy[1] < 0.0)


def _corners(
    scene: SceneSpec, low: tuple[float, float], high: tuple[float, float]
) -> list[tuple[str, Array]]:
    yaw = camera_yaw(scene.camera.pose)
    turn = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
    corners = np.array([[x, y] for x in (low[0], high[0]) for y in (low[1], high[1])]) @ turn.T
    middle = corners.mean(0)
    out = []
    for corner in corners:
        depth = "back" if corner[0] > middle[0] else "front"
        out.append((f"{depth} {'left' if corner[1] > middle[1] else 'right'}", corner))
    return out


# ---- which not, how many, which of two


def negation(scene: SceneSpec, seen: Visible, rng: np.random.Generator) -> Question | None:
    """ "put the cube that is not red in the bowl", "any ball except the green one"."""
    groups = [ids for ids in kinds_there(scene, seen).values() if len(ids) > 1]
    places = _places(scene, seen)
    if not groups or not places:
        return None
    among = groups[int(rng.integers(len(groups)))]
    without = scene.objects[_pick(rng, among)].colour
    left = tuple(i for i in among if scene.objects[i].colour != without)
    noun = scene.objects[among[0]].kind
    goal = _pick(rng, places)
    onto = _onto(scene.objects[goal])
    if len(left) == 1:
        words = rng.choice(
            [
                f"put the {noun} that is not {without} {onto}",
                f"put the {noun}, not the {without} one, {onto}",
                f"put the {noun} but not the {without} one {onto}",
                f"take the non-{without} {noun} and put it {onto}",
                f"move the {noun} that isn't {without} and set it down {onto}",
            ]
        )
        return Question(str(words), left, goal, kind="one left")
    if not left:
        return None
    words = rng.choice(
        [f"put any {noun} except the {without} one {onto}", f"put a {noun} that is not {without} {onto}"]
    )
    return Question(str(words), left, goal, kind="any of the rest")


_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}


def counting(scene: SceneSpec, seen: Visible, rng: np.random.Generator) -> Question | None:
    """ "put two cubes in the box", "both", "all the balls", more than there are."""
    groups = [ids for ids in kinds_there(scene, seen).values() if len(ids) > 1]
    places = _places(scene, seen)
    if not groups or not places:
        return None
    among = groups[int(rng.integers(len(groups)))]
    noun, goal = scene.objects[among[0]].kind, _pick(rng, places)
    onto, there = _onto(scene.objects[goal]), len(among)
    kind = str(rng.choice(["two", "both", "all", "too many"]))
    if kind == "both" and there != 2:
        kind = "all"
    if kind == "too many":
        words = f"put {_NUMBERS[min(there + 1, 5)]} {noun}s {onto}"
        return Question(words, (), goal, ErrorCode.NO_TARGET, kind=kind) if there < 5 else None
    steps = {"two": 2, "both": 2, "all": there}[kind]
    quantity = {"two": "two", "both": "both", "all": str(rng.choice(["all", "all the"]))}[kind]
    return Question(f"put {quantity} {noun}s {onto}", tuple(among), goal, steps=steps, kind=kind)


def ambiguous(scene: SceneSpec, seen: Visible, rng: np.random.Generator) -> Question | None:
    """ "put the cube in the bowl" where two cubes stand."""
    places = _places(scene, seen)
    groups = [ids for ids in kinds_there(scene, seen).values() if len(ids) > 1]
    if not groups or not places:
        return None
    among = groups[int(rng.integers(len(groups)))]
    goal = _pick(rng, places)
    alike = [i for i in among if [said(scene.objects[j]) for j in among].count(said(scene.objects[i])) > 1]
    noun, kind = scene.objects[among[0]].kind, "kind alone"
    if alike:
        among = [i for i in alike if said(scene.objects[i]) == said(scene.objects[alike[0]])]
        noun, kind = said(scene.objects[among[0]]), "lookalikes"
    names = tuple(sorted(said(scene.objects[i]) for i in among))
    words = f"put the {noun} {_onto(scene.objects[goal])}"
    return Question(words, (), goal, ErrorCode.AMBIGUOUS, names, kind=kind)


def plain(scene: SceneSpec, seen: Visible, rng: np.random.Generator) -> Question | None:
    """ "put the red cube in the blue bowl"."""
    things, places = [i for i in _movable(scene, seen) if _unique(scene, i)], _places(scene, seen)
    if not things or not places:
        return None
    source, goal = _pick(rng, things), _pick(rng, places)
    return Question(f"put the {said(scene.objects[source])} {_onto(scene.objects[goal])}", (source,), goal)


def several(scene: SceneSpec, seen: Visible, rng: np.random.Generator) -> Question | None:
    """ "put the red cube in the box, then the ball on the plate", "the cube and the ball in the bowl"."""
    things, places = [i for i in _movable(scene, seen) if _unique(scene, i)], _places(scene, seen)
    if len(things) < 2 or not places:
        return None
    a, b = (int(i) for i in rng.permutation(things)[:2])
    p = _pick(rng, places)
    q = _pick(rng, [i for i in places if i != p] or [p])
    one, two = said(scene.objects[a]), said(scene.objects[b])
    first, second = _onto(scene.objects[p]), _onto(scene.objects[q])
    kind = str(rng.choice(["then", "and", "list", "place said later", "sentences"]))
    words = {
        "then": f"put the {one} {first}, then put the {two} {second}",
        "and": f"put the {one} {first} and the {two} {second}",
        "list": f"put the {one} and the {two} {second}",
        "place said later": f"put the {one} and then the {two} {second}",
        "sentences": f"Pick up the {one} and put it {first}. After that move the {two} {second}.",
    }[kind]
    if kind in ("list", "place said later"):
        p = q
    return Question(words, (a,), p, steps=2, second=(b, q), kind=kind)


# ---- scenes


def tidy(seed: int, rng: np.random.Generator) -> SceneSpec:
    """As the other suites draw them."""
    return tasks.sample_scene(seed)


def cluttered(seed: int, rng: np.random.Generator) -> SceneSpec:
    """Up to eight movable things."""
    return tasks.sample_scene(seed, objects=(1, 8))


def crowded(seed: int, rng: np.random.Generator) -> SceneSpec:
    """Five to eight movable things, in half of the scenes two that look the same."""
    scene = tasks.sample_scene(seed, objects=(5, 8))
    return (with_lookalike(scene, rng) or scene) if rng.random() < 0.5 else scene


def elsewhere(seed: int, rng: np.random.Generator) -> SceneSpec:
    """Seen by a camera that stands anywhere before the table or beside it."""
    scene = tasks.sample_scene(seed, objects=(2, 6))
    return randomise(scene, rng, physics=False, light=False, start=False)


@dataclass(frozen=True)
class Family:
    """Scenes and a kind of question, with the sentence of the table."""

    scene: Callable[[int, np.random.Generator], SceneSpec]
    ask: Ask
    about: str


FAMILIES = {
    "clutter": Family(cluttered, plain, "1 to 8 movable things, one named by colour and kind"),
    "camera": Family(elsewhere, plain, "camera anywhere before the table or beside it, 0.75 to 1.3 m away"),
    "relations": Family(
        crowded, relations, "the cube left of the red ball, between, behind, nearest to, ..."
    ),
    "ranks": Family(crowded, ranks, "the nearest, leftmost, biggest cube; the one in the back left corner"),
    "negation": Family(crowded, negation, "the cube that is not red; any ball except the green one"),
    "counting": Family(crowded, counting, "two cubes, both, all; more than there are is refused"),
    "several": Family(crowded, several, "two sub-goals in one instruction, each right in its turn"),
    "ambiguous": Family(crowded, ambiguous, "the cube, where two are: AMBIGUOUS with all candidates"),
}
"""Kinds of questions beside the wordings."""

NOT_UNDERSTOOD = (
    "smash the {o} {p}", "paint the {o} blue", "put the {o} upside down {p}", "put the {o} {p} twice",
    "put the {o} {p} unless it is heavy", "put the {o} instead of the {q} {p}", "put the {o} or the {q} {p}",
    "put the red blue cube {p}", "put the {o} {p} if the {q} is small", "do not put the {o} {p}",
    "put neither the {o} nor the {q} {p}", "weigh the {o}", "fold the {o} {p}", "put half of the {o} {p}",
    "put the fluffy {o} {p}", "put the {o} {p} in a minute and a half", "kick the {o} {p}",
    "put the other cube {p}", "swap the {o} and the {q}", "put the {o} {p} before noon",
    "squeeze the {o}", "never put the {o} {p}", "put the {o} on the ceiling", "photograph the {o} {p}",
    "put the {o} as far from the {q} as possible", "put the same thing {p} again", "put the {o} somewhere",
    "turn the {o} around", "put at most two cubes {p}", "put the {o} {p} while the {q} waits",
)  # fmt: skip
"""What the planner cannot do or check, in words: {o} and {q} are things, {p} a place."""


def not_understood(scene: SceneSpec, seen: Visible, rng: np.random.Generator) -> Question | None:
    """One of the clauses that must be refused by name."""
    things, places = _movable(scene, seen), _places(scene, seen)
    if len(things) < 2 or not places:
        return None
    a, b = (said(scene.objects[int(i)]) for i in rng.permutation(things)[:2])
    template = NOT_UNDERSTOOD[scene.seed % len(NOT_UNDERSTOOD)]
    onto = _onto(scene.objects[_pick(rng, places)])
    words = template.format(o=a, q=b, p=onto)
    return Question(words, (), -1, ErrorCode.NOT_UNDERSTOOD, kind=template)


FAMILIES["not understood"] = Family(
    crowded, not_understood, "what cannot be done or checked is refused by name"
)
