"""Look at bags and make something of them: ``bridgevla bag <sub-verb> BAG``.

A sub-verb is a module with ``add_arguments(parser)`` and ``run(args) -> int``, imported when it is asked for.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bridgevla_ros.core.config import ConfigError
from bridgevla_ros.core.errors import BridgeError


@dataclass(frozen=True)
class SubVerb:
    """A sub-verb, the module that does it, and one line of help."""

    name: str
    module: str
    summary: str


SUB_VERBS: tuple[SubVerb, ...] = (
    SubVerb(
        "info", "bridgevla_ros.bags.info", "what is in a bag: topics, tasks and outcomes, versions, damage"
    ),
    SubVerb("stats", "bridgevla_ros.bags.stats", "ages, rates, jitter, gaps, and where the time went"),
    SubVerb("trim", "bridgevla_ros.bags.trim", "cut the smallest piece around a fault that still replays"),
    SubVerb("to-test", "bridgevla_ros.bags.to_test", "make a regression test of a bag"),
    SubVerb("plot", "bridgevla_ros.bags.plot", "one picture of a run: camera strip and timelines"),
)


def main(words: Sequence[str]) -> int:
    """Run ``bridgevla bag`` with the words that follow it; returns the exit status."""
    if not words or words[0] in ("-h", "--help"):
        print(help_text())
        return 0 if words else 2
    name, *rest = words
    verb = next((v for v in SUB_VERBS if v.name == name), None)
    if verb is None:
        near = difflib.get_close_matches(name, [v.name for v in SUB_VERBS], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"bridgevla bag: there is no {name!r}{hint}\n\n{help_text()}", file=sys.stderr)
        return 2
    module = importlib.import_module(verb.module)
    parser = argparse.ArgumentParser(
        prog=f"bridgevla bag {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    try:
        return int(module.run(parser.parse_args(rest)))
    except (BridgeError, ConfigError) as error:
        remedy = getattr(error, "remedy", "")
        print(f"bridgevla bag {name}: {error}" + (f"; {remedy}" if remedy else ""), file=sys.stderr)
        return 2


def help_text() -> str:
    """Return the list of sub-verbs."""
    return "\n".join(
        [
            "usage: bridgevla bag <sub-verb> BAG [options]     bridgevla bag <sub-verb> --help says more",
            "",
            *(f"  {v.name:<10} {v.summary}" for v in SUB_VERBS),
        ]
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words that ``main`` takes."""
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="sub-verb ...", help=help_text())


def run(args: argparse.Namespace) -> int:
    """Run with parsed arguments."""
    return main(args.words)
