"""Train a small vision-language model that points, from the embedded planner's eyes: text tokens out.

Tower: the embedded planner's trained image trunk (--eyes). Language model: new, trained here on the embedded
planner's rendered scenes (--data, rendered where missing) and phrasings, with an auxiliary loss on where it
looks while it writes a coordinate. OUT/model is a checkpoint in transformers' format:
  bridgevla up planner:=transformers planner_model:=OUT/model planner_convention:=qwen3
Curves: tensorboard --logdir OUT/curves; measurements: OUT/metrics.jsonl.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from bridgevla_ros.bags.provenance import commit
from bridgevla_ros.core import resources
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.planner.backends.embedded import SHIPPED
from bridgevla_ros.training import sft_config
from bridgevla_ros.training.planner_data import TRAIN_SEED, VALIDATION_SEED, Frames
from bridgevla_ros.training.small_vlm_config import SmallVlmConfig

PHRASINGS = 5
"""That the tokenizer is learned from, for each of its tokens."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``bridgevla train small-vlm``."""
    parser.add_argument(
        "--out", type=Path, default=Path("runs/small_vlm"), help="folder (default: %(default)s)"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("runs/planner/data"),
        help="cache of rendered frames, that of bridgevla train planner (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--shards", type=int, default=12, help="of rendered frames (default: %(default)s)")
    parser.add_argument(
        "--eyes", type=Path, default=SHIPPED, help="checkpoint of the embedded planner (default: ours)"
    )
    parser.add_argument(
        "--questions", default="questions/general.csv",
        help="general questions to be learned by heart; none: do not (default: ours, 40)",
    )  # fmt: skip
    parser.add_argument(
        "--config",
        default="training/small_vlm.yaml",
        help="settings, in config/ or a path (default: %(default)s)",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last state in --out")
    sft_config.add_options(parser, SmallVlmConfig)


def run(args: argparse.Namespace) -> int:
    """Train as asked; returns 0."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    config = sft_config.read_settings(resources.find_config(args.config), args, SmallVlmConfig)
    torch.set_num_threads(config.threads)
    state = args.out / "state.safetensors"
    if state.exists() != args.resume:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{args.out} holds {'a training already' if state.exists() else 'no state to go on from'}",
            remedy="go on with --resume, or choose another --out"
            if state.exists()
            else "begin without --resume",
        )
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        training = Training(args, config, bar)
        training.go_on()
    print(json.dumps(training.card(), indent=2))
    print(f"bridgevla up planner:=transformers planner_model:={args.out / 'model'} planner_convention:=qwen3")
    return 0


class Training:
    """A training, from its folder on.

    Args:
        args: Of the command.
        config: Settings.
        bar: Shows progress.
    """

    def __init__(self, args: argparse.Namespace, config: SmallVlmConfig, bar: Progress) -> None:
        from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
        from torch.utils.tensorboard import SummaryWriter
        from transformers import AutoModelForImageTextToText

        from bridgevla_ros.planner.processors import load_processor
        from bridgevla_ros.training import optimizer_state, planner, sft, small_vlm_step

        self.args, self.config, self.bar = args, config, bar
        self.folder, self.state = args.out / "model", args.out / "state.safetensors"
        self.questions = sft.read_questions(args.questions)
        if not args.resume:
            self._make()
        task = bar.add_task("rendering", total=args.shards)
        paths = planner.shards(args.data, args.shards, lambda done, n: bar.update(task, completed=done))
        self.frames = [Frames.load(path) for path in paths]
        self.check = _check(planner.validation(args.data), config)
        self.processor: Any = load_processor(self.folder)
        self.model: Any = AutoModelForImageTextToText.from_pretrained(
            self.folder, local_files_only=True, attn_implementation="eager", dtype=torch.float32
        )
        sizes = self.model.config.vision_config
        grid = sizes.image_height // sizes.patch_size, sizes.image_width // sizes.patch_size
        self.writer = small_vlm_step.Writer(self.processor.tokenizer, grid, sizes.patch_size)
        self.teacher = small_vlm_step.Teacher(
            self.model, self.writer, config.near, config.pointing_layer, config.pointing_heads
        )
        tower = list(self.model.model.vision_tower.parameters())
        projector = list(self.model.model.multi_modal_projector.parameters())
        mine = {id(p) for p in (*tower, *projector)}
        rest = [p for p in self.model.parameters() if id(p) not in mine]
        self.parameters = [*rest, *projector, *tower]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": rest, "scale": 1.0},
                {"params": projector, "scale": config.projector_rate},
                {"params": tower, "scale": config.tower_rate},
            ],
            config.learning_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay,
        )  # fmt: skip
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
        self.step, self.spent = 0, 0.0
        if args.resume:
            self.average.module.load_state_dict(self.model.state_dict())
            self.step, self.spent = optimizer_state.load(self.state, self.optimizer, self.model)
        self.curves = SummaryWriter(str(args.out / "curves"))
        self.measured: dict[str, float] = {}
        self.started = time.monotonic()

    def _make(self) -> None:
        """An untrained checkpoint, its tokenizer learned from phrasings and questions."""
        from bridgevla_ros.training import planner_phrasings, small_vlm_model

        rng = random.Random(self.config.seed)
        texts = [planner_phrasings.sample(rng).text for _ in range(PHRASINGS * self.config.words)]
        texts += [p["text"] for q in self.questions for m in q.messages() for p in m["content"]] * 5
        self.args.out.mkdir(parents=True, exist_ok=True)
        small_vlm_model.make(
            self.folder, texts, eyes=self.args.eyes, width=self.config.width, layers=self.config.layers,
            heads=self.config.heads, words=self.config.words, layer=self.config.pointing_layer,
            seed=self.config.seed,
        )  # fmt: skip

    @property
    def seconds(self) -> float:
        """Trained so far."""
        return self.spent + time.monotonic() - self.started

    @property
    def share(self) -> float:
        """Of the training that is done, by steps or by time."""
        limit = 60.0 * self.config.minutes
        return max(self.step / self.config.steps, self.seconds / limit if limit else 0.0)

    def go_on(self) -> None:
        """Train to the end; measure and keep along the way."""
        config = self.config
        task = self.bar.add_task("small-vlm", total=1.0)
        recent: dict[str, list[float]] = {}
        while (share := self.share) < 1.0:
            for name, value in self._one(share).items():
                recent.setdefault(name, []).append(value)
            told = ", ".join(f"{n} {np.mean(v):.2f}" for n, v in recent.items())
            self.bar.update(task, completed=share, description=f"step {self.step}, {told}")
            if self.step % config.measure_every == 0 or self.share >= 1.0:
                self._keep({n: float(np.mean(v)) for n, v in recent.items()})
                recent = {}
        self.bar.update(task, completed=1.0)
        self.curves.close()

    def _one(self, share: float) -> dict[str, float]:
        config, tower = self.config, self.config.tower_rate > 0.0 and share >= self.config.tower_from
        rise = min(1.0, share / config.warmup) if config.warmup else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * group["scale"] * rise * (1 + math.cos(math.pi * share)) / 2
        batch = self.writer.batch(self._scenes())
        found = self.teacher.losses(batch, tower)
        total = config.naming * found.words + found.numbers + config.pointing * found.looks
        told = {"words": found.words, "numbers": found.numbers, "looks": found.looks}
        if self.questions and self.step % config.question_every == 0:
            rng = random.Random(f"{config.seed} {self.step}")
            told["questions"] = self.teacher.general(rng.sample(self.questions, min(8, len(self.questions))))
            total = total + told["questions"]
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, config.clip_norm)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        self.step += 1
        return {name: float(value.detach()) for name, value in told.items()}

    def _scenes(self) -> list[Any]:
        from bridgevla_ros.training import small_vlm_data

        config = self.config
        rng = np.random.default_rng([config.seed, self.step])
        height, width = self.frames[0].rgb.shape[1:3]
        out: list[Any] = []
        while len(out) < config.images:
            seed = [config.seed, self.step, int(rng.integers(1 << 30))]
            if rng.random() < config.drawings:
                made = small_vlm_data.drawing(height, width, config.lessons, seed)
            else:
                frames = self.frames[int(rng.integers(len(self.frames)))]
                made = small_vlm_data.scene(
                    frames, int(rng.integers(len(frames))), config.lessons, seed, plain=config.plain
                )
            if made.lessons:
                out.append(made)
        return out

    def _keep(self, recent: dict[str, float]) -> None:
        """Measure the averaged weights; write them and the state to go on from.

        Args:
            recent: Mean losses since it was last done.
        """
        from bridgevla_ros.training import optimizer_state, small_vlm_measure

        average: Any = self.average.module
        self.measured = small_vlm_measure.measure(average, self.writer, self.check)
        row = {"step": self.step, "seconds": round(self.seconds, 1), **recent, **self.measured}
        with (self.args.out / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        for name, value in row.items():
            self.curves.add_scalar(name, value, self.step)
        self.bar.console.print(", ".join(f"{k} {v:.3g}" for k, v in row.items()))
        optimizer_state.save(self.state, self.optimizer, self.model, self.step, round(self.seconds, 1))
        write(average, self.folder, self.card())

    def card(self) -> dict[str, Any]:
        """How the model was made."""
        return {
            "settings": dataclasses.asdict(self.config),
            "eyes": "image trunk of the embedded planner, with its trained weights",
            "frames": sum(map(len, self.frames)),
            "first_seed": TRAIN_SEED,
            "validation_first_seed": VALIDATION_SEED,
            "questions": len(self.questions),
            "steps": self.step,
            "seconds": round(self.seconds, 1),
            "validation": self.measured,
            "commit": commit(),
        }


def write(model: Any, folder: Path, card: dict[str, Any]) -> None:
    """Weights in half precision, which load in single precision, and the account of their training."""
    half = {name: value.half() for name, value in model.state_dict().items() if name != "lm_head.weight"}
    model.save_pretrained(folder, state_dict=half)
    (folder / "training.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _check(frames: Frames, config: SmallVlmConfig) -> list[Any]:
    """Scenes with instructions to measure with, of seeds that nothing is trained on."""
    from bridgevla_ros.training import small_vlm_data

    out, count = [], 0
    for index in np.random.default_rng(0).permutation(len(frames)):
        if count >= config.measured:
            break
        made = small_vlm_data.scene(frames, int(index), 2, [VALIDATION_SEED, int(index)], train=False)
        if made.lessons:
            out.append(made)
            count += len(made.lessons)
    return out
