"""Make a data set of bags: ``bridgevla dataset from-bags DIR -o OUT``.

Finds the tasks of every bag in DIR by their task id, checks each (rates, gaps, synchrony, depth, calibration,
outcome), and writes what is fit: OUT/lerobot (LeRobotDataset v3), OUT/bank (shards that `bridgevla train
expert --bank` takes; --no-bank leaves them out), OUT/report.html with pictures and OUT/report.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import track

from bridgevla_ros.bags.reader import find_bags
from bridgevla_ros.core.config import from_mapping, specs
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.datasets import report
from bridgevla_ros.datasets.bag_episodes import INFO, BagEpisode, columns, features, find_episodes
from bridgevla_ros.datasets.features import Feature
from bridgevla_ros.datasets.lerobot_writer import LeRobotWriter
from bridgevla_ros.datasets.quality import Check, QualityLimits, assess, fit, why_not


@dataclass
class Made:
    """What came of a folder of bags.

    Attributes:
        entries: All episodes, as the report lists them.
        refused: Bags that gave nothing, and why.
        episodes, frames: In the data set.
        bank_frames: In the shards.
    """

    entries: list[report.Entry] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    episodes: int = 0
    frames: int = 0
    bank_frames: int = 0


def from_bags(
    bags: Sequence[Path],
    out: Path,
    *,
    fps: int = 10,
    limits: QualityLimits | None = None,
    depth: bool = False,
    bank: bool = True,
    pictures: int = 50,
    mapping: Path | None = None,
) -> Made:
    """Write data set and report.

    Args:
        bags: Folders of bags.
        out: Folder; must not hold a data set yet.
        fps: Frames a second.
        limits: What episodes must hold to.
        depth: Keep depth images as well.
        bank: Write shards for training, too.
        pictures: Of how many episodes the report shows pictures.
        mapping: Names of another robot's bags.

    Raises:
        BridgeError: BAD_INPUT where ``out`` is taken.
    """
    if (out / "lerobot").exists() or (out / "bank").exists():
        raise BridgeError(
            ErrorCode.BAD_INPUT, f"{out} holds a data set already", remedy="name another folder"
        )
    limits = limits if limits is not None else QualityLimits()
    made, writer, wanted = Made(), None, {}
    rows: list[tuple[BagEpisode, int]] = []
    try:
        for path in track(bags, "bags"):
            try:
                episodes = find_episodes(path, mapping)
            except BridgeError as error:
                made.refused.append(f"{path}: {error.message}; {error.remedy}")
                continue
            for episode in episodes:
                if writer is None and fit(assess(episode, limits)):
                    wanted = features(episode, depth=depth)
                    robot = _robot(path, mapping)
                    writer = LeRobotWriter(out / "lerobot", wanted, fps=fps, robot_type=robot)
                entry = _one(episode, writer, wanted, fps, limits, len(made.entries) < pictures)
                made.entries.append(entry)
                if entry.index is not None:
                    made.episodes, made.frames = made.episodes + 1, made.frames + entry.frames
                    rows.append((episode, entry.index))
                    if bank:
                        made.bank_frames += _shard(out / "bank", episode, entry.index)
                episode.series.clear()  # images of one episode are enough to hold
    finally:
        if writer is not None:
            writer.close()
    _report(out, made, fps)
    return made


def _one(
    episode: BagEpisode,
    writer: LeRobotWriter | None,
    wanted: dict[str, Feature],
    fps: int,
    limits: QualityLimits,
    pictures: bool,
) -> report.Entry:
    """Assess an episode, and add it where it is fit."""
    checks = assess(episode, limits)
    index, frames = None, 0
    if writer is not None and fit(checks):
        try:
            values, stamps = columns(episode, wanted, fps)
            extra = {
                "bag": episode.bag.name,
                "task_id": episode.span.task_id,
                "code": episode.span.code.name,
                "retries": episode.span.retries,
                "success": episode.success,
            }
            if episode.there(INFO):
                extra["intrinsics"] = asdict(episode.series[INFO].values[0])
            index = writer.add_episode(values, episode.span.instruction, stamps=stamps, extra=extra)
            frames = len(stamps)
        except BridgeError as error:  # another camera or robot than that of the first bag
            checks = [*checks, Check("columns", 0.0, 1.0, "", False, error.message)]
    return report.Entry(
        f"{episode.bag.name}, {episode.span.task_id}",
        episode.span.instruction,
        checks,
        index,
        frames,
        report.strip(episode) if pictures else b"",
        report.plots(episode) if pictures else b"",
    )


def _shard(folder: Path, episode: BagEpisode, index: int) -> int:
    """Write the training shard of an episode; returns how many frames it has."""
    from bridgevla_ros.datasets.bag_bank import to_bank

    shard = to_bank(episode, index)
    if shard is None:
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    shard.save(folder / f"bank-{int(shard['episode'][0])}.npz")
    return len(shard)


def _robot(path: Path, mapping: Path | None) -> str:
    from bridgevla_ros.bags.reader import Bag

    run = Bag(path, mapping).run
    return run.robot if run is not None else ""


def _report(out: Path, made: Made, fps: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    about = (
        f"{made.episodes} of {len(made.entries)} episodes were fit: {made.frames} frames at {fps} Hz in "
        f"lerobot, {made.bank_frames} frames in bank."
    )
    report.write(out / "report.html", made.entries, made.refused, about)
    found: dict[str, Any] = {
        "episodes": made.episodes,
        "frames": made.frames,
        "bank_frames": made.bank_frames,
        "fps": fps,
        "refused": made.refused,
        "found": [report.to_json(e) for e in made.entries],
    }
    (out / "report.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``bridgevla dataset from-bags``."""
    parser.add_argument("bags", type=Path, nargs="+", help="folders with bags, or bags")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write into")
    parser.add_argument("--fps", type=int, default=10, help="frames a second (default: %(default)s)")
    parser.add_argument("--depth", action="store_true", help="keep depth images as well (float32, lossless)")
    parser.add_argument("--no-bank", action="store_true", help="leave out the shards for training")
    parser.add_argument(
        "--all", action="store_true", help="take failed tasks as well (the other checks still count)"
    )
    parser.add_argument("--mapping", type=Path, default=None, help="YAML file with names of another robot")
    parser.add_argument("--pictures", type=int, default=50, help="episodes with pictures in the report")
    for name, (kind, default, spec) in specs(QualityLimits).items():
        if kind is not bool:
            words = f"{spec.description}{f', {spec.unit}' if spec.unit else ''} (default: %(default)s)"
            parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default, help=words)


def run(args: argparse.Namespace) -> int:
    """``bridgevla dataset from-bags``; 0 where an episode was fit, 1 where none was."""
    values = {n: getattr(args, n) for n, (kind, _, _) in specs(QualityLimits).items() if kind is not bool}
    limits = from_mapping(QualityLimits, {**values, "success": not args.all}, "limits")
    bags = [bag for folder in args.bags for bag in find_bags(folder)]
    made = from_bags(
        bags,
        args.output,
        fps=args.fps,
        limits=limits,
        depth=args.depth,
        bank=not args.no_bank,
        pictures=args.pictures,
        mapping=args.mapping,
    )
    print(f"{made.episodes} of {len(made.entries)} episodes, {made.frames} frames: {args.output / 'lerobot'}")
    for entry in made.entries:
        if entry.index is None:
            print(f"  left out: {entry.title}: {why_not(entry.checks)}")
    for line in made.refused:
        print(f"  nothing from {line}")
    print(f"report: {args.output / 'report.html'}")
    return 0 if made.episodes else 1
