"""Fine-tuning: small checkpoints go the whole way, and forgetting ends it."""

import argparse
import json
from pathlib import Path

import pytest
import torch

from bridgevla_ros.core import resources
from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.types import PlanRequest
from bridgevla_ros.planner.backends.transformers import TransformersBackend
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.planner import Planner
from bridgevla_ros.simulation.tasks import sample_scene
from bridgevla_ros.simulation.world import World
from bridgevla_ros.training import sft, sft_examples, sft_questions, sft_scenes, sft_small

# Of trl and peft, which lag behind transformers.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")

SEED = 900_300


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sft") / "scenes"
    assert sft_scenes.render(folder, 4, SEED, absent=0.0) >= 3
    return folder


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    sft.add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize("family", sorted(sft_small.FAMILIES))
def test_load_tune_merge_reload_plan(family: str, tmp_path: Path, examples: Path) -> None:
    """A checkpoint of Qwen's classes goes the whole way, and the merged one answers as it was taught."""
    checkpoint, out = tmp_path / "base", tmp_path / "out"
    taught = sft_examples.read(examples)[:1]
    lessons = sft_examples.turns(taught, family, both=False)
    sft_small.make(checkpoint, family, [lessons[0].answer, lessons[0].messages[0]["content"][1]["text"]])
    words = [
        str(checkpoint), "--out", str(out), "--examples", str(examples), "--convention", family,
        "--config", "training/sft_small.yaml", "--questions", "none", "--steps", "2", "--batch", "2",
        "--accumulate", "2", "--probe-every", "1", "--save-every", "1", "--pointing", "1",
        "--max-new-tokens", "8", "--turns", "both", "--rank", "4", "--alpha", "8", "--targets", "all",
    ]  # fmt: skip
    assert sft.run(arguments(*words)) == 0
    card = json.loads((out / "model" / "sft.json").read_text())
    assert card["weights_of_step"] == 2
    assert [row["step"] for row in card["measured"]] == [0, 1, 2]
    config = PlannerConfig(
        backend="transformers",
        weights=str(out / "model"),
        convention=family,
        max_new_tokens=8,
        cached_answers=0,
    )
    before = TransformersBackend(
        PlannerConfig(backend="transformers", weights=str(checkpoint), convention=family)
    )
    after = TransformersBackend(config)
    assert after.sha256 not in ("", before.sha256)
    changed = dict(after.model.named_parameters())
    moved = [n for n, p in before.model.named_parameters() if not torch.equal(p, changed[n])]
    assert any("layers.0" in n for n in moved)
    assert not any("embed_tokens" in n or "norm" in n for n in moved)  # LoRA touches linear layers alone
    world = World(scene=sample_scene(SEED))
    frame, T_base_camera = world.render(), world.T_base_camera
    request = PlanRequest(0.0, "t", "r", "put the red cube in the bowl")
    plan = Planner(config, after).plan(request, frame, T_base_camera, now=0.0)
    assert plan.model == after.name
    assert plan.model_sha256 == after.sha256
    assert plan.code != ErrorCode.NONE  # two steps teach nothing: it is refused by name, never guessed
    world.close()


def test_forgetting_ends_it(tmp_path: Path, examples: Path) -> None:
    """A model that knows its questions by heart loses them to a rate far too high, and that is seen."""
    rows = resources.find_config("questions/general.csv").read_text().splitlines()[:9]
    (tmp_path / "q.csv").write_text("\n".join(rows) + "\n")
    questions = sft_questions.read(tmp_path / "q.csv")
    known = sft_small.make_taught(tmp_path / "base", "qwen2.5", questions, steps=120)
    assert known.rate == 1.0
    words = [
        str(tmp_path / "base"), "--out", str(tmp_path / "out"), "--examples", str(examples),
        "--config", "training/sft_small.yaml", "--questions", str(tmp_path / "q.csv"), "--steps", "8",
        "--batch", "1", "--probe-every", "4", "--learning-rate", "0.02", "--margin", "0.2", "--pointing", "0",
    ]  # fmt: skip
    assert sft.run(arguments(*words)) == 1
    card = json.loads((tmp_path / "out" / "sft.json").read_text())
    assert card["stopped"].startswith("step 4: general questions fell from 100%")
    assert [row["step"] for row in card["measured"]] == [0, 4]
    assert not (tmp_path / "out" / "model").exists()
