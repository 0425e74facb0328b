"""A log of what a node took in, for those whose outputs depend on all of it and on time.

The outputs of planner, cropper, trajectory and expert each name their few inputs. The streamer and the
task answer a hundred times a second to whatever came before; for them the order itself is recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.transforms import Array

PERIOD = 0.1
"""Seconds between two messages of a log: a killed recorder loses no more. Our choice."""


class InputKind(IntEnum):
    """What was taken in."""

    TICK = 0
    JOINTS = 1
    GUIDANCE = 2
    LEASE = 3
    CHUNK = 4
    STOP = 5
    HOLD = 6
    RESUME = 7
    PLAN = 8
    PROGRESS = 9
    DEPTH_QUALITY = 10
    NODES = 11
    INSTRUCT = 12
    APPROVE = 13
    CANCEL = 14


WORDED = frozenset(
    (
        InputKind.STOP,
        InputKind.HOLD,
        InputKind.RESUME,
        InputKind.NODES,
        InputKind.INSTRUCT,
        InputKind.APPROVE,
        InputKind.CANCEL,
    )
)
"""Kinds that no message carries: the log holds what they say, as JSON."""


@dataclass(frozen=True, eq=False)
class InputLog:
    """A piece of a log.

    Attributes:
        stamp: Seconds, of the last entry.
        first: Entries before this piece, since the node started.
        fresh: Before its first entry the node remembered nothing that lasts.
        kinds: (N,) ``InputKind``.
        taken: (N,) seconds of ROS time at which it was taken; exactly what the core was told.
        stamps: (N,) seconds, the input's own stamp; NaN where it has none.
        texts: JSON of each entry whose kind is in ``WORDED``, in order.
    """

    stamp: float
    first: int
    fresh: bool
    kinds: NDArray[np.int64]
    taken: Array
    stamps: Array
    texts: tuple[str, ...]


class InputLogger:
    """Collects entries until they are taken as a piece; cheap enough for a control period."""

    def __init__(self) -> None:
        self._kinds: list[int] = []
        self._taken: list[float] = []
        self._stamps: list[float] = []
        self._texts: list[str] = []
        self._first = 0
        self._fresh = True
        self._since = -np.inf

    def note(self, kind: InputKind, taken: float, stamp: float = float("nan"), text: str = "") -> None:
        """Add an entry; seconds. ``text`` counts for the kinds in ``WORDED`` alone."""
        self._kinds.append(kind)
        self._taken.append(taken)
        self._stamps.append(stamp)
        if kind in WORDED:
            self._texts.append(text)

    def piece(self, now: float, fresh: bool) -> InputLog | None:
        """The entries since the last piece, when enough time has passed.

        Args:
            now: Seconds.
            fresh: The node remembers nothing that lasts, for the piece that begins after this one.
        """
        if not self._kinds or 0.0 <= now - self._since < PERIOD:
            return None
        piece = InputLog(
            now,
            self._first,
            self._fresh,
            np.array(self._kinds, np.int64),
            np.array(self._taken),
            np.array(self._stamps),
            tuple(self._texts),
        )
        self._first += len(self._kinds)
        self._fresh, self._since = fresh, now
        self._kinds, self._taken, self._stamps, self._texts = [], [], [], []
        return piece
