"""A piece of a bag stands on its own: what outputs name is in it, and it replays."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from rosbags.rosbag2 import Reader

from bridgevla_ros.bags.faults import around, find_faults, find_tasks
from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.bags.replay import replay
from bridgevla_ros.bags.replay.result import BEFORE
from bridgevla_ros.bags.replay.state import ATTACHMENT
from bridgevla_ros.bags.to_test import Expectation, to_test
from bridgevla_ros.bags.trim import COLOUR, DEPTH, JOINTS, NAMING, NOTE, trim
from bridgevla_ros.cli import main
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.perception.config import CropperConfig

SHIPPED = Path(__file__).resolve().parent / "replay"
FAILED = SHIPPED / "failed_grasp"


def stamps(bag: Bag, topic: str) -> set[int]:
    return {
        m.message.header.stamp.sec * 10**9 + m.message.header.stamp.nanosec for m in bag.messages([topic])
    }


def seconds(message: Any) -> float:
    return float(message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec)


def test_faults_and_tasks_are_found() -> None:
    bag = Bag(FAILED)
    faults = find_faults(bag)
    assert ErrorCode.GRASP_FAILED in [f.code for f in faults]
    (task,) = find_tasks(bag)
    assert (task.ended, task.code, task.retries, task.steps) == (True, ErrorCode.NONE, 1, 1)
    fault = next(f for f in faults if f.code is ErrorCode.GRASP_FAILED)
    assert around(bag, "GRASP_FAILED") == (fault.received, fault.received)
    assert around(bag, "fault")[0] == faults[0].received
    assert around(bag, task.task_id) == (task.first, task.last)
    begin = bag.bounds()[0]
    assert around(bag, "2.5") == (begin + 2_500_000_000,) * 2
    for words, said in (
        ("GRASP_FAILD", "did you mean GRASP_FAILED"),
        ("GRASP_FAILED:9", "nothing in the bag"),
        ("99999", "beyond the end"),
    ):
        with pytest.raises(BridgeError, match=said) as caught:
            around(bag, words)
        assert caught.value.remedy


def test_a_piece_holds_what_its_outputs_name_and_replays(tmp_path: Path) -> None:
    whole = Bag(FAILED)
    at = around(whole, "GRASP_FAILED")[0]
    done = trim(whole, tmp_path / "piece", at - 3_000_000_000, at + 500_000_000)
    assert done.missing == ()
    assert done.messages < done.of
    assert done.size < done.source_size
    piece = Bag(tmp_path / "piece")
    assert piece.custom[f"{NOTE}.commands"] == "true"
    assert piece.run is not None
    assert piece.run.parameters == whole.run.parameters
    assert "robot.urdf" in piece.attachments()
    assert "git.diff" not in piece.attachments()
    # the plan in force was made from an image of long before the window
    (plan,) = [m.message for m in piece.messages(["/plan"])][:1]
    assert plan.header.stamp.sec * 10**9 + plan.header.stamp.nanosec in stamps(piece, DEPTH)
    assert plan.color_stamp.sec * 10**9 + plan.color_stamp.nanosec in stamps(piece, COLOUR)
    assert len(stamps(piece, DEPTH)) < len(stamps(whole, DEPTH))
    joints = stamps(piece, JOINTS)
    for item in piece.messages(["/action_chunk"]):
        assert {t.sec * 10**9 + t.nanosec for t in item.message.joint_stamps} <= joints
    with Reader(tmp_path / "piece") as reader:  # what others read it with
        assert reader.message_count == done.messages
    result = replay(tmp_path / "piece")
    assert result.same, [str(d) for d in (*result.differences[:3], *result.missing[:3])]
    assert {"planner", "trajectory", "cropper", "action_expert", "task", "arm_streamer"} == set(result.nodes)


def test_a_piece_far_from_the_start_carries_what_was_remembered(tmp_path: Path) -> None:
    whole = Bag(FAILED)
    images = {seconds(m.message): m.received_ns for m in whole.messages([DEPTH])}
    forgotten = min(images) + CropperConfig().memory  # until then the run's first image is remembered
    first = images[min(stamp for stamp in images if stamp > forgotten)]
    trim(whole, tmp_path / "piece", first, whole.bounds()[1], commands=False)
    piece = Bag(tmp_path / "piece")
    assert ATTACHMENT in piece.attachments()
    result = replay(tmp_path / "piece", ("cropper", "action_expert"))
    assert result.same, [str(d) for d in (*result.differences[:3], *result.missing[:3])]
    assert result.tallies["cropper"].total > 3
    assert set(result.tallies["cropper"].skipped) <= {BEFORE}  # whatever the stamp, its memory is known
    assert len(stamps(piece, DEPTH)) < 0.5 * len(stamps(whole, DEPTH))  # no images only to fill a memory


def test_without_commands_it_is_smaller(tmp_path: Path) -> None:
    bag = Bag(FAILED)
    at = around(bag, "GRASP_FAILED")[0]
    sizes = [
        trim(bag, tmp_path / str(commands), at - 10**9, at, commands=commands).messages
        for commands in (True, False)
    ]
    assert sizes[1] < sizes[0]
    kept = Bag(tmp_path / "False")
    assert set(NAMING) <= set(kept.topics()) | {"/plan"}


def test_the_verbs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["trim", str(FAILED), "--around", "GRASP_FAILED", "-o", str(tmp_path / "piece")]
    assert main(["bag", *words, "--before", "1", "--after", "0.5"]) == 0
    assert "MB" in capsys.readouterr().out
    assert main(["bag", *words]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["bag", *words, "--before", "-1"]) == 2
    assert main(["bag", "trim", str(tmp_path), "--around", "fault"]) == 2
    capsys.readouterr()
    (tmp_path / "tests").mkdir()
    words = ["to-test", str(SHIPPED / "refused_plan"), "--folder", str(tmp_path / "tests"), "--name", "mine"]
    assert main(["bag", *words]) == 0
    made = Expectation.load(tmp_path / "tests" / "mine")
    assert made.result == "same"
    assert made.compared == Expectation.load(SHIPPED / "refused_plan").compared
    assert made.faults == ("NO_TARGET",)
    assert main(["bag", *words]) == 2
    assert "exists already" in capsys.readouterr().err
    with pytest.raises(BridgeError, match="name"):
        to_test(SHIPPED / "refused_plan", "No Name", tmp_path)


def test_a_bag_that_differs_needs_a_reason(tmp_path: Path) -> None:
    """A recording in which a refusal had another code: this version does not do that."""
    source = tmp_path / "changed"
    _with_another_code(SHIPPED / "refused_plan", source)
    (tmp_path / "tests").mkdir()
    with pytest.raises(BridgeError, match="not the same"):
        to_test(source, "changed", tmp_path / "tests")
    assert not (tmp_path / "tests" / "changed").exists()
    to_test(source, "changed", tmp_path / "tests", known_defect="the code was another one")
    assert Expectation.load(tmp_path / "tests" / "changed").result == "differs"
    said = yaml.safe_load((tmp_path / "tests/changed/expect.yaml").read_text())
    assert said["reason"] == "the code was another one"
    shutil.rmtree(tmp_path / "tests")


def _with_another_code(source: Path, out: Path) -> None:
    from bridgevla_ros.bags.definitions import installed
    from bridgevla_ros.bags.writer import BagWriter

    bag = Bag(source)
    with BagWriter(out, compression="zstd", custom=bag.custom) as writer:
        for topic, connection in bag.connections().items():
            writer.add(connection)
            assert topic
        for record in bag.records():
            data = record.data
            if record.connection.topic == "/plan":
                message = installed().deserialize_cdr(data, "bridgevla/msg/WaypointPlan")
                message.code = int(ErrorCode.AMBIGUOUS)
                data = bytes(installed().serialize_cdr(message, "bridgevla/msg/WaypointPlan"))
            writer.write(record.connection.topic, record.received, data)
