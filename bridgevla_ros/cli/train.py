"""Train a learned part with the recipe it ships with; `bridgevla train planner --help` lists its options.

planner   the grounding model: phrasings, then rendered scenes
expert    the diffusion action expert: on trajectories first, then with clouds
"""

from __future__ import annotations

import argparse
import importlib

PARTS = {"planner": "bridgevla_ros.training.planner", "expert": "bridgevla_ros.training.appf"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb; those of the part are declared when its name is known."""
    parser.add_argument("part", choices=PARTS, help="what to train")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="of that part")


def run(args: argparse.Namespace) -> int:
    """Hand over to the part's own module."""
    module = importlib.import_module(PARTS[args.part])
    parser = argparse.ArgumentParser(
        prog=f"bridgevla train {args.part}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(args.options)))
