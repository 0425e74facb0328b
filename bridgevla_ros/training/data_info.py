"""Say what a bank holds: episodes, frames, points, contacts by kind, states of experts."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.table import Table

from bridgevla_ros.console import wide_console
from bridgevla_ros.training.data_bank import Bank


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bridgevla data info``."""
    parser.add_argument(
        "bank", type=Path, nargs="?", default=Path("runs/expert/bank"), help="folder or shard"
    )


def run(args: argparse.Namespace) -> int:
    """Print the tables."""
    bank = Bank.load(args.bank)
    seeds = np.unique(bank["episode"])
    console = wide_console()
    console.print(
        f"{len(seeds)} episodes (seeds {seeds.min()} to {seeds.max()}), {len(bank)} frames, "
        f"{len(bank.points)} points, {len(bank.own['frame']) if bank.own else 0} states of experts"
    )
    table = Table("contact", "frames", "points", "of the target", "rivals nearby")
    targets, rivals = bank.targets(), np.isfinite(bank["others"][..., 0]).sum(axis=1)
    for index, name in enumerate(bank.classes):
        mine = bank["class"] == index
        table.add_row(
            name,
            str(int(mine.sum())),
            *(f"{np.mean(v[mine]):.0f}" for v in (bank["count"], targets)),
            f"{np.mean(rivals[mine]):.1f}",
        )
    console.print(table)
    return 0
