"""The arm's own controller: follows the newest joint trajectory, as a joint_trajectory_controller does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bridgevla_ros.core.transforms import Array


@dataclass(frozen=True, eq=False)
class JointTrajectory:
    """Hermite knots on the arm's clock: (M,) s, (M, 7) rad, (M, 7) rad/s."""

    times: Array
    positions: Array
    velocities: Array

    @classmethod
    def hold(cls, position: Array, now: float = 0.0) -> JointTrajectory:
        """Stay at a posture, (7,) rad."""
        return cls(np.array([now]), np.array(position, np.float64)[None], np.zeros((1, len(position))))

    def sample(self, now: float) -> tuple[Array, Array]:
        """(7,) rad and (7,) rad/s; holds the first point before and the last point after."""
        times = self.times
        if now >= times[-1]:
            return self.positions[-1], np.zeros_like(self.positions[-1])
        if now <= times[0]:
            return self.positions[0], self.velocities[0]
        k = int(np.searchsorted(times, now, side="right"))
        h = times[k] - times[k - 1]
        s = (now - times[k - 1]) / h
        p0, p1 = self.positions[k - 1], self.positions[k]
        m0, m1 = self.velocities[k - 1] * h, self.velocities[k] * h
        a, b = 2 * (p0 - p1) + m0 + m1, 3 * (p1 - p0) - 2 * m0 - m1
        return ((a * s + b) * s + m0) * s + p0, ((3 * a * s + 2 * b) * s + m0) / h

    def replaced(
        self, now: float, stamp: float, times: Array, positions: Array, velocities: Array
    ) -> JointTrajectory:
        """What is followed from ``now`` on after a command.

        Between what the arm is commanded now and the first point that is still to come, it goes
        by a cubic as well. After the last point it holds that point.

        Args:
            now: Seconds, the arm's clock.
            stamp: Seconds that ``times`` count from.
            times: (M,) seconds after ``stamp``, increasing.
            positions: (M, 7) rad.
            velocities: (M, 7) rad/s.

        Raises:
            ValueError: Shapes differ, times do not increase, a value is not finite, or all of it
                lies in the past (going there would be a jump).
        """
        times = np.asarray(times, np.float64).reshape(-1) + stamp
        positions = np.asarray(positions, np.float64)
        velocities = np.asarray(velocities, np.float64)
        shape = (len(times), self.positions.shape[1])
        if positions.shape != shape or velocities.shape != shape or len(times) == 0:
            raise ValueError(
                f"{times.shape} times, {positions.shape} positions, {velocities.shape} velocities"
            )
        if not (np.isfinite(times).all() and np.isfinite(positions).all() and np.isfinite(velocities).all()):
            raise ValueError("trajectory is not finite")
        if np.any(np.diff(times) <= 0):
            raise ValueError(f"times must increase: {times}")
        if times[-1] < now:
            raise ValueError(f"trajectory ended {now - times[-1]:.3f} s ago")
        if times[0] <= now:
            return JointTrajectory(times, positions, velocities)
        position, velocity = self.sample(now)
        return JointTrajectory(
            np.concatenate([[now], times]),
            np.concatenate([position[None], positions]),
            np.concatenate([velocity[None], velocities]),
        )
