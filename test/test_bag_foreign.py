"""Bags of others: other names, other formats, other recorders; read, or refused with a reason."""

from __future__ import annotations

import sqlite3
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
import zstandard
from bag_rig import MS, START, independent, sqlite_bag, text
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import Reader, StoragePlugin
from rosbags.rosbag2 import Writer as RosbagsWriter

from bridgevla_ros.bags import rosbag2
from bridgevla_ros.bags.definitions import installed
from bridgevla_ros.bags.mapping import TopicMapping
from bridgevla_ros.bags.provenance import RUN
from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.bags.recorder import RecorderConfig
from bridgevla_ros.core.errors import BridgeError


def test_another_robots_bag_reads_under_our_names(tmp_path: Path) -> None:
    independent(tmp_path / "run.mcap", {"/cell1/fr3/joints": "sensor_msgs/msg/JointState"})
    mapping = tmp_path / "map.yaml"
    mapping.write_text(
        "namespace: /cell1\ntopics: {/joint_states: /fr3/joints}\nframes: {base_link: fr3_link0}\n"
        "joints: {panda_joint1: fr3_joint1}\n"
    )
    bag = Bag(tmp_path / "run.mcap", mapping)
    found = list(bag.messages(["/joint_states"]))
    assert len(found) == 50
    assert found[0].message.header.frame_id == "base_link"
    assert found[0].message.name == ["panda_joint1", "fr3_joint2"]
    again = bag.decode("sensor_msgs/msg/JointState", next(iter(bag.raw()))[3])  # the bytes are translated too
    assert again.header.frame_id == "base_link"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("topics: [a]", "ours: theirs"),
        ("topic: {a: b}", "unknown section"),
        ("topics: {/a: /x, /b: /x}", "stands for both"),
        ("", "expected sections"),
        ("a: [", "mapping file"),
    ],
)
def test_a_wrong_mapping_file_is_refused(tmp_path: Path, said: str, why: str) -> None:
    (tmp_path / "map.yaml").write_text(said)
    with pytest.raises(BridgeError, match=why):
        TopicMapping.load(tmp_path / "map.yaml")


