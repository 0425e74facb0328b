"""Data for the action expert; `bridgevla data generate --help` lists the options of a part.

generate   play demonstrations in the simulator, or let an expert act (--policy), and record its sensors
export     write a bank as a LeRobotDataset v3 or as MCAP bags
info       say what a bank holds
"""

from __future__ import annotations

import argparse
import importlib
import sys

from bridgevla_ros.core.errors import BridgeError

PARTS = {
    "generate": "bridgevla_ros.training.data_command",
    "export": "bridgevla_ros.training.data_export",
    "info": "bridgevla_ros.training.data_info",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb; those of the part are declared when its name is known."""
    parser.add_argument("part", choices=PARTS, help="what to do")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="of that part")


def run(args: argparse.Namespace) -> int:
    """Hand over to the part's own module; a refusal is told with what to do, and status 2."""
    module = importlib.import_module(PARTS[args.part])
    parser = argparse.ArgumentParser(
        prog=f"bridgevla data {args.part}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    try:
        return int(module.run(parser.parse_args(args.options)))
    except BridgeError as error:
        print(f"bridgevla data {args.part}: {error.message}", file=sys.stderr)
        if error.remedy:
            print(error.remedy, file=sys.stderr)
        return 2
