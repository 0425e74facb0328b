"""Node ``stereo``: a rectified pair of images in, the depth image that the other nodes read out."""

from __future__ import annotations

import sys

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.inputs import Stamped
from bridgevla_ros.perception.stereo import StereoConfig, StereoMatcher, StereoNodeConfig
from bridgevla_ros.ros import conversions, parameters, qos
from bridgevla_ros.ros.diagnostics import Diagnostics
from bridgevla_ros.ros.spin import run_node


class StereoNode(Node):
    """Matches the newest pair; a pair that comes while one is matched replaces the one that waits.

    The left camera is the colour camera, so that depth is registered to colour.
    """

    def __init__(self) -> None:
        super().__init__("stereo")
        self._settings, config = parameters.declare_all(self, StereoNodeConfig, StereoConfig)
        self._matcher = StereoMatcher(config)
        self._diagnostics = Diagnostics(self)
        self._left: Stamped[Image] = Stamped(8)
        self._right: Stamped[Image] = Stamped(8)
        self._left_info: CameraInfo | None = None
        self._right_info: CameraInfo | None = None
        self._done = -1.0
        self._depth = self.create_publisher(Image, "camera/depth/image_raw", qos.SENSOR)
        self._info = self.create_publisher(CameraInfo, "camera/depth/camera_info", qos.SENSOR)
        self.create_subscription(Image, "camera/color/image_raw", self._on_left, qos.SENSOR)
        self.create_subscription(Image, "camera/right/image_raw", self._on_right, qos.SENSOR)
        self.create_subscription(CameraInfo, "camera/color/camera_info", self._on_left_info, qos.SENSOR)
        self.create_subscription(CameraInfo, "camera/right/camera_info", self._on_right_info, qos.SENSOR)
        self.create_timer(0.01, self._serve)

    def _on_left(self, msg: Image) -> None:
        self._left.add(conversions.stamp_from_msg(msg.header.stamp), msg)

    def _on_right(self, msg: Image) -> None:
        self._right.add(conversions.stamp_from_msg(msg.header.stamp), msg)

    def _on_left_info(self, msg: CameraInfo) -> None:
        self._left_info = msg

    def _on_right_info(self, msg: CameraInfo) -> None:
        self._right_info = msg

    def _serve(self) -> None:
        """Match the newest pair that was not matched yet."""
        if self._left_info is None or self._right_info is None:
            return
        for stamp, left in self._left.newest_first():
            right = self._right.within(stamp, self._settings.sync_tolerance)
            if stamp == self._done:
                return
            if right is not None:
                self._done = stamp
                self._match(stamp, left, right[1], self._left_info, self._right_info)
                return

    def _match(
        self, stamp: float, left: Image, right: Image, left_info: CameraInfo, right_info: CameraInfo
    ) -> None:
        try:
            intrinsics = conversions.intrinsics_from_msg(left_info)
            baseline = conversions.baseline_from_msg(right_info)
            depth, sigma = self._matcher.depth(
                conversions.rgb_from_msg(left), conversions.rgb_from_msg(right), intrinsics, baseline
            )
        except BridgeError as error:
            self.get_logger().warning(f"{error} {error.remedy}", throttle_duration_sec=5.0)
            self._diagnostics.set(error.code, error.message)
            return
        self._depth.publish(conversions.depth_to_msg(depth, stamp, intrinsics.frame, "32FC1"))
        self._info.publish(conversions.intrinsics_to_msg(intrinsics, stamp))
        seen = float(np.isfinite(depth).mean())
        self._diagnostics.set(
            ErrorCode.NONE,
            f"{seen:.0%} of the left image has depth",
            {"valid_fraction": seen, "sigma_m": float(np.nanmedian(sigma)) if seen else float("nan")},
        )


def main() -> int:
    """Entry point."""
    return run_node(StereoNode)


if __name__ == "__main__":
    sys.exit(main())
