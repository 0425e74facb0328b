"""What the arm is commanded: its state, the brake that is proven behind it, and what went out before."""

from __future__ import annotations

import math

import numpy as np

from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.motion import Brake, CommandHistory, JointMotion, MotionLimits
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import ArmCommand

# Points of the braking tail that goes out behind the first point.
_TAIL_POINTS = 4


class Commanded:
    """The commanded state, one control period ahead, and the braking tail that was sent with it.

    Attributes:
        motion: State commanded for ``due``; None before the first motion.
        due: Seconds.
        history: Joints commanded for the last two seconds.
    """

    def __init__(self, arm: ArmModel, limits: MotionLimits, rate: float) -> None:
        """``rate``: control periods a second."""
        self._arm, self._limits, self._dt = arm, limits, 1.0 / rate
        self.motion: JointMotion | None = None
        self.due = -math.inf
        self.history = CommandHistory(int(2 * rate))
        self._brake: Brake | None = None  # proven, from self._brake_start on
        self._brake_start = -math.inf

    def start(self, q: Array, now: float) -> JointMotion:
        """Stand still at joints (7,) rad."""
        self.motion = JointMotion.at_rest(q)
        self.prove(Brake(self.motion, self._limits), now)
        self.due = now
        return self.motion

    def forget(self) -> None:
        """The arm is where it is measured again."""
        self.motion, self._brake, self.due = None, None, -math.inf
        self.history.clear()

    def early(self, now: float) -> bool:
        """True when the period of the last command has not passed."""
        return self.motion is not None and now < self.due - 0.5 * self._dt

    def here(self, now: float) -> JointMotion:
        """The state commanded for now: after a late tick, on the braking tail that was sent."""
        assert self.motion is not None
        found = self.motion if now <= self.due + 0.5 * self._dt else self.braking(now)
        self.history.append(now, found.q)
        return found

    def prove(self, brake: Brake, start: float) -> None:
        """Take a brake that stays inside the envelope; ``start`` in seconds."""
        self._brake, self._brake_start = brake, start

    def braking(self, time: float) -> JointMotion:
        """On the last proven brake, at a time."""
        assert self._brake is not None
        return self._brake.at(time - self._brake_start)

    def follow(self, after: JointMotion, now: float) -> None:
        """Command a state for the end of the period that begins now."""
        self.motion, self.due = after, now + self._dt

    def message(self, now: float, width: float) -> ArmCommand:
        """First point at now + dt, then the braking tail, at rest at its end; ``width`` NaN says nothing."""
        assert self.motion is not None
        assert self._brake is not None
        rest = max(self._brake.duration - (now + self._dt - self._brake_start), 0.1)
        times, states = [self._dt], [self.motion]
        for k in range(1, _TAIL_POINTS + 1):
            times.append(self._dt + rest * k / _TAIL_POINTS)
            states.append(self.braking(now + times[-1]) if k < _TAIL_POINTS else self._brake.at(math.inf))
        return ArmCommand(
            now,
            np.array(times),
            np.array([s.q for s in states]),
            np.array([s.v for s in states]),
            self._arm.fk(self.motion.q),
            width,
        )
