"""A run of another cell, in another format, replays under our names; so does what is left of a broken bag."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from mcap.reader import make_reader
from rclpy.serialization import deserialize_message, serialize_message
from replay_rig import RECORDED, changed, replay, write_run
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as RosbagsWriter

from bridgevla_ros.bags.replay import ReplayResult
from bridgevla_ros.cli import main
from bridgevla_ros.core.kinematics import ArmModel

NODES = ("cropper", "trajectory", "action_expert", "task", "arm_streamer")
TOPICS = {
    "/joint_states": "/fr3/joints",
    "/camera/depth/image_raw": "/wrist_cam/depth/rect",
    "/camera/depth/camera_info": "/wrist_cam/depth/info",
    "/arm/joint_trajectory": "/fr3/controller/command",
    "/cloud": "/crop/points",
}
FRAMES = {"base_link": "fr3_link0", "eye": "wrist_optical"}
JOINTS = {name: f"fr3_{name}" for name in ArmModel.load("panda_2f85").joint_names}
TYPES = {"bridgevla/msg/Lease": "cell_msgs/msg/Permit"}
FRAME_FIELDS, JOINT_FIELDS = ("frame_id", "child_frame_id", "base_frame"), ("name", "joint_names")


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), 1.0)


@pytest.fixture(scope="module")
def ours(bag: Path) -> ReplayResult:
    return replay(bag, NODES, overrides=RECORDED, tolerance="same")


@pytest.fixture(scope="module")
def mapping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("map") / "cell.yaml"
    sections = {"namespace": "/cell1", "topics": TOPICS, "frames": FRAMES, "joints": JOINTS, "types": TYPES}
    path.write_text(yaml.safe_dump(sections))
    return path


def other_cell(
    bag: Path, folder: Path, storage: StoragePlugin, types: dict[str, str] | None = None, defined: bool = True
) -> Path:
    """The run as a recorder on another robot would have it: by rosbags and rclpy, with nothing of ours.

    Args:
        types: Their names of types.
        defined: The definitions of types of another name are in the bag.
    """
    types = TYPES if types is None else types
    with bag.open("rb") as source, RosbagsWriter(folder, version=9, storage_plugin=storage) as writer:
        connections: dict[str, Any] = {}
        for schema, channel, message in make_reader(source).iter_messages():
            assert schema is not None
            if channel.topic not in connections:
                theirs = types.get(schema.name, schema.name)
                topic = TOPICS.get(channel.topic, channel.topic)
                topic = topic if topic.startswith("/tf") else f"/cell1{topic}"
                text = schema.data.decode() if defined or theirs == schema.name else ""
                told = {"msgdef": text, "rihs01": "RIHS01_0"}
                connections[channel.topic] = writer.add_connection(topic, theirs, **told)
            data = deserialize_message(message.data, get_message(schema.name))
            rename(data)
            writer.write(connections[channel.topic], message.log_time, serialize_message(data))
    return folder


def get_message(name: str) -> Any:
    package, _, kind = name.split("/")
    return getattr(import_module(f"{package}.msg"), kind)


def rename(message: Any) -> None:
    """Frames and joints under their names, wherever they stand."""
    for name in message.get_fields_and_field_types():
        value = getattr(message, name)
        if name in FRAME_FIELDS and isinstance(value, str):
            setattr(message, name, FRAMES.get(value, value))
        elif name in JOINT_FIELDS and isinstance(value, list) and isinstance(next(iter(value), None), str):
            setattr(message, name, [JOINTS.get(v, v) for v in value])
        elif isinstance(value, list):
            for item in value:
                if hasattr(item, "get_fields_and_field_types"):
                    rename(item)
        elif hasattr(value, "get_fields_and_field_types"):
            rename(value)


@pytest.mark.parametrize("storage", list(StoragePlugin), ids=lambda s: s.name)
def test_another_robots_run_replays(
    bag: Path, mapping: Path, tmp_path: Path, storage: StoragePlugin, ours: ReplayResult
) -> None:
    theirs = other_cell(bag, tmp_path / "cell", storage)
    assert not replay(theirs, ("cropper",)).same  # under its own names it does not
    result = replay(theirs, NODES, overrides=RECORDED, mapping=mapping, tolerance="same")
    assert result.same, story(result)
    assert result.exact
    assert {n: t.total for n, t in result.tallies.items()} == {n: t.total for n, t in ours.tallies.items()}


def story(result: ReplayResult) -> str:
    return "\n".join([*map(str, result.differences[:5]), *map(str, result.missing[:5]), *result.notes])


def test_a_topic_that_is_not_there_leaves_the_rest(bag: Path, tmp_path: Path) -> None:
    without = changed(bag, tmp_path, lambda topic, data, n: None if topic == "/plan" else data)
    result = replay(without, overrides=RECORDED, tolerance="same")
    assert "trajectory" not in result.nodes
    assert any("no plan for trajectory" in note for note in result.notes)
    assert result.tallies["cropper"].total > 0
    assert any((m.node, m.topic) == ("task", "plan") for m in result.missing)
    assert result.status == 1


def test_a_truncated_file_replays_as_far_as_it_goes(bag: Path, tmp_path: Path, ours: ReplayResult) -> None:
    data = bag.read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(data[: int(0.6 * len(data))])
    result = replay(cut, ("cropper", "action_expert"), overrides=RECORDED, tolerance="same")
    assert result.same, story(result)
    for node, tally in result.tallies.items():
        assert 0 < tally.total < ours.tallies[node].total
    assert any("cut off" in note for note in result.notes)


def test_a_type_that_nobody_knows_stops_only_who_needs_it(
    bag: Path, tmp_path: Path, mapping: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    types = {"bridgevla/msg/Lease": "cell_msgs/msg/Permit"}
    theirs = other_cell(bag, tmp_path / "cell", StoragePlugin.SQLITE3, types, defined=False)
    result = replay(theirs, NODES, overrides=RECORDED, mapping=mapping, tolerance="same")
    assert result.tallies["cropper"].exact == result.tallies["cropper"].total > 0
    assert {m.node for m in result.missing} == {"arm_streamer"}
    assert any("no definition of cell_msgs/msg/Permit" in note for note in result.notes)

    said = yaml.safe_load(mapping.read_text())
    del said["types"]  # then it is read as what it is called there, and nobody knows that
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(said))
    words = [
        "replay",
        str(theirs),
        *(w for n in NODES for w in ("--node", n)),
        "--param",
        "action_expert.samples=2",
    ]
    assert main([*words, "--mapping", str(tmp_path / "map.yaml"), "--json", str(tmp_path / "out.json")]) == 1
    assert "stopped arm_streamer: no definition of cell_msgs/msg/Permit" in capsys.readouterr().out
    found = json.loads((tmp_path / "out.json").read_text())
    assert set(found["stopped"]) == {"task", "arm_streamer"}
    assert found["compared"]["cropper"]["exact"] == result.tallies["cropper"].exact
