"""How fast bags are replayed, node by node: ``bridgevla bench replay``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bridgevla_ros.bags.replay.engine import replay
from bridgevla_ros.bags.replay.result import ReplayResult
from bridgevla_ros.core import resources
from bridgevla_ros.core.errors import BridgeError, ErrorCode

DEFAULT = "test/replay/failed_grasp"
"""In the source tree; all six nodes have outputs in it."""
PROCESSES = 2
"""Requirement: five times real time on two cores."""


def measure(bag: Path | None) -> ReplayResult:
    """Replay a bag by two processes, as ``bridgevla replay`` does.

    Raises:
        BridgeError: BAD_INPUT where it cannot be replayed, or where none is named and none is installed.
    """
    if bag is None:
        try:
            bag = resources.find(DEFAULT)
        except FileNotFoundError as error:
            raise BridgeError(
                ErrorCode.BAD_INPUT, "no bag to replay: none ships with this installation",
                remedy="name one: bridgevla bench replay --bag BAG",
            ) from error  # fmt: skip
    result = replay(bag, processes=PROCESSES)
    if result.impossible:
        raise BridgeError(ErrorCode.BAD_INPUT, result.impossible, remedy="name another with --bag")
    return result


def show(result: ReplayResult, console: Console) -> None:
    """Print how many times real time each node alone takes, and all of them, by clock and by processor."""
    title = f"{result.path}: {result.recorded_seconds:.1f} s recorded"
    table = Table("node", "outputs", "s", "times real time", "s of processor", "times by it", title=title)
    recorded = result.recorded_seconds
    for node, tally in result.tallies.items():
        seconds, spent = result.reading + tally.seconds, tally.processor
        wall = (f"{seconds:.2f}", _times(result.speed_of(node)))
        table.add_row(f"{node} alone", str(tally.total), *wall, f"{spent:.2f}", _ratio(recorded, spent))
    total = str(sum(t.total for t in result.tallies.values()))
    spent = sum(t.processor for t in result.tallies.values())
    wall = (f"{result.seconds:.2f}", _times(result.speed))
    by_it = _ratio(recorded, spent / PROCESSES)
    table.add_row(f"all, {PROCESSES} processes", total, *wall, f"{spent:.2f}", by_it)
    table.add_row(
        "... with loading", total, f"{result.total_seconds:.2f}", _times(result.total_speed), "", ""
    )
    console.print(table)


def _ratio(recorded: float, seconds: float) -> str:
    return _times(recorded / seconds) if seconds > 0.0 else ""


def _times(speed: float) -> str:
    return f"{speed:.1f}" if math.isfinite(speed) else ""


def to_json(result: ReplayResult) -> dict[str, Any]:
    """Ratios and what they are made of."""
    said = result.to_json()
    names = ("bag", "recorded_seconds", "reading_seconds", "seconds", "total_seconds", "speed")
    return {name: said[name] for name in (*names, "speed_with_loading", "compared")}
