"""Rows of suite ``grounding`` beside its wordings: a family of questions each, and waypoints in space."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.types import PlanRequest, RgbdFrame, WaypointKind
from bridgevla_ros.evaluation.grounding_families import FAMILIES, Question, plain, tidy
from bridgevla_ros.evaluation.report import Table
from bridgevla_ros.evaluation.stats import interval, wilson_interval
from bridgevla_ros.planner.agenda import Agenda
from bridgevla_ros.planner.answers import Anchors
from bridgevla_ros.planner.backends import Backend
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.language import normalise
from bridgevla_ros.planner.planner import Planner
from bridgevla_ros.simulation.world import World

MIN_PIXELS = 60
"""Fewest visible pixels, of 320x240, of a thing that a question speaks of."""

Report = Callable[[str, int, int], None]
"""Takes what is worked at, how much of it is done, and how much there is."""


@contextmanager
def progress_bar() -> Iterator[Report]:
    """A progress bar that is told how far work has come."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("", total=None)

        def report(name: str, done: int, total: int) -> None:
            bar.update(task, description=name, completed=done, total=total)

        yield report


def table_of(rows: dict[str, dict[str, Any]]) -> Table:
    """A line a row; rows as ``Row.as_json`` gives them."""
    lines = []
    for name, row in rows.items():
        refused = "" if name.endswith("absent") else str(sum(row["wrongly_refused"].values()))
        share, ci = f"{100 * row['rate']:.1f}%", interval(row["ci95"])
        lines.append((name, share, ci, str(row["asked"]), refused, str(row["about"])))
    return Table(("row", "right", "95% interval", "of", "wrongly refused", "what is asked"), tuple(lines))


