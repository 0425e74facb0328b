"""Data sets: ``bridgevla dataset <sub-verb>``: bags to a data set, a data set to bags, and what is in one."""

from __future__ import annotations

import argparse
import sys

from bridgevla_ros.core.config import ConfigError
from bridgevla_ros.core.errors import BridgeError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of each sub-verb."""
    from bridgevla_ros.datasets import from_bags, info, to_bag

    verbs = parser.add_subparsers(dest="sub_verb", required=True, metavar="sub-verb")
    for name, module, summary in (
        ("from-bags", from_bags, "make a data set of bags, with a report on their quality"),
        ("to-bag", to_bag, "make bags of a data set, for looking at"),
        ("info", info, "what is in a data set"),
    ):
        own = verbs.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(own)
        own.set_defaults(act=module.run)


def run(args: argparse.Namespace) -> int:
    """Run the sub-verb."""
    try:
        return int(args.act(args))
    except (BridgeError, ConfigError) as error:
        remedy = getattr(error, "remedy", "")
        print(
            f"bridgevla dataset {args.sub_verb}: {error}" + (f"; {remedy}" if remedy else ""), file=sys.stderr
        )
        return 2
