"""The probe: a policy that ignores the cloud fails it, as does one that ignores guidance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bridgevla_ros.evaluation import probe, probe_reach
from bridgevla_ros.evaluation.probe_scene import SceneSpecOfProbe, probe_scene

# Development seeds: published figures begin at 1000.
SEED = 900_000


@pytest.fixture(scope="module")
def of_ik() -> dict[str, Any]:
    """One scene, really looked at, with the policy that only follows."""
    return probe_scene(SceneSpecOfProbe(SEED, "ik"))


def test_following_alone_is_caught(of_ik: dict[str, Any]) -> None:
    assert of_ik["skipped"] == ""
    gates = {g["gate"]: g for g in probe.judge(probe.summarise([of_ik]))}
    values = [gates[g.name]["value"] for g in probe.GATES]
    assert values == pytest.approx([0.0, 1.0, 1.0, 1.0, 1.0], abs=0.02)
    assert [gates[g.name]["passed"] for g in probe.GATES] == [False, False, True, True, True]


def test_reaches_of_ik_say_what_was_done(of_ik: dict[str, Any]) -> None:
    figures = probe.summarise([of_ik])
    reaches, actions = figures["reaches"], figures["actions"]
    assert reaches["as it is"]["closes"]["value"] == 1.0
    assert reaches["guidance erased"]["closes"]["value"] == 0.0
    for change in ("cloud erased", "cloud shifted", "cloud frozen", "cloud swapped"):
        assert actions[change]["median_mm"] == 0.0
    assert actions["guidance erased"]["median_mm"] > 50.0
    assert actions["guidance shifted"]["median_mm"] > 10.0


def scene_of(target: float, guidance: float, free: float, named: bool) -> dict[str, Any]:
    """What a policy of these slopes would leave."""

    def reach(share: float) -> list[dict[str, Any]]:
        shifts = [np.array([0.015, 0.0, 0.0]), np.array([0.0, 0.03, 0.0])]
        return [
            {"shift": s.tolist(), "answer": (share * s).tolist(), "closes": True, "code": ""} for s in shifts
        ]

    return {
        "seed": 0,
        "skipped": "",
        "reaches": {
            "target shifted": reach(target),
            "guidance shifted": reach(guidance),
            "detour in free space": reach(free),
        },
        "actions": {"cloud erased": [0.01, float("nan")]},
        "twins": {"as planned": named},
        "followed_other": named,
    }


@pytest.mark.parametrize(
    ("slopes", "passed"),
    [
        ((0.95, 0.05, 1.0, True), [True, True, True, True, True]),
        ((0.70, 0.30, 1.0, True), [False, False, True, True, True]),
        ((1.00, 0.00, 0.5, False), [True, True, False, False, False]),
    ],
)
def test_gates(slopes: tuple[float, float, float, bool], passed: list[bool]) -> None:
    assert [g["passed"] for g in probe.judge(probe.summarise([scene_of(*slopes)] * 20))] == passed


def test_what_was_not_measured_is_not_passed() -> None:
    empty = {"seed": 0, "skipped": "", "reaches": {}, "actions": {}, "twins": {}, "followed_other": None}
    gates = probe.judge(probe.summarise([empty]))
    assert not any(g["passed"] for g in gates)
    assert all(math.isnan(g["value"]) for g in gates)


def test_refused_chunks_are_counted_and_not_measured() -> None:
    scene = scene_of(1.0, 0.0, 1.0, True)
    scene["reaches"]["target shifted"][1] |= {"code": "EXPERT_DIVERGED", "answer": [9.0, 9.0, 9.0]}
    found = probe.summarise([scene])["reaches"]["target shifted"]
    assert found["refused"] == {"EXPERT_DIVERGED": 1}
    assert found["slope"]["value"] == pytest.approx(1.0)


def test_erased_guidance_stays_where_it_begins() -> None:
    from bridgevla_ros.core.guidance import window
    from bridgevla_ros.evaluation.episode import draw_episode
    from bridgevla_ros.evaluation.spec import EpisodeSpec
    from bridgevla_ros.simulation.config import SimConfig
    from bridgevla_ros.simulation.world import World

    spec = EpisodeSpec("main", SEED, policy="ik", planner="truth")
    world = World(SimConfig())
    guidance = probe_reach.Scene(spec, world, draw_episode(spec, world)).guidance()
    world.close()
    still = probe_reach.waiting(guidance)
    ahead = window(still, 0.3, 0, 8, 0.05)
    assert np.ptp(ahead.position, axis=0) == pytest.approx(0.0)
    start = int(np.abs(guidance.progress - probe_reach.start_of_reach(guidance)).argmin())
    away = np.linalg.norm(guidance.position[start] - guidance.contact_position[0])
    assert away >= probe_reach.FROM - 1e-9
    assert still.position[0] == pytest.approx(guidance.position[start])
