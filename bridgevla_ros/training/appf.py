"""Anchored pre-training and fine-tuning of the action expert: ``bridgevla train expert``.

Stage 1 learns trajectories alone, in very large batches: from guidance, state and a told contact to a
chunk. Stage 2 learns to find the contact in the cloud and goes on from there. Without stage 1 the
paper's expert underfits. Both keep an exponential average of the weights, which is what ships.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from diffusers import DDIMScheduler
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Tensor

from bridgevla_ros.core import resources
from bridgevla_ros.expert import checkpoint
from bridgevla_ros.expert.config import ExpertConfig, ModelConfig
from bridgevla_ros.expert.model import ExpertModel
from bridgevla_ros.expert.runtime_onnx import save_graph
from bridgevla_ros.training import expert_metrics
from bridgevla_ros.training.episodes import FIRST_SEED, View, generate, load_shard
from bridgevla_ros.training.episodes_sampling import Batch, GuidanceLibrary, Recipe, Sampler

HELD_OUT = 0.1
"""Share of the bank's scenes, those with the highest seeds, that only measure."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """Settings of one stage: optimiser steps, samples a step, samples at once, peak rate, warm-up steps."""

    steps: int
    batch: int
    micro_batch: int
    learning_rate: float
    warmup: int


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of a training; see config/training/appf.yaml for each."""

    seed: int
    device: str
    plans: int
    denoising_repeats: int
    auxiliary: float
    weight_decay: float
    betas: tuple[float, float]
    clip_norm: float
    ema_power: float
    ema_max: float
    save_every: int
    stage1: Stage
    stage2: Stage

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Read YAML.

        Raises:
            ValueError: A key is missing or unknown.
        """
        values = yaml.safe_load(path.read_text())
        known = {f.name for f in dataclasses.fields(cls)}
        if set(values) != known:
            raise ValueError(
                f"{path}: unknown {sorted(set(values) - known)}, missing {sorted(known - set(values))}"
            )
        for name in ("stage1", "stage2"):
            values[name] = Stage(**values[name])
        values["betas"] = tuple(values["betas"])
        return cls(**values)


