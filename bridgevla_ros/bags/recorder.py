"""Record the graph into an MCAP bag: raw CDR bytes, never decoded, with the publishers' QoS.

A stamp in the bag is the wall-clock time of receipt. A chunk reaches the disk at least once a second, so
that a killed recorder loses no more than that (``reader.Bag`` reads such a bag too).
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer

from bridgevla_ros.bags.definitions import ensure, make_typestore
from bridgevla_ros.core.config import ConfigError, param
from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.ros import parameters
from bridgevla_ros.ros.spin import StopFlag, spin

_INFINITE = QosTime(2147483647, 4294967295)


@dataclass(frozen=True)
class RecorderConfig:
    """Parameters of the node ``recorder``."""

    output: str = param("", "Folder of the bag; it must not exist yet.")
    exclude: tuple[str, ...] = param(
        ("/parameter_events",), "Topics that are not recorded; shell patterns such as /camera/*."
    )
    discovery_period: float = param(
        0.25, "Seconds between two looks for new topics.", unit="s", ge=0.05, le=10.0
    )


class Recorder(Node):
    """Subscribes to every topic that has a publisher, and writes what comes.

    Args:
        config: Overrides the parameters, for use outside of the graph.
    """

    def __init__(self, config: RecorderConfig | None = None) -> None:
        super().__init__("recorder", start_parameter_services=False)
        self.config = config if config is not None else parameters.declare(self, RecorderConfig)
        self.path = _fresh(self.config.output)
        self._store = make_typestore()
        self._writer = Writer(self.path, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._connections: dict[str, Connection] = {}
        self._subscriptions_by_topic: dict[str, tuple[Any, tuple[bool, bool]]] = {}
        self._refused: set[str] = set()
        self.messages = 0
        self.bytes = 0
        # Wall clock: simulated time may stand still while there is something to discover.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timers_own = (
            self.create_timer(self.config.discovery_period, self._discover, clock=steady),
            self.create_timer(1.0, self._flush, clock=steady),
        )
        self._discover()

    def _discover(self) -> None:
        for topic, types in self.get_topic_names_and_types():
            hidden = any(part.startswith("_") for part in topic.split("/"))
            if (
                hidden
                or topic in self._refused
                or any(fnmatch.fnmatch(topic, p) for p in self.config.exclude)
            ):
                continue
            publishers = self.get_publishers_info_by_topic(topic)
            if not publishers:
                continue
            profiles = [p.qos_profile for p in publishers]
            reliable = all(q.reliability == ReliabilityPolicy.RELIABLE for q in profiles)
            latched = all(q.durability == DurabilityPolicy.TRANSIENT_LOCAL for q in profiles)
            known = self._subscriptions_by_topic.get(topic)
            if known is not None:
                if known[1] == (reliable, latched) or (not known[1][0] and not known[1][1]):
                    continue
                # A publisher came that offers less than was asked for: ask for less.
                self.destroy_subscription(known[0])
            try:
                self._subscribe(topic, types[0], profiles, reliable, latched)
            except (BridgeError, ImportError, AttributeError) as error:
                self._refused.add(topic)
                self.get_logger().warning(f"{topic} is not recorded: {error}")

    def _subscribe(
        self, topic: str, msgtype: str, offered: Sequence[QoSProfile], reliable: bool, latched: bool
    ) -> None:
        if topic not in self._connections:
            ensure(self._store, msgtype)
            self._connections[topic] = self._writer.add_connection(
                topic, msgtype, typestore=self._store, offered_qos_profiles=[_qos(q) for q in offered[:1]]
            )
        package, _, name = msgtype.split("/")
        profile = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=100 if reliable else 10,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        subscription = self.create_subscription(
            getattr(importlib.import_module(f"{package}.msg"), name),
            topic,
            self._take(self._connections[topic]),
            profile,
            raw=True,
        )
        self._subscriptions_by_topic[topic] = (subscription, (reliable, latched))

    def _take(self, connection: Connection) -> Callable[[bytes], None]:
        def take(data: bytes) -> None:
            self._writer.write(connection, time.time_ns(), data)
            self.messages += 1
            self.bytes += len(data)

        return take

    def _flush(self) -> None:
        """End the chunk and hand it to the disk."""
        storage = self._writer.storage
        if storage is not None and storage.chunk.msgs:
            storage.close_chunk()
            storage.bio.flush()

    @property
    def topics(self) -> int:
        """How many topics are recorded."""
        return len(self._connections)

    def destroy_node(self) -> None:
        """Finish the bag: index and metadata.yaml."""
        if self._writer.storage is not None:
            self._writer.close()
        super().destroy_node()


def _fresh(output: str) -> Path:
    """Absolute path of a folder that does not exist yet."""
    if not output:
        raise ConfigError("recorder: output is empty; name the folder to record into")
    path = Path(output).expanduser().absolute()
    if path.exists():
        raise ConfigError(f"recorder: {path} exists already; name another folder")
    return path


def _qos(profile: QoSProfile) -> Qos:
    reliable = profile.reliability == ReliabilityPolicy.RELIABLE
    latched = profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=max(int(profile.depth), 1),
        reliability=QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
        durability=QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        deadline=_INFINITE,
        lifespan=_INFINITE,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=_INFINITE,
        avoid_ros_namespace_conventions=False,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``bridgevla record``."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    parser.add_argument("-o", "--output", default=f"runs/bag-{stamp}", help="folder of the bag")
    parser.add_argument(
        "-x",
        "--exclude",
        action="append",
        default=[],
        help="topic to leave out, or a pattern; may repeat",
    )
    parser.add_argument("--seconds", type=float, default=0.0, help="stop after so long (0: at Ctrl-C)")


def run(args: argparse.Namespace) -> int:
    """``bridgevla record``: record until Ctrl-C, showing how much there is."""
    config = RecorderConfig(output=args.output, exclude=(*RecorderConfig().exclude, *args.exclude))
    try:
        _fresh(config.output)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    from bridgevla_ros import bringup

    # The same discovery and transport as the graph.
    for name, value in bringup.build({}).environment:
        os.environ.setdefault(name, value)
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    flag = StopFlag().install()
    recorder = Recorder(config)
    start = time.monotonic()

    def show() -> None:
        seconds = time.monotonic() - start
        print(
            f"\r{seconds:6.1f} s  {recorder.topics:3d} topics  {recorder.messages:7d} messages  "
            f"{recorder.bytes / 1e6:8.1f} MB",
            end="",
            flush=True,
        )
        flag.set = flag.set or 0.0 < args.seconds <= seconds

    recorder.create_timer(0.5, show, clock=Clock(clock_type=ClockType.STEADY_TIME))
    print(f"recording into {recorder.path}; Ctrl-C ends it")
    try:
        spin(recorder, stop=flag)
    finally:
        show()
        print()
        recorder.destroy_node()
        rclpy.shutdown()
    print(f"{recorder.messages} messages of {recorder.topics} topics in {recorder.path}")
    return 0 if recorder.messages else 1
