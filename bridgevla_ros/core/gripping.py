"""Gripper events: how long they take, and whether a grasp holds something."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from bridgevla_ros.core.config import param
from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.safety import Reason
from bridgevla_ros.core.types import GripperEvent, Guidance, JointState, Progress

# A gripper that has not moved for this long after a command is not going to.
_REACTION = 0.6
# Metres: as near to the commanded width as counts as there, and as far from the first as counts as moved.
_REACHED, _MOVED = 0.004, 0.002
# Opening by less than this beyond the carried width has let nothing go.
_LET_GO = 0.008


@dataclass(frozen=True)
class GrippingConfig:
    """Parameters of gripper events."""

    min_grasp_width: float = param(0.004, "Pads closer than this hold nothing.", unit="m", ge=0.0, le=0.2)
    grip_settle: float = param(
        0.15, "Seconds that the gripper is still before an event is done.", unit="s", ge=0.02, le=2.0
    )
    grip_timeout: float = param(1.5, "Longest wait for the gripper.", unit="s", ge=0.1, le=20.0)
    grip_still: float = param(
        0.0008, "Change of width within grip_settle that counts as still.", unit="m", ge=1e-5, le=0.02
    )


@dataclass(frozen=True)
class GripperJob:
    """A gripper event under way.

    Attributes:
        event: OPEN or CLOSE.
        width: Metres, commanded.
        start: Seconds.
        start_width: Metres, measured then.
    """

    event: GripperEvent
    width: float
    start: float
    start_width: float


class GripperMonitor:
    """Watches the measured width.

    Attributes:
        carrying: A grasp succeeded and nothing was let go since.
    """

    def __init__(self, config: GrippingConfig) -> None:
        self.carrying = False
        self._config = config
        self._widths: deque[tuple[float, float]] = deque(maxlen=1000)

    def on_joint_state(self, joints: JointState) -> None:
        """Take a measurement; NaN widths are left out."""
        if math.isfinite(joints.gripper_width):
            self._widths.append((joints.stamp, joints.gripper_width))
            while self._widths[0][0] < joints.stamp - 2 * self._config.grip_settle:
                self._widths.popleft()

    def done(self, job: GripperJob, now: float) -> bool:
        """True when the gripper stands still after the command, or the wait is over."""
        config = self._config
        if now - job.start >= config.grip_timeout:
            return True
        recent = [width for stamp, width in self._widths if stamp >= now - config.grip_settle]
        if now - job.start < config.grip_settle or len(recent) < 2:
            return False
        if max(recent) - min(recent) > config.grip_still:
            return False
        reached = abs(recent[-1] - job.width) < _REACHED
        moved = abs(recent[-1] - job.start_width) > _MOVED
        return reached or moved or now - job.start >= _REACTION

    def width(self) -> float:
        """Metres, newest; NaN before the first."""
        return self._widths[-1][1] if self._widths else math.nan

    def holds_object(self) -> bool:
        """True when the pads are kept apart by something."""
        return self.width() > self._config.min_grasp_width

    def lost_object(self) -> bool:
        """True when something was carried and the pads have met."""
        return self.carrying and not self.holds_object()

    def reason(self, message: str) -> Reason:
        """GRASP_FAILED with the width and its limit."""
        return Reason(ErrorCode.GRASP_FAILED, message, self.width(), self._config.min_grasp_width, "m")


def carried_out(guidance: Guidance, progress: Progress, carried: float) -> Reason | None:
    """Why a guidance that the streamer calls finished was not carried out; None where it was.

    Args:
        guidance: What was followed.
        progress: Newest of the streamer.
        carried: Metres between the pads on the way, between closing and opening; NaN where nothing was taken.
    """
    events = guidance.events
    if progress.events_done < len(events):
        message = "the arm is at the end of its path before all gripper events were done"
        return Reason(ErrorCode.VERIFY_FAILED, message, progress.events_done, len(events), "events")
    lets_go = bool(events) and events[-1] == GripperEvent.OPEN and math.isfinite(carried)
    if lets_go and not progress.gripper_width > carried + _LET_GO:
        message = "the gripper still holds what it should have let go"
        return Reason(ErrorCode.VERIFY_FAILED, message, progress.gripper_width, carried + _LET_GO, "m")
    return None
