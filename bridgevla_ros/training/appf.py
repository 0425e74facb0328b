"""Anchored pre-training and fine-tuning of the action expert: ``bridgevla train expert``.

Stage 1 learns trajectories alone, in very large batches: from guidance, state and a told contact to a
chunk. Stage 2 learns to find the contact in the cloud and goes on from there. Without stage 1 the
paper's expert underfits. Both keep an exponential average of the weights, which is what ships.

On several GPUs or machines the same training runs under accelerate:
  accelerate launch -m bridgevla_ros.cli train expert --config training/appf.yaml ...
Curves: tensorboard --logdir <output>/curves; figures along the way: <output>/metrics.jsonl.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bridgevla_ros.bags.provenance import commit
from bridgevla_ros.core import resources
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.expert import checkpoint
from bridgevla_ros.expert.config import ExpertConfig, ModelConfig
from bridgevla_ros.expert.model import ExpertModel
from bridgevla_ros.expert.runtime_onnx import save_graph
from bridgevla_ros.training import data_trajectories, expert_metrics
from bridgevla_ros.training.appf_config import TrainConfig, settings
from bridgevla_ros.training.data_bank import FIRST_SEED, Bank, join
from bridgevla_ros.training.episodes_sampling import GuidanceLibrary, Recipe, Sampler
from bridgevla_ros.training.objective import Draws
from bridgevla_ros.training.trainer import STATE, Keep, Trainer

HELD_OUT = 0.1
"""Share of the bank's scenes, every tenth by seed, that only measure (``Bank.split``)."""
ABLATIONS = ("none", "joint", "skip-stage1")
CONFIG, SMOKE = "training/appf_two_core.yaml", "training/appf_smoke.yaml"
BANK, OUTPUT = Path("runs/expert/bank"), Path("runs/expert")
SMOKE_SCENES = 2
SMOKE_MARK = ".bridgevla-smoke"
"""File in an output folder: what lies there is a smoke's and may be replaced."""
WRITTEN = (STATE, "stage?-*.safetensors", "metrics.jsonl", "curves", "checkpoint", "checkpoint-*")
"""What a training writes into its output folder."""
STATE_KEYS = {"stage": int, "step": int, "ema_step": int, "seconds": float | int, "file": str}


@dataclass(frozen=True, eq=False)
class Session:
    """What a training works with.

    Attributes:
        config: Settings; ``recipe``: of the data; ``shape``: of the network.
        train, held_out: Frames of the bank.
        output: Folder of states, curves, figures and checkpoint.
        ablation: One of ABLATIONS.
    """

    config: TrainConfig
    recipe: Recipe
    shape: ModelConfig
    train: Bank
    held_out: Bank
    output: Path
    ablation: str = "none"

    def first_stage(self) -> int:
        """Stage that a fresh training begins with."""
        return 1 if self.ablation == "none" else 2

    def draws_of(self, stage: int) -> int | str:
        """What the stage's batches are."""
        return "joint" if stage == 2 and self.ablation == "joint" else stage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bridgevla train expert``."""
    parser.add_argument("--config", help=f"settings, in config/ or a path (default: {CONFIG})")
    parser.add_argument(
        "--bank", type=Path, nargs="+", help=f"folders of bridgevla data generate (default: {BANK})"
    )
    parser.add_argument(
        "--output", type=Path, help=f"folder of states, curves and checkpoint (default: {OUTPUT})"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the state in the output folder")
    parser.add_argument("--further", type=Path, help="stage 2 only, from the weights of this checkpoint")
    parser.add_argument(
        "--ablation",
        choices=ABLATIONS,
        default="none",
        help="joint: trajectories and clouds together from random weights; skip-stage1: clouds alone",
    )
    parser.add_argument(
        "--trajectories",
        type=Path,
        help="folder of bags, LeRobot or MCAP data sets whose end-effector paths join stage 1",
    )
    parser.add_argument("--stage1-steps", type=int, help="instead of the configuration's")
    parser.add_argument("--stage2-steps", type=int, help="instead of the configuration's")
    parser.add_argument("--seed", type=int, help="instead of the configuration's")
    parser.add_argument(
        "--keep-every",
        type=int,
        metavar="N",
        help="keep a checkpoint of every N steps of stage 2 as well, in <output>/checkpoint-<step>",
    )
    parser.add_argument(
        "--noise-scale", type=float, default=1.0, help="factor of the recipe's errors of guidance"
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="both stages in a minute on a small bank made for it: does it run? Of a --config that is given, "
        "model, recipe and rates count; without --bank or --output their folders are temporary",
    )
    parser.add_argument(
        "--metrics-only", type=Path, help="measure this checkpoint on the held-out frames and stop"
    )


def configure(args: argparse.Namespace) -> TrainConfig:
    """Settings from the file and the options over it."""
    config = TrainConfig.load(resources.find_config(args.config or (SMOKE if args.smoke else CONFIG)))
    if args.smoke:
        config = config.shortened(TrainConfig.load(resources.find_config(SMOKE)))
    if args.seed is not None:
        config = dataclasses.replace(config, seed=args.seed)
    for name, steps in (("stage1", args.stage1_steps), ("stage2", args.stage2_steps)):
        if steps is not None:
            config = dataclasses.replace(
                config, **{name: dataclasses.replace(getattr(config, name), steps=steps)}
            )
    return config


def open_session(args: argparse.Namespace, config: TrainConfig) -> Session:
    """Read the bank and all settings.

    Raises:
        BridgeError: BAD_INPUT, no bank, or an unknown key.
    """
    folders, output = places(args)
    if args.smoke and not (folders[0].is_file() or any(folders[0].glob("bank-*.npz"))):
        make_small_bank(folders[0])
    halves = [Bank.load(folder).split(HELD_OUT) for folder in folders]
    train, held_out = (join(list(banks)) for banks in zip(*halves, strict=True))
    recipe = dataclasses.replace(Recipe(), **settings(Recipe, config.recipe, "recipe"))
    if args.noise_scale != 1.0:
        recipe = recipe.scaled(args.noise_scale)
    return Session(config, recipe, config.shape(), train, held_out, output, args.ablation)


def places(args: argparse.Namespace) -> tuple[list[Path], Path]:
    """Folders of the bank, and of the output: as named, else a smoke's own, else the usual ones."""
    bank, output = BANK, OUTPUT
    if args.smoke and (args.bank is None or args.output is None):
        own = Path(tempfile.mkdtemp(prefix="bridgevla-smoke-"))
        bank, output = own / "bank", own / "expert"
    return args.bank or [bank], args.output or output


