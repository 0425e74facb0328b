"""Replay bags again and again, once on a busy machine: does the same come out each time, to the bit?"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bridgevla_ros.bags.mapping import TopicMapping
from bridgevla_ros.bags.replay.fleet import Fleet, Job, Replayed
from bridgevla_ros.core.errors import BridgeError, ErrorCode

PLAN_MM, CHUNK = 1.0, {"same": 1e-5, "other": 1e-3}
"""Requirements: a plan within 1 mm; chunks within 1e-5 (m and rad) on the same machine, 1e-3 on another."""

_PLAN = ("anchor", "waypoint")
_CHUNK = {"chunk": 1e-3, "chunk rotation": math.pi / 180.0, "chunk joints": math.pi / 180.0}
"""Quantities of a chunk, and what makes m and rad of their units."""


@dataclass
class Stability:
    """All replays of one bag.

    Attributes:
        path: Of the bag.
        wanted: How many replays were asked for.
        replays: Those that came to their end.
        loaded: How many of them, the last ones, ran on a busy machine.
    """

    path: str
    wanted: int
    replays: list[Replayed] = field(default_factory=list)
    loaded: int = 0

    @property
    def impossible(self) -> str:
        """Why it cannot be replayed; empty where it can."""
        return next((one.result.impossible for one in self.replays if one.result.impossible), "")

    def _worst(self, factors: Mapping[str, float]) -> float | None:
        """Largest difference from what is expected, of any replay; None where no such output is compared."""
        found = [
            tally.largest[name][0] * factor
            for one in self.replays
            for tally in one.result.tallies.values()
            for name, factor in factors.items()
            if name in tally.largest
        ]
        return max(found, default=None)

    @property
    def plan(self) -> float | None:
        """Millimetres, of anchors and waypoints; None where no plan with any is compared."""
        return self._worst(dict.fromkeys(_PLAN, 1.0))

    @property
    def chunk(self) -> float | None:
        """Metres or radians, whichever is more; None where no chunk is compared."""
        return self._worst(_CHUNK)

    @property
    def outputs(self) -> int:
        """Compared in each replay."""
        return sum(t.total for t in self.replays[0].result.tallies.values()) if self.replays else 0

    @property
    def exact(self) -> int:
        """Replays in which every output is equal in every bit to what is expected."""
        return sum(one.result.exact for one in self.replays)

    @property
    def varying(self) -> list[str]:
        """Nodes that did not put out the same bits in every replay."""
        nodes = {node for one in self.replays for node in one.digests}
        return sorted(n for n in nodes if len({one.digests.get(n) for one in self.replays}) > 1)

    @property
    def tolerance(self) -> str:
        """ "same" or "other" machine."""
        return self.replays[0].result.tolerance if self.replays else "same"

    @property
    def stable(self) -> bool:
        """Everything comes out as expected within the requirements, and the same each time."""
        if (
            self.impossible
            or len(self.replays) < self.wanted
            or not all(one.result.same for one in self.replays)
        ):
            return False
        near = (self.plan or 0.0) <= PLAN_MM and (self.chunk or 0.0) <= CHUNK[self.tolerance]
        return near and not self.varying

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "bag": self.path,
            "stable": self.stable,
            "impossible": self.impossible,
            "wanted": self.wanted,
            "replays": len(self.replays),
            "under_load": self.loaded,
            "processes": len({one.process for one in self.replays}),
            "outputs": self.outputs,
            "plan_mm": _finite(self.plan),
            "chunk": _finite(self.chunk),
            "bit_equal": self.exact,
            "varying": self.varying,
            "tolerance": self.tolerance,
            "differences": sorted({str(d) for one in self.replays for d in one.result.differences})[:20],
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def stability(
    bags: Sequence[Path],
    nodes: Sequence[str] = ("all",),
    *,
    repeats: int = 20,
    load: bool = False,
    overrides: Mapping[str, Any] | None = None,
    mapping: TopicMapping | Path | None = None,
    tolerance: str = "auto",
    processes: int = 2,
    console: Console | None = None,
) -> list[Stability]:
    """Replay each bag several times, spread over processes that keep what they loaded.

    Args:
        bags: Folders or files of bags.
        nodes: As for ``replay``.
        repeats: Of each bag.
        load: The last replay of each bag runs beside twice as many busy processes as there are cores.
        overrides, mapping, tolerance: As for ``replay``.
        processes: How many replays side by side.
        console: Shows progress.

    Returns:
        Of each bag what there is; Ctrl-C ends the replaying, and keeps it.

    Raises:
        BridgeError: BAD_INPUT for what is no bag or no node, and for less than two replays.
    """
    if repeats < 2:
        raise BridgeError(
            ErrorCode.BAD_INPUT, "one replay tells nothing of others", value=repeats, limit=2.0,
            remedy="ask for 2 or more",
        )  # fmt: skip
    found = [Stability(str(bag), repeats) for bag in bags]
    jobs = [Job(bag, tuple(nodes), None, dict(overrides or {}), mapping, tolerance=tolerance) for bag in bags]
    calm = repeats - 1 if load else repeats
    waits = partial(track, total=len(jobs), console=console, disable=console is None)
    with Fleet(min(processes, repeats)) as fleet, suppress(KeyboardInterrupt):
        again = fleet.run([job for _ in range(calm) for job in jobs])
        for entry, one in zip(found * calm, waits(again, "replaying", total=calm * len(jobs)), strict=True):
            entry.replays.append(one)
        if load:
            with busy():
                for entry, one in zip(found, waits(fleet.run(jobs), "replaying under load"), strict=True):
                    entry.replays.append(one)
                    entry.loaded += 1
    return found


@contextmanager
def busy() -> Iterator[None]:
    """Keeps every core busy twice over for as long as it lasts."""
    context = get_context("spawn")
    until = context.Event()
    burning = [
        context.Process(target=_burn, args=(until,), daemon=True) for _ in range(2 * (os.cpu_count() or 1))
    ]
    for process in burning:
        process.start()
    try:
        yield
    finally:
        until.set()
        for process in burning:
            process.join()


def _burn(until: Any) -> None:
    values = np.random.default_rng(0).standard_normal((200, 200))
    while not until.is_set():
        np.linalg.norm(values @ values)


def show(found: Sequence[Stability], console: Console) -> None:
    """Print the table."""
    table = Table(box=None, pad_edge=False)
    for name in (
        "bag",
        "replays",
        "under load",
        "outputs",
        "plan",
        "chunk",
        "bit-equal",
        "each time the same",
    ):
        table.add_column(name, justify="left" if name == "bag" else "right")
    for entry in found:
        if entry.impossible:
            console.print(
                f"left out: {entry.path}: {entry.impossible}", soft_wrap=True, markup=False, style="red"
            )
            continue
        plan = "" if entry.plan is None else f"{entry.plan:.3g} mm"
        chunk = "" if entry.chunk is None else f"{entry.chunk:.2g}"
        same = f"no: {', '.join(entry.varying)}" if entry.varying else "yes"
        counts = (len(entry.replays), entry.loaded, entry.outputs)
        exact = f"{entry.exact} of {len(entry.replays)}"
        table.add_row(Path(entry.path).name, *map(str, counts), plan, chunk, exact, same)
    console.print(table)
    for entry in found:
        for line in sorted({str(d) for one in entry.replays for d in one.result.differences})[:3]:
            console.print(f"{Path(entry.path).name}: {line}", soft_wrap=True, markup=False)
    good = sum(entry.stable for entry in found)
    console.print(f"{good} of {len(found)} bags come out the same each time, within the requirements")
