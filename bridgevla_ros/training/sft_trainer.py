"""Fine-tuning by trl's SFTTrainer, measured along the steps and ended when general knowledge falls."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from rich.progress import Progress
from torch.utils.tensorboard import SummaryWriter
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import get_last_checkpoint
from trl.trainer.sft_config import SFTConfig as TrlConfig
from trl.trainer.sft_trainer import SFTTrainer

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.types import RgbdFrame
from bridgevla_ros.planner import prompt
from bridgevla_ros.planner.backends.chat import read_anchors
from bridgevla_ros.training import sft_questions
from bridgevla_ros.training.sft_config import SftConfig
from bridgevla_ros.training.sft_examples import Example, turns
from bridgevla_ros.training.sft_model import Learner, collate, targets
from bridgevla_ros.training.sft_questions import Question

METRICS = "metrics.jsonl"
NEAR = 10.0
"""Pixels at 320 of width within which a point counts where no mask says what it lies on (our choice)."""


@dataclass(frozen=True)
class Material:
    """What is taught, and what is measured with.

    Attributes:
        train, held_out: Examples.
        questions: General ones; may be empty.
    """

    train: Sequence[Example]
    held_out: Sequence[Example]
    questions: list[Question]


@dataclass(frozen=True)
class Row:
    """Measurements at a step; shares are 0..1, None where nothing was measured.

    Attributes:
        step: 0 is before training.
        general: Share of general questions answered right; ``general_likelihood`` of the right letter, nats.
        readable: Share of held-out first turns that were answered so that the planner can read it.
        pointing: Share of which both points lie on what was meant, or rightly say that it is not there.
        asked: How many first turns those two are of.
    """

    step: int
    general: float | None
    general_likelihood: float | None
    readable: float | None
    pointing: float | None
    asked: int


def split(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Examples to train on, and to measure with.

    Raises:
        BridgeError: BAD_INPUT: nothing is left to train on.
    """
    order = np.random.default_rng([seed, 0x5F]).permutation(len(examples))
    count = round(share * len(examples))
    if len(examples) - count < 1:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{len(examples)} examples leave none to train on",
            remedy="give more with --scenes, --demonstrations or --examples",
        )
    return [examples[i] for i in order[count:]], [examples[i] for i in order[:count]]


def measure(learner: Learner, material: Material, config: SftConfig, step: int) -> Row:
    """Ask the model as it is now: general questions, and to point in held-out examples."""
    general = likelihood = None
    if material.questions:
        found = sft_questions.score(
            learner.model, learner.processor.tokenizer, learner.prompt, material.questions
        )
        general, likelihood = found.rate, found.likelihood
    chosen = material.held_out[: config.pointing]
    outcomes = [outcome(learner, example, config.convention) for example in chosen]
    count = len(outcomes)
    readable = sum(r for r, _ in outcomes) / count if count else None
    pointing = sum(p for _, p in outcomes) / count if count else None
    return Row(step, general, likelihood, readable, pointing, count)


def outcome(learner: Learner, example: Example, convention: str) -> tuple[bool, bool]:
    """Whether the planner can read what the model answers, and whether it points at what is meant."""
    asked = prompt.first_turn(example.instruction, convention)
    rgb = example.rgb()
    frame = RgbdFrame(0.0, rgb, np.full(rgb.shape[:2], np.nan, np.float32), example.intrinsics)
    try:
        found = read_anchors(learner.answer(asked, example), convention, frame, example.instruction)
    except BridgeError as error:
        if error.code is ErrorCode.NO_TARGET:
            return True, not len(example.pixels)
        if error.code in (ErrorCode.PARSE, ErrorCode.OUT_OF_RANGE, ErrorCode.AMBIGUOUS, ErrorCode.TIMEOUT):
            return False, False
        raise
    given = [found.source] if found.destination is None else [found.source, found.destination]
    if len(given) != len(example.pixels):
        return True, False
    return True, all(_on(example, i, a.pixel) for i, a in enumerate(given))


def _on(example: Example, index: int, pixel: Any) -> bool:
    """Whether a point lies on the thing (0) or place (1) that is meant."""
    if example.mask is None:
        apart = float(np.linalg.norm(np.asarray(pixel) - example.pixels[index]))
        return apart <= NEAR * example.intrinsics.width / 320.0
    with Image.open(example.mask) as image:
        mask = np.asarray(image)
    u, v = (round(float(x)) for x in pixel)
    return bool(mask[np.clip(v, 0, mask.shape[0] - 1), np.clip(u, 0, mask.shape[1] - 1)] == index + 1)


