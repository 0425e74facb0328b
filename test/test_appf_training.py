"""The two training stages: state, resume, objective, settings, refusals."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import Progress
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bridgevla_ros.cli import main
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.expert import checkpoint
from bridgevla_ros.expert.config import ModelConfig
from bridgevla_ros.expert.model import ExpertModel
from bridgevla_ros.training import appf, expert_metrics
from bridgevla_ros.training.appf_config import Stage, TrainConfig
from bridgevla_ros.training.data_bank import OTHERS, Bank, from_rows
from bridgevla_ros.training.episodes_sampling import GuidanceLibrary, Recipe, Sampler
from bridgevla_ros.training.objective import Draws, Objective
from bridgevla_ros.training.trainer import STATE, Trainer

ROOT = Path(__file__).resolve().parents[1]
SMALL = ModelConfig(
    encoder="vote", point_widths=(8, 8, 16), cloud_features=8, width=32, blocks=1, conditioning_width=16
)
STAGE = Stage(steps=6, batch=8, micro_batch=4, learning_rate=1e-3, warmup=2)
CONFIG_SMOKE = TrainConfig.load(ROOT / "config" / "training" / "appf_smoke.yaml")
CONFIG = dataclasses.replace(
    CONFIG_SMOKE,
    plans=2, save_every=3, measure_every=3, stage1=STAGE, stage2=STAGE,
)  # fmt: skip


def cubes(frames: int, episodes: int = 1) -> Bank:
    """Frames of 4 cm cubes 5 cm under the TCP, each with a neighbour."""
    rng = np.random.default_rng(0)
    above = np.array([0.0, 0.0, 0.05, 0.0, 0.0, 0.0, 0.0])
    rows, clouds = [], []
    for i in range(frames):
        own = rng.uniform(-0.02, 0.02, (150, 3))
        other = rng.uniform(-0.02, 0.02, (60, 3)) + np.array([0.09, 0.0, 0.0])
        center = np.array([0.5, 0.1, 0.02])
        pose = np.array([*center, 1.0, 0.0, 0.0, 0.0])
        rows.append({
            "stamp": 0.2 * i, "camera": np.array([1.1, 0.0, 0.7, 0.0, 0.0, 0.0, 1.0]),
            "joints": np.zeros(7), "joint_velocity": np.zeros(7), "tcp": pose + above,
            "twist": np.zeros(6), "width": 0.085, "center": center, "episode": 200_000 + i % episodes,
            "contact": 0, "event": 2, "pose": pose, "yaw_period": np.pi / 2,
            "z_band": np.array([0.02, 0.03]), "x_band": np.zeros(2),
            "others": np.full((OTHERS, 2), np.nan), "onward": np.zeros(3),
        })  # fmt: skip
        clouds.append((np.concatenate([own, other]), np.zeros(210), np.arange(210) < 150))
    return from_rows(rows, clouds, ["pick cube"] * frames, {})


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    return Sampler(cubes(40, 20), GuidanceLibrary(3, 0, SMALL), SMALL, Recipe())


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def quiet() -> Progress:
    return Progress(console=Console(file=io.StringIO()))


def trainer(stage: int, folder: Path, accelerator: Accelerator) -> Trainer:
    torch.manual_seed(0)
    return Trainer(CONFIG, ExpertModel(SMALL), stage, folder, accelerator)


@pytest.mark.parametrize("stage", [1, 2, "joint"])
def test_resumed_training_is_the_uninterrupted_one(
    stage: int | str, sampler: Sampler, accelerator: Accelerator, tmp_path: Path
) -> None:
    number = stage if isinstance(stage, int) else 2

    def batches(first: int) -> Draws:
        return Draws(sampler, CONFIG, stage, STAGE.micro_batch, first)

    whole = trainer(number, tmp_path / "a", accelerator)
    whole.run(iter(batches(0)), quiet())
    first = trainer(number, tmp_path / "b", accelerator)
    first.settings = dataclasses.replace(first.settings, steps=3)
    first.run(iter(batches(0)), quiet())
    second = trainer(number, tmp_path / "b", accelerator)
    second.load(json.loads((tmp_path / "b" / STATE).read_text()))
    assert second.step == 3
    second.run(iter(batches(second.step * second.accumulate)), quiet())
    for a, b in zip(whole.averaged().parameters(), second.averaged().parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert len(list((tmp_path / "b").glob("*.safetensors"))) == 1


def test_stage_1_leaves_the_encoder_alone(sampler: Sampler, accelerator: Accelerator, tmp_path: Path) -> None:
    one = trainer(1, tmp_path, accelerator)
    before = {k: v.clone() for k, v in one.model.state_dict().items()}
    one.run(iter(Draws(sampler, CONFIG, 1, STAGE.micro_batch, 0)), quiet())
    changed = {k for k, v in one.model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed
    assert all(k.startswith("denoiser.") for k in changed)


def test_accumulated_micro_batches_have_the_gradient_of_the_whole(sampler: Sampler) -> None:
    torch.manual_seed(0)
    objective = Objective(ExpertModel(SMALL), CONFIG)
    whole = Draws(sampler, CONFIG, 1, 8, 0).draw(0)
    gradients = []
    for parts in (1, 2):
        objective.zero_grad()
        size = 8 // parts
        for k in range(parts):
            loss, _ = objective({n: t[k * size : (k + 1) * size] for n, t in whole.items()})
            (loss / parts).backward()
        gradients.append([p.grad.clone() for p in objective.parameters() if p.grad is not None])
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_draws_do_not_depend_on_who_draws_them(sampler: Sampler) -> None:
    """Neither on how many workers a process has, nor on how many processes share a batch."""
    alone = [Draws(sampler, CONFIG, 2, 4, 0).draw(i) for i in range(4)]
    loader = iter(Draws(sampler, CONFIG, 2, 4, 0).loader(2))
    shared = [iter(Draws(sampler, CONFIG, 2, 4, 0, rank, 2)) for rank in (0, 1)]
    for i, expected in enumerate(alone):
        for other in (next(loader), next(shared[i % 2])):
            assert expected.keys() == other.keys()
            assert all(torch.equal(expected[k], other[k]) for k in expected)
    later = next(iter(Draws(sampler, CONFIG, 2, 4, 2)))
    assert torch.equal(later["cloud"], alone[2]["cloud"])


def test_the_truth_of_points_is_no_input(sampler: Sampler) -> None:
    """Labels turn the loss; what the network says of a batch does not depend on them."""
    torch.manual_seed(0)
    objective = Objective(ExpertModel(SMALL), CONFIG)
    data = Draws(sampler, CONFIG, 2, 8, 0).draw(0)
    lied = data | {"target": 1.0 - data["target"]}
    loss, parts = objective(data)
    other, same = objective(lied)
    assert float(loss.detach()) != float(other.detach())
    assert float(parts["denoise"]) == float(same["denoise"])
    assert float(parts["contact_mm"]) == float(same["contact_mm"])


def test_the_denoiser_learns_from_the_contact_that_inference_gives(
    sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    objective = Objective(ExpertModel(SMALL), CONFIG)
    data = Draws(sampler, CONFIG, 2, 8, 0).draw(0)
    told = []
    observe = objective.model.denoiser.observe
    monkeypatch.setattr(objective.model.denoiser, "observe", lambda *a: (told.append(a), observe(*a))[1])
    objective(data)
    contact, seen, _ = objective.model.look(data["cloud"], data["mask"], data["features"])
    assert torch.allclose(told[0][1], contact)
    assert torch.allclose(told[0][2], seen)


def test_a_gradient_that_is_not_finite_stops_before_it_does_harm(
    sampler: Sampler, accelerator: Accelerator, tmp_path: Path
) -> None:
    one = trainer(2, tmp_path, accelerator)
    before = [p.clone() for p in one.trained]
    batch = Draws(sampler, CONFIG, 2, STAGE.micro_batch, 0).draw(0)
    batch["cloud"][0, 0, 0] = float("nan")
    with pytest.raises(BridgeError, match="step 0: the gradient is nan"):
        one.run(iter([batch] * 4), quiet())
    assert all(torch.equal(a, b) for a, b in zip(before, one.trained, strict=True))


def test_curves_and_figures_are_written(sampler: Sampler, accelerator: Accelerator, tmp_path: Path) -> None:
    held = expert_metrics.HeldOut(cubes(30), Recipe(), SMALL, 12, 0)
    two = trainer(2, tmp_path, accelerator)
    two.run(
        iter(Draws(sampler, CONFIG, 2, STAGE.micro_batch, 0)), quiet(),
        lambda m: held.figures(expert_metrics.network(m)),
    )  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["clouds"] for r in rows] == [3, 6]
    assert set(rows[0]["held_out"]) == {"pick_mm", "pick_z_mm", "pick_yaw_deg", "over_10"}
    curves = EventAccumulator(str(tmp_path / "curves"))
    curves.Reload()
    assert [e.step for e in curves.Scalars("held_out/pick_mm")] == [3, 6]
    assert "stage2/denoise" in curves.Tags()["scalars"]


def test_errors_of_encoder_and_chunk_are_told_apart(tmp_path: Path) -> None:
    model = ExpertModel(SMALL)
    appf.write(tmp_path, model, {})
    loaded = checkpoint.load(tmp_path)
    found = expert_metrics.origins(loaded, cubes(30), Recipe(), 12)
    held = expert_metrics.HeldOut(cubes(30), Recipe(), SMALL, 12, 0)
    figures = held.figures(expert_metrics.network(model))
    assert found["chunk"] == pytest.approx(figures["pick_mm"], rel=0.05)  # weights are kept in half precision
    assert min(found.values()) > 0.0
    with pytest.raises(BridgeError, match="no kind of contact has 20") as caught:
        expert_metrics.origins(loaded, cubes(5), Recipe())
    assert caught.value.code == ErrorCode.BAD_INPUT


def test_a_state_that_cannot_be_resumed_is_refused(
    sampler: Sampler, accelerator: Accelerator, tmp_path: Path
) -> None:
    one = trainer(1, tmp_path, accelerator)
    one.run(iter(Draws(sampler, CONFIG, 1, STAGE.micro_batch, 0)), quiet())
    state = appf.read_json(tmp_path / STATE)
    wide = dataclasses.replace(SMALL, width=48)
    with pytest.raises(BridgeError, match="another shape") as caught:
        Trainer(CONFIG, ExpertModel(wide), 1, tmp_path, accelerator).load(state)
    assert "configuration" in caught.value.remedy
    path = tmp_path / state["file"]
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BridgeError, match="cannot go on") as caught:
        trainer(1, tmp_path, accelerator).load(state)
    assert caught.value.code == ErrorCode.MODEL_ERROR
    (tmp_path / STATE).write_text('{"stage": 1,')
    with pytest.raises(BridgeError, match="cannot go on"):
        appf.read_json(tmp_path / STATE)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{}", "stage, step, ema_step, seconds, file"),
        ("[3]", "cannot go on"),
        ('{"stage": 3, "step": 1, "ema_step": 1, "seconds": 2.0, "file": "x"}', "stage"),
        ('{"stage": 2, "step": 1, "ema_step": 1, "seconds": 2, "file": null}', "file"),
    ],
)
def test_a_state_without_its_keys_is_refused(text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / STATE).write_text(text)
    with pytest.raises(BridgeError, match=named) as caught:
        appf.read_json(tmp_path / STATE)
    assert caught.value.code == ErrorCode.MODEL_ERROR
    assert "another --output" in caught.value.remedy


def test_a_folder_with_a_training_is_not_overwritten(tmp_path: Path) -> None:
    cubes(40, 20).save(tmp_path / "bank-200000.npz")
    (tmp_path / STATE).write_text("{}")
    parser = appf.argparse.ArgumentParser()
    appf.add_arguments(parser)
    with pytest.raises(BridgeError, match="holds a training already") as caught:
        appf.run(parser.parse_args(["--bank", str(tmp_path), "--output", str(tmp_path)]))
    assert "--resume" in caught.value.remedy


def words(folder: Path, *more: str) -> list[str]:
    """A smoke of a small network in four steps, into ``<folder>/run``."""
    config = folder / "small.yaml"
    if not config.exists():
        text = (ROOT / "config" / "training" / "appf_two_core.yaml").read_text()
        shape = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(SMALL).items()}
        config.write_text(text.replace("model: {}", f"model: {json.dumps(shape)}"))
        (folder / "bank").mkdir()
        meta = {"seeds": list(range(200_000, 200_020)), "ends": {"lift: done": 20}, "policy": ""}
        dataclasses.replace(cubes(40, 20), meta=meta).save(folder / "bank" / "bank-200000-20.npz")
    given = ["--config", str(config), "--bank", str(folder / "bank"), "--output", str(folder / "run")]
    return ["train", "expert", "--smoke", *given, "--stage1-steps", "2", "--stage2-steps", "4", *more]


def test_a_smoke_runs_again_and_keeps_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the configuration that is given; a training takes the folder over, but does not go on there."""
    run = tmp_path / "run"
    assert main(words(tmp_path, "--keep-every", "2")) == 0
    assert str(run / "checkpoint") in capsys.readouterr().out
    last, kept = checkpoint.load(run / "checkpoint"), checkpoint.load(run / "checkpoint-2")
    assert not (run / "checkpoint-4").exists()
    assert last.config == kept.config == SMALL
    assert (last.card["step"], kept.card["step"], kept.card["stage"]) == (4, 2, 2)
    assert kept.sha256 != last.sha256
    assert "metrics" not in kept.card
    assert last.card["bank"][0]["seeds"] == [[200_000, 200_019]]
    assert (last.card["frames"], last.card["held_out_frames"], last.card["recorded_paths"]) == (36, 4, 0)
    assert last.card["training"]["stage2"]["batch"] == CONFIG_SMOKE.stage2.batch
    assert main(words(tmp_path, "--trajectories", str(ROOT / "test" / "replay"))) == 0
    assert not (run / "checkpoint-2").exists()
    assert checkpoint.load(run / "checkpoint").card["recorded_paths"] == 4
    assert main([w for w in words(tmp_path, "--resume") if w != "--smoke"]) == 2
    assert "holds a smoke" in capsys.readouterr().err
    assert main(words(tmp_path, "--keep-every", "0")) == 2
    appf.check_free(run, smoke=False, resume=False)
    appf.clear(run, smoke=False)
    assert not any(run.iterdir())
    (run / STATE).write_text("{}")
    for more in ((), ("--resume",)):
        assert main(words(tmp_path, *more)) == 2
        assert "training" in capsys.readouterr().err
    (run / STATE).unlink()
    (run / "checkpoint").mkdir()
    with pytest.raises(BridgeError, match="holds a training already"):
        appf.check_free(run, smoke=True, resume=False)


