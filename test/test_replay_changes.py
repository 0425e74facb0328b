"""Replay: what was changed shows, node by node; what is blessed or repeated comes out again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace as with_
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rclpy.serialization import serialize_message
from replay_rig import RECORDED, changed, replay, write_run
from safetensors.numpy import load_file, save_file

from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.bags.replay import ReplayResult
from bridgevla_ros.bags.replay.engine import present
from bridgevla_ros.bags.replay.golden import Blessing
from bridgevla_ros.bags.replay.report import report
from bridgevla_ros.bags.replay.stability import stability
from bridgevla_ros.bags.replay.what_if import WhatIf, compare_settings
from bridgevla_ros.cli import main
from bridgevla_ros.core import resources
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.types import CHECK
from bridgevla_ros.planner.matching import unanswered
from bridgevla_ros.ros import conversions

SHIPPED = Path(__file__).resolve().parent / "replay"
CHANGED = {
    "trajectory.max_speed": 0.2,
    "cropper.voxel": 0.008,
    "arm_streamer.tracking_gain": 2.0,
    "action_expert.policy": "ik",
}
SHOWN = {
    "trajectory": "spline time",
    "cropper": "crop",
    "arm_streamer": "command",
    "action_expert": "chunk",
}
"""In which quantity each change must show."""
NODES = tuple(SHOWN)


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three bags of one run: whole, without its last cloud, without its last two."""
    folder = tmp_path_factory.mktemp("bags")
    whole = write_run(tmp_path_factory.mktemp("run"), 0.8)
    for lost in range(3):
        place = folder / f"bag_{lost}"
        place.mkdir()
        gone = {("/cloud", 7 - i) for i in range(lost)}
        changed(whole, place, lambda topic, data, n, gone=gone: None if (topic, n) in gone else data)
    return folder


def test_what_if_tells_each_nodes_change_over_a_folder(bags: Path) -> None:
    outcome = compare_settings([bags], NODES, overrides=CHANGED, seed=None)
    assert len(outcome.bags) == 3
    for node, quantity in SHOWN.items():
        row = row_of(outcome, node, quantity)
        assert row.bags == 3
        assert row.b > row.a
        assert row.paired == pytest.approx(row.b - row.a)
        assert 0.0 < row.low <= row.paired <= row.high
        assert outcome.outputs[node][2] > 0
    # Clouds that bags lack are told as recorded; a policy that needs none turns that into chunks.
    assert outcome.turned == {("action_expert", "SENSOR_LOST -> NONE"): 6}
    for name in CHANGED:
        assert any(f"parameter {name}: recorded" in change for change in outcome.changes), name


def row_of(outcome: WhatIf, node: str, quantity: str) -> Any:
    return next(r for r in outcome.rows if (r.node, r.quantity) == (node, quantity))


