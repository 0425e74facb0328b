"""What the task hears of the other nodes, and what is missing of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.safety import Reason
from bridgevla_ros.core.types import DepthQuality, Progress

if TYPE_CHECKING:
    from bridgevla_ros.core.task_status import TaskConfig

_SILENT_STREAMER = 0.5


@dataclass
class Heard:
    """Newest of each.

    Attributes:
        progress: Of the streamer; None before the first.
        depth: Of the cropper; None before the first.
        depth_at: Seconds, when it came.
        lost: Nodes that are not there or not active.
    """

    progress: Progress | None = None
    depth: DepthQuality | None = None
    depth_at: float = -math.inf
    lost: tuple[str, ...] = ()

    def missing(self, now: float, config: TaskConfig, *, moving: bool) -> Reason | None:
        """What keeps the task from going on: a node, the camera, the streamer."""
        if self.lost:
            message = f"{', '.join(self.lost)} is not active"
            return Reason(ErrorCode.CONTROLLER_INACTIVE, message)
        depth = self.depth
        if depth is not None:
            age = now - self.depth_at
            if age > config.depth_timeout:
                return Reason(ErrorCode.SENSOR_LOST, "no depth images", age, config.depth_timeout, "s")
            if depth.code in (ErrorCode.SENSOR_LOST, ErrorCode.CALIBRATION) and moving:
                message = "the camera is lost" if depth.code == ErrorCode.SENSOR_LOST else "the camera is off"
                return Reason(depth.code, message, depth.robot_residual, math.nan, "m")
        progress = self.progress
        if moving and progress is not None and now - progress.stamp > _SILENT_STREAMER:
            age = now - progress.stamp
            return Reason(ErrorCode.CONTROLLER_INACTIVE, "arm_streamer is silent", age, _SILENT_STREAMER, "s")
        return None
