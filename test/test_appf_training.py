"""Diffusion, checkpoints, samples and the two training stages."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import Progress

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.expert import checkpoint
from bridgevla_ros.expert.config import ModelConfig
from bridgevla_ros.expert.diffusion import ddim_steps
from bridgevla_ros.expert.model import ExpertModel
from bridgevla_ros.expert.runtime_onnx import OnnxRuntime, graph_name, save_graph
from bridgevla_ros.expert.runtime_torch import TorchRuntime
from bridgevla_ros.training import appf
from bridgevla_ros.training.episodes import FIRST_SEED, View, generate, load_shard, save_shard
from bridgevla_ros.training.episodes_sampling import GuidanceLibrary, Recipe, Sampler, grasp_band, turn

SMALL = ModelConfig(
    point_widths=(8, 16), heads=2, cloud_features=8, width=32, blocks=1, conditioning_width=16
)


def random_model(config: ModelConfig, seed: int = 0) -> ExpertModel:
    """A model whose zero-initialised layers are not zero."""
    torch.manual_seed(seed)
    model = ExpertModel(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, 0.0, 0.1)
    return model


def cube_view(seed: int, phase: str = "pick", yaw: float = 0.3) -> View:
    """The top and a side of a 4 cm cube, and a neighbour."""
    rng = np.random.default_rng(seed)
    own = rng.uniform(-0.02, 0.02, (150, 3)) + np.array([0.0, 0.0, 0.02])
    other = rng.uniform(-0.02, 0.02, (60, 3)) + np.array([0.09, 0.0, 0.02])
    points = np.concatenate([own, other]).astype(np.float16)
    target = np.arange(210) < 150
    return View(
        seed, phase, "cube", (0.04, 0.04, 0.04), yaw, (0.5, 0.1, 0.0), 0.05, 0.0, points,
        np.zeros(210, np.float16), target, np.array([0.0, 0.0, 0.07]),
    )  # fmt: skip


@pytest.fixture(scope="module")
def library() -> GuidanceLibrary:
    return GuidanceLibrary(2, 0, SMALL, period=0.2)


@pytest.mark.parametrize("prediction", ["sample", "epsilon"])
@pytest.mark.parametrize("count", [5, 8, 10])
def test_the_unrolled_loop_is_the_schedulers(prediction: str, count: int) -> None:
    config = dataclasses.replace(SMALL, prediction_type=prediction)
    model = random_model(config)
    scheduler = DDIMScheduler(
        config.train_timesteps, beta_schedule=config.beta_schedule, prediction_type=prediction,
        clip_sample=True, set_alpha_to_one=True, steps_offset=0, timestep_spacing="trailing",
    )  # fmt: skip
    scheduler.set_timesteps(count)
    steps = ddim_steps(config.train_timesteps, config.beta_schedule, count)
    assert [s.timestep for s in steps] == scheduler.timesteps.tolist()
    with torch.no_grad():
        conditioning, prior = torch.randn(1, 16), 0.1 * torch.randn(1, 160)
        ours = theirs = torch.randn(3, 160)
        for step in steps:
            ours = model.step(ours, conditioning, prior, step)
        for t in scheduler.timesteps:
            out = model.denoiser(theirs, t[None].float(), conditioning, prior)
            theirs = scheduler.step(out, t, theirs).prev_sample
    assert float((ours - theirs).abs().max()) < 1e-4


def test_onnx_with_weights_from_the_checkpoint_equals_torch(tmp_path: Path) -> None:
    model = random_model(SMALL)
    checkpoint.save(tmp_path, SMALL, {k: v.numpy() for k, v in model.state_dict().items()}, {})
    loaded = checkpoint.load(tmp_path)
    save_graph(tmp_path, loaded, 4)
    assert (tmp_path / graph_name(4)).stat().st_size < 400_000  # structure, no weights
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(s).astype(np.float32) for s in ((1, SMALL.feature_dim), (1, 40, 4))]
    mask = (rng.random((1, 40)) < 0.7).astype(np.float32)
    noise = rng.standard_normal((3, 160)).astype(np.float32)
    for steps in (4, 3):  # shipped graph; exported now
        a = OnnxRuntime(loaded, steps, 1)(*inputs, mask, noise)
        b = TorchRuntime(loaded, steps, "cpu", 1)(*inputs, mask, noise)
        assert np.abs(a[0] - b[0]).max() < 1e-4
        assert np.abs(a[1] - b[1]).max() < 1e-4


def test_masked_points_do_not_count() -> None:
    model = random_model(SMALL)
    cloud, features = torch.randn(1, 20, 4), torch.randn(1, SMALL.feature_dim)
    mask = (torch.arange(20) < 12).float()[None]
    changed = cloud.clone()
    changed[:, 12:] = 7.0
    with torch.no_grad():
        for a, b in zip(model.look(cloud, mask, features), model.look(changed, mask, features), strict=True):
            assert torch.allclose(a, b, atol=1e-6)
        for value in model.look(cloud, mask * 0.0, features):
            assert float(value.abs().max()) == 0.0


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    model = random_model(SMALL)
    checkpoint.save(tmp_path, SMALL, {k: v.numpy() for k, v in model.state_dict().items()}, {"seed": 3})
    assert checkpoint.load(tmp_path).card["seed"] == 3
    raw = bytearray((tmp_path / checkpoint.WEIGHTS).read_bytes())
    raw[-1] ^= 1
    (tmp_path / checkpoint.WEIGHTS).write_bytes(bytes(raw))
    with pytest.raises(BridgeError, match="damaged") as caught:
        checkpoint.load(tmp_path)
    assert caught.value.code == ErrorCode.MODEL_ERROR


def test_a_shard_round_trips(tmp_path: Path) -> None:
    views = [cube_view(1), cube_view(2, "place")]
    save_shard(tmp_path / "views-1.npz", views)
    back = load_shard(tmp_path / "views-1.npz")
    for a, b in zip(views, back, strict=True):
        assert (a.scene_seed, a.phase, a.size, a.base) == (b.scene_seed, b.phase, b.size, b.base)
        assert np.array_equal(a.points, b.points)
        assert np.array_equal(a.target, b.target)


def test_scenes_of_the_evaluation_are_not_rendered(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="belongs to the evaluation"):
        generate(tmp_path, FIRST_SEED - 1, 1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_labels_lead_to_the_true_contact(library: GuidanceLibrary, seed: int) -> None:
    """Guided contact + label, turned back into the base frame, is the object's middle and a good height."""
    recipe = Recipe(erase_share=0.0, blind_share=0.0)
    sampler = Sampler([cube_view(5)], library, SMALL, recipe)
    rng = np.random.default_rng(seed)
    batch = sampler.clouds(rng, 4)
    assert batch.contact[:, 4].min() == 1.0
    # The cube's middle, seen from the guided contact: the mean of its points in the local frame.
    own = (
        np.linalg.norm(
            batch.cloud[..., :2] * 0.1 - batch.contact[:, None, :2] * SMALL.position_limit, axis=-1
        )
        < 0.035
    )
    for b in range(4):
        inside = own[b] & (batch.mask[b] > 0)
        middle = batch.cloud[b, inside, :2].mean(axis=0) * 0.1
        assert np.linalg.norm(middle - batch.contact[b, :2] * SMALL.position_limit) < 0.006
    gain = batch.features[:, 18 + 9 * 16 : 18 + 10 * 16]
    action = batch.action.reshape(4, 16, 10)
    assert np.allclose(action[..., :3], gain[..., None] * batch.contact[:, None, :3], atol=1e-5)