def test_what_is_blessed_is_expected_of_every_node(bags: Path, tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    shutil.copytree(bags / "bag_0", bag)
    bless(bag, NODES, CHANGED)
    again = replay(bag, NODES, overrides=CHANGED)
    assert (again.same, again.exact, again.golden) == (True, True, "it was wanted")
    recorded = replay(bag, NODES, overrides=RECORDED)
    assert {d.node for d in recorded.differences} == set(NODES)
    assert replay(bag, NODES, overrides=RECORDED, golden=False, tolerance="same").same


def bless(bag: Path, nodes: tuple[str, ...], overrides: dict[str, Any]) -> None:
    blessing = Blessing(bag, "it was wanted")
    replay(bag, nodes, overrides=overrides, golden=False, watch=blessing)
    blessing.write(present())


def test_the_same_comes_out_each_time_also_on_a_busy_machine(bags: Path) -> None:
    nodes = ("trajectory", "arm_streamer")
    (entry,) = stability([bags / "bag_0"], nodes, repeats=3, load=True, tolerance="same", processes=2)
    assert entry.stable, entry.to_json()
    assert (entry.exact, entry.loaded, entry.varying) == (3, 1, [])
    assert len({one.process for one in entry.replays}) == 2
    assert set(entry.replays[0].digests) == set(nodes)


def test_what_does_not_come_out_the_same_is_told(bags: Path) -> None:
    one, other = (
        stability([bags / "bag_0"], ("trajectory",), repeats=2, overrides=o, processes=1)[0]
        for o in ({}, {"trajectory.max_speed": 0.2})
    )
    assert one.stable
    assert not other.stable  # not what was recorded, though the same each time
    assert other.varying == []
    one.replays[1] = other.replays[0]
    assert one.varying == ["trajectory"]
    with pytest.raises(BridgeError, match="one replay tells nothing"):
        stability([bags / "bag_0"], repeats=1)


def test_the_verb_repeats(bags: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["replay", str(bags), "--node", "trajectory", "--jobs", "1"]
    assert main([*words, "--repeat", "2", "--json", str(tmp_path / "out.json")]) == 0
    assert "3 of 3 bags come out the same each time" in capsys.readouterr().out
    found = json.loads((tmp_path / "out.json").read_text())
    assert [(e["replays"], e["bit_equal"]) for e in found] == [(2, 2)] * 3
    assert main([*words, "--load"]) == 2
    assert "--load goes with --repeat" in capsys.readouterr().err


# The planner, on a bag that ships


def test_the_planners_changes_are_caught_and_named(tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    shutil.copytree(SHIPPED / "success", bag)
    higher = {"planner.travel_height": 0.25}
    bless(bag, ("planner",), higher)
    again = replay(bag, ("planner",), overrides=higher)
    assert again.same
    assert any(r.startswith("parameter planner.travel_height: recorded") for r in again.reasons)
    result = replay(bag, ("planner",))
    assert "waypoint" in quantities(result)
    assert {d.node for d in result.differences} == {"planner"}
    page = report(result, None)
    for picture in ("the divergence on the image", "the divergence in space"):
        assert page.count(f"alt='{picture}'") == 1


def test_what_if_another_planner_had_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second checkpoint, each weight 1% larger, against the recorded one over a folder of three bags."""
    folder = tmp_path / "bags"
    for name in ("success", "refused_plan", "sensor_loss"):
        shutil.copytree(SHIPPED / name, folder / name)
    other = other_weights(tmp_path / "planner")
    words = ["replay", str(folder), "--node", "planner", "--what-if", f"planner={other}", "--jobs", "1"]
    assert main([*words, "--json", str(tmp_path / "ab.json")]) == 0
    found = json.loads((tmp_path / "ab.json").read_text())
    assert len(found["bags"]) == 3
    assert any(c.startswith("parameter planner.weights: recorded") for c in found["changes"])
    assert any(c.startswith("weights of embedded: recorded") for c in found["changes"])
    rows = {row["quantity"]: row for row in found["rows"]}
    for quantity in ("null probability", "anchor confidence"):
        row = rows[quantity]
        assert row["b"] > row["a"]
        assert row["node"] == "planner"
        assert row["paired"] == pytest.approx(row["b"] - row["a"])
    row = rows["null probability"]  # that of the refusal too: all three bags have it, so it has an interval
    assert row["bags"] == 3
    assert row["low"] <= row["paired"] <= row["high"]
    printed = capsys.readouterr().out
    assert "95% interval" in printed
    assert "null probability" in printed
    assert "B: weights of embedded: recorded" in printed


def quantities(result: ReplayResult) -> set[str]:
    return {d.quantity for d in result.differences}


def other_weights(folder: Path) -> Path:
    """The planner's, each 1% larger."""
    shutil.copytree(resources.find_weights("planner"), folder)
    weights = load_file(folder / "model.safetensors")
    larger = {n: (w * 1.01).astype(w.dtype) if w.dtype == np.float32 else w for n, w in weights.items()}
    save_file(larger, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_plans_that_were_no_longer_wanted(tmp_path: Path) -> None:
    """One request was superseded before its image came, one while the planner thought about it."""
    (source,) = (SHIPPED / "success").glob("*.mcap")
    bag, keep = Bag(SHIPPED / "success"), dict[Any, Any]()
    replay(bag, ("planner",), keep=keep)
    (planner,) = keep.values()
    sent = next(iter(bag.messages(["/plan_request"])))
    made = next(iter(bag.messages(["/plan"])))
    request = conversions.plan_request_from_msg(sent.message)
    plan = conversions.waypoint_plan_from_msg(made.message)

    waiting = with_(request, request_id="waiting", stamp=request.stamp - 0.5)
    stopped = with_(request, request_id="stopped", stamp=request.stamp - 0.4)
    why = BridgeError(ErrorCode.CANCELLED, f"request {request.request_id} came in its place")
    unseen = unanswered(planner, waiting, why, request.stamp)
    unfinished = with_(
        plan, request_id="stopped", code=ErrorCode.CANCELLED, anchors=plan.anchors[:1], waypoints=()
    )
    # Whether the step is done, judged from the image that it was planned from: nothing has moved.
    asked = with_(request, request_id="asked", attempt=CHECK, stamp=request.stamp - 0.45)
    judged = with_(plan, request_id="asked", code=ErrorCode.NONE, anchors=(), waypoints=())
    unknown = with_(asked, request_id="unknown", task_id="another")
    messages = [
        ("/plan_request", sent.received_ns + 1, conversions.plan_request_to_msg(asked)),
        ("/plan", made.received_ns + 3, conversions.waypoint_plan_to_msg(judged)),
        ("/plan_request", sent.received_ns + 2, conversions.plan_request_to_msg(unknown)),
        (
            "/plan",
            made.received_ns + 4,
            conversions.waypoint_plan_to_msg(with_(judged, request_id="unknown")),
        ),
        ("/plan_request", sent.received_ns - 2, conversions.plan_request_to_msg(waiting)),
        ("/plan_request", sent.received_ns - 1, conversions.plan_request_to_msg(stopped)),
        ("/plan", made.received_ns + 1, conversions.waypoint_plan_to_msg(unseen)),
        ("/plan", made.received_ns + 2, conversions.waypoint_plan_to_msg(unfinished)),
    ]
    more = [(topic, when, bytes(serialize_message(message))) for topic, when, message in messages]
    recorded = sum(1 for _ in bag.messages(["/plan"]))  # the plan, and the judgement of its step
    for gone, differing in (((), {"asked"}), (("/plan_request", "/plan", "/status"), {"asked", "stopped"})):
        folder = tmp_path / f"without_{len(gone)}"
        folder.mkdir()
        path = changed(
            source, folder, lambda topic, data, n, gone=gone: None if topic in gone else data, more
        )
        result = replay(path, ("planner",), keep=keep)
        # The plan that was carried out is another test's.
        found = {d.key for d in result.differences if d.quantity == "code"} - {request.request_id}
        assert found == differing
        tally = result.tallies["planner"]
        assert tally.total == 3 + (0 if gone else recorded)
        assert dict(tally.skipped) == {"the plan of the step that is judged is not in the bag": 1}
