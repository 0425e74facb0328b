"""Fine-tune a vision-language model to plan: ``bridgevla train vlm CHECKPOINT --convention NAME``.

CHECKPOINT is a folder that planner:=transformers takes. It is taught, with LoRA, the planner's own
conversation on rendered scenes (--scenes) and on a user's demonstrations (--demonstrations DATASET, as
`bridgevla dataset from-bags` writes it). General questions (--questions) are asked along the way; training
ends when fewer are answered right than before by more than --margin. OUT/model is a whole checkpoint:
  bridgevla up planner:=transformers planner_model:=OUT/model planner_convention:=NAME
Curves: tensorboard --logdir OUT/curves; measurements: OUT/metrics.jsonl.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bridgevla_ros.bags.provenance import commit
from bridgevla_ros.core import resources
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.types import CameraIntrinsics
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.training import sft_config, sft_examples, sft_questions
from bridgevla_ros.training.sft_config import SftConfig
from bridgevla_ros.training.sft_examples import Example

QUESTIONS = "questions/general.csv"
COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bridgevla train vlm``."""
    parser.add_argument("checkpoint", type=Path, help="folder of model, tokenizer and processor")
    parser.add_argument("--out", type=Path, default=Path("runs/sft"), help="folder (default: %(default)s)")
    parser.add_argument(
        "--config", default="training/sft.yaml", help="settings, in config/ or a path (default: %(default)s)"
    )
    parser.add_argument("--scenes", type=int, default=0, metavar="N", help="render N scenes to learn from")
    parser.add_argument(
        "--first-seed", type=int, default=100_000, help="of the scenes (default: %(default)s)"
    )
    parser.add_argument(
        "--demonstrations", type=Path, nargs="+", default=[], metavar="DATASET",
        help="data sets with images that bridgevla dataset from-bags wrote",
    )  # fmt: skip
    parser.add_argument(
        "--examples",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders of examples (docs/sft.md)",
    )
    parser.add_argument(
        "--intrinsics", type=float, nargs=4, metavar=("FX", "FY", "CX", "CY"),
        help="of the demonstrations' images, where the data set does not tell them",
    )  # fmt: skip
    parser.add_argument(
        "--table-height",
        type=float,
        default=0.0,
        help="of the demonstrations' table, m (default: %(default)s)",
    )
    parser.add_argument(
        "--questions", default=QUESTIONS,
        help="general questions in MMLU's format (CSV or JSON lines); none: do not ask (default: ours, 40)",
    )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="go on from the last state in --out")
    sft_config.add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Gather examples, fine-tune, merge. 0; 1 where general knowledge fell before anything could be kept."""
    from transformers.utils.logging import disable_progress_bar

    from bridgevla_ros.training import sft_model

    disable_progress_bar()  # of each file that is read or written
    config = sft_config.load(resources.find_config(args.config), args)
    sft_model.check_folder(args.checkpoint)
    questions = read_questions(args.questions)
    _check_out(args.out, args.resume)
    from bridgevla_ros.training import sft_trainer  # trl takes many seconds: what is refused is refused first

    started = time.monotonic()
    with Progress(*COLUMNS) as bar:
        examples = gather(args, config, bar)
        train, held_out = sft_trainer.split(examples, config.held_out, config.seed)
        material = sft_trainer.Material(train, held_out, questions)
        learner = sft_model.Learner(planner_config(args.checkpoint, config))
        base = learner.sha256
        watch = sft_trainer.train(learner, material, config, args.out, bar, resume=args.resume)
    card = {
        "settings": dataclasses.asdict(config),
        "base": {"folder": str(args.checkpoint), "sha256": base, "kind": learner.name},
        "examples": len(train),
        "held_out": len(held_out),
        "questions": len(questions),
        "measured": [dataclasses.asdict(row) for row in watch.rows],
        "stopped": watch.stopped,
        "weights_of_step": watch.kept,
        "seconds": round(time.monotonic() - started, 1),
        "commit": commit(),
    }
    if watch.stopped:
        print(f"stopped at {watch.stopped}")
    if watch.kept is None:
        print("nothing was worth keeping: take a lower --learning-rate, or measure sooner with --probe-every")
        sft_model.note(args.out, card)
        return 1
    finish(args.checkpoint, args.out, config, card)
    print(f"weights of step {watch.kept}: {args.out / 'model'}")
    print(
        f"bridgevla up planner:=transformers planner_model:={args.out / 'model'} "
        f"planner_convention:={config.convention}"
    )
    return 0


def finish(base: Path, out: Path, config: SftConfig, card: dict[str, Any]) -> None:
    """Merge what was kept into OUT/model, with its account."""
    from bridgevla_ros.training import sft_model

    if config.rank:
        sft_model.merge(base, out / "best", out / "model")
    else:
        sft_model.copy(out / "best", base, out / "model")
    sft_model.note(out / "model", card)


def planner_config(checkpoint: Path, config: SftConfig) -> PlannerConfig:
    """The planner's settings under which a model is taught and measured."""
    device = "cuda" if config.device == "auto" and torch.cuda.is_available() else "cpu"
    return PlannerConfig(
        backend="transformers", weights=str(checkpoint), convention=config.convention, device=device,
        threads=config.threads, max_new_tokens=config.max_new_tokens, answer_timeout=600.0, cached_answers=0,
    )  # fmt: skip


