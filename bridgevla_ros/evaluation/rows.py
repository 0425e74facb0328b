"""Rows of an evaluation: the same seeded episodes for each policy, counted, compared pair by pair, shown."""

from __future__ import annotations

import dataclasses
import platform
import shlex
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridgevla_ros.bags.provenance import commit
from bridgevla_ros.console import wide_console
from bridgevla_ros.evaluation import plots
from bridgevla_ros.evaluation.fleet import Answer, Journal, Piece, Watch, run_pieces
from bridgevla_ros.evaluation.report import Plot, Section, Table
from bridgevla_ros.evaluation.spec import EpisodeResult, EpisodeSpec
from bridgevla_ros.evaluation.stats import interval, paired_difference, percent, wilson_interval
from bridgevla_ros.evaluation.suites import summarise

Row = dict[str, Any]


@dataclass(frozen=True)
class RowSpec:
    """A row to fill: its name in tables and its episodes."""

    name: str
    specs: tuple[EpisodeSpec, ...]


def episode(spec: EpisodeSpec) -> Answer:
    """Run one episode; one that breaks is a failure with cause ERROR and the place in its message.

    Hours of other episodes are not thrown away for it, and it is not hidden either.
    """
    if spec.suite == "robosuite":
        from bridgevla_ros.evaluation.robosuite import episode as cell
    else:
        from bridgevla_ros.evaluation import episode as cell  # type: ignore[no-redef]

    try:
        return dataclasses.asdict(cell.run_episode(spec))
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        return dataclasses.asdict(
            EpisodeResult(
                suite=spec.suite, seed=spec.seed, variant=spec.variant, policy=spec.policy,
                planner=spec.planner, instruction="", source="", destination="", success=False,
                cause="ERROR", code="", message=message, moved=(), relations=(), plans=0,
                sim_seconds=0.0, wall_seconds=0.0,
            )
        )  # fmt: skip


def run_rows(
    rows: Sequence[RowSpec], *, workers: int = 0, journal: Journal | None = None, what: str = "episodes"
) -> list[Row]:
    """Run all episodes of all rows; seed by seed, so that a run that is stopped has whole pairs.

    Returns:
        A row each, as of ``suites.summarise`` with ``name``, ``settings`` and ``tasks`` besides.
    """
    order = sorted(
        ((r, i) for r, row in enumerate(rows) for i in range(len(row.specs))), key=lambda at: (at[1], at[0])
    )
    pieces = [Piece(episode, rows[r].specs[i]) for r, i in order]
    answers: dict[tuple[int, int], Answer] = {}
    with Watch(what, len(pieces)) as watch:
        for index, answer in run_pieces(pieces, workers, journal):
            at = order[index]
            answers[at] = answer
            name = rows[at[0]].name
            watch.saw(name, bool(answer["success"]), _note(name, answer))
    return [
        row_of(row, [answers[r, i] for i in range(len(row.specs))]) for r, row in enumerate(rows) if row.specs
    ]


def _note(name: str, answer: Answer) -> str:
    if answer["success"]:
        return ""
    return f"{name}, seed {answer['seed']}: {answer['cause']}: {answer['instruction']!r} {answer['message']}"


def row_of(row: RowSpec, answers: Sequence[Answer]) -> Row:
    """Count a row's answers."""
    results = [EpisodeResult(**answer) for answer in answers]
    counted = summarise(results, round(sum(r.wall_seconds for r in results), 1))
    tasks: dict[str, list[EpisodeResult]] = {}
    for result in results:
        tasks.setdefault(str(getattr(result, "task", "")), []).append(result)
    settings = {
        f.name: getattr(row.specs[0], f.name)
        for f in dataclasses.fields(EpisodeSpec)
        if f.name not in ("seed", "variant")
    }
    by_task = {name: _count(some) for name, some in sorted(tasks.items())} if len(tasks) > 1 else {}
    return {"name": row.name, **counted, "settings": settings, "tasks": by_task}


def _count(results: Sequence[EpisodeResult]) -> dict[str, Any]:
    wins = sum(r.success for r in results)
    causes: dict[str, int] = {}
    for result in results:
        if not result.success:
            causes[result.cause] = causes.get(result.cause, 0) + 1
    return {
        "success_rate": wins / len(results),
        "ci95": list(wilson_interval(wins, len(results))),
        "episodes": len(results),
        "failures": causes,
    }


def differences(rows: Sequence[Row], first: str = "") -> list[dict[str, Any]]:
    """How the first row (or the one named) differs from each other one, on the seeds that both have."""
    if not rows:
        return []
    lead = next((r for r in rows if r["name"] == first), rows[0])
    found = []
    for other in rows:
        if other is lead:
            continue
        mine, theirs = _outcomes(lead), _outcomes(other)
        shared = sorted(mine.keys() & theirs.keys())
        table = [[0, 0], [0, 0]]
        for key in shared:
            table[not mine[key]][not theirs[key]] += 1
        (both, only_first), (only_second, neither) = table
        value, low, high = paired_difference(both, only_first, only_second, neither)
        found.append(
            {
                "first": lead["name"],
                "second": other["name"],
                "difference": value,
                "ci95": [low, high],
                "episodes": len(shared),
                "first_only": only_first,
                "second_only": only_second,
            }
        )
    return found


