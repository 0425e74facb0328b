"""The paper's figure of success against forgetting: what fine-tuning brings, and what it costs, by steps.

With --checkpoint it fine-tunes a user's model, or the one of `bridgevla train small-vlm`; without, a small
one that is made on the spot and cannot point. Both small ones were first taught the very questions that they
are asked afterwards: what is shown is whether they keep what they were taught, and not what they could know.

It learns one task, from as many demonstrations as the paper's real robot had for each; the task's words do
not say what to take, so that no model can do it before.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridgevla_ros.core.config import ConfigError

if TYPE_CHECKING:  # pictures and reports take a second to import: not for --help
    from bridgevla_ros.evaluation.experiment_sweeps import Found
    from bridgevla_ros.evaluation.plots import Rate

SMALL, OWN = "training/sft_small.yaml", "training/sft.yaml"
TASK, KINDS = "feed the goldfish", ("ball", "bowl")
"""The task to be learned: what is to be taken, and where it goes, each scene has once."""
TASK_SEED = 150_000
SCENES = 80
SERIES = {"general": "general questions", "readable": "readable answers", "pointing": "pointing right"}
TEXT = (
    "Measured along the steps of fine-tuning: the share of general questions answered right (guessing gives "
    "25%), of held-out scenes whose first turn the planner can read, and of those in which both points lie "
    "on what was meant. The paper reports MMLU falling from 70 to 30 when its model was tuned for too long."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that only this experiment has."""
    group = parser.add_argument_group("forgetting")
    group.add_argument(
        "--checkpoint", type=Path, help="folder of the model to fine-tune (default: a small one, made here)"
    )
    group.add_argument(
        "--convention",
        help="of its coordinates; required with --checkpoint. Without one, the family of what is made: "
        "qwen2.5 (default) or qwen3",
    )
    group.add_argument("--sft-config", help=f"settings, in config/ or a path (default: {SMALL}, or {OWN})")
    group.add_argument("--sft-steps", type=int, help="of the fine-tuning (default: as the settings say)")
    group.add_argument(
        "--scenes",
        type=int,
        default=SCENES,
        help=f'of the task "{TASK}", to learn from and to measure with (default: %(default)s)',
    )
    group.add_argument(
        "--examples",
        type=Path,
        metavar="DIR",
        help="of a task of yours instead (docs/sft.md tells the format)",
    )
    group.add_argument("--questions", help="general questions in MMLU's format (default: ours, 40)")


def run(args: argparse.Namespace, made: dict[str, Any]) -> Found:
    """Fine-tune, or take the finished training in --runs, and show what was measured along it.

    Raises:
        BridgeError, ConfigError: What was asked for cannot be done.
    """
    from bridgevla_ros.evaluation.experiment_sweeps import Found
    from bridgevla_ros.evaluation.report import Plot, Section, Table
    from bridgevla_ros.training.sft_trainer import read_rows

    folder = args.runs or Path("runs/experiments/forgetting")
    card = folder / "model" / "sft.json"
    if not card.exists():
        card = _train(args, folder)
    told = json.loads(card.read_text(encoding="utf-8"))
    measured = read_rows(folder)
    figure, lines = _shown(measured, told["questions"])
    first, last = measured[0], measured[-1]
    verdict = f"{told['base']['kind']}, step {last.step}: " + "; ".join(
        f"{words} {_percent(getattr(first, name))} -> {_percent(getattr(last, name))}"
        for name, words in SERIES.items()
    )
    if told["stopped"]:
        verdict += f". Stopped at {told['stopped']}"
    table = Table(("step", *SERIES.values(), "likelihood of the right letter, nats"), lines)
    small = "" if args.checkpoint else " The model is small and was taught these questions before."
    if not args.examples:
        small += f' The task: "{TASK}", that is, put the {KINDS[0]} in the {KINDS[1]}.'
    title, drawn = "Success against forgetting", Plot(figure, "95% intervals (Wilson).")
    section = Section(title, TEXT + small, tables=(table,), plots=(drawn,))
    return Found(title, f"{verdict}.", {"training": told}, (section,), figure)


def _train(args: argparse.Namespace, folder: Path) -> Path:
    """Fine-tune into the folder; the account that it wrote."""
    from bridgevla_ros.training import sft

    words = [
        "--out",
        str(folder),
        "--examples",
        str(args.examples or _task(folder, args.scenes)),
        "--seed",
        "0",
    ]
    if args.questions:
        words += ["--questions", args.questions]
    if args.sft_steps:
        words += ["--steps", str(args.sft_steps), "--probe-every", str(max(1, args.sft_steps // 6))]
    checkpoint, settings = _model(args, folder)
    words += ["--config", args.sft_config or settings]
    if args.convention:
        words += ["--convention", args.convention]
    if (folder / "states").is_dir():
        words.append("--resume")
    parser = argparse.ArgumentParser()
    sft.add_arguments(parser)
    status = sft.run(parser.parse_args([str(checkpoint), *words]))
    return folder / "sft.json" if status else folder / "model" / "sft.json"


def _task(folder: Path, scenes: int) -> Path:
    """Examples of the task; rendered once."""
    from rich.progress import Progress

    from bridgevla_ros.training import sft, sft_examples, sft_scenes

    examples = folder / "examples"
    if not (examples / sft_examples.FILE).exists():
        folder.mkdir(parents=True, exist_ok=True)
        with Progress(*sft.COLUMNS) as bar, sft.whole(examples) as part:
            task = bar.add_task("demonstrations", total=scenes)
            sft_scenes.render_task(
                part, TASK, KINDS, scenes, TASK_SEED, lambda done: bar.update(task, completed=done)
            )
    return examples


def _model(args: argparse.Namespace, folder: Path) -> tuple[Path, str]:
    """The model to fine-tune, and the settings that it takes by default."""
    if args.checkpoint is not None:
        if not args.convention:
            raise ConfigError("--checkpoint needs --convention: how that model writes coordinates")
        return args.checkpoint, OWN
    return _made(args, folder), SMALL


def _made(args: argparse.Namespace, folder: Path) -> Path:
    """A new model that was taught the questions; made once."""
    from bridgevla_ros.training import sft, sft_small

    checkpoint = folder / "base"
    if not (checkpoint / "taught.json").exists():
        questions = sft.read_questions(args.questions or sft.QUESTIONS)
        sft_small.make_taught(checkpoint, args.convention or "qwen2.5", questions)
    return checkpoint


def _shown(measured: Sequence[Any], questions: int) -> tuple[Any, tuple[tuple[str, ...], ...]]:
    """Plot and lines of the table."""
    from bridgevla_ros.evaluation import plots
    from bridgevla_ros.evaluation.stats import interval, percent, wilson_interval

    series: dict[str, list[Rate | None]] = {words: [] for words in SERIES.values()}
    lines = []
    for row in measured:
        cells = [str(row.step)]
        for name, words in SERIES.items():
            rate, count = getattr(row, name), questions if name == "general" else row.asked
            if rate is None or not count:
                series[words].append(None)
                cells.append("")
                continue
            low, high = wilson_interval(round(rate * count), count)
            series[words].append((rate, low, high))
            cells.append(f"{percent(rate)} ({interval((low, high))})")
        likelihood = row.general_likelihood
        lines.append((*cells, "" if likelihood is None else f"{likelihood:.2f}"))
    figure = plots.sweep([str(row.step) for row in measured], series, "steps of fine-tuning")
    figure.axes[0].set_ylabel("share, %", color=plots.DIM)
    return figure, tuple(lines)


def _percent(rate: float | None) -> str:
    return "not measured" if rate is None else f"{100 * rate:.0f}%"
