"""Which network? Each variant gets the same CPU time on the same bank. Run as a module, see ``--help``.

Both stages run, with cosine schedules that end with the budget; drawing samples is not counted. What is
measured: error at the contact on held-out scenes, averaged weights, and the time of one chunk.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from rich.progress import Progress

from bridgevla_ros.core import resources
from bridgevla_ros.expert.config import ModelConfig
from bridgevla_ros.expert.model import ExpertModel
from bridgevla_ros.training import expert_metrics
from bridgevla_ros.training.appf_config import TrainConfig, settings
from bridgevla_ros.training.data_bank import Bank
from bridgevla_ros.training.episodes_sampling import GuidanceLibrary, Recipe, Sampler
from bridgevla_ros.training.objective import Draws, Objective

VARIANTS: dict[str, dict[str, Any]] = {
    "vote with extent, mlp 256": {},
    "vote, mlp 256": {"supports": 0},
    "keypoints, mlp 256": {"encoder": "keypoints", "point_widths": (64, 128, 256), "width": 256},
    "maxpool, mlp 256": {"encoder": "maxpool", "point_widths": (64, 128, 256), "width": 256},
    "vote with extent, unet 48": {"denoiser": "unet", "width": 48},
    "vote with extent, mlp 256, epsilon": {"prediction_type": "epsilon"},
    "vote with extent, mlp 512": {"width": 512},
}
"""Name -> how it differs from the network that ships (``ModelConfig``)."""
FIRST_SHARE = 0.15
"""Of the budget that stage 1 takes."""


def train(model: ExpertModel, config: TrainConfig, sampler: Sampler, budget: float) -> dict[str, int]:
    """Both stages within a budget of CPU seconds; the model then holds the averaged weights."""
    objective = Objective(model, config)
    done: dict[str, int] = {}
    for stage, share in ((1, FIRST_SHARE), (2, 1.0 - FIRST_SHARE)):
        model.requires_grad_(True)
        model.encoder.requires_grad_(stage == 2)
        trained = [p for p in model.parameters() if p.requires_grad]
        peak = config.stage(stage).learning_rate
        optimizer = torch.optim.AdamW(
            trained, peak, betas=config.betas, weight_decay=config.weight_decay, fused=True
        )
        ema = EMAModel(
            model.parameters(),
            decay=config.ema_max,
            use_ema_warmup=True,
            power=config.ema_power,
            foreach=True,
        )
        draws = Draws(sampler, config, stage, config.stage(stage).micro_batch, 0)
        used, step = 0.0, 0
        while used < share * budget:
            data = draws.draw(step)
            began = time.process_time()
            part = used / (share * budget)
            rate = peak * min(1.0, (part + 1e-3) / 0.04) * 0.5 * (1.0 + math.cos(math.pi * part))
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, _ = objective(data)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, config.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            ema.step(model.parameters())
            step += 1
            used += time.process_time() - began
        ema.copy_to(model.parameters())
        done[f"stage{stage}_steps"] = step
    return done


def milliseconds(model: ExpertModel, samples: int = 4) -> float:
    """Of one chunk in torch, CPU, median."""
    shape, net = model.config, expert_metrics.network(model)
    inputs = (
        torch.zeros(1, shape.feature_dim), torch.zeros(1, shape.points, 4), torch.ones(1, shape.points),
        torch.zeros(samples, shape.horizon * shape.action_dim),
    )  # fmt: skip
    times = []
    with torch.inference_mode():
        for _ in range(12):
            began = time.process_time()
            net(*inputs)
            times.append(time.process_time() - began)
    return round(sorted(times)[6] * 1e3, 1)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="training/appf_two_core.yaml")
    parser.add_argument("--bank", type=Path, default=Path("runs/expert/bank"))
    parser.add_argument("--minutes", type=float, default=5.0, help="CPU time of each variant")
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), help="some of the variants")
    parser.add_argument("--json", type=Path, required=True, help="rows are added to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = TrainConfig.load(resources.find_config(args.config))
    train_bank, held_bank = Bank.load(args.bank).split(0.1)
    recipe = dataclasses.replace(Recipe(), **settings(Recipe, config.recipe, "recipe"))
    rows = json.loads(args.json.read_text()) if args.json.exists() else []
    with Progress() as progress:
        names = args.only or list(VARIANTS)
        for name in progress.track(names, description="variants"):
            shape = dataclasses.replace(ModelConfig(), **VARIANTS[name])
            torch.manual_seed(config.seed)
            model = ExpertModel(shape)
            sampler = Sampler(train_bank, GuidanceLibrary(config.plans, config.seed, shape), shape, recipe)
            steps = train(model, config, sampler, 60.0 * args.minutes)
            held = expert_metrics.HeldOut(held_bank, recipe, shape, 600, 7)
            net = expert_metrics.network(model)
            row = {
                "variant": name, "parameters": sum(p.numel() for p in model.parameters()),
                "cpu_minutes": args.minutes, "seed": config.seed, **steps,
                "chunk_ms_torch": milliseconds(model), "held_out": held.figures(net),
            }  # fmt: skip
            rows = [*(r for r in rows if r["variant"] != name), row]
            args.json.write_text(json.dumps(rows, indent=1) + "\n")
            progress.console.print(json.dumps(row))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
