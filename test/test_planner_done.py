"""Whether a step is done: depth before and after it, the arm parked where its plan ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.types import CHECK, PlanRequest, WaypointPlan
from bridgevla_ros.evaluation.grounding_done import HAPPENED, happen, parked
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.planner import Planner
from bridgevla_ros.simulation.scene import SceneSpec
from bridgevla_ros.simulation.tasks import sample_scene, sample_task
from bridgevla_ros.simulation.world import World

SEED = 900_003


class Step:
    """A step that was planned, and a world in which it was or was not carried out."""

    def __init__(self, lift: bool = False) -> None:
        self.arm = ArmModel.load()
        self.planner = Planner(PlannerConfig(), arm=self.arm)
        self.scene = sample_scene(SEED)
        self.task = sample_task(self.scene, np.random.default_rng(SEED))
        self.world = World(scene=self.scene)
        self.plan_it(lift=lift)

    def plan_it(self, *, lift: bool = False) -> None:
        words = f"lift the {self.task.source}" if lift else self.task.instruction
        self.world.load(self.scene)
        frame = self.world.render()
        self.request = PlanRequest(frame.stamp, "task", "r", words)
        self.plan = self.planner.plan(self.request, frame, self.world.T_base_camera, now=frame.stamp)
        assert self.plan.code is ErrorCode.NONE, self.plan.message
        start = parked(self.plan, self.arm)
        assert start is not None
        self.start = start

    def after(self, what: str, seed: int = 0) -> SceneSpec:
        names = [o.name for o in self.scene.objects]
        source, place = names.index(self.task.source), names.index(self.task.destination)
        scene = happen(what, self.scene, source, place, self.plan, np.random.default_rng(seed))
        assert scene is not None
        return dataclasses.replace(scene, start=self.start)

    def look(self, scene: SceneSpec, **changes: object) -> WaypointPlan:
        self.world.load(scene)
        self.world.step(0.4)
        frame = self.world.render()
        request = dataclasses.replace(self.request, attempt=CHECK, **changes)  # type: ignore[arg-type]
        joints = self.world.joint_state()
        return self.planner.plan(request, frame, self.world.T_base_camera, now=frame.stamp, joints=joints)


@pytest.fixture(scope="module")
def step() -> Iterator[Step]:
    made = Step()
    yield made
    made.world.close()


@pytest.mark.parametrize(
    ("what", "code", "finding"),
    [
        ("placed", ErrorCode.NONE, "DONE"),
        ("placed askew", ErrorCode.NONE, "DONE"),
        ("not moved", ErrorCode.VERIFY_FAILED, "STILL_THERE"),
        ("dropped beside", ErrorCode.VERIFY_FAILED, "BESIDE"),
        ("wrong thing", ErrorCode.VERIFY_FAILED, "STILL_THERE"),
        ("lost", ErrorCode.VERIFY_FAILED, "NOT_ARRIVED"),
    ],
)
def test_what_happened_is_told_from_depth(step: Step, what: str, code: ErrorCode, finding: str) -> None:
    assert what in HAPPENED
    answer = step.look(step.after(what))
    assert (answer.code, answer.message.split(":")[0]) == (code, finding), answer.message
    assert answer.waypoints == ()
    assert "%" in answer.message
    assert step.planner.costs()["done_left"] == step.planner.verdict.left  # type: ignore[union-attr]


def test_the_camera_may_have_moved_in_between(step: Step) -> None:
    camera = sample_scene(SEED + 1).camera
    for what, code in (("placed", ErrorCode.NONE), ("not moved", ErrorCode.VERIFY_FAILED)):
        answer = step.look(dataclasses.replace(step.after(what), camera=camera))
        assert answer.code is code, answer.message


def test_an_image_without_depth_says_nothing(step: Step) -> None:
    step.world.load(step.after("placed"))
    frame = step.world.render()
    blind = dataclasses.replace(frame, depth=np.full_like(frame.depth, np.nan))
    request = dataclasses.replace(step.request, attempt=CHECK)
    answer = step.planner.plan(request, blind, step.world.T_base_camera, now=0.0)
    assert (answer.code, answer.message.split(":")[0]) == (ErrorCode.DEPTH_HOLE, "NOT_SEEN")


def test_another_step_than_the_one_planned_cannot_be_judged(step: Step) -> None:
    answer = step.look(step.after("placed"), step=1)
    assert (answer.code, answer.message.split(":")[0]) == (ErrorCode.DEPTH_HOLE, "NOT_SEEN")
    assert step.planner.verdict is None


def test_a_thing_that_was_lifted_has_left(step: Step) -> None:
    step.plan_it(lift=True)
    try:
        for what, code, finding in (
            ("lost", ErrorCode.NONE, "HELD"), ("not moved", ErrorCode.VERIFY_FAILED, "STILL_THERE"),
        ):  # fmt: skip
            names = [o.name for o in step.scene.objects]
            i = names.index(step.task.source)
            scene = happen(what, step.scene, i, i, step.plan, np.random.default_rng(0))
            assert scene is not None
            answer = step.look(dataclasses.replace(scene, start=step.start))
            assert (answer.code, answer.message.split(":")[0]) == (code, finding), answer.message
    finally:
        step.plan_it()
