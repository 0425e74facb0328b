"""The grounding suite: templates, judging, and the shipped planner on a few scenes."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from bridgevla_ros.cli import main
from bridgevla_ros.core import resources
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import RgbdFrame
from bridgevla_ros.evaluation import grounding
from bridgevla_ros.evaluation.grounding import run_grounding
from bridgevla_ros.evaluation.grounding_pairs import draw, other_pairs, pairs_of, run_pairs
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


@pytest.mark.parametrize("words", [[], ["--pairs", "pink cylinder"]])
def test_the_command_leaves_figures_and_report(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grounding, "make_backend", lambda config: Blind(False))
    figures, page = tmp_path / "g.json", tmp_path / "g.html"
    asked = ["eval", "--suite", "grounding", "--episodes", "2", "--seed", "910000", *words]
    assert main([*asked, "--json", str(figures), "--report", str(page)]) == 0
    document = json.loads(figures.read_text())
    assert (document["suite"], document["made"]["planner weights"]) == ("grounding", "none")
    assert document["made"]["command"]
    told = page.read_text()
    assert "Suite grounding" in told
    for there in ("asked_absent",) if words else ("0.0% right", "table, table"):
        assert there in told


def test_families_and_whole_plans_are_reported() -> None:
    row = {
        "rate": 0.5,
        "ci95": [0.1, 0.9],
        "asked": 4,
        "about": "one named",
        "wrongly_refused": {"NO_TARGET": 1},
    }
    error, cost = {"median": 0.0046, "p95": 0.0081}, {"median": 0.12, "p95": 0.13}
    result = {
        "words": "synonyms", "by_template": {"put it in {place}": [1, 2]}, "misses": [],
        "families": {"clutter": row, "ranks": row | {"rate": float("nan"), "asked": 0}},
        "waypoints": {"all_m": error, "plan_cpu_s": cost, "planned": 3}, "done": {"not_done": 0, "done": 0},
    }  # fmt: skip
    sections = grounding.report_sections(result)
    assert [s.title for s in sections] == ["Wordings", "Families, and whole plans"]
    assert "median 4.6 mm" in sections[1].text
    assert sections[1].tables[0].rows[0] == ("clutter", "50.0%", "10 to 90%", "4", "1", "one named")
    assert len(sections[1].plots) == 1


PAIRS = (("pink", "cylinder"), ("purple", "box"))


def test_pairs_stand_beside_one_of_their_colour_and_one_of_their_kind() -> None:
    others = other_pairs(PAIRS)
    assert not set(others) & set(PAIRS)
    for pair, banned in ((PAIRS[0], ()), (PAIRS[1], ()), (others[0], PAIRS)):
        for present in (True, False):
            scene, target = draw(910_000, pair, banned, present)
            looks = [(o.colour, o.kind) for o in scene.objects]
            assert looks.count(pair) == int(present)
            assert len(set(looks)) == len(looks)
            assert any(colour == pair[0] and kind != pair[1] for colour, kind in looks)
            assert any(colour != pair[0] and kind == pair[1] for colour, kind in looks)
            assert not set(looks) & (set(banned) - {pair})
            assert (looks[target] == pair) if present else target == -1


def test_a_checkpoint_says_what_it_never_saw(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text('{"vision": {"without": ["pink cylinder", "purple box"]}}')
    assert pairs_of([], str(tmp_path)) == PAIRS
    assert pairs_of(["red cube"], "") == (("red", "cube"),)
    for names, weights in (([], ""), (["cube"], ""), (["mauve cube"], "")):
        with pytest.raises(BridgeError) as refused:
            pairs_of(names, weights)
        assert refused.value.code == ErrorCode.BAD_INPUT
        assert refused.value.remedy


@pytest.mark.parametrize("refuse", [True, False])
def test_who_guesses_finds_no_pairs(refuse: bool) -> None:
    rows = run_pairs(Blind(refuse), PAIRS, 910_000, 1, lambda *_: None)
    assert [row["rate"] for row in rows.values()] == [0.0, float(refuse), 0.0, float(refuse)]
