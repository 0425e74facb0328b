"""Write LeRobotDataset v3: Parquet for frames and episodes, JSON for what they are. Written from the format.

Images are PNG inside the Parquet files (colour) and float32 TIFF (depth), so nothing is lost; video is not
written. A data file gets its place and its row in ``meta`` only once it is whole: a killed writer loses what
came after the last ``flush``, never what was before it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.datasets import arrow, statistics
from bridgevla_ros.datasets.episode import DatasetWriter, Episode
from bridgevla_ros.datasets.features import STAMP, Feature, check_features

VERSION = "v3.0"
FILES_IN_CHUNK = 1000
PATTERN = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH = f"data/{PATTERN}.parquet"
EPISODES_PATH = f"meta/episodes/{PATTERN}.parquet"
DEFAULTS = {
    "timestamp": Feature("float32", unit="s", description="frame_index / fps"),
    "frame_index": Feature("int64", description="within the episode"),
    "episode_index": Feature("int64"),
    "index": Feature("int64", description="of the frame in the data set"),
    "task_index": Feature("int64", description="row of meta/tasks.parquet"),
}
"""Columns of every LeRobotDataset."""
OWN = {STAMP: Feature("float64", unit="s", description="when the frame was, on the clock of its source")}
"""The column that ours have besides: frames need not be evenly spaced."""


class LeRobotWriter(DatasetWriter):
    """Takes episodes, as a context manager.

    Args:
        root: Folder of the data set; made if needed.
        features: Column name -> what it holds.
        fps: Nominal frames a second; whole numbers are what LeRobot expects.
        robot_type: Name of the robot.
        resume: Go on behind the last flushed episode of a data set that is there.
        file_megabytes: A data file is finished when it holds so much.

    Raises:
        BridgeError: BAD_INPUT: ``root`` holds something and ``resume`` is not said, features differ from
            those that are there, a feature has a name or type that the format has no place for.
    """

    def __init__(
        self,
        root: Path,
        features: Mapping[str, Feature],
        *,
        fps: int,
        robot_type: str = "",
        resume: bool = False,
        file_megabytes: float = 100.0,
    ) -> None:
        if fps < 1 or fps != int(fps):
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"fps {fps}",
                value=fps,
                limit=1.0,
                unit="Hz",
                remedy="give a whole number",
            )
        own = {name: f for name, f in features.items() if name not in OWN}
        check_features(own)
        self.root, self.fps, self.robot_type = Path(root), int(fps), robot_type
        self.features = own
        self._all = {**own, **OWN, **DEFAULTS}
        self._limit = file_megabytes * 1e6
        self._tasks: dict[str, int] = {}
        self._stats: statistics.Stats = {}
        self._episodes = self._frames = 0
        self._file = (0, 0)
        self._data: pq.ParquetWriter | None = None
        self._pending: list[dict[str, Any]] = []
        self._bytes = 0
        self._open(resume)

    def _open(self, resume: bool) -> None:
        from bridgevla_ros.datasets.lerobot_reader import LeRobotReader

        there = LeRobotReader(self.root) if resume and (self.root / "meta" / "info.json").is_file() else None
        if self._fresh(there) or there is None:
            return
        self._tasks = {task: i for i, task in enumerate(there.tasks)}
        self._stats = there.stats
        self._episodes, self._frames = len(there.episodes), len(there)
        if there.episodes:
            self._file = _next_file(there.last_file)

    # -- episodes ------------------------------------------------------------------------------

    def _append(self, episode: Episode) -> int:
        arrays, frames, index = dict(episode.columns), len(episode.stamps), self._episodes
        task_index = self._tasks.setdefault(episode.task, len(self._tasks))
        arrays[STAMP] = episode.stamps
        arrays["timestamp"] = (np.arange(frames) / self.fps).astype(np.float32)
        arrays["frame_index"] = np.arange(frames)
        arrays["episode_index"] = np.full(frames, index)
        arrays["index"] = np.arange(self._frames, self._frames + frames)
        arrays["task_index"] = np.full(frames, task_index)
        table = pa.table([arrow.to_arrow(f, arrays[n]) for n, f in self._all.items()], schema=self._schema())
        if self._data is None:
            self._begin()
        assert self._data is not None
        self._data.write_table(table, row_group_size=frames)
        stats = statistics.episode_stats(self._all, arrays)
        self._stats = statistics.merge([self._stats, stats])
        self._pending.append(self._row(index, frames, episode.task, stats, episode.extra))
        self._episodes, self._frames = index + 1, self._frames + frames
        self._bytes += table.nbytes
        if self._bytes >= self._limit:
            self.flush()
        return index

    def _schema(self) -> pa.Schema:
        return pa.schema(
            [(n, arrow.arrow_type(f)) for n, f in self._all.items()],
            {b"huggingface": arrow.huggingface_metadata(self._all)},
        )

    def _row(
        self, index: int, frames: int, task: str, stats: statistics.Stats, extra: dict[str, Any]
    ) -> dict[str, Any]:
        chunk, file = self._file
        row: dict[str, Any] = {
            "episode_index": index,
            "tasks": [task],
            "length": frames,
            "data/chunk_index": chunk,
            "data/file_index": file,
            "dataset_from_index": self._frames,
            "dataset_to_index": self._frames + frames,
            "meta/episodes/chunk_index": chunk,
            "meta/episodes/file_index": file,
            "extra": json.dumps(extra, sort_keys=True),
        }
        for name, entry in statistics.to_json(stats).items():
            row |= {f"stats/{name}/{key}": value for key, value in entry.items()}
        return row

    # -- files ---------------------------------------------------------------------------------

    def _part(self) -> Path:
        path = self._path(DATA_PATH)
        return path.with_name(path.name + ".part")

    def _path(self, pattern: str) -> Path:
        path = self.root / pattern.format(chunk_index=self._file[0], file_index=self._file[1])
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _begin(self) -> None:
        self._data = pq.ParquetWriter(self._part(), self._schema(), compression="zstd", use_dictionary=True)
        self._bytes = 0

    def flush(self) -> None:
        """Finish the data file; the next episode begins another. What came before survives anything."""
        if self._data is None:
            return
        self._data.close()
        self._data = None
        self._part().replace(self._path(DATA_PATH))
        _replace(self._path(EPISODES_PATH), lambda p: pq.write_table(pa.Table.from_pylist(self._pending), p))
        meta = self.root / "meta"
        _replace(meta / "tasks.parquet", lambda p: pq.write_table(_tasks_table(self._tasks), p))
        _write_json(meta / "stats.json", statistics.to_json(self._stats))
        _write_json(meta / "info.json", self._info())
        self._pending = []
        self._file = _next_file(self._file)

    def _info(self) -> dict[str, Any]:
        return {
            "codebase_version": VERSION,
            "robot_type": self.robot_type or None,
            "total_episodes": self._episodes,
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": FILES_IN_CHUNK,
            "data_files_size_in_mb": max(1, round(self._limit / 1e6)),
            "video_files_size_in_mb": 200,
            "fps": self.fps,
            "splits": {"train": f"0:{self._episodes}"},
            "data_path": DATA_PATH,
            "video_path": None,
            "features": {name: feature.to_json() for name, feature in self._all.items()},
        }

    def close(self) -> None:
        """Finish."""
        self.flush()


def _next_file(file: tuple[int, int]) -> tuple[int, int]:
    return (file[0] + 1, 0) if file[1] + 1 >= FILES_IN_CHUNK else (file[0], file[1] + 1)


def _tasks_table(tasks: Mapping[str, int]) -> pa.Table:
    """Column ``task_index`` with the words as the index that pandas finds by the file's metadata."""
    columns = [
        {"name": n, "field_name": n, "pandas_type": p, "numpy_type": t, "metadata": None}
        for n, p, t in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ]
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
    schema = pa.schema(
        [("task_index", pa.int64()), ("task", pa.string())], {b"pandas": json.dumps(pandas).encode()}
    )
    return pa.table([list(tasks.values()), list(tasks)], schema=schema)


def _replace(path: Path, write: Any) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    write(part)
    part.replace(path)


def _write_json(path: Path, value: Any) -> None:
    _replace(path, lambda p: p.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8"))
