"""Statistics of pairs and slopes, runs that go on, tables and reports of the evaluation."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from bridgevla_ros.cli import main
from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.evaluation import eval_command, plots, rows
from bridgevla_ros.evaluation.conditions import LOOKS, change_look, frame_filter
from bridgevla_ros.evaluation.experiment_appf import (
    checkpoint_steps,
    steps_to_match,
    success_to_match,
)
from bridgevla_ros.evaluation.experiment_sweeps import SWEEPS
from bridgevla_ros.evaluation.experiment_trainings import summarise_calibration
from bridgevla_ros.evaluation.fleet import Journal, Piece, run_pieces
from bridgevla_ros.evaluation.options import POLICIES, policies_of
from bridgevla_ros.evaluation.report import Picture, Plot, Report, Section, Table, html
from bridgevla_ros.evaluation.spec import EpisodeResult, EpisodeSpec
from bridgevla_ros.evaluation.stats import paired_difference, slope
from bridgevla_ros.simulation.noise import DepthNoise
from bridgevla_ros.simulation.scene import CameraSpec
from bridgevla_ros.simulation.tasks import sample_scene

# Development seeds: published figures begin at 1000.
SEED = 900_000


# -- statistics --------------------------------------------------------------------------------------


def test_paired_interval_of_published_examples() -> None:
    # Newcombe (1998), paired data, table III, method 10: 36, 12, 2, 0.
    assert paired_difference(36, 12, 2, 0) == pytest.approx((0.2, 0.0569, 0.3404), abs=5e-5)
    # Bentur et al. (2009) as in Fagerland, Lydersen and Laake (2014), square-and-add.
    assert paired_difference(1, 1, 7, 12) == pytest.approx((-0.2857, -0.5069, -0.0256), abs=5e-5)


@given(st.tuples(*[st.integers(0, 60)] * 4).filter(lambda t: sum(t) > 0))
def test_paired_interval_turns_with_the_order(table: tuple[int, int, int, int]) -> None:
    both, first, second, neither = table
    value, low, high = paired_difference(both, first, second, neither)
    assert -1.0 <= low <= value + 1e-12
    assert value <= high + 1e-12 <= 1.0 + 2e-12
    assert paired_difference(both, second, first, neither) == pytest.approx((-value, -high, -low))


def test_paired_interval_covers_the_true_difference() -> None:
    rng = np.random.default_rng(0)
    draws = rng.multinomial(60, [0.5, 0.3, 0.1, 0.1], size=600)
    inside = [low <= 0.2 <= high for _, low, high in (paired_difference(*map(int, d)) for d in draws)]
    assert 0.92 <= np.mean(inside) <= 0.985


def test_slope_of_what_follows_in_part() -> None:
    rng = np.random.default_rng(1)
    shifts = rng.normal(0.0, 0.02, (200, 3))
    value, low, high = slope(shifts, 0.8 * shifts + rng.normal(0.0, 0.001, (200, 3)))
    assert low < 0.8 < high
    assert high - low < 0.03
    assert value == pytest.approx(0.8, abs=0.01)


# -- runs that go on ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Square:
    """Work of a test."""

    number: int


DONE: list[int] = []


def square(what: Square) -> dict[str, int]:
    """The test's work; stops like a killed run at 3, the first time."""
    if what.number == 3 and 3 not in DONE:
        DONE.append(3)
        raise KeyboardInterrupt
    DONE.append(what.number)
    return {"square": what.number**2}


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    DONE.clear()
    path = tmp_path / "run.journal.jsonl"
    pieces = [Piece(square, Square(n)) for n in range(6)]
    journal = Journal(path, {"weights": "a"}, resume=False)
    with pytest.raises(KeyboardInterrupt):
        list(run_pieces(pieces, 1, journal))
    journal.close(finished=False)
    with path.open("a") as file:
        file.write('{"key": "half a li')  # killed within a line
    with pytest.raises(BridgeError, match="holds 3 answers"):
        Journal(path, {"weights": "a"}, resume=False)
    with pytest.raises(BridgeError, match="made with"):
        Journal(path, {"weights": "b"}, resume=True)
    DONE[:] = [3]
    journal = Journal(path, {"weights": "a"}, resume=True)
    answers = dict(run_pieces(pieces, 1, journal))
    assert [answers[n]["square"] for n in range(6)] == [0, 1, 4, 9, 16, 25]
    assert DONE == [3, 3, 4, 5]  # 0, 1 and 2 were not done again
    journal.close(finished=True)
    assert not path.exists()


# -- rows and reports --------------------------------------------------------------------------------


