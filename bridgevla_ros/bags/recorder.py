"""Record the graph into an MCAP bag: raw CDR bytes, never decoded, with the publishers' QoS.

A stamp in the bag is the wall-clock time of receipt. Callbacks only put bytes into a queue; a thread of its
own compresses and writes (``sink``). A chunk reaches the system twice a second, so that a killed recorder
loses no more than that (``reader.Bag`` reads such a bag too). What the middleware says was lost is counted.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

from bridgevla_ros.bags import provenance
from bridgevla_ros.bags.definitions import definition, installed
from bridgevla_ros.bags.sink import Sink, disk_full, free_bytes
from bridgevla_ros.bags.storage import Connection
from bridgevla_ros.bags.writer import COMPRESSION, BagWriter
from bridgevla_ros.core.config import ConfigError, param
from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.ros import parameters
from bridgevla_ros.ros.parameter_reader import ParameterReader

_INFINITE = QosTime(2147483647, 4294967295)
DEPTH = 1000
"""Messages that may wait in the middleware; memory is taken only by those that do."""


@dataclass(frozen=True)
class RecorderConfig:
    """Parameters of the node ``recorder``."""

    output: str = param("", "Folder of the bag; it must not exist yet.")
    recorder: str = param(
        "auto",
        "Who records: rosbag2 where it is installed (auto), always rosbag2, or always our own",
        choices=("auto", "rosbag2", "own"),
    )
    exclude: tuple[str, ...] = param(
        ("/parameter_events",), "Topics that are not recorded; shell patterns such as /camera/*."
    )
    compression: str = param("none", "Compression of the file's chunks.", choices=tuple(COMPRESSION))
    split_size: int = param(
        0, "Begin a new file when one has reached this size; 0 for never.", unit="MB", ge=0, le=1_000_000
    )
    split_duration: float = param(
        0.0, "Begin a new file after this long; 0 for never.", unit="s", ge=0.0, le=86400.0
    )
    min_free: float = param(
        1.0, "With less free disk space the bag is finished, with DISK_FULL.", unit="GB", ge=0.0, le=10_000.0
    )
    queue: int = param(
        512, "Memory for messages that wait for the disk; more are lost.", unit="MB", ge=8, le=100_000
    )
    discovery_period: float = param(
        0.25, "Seconds between two looks for new topics and nodes.", unit="s", ge=0.05, le=10.0
    )


class Recorder(Node):
    """Subscribes to every topic that has a publisher, and writes what comes.

    Args:
        config: Overrides the parameters, for use outside of the graph.
        free: Free bytes on the disk of a folder; a test may say otherwise.

    Attributes:
        path: Folder of the bag.
        failure: Why recording ended by itself, None while it goes on.
    """

    def __init__(
        self, config: RecorderConfig | None = None, *, free: Callable[[Path], int] | None = None
    ) -> None:
        super().__init__("recorder", start_parameter_services=False)
        self.config = config if config is not None else parameters.declare(self, RecorderConfig)
        self.path = fresh(self.config.output)
        min_free = int(self.config.min_free * 1e9)
        space = free if free is not None else free_bytes
        refusal = disk_full(self.path.parent, space(self.path), min_free)
        if refusal is not None:
            raise refusal
        writer = BagWriter(
            self.path,
            compression=self.config.compression,
            split_bytes=self.config.split_size * 1_000_000,
            split_seconds=self.config.split_duration,
        )
        self._sink = Sink(writer, min_free=min_free, queue_limit=self.config.queue * 1_000_000, free=space)
        self._subscriptions_by_topic: dict[str, tuple[Any, tuple[bool, bool]]] = {}
        self._declared: set[str] = set()
        self._refused: set[str] = set()
        self._lost: dict[str, int] = {}
        self._overflow: dict[str, int] = {}
        self._parameters: dict[str, dict[str, Any]] = {}
        self._run = provenance.RunRecord()
        self._run_lock = threading.Lock()
        self._describing: list[threading.Thread] = []
        self._aside(self._gather)
        self._closed = False
        self._reader = ParameterReader(self, self._on_parameters)
        self._on_parameters(self.get_fully_qualified_name(), dataclasses.asdict(self.config))
        # Wall clock: simulated time may stand still while there is something to discover.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timers_own = (
            self.create_timer(self.config.discovery_period, self._discover, clock=steady),
            self.create_timer(self.config.discovery_period, self._reader.look, clock=steady),
        )
        self._discover()

    # Topics ------------------------------------------------------------------------------------------------

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
        if topic not in self._declared:
            text, digest = definition(installed(), msgtype)
            qos = tuple(dict.fromkeys(_qos(q) for q in offered))
            connection = Connection(topic, msgtype, text, "ros2msg", digest, qos)
            self._sink.do(lambda writer: writer.add(connection))
            self._declared.add(topic)
        package, _, name = msgtype.split("/")
        profile = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        before = self._lost.get(topic, 0)

        def lost(event: Any) -> None:
            self._lost[topic] = before + int(event.total_count)
            self.get_logger().warning(
                f"{topic}: {self._lost[topic]} messages lost so far", throttle_duration_sec=5.0
            )

        subscription = self.create_subscription(
            getattr(importlib.import_module(f"{package}.msg"), name),
            topic,
            self._take(topic),
            profile,
            raw=True,
            event_callbacks=SubscriptionEventCallbacks(message_lost=lost),
        )
        self._subscriptions_by_topic[topic] = (subscription, (reliable, latched))

    def _take(self, topic: str) -> Callable[[bytes], None]:
        put = self._sink.put

        def take(data: bytes) -> None:
            if not put(topic, data):
                self._overflow[topic] = self._overflow.get(topic, 0) + 1

        return take

    # What made the run -------------------------------------------------------------------------------------

    def _on_parameters(self, node: str, values: Mapping[str, Any]) -> None:
        """Write the parameters of a node as soon as they are known, and what they point to."""
        self._parameters[node] = dict(values)
        note = {n: json.dumps(v, sort_keys=True) for n, v in self._parameters.items()}
        self._sink.do(lambda writer: writer.note(provenance.PARAMETERS, note))
        if values.keys() & {"weights", "robot"}:
            self._aside(lambda: self._describe(dict(values), node))

    def _aside(self, work: Callable[[], None]) -> None:
        """Do what takes seconds (hashing a large checkpoint) beside receiving."""
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self._describing.append(thread)

    def _gather(self) -> None:
        found, diff = provenance.gather()
        with self._run_lock:
            self._run = dataclasses.replace(found, checkpoints=self._run.checkpoints, robot=self._run.robot)
            run = self._run.note()
            self._sink.do(lambda writer: writer.note(provenance.RUN, run))
        if 0 < len(diff) <= provenance.DIFF_LIMIT:
            self._sink.do(_attach("git.diff", diff))

    def _describe(self, values: dict[str, Any], node: str) -> None:
        checkpoints, robot = provenance.of_parameters({node: values})
        with self._run_lock:
            new_robot = robot if robot and not self._run.robot else ""
            self._run = dataclasses.replace(
                self._run,
                checkpoints={**self._run.checkpoints, **checkpoints},
                robot=self._run.robot or robot,
            )
            run = self._run.note()
            self._sink.do(lambda writer: writer.note(provenance.RUN, run))
        for name, data in provenance.robot_files(new_robot).items() if new_robot else ():
            self._sink.do(_attach(name, data))

    # For those who watch -----------------------------------------------------------------------------------

    @property
    def failure(self) -> BridgeError | None:
        """Why recording ended by itself."""
        return self._sink.failure

    @property
    def messages(self) -> int:
        """How many were written."""
        return self._sink.messages

    @property
    def bytes(self) -> int:
        """Bytes of messages that were written."""
        return self._sink.bytes_written

    @property
    def topics(self) -> int:
        """How many topics are recorded."""
        return len(self._declared)

    @property
    def lost(self) -> dict[str, int]:
        """Messages known to be lost, by topic: by the middleware, or for want of memory."""
        both = {t: self._lost.get(t, 0) + self._overflow.get(t, 0) for t in (*self._lost, *self._overflow)}
        return {topic: count for topic, count in both.items() if count}

    def close(self) -> None:
        """Finish the bag: what is known of its end, index and metadata.yaml. May be called twice."""
        if self._closed:
            return
        self._closed = True
        for thread in self._describing:
            thread.join(2.0)
        end = {
            "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "reason": "stopped",
            "lost": json.dumps(self.lost),
            "unanswered": json.dumps(sorted(self._reader.unanswered)),
        }
        self._sink.close(lambda writer: writer.note(provenance.END, end))

    def destroy_node(self) -> None:
        """Finish the bag."""
        self.close()
        super().destroy_node()


def _attach(name: str, data: bytes) -> Callable[[BagWriter], None]:
    return lambda writer: writer.attach(name, "text/plain", data)


def fresh(output: str) -> Path:
    """Absolute path of a folder that does not exist yet.

    Raises:
        ConfigError: It is empty, or there is something.
    """
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


def summary(recorder: Recorder) -> str:
    """One line for the end of a recording, and what was lost."""
    said = f"{recorder.messages} messages of {recorder.topics} topics in {recorder.path}"
    if not recorder.lost:
        return f"{said}; none was lost"
    each = ", ".join(f"{topic} {count}" for topic, count in sorted(recorder.lost.items()))
    return f"{said}; LOST: {each}"
