"""What is in a data set: ``bridgevla dataset info DATASET``: columns, units, episodes, size."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.table import Table

from bridgevla_ros.console import wide_console
from bridgevla_ros.datasets.reading import open_dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``bridgevla dataset info``."""
    parser.add_argument("dataset", type=Path, help="folder of a LeRobotDataset v3, or of a data set in MCAP")


def run(args: argparse.Namespace) -> int:
    """``bridgevla dataset info``."""
    data = open_dataset(args.dataset)
    console = wide_console()
    size = sum(p.stat().st_size for p in args.dataset.rglob("*") if p.is_file())
    console.print(
        f"{args.dataset}: {len(data.episodes)} episodes, {len(data)} frames at {data.fps:g} Hz, "
        f"{size / 1e6:.1f} MB, robot {data.robot_type or 'not named'}",
        soft_wrap=True,
    )
    table = Table("column", "type", "shape", "unit", "what", box=None)
    for name, feature in data.features.items():
        shape = "x".join(map(str, feature.shape))
        kind = "depth" if feature.depth else feature.dtype
        table.add_row(name, kind, shape, feature.unit, feature.description)
    console.print(table)
    tasks: dict[str, int] = {}
    for episode in data.episodes:
        tasks[episode.task] = tasks.get(episode.task, 0) + 1
    for task, count in sorted(tasks.items(), key=lambda item: -item[1])[:20]:
        console.print(f"  {count:5d}  {task}", markup=False)
    return 0