def answer(seed: int, policy: str, success: bool, task: str = "lift", cause: str = "GRASP_FAILED") -> dict:
    """What an episode would have told."""
    result = EpisodeResult(
        "mid", seed, 0, policy, "truth", "lift the red cube", "red cube", "", success,
        "" if success else cause, "NONE" if success else cause, "", (), (), 1, 10.0, 5.0, task,
    )  # fmt: skip
    return dataclasses.asdict(result)


@pytest.fixture(scope="module")
def filled() -> list[rows.Row]:
    """Two policies on the same eight seeds: 6 and 3 successes, one of them on its own."""
    specs = tuple(EpisodeSpec("mid", SEED + i) for i in range(8))
    wins = {"expert": [1, 1, 1, 1, 1, 1, 0, 0], "ik": [1, 1, 0, 0, 0, 0, 1, 0]}
    return [
        rows.row_of(
            rows.RowSpec(name, specs),
            [answer(SEED + i, name, bool(w), "lift" if i % 2 else "stack") for i, w in enumerate(won)],
        )
        for name, won in wins.items()
    ]


def test_rows_are_counted_by_task_and_compared_by_pair(filled: list[rows.Row]) -> None:
    expert, ik = filled
    assert expert["success_rate"] == 0.75
    assert expert["failures"] == {"GRASP_FAILED": 2}
    assert {name: t["episodes"] for name, t in expert["tasks"].items()} == {"lift": 4, "stack": 4}
    (found,) = rows.differences(filled)
    assert (found["first_only"], found["second_only"], found["episodes"]) == (4, 1, 8)
    assert found["difference"] == pytest.approx(3 / 8)
    assert found["ci95"] == pytest.approx(list(paired_difference(2, 4, 1, 1)[1:]))
    assert ik["settings"]["depth_noise"] == 0.0
    json.dumps(filled)


def test_an_episode_that_breaks_is_a_failure_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    from bridgevla_ros.evaluation import episode

    def breaks(_: EpisodeSpec) -> EpisodeResult:
        raise ZeroDivisionError("of something")

    monkeypatch.setattr(episode, "run_episode", breaks)
    found = rows.episode(EpisodeSpec("main", SEED))
    assert (found["success"], found["cause"]) == (False, "ERROR")
    assert "ZeroDivisionError: of something (test_evaluation_report.py" in found["message"]


def test_the_report_holds_the_numbers_and_needs_no_other_file(filled: list[rows.Row]) -> None:
    grey = np.full((8, 8, 3), 128, np.uint8)
    sections = (
        *rows.sections(filled, rows.differences(filled)),
        Section("Pictures", pictures=(Picture(grey, "seed 1 <b>", True),)),
    )
    made = {"command": "bridgevla eval --suite mid", "commit": "abc"}
    page = html(Report("Suite mid", "expert 75% & ik 38%.", made, sections, good=False))
    text = re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)
    for number in ("75%", "41 to 93%", "38%", "+38 points", "4 : 1", "GRASP_FAILED 2"):
        assert number in text, number
    assert "<code>bridgevla eval --suite mid</code>" in page
    assert "seed 1 &lt;b&gt;" in page
    assert "ik 38%" in page
    assert "failed" in page
    assert page.count("<svg") == 2
    assert page.count("data:image/jpeg;base64,") == 1
    assert not re.findall(r"(?:src|href)=\"(?!data:)[^\"#]", text)


def test_plots_draw() -> None:
    rate = (0.5, 0.3, 0.7)
    shown = [
        plots.success({"all": {"expert": rate}, "lift": {"expert": rate, "ik": rate}}),
        plots.failures({"expert": {}, "ik": {"TIMEOUT": 2}}, {"expert": 5, "ik": 5}),
        plots.sweep(["0", "1"], {"expert": [rate, None]}, "noise", {"expert (paper)": [0.2, None]}),
        plots.sweep(["100", "600"], {"appf": [rate, rate], "ik": [rate, rate]}, "steps", places=[100, 600]),
        plots.followed({"target": (np.ones((3, 3)), np.ones((3, 3)))}),
        plots.bars({"cloud erased": 3.0}, "mm"),
        plots.curves({"appf": ([1, 2], [3, 2])}, "steps", "mm"),
    ]
    page = html(Report("t", "v", {}, (Section("s", plots=tuple(Plot(f, "c") for f in shown)),)))
    assert all(isinstance(f, Figure) for f in shown)
    assert page.count("<svg") == len(shown)


def test_tables_print(capsys: pytest.CaptureFixture[str]) -> None:
    rows.print_tables([Table(("policy", "success"), (("expert", "75%"),), "a note")])
    printed = capsys.readouterr().out
    assert "expert" in printed
    assert "75%" in printed
    assert "a note" in printed


# -- options -----------------------------------------------------------------------------------------


