"""Make a regression test of a bag: ``bridgevla bag to-test BAG [--name N]``.

The bag goes to test/replay/N/, with expect.yaml beside it: what the recording tells (faults, how its tasks
end) and how many outputs of each node a replay must at least compare and find the same. The test suite
(test/test_replay_bags.py) takes up every folder there. Trim the bag first: it goes into the repository.

    about: A hand takes the object away ...     # what happens, in words
    made_by: python test/replay/make_bags.py failed_grasp
    result: same                                # of the replay
    compared: {planner: 2, cropper: 60, ...}    # least number of outputs by node; others are not replayed
    faults: [GRASP_FAILED]                      # codes that the recording tells, in order
    tasks: [{code: NONE, steps: 1, retries: 1}]
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bridgevla_ros.bags.faults import find_faults, find_tasks
from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.core import resources
from bridgevla_ros.core.errors import BridgeError, ErrorCode

EXPECTATION = "expect.yaml"
LARGEST = 4_000_000
"""Bytes of a bag in the repository. Our choice; `bridgevla bag trim` makes it smaller."""


@dataclass(frozen=True)
class Expectation:
    """What a bag under test is expected to do.

    Attributes:
        about: What happens in it.
        made_by: Command that made it; empty for a recording from elsewhere.
        result: Of the replay: "same", or "differs" for a known defect that is not repaired yet.
        compared: Least number of outputs compared, by node. Nodes that are not named are not replayed.
        faults: Codes that the recording tells, in order.
        tasks: ``code``, ``steps`` and ``retries`` of each task.
        reason: Why "differs" is right for now.
    """

    about: str = ""
    made_by: str = ""
    result: str = "same"
    compared: Mapping[str, int] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    tasks: tuple[Mapping[str, Any], ...] = ()
    reason: str = ""

    @classmethod
    def load(cls, folder: Path) -> Expectation:
        """Read expect.yaml of a folder.

        Raises:
            BridgeError: BAD_INPUT where it cannot be read or says something unknown.
        """
        path = folder / EXPECTATION
        try:
            said = yaml.safe_load(path.read_text(encoding="utf-8"))
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in said.items()}
            made = cls(**values)
            if made.result not in ("same", "differs") or not made.compared:
                raise ValueError("result is same or differs; compared names at least one node")
        except (OSError, yaml.YAMLError, TypeError, AttributeError, ValueError) as error:
            raise BridgeError(
                ErrorCode.BAD_INPUT, f"{path}: {error}", remedy="make it anew with `bridgevla bag to-test`"
            ) from error
        return made

    def save(self, folder: Path) -> None:
        """Write expect.yaml."""
        said = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items() if v}
        text = yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=100)
        (folder / EXPECTATION).write_text(text, encoding="utf-8")


def story(bag: Bag) -> tuple[tuple[str, ...], tuple[Mapping[str, Any], ...]]:
    """Codes that a bag tells, in order, and how its tasks end."""
    faults = tuple(f.code.name for f in find_faults(bag))
    tasks = tuple(
        {"code": t.code.name, "steps": t.steps, "retries": t.retries} for t in find_tasks(bag) if t.ended
    )
    return faults, tasks


def to_test(
    source: Path,
    name: str,
    folder: Path,
    *,
    about: str = "",
    made_by: str = "",
    known_defect: str = "",
    replace: bool = False,
) -> list[str]:
    """Put a bag under test.

    Args:
        source: Folder of the bag.
        name: Of the test.
        folder: Where tests of bags are.
        about, made_by: For expect.yaml.
        known_defect: Why the replay differs, where it does; empty demands that it is the same.
        replace: Take the place of a test of that name.

    Returns:
        What was found, in lines for the operator.

    Raises:
        BridgeError: BAD_INPUT: the name is taken or no name, the bag is too large or cannot be replayed, or
            the replay differs and no reason is given.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise BridgeError(
            ErrorCode.BAD_INPUT, f"name {name!r}", remedy="use small letters, digits and _, a letter first"
        )
    target = folder / name
    if target.exists() and not replace:
        raise BridgeError(ErrorCode.BAD_INPUT, f"{target} exists already", remedy="say --name or --replace")
    size = sum(p.stat().st_size for p in source.rglob("*") if p.is_file())
    if size > LARGEST:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{source} is too large for the repository",
            value=size / 1e6,
            limit=LARGEST / 1e6,
            unit="MB",
            remedy="cut it: bridgevla bag trim BAG --around FAULT",
        )
    expectation, lines = _expect(source, known_defect)
    made = Expectation(
        about,
        made_by,
        expectation.result,
        expectation.compared,
        *story(Bag(source)),
        reason=known_defect,
    )
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)  # with its golden, where it has one
    made.save(target)
    return [*lines, f"{target}: {size / 1e6:.2f} MB"]


def _expect(source: Path, known_defect: str) -> tuple[Expectation, list[str]]:
    """Replay once; what must come out again."""
    from bridgevla_ros.bags.replay import replay

    result = replay(source)
    if result.impossible:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{source} cannot be replayed: {result.impossible}",
            remedy="trim it again from the whole recording",
        )
    if not result.same and not known_defect:
        found = [str(d) for d in result.differences[:3]] + [str(m) for m in result.missing[:3]]
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"the replay of {source} is not the same: {'; '.join([*result.reasons, *found])}",
            remedy="if that is the defect to be repaired, say --known-defect WHY; if the recording is only "
            "old, `bridgevla replay --bless` it first",
        )
    compared = {node: tally.total for node, tally in result.tallies.items() if tally.total}
    lines = [
        f"{node}: {tally.total} outputs compared, {tally.exact} bit-equal"
        + "".join(f", {n} not compared ({why})" for why, n in tally.skipped.items())
        for node, tally in result.tallies.items()
    ]
    return Expectation(result="same" if result.same else "differs", compared=compared), lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``bridgevla bag to-test``."""
    parser.add_argument("bag", type=Path, help="folder of the bag, trimmed")
    parser.add_argument("--name", default="", help="of the test (default: the folder's name)")
    parser.add_argument("--about", default="", help="what happens in it, one sentence")
    parser.add_argument(
        "--folder",
        type=Path,
        default=None,
        help="where tests of bags are (default: test/replay of the checkout)",
    )
    parser.add_argument(
        "--known-defect", default="", metavar="WHY", help="accept that the replay differs for now, and why"
    )
    parser.add_argument("--replace", action="store_true", help="take the place of a test of that name")


def run(args: argparse.Namespace) -> int:
    """``bridgevla bag to-test``."""
    folder = args.folder or resources.roots()[0] / "test" / "replay"
    if not folder.is_dir():
        raise BridgeError(
            ErrorCode.BAD_INPUT, f"{folder} is no folder", remedy="say --folder, or run it in a checkout"
        )
    name = args.name or re.sub(r"[^a-z0-9]+", "_", args.bag.resolve().name.lower()).strip("_")
    lines = to_test(
        args.bag, name, folder, about=args.about, known_defect=args.known_defect, replace=args.replace
    )
    print("\n".join(lines))
    print(f"pytest test/test_replay_bags.py -k {name}")
    return 0
