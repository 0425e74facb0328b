"""Jerk-limited joint motion: one control period towards a wanted velocity, and braking to rest.

Both are piecewise constant in jerk and share one state, so switching between them is smooth in
position, velocity and acceleration.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from dataclasses import dataclass

import numpy as np
import ruckig

from bridgevla_ros.core.transforms import Array


@dataclass(frozen=True, eq=False)
class JointMotion:
    """Commanded joint state.

    Attributes:
        q, v, a: (n,) rad, rad/s, rad/s^2.
    """

    q: Array
    v: Array
    a: Array

    @classmethod
    def at_rest(cls, q: Array) -> JointMotion:
        """Standing still at q."""
        return cls(np.array(q, np.float64), np.zeros(len(q)), np.zeros(len(q)))

    def is_at_rest(self, tolerance: float = 1e-4) -> bool:
        """True when no joint moves faster than ``tolerance`` rad/s."""
        return bool(np.abs(self.v).max() <= tolerance and np.abs(self.a).max() <= 100 * tolerance)


@dataclass(frozen=True, eq=False)
class MotionLimits:
    """Per-joint limits, (n,): rad/s, rad/s^2, rad/s^3."""

    velocity: Array
    acceleration: Array
    jerk: Array


def step_towards(state: JointMotion, velocity: Array, limits: MotionLimits, dt: float) -> JointMotion:
    """One control period towards a wanted joint velocity, within velocity, acceleration and jerk limits.

    Within reach the wanted velocity is met in two periods (dead beat); far from it the acceleration
    follows the time-optimal curve a^2 = 2 j dv. The limits hold from then on for any sequence of wanted
    velocities, because v + a^2 / 2j <= v_max is kept (and its mirror).

    Args:
        state: Keeps the limits.
        velocity: (n,) rad/s, wanted; finite.
        limits: Of each joint.
        dt: Seconds.
    """
    jerk, coast = limits.jerk, state.v + state.a * (dt / 2)
    wanted = np.minimum(np.maximum(velocity, -limits.velocity), limits.velocity) - coast
    size = np.abs(wanted)
    a = np.sign(wanted) * np.minimum(size / dt, _reach(size, jerk, dt))
    a = np.minimum(np.maximum(a, -limits.acceleration), limits.acceleration)
    a = np.minimum(a, _reach(limits.velocity - coast, jerk, dt))
    a = np.maximum(a, -_reach(limits.velocity + coast, jerk, dt))
    a = np.minimum(np.maximum(a, state.a - jerk * dt), state.a + jerk * dt)
    v = coast + a * (dt / 2)
    q = state.q + state.v * dt + (2 * state.a + a) * (dt * dt / 6)
    return JointMotion(q, v, a)


def _reach(gap: Array, jerk: Array, dt: float) -> Array:
    """Largest next acceleration after which the velocity still ends at most ``gap`` higher."""
    inside = jerk * (np.sqrt(dt * dt / 4 + 2 * np.maximum(gap, 0) / jerk) - dt / 2)
    return np.where(gap >= 0, inside, 2 * gap / dt)


class Brake:
    """The fastest way to rest from a state, all joints stopping together.

    Attributes:
        duration: Seconds until rest.
        lowest, highest: (n,) rad, extremes of each joint over seven states on the way.
    """

    def __init__(self, state: JointMotion, limits: MotionLimits) -> None:
        n = len(state.q)
        problem = ruckig.InputParameter(n)
        problem.control_interface = ruckig.ControlInterface.Velocity
        problem.current_position = state.q.tolist()
        problem.current_velocity = state.v.tolist()
        problem.current_acceleration = state.a.tolist()
        problem.target_velocity = [0.0] * n
        problem.target_acceleration = [0.0] * n
        problem.max_acceleration = limits.acceleration.tolist()
        problem.max_jerk = limits.jerk.tolist()
        self._trajectory = ruckig.Trajectory(n)
        result = ruckig.Ruckig(n).calculate(problem, self._trajectory)
        if result not in (ruckig.Result.Working, ruckig.Result.Finished):
            raise ValueError(f"no braking trajectory from v={state.v}, a={state.a}: {result}")
        self.duration = float(self._trajectory.duration)
        # ruckig's own position_extrema say 0 for joints that hardly move.
        way = np.array([self._trajectory.at_time(self.duration * k / 6)[0] for k in range(7)])
        self.lowest, self.highest = way.min(axis=0), way.max(axis=0)

    def at(self, time: float) -> JointMotion:
        """State ``time`` seconds after the start; at rest after ``duration``."""
        if time >= self.duration:
            q, _, _ = self._trajectory.at_time(self.duration)
            return JointMotion.at_rest(np.array(q))
        q, v, a = self._trajectory.at_time(max(time, 0.0))
        return JointMotion(np.array(q), np.array(v), np.array(a))


class CommandHistory:
    """What was commanded when, for the last few seconds.

    Args:
        size: Entries kept.
    """

    def __init__(self, size: int) -> None:
        self._entries: deque[tuple[float, Array]] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def oldest(self) -> float:
        """Seconds, time of the first entry kept; +inf without one."""
        return self._entries[0][0] if self._entries else math.inf

    def append(self, time: float, q: Array) -> None:
        """Add joints commanded for a time, not before the last one's."""
        self._entries.append((time, q))

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def at(self, time: float) -> Array:
        """(n,) rad, linear between entries, the first or last one beyond them; needs an entry."""
        i = bisect.bisect_left(self._entries, time, key=lambda entry: entry[0])
        if i == 0:
            return self._entries[0][1]
        if i == len(self._entries):
            return self._entries[-1][1]
        (t0, q0), (t1, q1) = self._entries[i - 1], self._entries[i]
        return np.asarray(q0 + (time - t0) / max(t1 - t0, 1e-9) * (q1 - q0))
