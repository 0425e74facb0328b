"""Episodes of the bank and the bank itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bank_rig import cube_bank

from bridgevla_ros.cli import main
from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.datasets.reading import open_dataset
from bridgevla_ros.expert import checkpoint
from bridgevla_ros.expert.checkpoint import SHIPPED
from bridgevla_ros.simulation import suites
from bridgevla_ros.simulation.demonstrations import subgoal
from bridgevla_ros.training import data_dagger, data_generate
from bridgevla_ros.training.data_bank import FIRST_SEED, LABELS, OBSERVED, Bank, join
from bridgevla_ros.training.data_episodes import BANK_RADIUS, EpisodeRecord, Stage, bank_of
from bridgevla_ros.training.data_faults import DepthFaults, FaultyDepth
from bridgevla_ros.training.data_truth import first_contacts
from bridgevla_ros.training.episodes_sampling import STATE


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.world.close()


@pytest.fixture(scope="module")
def record(stage: Stage) -> EpisodeRecord:
    return stage.play(900_103)


# -- episodes ------------------------------------------------------------------------------------


def test_an_episode_repeats(stage: Stage, record: EpisodeRecord) -> None:
    stage.play(900_104)  # another one between
    a, b = bank_of([record], {}), bank_of([stage.play(900_103)], {})
    assert len(a) > 3
    for name in (*OBSERVED, *LABELS):
        assert np.array_equal(a[name], b[name], equal_nan=True), name
    assert np.array_equal(a.points, b.points)
    assert np.array_equal(a.target, b.target)


def test_labels_are_the_scenes_truth(stage: Stage, record: EpisodeRecord) -> None:
    """Points called the target's lie about the contact; grasps end with the hand at the labelled pose."""
    bank = bank_of([record], {})
    assert record.failure == ""
    seen = bank.targets() > 50
    assert seen.mean() > 0.5
    for frame in np.flatnonzero(seen):
        points, _, own = bank.cloud(int(frame))
        middle = (points[own, :2].min(axis=0) + points[own, :2].max(axis=0)) / 2
        assert np.linalg.norm(middle - bank["pose"][frame, :2]) < 0.06
    for contact in np.unique(bank["contact"]):
        last = np.flatnonzero(bank["contact"] == contact)[-1]
        ways = np.linalg.norm(bank["tcp"][:, :3] - bank["pose"][last, :3], axis=1)
        assert ways[bank["contact"] == contact].min() < 0.06


def test_observations_hold_no_truth(record: EpisodeRecord) -> None:
    """The crop is centred beside the contact, as a planner would point; columns of truth are named so."""
    bank = bank_of([record], {})
    off = np.linalg.norm(bank["center"] - bank["pose"][:, :3], axis=1)
    assert off.min() > 1e-3
    assert not set(OBSERVED) & set(LABELS)
    assert np.abs(bank.points).max() * 1.0 / 8192 <= BANK_RADIUS + 1e-3
    inputs = set(STATE) | {"origin", "yaw"}
    assert not inputs & set(LABELS)


def test_generation_goes_on_where_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_generate, "SHARD", 1)
    first = FIRST_SEED + 700_106
    work = data_generate.shards(tmp_path, first, 2)
    assert sum(data_generate.generate(work, 1).values()) == 2
    whole = Bank.load(tmp_path)
    (made,) = whole.meta["made"]
    assert made["episodes"] == sum(made["ends"].values()) == 2
    assert made["seeds"] == [[first, first + 1]]
    kept = work[0].path.stat().st_mtime_ns
    work[1].path.unlink()
    (tmp_path / f".{work[1].path.name}.1").write_bytes(b"half a shard of a killed process")
    assert sum(data_generate.generate(work, 1).values()) == 1
    assert work[0].path.stat().st_mtime_ns == kept
    again = Bank.load(tmp_path)
    assert np.array_equal(whole.points, again.points)
    assert np.array_equal(whole["pose"], again["pose"])


def test_no_episode_is_there_twice(tmp_path: Path) -> None:
    """Requests overlap: a shard within a larger one is not made again, and goes when the larger one comes."""
    larger, smaller = data_generate.shards(tmp_path, 200_000, 10) + data_generate.shards(tmp_path, 200_004, 2)
    cube_bank(2).save(smaller.path)
    assert data_generate.is_made(smaller)
    assert not data_generate.is_made(larger)
    cube_bank(10).save(larger.path)
    data_generate.drop_parts(larger)
    assert not smaller.path.exists()
    assert data_generate.is_made(smaller)
    own = data_generate.shards(tmp_path, 200_004, 2, "some/checkpoint")[0]
    assert not data_generate.is_made(own)  # an expert's states are another thing