def options(module: object, *words: str) -> argparse.Namespace:
    """Parsed as the verb would."""
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)  # type: ignore[attr-defined]
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--policy", "expert,nobody"], "nobody"),
        (["--episodes", "0"], "--episodes is 0"),
        (["--depth-noise", "-1"], "0 or more"),
        (["--resume"], "--json"),
    ],
)
def test_bad_options_of_eval_are_named(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["looks", "--suite", "nowhere"], "nowhere"),
        (["looks", "--policy", "nobody"], "nobody"),
        (["appf", "--steps", "0"], "--steps"),
        (["calibration", "--bank", "/nonexistent/bank"], "bank"),
        (["appf", "--bank", "/nonexistent/bank"], "bridgevla data generate"),
    ],
)
def test_bad_options_of_experiment_are_named(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["experiment", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], ("expert",)),
        (["--suite", "named"], ("expert",)),
        (["--suite", "mid"], POLICIES),
        (["--suite", "long thing"], POLICIES),
        (["--suite", "robosuite"], POLICIES),
        (["--suite", "mid", "--probe", "conditioning"], ("expert",)),
        (["--suite", "mid", "--policy", "snap,ik"], ("snap", "ik")),
        (["--suite", "black", "--policy", "all"], POLICIES),
    ],
)
def test_suites_that_compare_policies_have_a_row_of_each(words: list[str], wanted: tuple[str, ...]) -> None:
    assert policies_of(options(eval_command, *words)) == wanted


# -- experiments -------------------------------------------------------------------------------------


def test_sweeps_set_what_an_episode_knows() -> None:
    known = {f.name for f in dataclasses.fields(EpisodeSpec)}
    for sweep in SWEEPS.values():
        for setting in sweep.settings:
            assert {*sweep.common, *setting.changes} <= known
        assert all(len(values) == len(sweep.settings) for values in sweep.paper.values())


def test_looks_change_what_they_say() -> None:
    scene = sample_scene(SEED)
    looks = {look: change_look(scene, look, np.random.default_rng(SEED)) for look in LOOKS}
    assert looks[""] == scene
    assert all(new.objects == scene.objects for new in looks.values())
    before, after = scene.camera.pose, looks["camera_angle"].camera.pose
    assert np.degrees(before.distance(after)[1]) == pytest.approx(30.0, abs=1e-6)
    assert after.translation[2] == pytest.approx(before.translation[2])
    back = looks["camera_distance"].camera.pose
    assert before.distance(back) == pytest.approx((0.30, 0.0), abs=1e-6)
    assert looks["all"].table_rgb == looks["textures"].table_rgb != scene.table_rgb
    assert looks["all"].light == looks["lighting"].light != scene.light
    with pytest.raises(ValueError, match="sepia"):
        change_look(scene, "sepia", np.random.default_rng(0))


def stands(camera: CameraSpec) -> tuple[float, float]:
    """Degrees round the point that it looks at on the table, from straight ahead; metres from it."""
    pose = camera.pose
    forward = pose.rotation[:, 2]
    away = forward * (0.03 - pose.translation[2]) / forward[2]
    return float(np.degrees(np.arctan2(-away[1], -away[0]))), float(np.linalg.norm(away))


def test_one_camera_lies_beyond_training_and_the_others_within() -> None:
    """Training's: up to 57 degrees to either side, 0.75 to 1.30 m (``suites.randomise``)."""
    for seed in range(SEED, SEED + 20):
        scene, rng = sample_scene(seed), np.random.default_rng(seed)
        angle, distance = stands(change_look(scene, "camera_beyond", rng).camera)
        assert 57.3 < abs(angle) < 90.0
        assert 1.30 < distance < 1.65
        for look in ("", "camera_angle", "camera_distance", "all"):
            angle, distance = stands(change_look(scene, look, rng).camera)
            assert abs(angle) < 57.3
            assert 0.75 < distance < 1.30


def test_added_faults_are_not_the_sensors_own_again() -> None:
    from bridgevla_ros.core.types import CameraIntrinsics, RgbdFrame

    depth = np.full((120, 160), 0.9, np.float32)
    camera = CameraIntrinsics(160, 120, 160.0, 160.0, 79.5, 59.5)
    frame = RgbdFrame(0.0, np.zeros((120, 160, 3), np.uint8), depth, camera)
    again, once = (frame_filter(1.0, 2.0, np.random.default_rng(0), SEED) for _ in range(2))
    assert again is not None
    assert once is not None
    added, sensor = once(frame).depth, DepthNoise(1.0, SEED).apply(depth)
    both = np.isfinite(added) & np.isfinite(sensor)
    assert abs(np.corrcoef(added[both], sensor[both])[0, 1]) < 0.05
    assert np.array_equal(added, again(frame).depth, equal_nan=True)


