"""What readers hand out, whatever the files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bridgevla_ros.datasets.features import Feature


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


class DatasetReader(Protocol):
    """What ``open_dataset`` returns."""

    root: Path
    features: dict[str, Feature]
    fps: float
    robot_type: str
    episodes: list[EpisodeInfo]

    def __len__(self) -> int:
        """Frames."""
        ...

    def __iter__(self) -> Iterator[Episode]:
        """All episodes."""
        ...

    def episode(self, index: int, columns: Collection[str] | None = None) -> Episode:
        """One episode; ``columns`` None for all."""
        ...


class DatasetWriter(Protocol):
    """What ``LeRobotWriter`` and ``McapWriter`` have in common."""

    def add_episode(
        self,
        columns: Mapping[str, ArrayLike],
        task: str,
        *,
        stamps: ArrayLike | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> int:
        """Append an episode; returns its index."""
        ...

    def flush(self) -> None:
        """Make what was added survive."""
        ...

    def close(self) -> None:
        """Finish."""
        ...