def test_an_experts_states_are_labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped expert acts for a few seconds: guided contact + label is the true contact."""
    monkeypatch.setattr(data_dagger, "LIMIT", 4.5)
    actor = data_dagger.OwnStage(SHIPPED)
    bank, ends = actor.bank((FIRST_SEED + 700_011,))
    actor.world.close()
    assert sum(ends.values()) == 1
    assert len(bank) == len(bank.own["frame"]) > 3
    off = bank["pose"][:, :2] - bank.own["origin"][:, :2]
    assert 0.001 < np.linalg.norm(off, axis=1).max() < 0.1  # a planner's error
    assert np.ptp(bank.own["origin"][bank["contact"] == 0], axis=0).max() < 1e-6  # once a plan
    points, _, target = bank.cloud(0)
    assert target.sum() > 20
    assert np.linalg.norm(points - bank.own["origin"][0], axis=1).max() < 0.121  # what the expert got
    bank.save(tmp_path / "bank-own-1-1.npz")
    assert np.array_equal(Bank.load(tmp_path).own["tcp_position"], bank.own["tcp_position"])


def test_a_shard_of_an_experts_states_names_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Actor:
        def __init__(self, checkpoint: Path) -> None:
            self.world = SimpleNamespace(close=lambda: None)

        def bank(self, seeds: tuple[int, ...]) -> tuple[Bank, dict[str, int]]:
            return cube_bank(2), {"lift: done": len(seeds)}

    monkeypatch.setattr(data_dagger, "OwnStage", Actor)
    monkeypatch.setattr(data_generate, "_STAGE", {})
    (shard,) = data_generate.shards(tmp_path, FIRST_SEED + 3, 2, str(SHIPPED))
    assert data_generate.make(shard) == {"lift: done": 2}
    (made,) = Bank.load(tmp_path).meta["made"]
    assert made["policy"] == f"expert {checkpoint.load().sha256}"
    assert made["seeds"] == [[FIRST_SEED + 3, FIRST_SEED + 4]]


def test_scenes_of_the_evaluation_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BridgeError, match="belongs to the evaluation"):
        data_generate.shards(tmp_path, FIRST_SEED - 1, 1)
    words = ["data", "generate", "--seed", "1000", "--output", str(tmp_path)]
    assert main(words) == 2
    assert "belongs to the evaluation" in capsys.readouterr().err
    assert main(["data", "info", str(tmp_path)]) == 2
    assert "no shards" in capsys.readouterr().err


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    cube_bank().save(tmp_path / "bank-200000-4.npz")
    raw = (tmp_path / "bank-200000-4.npz").read_bytes()
    (tmp_path / "bank-200004-4.npz").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(BridgeError, match="is damaged"):
        Bank.load(tmp_path)


@pytest.mark.parametrize("damage", ["deflated bytes", "a column is missing", "no object"])
def test_a_corrupt_shard_is_named(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "bank-200000-4.npz"
    bank = cube_bank()
    if damage == "deflated bytes":
        bank.save(path)
        raw = bytearray(path.read_bytes())
        at = raw.index(b"points.npy") + 60
        raw[at : at + 400] = b"\xff" * 400
        path.write_bytes(raw)
    elif damage == "a column is missing":
        del bank.columns["onward"]  # type: ignore[attr-defined]
        bank.save(path)
    else:
        np.savez(path, info=np.frombuffer(b"[3]", np.uint8))
    with pytest.raises(BridgeError, match=rf"{path.name} is damaged") as caught:
        Bank.load(tmp_path)
    assert "bridgevla data generate" in caught.value.remedy


def test_a_bank_knows_all_its_seeds(tmp_path: Path) -> None:
    """By who moved and where; also of banks that were joined, and of those that an older version joined."""

    def part(*seeds: int, policy: str = "") -> Bank:
        meta = {"ends": {"lift: done": len(seeds)}, "seeds": list(seeds), "policy": policy}
        return dataclasses.replace(cube_bank(1), meta=meta)

    own = part(300_000, policy="expert 0a1b")
    parts = [part(200_003, 200_004), part(200_000, 200_001, 200_002), part(200_010), own]
    whole = join([join(parts[:2]), join(parts[2:])])
    assert [(p["policy"], p["seeds"], p["episodes"]) for p in whole.meta["made"]] == [
        ("demonstrator", [[200_000, 200_004], [200_010, 200_010]], 6),
        ("expert 0a1b", [[300_000, 300_000]], 1),
    ]
    older = {
        "policy": "demonstrator",
        "scenes": "ours",
        "episodes": 3,
        "seeds": [200_100, 200_110],
        "ends": {},
    }
    dataclasses.replace(cube_bank(1), meta={"made": [older]}).save(tmp_path / "bank-1-1.npz")
    dataclasses.replace(cube_bank(1), meta={"source": "bags"}).save(tmp_path / "bank-2-1.npz")
    (made,) = Bank.load(tmp_path).meta["made"]
    assert (made["seeds"], made["episodes"]) == ([[200_100, 200_110]], 3)


def test_faults_stay_within_what_they_say() -> None:
    clean = np.full((120, 160), 0.9, np.float32)
    faulty = FaultyDepth(DepthFaults(scale=0.2, step=0.005, valid=0.5), 3)
    out = faulty.apply(clean)
    assert 0.4 < np.isfinite(out).mean() < 0.55
    seen = out[np.isfinite(out)]
    assert np.abs(seen / 0.005 - np.round(seen / 0.005)).max() < 1e-3
    assert np.array_equal(out, FaultyDepth(faulty.faults, 3).apply(clean), equal_nan=True)
    poor = FaultyDepth(DepthFaults(dropped=0.4), 5)
    assert 0.5 < np.mean([poor.arrives() for _ in range(400)]) < 0.7


# -- the bank ------------------------------------------------------------------------------------


def test_a_bank_is_read_as_it_was_written(tmp_path: Path) -> None:
    bank = cube_bank(5)
    bank.save(tmp_path / "bank-1-5.npz")
    back = Bank.load(tmp_path)
    for name in (*OBSERVED, *LABELS):
        assert np.array_equal(bank[name], back[name], equal_nan=True)
    assert np.array_equal(bank.points, back.points)
    assert np.array_equal(bank.target, back.target)
    train, held = join([bank, bank]).split(0.2)
    assert not set(train["episode"]) & set(held["episode"])
    assert len(train) + len(held) == 10
    many = np.unique(cube_bank(40).split(0.1)[1]["episode"])
    assert (many - FIRST_SEED).tolist() == [9, 19, 29, 39]  # evenly: shards of other tasks come last
    chosen = bank.select(np.array([3, 1]))
    assert np.array_equal(chosen.cloud(1)[0], bank.cloud(1)[0])
    assert chosen.targets().tolist() == [160, 160]


@pytest.mark.parametrize("form", ["lerobot", "mcap"])
def test_a_bank_is_exported(form: str, tmp_path: Path) -> None:
    bank = cube_bank(3)
    bank.save(tmp_path / "bank-1-3.npz")
    output = tmp_path / "out"
    assert main(["data", "export", str(output), "--bank", str(tmp_path), "--format", form]) == 0
    data = open_dataset(output)
    assert len(data.episodes) == 3
    episode = data.episode(1)
    cloud, count = episode.columns["observation.cloud"][0], int(episode.columns["observation.cloud_count"][0])
    points, _, own = bank.cloud(1)
    assert count == 220
    assert np.allclose(np.sort(cloud[:count, 0]), np.sort(points[:, 0]), atol=1e-5)
    assert episode.columns["label.target"][0][:count].sum() == own.sum()
    assert episode.task == "pick cube"


@pytest.mark.parametrize("seed", [900_003, 900_012])
def test_what_is_pushed_has_one_heading(stage: Stage, seed: int) -> None:
    """Round or not: the hand stands across the way, and only half a turn changes nothing."""
    scene, task = suites.draw("push", seed)
    stage.world.load(scene)
    ((index, truth, onward),) = first_contacts(subgoal(stage.world, task, 0))
    assert index == 1
    assert truth.yaw_period == np.pi
    assert 0.05 < np.linalg.norm(onward[:2]) < 0.17
    across = truth.T_base_tcp.rotation[:, 1]  # the fingers open along it
    assert abs(across @ onward) < 1e-6
