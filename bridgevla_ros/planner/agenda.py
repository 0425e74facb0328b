"""Which sub-goal a step is, when some are repeated for as many things as there turn out to be."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.planner.steps import SubGoal, sub_goals

TASKS = 8
"""Tasks whose counts are remembered (our choice)."""


@dataclass(frozen=True)
class Entry:
    """A step of an instruction.

    Attributes:
        words: Clause of its sub-goal.
        index: Which sub-goal.
        done: How many times it was carried out before.
        counted: Whether it is known how often it comes.
    """

    words: str
    index: int
    done: int
    counted: bool


class Agenda:
    """Steps of each task's instruction, and how often "all" turned out to be.

    Args:
        strict: See ``steps.sub_goals``.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._goals: OrderedDict[str, tuple[SubGoal, ...]] = OrderedDict()
        self._counts: OrderedDict[str, dict[int, int]] = OrderedDict()

    def goals(self, instruction: str) -> tuple[SubGoal, ...]:
        """Sub-goals of a cleaned instruction.

        Raises:
            BridgeError: NOT_UNDERSTOOD.
        """
        if instruction not in self._goals:
            self._goals[instruction] = sub_goals(instruction, strict=self._strict)
            while len(self._goals) > TASKS:
                self._goals.popitem(last=False)
        return self._goals[instruction]

    def entry(self, task_id: str, goals: tuple[SubGoal, ...], step: int) -> Entry:
        """The sub-goal of a step.

        Raises:
            BridgeError: OUT_OF_RANGE: there are fewer steps.
        """
        counts, first = self._counts.get(task_id, {}), 0
        for index, goal in enumerate(goals):
            known = counts.get(index, 1 if not goal.every else None)
            if known is None or step < first + known:
                return Entry(goal.words, index, step - first, known is not None)
            first += known
        raise BridgeError(
            ErrorCode.OUT_OF_RANGE,
            f"step {step} of an instruction with {first} steps",
            value=float(step),
            limit=float(first),
        )

    def count(self, task_id: str, entry: Entry, remaining: int) -> None:
        """Note how many things were left when a repeated sub-goal was first looked at."""
        if entry.counted:
            return
        self._counts.setdefault(task_id, {}).setdefault(entry.index, entry.done + remaining)
        while len(self._counts) > TASKS:
            self._counts.popitem(last=False)

    def total(self, task_id: str, goals: tuple[SubGoal, ...]) -> int:
        """Steps as far as they are known; what was not counted yet counts once."""
        counts = self._counts.get(task_id, {})
        return sum(counts.get(i, 1) for i in range(len(goals)))
