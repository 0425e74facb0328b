"""Settings of training the small vision-language model."""

from __future__ import annotations

from dataclasses import dataclass

from bridgevla_ros.core.config import param


@dataclass(frozen=True)
class SmallVlmConfig:
    """How it is made and trained: our choice, all of it."""

    width: int = param(192, "Of the language model", ge=32, le=2048)
    layers: int = param(4, "Of the language model", ge=2, le=48)
    heads: int = param(4, "Of each layer", ge=1, le=64)
    words: int = param(2400, "Tokens beside numbers and fixed pieces", ge=300, le=60000)
    minutes: float = param(60.0, "Training ends then; 0: after all steps", ge=0.0)
    steps: int = param(100_000, "Most optimiser steps", ge=1)
    images: int = param(1, "A step", ge=1)
    lessons: int = param(8, "Instructions an image; its tokens are read once for all of them", ge=1)
    drawings: float = param(0.08, "Share of images that are drawn shapes", ge=0.0, le=1.0)
    plain: float = param(
        0.3,
        "Share of pick-and-places in the plainest words: by them it finds out what words mean",
        ge=0.0,
        le=1.0,
    )
    learning_rate: float = param(5e-4, "Peak; a cosine leads down to 0", ge=0.0, le=1.0)
    warmup: float = param(0.02, "Share of the training that leads up to it", ge=0.0, le=1.0)
    weight_decay: float = param(0.01, "Of AdamW", ge=0.0)
    clip_norm: float = param(1.0, "Greatest norm of the gradient", ge=0.0)
    naming: float = param(3.0, "Weight of the loss on words, most of which are always the same", ge=0.0)
    ema: float = param(0.99, "Share of the averaged weights that each step keeps", ge=0.0, le=1.0)
    pointing: float = param(1.0, "Weight of the auxiliary loss on attention to image tokens", ge=0.0)
    pointing_layer: int = param(2, "Layer whose attention is taught, from 0, with the one before", ge=1)
    pointing_heads: int = param(1, "Heads of it", ge=1)
    near: float = param(12.0, "Of 1000: deviation of the numbers about the right one that are taught", ge=0.1)
    projector_rate: float = param(
        0.02,
        "Learning rate of the projector, of the language model's: it takes a thousand inputs",
        ge=0.0,
        le=1.0,
    )
    tower_from: float = param(0.5, "Share of the training after which the vision tower learns too", ge=0.0)
    tower_rate: float = param(0.1, "Its learning rate, of the language model's; 0: never", ge=0.0, le=1.0)
    question_every: int = param(4, "Steps between batches of general questions", ge=1)
    measure_every: int = param(500, "Steps between measurements and states", ge=1)
    measured: int = param(96, "Instructions of each measurement", ge=1)
    threads: int = param(1, "Threads of torch", ge=1, le=256)
    seed: int = param(0, "Of the weights and of everything drawn", ge=0)
