"""Depth where the sensor sees none: a network looks at the colour image, the sensor tells it the scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForDepthEstimation

from bridgevla_ros.core import resources
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import RgbdFrame

MIN_PIXELS, MIN_SHARE = 500, 0.05
"""Pixels, and their share of the image, that the sensor must see for a scale to be believed (our choice)."""

ROUNDS, CUT = 12, 1.5
"""Rounds of reweighting, and robust standard deviations from which a pixel counts less (Huber)."""

LEAST_SIGMA = 0.01
"""Share of depth: where the sensor is blind, a network is never surer than this (our choice)."""

WRITES = ("inverse", "depth")
"""What a network's numbers are, but for scale and shift: of inverse depth (MiDaS, DPT, Depth Anything), or of
depth (ZoeDepth, the metric checkpoints of Depth Anything)."""


@dataclass(frozen=True)
class Fit:
    """How a network's numbers become metres.

    Attributes:
        scale, shift: ``scale * number + shift`` is depth in metres, or its inverse.
        inverse: Which of both.
        residual: Share of depth, robust standard deviation over the pixels that the sensor sees.
        pixels: How many those are.
    """

    scale: float
    shift: float
    inverse: bool
    residual: float
    pixels: int

    def metres(self, numbers: Array) -> Array:
        """Depth; NaN where the line leaves what can be a depth."""
        value = self.scale * numbers + self.shift
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = 1.0 / value if self.inverse else value
        return np.where(np.isfinite(depth) & (depth > 0.0), depth, np.nan)


def fit_scale(
    numbers: NDArray[np.floating], depth: NDArray[np.floating], writes: str, max_residual: float
) -> Fit:
    """Robust scale and shift from a network's numbers to what a sensor measures.

    Iteratively reweighted least squares with Huber's weights: flying pixels, and things that only one of
    both sees, do not pull.

    Args:
        numbers: (H, W), bigger for nearer where ``writes`` is "inverse".
        depth: (H, W) metres, not finite where the sensor sees nothing.
        writes: One of ``WRITES``.
        max_residual: Share of depth.

    Raises:
        BridgeError: DEPTH_HOLE, the sensor sees too little; CALIBRATION, the two do not fit.
    """
    seen = np.isfinite(depth) & (depth > 0.0) & np.isfinite(numbers)
    count, least = int(seen.sum()), max(MIN_PIXELS, round(MIN_SHARE * depth.size))
    if count < least:
        raise BridgeError(
            ErrorCode.DEPTH_HOLE,
            f"the depth sensor sees {count} pixels: too few to give monocular depth its scale",
            value=float(count),
            limit=float(least),
            unit="px",
            remedy="check the depth camera; a network alone does not know how far things are",
        )
    x, z = numbers[seen].astype(np.float64), depth[seen].astype(np.float64)
    inverse = writes == "inverse"
    y = 1.0 / z if inverse else z
    design = np.column_stack([x, np.ones(count)])
    weight = np.ones(count)
    solution = np.zeros(2)
    for _ in range(ROUNDS):
        root = np.sqrt(weight)[:, None]
        solution = np.linalg.lstsq(design * root, y * root[:, 0], rcond=None)[0]
        off = np.abs(y - design @ solution)
        spread = max(1.4826 * float(np.median(off)), 1e-9)
        weight = np.minimum(1.0, CUT * spread / np.maximum(off, 1e-12))
    fit = Fit(float(solution[0]), float(solution[1]), inverse, 0.0, count)
    again = fit.metres(x)
    relative = np.abs(np.where(np.isfinite(again), again, np.inf) - z) / z
    residual = 1.4826 * float(np.median(relative))
    if not residual <= max_residual or fit.scale <= 0.0:
        falls = " and falls where depth grows" if fit.scale <= 0.0 else ""
        raise BridgeError(
            ErrorCode.CALIBRATION,
            f"monocular depth is {100 * residual:.0f}% off what the sensor sees{falls}",
            value=residual,
            limit=max_residual,
            remedy="set depth_writes as the model writes (inverse or depth), or take a better model",
        )
    return replace(fit, residual=residual)


def fill(frame: RgbdFrame, numbers: NDArray[np.floating], writes: str, max_residual: float) -> RgbdFrame:
    """A frame whose holes are filled from a network's numbers; what the sensor sees stays as it is.

    Filled pixels have the fit's residual as their own ``sigma``, others what they had.

    Raises:
        BridgeError: As ``fit_scale``.
    """
    fit = fit_scale(numbers, frame.depth, writes, max_residual)
    guessed = fit.metres(numbers.astype(np.float64))
    hole = np.isnan(frame.depth) & np.isfinite(guessed)
    depth = np.where(hole, guessed, frame.depth).astype(np.float32)
    known = np.full(depth.shape, np.nan, np.float32) if frame.sigma is None else frame.sigma
    sigma = np.where(hole, max(fit.residual, LEAST_SIGMA) * guessed, known).astype(np.float32)
    return replace(frame, depth=depth, sigma=sigma)


class DepthNetwork:
    """A local AutoModelForDepthEstimation checkpoint folder; nothing is downloaded.

    Raises:
        BridgeError: MODEL_ERROR, there is none, or it cannot be loaded.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        wanted = (
            "set depth_weights to a folder written by save_pretrained of a depth-estimation model and its "
            "image processor, or depth_source to sensor"
        )
        with resources.loading(folder, device, wanted):
            self._device = torch.device(device)
            self._processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
            model = AutoModelForDepthEstimation.from_pretrained(folder, local_files_only=True)
            self._model = model.to(self._device).eval()
        self.name = str(self._model.config.model_type)

    @torch.inference_mode()
    def numbers(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(H, W) what the network writes, brought to the size of an (H, W, 3) image."""
        image = Image.fromarray(np.ascontiguousarray(rgb))
        inputs = self._processor(images=image, return_tensors="pt").to(self._device)
        written = self._model(**inputs).predicted_depth
        if written.ndim == 3:
            written = written[:, None]
        full = torch.nn.functional.interpolate(
            written.float(), size=rgb.shape[:2], mode="bilinear", align_corners=False
        )
        return np.asarray(full[0, 0].cpu().numpy(), np.float32)