def _outcomes(row: Row) -> dict[tuple[int, int], bool]:
    return {(d["seed"], d["variant"]): bool(d["success"]) for d in row["details"]}


# -- where figures come from -----------------------------------------------------------------------


def command_line() -> str:
    """The command that runs, as one would type it."""
    words = list(sys.argv)
    name = Path(words[0]).name
    head = ["bridgevla"] if name in ("bridgevla", "__main__.py") else ["bridgevla", name]
    return shlex.join([*head, *words[1:]])


def weights_sha256(folder: str = "") -> str:
    """Hash of an expert's checkpoint; of the one that ships, without a folder."""
    from bridgevla_ros.expert import checkpoint

    return checkpoint.load(folder).sha256


def provenance(weights: Sequence[str] = ()) -> dict[str, Any]:
    """What else one must know to get the same figures: versions, experts' weights (if any), machine."""
    from bridgevla_ros.cli import version

    made: dict[str, Any] = {"command": command_line(), "version": version()}
    if source := commit(but="docs"):
        made["commit"] = source
    made["expert weights"] = ", ".join(dict.fromkeys(weights_sha256(w)[:16] for w in weights)) or "none"
    made["machine"] = f"{platform.machine()}, {_cores()} cores, Python {platform.python_version()}"
    made["date"] = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return made


def _cores() -> int:
    from bridgevla_ros.evaluation.fleet import cores

    return cores()


# -- how they are shown ----------------------------------------------------------------------------


def causes(failures: dict[str, int]) -> str:
    """E.g. "GRASP_FAILED 3, TIMEOUT 1"."""
    return ", ".join(f"{cause} {n}" for cause, n in failures.items()) or "none"


def table(rows: Sequence[Row]) -> Table:
    """A line a row, and below it one for each of its tasks."""
    header = ("policy", "task", "success", "95% interval", "episodes", "failures by cause", "seconds")
    lines = []
    for row in rows:
        lines.append(
            _line(row["name"], "all" if row["tasks"] else row["suite"], row, f"{row['seconds']:.0f}")
        )
        lines += [_line("", name, task, "") for name, task in row["tasks"].items()]
    return Table(
        header,
        tuple(lines),
        "Intervals: Wilson, 95%. Success is the simulator's judgement. Seconds: wall time of the episodes, "
        "added up.",
    )


def _line(name: str, task: str, counted: dict[str, Any], seconds: str) -> tuple[str, ...]:
    return (
        name,
        task,
        percent(counted["success_rate"]),
        interval(counted["ci95"]),
        str(counted["episodes"]),
        causes(counted["failures"]),
        seconds,
    )


def difference_table(found: Sequence[dict[str, Any]]) -> Table:
    """A line a comparison."""
    lines = tuple(
        (
            f"{d['first']} minus {d['second']}",
            f"{100 * d['difference']:+.0f} points",
            f"{100 * d['ci95'][0]:+.0f} to {100 * d['ci95'][1]:+.0f}",
            f"{d['first_only']} : {d['second_only']}",
            str(d["episodes"]),
        )
        for d in found
    )
    return Table(
        ("comparison", "difference", "95% interval", "won by one alone", "pairs"),
        lines,
        "On the same seeds, pair by pair: Newcombe's square-and-add interval (1998, method 10).",
    )


def sections(rows: Sequence[Row], compared: Sequence[dict[str, Any]]) -> tuple[Section, ...]:
    """Success, comparisons and failures, with their plots."""
    names = list(dict.fromkeys(task for row in rows for task in row["tasks"]))

    def rate(counted: dict[str, Any]) -> plots.Rate:
        return counted["success_rate"], counted["ci95"][0], counted["ci95"][1]

    groups = {"all tasks": {row["name"]: rate(row) for row in rows}}
    for name in names:
        groups[name] = {row["name"]: rate(row["tasks"][name]) for row in rows if name in row["tasks"]}
    shown = [
        Section(
            "Success",
            tables=(table(rows),),
            plots=(Plot(plots.success(groups), "Success of each policy; the bar is its 95% interval."),),
        )
    ]
    if compared:
        shown.append(Section("Policies against each other", tables=(difference_table(compared),)))
    if any(row["failures"] for row in rows):
        figure = plots.failures(
            {row["name"]: row["failures"] for row in rows}, {row["name"]: row["episodes"] for row in rows}
        )
        shown.append(
            Section(
                "Failures by cause",
                "A code of the task where it refused or gave up; otherwise what was wrong although the task "
                "believed that it was done.",
                plots=(Plot(figure, "Failed episodes by cause, in percent of all episodes of the policy."),),
            )
        )
    return tuple(shown)


def print_tables(tables: Sequence[Table]) -> None:
    """To the terminal, or into a file."""
    from rich.table import Table as RichTable

    console = wide_console()
    for one in tables:
        shown = RichTable(*one.header)
        for line in one.rows:
            shown.add_row(*line)
        console.print(shown)
        if one.note:
            console.print(one.note, style="dim", highlight=False, markup=False)
