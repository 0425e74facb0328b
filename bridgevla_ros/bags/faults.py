"""Where in a bag something was refused, held or failed; what time, fault or task an operator's words mean."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from bridgevla_ros.bags.reader import Bag, BagMessage
from bridgevla_ros.core.errors import BridgeError, ErrorCode

TELLING = ("/plan", "/guidance", "/progress", "/depth_quality", "/status")
"""Topics whose messages carry an ErrorCode."""


@dataclass(frozen=True)
class Fault:
    """A code that began to be told.

    Attributes:
        code: Which.
        topic: Where it was told first.
        received: Nanoseconds of receipt.
        message: The sentence with it; may be empty.
    """

    code: ErrorCode
    topic: str
    received: int
    message: str


@dataclass(frozen=True)
class TaskSpan:
    """One instruction from its first status to its last.

    Attributes:
        task_id, instruction: Of the task.
        first, last: Nanoseconds of receipt of the first status and of the one that ended it.
        ended: Whether it came to an end in the bag.
        code: At its end.
        steps: How many it had.
        retries: The most of one step.
    """

    task_id: str
    instruction: str
    first: int
    last: int
    ended: bool
    code: ErrorCode
    steps: int
    retries: int


def find_faults(bag: Bag, quiet: float = 2.0) -> list[Fault]:
    """Faults in the order of receipt.

    A code counts once while it is told again and again on any topic, until ``quiet`` seconds (of the wall
    clock) have passed without it.
    """
    faults: list[Fault] = []
    last: dict[ErrorCode, int] = {}
    topics = [t for t in TELLING if t in bag.connections()]
    for item in bag.messages(topics) if topics else ():
        code = _code(item)
        if code is ErrorCode.NONE:
            continue
        now = item.received_ns
        if code not in last or now - last[code] > quiet * 1e9:
            faults.append(Fault(code, item.topic, now, str(getattr(item.message, "message", ""))))
        last[code] = now
    return faults


def _code(item: BagMessage) -> ErrorCode:
    value = int(getattr(item.message, "code", 0))
    return ErrorCode(value) if value in ErrorCode._value2member_map_ else ErrorCode.NONE


def find_tasks(bag: Bag) -> list[TaskSpan]:
    """Tasks in the order in which they began."""
    from bridgevla.msg import TaskStatus

    ended = (TaskStatus.DONE, TaskStatus.FAILED)
    spans: dict[str, TaskSpan] = {}
    for item in bag.messages(["/status"]) if "/status" in bag.connections() else ():
        status = item.message
        if not status.task_id:
            continue
        old = spans.get(status.task_id)
        if old is not None and old.ended:
            continue  # told again and again until the next task
        spans[status.task_id] = TaskSpan(
            status.task_id,
            status.instruction,
            old.first if old else item.received_ns,
            item.received_ns,
            status.stage in ended,
            _code(item),
            max(int(status.steps_total), old.steps if old else 0),
            max(int(status.retries), old.retries if old else 0),
        )
    return list(spans.values())


def around(bag: Bag, words: str) -> tuple[int, int]:
    """What an operator means by "around ...".

    Args:
        bag: The recording.
        words: Seconds since the start of the bag ("12.5"); "fault" for the first; an ErrorCode
            ("GRASP_FAILED", its second time: "GRASP_FAILED:2"); or a task id.

    Returns:
        First and last nanosecond of receipt of what is meant.

    Raises:
        BridgeError: BAD_INPUT where the bag has no such thing; says what there is.
    """
    bounds = bag.bounds()
    if bounds is None:
        raise BridgeError(
            ErrorCode.BAD_INPUT, f"{bag.path} holds no message", remedy="name a bag with a run in it"
        )
    first, last = bounds
    if re.fullmatch(r"\d+(\.\d*)?", words):
        at = first + round(float(words) * 1e9)
        if at > last:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"{words} s is beyond the end of the bag",
                value=float(words),
                limit=(last - first) * 1e-9,
                unit="s",
                remedy=f"name a time of 0 to {(last - first) * 1e-9:.1f} s",
            )
        return at, at
    tasks = find_tasks(bag)
    for task in tasks:
        if task.task_id == words:
            return task.first, task.last
    name, _, number = words.partition(":")
    faults = find_faults(bag)
    fitting = [f for f in faults if name.lower() == "fault" or f.code.name == name.upper()]
    index = int(number) - 1 if number.isdigit() else 0
    if 0 <= index < len(fitting):
        return fitting[index].received, fitting[index].received
    raise _unknown(words, first, tasks, faults)


def _unknown(words: str, first: int, tasks: list[TaskSpan], faults: list[Fault]) -> BridgeError:
    there = [f"{f.code.name} at {(f.received - first) * 1e-9:.1f} s" for f in faults[:8]]
    there += [f"task {t.task_id}" for t in tasks[:8]]
    names = [c.name for c in ErrorCode] + [t.task_id for t in tasks]
    near = difflib.get_close_matches(words.partition(":")[0].upper(), names, n=1)
    hint = f"; did you mean {near[0]}?" if near and near[0] != words.upper() else ""
    return BridgeError(
        ErrorCode.BAD_INPUT,
        f"nothing in the bag is called {words!r}{hint}",
        remedy=f"there is {', '.join(there) or 'no fault and no task'}; or name seconds since its start",
    )
