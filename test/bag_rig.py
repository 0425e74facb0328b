"""Makes messages and bags for tests, without ROS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as RosbagsWriter

from bridgevla_ros.bags.definitions import definition, installed
from bridgevla_ros.bags.writer import BagWriter

START = 1_700_000_000_000_000_000
MS = 1_000_000
FOREVER = QosTime(2147483647, 4294967295)


def qos(latched: bool = False) -> Qos:
    return Qos(
        QosHistory.KEEP_LAST,
        1,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        FOREVER,
        FOREVER,
        QosLiveliness.AUTOMATIC,
        FOREVER,
        False,
    )


def make(msgtype: str, **values: Any) -> Any:
    return installed().types[msgtype](**values)


def cdr(message: Any) -> bytes:
    return bytes(installed().serialize_cdr(message, message.__msgtype__))


def header(stamp_ns: int, frame: str = "") -> Any:
    stamp = make("builtin_interfaces/msg/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return make("std_msgs/msg/Header", stamp=stamp, frame_id=frame)


def joints(stamp_ns: int, names: Sequence[str] = ("a", "b"), frame: str = "world") -> bytes:
    state = make(
        "sensor_msgs/msg/JointState",
        header=header(stamp_ns, frame),
        name=list(names),
        position=np.arange(len(names), dtype=float) + stamp_ns % 97,
        velocity=np.zeros(0),
        effort=np.zeros(0),
    )
    return cdr(state)


def text(words: str) -> bytes:
    return cdr(make("std_msgs/msg/String", data=words))


def write_plain(writer: BagWriter, count: int = 100) -> None:
    """Joint states every 10 ms, 4 ms old; a latched word at the beginning and a third of the way."""
    writer.add_type("/joint_states", "sensor_msgs/msg/JointState", qos=(qos(),))
    writer.add_type("/word", "std_msgs/msg/String", qos=(qos(latched=True),))
    writer.write("/word", START, text("first"))
    for i in range(count):
        at = START + 10 * i * MS
        writer.write("/joint_states", at, joints(at - 4 * MS))
        if i == count // 3:
            writer.write("/word", at, text("second"))


def independent(
    path: Path, names: dict[str, str], compression: CompressionType = CompressionType.ZSTD
) -> None:
    """A bag made with the public library alone, as another robot's recorder would."""
    with path.open("wb") as stream:
        writer = McapWriter(stream, compression=compression)
        writer.start("ros2", "somebody else")
        ids = {}
        for topic, msgtype in names.items():
            body = definition(installed(), msgtype)[0] if msgtype in installed().types else "float64 x\n"
            schema = writer.register_schema(msgtype, "ros2msg", body.encode())
            ids[topic] = writer.register_channel(topic, "cdr", schema)
        for i in range(50):
            at = START + 20 * i * MS
            for topic, msgtype in names.items():
                data = (
                    joints(at, ("fr3_joint1", "fr3_joint2"), "fr3_link0")
                    if msgtype == "sensor_msgs/msg/JointState"
                    else b"\x00\x01\x00\x00" + np.float64(i).tobytes()
                )
                writer.add_message(ids[topic], at, data, at)
        writer.finish()


def sqlite_bag(folder: Path, count: int = 2000) -> Path:
    with RosbagsWriter(folder, version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection(
            "/joint_states", "sensor_msgs/msg/JointState", typestore=installed(), offered_qos_profiles=[qos()]
        )
        for i in range(count):
            writer.write(connection, START + i * MS, joints(START + i * MS))
    return next(folder.glob("*.db3"))
