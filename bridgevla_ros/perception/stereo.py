"""Depth from a rectified pair of images, by OpenCV's semi-global matching."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.camera import check_sizes
from bridgevla_ros.core.config import ConfigError, param
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.types import CameraIntrinsics

SMOOTHNESS = (8, 32)
"""Penalties for a disparity that changes by one and by more, a pixel of the window: OpenCV's own advice."""


@dataclass(frozen=True)
class StereoConfig:
    """How the pair is matched."""

    min_depth: float = param(
        0.35, "Nearest depth that is looked for; half of it needs twice the time", unit="m", ge=0.05, le=10.0
    )
    max_depth: float = param(3.0, "Farther depth is left out", unit="m", ge=0.1, le=100.0)
    window: int = param(5, "Side of the window that is compared; odd", unit="px", ge=3, le=21)
    uniqueness: int = param(
        5, "A match must be so many per cent better than the second best", unit="%", ge=0, le=50
    )
    speckle: int = param(80, "Smaller patches of one depth are left out", unit="px", ge=0, le=5000)
    matching_noise: float = param(
        0.25, "Standard deviation of a disparity, for the uncertainty of depth", unit="px", ge=0.01, le=5.0
    )

    def __post_init__(self) -> None:
        if self.window % 2 == 0:
            raise ConfigError(f"window is {self.window}; it must be odd, e.g. {self.window + 1}")
        if self.min_depth >= self.max_depth:
            raise ConfigError(f"min_depth {self.min_depth} m is not below max_depth {self.max_depth} m")


@dataclass(frozen=True)
class StereoNodeConfig:
    """Parameters of the node beside those of matching."""

    sync_tolerance: float = param(
        0.005, "Left and right image may differ by this in stamp", unit="s", ge=0.0, le=1.0
    )


class StereoMatcher:
    """Matches pairs of one camera; what it sets up depends on size, focal length and baseline only."""

    def __init__(self, config: StereoConfig) -> None:
        self.config = config
        self._matcher: cv2.StereoSGBM | None = None
        self._range = 0

    def depth(
        self, left: NDArray[np.uint8], right: NDArray[np.uint8], intrinsics: CameraIntrinsics, baseline: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Depth of the left image.

        Args:
            left, right: (H, W) or (H, W, 3) uint8, rectified: what is one thing lies in one row of both.
            intrinsics: Of the left image; the right one has the same, but for its place.
            baseline: Metres that the right camera stands to the right.

        Returns:
            (H, W) float32 metres along the optical axis, NaN where nothing matches, +Inf where it is farther
            than ``max_depth``; (H, W) float32 metres, its standard deviation, NaN where there is no depth.

        Raises:
            BridgeError: BAD_INPUT, the images don't belong together, or the baseline is not positive.
        """
        check_sizes("right image", right.shape[:2], "left image", left.shape[:2])
        check_sizes("left image", left.shape[:2], "camera_info", (intrinsics.height, intrinsics.width))
        if not (np.isfinite(baseline) and baseline > 0.0):
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"the stereo pair's baseline is {baseline} m",
                value=float(baseline),
                limit=0.0,
                unit="m",
                remedy="publish the right camera's camera_info with P[3] = -fx * baseline",
            )
        focal = intrinsics.fx * baseline
        wanted = max(16, int(np.ceil(focal / self.config.min_depth / 16)) * 16)
        if wanted >= intrinsics.width:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"depth from {self.config.min_depth} m on needs disparities up to {wanted} px",
                value=float(wanted),
                limit=float(intrinsics.width),
                unit="px",
                remedy="raise min_depth, or use a shorter baseline",
            )
        # OpenCV leaves out as many columns at the left edge as it looks for disparities: they are put before
        # the image, so that only what the right camera does not see is left out.
        wide = [cv2.copyMakeBorder(_grey(i), 0, 0, wanted, 0, cv2.BORDER_REPLICATE) for i in (left, right)]
        disparity = self._set_up(wanted).compute(*wide)[:, wanted:].astype(np.float32) / 16.0
        disparity[np.arange(intrinsics.width) < disparity] = -1.0
        with np.errstate(divide="ignore"):
            depth = np.where(disparity > 0.0, focal / disparity, np.nan).astype(np.float32)
        depth[depth > self.config.max_depth] = np.inf
        sigma = np.where(np.isfinite(depth), depth**2 / focal * self.config.matching_noise, np.nan)
        return depth, sigma.astype(np.float32)

    def _set_up(self, disparities: int) -> cv2.StereoSGBM:
        if self._matcher is None or disparities != self._range:
            side, small, large = self.config.window, *SMOOTHNESS
            self._range = disparities
            self._matcher = cv2.StereoSGBM.create(
                minDisparity=0,
                numDisparities=disparities,
                blockSize=side,
                P1=small * side**2,
                P2=large * side**2,
                disp12MaxDiff=1,
                preFilterCap=31,
                uniquenessRatio=self.config.uniqueness,
                speckleWindowSize=self.config.speckle,
                speckleRange=2,
                mode=cv2.StereoSGBM_MODE_SGBM_3WAY,
            )
        return self._matcher


def _grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if image.ndim == 2:
        return np.ascontiguousarray(image)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
