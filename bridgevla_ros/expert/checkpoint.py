"""A checkpoint is a folder: weights, a JSON that says everything about them, and the onnx graph.

``model.safetensors`` holds the averaged (EMA) weights in float16; ``expert.json`` the model's shape,
normaliser, data recipe, seed and metrics; ``sampler_<n>.onnx`` the unrolled denoising loop of n steps
WITHOUT weights: they are filled in from the safetensors file, so that there is one truth. Nothing is
ever unpickled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.expert.config import ModelConfig

SHIPPED = Path(__file__).resolve().parents[1] / "weights" / "expert"
"""The checkpoint that ships with the package."""

WEIGHTS, CARD = "model.safetensors", "expert.json"
FORMAT = 3
"""2: ``encoder`` and ``denoiser`` are named, the denoiser's body is a module of its own."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """One loaded checkpoint.

    Attributes:
        folder: Where it lies.
        config: Shape of the network.
        tensors: Name -> float32 array.
        sha256: Of the weights' file.
        card: The whole JSON.
    """

    folder: Path
    config: ModelConfig
    tensors: dict[str, NDArray[np.float32]]
    sha256: str
    card: dict[str, Any]


def config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """JSON form of a model's shape."""
    return dataclasses.asdict(config)


def config_from_dict(values: dict[str, Any]) -> ModelConfig:
    """Inverse of ``config_to_dict``.

    Raises:
        BridgeError: MODEL_ERROR, a key is missing or unknown, or names what this version does not know.
    """
    known = {f.name for f in dataclasses.fields(ModelConfig)}
    if not isinstance(values, dict) or set(values) != known:
        values = values if isinstance(values, dict) else {}
        raise BridgeError(
            ErrorCode.MODEL_ERROR,
            f"the expert's checkpoint does not fit this version: unknown {sorted(set(values) - known)}, "
            f"missing {sorted(known - set(values))}",
            remedy="train it again or install the version that wrote it",
        )
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    try:
        return ModelConfig(**fields)
    except BridgeError as error:
        raise BridgeError(
            ErrorCode.MODEL_ERROR,
            f"the expert's checkpoint does not fit this version: {error.message}",
            remedy="train it again or install the version that wrote it",
        ) from error


def save(folder: Path, config: ModelConfig, tensors: dict[str, NDArray[Any]], card: dict[str, Any]) -> str:
    """Write weights and card, each whole or not at all; returns the weights' SHA-256.

    Raises:
        BridgeError: MODEL_ERROR, a weight is not finite in half precision.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with np.errstate(over="ignore"):  # what overflows is refused by name below
        half = {name: np.ascontiguousarray(value, dtype=np.float16) for name, value in tensors.items()}
    _check_finite(folder / WEIGHTS, half)
    partial = folder / f"{WEIGHTS}.part"
    save_file(half, partial)
    partial.chmod(0o644)
    sha = hashlib.sha256(partial.read_bytes()).hexdigest()
    partial.replace(folder / WEIGHTS)
    document = {"format": FORMAT, "sha256": sha, "model": config_to_dict(config), **card}
    partial = folder / f"{CARD}.part"
    partial.write_text(json.dumps(document, indent=1) + "\n")
    partial.replace(folder / CARD)
    return sha


def load(folder: str | Path = "") -> Checkpoint:
    """Read a checkpoint folder; empty for the one that ships.

    Raises:
        BridgeError: MODEL_ERROR, something is missing, damaged or of another version.
    """
    path = Path(folder).expanduser() if str(folder) else SHIPPED
    for name in (WEIGHTS, CARD):
        if not (path / name).is_file():
            raise BridgeError(
                ErrorCode.MODEL_ERROR,
                f"{path / name} does not exist",
                remedy="train it: bridgevla train expert",
            )
    card = _read_card(path / CARD)
    config = config_from_dict(card["model"])
    sha = hashlib.sha256((path / WEIGHTS).read_bytes()).hexdigest()
    if sha != card["sha256"]:
        raise BridgeError(
            ErrorCode.MODEL_ERROR,
            f"{path / WEIGHTS} is damaged or belongs to another card: its SHA-256 is {sha[:12]}, the card "
            f"says {str(card['sha256'])[:12]}",
            remedy="copy the checkpoint again",
        )
    try:
        tensors = {name: value.astype(np.float32) for name, value in load_file(path / WEIGHTS).items()}
    except SafetensorError as error:
        raise BridgeError(
            ErrorCode.MODEL_ERROR,
            f"{path / WEIGHTS} cannot be read: {error}",
            remedy="copy the checkpoint again",
        ) from error
    _check_finite(path / WEIGHTS, tensors)
    return Checkpoint(path, config, tensors, sha, card)


def _read_card(path: Path) -> dict[str, Any]:
    """The JSON beside the weights.

    Raises:
        BridgeError: MODEL_ERROR, it is half-written, of another format or lacks what is needed.
    """
    try:
        card = json.loads(path.read_text())
    except ValueError as error:
        raise BridgeError(
            ErrorCode.MODEL_ERROR, f"{path} is no JSON: {error}", remedy="copy the checkpoint again"
        ) from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = card.get("format") if isinstance(card, dict) else None
        raise BridgeError(
            ErrorCode.MODEL_ERROR,
            f"{path} has format {found}, expected {FORMAT}",
            remedy="train it again or install the version that wrote it",
        )
    for key in ("sha256", "model"):
        if key not in card:
            raise BridgeError(
                ErrorCode.MODEL_ERROR,
                f"{path} lacks {key!r}: without it the weights cannot be understood",
                remedy="copy the checkpoint again",
            )
    return card


def _check_finite(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    bad = [name for name, value in tensors.items() if not np.isfinite(value).all()]
    if bad:
        raise BridgeError(
            ErrorCode.MODEL_ERROR,
            f"{path}: {len(bad)} tensors hold values that are not finite, the first is {bad[0]!r}",
            remedy="train it again with a lower learning rate, or take an earlier state",
        )
