"""Suite ``grounding`` with ``--pairs``: things of named colour and kind, beside others of the same colour and
of the same kind.

Only who reads both words finds them. A checkpoint that was trained ``--without`` these pairs shows what it
makes of combinations that it never saw. The same scenes hold other pairs, treated alike, for comparison.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.evaluation.grounding_families import Question, said
from bridgevla_ros.evaluation.grounding_rows import Report, Row, Stage, answer, progress_bar, table_of
from bridgevla_ros.evaluation.rows import print_tables
from bridgevla_ros.planner.backends import Backend
from bridgevla_ros.simulation.lookalikes import with_colour
from bridgevla_ros.simulation.scene import COLOURS, MOVABLE, PLACES, SceneSpec
from bridgevla_ros.simulation.tasks import sample_scene

Pair = tuple[str, str]
"""Colour and kind."""

APART = 10_000_000
"""Between the seeds that are tried for one scene, until it holds two things of the kind."""

TRIES = 400


def pairs_of(names: list[str], weights: str) -> tuple[Pair, ...]:
    """The pairs that are named; where none is, those that the checkpoint was trained without.

    Raises:
        BridgeError: BAD_INPUT, a name that is none of the simulator's, or nothing was held out.
    """
    if not names:
        recipe = Path(weights) / "recipe.json"
        known = json.loads(recipe.read_text(encoding="utf-8")) if weights and recipe.exists() else {}
        names = known.get("vision", {}).get("without", [])
        if not names:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                "this planner was trained on all pairs",
                remedy='name some, --pairs "pink cylinder"; or --planner-weights DIR, a folder made by '
                "`bridgevla train planner --without PAIR ...`",
            )
    pairs = []
    for name in names:
        colour, _, kind = name.partition(" ")
        if colour not in COLOURS or kind not in (*MOVABLE, *PLACES[:-1]):
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"{name!r} is no pair of colour and kind",
                remedy=f"colours: {', '.join(COLOURS)}; kinds: {', '.join((*MOVABLE, *PLACES[:-1]))}",
            )
        pairs.append((colour, kind))
    return tuple(pairs)


def other_pairs(pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
    """As many pairs of the same colours and the same kinds, none of them in ``pairs``; for comparison."""
    kinds = [kind for _, kind in pairs]
    for turn in range(1, len(pairs)):
        turned = tuple((c, kinds[(i + turn) % len(pairs)]) for i, (c, _) in enumerate(pairs))
        if not set(turned) & set(pairs):
            return turned
    free = [c for c in COLOURS if c not in {colour for colour, _ in pairs}]
    return tuple((free[i % len(free)], kind) for i, kind in enumerate(kinds))


def draw(seed: int, pair: Pair, banned: tuple[Pair, ...], present: bool) -> tuple[SceneSpec, int]:
    """A scene with the pair, one other thing of its colour and one other of its kind; where it is.

    Args:
        seed: The same seed gives the same scene.
        pair: What will be asked for.
        banned: Pairs that must not stand there beside it.
        present: False leaves its colour and its kind there, on different things, and the index is -1.

    Raises:
        RuntimeError: No scene was found.
    """
    colour, kind = pair
    for attempt in range(TRIES):
        rng = np.random.default_rng([seed, attempt, 0x9A1])
        scene = sample_scene(seed + attempt * APART, objects=(3, 6), places=(2, 3))
        alike = [i for i, o in enumerate(scene.objects) if o.kind == kind]
        others = [i for i, o in enumerate(scene.objects) if o.kind != kind and o.movable]
        if len(alike) < 2 or not others:
            continue
        target, twin = (int(i) for i in rng.permutation(alike)[:2])
        changes = {int(rng.choice(others)): colour}
        if present:
            changes[target] = colour
        for i in (target, twin):
            if i not in changes and scene.objects[i].colour == colour:
                changes[i] = str(rng.choice([c for c in COLOURS if c != colour]))
        try:
            for i, new in changes.items():
                scene = with_colour(scene, i, new) if scene.objects[i].colour != new else scene
        except ValueError:  # there would be two of the same look
            continue
        looks = [(o.colour, o.kind) for o in scene.objects]
        if looks.count(pair) == int(present) and not set(looks) & (set(banned) - {pair}):
            return replace(scene, seed=seed), target if present else -1
    raise RuntimeError(f"no scene with a {colour} {kind} among its like (seed {seed})")


def question(scene: SceneSpec, pair: Pair, target: int, seen: tuple[int, ...], seed: int) -> Question | None:
    """Put it somewhere, or something into it; None where one of the two is hardly seen."""
    rng = np.random.default_rng([seed, 0x9A2])
    colour, kind = pair
    names, is_place = [said(o) for o in scene.objects], kind in PLACES
    fitting = [
        i for i in seen if scene.objects[i].movable == is_place and i != target and names.count(names[i]) == 1
    ]
    if not fitting or (target >= 0 and target not in seen):
        return None
    other = int(rng.choice(fitting))
    source, place = (other, target) if is_place else (target, other)
    thing, goal = (names[other], f"{colour} {kind}") if is_place else (f"{colour} {kind}", names[other])
    words = f"put the {thing} {'on' if goal.endswith('plate') else 'in'} the {goal}"
    code = ErrorCode.NONE if target >= 0 else ErrorCode.NO_TARGET
    return Question(words, (source,) if source >= 0 else (), place, code, kind=f"{colour} {kind}")


def run_pairs(
    backend: Backend, pairs: tuple[Pair, ...], seed: int, episodes: int, report: Report
) -> dict[str, Any]:
    """Ask for the pairs, there and not there (half as often), and for others of the same colours and kinds.

    Returns:
        Rows ``asked``, ``asked_absent``, ``others``, ``others_absent`` as of the families.
    """
    stage, others = Stage(), other_pairs(pairs)
    out: dict[str, Any] = {}
    for name, chosen, present, about in (
        ("asked", pairs, True, "these pairs, beside one of the same colour and one of the same kind"),
        ("asked_absent", pairs, False, "these pairs, not there: colour and kind are, on different things"),
        ("others", others, True, "other pairs of these colours and kinds, in the same way"),
        ("others_absent", others, False, "other pairs, not there"),
    ):
        row = Row()
        count = episodes if present else (episodes + 1) // 2
        for episode in range(count):
            pair = chosen[episode % len(chosen)]
            banned = pairs if chosen is others else ()
            scene, target = draw(seed + episode, pair, banned, present)
            world, frame, segmentation, seen = stage.show(scene)
            asked = question(scene, pair, target, seen, seed + episode)
            report(name, episode + 1, count)
            if asked is not None:
                right, words, code = answer(backend, asked, frame, world, segmentation)
                row.count(asked, seed + episode, right, words, code)
        out[name] = {"pairs": [" ".join(p) for p in chosen]} | row.as_json(about)
    stage.close()
    return out


def run(backend: Backend, pairs: tuple[Pair, ...], seed: int, episodes: int) -> dict[str, Any]:
    """``run_pairs`` with a progress bar and its table."""
    with progress_bar() as report:
        rows = run_pairs(backend, pairs, seed, episodes, report)
    print_tables([table_of(rows)])
    return {
        "suite": "grounding",
        "planner": backend.name,
        "model_sha256": backend.sha256,
        "seeds": [seed, seed + episodes - 1],
        "rows": rows,
    }
