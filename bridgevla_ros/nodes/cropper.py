"""Node ``cropper``: depth images in, the expert's cloud and the quality of depth out."""

from __future__ import annotations

import bisect
import sys
from collections import deque
from dataclasses import dataclass

import numpy as np
from bridgevla.msg import DepthQuality as DepthQualityMsg
from bridgevla.msg import Guidance as GuidanceMsg
from bridgevla.msg import Progress as ProgressMsg
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from sensor_msgs.msg import JointState as JointStateMsg

from bridgevla_ros.core.camera import check_sizes
from bridgevla_ros.core.config import param
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.trajectory import next_contact
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import CameraIntrinsics, DepthQuality, Guidance, JointState, Progress, RgbdFrame
from bridgevla_ros.perception.config import CropperConfig
from bridgevla_ros.perception.cropper import Cropper
from bridgevla_ros.ros import conversions, parameters, qos
from bridgevla_ros.ros.diagnostics import OK, WARN, Diagnostics
from bridgevla_ros.ros.lifecycle import ManagedNode
from bridgevla_ros.ros.spin import run_node
from bridgevla_ros.ros.tf import TransformBuffer


@dataclass(frozen=True)
class CropperNodeConfig:
    """Parameters of the node beside those of the cropper."""

    robot: str = param("panda_2f85", "Robot of config/robots, or a path to its YAML file")
    base_frame: str = param("base_link", "Frame of the cloud")
    sync_tolerance: float = param(
        0.02, "Depth image and its camera_info may differ by this in stamp", unit="s", ge=0.0, le=1.0
    )
    wait: float = param(
        0.2, "A depth image waits this long for camera_info, transform and joints", unit="s", ge=0.0, le=5.0
    )
    sensor_timeout: float = param(
        1.0, "Without a depth image for this long: SENSOR_LOST", unit="s", ge=0.05, le=60.0
    )


class JointBuffer:
    """Joint states of the last seconds, interpolated at a stamp."""

    def __init__(self, memory: float = 3.0) -> None:
        self._memory = memory
        self._states: list[JointState] = []

    def add(self, state: JointState) -> None:
        """Take in a state; one from the past, as after a simulator's reset, clears the rest."""
        if self._states and state.stamp < self._states[-1].stamp - self._memory:
            self._states.clear()
        at = bisect.bisect_left(self._states, state.stamp, key=lambda s: s.stamp)
        self._states.insert(at, state)
        while self._states[-1].stamp - self._states[0].stamp > self._memory:
            self._states.pop(0)

    def at(self, stamp: float) -> JointState:
        """State at a stamp; BridgeError SENSOR_LOST where none is known on both sides of it."""
        after = bisect.bisect_left(self._states, stamp, key=lambda s: s.stamp)
        if after < len(self._states) and self._states[after].stamp == stamp:
            return self._states[after]
        if not 0 < after < len(self._states):
            newest = self._states[-1].stamp if self._states else float("nan")
            raise BridgeError(
                ErrorCode.SENSOR_LOST,
                f"no joint_states around {stamp:.3f} s; newest is of {newest:.3f} s",
                value=stamp - newest,
                unit="s",
                remedy="Start the arm's driver, or check that its clock is the camera's.",
            )
        a, b = self._states[after - 1], self._states[after]
        f = (stamp - a.stamp) / (b.stamp - a.stamp)
        return JointState(
            stamp,
            (1 - f) * a.position + f * b.position,
            (1 - f) * a.velocity + f * b.velocity,
            (1 - f) * a.gripper_width + f * b.gripper_width,
            (1 - f) * a.gripper_velocity + f * b.gripper_velocity,
        )


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
        self._joints = JointBuffer()
        self._infos: deque[CameraInfo] = deque(maxlen=16)
        self._pending: deque[tuple[Image, float]] = deque(maxlen=2)
        self._guidance: Guidance | None = None
        self._progress: Progress | None = None
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
        return float(self.get_clock().now().nanoseconds) * 1e-9

    def _on_depth(self, msg: Image) -> None:
        if not self.active:
            return
        self._last_depth = self._now()
        self._pending.append((msg, self._last_depth))
        self._serve()

    def _on_info(self, msg: CameraInfo) -> None:
        self._infos.append(msg)
        self._serve()

    def _on_joints(self, msg: JointStateMsg) -> None:
        self._joints.add(conversions.joint_state_from_msg(msg, self._arm.joint_names))
        self._serve()

    def _on_guidance(self, msg: GuidanceMsg) -> None:
        guidance = conversions.guidance_from_msg(msg)
        self._guidance = guidance if guidance.code == ErrorCode.NONE else None

    def _on_progress(self, msg: ProgressMsg) -> None:
        self._progress = conversions.progress_from_msg(msg)

    def _center(self) -> Array | None:
        """Contact to look at; None before the first guidance."""
        if self._guidance is None:
            return None
        progress = self._progress
        if progress is None or progress.guidance_id != self._guidance.guidance_id:
            return next_contact(self._guidance, 0.0, 0)
        return next_contact(self._guidance, progress.progress, progress.events_done)

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
        stamp = conversions.stamp_from_msg(msg.header.stamp)
        age = now - stamp
        if age > self._cropper_config.max_age + self._settings.wait:
            raise BridgeError(
                ErrorCode.STALE_IMAGE,
                f"depth image is {age:.2f} s old",
                value=age,
                limit=self._cropper_config.max_age,
                unit="s",
                remedy="Synchronise the camera's clock, or set use_sim_time alike on all nodes.",
            )
        depth = conversions.depth_from_msg(msg)
        intrinsics = self._intrinsics(stamp)
        check_sizes("depth image", depth.shape, "its camera_info", (intrinsics.height, intrinsics.width))
        frame_name = msg.header.frame_id.lstrip("/") or intrinsics.frame
        transform = self._transforms.lookup(self._settings.base_frame, frame_name, stamp)
        joints = self._joints.at(stamp)
        no_colour = np.broadcast_to(np.zeros(3, np.uint8), (*depth.shape, 3))
        frame = RgbdFrame(stamp, no_colour, depth, intrinsics)
        center = self._center()
        guidance_id = self._guidance.guidance_id if self._guidance is not None else ""
        cloud, quality = self._cropper.crop(frame, transform, joints, center, guidance_id, now)
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

    def _intrinsics(self, stamp: float) -> CameraIntrinsics:
        def off(info: CameraInfo) -> float:
            return abs(conversions.stamp_from_msg(info.header.stamp) - stamp)

        nearest = min(self._infos, key=off, default=None)
        if nearest is None or off(nearest) > self._settings.sync_tolerance:
            raise BridgeError(
                ErrorCode.SENSOR_LOST,
                "no camera_info on camera/depth/camera_info"
                if nearest is None
                else f"nearest camera_info is {off(nearest):.3f} s away from the depth image",
                value=float("nan") if nearest is None else off(nearest),
                limit=self._settings.sync_tolerance,
                unit="s",
                remedy="Let the camera's driver publish camera_info with each depth image, same stamp.",
            )
        return conversions.intrinsics_from_msg(nearest)

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
        nan = float("nan")
        quality = DepthQuality(stamp, 0.0, nan, now - stamp, 0, nan, nan, code)
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
