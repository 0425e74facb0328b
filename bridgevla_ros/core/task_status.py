"""Where a task stands, and what an operator can do about each refusal."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from bridgevla_ros.core.config import param
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.safety import Reason
from bridgevla_ros.core.types import Progress, WaypointPlan

MAX_INSTRUCTION = 2000


class Stage(IntEnum):
    """Where a task stands; the numbers of ``msg/TaskStatus.msg``."""

    IDLE = 0
    PLANNING = 1
    AWAIT_APPROVAL = 2
    MOVING = 3
    GRIPPING = 4
    VERIFYING = 5
    HOLD = 6
    DONE = 7
    FAILED = 8


@dataclass(frozen=True)
class TaskStatus:
    """Snapshot of a task.

    Attributes:
        stamp: Seconds.
        task_id, plan_id, instruction: What it is about; empty while idle.
        stage: Where it stands.
        step, steps_total: 0-based sub-goal, and how many there are (0 until the first plan).
        retries: Of this sub-goal, after failed grasps and where it was seen not to be done.
        progress: 0..1 of this sub-goal's guidance, executed.
        speed_scale: 0..1 of the nominal speed.
        code, message, value, limit, unit: Why it waits, holds or failed.
        remedy: What the operator can do.
        candidates: What could have been meant.
        lease_valid: The arm may move now.
    """

    stamp: float
    task_id: str = ""
    plan_id: str = ""
    instruction: str = ""
    stage: Stage = Stage.IDLE
    step: int = 0
    steps_total: int = 0
    retries: int = 0
    progress: float = 0.0
    speed_scale: float = 0.0
    code: ErrorCode = ErrorCode.NONE
    message: str = ""
    value: float = math.nan
    limit: float = math.nan
    unit: str = ""
    remedy: str = ""
    candidates: tuple[str, ...] = ()
    lease_valid: bool = False


REMEDIES: dict[ErrorCode, str] = {
    ErrorCode.BUSY: "Wait until the task has ended, cancel it, or send the new one with preempt.",
    ErrorCode.NOT_UNDERSTOOD: "Say which object to pick and where to put it, in other words.",
    ErrorCode.PARSE: "Try again; check the planner model's coordinate convention.",
    ErrorCode.NO_TARGET: "Name an object that the camera sees.",
    ErrorCode.AMBIGUOUS: "Name the object so that only one fits.",
    ErrorCode.OUT_OF_RANGE: "Move the object into the workspace.",
    ErrorCode.DEPTH_HOLE: "Move the object or the camera so that depth is measured there.",
    ErrorCode.STALE_IMAGE: "Check that the camera publishes and that the clocks agree.",
    ErrorCode.NO_TRANSFORM: "Check that /tf connects the camera with the base.",
    ErrorCode.CALIBRATION: "Calibrate the camera to the base again.",
    ErrorCode.OUT_OF_WORKSPACE: "Move the object into the workspace, or widen it in the parameters.",
    ErrorCode.UNREACHABLE: "Move the object to where the arm can reach it from above.",
    ErrorCode.SINGULARITY: "Move the object nearer to the middle of the workspace.",
    ErrorCode.COLLISION: "Clear the way, or move the object.",
    ErrorCode.REJECTED_BY_OPERATOR: "Give another instruction.",
    ErrorCode.APPROVAL_EXPIRED: "Give the instruction again and approve its plan in time.",
    ErrorCode.LEASE_EXPIRED: "Check that the task node runs and that its messages arrive.",
    ErrorCode.CONTROLLER_INACTIVE: "Look at the node's log. Bringup starts again what has ended, not what "
    "hangs: end such a process with kill -9.",
    ErrorCode.SENSOR_LOST: "Bring the sensor back; the task goes on by itself when it is in time.",
    ErrorCode.TRACKING_ERROR: "Free the arm, then call resume.",
    ErrorCode.GRASP_FAILED: "Move the object to where it can be gripped.",
    ErrorCode.VERIFY_FAILED: "Look at where the thing is and what the gripper holds, then give the "
    "instruction again.",
    ErrorCode.EXPERT_DIVERGED: "Try again, or choose another policy.",
    ErrorCode.MODEL_ERROR: "Look at the planner's log.",
    ErrorCode.TIMEOUT: "Look at the log of the node named.",
    ErrorCode.STOPPED: "Call resume when it is safe.",
}


@dataclass(frozen=True)
class TaskConfig:
    """Parameters of the task."""

    autonomy: str = param(
        "auto", "auto moves at once; ask waits for approval of each plan.", choices=("auto", "ask")
    )
    max_retries: int = param(
        2, "New tries of a sub-goal after a failed grasp, or one that is seen not to be done.", ge=0, le=10
    )
    done_by: str = param(
        "depth",
        "What calls a sub-goal done: the gripper, with depth before and after it; or the gripper alone.",
        choices=("depth", "gripper"),
    )
    lease_rate: float = param(10.0, "Leases a second.", unit="Hz", ge=5.0, le=100.0)
    lease_duration: float = param(0.3, "How long a lease lasts.", unit="s", ge=0.1, le=2.0)
    task_timeout: float = param(300.0, "Longest task.", unit="s", ge=1.0, le=86400.0)
    plan_timeout: float = param(30.0, "Longest wait for a plan.", unit="s", ge=0.5, le=600.0)
    guidance_timeout: float = param(5.0, "Longest wait for guidance.", unit="s", ge=0.2, le=60.0)
    approval_timeout: float = param(120.0, "How long a plan waits for approval.", unit="s", ge=1.0, le=3600.0)
    stall_timeout: float = param(8.0, "Longest time without progress.", unit="s", ge=1.0, le=120.0)
    recovery_timeout: float = param(
        20.0, "How long a lost sensor or node may take to come back.", unit="s", ge=0.5, le=600.0
    )
    blocked_timeout: float = param(
        4.0, "How long the arm may wait before a bound, e.g. the table.", unit="s", ge=0.2, le=120.0
    )
    depth_timeout: float = param(
        1.0, "Depth quality older than this is a lost camera.", unit="s", ge=0.1, le=30.0
    )


@dataclass(frozen=True)
class TaskResult:
    """How a task ended.

    Attributes:
        status: Its last: DONE or FAILED, and why.
        steps_done: Sub-goals, of ``status.steps_total``.
        verified: Depth and gripper say of each of them that it has worked.
    """

    status: TaskStatus
    steps_done: int
    verified: bool


def refusal(stamp: float, error: BridgeError) -> TaskStatus:
    """Return the status of a task that was refused before it began, at ``stamp`` seconds."""
    return TaskStatus(
        stamp,
        stage=Stage.FAILED,
        code=error.code,
        message=error.message,
        value=error.value,
        limit=error.limit,
        unit=error.unit,
        remedy=error.remedy or REMEDIES.get(error.code, ""),
        candidates=error.candidates,
    )


def gist(status: TaskStatus) -> tuple[object, ...]:
    """What makes a status worth publishing at once: everything but the numbers."""
    s = status
    return (s.task_id, s.plan_id, s.stage, s.step, s.retries, s.code, s.message)


def reason_of(progress: Progress) -> Reason:
    """Why the streamer holds."""
    return Reason(progress.code, progress.message, progress.value, progress.limit, progress.unit)


def fields(reason: Reason) -> dict[str, Any]:
    """A reason as fields of ``TaskStatus``, with its remedy."""
    return {
        "code": reason.code,
        "message": reason.message,
        "value": reason.value,
        "limit": reason.limit,
        "unit": reason.unit,
        "remedy": REMEDIES.get(reason.code, ""),
    }


def check_goal(autonomy: str, timeout: float) -> None:
    """Refuse a goal whose options make no sense.

    Raises:
        BridgeError: BAD_INPUT.
    """
    if autonomy not in ("", "auto", "ask"):
        message, remedy = f"autonomy {autonomy!r} is unknown", "Use auto, ask, or leave it empty."
        raise BridgeError(ErrorCode.BAD_INPUT, message, remedy=remedy)
    if not math.isfinite(timeout) or timeout < 0:
        message, remedy = "the timeout is negative", "Use 0 for the default."
        raise BridgeError(ErrorCode.BAD_INPUT, message, value=timeout, limit=0.0, unit="s", remedy=remedy)


def check_approval(plan: WaypointPlan | None, plan_id: str, digest: str) -> None:
    """Refuse an approval of another plan than the one that waits, None where none does.

    Raises:
        BridgeError: BUSY (nothing waits), SCENE_CHANGED (another plan waits than the one looked at).
    """
    if plan is None:
        raise BridgeError(ErrorCode.BUSY, "no plan waits for approval", remedy="Look at the task's status.")
    if plan_id != plan.plan_id or digest != plan.digest:
        raise BridgeError(
            ErrorCode.SCENE_CHANGED,
            f"plan {plan.plan_id} waits, not {plan_id}, or its digest differs",
            remedy="Look at the newest plan and approve its digest.",
        )


def check_instruction(
    text: str, *, limit: int = MAX_INSTRUCTION, unreadable: ErrorCode = ErrorCode.BAD_INPUT
) -> str:
    """Return the instruction on one line with single spaces, or refuse it.

    Args:
        text: Anything.
        limit: Most characters.
        unreadable: Code for what is too long, or has characters that no text has.

    Raises:
        BridgeError: NOT_UNDERSTOOD (empty, no letters), or ``unreadable``.
    """
    if len(text) > limit:
        raise BridgeError(
            unreadable,
            f"the instruction has {len(text)} characters",
            value=float(len(text)),
            limit=float(limit),
            unit="characters",
            remedy=f"Use at most {limit} characters.",
        )
    for i, character in enumerate(text):
        category = unicodedata.category(character)
        if (category in ("Cc", "Cs", "Co", "Cn") and character not in "\t\n\r") or character == "�":
            raise BridgeError(
                unreadable,
                f"character {i} of the instruction is no text (U+{ord(character):04X})",
                value=float(i),
                limit=0.0,
                unit="characters",
                remedy="Send plain UTF-8 text.",
            )
    stripped = " ".join(text.split())
    if not any(character.isalpha() for character in stripped):
        raise BridgeError(
            ErrorCode.NOT_UNDERSTOOD,
            "the instruction is empty" if not stripped else "the instruction has no words",
            value=float(len(stripped)),
            limit=1.0,
            unit="characters",
            remedy=REMEDIES[ErrorCode.NOT_UNDERSTOOD],
        )
    return stripped
