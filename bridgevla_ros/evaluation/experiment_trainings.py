"""Experiments about training: APPF against joint training, goal noise in training, calibration."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from scipy.stats import spearmanr

from bridgevla_ros.core import resources
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.evaluation import plots, rows
from bridgevla_ros.evaluation.experiment_sweeps import GUIDANCE_NOISE, Found, rate_of, run_kept, sweep_table
from bridgevla_ros.evaluation.report import Plot, Section, Table
from bridgevla_ros.evaluation.stats import interval, percent
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


# -- trainings -------------------------------------------------------------------------------------


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
    _need_bank(args.bank)
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


def _need_bank(bank: Path) -> None:
    if not any(bank.glob("*")):
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{bank} holds no episodes",
            remedy="make some with bridgevla data generate, or name their folder with --bank",
        )


def _held_out(bank: Path) -> Bank:
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


# -- appf ------------------------------------------------------------------------------------------

CURVES = {
    "pick_mm": "error at the grasp, mm (median)",
    "place_mm": "error at the place, mm (median)",
    "over_10": "share of errors over 10 mm",
}
"""Held-out figure -> axis."""
SIXTHS = 6
"""Parts of a training, after each of which a checkpoint is kept."""


def appf(args: argparse.Namespace, made: dict[str, Any]) -> Found:
    """Trajectories first, then clouds; against both together from the start; against clouds alone."""
    keep = ("--keep-every", str(max(1, args.steps // SIXTHS)))
    steps = checkpoint_steps(args.steps, args.checkpoints)
    folders = run_trainings(
        args,
        [
            Training("appf", keep),
            Training("joint", ("--ablation", "joint", *keep)),
            Training("clouds alone", ("--ablation", "skip-stage1", *keep)),
        ],
        steps,
    )
    curves = {name: read_curve(folder) for name, folder in folders.items()}
    origins = _origins(args, folders)
    reached = [found for metric in CURVES if (found := steps_to_match(curves, metric)) is not None]
    weights = {
        f"{name}, {at} steps": kept_after(folder, at, args.steps)
        for name, folder in folders.items()
        for at in steps
    }
    filled = _rollouts(args, made, weights, args.episodes or 40)
    by_name = {row["name"]: row for row in filled}
    along = {name: {at: by_name[f"{name}, {at} steps"] for at in steps} for name in folders}
    success = success_to_match(along["joint"], along["appf"])
    compared = [
        d for at in steps for d in rows.differences([*(along[name][at] for name in along), by_name["ik"]])
    ]
    figures = {
        metric: plots.curves(
            {
                name: ([p["clouds"] for p in curve], [p["held_out"][metric] for p in curve])
                for name, curve in curves.items()
                if curve and metric in curve[0]["held_out"]
            },
            "steps with clouds",
            axis,
        )
        for metric, axis in CURVES.items()
        if any(metric in curve[0]["held_out"] for curve in curves.values() if curve)
    }
    lines = tuple(
        (
            CURVES[r["metric"]],
            f"{r['joint_best']:.3g} at step {r['joint_steps']}",
            f"step {r['appf_steps']}" if r["appf_steps"] else "not reached",
            f"{r['share']:.2f}" if r["appf_steps"] else "",
            "yes" if r["met"] else "no",
        )
        for r in reached
    )
    header = (
        "held-out figure",
        "joint run's best",
        "APPF has it at",
        "share of the steps",
        "at most a third",
    )
    met = [r["metric"] for r in reached if r["met"]]
    missed = [r["metric"] for r in reached if not r["met"]]
    verdict = (
        f"{_success_words(success)} Of held-out figures, APPF has the joint run's best with at most a third "
        f"of its steps with clouds by {', '.join(met) or 'none'}; not by {', '.join(missed) or 'none'}."
    )
    sections = (
        _success_section(args, along, by_name["ik"], success, compared),
        Section(
            "Steps to the joint run's best",
            f"Stage 1 took {args.stage1_steps} steps without clouds, which are not counted. One seed: a "
            "difference of a few measurements is within the luck of one training.",
            tables=(Table(header, lines),),
            plots=tuple(Plot(f, f"{CURVES[m]} on held-out scenes.") for m, f in figures.items()),
        ),
        _origin_section(origins),
        Section("All rows", tables=(rows.table(filled),)),
    )
    return Found(
        "APPF against joint training",
        verdict,
        {
            "success": success,
            "curves": curves,
            "reached": reached,
            "origins": origins,
            "rows": filled,
            "differences": compared,
        },
        sections,
        sections[0].plots[0].figure,
    )


def checkpoint_steps(steps: int, sixths: Sequence[int]) -> list[int]:
    """Steps with clouds after which success is measured, rising; the whole training is its last sixth."""
    part = max(1, steps // SIXTHS)
    return sorted({steps if n == SIXTHS else min(n * part, steps) for n in sixths})


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


def success_to_match(joint: Mapping[int, rows.Row], mine: Mapping[int, rows.Row]) -> dict[str, Any]:
    """When APPF first succeeds as often as the joint run at its best, and how near it is at a third.

    Args:
        joint, mine: Steps with clouds -> row on the same seeds; of the joint run, of APPF.

    Returns:
        ``joint_best`` (rate, first had at ``joint_steps``), ``appf_steps`` (0: never) and their ``share``,
        ``met``: the share is a third or less. ``within``: APPF at its last checkpoint by a third of
        ``joint_steps``, with its difference from the joint run's best; None where none was measured so early.
    """
    best_at, best = max(joint.items(), key=lambda point: (point[1]["success_rate"], -point[0]))
    first = next((at for at, row in sorted(mine.items()) if row["success_rate"] >= best["success_rate"]), 0)
    early = [at for at in mine if 3 * at <= best_at]
    within = None
    if early:
        row = mine[max(early)]
        (found,) = rows.differences([row, best])
        within = {
            "steps": max(early),
            "success_rate": row["success_rate"],
            "ci95": row["ci95"],
            "difference": found["difference"],
            "difference_ci95": found["ci95"],
        }
    return {
        "joint_best": best["success_rate"],
        "joint_ci95": best["ci95"],
        "joint_steps": best_at,
        "appf_steps": first,
        "share": first / best_at if first else None,
        "met": 0 < 3 * first <= best_at,
        "within": within,
    }


def _success_words(found: Mapping[str, Any]) -> str:
    said = (
        f"The joint run's best success is {percent(found['joint_best'])} ({interval(found['joint_ci95'])}), "
        f"after {found['joint_steps']} steps with clouds. APPF "
    )
    if found["appf_steps"]:
        share = "at most" if found["met"] else "more than"
        said += f"reaches it after {found['appf_steps']}, {share} a third of these"
    else:
        said += "never reaches it"
    within = found["within"]
    if within is None:
        return f"{said}; it was not measured within a third."
    low, high = (100 * value for value in within["difference_ci95"])
    return (
        f"{said}; after {within['steps']}, within a third, it succeeds in {percent(within['success_rate'])} "
        f"({interval(within['ci95'])}), {100 * within['difference']:+.0f} points ({low:+.0f} to {high:+.0f})."
    )


def _success_section(
    args: argparse.Namespace, along: Mapping[str, Mapping[int, rows.Row]], ik: rows.Row,
    found: Mapping[str, Any], compared: Sequence[dict[str, Any]],
) -> Section:  # fmt: skip
    """Success against steps with clouds, a line a training."""
    steps = list(along["appf"])
    labels = [str(at) for at in steps]
    series = {name: [rate_of(some[at]) for at in steps] for name, some in along.items()}
    series["ik"] = [rate_of(ik)] * len(steps)
    figure = plots.sweep(labels, series, "steps with clouds", places=steps)
    return Section(
        "Success against steps with clouds",
        f"Suite {args.suite or 'mid'}, {ik['episodes']} episodes a row, demonstrator's waypoints, off by 2 "
        f"cm and 10 degrees (one sigma). {_success_words(found)} The joint run's best is the best of "
        f"{len(steps)} measurements, which favours it a little.",
        tables=(sweep_table([f"{at} steps" for at in labels], series, {}), rows.difference_table(compared)),
        plots=(Plot(figure, "Success with 95% intervals (Wilson); ik does not learn."),),
    )


def _origins(args: argparse.Namespace, folders: Mapping[str, Path]) -> dict[str, dict[str, float]]:
    """Of each training's end: is it the encoder that errs, or what the denoiser makes of its estimate?

    Returns:
        For each training, medians over held-out views in mm: "encoder", the contact estimate beside the
        truth; "chunk", the contact that the chunk aims at beside the truth; "denoiser", the two beside one
        another.
    """
    import torch

    from bridgevla_ros.expert import checkpoint
    from bridgevla_ros.training import expert_metrics
    from bridgevla_ros.training.data_corruption import Recipe

    torch.set_num_threads(1)  # the network is small: on a busy machine more wait for one another
    held_out = _held_out(args.bank)
    return {
        name: expert_metrics.origins(checkpoint.load(folder / "checkpoint"), held_out, Recipe())
        for name, folder in folders.items()
    }


def _origin_section(origins: Mapping[str, Mapping[str, float]]) -> Section:
    lines = tuple(
        (name, *(f"{found[part]:.1f}" for part in ("encoder", "chunk", "denoiser")))
        for name, found in origins.items()
    )
    return Section(
        "Where the error comes from",
        "Medians in mm over held-out views of all contacts, at the end of each training. What a chunk makes "
        "of the encoder's estimate lies close to it, so that the error is the encoder's; stage 1, which sees "
        "no clouds, cannot teach that.",
        tables=(
            Table(("training", "estimate - truth", "chunk's contact - truth", "chunk - estimate"), lines),
        ),
    )


def steps_to_match(curves: Mapping[str, Sequence[dict[str, Any]]], metric: str) -> dict[str, Any] | None:
    """When APPF first has what the joint run has at its best (least) of a held-out figure."""
    joint = [(p["clouds"], p["held_out"][metric]) for p in curves["joint"] if metric in p["held_out"]]
    mine = [(p["clouds"], p["held_out"][metric]) for p in curves["appf"] if metric in p["held_out"]]
    if not joint or not mine:
        return None
    steps, best = min(joint, key=lambda point: (point[1], point[0]))
    first = next((at for at, value in mine if value <= best), 0)
    share = first / steps if first else None
    return {
        "metric": metric,
        "joint_best": best,
        "joint_steps": steps,
        "appf_steps": first,
        "share": share,
        "met": share is not None and share <= 1 / 3,
    }


def _rollouts(
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


# -- noise scale -----------------------------------------------------------------------------------

SCALES = (0.0, 0.05, 0.10, 0.20, 0.50)
PAPER_NOISE = {
    "short (paper)": (0.71, None, 0.82, None, 0.68),
    "mid (paper)": (0.67, None, 0.77, None, 0.68),
    "long (paper)": (0.43, None, 0.60, None, 0.41),
}


def noise_scale(args: argparse.Namespace, made: dict[str, Any]) -> Found:
    """Experts trained with other goal noise, all tried under the same error of guidance."""
    from bridgevla_ros.training.data_corruption import NOISE_UNIT

    folders = run_trainings(
        args, [Training(f"{scale:.2f}", ("--noise-scale", f"{scale / 0.10:g}")) for scale in SCALES]
    )
    ends = {name: folder / "checkpoint" for name, folder in folders.items()}
    filled = _rollouts(args, made, ends, args.episodes or 30)
    by_name = {row["name"]: row for row in filled}
    suite = args.suite or "mid"
    labels = [f"{scale:.2f}\n({100 * scale * NOISE_UNIT:g} cm)" for scale in SCALES]
    series = {
        f"expert, {suite}": [rate_of(by_name[f"{scale:.2f}"]) for scale in SCALES],
        "ik": [rate_of(by_name["ik"])] * len(SCALES),
    }
    paper = {name: values for name, values in PAPER_NOISE.items() if name.startswith(suite)} or PAPER_NOISE
    figure = plots.sweep(labels, series, "goal-noise scale in training (standard deviation per axis)", paper)
    curves = {name: read_curve(folder) for name, folder in folders.items()}
    best = max(SCALES, key=lambda s: by_name[f"{s:.2f}"]["success_rate"])
    text = (
        "The paper gives scales without a unit. Ours: scale 1 is "
        f"{100 * NOISE_UNIT:g} cm, the width of what the expert looks at, so that 0.10 is 2 cm per axis, "
        "with 8 "
        "degrees of yaw, as our shipped recipe; other scales multiply both, and errors are cut at the "
        f"normaliser's end. Each expert was trained for {args.steps} steps with clouds; all are tried with "
        "guidance off by 2 cm and 10 degrees (one sigma). The paper's figures are of RoboTwin."
    )
    flat = [label.replace("\n", " ") for label in labels]
    sections = (
        Section(
            "Success",
            text,
            tables=(sweep_table(flat, series, paper),),
            plots=(Plot(figure, "Success with 95% intervals; dashed: the paper, on RoboTwin."),),
        ),
        Section("All rows", tables=(rows.table(filled),)),
    )
    return Found(
        f"Goal noise in training: suite {suite}",
        f"Best at scale {best:.2f}: {percent(by_name[f'{best:.2f}']['success_rate'])}.",
        {"noise_unit_m": NOISE_UNIT, "rows": filled, "curves": curves},
        sections,
        figure,
    )


# -- calibration -----------------------------------------------------------------------------------

BINS = 8


def calibration(args: argparse.Namespace, made: dict[str, Any]) -> Found:
    """Spread as published against error of what is executed, on scenes that were not trained on."""
    _need_bank(args.bank)
    import torch

    from bridgevla_ros.expert import checkpoint
    from bridgevla_ros.expert.config import ExpertConfig
    from bridgevla_ros.training import expert_metrics
    from bridgevla_ros.training.data_corruption import Recipe

    torch.set_num_threads(1)  # the network is small: on a busy machine more wait for one another
    held_out = _held_out(args.bank)
    points = expert_metrics.calibration(checkpoint.load(args.weights), held_out, Recipe())
    found = summarise_calibration(points)
    spread = np.array([p["spread_mm"] for p in points])
    error = np.array([p["error_mm"] for p in points])
    figure = plots.calibration(found["bins"], spread, error)
    lines = tuple(
        (
            f"{b['spread_mm']:.2f}",
            f"{b['error_mm']:.1f}",
            f"{b['p10_mm']:.1f} to {b['p90_mm']:.1f}",
            percent(b["over_10"]),
            str(b["views"]),
        )
        for b in found["bins"]
    )
    header = ("spread, mm (median)", "error, mm (median)", "10 to 90%", "over 10 mm", "views")
    verdict = (
        f"Spread and error rise together with rank correlation {found['rank_correlation']:.2f} over "
        f"{len(points)} held-out views; error over 10 mm in {percent(found['bins'][0]['over_10'])} of "
        "the "
        f"views with the least spread, in {percent(found['bins'][-1]['over_10'])} of those with the "
        "most."
    )
    sections = (
        Section(
            "Spread against error",
            f"As the policy runs: {ExpertConfig().samples} samples a chunk. Spread: what is published with "
            "the chunk (correction_sigma), the root mean square over its steps of what the samples differ by "
            "and of what the cloud's points, each of which votes for a contact, differ by. Error: at the "
            "contact, horizontal, of the sample that is executed, the medoid. Guidance errs as in training.",
            tables=(Table(header, lines),),
            plots=(Plot(figure, "Each dot a held-out view; the line joins medians of bins of equal count."),),
        ),
    )
    return Found(
        "Does the published spread tell the error?",
        verdict,
        {"samples": ExpertConfig().samples, **found, "points": points},
        sections,
        figure,
    )


def summarise_calibration(points: Sequence[Mapping[str, float]], bins: int = BINS) -> dict[str, Any]:
    """Bins of equal count by spread, and the rank correlation (Spearman) of spread and error.

    Raises:
        BridgeError: BAD_INPUT, fewer points than bins.
    """
    if len(points) < bins:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{len(points)} held-out views of a contact; {bins} bins need more",
            value=len(points),
            limit=bins,
            remedy="make more episodes with bridgevla data generate",
        )
    spread = np.array([p["spread_mm"] for p in points])
    error = np.array([p["error_mm"] for p in points])
    order = np.argsort(spread, kind="stable")
    made = []
    for part in np.array_split(order, bins):
        low, middle, high = np.quantile(error[part], [0.1, 0.5, 0.9])
        made.append(
            {
                "spread_mm": float(np.median(spread[part])),
                "error_mm": float(middle),
                "p10_mm": float(low),
                "p90_mm": float(high),
                "over_10": float(np.mean(error[part] > 10.0)),
                "views": len(part),
            }
        )
    return {"bins": made, "rank_correlation": float(spearmanr(spread, error).statistic)}


RUN: dict[str, Callable[[argparse.Namespace, dict[str, Any]], Found]] = {
    "appf": appf,
    "noise-scale": noise_scale,
    "calibration": calibration,
}
"""Name on the command line -> what runs it."""
