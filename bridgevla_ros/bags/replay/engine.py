"""Replay a bag: the code of this version on the recorded inputs, compared with the recorded outputs."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bridgevla_ros.bags.mapping import TopicMapping
from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.bags.replay.compare import differences, spatial
from bridgevla_ros.bags.replay.golden import Golden
from bridgevla_ros.bags.replay.parts import PARTS, NodeReplay
from bridgevla_ros.bags.replay.recording import Recording
from bridgevla_ros.bags.replay.result import (
    LISTED,
    NODES,
    Answer,
    Missing,
    ReplayResult,
    Skipped,
    Tally,
    merged,
)
from bridgevla_ros.bags.replay.settings import Settings
from bridgevla_ros.bags.replay.sharing import by_cost, side_by_side, uncollected
from bridgevla_ros.bags.replay.state import first_stamp
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.ros import conversions

COMPUTING = ("numpy", "scipy", "numba", "pin", "torch", "onnxruntime", "fpsample")
"""Packages that a last bit may hang on."""


_MOVED = 1e-4
"""Metres; a camera this far from where it was is named. Our choice."""

Watch = Callable[[Answer], None]
"""Sees every answer as it comes, e.g. to bless it."""


def choose(bag: Bag, nodes: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Nodes to replay, and why others cannot be.

    Args:
        bag: What is replayed.
        nodes: Names, or "all" for every node of which the bag holds outputs and inputs.

    Raises:
        BridgeError: BAD_INPUT for a name that is no node.
    """
    strange = sorted(set(nodes) - {*NODES, "all"})
    if strange:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{strange[0]!r} is no node that can be replayed",
            remedy=f"name some of {', '.join(NODES)}, or all",
        )
    topics = bag.topics()
    chosen, lacks = [], []
    for node in NODES if "all" in nodes else [n for n in NODES if n in nodes]:
        part = PARTS[node]
        there = [n for n in part.outputs if any(t.endswith(f"/{n}") for t in topics)]
        absent = [n for n in part.needs if not any(t.endswith(f"/{n}") for t in topics)]
        if there and not absent:
            chosen.append(node)
        elif not there:
            lacks.append(f"no output of {node} ({' or '.join(part.outputs)})")
        else:
            lacks.append(f"no {' and no '.join(absent)} for {node}")
    asked = [n for n in nodes if n != "all"]
    left_out = [node for node in asked if node not in chosen]
    return () if left_out else tuple(chosen), "; ".join(lacks)


def replay(
    source: Path | str | Bag,
    nodes: Sequence[str] = ("all",),
    *,
    seed: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    mapping: TopicMapping | Path | None = None,
    tolerance: str = "auto",
    golden: bool = True,
    watch: Watch | None = None,
    processes: int = 1,
    keep: dict[Hashable, Any] | None = None,
) -> ReplayResult:
    """Run the code of this version on the recorded inputs and compare what comes out.

    Args:
        source: Folder or file of a bag, or the bag.
        nodes: Which; see ``choose``.
        seed: Instead of the recorded seeds.
        overrides: "node.parameter" -> value, instead of the recorded ones.
        mapping: Names of another robot's bag.
        tolerance: "same" or "other" machine; "auto" looks at what the bag was recorded on.
        golden: Compare with the blessed outputs beside the bag, where there are any.
        watch: Sees every answer; only with one process.
        processes: How many work side by side, a node each.
        keep: Where loaded models are kept for the next replay; only with one process.

    Returns:
        The outcome; a bag that cannot be replayed is one as well (``impossible``).

    Raises:
        BridgeError: BAD_INPUT for what is no bag, or no node.
        ConfigError: An override is unknown or not allowed.
    """
    began = time.perf_counter()
    bag = source if isinstance(source, Bag) else Bag(Path(source), mapping)
    chosen, why = choose(bag, nodes)
    if not chosen:
        return ReplayResult(str(bag.path), tuple(nodes), impossible=f"{bag.path} has {why}")
    job = _Job(bag.path, bag.mapping, chosen, seed, dict(overrides or {}), tolerance, golden)
    workers = min(processes, len(chosen)) if watch is None and keep is None else 1
    if workers > 1:
        parts = side_by_side(partial(_reader, job), by_cost(chosen), workers)
    else:
        replay_node = _reader(job, bag, watch, keep)
        parts = {node: replay_node(node) for node in chosen}
    whole = merged(parts)
    spent = [tally.seconds for tally in whole.tallies.values()]
    whole.seconds = whole.reading + max(max(spent), sum(spent) / workers)
    whole.impossible = _nothing(whole)
    whole.total_seconds = time.perf_counter() - began
    whole.notes += [f"not replayed: {why}"] if why else []
    whole.notes += [f"bag: {line}" for line in bag.damage if line not in whole.notes]
    return whole


class _Job(NamedTuple):
    path: Path
    mapping: TopicMapping
    nodes: tuple[str, ...]
    seed: int | None
    overrides: dict[str, Any]
    tolerance: str
    golden: bool


def _reader(
    job: _Job,
    bag: Bag | None = None,
    watch: Watch | None = None,
    keep: dict[Hashable, Any] | None = None,
) -> Callable[[str], ReplayResult]:
    """Read the bag; what is returned replays a node of it."""
    began = time.perf_counter()
    with uncollected():
        recording = Recording(Bag(job.path, job.mapping) if bag is None else bag)
    reading = time.perf_counter() - began

    def replay_node(node: str) -> ReplayResult:
        result = _one(job, recording, node, watch, keep)
        result.reading = reading
        return result

    return replay_node


