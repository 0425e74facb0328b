"""Settings of fine-tuning a vision-language model: one declaration each, for YAML file and command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from bridgevla_ros.core.config import ConfigError, from_mapping, param, specs
from bridgevla_ros.planner.config import CONVENTION_NAMES


@dataclass(frozen=True)
class SftConfig:
    """How a model is fine-tuned. The paper gives none of these figures: they are our choice."""

    convention: str = param(
        "", "How the model writes coordinates; required, as for the planner", choices=CONVENTION_NAMES
    )
    turns: str = param(
        "both",
        "What is taught: anchors alone, or the second turn's waypoints too (where labels have them)",
        choices=("anchors", "both"),
    )
    steps: int = param(1000, "Optimiser steps", ge=1)
    batch: int = param(4, "Examples at once on each device", ge=1)
    accumulate: int = param(4, "Batches that make one step", ge=1)
    learning_rate: float = param(1e-4, "Peak; a cosine leads down to 0", ge=0.0, le=1.0)
    warmup: float = param(0.05, "Share of the steps that leads up to it", ge=0.0, le=1.0)
    weight_decay: float = param(0.0, "Of AdamW", ge=0.0)
    clip_norm: float = param(1.0, "Greatest norm of the gradient", ge=0.0)
    rank: int = param(16, "Of LoRA's matrices; 0 trains all weights", ge=0, le=1024)
    alpha: int = param(32, "LoRA's scale is this by the rank", ge=0)
    dropout: float = param(0.05, "On LoRA's input", ge=0.0, le=1.0)
    targets: str = param(
        "language",
        "Linear layers that LoRA changes: of the language part, or all (vision part too)",
        choices=("language", "all"),
    )
    checkpointing: bool = param(False, "Less memory for a third more time: activations are computed again")
    bf16: bool = param(True, "bfloat16 where the device is a GPU; a CPU takes float32")
    device: str = param("auto", "auto: a GPU where there is one; or cpu", choices=("auto", "cpu"))
    threads: int = param(1, "Threads of torch", ge=1, le=256)
    seed: int = param(0, "Of LoRA's weights and of the order of examples", ge=0)
    held_out: float = param(0.1, "Share of the examples that only measures", ge=0.0, le=0.9)
    probe_every: int = param(100, "Steps between measurements: questions and pointing", ge=1)
    save_every: int = param(100, "Steps between states that --resume goes on from", ge=1)
    margin: float = param(
        0.05,
        "Fall of the share of general questions answered right, from before, that ends training; 1: never",
        ge=0.0,
        le=1.0,
    )
    pointing: int = param(32, "Held-out examples that each measurement lets the model answer", ge=0)
    demonstrations_min: int = param(
        50, "Fewest demonstrations of a task (as many as the paper's real robot had)", ge=1
    )
    max_new_tokens: int = param(256, "Most tokens of an answer while measuring", ge=8, le=4096)

    def __post_init__(self) -> None:
        if not self.convention:
            raise ConfigError(
                "convention must be set: how this model writes coordinates, one of "
                f"{list(CONVENTION_NAMES[1:])}"
            )


Settings = TypeVar("Settings")


def add_options(parser: argparse.ArgumentParser, settings: type[Any] = SftConfig) -> None:
    """An option for each setting; what is not given comes from the YAML file."""
    group = parser.add_argument_group("settings (instead of --config's)")
    for name, (kind, default, spec) in specs(settings).items():
        words = f"{spec.description} (default: {default})" if default != "" else spec.description
        flag = f"--{name.replace('_', '-')}"
        if type(default) is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=words)
        else:
            group.add_argument(flag, type=kind, default=None, choices=_named(spec.choices), help=words)


def _named(choices: tuple[str, ...]) -> tuple[str, ...] | None:
    return tuple(c for c in choices if c) or None


def load(path: Path, args: argparse.Namespace) -> SftConfig:
    """Settings of fine-tuning from a YAML file and the options over it. Raises as ``read_settings``."""
    return read_settings(path, args, SftConfig)


def read_settings(path: Path, args: argparse.Namespace, settings: type[Settings]) -> Settings:
    """Settings from a YAML file and the options over it.

    Raises:
        ConfigError: Unknown, of the wrong type, out of range; no convention.
    """
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {error}") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold names and values, not {type(values).__name__}")
    given = {name: getattr(args, name) for name in specs(settings) if getattr(args, name, None) is not None}
    return from_mapping(settings, {**values, **given}, str(path))
