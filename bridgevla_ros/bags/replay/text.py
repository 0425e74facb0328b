"""A replay's outcome in the terminal."""

from __future__ import annotations

import math

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bridgevla_ros.bags.replay.result import ReplayResult, Tally

_SHOWN = 12


def show(result: ReplayResult, console: Console) -> None:
    """Print verdict, counts and the first differences."""
    if result.impossible:
        console.print(f"[red]cannot be replayed[/]: {escape(result.impossible)}", soft_wrap=True)
        for line in result.reasons + result.notes:
            console.print(f"  {escape(line)}", style="dim", soft_wrap=True)
        return
    console.print(_table(result))
    for missing in result.missing[:_SHOWN]:
        console.print(f"[red]missing[/] {escape(str(missing))}", soft_wrap=True)
    for node, why in result.stopped.items():
        console.print(f"[red]stopped[/] {node}: {escape(why)}", soft_wrap=True)
    for difference in sorted(result.differences, key=lambda d: d.stamp)[:_SHOWN]:
        console.print(f"[red]differs[/] {escape(str(difference))}", soft_wrap=True)
    more = len(result.differences) + sum(result.left_out.values()) - _SHOWN
    if more > 0:
        console.print(f"        and {more} more")
    for reason in result.reasons:
        console.print(f"[yellow]because[/] {escape(reason)}", soft_wrap=True)
    for note in result.notes:
        console.print(f"  {escape(note)}", style="dim", soft_wrap=True)
    expected = f"golden outputs ({result.golden})" if result.golden else "the recording"
    end = (
        f"{result.recorded_seconds:.1f} s replayed in {result.seconds:.1f} s ({result.speed:.1f} times real "
    )
    end += f"time), {result.total_seconds:.1f} s with loading ({result.total_speed:.1f} times)"
    exact = ", equal in every bit" if result.exact else ""
    verdict = f"[green]same[/] as {escape(expected)}{exact}" if result.same else "[red]differs[/]"
    console.print(f"{verdict}; tolerances of the {result.tolerance} machine; {end}", soft_wrap=True)


def _table(result: ReplayResult) -> Table:
    table = Table(box=None, pad_edge=False)
    for name, justify in (("node", "left"), ("outputs", "right"), ("exact", "right"), ("differ", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("largest difference, tolerance")
    table.add_column("not compared")
    for node, tally in result.tallies.items():
        skipped = "; ".join(f"{n}: {why}" for why, n in tally.skipped.items())
        table.add_row(
            node, str(tally.total), str(tally.exact), str(tally.differing), largest(tally), escape(skipped)
        )
    return table


def largest(tally: Tally) -> str:
    """The quantity that comes nearest to its tolerance, or is farthest beyond it."""
    if not tally.largest:
        return ""

    def share(quantity: str) -> float:
        value, tolerance, _ = tally.largest[quantity]
        return value / tolerance if tolerance else (math.inf if value else 0.0)

    worst = max(tally.largest, key=share)
    value, tolerance, unit = tally.largest[worst]
    return f"{worst} {value:.3g} {unit}".rstrip() + f" ({tolerance:.2g})"
