"""Data sets: what goes in comes out, in both formats; the layout is LeRobot's; bags become data and back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rosbags.rosbag2 import Reader

from bridgevla_ros.cli import main
from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.datasets import statistics
from bridgevla_ros.datasets.episode import Episode
from bridgevla_ros.datasets.features import Feature
from bridgevla_ros.datasets.lerobot_reader import LeRobotReader
from bridgevla_ros.datasets.lerobot_writer import LeRobotWriter
from bridgevla_ros.datasets.mcap_dataset import McapWriter
from bridgevla_ros.datasets.messages import POSE, codec
from bridgevla_ros.datasets.reading import open_dataset
from bridgevla_ros.training.data_bank import Bank

HERE = Path(__file__).resolve().parent
WRITERS: dict[str, Any] = {"lerobot": LeRobotWriter, "mcap": McapWriter}
FEATURES = {
    "observation.cloud": Feature("float32", (512, 4), ("x", "y", "z", "age"), "m", "base frame"),
    "observation.state": Feature("float32", (4,), ("a.pos", "b.pos", "a.vel", "b.vel"), "rad, rad/s"),
    "observation.tcp": Feature("float64", (7,), POSE, "m"),
    "observation.gripper": Feature("float32", unit="m"),
    "observation.images.front": Feature("image", (24, 32, 3)),
    "observation.images.depth": Feature("image", (24, 32, 1), unit="m", depth=True),
    "label.target": Feature("bool", (6,)),
    "label.event": Feature("int8"),
    "label.kind": Feature("string"),
    "label.volume": Feature("uint16", (2, 3, 4)),
}


def episode(frames: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    depth = rng.random((frames, 24, 32)).astype(np.float32)
    depth[:, :2] = np.nan
    return {
        "observation.cloud": rng.random((frames, 512, 4)).astype(np.float32),
        "observation.state": rng.random((frames, 4)).astype(np.float32),
        "observation.tcp": rng.random((frames, 7)),
        "observation.gripper": rng.random(frames).astype(np.float32),
        "observation.images.front": rng.integers(0, 256, (frames, 24, 32, 3), np.uint8),
        "observation.images.depth": depth,
        "label.target": rng.random((frames, 6)) > 0.5,
        "label.event": rng.integers(-1, 3, frames).astype(np.int8),
        "label.kind": np.array([f"kind {i}" for i in range(frames)], dtype=object),
        "label.volume": rng.integers(0, 60000, (frames, 2, 3, 4)).astype(np.uint16),
    }


def assert_same(found: Episode, columns: dict[str, Any]) -> None:
    assert list(found.columns) == list(columns)
    for name, column in columns.items():
        assert found.columns[name].dtype == column.dtype, name
        np.testing.assert_array_equal(found.columns[name], column, name)


@pytest.mark.parametrize("kind", WRITERS)
def test_what_goes_in_comes_out(kind: str, tmp_path: Path) -> None:
    episodes = [episode(3, 1), episode(5, 2), episode(2, 3)]
    stamps = np.array([3.0, 3.21, 3.39, 4.0, 4.000001])
    with WRITERS[kind](tmp_path / "data", FEATURES, fps=5, robot_type="panda") as writer:
        assert writer.add_episode(episodes[0], "one", extra={"seed": 7}) == 0
        assert writer.add_episode(episodes[1], "two", stamps=stamps) == 1
        assert writer.add_episode(episodes[2], "one") == 2
    data = open_dataset(tmp_path / "data")
    assert data.features == FEATURES
    assert (data.fps, data.robot_type, len(data)) == (5.0, "panda", 10)
    assert [(e.length, e.task, e.extra) for e in data.episodes] == [
        (3, "one", {"seed": 7}),
        (5, "two", {}),
        (2, "one", {}),
    ]
    for found, columns in zip(data, episodes, strict=True):
        assert_same(found, columns)
    np.testing.assert_allclose(data.episode(1).stamps, stamps, atol=1e-9)
    np.testing.assert_allclose(data.episode(0).stamps, [0.0, 0.2, 0.4])
    part = data.episode(2, ["label.event"])
    assert list(part.columns) == ["label.event"]
    with pytest.raises(BridgeError, match="no column"):
        data.episode(0, ["absent"])
    with pytest.raises(BridgeError, match="episode 3 of 3"):
        data.episode(3)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_data_set_is_resumed_where_it_was_safe(kind: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    first = WRITERS[kind](root, FEATURES, fps=5)
    first.add_episode(episode(3, 1), "one")
    first.flush()
    if kind == "lerobot":
        first.add_episode(
            episode(4, 2), "lost"
        )  # killed before the next flush: there is a file without an end
        assert list(root.rglob("*.part"))
    else:
        (root / "episodes" / "episode-000001").mkdir()  # killed while writing it
    with WRITERS[kind](root, FEATURES, fps=5, resume=True) as writer:
        writer.add_episode(episode(2, 3), "two")
    data = open_dataset(root)
    assert [e.task for e in data.episodes] == ["one", "two"]
    assert_same(data.episode(0), episode(3, 1))
    assert_same(data.episode(1), episode(2, 3))
    with pytest.raises(BridgeError, match="not empty"):
        WRITERS[kind](root, FEATURES, fps=5)
    with pytest.raises(BridgeError, match="other columns or another fps"):
        WRITERS[kind](root, {"action": Feature("float32")}, fps=5, resume=True)


def test_the_layout_is_that_of_lerobot(tmp_path: Path) -> None:
    with LeRobotWriter(tmp_path / "d", FEATURES, fps=5, robot_type="panda") as writer:
        writer.add_episode(episode(3, 1), "one")
        writer.add_episode(episode(4, 2), "two")
    info = json.loads((tmp_path / "d/meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (2, 7, 2)
    assert info["splits"] == {"train": "0:2"}
    assert info["features"]["observation.images.front"] == {
        "dtype": "image",
        "shape": [24, 32, 3],
        "names": ["height", "width", "channels"],
    }
    assert info["features"]["observation.images.depth"]["info"]["is_depth_map"] is True
    defaults = {"timestamp", "frame_index", "episode_index", "index", "task_index"}
    assert set(info["features"]) == set(FEATURES) | defaults | {"stamp"}
    table = pq.read_table(tmp_path / "d" / info["data_path"].format(chunk_index=0, file_index=0))
    assert table["index"].to_pylist() == list(range(7))
    assert table["frame_index"].to_pylist() == [0, 1, 2, 0, 1, 2, 3]
    np.testing.assert_allclose(table["timestamp"].to_numpy(), [0, 0.2, 0.4, 0, 0.2, 0.4, 0.6], atol=1e-6)
    assert str(table.schema.field("observation.state").type).startswith("fixed_size_list")
    assert table["observation.images.front"][0].as_py()["bytes"][:4] == b"\x89PNG"
    assert b"huggingface" in table.schema.metadata
    tasks = pq.read_table(tmp_path / "d/meta/tasks.parquet")
    assert tasks.to_pydict() == {"task_index": [0, 1], "task": ["one", "two"]}
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    rows = pq.read_table(tmp_path / "d/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(r["dataset_from_index"], r["dataset_to_index"], r["tasks"]) for r in rows] == [
        (0, 3, ["one"]),
        (3, 7, ["two"]),
    ]
    stats = json.loads((tmp_path / "d/meta/stats.json").read_text())
    assert np.shape(stats["observation.images.front"]["mean"]) == (3, 1, 1)
    assert np.shape(stats["observation.cloud"]["q99"]) == (4,)
    both = np.concatenate([episode(3, 1)["observation.state"], episode(4, 2)["observation.state"]])
    np.testing.assert_allclose(stats["observation.state"]["std"], both.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(stats["observation.state"]["min"], both.min(axis=0))
    assert stats["observation.state"]["count"] == [7]


def test_what_lerobot_wrote_is_read() -> None:
    """test/data/lerobot was written by LeRobot 0.4.4; the script that did it lies beside it."""
    data = LeRobotReader(HERE / "data" / "lerobot")
    assert (data.fps, data.robot_type, data.tasks) == (10.0, "so101", ["task 0", "task 1"])
    found = data.episode(1)
    frames = np.arange(5)
    np.testing.assert_array_equal(found.columns["observation.state"], np.tile(100.0 + frames[:, None], 6))
    np.testing.assert_array_equal(found.columns["observation.cloud"][:, 2, 1], frames)
    np.testing.assert_array_equal(found.columns["observation.images.png"][:, 20, 30, 1], 40 * frames)
    video = found.columns["observation.images.video"][:, 20, 30].astype(int)  # AV1: nearly
    assert np.abs(video[:, 1] - 40 * frames).max() < 6
    assert np.abs(video[:, 0]).max() < 6
    np.testing.assert_allclose(found.stamps, frames / 10, atol=1e-6)
    assert data.stats["observation.state"]["max"].max() == 104


def test_statistics_of_parts_are_those_of_the_whole() -> None:
    features = {"a": Feature("float64", (3,))}
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(n, 3)) for n in (4, 9, 30)]
    merged = statistics.merge(statistics.episode_stats(features, {"a": p}) for p in parts)["a"]
    whole = np.concatenate(parts)
    for key, value in {"mean": whole.mean(0), "std": whole.std(0), "max": whole.max(0)}.items():
        np.testing.assert_allclose(merged[key], value)
    assert np.all(merged["q10"] <= np.quantile(whole, 0.1, axis=0))
    assert np.all(merged["q90"] >= np.quantile(whole, 0.9, axis=0))


@pytest.mark.parametrize(
    ("name", "msgtype"),
    [
        ("observation.cloud", "sensor_msgs/msg/PointCloud2"),
        ("observation.state", "sensor_msgs/msg/JointState"),
        ("observation.tcp", "geometry_msgs/msg/PoseStamped"),
        ("observation.images.depth", "sensor_msgs/msg/Image"),
        ("label.volume", "std_msgs/msg/UInt16MultiArray"),
        ("label.target", "std_msgs/msg/UInt8MultiArray"),
    ],
)
def test_columns_travel_in_standard_messages(name: str, msgtype: str) -> None:
    one = codec(FEATURES[name])
    assert one.msgtype == msgtype
    value = episode(1)[name][0]
    np.testing.assert_array_equal(one.decode(one.encode(value, 1.25, "front")), value)


def test_bad_columns_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with LeRobotWriter(tmp_path / "d", FEATURES, fps=5) as writer:
        for change, said in (
            ({"observation.state": np.zeros((3, 5))}, r"shape \(3, 5\), declared \(3, 4\)"),
            ({"label.event": np.array([1, 2, 300])}, "does not fit int8"),
            ({"label.event": np.array([1, 2, 0.5])}, "does not fit int8"),
            ({"more": np.zeros(3)}, "has more"),
        ):
            with pytest.raises(BridgeError, match=said):
                writer.add_episode({**episode(3), **change}, "task")
        with pytest.raises(BridgeError, match="stamps"):
            writer.add_episode(episode(3), "task", stamps=[0.0, 2.0, 1.0])
    assert not (tmp_path / "d" / "meta").exists()
    for bad, said in (({"timestamp": Feature("float32")}, "fills"), ({}, "without features")):
        with pytest.raises(BridgeError, match=said):
            LeRobotWriter(tmp_path / "e", bad, fps=5)
    with pytest.raises(BridgeError, match="names for"):
        Feature("float32", (3,), ("x", "y"))


def test_damaged_data_sets_are_named(tmp_path: Path) -> None:
    whole = HERE / "data" / "lerobot"
    with pytest.raises(BridgeError, match="is no data set"):
        open_dataset(tmp_path)
    for number, (file, text, said) in enumerate(
        (
            ("meta/info.json", "{", "Expecting"),
            ("meta/info.json", '{"codebase_version": "v2.1"}', "v3.0 is read"),
            ("data/chunk-000/file-000.parquet", "PAR1 no more", "Parquet"),
            ("meta/episodes/chunk-000/file-000.parquet", "", "Parquet"),
        )
    ):
        root = tmp_path / str(number)
        shutil.copytree(whole, root)
        (root / file).write_text(text)
        with pytest.raises(BridgeError, match=said) as caught:
            open_dataset(root).episode(0)
        assert caught.value.remedy
    root = tmp_path / "short"
    shutil.copytree(whole, root)
    (root / "data/chunk-000/file-000.parquet").unlink()
    with pytest.raises(BridgeError, match="it is missing"):
        open_dataset(root).episode(0)


def test_a_data_set_becomes_bags_that_viewers_show(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = {n: f for n, f in FEATURES.items() if n != "label.volume"}
    features["observation.camera"] = Feature("float32", (7,), POSE, "m")
    columns = {n: c for n, c in episode(4).items() if n in features}
    columns["observation.camera"] = np.tile([0.5, 0, 1, 1, 0, 0, 0], (4, 1))
    with LeRobotWriter(tmp_path / "d", features, fps=5) as writer:
        writer.add_episode(columns, "put it there")
    assert main(["dataset", "to-bag", str(tmp_path / "d"), "-o", str(tmp_path / "bags")]) == 0
    with Reader(tmp_path / "bags" / "episode-000000") as reader:  # what others read it with
        counts = {c.topic: (c.msgtype, c.msgcount) for c in reader.connections}
        assert counts["/observation/images/front"] == ("sensor_msgs/msg/Image", 4)
        assert counts["/observation/tcp/path"] == ("nav_msgs/msg/Path", 1)
        assert counts["/tf_static"] == ("tf2_msgs/msg/TFMessage", 1)
        assert counts["/task"] == ("std_msgs/msg/String", 1)
    words = ["to-bag", str(tmp_path / "d"), "-o", str(tmp_path / "more"), "--episode", "5"]
    assert main(["dataset", *words]) == 2
    assert "counted from 0" in capsys.readouterr().err
    assert main(["dataset", "info", str(tmp_path / "d")]) == 0
    assert "put it there" in capsys.readouterr().out


def test_bags_become_a_data_set_with_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a success and a refusal, the success is taken; its numbers are those of the bag."""
    bags = [str(HERE / "replay" / name) for name in ("success", "refused_plan")]
    out = tmp_path / "out"
    assert main(["dataset", "from-bags", *bags, "-o", str(out), "--fps", "5"]) == 0
    assert "NO_TARGET" in capsys.readouterr().out
    found = json.loads((out / "report.json").read_text())
    assert [e["fit"] for e in found["found"]] == [True, False]
    checks = found["found"][0]["checks"]
    assert checks["depth rate"]["value"] == pytest.approx(2.5, rel=0.01)
    assert checks["judge"]["passed"]
    assert 0.0 < checks["calibration residual"]["value"] < 0.010
    page = (out / "report.html").read_text()
    assert page.count("data:image/") == 4  # a strip and plots of each
    assert "http" not in page

    data = open_dataset(out / "lerobot")
    found_episode = data.episode(0)
    assert found_episode.task == "move the blue bar to the orange plate"
    assert found_episode.extra["success"] is True
    tcp, action = found_episode.columns["observation.tcp"], found_episode.columns["action"]
    np.testing.assert_array_equal(action[:-1, :7], tcp[1:])
    assert 0.2 < np.ptp(tcp[:, :2], axis=0).max() < 0.8  # it went from one place to another
    assert action[:, 7].min() < 0.03 < 0.08 < found_episode.columns["observation.gripper"].max()

    bank = Bank.load(out / "bank")
    assert len(bank) == found["bank_frames"] > 10
    assert set(bank.classes) == {"pick thing", "place thing"}
    picks = bank["class"] == bank.classes.index("pick thing")
    near = np.linalg.norm(bank["tcp"][picks][:, :3] - bank["pose"][picks][:, :3], axis=1)
    assert near.min() < 0.03  # the last frames are at the contact
    assert bank.targets()[picks].max() > 10  # and something stands there


def test_an_episode_with_a_gap_is_left_out_and_says_why(tmp_path: Path) -> None:
    from bridgevla_ros.datasets.bag_episodes import COLOUR, DEPTH, find_episodes
    from bridgevla_ros.datasets.quality import QualityLimits, assess, fit, why_not

    (episode,) = find_episodes(HERE / "replay" / "sensor_loss")
    checks = assess(episode, QualityLimits())
    assert not fit(checks)
    assert "depth gap" in why_not(checks)
    assert not episode.there(COLOUR)  # trimmed: there is the plan's image alone
    (whole,) = find_episodes(HERE / "replay" / "success")
    assert fit(assess(whole, QualityLimits()))
    shifted = whole.series[DEPTH]
    shifted.stamps = [t + 0.03 for t in shifted.stamps]
    late = assess(whole, QualityLimits(sync=0.01))
    assert "depth to joints" in why_not(late)


def test_a_folder_without_bags_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dataset", "from-bags", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "holds no bag" in capsys.readouterr().err
