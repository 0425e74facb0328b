"""Streamer and task again, from the log of what they took in and the messages that it names."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from bridgevla_ros.bags.replay.recording import Item, Recording
from bridgevla_ros.bags.replay.result import Answer, Missing, Skipped
from bridgevla_ros.core.input_log import WORDED, InputKind
from bridgevla_ros.ros import conversions

D = TypeVar("D")

TOPIC_OF = {
    InputKind.JOINTS: "joint_states",
    InputKind.GUIDANCE: "guidance",
    InputKind.LEASE: "lease",
    InputKind.CHUNK: "action_chunk",
    InputKind.PLAN: "plan",
    InputKind.PROGRESS: "progress",
    InputKind.DEPTH_QUALITY: "depth_quality",
}


class Entry(NamedTuple):
    """One input as it was taken.

    Attributes:
        kind: What it is.
        now: Seconds, what the core was told.
        stamp: Seconds, of the message; NaN where it is none.
        said: What an operator said, for kinds that no message carries.
        message: Decoded; None for kinds without one, and where the bag lacks it.
    """

    kind: InputKind
    now: float
    stamp: float
    said: Any
    message: Any


def entries(recording: Recording, node: str) -> Iterator[Entry | Missing | Skipped]:
    """The log of a node from where it had a fresh start, each entry with its message.

    A node that was started again begins with a new fresh piece; the caller sees it as ``Skipped`` with an
    empty reason.
    """
    begun, expected = False, 0
    taken: Counter[tuple[InputKind, float]] = Counter()
    for item in recording.items(f"{node}/inputs"):
        log = conversions.input_log_from_msg(recording.message(item))
        gap = begun and log.first != expected
        if log.fresh and (not begun or gap or log.first == 0):
            begun, gap = True, False
            yield Skipped(node, "")
        elif gap:
            begun = False
            yield Skipped(node, "a part of the log of its inputs is not in the bag")
        elif not begun:
            yield Skipped(node, "the log of its inputs does not reach back to its start")
        expected = log.first + len(log.kinds)
        if not begun:
            continue
        texts = iter(log.texts)
        for number, now, stamp in zip(log.kinds, log.taken, log.stamps, strict=True):
            kind = InputKind(int(number))
            said = json.loads(next(texts)) if kind in WORDED else None
            topic = TOPIC_OF.get(kind)
            if topic is None:
                yield Entry(kind, float(now), math.nan, said, None)
                continue
            found = recording.at(topic, float(stamp))
            # Two messages of one stamp were taken in their order.
            which = taken[(kind, float(stamp))]
            taken[(kind, float(stamp))] += 1
            if not found:
                key = f"its input at {float(now):.3f} s"
                yield Missing(node, float(now), key, topic, f"{float(stamp):.6f} s")
                continue
            message = recording.message(found[min(which, len(found) - 1)])
            yield Entry(kind, float(now), float(stamp), said, message)


class Outputs:
    """Recorded outputs of a topic that replayed ones are matched with, by stamp and order."""

    def __init__(self, recording: Recording, name: str) -> None:
        self._recording, self.name = recording, name
        self._taken: Counter[float] = Counter()
        self.items = recording.items(name)

    def next(self, stamp: float) -> Item | None:
        """The recorded counterpart of an output of this stamp; None where there is none (left)."""
        found = self._recording.at(self.name, stamp)
        which = self._taken[stamp]
        self._taken[stamp] += 1
        return found[which] if which < len(found) else None

    def left(self, since: float, until: float) -> list[Item]:
        """Recorded outputs between two stamps that nothing was matched with."""
        left = []
        seen: Counter[float] = Counter()
        for item in self.items:
            which = seen[item.stamp]
            seen[item.stamp] += 1
            if since <= item.stamp <= until and which >= self._taken[item.stamp]:
                left.append(item)
        return left

    def message(self, item: Item) -> Any:
        """Decoded."""
        return self._recording.message(item)


class LoggedReplay(ABC, Generic[D]):
    """A node that answers to time and to all that came before: its desk takes in the log once more.

    Attributes:
        node: Its name.
        weights: None.
    """

    node: str

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._desk: D | None = None
        self._begun, self._ended = math.inf, -math.inf
        self.weights: dict[str, tuple[str, str]] = {}

    @abstractmethod
    def fresh(self) -> D:
        """A desk to which nothing has come."""

    @abstractmethod
    def feed(self, entry: Entry, desk: D) -> Iterator[Answer]:
        """Give a desk one input; outputs, each beside its recorded counterpart."""

    @abstractmethod
    def sources(self) -> list[tuple[Outputs, Callable[[Any], Any]]]:
        """Recorded outputs of which each must come again, and what reads them."""

    def answers(self) -> Iterator[Answer | Missing | Skipped]:
        """Every output of the recorded periods, and what was recorded and did not come again."""
        for entry in entries(self.recording, self.node):
            if isinstance(entry, Missing):
                yield entry
            elif isinstance(entry, Skipped):
                yield from self._start(entry)
            elif self._desk is not None:
                if entry.kind == InputKind.TICK:
                    self._begun, self._ended = min(self._begun, entry.now), entry.now
                yield from self.feed(entry, self._desk)
        yield from self._unmatched()

    def _start(self, skipped: Skipped) -> Iterator[Answer | Skipped]:
        yield from self._unmatched()
        if skipped.why:
            self._desk = None
            yield skipped
            return
        self._desk = self.fresh()
        self._begun, self._ended = math.inf, -math.inf

    def _unmatched(self) -> Iterator[Answer]:
        if self._desk is None:
            return
        for outputs, read in self.sources():
            for item in outputs.left(self._begun, self._ended):
                expected, key = read(outputs.message(item)), f"at {item.stamp:.3f} s"
                yield Answer(self.node, outputs.name, item.index, item.stamp, key, expected, None)
