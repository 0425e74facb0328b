"""What a replay gives: each output beside the recorded one, what differs, what was missing, why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

NODES = ("planner", "cropper", "trajectory", "action_expert", "task", "arm_streamer")
"""Nodes that can be replayed, in the order of the data."""

SAME, DIFFERS, IMPOSSIBLE = 0, 1, 2
LISTED = 1000
"""Most differences that are kept for each node; the rest is counted. Our choice."""


@dataclass(frozen=True, eq=False)
class Answer:
    """One output, recorded and replayed.

    Attributes:
        node: Who puts it out.
        topic: Its relative name.
        index: Of the recorded message on its topic.
        stamp: Seconds.
        key: What a person knows it by: a request, a guidance and sequence.
        expected: Recorded (or golden), as a core value.
        actual: Replayed, as a core value that crossed a message; None where nothing came out.
        message: ROS message of ``actual``.
        refusal: Why nothing came out.
        skip: Quantities that are not compared, e.g. because a memory is not known.
    """

    node: str
    topic: str
    index: int
    stamp: float
    key: str
    expected: Any
    actual: Any
    message: Any = None
    refusal: str = ""
    skip: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Missing:
    """An input that an output names and the bag does not hold.

    Attributes:
        node: Whose input.
        stamp: Seconds, of the output.
        key: Of the output.
        topic: Relative name of the input.
        wanted: What is named, e.g. a stamp or an id.
    """

    node: str
    stamp: float
    key: str
    topic: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.node}: {self.key} needs {self.topic} of {self.wanted}, which is not in the bag"


BEFORE = "before the piece that was cut out begins"
"""Outputs that a piece of a recording holds only as inputs of others."""


@dataclass(frozen=True)
class Skipped:
    """An output that cannot be compared, and why."""

    node: str
    why: str


@dataclass(frozen=True)
class Difference:
    """A quantity beyond its tolerance.

    Attributes:
        node, topic, stamp, key: Of the output; seconds.
        quantity: e.g. "waypoint".
        value: How far apart; infinity where that has no measure (another code, another count).
        tolerance: What was allowed.
        unit: mm, deg, ms, ...
        recorded, replayed: What they say, where they are words.
        index: Of the recorded message on its topic.
    """

    node: str
    topic: str
    stamp: float
    key: str
    quantity: str
    value: float
    tolerance: float
    unit: str
    recorded: str = ""
    replayed: str = ""
    index: int = 0

    def __str__(self) -> str:
        where = f"{self.node} at {self.stamp:.3f} s ({self.key}): {self.quantity}"
        if self.recorded or self.replayed:
            return f"{where}: recorded {self.recorded!r}, now {self.replayed!r}"
        return f"{where} differs by {self.value:.4g} {self.unit} (tolerance {self.tolerance:g} {self.unit})"


@dataclass
class Tally:
    """Counts of one node.

    Attributes:
        compared: Outputs by topic.
        exact: Outputs that are equal in every bit that is compared.
        differing: Outputs with a difference.
        skipped: Outputs that could not be compared, by reason.
        largest: Quantity -> (largest difference seen, tolerance, unit), also within tolerance.
        seconds: Wall clock of the replay, without loading.
        loading: Seconds for loading weights and compiling.
        processor: Processor seconds of the replay, without loading: what counts on a busy machine.
        series: Quantity -> (stamp, difference) of each output, for the report.
        shown: First differing output, of those with a place in space if there are any.
    """

    compared: Counter[str] = field(default_factory=Counter)
    exact: int = 0
    differing: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    largest: dict[str, tuple[float, float, str]] = field(default_factory=dict)
    seconds: float = 0.0
    loading: float = 0.0
    processor: float = 0.0
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    shown: Answer | None = None

    @property
    def total(self) -> int:
        """Outputs compared."""
        return sum(self.compared.values())


@dataclass
class ReplayResult:
    """Outcome of replaying one bag.

    Attributes:
        path: Of the bag.
        nodes: Replayed ones.
        differences: In order of time within each node; at most ``LISTED`` a node.
        left_out: Differences beyond that, by node.
        missing: Inputs that the bag lacks.
        stopped: Node -> why its replay ended early: a message of the bag that cannot be read.
        reasons: Known causes: other weights, another seed, changed parameters, a lost input.
        notes: What else a reader should know.
        impossible: Why nothing could be replayed; empty otherwise.
        tallies: By node.
        tolerance: "same" or "other" machine.
        golden: Reason given when the golden was blessed; empty where the recording itself was expected.
        versions: What the bag was recorded with and what is here: version, machine, weights.
        recorded_seconds: Length of the bag.
        reading: Seconds that a process took to read the bag.
        seconds: What the replay takes with the loading of programs and weights left out: reading, then the
            longest of the nodes, or all of them spread over the processes where that is longer.
        total_seconds: Wall clock with everything.
    """

    path: str
    nodes: tuple[str, ...] = ()
    differences: list[Difference] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    missing: list[Missing] = field(default_factory=list)
    stopped: dict[str, str] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    impossible: str = ""
    tallies: dict[str, Tally] = field(default_factory=dict)
    tolerance: str = "same"
    golden: str = ""
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    recorded_seconds: float = 0.0
    reading: float = 0.0
    seconds: float = 0.0
    total_seconds: float = 0.0

    @property
    def same(self) -> bool:
        """Everything that was replayed came out as recorded, and no input was missing."""
        return not (self.impossible or self.differences or self.missing or self.stopped)

    @property
    def exact(self) -> bool:
        """Every compared output is equal bit by bit."""
        return self.same and all(t.exact == t.total for t in self.tallies.values())

    @property
    def status(self) -> int:
        """Exit status: 0 same, 1 differs, 2 cannot be replayed."""
        return IMPOSSIBLE if self.impossible else SAME if self.same else DIFFERS

    @property
    def speed(self) -> float:
        """Recorded seconds a second of replay, without loading."""
        return self.recorded_seconds / self.seconds if self.seconds > 0.0 else math.inf

    @property
    def total_speed(self) -> float:
        """Recorded seconds a second, with loading."""
        return self.recorded_seconds / self.total_seconds if self.total_seconds > 0.0 else math.inf

    def speed_of(self, node: str) -> float:
        """Recorded seconds a second of replaying one node alone on a core, without loading."""
        seconds = self.reading + self.tallies[node].seconds
        return self.recorded_seconds / seconds if seconds > 0.0 else math.inf

    @property
    def first(self) -> Difference | None:
        """The earliest difference; at one stamp, that of the node nearest to the camera."""
        return min(self.differences, key=lambda d: (d.stamp, NODES.index(d.node)), default=None)

    def to_json(self) -> dict[str, Any]:
        """Plain data; numbers that JSON lacks become null."""
        first = self.first
        return {
            "bag": self.path,
            "same": self.same,
            "exact": self.exact,
            "status": self.status,
            "impossible": self.impossible,
            "nodes": list(self.nodes),
            "first": None if first is None else _difference(first),
            "differences": [_difference(d) for d in self.differences],
            "differences_left_out": dict(self.left_out),
            "missing": [asdict(m) for m in self.missing],
            "stopped": self.stopped,
            "reasons": self.reasons,
            "notes": self.notes,
            "compared": {
                node: _tally(t) | {"speed": _ratio(self.speed_of(node))} for node, t in self.tallies.items()
            },
            "tolerance": self.tolerance,
            "golden": self.golden,
            "versions": self.versions,
            "recorded_seconds": round(self.recorded_seconds, 3),
            "reading_seconds": round(self.reading, 3),
            "seconds": round(self.seconds, 3),
            "total_seconds": round(self.total_seconds, 3),
            "speed": _ratio(self.speed),
            "speed_with_loading": _ratio(self.total_speed),
        }


def _ratio(speed: float) -> float | None:
    return round(speed, 2) if math.isfinite(speed) else None


def _difference(difference: Difference) -> dict[str, Any]:
    return {k: _number(v) for k, v in asdict(difference).items()}


def _tally(tally: Tally) -> dict[str, Any]:
    largest = {k: [_number(v), _number(t), u] for k, (v, t, u) in sorted(tally.largest.items())}
    return {
        "outputs": dict(tally.compared),
        "exact": tally.exact,
        "differing": tally.differing,
        "skipped": dict(tally.skipped),
        "largest": largest,
        "seconds": round(tally.seconds, 3),
        "processor_seconds": round(tally.processor, 3),
        "loading_seconds": round(tally.loading, 3),
    }


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def merged(parts: Mapping[str, ReplayResult]) -> ReplayResult:
    """One result of results of single nodes of the same bag, in the order of ``NODES``."""
    ordered = [parts[node] for node in NODES if node in parts]
    whole = ordered[0]
    for part in ordered[1:]:
        whole.nodes = (*whole.nodes, *part.nodes)
        whole.differences += part.differences
        whole.left_out += part.left_out
        whole.missing += part.missing
        whole.stopped |= part.stopped
        whole.reasons += [r for r in part.reasons if r not in whole.reasons]
        whole.notes += [n for n in part.notes if n not in whole.notes]
        whole.reading = max(whole.reading, part.reading)
        whole.tallies.update(part.tallies)
        for side, values in part.versions.items():
            whole.versions.setdefault(side, {}).update(values)
    return whole
