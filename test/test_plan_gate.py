"""The plan gate: good plans pass, and each kind of wrong one is stopped by the check that is meant for it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.types import PlanRequest
from bridgevla_ros.evaluation import gate as suite
from bridgevla_ros.evaluation.truth import TruthBackend
from bridgevla_ros.planner.answers import Anchors
from bridgevla_ros.planner.backends.embedded import EmbeddedBackend
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.eyes import Eyes
from bridgevla_ros.planner.planner import Planner
from bridgevla_ros.planner.witness import Witness
from bridgevla_ros.simulation.world import World

SEED = 900_021  # a purple and a green cube, bars, a plate, a white ball


@pytest.fixture(scope="module")
def case() -> suite.Case:
    found = suite.draw_case(SEED, World())
    assert found is not None
    return found


@pytest.fixture(scope="module")
def good(case: suite.Case) -> Anchors:
    backend = TruthBackend(case.world, case.source, case.destination)
    return backend.anchors(case.frame, case.world.T_base_camera, case.instruction, 0)


@pytest.fixture(scope="module")
def eyes() -> Eyes:
    return EmbeddedBackend(PlannerConfig()).eyes


def answer(case: suite.Case, given: suite.Faulty, eyes: Eyes | None = None) -> tuple[ErrorCode, str]:
    backend = suite.GivenAnchors()
    backend.given = given
    config = PlannerConfig(
        semantic_limit=0.0,
        waypoint_source="model" if given.local else "geometry",
        workspace_min=(0.25, -0.40, -0.20),  # so that the table itself is what stops a plan through it
    )
    planner = Planner(config, backend=backend, arm=ArmModel.load())
    if eyes is not None:
        planner.witness = Witness(eyes, PlannerConfig().semantic_limit)
    request = PlanRequest(given.frame.stamp, "t", "r", case.instruction, 0, 0, 0)
    plan = planner.plan(request, given.frame, case.world.T_base_camera, now=given.frame.stamp)
    return plan.code, plan.message


def test_a_good_plan_passes(case: suite.Case, good: Anchors, eyes: Eyes) -> None:
    assert answer(case, suite.Faulty(good, case.frame), eyes) == (ErrorCode.NONE, "")


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("through table", ErrorCode.COLLISION, "into the table"),
        ("outside", ErrorCode.OUT_OF_WORKSPACE, "has"),
        ("depth hole", ErrorCode.DEPTH_HOLE, "have depth"),
        ("long depth", ErrorCode.DEPTH_HOLE, "under the table"),
        ("beside", ErrorCode.DEPTH_HOLE, "nothing that stands"),
    ],
)
def test_what_geometry_stops(
    case: suite.Case, good: Anchors, fault: str, code: ErrorCode, words: str
) -> None:
    tries = (suite.FAULTS[fault](case, good, np.random.default_rng(k)) for k in range(20))
    found = next(f for f in tries if f is not None)
    got, message = answer(case, found)
    assert (got, words in message) == (code, True), message


def test_the_witness_sees_the_wrong_thing(case: suite.Case, good: Anchors, eyes: Eyes) -> None:
    scene = case.world.scene
    named = scene.object(case.source)
    other = next(o for o in scene.objects if o.movable and o.name in case.seen and o.colour != named.colour)
    moved = dataclasses.replace(good.source, pixel=case.seen[other.name])
    wrong = suite.Faulty(dataclasses.replace(good, source=moved), case.frame)
    code, message = answer(case, wrong, eyes)
    assert code is ErrorCode.NO_TARGET
    assert f"looks {other.colour}, not {named.colour}" in message
    assert answer(case, wrong)[0] is ErrorCode.NONE, "geometry alone has nothing against it"


def test_the_witness_says_nothing_of_what_is_not_named(case: suite.Case, good: Anchors, eyes: Eyes) -> None:
    witness = Witness(eyes, 0.05)
    sights = witness.sights(case.frame, case.world.T_base_camera, "put the cube on the plate", good)
    assert [colour.named for _, colour, _ in sights] == ["", ""]
    assert [thing.named for _, _, thing in sights] == ["cube", "plate"]
    with pytest.raises(BridgeError, match="looks"):
        Witness(eyes, 0.05).check(
            case.frame, case.world.T_base_camera, "put the pink cube on the plate", good
        )


def test_one_look_at_a_frame_serves_the_anchors_and_their_check(case: suite.Case, eyes: Eyes) -> None:
    backend, pose = EmbeddedBackend(PlannerConfig()), case.world.T_base_camera
    looked: list[str] = []
    for part, name in ((backend.eyes.model.trunk, "image"), (backend.eyes.model.text, "words")):
        part.register_forward_hook(lambda *_, name=name: looked.append(name))
    found = backend.anchors(case.frame, pose, case.instruction, 0)
    Witness(backend.eyes, 0.05).check(case.frame, pose, case.instruction, found)
    assert sorted(looked) == ["image", "words"]
    other = dataclasses.replace(case.frame, rgb=case.frame.rgb[:, ::-1].copy())
    seen = backend.eyes.look(other, pose).features
    assert looked.count("image") == 2
    assert torch.equal(seen, eyes.look(other, pose).features)
    assert not torch.equal(seen, eyes.look(case.frame, pose).features)
