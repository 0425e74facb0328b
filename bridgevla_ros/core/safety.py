"""Where the arm may be: joint limits, workspace, table and its own body.

The streamer asks before every command whether the arm could still brake without leaving this
envelope (``Envelope.check_brake``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bridgevla_ros.core.config import param
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel, Bodies
from bridgevla_ros.core.motion import Brake, JointMotion
from bridgevla_ros.core.transforms import Array

# Parts of a brake in which no point of the body moves farther than this are checked by one posture.
_CHECK_STEP = 0.01


@dataclass(frozen=True)
class EnvelopeConfig:
    """Bounds of the arm's motion, base frame."""

    workspace_lower: tuple[float, ...] = param(
        (0.20, -0.50, -0.02), "Lower corner of the box that the TCP stays in.", unit="m", ge=-3.0, le=3.0
    )
    workspace_upper: tuple[float, ...] = param(
        (0.85, 0.50, 0.70), "Upper corner of the box that the TCP stays in.", unit="m", ge=-3.0, le=3.0
    )
    table_height: float = param(0.0, "Height of the table top.", unit="m", ge=-2.0, le=2.0)
    tip_clearance: float = param(
        -0.006, "Height over the table that the finger tips keep; below 0 lets them touch it.",
        unit="m", ge=-0.05, le=0.5,
    )  # fmt: skip
    body_clearance: float = param(
        0.005, "Height over the table that hand and forearm keep.", unit="m", ge=0.0, le=0.5
    )
    self_clearance: float = param(0.005, "Gap between the arm's own links.", unit="m", ge=0.0, le=0.2)
    joint_margin: float = param(0.02, "Distance kept from the joint limits.", unit="rad", ge=0.0, le=0.5)


@dataclass(frozen=True)
class Clearance:
    """How far the nearest bound is.

    Attributes:
        margin: Metres or radians to the nearest bound; negative beyond it.
        code: Which bound.
        message: One sentence.
        value, limit, unit: The offending value and its limit.
    """

    margin: float
    code: ErrorCode
    message: str
    value: float
    limit: float
    unit: str


@dataclass(frozen=True)
class Reason:
    """Why the arm holds: goes into ``Progress``; code NONE while all is well."""

    code: ErrorCode = ErrorCode.NONE
    message: str = ""
    value: float = math.nan
    limit: float = math.nan
    unit: str = ""

    @classmethod
    def of(cls, found: Clearance | BridgeError) -> Reason:
        """From a bound or a refusal."""
        return cls(found.code, found.message, found.value, found.limit, found.unit)


