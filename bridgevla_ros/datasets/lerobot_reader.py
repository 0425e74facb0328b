"""Read LeRobotDataset v3, ours and others' (whose cameras may be MP4)."""

from __future__ import annotations

import json
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.datasets import arrow, statistics
from bridgevla_ros.datasets.episode import DatasetReader, Episode, EpisodeInfo
from bridgevla_ros.datasets.features import RESERVED, STAMP, Feature


class LeRobotReader(DatasetReader):
    """A LeRobotDataset v3 on disk.

    Args:
        root: Its folder.

    Attributes:
        features: Without those that every data set has.
        tasks, stats: As in its ``meta``.

    Raises:
        BridgeError: BAD_INPUT where it is none, of another version, or damaged; says which file.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._info = _json(self.root / "meta" / "info.json")
        version = str(self._info.get("codebase_version", ""))
        if not version.startswith("v3."):
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"{self.root} is LeRobotDataset {version or 'without a version'}; v3.0 is read",
                remedy="convert it with LeRobot's convert_dataset_v21_to_v30",
            )
        self.fps = float(self._info["fps"])
        self.robot_type = str(self._info.get("robot_type") or "")
        declared = {n: Feature.from_json(n, e) for n, e in self._info["features"].items()}
        self.features = {n: f for n, f in declared.items() if n not in RESERVED and n != STAMP}
        self._declared = declared
        stats = self.root / "meta" / "stats.json"
        self.stats = statistics.from_json(_json(stats)) if stats.is_file() else {}
        self.tasks = self._read_tasks()
        self._rows = self._read_rows()
        self.episodes = [
            EpisodeInfo(
                int(r["episode_index"]),
                int(r["length"]),
                "; ".join(map(str, r["tasks"])),
                json.loads(r.get("extra") or "{}"),
            )
            for r in self._rows
        ]
        self._groups = lru_cache(maxsize=8)(_groups)

    def _read_tasks(self) -> list[str]:
        path = self.root / "meta" / "tasks.parquet"
        if not path.is_file():
            return []
        table = _parquet(path).read()
        words = next((c for c in ("task", "__index_level_0__") if c in table.column_names), None)
        if words is None:
            raise _damaged(path, f"its columns are {table.column_names}")
        pairs = zip(table["task_index"].to_pylist(), table[words].to_pylist(), strict=True)
        return [str(task) for _, task in sorted(pairs)]

    def _read_rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for path in sorted((self.root / "meta" / "episodes").glob("*/*.parquet")):
            file = _parquet(path)
            wanted = [n for n in file.schema_arrow.names if not n.startswith("stats/")]
            rows += file.read(columns=wanted).to_pylist()
        rows.sort(key=lambda r: int(r["episode_index"]))
        total = int(self._info["total_episodes"])
        if len(rows) < total:
            raise _damaged(self.root / "meta" / "episodes", f"{len(rows)} episodes of {total}")
        return rows[:total]

    @property
    def last_file(self) -> tuple[int, int]:
        """(chunk, file) index of the last episode's data."""
        row = self._rows[-1]
        return int(row["data/chunk_index"]), int(row["data/file_index"])

    def _read(self, info: EpisodeInfo, names: list[str]) -> Episode:
        index, row = info.index, self._rows[info.index]
        stored = [n for n in names if self.features[n].dtype != "video"]
        clock = STAMP if STAMP in self._declared else "timestamp"
        table = self._table(row, index, [*stored, clock])
        if len(table) != info.length:
            raise _damaged(self._data_path(row), f"episode {index} has {len(table)} of {info.length} frames")
        out = {n: arrow.from_arrow(n, self.features[n], table[n]) for n in stored}
        for name in names:
            if name not in out:
                out[name] = self._video(name, row, info.length)
        stamps = np.asarray(table[clock].to_numpy(), np.float64).reshape(-1)
        return Episode({n: out[n] for n in names}, stamps, info.task, info.extra)

    def _data_path(self, row: dict[str, Any]) -> Path:
        return self.root / str(self._info["data_path"]).format(
            chunk_index=int(row["data/chunk_index"]), file_index=int(row["data/file_index"])
        )

    def _table(self, row: dict[str, Any], index: int, names: list[str]) -> pa.Table:
        path = self._data_path(row)
        if not path.is_file():
            raise _damaged(path, "it is missing")
        file, spans = self._groups(path)
        wanted = [i for i, (low, high) in enumerate(spans) if low <= index <= high]
        try:
            table = file.read_row_groups(wanted, columns=[*names, "episode_index"])
        except (OSError, pa.ArrowException) as error:
            raise _damaged(path, str(error)) from error
        mine = np.asarray(table["episode_index"].to_numpy()).reshape(-1) == index
        return table if mine.all() else table.filter(pa.array(mine))

    def _video(self, name: str, row: dict[str, Any], frames: int) -> NDArray[Any]:
        """Frames of an MP4, by the ffmpeg that imageio brings."""
        import imageio_ffmpeg

        path = self.root / str(self._info["video_path"]).format(
            video_key=name,
            chunk_index=int(row[f"videos/{name}/chunk_index"]),
            file_index=int(row[f"videos/{name}/file_index"]),
        )
        if self.features[name].depth:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"{name} is depth quantised into a video, which is not read",
                remedy="name the columns you want without it",
            )
        begin = max(float(row[f"videos/{name}/from_timestamp"]) - 0.25 / self.fps, 0.0)  # between two frames
        words = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-ss", f"{begin:.6f}", "-i", str(path)]
        words += ["-frames:v", str(frames), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        ran = subprocess.run(words, capture_output=True, check=False)
        shape = (frames, *self.features[name].shape)
        if ran.returncode != 0 or len(ran.stdout) != int(np.prod(shape)):
            why = ran.stderr.decode(errors="replace").strip()[-300:]
            raise _damaged(path, why or f"it has not {frames} frames of {shape[1:]}")
        return np.frombuffer(ran.stdout, np.uint8).reshape(shape)


def _groups(path: Path) -> tuple[pq.ParquetFile, list[tuple[int, int]]]:
    """A data file and, for each row group, its first and last episode."""
    file = _parquet(path)
    paths = [file.schema.column(i).path for i in range(file.metadata.num_columns)]
    if "episode_index" not in paths:
        raise _damaged(path, "it has no column episode_index")
    leaf = paths.index("episode_index")
    spans = []
    for group in range(file.num_row_groups):
        known = file.metadata.row_group(group).column(leaf).statistics
        spans.append(
            (int(known.min), int(known.max)) if known is not None and known.has_min_max else (0, 2**62)
        )
    return file, spans


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, str(error)) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BridgeError(
            ErrorCode.BAD_INPUT, f"{path} is missing", remedy="name the folder of a LeRobotDataset v3"
        ) from error
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(value, dict):
        raise _damaged(path, "it holds no object")
    return value


def _damaged(path: Path, why: str) -> BridgeError:
    return BridgeError(
        ErrorCode.BAD_INPUT, f"{path}: {why}", remedy="copy the data set anew; it is not whole"
    )
