"""Depth images of a table, boxes and a robot's body, computed exactly: for benchmarks and tests.

No simulator is needed, and what every pixel shows is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import CameraIntrinsics, RgbdFrame
from bridgevla_ros.perception.kernels import body_distance, compiled

FAR, TABLE, ROBOT, FIRST_BOX = 0, 1, 2, 3
"""Labels of a pixel; box i is FIRST_BOX + i."""


@dataclass(frozen=True, eq=False)
class SyntheticScene:
    """What stands in front of the camera, base frame.

    Attributes:
        boxes: (B, 2, 3) metres, lowest and highest corner of each box.
        body: Capsules: (C, 3) starts, (C, 3) ends, (C,) radii, metres.
        table_height: Metres.
    """

    boxes: Array
    body: tuple[Array, Array, Array]
    table_height: float = 0.0


def camera_looking_at(eye: Array, target: Array) -> Transform:
    """T_base_camera of an optical frame (x right, y down, z forward) at ``eye``, metres."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    return Transform(eye, np.column_stack([right, np.cross(forward, right), forward]))


def intrinsics_of(width: int, height: int, fov_y: float = 0.9) -> CameraIntrinsics:
    """Pinhole camera with a vertical field of view in radians."""
    f = 0.5 * height / np.tan(0.5 * fov_y)
    return CameraIntrinsics(width, height, f, f, 0.5 * (width - 1), 0.5 * (height - 1))


def render(
    scene: SyntheticScene, intrinsics: CameraIntrinsics, T_base_camera: Transform, stamp: float = 0.0
) -> tuple[RgbdFrame, NDArray[np.int64]]:
    """Exact depth (NaN beyond 5 m), black colour, and the label of each pixel (H, W)."""
    k = np.array([intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy])
    start, end, radius = (np.ascontiguousarray(a, np.float64) for a in scene.body)
    depth, label = _trace(
        intrinsics.height,
        intrinsics.width,
        k,
        np.ascontiguousarray(T_base_camera.rotation),
        T_base_camera.translation,
        scene.table_height,
        np.ascontiguousarray(scene.boxes, np.float64).reshape(-1, 2, 3),
        start,
        end,
        radius,
    )
    rgb = np.zeros((intrinsics.height, intrinsics.width, 3), np.uint8)
    return RgbdFrame(stamp, rgb, depth, intrinsics), label


@compiled
def _trace(
    height: int, width: int, k: Array, R: Array, t: Array, table: float, boxes: Array,
    start: Array, end: Array, radius: Array,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:  # fmt: skip
    depth = np.full((height, width), np.nan, np.float32)
    label = np.zeros((height, width), np.int64)
    for v in range(height):
        for u in range(width):
            a, b = (u - k[2]) / k[0], (v - k[3]) / k[1]
            dx = R[0, 0] * a + R[0, 1] * b + R[0, 2]
            dy = R[1, 0] * a + R[1, 1] * b + R[1, 2]
            dz = R[2, 0] * a + R[2, 1] * b + R[2, 2]
            best, which = 5.0, 0
            if dz < 0.0 and (table - t[2]) / dz < best:
                best, which = (table - t[2]) / dz, 1
            for i in range(len(boxes)):
                near, far = 0.0, best
                for axis, d in ((0, dx), (1, dy), (2, dz)):
                    if abs(d) < 1e-12:
                        if not boxes[i, 0, axis] <= t[axis] <= boxes[i, 1, axis]:
                            far = -1.0
                        continue
                    one, two = (boxes[i, 0, axis] - t[axis]) / d, (boxes[i, 1, axis] - t[axis]) / d
                    near, far = max(near, min(one, two)), min(far, max(one, two))
                if near < far:
                    best, which = near, 3 + i
            norm = np.sqrt(dx * dx + dy * dy + dz * dz)
            s = 0.0
            for _ in range(128):
                gap = body_distance(t[0] + s * dx, t[1] + s * dy, t[2] + s * dz, start, end, radius)[0]
                if gap < 1e-4:
                    best, which = s, 2
                    break
                s += gap / norm
                if s >= best:
                    break
            if which > 0:
                depth[v, u] = best
                label[v, u] = which
    return depth, label
