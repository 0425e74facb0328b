"""Bags written, split, cut and damaged: what can be read is read, and what is said of it is true."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from bag_rig import MS, START, cdr, header, joints, make, qos, text, write_plain
from mcap.reader import make_reader
from rosbags.rosbag2 import Reader

from bridgevla_ros.bags.definitions import installed
from bridgevla_ros.bags.digest import tasks
from bridgevla_ros.bags.info import describe
from bridgevla_ros.bags.provenance import END, PARAMETERS, RUN, RunRecord
from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.bags.sink import Sink
from bridgevla_ros.bags.stats import periods, statistics
from bridgevla_ros.bags.writer import BagWriter
from bridgevla_ros.cli import main
from bridgevla_ros.core.errors import BridgeError, ErrorCode


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_what_is_written_is_read(tmp_path: Path, compression: str) -> None:
    with BagWriter(tmp_path / "bag", compression=compression, custom={"who": "me"}) as writer:
        write_plain(writer)
        writer.note(RUN, RunRecord(version="9.9.9", robot="r").note())
        writer.attach("robot.yaml", "text/plain", b"name: r")
    bag = Bag(tmp_path / "bag")
    got = [data for _, _, _, data in bag.raw(["/joint_states"])]
    assert got == [joints(START + (10 * i - 4) * MS) for i in range(100)]
    assert bag.topics() == {
        "/joint_states": ("sensor_msgs/msg/JointState", 100),
        "/word": ("std_msgs/msg/String", 2),
    }
    assert bag.bounds() == (START, START + 990 * MS)
    assert bag.run is not None
    assert (bag.run.version, bag.run.robot) == ("9.9.9", "r")
    assert bag.custom["who"] == "me"
    assert bag.attachments() == {"robot.yaml": b"name: r"}
    assert bag.damage == []
    later = [r.received for r in bag.records(["/joint_states"], START + 500 * MS, START + 600 * MS)]
    assert later == [START + (500 + 10 * i) * MS for i in range(10)]
    with Reader(tmp_path / "bag") as reader:  # what others read it with
        assert reader.message_count == 102
        assert sum(1 for _ in reader.messages()) == 102
    with (tmp_path / "bag" / "bag_0.mcap").open("rb") as stream:
        summary = make_reader(stream, validate_crcs=True).get_summary()
        assert summary is not None
        assert {c.compression for c in summary.chunk_indexes} == {
            "" if compression == "none" else compression
        }


def test_metadata_has_every_field_of_version_9(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag", distro="jazzy") as writer:
        write_plain(writer)
    info = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert list(info) == [
        "version", "storage_identifier", "duration", "starting_time", "message_count",
        "topics_with_message_count", "compression_format", "compression_mode", "relative_file_paths", "files",
        "custom_data", "ros_distro",
    ]  # fmt: skip
    assert info["version"] == 9
    assert info["duration"] == {"nanoseconds": 990 * MS}
    assert info["starting_time"] == {"nanoseconds_since_epoch": START}
    word = info["topics_with_message_count"][1]
    assert word["message_count"] == 2
    profile = word["topic_metadata"]["offered_qos_profiles"][0]
    assert (profile["durability"], profile["reliability"]) == ("transient_local", "reliable")
    assert word["topic_metadata"]["type_description_hash"].startswith("RIHS01_")


def test_every_split_stands_alone(tmp_path: Path) -> None:
    transforms = [
        cdr(
            make(
                "tf2_msgs/msg/TFMessage",
                transforms=[
                    make(
                        "geometry_msgs/msg/TransformStamped",
                        header=header(START, "base"),
                        child_frame_id=name,
                        transform=make(
                            "geometry_msgs/msg/Transform",
                            translation=make("geometry_msgs/msg/Vector3", x=1.0, y=0.0, z=0.0),
                            rotation=make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
                        ),
                    )
                ],
            )
        )
        for name in ("camera", "table")
    ]
    with BagWriter(tmp_path / "bag", split_seconds=0.25) as writer:
        writer.note(PARAMETERS, {"/planner": json.dumps({"seed": 3})})
        writer.add_type("/tf_static", "tf2_msgs/msg/TFMessage", qos=(qos(latched=True),))
        for data in transforms:  # two broadcasters
            writer.write("/tf_static", START, data)
        write_plain(writer)
    bag = Bag(tmp_path / "bag")
    assert len(bag.files) == 4
    # As a whole: nothing twice.
    assert bag.topics()["/tf_static"][1] == 2
    assert [m.message.data for m in bag.messages(["/word"])] == ["first", "second"]
    stamps = [r.received for r in bag.records(["/joint_states"])]
    assert stamps == [START + 10 * i * MS for i in range(100)]
    # Each alone: transforms and the last word are there before anything else, and what was noted.
    for file, word in zip(bag.files, ("first", "first", "second", "second"), strict=True):
        part = Bag(file)
        assert [r.data for r in part.records(["/tf_static"])] == transforms
        assert part.run is None
        assert json.loads(part.custom[f"{PARAMETERS}./planner"]) == {"seed": 3}
        first = next(part.messages(["/word"]))
        assert first.message.data == word
        assert first.received_ns <= part.bounds()[0] + 1  # type: ignore[index]
        with Reader(file) as reader:
            assert reader.message_count == sum(n for _, n in part.topics().values())
    by_size = BagWriter(tmp_path / "by_size", split_bytes=3000)
    write_plain(by_size)
    by_size.close()
    sizes = [f.stat().st_size for f in Bag(tmp_path / "by_size").files]
    assert len(sizes) >= 3
    assert sum(1 for _ in Bag(tmp_path / "by_size").raw(["/joint_states"])) == 100


def test_a_cut_file_gives_all_up_to_the_cut(tmp_path: Path) -> None:
    writer = BagWriter(tmp_path / "bag")
    write_plain(writer)
    writer.flush()
    whole = (tmp_path / "bag" / "bag_0.mcap").read_bytes()
    writer.write("/word", START + 2000 * MS, text("lost"))
    writer.close()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(whole + b"\x06\xff\xff\x00")  # the kill came inside of the next record
    bag = Bag(cut)
    assert sum(1 for _ in bag.raw(["/joint_states"])) == 100
    assert [m.message.data for m in bag.messages(["/word"])] == ["first", "second"]
    assert any("not finished" in line for line in bag.damage)
    cut.write_bytes(whole[: len(whole) - 5000])
    assert list(Bag(cut).raw()) == []  # all was in the one chunk
    cut.write_bytes(b"")
    assert Bag(cut).topics() == {}
    cut.write_bytes(b"no such thing")
    with pytest.raises(BridgeError, match="is no MCAP file"):
        Bag(cut)


def test_a_damaged_chunk_costs_only_itself(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as writer:
        write_plain(writer, 30)
        writer.flush()
        for i in range(30, 60):
            writer.write("/joint_states", START + 10 * i * MS, joints(START + 10 * i * MS))
        writer.flush()
        for i in range(60, 90):
            writer.write("/joint_states", START + 10 * i * MS, joints(START + 10 * i * MS))
    file = tmp_path / "bag" / "bag_0.mcap"
    with file.open("rb") as stream:
        summary = make_reader(stream).get_summary()
    assert summary is not None
    middle = summary.chunk_indexes[1]
    data = bytearray(file.read_bytes())
    data[middle.chunk_start_offset + middle.chunk_length - 100] ^= 0xFF
    file.write_bytes(data)
    bag = Bag(tmp_path / "bag")
    stamps = [r.received for r in bag.records(["/joint_states"])]
    assert stamps == [START + 10 * i * MS for i in (*range(30), *range(60, 90))]
    assert any("damaged" in line for line in bag.damage)
    assert main(["bag", "info", str(tmp_path / "bag"), "--check"]) == 1
    assert main(["bag", "stats", str(tmp_path / "bag")]) == 1


def test_a_full_disk_ends_the_bag_and_keeps_it(tmp_path: Path) -> None:
    free = [10_000_000]
    sink = Sink(BagWriter(tmp_path / "bag"), min_free=1_000_000, free=lambda folder: free[0])
    sink.do(lambda w: w.add_type("/word", "std_msgs/msg/String", qos=(qos(),)))
    for i in range(5):
        assert sink.put("/word", text(str(i)))
    free[0] = 500_000
    deadline = time.monotonic() + 20.0
    while sink.failure is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sink.failure is not None
    assert (sink.failure.code, sink.failure.value, sink.failure.limit) == (ErrorCode.DISK_FULL, 0.0005, 0.001)
    assert not sink.put("/word", text("late"))
    sink.close()
    bag = Bag(tmp_path / "bag")
    assert [m.message.data for m in bag.messages()] == list("01234")
    assert bag.damage == []
    assert "DISK_FULL" in bag.custom[f"{END}.reason"]


def test_under_pressure_the_bag_grows_instead_of_losing(tmp_path: Path) -> None:
    """Chunks that there is no time to compress are written as they are, and read like the others."""
    writer = BagWriter(tmp_path / "bag", compression="zstd")
    writer.add_type("/word", "std_msgs/msg/String", qos=(qos(),))
    for hurried in (False, True, False):
        writer.hurry(hurried)
        for i in range(10):
            writer.write("/word", START + i, text("x" * 1000))
        writer.flush()
    writer.close()
    with (tmp_path / "bag" / "bag_0.mcap").open("rb") as stream:
        summary = make_reader(stream).get_summary()
    assert summary is not None
    assert [c.compression for c in summary.chunk_indexes] == ["zstd", "", "zstd"]
    assert sum(1 for _ in Bag(tmp_path / "bag").messages()) == 30


def test_statistics_against_what_is_known(tmp_path: Path) -> None:
    """100 Hz, 4 ms old, 5 of 200 missing in one gap; and a simulation at half of real time."""
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_type("/joint_states", "sensor_msgs/msg/JointState", qos=(qos(),))
        for i in range(200):
            if 100 <= i < 105:
                continue
            at = START + 10 * i * MS
            writer.write("/joint_states", at, joints(at - 4 * MS))
    found = statistics(Bag(tmp_path / "bag"))["topics"]["/joint_states"]
    assert found["age_ms"] == {"p50": 4.0, "p99": 4.0, "max": 4.0}
    assert found["rate_hz"] == pytest.approx(100.0, abs=0.01)
    assert (found["gaps"], found["missing"], found["longest_gap_s"]) == (1, 5, 0.06)
    assert found["jitter_ms"] == pytest.approx(0.0, abs=1e-3)
    with BagWriter(tmp_path / "sim") as writer:
        writer.add_type("/clock", "rosgraph_msgs/msg/Clock", qos=(qos(),))
        writer.add_type("/joint_states", "sensor_msgs/msg/JointState", qos=(qos(),))
        for i in range(100):
            now = 5 * i * MS  # simulated
            clock = make("rosgraph_msgs/msg/Clock", clock=header(now).stamp)
            writer.write("/clock", START + 10 * i * MS, cdr(clock))
            writer.write("/joint_states", START + 10 * i * MS, joints(now - 2 * MS if i else 0))
    found = statistics(Bag(tmp_path / "sim"))
    assert (found["clock"], found["real_time_factor"]) == ("simulated", 0.5)
    assert found["topics"]["/joint_states"]["age_ms"]["p50"] == pytest.approx(2.0, abs=1e-3)
    assert periods(np.cumsum(np.random.default_rng(0).exponential(1.0, 200))) == {}  # no period: no gaps


def status(task: str, stage: int, code: int = 0) -> bytes:
    from rosbags.interfaces import Nodetype

    from bridgevla_ros.bags.definitions import _zero, ensure

    ensure(installed(), "bridgevla/msg/TaskStatus")
    message = _zero(installed(), Nodetype.NAME, "bridgevla/msg/TaskStatus")
    message.task_id, message.stage, message.code = task, stage, code
    message.instruction = f"do {task}"
    return cdr(message)


def test_tasks_and_their_outcomes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_type("/status", "bridgevla/msg/TaskStatus", qos=(qos(latched=True),))
        for i, (task, stage, code) in enumerate(
            [("t1", 1, 0), ("t1", 3, 0), ("t1", 7, 0), ("t2", 1, 0), ("t2", 8, 4), ("t3", 3, 0)]
        ):
            writer.write("/status", START + 100 * i * MS, status(task, stage, code))
    found = tasks(Bag(tmp_path / "bag"))
    assert [(t.task_id, t.result, t.code, t.message) for t in found] == [
        ("t1", "done", "NONE", ""),
        ("t2", "failed", "NO_TARGET", ""),
        ("t3", "interrupted", "NONE", "while moving"),
    ]
    assert found[0].ended - found[0].began == pytest.approx(0.2, abs=1e-3)
    told = describe(Bag(tmp_path / "bag"))
    assert [t["instruction"] for t in told["tasks"]] == ["do t1", "do t2", "do t3"]
    assert main(["bag", "info", str(tmp_path / "bag")]) == 0
    assert main(["bag", "stats", str(tmp_path / "bag"), "--json", "-"]) == 0
    output = capsys.readouterr().out
    assert "NO_TARGET" in output
    assert (
        main(
            [
                "bag",
                "plot",
                str(tmp_path / "bag"),
                "-o",
                str(tmp_path / "p.png"),
                "--html",
                str(tmp_path / "p.html"),
            ]
        )
        == 0
    )
    assert (tmp_path / "p.png").stat().st_size > 10_000
    assert "do t2" in (tmp_path / "p.html").read_text()


def test_wrong_words_are_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bag"]) == 2
    assert main(["bag", "inof", "x"]) == 2
    assert "did you mean info" in capsys.readouterr().err
    assert main(["bag", "info", str(tmp_path / "nothing")]) == 2
    assert "name a bag's folder" in capsys.readouterr().err


def test_finished_splits_of_a_killed_recorder_are_a_whole_bag(tmp_path: Path) -> None:
    """metadata.yaml lists the finished splits, for tools that want it; ours read the last one too."""
    writer = BagWriter(tmp_path / "bag", split_seconds=0.25)
    write_plain(writer)
    writer.flush()  # and then nothing more: killed
    with Reader(tmp_path / "bag") as reader:
        assert len(reader.storage.files) == 3  # type: ignore[attr-defined]
        assert sum(1 for c, _, _ in reader.messages() if c.topic == "/joint_states") == 75
    bag = Bag(tmp_path / "bag")
    assert len(bag.files) == 4
    assert sum(1 for _ in bag.raw(["/joint_states"])) == 100
    assert any("bag_3.mcap: it was not finished" in line for line in bag.damage)
    writer.close()
