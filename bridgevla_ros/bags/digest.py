"""What a bag tells without being decoded whole: stamps of headers, their clock, tasks and outcomes."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.bags.definitions import ensure, installed
from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.core.errors import BridgeError, ErrorCode

CLOCK = "rosgraph_msgs/msg/Clock"
STATUS = "bridgevla/msg/TaskStatus"
OUTCOME = "bridgevla/msg/SimOutcome"
ENDED = {7: "done", 8: "failed"}
"""TaskStatus.DONE and FAILED."""
STAGES = ("idle", "planning", "approval", "moving", "gripping", "verifying", "hold", "done", "failed")
"""TaskStatus.IDLE .. FAILED in words."""


def stamp_offset(msgtype: str) -> int | None:
    """Where in the CDR bytes of a type its stamp begins; None where it has none at a fixed place."""
    if msgtype == CLOCK:
        return 4
    if msgtype == "tf2_msgs/msg/TFMessage":
        return 8  # after the number of transforms: that of the first
    try:
        ensure(installed(), msgtype)
    except BridgeError:
        return None
    fields = installed().fielddefs[msgtype][1]
    return 4 if fields and fields[0][1][1] == "std_msgs/msg/Header" else None


def stamp_of(data: bytes, offset: int) -> float:
    """Seconds of the stamp at an offset of CDR bytes; NaN where the message is shorter."""
    if len(data) < offset + 8:
        return float("nan")
    order = "<" if data[1] & 1 else ">"
    seconds, nanoseconds = struct.unpack_from(f"{order}iI", data, offset)
    return float(seconds + 1e-9 * nanoseconds)


def of_type(bag: Bag, *msgtypes: str) -> list[str]:
    """Topics of some types."""
    return [topic for topic, c in bag.connections().items() if c.msgtype in msgtypes]


@dataclass(frozen=True)
class ClockOfBag:
    """ROS time at a wall-clock time of receipt: from /clock in simulation, else the wall clock itself.

    Attributes:
        received: (M,) float64, seconds of receipt of the clock's messages; empty without one.
        ros: (M,) float64, seconds that they said.
    """

    received: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    ros: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def read(cls, bag: Bag) -> ClockOfBag:
        """Take the clock of a bag."""
        topics = of_type(bag, CLOCK)
        pairs = [(r.received / 1e9, stamp_of(r.data, 4)) for r in bag.records(topics)] if topics else []
        table = np.array(pairs).reshape(-1, 2)
        return cls(table[:, 0], table[:, 1]) if len(table) > 1 else cls()

    @property
    def simulated(self) -> bool:
        """Whether stamps are simulated time."""
        return bool(len(self.received))

    def at(self, received: NDArray[np.float64]) -> NDArray[np.float64]:
        """ROS time at times of receipt, interpolated between two messages of the clock."""
        if not self.simulated:
            return received
        return np.interp(received, self.received, self.ros)


@dataclass
class Task:
    """One instruction and what became of it.

    Attributes:
        task_id, instruction: As the task said.
        began, ended: Seconds of receipt of its first status and of its end (or of the last word of it).
        result: done, failed, or interrupted: the recording ends, or the task node was started again, before.
        code: Name of the error, NONE without.
        message: Last sentence for the operator.
        retries: Attempts beyond the first.
        steps: Sub-goals.
        changes: (seconds of receipt, stage in words, code by name), one for each change.
        judged: What the simulator said at the end; None where it did not judge.
    """

    task_id: str
    instruction: str
    began: float
    ended: float
    result: str = ""
    code: str = "NONE"
    message: str = ""
    retries: int = 0
    steps: int = 0
    changes: list[tuple[float, str, str]] = field(default_factory=list)
    judged: bool | None = None


def tasks(bag: Bag) -> list[Task]:
    """The tasks of a bag in the order in which they began."""
    found: dict[str, Task] = {}
    latest: Task | None = None
    for item in bag.messages(of_type(bag, STATUS, OUTCOME)):
        msg = item.message
        if item.msgtype == OUTCOME:
            if latest is not None and msg.judged and (latest.result or item.received < latest.ended + 1.0):
                latest.judged = bool(msg.done)
            continue
        if not msg.task_id:
            continue
        task = found.get(msg.task_id)
        if task is None:
            task = found[msg.task_id] = Task(msg.task_id, msg.instruction, item.received, item.received)
        _follow(task, msg, item.received)
        latest = task
    for task in found.values():
        if not task.result:
            task.result = "interrupted"
            task.message = ": ".join(filter(None, (f"while {task.changes[-1][1]}", task.message)))
    return sorted(found.values(), key=lambda t: t.began)


def _follow(task: Task, msg: object, received: float) -> None:
    """Take one TaskStatus into a task."""
    stage = STAGES[msg.stage] if msg.stage < len(STAGES) else str(msg.stage)  # type: ignore[attr-defined]
    code = code_name(msg.code)  # type: ignore[attr-defined]
    if not task.changes or task.changes[-1][1:] != (stage, code):
        task.changes.append((received, stage, code))
    if not task.result:
        task.ended = received
        task.code = code
        task.message = msg.message or task.message  # type: ignore[attr-defined]
    task.retries = max(task.retries, int(msg.retries))  # type: ignore[attr-defined]
    task.steps = max(task.steps, int(msg.steps_total))  # type: ignore[attr-defined]
    task.result = task.result or ENDED.get(msg.stage, "")  # type: ignore[attr-defined]


def code_name(code: int) -> str:
    """Name of an error code, its number where this version does not know it."""
    try:
        return ErrorCode(code).name
    except ValueError:
        return str(code)


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum of finite values; empty without any."""
    array = np.asarray(list(values), float)
    array = array[np.isfinite(array)]
    if not len(array):
        return {}
    p50, p99 = np.percentile(array, [50, 99])
    return {"p50": float(p50), "p99": float(p99), "max": float(array.max())}
