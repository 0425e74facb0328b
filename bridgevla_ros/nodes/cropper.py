"""Node ``cropper``: depth images in, the expert's cloud and the quality of depth out."""

from __future__ import annotations

import sys
from collections import deque
from functools import partial

from bridgevla.msg import DepthQuality as DepthQualityMsg
from bridgevla.msg import Guidance as GuidanceMsg
from bridgevla.msg import Progress as ProgressMsg
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from sensor_msgs.msg import JointState as JointStateMsg

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.types import DepthQuality
from bridgevla_ros.perception.config import CropperConfig
from bridgevla_ros.perception.cropper import Cropper
from bridgevla_ros.perception.feed import CropperFeed, CropperNodeConfig, DepthImage
from bridgevla_ros.ros import clock, conversions, parameters, qos
from bridgevla_ros.ros.diagnostics import OK, WARN, Diagnostics
from bridgevla_ros.ros.lifecycle import ManagedNode
from bridgevla_ros.ros.spin import run_node
from bridgevla_ros.ros.tf import TransformBuffer


class CropperNode(ManagedNode):
    """Answers every depth image with a quality, and with a cloud where it can."""

    def __init__(self) -> None:
        super().__init__("cropper")
        self._settings, self._cropper_config = parameters.declare_all(self, CropperNodeConfig, CropperConfig)

    def configure(self) -> None:
        """Load the robot, compile the kernels, open the topics."""
        self._arm = ArmModel.load(self._settings.robot)
        self._cropper = Cropper(self._cropper_config, self._arm)
        self._cropper.warm_up()
        self._feed = CropperFeed(self._settings, self._cropper)
        self._pending: deque[tuple[Image, float]] = deque(maxlen=2)
        self._last_depth = self._now()
        self._transforms = TransformBuffer(self)
        self._diagnostics = Diagnostics(self)
        self._cloud = self.create_publisher(PointCloud2, "cloud", qos.SENSOR)
        self._quality = self.create_publisher(DepthQualityMsg, "depth_quality", qos.RELIABLE)
        self._inputs = [
            self.create_subscription(Image, "camera/depth/image_raw", self._on_depth, qos.SENSOR),
            self.create_subscription(CameraInfo, "camera/depth/camera_info", self._on_info, qos.SENSOR),
            self.create_subscription(JointStateMsg, "joint_states", self._on_joints, qos.SENSOR),
            self.create_subscription(GuidanceMsg, "guidance", self._on_guidance, qos.LATCHED),
            self.create_subscription(ProgressMsg, "progress", self._on_progress, qos.COMMAND),
        ]
        self._timers = [self.create_timer(0.05, self._serve), self.create_timer(0.5, self._watch)]

    def activate(self) -> None:
        """Start afresh."""
        self._cropper.reset()
        self._pending.clear()
        self._last_depth = self._now()

    def cleanup(self) -> None:
        """Close the topics."""
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        for publisher in (self._cloud, self._quality):
            self.destroy_publisher(publisher)
        for timer in self._timers:
            self.destroy_timer(timer)

    def _now(self) -> float:
        return clock.seconds(self)

    def _on_depth(self, msg: Image) -> None:
        if not self.active:
            return
        self._last_depth = self._now()
        self._pending.append((msg, self._last_depth))
        self._serve()

    def _on_info(self, msg: CameraInfo) -> None:
        stamp = conversions.stamp_from_msg(msg.header.stamp)
        self._feed.on_info(stamp, partial(conversions.intrinsics_from_msg, msg))
        self._serve()

    def _on_joints(self, msg: JointStateMsg) -> None:
        self._feed.joints.add(conversions.joint_state_from_msg(msg, self._arm.config))
        self._serve()

    def _on_guidance(self, msg: GuidanceMsg) -> None:
        self._feed.on_guidance(conversions.guidance_from_msg(msg))

    def _on_progress(self, msg: ProgressMsg) -> None:
        self._feed.on_progress(conversions.progress_from_msg(msg))

    def _serve(self) -> None:
        """Crop the oldest waiting image once everything that belongs to it is there, or say what is not."""
        while self.active and self._pending:
            msg, arrived = self._pending[0]
            now = self._now()
            try:
                self._crop(msg, now)
            except BridgeError as error:
                patient = error.code in (ErrorCode.NO_TRANSFORM, ErrorCode.SENSOR_LOST)
                if patient and 0.0 <= now - arrived < self._settings.wait:
                    return
                self._refuse(msg, error, now)
            if self._pending and self._pending[0][0] is msg:
                self._pending.popleft()

    def _crop(self, msg: Image, now: float) -> None:
        frame_name = msg.header.frame_id.lstrip("/")
        stamp = conversions.stamp_from_msg(msg.header.stamp)
        image = DepthImage(stamp, frame_name, partial(conversions.depth_from_msg, msg))
        cloud, quality = self._feed.crop(image, self._transforms.lookup, now)
        self._cloud.publish(conversions.cloud_to_msg(cloud, self._settings.base_frame))
        self._quality.publish(conversions.depth_quality_to_msg(quality, frame_name))
        if quality.code != ErrorCode.NONE:
            self.get_logger().warning(f"{quality.code.name}: {_describe(quality)}", throttle_duration_sec=2.0)
        self._diagnostics.set(
            quality.code,
            _describe(quality),
            {
                "valid_fraction": quality.valid_fraction,
                "points_target": quality.points_target,
                "noise_m": quality.noise,
                "robot_residual_m": quality.robot_residual,
            },
            level=OK if quality.code == ErrorCode.NONE else WARN,
        )

    def _refuse(self, msg: Image, error: BridgeError, now: float) -> None:
        remedy = f" {error.remedy}" if error.remedy else ""
        self.get_logger().warning(f"{error}{remedy}", throttle_duration_sec=2.0)
        stamp = conversions.stamp_from_msg(msg.header.stamp)
        self._publish_code(error.code, stamp, now, msg.header.frame_id)
        self._diagnostics.set(error.code, error.message)

    def _watch(self) -> None:
        """Say SENSOR_LOST while no depth images come."""
        now = self._now()
        if now < self._last_depth:  # the clock was set back
            self._last_depth = now
        if not self.active or now - self._last_depth <= self._settings.sensor_timeout:
            return
        silence = now - self._last_depth
        self.get_logger().warning(
            f"SENSOR_LOST: no depth image on camera/depth/image_raw for {silence:.1f} s",
            throttle_duration_sec=5.0,
        )
        self._publish_code(ErrorCode.SENSOR_LOST, self._last_depth, now, "")
        self._diagnostics.set(ErrorCode.SENSOR_LOST, f"no depth image for {silence:.1f} s")

    def _publish_code(self, code: ErrorCode, stamp: float, now: float, frame: str) -> None:
        quality = self._feed.refusal(code, stamp, now)
        self._quality.publish(conversions.depth_quality_to_msg(quality, frame))


def _describe(quality: DepthQuality) -> str:
    return (
        f"{quality.points_target} points, {quality.valid_fraction:.0%} of depth valid"
        f" ({quality.target_valid_fraction:.0%} in the crop), noise {1e3 * quality.noise:.1f} mm,"
        f" robot {1e3 * quality.robot_residual:.1f} mm off its model, {quality.age:.2f} s old"
    )


def main() -> int:
    """Entry point."""
    return run_node(CropperNode)


if __name__ == "__main__":
    sys.exit(main())