def test_a_smoke_of_a_configuration_takes_its_model_and_recipe() -> None:
    parser = appf.argparse.ArgumentParser()
    appf.add_arguments(parser)
    two_core = TrainConfig.load(ROOT / "config" / "training" / "appf_two_core.yaml")
    plain = appf.configure(parser.parse_args(["--smoke"]))
    given = appf.configure(parser.parse_args(["--smoke", "--config", "training/appf_two_core.yaml"]))
    assert plain == CONFIG_SMOKE
    for name in ("model", "recipe", "ema_max", "device", "workers", "denoising_repeats"):
        assert getattr(given, name) == getattr(two_core, name), name
    for name in ("plans", "save_every", "measure_every"):
        assert getattr(given, name) == getattr(CONFIG_SMOKE, name), name
    for stage in (1, 2):
        few, rate = CONFIG_SMOKE.stage(stage), two_core.stage(stage).learning_rate
        assert given.stage(stage) == dataclasses.replace(few, learning_rate=rate)
    assert appf.configure(parser.parse_args([])) == two_core


def test_a_smoke_keeps_off_the_usual_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    parser = appf.argparse.ArgumentParser()
    appf.add_arguments(parser)
    banks, output = appf.places(parser.parse_args(["--smoke"]))
    assert banks[0].is_relative_to(tmp_path)
    assert output.is_relative_to(tmp_path)
    banks, output = appf.places(parser.parse_args(["--smoke", "--bank", "some"]))
    assert banks == [Path("some")]
    assert output.is_relative_to(tmp_path)
    assert appf.places(parser.parse_args([])) == ([appf.BANK], appf.OUTPUT)


def test_settings_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("seed: 0\nstepz: 3\n")
    with pytest.raises(BridgeError, match="stepz"):
        TrainConfig.load(path)
    text = (ROOT / "config" / "training" / "appf_smoke.yaml").read_text()
    path.write_text(text.replace("batch: 256, micro_batch: 128", "batch: 256, micro_batch: 100"))
    with pytest.raises(BridgeError, match="no multiple of micro_batch 100"):
        TrainConfig.load(path)
    path.write_text(text.replace("model: {", "model: {hands: 2, "))
    with pytest.raises(BridgeError, match="hands"):
        TrainConfig.load(path).shape()
    path.write_text(text.replace("model: {", "model: {encoder: keypoint, "))
    with pytest.raises(BridgeError, match="encoder 'keypoint'; expected one of vote, keypoints, maxpool"):
        TrainConfig.load(path).shape()


def test_the_shipped_settings_are_read() -> None:
    folder = ROOT / "config" / "training"
    paper = TrainConfig.load(folder / "appf.yaml")
    assert (paper.stage1.batch, paper.stage2.batch) == (32768, 256)
    small = TrainConfig.load(folder / "appf_two_core.yaml")
    assert (small.device, small.workers) == ("cpu", 1)
    assert small.shape() == paper.shape()
