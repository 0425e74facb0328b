"""What writers take and readers hand out, whatever the files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.datasets.features import Feature, check_columns, check_stamps


@dataclass(frozen=True)
class EpisodeInfo:
    """An episode in the table of contents: its index, frames, task in words, and what was kept with it."""

    index: int
    length: int
    task: str
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Episode:
    """One episode.

    Attributes:
        columns: Feature name -> (T, *row), as ``Feature.row`` says.
        stamps: (T,) seconds on the source's clock.
        task: What is done, in words.
        extra: What was kept with it.
    """

    columns: dict[str, NDArray[Any]]
    stamps: NDArray[np.float64]
    task: str
    extra: dict[str, Any] = field(default_factory=dict)


class DatasetReader(ABC):
    """What ``open_dataset`` returns.

    Attributes:
        root: Its folder.
        features: Column name -> what it holds.
        fps: Nominal frames a second.
        robot_type: Name of the robot.
        episodes: Table of contents.
    """

    root: Path
    features: dict[str, Feature]
    fps: float
    robot_type: str
    episodes: list[EpisodeInfo]

    def __len__(self) -> int:
        """Frames."""
        return sum(e.length for e in self.episodes)

    def __iter__(self) -> Iterator[Episode]:
        """All episodes."""
        for info in self.episodes:
            yield self.episode(info.index)

    def episode(self, index: int, columns: Collection[str] | None = None) -> Episode:
        """Read one episode.

        Args:
            index: Of the episode.
            columns: Names to read, None for all.

        Raises:
            BridgeError: BAD_INPUT for an unknown index or column, or where the files lack it.
        """
        if not 0 <= index < len(self.episodes):
            raise BridgeError(
                ErrorCode.BAD_INPUT, f"episode {index} of {len(self.episodes)}", remedy="count from 0"
            )
        names = list(self.features) if columns is None else list(columns)
        unknown = [n for n in names if n not in self.features]
        if unknown:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"no column {', '.join(unknown)}",
                remedy=f"there are {', '.join(self.features)}",
            )
        return self._read(self.episodes[index], names)

    @abstractmethod
    def _read(self, info: EpisodeInfo, names: list[str]) -> Episode:
        """The known columns of an episode that is there."""


class DatasetWriter(ABC):
    """Takes episodes, as a context manager.

    Attributes:
        root: Folder of the data set.
        features: Column name -> what it holds.
        fps: Nominal frames a second.
    """

    root: Path
    features: dict[str, Feature]
    fps: int

    def _fresh(self, there: DatasetReader | None) -> bool:
        """Make the folder, unless a data set is gone on with; returns whether it was made.

        Raises:
            BridgeError: BAD_INPUT where the data set that is there has other columns or another rate, or
                where something else is there.
        """
        if there is not None:
            if there.features != self.features or there.fps != self.fps:
                raise BridgeError(
                    ErrorCode.BAD_INPUT,
                    f"{self.root} holds other columns or another fps ({there.fps})",
                    remedy="go on with the same features, or begin another data set",
                )
            return False
        if self.root.exists() and any(self.root.iterdir()):
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"{self.root} is not empty",
                remedy="name another folder, or resume the data set that is there",
            )
        self.root.mkdir(parents=True, exist_ok=True)
        return True

    def add_episode(
        self,
        columns: Mapping[str, ArrayLike],
        task: str,
        *,
        stamps: ArrayLike | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> int:
        """Append one episode.

        Args:
            columns: Feature name -> (T, *shape).
            task: What is done, in words.
            stamps: (T,) seconds, rising; frame_index / fps where None.
            extra: Anything JSON can hold, kept with the episode.

        Returns:
            Its index.

        Raises:
            BridgeError: BAD_INPUT where columns or stamps do not fit; nothing is written then.
        """
        frames, arrays = check_columns(self.features, {n: np.asarray(c) for n, c in columns.items()})
        return self._append(Episode(arrays, check_stamps(stamps, frames, self.fps), task, dict(extra or {})))

    @abstractmethod
    def _append(self, episode: Episode) -> int:
        """Take a checked episode; returns its index."""

    @abstractmethod
    def flush(self) -> None:
        """Make what was added survive."""

    @abstractmethod
    def close(self) -> None:
        """Finish."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