def read_questions(name: str) -> list[sft_questions.Question]:
    """Questions of a file, ours or a path; none where "none" is asked for."""
    return [] if name == "none" else sft_questions.read(resources.find_config(name))


def _check_out(out: Path, resume: bool) -> None:
    taken = (out / "states").exists() or (out / "model").exists()
    if taken and not resume:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{out} holds a fine-tuning already",
            remedy="go on with --resume, or choose another --out",
        )
    out.mkdir(parents=True, exist_ok=True)


def gather(args: argparse.Namespace, config: SftConfig, bar: Progress) -> list[Example]:
    """All examples that were asked for; scenes and demonstrations become folders in --out, made once.

    Raises:
        BridgeError: BAD_INPUT: none at all, or what the readers refuse.
    """
    out: list[Example] = []
    for folder in args.examples:
        out += sft_examples.read(folder)
    if args.scenes > 0:
        out += _scenes(args, args.out / "scenes", bar)
    for number, root in enumerate(args.demonstrations):
        out += _demonstrations(args, config, root, args.out / f"demonstrations-{number}", bar)
    if not out:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            "there is nothing to learn from",
            remedy="give --scenes N, --demonstrations DATASET or --examples DIR",
        )
    return out


def _scenes(args: argparse.Namespace, folder: Path, bar: Progress) -> list[Example]:
    from bridgevla_ros.training import sft_scenes

    if (folder / sft_examples.FILE).exists():
        return sft_examples.read(folder)
    task = bar.add_task("rendering", total=args.scenes)
    with whole(folder) as part:
        sft_scenes.render(
            part, args.scenes, args.first_seed, on_scene=lambda done: bar.update(task, completed=done)
        )
    return sft_examples.read(folder)


@contextlib.contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A folder to write into, which becomes ``folder`` at the end; what a killed run left is dropped."""
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    yield part
    part.rename(folder)


def _demonstrations(
    args: argparse.Namespace, config: SftConfig, root: Path, folder: Path, bar: Progress
) -> list[Example]:
    from bridgevla_ros.datasets.reading import open_dataset
    from bridgevla_ros.training import sft_demonstrations

    if (folder / sft_examples.FILE).exists():
        return sft_examples.read(folder)
    reader = open_dataset(root / "lerobot" if (root / "lerobot").is_dir() else root)
    known = None
    if args.intrinsics is not None:
        height, width = reader.features[sft_demonstrations.IMAGE].shape[:2]
        known = CameraIntrinsics(width, height, *args.intrinsics)
    task = bar.add_task("demonstrations", total=len(reader.episodes))
    with whole(folder) as part:
        left = sft_demonstrations.convert(
            reader, part, fewest=config.demonstrations_min, table_height=args.table_height, intrinsics=known,
            on_episode=lambda done: bar.update(task, completed=done),
        )  # fmt: skip
    for reason, count in left.items():
        bar.console.print(f"{root}: {count} episodes left out, {reason}")
    return sft_examples.read(folder)
