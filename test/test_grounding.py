"""The grounding suite: templates, judging, and the shipped planner on a few scenes."""

import argparse
from pathlib import Path

import numpy as np
import pytest

from bridgevla_ros.core import resources
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import RgbdFrame
from bridgevla_ros.evaluation.grounding import run_grounding
from bridgevla_ros.evaluation.wording import DEFAULT_WORDINGS, fill, read_wordings
from bridgevla_ros.planner.backends import Anchor, Anchors


def test_templates_get_their_article() -> None:
    assert fill("put {object} in {place}", "red cube", "blue bowl") == "put the red cube in the blue bowl"
    assert (
        fill("put the {object} in that {place}", "red cube", "blue bowl")
        == "put the red cube in that blue bowl"
    )


@pytest.mark.parametrize(
    "text", ["", "# only a comment\n", "put it in {place}\n", "put {object} in {bowl}\n"]
)
def test_bad_wordings_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "wordings.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"template|object"):
        read_wordings(path)


def test_default_wordings_ship() -> None:
    assert len(read_wordings(resources.find_config(DEFAULT_WORDINGS))) >= 12


def options(**values: object) -> argparse.Namespace:
    return argparse.Namespace(
        **(
            {"wordings": None, "seed": 910_000, "episodes": 6, "planner": "embedded", "words": "synonyms"}
            | values
        )
    )


class Blind:
    """Always points at the same pixel, or always refuses."""

    name, sha256 = "blind", ""

    def __init__(self, refuse: bool) -> None:
        self.refuse = refuse

    def anchors(self, frame: RgbdFrame, T_base_camera: Transform, clause: str, seed: int) -> Anchors:
        if self.refuse:
            raise BridgeError(ErrorCode.NO_TARGET, "nothing")
        return Anchors(Anchor("a", np.array([2.0, 230.0]), 1.0), Anchor("b", np.array([5.0, 230.0]), 1.0))

    def waypoints(self, *args: object) -> list[object]:
        return []


@pytest.mark.parametrize(("refuse", "cause"), [(True, "NO_TARGET"), (False, "WRONG_OBJECT")])
def test_guessing_scores_nothing(refuse: bool, cause: str) -> None:
    result = run_grounding(options(episodes=2), Blind(refuse))
    assert result["success_rate"] == 0.0
    assert result["failures"] == {cause: 2}
    assert result["absent_refused"] == float(refuse)


def test_the_shipped_planner_grounds() -> None:
    result = run_grounding(options())
    assert result["episodes"] == 6
    assert result["success_rate"] >= 0.5
    assert 0.0 <= result["ci95"][0] <= result["success_rate"] <= result["ci95"][1] <= 1.0
    assert len(result["model_sha256"]) == 64