class Envelope:
    """Checks postures and braking trajectories of one arm."""

    def __init__(self, config: EnvelopeConfig, arm: ArmModel) -> None:
        self.config = config
        self._arm = arm
        self._low, self._high = np.array(config.workspace_lower), np.array(config.workspace_upper)
        self._joint_low = arm.lower + config.joint_margin
        self._joint_high = arm.upper - config.joint_margin
        self._links = arm.capsule_links
        n = len(self._links)
        total = n + len(arm.gripper.radius)
        names = [*self._links, *["fingers"] * (total - n)]
        pairs = [(i, j) for i in range(total) for j in range(i + 1, total) if _can_meet(names[i], names[j])]
        self._first = np.array([i for i, _ in pairs])
        self._second = np.array([j for _, j in pairs])
        self._names = names
        # Over the table: everything from the forearm on; the pads' own check is by their corners.
        self._over_table = np.array([i for i, name in enumerate(names[:n]) if name not in _STATIC])

    def clearance(self, q: Array, gripper_width: float) -> Clearance:
        """The nearest bound of workspace, table and self-collision at one posture.

        Args:
            q: (7,) rad.
            gripper_width: Metres between the pads.
        """
        touch = self.touch(q, gripper_width)
        return min(self._workspace(self._arm.fk(q).translation), touch, key=lambda c: c.margin)

    def touch(self, q: Array, gripper_width: float) -> Clearance:
        """The nearer of the table and the arm's own body at one posture.

        Args:
            q: (7,) rad.
            gripper_width: Metres between the pads.
        """
        start, end, radius = self._arm.body_capsules(q, gripper_width)
        tips = self._arm.finger_tips(self._arm.fk(q), gripper_width)
        return min(
            self._table(start, end, radius, tips), self._body(start, end, radius), key=lambda c: c.margin
        )

    def touch_margins(self, bodies: Bodies) -> Array:
        """(S,) metres, the margins that ``touch`` finds, of many postures at once."""
        config, rows, i, j = self.config, self._over_table, self._first, self._second
        start, end, radius = bodies.start, bodies.end, bodies.radius
        lowest = np.minimum(start[:, rows, 2], end[:, rows, 2]) - radius[rows] - config.table_height
        tips = bodies.tips[..., 2].min(1) - config.table_height - config.tip_clearance
        ends = (a.reshape(-1, 3) for a in (start[:, i], end[:, i], start[:, j], end[:, j]))
        gaps = segment_distance(*ends).reshape(len(start), -1) - radius[i] - radius[j]
        table = np.minimum(lowest.min(1) - config.body_clearance, tips)
        return np.asarray(np.minimum(table, gaps.min(1) - config.self_clearance))

    def joint_clearance(self, lowest: Array, highest: Array) -> Clearance:
        """The nearest joint limit, given each joint's extremes."""
        low, high = lowest - self._joint_low, self._joint_high - highest
        i = int(np.argmin(np.minimum(low, high)))
        value, limit = (
            (float(lowest[i]), float(self._joint_low[i]))
            if low[i] < high[i]
            else (float(highest[i]), float(self._joint_high[i]))
        )
        message = f"{self._arm.joint_names[i]} would pass its limit"
        return Clearance(float(min(low[i], high[i])), ErrorCode.UNREACHABLE, message, value, limit, "rad")

    def check_brake(self, here: JointMotion, brake: Brake, gripper_width: float) -> Clearance | None:
        """Prove that braking stays inside the envelope.

        Where the arm is already beyond a bound, motion that doesn't go further beyond it is allowed, so
        that it can be brought back.

        Args:
            here: State now, before the step that the brake follows.
            brake: From the state after the step.
            gripper_width: Metres between the pads.

        Returns:
            None when proven, else the bound that would be broken.
        """
        joints = self.joint_clearance(brake.lowest, brake.highest)
        if joints.margin < 0 and joints.margin < self.joint_clearance(here.q, here.q).margin - 1e-9:
            return joints
        worst = self._worst_on(brake, 0.0, brake.duration, gripper_width)
        if worst is None or worst.margin >= self.clearance(here.q, gripper_width).margin - 1e-9:
            return None
        return worst

    def _worst_on(self, brake: Brake, start: float, end: float, width: float) -> Clearance | None:
        """Prove the part of a brake between two times by its middle, or both its halves.

        No point of the body moves farther than the sum of the joints' motions times what is beyond each
        joint: where the middle is farther than that from every bound, so is the whole part.
        """
        middle = (start + end) / 2
        q = brake.at(middle).q
        reach = self._arm.reach_bound
        moved = max(float(reach @ np.abs(brake.at(t).q - q)) for t in (start, end))
        found = self.clearance(q, width)
        if found.margin < 0:
            return found
        if found.margin >= moved or moved <= _CHECK_STEP:
            return None
        return self._worst_on(brake, start, middle, width) or self._worst_on(brake, middle, end, width)

    def _workspace(self, position: Array) -> Clearance:
        low, high = position - self._low, self._high - position
        i = int(np.argmin(np.minimum(low, high)))
        beyond_low = low[i] < high[i]
        bound = self._low[i] if beyond_low else self._high[i]
        return Clearance(
            float(min(low[i], high[i])),
            ErrorCode.OUT_OF_WORKSPACE,
            f"the TCP would leave the workspace in {'xyz'[i]}",
            float(position[i]),
            float(bound),
            "m",
        )

    def _table(self, start: Array, end: Array, radius: Array, tips: Array) -> Clearance:
        config, rows = self.config, self._over_table
        lowest = np.minimum(start[rows, 2], end[rows, 2]) - radius[rows] - config.table_height
        body = float(lowest.min()) - config.body_clearance
        tip = tips_over(tips, config.table_height, config.tip_clearance)
        if tip.margin < body:
            return tip
        name = self._names[rows[int(np.argmin(lowest))]]
        message = f"{name} would touch the table"
        return Clearance(body, ErrorCode.COLLISION, message, float(lowest.min()), config.body_clearance, "m")

    def _body(self, start: Array, end: Array, radius: Array) -> Clearance:
        i, j = self._first, self._second
        gaps = segment_distance(start[i], end[i], start[j], end[j]) - radius[i] - radius[j]
        k = int(np.argmin(gaps))
        gap, limit = float(gaps[k]), self.config.self_clearance
        message = f"{self._names[i[k]]} would touch {self._names[j[k]]}"
        return Clearance(gap - limit, ErrorCode.COLLISION, message, gap, limit, "m")


def tips_over(tips: Array, table_height: float, tip_clearance: float) -> Clearance:
    """How far the finger tips stay above what things stand on.

    Args:
        tips: (M, 3) metres, base frame, corners of the pads.
        table_height: Metres.
        tip_clearance: Metres over it that they keep; below 0 lets them touch it.
    """
    height = float(tips[:, 2].min()) - table_height
    message = "the finger tips would go into the table"
    return Clearance(height - tip_clearance, ErrorCode.COLLISION, message, height, tip_clearance, "m")


_STATIC = ("base_link", "link1", "link2", "link3", "link4")
_LOW = ("base_link", "link1", "link2")
_WRIST = ("link5", "link6", "link7", "gripper_base", "fingers")


def _can_meet(a: str, b: str) -> bool:
    """Pairs of links that joint limits alone don't keep apart (neighbours always overlap)."""
    return (a in _LOW and b in _WRIST) or (a in ("link3", "link4") and b in ("gripper_base", "fingers"))


def segment_distance(p1: Array, q1: Array, p2: Array, q2: Array) -> Array:
    """Distance between segments p1-q1 and p2-q2, row by row.

    Closest points after Ericson, Real-Time Collision Detection (2005), 5.1.9.

    Args:
        p1, q1, p2, q2: (M, 3) metres.

    Returns:
        (M,) metres.
    """
    d1, d2, r = q1 - p1, q2 - p2, p1 - p2
    a = np.maximum(np.einsum("ij,ij->i", d1, d1), 1e-12)
    e = np.maximum(np.einsum("ij,ij->i", d2, d2), 1e-12)
    b = np.einsum("ij,ij->i", d1, d2)
    c = np.einsum("ij,ij->i", d1, r)
    f = np.einsum("ij,ij->i", d2, r)
    denominator = a * e - b * b
    s = np.where(denominator > 1e-12, (b * f - c * e) / np.maximum(denominator, 1e-12), 0.0)
    s = np.minimum(np.maximum(s, 0.0), 1.0)
    t = (b * s + f) / e
    clamped = np.minimum(np.maximum(t, 0.0), 1.0)
    s = np.where(t == clamped, s, np.minimum(np.maximum((b * clamped - c) / a, 0.0), 1.0))
    between = r + s[:, None] * d1 - clamped[:, None] * d2
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", between, between)))