def test_without_a_visible_target_the_label_is_guidance(library: GuidanceLibrary) -> None:
    sampler = Sampler([cube_view(5)], library, SMALL, Recipe(erase_share=1.0, blind_share=0.0))
    batch = sampler.clouds(np.random.default_rng(0), 8)
    assert batch.mask.any()  # the neighbour is still there
    assert np.abs(batch.contact).max() == 0.0
    assert np.abs(batch.action.reshape(8, 16, 10)[..., :9]).max() < 1e-6


def test_the_state_tells_nothing_about_the_error(library: GuidanceLibrary) -> None:
    """Otherwise the network copies its own last answer instead of looking."""
    sampler = Sampler([cube_view(i) for i in range(4)], library, SMALL, Recipe())
    rng = np.random.default_rng(0)
    batch = sampler.clouds(rng, 600)
    for axis in range(3):
        offset, truth = batch.features[:, 15 + axis], batch.contact[:, axis]
        if truth.std() > 0:
            assert abs(np.corrcoef(offset, truth)[0, 1]) < 0.12


@given(st.floats(0.02, 0.12))
def test_the_grasp_band_is_over_the_table_and_under_the_top(height: float) -> None:
    low, high = grasp_band(height)
    assert 0.020 <= low < high
    assert high <= max(height, 0.024)


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.floats(-3, 3))
def test_turn_keeps_heights_and_comes_back(vector: list[float], angle: float) -> None:
    v = np.array([vector])
    there = turn(v, np.array([angle]))
    assert there[0, 2] == v[0, 2]
    assert np.allclose(turn(there, np.array([-angle])), v, atol=1e-12)


