"""Train the embedded planner: language part on phrasings, then vision part on rendered scenes.

``bridgevla train planner --out DIR`` does all of it in one run and ends with a calibrated checkpoint.
Rendered frames are cached; a run can be resumed. ``--stage language --resume`` adds a round to the
language part; ``--stage merge --language-from OTHER --resume`` puts the language part of another
checkpoint into the one in --out and calibrates the null threshold anew.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.planner.grounding import GroundingConfig, GroundingModel, TokenEncoder
from bridgevla_ros.planner.vocabulary import COLOUR_NAMES, THING_NAMES
from bridgevla_ros.training import optimizer_state, planner_text, planner_vision
from bridgevla_ros.training.planner_data import TRAIN_SEED, VALIDATION_SEED, Frames, render

SHARD_SCENES = 100
TIDY_SHARDS = 8
"""The first shards hold 2 to 6 movable things; later ones clutter, lookalikes and cameras far off."""
SHOTS = 4
EMA = 0.995


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``bridgevla train planner``."""
    parser.add_argument(
        "--out", type=Path, default=Path("runs/planner/model"), help="folder of the checkpoint"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("runs/planner/data"), help="cache of rendered frames"
    )
    parser.add_argument(
        "--shards", type=int, default=12, help=f"shards of {SHARD_SCENES} scenes x {SHOTS} frames"
    )
    parser.add_argument("--stage", choices=("all", "language", "vision", "merge"), default="all", help="part")
    parser.add_argument("--language-from", type=Path, help="checkpoint whose language part merge takes")
    parser.add_argument("--phrases", type=int, default=16000, help="phrasings for the language part")
    parser.add_argument("--language-steps", type=int, default=1500, help="steps of the language part")
    parser.add_argument("--language-batch", type=int, default=128, help="phrasings a step")
    parser.add_argument(
        "--language-rate", type=float, default=2e-3, help="peak learning rate of the language part"
    )
    parser.add_argument("--steps", type=int, default=2000, help="steps of the vision part")
    parser.add_argument("--batch", type=int, default=16, help="images a step")
    parser.add_argument("--questions", type=int, default=4, help="questions an image")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate of the vision part")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop the vision part early; 0: never")
    parser.add_argument(
        "--without",
        nargs="*",
        default=[],
        metavar="PAIR",
        help='pairs that are never shown nor asked for, e.g. "pink cylinder": what does it make of them?',
    )
    parser.add_argument("--seed", type=int, default=0, help="of initialisation and of everything drawn")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")


def run(args: argparse.Namespace) -> int:
    """Train as asked; returns 0."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    if args.stage == "merge" and (args.language_from is None or not args.resume):
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            "--stage merge needs --language-from DIR and --resume",
            remedy="it puts the language part of DIR into the checkpoint in --out",
        )
    pairs_named(args.without)
    args.out.mkdir(parents=True, exist_ok=True)
    model = GroundingModel.from_pretrained(args.out) if args.resume else GroundingModel(GroundingConfig())
    recipe = _read(args.out / "recipe.json") if args.resume else {"seed": args.seed}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        if args.stage in ("all", "language"):
            _language(model, recipe, args, bar)
        if args.stage in ("all", "vision"):
            _vision(model, recipe, args, bar)
        if args.stage == "merge":
            merge(model, recipe, args.language_from)
            banned = pairs_named(held_out(recipe))
            calibrate(model, recipe, validation(args.data).without(banned), banned)
            save(model, recipe, args.out)
    print(json.dumps(recipe, indent=2))
    return 0


def _language(
    model: GroundingModel, recipe: dict[str, object], args: argparse.Namespace, bar: Progress
) -> None:
    task = bar.add_task("language")

    def report(what: str, done: int, total: int) -> None:
        bar.update(task, description=what, completed=done, total=total)

    started = time.monotonic()
    metrics = planner_text.train(
        model,
        TokenEncoder(),
        phrases=args.phrases,
        steps=args.language_steps,
        batch=args.language_batch,
        rate=args.language_rate,
        seed=args.seed,
        report=report,
    )
    rounds = recipe.get("language", [])
    this = {
        "seed": args.seed,
        "batch": args.language_batch,
        "rate": args.language_rate,
        "phrases": args.phrases,
        "steps": args.language_steps,
        "seconds": round(time.monotonic() - started, 1),
        "accuracy_same_families": metrics,
    }
    recipe["language"] = [*rounds, this] if isinstance(rounds, list) else [this]
    save(model, recipe, args.out)


def merge(model: GroundingModel, recipe: dict[str, object], folder: Path) -> None:
    """Take the language part, and the account of its rounds, of the checkpoint in a folder."""
    model.text.load_state_dict(GroundingModel.from_pretrained(folder).text.state_dict())
    recipe["language"] = _read(folder / "recipe.json").get("language", [])


def held_out(recipe: dict[str, object]) -> list[str]:
    """The pairs that a checkpoint's vision part never saw, by its recipe."""
    vision = recipe.get("vision")
    return list(vision.get("without", [])) if isinstance(vision, dict) else []


def calibrate(
    model: GroundingModel, recipe: dict[str, object], check: Frames, banned: planner_vision.Pairs = ()
) -> dict[str, float]:
    """Set the null threshold by validation frames; returns the shares there, noted in the recipe."""
    result = planner_vision.validate(model, check, seed=1, banned=banned)
    threshold = planner_vision.calibrate(result)
    model.config.null_threshold = threshold
    metrics = planner_vision.summary(result, threshold)
    vision = recipe.get("vision", {})
    known = vision if isinstance(vision, dict) else {}
    recipe["vision"] = known | {
        "validation_first_seed": VALIDATION_SEED,
        "null_threshold": threshold,
        "validation": metrics,
    }
    return metrics


