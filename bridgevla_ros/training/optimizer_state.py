"""State of a training between two runs: weights and optimiser in one safetensors file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn


def save(path: Path, optimizer: torch.optim.Optimizer, model: nn.Module, step: int, seconds: float) -> None:
    """Write both, atomically, with the step and the seconds trained so far."""
    tensors = {f"weight.{k}": v.clone() for k, v in model.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"state.{i}.{k}": torch.as_tensor(v).clone() for k, v in state.items()}
    part = path.with_suffix(".part")
    save_file(tensors, str(part), metadata={"step": str(step), "seconds": str(seconds)})
    part.replace(path)


def load(
    path: Path, optimizer: torch.optim.Optimizer, model: nn.Module, prefixes: tuple[str, ...] = ("",)
) -> tuple[int, float]:
    """Read what ``save`` wrote into both.

    Args:
        path: Of the file.
        optimizer, model: As they were made when it was written.
        prefixes: Only weights whose names begin so are taken; the others stay as they are.

    Returns:
        Step and seconds.
    """
    tensors = load_file(str(path))
    taken = {k[7:]: v for k, v in tensors.items() if k.startswith(tuple(f"weight.{p}" for p in prefixes))}
    model.load_state_dict(model.state_dict() | taken)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("state."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    whole = optimizer.state_dict()
    whole["state"] = state
    optimizer.load_state_dict(whole)
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata() or {}
    return int(metadata.get("step", "0")), float(metadata.get("seconds", "0"))
