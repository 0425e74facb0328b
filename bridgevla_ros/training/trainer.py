"""One stage of the expert's training: optimiser, schedule, average, curves, state on disk."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from rich.progress import Progress
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.expert.model import ExpertModel
from bridgevla_ros.training.appf_config import TrainConfig
from bridgevla_ros.training.objective import Objective, Tensors

STATE = "state.json"
Measure = Callable[[ExpertModel], dict[str, float]]
Keep = Callable[["Trainer"], None]


class Trainer:
    """Trains one stage; the same code on one thread, on several devices, on several machines."""

    def __init__(
        self, config: TrainConfig, model: ExpertModel, stage: int, folder: Path, accelerator: Accelerator,
        *, label: str = "", curves: bool = True,
    ) -> None:  # fmt: skip
        """Args:
        config: Settings.
        model: Trained in place.
        stage: 1 or 2.
        folder: Of states, curves and metrics.jsonl.
        accelerator: Of this process.
        label: What the progress bar says; "stage <n>" if empty.
        curves: Write TensorBoard curves and metrics.
        """
        self.config, self.model, self.stage, self.folder = config, model, stage, folder
        self.settings = config.stage(stage)
        self.label = label or f"stage {stage}"
        self.accelerator = accelerator
        model.requires_grad_(True)
        if stage == 1:  # no clouds: the encoder waits
            model.encoder.requires_grad_(False)
        model.to(accelerator.device)
        self.trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            self.trained,
            self.settings.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.schedule = get_cosine_schedule_with_warmup(optimizer, self.settings.warmup, self.settings.steps)
        self.ema = EMAModel(
            model.parameters(), decay=config.ema_max, use_ema_warmup=True, inv_gamma=1.0,
            power=config.ema_power, foreach=True,
        )  # fmt: skip
        self.objective: nn.Module
        self.objective, self.optimizer = accelerator.prepare(Objective(model, config), optimizer)
        self.step = 0
        self.seconds = 0.0
        main = accelerator.is_main_process and curves
        self.curves = SummaryWriter(str(folder / "curves"), purge_step=None) if main else None

    @property
    def accumulate(self) -> int:
        """Micro-batches that this process adds up for a step.

        Raises:
            BridgeError: BAD_INPUT, the processes cannot share a batch evenly.
        """
        whole = self.settings.batch // self.settings.micro_batch
        if whole % self.accelerator.num_processes:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"{whole} micro-batches of {self.settings.micro_batch} cannot be shared evenly by "
                f"{self.accelerator.num_processes} processes",
                remedy="make micro_batch smaller",
            )
        return whole // int(self.accelerator.num_processes)

    def run(
        self, batches: Iterator[Tensors], progress: Progress, measure: Measure | None = None,
        keep: Keep | None = None,
    ) -> None:  # fmt: skip
        """Train to the end of the stage, saving and measuring; ``keep`` follows each step but the last."""
        task = progress.add_task(self.label, total=self.settings.steps, completed=self.step)
        smooth: dict[str, float] = {}
        self.model.train()
        began = time.monotonic() - self.seconds
        while self.step < self.settings.steps:
            for name, value in self._advance(batches).items():
                smooth[name] = 0.97 * smooth.get(name, value) + 0.03 * value
            self.seconds = time.monotonic() - began
            text = "  ".join(f"{k} {v:.4g}" for k, v in smooth.items())
            progress.update(task, completed=self.step, description=f"{self.label}  {text}")
            last = self.step == self.settings.steps
            if self.curves is not None and (self.step % 20 == 0 or last):
                self._plot(smooth)
            if measure is not None and (self.step % self.config.measure_every == 0 or last):
                self._measure(measure)
            if keep is not None and not last and self.accelerator.is_main_process:
                keep(self)
            if self.step % self.config.save_every == 0 or last:
                self.save()
                progress.console.print(f"{self.label} step {self.step}: {text}")
        if self.curves is not None:
            self.curves.flush()

    def _advance(self, batches: Iterator[Tensors]) -> dict[str, float]:
        """One optimiser step; parts of the loss."""
        count = self.accumulate
        found: dict[str, float] = {}
        for k in range(count):
            data = {name: t.to(self.accelerator.device) for name, t in next(batches).items()}
            if k < count - 1:
                with self.accelerator.no_sync(self.objective):
                    loss, parts = self.objective(data)
                    self.accelerator.backward(loss / count)
            else:
                loss, parts = self.objective(data)
                self.accelerator.backward(loss / count)
            for name, part in parts.items():
                found[name] = found.get(name, 0.0) + float(part) / count
        norm = float(self.accelerator.clip_grad_norm_(self.trained, self.config.clip_norm))
        if not math.isfinite(norm):  # a step would make every weight so, and the next save the state
            raise BridgeError(
                ErrorCode.MODEL_ERROR,
                f"{self.label}, step {self.step}: the gradient is {norm}",
                value=norm,
                remedy=f"what was saved in {self.folder} is of before it, and sound; take a smaller "
                "learning_rate, or look for values that are not finite in the bank, and go on with --resume",
            )
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        self.ema.step(self.model.parameters())
        self.step += 1
        return found

    def _plot(self, values: dict[str, float]) -> None:
        assert self.curves is not None
        for name, value in values.items():
            self.curves.add_scalar(f"stage{self.stage}/{name}", value, self.step)
        self.curves.add_scalar(f"stage{self.stage}/learning_rate", self.schedule.get_last_lr()[0], self.step)

    def _measure(self, measure: Measure) -> None:
        """Held-out figures of the averaged weights, into the curves and metrics.jsonl."""
        if not self.accelerator.is_main_process:
            return
        held_out = measure(self.averaged())
        row = {
            "stage": self.stage, "step": self.step, "clouds": self.step if self.stage == 2 else 0,
            "seconds": round(self.seconds, 1), "held_out": held_out,
        }  # fmt: skip
        with (self.folder / "metrics.jsonl").open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        if self.curves is not None:
            for name, value in held_out.items():
                self.curves.add_scalar(f"held_out/{name}", value, self.step)

    # -- state: safetensors and JSON, never pickle -----------------------------------------------

    def save(self) -> None:
        """Write all that ``load`` needs to go on as if nothing had happened, whole or not at all."""
        if not self.accelerator.is_main_process:
            return
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"ema.{i}": v for i, v in enumerate(self.ema.shadow_params)}
        for i, parameter in enumerate(self.trained):
            for name, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{i}.{name}"] = torch.as_tensor(value)
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"stage{self.stage}-{self.step}.safetensors"
        _replace(self.folder / name, lambda path: save_file(_plain(tensors), path))
        state = {
            "stage": self.stage, "step": self.step, "ema_step": self.ema.optimization_step,
            "seconds": round(self.seconds, 1), "file": name,
        }  # fmt: skip
        _replace(self.folder / STATE, lambda path: path.write_text(json.dumps(state)))
        for old in self.folder.glob(f"stage{self.stage}-*.safetensors"):
            if old.name != name:
                old.unlink()

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a saved step of this stage.

        Raises:
            BridgeError: MODEL_ERROR, the state is missing, half-written or of another shape.
        """
        tensors = read_state(self.folder, state)
        try:
            self.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        except RuntimeError as error:
            raise BridgeError(
                ErrorCode.MODEL_ERROR,
                f"{self.folder / state['file']} holds a network of another shape: {error}",
                remedy="resume with the configuration that began it, or choose another --output",
            ) from error
        device = self.accelerator.device
        self.ema.shadow_params = [tensors[f"ema.{i}"].to(device) for i in range(len(self.ema.shadow_params))]
        for i, parameter in enumerate(self.trained):
            prefix = f"optimizer.{i}."
            values = {k[len(prefix) :]: v.to(device) for k, v in tensors.items() if k.startswith(prefix)}
            self.optimizer.state[parameter] = values
        self.step, self.ema.optimization_step = state["step"], state["ema_step"]
        self.seconds = float(state["seconds"])
        self.schedule.last_epoch = self.step
        for group, base, share in zip(
            self.optimizer.param_groups, self.schedule.base_lrs, self.schedule.lr_lambdas, strict=True
        ):
            group["lr"] = base * share(self.step)

    def averaged(self) -> ExpertModel:
        """A copy of the model with the averaged weights."""
        copy = ExpertModel(self.model.config)
        copy.load_state_dict(self.model.state_dict())
        self.ema.copy_to(copy.parameters())
        return copy.eval()


def read_state(folder: Path, state: dict[str, Any]) -> Tensors:
    """Tensors of a saved step.

    Raises:
        BridgeError: MODEL_ERROR, the file is missing or half-written.
    """
    path = folder / str(state.get("file", "state"))
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise BridgeError(
            ErrorCode.MODEL_ERROR,
            f"cannot go on from {path}: {error}",
            remedy="begin again without --resume",
        ) from error


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    partial = path.with_name(f"{path.name}.part")
    write(partial)
    partial.replace(path)


def _plain(tensors: dict[str, Any]) -> Tensors:
    return {k: v.detach().clone().cpu().contiguous() for k, v in tensors.items()}
