"""Suite ``grounding``: does each anchor lie on the thing that was named?

Truth is the simulator's segmentation. First the wordings, with absent things and swapped roles beside them,
then a row for each family of ``grounding_families`` and for places that are not empty or beside things, whole
plans in space, and steps that are done or not.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bridgevla_ros.core import resources
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.types import RgbdFrame
from bridgevla_ros.evaluation import plots, rows
from bridgevla_ros.evaluation.grounding_done import run_done
from bridgevla_ros.evaluation.grounding_pairs import pairs_of
from bridgevla_ros.evaluation.grounding_pairs import run as run_pairs
from bridgevla_ros.evaluation.grounding_places import run_places
from bridgevla_ros.evaluation.grounding_rows import progress_bar, run_families, run_waypoints, table_of
from bridgevla_ros.evaluation.options import write_json
from bridgevla_ros.evaluation.report import Plot, Report, Section, Table, write
from bridgevla_ros.evaluation.stats import interval, percent, wilson_interval
from bridgevla_ros.evaluation.wording import DEFAULT_WORDINGS, fill, read_wordings, words_for
from bridgevla_ros.planner.backends import Backend, make_backend
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.language import normalise
from bridgevla_ros.simulation.scene import SceneSpec
from bridgevla_ros.simulation.tasks import sample_scene
from bridgevla_ros.simulation.world import World

DEFAULT_SEED = 5000
DEFAULT_EPISODES = 300

MIN_PIXELS = 20
"""Fewest visible pixels of a thing that is asked for."""


@dataclass
class Tally:
    """Counts of one kind of question."""

    asked: int = 0
    right: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    wrong: int = 0

    @property
    def rate(self) -> float:
        """Share right."""
        return self.right / self.asked if self.asked else float("nan")


@dataclass(frozen=True)
class Answer:
    """Objects (1-based, as in the segmentation) under the anchors; or the code of a refusal."""

    objects: tuple[int, ...]
    code: ErrorCode


def ask(
    backend: Backend, frame: RgbdFrame, world: World, segmentation: NDArray[np.int32], instruction: str
) -> Answer:
    """First turn of the planner, judged by segmentation."""
    try:
        anchors = backend.anchors(frame, world.T_base_camera, normalise(instruction), 0)
    except BridgeError as error:
        return Answer((), error.code)
    found = [anchors.source] if anchors.destination is None else [anchors.source, anchors.destination]
    height, width = segmentation.shape
    under = []
    for anchor in found:
        u = int(np.clip(round(float(anchor.pixel[0])), 0, width - 1))
        v = int(np.clip(round(float(anchor.pixel[1])), 0, height - 1))
        under.append(int(segmentation[v, u]))
    return Answer(tuple(under), ErrorCode.NONE)


def absent_pair(scene: SceneSpec, rng: np.random.Generator) -> str | None:
    """A movable thing that is not there although its colour and its kind are; None where all pairs are."""
    there = {(o.colour, o.kind) for o in scene.objects}
    pairs = sorted({(a.colour, b.kind) for a in scene.objects for b in scene.objects if b.movable} - there)
    if not pairs:
        return None
    colour, kind = pairs[int(rng.integers(len(pairs)))]
    return f"{colour} {kind}"


def run_grounding(args: argparse.Namespace, backend: Backend | None = None) -> dict[str, Any]:
    """Ask one instruction a scene, and beside it an absent thing and the two roles swapped.

    Returns:
        ``success_rate`` (every anchor on its right thing), ``ci95``, ``episodes``, ``failures`` by code,
        ``false_refusals``, ``absent_refused``, ``role_swap`` (both orders right), by-template shares.
    """
    path = args.wordings or resources.find_config(DEFAULT_WORDINGS)
    templates = read_wordings(Path(path))
    which = getattr(args, "words", "synonyms")
    planner = make_backend(PlannerConfig(backend=args.planner)) if backend is None else backend
    started = time.monotonic()
    main, absent, swap = Tally(), Tally(), Tally()
    families: dict[str, Tally] = {t: Tally() for t in templates}
    misses: list[dict[str, Any]] = []
    seconds: list[float] = []
    world: World | None = None
    columns = (
        TextColumn("grounding"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns) as bar:
        task = bar.add_task("", total=args.episodes)
        for episode in range(args.episodes):
            seed = args.seed + episode
            rng = np.random.default_rng([seed, 0x6A0])
            scene = sample_scene(seed)
            if world is None:
                world = World(scene=scene)
            else:
                world.load(scene)
            frame, segmentation = world.render(), world.render_segmentation()
            pixels = np.bincount(np.maximum(segmentation, 0).ravel(), minlength=len(scene.objects) + 1)
            seen = [i for i in range(len(scene.objects)) if pixels[i + 1] >= MIN_PIXELS]
            things = [i for i in seen if scene.objects[i].movable]
            places = [i for i in seen if not scene.objects[i].movable]
            bar.update(task, advance=1, description=f"{100 * main.rate:.1f}%" if main.asked else "")
            if not things or not places:
                continue
            source, goal = int(rng.choice(things)), int(rng.choice(places))
            template = templates[episode % len(templates)]
            instruction = fill(
                template,
                words_for(scene.objects[source], rng, which),
                words_for(scene.objects[goal], rng, which),
            )
            wanted = (source + 1, goal + 1) if "{place}" in template else (source + 1,)
            begin = time.monotonic()
            answer = ask(planner, frame, world, segmentation, instruction)
            seconds.append(time.monotonic() - begin)
            _count(main, answer, wanted)
            _count(families[template], answer, wanted)
            if answer.objects != wanted:
                misses.append(_miss(seed, instruction, scene, answer, wanted))
            if (missing := absent_pair(scene, rng)) is not None:
                refused = ask(
                    planner, frame, world, segmentation, fill(template, missing, scene.objects[goal].name)
                )
                absent.asked += 1
                absent.right += refused.code != ErrorCode.NONE
            a, b = scene.objects[source].name, scene.objects[goal].name
            orders = [
                ask(planner, frame, world, segmentation, text).objects
                for text in (f"put the {a} on the {b}", f"put the {b} on the {a}")
            ]
            swap.asked += 1
            swap.right += orders == [(source + 1, goal + 1), (goal + 1, source + 1)]
    if world is not None:
        world.close()
    return {
        "suite": "grounding",
        "planner": planner.name,
        "model_sha256": planner.sha256,
        "wordings": Path(path).name,
        "words": which,
        "success_rate": main.rate,
        "ci95": list(wilson_interval(main.right, main.asked)),
        "episodes": main.asked,
        "failures": dict(main.refused) | ({"WRONG_OBJECT": main.wrong} if main.wrong else {}),
        "false_refusals": sum(main.refused.values()) / main.asked if main.asked else float("nan"),
        "absent_refused": absent.rate,
        "absent_asked": absent.asked,
        "absent_ci95": list(wilson_interval(absent.right, absent.asked)),
        "role_swap": swap.rate,
        "role_swap_ci95": list(wilson_interval(swap.right, swap.asked)),
        "by_template": {t: [c.right, c.asked] for t, c in families.items() if c.asked},
        "seeds": [args.seed, args.seed + args.episodes - 1],
        "seconds": round(time.monotonic() - started, 1),
        "seconds_per_answer_median": round(float(np.median(seconds)), 4) if seconds else float("nan"),
        "misses": misses[:50],
    }


def _count(tally: Tally, answer: Answer, wanted: tuple[int, ...]) -> None:
    tally.asked += 1
    if answer.code != ErrorCode.NONE:
        tally.refused[answer.code.name] += 1
    elif answer.objects == wanted:
        tally.right += 1
    else:
        tally.wrong += 1


def _miss(
    seed: int, instruction: str, scene: SceneSpec, answer: Answer, wanted: tuple[int, ...]
) -> dict[str, Any]:
    def names(ids: tuple[int, ...]) -> list[str]:
        return [scene.objects[i - 1].name if i > 0 else ("robot" if i < 0 else "table") for i in ids]

    return {
        "seed": seed,
        "instruction": instruction,
        "wanted": names(wanted),
        "answered": names(answer.objects) or answer.code.name,
        "scene": [o.name for o in scene.objects],
    }


def whole_words(result: dict[str, Any]) -> list[str]:
    """Lines about whole plans, and about steps that are done; empty where neither was run."""
    said = []
    points = result.get("waypoints", {})
    if error := points.get("all_m"):
        cost = points["plan_cpu_s"]
        said.append(
            f"contacts: median {1000 * error['median']:.1f} mm, p95 {1000 * error['p95']:.1f} mm of "
            f"{points['planned']} plans; a plan takes {1000 * cost['median']:.0f} ms of one core "
            f"(p95 {1000 * cost['p95']:.0f})"
        )
    done = result.get("done", {})
    if done.get("not_done") and done["done"]:
        shares = [100 * done[name]["rate"] for name in ("false_done", "false_not_done", "done_unseen")]
        said.append(
            f"done: {shares[0]:.1f}% of {done['not_done']} steps that were not done were called done; of "
            f"{done['done']} that were, {shares[1]:.1f}% were called not done, {shares[2]:.1f}% were not seen"
        )
    return said


def run_rest(args: argparse.Namespace, backend: Backend) -> dict[str, Any]:
    """Rows of the families and of whole plans; a third as many scenes each as for the wordings."""
    episodes = max(1, args.episodes // 3)
    with progress_bar() as report:
        families = run_families(backend, args.seed, episodes, report)
        families |= run_places(backend, args.seed, episodes, report)
        waypoints = run_waypoints(backend, args.seed, episodes, report)
        return {
            "families": families,
            "waypoints": waypoints,
            "done": run_done(backend, args.seed, episodes, report),
        }


def run(args: argparse.Namespace) -> int:
    """Run the suite, or its pairs alone: figures, tables, report; returns 0.

    Raises:
        BridgeError: BAD_INPUT, MODEL_ERROR: a bad option, no such checkpoint.
    """
    weights = str(args.planner_weights or "")
    backend = make_backend(PlannerConfig(backend=args.planner, weights=weights))
    made = rows.provenance() | {"planner weights": backend.sha256[:16] or "none"}
    if args.pairs is not None:
        result = run_pairs(backend, pairs_of(args.pairs, weights), args.seed, args.episodes)
        verdict = "; ".join(
            f"{name} {percent(row['rate'])} ({interval(row['ci95'])})" for name, row in result["rows"].items()
        )
        sections: tuple[Section, ...] = (_row_section("Pairs of colour and kind", "", result["rows"]),)
    else:
        result = run_grounding(args, backend)
        if backend.name == "embedded":
            result |= run_rest(args, backend)
        verdict = summary(result)
        print(f"grounding: {verdict}; failures {result['failures']}; {result['seconds']} s")
        if "families" in result:
            rows.print_tables([table_of(result["families"])])
        for line in whole_words(result):
            print(line)
        sections = report_sections(result)
    write_json(args.json, {"made": made} | result)
    if args.report is not None:
        write(args.report, Report("Suite grounding", f"{verdict}.", made, sections))
        print(f"report: {args.report}")
    return 0


def summary(result: dict[str, Any]) -> str:
    """The figures of the wordings in a line."""
    low, high = result["ci95"]
    return (
        f"{100 * result['success_rate']:.1f}% right ({100 * low:.1f}..{100 * high:.1f}) of "
        f"{result['episodes']}; false refusals {100 * result['false_refusals']:.1f}%, absent refused "
        f"{100 * result['absent_refused']:.1f}%, role-swapped pairs {100 * result['role_swap']:.1f}%"
    )


def report_sections(result: dict[str, Any]) -> tuple[Section, ...]:
    """Wordings, families, whole plans, and what went wrong."""
    wordings = tuple(
        (text, percent(right / asked), interval(wilson_interval(right, asked)), str(asked))
        for text, (right, asked) in result["by_template"].items()
    )
    sections = [
        Section(
            "Wordings",
            f"Words: {result['words']}. Right is an answer with each anchor on the thing that was named.",
            (Table(("wording", "right", "95% interval", "of"), wordings, "Intervals: Wilson."),),
        )
    ]
    if "families" in result:
        text = ". ".join(whole_words(result))
        sections.append(_row_section("Families, and whole plans", text, result["families"]))
    if result["misses"]:
        lines = tuple(
            (str(m["seed"]), m["instruction"], _said(m["wanted"]), _said(m["answered"]))
            for m in result["misses"]
        )
        missed = Table(("seed", "instruction", "wanted", "answered"), lines)
        sections.append(Section("Wrong answers to the wordings", tables=(missed,)))
    return tuple(sections)


def _row_section(title: str, text: str, found: dict[str, dict[str, Any]]) -> Section:
    rates = {name: (row["rate"], *row["ci95"]) for name, row in found.items() if row["asked"]}
    drawn = (Plot(plots.success({"": rates}), "Right answers with 95% intervals."),) if rates else ()
    return Section(title, text, (table_of(found),), drawn)


def _said(answer: str | list[str]) -> str:
    return answer if isinstance(answer, str) else ", ".join(answer)
