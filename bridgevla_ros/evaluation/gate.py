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

A fault counts as stopped where the planner refuses by any code.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import GripperEvent, PlanRequest, RgbdFrame, WaypointKind
from bridgevla_ros.evaluation.stats import wilson_interval
from bridgevla_ros.evaluation.truth import TruthBackend
from bridgevla_ros.evaluation.wording import instruct
from bridgevla_ros.planner.answers import Anchor, Anchors, LocalWaypoint
from bridgevla_ros.planner.backends.embedded import EmbeddedBackend
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.planner import Planner, camera_yaw
from bridgevla_ros.planner.witness import Witness
from bridgevla_ros.simulation.tasks import sample_scene, task_pairs
from bridgevla_ros.simulation.world import World

DEFAULT_EPISODES = 200


@dataclass(frozen=True)
class Case:
    """A scene with its task, and where everything is seen (pixels by name)."""

    world: World
    frame: RgbdFrame
    source: str
    destination: str
    instruction: str
    seen: dict[str, Array]


@dataclass(frozen=True)
class Faulty:
    """What the planner gets instead.

    Attributes:
        anchors, frame: Of the first turn.
        local: Of a second turn; empty where waypoints come from geometry.
    """

    anchors: Anchors
    frame: RgbdFrame
    local: tuple[LocalWaypoint, ...] = ()


Fault = Callable[[Case, Anchors, np.random.Generator], Faulty | None]


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


def swapped(case: Case, anchors: Anchors, rng: np.random.Generator) -> Faulty | None:
    """Each role points at the other's thing."""
    assert anchors.destination is not None
    source = dataclasses.replace(anchors.source, pixel=anchors.destination.pixel)
    destination = dataclasses.replace(anchors.destination, pixel=anchors.source.pixel)
    return Faulty(Anchors(source, destination), case.frame)


def _elsewhere(case: Case, rng: np.random.Generator, movable: bool, but: str) -> Array | None:
    scene = case.world.scene
    names = [o.name for o in scene.objects if o.movable == movable and o.name != but and o.name in case.seen]
    return case.seen[names[int(rng.integers(len(names)))]] if names else None


def wrong_thing(case: Case, anchors: Anchors, rng: np.random.Generator) -> Faulty | None:
    """The source points at another thing."""
    pixel = _elsewhere(case, rng, True, case.source)
    if pixel is None:
        return None
    moved = dataclasses.replace(anchors.source, pixel=pixel)
    return Faulty(dataclasses.replace(anchors, source=moved), case.frame)


def wrong_place(case: Case, anchors: Anchors, rng: np.random.Generator) -> Faulty | None:
    """The destination points at another place."""
    assert anchors.destination is not None
    pixel = _elsewhere(case, rng, False, case.destination)
    if pixel is None:
        return None
    moved = dataclasses.replace(anchors.destination, pixel=pixel)
    return Faulty(dataclasses.replace(anchors, destination=moved), case.frame)


def beside(case: Case, anchors: Anchors, rng: np.random.Generator) -> Faulty | None:
    """The source points at the table next to the thing, away from all that is seen."""
    k, depth = case.frame.intrinsics, 1.0
    for _ in range(50):
        angle, metres = rng.uniform(-np.pi, np.pi), rng.uniform(0.06, 0.15)
        pixel = anchors.source.pixel + k.fx * metres / depth * np.array([np.cos(angle), np.sin(angle)])
        inside = (pixel > 8).all() and pixel[0] < k.width - 8 and pixel[1] < k.height - 8
        if inside and all(np.linalg.norm(pixel - other) > 0.06 * k.fx for other in case.seen.values()):
            moved = dataclasses.replace(anchors.source, pixel=pixel)
            return Faulty(dataclasses.replace(anchors, source=moved), case.frame)
    return None


def depth_hole(case: Case, anchors: Anchors, rng: np.random.Generator) -> Faulty | None:
    """Nothing is measured around the source."""
    depth = case.frame.depth.copy()
    u, v = np.round(anchors.source.pixel).astype(int)
    reach = int(rng.integers(8, 20))
    depth[max(v - reach, 0) : v + reach, max(u - reach, 0) : u + reach] = np.nan
    return Faulty(anchors, dataclasses.replace(case.frame, depth=depth))


def long_depth(case: Case, anchors: Anchors, rng: np.random.Generator) -> Faulty | None:
    """Depth reads long around the source: the thing seems to lie farther away."""
    depth = case.frame.depth.copy()
    u, v = np.round(anchors.source.pixel).astype(int)
    window = (slice(max(v - 25, 0), v + 25), slice(max(u - 25, 0), u + 25))
    depth[window] *= rng.uniform(1.04, 1.08)
    return Faulty(anchors, dataclasses.replace(case.frame, depth=depth))


def _second_turn(case: Case, anchors: Anchors, offset: Array) -> Faulty:
    lifted = np.array([0.0, 0.0, 0.10])
    kinds, events = WaypointKind, GripperEvent
    local = (
        LocalWaypoint(0, offset + lifted, 0.0, kinds.APPROACH, events.OPEN),
        LocalWaypoint(0, offset, 0.0, kinds.CONTACT, events.CLOSE),
        LocalWaypoint(0, offset + lifted, 0.0, kinds.RETREAT, events.NONE),
    )
    return Faulty(anchors, case.frame, local)


def through_table(case: Case, anchors: Anchors, rng: np.random.Generator) -> Faulty | None:
    """The model's offset carries the finger tips under the table."""
    top = case.world.object_pose(case.source).translation[2] + case.world.scene.object(case.source).size[2]
    return _second_turn(case, anchors, np.array([0.0, 0.0, -top - rng.uniform(0.01, 0.06)]))


