"""The simulated stereo pair, and the projector that throws speckles for it.

The pair sees infrared, as active stereo cameras do: the projector's speckles are in its grey images and not
in the colour image. The left one stands where the colour camera stands, the right one a baseline to its
right, the projector halfway between them; all look the same way, so that the pair is rectified. Left out of
the projector: falling off with distance, shading by the surface's slope, and blur out of focus (our choice).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.types import CameraIntrinsics

Render = Callable[[float], tuple[NDArray[np.uint8], NDArray[np.float32]]]
"""Metres that the camera stands aside, to its colour and depth image."""

TEXEL = 1.0 / 300.0
"""Width of a speckle on a surface 1 m ahead, metres: two pixels of 640 (our choice)."""

REACH = (0.85, 0.6)
"""Half of the pattern's width and height on a surface 1 m ahead, metres; beyond, it repeats."""

SPECKLED = 0.3
"""Share of the texels that are bright."""

IN_SHADOW = 0.012
"""Metres that a point lies behind what the projector reaches in its direction, from which it is in shadow."""


@lru_cache(maxsize=1)
def pattern() -> NDArray[np.float32]:
    """(H, W) 0..1: random speckles, the same ones always, with soft edges as a lens makes them."""
    columns, rows = (round(2 * half / TEXEL) for half in REACH)
    dots = np.random.default_rng(0).random((rows, columns)) < SPECKLED
    return np.asarray(cv2.GaussianBlur(dots.astype(np.float32), (0, 0), 0.5), np.float32)


def pair(
    render: Render, intrinsics: CameraIntrinsics, baseline: float, projector: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(H, W) uint8 grey images, left and right.

    Args:
        render: What a camera would see from places beside the colour camera's.
        intrinsics: Of all of them.
        baseline: Metres.
        projector: Brightness of a speckle, in shares of what lights the scene without it; 0: no projector.
    """
    reached = render(baseline / 2)[1] if projector > 0.0 else None
    images = []
    for aside in (0.0, baseline):
        rgb, depth = render(aside)
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
        if reached is not None:
            grey *= 1.0 + projector * _speckles(depth, reached, intrinsics, aside - baseline / 2)
            grey /= 1.0 + projector / 2  # exposure
        images.append(np.clip(grey + 0.5, 0.0, 255.0).astype(np.uint8))
    return images[0], images[1]


def _speckles(
    depth: NDArray[np.float32], reached: NDArray[np.float32], intrinsics: CameraIntrinsics, aside: float
) -> NDArray[np.float32]:
    """(H, W) 0..1: how brightly each pixel of a camera ``aside`` of the projector is lit by it."""
    k = intrinsics
    rows, columns = (np.asarray(index, np.float32) for index in np.indices(depth.shape))
    far = np.where(np.isfinite(depth), depth, np.float32(1e3))
    along = (columns - k.cx) / k.fx + aside / far  # tangents of the direction from the projector
    down = (rows - k.cy) / k.fy
    shape = pattern().shape
    lit = cv2.remap(
        pattern(),
        (along / TEXEL + shape[1] / 2).astype(np.float32),
        (down / TEXEL + shape[0] / 2).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )
    pixel = (along * k.fx + k.cx).astype(np.float32)
    nearest = cv2.remap(
        reached, pixel, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0
    )
    return np.where(far > nearest + IN_SHADOW, 0.0, lit).astype(np.float32)
