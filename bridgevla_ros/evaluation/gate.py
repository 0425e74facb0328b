"""Suite ``gate``: how many wrong plans does the plan gate stop, and how many good ones does it refuse?

The paper leaves open how physically impossible or wrong plans of a vision-language model are caught. Here
each scene is planned with anchors from the simulator's truth (a good plan), and once more with one fault:

| fault | what is wrong |
|---|---|
| swapped | source and destination anchors exchanged |
| wrong thing | the source anchor lies on another thing that could be taken |
| wrong place | the destination anchor lies on another place |
| beside | the source anchor lies 6 to 15 cm beside the thing |
| depth hole | no depth around the source |
| long depth | depth reads 4 to 8% long around the source |
| through table | waypoints of a second turn that reach 1 to 6 cm under the table |
| outside | waypoints of a second turn that lie 0.3 to 0.6 m from their anchor, out of the workspace |
| through thing | a second turn that carries the thing low, through a third one |
| into itself | a second turn that leads into the arm's own base, in a workspace that holds it |

A fault counts as stopped where the planner refuses by any code.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections import Counter
from itertools import count
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import PlanRequest, RgbdFrame, WaypointPlan
from bridgevla_ros.evaluation import plots, rows
from bridgevla_ros.evaluation.gate_faults import FAULTS, Case, Faulty
from bridgevla_ros.evaluation.options import write_json
from bridgevla_ros.evaluation.report import Plot, Report, Section, Table, write
from bridgevla_ros.evaluation.stats import interval, percent, wilson_interval
from bridgevla_ros.evaluation.truth import TruthBackend
from bridgevla_ros.evaluation.wording import instruct
from bridgevla_ros.planner.answers import Anchor, Anchors, LocalWaypoint
from bridgevla_ros.planner.backends.embedded import EmbeddedBackend
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.planner import Planner
from bridgevla_ros.planner.witness import Witness
from bridgevla_ros.simulation.tasks import sample_scene, task_pairs
from bridgevla_ros.simulation.world import World

DEFAULT_EPISODES = 200


class GivenAnchors:
    """A backend that answers with what it is given."""

    name = "given"
    sha256 = ""

    def __init__(self) -> None:
        self.given: Faulty | None = None

    def anchors(self, frame: RgbdFrame, T_base_camera: Transform, clause: str, seed: int) -> Anchors:
        """First turn."""
        if self.given is None:
            raise BridgeError(ErrorCode.MODEL_ERROR, "no anchors were given")
        return self.given.anchors

    def waypoints(
        self, frame: RgbdFrame, clause: str, anchors: Anchors, depths: Array, seed: int
    ) -> list[LocalWaypoint]:
        """Second turn."""
        if self.given is None or not self.given.local:
            raise BridgeError(ErrorCode.MODEL_ERROR, "no waypoints were given")
        return list(self.given.local)


def draw_case(seed: int, world: World) -> Case | None:
    """The scene of a seed with a task whose two things are in sight; None where there is none."""
    scene = sample_scene(seed)
    rng = np.random.default_rng([seed, 0x6A7E])
    world.load(scene)
    frame = world.render()
    labels = world.render_segmentation()
    seen = {}
    for index, thing in enumerate(scene.objects, start=1):
        pixels = np.argwhere(labels == index)[:, ::-1].astype(float)
        if len(pixels) >= 20:
            seen[thing.name] = pixels[((pixels - pixels.mean(0)) ** 2).sum(1).argmin()]
    pairs = [(s, d) for s, d in task_pairs(scene) if s in seen and d in seen]
    if not pairs:
        return None
    source, destination = pairs[int(rng.integers(len(pairs)))]
    words = instruct(rng, scene.object(source), scene.object(destination))
    return Case(world, frame, source, destination, words, seen)


def run_gate(episodes: int, seed: int, semantic_limit: float | None = None) -> dict[str, Any]:
    """Plan each scene well, and with one fault. Faults take turns; one that a scene cannot have is left out.

    Args:
        episodes: Good plans, and wrong ones; scenes of seeds ``seed`` ..
        semantic_limit: Instead of the planner's own.

    Returns:
        ``stopped`` (share of faulty plans refused), ``ci95``, ``refused`` (share of good plans refused),
        ``by_fault``, ``codes``, ``model_sha256`` (of the eyes; empty without) and ``misses``: what went
        wrong, scene by scene.
    """
    started = time.monotonic()
    config = PlannerConfig()
    if semantic_limit is not None:
        config = dataclasses.replace(config, semantic_limit=semantic_limit)
    bench = _Bench(config)
    tally: dict[str, Counter[str]] = {name: Counter() for name in ("good", *FAULTS)}
    misses: list[dict[str, Any]] = []
    names, turn = list(FAULTS), 0
    columns = (TextColumn("gate"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        bar, drawn = progress.add_task("gate", total=episodes), 0
        for k in count(seed):
            if drawn == episodes:
                break
            case = draw_case(k, bench.world)
            if case is None:
                continue
            rng = np.random.default_rng([k, 0xFA])
            good = Faulty(bench.truth(case), case.frame)
            tries = [names[(turn + j) % len(names)] for j in range(len(names))]
            faults = ((name, FAULTS[name](case, _named(good.anchors), rng)) for name in tries)
            name, wrong = next((n, f) for n, f in faults if f is not None)
            turn = names.index(name) + 1
            drawn += 1
            progress.update(bar, completed=drawn)
            for kind, given in (("good", good), (name, wrong)):
                plan = bench.plan(case, given)
                tally[kind][plan.code.name] += 1
                if (plan.code is ErrorCode.NONE) != (kind == "good"):
                    misses.append({"seed": k, "plan": kind, "words": case.instruction, "said": plan.message})
    return _figures(tally) | {
        "episodes": episodes,
        "seed": seed,
        "semantic_limit": config.semantic_limit,
        "model_sha256": bench.sha256,
        "misses": misses,
        "seconds": time.monotonic() - started,
    }


class _Bench:
    """One planner that is given its anchors, and the embedded model's eyes to check them.

    Args:
        config: Of the gate.

    Attributes:
        sha256: Of the eyes' weights; empty where nothing looks.
    """

    sha256 = ""

    def __init__(self, config: PlannerConfig) -> None:
        self.world, self._given = World(), GivenAnchors()
        self._geometric = dataclasses.replace(config, semantic_limit=0.0)
        self._planner = Planner(self._geometric, backend=self._given, arm=ArmModel.load())
        if config.semantic_limit > 0.0:
            backend = EmbeddedBackend(PlannerConfig())
            self._planner.witness = Witness(backend.eyes, config.semantic_limit)
            self.sha256 = backend.sha256

    def truth(self, case: Case) -> Anchors:
        """Where the named things are."""
        backend = TruthBackend(self.world, case.source, case.destination)
        return backend.anchors(case.frame, self.world.T_base_camera, case.instruction, 0)

    def plan(self, case: Case, given: Faulty) -> WaypointPlan:
        """What the planner makes of it."""
        self._given.given, config = given, self._geometric
        if given.local:
            config = dataclasses.replace(config, waypoint_source="model")
        if given.workspace_min is not None:
            config = dataclasses.replace(config, workspace_min=given.workspace_min)
        self._planner.config = config
        stamp = given.frame.stamp
        request = PlanRequest(stamp, "task", "gate", case.instruction, 0, 0, 0)
        return self._planner.plan(
            request, given.frame, self.world.T_base_camera, now=stamp, joints=self.world.joint_state()
        )


def _figures(tally: dict[str, Counter[str]]) -> dict[str, Any]:
    """Shares and intervals from counts of codes by kind of plan."""
    tried = {kind: codes.total() for kind, codes in tally.items()}
    stopped = {kind: tried[kind] - codes[ErrorCode.NONE.name] for kind, codes in tally.items()}
    faulty, caught = sum(tried[name] for name in FAULTS), sum(stopped[name] for name in FAULTS)
    return {
        "suite": "gate",
        "plans": tried["good"],
        "refused": stopped["good"] / max(tried["good"], 1),
        "refused_ci95": list(wilson_interval(stopped["good"], max(tried["good"], 1))),
        "faulty": faulty,
        "stopped": caught / max(faulty, 1),
        "ci95": list(wilson_interval(caught, max(faulty, 1))),
        "by_fault": {name: {"tried": tried[name], "stopped": stopped[name]} for name in FAULTS},
        "codes": {kind: dict(codes.most_common()) for kind, codes in tally.items()},
    }


def _named(anchors: Anchors) -> Anchors:
    """The same anchors, so that faults cannot change the good ones."""
    copy = [Anchor(a.label, a.pixel.copy(), a.confidence) for a in (anchors.source, anchors.destination) if a]
    return Anchors(copy[0], copy[1] if len(copy) > 1 else None)


def run(args: argparse.Namespace) -> int:
    """``bridgevla eval --suite gate``: table, figures, report; returns 0."""
    made = rows.provenance()
    result = run_gate(args.episodes, args.seed)
    made["planner weights"] = result["model_sha256"][:16] or "none"
    rows.print_tables([table(result)])
    write_json(args.json, {"made": made} | result)
    if args.report is not None:
        write(args.report, report(result, made))
        print(f"report: {args.report}")
    return 0


def table(result: dict[str, Any]) -> Table:
    """A line for good plans, one a fault, and one for all faults."""

    def line(name: str, tried: int, refused: int, codes: dict[str, int]) -> tuple[str, ...]:
        ci = wilson_interval(refused, tried)
        return name, str(tried), percent(refused / max(tried, 1)), interval(ci), _text(codes)

    codes, faults = result["codes"], result["by_fault"]
    lines = [line("good", result["plans"], result["plans"] - codes["good"].get("NONE", 0), codes["good"])]
    lines += [line(name, n["tried"], n["stopped"], codes[name]) for name, n in faults.items()]
    lines.append(line("all faults", result["faulty"], sum(n["stopped"] for n in faults.values()), {}))
    return Table(("plans", "tried", "refused", "95% interval", "by code"), tuple(lines), "Intervals: Wilson.")


def report(result: dict[str, Any], made: dict[str, Any]) -> Report:
    """The table, a bar a fault, and what went wrong."""
    shares = {name: 100 * n["stopped"] / n["tried"] for name, n in result["by_fault"].items() if n["tried"]}
    bars = plots.bars({"good": 100 * result["refused"]} | shares, "plans refused, %")
    sections = [
        Section(
            "Plans refused",
            "Each scene is planned with anchors from the simulator's truth, and once more with one fault.",
            (table(result),),
            (Plot(bars, "Share of the plans that were refused, by fault; of good ones, none should be."),),
        )
    ]
    if result["misses"]:
        lines = tuple((str(m["seed"]), m["plan"], m["words"], m["said"]) for m in result["misses"])
        missed = Table(("seed", "plan", "instruction", "what was said"), lines)
        sections.append(Section("Good plans refused, wrong ones passed", tables=(missed,)))
    stopped = sum(n["stopped"] for n in result["by_fault"].values())
    refused = result["plans"] - result["codes"]["good"].get("NONE", 0)
    verdict = (
        f"{stopped} of {result['faulty']} wrong plans stopped ({interval(result['ci95'])}); {refused} of "
        f"{result['plans']} good ones refused ({interval(result['refused_ci95'])})."
    )
    return Report("Suite gate", verdict, made, tuple(sections))


def _text(codes: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in codes.items() if name != "NONE")
