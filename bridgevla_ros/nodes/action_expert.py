"""Node ``action_expert``: cloud, joints, guidance and executed progress in, chunks of commands out."""

from __future__ import annotations

import sys
import time
from typing import Any

from bridgevla.msg import ActionChunk as ActionChunkMsg
from bridgevla.msg import Guidance as GuidanceMsg
from bridgevla.msg import Progress as ProgressMsg
from nav_msgs.msg import Path
from sensor_msgs.msg import JointState as JointStateMsg
from sensor_msgs.msg import PointCloud2

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.types import ActionChunk
from bridgevla_ros.expert.config import ExpertConfig
from bridgevla_ros.expert.observer import ActionExpertNodeConfig, Idle, Observer
from bridgevla_ros.expert.policy import make_policy
from bridgevla_ros.ros import clock, conversions, parameters, qos
from bridgevla_ros.ros.diagnostics import STALE, WARN, Diagnostics
from bridgevla_ros.ros.lifecycle import ManagedNode
from bridgevla_ros.ros.spin import run_node


class ActionExpertNode(ManagedNode):
    """Publishes a chunk at each tick of ROS time, or the name of what is missing or wrong."""

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
        self._observer = Observer(self._settings)

    def _now(self) -> float:
        return clock.seconds(self)

    def _on_cloud(self, msg: PointCloud2) -> None:
        self._observer.on_cloud(conversions.cloud_from_msg(msg), msg.header.frame_id)

    def _on_joints(self, msg: JointStateMsg) -> None:
        state = conversions.joint_state_from_msg(msg, self._arm.config)
        if self._observer.on_joints(state):
            self._policy.reset()

    def _on_guidance(self, msg: GuidanceMsg) -> None:
        self._observer.on_guidance(conversions.guidance_from_msg(msg))

    def _on_progress(self, msg: ProgressMsg) -> None:
        self._observer.on_progress(conversions.progress_from_msg(msg))

    def _tick(self) -> None:
        if not self.active:
            return
        began = time.perf_counter()
        now = self._now()
        observation = self._observer.observe(now)
        if isinstance(observation, Idle):
            level = STALE if observation.waiting else None
            self._diagnostics.set(observation.code, observation.message, level=level)
            return
        try:
            chunk = self._policy.chunk(observation, self._config.seed)
        except BridgeError as error:
            values = {"value": error.value, "limit": error.limit, "unit": error.unit, "remedy": error.remedy}
            self._diagnostics.set(error.code, error.message, values)
            self.get_logger().warning(f"no chunk: {error}", throttle_duration_sec=1.0)
            self._publish(self._policy.refusal(observation, self._config.seed, error))
            return
        self._publish(chunk)
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

    def _publish(self, chunk: ActionChunk) -> None:
        self._chunk.publish(
            conversions.action_chunk_to_msg(chunk, self._arm.joint_names, self._settings.base_frame)
        )


def main() -> int:
    """Entry point."""
    return run_node(ActionExpertNode)


if __name__ == "__main__":
    sys.exit(main())