def test_depth_becomes_sparse_and_poor() -> None:
    from bridgevla_ros.core.types import CameraIntrinsics, RgbdFrame

    camera = CameraIntrinsics(80, 60, 80.0, 80.0, 39.5, 29.5)
    depth = np.full((60, 80), 0.9, np.float32)
    frame = RgbdFrame(0.0, np.zeros((60, 80, 3), np.uint8), depth, camera)
    assert frame_filter(1.0, 1.0, np.random.default_rng(0), 0) is None
    sparse = frame_filter(0.25, 1.0, np.random.default_rng(0), 0)
    assert sparse is not None
    assert np.isfinite(sparse(frame).depth).mean() == pytest.approx(0.25, abs=0.03)
    poor = frame_filter(1.0, 5.0, np.random.default_rng(0), 0)
    assert poor is not None
    assert 0.003 < np.nanstd(poor(frame).depth) < 0.02
    assert (frame.depth == 0.9).all() or np.ptp(frame.depth) == 0.0
    with pytest.raises(ValueError, match="depth_keep"):
        frame_filter(0.0, 1.0, np.random.default_rng(0), 0)


def test_steps_to_the_joint_runs_best() -> None:
    def curve(values: list[float]) -> list[dict]:
        return [{"clouds": 100 * (i + 1), "held_out": {"pick_mm": v}} for i, v in enumerate(values)]

    curves = {"joint": curve([9.0, 8.0, 6.0, 6.5]), "appf": curve([6.0, 5.0, 4.0, 4.0])}
    found = steps_to_match(curves, "pick_mm")
    assert found is not None
    assert (found["joint_steps"], found["appf_steps"], found["met"]) == (300, 100, True)
    late = steps_to_match({**curves, "appf": curve([9.0, 6.5, 6.0, 5.0])}, "pick_mm")
    assert late is not None
    assert not late["met"]
    assert late["share"] == 1.0
    never = steps_to_match({**curves, "appf": curve([9.0, 8.0])}, "pick_mm")
    assert never is not None
    assert never["appf_steps"] == 0
    assert not never["met"]
    assert steps_to_match(curves, "place_mm") is None


def won(successes: int, of: int = 20) -> rows.Row:
    """A row that won its first seeds."""
    specs = tuple(EpisodeSpec("mid", SEED + i) for i in range(of))
    return rows.row_of(
        rows.RowSpec("expert", specs), [answer(SEED + i, "expert", i < successes) for i in range(of)]
    )


def test_success_against_steps_with_clouds() -> None:
    assert checkpoint_steps(3000, [1, 2, 3, 6]) == [500, 1000, 1500, 3000]
    assert checkpoint_steps(1000, [6, 1]) == [166, 1000]
    assert checkpoint_steps(3, [1, 2, 3, 6]) == [1, 2, 3]
    joint = {100: won(4), 200: won(10), 300: won(16), 600: won(16)}
    early = success_to_match(joint, {100: won(16), 200: won(12), 300: won(16), 600: won(18)})
    assert (early["joint_best"], early["joint_steps"], early["appf_steps"], early["met"]) == (
        0.8,
        300,
        100,
        True,
    )
    assert early["within"]["difference"] == 0.0
    late = success_to_match(joint | {600: won(18)}, {100: won(8), 200: won(12), 300: won(18), 600: won(18)})
    assert (late["joint_steps"], late["appf_steps"], late["met"], late["share"]) == (600, 300, False, 0.5)
    assert late["within"]["steps"] == 200
    assert late["within"]["difference"] == pytest.approx(-0.3)
    assert late["within"]["difference_ci95"] == pytest.approx(list(paired_difference(12, 0, 6, 2)[1:]))
    never = success_to_match({100: won(16)}, {100: won(8)})
    assert (never["appf_steps"], never["share"], never["met"], never["within"]) == (0, None, False, None)


def test_calibration_bins_by_spread() -> None:
    rng = np.random.default_rng(2)
    spread = rng.uniform(1.0, 5.0, 400)
    error = 2.0 * spread * rng.uniform(0.8, 1.2, 400)
    found = summarise_calibration(spread, error)
    medians = [b["error_mm"] for b in found["bins"]]
    assert medians == sorted(medians)
    assert sum(b["views"] for b in found["bins"]) == 400
    assert found["rank_correlation"] > 0.9
    assert found["bins"][0]["over_10"] == 0.0 < found["bins"][-1]["over_10"]
    noise = rng.uniform(1.0, 5.0, 400)
    assert abs(summarise_calibration(noise, error)["rank_correlation"]) < 0.2
    with pytest.raises(BridgeError, match="bins"):
        summarise_calibration(spread[:3], error[:3])
