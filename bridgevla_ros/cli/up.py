"""Start the graph: every node a process, watched and started again when it ends.

Arguments look like those of the launch file: bridgevla up seed:=3 policy:=ik
Ctrl-C ends it all; a second Ctrl-C does not wait.
"""

from __future__ import annotations

import argparse
import sys

from bridgevla_ros import bringup
from bridgevla_ros.core.config import ConfigError
from bridgevla_ros.supervisor import Supervisor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("argument", nargs="*", metavar="name:=value", help="see --show-args")
    parser.add_argument("-s", "--show-args", action="store_true", help="list the arguments and stop")


def run(args: argparse.Namespace) -> int:
    """Start the graph and serve until it is told to stop."""
    if args.show_args:
        print(show_arguments())
        return 0
    try:
        graph = bringup.build(bringup.parse_arguments(args.argument))
    except (ConfigError, FileNotFoundError) as error:
        print(f"bridgevla up: {error}", file=sys.stderr)
        return 2
    return Supervisor(graph).run()


def show_arguments() -> str:
    """Return name, default, choices and description of every argument."""
    lines = []
    for a in bringup.ARGUMENTS:
        lines.append(f"  {a.name}:={a.default or '(empty)'}")
        choices = f" [{', '.join(c for c in a.choices if c)}]" if a.choices else ""
        lines.append(f"      {a.description}{choices}")
    return "\n".join(lines)