def make_small_bank(folder: Path) -> None:
    """Episodes of a few scenes; two shards for two processes."""
    from bridgevla_ros.training.data_generate import SHARD, generate, shards

    generate(shards(folder, FIRST_SEED + SHARD - SMOKE_SCENES // 2, SMOKE_SCENES), 2)


def run(args: argparse.Namespace) -> int:
    """Train both stages, measure, write the checkpoint."""
    if args.keep_every is not None and args.keep_every < 1:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"--keep-every {args.keep_every}",
            value=args.keep_every,
            limit=1,
            unit="steps",
            remedy="Give one or more.",
        )
    config = configure(args)
    if config.device == "cpu":
        torch.set_num_threads(1)
    session = open_session(args, config)
    if args.metrics_only is not None:
        figures = expert_metrics.measure(checkpoint.load(args.metrics_only), session.held_out, session.recipe)
        print(json.dumps(figures, indent=1))
        return 0
    accelerator = Accelerator(cpu=config.device == "cpu")
    say: Callable[[str], None] = print if accelerator.is_main_process else _nothing
    say(f"{len(session.train)} frames to train on, {len(session.held_out)} of other scenes to measure")
    trainer, origin = train(session, args, accelerator)
    if accelerator.is_main_process:
        folder = session.output / "checkpoint"
        card = card_of(session, trainer, origin)
        model = trainer.averaged()
        write(folder, model, card)
        card["metrics"] = expert_metrics.measure(
            checkpoint.load(folder), session.held_out, session.recipe, size=40 if args.smoke else 400
        )
        write(folder, model, card)
        say(json.dumps(card["metrics"], indent=1))
        say(f"checkpoint: {folder}")
    return 0


def train(
    session: Session, args: argparse.Namespace, accelerator: Accelerator
) -> tuple[Trainer, dict[str, Any]]:
    """Run the stages that are left; the last trainer, and what the card says beside settings and bank."""
    config, output = session.config, session.output
    torch.manual_seed(config.seed)
    model = ExpertModel(session.shape)
    state: dict[str, Any] = {"stage": 2 if args.further else session.first_stage(), "step": 0}
    origin: dict[str, Any] = {"began_from": {}, "recorded_paths": 0}
    if args.further:
        origin["began_from"] = load_weights(model, args.further)
    check_free(output, smoke=args.smoke, resume=args.resume)
    if args.resume:
        state = read_json(output / STATE)
    elif accelerator.is_main_process:
        clear(output, smoke=args.smoke)
    output.mkdir(parents=True, exist_ok=True)
    library = GuidanceLibrary(config.plans, config.seed, session.shape)
    if args.trajectories is not None:
        used = data_trajectories.extend(library, args.trajectories, session.shape, say=accelerator.print)
        accelerator.print(f"{used} recorded paths from {args.trajectories}")
        origin["recorded_paths"] = used
    sampler = Sampler(session.train, library, session.shape, session.recipe)
    held = expert_metrics.HeldOut(session.held_out, session.recipe, session.shape, 150, config.seed)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    trainer: Trainer | None = None
    with Progress(*columns, disable=not accelerator.is_main_process) as progress:
        for stage in range(state["stage"], 3):
            label = session.ablation if session.ablation == "joint" else ""
            trainer = Trainer(config, model, stage, output, accelerator, label=label)
            if stage == state["stage"] and state["step"]:
                trainer.load(state)
            draws = Draws(
                sampler, config, session.draws_of(stage), trainer.settings.micro_batch,
                trainer.step * trainer.accumulate, accelerator.process_index, accelerator.num_processes,
            )  # fmt: skip
            batches = iter(draws.loader(config.workers))
            # Stage 1 sees no clouds: held-out clouds would say nothing about it.
            if stage == 1:
                trainer.run(batches, progress)
            else:
                keep = None if args.keep_every is None else keeper(session, origin, args.keep_every)
                trainer.run(batches, progress, lambda m: held.figures(expert_metrics.network(m)), keep)
    assert trainer is not None
    return trainer, origin


def check_free(output: Path, *, smoke: bool, resume: bool) -> None:
    """Refuse a folder that holds another training; a smoke that lies there may be replaced.

    Raises:
        BridgeError: BAD_INPUT.
    """
    begun, marked = (output / STATE).exists(), (output / SMOKE_MARK).exists()
    if resume and begun and marked != smoke:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{output} holds a {'smoke' if marked else 'training that is no smoke'}",
            remedy=f"go on {'with' if marked else 'without'} --smoke, or begin without --resume in another "
            "--output",
        )
    if not resume and not marked and (begun or (smoke and (output / "checkpoint").exists())):
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{output} holds a training already",
            remedy="go on with --resume, or choose another --output",
        )


