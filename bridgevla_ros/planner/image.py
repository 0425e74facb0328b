"""What the grounding network is shown: colour and height above the table, resized.

The table is z = 0 of the base frame.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import RgbdFrame

HEIGHT_STEP = 0.002
"""Metres to a step of the stored height."""

HEIGHT_ZERO = 20
HEIGHT_UNKNOWN = 255
"""Stored heights: 0 is 4 cm below the table, 254 is 47 cm above it (clipped), 255 unknown."""


def height_map(frame: RgbdFrame, T_base_camera: Transform) -> NDArray[np.uint8]:
    """(H, W) uint8: height above the table in ``HEIGHT_STEP``, ``HEIGHT_UNKNOWN`` where depth fails."""
    k = frame.intrinsics
    rows, columns = np.ogrid[: frame.depth.shape[0], : frame.depth.shape[1]]
    rows, columns = rows.astype(np.float32), columns.astype(np.float32)
    rotation = T_base_camera.rotation[2].astype(np.float32)
    ray = rotation[0] * (columns - k.cx) / k.fx + rotation[1] * (rows - k.cy) / k.fy + rotation[2]
    valid = np.isfinite(frame.depth) & (frame.depth > 0)
    z = np.where(valid, frame.depth, 0.0) * ray + np.float32(T_base_camera.translation[2])
    steps = np.clip(np.round(z / HEIGHT_STEP) + HEIGHT_ZERO, 0, HEIGHT_UNKNOWN - 1)
    return np.where(valid, steps, HEIGHT_UNKNOWN).astype(np.uint8)


def network_image(
    frame: RgbdFrame, T_base_camera: Transform, height: int, width: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Resize a frame for the network.

    Returns:
        (height, width, 3) uint8 colour, and (height, width) uint8 stored height.
    """
    heights = height_map(frame, T_base_camera)
    shrink = width < frame.rgb.shape[1]
    rgb = cv2.resize(frame.rgb, (width, height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
    return np.asarray(rgb), np.asarray(cv2.resize(heights, (width, height), interpolation=cv2.INTER_NEAREST))


def network_input(rgb: NDArray[np.uint8], heights: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(..., H, W, 3) and (..., H, W) uint8 -> (..., 5, H, W) float32: colour in -1..1, decimetres, valid."""
    colour = np.moveaxis(rgb.astype(np.float32) / 127.5 - 1.0, -1, -3)
    valid = heights != HEIGHT_UNKNOWN
    decimetres = np.where(valid, (heights.astype(np.float32) - HEIGHT_ZERO) * (HEIGHT_STEP * 10), 0.0)
    extra = np.stack([decimetres, valid.astype(np.float32)], axis=-3).astype(np.float32)
    return np.concatenate([colour, extra], axis=-3)
