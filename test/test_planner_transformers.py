"""A checkpoint of random weights through load, two turns and parsing; scripted answers for success."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import vlm_checkpoints
from PIL import Image

from bridgevla_ros.core.config import ConfigError
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import PlanRequest, RgbdFrame
from bridgevla_ros.planner import prompt
from bridgevla_ros.planner.backends import Anchors, LocalWaypoint, make_backend
from bridgevla_ros.planner.backends.chat import read_anchors
from bridgevla_ros.planner.backends.transformers import TransformersBackend
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.conventions import write
from bridgevla_ros.planner.parse import waypoints
from bridgevla_ros.planner.planner import Planner
from bridgevla_ros.simulation.tasks import sample_scene
from bridgevla_ros.simulation.world import World
from bridgevla_ros.training import sft_small


def make_checkpoint(folder: Path) -> None:
    """PaliGemma's class at 100k parameters with a word tokenizer; nothing is downloaded."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        GemmaConfig,
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        PreTrainedTokenizerFast,
        SiglipImageProcessor,
        SiglipVisionConfig,
    )

    words = [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        *[f"<loc{i:04d}>" for i in range(1024)],
        *["the", "red", "cube", ";"],
    ]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>"
    )
    images = SiglipImageProcessor(size={"height": 28, "width": 28})
    images.image_seq_length = 4
    processor = PaliGemmaProcessor(image_processor=images, tokenizer=fast)
    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        image_size=28,
        patch_size=14, projection_dim=16,
    )  # fmt: skip
    text = GemmaConfig(
        vocab_size=len(fast) + 64, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, pad_token_id=0, bos_token_id=2, eos_token_id=1,
    )  # fmt: skip
    image_token = fast.convert_tokens_to_ids("<image>")
    config = PaliGemmaConfig(
        vision_config=vision,
        text_config=text,
        projection_dim=16,
        image_token_index=image_token,
        pad_token_id=0,
    )
    PaliGemmaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)


@pytest.fixture(scope="module")
def scene() -> tuple[World, RgbdFrame, Transform]:
    world = World(scene=sample_scene(800_002))
    return world, world.render(), world.T_base_camera


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of transformers itself
def test_load_generate_parse(tmp_path: Path, scene: tuple[World, RgbdFrame, Transform]) -> None:
    make_checkpoint(tmp_path)
    config = PlannerConfig(
        backend="transformers",
        weights=str(tmp_path),
        convention="paligemma",
        max_new_tokens=12,
        waypoint_source="model",
    )
    backend = TransformersBackend(config)
    assert backend.name == "transformers:paligemma"
    assert len(backend.sha256) == 64
    _, frame, T_base_camera = scene
    plan = Planner(config, backend).plan(
        PlanRequest(0.0, "t", "r", "put the red cube in the bowl"), frame, T_base_camera, now=0.0
    )
    # Random weights write random tokens: what cannot be read ends in a named refusal, never in a guess.
    assert plan.code in (ErrorCode.PARSE, ErrorCode.AMBIGUOUS, ErrorCode.OUT_OF_RANGE, ErrorCode.DEPTH_HOLE)
    assert plan.waypoints == ()
    one, two = (
        backend.generate([{"content": [{"type": "text", "text": "red cube"}]}], frame, 3) for _ in range(2)
    )
    assert one == two


@pytest.mark.parametrize(
    ("family", "convention", "name"),
    [
        ("qwen2.5", "qwen2.5", "qwen2_5_vl"),
        ("qwen3", "qwen3", "qwen3_vl"),
        ("idefics3", "robopoint", "idefics3"),
    ],
)
def test_other_classes_load_look_and_answer(
    tmp_path: Path,
    scene: tuple[World, RgbdFrame, Transform],
    family: str,
    convention: str,
    name: str,
) -> None:
    """Both turns of the conversation, by checkpoints of random weights; what they see reaches the network."""
    if family == "idefics3":
        vlm_checkpoints.idefics3(tmp_path)
    else:
        sft_small.make(tmp_path, family, ["put the red cube in the bowl"], width=32, pixels=112 * 112)
    config = PlannerConfig(
        backend="transformers", weights=str(tmp_path), convention=convention, max_new_tokens=8,
        self_test=False, semantic_limit=0.0,
    )  # fmt: skip
    backend = make_backend(config)
    assert isinstance(backend, TransformersBackend)
    assert (backend.name, len(backend.sha256)) == (f"transformers:{name}", 64)
    _, frame, T_base_camera = scene
    plan = Planner(config, backend).plan(
        PlanRequest(0.0, "t", "r", "put the red cube in the bowl"), frame, T_base_camera, now=0.0
    )
    assert plan.code in (ErrorCode.PARSE, ErrorCode.NO_TARGET, ErrorCode.OUT_OF_RANGE), plan.message
    assert plan.waypoints == ()
    assert backend.usage.tokens > 0
    first = prompt.first_turn("put the red cube in the bowl", convention)
    second = prompt.second_turn(first, "[]", np.array([0.8, 0.9]), frame.intrinsics)
    assert backend.generate(second, frame, 0) == backend.generate(second, frame, 0)
    logits = []
    for rgb in (frame.rgb, frame.rgb[::-1, ::-1]):
        image = Image.fromarray(np.ascontiguousarray(rgb))
        inputs = backend.processor(text=backend._render(first), images=image, return_tensors="pt")
        with torch.inference_mode():
            logits.append(backend.model(**inputs).logits[0, -1])
    assert float((logits[0] - logits[1]).abs().max()) > 0.0


