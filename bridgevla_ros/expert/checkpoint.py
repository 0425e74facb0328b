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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.expert.config import ModelConfig

SHIPPED = Path(__file__).resolve().parents[1] / "weights" / "expert"
"""The checkpoint that ships with the package."""

WEIGHTS, CARD = "model.safetensors", "expert.json"
FORMAT = 1


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
        BridgeError: MODEL_ERROR, a key is missing or unknown.
    """
    known = {f.name for f in dataclasses.fields(ModelConfig)}
    if set(values) != known:
        raise BridgeError(
            ErrorCode.MODEL_ERROR,
            f"the expert's checkpoint does not fit this version: unknown {sorted(set(values) - known)}, "
            f"missing {sorted(known - set(values))}",
            remedy="train it again or install the version that wrote it",
        )
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return ModelConfig(**fields)


def save(folder: Path, config: ModelConfig, tensors: dict[str, NDArray[Any]], card: dict[str, Any]) -> str:
    """Write weights and card; returns the weights' SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: np.ascontiguousarray(value, dtype=np.float16) for name, value in tensors.items()}
    save_file(half, folder / WEIGHTS)
    sha = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    document = {"format": FORMAT, "sha256": sha, "model": config_to_dict(config), **card}
    (folder / CARD).write_text(json.dumps(document, indent=1) + "\n")
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
    card = json.loads((path / CARD).read_text())
    if card.get("format") != FORMAT:
        raise BridgeError(
            ErrorCode.MODEL_ERROR, f"{path / CARD} has format {card.get('format')}, expected {FORMAT}"
        )
    sha = hashlib.sha256((path / WEIGHTS).read_bytes()).hexdigest()
    if sha != card["sha256"]:
        raise BridgeError(
            ErrorCode.MODEL_ERROR,
            f"{path / WEIGHTS} is damaged: its SHA-256 is {sha[:12]}, the card says {card['sha256'][:12]}",
            remedy="copy the checkpoint again",
        )
    tensors = {name: value.astype(np.float32) for name, value in load_file(path / WEIGHTS).items()}
    return Checkpoint(path, config_from_dict(card["model"]), tensors, sha, card)
