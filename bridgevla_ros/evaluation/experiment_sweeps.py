"""Experiments that vary what a policy meets: depth noise, looks, sparse and poor depth."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from bridgevla_ros.evaluation import paper, plots, rows
from bridgevla_ros.evaluation.options import open_journal
from bridgevla_ros.evaluation.report import Plot, Section, Table
from bridgevla_ros.evaluation.stats import interval, percent
from bridgevla_ros.evaluation.suites import specs_for

GUIDANCE_NOISE = (0.02, 10.0)
"""Metres and degrees, one sigma: the planner's error under which policies are told apart."""
DEFAULT_EPISODES = 20


@dataclass(frozen=True)
class Found:
    """What an experiment found: the JSON's figures, and how they are shown."""

    title: str
    verdict: str
    figures: dict[str, Any]
    sections: tuple[Section, ...]
    plot: Figure


@dataclass(frozen=True)
class Setting:
    """A point of a sweep: its name, and what it sets of ``EpisodeSpec``."""

    name: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Sweep:
    """Settings by policies.

    Attributes:
        title, text: Of the report; ``axis``: of the plot.
        settings: Points, the first is the undisturbed one.
        common: Of every episode.
        suite: By default.
        extra: Further series: name -> (policy, changes).
        paper: Its figures, by series, where it gives any.
    """

    title: str
    text: str
    axis: str
    settings: tuple[Setting, ...]
    common: Mapping[str, Any]
    suite: str
    extra: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    paper: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)


_ORACLE = {"guidance": "oracle", "guidance_noise": GUIDANCE_NOISE}

SWEEPS = {
    "depth-noise": Sweep(
        "Depth noise",
        "Independent normal noise on every depth pixel, beside the sensor's own faults. It reaches the "
        "planner "
        "(waypoints are lifted with this depth; what stands where in the image is told by the simulator) and "
        "the "
        "cloud. The paper's figures (dashed) are of RoboTwin: its drop may be compared, its level may not.",
        "standard deviation of the depth noise",
        tuple(
            Setting(name, {"depth_noise": metres})
            for name, metres in (("0", 0.0), ("1 cm", 0.01), ("10 cm", 0.1), ("50 cm", 0.5))
        ),
        {"planner": "truth"},
        "main",
        paper={f"{policy} (paper)": rates for policy, rates in paper.DEPTH_NOISE.items()},
    ),
    "looks": Sweep(
        "Other looks",
        "Expert and baselines get the demonstrator's waypoints, off by 2 cm and 10 degrees (one sigma), so "
        "that what they see is the camera's cloud alone: textures and light do not reach them. Half of the "
        "expert's training episodes had a camera anywhere in front, up to 57 degrees to either side and 0.75 "
        "to 1.30 m away: a camera 30 degrees round or 30 cm back lies within that, one 75 degrees round and "
        "60 cm back lies outside by angle and by distance. The last series has the waypoints from the "
        "embedded planner, which sees colour: strong colours, light from low at the side and these cameras "
        "are all new to the one that ships.",
        "what is other",
        tuple(
            Setting(name, {"look": look})
            for name, look in (
                ("as drawn", ""),
                ("textures", "textures"),
                ("light", "lighting"),
                ("camera 30\N{DEGREE SIGN}", "camera_angle"),
                ("camera 30 cm", "camera_distance"),
                ("all", "all"),
                ("75\N{DEGREE SIGN}, 60 cm", "camera_beyond"),
            )
        ),
        _ORACLE,
        "main",
        extra={
            "expert, our planner": ("expert", {"guidance": "planner", "guidance_noise": (0.0, 0.0)}),
        },
    ),
    "sparse-depth": Sweep(
        "Sparse and poor depth",
        "The paper's first open question. Depth pixels are left out at random, anew in each frame; or the "
        "sensor's "
        "faults (noise, holes, flying pixels, bias) come a second time, 2 and 4 times as strong. Waypoints "
        "are the "
        "demonstrator's, off by 2 cm and 10 degrees (one sigma).",
        "depth",
        (
            Setting("whole", {}),
            Setting("25%", {"depth_keep": 0.25}),
            Setting("5%", {"depth_keep": 0.05}),
            Setting("1%", {"depth_keep": 0.01}),
            Setting("faults x3", {"depth_scale": 3.0}),
            Setting("faults x5", {"depth_scale": 5.0}),
            Setting("x3, 25%", {"depth_scale": 3.0, "depth_keep": 0.25}),
        ),
        _ORACLE,
        "mid",
    ),
}


