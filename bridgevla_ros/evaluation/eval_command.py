"""``bridgevla eval``: run a suite, print its table, write its JSON."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

POLICIES = ("expert", "ik", "snap")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bridgevla eval``."""
    from bridgevla_ros.evaluation.suites import SUITES

    described = "; ".join(f"{name}: {text}" for name, text in SUITES.items())
    parser.add_argument(
        "--suite",
        default="main",
        choices=[*SUITES, "grounding"],
        help=f"what to run. {described}; grounding: the planner's anchors alone",
    )
    parser.add_argument(
        "--policy", default="expert", help=f"{', '.join(POLICIES)}, a list with commas, or all (one row each)"
    )
    parser.add_argument(
        "--planner",
        default="embedded",
        choices=("embedded", "truth"),
        help="who finds the anchors; truth: the simulator, to measure what follows (default: %(default)s)",
    )
    parser.add_argument(
        "--episodes", type=int, default=None, help="scenes to run (default: 50; grounding: 300)"
    )
    parser.add_argument("--seed", type=int, default=None, help="first seed (default: 1000; grounding: 5000)")
    parser.add_argument("--workers", type=int, default=0, help="processes (default: one a core)")
    parser.add_argument(
        "--guidance-noise",
        nargs=2,
        type=float,
        default=(0.0, 0.0),
        metavar=("METRES", "DEGREES"),
        help="standard deviation of an error added once to each plan",
    )
    parser.add_argument(
        "--depth-noise", type=float, default=0.0, metavar="METRES", help="noise added to each depth pixel"
    )
    parser.add_argument("--wordings", type=Path, help="grounding: one template a line, {object} and {place}")
    parser.add_argument(
        "--words",
        choices=("canonical", "synonyms", "heldout"),
        default="synonyms",
        help="grounding: words for colours and things: the plain one, any trained, or never trained",
    )
    parser.add_argument("--json", type=Path, help="write the figures here")


def run(args: argparse.Namespace) -> int:
    """Run the suite; 0 when it ran, 2 for a bad option."""
    if args.suite == "grounding":
        from bridgevla_ros.evaluation.grounding import DEFAULT_EPISODES, DEFAULT_SEED
        from bridgevla_ros.evaluation.grounding import run as run_grounding

        args.episodes = DEFAULT_EPISODES if args.episodes is None else args.episodes
        args.seed = DEFAULT_SEED if args.seed is None else args.seed
        return run_grounding(args)
    policies = POLICIES if args.policy == "all" else tuple(args.policy.split(","))
    unknown = [p for p in policies if p not in POLICIES]
    if unknown:
        print(f"policy {unknown[0]!r}; expected one of {', '.join(POLICIES)}, or all")
        return 2
    episodes = 50 if args.episodes is None else args.episodes
    if episodes < 1:
        print(f"--episodes is {episodes}; it must be 1 or more")
        return 2
    rows = [_row(args, policy, episodes) for policy in policies]
    _print_table(rows)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        document: Any = rows[0] if len(rows) == 1 else {"rows": rows}
        args.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"figures: {args.json}")
    return 0


def _row(args: argparse.Namespace, policy: str, episodes: int) -> dict[str, Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from bridgevla_ros.evaluation.suites import run_suite, specs_for

    seed = 1000 if args.seed is None else args.seed
    settings = {
        "policy": policy,
        "planner": args.planner,
        "guidance_noise": tuple(args.guidance_noise),
        "depth_noise": args.depth_noise,
    }
    total = len(specs_for(args.suite, seed, episodes))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task(f"{args.suite} {policy}", total=total)
        wins = 0

        def on_result(result: Any) -> None:
            nonlocal wins
            wins += result.success
            if not result.success:
                bar.console.print(
                    f"seed {result.seed} {result.cause}: {result.instruction!r} {result.message}"
                )
            bar.update(task, advance=1, description=f"{args.suite} {policy} {wins} succeeded")

        workers = args.workers or os.cpu_count() or 1
        return run_suite(args.suite, seed, episodes, min(workers, total), on_result, **settings)


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "suite", "policy", "planner", "success", "95% interval", "episodes", "wall s", "failures by cause"
    )
    for row in rows:
        low, high = row["ci95"]
        failures = ", ".join(f"{cause} {n}" for cause, n in row["failures"].items()) or "none"
        table.add_row(
            row["suite"],
            row["policy"],
            row["planner"],
            f"{100 * row['success_rate']:.0f}%",
            f"{100 * low:.0f}-{100 * high:.0f}%",
            str(row["episodes"]),
            f"{row['seconds']:.0f}",
            failures,
        )
    console = Console()
    if not console.is_terminal:
        console.width = 140  # a log or a file: no folding at 80 columns
    console.print(table)
