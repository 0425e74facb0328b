"""From what the cropper hears to what it puts out: which joints, which contact, which camera."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bridgevla_ros.core.camera import check_sizes
from bridgevla_ros.core.config import param
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.guidance import next_contact
from bridgevla_ros.core.inputs import JointBuffer, Lookup, Stamped
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import CameraIntrinsics, Cloud, DepthQuality, Guidance, Progress, RgbdFrame
from bridgevla_ros.perception.cropper import Cropper
from bridgevla_ros.perception.kernels import F32


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


@dataclass(frozen=True, eq=False)
class DepthImage:
    """A depth image that waits to be cropped.

    Attributes:
        stamp: Seconds.
        frame: Name of its optical frame; empty: the one that its camera_info names.
        read: Decodes it to (H, W) float32 metres.
    """

    stamp: float
    frame: str
    read: Callable[[], F32]


class CropperFeed:
    """Keeps joints, camera_info, guidance and progress, and crops depth images with them."""

    def __init__(self, settings: CropperNodeConfig, cropper: Cropper) -> None:
        self.settings = settings
        self.cropper = cropper
        self.joints = JointBuffer()
        self._infos: Stamped[Callable[[], CameraIntrinsics]] = Stamped(16)
        self.guidance: Guidance | None = None
        self.progress: Progress | None = None

    def on_info(self, stamp: float, read: Callable[[], CameraIntrinsics]) -> None:
        """Take a camera_info, decoded when it is used."""
        self._infos.add(stamp, read)

    def on_guidance(self, guidance: Guidance) -> None:
        """Take guidance; a refusal leaves nothing to look at."""
        self.guidance = guidance if guidance.code == ErrorCode.NONE else None

    def on_progress(self, progress: Progress) -> None:
        """Take executed progress."""
        self.progress = progress

    def crop(self, image: DepthImage, lookup: Lookup, now: float) -> tuple[Cloud, DepthQuality]:
        """Crop one image around the contact that is next.

        Args:
            image: Stamps of images grow, or the cropper starts afresh.
            lookup: Transforms.
            now: Seconds.

        Raises:
            BridgeError: STALE_IMAGE, SENSOR_LOST, NO_TRANSFORM or BAD_INPUT; the cropper is as before.
        """
        age = now - image.stamp
        limit = self.cropper.config.max_age
        if age > limit + self.settings.wait:
            raise BridgeError(
                ErrorCode.STALE_IMAGE,
                f"depth image is {age:.2f} s old",
                value=age,
                limit=limit,
                unit="s",
                remedy="Synchronise the camera's clock, or set use_sim_time alike on all nodes.",
            )
        depth = image.read()
        intrinsics = self._intrinsics(image.stamp)
        check_sizes("depth image", depth.shape, "its camera_info", (intrinsics.height, intrinsics.width))
        frame_name = image.frame or intrinsics.frame
        transform = lookup(self.settings.base_frame, frame_name, image.stamp)
        joints = self.joints.at(image.stamp)
        no_colour = np.broadcast_to(np.zeros(3, np.uint8), (*depth.shape, 3))
        frame = RgbdFrame(image.stamp, no_colour, depth, intrinsics)
        center, guidance_id, progress_stamp = self._center()
        cloud, quality = self.cropper.crop(frame, transform, joints, center, guidance_id, now)
        named = replace(
            quality,
            guidance_id=cloud.guidance_id,
            progress_stamp=progress_stamp,
            joint_stamps=tuple(s.stamp for s in self.joints.around(image.stamp)),
        )
        return cloud, named

    def refusal(self, code: ErrorCode, stamp: float, now: float) -> DepthQuality:
        """Quality of an image that could not be cropped, or of none."""
        nan = float("nan")
        return DepthQuality(stamp, 0.0, nan, now - stamp, 0, nan, nan, code, computed_at=now)

    def _center(self) -> tuple[Array | None, str, float]:
        """Contact to look at, its guidance, stamp of the progress that told; None before guidance."""
        guidance, progress = self.guidance, self.progress
        if guidance is None:
            return None, "", float("nan")
        if progress is None or progress.guidance_id != guidance.guidance_id:
            return next_contact(guidance, 0.0, 0), guidance.guidance_id, float("nan")
        center = next_contact(guidance, progress.progress, progress.events_done)
        return center, guidance.guidance_id, progress.stamp

    def _intrinsics(self, stamp: float) -> CameraIntrinsics:
        nearest, tolerance = self._infos.nearest(stamp), self.settings.sync_tolerance
        if nearest is None or abs(nearest[0] - stamp) > tolerance:
            off = float("nan") if nearest is None else abs(nearest[0] - stamp)
            raise BridgeError(
                ErrorCode.SENSOR_LOST,
                "no camera_info on camera/depth/camera_info"
                if nearest is None
                else f"nearest camera_info is {off:.3f} s away from the depth image",
                value=off,
                limit=tolerance,
                unit="s",
                remedy="Let the camera's driver publish camera_info with each depth image, same stamp.",
            )
        return nearest[1]()
