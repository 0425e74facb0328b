"""Experiment ``appf``: trajectories first, then clouds, against both together and clouds alone."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bridgevla_ros.evaluation import plots, rows
from bridgevla_ros.evaluation.experiment_sweeps import Found, rate_of, sweep_table
from bridgevla_ros.evaluation.report import Plot, Section, Table
from bridgevla_ros.evaluation.stats import interval, percent
from bridgevla_ros.evaluation.trainings import (
    Training,
    held_out,
    kept_after,
    one_thread,
    read_curve,
    rollouts,
    run_trainings,
)

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
    filled = rollouts(args, made, weights, args.episodes or 40)
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
    from bridgevla_ros.expert import checkpoint
    from bridgevla_ros.training import expert_metrics
    from bridgevla_ros.training.data_corruption import Recipe

    one_thread()
    views = held_out(args.bank)
    return {
        name: expert_metrics.origins(checkpoint.load(folder / "checkpoint"), views, Recipe())
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
