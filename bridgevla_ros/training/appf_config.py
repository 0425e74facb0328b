"""Settings of a training of the action expert: one dataclass, one YAML file each."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.expert.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Stage:
    """Settings of one stage.

    Attributes:
        steps: Optimiser steps.
        batch: Samples a step, over all processes; ``micro_batch``: samples at once.
        learning_rate: Peak; ``warmup``: steps to it; a cosine leads down to 0.
    """

    steps: int
    batch: int
    micro_batch: int
    learning_rate: float
    warmup: int


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of a training.

    Attributes:
        seed: Of weights and data.
        device: "cpu", or "auto" for what accelerate finds.
        workers: Processes that draw batches beside the training; 0 draws in it.
        plans: Guidances that states are drawn from.
        denoising_repeats: Noise levels that a cloud is used for.
        auxiliary: Weight of the direct loss on the contact estimate; ``voting``: of the points' votes.
        weight_decay, betas, clip_norm: Of AdamW.
        ema_power, ema_max: Of the average of the weights.
        save_every, measure_every: Steps between states on disk and between held-out figures.
        model: Fields of ModelConfig that differ from its defaults.
        recipe: Fields of the data's Recipe that differ from its defaults.
        stage1, stage2: Trajectories alone; with clouds.
    """

    seed: int
    device: str
    workers: int
    plans: int
    denoising_repeats: int
    auxiliary: float
    voting: float
    weight_decay: float
    betas: tuple[float, float]
    clip_norm: float
    ema_power: float
    ema_max: float
    save_every: int
    measure_every: int
    model: dict[str, Any]
    recipe: dict[str, Any]
    stage1: Stage
    stage2: Stage

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Read YAML.

        Raises:
            BridgeError: BAD_INPUT, a key is missing or unknown, or a batch is no multiple of its parts.
        """
        values = yaml.safe_load(path.read_text())
        _check_keys(path, "", values, {f.name for f in dataclasses.fields(cls)})
        for name in ("stage1", "stage2"):
            _check_keys(path, f"{name}: ", values[name], {f.name for f in dataclasses.fields(Stage)})
            values[name] = Stage(**values[name])
            if values[name].batch % values[name].micro_batch:
                raise BridgeError(
                    ErrorCode.BAD_INPUT,
                    f"{path}: {name}: a batch of {values[name].batch} is no multiple of micro_batch "
                    f"{values[name].micro_batch}",
                )
        values["betas"] = tuple(values["betas"])
        return cls(**values)

    def shortened(self, like: TrainConfig) -> TrainConfig:
        """These settings, model and recipe with the few steps and small batches of others (``--smoke``)."""
        stages = {
            name: dataclasses.replace(
                getattr(self, name), steps=few.steps, batch=few.batch, micro_batch=few.micro_batch,
                warmup=few.warmup,
            )
            for name, few in (("stage1", like.stage1), ("stage2", like.stage2))
        }  # fmt: skip
        return dataclasses.replace(
            self, plans=like.plans, save_every=like.save_every, measure_every=like.measure_every, **stages
        )

    def shape(self) -> ModelConfig:
        """The network's shape.

        Raises:
            BridgeError: BAD_INPUT, ``model`` holds a key that is none of ModelConfig's, or an unknown name.
        """
        return ModelConfig(**settings(ModelConfig, self.model, "model"))

    def stage(self, number: int) -> Stage:
        """Settings of stage 1 or 2."""
        return self.stage1 if number == 1 else self.stage2


def settings(cls: type[Any], values: dict[str, Any], what: str) -> dict[str, Any]:
    """Keyword arguments for a dataclass from YAML: lists become tuples.

    Raises:
        BridgeError: BAD_INPUT, a key is unknown.
    """
    known = {f.name for f in dataclasses.fields(cls)}
    if set(values) - known:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{what}: unknown {sorted(set(values) - known)}; expected some of {sorted(known)}",
        )
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def _check_keys(path: Path, where: str, values: Any, known: set[str]) -> None:
    given = set(values) if isinstance(values, dict) else set()
    if given != known:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{path}: {where}unknown {sorted(given - known)}, missing {sorted(known - given)}",
            remedy="compare it with config/training/appf.yaml, which has every key",
        )
