"""What the demo does around the graph: its folder, its figures, its pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from bridgevla_ros import demo, demo_pictures
from bridgevla_ros.bags.definitions import make_typestore
from bridgevla_ros.bags.reader import Bag


def _bag(path: Path, stamps: list[float], *, images: int = 0) -> Path:
    """A bag with a joint command at each stamp (s), received 1 ms later, and some images."""
    store = make_typestore()
    types = store.types

    def head(stamp: float) -> object:
        time = types["builtin_interfaces/msg/Time"](int(stamp), round(stamp % 1.0 * 1e9))
        return types["std_msgs/msg/Header"](time, "base_link")

    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        commands = writer.add_connection(
            "/arm/joint_trajectory", "trajectory_msgs/msg/JointTrajectory", typestore=store
        )
        for stamp in stamps:
            msg = types["trajectory_msgs/msg/JointTrajectory"](head(stamp), [], [])
            data = store.serialize_cdr(msg, "trajectory_msgs/msg/JointTrajectory")
            writer.write(commands, round((stamp + 0.001) * 1e9), data)
        if images:
            camera = writer.add_connection(demo_pictures.IMAGE, "sensor_msgs/msg/Image", typestore=store)
        for i in range(images):
            pixels = np.full((48, 64, 3), 20 * i, np.uint8)
            msg = types["sensor_msgs/msg/Image"](head(i / 10), 48, 64, "rgb8", 0, 192, pixels.reshape(-1))
            writer.write(camera, round(i / 10 * 1e9), store.serialize_cdr(msg, "sensor_msgs/msg/Image"))
    return path


def test_command_rate_leaves_pauses_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first = 10.0 + np.arange(200) * 0.01 + rng.normal(0.0, 5e-4, 200)
    stamps = [*first, *(first + 30.0)]
    rates = demo_pictures.command_rate(Bag(_bag(tmp_path / "bag", stamps)))
    assert rates["mode"] == "joint"
    assert rates["count"] == 400
    for clock in ("ros_time", "wall"):
        assert rates[clock]["rate_hz"] == pytest.approx(100.0, rel=0.01)
        assert rates[clock]["jitter_ms"] == pytest.approx(0.5 * 2**0.5, rel=0.2)
        assert rates[clock]["period_max_ms"] < 20.0


def test_no_commands_no_rate(tmp_path: Path) -> None:
    assert demo_pictures.command_rate(Bag(_bag(tmp_path / "bag", []))) == {}


def test_the_film_has_every_image_and_plays_at_simulated_speed(tmp_path: Path) -> None:
    path = demo_pictures.film(_bag(tmp_path / "bag", [], images=8), tmp_path, "put the red cube in the bowl")
    assert path is not None
    assert path.name == "run.mp4"
    film = cv2.VideoCapture(str(path))
    frames = [frame for _ in range(20) for found, frame in [film.read()] if found]
    assert film.get(cv2.CAP_PROP_FPS) == pytest.approx(10.0)
    film.release()
    assert len(frames) == 8
    assert frames[7].mean() > frames[1].mean() + 50


def test_only_what_a_demo_left_is_taken_away(tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / "bag.mcap").write_bytes(b"")
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "thesis.tex").write_text("mine")
    (tmp_path / "plan.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("mine")
    demo._prepare(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "notes.txt"]
    assert (tmp_path / "log" / "thesis.tex").exists()


def test_a_wrong_argument_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    assert demo.run(parser.parse_args(["--out", str(tmp_path / "x"), "polcy:=ik"])) == 2
    assert "'policy'" in capsys.readouterr().out
    assert not (tmp_path / "x").exists()
