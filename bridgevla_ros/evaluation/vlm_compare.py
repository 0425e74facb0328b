"""A vision-language model beside the embedded planner, on the same scenes and words: who points better?

``python -m bridgevla_ros.evaluation.vlm_compare CHECKPOINT --convention NAME``. Each scene is asked for one
pick-and-place in common words, in phrasings and then also words that neither model was trained on, and for
something that is not there. Both models get the same image; the embedded planner gets its depth as well.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bridgevla_ros.console import wide_console
from bridgevla_ros.core import resources
from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.core.types import RgbdFrame
from bridgevla_ros.evaluation.grounding import absent_pair
from bridgevla_ros.evaluation.grounding_rows import Stage, under
from bridgevla_ros.evaluation.options import write_json
from bridgevla_ros.evaluation.stats import wilson_interval
from bridgevla_ros.evaluation.truth import TruthBackend
from bridgevla_ros.evaluation.wording import COMMON, DEFAULT_WORDINGS, fill, read_wordings, words_for
from bridgevla_ros.planner.backends import Backend, make_backend
from bridgevla_ros.planner.backends.chat import ChatBackend
from bridgevla_ros.planner.config import CONVENTION_NAMES, PlannerConfig
from bridgevla_ros.planner.language import normalise
from bridgevla_ros.simulation.tasks import sample_scene, task_pairs
from bridgevla_ros.simulation.world import World

DEVELOPMENT_SEED = 907_000
KINDS = {
    "common": "common phrasings, trained words",
    "phrasings": "phrasings never trained on, trained words",
    "words": "phrasings and words never trained on",
    "absent": "something that is not there: refused",
}


@dataclass
class Row:
    """What one model made of one kind of question.

    Attributes:
        asked, right: Questions; right are those with every anchor on its thing, or refused if absent.
        refused: By code.
        things: Anchors asked for, and those on their thing.
        pixels: From each right anchor to where the thing is pointed at in truth, of 320 of width.
        seconds, tokens_per_second: Of each answer.
    """

    asked: int = 0
    right: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    things: list[bool] = field(default_factory=list)
    pixels: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    tokens_per_second: list[float] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Shares with 95% intervals, and medians."""
        out: dict[str, Any] = {
            "asked": self.asked,
            "right": self.right / self.asked if self.asked else None,
            "ci95": list(wilson_interval(self.right, self.asked)),
            "refused": dict(self.refused),
        }
        for name in ("pixels", "seconds", "tokens_per_second"):
            values = getattr(self, name)
            out[name] = round(float(np.median(values)), 4) if values else None
        out["things_right"] = float(np.mean(self.things)) if self.things else None
        return out


def question(
    row: Row,
    backend: Backend,
    world: World,
    frame: RgbdFrame,
    words: str,
    wanted: Sequence[int],
    truth: Sequence[Any],
) -> None:
    """Ask, and count. ``wanted`` are indices of source and place, empty where it is to be refused."""
    started = time.perf_counter()
    row.asked += 1
    try:
        anchors = backend.anchors(frame, world.T_base_camera, normalise(words), 0)
    except BridgeError as error:
        row.refused[error.code.name] += 1
        row.right += not wanted
        row.things += [False] * len(wanted)
        return
    finally:
        row.seconds.append(time.perf_counter() - started)
        if isinstance(backend, ChatBackend):
            row.tokens_per_second.append(backend.usage.tokens_per_second)
    if not wanted:
        return
    found = under(anchors, world.render_segmentation())
    given = [anchors.source] if anchors.destination is None else [anchors.source, anchors.destination]
    hits = [i < len(found) and found[i] == w for i, w in enumerate(wanted)]
    row.things += hits
    row.right += all(hits) and len(found) == len(wanted)
    for hit, anchor, true in zip(hits, given, truth, strict=False):
        if hit:
            row.pixels.append(float(np.linalg.norm(anchor.pixel - true)) * 320.0 / frame.intrinsics.width)