def small_config() -> appf.TrainConfig:
    stage = appf.Stage(steps=6, batch=8, micro_batch=4, learning_rate=1e-3, warmup=2)
    return appf.TrainConfig(0, "cpu", 2, 2, 5.0, 1e-6, (0.95, 0.999), 1.0, 0.75, 0.99, 3, stage, stage)


@pytest.mark.parametrize("stage", [1, 2])
def test_resumed_training_is_the_uninterrupted_one(
    stage: int, library: GuidanceLibrary, tmp_path: Path
) -> None:
    config = small_config()
    sampler = Sampler([cube_view(i) for i in range(3)], library, SMALL, Recipe())
    quiet = Progress(console=Console(file=io.StringIO()))

    def batches(first: int) -> list[appf.Batch]:
        draw = sampler.trajectories if stage == 1 else sampler.clouds
        return [draw(np.random.default_rng(i), 4) for i in range(first, 12)]

    def trainer(folder: Path) -> appf.Trainer:
        torch.manual_seed(0)
        return appf.Trainer(config, ExpertModel(SMALL), stage, folder)

    whole = trainer(tmp_path / "a")
    whole.run(iter(batches(0)), quiet)
    first = trainer(tmp_path / "b")
    first.settings = dataclasses.replace(first.settings, steps=3)
    first.run(iter(batches(0)), quiet)
    second = trainer(tmp_path / "b")
    second.load(json.loads((tmp_path / "b" / "state.json").read_text()))
    assert second.step == 3
    second.run(iter(batches(6)), quiet)
    for a, b in zip(whole.averaged().parameters(), second.averaged().parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_an_unknown_training_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("seed: 0\nstepz: 3\n")
    with pytest.raises(ValueError, match="stepz"):
        appf.TrainConfig.load(path)
    root = Path(__file__).resolve().parents[1] / "config" / "training"
    assert appf.TrainConfig.load(root / "appf.yaml").stage1.batch == 32768
    assert appf.TrainConfig.load(root / "appf.yaml").stage2.batch == 256
    assert appf.TrainConfig.load(root / "appf_two_core.yaml").device == "cpu"


def test_held_out_scenes_are_apart(tmp_path: Path) -> None:
    save_shard(tmp_path / "views-1.npz", [cube_view(i) for i in range(20) for _ in range(2)])
    train, held = appf.read_bank(tmp_path)
    assert {v.scene_seed for v in held} == {18, 19}
    assert not {v.scene_seed for v in train} & {18, 19}
