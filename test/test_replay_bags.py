"""Every bag below test/replay is replayed with the code of this version: nothing may have changed.

`bridgevla bag to-test BAG` adds one. When a change is meant to change what the nodes put out:
`bridgevla replay --bless`, or `python test/replay/make_bags.py NAME` for ours.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.bags.replay import replay
from bridgevla_ros.bags.to_test import EXPECTATION, LARGEST, Expectation, story

FOLDER = Path(__file__).resolve().parent / "replay"
BAGS = sorted(p.parent for p in FOLDER.glob(f"*/{EXPECTATION}"))
SHIPPED = {"success", "refused_plan", "failed_grasp", "sensor_loss", "long_horizon"}


@pytest.fixture(params=BAGS, ids=lambda p: p.name)
def folder(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_what_we_ship_is_there() -> None:
    assert {p.name for p in BAGS} >= SHIPPED
    assert sum(f.stat().st_size for f in FOLDER.rglob("*") if f.is_file()) < 10e6


def test_the_recording_tells_its_story(folder: Path) -> None:
    expected = Expectation.load(folder)
    bag = Bag(folder)
    assert story(bag) == (expected.faults, expected.tasks)
    assert bag.damage == []
    run = bag.run
    assert run is not None
    assert len(run.git["commit"]) == 40
    assert {"/planner", "/action_expert", "/task"} <= run.parameters.keys()
    for node, file in (("/planner", "model.safetensors"), ("/action_expert", "expert.json")):
        assert len(run.checkpoints[node][file]) == 64
    assert sum(f.stat().st_size for f in folder.iterdir() if f.is_file()) < LARGEST


def test_the_code_does_what_it_did(folder: Path) -> None:
    expected = Expectation.load(folder)
    result = replay(folder, tuple(expected.compared))
    assert not result.impossible
    found = [*map(str, result.differences[:5]), *map(str, result.missing[:5]), *result.reasons]
    assert ("same" if result.same else "differs") == expected.result, "\n".join(found)
    compared = {node: result.tallies[node].total for node in expected.compared}
    assert all(compared[node] >= least for node, least in expected.compared.items()), compared
