"""``bridgevla experiment NAME``: the paper's experiments on our suites, each one command with table and plot.

depth-noise    noise on each depth pixel: 0, 1, 10, 50 cm
looks          other textures, light and cameras, one of these beyond what was trained on
sparse-depth   few depth pixels, and poor ones
noise-scale    experts trained with goal noise of scale 0, .05, .10, .20, .50
appf           trajectories first, then clouds, against both together
calibration    does the spread that an expert publishes tell its error?
forgetting     what fine-tuning a vision-language model brings, and what it forgets

The paper's figures are of RoboTwin, ours of our own simulated cell: curves may be compared, levels may not.
A run that was killed goes on with --resume, from what lies beside its --json (trainings: in --runs).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bridgevla_ros.core.config import ConfigError
from bridgevla_ros.evaluation import experiment_forgetting
from bridgevla_ros.evaluation.options import add_output_arguments, write_json

NAMES = ("depth-noise", "looks", "sparse-depth", "noise-scale", "appf", "calibration", "forgetting")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bridgevla experiment``."""
    parser.add_argument("name", choices=NAMES, help="which one")
    parser.add_argument("--episodes", type=int, help="of each row (default: 20; appf: 40; noise-scale: 30)")
    parser.add_argument("--seed", type=int, default=1000, help="first seed (default: %(default)s)")
    parser.add_argument("--suite", help="depth-noise, looks: main; sparse-depth and the trainings: mid")
    parser.add_argument("--policy", help="rows, with commas (default: expert,ik,snap)")
    parser.add_argument("--weights", default="", help="folder of the expert's checkpoint (default: ours)")
    parser.add_argument("--workers", type=int, default=0, help="processes (default: one a core)")
    training = parser.add_argument_group("appf, noise-scale and calibration")
    training.add_argument(
        "--bank",
        type=Path,
        default=Path("runs/expert/bank"),
        help="folder of bridgevla data generate (default: %(default)s)",
    )
    training.add_argument(
        "--runs",
        type=Path,
        help="folder of the trainings; finished ones there are taken (default: runs/experiments/NAME)",
    )
    training.add_argument(
        "--config",
        default="training/appf_two_core.yaml",
        help="of the trainings, in config/ or a path (default: %(default)s)",
    )
    training.add_argument("--steps", type=int, default=600, help="with clouds (default: %(default)s)")
    training.add_argument(
        "--stage1-steps", type=int, default=300, help="without clouds, before (default: %(default)s)"
    )
    training.add_argument(
        "--checkpoints",
        type=int,
        nargs="+",
        default=[1, 2, 3, 6],
        choices=range(1, 7),
        metavar="SIXTH",
        help="appf: sixths of --steps after which success is measured (default: 1 2 3 6)",
    )
    experiment_forgetting.add_arguments(parser)
    parser.add_argument("--png", type=Path, metavar="FILE", help="write the plot here")
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run it; returns 0.

    Raises:
        ConfigError: A bad option.
    """
    wrong = _wrong(args)
    if wrong:
        raise ConfigError(wrong)
    return _run(args)


def _wrong(args: argparse.Namespace) -> str:
    from bridgevla_ros.evaluation.options import POLICIES
    from bridgevla_ros.evaluation.suites import SUITES

    if args.episodes is not None and args.episodes < 1:
        return f"--episodes is {args.episodes}; it must be 1 or more"
    if args.steps < 1 or args.stage1_steps < 0 or args.workers < 0 or args.pictures < 0:
        return "--steps must be 1 or more; --stage1-steps, --workers and --pictures 0 or more"
    if args.suite is not None and args.suite not in SUITES:
        return f"suite {args.suite!r}; expected one of {', '.join(SUITES)}"
    unknown = [p for p in (args.policy or "").split(",") if p and p not in POLICIES]
    if unknown:
        return f"policy {unknown[0]!r}; expected some of {', '.join(POLICIES)}"
    if args.resume and args.json is None and args.name not in ("appf", "noise-scale", "forgetting"):
        return "--resume goes on from what lies beside --json FILE; give that too"
    return ""


def _run(args: argparse.Namespace) -> int:
    from bridgevla_ros.evaluation import experiment_appf, experiment_sweeps, experiment_trainings, rows
    from bridgevla_ros.evaluation.report import Report, write

    policies = (args.policy or "expert").split(",")
    made = rows.provenance((args.weights,) if "expert" in policies else ())
    run = {
        "appf": experiment_appf.appf,
        "noise-scale": experiment_trainings.noise_scale,
        "calibration": experiment_trainings.calibration,
        "forgetting": experiment_forgetting.run,
    }.get(args.name, experiment_sweeps.run)
    found = run(args, made)
    rows.print_tables([table for section in found.sections for table in section.tables])
    print(found.verdict)
    document: dict[str, Any] = {"experiment": args.name, "made": made, "verdict": found.verdict}
    write_json(args.json, document | found.figures)
    if args.png is not None:
        args.png.parent.mkdir(parents=True, exist_ok=True)
        found.plot.savefig(args.png, dpi=150, bbox_inches="tight")
        print(f"plot: {args.png}")
    if args.report is not None:
        write(args.report, Report(found.title, found.verdict, made, found.sections))
        print(f"report: {args.report}")
    return 0
