"""What a node has heard, kept until an output needs it. Nodes and replay use the same objects."""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import JointState

T = TypeVar("T")

Lookup = Callable[[str, str, float], Transform]
"""T_target_source from (target, source, stamp in seconds); BridgeError NO_TRANSFORM if not known."""


class Stamped(Generic[T]):
    """The newest few items of a stream with their stamps, e.g. images that wait for their partners.

    Args:
        size: How many are kept.
    """

    def __init__(self, size: int) -> None:
        self._items: deque[tuple[float, T]] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self._items)

    def add(self, stamp: float, item: T) -> None:
        """Keep one more; seconds."""
        self._items.append((stamp, item))

    def nearest(self, stamp: float) -> tuple[float, T] | None:
        """Stamp and item nearest to a stamp; None where nothing came."""
        return min(self._items, key=lambda entry: abs(entry[0] - stamp), default=None)

    def within(self, stamp: float, tolerance: float) -> tuple[float, T] | None:
        """The nearest, if it is no farther from the stamp than ``tolerance`` seconds."""
        found = self.nearest(stamp)
        return found if found is not None and abs(found[0] - stamp) <= tolerance else None

    def newest_first(self) -> list[tuple[float, T]]:
        """All that is kept, the last to come first."""
        return list(reversed(self._items))


class JointBuffer:
    """Joint states of the last seconds, interpolated at a stamp."""

    def __init__(self, memory: float = 3.0) -> None:
        self._memory = memory
        self._states: list[JointState] = []

    def add(self, state: JointState) -> None:
        """Take in a state; one from the past, as after a simulator's reset, clears the rest."""
        if self._states and state.stamp < self._states[-1].stamp - self._memory:
            self._states.clear()
        at = bisect.bisect_left(self._states, state.stamp, key=lambda s: s.stamp)
        self._states.insert(at, state)
        while self._states[-1].stamp - self._states[0].stamp > self._memory:
            self._states.pop(0)

    def before(self, stamp: float) -> JointState | None:
        """The newest state that is no later than a stamp; None where nothing is so old."""
        after = bisect.bisect_right(self._states, stamp, key=lambda s: s.stamp)
        return self._states[after - 1] if after else None

    def around(self, stamp: float) -> tuple[JointState, ...]:
        """The state of that stamp, or the two on its sides.

        Raises:
            BridgeError: SENSOR_LOST where none is known on both sides of it.
        """
        after = bisect.bisect_left(self._states, stamp, key=lambda s: s.stamp)
        if after < len(self._states) and self._states[after].stamp == stamp:
            return (self._states[after],)
        if not 0 < after < len(self._states):
            newest = self._states[-1].stamp if self._states else float("nan")
            raise BridgeError(
                ErrorCode.SENSOR_LOST,
                f"no joint_states around {stamp:.3f} s; newest is of {newest:.3f} s",
                value=stamp - newest,
                unit="s",
                remedy="Start the arm's driver, or check that its clock is the camera's.",
            )
        return self._states[after - 1], self._states[after]

    def at(self, stamp: float) -> JointState:
        """State at a stamp, interpolated; errors as ``around``."""
        found = self.around(stamp)
        if len(found) == 1:
            return found[0]
        a, b = found
        f = (stamp - a.stamp) / (b.stamp - a.stamp)
        return JointState(
            stamp,
            (1 - f) * a.position + f * b.position,
            (1 - f) * a.velocity + f * b.velocity,
            (1 - f) * a.gripper_width + f * b.gripper_width,
            (1 - f) * a.gripper_velocity + f * b.gripper_velocity,
        )