def test_unknown_types_and_wrong_names_are_said_and_the_rest_is_read(tmp_path: Path) -> None:
    names = {
        "/joint_states": "sensor_msgs/msg/JointState",
        "/odd": "acme_msgs/msg/Odd",
        "/x": "acme/msg/None",
    }
    independent(tmp_path / "run.mcap", names)
    data = (tmp_path / "run.mcap").read_bytes()
    assert data
    bag = Bag(tmp_path / "run.mcap", TopicMapping(topics={"/odds": "/plan"}))
    odd = [m.message.x for m in bag.messages(["/odd"])]  # its definition is in the bag
    assert odd == [float(i) for i in range(50)]
    assert any("/odds" in line and "/odd" in line for line in bag.damage)
    foreign = tmp_path / "nodef"
    with RosbagsWriter(foreign, version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        known = writer.add_connection("/word", "std_msgs/msg/String", typestore=installed())
        other = writer.add_connection("/odd", "acme_msgs/msg/Odd", msgdef="float64 x\n", rihs01="RIHS01_0")
        writer.write(known, START, text("hello"))
        writer.write(other, START, b"\x00\x01\x00\x00" + bytes(8))
    database = next(foreign.glob("*.db3"))
    with sqlite3.connect(database) as db:
        db.execute("DELETE FROM message_definitions")
    db.close()
    bag = Bag(foreign)
    assert [m.message.data for m in bag.messages()] == ["hello"]
    assert any("/odd" in line and "unknown" in line for line in bag.damage)
    with pytest.raises(BridgeError, match=r"unknown type acme_msgs/msg/Odd"):
        list(bag.messages(["/odd"]))


def test_a_type_of_another_name_and_an_older_definition(tmp_path: Path) -> None:
    """Fields are taken over by name; those that the recorder did not know hold zero."""
    old = "string task_id\nuint16 code\n"
    with (tmp_path / "old.mcap").open("wb") as stream:
        writer = McapWriter(stream)
        writer.start("ros2", "older")
        for name, topic in (("bridgevla/msg/TaskStatus", "/status"), ("acme/msg/State", "/state")):
            schema = writer.register_schema(name, "ros2msg", old.encode())
            channel = writer.register_channel(topic, "cdr", schema)
            data = b"\x00\x01\x00\x00" + b"\x03\x00\x00\x00t1\x00\x00" + (30).to_bytes(2, "little")
            writer.add_message(channel, START, data, START)
        writer.finish()
    mapping = TopicMapping(types={"acme/msg/State": "bridgevla/msg/TaskStatus"})
    for item in Bag(tmp_path / "old.mcap", mapping).messages():
        assert item.msgtype == "bridgevla/msg/TaskStatus"
        assert (item.message.task_id, item.message.code) == ("t1", 30)
        assert (item.message.retries, item.message.remedy, list(item.message.candidates)) == (0, "", [])
        assert item.message.header.stamp.sec == 0


def test_sqlite_bags_whole_and_cut(tmp_path: Path) -> None:
    database = sqlite_bag(tmp_path / "bag")
    bag = Bag(tmp_path / "bag")
    assert bag.topics() == {"/joint_states": ("sensor_msgs/msg/JointState", 2000)}
    assert bag.bounds() == (START, START + 1999 * MS)
    assert bag.damage == []
    assert [r.received for r in bag.records(None, START + 5 * MS, START + 7 * MS)] == [
        START + 5 * MS,
        START + 6 * MS,
    ]
    data = database.read_bytes()
    database.write_bytes(data[: int(0.6 * len(data))])
    cut = Bag(tmp_path / "bag")
    stamps = [r.received for r in cut.records()]
    assert 200 < len(stamps) < 2000
    assert stamps[:200] == [START + i * MS for i in range(200)]
    assert stamps == sorted(set(stamps))
    assert any("damaged" in line for line in cut.damage)
    database.write_bytes(b"SQLite format 3\x00" + bytes(100))
    with pytest.raises(BridgeError, match="no readable rosbag2 database"):
        Bag(tmp_path / "bag")


def test_compressed_files_and_messages_of_rosbag2(tmp_path: Path) -> None:
    independent(tmp_path / "run_0.mcap", {"/joint_states": "sensor_msgs/msg/JointState"})
    packed = tmp_path / "packed" / "run_0.mcap.zstd"
    packed.parent.mkdir()
    packed.write_bytes(zstandard.compress((tmp_path / "run_0.mcap").read_bytes()))
    assert Bag(packed.parent).topics()["/joint_states"][1] == 50
    whole = packed.read_bytes()
    packed.write_bytes(whole[: len(whole) // 2])
    assert Bag(packed.parent).damage  # and no exception
    from rosbags.rosbag2.enums import CompressionFormat, CompressionMode

    by_message = RosbagsWriter(tmp_path / "messages", version=9, storage_plugin=StoragePlugin.MCAP)
    by_message.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    with by_message as writer:
        connection = writer.add_connection("/word", "std_msgs/msg/String", typestore=installed())
        writer.write(connection, START, text("small"))
    assert [m.message.data for m in Bag(tmp_path / "messages").messages()] == ["small"]


def test_the_command_line_of_rosbag2(tmp_path: Path) -> None:
    """Its construction only: rosbag2 is not installed where this was written."""
    config = RecorderConfig(
        output="x",
        split_size=500,
        split_duration=60.0,
        compression="zstd",
        exclude=("/parameter_events", "/c/*"),
    )
    words = rosbag2.command(config, Path("/bags/x"), Path("/bags/s.yaml"))
    assert words[:3] == ["ros2", "bag", "record"]
    value = {a: b for a, b in pairwise(words) if a.startswith("--")}
    assert value["--storage"] == "mcap"
    assert value["--output"] == "/bags/x"
    assert value["--max-bag-size"] == "500000000"
    assert value["--max-bag-duration"] == "60"
    assert value["--exclude-regex"] == "^/parameter_events$|^/c/.*$"
    assert yaml.safe_load(rosbag2.storage_settings(config))["compression"] == "Zstd"
    prefix = tmp_path / "share/ament_index/resource_index/packages"
    prefix.mkdir(parents=True)
    assert not rosbag2.installed(str(tmp_path))


def test_what_rosbag2_wrote_is_kept_when_we_add_to_it(tmp_path: Path) -> None:
    from bridgevla_ros.bags import metadata

    with RosbagsWriter(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/word", "std_msgs/msg/String", typestore=installed())
        writer.write(connection, START, text("hello"))
    metadata.add_custom(tmp_path / "bag", {f"{RUN}.version": "1.2.3"})
    bag = Bag(tmp_path / "bag")
    assert bag.run is not None
    assert bag.run.version == "1.2.3"
    with Reader(tmp_path / "bag") as reader:
        assert reader.message_count == 1