class Trainer:
    """Model, optimiser, schedule and average of one stage."""

    def __init__(self, config: TrainConfig, model: ExpertModel, stage: int, folder: Path) -> None:
        self.config, self.model, self.stage, self.folder = config, model, stage, folder
        self.settings = config.stage1 if stage == 1 else config.stage2
        self.device = torch.device(config.device)
        model.to(self.device)
        shape = model.config
        self.noising = DDIMScheduler(
            shape.train_timesteps,
            beta_schedule=shape.beta_schedule,
            prediction_type=shape.prediction_type,
            clip_sample=True,
            set_alpha_to_one=True,
            steps_offset=0,
        )
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            self.settings.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        self.schedule = get_cosine_schedule_with_warmup(
            self.optimizer, self.settings.warmup, self.settings.steps
        )
        self.ema = EMAModel(
            model.parameters(),
            decay=config.ema_max,
            use_ema_warmup=True,
            inv_gamma=1.0,
            power=config.ema_power,
        )
        self.step = 0

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Denoising loss, and in stage 2 the direct loss on the contact estimate."""
        data = {k: torch.from_numpy(v).to(self.device) for k, v in vars(batch).items()}
        model, extra, parts = self.model, torch.zeros(()), {}
        if self.stage == 1:
            contact = data["contact"]
            seen = torch.zeros(len(contact), model.config.cloud_features, device=self.device)
        else:
            raw, seen = model.encoder(data["cloud"], data["mask"], data["features"])
            some = (data["mask"].sum(dim=1, keepdim=True) > 0).to(raw.dtype)
            contact = torch.cat([raw[:, :4], torch.sigmoid(raw[:, 4:]) * some], dim=-1)
            known = data["contact"][:, 4:]
            miss = torch.nn.functional.smooth_l1_loss(
                raw[:, :4] * known, data["contact"][:, :4] * known, beta=0.02, reduction="none"
            )
            presence = torch.nn.functional.binary_cross_entropy_with_logits(raw[:, 4:], known, weight=some)
            extra = self.config.auxiliary * miss.mean() + 0.05 * presence
            away = (raw[:, :3] - data["contact"][:, :3]).norm(dim=-1) * model.config.position_limit
            away = (away.detach() * known[:, 0]).sum() / known.sum().clamp(min=1.0)
            parts["contact_mm"] = float(away) * 1e3
        conditioning, prior = model.denoiser.observe(data["features"], contact, seen)
        repeats = self.config.denoising_repeats if self.stage == 2 else 1
        action = data["action"].repeat(repeats, 1)
        noise = torch.randn_like(action)
        timestep = torch.randint(0, model.config.train_timesteps, (len(action),), device=self.device)
        noisy = self.noising.add_noise(action, noise, timestep)
        out = model.denoiser(noisy, timestep, conditioning.repeat(repeats, 1), prior.repeat(repeats, 1))
        target = action if model.config.prediction_type == "sample" else noise
        denoise = torch.nn.functional.mse_loss(out, target)
        parts["denoise"] = float(denoise.detach())
        return 100.0 * denoise + extra, parts

    def run(self, batches: Iterator[Batch], progress: Progress) -> None:
        """Train to the end of the stage, saving on the way."""
        micro = max(1, self.settings.batch // self.settings.micro_batch)
        task = progress.add_task(f"stage {self.stage}", total=self.settings.steps, completed=self.step)
        smooth: dict[str, float] = {}
        self.model.train()
        while self.step < self.settings.steps:
            for _ in range(micro):
                loss, parts = self.loss(next(batches))
                (loss / micro).backward()
                for name, value in parts.items():
                    smooth[name] = 0.97 * smooth.get(name, value) + 0.03 * value
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
            self.ema.step(self.model.parameters())
            self.step += 1
            text = "  ".join(f"{k} {v:.4g}" for k, v in smooth.items())
            progress.update(task, completed=self.step, description=f"stage {self.stage}  {text}")
            if self.step % self.config.save_every == 0 or self.step == self.settings.steps:
                self.save()
                progress.console.print(f"stage {self.stage} step {self.step}: {text}")

    # -- state: safetensors and JSON, never pickle -----------------------------------------------

    def save(self) -> None:
        """Write all that ``load`` needs to go on as if nothing had happened."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for i, (parameter, average) in enumerate(
            zip(self.model.parameters(), self.ema.shadow_params, strict=True)
        ):
            tensors[f"ema.{i}"] = average
            for name, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{i}.{name}"] = torch.as_tensor(value)
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors["random"] = torch.get_rng_state()
        partial = self.folder / "state.part"
        save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, partial)
        partial.rename(self.folder / f"stage{self.stage}.safetensors")
        state = {"stage": self.stage, "step": self.step, "ema_step": self.ema.optimization_step}
        (self.folder / "state.json").write_text(json.dumps(state))

    def load(self, state: dict[str, int]) -> None:
        """Go on from a saved step of this stage."""
        tensors = load_file(self.folder / f"stage{self.stage}.safetensors")
        self.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        for i, parameter in enumerate(self.model.parameters()):
            self.ema.shadow_params[i] = tensors[f"ema.{i}"].to(self.device)
            prefix = f"optimizer.{i}."
            values = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            if values:
                self.optimizer.state[parameter] = values
        torch.set_rng_state(tensors["random"])
        self.step, self.ema.optimization_step = state["step"], state["ema_step"]
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