def run(args: argparse.Namespace, made: dict[str, Any]) -> Found:
    """Run a sweep."""
    sweep = SWEEPS[args.name]
    policies = tuple((args.policy or "expert,ik,snap").split(","))
    series: dict[str, tuple[str, Mapping[str, Any]]] = {p: (p, {}) for p in policies}
    series |= {name: what for name, what in sweep.extra.items() if what[0] in policies}
    suite, episodes = args.suite or sweep.suite, args.episodes or DEFAULT_EPISODES
    wanted = []
    for setting in sweep.settings:
        for name, (policy, changes) in series.items():
            settings = {
                "policy": policy,
                "weights": args.weights,
                **sweep.common,
                **changes,
                **setting.changes,
            }
            specs = specs_for(suite, args.seed, episodes, **settings)
            wanted.append(rows.RowSpec(f"{name}, {setting.name}", tuple(specs)))
    filled = run_kept(args, made, wanted)
    by_name = {row["name"]: row for row in filled}
    table = {
        name: [rate_of(by_name[f"{name}, {setting.name}"]) for setting in sweep.settings] for name in series
    }
    labels = [setting.name for setting in sweep.settings]
    figure = plots.sweep(labels, table, sweep.axis, dict(sweep.paper))
    compared = [
        d
        for setting in sweep.settings
        for d in rows.differences(
            [by_name[f"{name}, {setting.name}"] for name in series], f"{policies[0]}, {setting.name}"
        )
    ]
    sections = (
        Section(
            sweep.title,
            sweep.text,
            tables=(sweep_table(labels, table, sweep.paper),),
            plots=(Plot(figure, "Success with 95% intervals (Wilson)."),),
        ),
        Section("Pair by pair", tables=(rows.difference_table(compared),)),
        Section("All rows", tables=(rows.table(filled),)),
    )
    lead = table[policies[0]]
    said = ", ".join(f"{label} {percent(rate[0])}" for label, rate in zip(labels, lead, strict=True))
    return Found(
        f"{sweep.title}: suite {suite}, {episodes} episodes a row",
        f"{policies[0]}: {said}.",
        {"suite": suite, "rows": filled, "differences": compared},
        sections,
        figure,
    )


def run_kept(
    args: argparse.Namespace, made: dict[str, Any], wanted: Sequence[rows.RowSpec]
) -> list[rows.Row]:
    """Fill rows; what is done is kept beside the JSON until all is."""
    journal = open_journal(args, made)
    finished = False
    try:
        filled = rows.run_rows(wanted, workers=args.workers, journal=journal, what=args.name)
        finished = True
    finally:
        if journal is not None:
            journal.close(finished=finished)
    return filled


def rate_of(row: Mapping[str, Any]) -> plots.Rate:
    """Success of a row with its interval."""
    return row["success_rate"], row["ci95"][0], row["ci95"][1]


def sweep_table(
    labels: Sequence[str],
    table: Mapping[str, Sequence[plots.Rate]],
    paper: Mapping[str, Sequence[float | None]],
) -> Table:
    """A line a series, a column a setting; the paper's below."""
    lines = [
        (name, *(f"{percent(rate)} ({interval((low, high))})" for rate, low, high in rates))
        for name, rates in table.items()
    ]
    lines += [
        (name, *("" if rate is None else percent(rate) for rate in rates)) for name, rates in paper.items()
    ]
    return Table(("", *labels), tuple(lines), "Success, 95% interval (Wilson).")