class Watch(TrainerCallback):
    """Progress, curves, measurements, and the early stop.

    Attributes:
        rows: Measurements so far.
        kept: Step whose weights are in ``best``; None before the first that is worth keeping.
        stopped: Why training ended early; empty otherwise.
    """

    def __init__(
        self, learner: Learner, material: Material, config: SftConfig, folder: Path, bar: Progress
    ) -> None:
        self._learner, self._material, self._config, self._folder = learner, material, config, folder
        self._bar = bar
        self._task = bar.add_task("fine-tuning", total=config.steps)
        self._curves = SummaryWriter(str(folder / "curves"))
        self.rows: list[Row] = read_rows(folder)
        self.kept = self.rows[-1].step if self.rows and (folder / "best").exists() else None
        self.stopped = ""

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **more: Any
    ) -> TrainerControl:
        """Measure what the model knows before anything is taught."""
        if state.global_step == 0:
            self.rows = []
            (self._folder / METRICS).unlink(missing_ok=True)
            self._measure(0)
        else:  # what a killed run measured after the state that is gone on from is measured again
            self.rows = [r for r in self.rows if r.step <= state.global_step]
            lines = [json.dumps(asdict(row)) + "\n" for row in self.rows]
            (self._folder / METRICS).write_text("".join(lines), encoding="utf-8")
        self._bar.update(self._task, completed=state.global_step)
        return control

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: Any = None, **more: Any
    ) -> None:
        """Curves of the training itself."""
        for name in ("loss", "learning_rate", "grad_norm", "mean_token_accuracy"):
            if logs and name in logs:
                self._curves.add_scalar(f"train/{name}", float(logs[name]), state.global_step)
        if logs and "loss" in logs:
            self._bar.update(self._task, description=f"fine-tuning, loss {float(logs['loss']):.3f}")

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **more: Any
    ) -> TrainerControl:
        """Measure where it is time; stop where general knowledge fell by more than the margin."""
        step = state.global_step
        self._bar.update(self._task, completed=step)
        if step % self._config.probe_every == 0 or step == self._config.steps:
            now = self._measure(step)
            before = self.rows[0].general
            fallen = None if now.general is None or before is None else before - now.general
            if fallen is not None and fallen > self._config.margin + 1e-9:
                self.stopped = (
                    f"step {step}: general questions fell from {100 * (before or 0):.0f}% to "
                    f"{100 * (now.general or 0):.0f}%, more than the margin of "
                    f"{100 * self._config.margin:.0f}%"
                )
                control.should_training_stop = True
            else:
                keep(more["model"], self._folder / "best")
                self.kept = step
        return control

    def on_train_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **more: Any
    ) -> TrainerControl:
        """Close the curves."""
        self._curves.close()
        return control

    def _measure(self, step: int) -> Row:
        row = measure(self._learner, self._material, self._config, step)
        self.rows.append(row)
        with (self._folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        for name, value in asdict(row).items():
            if value is not None and name not in ("step", "asked"):
                self._curves.add_scalar(f"measured/{name}", value, step)
        self._bar.console.print(shown(row))
        return row


def shown(row: Row) -> str:
    """One line."""
    named = (("general", row.general), ("readable", row.readable), ("pointing", row.pointing))
    return f"step {row.step}: " + ", ".join(f"{n} {100 * v:.0f}%" for n, v in named if v is not None)


def read_rows(folder: Path) -> list[Row]:
    """Measurements of a training so far; the last line may be half written."""
    path, rows = folder / METRICS, []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(Row(**json.loads(line)))
        except ValueError:
            break
    return rows


def keep(model: Any, folder: Path) -> None:
    """Write adapter or weights, in place of those before."""
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


class Trainer(SFTTrainer):
    """trl's, without the page for a model hub that it would write with each state."""

    def create_model_card(self, *args: Any, **more: Any) -> None:
        """Nothing: sft.json tells how it was made."""


def train(
    learner: Learner, material: Material, config: SftConfig, folder: Path, bar: Progress, *, resume: bool
) -> Watch:
    """Fine-tune the learner's model; adapters of the last good measurement are in ``folder``/best.

    Args:
        learner: Its model is changed.
        material: Examples and questions.
        config: Settings.
        folder: Of states, curves and measurements.
        bar: Shows progress.
        resume: Go on from the last state in ``folder``.

    Raises:
        BridgeError: MODEL_ERROR: nothing to resume from.
    """
    from peft import LoraConfig

    lessons = turns(material.train, config.convention, config.turns == "both")
    if not lessons:
        raise BridgeError(ErrorCode.BAD_INPUT, "the examples have no answer that this convention can write")
    states = folder / "states"
    last = get_last_checkpoint(str(states)) if resume and states.is_dir() else None
    if resume and last is None:
        raise BridgeError(
            ErrorCode.MODEL_ERROR, f"{states} holds no state to go on from", remedy="begin without --resume"
        )
    tokenizer = learner.processor.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    def batch(rows: list[dict[str, int]]) -> dict[str, torch.Tensor]:
        chosen = [lessons[row["images"]] for row in rows]
        return collate([learner.encode(t, material.train[t.example]) for t in chosen], pad)

    lora = None
    if config.rank:
        lora = LoraConfig(
            r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, task_type="CAUSAL_LM",
            target_modules=targets(learner.model, config.targets),
        )  # fmt: skip
    watch = Watch(learner, material, config, folder, bar)
    trainer = Trainer(
        model=learner.model,
        args=settings(config, states, learner.device.type),
        train_dataset=Dataset.from_dict({"images": list(range(len(lessons)))}),  # rows of ``lessons``
        data_collator=batch,
        processing_class=learner.processor,
        peft_config=lora,
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)  # ``watch`` tells of the progress
    trainer.train(resume_from_checkpoint=last)
    return watch


def settings(config: SftConfig, states: Path, device: str) -> TrlConfig:
    """Our settings as trl's."""
    return TrlConfig(
        output_dir=str(states),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch,
        gradient_accumulation_steps=config.accumulate,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(config.warmup * config.steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.clip_norm,
        activation_checkpointing=config.checkpointing,
        bf16=config.bf16 and device != "cpu",
        use_cpu=device == "cpu",
        seed=config.seed,
        save_strategy="steps",
        save_steps=config.save_every,
        save_total_limit=2,
        logging_steps=max(1, min(10, config.steps // 20)),
        report_to="none",
        disable_tqdm=True,
        max_length=None,
        remove_unused_columns=False,
        dataloader_pin_memory=device != "cpu",
    )