def read_bank(folder: Path) -> tuple[list[View], list[View]]:
    """Views to train on and views of held-out scenes.

    Raises:
        FileNotFoundError: The folder holds no views.
    """
    paths = sorted(p for p in folder.glob("views-*.npz") if not p.name.endswith(".part.npz"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no views; render them with --scenes")
    views = [v for p in paths for v in load_shard(p)]
    seeds = sorted({v.scene_seed for v in views})
    first = seeds[-max(1, round(HELD_OUT * len(seeds)))]
    return [v for v in views if v.scene_seed < first], [v for v in views if v.scene_seed >= first]


def _stream(sampler: Sampler, stage: int, size: int, seed: int, step: int) -> Iterator[Batch]:
    rng = np.random.default_rng([seed, stage, step])
    while True:
        yield sampler.trajectories(rng, size) if stage == 1 else sampler.clouds(rng, size)


def write(folder: Path, model: ExpertModel, card: dict[str, Any]) -> None:
    """Write a checkpoint folder with the onnx graph of the default number of steps."""
    tensors = {k: v.detach().cpu().numpy() for k, v in model.state_dict().items()}
    checkpoint.save(folder, model.config, tensors, card)
    save_graph(folder, checkpoint.load(folder), ExpertConfig().denoising_steps)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bridgevla train expert``."""
    parser.add_argument(
        "--config", default="training/appf_two_core.yaml", help="settings, in config/ or a path"
    )
    parser.add_argument(
        "--bank", type=Path, default=Path("runs/expert/bank"), help="folder of rendered views"
    )
    parser.add_argument("--scenes", type=int, default=0, help="render this many scenes into the bank first")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="of the rendered scenes")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/expert"), help="folder of states and checkpoint"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the state in the output folder")
    parser.add_argument("--further", type=Path, help="stage 2 only, from the weights of this checkpoint")
    parser.add_argument("--skip-stage1", action="store_true", help="ablation: stage 2 from random weights")
    parser.add_argument(
        "--metrics-only", type=Path, help="measure this checkpoint on the held-out views and stop"
    )


def run(args: argparse.Namespace) -> int:
    """Render, train both stages, measure, write the checkpoint."""
    config = TrainConfig.load(resources.find_config(args.config))
    torch.set_num_threads(1 if config.device == "cpu" else torch.get_num_threads())
    torch.manual_seed(config.seed)
    if args.scenes:
        generate(args.bank, args.first_seed, args.scenes)
    views, held_out = read_bank(args.bank)
    shape, recipe = ModelConfig(), Recipe()
    if args.metrics_only is not None:
        print(
            json.dumps(expert_metrics.measure(checkpoint.load(args.metrics_only), held_out, recipe), indent=1)
        )
        return 0
    print(f"{len(views)} views to train on, {len(held_out)} of other scenes to measure")
    sampler = Sampler(views, GuidanceLibrary(config.plans, config.seed, shape), shape, recipe)
    model = ExpertModel(shape)
    state = {"stage": 2 if args.skip_stage1 or args.further else 1, "step": 0}
    earlier: dict[str, Any] = {}
    if args.further:
        start = checkpoint.load(args.further)
        model.load_state_dict({k: torch.from_numpy(v) for k, v in start.tensors.items()})
        earlier = {k: v for k, v in start.card.items() if k not in ("model", "format")}
    if args.resume:
        state = json.loads((args.output / "state.json").read_text())
    trainer: Trainer | None = None
    began = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        for stage in range(state["stage"], 3):
            trainer = Trainer(config, model, stage, args.output)
            if stage == state["stage"] and state["step"]:
                trainer.load(state)
            trainer.run(
                _stream(sampler, stage, trainer.settings.micro_batch, config.seed, trainer.step), progress
            )
    assert trainer is not None
    card = {
        "recipe": dataclasses.asdict(recipe),
        "training": dataclasses.asdict(config),
        "stage1_skipped": bool(args.skip_stage1),
        "views": len(views),
        "scene_seeds": [min(v.scene_seed for v in views), max(v.scene_seed for v in views)],
        "seconds": round(time.monotonic() - began),
        "began_from": earlier,
    }
    write(args.output / "checkpoint", trainer.averaged(), card)
    card["metrics"] = expert_metrics.measure(checkpoint.load(args.output / "checkpoint"), held_out, recipe)
    write(args.output / "checkpoint", trainer.averaged(), card)
    print(json.dumps(card["metrics"], indent=1))
    return 0


def main() -> int:
    """``python -m bridgevla_ros.training.appf``: the same as ``bridgevla train expert``."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    raise SystemExit(main())
