"""How fast bags are replayed, node by node and as a whole command: ``bridgevla bench replay``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bridgevla_ros.core import resources
from bridgevla_ros.core.errors import BridgeError, ErrorCode

DEFAULT = "test/replay/failed_grasp"
"""In the source tree; all six nodes have outputs in it."""
PROCESSES = 2
"""Requirement: five times real time on two cores."""


def measure(bag: Path | None) -> dict[str, Any]:
    """Run ``bridgevla replay`` on a bag, by two processes, and clock the whole command.

    Returns:
        What the command writes as JSON, ``command_seconds`` from its start to its end by the clock, and
        ``command_processor_seconds`` of all its processes.

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
    with tempfile.TemporaryDirectory(prefix="bridgevla-bench-") as folder:
        outcome = Path(folder) / "outcome.json"
        command = [sys.executable, "-m", "bridgevla_ros.cli", "replay", str(bag), "--jobs", str(PROCESSES)]
        began, before = time.perf_counter(), os.times()
        ran = subprocess.run(
            [*command, "--json", str(outcome)], capture_output=True, text=True, errors="replace", check=False
        )
        seconds, after = time.perf_counter() - began, os.times()
        said: dict[str, Any] = json.loads(outcome.read_text(encoding="utf-8")) if outcome.is_file() else {}
    if not said or said["impossible"]:
        why = said.get("impossible") or ran.stderr.strip()[-500:] or f"status {ran.returncode}"
        raise BridgeError(ErrorCode.BAD_INPUT, why, remedy="name another with --bag")
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return said | {"command_seconds": round(seconds, 3), "command_processor_seconds": round(spent, 3)}


def show(said: dict[str, Any], console: Console) -> None:
    """Print how many times real time each node alone takes, and all of them, by clock and by processor."""
    recorded, nodes = said["recorded_seconds"], said["compared"]
    title = f"{said['bag']}: {recorded:.1f} s recorded"
    table = Table("node", "outputs", "s", "times real time", "s of processor", "times by it", title=title)

    def row(name: str, outputs: int, seconds: float, spent: float, processes: int) -> None:
        wall = (f"{seconds:.2f}", _ratio(recorded, seconds))
        table.add_row(name, str(outputs), *wall, f"{spent:.2f}", _ratio(recorded, spent / processes))

    for node, tally in nodes.items():
        seconds = said["reading_seconds"] + tally["seconds"]
        row(f"{node} alone", _outputs(tally), seconds, tally["processor_seconds"], 1)
    total = sum(_outputs(tally) for tally in nodes.values())
    spent = sum(tally["processor_seconds"] for tally in nodes.values())
    row(f"all, {PROCESSES} processes", total, said["seconds"], spent, PROCESSES)
    row("the whole command", total, said["command_seconds"], said["command_processor_seconds"], PROCESSES)
    console.print(table)
    console.print(
        "The command: starting Python, loading programs and weights, reading, replaying, comparing."
    )


def _outputs(tally: dict[str, Any]) -> int:
    return sum(tally["outputs"].values())


def _ratio(recorded: float, seconds: float) -> str:
    return f"{recorded / seconds:.1f}" if seconds > 0.0 else ""


def to_json(said: dict[str, Any]) -> dict[str, Any]:
    """Ratios and what they are made of."""
    names = ("bag", "recorded_seconds", "reading_seconds", "seconds", "total_seconds", "speed")
    timed = ("speed_with_loading", "command_seconds", "command_processor_seconds", "compared")
    command = said["recorded_seconds"] / said["command_seconds"]
    return {name: said[name] for name in (*names, *timed)} | {"speed_of_command": round(command, 2)}
