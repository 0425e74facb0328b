"""What is published is in the bag, byte for byte; a killed recorder loses a second at most."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
import yaml
from mcap.exceptions import McapError
from mcap.reader import NonSeekingReader
from rosbags.rosbag2 import Reader

from bridgevla_ros.bags.definitions import make_typestore
from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.bags.recorder import Recorder, RecorderConfig, summary
from bridgevla_ros.bags.sink import FLUSH_PERIOD
from bridgevla_ros.cli import record
from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.core.types import DepthQuality, PlanRequest
from bridgevla_ros.ros import conversions, qos


def test_our_types_hash_as_rosidl_says() -> None:
    """The bag's type hashes are those that rosidl computed for the generated messages."""
    import json

    store = make_typestore()
    share = Path(sys.prefix) / "share" / "bridgevla" / "msg"
    checked = 0
    for path in share.glob("*.json"):
        hashes = {h["type_name"]: h["hash_string"] for h in json.loads(path.read_text())["type_hashes"]}
        name = f"bridgevla/msg/{path.stem}"
        assert store.hash_rihs01(name) == hashes[name], name
        checked += 1
    assert checked >= 10


@pytest.fixture
def talker(node: Any) -> Callable[[], bool]:
    """Publishes one message of each kind; says whether somebody hears all of them."""

    from bridgevla.msg import DepthQuality as DepthQualityMsg
    from bridgevla.msg import PlanRequest as PlanRequestMsg
    from sensor_msgs.msg import Image

    latched = node.create_publisher(PlanRequestMsg, "plan_request", qos.LATCHED)
    latched.publish(conversions.plan_request_to_msg(PlanRequest(1.5, "t", "r", "put it there")))
    qualities = node.create_publisher(DepthQualityMsg, "depth_quality", qos.RELIABLE)
    images = node.create_publisher(Image, "camera/color/image_raw", qos.SENSOR)
    frame = np.arange(240 * 320 * 3, dtype=np.uint32).astype(np.uint8).reshape(240, 320, 3)
    count = 0

    node.declare_parameter("answer", 42)

    def talk() -> bool:
        nonlocal count
        rclpy.spin_once(node, timeout_sec=0.0)  # its parameter services
        quality = DepthQuality(count / 100, 0.9, 0.8, 0.01, 512, 0.001, 0.002)
        qualities.publish(conversions.depth_quality_to_msg(quality))
        images.publish(conversions.rgb_to_msg(frame, count / 100, "camera"))
        count += 1
        return all(p.get_subscription_count() for p in (latched, qualities, images))

    return talk


LOST = 1.0
"""Seconds that a kill may take from the end of a recording: the requirement."""


def _record(processes: Any, path: Path, talk: Callable[[], bool], seconds: float) -> Any:
    """Start the recorder; talk until it hears everything, then for some seconds more."""
    process = processes.node("recorder", "-p", f"output:={path}", log=path.parent / "log")
    deadline = time.monotonic() + 90.0
    while not talk():
        assert time.monotonic() < deadline, (path.parent / "log").read_text()
        time.sleep(0.02)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        talk()
        time.sleep(0.02)
    return process


