"""A data set as a folder of bags, one an episode: MCAP with standard messages, shown by Foxglove and rviz.

``dataset.json`` says what the columns are; ``episodes.jsonl`` lists the episodes, a line each, written when
the episode's bag is finished. ``episodes/episode-000000/`` is a bag with metadata.yaml: one topic a column
(``observation.tcp`` is ``/observation/tcp``), one message a frame, and ``/task`` with the words. A message's
receipt stamp is the frame's stamp.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.bags.definitions import installed
from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.bags.writer import BagWriter
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.datasets.episode import DatasetReader, DatasetWriter, Episode, EpisodeInfo
from bridgevla_ros.datasets.features import Feature, check_features
from bridgevla_ros.datasets.messages import codec, make

FORMAT = "bridgevla-mcap-1"
TASK = "/task"


def topic_of(feature: str) -> str:
    """Topic of a column."""
    return "/" + feature.replace(".", "/").replace("-", "_").replace(" ", "_")


class McapWriter(DatasetWriter):
    """Arguments and errors as of ``LeRobotWriter``; an episode is safe once it was added."""

    def __init__(
        self,
        root: Path,
        features: Mapping[str, Feature],
        *,
        fps: int,
        robot_type: str = "",
        resume: bool = False,
    ) -> None:
        check_features(features)
        self.root, self.features = Path(root), dict(features)
        topics = [topic_of(n) for n in self.features]
        if len(set(topics)) != len(topics) or TASK in topics:
            raise BridgeError(
                ErrorCode.BAD_INPUT, f"two columns would share a topic: {sorted(topics)}", remedy="rename one"
            )
        self.fps = int(fps)
        description = {
            "format": FORMAT,
            "fps": self.fps,
            "robot_type": robot_type,
            "features": {n: f.to_json() for n, f in self.features.items()},
        }
        path = self.root / "dataset.json"
        there = McapReader(self.root) if resume and path.is_file() else None
        self._episodes = 0 if there is None else len(there.episodes)
        if self._fresh(there):
            path.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")

    def _append(self, episode: Episode) -> int:
        index = self._episodes
        folder = self.root / "episodes" / f"episode-{index:06d}"
        shutil.rmtree(folder, ignore_errors=True)  # what a killed writer left
        folder.parent.mkdir(exist_ok=True)
        length, task, extra = len(episode.stamps), episode.task, episode.extra
        entry = {"index": index, "length": length, "task": task, "extra": extra}
        write_bag(folder, self.features, episode)
        with (self.root / "episodes.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._episodes = index + 1
        return index

    def flush(self) -> None:
        """Nothing to do: every episode is finished when it is added."""

    def close(self) -> None:
        """Nothing to do."""


def write_bag(folder: Path, features: Mapping[str, Feature], episode: Episode) -> None:
    """One episode as a bag; ``features`` of what ``episode.columns`` holds."""
    custom = {"task": episode.task, "extra": json.dumps(episode.extra, sort_keys=True)}
    with BagWriter(folder, compression="zstd", custom=custom) as bag:
        write_columns(bag, features, episode)


def write_columns(bag: BagWriter, features: Mapping[str, Feature], episode: Episode) -> int:
    """The task's words and every column, a topic each; returns how many messages."""
    store = installed()
    codecs = {name: codec(feature) for name, feature in features.items()}
    bag.add_type(TASK, "std_msgs/msg/String")
    for name, one in codecs.items():
        bag.add_type(topic_of(name), one.msgtype)
    words = store.serialize_cdr(make("std_msgs/msg/String", data=episode.task), "std_msgs/msg/String")
    bag.write(TASK, round(episode.stamps[0] * 1e9), bytes(words))
    for i, stamp in enumerate(episode.stamps):
        for name, one in codecs.items():
            message = one.encode(episode.columns[name][i], float(stamp), name.rpartition(".")[2])
            bag.write(topic_of(name), round(stamp * 1e9), bytes(store.serialize_cdr(message, one.msgtype)))
    return 1 + len(codecs) * len(episode.stamps)


class McapReader(DatasetReader):
    """A data set of ``McapWriter``.

    Raises:
        BridgeError: BAD_INPUT where it is none, or damaged.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        try:
            description = json.loads((self.root / "dataset.json").read_text(encoding="utf-8"))
            if description["format"] != FORMAT:
                raise ValueError(f"format {description['format']!r}, expected {FORMAT!r}")
            self.features = {n: Feature.from_json(n, e) for n, e in description["features"].items()}
            self.fps = float(description["fps"])
            self.robot_type = str(description["robot_type"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"{self.root / 'dataset.json'}: {error}",
                remedy="name the folder of a data set",
            ) from error
        self.episodes: list[EpisodeInfo] = []
        listing = self.root / "episodes.jsonl"
        for line in listing.read_text(encoding="utf-8").splitlines() if listing.is_file() else ():
            try:
                entry = json.loads(line)
            except ValueError:
                break  # a killed writer's last line
            self.episodes.append(EpisodeInfo(entry["index"], entry["length"], entry["task"], entry["extra"]))

    def _read(self, info: EpisodeInfo, names: list[str]) -> Episode:
        folder = self.root / "episodes" / f"episode-{info.index:06d}"
        bag = Bag(folder)
        topics = {topic_of(n): n for n in names or list(self.features)[:1]}
        codecs = {n: codec(self.features[n]) for n in topics.values()}
        values: dict[str, list[Any]] = {n: [] for n in topics.values()}
        stamps: list[int] = []
        for topic, msgtype, received, data in bag.raw(list(topics)):
            name = topics[topic]
            values[name].append(codecs[name].decode(installed().deserialize_cdr(data, msgtype)))
            if name == next(iter(values)):
                stamps.append(received)
        short = [n for n, v in values.items() if len(v) != info.length]
        if short:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"{folder}: {len(values[short[0]])} of {info.length} frames of {short[0]}",
                remedy="copy the data set anew; it is not whole",
            )
        out = {n: _stack(self.features[n], values[n]) for n in names}
        return Episode(out, np.array(stamps) * 1e-9, info.task, info.extra)


def _stack(feature: Feature, values: list[Any]) -> NDArray[Any]:
    if feature.dtype == "string":
        return np.array(values, dtype=object)
    return np.stack(values).astype(feature.numpy, copy=False)
