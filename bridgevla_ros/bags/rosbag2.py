"""rosbag2's own recorder, where it is installed: the same command line, the same contents.

``ros2 bag record`` receives and writes; we start it, watch the disk, ask the nodes for their parameters, and
add what made the run to its metadata.yaml when it has ended.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from bridgevla_ros.bags import metadata, provenance
from bridgevla_ros.bags.recorder import Recorder, RecorderConfig, fresh
from bridgevla_ros.bags.sink import disk_full, free_bytes
from bridgevla_ros.core.config import ConfigError
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.ros import parameters
from bridgevla_ros.ros.parameter_reader import ParameterReader

_PRESETS = {"none": "none", "lz4": "fastwrite", "zstd": "zstd_fast"}
END_WAIT = 10.0
"""Seconds that rosbag2 may take to finish its bag."""


def installed(prefixes: str | None = None) -> bool:
    """Whether `ros2 bag record` with MCAP is there: the program, and the packages in an ament prefix.

    Args:
        prefixes: Ament prefixes, joined as in AMENT_PREFIX_PATH, which is the default.
    """
    if shutil.which("ros2") is None:
        return False
    listed = os.environ.get("AMENT_PREFIX_PATH", "") if prefixes is None else prefixes
    index = [Path(p) / "share/ament_index/resource_index/packages" for p in listed.split(os.pathsep) if p]
    return all(any((i / name).exists() for i in index) for name in ("ros2bag", "rosbag2_storage_mcap"))


def command(config: RecorderConfig, folder: Path, settings: Path) -> list[str]:
    """The command line of `ros2 bag record` (Jazzy and later).

    Args:
        config: What to record and how.
        folder: Of the bag.
        settings: YAML file with options of the MCAP writer, which ``storage_settings`` makes.
    """
    words = ["ros2", "bag", "record", "--all-topics", "--storage", "mcap", "--output", str(folder)]
    words += ["--polling-interval", str(int(1000 * config.discovery_period)), "--disable-keyboard-controls"]
    words += ["--max-cache-size", str(config.queue * 500_000)]  # it holds two such buffers
    words += ["--storage-config-file", str(settings)]
    if config.split_size:
        words += ["--max-bag-size", str(config.split_size * 1_000_000)]
    if config.split_duration:
        words += ["--max-bag-duration", str(max(round(config.split_duration), 1))]
    if config.exclude:
        words += ["--exclude-regex", "|".join(f"^{_regex(p)}$" for p in config.exclude)]
    return words


def storage_settings(config: RecorderConfig) -> str:
    """Options of the MCAP writer: the compression, and chunks small enough to lose little in a crash."""
    name = {"none": "None", "lz4": "Lz4", "zstd": "Zstd"}[config.compression]
    return f"compression: {name}\ncompressionLevel: Fast\nchunkSize: {4 << 20}\n"


def _regex(pattern: str) -> str:
    """A shell pattern for the whole name as a regular expression of C++."""
    turned = {"*": ".*", "?": "."}
    return "".join(turned.get(c) or (c if c.isalnum() or c in "/_-[]" else f"\\{c}") for c in pattern)


class Rosbag2Recorder(Node):
    """Runs `ros2 bag record` and knows what ``Recorder`` knows, as far as rosbag2 tells.

    Args:
        config: Overrides the parameters, for use outside of the graph.
    """

    def __init__(self, config: RecorderConfig | None = None) -> None:
        super().__init__("recorder", start_parameter_services=False)
        self.config = config if config is not None else parameters.declare(self, RecorderConfig)
        self.path = fresh(self.config.output)
        self._min_free = int(self.config.min_free * 1e9)
        refusal = disk_full(self.path.parent, free_bytes(self.path), self._min_free)
        if refusal is not None:
            raise refusal
        self.path.parent.mkdir(parents=True, exist_ok=True)
        settings = self.path.parent / f"{self.path.name}.mcap_writer.yaml"
        settings.write_text(storage_settings(self.config), encoding="utf-8")
        self._settings = settings
        self.failure: BridgeError | None = None
        self.lost: dict[str, int] = {}
        self._closed = False
        self._parameters: dict[str, dict[str, Any]] = {
            self.get_fully_qualified_name(): dataclasses.asdict(self.config)
        }
        self._process = subprocess.Popen(command(self.config, self.path, settings), start_new_session=True)
        self._reader = ParameterReader(self, self._on_parameters)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timers_own = (
            self.create_timer(self.config.discovery_period, self._reader.look, clock=steady),
            self.create_timer(1.0, self._watch, clock=steady),
        )

    def _on_parameters(self, node: str, values: Mapping[str, Any]) -> None:
        self._parameters[node] = dict(values)

    def _watch(self) -> None:
        full = disk_full(self.path, free_bytes(self.path), self._min_free)
        if full is not None and self.failure is None:
            self.failure = full
            self.close()
        elif self._process.poll() is not None and not self._closed and self.failure is None:
            self.failure = BridgeError(
                ErrorCode.BAD_INPUT,
                f"ros2 bag record has ended with exit status {self._process.returncode}",
                remedy="see what it says above; recorder:=own records without it",
            )

    @property
    def bytes(self) -> int:
        """Bytes on the disk."""
        return sum(p.stat().st_size for p in self.path.glob("*.mcap"))

    @property
    def messages(self) -> int:
        """Not known before the end."""
        return 0

    @property
    def topics(self) -> int:
        """Not known before the end."""
        return 0

    def close(self) -> None:
        """End rosbag2, and add what made the run to metadata.yaml. May be called twice."""
        if self._closed:
            return
        self._closed = True
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(END_WAIT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._settings.unlink(missing_ok=True)
        if (self.path / metadata.NAME).is_file():
            metadata.add_custom(self.path, self._custom())

    def _custom(self) -> dict[str, str]:
        checkpoints, robot = provenance.of_parameters(self._parameters)
        run = dataclasses.replace(provenance.gather()[0], checkpoints=checkpoints, robot=robot)
        reason = "stopped" if self.failure is None else str(self.failure)
        notes = {
            provenance.RUN: run.note(),
            provenance.PARAMETERS: {n: json.dumps(v, sort_keys=True) for n, v in self._parameters.items()},
            provenance.END: {
                "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "reason": reason,
                "recorder": "rosbag2",
            },
        }
        return {f"{name}.{key}": value for name, values in notes.items() for key, value in values.items()}

    def destroy_node(self) -> None:
        """End the recording."""
        self.close()
        super().destroy_node()


def make(config: RecorderConfig | None = None) -> Recorder | Rosbag2Recorder:
    """The recorder that the parameter ``recorder`` asks for; rosbag2's where it is installed, by default.

    Raises:
        ConfigError: rosbag2 is asked for and not there.
    """
    if config is None:
        asking = Node("recorder", start_parameter_services=False)
        try:
            wanted = parameters.declare(asking, RecorderConfig).recorder
        finally:
            asking.destroy_node()
    else:
        wanted = config.recorder
    if wanted == "own":
        return Recorder(config)
    if installed():
        return Rosbag2Recorder(config)
    if wanted == "rosbag2":
        raise ConfigError(
            "recorder is rosbag2, which is not here: install ros-$ROS_DISTRO-ros2bag and "
            "ros-$ROS_DISTRO-rosbag2-storage-mcap, or say recorder:=own"
        )
    return Recorder(config)