def test_a_checkpoint_that_learned_to_point_plans(
    tmp_path: Path, scene: tuple[World, RgbdFrame, Transform]
) -> None:
    """Its answer becomes a plan of six waypoints that passes the gate."""
    world, frame, T_base_camera = scene
    source = next(o for o in world.scene.objects if o.movable)
    goal = next(o for o in world.scene.objects if not o.movable)
    segmentation, points = world.render_segmentation(), []
    for item in (source, goal):
        rows, columns = np.nonzero(segmentation == world.scene.objects.index(item) + 1)
        points.append(f"({columns.mean() / frame.rgb.shape[1]:.3f}, {rows.mean() / frame.rgb.shape[0]:.3f})")
    clause = f"put the {source.name} in the {goal.name}"
    answer = f"[{', '.join(points)}]"
    first = prompt.first_turn(clause, "robopoint")
    assert vlm_checkpoints.learn_by_heart(tmp_path, first, Image.fromarray(frame.rgb), answer) < 0.05
    config = PlannerConfig(
        backend="transformers", weights=str(tmp_path), convention="robopoint", max_new_tokens=48,
        self_test=False, semantic_limit=0.0,
    )  # fmt: skip
    planner = Planner(config)
    plan = planner.plan(PlanRequest(0.0, "t", "r", clause), frame, T_base_camera, now=0.0)
    assert plan.code is ErrorCode.NONE, plan.message
    assert len(plan.waypoints) == 6
    assert planner.costs()["tokens"] == len(answer) + 1
    grip = (T_base_camera @ plan.waypoints[1].T_camera_tcp).translation
    assert np.linalg.norm(grip[:2] - world.object_pose(source.name).translation[:2]) < 0.015


def test_settings_are_required(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="convention"):
        PlannerConfig(backend="transformers", weights=str(tmp_path))
    with pytest.raises(BridgeError, match="could not be loaded"):
        TransformersBackend(PlannerConfig(backend="transformers", weights=str(tmp_path), convention="qwen3"))
    with pytest.raises(BridgeError, match="no checkpoint folder"):
        TransformersBackend(PlannerConfig(backend="transformers", weights="/nowhere", convention="qwen3"))


class Scripted:
    """Answers what a good model would write, through the same reading."""

    name, sha256 = "scripted", "0" * 64

    def __init__(self, pixels: Array, turn: str) -> None:
        self.pixels, self.turn = pixels, turn

    def anchors(self, frame: RgbdFrame, T_base_camera: Transform, clause: str, seed: int) -> Anchors:
        text = write(self.pixels, ["thing", "place"], "qwen3", frame.rgb.shape[1], frame.rgb.shape[0])
        return read_anchors(text, "qwen3", frame, clause)

    def waypoints(
        self, frame: RgbdFrame, clause: str, anchors: Anchors, depths: Array, seed: int
    ) -> list[LocalWaypoint]:
        assert len(depths) == 2
        return waypoints(self.turn, len(depths))


def test_two_turns_make_a_plan(scene: tuple[World, RgbdFrame, Transform]) -> None:
    world, frame, T_base_camera = scene
    segmentation = world.render_segmentation()
    source = next(o for o in world.scene.objects if o.movable)
    goal = next(o for o in world.scene.objects if not o.movable)
    pixels = []
    for item in (source, goal):
        rows, columns = np.nonzero(segmentation == world.scene.objects.index(item) + 1)
        pixels.append([columns.mean(), rows.mean()])
    turn = json.dumps(
        [
            {"anchor": 0, "offset": [0, 0, 0.10], "kind": "approach", "gripper": "open"},
            {"anchor": 0, "offset": [0.01, 0, -0.01], "kind": "contact", "gripper": "close"},
            {"anchor": 1, "offset": [0, 0, 0.20], "kind": "via"},
            {"anchor": 1, "offset": [0, 0, 0.05], "kind": "contact", "gripper": "open"},
        ]
    )
    planner = Planner(
        PlannerConfig(waypoint_source="model"), Scripted(np.array(pixels), turn), ArmModel.load()
    )
    plan = planner.plan(PlanRequest(0.0, "t", "r", "put it there"), frame, T_base_camera, now=0.0)
    assert plan.code == ErrorCode.NONE, plan.message
    grip = (T_base_camera @ plan.waypoints[1].T_camera_tcp).translation
    assert np.linalg.norm(grip[:2] - world.object_pose(source.name).translation[:2]) < 0.04
    # x points away from the camera: 1 cm of offset moves the contact along the camera's heading.
    above = (T_base_camera @ plan.waypoints[0].T_camera_tcp).translation
    heading = T_base_camera.rotation[:2, 2] / np.linalg.norm(T_base_camera.rotation[:2, 2])
    np.testing.assert_allclose(grip[:2] - above[:2], 0.01 * heading, atol=1e-6)


def test_three_points_are_ambiguous(scene: tuple[World, RgbdFrame, Transform]) -> None:
    text = '[{"point_2d": [1, 2]}, {"point_2d": [3, 4]}, {"point_2d": [5, 6]}]'
    with pytest.raises(BridgeError) as caught:
        read_anchors(text, "qwen3", scene[1], "x")
    assert caught.value.code == ErrorCode.AMBIGUOUS
    with pytest.raises(BridgeError) as caught:
        read_anchors("[]", "qwen3", scene[1], "x")
    assert caught.value.code == ErrorCode.NO_TARGET