def test_everything_is_recorded_with_its_qos(processes: Any, tmp_path: Path, talker: Any, node: Any) -> None:
    path = tmp_path / "bag"
    process = _record(processes, path, talker, 2.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0, (tmp_path / "log").read_text()

    bag = Bag(path)
    run = bag.run
    assert run is not None
    assert run.parameters[node.get_fully_qualified_name()]["answer"] == 42  # asked for through its services
    assert run.parameters["/recorder"]["output"] == str(path)
    assert "numpy" in run.packages
    assert run.version
    assert "/depth_quality" not in run.lost
    assert run.end["reason"] == "stopped"
    requests = list(bag.messages(["/plan_request"]))
    assert len(requests) == 1  # published before the recorder was there: latched
    assert conversions.plan_request_from_msg(requests[0].message).instruction == "put it there"
    qualities = [conversions.depth_quality_from_msg(m.message) for m in bag.messages(["/depth_quality"])]
    stamps = [q.stamp for q in qualities]
    assert len(stamps) > 20
    assert stamps == sorted(stamps)
    np.testing.assert_allclose(np.diff(stamps), 0.01, atol=1e-9)  # reliable: none is missing
    image = conversions.rgb_from_msg(bag.last("/camera/color/image_raw"))
    assert image.shape == (240, 320, 3)
    assert image[0, 5, 0] == 15

    info = yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert info["storage_identifier"] == "mcap"
    topics = {
        t["topic_metadata"]["name"]: t["topic_metadata"]["offered_qos_profiles"]
        for t in info["topics_with_message_count"]
    }
    assert "transient_local" in str(topics["/plan_request"])
    assert "best_effort" in str(topics["/camera/color/image_raw"])
    with Reader(path) as reader:  # what others read it with
        assert reader.message_count == sum(n for _, n in bag.topics().values())


def test_a_killed_recorder_leaves_a_readable_bag(processes: Any, tmp_path: Path, talker: Any) -> None:
    path = tmp_path / "bag"
    process = _record(processes, path, talker, 3.0)
    killed = time.time()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(5)
    assert not (path / "metadata.yaml").exists()
    qualities = list(Bag(path).messages(["/depth_quality"]))
    assert len(qualities) > 20
    assert list(Bag(path).messages(["/plan_request"]))
    assert killed - qualities[-1].received < LOST
    found = Bag(path)
    assert found.run is not None
    assert found.run.end == {}  # nobody could say whether something was lost
    assert public_count(path, "/depth_quality") == len(qualities)


def public_count(bag: Path, topic: str) -> int:
    """Messages of a topic that the public mcap library reads of a file without an end."""
    count = 0
    with next(bag.glob("*.mcap")).open("rb") as stream, contextlib.suppress(McapError):  # raised at the end
        for _ in NonSeekingReader(stream).iter_messages(topics=[topic], log_time_order=False):
            count += 1
    return count


WRITES = """
import sys, time
from pathlib import Path
from bridgevla_ros.bags.sink import Sink
from bridgevla_ros.bags.writer import BagWriter

writer = BagWriter(Path(sys.argv[1]))
writer.add_type("/words", "std_msgs/msg/String")
sink = Sink(writer, flush_period=float(sys.argv[2]))
print("begun", flush=True)
while True:
    sink.put("/words", bytes([0, 1, 0, 0, 4, 0, 0, 0, 97, 97, 97, 0]))
    time.sleep(0.01)
"""


def test_flushing_is_what_a_kill_does_not_take(tmp_path: Path) -> None:
    """The measure of the test above can fail: a writer that does not flush twice a second breaks its bound.

    Two writers run side by side and are killed at once; they differ in the period of flushing alone. The same
    shows by hand: with ``FLUSH_PERIOD = 1e9`` in sink.py the test above finds no message at all.
    """
    periods = {"as it is": FLUSH_PERIOD, "never": 1e9}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WRITES, str(tmp_path / name), str(period)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, period in periods.items()
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
    time.sleep(2.0)
    killed = time.time()
    for process in running:
        process.kill()
        process.communicate()
    lost = {}
    for name in periods:
        received = [m.received for m in Bag(tmp_path / name).messages(["/words"])]
        assert len(received) == public_count(tmp_path / name, "/words")
        lost[name] = killed - max(received, default=0.0)
    assert lost["as it is"] < LOST
    assert lost["never"] > LOST


def test_a_message_that_found_no_room_is_counted_and_told(ros: None, tmp_path: Path) -> None:
    recorder = Recorder(RecorderConfig(output=str(tmp_path / "bag"), queue=8))
    try:
        sink, disk_works = recorder._sink, threading.Event()
        sink.do(lambda writer: writer.add_type("/words", "std_msgs/msg/String"))
        sink.do(lambda writer: disk_works.wait(30.0) and None)  # until then the disk stands still
        take, word = recorder._take("/words"), cdr_string("a" * 5_000_000)
        for _ in range(4):  # two have room
            take(word)
        disk_works.set()
        assert recorder.lost == {"/words": 2}
        recorder.close()
        assert "LOST: /words 2" in summary(recorder)
    finally:
        recorder.destroy_node()
    bag = Bag(tmp_path / "bag")
    assert sum(1 for _ in bag.raw(["/words"])) == 2
    assert bag.run is not None
    assert bag.run.lost == {"/words": 2}


def cdr_string(text: str) -> bytes:
    return b"\0\1\0\0" + (len(text) + 1).to_bytes(4, "little") + text.encode() + b"\0"


def test_an_existing_folder_is_not_written_over(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    record.add_arguments(parser)
    assert record.run(parser.parse_args(["-o", str(tmp_path)])) == 2


def test_a_folder_without_a_bag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match="holds no"):
        Bag(tmp_path)


def test_a_disk_that_is_full_from_the_start_is_refused(processes: Any, tmp_path: Path) -> None:
    process = processes.node(
        "recorder", "-p", f"output:={tmp_path / 'bag'}", "-p", "min_free:=10000.0", log=tmp_path / "log"
    )
    assert process.wait(90) == 2
    assert "DISK_FULL" in (tmp_path / "log").read_text()
    assert not (tmp_path / "bag").exists()
