"""The small vision-language model: its tokens, its eyes, its losses, its training from frames to a plan."""

import argparse
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.planner import conventions, parse, prompt
from bridgevla_ros.planner.backends.embedded import SHIPPED
from bridgevla_ros.planner.backends.transformers import TransformersBackend
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.grounding import GroundingModel
from bridgevla_ros.planner.image import HEIGHT_UNKNOWN, network_input
from bridgevla_ros.planner.processors import load_processor
from bridgevla_ros.planner.self_test import drawn_frame
from bridgevla_ros.training import (
    planner_phrasings,
    small_vlm,
    small_vlm_data,
    small_vlm_model,
    small_vlm_step,
)
from bridgevla_ros.training.planner_data import Frames, render

SEED = 900_500
ASKED = "put the red cube in the blue bowl"


@pytest.fixture(scope="module")
def frames() -> Frames:
    return render(SEED, 3, 2, 192, 256)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint of little width."""
    out = tmp_path_factory.mktemp("small") / "model"
    rng = random.Random(0)
    texts = [planner_phrasings.sample(rng).text for _ in range(300)]
    small_vlm_model.make(out, texts, width=96, layers=3, heads=2, words=500)
    return out


@pytest.fixture(scope="module")
def writer(folder: Path) -> small_vlm_step.Writer:
    return small_vlm_step.Writer(load_processor(folder).tokenizer, (12, 16), 16)


def test_an_answer_is_a_few_tokens_and_comes_back(writer: small_vlm_step.Writer) -> None:
    words, rng = writer.words, np.random.default_rng(0)
    for _ in range(30):
        written = rng.uniform(0, [255, 191], (2, 2))
        answer = conventions.write(written, ["red cube", "blue bowl"], small_vlm_model.CONVENTION, 256, 192)
        ids = words(answer, add_special_tokens=False)["input_ids"]
        assert words.decode(ids) == answer
        assert len(ids) < 18
        axes = [int(a) for a in writer.axis[ids] if a >= 0]
        assert axes == [0, 1, 0, 1]  # each coordinate is one token, and which of the two it is shows
        found = np.array([p[:2] for p in parse.points(answer, "qwen3")])
        at = [int(writer.value[i]) for i in ids if writer.axis[i] >= 0]
        assert at == found.ravel().tolist()
    asked = prompt.first_turn(ASKED, "qwen3")[0]["content"][1]["text"]
    assert len(words(asked)["input_ids"]) < 16


def test_a_thought_names_what_is_meant_and_the_planner_leaves_it_out(writer: small_vlm_step.Writer) -> None:
    size, words = np.array([256.0, 192.0]), writer.words
    points, things = np.array([[10.0, 20.0], [200.0, 150.0]]), ["red cube", "blue bowl"]
    both = small_vlm_data.lesson(ASKED, points, things, (1, 2), size)
    assert both.answer.startswith("<think><red cube> is there<blue bowl> is there</think>")
    assert [p[2] for p in parse.points(both.answer, "qwen3")] == things
    ids = words(both.answer, add_special_tokens=False)["input_ids"]
    assert words.decode(ids) == both.answer
    assert len(ids) < 25
    batch = writer.batch(
        [small_vlm_data.Scene(np.zeros((192, 256, 3), np.uint8), np.zeros((48, 64), np.uint8), [both])]
    )
    named = words.convert_ids_to_tokens(batch.tokens[0, batch.nouns[:, 1]])
    assert named == ["<red cube>", "<blue bowl>"]
    rows, columns = np.divmod(batch.named.argmax(1).numpy(), 16)  # taught to look at where they are
    assert np.array_equal(np.stack([columns, rows], 1), points // 16)
    one = small_vlm_data.lesson(ASKED, np.zeros((0, 2)), things, (), size, there=(True, False))
    assert " is missing</think>" in one.answer
    assert parse.points(one.answer, "qwen3") == []


def test_before_any_training_a_name_looks_at_its_thing(
    folder: Path, writer: small_vlm_step.Writer, frames: Frames
) -> None:
    """What the eyes see and what a name means begin alike: pointing has not to be found out by chance."""
    model = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager").eval()
    near, shares = [], []
    for index in range(len(frames)):
        scene = small_vlm_data.scene(frames, index, 3, [5, index], train=False)
        for lesson in scene.lessons:
            batch = writer.batch([small_vlm_data.Scene(scene.rgb, scene.owner, [lesson])])
            image = torch.full((1, 12 * 16), model.config.image_token_id)
            with torch.no_grad():
                out = model(
                    input_ids=torch.cat([image, batch.tokens], 1),
                    pixel_values=batch.pixels,
                    output_attentions=True,
                )
            for target, place in zip(lesson.targets, writer.thought(batch.tokens[0]), strict=False):
                look = out.attentions[1][0, 0, 192 + place, :192]
                row, column = divmod(int(look.argmax()), 16)
                near.append(np.abs((np.array([column, row]) + 0.5) * 16 - 0.5 - target).max() < 16)
                shares.append(float(look.sum()))
    assert len(near) > 15
    assert np.mean(near) > 0.5  # by chance: a few percent
    assert np.mean(shares) > 0.8  # at the image, not at words


def test_heads_too_narrow_for_what_they_begin_with_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match="32 values in a head"):
        small_vlm_model.make(tmp_path, ["put it there"], width=64, layers=3, heads=2, words=300)


def test_the_tower_is_the_trunk_with_depth_unknown(folder: Path) -> None:
    trunk = GroundingModel.from_pretrained(SHIPPED).eval().trunk
    model = AutoModelForImageTextToText.from_pretrained(folder).train()  # training leaves the trunk as it is
    frame = drawn_frame()
    text = small_vlm_model.IMAGE
    given = load_processor(folder)(text=text, images=Image.fromarray(frame.rgb), return_tensors="pt")
    assert int((given["input_ids"] == model.config.image_token_id).sum()) == 12 * 16
    rgb = np.asarray(Image.fromarray(frame.rgb).resize((256, 192), Image.Resampling.BOX))
    image = network_input(rgb, np.full((192, 256), HEIGHT_UNKNOWN, np.uint8))[None]
    assert np.allclose(given["pixel_values"], image[:, :3], atol=0.01)
    with torch.no_grad():
        seen = trunk(torch.from_numpy(image))
        tokens = model.model.vision_tower(torch.from_numpy(image[:, :3])).last_hidden_state
    channels = seen.features.shape[1]
    cells = tokens[0, 5 * 16 + 3].split(16)  # of row 5, column 3: each channel's 4x4 cells
    for channel in (0, channels - 1):
        assert torch.allclose(
            cells[channel].reshape(4, 4), seen.features[0, channel, 20:24, 12:16], atol=1e-4
        )


def test_lessons_that_share_an_image_cost_what_each_alone_costs(
    folder: Path, writer: small_vlm_step.Writer, frames: Frames
) -> None:
    """The losses of the packed batch are those of the plain model on whole conversations."""
    model = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager").eval()
    teacher = small_vlm_step.Teacher(model, writer, near=0.01, layer=2, heads=2)
    scenes = [small_vlm_data.scene(frames, i, 4, [7, i], train=False) for i in (0, 2)]
    batch = writer.batch(scenes)
    assert len(batch.owner) >= 4
    with torch.no_grad():
        packed = teacher.losses(batch, tower=False)
        words, numbers = [], []
        for scene in scenes:
            for lesson in scene.lessons:
                one = writer.batch([small_vlm_data.Scene(scene.rgb, scene.owner, [lesson])])
                image = torch.full((1, 12 * 16), model.config.image_token_id)
                logits = model(input_ids=torch.cat([image, one.tokens], 1), pixel_values=one.pixels).logits[
                    0, 12 * 16 :
                ]
                taught = one.labels[0] != small_vlm_step.IGNORE
                right = one.labels[0][taught]
                cost = torch.nn.functional.cross_entropy(logits[taught], right, reduction="none")
                words += cost[writer.axis[right] < 0].tolist()
                numbers += cost[writer.axis[right] >= 0].tolist()
    assert float(packed.words) == pytest.approx(np.mean(words), abs=1e-3)
    assert float(packed.numbers) == pytest.approx(np.mean(numbers), abs=1e-3)
    assert float(packed.looks) > 0.5  # an untrained model looks anywhere


def test_targets_lie_on_what_is_named(frames: Frames) -> None:
    named = 0
    for index in range(len(frames)):
        scene = small_vlm_data.scene(frames, index, 6, [3, index], train=True)
        for lesson in scene.lessons:
            found = np.array([p[:2] for p in parse.points(lesson.answer, "qwen3")]).reshape(-1, 2)
            pixels = conventions.to_pixels(found, "qwen3", 256, 192)
            assert len(pixels) == len(lesson.objects)
            for (u, v), wanted in zip(pixels, lesson.objects, strict=True):
                column, row = np.clip(np.round((np.array([u, v]) + 0.5) / 4 - 0.5).astype(int), 0, [63, 47])
                is_drawer = frames.things[index][wanted - 1] == 8
                assert is_drawer or scene.owner[row, column] == wanted
                named += 1
    assert named > 20
    drawn = small_vlm_data.drawing(192, 256, 4, [1])
    for lesson in drawn.lessons:
        for (u, v), wanted in zip(np.round(lesson.targets).astype(int), lesson.objects, strict=True):
            assert drawn.owner[v // 4, u // 4] == wanted


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    small_vlm.add_arguments(parser)
    return parser.parse_args(words)


def test_a_training_goes_on_and_its_model_plans(tmp_path: Path, frames: Frames) -> None:
    (tmp_path / "data").mkdir()
    frames.save(tmp_path / "data" / "train_0000.npz")
    frames.save(tmp_path / "data" / "validation.npz")
    words = [
        "--out", str(tmp_path / "out"), "--data", str(tmp_path / "data"), "--shards", "1", "--minutes", "0",
        "--width", "96", "--heads", "2", "--layers", "3", "--words", "400", "--images", "1", "--lessons", "4",
        "--measured", "2", "--learning-rate", "0.002", "--tower-from", "0", "--drawings", "0.3",
    ]  # fmt: skip
    assert small_vlm.run(arguments(*words, "--steps", "3")) == 0
    with pytest.raises(BridgeError, match="holds a training already"):
        small_vlm.run(arguments(*words))
    assert small_vlm.run(arguments(*words, "--steps", "12", "--resume")) == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 12]
    assert rows[-1]["words"] < 0.8 * rows[0]["words"]  # the fixed words of an answer are learned at once
    card = json.loads((tmp_path / "out" / "model" / "training.json").read_text())
    assert card["steps"] == 12
    base = GroundingModel.from_pretrained(SHIPPED).trunk.state_dict()
    backend = TransformersBackend(
        PlannerConfig(
            backend="transformers", weights=str(tmp_path / "out" / "model"), convention="qwen3",
            max_new_tokens=8, cached_answers=0,
        )
    )  # fmt: skip
    assert backend.model.dtype == torch.float32
    learned = backend.model.model.vision_tower.trunk.state_dict()
    moved = {name for name in base if not torch.allclose(base[name], learned[name], atol=2e-3, rtol=2e-3)}
    assert not any("running" in name for name in moved)
    assert isinstance(backend.generate(prompt.first_turn(ASKED, "qwen3"), drawn_frame(), 0), str)
