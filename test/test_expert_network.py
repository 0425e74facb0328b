"""The expert's networks, the unrolled diffusion, its runtimes and its checkpoints."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from diffusers import DDIMScheduler

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.expert import checkpoint
from bridgevla_ros.expert.config import CHOICES, ModelConfig
from bridgevla_ros.expert.diffusion import ddim_steps
from bridgevla_ros.expert.encoder import VoteEncoder
from bridgevla_ros.expert.features import POSITION_SCALE
from bridgevla_ros.expert.model import ExpertModel
from bridgevla_ros.expert.runtime_onnx import OnnxRuntime, graph_name, save_graph
from bridgevla_ros.expert.runtime_torch import TorchRuntime

SMALL = ModelConfig(
    encoder="vote", point_widths=(8, 8, 16), cloud_features=8, width=32, blocks=1, conditioning_width=16
)
KINDS = {
    "vote, mlp": SMALL,
    "keypoints, mlp": dataclasses.replace(SMALL, encoder="keypoints", heads=2),
    "maxpool, unet": dataclasses.replace(SMALL, encoder="maxpool", denoiser="unet", width=16),
}


def random_model(config: ModelConfig, seed: int = 0) -> ExpertModel:
    """A model whose zero-initialised layers are not zero."""
    torch.manual_seed(seed)
    model = ExpertModel(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, 0.0, 0.1)
    return model


def save(folder: Path, config: ModelConfig = SMALL) -> ExpertModel:
    """A checkpoint of a random model."""
    model = random_model(config)
    checkpoint.save(folder, config, {k: v.numpy() for k, v in model.state_dict().items()}, {"seed": 3})
    return model


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


@pytest.mark.parametrize("prediction", ["sample", "epsilon"])
def test_what_the_body_adds_nothing_to_ends_at_the_skip(prediction: str) -> None:
    """Both kinds of prediction begin where the product of contact and gain leads."""
    config = dataclasses.replace(SMALL, prediction_type=prediction)
    model = random_model(config)
    for parameter in model.denoiser.body.parameters():
        parameter.data.zero_()
    prior, x = torch.rand(1, 160) - 0.5, torch.randn(3, 160)
    with torch.no_grad():
        for step in ddim_steps(config.train_timesteps, config.beta_schedule, 8):
            x = model.step(x, torch.randn(1, 16), prior, step)
    assert torch.allclose(x, prior.expand(3, -1), atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_with_weights_from_the_checkpoint_equals_torch(kind: str, tmp_path: Path) -> None:
    config = KINDS[kind]
    save(tmp_path, config)
    loaded = checkpoint.load(tmp_path)
    save_graph(tmp_path, loaded, 4)
    assert (tmp_path / graph_name(4)).stat().st_size < 400_000  # structure, no weights
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(s).astype(np.float32) for s in ((1, config.feature_dim), (1, 40, 4))]
    mask = (rng.random((1, 40)) < 0.7).astype(np.float32)
    noise = rng.standard_normal((3, 160)).astype(np.float32)
    for steps in (4, 3) if kind == "vote, mlp" else (4,):  # shipped graph; exported now
        a = OnnxRuntime(loaded, steps, 1)(*inputs, mask, noise)
        b = TorchRuntime(loaded, steps, "cpu", 1)(*inputs, mask, noise)
        for one, other in zip(a, b, strict=True):
            assert np.abs(one - other).max() < 2e-4


@pytest.mark.parametrize("kind", KINDS)
def test_masked_points_and_their_order_do_not_count(kind: str) -> None:
    config = KINDS[kind]
    model = random_model(config)
    cloud, features = torch.randn(1, 20, 4), torch.randn(1, config.feature_dim)
    mask = (torch.arange(20) < 12).float()[None]
    changed = cloud.clone()
    changed[:, 12:] = 7.0
    turned = torch.cat([cloud[:, :12].flip(1), cloud[:, 12:]], dim=1)
    with torch.no_grad():
        plain = model.look(cloud, mask, features)
        for other in (changed, turned):
            for a, b in zip(plain, model.look(other, mask, features), strict=True):
                assert torch.allclose(a, b, atol=1e-5)
        for value in model.look(cloud, mask * 0.0, features):
            assert float(value.abs().max()) == 0.0


def test_every_point_votes_beside_itself() -> None:
    """Votes are offsets from the points: a cloud that is moved takes its votes along."""
    model = random_model(SMALL)
    cloud, features = torch.randn(2, 20, 4), torch.randn(2, SMALL.feature_dim)
    with torch.no_grad():
        glimpse = model.encoder(cloud, torch.ones(2, 20), features)
    assert glimpse.votes is not None
    assert glimpse.target is not None
    assert glimpse.votes.shape == (2, 20, 3)
    assert glimpse.target.shape == (2, 20)
    spread = glimpse.votes - cloud[..., :3] * 0.1 / SMALL.position_limit
    assert float(spread.std()) < float(glimpse.votes.std())


# -- checkpoints that must be refused, by name ------------------------------------------------------


def _truncate(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])


def _edit(folder: Path, **changes: object) -> None:
    card = json.loads((folder / checkpoint.CARD).read_text())
    card |= changes
    (folder / checkpoint.CARD).write_text(json.dumps({k: v for k, v in card.items() if v is not None}))


def _drop_statistic(folder: Path) -> None:
    model = json.loads((folder / checkpoint.CARD).read_text())["model"]
    del model["position_limit"]
    _edit(folder, model=model)


def _rename_encoder(folder: Path) -> None:
    model = json.loads((folder / checkpoint.CARD).read_text())["model"]
    _edit(folder, model=model | {"encoder": "keypoint"})


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "half-written weights": (lambda f: _truncate(f / checkpoint.WEIGHTS), "damaged"),
    "half-written card": (lambda f: _truncate(f / checkpoint.CARD), "no JSON"),
    "another version": (lambda f: _edit(f, format=1), "format 1, expected 3"),
    "no normaliser": (_drop_statistic, "missing \\['position_limit'\\]"),
    "no shape": (lambda f: _edit(f, model=None), "lacks 'model'"),
    "an unknown encoder": (_rename_encoder, "encoder 'keypoint'; expected one of vote, keypoints, maxpool"),
    "weights of another card": (lambda f: _edit(f, sha256="0" * 64), "belongs to another card"),
    "no weights": (lambda f: (f / checkpoint.WEIGHTS).unlink(), "does not exist"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_by_name(damage: str, tmp_path: Path) -> None:
    save(tmp_path)
    assert checkpoint.load(tmp_path).card["seed"] == 3
    spoil, message = DAMAGES[damage]
    spoil(tmp_path)
    with pytest.raises(BridgeError, match=message) as caught:
        checkpoint.load(tmp_path)
    assert caught.value.code == ErrorCode.MODEL_ERROR
    assert caught.value.remedy


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_weights_of_another_shape_are_refused(runtime: str, tmp_path: Path) -> None:
    save(tmp_path)
    loaded = checkpoint.load(tmp_path)
    save_graph(tmp_path, loaded, 4)
    wrong = dict(loaded.tensors)
    name = next(n for n in wrong if n.endswith("ballot.weight"))
    wrong[name] = wrong[name][:, :-1]
    broken = dataclasses.replace(loaded, tensors=wrong)
    with pytest.raises(BridgeError, match=r"ballot\.weight") as caught:
        OnnxRuntime(broken, 4, 1) if runtime == "onnx" else TorchRuntime(broken, 4, "cpu", 1)
    assert caught.value.code == ErrorCode.MODEL_ERROR
    assert caught.value.remedy


def test_a_half_written_graph_is_refused(tmp_path: Path) -> None:
    save(tmp_path)
    loaded = checkpoint.load(tmp_path)
    _truncate(save_graph(tmp_path, loaded, 4))
    with pytest.raises(BridgeError, match="half-written") as caught:
        OnnxRuntime(loaded, 4, 1)
    assert "remove sampler_4.onnx" in caught.value.remedy


def test_a_graph_that_an_earlier_version_wrote_is_made_anew(tmp_path: Path) -> None:
    save(tmp_path)
    loaded = checkpoint.load(str(tmp_path))
    path = save_graph(tmp_path, loaded, 4)
    graph = onnx.load_model_from_string(path.read_bytes())
    del graph.graph.output[2]  # the dissent of the votes
    path.write_bytes(graph.SerializeToString())
    cloud = np.random.default_rng(0).normal(size=(1, 30, 4)).astype(np.float32)
    vector = np.zeros((1, SMALL.feature_dim), np.float32)
    noise = np.zeros((1, SMALL.horizon * SMALL.action_dim), np.float32)
    *_, dissent = OnnxRuntime(loaded, 4, 1)(vector, cloud, np.ones((1, 30), np.float32), noise)
    assert dissent.shape == (1,)
    assert dissent[0] > 0.0


def test_votes_differ_by_their_distance_from_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(SMALL)
    cloud, mask = torch.randn(1, 6, 4), torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0, 0.0]])
    assert isinstance(model.encoder, VoteEncoder)
    ballot = torch.zeros(1, 6, 5)  # all alike: the votes are the points themselves
    monkeypatch.setattr(model.encoder.ballot, "forward", lambda _: ballot)
    seen = model.encoder(cloud, mask, torch.randn(1, SMALL.feature_dim))
    there = cloud[0, :4, :2]
    wanted = (
        ((there - there.mean(dim=0)) ** 2).sum(dim=1).mean().sqrt() * POSITION_SCALE / SMALL.position_limit
    )
    assert seen.dissent.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert model.encoder(cloud, 0.0 * mask, torch.randn(1, SMALL.feature_dim)).dissent.item() == 0.0


def test_weights_that_are_not_finite_are_neither_written_nor_read(tmp_path: Path) -> None:
    model = random_model(SMALL)
    tensors = {k: v.numpy() for k, v in model.state_dict().items()}
    for bad in (np.nan, 1e6):  # the second has no half precision
        tensors["denoiser.prior.bias"] = np.full(160, bad, np.float32)
        with pytest.raises(BridgeError, match=r"denoiser\.prior\.bias"):
            checkpoint.save(tmp_path, SMALL, tensors, {})
    assert not (tmp_path / checkpoint.WEIGHTS).exists()


@pytest.mark.parametrize("name", CHOICES)
def test_an_unknown_name_is_no_network(name: str) -> None:
    with pytest.raises(BridgeError, match=f"{name} 'keypoint'; expected one of {CHOICES[name][0]}") as caught:
        dataclasses.replace(SMALL, **{name: "keypoint"})
    assert caught.value.code == ErrorCode.BAD_INPUT
    assert name in caught.value.remedy


def test_the_shipped_checkpoint_says_how_it_was_made() -> None:
    loaded = checkpoint.load()
    assert sum(p.stat().st_size for p in checkpoint.SHIPPED.iterdir()) < 20e6
    for key in ("recipe", "training", "metrics", "scene_seeds", "bank", "commit", "contacts", "frames"):
        assert loaded.card[key], key
    assert isinstance(loaded.card["training"]["seed"], int)
    assert len(loaded.card["commit"].split()[0]) == 40
    for part in loaded.card["bank"]:
        assert part["policy"]
        assert part["seeds"]
        assert sum(part["ends"].values()) == part["episodes"] > 0
