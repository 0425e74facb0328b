"""An action chunk as a path in joint space that can be walked at any speed.

| knot | time | what |
|---|---|---|
| 0 | 0 | where the arm was commanded to be at the chunk's stamp |
| 1 .. H | i * dt | step i - 1 of the chunk |
"""

from __future__ import annotations

import numpy as np

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.motion import MotionLimits
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import ActionChunk

# Share of the limits that a path may ask for: the rest is for closing the tracking error.
_HEADROOM = 0.85


class ChunkPath:
    """A validated chunk: cubic Hermite through its joints, progress linear between steps.

    Attributes:
        chunk: As received.
        end: Seconds from the chunk's stamp to its last step.
    """

    def __init__(
        self, chunk: ActionChunk, start: Array, arm: ArmModel, limits: MotionLimits, tcp_speed: float
    ) -> None:
        """Args as attributes; ``start`` (7,) is knot 0; ``tcp_speed`` in m/s."""
        self.chunk = chunk
        self.end = len(chunk.joints) * chunk.dt
        self._q = np.vstack([start, chunk.joints])
        self._v = np.gradient(self._q, chunk.dt, axis=0)
        self._v[-1] = 0.5 * self._v[-1] if len(self._q) > 2 else 0.0
        self._progress = np.maximum.accumulate(
            np.clip(np.concatenate([[chunk.guidance_progress], chunk.progress]), 0.0, 1.0)
        )
        speed = np.abs(np.diff(self._q, axis=0)) / chunk.dt
        bend = np.abs(np.diff(self._q, n=2, axis=0)) / chunk.dt**2
        tcp = np.array([arm.fk(q).translation for q in self._q])
        linear = np.linalg.norm(np.diff(tcp, axis=0), axis=1) / chunk.dt
        scale = np.minimum(
            (_HEADROOM * limits.velocity / np.maximum(speed, 1e-9)).min(axis=1),
            tcp_speed / np.maximum(linear, 1e-9),
        )
        curve = np.sqrt((_HEADROOM * limits.acceleration / np.maximum(bend, 1e-9)).min(axis=1))
        scale[1:] = np.minimum(scale[1:], curve)
        scale[:-1] = np.minimum(scale[:-1], curve)
        self._scale = np.minimum(scale, 1.0)

    def at(self, tau: float) -> tuple[Array, Array]:
        """(7,) rad and (7,) rad/s at nominal speed, ``tau`` seconds after the chunk's stamp."""
        dt = self.chunk.dt
        i = min(max(int(tau / dt), 0), len(self._q) - 2)
        u = min(max(tau / dt - i, 0.0), 1.0)
        q0, q1, m0, m1 = self._q[i], self._q[i + 1], self._v[i] * dt, self._v[i + 1] * dt
        d = q1 - q0
        b, c = 3 * d - 2 * m0 - m1, m0 + m1 - 2 * d
        q = q0 + u * (m0 + u * (b + u * c))
        v = (m0 + u * (2 * b + 3 * u * c)) / dt
        return q, v

    def progress(self, tau: float) -> float:
        """Guidance progress that ``tau`` stands for."""
        x = min(max(tau / self.chunk.dt, 0.0), len(self._progress) - 1.0)
        i = min(int(x), len(self._progress) - 2)
        p0, p1 = self._progress[i], self._progress[i + 1]
        return float(p0 + (x - i) * (p1 - p0))

    def reach(self, progress: float) -> float:
        """First ``tau`` at which the progress is reached; ``end`` when it never is."""
        i = int(np.searchsorted(self._progress, progress))
        if i == 0:
            return 0.0
        if i == len(self._progress):
            return self.end
        p0, p1 = self._progress[i - 1], self._progress[i]
        return float((i - 1 + (progress - p0) / (p1 - p0)) * self.chunk.dt)

    def allowed_scale(self, tau: float, lookahead: float) -> float:
        """Share of the nominal speed that the limits allow between ``tau`` and ``tau + lookahead``."""
        dt, n = self.chunk.dt, len(self._scale)
        first = min(int(tau / dt), n - 1)
        last = min(int((tau + lookahead) / dt), n - 1)
        return float(self._scale[first : last + 1].min())


def validate(chunk: ActionChunk, arm: ArmModel, now: float, *, too_fast: float) -> None:
    """Refuse a chunk that nobody should follow.

    Args:
        chunk: As received.
        arm: Whose limits count.
        now: Seconds.
        too_fast: Times the joint velocity limit between two steps; up to it, motion is only slowed.

    Raises:
        BridgeError: BAD_INPUT (sizes, times), EXPERT_DIVERGED (not finite, too fast, beyond the joint
            limits), SENSOR_LOST (older than its horizon).
    """
    n, h = len(arm.joint_names), len(chunk.progress)
    if chunk.joints.ndim != 2 or chunk.joints.shape != (h, n) or h < 2:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"the chunk has joints of shape {chunk.joints.shape} and {h} progress values",
            value=float(chunk.joints.size),
            limit=float(h * n),
            remedy=f"send at least 2 steps of {n} joints, with one progress each",
        )
    if not 0.001 <= chunk.dt <= 1.0:
        raise BridgeError(
            ErrorCode.BAD_INPUT, "the chunk's step is out of range", value=chunk.dt, limit=1.0, unit="s"
        )
    finite = (
        np.isfinite(chunk.joints).all()
        and np.isfinite(chunk.progress).all()
        and np.isfinite(chunk.guidance_progress)
        and np.isfinite(chunk.stamp)
    )
    if not finite:
        raise BridgeError(
            ErrorCode.EXPERT_DIVERGED,
            "the chunk holds values that are not finite",
            remedy="restart the expert",
        )
    age, horizon = now - chunk.stamp, h * chunk.dt
    if age > horizon:
        raise BridgeError(
            ErrorCode.SENSOR_LOST,
            "the chunk is older than its horizon",
            value=age,
            limit=horizon,
            unit="s",
            remedy="the expert is too slow, or its inputs are old",
        )
    if age < -horizon:
        raise BridgeError(
            ErrorCode.BAD_INPUT, "the chunk is from the future", value=-age, limit=horizon, unit="s"
        )
    fastest = np.abs(np.diff(chunk.joints, axis=0)) / chunk.dt / arm.velocity_limit
    if fastest.max() > too_fast:
        raise BridgeError(
            ErrorCode.EXPERT_DIVERGED,
            f"the chunk jumps between two steps (policy {chunk.source})",
            value=float(fastest.max()),
            limit=too_fast,
            unit="times the joint velocity limit",
            remedy="look at its correction and the cloud; where policy ik does it too, no joint path is "
            "smooth there: move the object, or plan another way",
        )
    beyond = np.maximum(arm.lower - chunk.joints, chunk.joints - arm.upper).max()
    if beyond > 0:
        raise BridgeError(
            ErrorCode.EXPERT_DIVERGED,
            "the chunk goes beyond the joint limits",
            value=float(beyond),
            limit=0.0,
            unit="rad",
            remedy="the target may be out of reach",
        )