def outside(case: Case, anchors: Anchors, rng: np.random.Generator) -> Faulty | None:
    """The model's offset lies beyond the workspace: towards the camera or sideways."""
    far = rng.uniform(0.3, 0.6)
    direction = (
        np.array([-far, 0.0]) if rng.random() < 0.5 else np.array([0.0, far * rng.choice([-1.0, 1.0])])
    )
    placed = _second_turn(case, anchors, np.array([*direction, 0.0]))
    config, T_base_camera = PlannerConfig(), case.world.T_base_camera
    yaw = camera_yaw(T_base_camera)
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    spot = case.world.object_pose(case.source).translation[:2] + turn @ direction
    low, high = np.array(config.workspace_min[:2]), np.array(config.workspace_max[:2])
    return placed if ((spot < low - 0.03) | (spot > high + 0.03)).any() else None


FAULTS: dict[str, Fault] = {
    "swapped": swapped,
    "wrong thing": wrong_thing,
    "wrong place": wrong_place,
    "beside": beside,
    "depth hole": depth_hole,
    "long depth": long_depth,
    "through table": through_table,
    "outside": outside,
}


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
    """Plan each scene well and with one fault after the other.

    Args:
        episodes: Scenes, seeds ``seed`` ..
        semantic_limit: Instead of the planner's own.

    Returns:
        ``stopped`` (share of faulty plans refused), ``ci95``, ``refused`` (share of good plans refused),
        ``by_fault`` and ``codes``.
    """
    started = time.monotonic()
    config = PlannerConfig()
    if semantic_limit is not None:
        config = dataclasses.replace(config, semantic_limit=semantic_limit)
    world, given, arm = World(), GivenAnchors(), ArmModel.load()
    eyes = EmbeddedBackend(PlannerConfig()).eyes
    geometric = dataclasses.replace(config, semantic_limit=0.0)
    modelled = dataclasses.replace(geometric, waypoint_source="model")
    planner = Planner(geometric, backend=given, arm=arm)
    if config.semantic_limit > 0.0:
        planner.witness = Witness(eyes, config.semantic_limit)
    tried: Counter[str] = Counter()
    stopped: Counter[str] = Counter()
    codes: dict[str, Counter[str]] = {name: Counter() for name in ("good", *FAULTS)}
    names = list(FAULTS)
    columns = (TextColumn("gate"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        for k in progress.track(range(episodes)):
            case = draw_case(seed + k, world)
            if case is None:
                continue
            rng = np.random.default_rng([seed + k, 0xFA])
            backend = TruthBackend(world, case.source, case.destination)
            anchors = backend.anchors(case.frame, world.T_base_camera, case.instruction, 0)
            for name in ("good", names[k % len(names)]):
                good = Faulty(anchors, case.frame)
                found = good if name == "good" else FAULTS[name](case, _named(anchors), rng)
                if found is None:
                    continue
                given.given, frame = found, found.frame
                planner.config = modelled if found.local else geometric
                request = PlanRequest(frame.stamp, "task", f"{k}-{name}", case.instruction, 0, 0, 0)
                plan = planner.plan(request, frame, world.T_base_camera, now=frame.stamp)
                tried[name] += 1
                stopped[name] += plan.code is not ErrorCode.NONE
                codes[name][plan.code.name] += 1
    faulty = sum(n for name, n in tried.items() if name != "good")
    caught = sum(n for name, n in stopped.items() if name != "good")
    return {
        "suite": "gate",
        "episodes": episodes,
        "seed": seed,
        "semantic_limit": config.semantic_limit,
        "plans": tried["good"],
        "refused": stopped["good"] / max(tried["good"], 1),
        "refused_ci95": list(wilson_interval(stopped["good"], max(tried["good"], 1))),
        "faulty": faulty,
        "stopped": caught / max(faulty, 1),
        "ci95": list(wilson_interval(caught, max(faulty, 1))),
        "by_fault": {name: {"tried": tried[name], "stopped": stopped[name]} for name in FAULTS},
        "codes": {name: dict(count.most_common()) for name, count in codes.items()},
        "seconds": time.monotonic() - started,
    }


def _named(anchors: Anchors) -> Anchors:
    """The same anchors, so that faults cannot change the good ones."""
    copy = [Anchor(a.label, a.pixel.copy(), a.confidence) for a in (anchors.source, anchors.destination) if a]
    return Anchors(copy[0], copy[1] if len(copy) > 1 else None)


def run(args: argparse.Namespace) -> int:
    """``bridgevla eval --suite gate``."""
    from rich.console import Console
    from rich.table import Table

    result = run_gate(args.episodes, args.seed)
    table = Table("plans", "tried", "refused", "by code")
    good = result["codes"]["good"]
    table.add_row("good", str(result["plans"]), f"{result['refused']:.1%}", _text(good))
    for name, counts in result["by_fault"].items():
        share = counts["stopped"] / max(counts["tried"], 1)
        table.add_row(name, str(counts["tried"]), f"{share:.1%}", _text(result["codes"][name]))
    low_end, high_end = result["ci95"]
    table.add_row(
        "all faults", str(result["faulty"]), f"{result['stopped']:.1%} ({low_end:.0%}-{high_end:.0%})", ""
    )
    Console().print(table)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1))
        print(f"figures: {args.json}")
    return 0


def _text(codes: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in codes.items() if name != "NONE")
