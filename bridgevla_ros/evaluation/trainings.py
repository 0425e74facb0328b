"""Trainings that experiments compare: run in processes of their own, then rolled out."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bridgevla_ros.core import resources
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.evaluation import rows
from bridgevla_ros.evaluation.experiment_sweeps import GUIDANCE_NOISE, run_kept
from bridgevla_ros.evaluation.suites import specs_for

if TYPE_CHECKING:
    from bridgevla_ros.training.data_bank import Bank

MEASUREMENTS = 12
"""Held-out measurements along each training."""


@dataclass(frozen=True)
class Training:
    """A training to have: name (its folder), and options of ``bridgevla train expert``."""

    name: str
    options: tuple[str, ...]


def run_trainings(
    args: argparse.Namespace, wanted: Sequence[Training], kept: Sequence[int] = ()
) -> dict[str, Path]:
    """Folders of the trainings; those that are finished are taken as they are, begun ones go on.

    Each runs in a process of its own (its words go to train.log in its folder), one after the other: a
    training uses a core, and another draws its samples.

    Args:
        args: Of the command.
        wanted: The trainings.
        kept: Steps with clouds of which a finished one must have kept a checkpoint.

    Raises:
        BridgeError: BAD_INPUT, no bank, or no such checkpoint; MODEL_ERROR, a training failed.
    """
    root = args.runs or Path("runs/experiments") / args.name
    need_bank(args.bank)
    folders = {training.name: root / training.name for training in wanted}
    config = _config(args, root)
    left = [t for t in wanted if not (folders[t.name] / "checkpoint" / "expert.json").exists()]
    for training in wanted:
        if training not in left:
            for step in kept:
                kept_after(folders[training.name], step, args.steps)
    for training in left:
        _train(args, training, folders[training.name], config)
    return folders


def need_bank(bank: Path) -> None:
    """Raise BAD_INPUT where the folder holds no episodes."""
    if not any(bank.glob("*")):
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{bank} holds no episodes",
            remedy="make some with bridgevla data generate, or name their folder with --bank",
        )


def held_out(bank: Path) -> Bank:
    """The part of a bank that trainings only measure."""
    from bridgevla_ros.training.appf import HELD_OUT
    from bridgevla_ros.training.data_bank import Bank

    return Bank.load(bank).split(HELD_OUT)[1]


def _config(args: argparse.Namespace, root: Path) -> Path:
    """The configuration with more frequent measurements, beside the trainings."""
    values = yaml.safe_load(resources.find_config(args.config).read_text(encoding="utf-8"))
    values["measure_every"] = max(1, args.steps // MEASUREMENTS)
    values["save_every"] = max(1, args.steps // 4)
    for stage in ("stage1", "stage2"):
        steps = args.stage1_steps if stage == "stage1" else args.steps
        values[stage]["warmup"] = min(values[stage]["warmup"], max(1, steps // 10))
    root.mkdir(parents=True, exist_ok=True)
    path = root / "config.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def _train(args: argparse.Namespace, training: Training, folder: Path, config: Path) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "bridgevla_ros.cli", "train", "expert", "--config", str(config.resolve()),
        "--bank", str(args.bank), "--output", str(folder), "--stage1-steps", str(args.stage1_steps),
        "--stage2-steps", str(args.steps), *training.options,
    ]  # fmt: skip
    if (folder / "state.json").exists():
        command.append("--resume")
    log = folder / "train.log"
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with log.open("a", encoding="utf-8") as out, Progress(*columns) as bar:
        out.write(" ".join(command) + "\n")
        out.flush()
        task = bar.add_task(f"training {training.name}", total=args.steps)
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                curve = read_curve(folder)
                bar.update(task, completed=curve[-1]["clouds"] if curve else 0)
                time.sleep(1.0)
        except BaseException:
            process.terminate()
            process.wait(timeout=30)
            raise
    if process.returncode != 0:
        tail = "".join(log.read_text(encoding="utf-8").splitlines(keepends=True)[-5:])
        raise BridgeError(
            ErrorCode.MODEL_ERROR,
            f"training {training.name} ended with {process.returncode}: {tail.strip()}",
            remedy=f"see {log}; run the experiment again to go on",
        )


def one_thread() -> None:
    """The network is small: on a busy machine more threads wait for one another."""
    import torch

    torch.set_num_threads(1)


def read_curve(folder: Path) -> list[dict[str, Any]]:
    """Measurements along a training; empty before the first. The last line may be half written."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    points = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            point = json.loads(line)
        except ValueError:
            break
        if point.get("held_out"):
            points.append(point)
    return points


def kept_after(folder: Path, step: int, last: int) -> Path:
    """Folder of the checkpoint that a training of ``last`` steps kept.

    Raises:
        BridgeError: BAD_INPUT, there is none.
    """
    path = folder / ("checkpoint" if step == last else f"checkpoint-{step}")
    if not (path / "expert.json").exists():
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{folder} keeps no checkpoint of {step} steps with clouds",
            remedy="train anew in another --runs, or measure the end alone with --checkpoints 6",
        )
    return path


def rollouts(
    args: argparse.Namespace, made: dict[str, Any], checkpoints: Mapping[str, Path], episodes: int
) -> list[rows.Row]:
    """A row a checkpoint's folder, and ik: the same seeds, demonstrator's waypoints, off."""
    suite = args.suite or "mid"
    common: dict[str, Any] = {"guidance": "oracle", "guidance_noise": GUIDANCE_NOISE}
    wanted = [
        rows.RowSpec(
            name,
            tuple(specs_for(suite, args.seed, episodes, policy="expert", weights=str(folder), **common)),
        )
        for name, folder in checkpoints.items()
    ]
    wanted.append(rows.RowSpec("ik", tuple(specs_for(suite, args.seed, episodes, policy="ik", **common))))
    hashes = {name: rows.weights_sha256(str(folder))[:16] for name, folder in checkpoints.items()}
    made["expert weights"] = ", ".join(f"{name} {sha}" for name, sha in hashes.items())
    return run_kept(args, made, wanted)
