"""Error codes and the exception that carries one.

The numbers are those of ``msg/ErrorCode.msg``; a test holds the two together.
"""

from __future__ import annotations

from enum import IntEnum


class ErrorCode(IntEnum):
    """Why something was refused, held or failed."""

    NONE = 0
    BUSY = 1
    NOT_UNDERSTOOD = 2
    PARSE = 3
    NO_TARGET = 4
    AMBIGUOUS = 5
    OUT_OF_RANGE = 6
    DEPTH_HOLE = 7
    STALE_IMAGE = 8
    NO_TRANSFORM = 9
    CALIBRATION = 10
    OUT_OF_WORKSPACE = 11
    UNREACHABLE = 12
    SINGULARITY = 13
    COLLISION = 14
    TOO_FAST = 15
    REPROJECTION = 16
    SCENE_CHANGED = 17
    REJECTED_BY_OPERATOR = 18
    APPROVAL_EXPIRED = 19
    CANCELLED = 20
    LEASE_EXPIRED = 21
    CONTROLLER_INACTIVE = 22
    SENSOR_LOST = 23
    TRACKING_ERROR = 24
    CONTACT = 25
    GRASP_FAILED = 26
    VERIFY_FAILED = 27
    EXPERT_DIVERGED = 28
    MODEL_ERROR = 29
    TIMEOUT = 30
    BAD_INPUT = 31
    STOPPED = 32
    DISK_FULL = 33


class BridgeError(Exception):
    """A refusal: code, what is wrong, the value, the limit and what to do.

    Attributes:
        code: Which refusal.
        message: One sentence for the operator.
        value: The offending value, in ``unit``; NaN where there is none.
        limit: The limit it broke, in ``unit``; NaN where there is none.
        unit: Unit of value and limit, e.g. "m", "rad/s", "s"; empty where there is none.
        remedy: What the operator can do about it, one sentence.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        value: float = float("nan"),
        limit: float = float("nan"),
        unit: str = "",
        remedy: str = "",
        candidates: tuple[str, ...] = (),
    ) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.value = value
        self.limit = limit
        self.unit = unit
        self.remedy = remedy
        self.candidates = candidates