def _one(
    job: _Job,
    recording: Recording,
    node: str,
    watch: Watch | None = None,
    keep: dict[Hashable, Any] | None = None,
) -> ReplayResult:
    """Replay one node."""
    bag = recording.bag
    settings = Settings(bag, job.overrides, keep)
    result = ReplayResult(str(bag.path), (node,), recorded_seconds=recording.seconds)
    tally = result.tallies[node] = Tally()
    golden = Golden.beside(bag.path) if job.golden else None
    result.versions = _versions(bag)
    same_machine = result.versions["recorded"] == result.versions["present"]
    if job.tolerance != "auto":
        same_machine = job.tolerance == "same"
    if golden is not None:
        result.golden = golden.reason
        if job.tolerance == "auto":
            same_machine = golden.versions == result.versions["present"]
    result.tolerance = "same" if same_machine else "other"
    began = time.perf_counter()
    with uncollected():
        runner = PARTS[node].make(recording, settings, job.seed)
    tally.loading = time.perf_counter() - began
    began, worked = time.perf_counter(), time.process_time()
    cut = first_stamp(bag)
    for answer in _readable(runner, node, result):
        if isinstance(answer, Missing) and answer.stamp < cut:
            tally.skipped["it lies before what `bag trim` cut out"] += 1
        elif isinstance(answer, Missing):
            result.missing.append(answer)
        elif isinstance(answer, Skipped):
            tally.skipped[answer.why] += 1
        else:
            if watch is not None:
                watch(answer)
            _take(result, tally, answer if golden is None else golden.instead(answer), same_machine)
    tally.seconds, tally.processor = time.perf_counter() - began, time.process_time() - worked
    result.reasons += settings.reasons + _weights(result, runner.weights)
    result.notes += settings.notes
    if job.seed is not None:
        result.reasons.append(f"seed: {job.seed} instead of the recorded ones")
    result.reasons += list(dict.fromkeys(f"input lost: {m}" for m in result.missing))[:20]
    if node == job.nodes[0]:
        result.reasons += _extrinsics(recording)
    return result


def _readable(runner: NodeReplay, node: str, result: ReplayResult) -> Iterator[Answer | Missing | Skipped]:
    """Answers up to the first message of the bag that cannot be read; what was compared by then is kept."""
    try:
        yield from runner.answers()
    except BridgeError as error:
        if error.code != ErrorCode.BAD_INPUT:
            raise
        result.stopped[node] = error.message


def _take(result: ReplayResult, tally: Tally, answer: Answer, same_machine: bool) -> None:
    found, seen, exact = differences(answer, same_machine)
    tally.compared[answer.topic] += 1
    tally.exact += exact
    tally.differing += bool(found)
    for quantity, (value, tolerance, unit) in seen.items():
        before = tally.largest.get(quantity, (0.0, tolerance, unit))[0]
        tally.largest[quantity] = (max(before, value), tolerance, unit)
        tally.series.setdefault(quantity, []).append((answer.stamp, value))
    if found and (tally.shown is None or (not spatial(tally.shown) and spatial(answer))):
        # A message may not go from process to process.
        tally.shown = replace(answer, message=None)
    room = LISTED - len(result.differences)
    result.differences += found[:room]
    if len(found) > room:
        result.left_out[answer.node] += len(found) - room


def _weights(result: ReplayResult, weights: Mapping[str, tuple[str, str]]) -> list[str]:
    found = []
    for name, (recorded, present) in weights.items():
        result.versions["recorded"][f"weights of {name}"] = recorded
        result.versions["present"][f"weights of {name}"] = present
        if recorded != present:
            found.append(
                f"weights of {name}: recorded {recorded[:12] or 'none'}, now {present[:12] or 'none'}"
            )
    return found


def _extrinsics(recording: Recording) -> list[str]:
    """Name a camera that the bag's transforms do not have where its plans say it was."""
    worst = 0.0
    for item in recording.items("plan"):
        plan = conversions.waypoint_plan_from_msg(recording.message(item))
        if plan.code != ErrorCode.NONE:
            continue
        try:
            pose = recording.lookup(item.received)(plan.base_frame, plan.camera_frame, plan.stamp)
        except BridgeError:
            continue
        moved = float(np.linalg.norm(pose.translation - plan.T_base_camera.translation))
        worst = max(worst, moved)
    if worst < _MOVED:
        return []
    return [
        f"camera pose: the bag's transforms have it {1e3 * worst:.2f} mm away from where the plans saw it"
    ]


def _versions(bag: Bag) -> dict[str, dict[str, Any]]:
    """What the bag was recorded with, and what is here, as far as a last bit may hang on it."""
    run = bag.run
    recorded: dict[str, Any] = {}
    if run is not None:
        recorded = {"machine": run.machine, "python": run.python}
        recorded |= {name: run.packages.get(name, "") for name in COMPUTING}
    return {"recorded": recorded, "present": present()}


def present() -> dict[str, Any]:
    """Versions of what computes here."""
    found = {"machine": platform.platform(), "python": platform.python_version()}
    for name in COMPUTING:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


def _nothing(result: ReplayResult) -> str:
    """Why nothing was compared at all; empty if something was."""
    if any(t.total for t in result.tallies.values()) or result.missing:
        return ""
    whys = [why for t in result.tallies.values() for why in t.skipped] + list(result.stopped.values())
    return f"{result.path}: nothing could be compared: {'; '.join(dict.fromkeys(whys)) or 'no outputs'}"
