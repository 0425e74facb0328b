"""When to be where on a path: rest to rest, under linear and angular speed, acceleration and jerk limits.

A phase-plane pass (forward, backward) finds the fastest speed along the path that its curvature and the
acceleration limits allow; two moving averages over time bound the jerk; a last uniform stretch makes
every limit hold on dense samples, whatever the passes left over.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, PPoly

from bridgevla_ros.core.bspline import PathSpline
from bridgevla_ros.core.transforms import Array

_GRID = 48
"""Grid cells a leg for the phase-plane pass."""
_SHARE = 0.9
"""Share of acceleration and jerk limits that curvature and slowing down may each plan for."""
_DENSE = 4000
"""Samples, at least, on which the limits are made to hold: a bend passed at speed is short in time."""
_MARGIN = 1.002
"""Stretch beyond the measured need: sampling misses peaks by about this little."""


@dataclass(frozen=True)
class Limits:
    """Linear (m) and angular (rad) limits: speed per s, acceleration per s^2, jerk per s^3."""

    speed: float
    acceleration: float
    jerk: float
    angular_speed: float
    angular_acceleration: float
    angular_jerk: float
    contact_speed: float


@dataclass(frozen=True, eq=False)
class TimeLaw:
    """Path parameter over time, smooth at any rate of sampling.

    Attributes:
        sigma_of_time: Seconds of travel at the speed limits, what the law is planned in, over seconds from
            0. Its second derivative is smooth: corners in it would beat with the sampling of the guidance
            and show as jerk that no limit planned for.
        u_of_sigma: Path parameter of sigma.
        stretch: Seconds of the law a second of ``sigma_of_time``.
    """

    sigma_of_time: PPoly
    u_of_sigma: PPoly
    stretch: float = 1.0

    @property
    def duration(self) -> float:
        """Seconds."""
        return float(self.sigma_of_time.x[-1]) * self.stretch

    def at(self, time: Array) -> tuple[Array, Array]:
        """Path parameter (K,) and its time derivative (K,), per second, at (K,) seconds."""
        t = time / self.stretch
        s = np.clip(self.sigma_of_time(t), 0.0, self.u_of_sigma.x[-1])
        rate = self.sigma_of_time(t, 1) / self.stretch
        return np.asarray(self.u_of_sigma(s)), np.asarray(self.u_of_sigma(s, 1) * rate)


def velocities(path: PathSpline, u: Array, u_rate: Array) -> tuple[Array, Array]:
    """Linear (K, 3) m/s and angular (K, 3) rad/s velocity along a path."""
    return path.position(u, 1) * u_rate[:, None], path.turn_rate(u) * u_rate[:, None]


def peaks(linear: Array, angular: Array, step: float) -> Array:
    """Largest speed, acceleration and jerk of (K, 3) linear and angular velocities sampled every ``step`` s.

    Returns:
        (2, 3): linear, angular. The samples are taken to be at rest before the first and after the last.
    """
    found = np.zeros((2, 3))
    for row, velocity in enumerate((linear, angular)):
        padded = np.vstack([np.zeros((2, 3)), velocity, np.zeros((2, 3))])
        acceleration = np.diff(padded, axis=0) / step
        jerk = np.diff(acceleration, axis=0) / step
        found[row] = [np.linalg.norm(x, axis=1).max() for x in (velocity, acceleration, jerk)]
    return found


def plan_time_law(path: PathSpline, limits: Limits, contact: NDArray[np.bool_]) -> TimeLaw:
    """Find a fast, smooth time law for one piece of path, at rest at both ends.

    Args:
        path: A piece of positive length or turn.
        limits: To keep.
        contact: (n,) legs that end in a contact, where ``contact_speed`` holds.
    """
    u = np.linspace(0.0, path.end, _GRID * len(path.turns) + 1)
    sigma, slope, bend, ceiling, thrust = _normalise(path, u, limits, contact)
    rate = _phase_plane(sigma, ceiling, thrust)
    time, profile = _smooth(sigma, rate, limits)
    sigma_of_time = CubicSpline(time, profile, bc_type="clamped").antiderivative()
    sigma_of_time.c *= sigma[-1] / sigma_of_time(time[-1])
    law = TimeLaw(sigma_of_time, _quintic(sigma, u, 1.0 / slope, -bend / slope**3))
    dense = np.linspace(0.0, law.duration, max(len(time), _DENSE))
    uu, u_rate = law.at(dense)
    linear, angular = velocities(path, uu, u_rate)
    allowed = np.array(
        [
            [limits.speed, limits.acceleration, limits.jerk],
            [limits.angular_speed, limits.angular_acceleration, limits.angular_jerk],
        ]
    )
    ratio = peaks(linear, angular, dense[1]) / allowed
    stretch = float(np.max(ratio ** (1.0 / np.array([1.0, 2.0, 3.0])))) * _MARGIN
    slow = contact[path.legs(uu)[0]]
    if slow.any():
        stretch = max(stretch, float(np.linalg.norm(linear[slow], axis=1).max()) / limits.contact_speed)
    return replace(law, stretch=stretch)


def _normalise(
    path: PathSpline, u: Array, limits: Limits, contact: NDArray[np.bool_]
) -> tuple[Array, Array, Array, Array, Array]:
    """sigma(u), its two derivatives by u, the ceilings of its first two by time; each (K,)."""
    p1, p2 = path.position(u, 1), path.position(u, 2)
    r1, r2 = path.turn_rate(u, 1), path.turn_rate(u, 2)
    slope = np.sqrt((p1 * p1).sum(1) / limits.speed**2 + (r1 * r1).sum(1) / limits.angular_speed**2)
    slope = np.maximum(slope, 1e-6 * slope.max())
    bend = ((p1 * p2).sum(1) / limits.speed**2 + (r1 * r2).sum(1) / limits.angular_speed**2) / slope
    sigma = np.concatenate([[0.0], np.cumsum(_simpson(path, u, slope, limits))])
    ceiling, thrust = np.ones_like(u), np.full_like(u, np.inf)
    for d1, d2, acceleration, jerk in (
        (p1, p2, limits.acceleration, limits.jerk),
        (r1, r2, limits.angular_acceleration, limits.angular_jerk),
    ):
        s1 = d1 / slope[:, None]
        s2 = (d2 - s1 * bend[:, None]) / slope[:, None] ** 2
        s3 = np.gradient(s2, sigma, axis=0)
        with np.errstate(divide="ignore"):
            ceiling = np.minimum(ceiling, np.sqrt(_SHARE * acceleration / np.linalg.norm(s2, axis=1)))
            ceiling = np.minimum(ceiling, np.cbrt(_SHARE * jerk / np.linalg.norm(s3, axis=1)))
            thrust = np.minimum(thrust, _SHARE * acceleration / np.linalg.norm(s1, axis=1))
    slow = contact[path.legs(u)[0]]
    with np.errstate(divide="ignore"):
        gentle = limits.contact_speed * slope / np.linalg.norm(p1, axis=1)
    return sigma, slope, bend, np.where(slow, np.minimum(ceiling, gentle), ceiling), thrust


def _quintic(x: Array, value: Array, first: Array, second: Array) -> PPoly:
    """C2 piecewise polynomial with given values and first and second derivatives, each (K,), at (K,) x."""
    h = np.diff(x)
    a, b, c = value[:-1], first[:-1] * h, 0.5 * second[:-1] * h * h
    rest = value[1:] - a - b - c
    rest1 = first[1:] * h - b - 2.0 * c
    rest2 = 0.5 * second[1:] * h * h - c
    d = 10.0 * rest - 4.0 * rest1 + rest2
    e = -15.0 * rest + 7.0 * rest1 - 2.0 * rest2
    f = 6.0 * rest - 3.0 * rest1 + rest2
    powers = np.arange(5, -1, -1)[:, None]
    return PPoly(np.stack([f, e, d, c, b, a]) / h**powers, x)


def _simpson(path: PathSpline, u: Array, slope: Array, limits: Limits) -> Array:
    middle = 0.5 * (u[1:] + u[:-1])
    p1, r1 = path.position(middle, 1), path.turn_rate(middle)
    m = np.sqrt((p1 * p1).sum(1) / limits.speed**2 + (r1 * r1).sum(1) / limits.angular_speed**2)
    return np.asarray((slope[:-1] + 4 * m + slope[1:]) * np.diff(u) / 6)


def _phase_plane(sigma: Array, ceiling: Array, thrust: Array) -> Array:
    """Largest rate (K,) that starts and ends at rest and keeps ceiling and thrust."""
    square = (ceiling**2).tolist()
    gain = (2.0 * np.minimum(thrust[1:], thrust[:-1]) * np.diff(sigma)).tolist()
    square[0] = square[-1] = 0.0
    for k in range(len(gain)):
        square[k + 1] = min(square[k + 1], square[k] + gain[k])
    for k in range(len(gain) - 1, -1, -1):
        square[k] = min(square[k], square[k + 1] + gain[k])
    return np.sqrt(np.array(square, np.float64))


def _smooth(sigma: Array, rate: Array, limits: Limits) -> tuple[Array, Array]:
    """Time grid (K,) seconds and rate on it, averaged over acceleration / jerk seconds; ends at rest."""
    durations = 2.0 * np.diff(sigma) / (rate[1:] + rate[:-1])
    at = np.concatenate([[0.0], np.cumsum(durations)])
    window = max(limits.acceleration / limits.jerk, limits.angular_acceleration / limits.angular_jerk)
    window = min(window, max(at[-1], 0.02))
    total = at[-1] + 1.6 * window
    step = total / np.ceil(total / max(window / 80.0, total / 8000.0))
    grid = np.arange(round(total / step) + 1) * step
    profile = np.interp(grid - 0.8 * window, at, rate, left=0.0, right=0.0)
    for width in (window, 0.5 * window):
        half = max(1, round(0.5 * width / step))
        padded = np.concatenate([np.zeros(half + 1), np.cumsum(profile), np.full(half, profile.sum())])
        profile = (padded[2 * half + 1 :] - padded[: -2 * half - 1]) / (2 * half + 1)
    profile[[0, -1]] = 0.0
    return grid, np.maximum(profile, 0.0)
