"""Node ``arm_streamer``: the only process that commands the arm.

No inference runs here: neither torch nor onnxruntime is imported. Commands are short trajectories that
end at rest, so when this process dies, the last one stops the arm.
"""

from __future__ import annotations

import gc
import os
import sys
from collections import deque

import numpy as np
from bridgevla.msg import ActionChunk as ActionChunkMsg
from bridgevla.msg import Guidance as GuidanceMsg
from bridgevla.msg import InputLog as InputLogMsg
from bridgevla.msg import Lease as LeaseMsg
from bridgevla.msg import Progress as ProgressMsg
from bridgevla.srv import Hold, Resume, Stop
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import JointState as JointStateMsg
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.streamer_config import StreamerConfig
from bridgevla_ros.core.streamer_desk import StreamerDesk, StreamerNodeConfig, StreamerOutput
from bridgevla_ros.core.types import ActionChunk, Progress
from bridgevla_ros.ros import clock, conversions, parameters, qos
from bridgevla_ros.ros.diagnostics import WARN, Diagnostics
from bridgevla_ros.ros.spin import run_node


class ArmStreamerNode(Node):
    """Wires topics to the streamer and ticks it at the control rate."""

    def __init__(self) -> None:
        super().__init__("arm_streamer")
        self._settings, config = parameters.declare_all(self, StreamerNodeConfig, StreamerConfig)
        self._arm = ArmModel.load(self._settings.robot)
        self._desk = StreamerDesk(config, self._arm)
        self._streamer = self._desk.streamer
        self._intervals: deque[float] = deque(maxlen=int(2 * config.rate))
        self._last_tick = float("nan")
        self._raise_priority()

        live = self._settings.command_mode == "joint"
        self._trajectory = self.create_publisher(
            JointTrajectory, "arm/joint_trajectory" if live else "~/joint_trajectory", qos.COMMAND
        )
        self._pose = self.create_publisher(PoseStamped, "arm/ee_pose", qos.COMMAND)
        self._gripper = self.create_publisher(Float64MultiArray, "gripper/command", qos.RELIABLE)
        self._progress = self.create_publisher(ProgressMsg, "progress", qos.COMMAND)
        self._log = self.create_publisher(InputLogMsg, "~/inputs", qos.RELIABLE)
        self._diagnostics = Diagnostics(self)
        self.create_subscription(JointStateMsg, "joint_states", self._on_joints, qos.SENSOR)
        self.create_subscription(GuidanceMsg, "guidance", self._on_guidance, qos.LATCHED)
        self.create_subscription(ActionChunkMsg, "action_chunk", self._on_chunk, qos.COMMAND)
        self.create_subscription(LeaseMsg, "lease", self._on_lease, qos.COMMAND)
        self.create_service(Stop, "stop", self._on_stop)
        self.create_service(Hold, "hold", self._on_hold)
        self.create_service(Resume, "resume", self._on_resume)
        self.create_timer(1.0 / config.rate, self._tick)
        self.create_timer(1.0, self._diagnose)
        # What lives now lives on: the collector need not walk through it in a control period.
        gc.collect()
        gc.freeze()

    def _raise_priority(self) -> None:
        priority = self._settings.realtime_priority
        if not priority:
            return
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
        except (PermissionError, OSError) as error:
            self.get_logger().warning(
                f"SCHED_FIFO {priority} is not permitted here ({error}); running normally"
            )

    def _now(self) -> float:
        return clock.seconds(self)

    # ---- inputs

    def _on_joints(self, msg: JointStateMsg) -> None:
        self._desk.on_joints(conversions.joint_state_from_msg(msg, self._arm.config))

    def _on_guidance(self, msg: GuidanceMsg) -> None:
        self._desk.on_guidance(conversions.guidance_from_msg(msg))

    def _on_lease(self, msg: LeaseMsg) -> None:
        self._desk.on_lease(conversions.lease_from_msg(msg))

    def _on_chunk(self, msg: ActionChunkMsg) -> None:
        chunk: ActionChunk | BridgeError
        try:
            chunk = conversions.action_chunk_from_msg(msg, self._arm.joint_names)
        except BridgeError as error:
            chunk = error
        self._desk.on_chunk(chunk, conversions.stamp_from_msg(msg.header.stamp), self._now())

    def _on_stop(self, request: Stop.Request, response: Stop.Response) -> Stop.Response:
        self._desk.stop(request.reason)
        self.get_logger().warning(f"stop: {request.reason or 'asked by the operator'}")
        response.accepted, response.message = True, "braking; motion starts again after resume"
        return response

    def _on_hold(self, request: Hold.Request, response: Hold.Response) -> Hold.Response:
        self._desk.hold(request.reason)
        response.accepted, response.message = True, "slowing down; goes on after resume"
        return response

    def _on_resume(self, request: Resume.Request, response: Resume.Response) -> Resume.Response:
        try:
            self._desk.resume(self._now())
        except BridgeError as error:
            response.code, response.message = int(error.code), f"{error.message}; {error.remedy}"
        else:
            response.accepted, response.message = True, "motion is allowed again"
        return response

    # ---- the control period

    def _tick(self) -> None:
        now = self._now()
        if now <= 0.0:  # simulated time has not begun
            return
        self._intervals.append(now - self._last_tick)
        self._last_tick = now
        output = self._desk.tick(now)
        self._send(output)
        if output.report:
            self._report(output.progress, output.changed)
        if output.log is not None:
            self._log.publish(conversions.input_log_to_msg(output.log, self._arm.config.base_frame))

    def _send(self, output: StreamerOutput) -> None:
        command = output.command
        if command is None:
            return
        trajectory, pose, _ = conversions.arm_command_to_msgs(
            command, self._arm.joint_names, self._arm.config.base_frame
        )
        self._trajectory.publish(trajectory)
        self._pose.publish(pose)
        if output.gripper is not None:
            self._gripper.publish(conversions.gripper_command_to_msg(output.gripper))

    def _report(self, progress: Progress, changed: bool) -> None:
        self._progress.publish(conversions.progress_to_msg(progress, self._arm.config.base_frame))
        if changed and progress.code != ErrorCode.NONE:
            self.get_logger().info(
                f"{progress.state.name}: {progress.code.name}: {progress.message}"
                f" ({progress.value:.4g}, limit {progress.limit:.4g} {progress.unit})"
            )

    def _diagnose(self) -> None:
        intervals = np.array(self._intervals)
        intervals = intervals[np.isfinite(intervals) & (intervals > 0)]
        if not len(intervals):
            self._diagnostics.set(
                ErrorCode.SENSOR_LOST, "no control period yet: does the clock run?", level=WARN
            )
            return
        nominal = 1.0 / self._streamer.config.rate
        rate = 1.0 / float(intervals.mean())
        code = self._desk.code
        level = WARN if code == ErrorCode.NONE and rate < 0.9 / nominal else None
        self._diagnostics.set(
            code,
            self._streamer.state.name,
            {
                "rate_hz": rate,
                "jitter_p99_ms": 1e3 * float(np.percentile(np.abs(intervals - nominal), 99)),
                "longest_period_ms": 1e3 * float(intervals.max()),
                "chunks_dropped": self._streamer.rejected,
                "command_mode": self._settings.command_mode,
            },
            level=level,
        )


def main() -> int:
    """Entry point."""
    return run_node(ArmStreamerNode)


if __name__ == "__main__":
    sys.exit(main())