@dataclass
class Row:
    """Counts of a family.

    Attributes:
        asked, right: Questions.
        refused: Codes of refusals that were wrong.
        kinds: Right and asked of each finer kind.
        misses: The first wrong answers.
        seconds: Of each answer.
    """

    asked: int = 0
    right: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, list[int]] = field(default_factory=dict)
    misses: list[dict[str, Any]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def count(self, question: Question, seed: int, right: bool, said: str, code: ErrorCode) -> None:
        """Add an answer: whether it is right, what it was, and the code of a refusal."""
        self.asked += 1
        self.right += right
        kind = self.kinds.setdefault(question.kind, [0, 0])
        kind[0] += right
        kind[1] += 1
        if not right:
            self.refused.update([code.name] if code != ErrorCode.NONE else [])
            self.misses.append({"seed": seed, "instruction": question.instruction, "answered": said})

    def as_json(self, about: str) -> dict[str, Any]:
        """The row."""
        return {
            "about": about,
            "right": self.right,
            "asked": self.asked,
            "rate": self.right / self.asked if self.asked else float("nan"),
            "ci95": list(wilson_interval(self.right, self.asked)),
            "wrongly_refused": dict(self.refused),
            "by_kind": self.kinds,
            "seconds_per_answer_median": round(float(np.median(self.seconds)), 4) if self.seconds else None,
            "misses": self.misses[:20],
        }


class Stage:
    """One simulated world for many scenes."""

    def __init__(self) -> None:
        self.world: World | None = None

    def show(self, scene: Any) -> tuple[World, RgbdFrame, NDArray[np.int32], tuple[int, ...]]:
        """Load a scene; its image, segmentation, and the objects that are seen well enough."""
        if self.world is None:
            self.world = World(scene=scene)
        else:
            self.world.load(scene)
        frame, segmentation = self.world.render(), self.world.render_segmentation()
        pixels = np.bincount(np.maximum(segmentation, 0).ravel(), minlength=len(scene.objects) + 1)
        least = MIN_PIXELS * segmentation.size / (320 * 240)
        seen = tuple(i for i in range(len(scene.objects)) if pixels[i + 1] >= least)
        return self.world, frame, segmentation, seen

    def close(self) -> None:
        """Free the renderer."""
        if self.world is not None:
            self.world.close()


def under(anchors: Anchors, segmentation: NDArray[np.int32]) -> list[int]:
    """Indices of the objects under the anchors; -1 for none."""
    height, width = segmentation.shape
    found = [anchors.source] if anchors.destination is None else [anchors.source, anchors.destination]
    out = []
    for anchor in found:
        u = int(np.clip(round(float(anchor.pixel[0])), 0, width - 1))
        v = int(np.clip(round(float(anchor.pixel[1])), 0, height - 1))
        out.append(int(segmentation[v, u]) - 1)
    return out


def answer(
    backend: Backend, question: Question, frame: RgbdFrame, world: World, segmentation: NDArray[np.int32]
) -> tuple[bool, str, ErrorCode]:
    """Ask; whether the answer is right, what it was, and the code of a refusal."""
    agenda, names = Agenda(strict=backend.name == "embedded"), [o.name for o in world.scene.objects]
    said = []
    try:
        goals = agenda.goals(normalise(question.instruction))
        wanted = [(question.source, question.place)]
        if question.second is not None:
            wanted.append(((question.second[0],), question.second[1]))
        right = question.code == ErrorCode.NONE
        for step, (sources, place) in enumerate(wanted):
            entry = agenda.entry("task", goals, step)
            anchors = backend.anchors(frame, world.T_base_camera, entry.words, 0)
            agenda.count("task", entry, anchors.remaining)
            found = under(anchors, segmentation)
            said.append(", ".join(names[i] if i >= 0 else "table" for i in found))
            right = right and found[0] in sources and (len(found) == 2 and found[1] == place)
        total = agenda.total("task", goals)
        return right and total == question.steps, f"{'; '.join(said)} ({total} steps)", ErrorCode.NONE
    except BridgeError as error:
        fits = error.code == question.code
        if question.candidates:
            fits = fits and tuple(sorted(error.candidates)) == question.candidates
        return fits, f"{error.code.name}: {error.message}", error.code


def run_families(backend: Backend, seed: int, episodes: int, report: Report) -> dict[str, dict[str, Any]]:
    """Ask ``episodes`` scenes of each family; rows by name."""
    stage, out = Stage(), {}
    for name, family in FAMILIES.items():
        row = Row()
        for episode in range(episodes):
            rng = np.random.default_rng([seed + episode, 0xFA, *name.encode()])
            scene = family.scene(seed + episode, rng)
            world, frame, segmentation, seen = stage.show(scene)
            question = family.ask(scene, seen, rng)
            report(name, episode + 1, episodes)
            if question is None:
                continue
            question = replace(question, kind=question.kind or name)
            begin = time.monotonic()
            right, said, code = answer(backend, question, frame, world, segmentation)
            row.seconds.append(time.monotonic() - begin)
            row.count(question, seed + episode, right, said, code)
        out[name] = row.as_json(family.about)
    stage.close()
    return out


def run_waypoints(backend: Backend, seed: int, episodes: int, report: Report) -> dict[str, Any]:
    """Plan whole: how far the contacts lie from the middle of thing and place, and what a plan costs."""
    stage, planner = Stage(), Planner(PlannerConfig(), backend, ArmModel.load())
    grips: list[float] = []
    places: list[float] = []
    wall: list[float] = []
    own: list[float] = []
    refused: Counter[str] = Counter()
    for episode in range(episodes):
        rng = np.random.default_rng([seed + episode, 0x3D])
        scene = tidy(seed + episode, rng)
        world, frame, _, seen = stage.show(scene)
        question = plain(scene, seen, rng)
        report("waypoints", episode + 1, episodes)
        if question is None:
            continue
        request = PlanRequest(frame.stamp, "task", f"r{episode}", question.instruction)
        begin, begin_own = time.monotonic(), time.process_time()
        plan = planner.plan(request, frame, world.T_base_camera, now=frame.stamp)
        wall.append(time.monotonic() - begin)
        own.append(time.process_time() - begin_own)
        if plan.code != ErrorCode.NONE:
            refused[plan.code.name] += 1
            continue
        contacts = [
            (plan.T_base_camera @ w.T_camera_tcp).translation
            for w in plan.waypoints
            if w.kind == WaypointKind.CONTACT
        ]
        thing, place = scene.objects[question.source[0]], scene.objects[question.place]
        grips.append(_off(contacts[0], world.object_pose(thing.name).translation))
        if place.kind != "drawer":  # its tray has no middle that truth names
            places.append(_off(contacts[-1], world.object_pose(place.name).translation))
    stage.close()
    return {
        "about": "metres on the ground from the contact to the middle of the thing, and of the place",
        "planned": len(grips),
        "refused": dict(refused),
        "thing_m": _spread(grips),
        "place_m": _spread(places),
        "all_m": _spread([*grips, *places]),
        "plan_s": _spread(wall),
        "plan_cpu_s": _spread(own),
    }


def _off(contact: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(contact[:2] - truth[:2]))


def _spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    return {"median": round(float(np.median(values)), 4), "p95": round(float(np.percentile(values, 95)), 4)}
