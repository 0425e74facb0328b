"""What suites, probe and experiments share of the command line, and of what they leave behind."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

POLICIES = ("expert", "ik", "snap")
EXPERT_ALONE = ("main", "named", "black", "grounding", "gate")
"""Suites that ask what the whole does; all others compare policies, unless one is named."""


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that suites, probe and experiments share."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a report as one HTML file")
    parser.add_argument(
        "--pictures",
        type=int,
        default=3,
        help="episodes drawn in the report, of suites that have any (default: 3)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from what an earlier run with the same --json left"
    )


def policies_of(args: argparse.Namespace) -> tuple[str, ...]:
    """The policies that are asked for; all means every row, None what the suite or the probe is for."""
    policy = args.policy
    if policy is None:
        policy = "expert" if args.probe is not None or args.suite in EXPERT_ALONE else "all"
    return POLICIES if policy == "all" else tuple(dict.fromkeys(policy.split(",")))


def weights_of(args: argparse.Namespace) -> tuple[str, ...]:
    """Folders of the experts' checkpoints that a run takes; none where no expert runs."""
    return (args.weights,) if "expert" in policies_of(args) else ()


def open_journal(args: argparse.Namespace, made: dict[str, Any]) -> Any:
    """What keeps the answers of a long run beside its JSON; None without one."""
    from bridgevla_ros.evaluation.fleet import Journal

    if args.json is None:
        return None
    stable = {name: made[name] for name in ("version", "expert weights")}
    return Journal(args.json.with_suffix(".journal.jsonl"), stable, resume=args.resume)


def write_json(path: Path | None, document: dict[str, Any]) -> None:
    """Write figures, whole or not at all."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    print(f"figures: {path}")