def clear(output: Path, *, smoke: bool) -> None:
    """Remove a smoke that lies in a folder, and mark the folder where it is to hold one."""
    mark = output / SMOKE_MARK
    if mark.exists():
        for path in [path for pattern in WRITTEN for path in output.glob(pattern)]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    output.mkdir(parents=True, exist_ok=True)
    mark.unlink(missing_ok=True)
    if smoke:
        mark.touch()


def keeper(session: Session, origin: dict[str, Any], every: int) -> Keep:
    """Writes a checkpoint, without figures, after every so many steps."""

    def keep(trainer: Trainer) -> None:
        if trainer.step % every == 0:
            folder = session.output / f"checkpoint-{trainer.step}"
            write(folder, trainer.averaged(), card_of(session, trainer, origin))

    return keep


def load_weights(model: ExpertModel, folder: Path) -> dict[str, Any]:
    """Begin from a checkpoint; what its card says of its making.

    Raises:
        BridgeError: MODEL_ERROR, it is damaged or of another shape.
    """
    start = checkpoint.load(folder)
    if start.config != model.config:
        raise BridgeError(
            ErrorCode.MODEL_ERROR,
            f"{folder} is of another shape: {start.config}",
            remedy="give the same in `model` of the configuration",
        )
    model.load_state_dict({k: torch.from_numpy(v) for k, v in start.tensors.items()})
    return {k: v for k, v in start.card.items() if k not in ("model", "format")}


def read_json(path: Path) -> dict[str, Any]:
    """State of a training.

    Raises:
        BridgeError: MODEL_ERROR, there is none or it is damaged.
    """
    remedy = "begin again without --resume, in another --output"
    try:
        values = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise BridgeError(
            ErrorCode.MODEL_ERROR, f"cannot go on from {path}: {error}", remedy=remedy
        ) from error
    wrong = [name for name, kind in STATE_KEYS.items() if not isinstance(values.get(name), kind)]
    if wrong or values["stage"] not in (1, 2):
        raise BridgeError(
            ErrorCode.MODEL_ERROR,
            f"cannot go on from {path}: {', '.join(wrong) or 'stage'} missing or wrong in {values}",
            remedy=remedy,
        )
    return values


def card_of(session: Session, trainer: Trainer, origin: dict[str, Any]) -> dict[str, Any]:
    """What the checkpoint says of its making; ``frames`` are those trained on.

    ``bank`` lists for each part of the bank who moved, where, the ranges of scene seeds and how they ended.
    """
    episodes = session.train["episode"]
    return {
        "recipe": dataclasses.asdict(session.recipe),
        "training": dataclasses.asdict(session.config),
        "ablation": session.ablation,
        "stage": trainer.stage,
        "step": trainer.step,
        "frames": len(session.train),
        "held_out_frames": len(session.held_out),
        "contacts": sorted(session.train.classes),
        "scene_seeds": [int(episodes.min()), int(episodes.max())],
        "bank": session.train.meta["made"],
        "seconds": round(trainer.seconds),
        "processes": trainer.accelerator.num_processes,
        "commit": commit(),
        **origin,
    }


def write(folder: Path, model: ExpertModel, card: dict[str, Any]) -> None:
    """Write a checkpoint folder with the onnx graph of the default number of steps."""
    tensors = {k: v.detach().cpu().numpy() for k, v in model.state_dict().items()}
    checkpoint.save(folder, model.config, tensors, card)
    save_graph(folder, checkpoint.load(folder), ExpertConfig().denoising_steps)


def _nothing(_: str) -> None:
    pass
