"""Node ``action_expert``: cloud, joints, guidance and executed progress in, chunks of commands out."""

from __future__ import annotations

import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from bridgevla.msg import ActionChunk as ActionChunkMsg
from bridgevla.msg import Guidance as GuidanceMsg
from bridgevla.msg import Progress as ProgressMsg
from nav_msgs.msg import Path
from sensor_msgs.msg import JointState as JointStateMsg
from sensor_msgs.msg import PointCloud2

from bridgevla_ros.core.config import param
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.types import Cloud, Guidance, JointState, Progress, StreamerState
from bridgevla_ros.expert.config import ExpertConfig
from bridgevla_ros.expert.policy import ExpertObservation, make_policy
from bridgevla_ros.ros import conversions, parameters, qos
from bridgevla_ros.ros.diagnostics import STALE, WARN, Diagnostics
from bridgevla_ros.ros.lifecycle import ManagedNode
from bridgevla_ros.ros.spin import run_node


@dataclass(frozen=True)
class ActionExpertNodeConfig:
    """Parameters of the node beside those of the expert."""

    robot: str = param("panda_2f85", "Robot of config/robots, or a path to its YAML file")
    base_frame: str = param("base_link", "Frame that guidance and clouds must be in")


class ActionExpertNode(ManagedNode):
    """Publishes a chunk at each tick of ROS time; whatever is missing or wrong publishes none, by name."""

    def __init__(self, **options: Any) -> None:
        super().__init__("action_expert", **options)
        self._settings, self._config = parameters.declare_all(self, ActionExpertNodeConfig, ExpertConfig)

    def configure(self) -> None:
        """Load robot and network, open the topics."""
        self._arm = ArmModel.load(self._settings.robot)
        self._policy = make_policy(self._config, self._arm)
        self._policy.warm_up()
        self._forget()
        self._diagnostics = Diagnostics(self, hardware_id=self._policy.model_sha256[:12])
        self._chunk = self.create_publisher(ActionChunkMsg, "action_chunk", qos.COMMAND)
        self._preview = self.create_publisher(Path, "action_chunk/preview", qos.SENSOR)
        self._inputs = [
            self.create_subscription(PointCloud2, "cloud", self._on_cloud, qos.SENSOR),
            self.create_subscription(JointStateMsg, "joint_states", self._on_joints, qos.SENSOR),
            self.create_subscription(GuidanceMsg, "guidance", self._on_guidance, qos.LATCHED),
            self.create_subscription(ProgressMsg, "progress", self._on_progress, qos.COMMAND),
        ]
        self._timer = self.create_timer(1.0 / self._config.rate, self._tick)

    def activate(self) -> None:
        """Start afresh."""
        self._policy.reset()

    def deactivate(self) -> None:
        """Publish nothing; what was commanded is forgotten."""
        self._policy.reset()
        self._diagnostics.set(ErrorCode.NONE, "inactive", level=STALE)

    def cleanup(self) -> None:
        """Close the topics."""
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        for publisher in (self._chunk, self._preview):
            self.destroy_publisher(publisher)
        self.destroy_timer(self._timer)
        self._forget()

    def _forget(self) -> None:
        self._joints: deque[JointState] = deque(maxlen=2)
        self._cloud: Cloud | None = None
        self._guidance: Guidance | None = None
        self._progress: Progress | None = None

    def _now(self) -> float:
        return float(self.get_clock().now().nanoseconds) * 1e-9

    def _on_cloud(self, msg: PointCloud2) -> None:
        self._check_frame("cloud", msg.header.frame_id)
        self._cloud = conversions.cloud_from_msg(msg)

    def _on_joints(self, msg: JointStateMsg) -> None:
        state = conversions.joint_state_from_msg(msg, self._arm.joint_names)
        if self._joints and state.stamp < self._joints[-1].stamp:  # a simulator began again
            self._joints.clear()
            self._policy.reset()
        self._joints.append(state)

    def _on_guidance(self, msg: GuidanceMsg) -> None:
        guidance = conversions.guidance_from_msg(msg)
        if guidance.code == ErrorCode.NONE:
            self._check_frame("guidance", guidance.base_frame)
        self._guidance = guidance

    def _on_progress(self, msg: ProgressMsg) -> None:
        self._progress = conversions.progress_from_msg(msg)

    def _check_frame(self, what: str, frame: str) -> None:
        if frame != self._settings.base_frame:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"{what} is in frame {frame!r}, expected {self._settings.base_frame!r}",
                remedy="set base_frame of the nodes to the same frame",
            )

    def _tick(self) -> None:
        if not self.active:
            return
        guidance, progress = self._guidance, self._progress
        if guidance is None or guidance.code != ErrorCode.NONE:
            self._diagnostics.set(ErrorCode.NONE, "waiting for guidance", level=STALE)
            return
        if progress is None:
            self._diagnostics.set(ErrorCode.SENSOR_LOST, "no progress has come yet; is arm_streamer up?")
            return
        if progress.guidance_id == guidance.guidance_id and progress.state == StreamerState.FINISHED:
            self._diagnostics.set(ErrorCode.NONE, f"guidance {guidance.guidance_id} is finished")
            return
        began = time.perf_counter()
        now = self._now()
        observation = ExpertObservation(now, tuple(self._joints), self._cloud, guidance, progress)
        try:
            chunk = self._policy.chunk(observation, self._config.seed)
        except BridgeError as error:
            values = {"value": error.value, "limit": error.limit, "unit": error.unit, "remedy": error.remedy}
            self._diagnostics.set(error.code, error.message, values)
            self.get_logger().warning(f"no chunk: {error}", throttle_duration_sec=1.0)
            return
        self._chunk.publish(
            conversions.action_chunk_to_msg(chunk, self._arm.joint_names, self._settings.base_frame)
        )
        if self._preview.get_subscription_count() > 0:
            self._preview.publish(
                conversions.path_to_msg(chunk.stamp, self._settings.base_frame, chunk.position, chunk.quat)
            )
        blind = self._policy.needs_cloud and not chunk.cloud_stamps
        self._diagnostics.set(
            ErrorCode.SENSOR_LOST if blind else ErrorCode.NONE,
            "following guidance without a cloud" if blind else f"policy {chunk.source}",
            {
                "chunk_ms": (time.perf_counter() - began) * 1e3,
                "correction_mm": chunk.correction * 1e3,
                "spread_mm": chunk.correction_sigma * 1e3,
                "cloud_age_s": now - chunk.cloud_stamps[-1] if chunk.cloud_stamps else float("nan"),
                "progress": chunk.guidance_progress,
                "sequence": chunk.sequence,
            },
            level=WARN if blind else None,
        )


def main() -> int:
    """Entry point."""
    return run_node(ActionExpertNode)


if __name__ == "__main__":
    sys.exit(main())