def compare(backends: Sequence[Backend], seed: int, scenes: int, bar: Progress) -> dict[str, dict[str, Row]]:
    """Rows by backend and kind of question."""
    rows = {b.name: {kind: Row() for kind in KINDS} for b in backends}
    templates = read_wordings(resources.find_config(DEFAULT_WORDINGS))
    task, stage = bar.add_task("scenes", total=scenes), Stage()
    for number in range(scenes):
        rng = np.random.default_rng([seed + number, 0xC0])
        scene = sample_scene(seed + number)
        world, frame, _, seen = stage.show(scene)
        names = [o.name for o in scene.objects]
        pairs = [(names.index(a), names.index(b)) for a, b in task_pairs(scene)]
        pairs = [pair for pair in pairs if set(pair) <= set(seen)]
        bar.update(task, advance=1)
        if not pairs:
            continue
        wanted = pairs[int(rng.integers(len(pairs)))]
        things = [scene.objects[i] for i in wanted]
        true = TruthBackend(world, things[0].name, things[1].name).anchors(frame, world.T_base_camera, "", 0)
        assert true.destination is not None
        truth = (true.source.pixel, true.destination.pixel)
        said = {
            "common": fill(str(rng.choice(COMMON)), *(words_for(t, rng, "synonyms") for t in things)),
            "phrasings": fill(
                templates[number % len(templates)], *(words_for(t, rng, "synonyms") for t in things)
            ),
            "words": fill(
                templates[number % len(templates)], *(words_for(t, rng, "heldout") for t in things)
            ),
        }
        missing = absent_pair(scene, rng)
        if missing is not None:
            said["absent"] = fill(str(rng.choice(COMMON)), missing, things[1].name)
        for backend in backends:
            for kind, words in said.items():
                asked = () if kind == "absent" else wanted
                question(rows[backend.name][kind], backend, world, frame, words, asked, truth)
    stage.close()
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the comparison."""
    parser.add_argument("checkpoint", type=Path, help="folder that planner:=transformers takes")
    parser.add_argument("--convention", required=True, choices=CONVENTION_NAMES[1:], help="of its answers")
    parser.add_argument(
        "--seed", type=int, default=DEVELOPMENT_SEED, help="first scene (default: %(default)s)"
    )
    parser.add_argument("--scenes", type=int, default=100, help="to ask about (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")


def run(args: argparse.Namespace) -> int:
    """Compare, print the table; returns 0."""
    model = PlannerConfig(
        backend="transformers",
        weights=str(args.checkpoint),
        convention=args.convention,
        self_test=False,  # a model that cannot point shall show by how much
        max_new_tokens=64,
    )
    backends = [make_backend(PlannerConfig()), make_backend(model)]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        rows = compare(backends, args.seed, args.scenes, bar)
    table = Table("questions", "model", "right", "95%", "of", "things", "px", "ms", "tokens/s")
    for kind in KINDS:
        for name, mine in rows.items():
            table.add_row(kind, name, *_cells(mine[kind].as_json()))
    wide_console().print(table)
    print("; ".join(f"{kind}: {about}" for kind, about in KINDS.items()))
    result = {
        "seeds": [args.seed, args.seed + args.scenes - 1],
        "machine": platform.machine(),
        "models": {b.name: b.sha256 for b in backends},
        "rows": {name: {k: r.as_json() for k, r in mine.items()} for name, mine in rows.items()},
    }
    write_json(args.json, result)
    return 0


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    def number(name: str, scale: float = 1.0, digits: int = 0) -> str:
        return "" if row[name] is None else f"{scale * row[name]:.{digits}f}"

    low, high = row["ci95"]
    return (
        f"{number('right', 100)}%", f"{100 * low:.0f}-{100 * high:.0f}", str(row["asked"]),
        number("things_right", 100) + ("%" if row["things_right"] is not None else ""),
        number("pixels", 1, 1), number("seconds", 1000), number("tokens_per_second"),
    )  # fmt: skip


def main() -> int:
    """``python -m bridgevla_ros.evaluation.vlm_compare``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    raise SystemExit(main())
