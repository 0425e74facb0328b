"""Replay: the same run comes out again, and what was changed is caught and named."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from replay_rig import RECORDED, START, changed, replay, write_run
from safetensors.numpy import load_file, save_file
from tf2_msgs.msg import TFMessage

from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.bags.replay import ReplayResult
from bridgevla_ros.bags.replay.engine import present
from bridgevla_ros.bags.replay.golden import Blessing
from bridgevla_ros.bags.replay.what_if import compare_settings
from bridgevla_ros.cli import main
from bridgevla_ros.core import resources
from bridgevla_ros.core.config import ConfigError
from bridgevla_ros.core.errors import BridgeError, ErrorCode


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), 2.0)


def quantities(result: ReplayResult, node: str) -> set[str]:
    return {d.quantity for d in result.differences if d.node == node}


def test_a_bag_written_by_hand_replays(bag: Path) -> None:
    nodes = ("cropper", "trajectory", "action_expert", "task", "arm_streamer")
    result = replay(bag, nodes, overrides=RECORDED, tolerance="same")
    assert result.same, "\n".join(map(str, [*result.differences, *result.missing]))
    assert result.status == 0
    for node in ("cropper", "trajectory", "action_expert", "task"):
        assert result.tallies[node].exact == result.tallies[node].total > 0
    assert result.tallies["arm_streamer"].compared["arm/joint_trajectory"] > 100
    assert not any(t.skipped for t in result.tallies.values())
    assert refusals(bag) > 0  # the expert's refusals are among them
    assert json.loads(json.dumps(result.to_json()))["same"] is True


def refusals(bag: Path) -> int:
    return sum(item.message.code == ErrorCode.SENSOR_LOST for item in Bag(bag).messages(["/action_chunk"]))


def test_a_refusal_of_the_expert_replays_and_one_that_is_none_any_more_is_named(bag: Path) -> None:
    wider = {**RECORDED, "action_expert.cloud_max_age": 0.5}
    result = replay(bag, ("action_expert",), overrides=wider, tolerance="same")
    codes = [d for d in result.differences if d.quantity == "code"]
    assert len(codes) == refusals(bag) > 0
    assert all(d.recorded.startswith("SENSOR_LOST") and d.replayed == "NONE" for d in codes)
    # A refusal leaves no trace: the chunks after it are those that they were.
    assert {d.index for d in result.differences} == {d.index for d in codes}
    assert any(r.startswith("parameter action_expert.cloud_max_age: recorded") for r in result.reasons)

    narrower = {**RECORDED, "action_expert.max_spread": 0.0}  # its samples never agree to the bit
    result = replay(bag, ("action_expert",), overrides=narrower, tolerance="same")
    codes = [d for d in result.differences if d.quantity == "code"]
    assert len(codes) == result.tallies["action_expert"].total - refusals(bag)
    assert {d.replayed.split()[0] for d in codes} == {"EXPERT_DIVERGED"}


def test_other_weights_are_named(bag: Path, tmp_path: Path) -> None:
    folder = tmp_path / "expert"
    shutil.copytree(resources.find_weights("expert"), folder)
    weights = load_file(folder / "model.safetensors")
    larger = {n: (w.astype(np.float32) * 1.01).astype(w.dtype) for n, w in weights.items()}
    save_file(larger, folder / "model.safetensors")
    card = json.loads((folder / "expert.json").read_text())
    card["sha256"] = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "expert.json").write_text(json.dumps(card))
    overrides = {**RECORDED, "action_expert.weights": str(folder)}
    result = replay(bag, ("action_expert",), overrides=overrides, tolerance="same")
    assert result.status == 1
    assert "chunk" in quantities(result, "action_expert")
    assert any(r.startswith("weights of expert: recorded") for r in result.reasons)


def test_another_seed_is_named(bag: Path) -> None:
    result = replay(bag, ("action_expert",), seed=8, overrides=RECORDED, tolerance="same")
    assert "chunk" in quantities(result, "action_expert")
    assert str(result.first).startswith("action_expert at ")
    assert "seed: 8 instead of the recorded ones" in result.reasons


def test_a_lost_cloud_is_named(bag: Path, tmp_path: Path) -> None:
    cut = changed(bag, tmp_path, lambda topic, data, n: None if (topic, n) == ("/cloud", 8) else data)
    result = replay(cut, ("action_expert",), overrides=RECORDED, tolerance="same")
    assert result.status == 1
    assert {m.topic for m in result.missing} == {"cloud"}
    assert any("needs cloud of" in reason for reason in result.reasons)


def test_a_changed_parameter_is_named(bag: Path) -> None:
    result = replay(bag, ("trajectory",), overrides={"trajectory.max_speed": 0.2}, tolerance="same")
    assert "spline time" in quantities(result, "trajectory")
    assert result.reasons == ["parameter trajectory.max_speed: recorded 0.25, now 0.2"]
    first = result.first
    assert first is not None
    assert (first.node, first.unit) == ("trajectory", "ms")


def test_a_moved_camera_is_named(bag: Path, tmp_path: Path) -> None:
    def move(topic: str, data: bytes, number: int) -> bytes:
        if topic != "/tf_static":
            return data
        message = deserialize_message(data, TFMessage)
        message.transforms[0].transform.translation.x += 0.005
        return bytes(serialize_message(message))

    result = replay(changed(bag, tmp_path, move), ("cropper", "trajectory"), tolerance="same")
    worst = max(d.value for d in result.differences if d.quantity == "crop centre")
    assert 3.0 < worst < 7.0
    assert any("camera pose" in r and "5.00 mm" in r for r in result.reasons)


def test_a_lost_command_and_a_lost_lease_are_seen(bag: Path, tmp_path: Path) -> None:
    lost = {("/arm/joint_trajectory", 20), ("/lease", 2)}
    cut = changed(bag, tmp_path, lambda topic, data, n: None if (topic, n) in lost else data)
    result = replay(cut, ("arm_streamer",), tolerance="same")
    assert any(m.topic == "lease" for m in result.missing)
    assert any(d.recorded == "nothing" and "ArmCommand" in d.replayed for d in result.differences)


def test_golden_outputs_take_the_recordings_place(bag: Path, tmp_path: Path) -> None:
    own = tmp_path / "bag"
    own.mkdir()
    shutil.copy(bag, own)
    slower = {"trajectory.max_speed": 0.2}
    with pytest.raises(BridgeError, match="reason"):
        Blessing(own, " ")
    blessing = Blessing(own, "slower is wanted")
    replay(own, ("trajectory",), overrides=slower, golden=False, watch=blessing)
    blessing.write(present())
    again = replay(own, ("trajectory",), overrides=slower)
    assert (again.same, again.golden, again.tolerance) == (True, "slower is wanted", "same")
    assert not replay(own, ("trajectory",)).same
    assert replay(own, ("trajectory",), golden=False).same


def test_what_cannot_be_replayed(bag: Path, tmp_path: Path) -> None:
    outputs = ("/action_chunk", "/guidance")
    empty = changed(bag, tmp_path, lambda topic, data, n: data if topic in outputs else None)
    result = replay(empty, ("action_expert",))
    assert (result.status, result.same) == (2, False)
    assert "no progress and no joint_states for action_expert" in result.impossible
    with pytest.raises(BridgeError, match="no node that can be replayed"):
        replay(bag, ("camera",))
    with pytest.raises(ConfigError, match="did you mean 'max_speed'"):
        replay(bag, ("trajectory",), overrides={"trajectory.max_sped": 0.2})


def test_verb(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome, page = tmp_path / "out.json", tmp_path / "out.html"
    words = ["replay", str(bag), "--node", "trajectory", "--json", str(outcome)]
    assert main(words) == 0
    slower = ["--param", "trajectory.max_speed=0.2", "--report", str(page)]
    assert main([*words, *slower]) == 1
    found = json.loads(outcome.read_text())
    assert not found["same"]
    assert {"node", "stamp", "quantity", "value", "tolerance"} <= found["differences"][0].keys()
    assert found["first"]["stamp"] == pytest.approx(START + 0.2, abs=0.1)
    text = page.read_text()
    assert text.count("data:image/png;base64,") >= 2
    assert "First divergence" in text
    assert main(["replay", str(tmp_path)]) == 2
    assert "no .mcap" in capsys.readouterr().err


def test_the_verb_blesses_with_a_reason(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "bag"
    own.mkdir()
    shutil.copy(bag, own)
    words = ["replay", str(own), "--node", "trajectory", "--param", "trajectory.max_speed=0.2"]
    assert main(words) == 1
    assert main([*words, "--bless"]) == 2
    assert "reason" in capsys.readouterr().err
    assert main([*words, "--bless", "--reason", "slower is wanted"]) == 0
    assert json.loads((own / "golden" / "golden.json").read_text())["reason"] == "slower is wanted"
    assert main(words) == 0
    assert main([*words, "--recorded"]) == 1


def test_what_if(bag: Path, tmp_path: Path) -> None:
    outcome = compare_settings([bag], ("trajectory",), overrides={"trajectory.max_speed": 0.2}, seed=None)
    row = next(r for r in outcome.rows if r.quantity == "spline time")
    assert (row.a, row.bags, row.unit) == (0.0, 1, "ms")
    assert row.b == row.paired > 100.0
    assert outcome.outputs == {"trajectory": (1, 0, 1)}
    assert json.loads(json.dumps(outcome.to_json()))["rows"]
