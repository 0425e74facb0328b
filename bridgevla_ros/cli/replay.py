"""Replay a bag: this version's code on the recorded inputs, compared with the recorded outputs.

Every output names the stamps of its inputs, so what is compared does not hang on the order in which messages
reached the processes. Exit status: 0 everything came out as recorded, 1 something differs (or an input is
missing from the bag), 2 it cannot be replayed.

  bridgevla replay runs/demo/bag
  bridgevla replay BAG --node action_expert --param action_expert.samples=4
  bridgevla replay BAG --report divergence.html --json divergence.json
  bridgevla replay BAG --bless --reason "the gate now keeps 2 cm from the edge"
  bridgevla replay BAGS --what-if expert=runs/train/best --json ab.json
  bridgevla replay BAGS --repeat 20 --load
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bridgevla_ros.console import wide_console
from bridgevla_ros.core.config import ConfigError

_SHORT = {"expert": "action_expert.weights", "planner": "planner.weights"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "bag", nargs="+", type=Path, help="folder of a bag, or its file; or a folder with bags below it"
    )
    parser.add_argument(
        "--node",
        action="append",
        default=[],
        metavar="NAME",
        help="planner, cropper, trajectory, action_expert, task, arm_streamer or all (default); may repeat",
    )
    parser.add_argument("--seed", type=int, default=None, help="instead of the recorded seeds")
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="NODE.NAME=VALUE",
        help="parameter instead of the recorded one; VALUE is YAML; may repeat",
    )
    parser.add_argument("--mapping", type=Path, default=None, help="YAML file with another robot's names")
    parser.add_argument(
        "--tolerance",
        choices=("auto", "same", "other"),
        default="auto",
        help="for the machine of the recording, or another one; auto looks at what is in the bag",
    )
    parser.add_argument("--json", type=Path, default=None, metavar="F", help="write the outcome as JSON")
    parser.add_argument(
        "--report", type=Path, default=None, metavar="F.html", help="write a report with pictures, one file"
    )
    parser.add_argument(
        "--jobs", type=int, default=2, help="nodes (or whole replays) side by side (%(default)s)"
    )
    parser.add_argument(
        "--recorded",
        action="store_true",
        help="compare with the recording also where golden outputs lie beside the bag",
    )
    parser.add_argument(
        "--bless", action="store_true", help="keep this version's outputs as the golden ones; needs --reason"
    )
    parser.add_argument("--reason", default="", help="why the new outputs are right")
    parser.add_argument(
        "--repeat",
        type=int,
        default=0,
        metavar="N",
        help="replay each bag N times: does the same come out each time, to the bit?",
    )
    parser.add_argument(
        "--load", action="store_true", help="with --repeat: the last of the N beside a busy machine"
    )
    parser.add_argument(
        "--what-if",
        nargs="+",
        default=[],
        metavar="CHANGE",
        help="compare the recorded settings (A) with changed ones (B): expert=FOLDER planner=FOLDER "
        "seed=N param:NODE.NAME=VALUE",
    )


def run(args: argparse.Namespace) -> int:
    """Do the verb."""
    from bridgevla_ros.bags.reader import find_bags

    if args.what_if:
        return _what_if(args)
    bags = [bag for path in args.bag for bag in find_bags(path)]
    if args.repeat:
        return _repeat(args, bags)
    if args.load:
        raise ConfigError("--load goes with --repeat")
    if len(bags) > 1 and (args.json or args.report):
        raise ConfigError(f"--json and --report are for one bag, and these are {len(bags)}")
    return max([_replay(args, bag) for bag in bags])


def _repeat(args: argparse.Namespace, bags: list[Path]) -> int:
    from bridgevla_ros.bags.replay.stability import show, stability

    console = wide_console()
    found = stability(
        bags,
        tuple(args.node) or ("all",),
        repeats=args.repeat,
        load=args.load,
        overrides=parameters(args.param),
        mapping=args.mapping,
        tolerance=args.tolerance,
        processes=max(1, args.jobs),
        console=console,
    )
    show(found, console)
    if args.json is not None:
        _write(args.json, json.dumps([entry.to_json() for entry in found], indent=1) + "\n")
    return 2 if any(e.impossible for e in found) else 0 if all(e.stable for e in found) else 1


def _replay(args: argparse.Namespace, bag: Path) -> int:
    from bridgevla_ros.bags.replay import replay
    from bridgevla_ros.bags.replay.engine import present
    from bridgevla_ros.bags.replay.golden import Blessing
    from bridgevla_ros.bags.replay.text import show

    console = wide_console()
    blessing = Blessing(bag, args.reason) if args.bless else None
    with console.status(f"replaying {bag}"):
        result = replay(
            bag,
            tuple(args.node) or ("all",),
            seed=args.seed,
            overrides=parameters(args.param),
            mapping=args.mapping,
            tolerance=args.tolerance,
            golden=not (args.recorded or args.bless),
            watch=blessing,
            processes=max(1, args.jobs),
        )
    show(result, console)
    if args.json is not None:
        _write(args.json, json.dumps(result.to_json(), indent=1) + "\n")
    if args.report is not None:
        from bridgevla_ros.bags.replay.report import report

        _write(args.report, report(result, args.mapping))
        console.print(f"report: {args.report}", soft_wrap=True)
    if blessing is not None and not result.impossible:
        if result.missing:
            raise ConfigError("inputs are missing from the bag: its outputs cannot be blessed")
        weights = {k: v for k, v in result.versions["present"].items() if k.startswith("weights")}
        folder = blessing.write(present() | weights)
        console.print(f"golden outputs: {folder}", soft_wrap=True)
        return 0
    return result.status


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def parameters(words: list[str]) -> dict[str, Any]:
    """``node.name=value`` words as overrides.

    Raises:
        ConfigError: A word has another form.
    """
    import yaml

    values = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or "." not in name:
            raise ConfigError(f"--param {word!r}; it looks like action_expert.samples=2")
        try:
            values[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--param {word!r}: {value!r} is no YAML value: {error}") from None
    return values


def _what_if(args: argparse.Namespace) -> int:
    from bridgevla_ros.bags.replay.what_if import compare_settings, show

    change, seed = changes(args.what_if)
    console = wide_console()
    outcome = compare_settings(
        args.bag,
        tuple(args.node) or ("all",),
        overrides=parameters(args.param) | change,
        seed=seed if seed is not None else args.seed,
        mapping=args.mapping,
        processes=max(1, args.jobs),
        console=console,
    )
    show(outcome, console)
    if args.json is not None:
        _write(args.json, json.dumps(outcome.to_json(), indent=1) + "\n")
    return 0 if outcome.bags else 2


def changes(words: list[str]) -> tuple[dict[str, Any], int | None]:
    """What ``--what-if`` says: overrides, and a seed.

    Raises:
        ConfigError: A word has another form.
    """
    found: dict[str, Any] = {}
    seed: int | None = None
    for word in words:
        name, _, value = word.partition("=")
        if name in _SHORT and value:
            found[_SHORT[name]] = value
        elif name == "seed" and value.isdigit():
            seed = int(value)
        elif name.startswith("param:"):
            found |= parameters([word[len("param:") :]])
        else:
            raise ConfigError(
                f"--what-if {word!r}; expected expert=FOLDER, planner=FOLDER, seed=N or param:NODE.NAME=VALUE"
            )
    return found, seed
