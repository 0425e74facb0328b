"""Statistics, wordings and rollouts of the evaluation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgevla_ros.evaluation.episode import PlanNoise, draw_episode, make_graph, run_episode
from bridgevla_ros.evaluation.spec import EpisodeSpec
from bridgevla_ros.evaluation.stats import percent, wilson_interval
from bridgevla_ros.evaluation.suites import specs_for, summarise
from bridgevla_ros.simulation.config import SimConfig
from bridgevla_ros.simulation.world import World

# Development seeds: the suites that are reported begin at 1000 and 5000.
SEED = 900_000


def test_all_and_none_are_said_of_all_and_none_only() -> None:
    said = [percent(rate) for rate in (0.0, 1 / 278, 1 / 200, 0.834, 199 / 200, 1.0)]
    assert said == ["0%", "0.4%", "0.5%", "83%", "99.5%", "100%"]


def test_wilson_interval_of_a_published_example() -> None:
    # 81 of 263: Newcombe (1998), table I, method 3.
    low, high = wilson_interval(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


@given(st.integers(0, 400), st.integers(1, 400))
def test_wilson_interval_holds_the_rate(successes: int, more: int) -> None:
    trials = successes + more
    low, high = wilson_interval(successes, trials)
    assert 0.0 <= low <= successes / trials <= high <= 1.0


def test_wilson_refuses_more_successes_than_trials() -> None:
    with pytest.raises(ValueError, match="5 successes of 4"):
        wilson_interval(5, 4)


def test_suite_named_names_two_objects_of_each_scene() -> None:
    specs = specs_for("named", SEED, 2)
    world = World(SimConfig())
    pairs = [draw_episode(spec, world) for spec in specs]
    world.close()
    assert [s.seed for s in specs] == [SEED, SEED, SEED + 1, SEED + 1]
    assert pairs[0].source != pairs[1].source
    assert pairs[2].source != pairs[3].source


def test_unknown_suite_is_named() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        specs_for("nonsense", 0, 1)


def test_an_episode_succeeds_and_repeats() -> None:
    """The same seed gives the same commands; anchors from truth, all else as in the graph."""
    spec = EpisodeSpec("main", SEED, policy="ik", planner="truth")
    world = World(SimConfig())
    paths = []
    for _ in range(2):
        episode = draw_episode(spec, world)
        trace = make_graph(spec, world, episode).run(episode.instruction)
        paths.append(np.array(trace.tcp_path))
    world.close()
    assert np.array_equal(paths[0], paths[1])
    assert trace.final is not None
    assert trace.final.stage.name == "DONE"


def test_plan_noise_is_the_same_for_every_waypoint() -> None:
    spec = EpisodeSpec("main", SEED, policy="ik", planner="truth")
    world = World(SimConfig())
    episode = draw_episode(spec, world)
    graph = make_graph(spec, world, episode)
    graph.run(episode.instruction, limit=1.0)
    world.close()
    plan = graph.trace.plans[0]
    noise = PlanNoise(0.02, 0.0, np.random.default_rng(1))
    noisy = noise(plan)
    shifts = [
        b.T_camera_tcp.translation - a.T_camera_tcp.translation
        for a, b in zip(plan.waypoints, noisy.waypoints, strict=True)
    ]
    assert np.linalg.norm(shifts[0]) > 0.001
    assert np.allclose(shifts, shifts[0])
    again = noise(plan).waypoints[0].T_camera_tcp.translation  # who tries again looks again
    assert np.linalg.norm(again - noisy.waypoints[0].T_camera_tcp.translation) > 0.001


def test_black_images_move_nothing() -> None:
    result = run_episode(EpisodeSpec("black", SEED))
    assert result.success, result
    assert result.code != "NONE"
    document = summarise([result], 1.0)
    assert document["success_rate"] == 1.0
    assert document["failures"] == {}