def pairs_named(names: list[str]) -> planner_vision.Pairs:
    """Classes of "colour kind" names.

    Raises:
        BridgeError: BAD_INPUT, a name that is none of the lexicon's.
    """
    pairs = []
    for name in names:
        colour, _, thing = name.partition(" ")
        if colour not in COLOUR_NAMES[1:-1] or thing not in THING_NAMES[1:-2]:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"{name!r} is no pair of colour and kind",
                remedy=f"colours: {', '.join(COLOUR_NAMES[1:-1])}; kinds: {', '.join(THING_NAMES[1:-2])}",
            )
        pairs.append((COLOUR_NAMES.index(colour), THING_NAMES.index(thing)))
    return tuple(pairs)


def shards(folder: Path, count: int, on_shard: Callable[[int, int], None]) -> list[Path]:
    """Paths of the first ``count`` shards, rendered where they are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    config = GroundingConfig()
    paths = []
    for i in range(count):
        path = folder / f"train_{i:04d}.npz"
        if not path.exists():
            frames = render(
                TRAIN_SEED + i * SHARD_SCENES,
                SHARD_SCENES,
                SHOTS,
                config.image_height,
                config.image_width,
                cluttered=i >= TIDY_SHARDS,
            )
            frames.save(path)
        paths.append(path)
        on_shard(i + 1, count)
    return paths


def validation(folder: Path) -> Frames:
    """Frames of scenes that are neither trained on nor evaluated on; first shots only vary the scene."""
    path = folder / "validation.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        config = GroundingConfig()
        render(VALIDATION_SEED, 60, 3, config.image_height, config.image_width).save(path)
    return Frames.load(path)


def _vision(
    model: GroundingModel, recipe: dict[str, object], args: argparse.Namespace, bar: Progress
) -> None:
    task = bar.add_task("rendering", total=args.shards)
    paths = shards(args.data, args.shards, lambda done, total: bar.update(task, completed=done, total=total))
    banned = pairs_named(args.without)
    check = validation(args.data).without(banned)
    data = [Frames.load(path).without(banned) for path in paths]
    parameters = [*model.trunk.parameters(), *model.head.parameters()]
    optimizer = torch.optim.AdamW(parameters, args.rate, weight_decay=1e-4)
    average = GroundingModel(model.config)
    average.load_state_dict(model.state_dict())
    step, spent = 0, 0.0
    state = args.out / "optimizer.safetensors"
    if args.resume and state.exists():
        # the language part is the checkpoint's
        step, spent = optimizer_state.load(state, optimizer, model, ("trunk.", "head."))
    rng = np.random.default_rng([args.seed, step])
    task = bar.add_task("vision", total=args.steps, completed=step)
    started = saved = time.monotonic()
    log = (args.out / "training.jsonl").open("a", encoding="utf-8")
    recent = 0.0
    while step < args.steps:
        seconds = spent + time.monotonic() - started
        share = max(step / args.steps, seconds / (60 * args.minutes) if args.minutes else 0.0)
        if share >= 1.0:
            break
        for group in optimizer.param_groups:  # warm up, hold, then fall to nothing over the last 40%
            group["lr"] = args.rate * min(1.0, (step + 1) / 50, max(0.01, (1.0 - share) / 0.4))
        model.train()
        frames = data[int(rng.integers(len(data)))]
        rows = rng.choice(len(frames), args.batch, replace=False)
        total = planner_vision.batch_loss(model, frames, rows, args.questions, rng, banned)
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step()
        step += 1
        _average(average, model, min(EMA, step / (step + 10)))
        recent = float(total.detach()) if recent == 0.0 else 0.98 * recent + 0.02 * float(total.detach())
        bar.update(task, completed=step, description=f"vision, loss {recent:.3f}")
        last = step == args.steps or (args.minutes and seconds >= 60 * args.minutes)
        if time.monotonic() - saved > 180 or last:
            saved = time.monotonic()
            seconds = round(spent + saved - started, 1)
            metrics = _checkpoint(average, check, recipe, args, step, seconds)
            optimizer_state.save(state, optimizer, model, step, seconds)
            log.write(json.dumps({"step": step, "seconds": seconds, "loss": recent, **metrics}) + "\n")
            log.flush()
    _checkpoint(average, check, recipe, args, step, round(spent + time.monotonic() - started, 1))
    log.close()


def _checkpoint(
    model: GroundingModel,
    check: Frames,
    recipe: dict[str, object],
    args: argparse.Namespace,
    step: int,
    seconds: float,
) -> dict[str, float]:
    recipe["vision"] = {
        "scenes": args.shards * SHARD_SCENES,
        "frames_a_scene": SHOTS,
        "first_seed": TRAIN_SEED,
        "steps": step,
        "batch": args.batch,
        "questions": args.questions,
        "rate": args.rate,
        "seconds": seconds,
        "without": list(args.without),
    }
    metrics = calibrate(model, recipe, check, pairs_named(args.without))
    save(model, recipe, args.out)
    return metrics


@torch.no_grad()
def _average(average: GroundingModel, model: GroundingModel, decay: float) -> None:
    """Exponential mean of the weights; BatchNorm statistics are copied."""
    for mean, now in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(now, 1.0 - decay)
    for mean, now in zip(average.buffers(), model.buffers(), strict=True):
        mean.copy_(now)


def save(model: GroundingModel, recipe: dict[str, object], folder: Path) -> None:
    """Write safetensors, config and recipe."""
    model.save_pretrained(folder)
    (folder / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, object]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
