"""``bridgevla eval``: run a suite or a probe; print tables, write JSON and an HTML report.

Runs on all cores without a display. Long runs keep what is done beside the JSON: a run that was killed goes
on with --resume. Seeds from 1000 are those of published figures; try things out from 900000.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bridgevla_ros.core.config import ConfigError
from bridgevla_ros.evaluation.options import (
    POLICIES,
    add_output_arguments,
    open_journal,
    policies_of,
    weights_of,
    write_json,
)
from bridgevla_ros.evaluation.stats import interval, percent

OF_ALL = frozenset({"suite", "probe", "episodes", "seed", "json", "report"})
OF_GROUNDING = frozenset({"planner", "planner_weights", "wordings", "words", "pairs"})
OF_PROBE = frozenset({"policy", "weights", "workers", "rollouts", "resume"})
OF_SUITES = frozenset(
    {
        "task", "policy", "weights", "planner", "guidance", "guidance_noise", "depth_noise", "workers",
        "pictures", "resume",
    }
)  # fmt: skip
"""Which options say something to what; any other is refused, as it would be ignored."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bridgevla eval``."""
    from bridgevla_ros.evaluation.suites import SUITES
    from bridgevla_ros.simulation.suites import TASKS

    described = "; ".join(f"{name}: {text}" for name, text in SUITES.items())
    parser.add_argument(
        "--suite",
        default="main",
        choices=[*SUITES, "grounding", "gate", "robosuite", *TASKS],
        metavar="SUITE",
        help=f"what to run. {described}; grounding: the planner's anchors alone; gate: good and wrong plans "
        "before the plan gate; robosuite: five tasks of that package, each with every seed (needs make "
        f"setup-robosuite); or one task alone: {', '.join(TASKS)}",
    )
    parser.add_argument(
        "--task", default="", metavar="NAME", help="robosuite: only this task, e.g. Lift (default: all five)"
    )
    parser.add_argument(
        "--probe",
        choices=("conditioning",),
        help="instead of a suite: does the policy use what it is given? Exit code 1 if it does not",
    )
    parser.add_argument(
        "--policy",
        help=f"{', '.join(POLICIES)}, a list with commas, or all (one row each). Default: all; expert for "
        "suites main, named and black, and for the probe",
    )
    parser.add_argument("--weights", default="", help="folder of the expert's checkpoint (default: ours)")
    parser.add_argument(
        "--planner",
        default="embedded",
        choices=("embedded", "truth"),
        help="who finds the anchors; truth: the simulator, to measure what follows (default: %(default)s)",
    )
    parser.add_argument(
        "--guidance",
        default="planner",
        choices=("planner", "oracle"),
        help="waypoints from the planner, or from the demonstrator before corruption (default: %(default)s)",
    )
    parser.add_argument(
        "--episodes",
        type=int,
        default=None,
        help="scenes to run (default: 50; grounding: 300; probe: 40)",
    )
    parser.add_argument("--seed", type=int, default=None, help="first seed (default: 1000; grounding: 5000)")
    parser.add_argument("--workers", type=int, default=0, help="processes (default: one a core)")
    parser.add_argument(
        "--guidance-noise",
        nargs=2,
        type=float,
        default=(0.0, 0.0),
        metavar=("METRES", "DEGREES"),
        help="standard deviations of an error of the plan, drawn anew for each plan, the same for all its "
        "waypoints",
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
    parser.add_argument(
        "--planner-weights",
        type=Path,
        metavar="DIR",
        help="grounding: folder of the embedded planner's checkpoint (default: ours)",
    )
    parser.add_argument(
        "--pairs",
        nargs="*",
        metavar="PAIR",
        help='grounding: ask only for these, e.g. "pink cylinder", beside others of the same colour and of '
        "the same kind; without names: what the checkpoint was trained without",
    )
    parser.add_argument("--rollouts", type=int, default=10, help="probe: whole episodes a condition")
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run; 0 when it ran (and the probe passed), 1 when the probe failed.

    Raises:
        ConfigError: A bad option.
    """
    if args.episodes is not None and args.episodes < 1:
        raise ConfigError(f"--episodes is {args.episodes}; it must be 1 or more")
    ignored = _ignored(args)
    if ignored:
        raise ConfigError(ignored)
    if args.probe is None and args.suite == "grounding":
        from bridgevla_ros.evaluation.grounding import DEFAULT_EPISODES, DEFAULT_SEED
        from bridgevla_ros.evaluation.grounding import run as run_grounding

        args.episodes = DEFAULT_EPISODES if args.episodes is None else args.episodes
        args.seed = DEFAULT_SEED if args.seed is None else args.seed
        return run_grounding(args)
    if args.probe is None and args.suite == "gate":
        from bridgevla_ros.evaluation import gate

        args.episodes = gate.DEFAULT_EPISODES if args.episodes is None else args.episodes
        args.seed = 1000 if args.seed is None else args.seed
        return gate.run(args)
    wrong = _wrong(args)
    if wrong:
        raise ConfigError(wrong)
    if args.probe is not None:
        from bridgevla_ros.evaluation import probe

        return int(probe.run(args))
    return run_suites(args)


def _ignored(args: argparse.Namespace) -> str:
    """Options that say nothing to what is asked for, in words; empty if there are none."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    given = {name for name, default in vars(parser.parse_args([])).items() if getattr(args, name) != default}
    what, used = f"--suite {args.suite}", OF_SUITES
    if args.probe is not None:
        what, used = f"--probe {args.probe}", OF_PROBE
    elif args.suite == "grounding":
        used = OF_GROUNDING
    elif args.suite == "gate":
        used = frozenset()
    ignored = sorted(f"--{name.replace('_', '-')}" for name in given - OF_ALL - used)
    return f"{what} takes no {', '.join(ignored)}: leave that out" if ignored else ""


def _wrong(args: argparse.Namespace) -> str:
    """What is wrong with the options, in words; empty if nothing is."""
    unknown = [p for p in policies_of(args) if p not in POLICIES]
    if unknown:
        return f"policy {unknown[0]!r}; expected one of {', '.join(POLICIES)}, or all"
    if args.workers < 0 or args.pictures < 0 or args.rollouts < 0:
        return "--workers, --pictures and --rollouts must be 0 or more"
    if min(*args.guidance_noise, args.depth_noise) < 0.0:
        return f"noise {(*args.guidance_noise, args.depth_noise)}; standard deviations must be 0 or more"
    if args.task and args.suite != "robosuite":
        return f"--task {args.task} is for --suite robosuite; a task of ours is its own suite: --suite NAME"
    if args.resume and args.json is None:
        return "--resume goes on from what lies beside --json FILE; give that too"
    return ""


def run_suites(args: argparse.Namespace) -> int:
    """One row a policy, on the same seeds."""
    from bridgevla_ros.evaluation import rows as table

    seed = 1000 if args.seed is None else args.seed
    episodes = 50 if args.episodes is None else args.episodes
    wanted = [
        table.RowSpec(p, tuple(_specs(args, seed, episodes, _settings(args, p)))) for p in policies_of(args)
    ]
    made = table.provenance(weights_of(args))
    journal = open_journal(args, made)
    finished = False
    try:
        rows = table.run_rows(wanted, workers=args.workers, journal=journal, what=args.suite)
        finished = True
    finally:
        if journal is not None:
            journal.close(finished=finished)
    compared = table.differences(rows)
    table.print_tables([table.table(rows), *([table.difference_table(compared)] if compared else [])])
    document: dict[str, Any] = {"made": made}
    document |= rows[0] if len(rows) == 1 else {"rows": rows, "differences": compared}
    write_json(args.json, document)
    if args.report is not None:
        write_report(args, made, wanted, rows, compared)
    return 0


def _specs(args: argparse.Namespace, seed: int, episodes: int, settings: dict[str, Any]) -> list[Any]:
    if args.suite == "robosuite":
        from bridgevla_ros.evaluation.robosuite import episode

        return list(episode.specs(seed, episodes, args.task, **settings))
    from bridgevla_ros.evaluation.suites import specs_for

    return list(specs_for(args.suite, seed, episodes, **settings))


def _settings(args: argparse.Namespace, policy: str) -> dict[str, Any]:
    """Settings of an EpisodeSpec."""
    return {
        "policy": policy,
        "planner": args.planner,
        "guidance": args.guidance,
        "weights": args.weights,
        "guidance_noise": tuple(args.guidance_noise),
        "depth_noise": args.depth_noise,
    }


def write_report(
    args: argparse.Namespace, made: dict[str, Any], wanted: Any, rows: list[Any], compared: list[Any]
) -> None:
    """Tables, plots and pictures of a suite."""
    from bridgevla_ros.evaluation import rows as table
    from bridgevla_ros.evaluation.report import Report, write

    said = "; ".join(
        f"{r['name']} {percent(r['success_rate'])} ({interval(r['ci95'])}) of {r['episodes']}" for r in rows
    )
    noise = ""
    if any(args.guidance_noise):
        noise = (
            f", guidance off by {args.guidance_noise[0]:g} m and {args.guidance_noise[1]:g} degrees (sigma)"
        )
    if args.depth_noise:
        noise += f", depth noise {args.depth_noise:g} m"
    sections = (
        *paper_sections(args, rows),
        *table.sections(rows, compared),
        *picture_sections(wanted, rows, args.pictures),
    )
    write(args.report, Report(f"Suite {args.suite}{noise}", f"{said}.", made, sections))
    print(f"report: {args.report}")


def paper_sections(args: argparse.Namespace, rows: list[Any]) -> tuple[Any, ...]:
    """What the suite is not, and on which side of the paper's figure the expert's rate lies."""
    from bridgevla_ros.evaluation import paper
    from bridgevla_ros.evaluation.report import Section

    if args.suite not in paper.SUCCESS:
        return ()
    short, mid, long = (percent(rate) for rate in paper.SUCCESS.values())
    text = (
        "Suites short, mid and long are ours: our tasks, our objects, our arm, our judge. They are not "
        f"RoboTwin. On RoboTwin's short, middle and long tasks the paper (arXiv 2510.03896) reports {short}, "
        f"{mid} and {long}. Rates on other tasks cannot be compared."
    )
    if args.guidance == "oracle":
        text += " Here the waypoints are the demonstrator's: no planner is measured."
    for row in rows:
        if row["policy"] == "expert":
            theirs, rate = paper.SUCCESS[args.suite], row["success_rate"]
            text += (
                f" For orientation alone: the expert's rate, {percent(rate)} ({interval(row['ci95'])}), is "
                f"{'at or above' if rate >= theirs else 'below'} the paper's {percent(theirs)}."
            )
    return (Section("Ours, not RoboTwin", text),)


def picture_sections(wanted: Any, rows: list[Any], count: int) -> tuple[Any, ...]:
    """A success and failures of the first row, drawn; nothing where none are asked for."""
    from bridgevla_ros.evaluation.pictures import picture
    from bridgevla_ros.evaluation.report import Section

    if not count or not rows:
        return ()
    details, specs = rows[0]["details"], wanted[0].specs
    won = [d for d in details if d["success"]]
    seen: set[str] = set()
    lost = []
    for detail in sorted((d for d in details if not d["success"]), key=lambda d: d["seed"]):
        lost.append((detail["cause"] in seen, detail))  # one of each cause before the second of any
        seen.add(detail["cause"])
    lost = [d for _, d in sorted(lost, key=lambda x: x[0]) if d["cause"] != "ERROR"]
    chosen = [*won[:1], *lost, *won[1:]][:count]
    find = {(s.seed, s.variant): s for s in specs}
    drawn = []
    for number, detail in enumerate(chosen, 1):
        print(f"drawing episode {number} of {len(chosen)}: seed {detail['seed']}")
        drawn.append(picture(find[detail["seed"], detail["variant"]]))
    text = (
        "Left: the image that the plan was made from, with anchors (crosses), waypoints (numbered) and the "
        "guidance (blue). Right: the last image. Pink, in both: the way that the gripper really took."
    )
    return (Section("Episodes", text, pictures=tuple(drawn)),)
