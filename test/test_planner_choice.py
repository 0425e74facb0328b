"""Which of several things the shipped planner takes, on one rendered scene."""

import numpy as np
import pytest
from scene_rig import scene, thing

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.types import PlanRequest, RgbdFrame
from bridgevla_ros.evaluation.grounding_rows import under
from bridgevla_ros.planner.backends.embedded import EmbeddedBackend
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.planner import Planner
from bridgevla_ros.planner.resolve import Resolver
from bridgevla_ros.simulation.lookalikes import with_lookalike
from bridgevla_ros.simulation.tasks import sample_scene
from bridgevla_ros.simulation.world import World

SCENE = scene(
    thing("red cube", (0.040, 0.040, 0.040), 0.42, -0.20),
    thing("second red cube", (0.054, 0.054, 0.054), 0.60, 0.16),
    thing("yellow cube", (0.045, 0.045, 0.045), 0.60, -0.18),
    thing("green ball", (0.048, 0.048, 0.048), 0.52, 0.0),
    thing("blue bowl", (0.15, 0.15, 0.045), 0.42, 0.20),
)


@pytest.fixture(scope="module")
def backend() -> EmbeddedBackend:
    return EmbeddedBackend(PlannerConfig())


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("the cube that is not red", "yellow cube"),
        ("the red cube left of the green ball", "red cube"),
        ("the red cube right of the green ball", "second red cube"),
        ("the cube in front of the red cube on the left", "yellow cube"),
        ("the biggest cube", "second red cube"),
        ("the small red cube", "red cube"),
        ("the cube on the right", "second red cube"),
        ("the red cube closest to you", "red cube"),
        ("the cube in the back left corner", "red cube"),
        ("the ball between the yellow cube and the bowl", "green ball"),
        ("the red cube farthest from the blue bowl", "red cube"),
    ],
)
def test_the_one_that_is_meant(
    backend: EmbeddedBackend, frame: RgbdFrame, world: World, words: str, name: str
) -> None:
    anchors = backend.anchors(frame, world.T_base_camera, f"put {words} in the blue bowl", 0)
    found = [SCENE.objects[i].name for i in under(anchors, world.render_segmentation())]
    assert found == [name, "blue bowl"]


@pytest.mark.parametrize(
    ("words", "code", "names"),
    [
        ("the red cube", ErrorCode.AMBIGUOUS, ["red cube", "red cube"]),
        ("the cube", ErrorCode.AMBIGUOUS, ["red cube", "red cube", "yellow cube"]),
        ("the cube behind the blue bowl", ErrorCode.NO_TARGET, []),
        ("the red ball", ErrorCode.NO_TARGET, []),
        ("the green cube", ErrorCode.NO_TARGET, []),
        ("one of 4 cubes", ErrorCode.NO_TARGET, []),
        ("one of the 2 cubes", ErrorCode.AMBIGUOUS, ["red cube", "red cube", "yellow cube"]),
        ("the cube left of the white box", ErrorCode.NO_TARGET, []),
    ],
)
def test_refusals(
    backend: EmbeddedBackend, frame: RgbdFrame, world: World, words: str, code: ErrorCode, names: list[str]
) -> None:
    with pytest.raises(BridgeError) as caught:
        backend.anchors(frame, world.T_base_camera, f"put {words} in the blue bowl", 0)
    assert caught.value.code == code, caught.value.message
    assert sorted(caught.value.candidates) == names


def test_who_names_what_is_not_there_is_told_what_is(
    backend: EmbeddedBackend, frame: RgbdFrame, world: World
) -> None:
    asked = "put the green cube in the blue bowl"
    with pytest.raises(BridgeError, match="no green cube to be seen") as caught:
        backend.anchors(frame, world.T_base_camera, asked, 0)
    kinds = sorted({f"{o.colour} {o.kind}" for o in SCENE.objects})
    assert caught.value.remedy == (
        f"name something that is on the table ({', '.join(kinds)}), or move what hides it"
    )


def test_what_was_refused_is_not_offered(
    backend: EmbeddedBackend, frame: RgbdFrame, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Resolver, "_seen", lambda _: ["green cube", "red cube"])
    with pytest.raises(BridgeError, match="no green cube to be seen") as caught:
        backend.anchors(frame, world.T_base_camera, "put the green cube in the blue bowl", 0)
    assert "(red cube)" in caught.value.remedy


def test_left_is_the_pictures_or_the_arms(backend: EmbeddedBackend, frame: RgbdFrame, world: World) -> None:
    words, labels = "put the red cube left of the green ball in the blue bowl", world.render_segmentation()
    config = backend.config
    try:
        backend.config = PlannerConfig(viewpoint="robot")
        anchors = backend.anchors(frame, world.T_base_camera, words, 0)
    finally:
        backend.config = config
    assert SCENE.objects[under(anchors, labels)[0]].name == "second red cube"


def test_a_plan_says_how_many_steps_it_will_take(
    backend: EmbeddedBackend, frame: RgbdFrame, world: World
) -> None:
    planner = Planner(PlannerConfig(), backend)
    for words, steps in (("put all the cubes in the blue bowl", 3), ("put two cubes in the bowl", 2)):
        request = PlanRequest(0.0, words, "request", words)
        plan = planner.plan(request, frame, world.T_base_camera, now=0.1)
        assert plan.code == ErrorCode.NONE, plan.message
        assert (plan.step, plan.steps_total) == (0, steps)
        assert "not in the" in plan.subgoal


def test_a_lookalike_has_colour_and_kind_of_another() -> None:
    scene = sample_scene(930_003, objects=(6, 8))
    alike = with_lookalike(scene, np.random.default_rng(0))
    assert alike is not None
    pairs = [(o.colour, o.kind) for o in alike.objects]
    assert len(set(pairs)) == len(pairs) - 1
    assert len({o.name for o in alike.objects}) == len(pairs)


def test_everything_counts_each_thing_once(backend: EmbeddedBackend, frame: RgbdFrame, world: World) -> None:
    anchors = backend.anchors(frame, world.T_base_camera, "put any thing in the blue bowl", 0)
    assert anchors.remaining == 4
