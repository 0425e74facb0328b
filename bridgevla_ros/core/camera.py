"""Depth images and the pinhole camera."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import CameraIntrinsics, RgbdFrame


def _millimetres(raw: NDArray[np.generic]) -> NDArray[np.float32]:
    depth = raw.astype(np.float32) * np.float32(1e-3)
    depth[raw == 0] = np.nan
    return depth


def _metres(raw: NDArray[np.generic]) -> NDArray[np.float32]:
    return raw.astype(np.float32)


DECODERS: dict[str, tuple[str, Callable[[NDArray[np.generic]], NDArray[np.float32]]]] = {
    "16UC1": ("u2", _millimetres),
    "32FC1": ("f4", _metres),
}
"""Depth encodings of REP-118: element type and the way to metres."""


def decode_depth(
    data: bytes | memoryview, encoding: str, height: int, width: int, step: int, big_endian: bool
) -> NDArray[np.float32]:
    """Depth image to metres.

    Args:
        data: ``height`` rows of ``step`` bytes; a row may end in padding.
        encoding: ``16UC1`` (millimetres, 0 invalid) or ``32FC1`` (metres).
        height, width: Pixels.
        step: Bytes from one row to the next.
        big_endian: Byte order of ``data``.

    Returns:
        (H, W) float32, metres along the optical axis; NaN invalid, +Inf too far, -Inf too close.

    Raises:
        BridgeError: BAD_INPUT for an unknown encoding or a buffer that does not hold the image.
    """
    if encoding not in DECODERS:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"depth encoding {encoding!r}; expected one of {sorted(DECODERS)}",
            remedy="Set the camera driver's depth format to 16UC1 or 32FC1.",
        )
    kind, to_metres = DECODERS[encoding]
    dtype = np.dtype(kind).newbyteorder(">" if big_endian else "<")
    used = width * dtype.itemsize
    available = memoryview(data).nbytes
    if height <= 0 or width <= 0 or step < used or available < height * step:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"depth image of {width}x{height} {encoding} with {step} bytes a row needs rows of {used} bytes "
            f"and {height * max(step, used)} bytes in all, but has {available}",
            value=float(available),
            limit=float(height * max(step, used)),
            unit="bytes",
        )
    rows = np.frombuffer(data, np.uint8, height * step).reshape(height, step)[:, :used]
    return to_metres(np.ascontiguousarray(rows).view(dtype))


def check_frame(frame: RgbdFrame) -> None:
    """Refuse a frame whose colour, depth and intrinsics do not belong together.

    Raises:
        BridgeError: BAD_INPUT with both sizes, or for intrinsics that are no camera's.
    """
    k = frame.intrinsics
    check_sizes("depth image", frame.depth.shape[:2], "camera_info", (k.height, k.width))
    check_sizes("depth image", frame.depth.shape[:2], "colour image", frame.rgb.shape[:2])
    values = np.array([k.fx, k.fy, k.cx, k.cy])
    if not np.isfinite(values).all() or k.fx <= 0.0 or k.fy <= 0.0:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"camera_info has fx, fy, cx, cy = {values.tolist()}; focal lengths must be positive",
            remedy="Calibrate the camera, or let its driver publish camera_info.",
        )


def check_sizes(name: str, size: tuple[int, ...], other: str, other_size: tuple[int, ...]) -> None:
    """Raise BAD_INPUT naming both unless two (height, width) are the same."""
    if tuple(size) != tuple(other_size):
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{name} is {size[1]}x{size[0]}, but {other} is {other_size[1]}x{other_size[0]}",
            value=float(size[1]),
            limit=float(other_size[1]),
            unit="px",
            remedy="Use the depth image that is registered to the colour image.",
        )


def deproject(pixels: ArrayLike, depth: ArrayLike, intrinsics: CameraIntrinsics) -> Array:
    """Pixels with depth to points.

    Args:
        pixels: (M, 2) u, v; pixel centres lie at whole numbers.
        depth: (M,) metres along the optical axis.
        intrinsics: Of the camera.

    Returns:
        (M, 3) metres, camera optical frame; rows of invalid depth are not finite.
    """
    uv, z = np.asarray(pixels, np.float64).reshape(-1, 2), np.asarray(depth, np.float64).reshape(-1)
    with np.errstate(invalid="ignore"):
        x = (uv[:, 0] - intrinsics.cx) / intrinsics.fx * z
        y = (uv[:, 1] - intrinsics.cy) / intrinsics.fy * z
    return np.column_stack([x, y, z])


def project(points_camera: ArrayLike, intrinsics: CameraIntrinsics) -> Array:
    """Points to pixels.

    Args:
        points_camera: (M, 3) metres, camera optical frame.
        intrinsics: Of the camera.

    Returns:
        (M, 2) u, v, also outside the image; NaN for points not in front of the camera.
    """
    p = np.asarray(points_camera, np.float64).reshape(-1, 3)
    z = np.where(p[:, 2] > 0.0, p[:, 2], np.nan)
    return np.column_stack(
        [p[:, 0] / z * intrinsics.fx + intrinsics.cx, p[:, 1] / z * intrinsics.fy + intrinsics.cy]
    )
