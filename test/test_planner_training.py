"""Pairs that are left out of the planner's training."""

from pathlib import Path

import numpy as np
import pytest

from bridgevla_ros.cli import main
from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.training.planner import pairs_named
from bridgevla_ros.training.planner_data import MAX_OBJECTS, Frames, draw_scene
from bridgevla_ros.training.planner_vision import Frame

RED_CUBE, GREEN_BALL = (1, 1), (2, 2)


def frames() -> Frames:
    """Two frames: a red cube; a red cube and a green ball."""
    colours, things = np.zeros((2, MAX_OBJECTS), np.uint8), np.zeros((2, MAX_OBJECTS), np.uint8)
    colours[0, 0], things[0, 0] = RED_CUBE
    colours[1, :2], things[1, :2] = (1, 2), (1, 2)
    owner = np.zeros((2, 48, 64), np.uint8)
    owner[:, 5:9, 5:9], owner[1, 20:24, 20:24] = 1, 2
    return Frames(
        rgb=np.zeros((2, 192, 256, 3), np.uint8),
        heights=np.zeros((2, 192, 256), np.uint8),
        owner=owner,
        colours=colours,
        things=things,
        pixels=np.full((2, MAX_OBJECTS), 200, np.int32),
        anchors=np.full((2, MAX_OBJECTS, 2), np.nan, np.float32),
    )


def test_pairs_are_named() -> None:
    assert pairs_named(["red cube", "green ball"]) == (RED_CUBE, GREEN_BALL)
    for wrong in ("red", "mauve cube", "red mug", "any cube"):
        with pytest.raises(BridgeError, match="is no pair") as caught:
            pairs_named([wrong])
        assert "purple" in caught.value.remedy


def test_wrong_words_are_refused_like_those_of_every_verb(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out")]
    for words, said in ((["--without", "mauve cube"], "'mauve cube'"), (["--stage", "merge"], "--resume")):
        assert main(["train", "planner", *out, *words]) == 2
        told = capsys.readouterr()
        assert said in told.err
        assert not told.out
    assert not (tmp_path / "out").exists()


def test_frames_that_show_a_pair_are_left_out() -> None:
    assert len(frames().without((GREEN_BALL,))) == 1
    assert len(frames().without((RED_CUBE,))) == 0
    assert len(frames().without(())) == 2


def test_a_banned_pair_is_never_asked_for() -> None:
    frame = Frame(frames(), 0, (GREEN_BALL,))
    assert frame.ask(*GREEN_BALL) is None
    assert frame.ask(*RED_CUBE) is not None
    rng = np.random.default_rng(0)
    asked = [frame.draw(rng) for _ in range(300)]
    assert not [q for q in asked if q is not None and (q.colour, q.thing) == GREEN_BALL]


def test_cluttered_scenes_hold_more_and_lookalikes() -> None:
    counts, alike = [], 0
    for seed in range(100_800, 100_830):
        scene = draw_scene(seed, np.random.default_rng(seed), cluttered=True)
        pairs = [(o.colour, o.kind) for o in scene.objects]
        counts.append(sum(o.movable for o in scene.objects))
        alike += len(set(pairs)) < len(pairs)
    assert max(counts) >= 7
    assert min(counts) == 1
    assert alike >= 5
