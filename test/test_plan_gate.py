"""The plan gate: good plans pass, and each kind of wrong one is stopped by the check that is meant for it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import GripperEvent, Keypoint, PlanRequest
from bridgevla_ros.evaluation import gate as suite
from bridgevla_ros.evaluation.gate_faults import FAULTS, Case, Faulty
from bridgevla_ros.evaluation.truth import TruthBackend
from bridgevla_ros.planner import gate
from bridgevla_ros.planner.answers import Anchors
from bridgevla_ros.planner.backends.embedded import EmbeddedBackend
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.eyes import Eyes
from bridgevla_ros.planner.gate.collision import STRAY, clearances, obstacles
from bridgevla_ros.planner.gate.sweep import SPACING
from bridgevla_ros.planner.gate.waypoints import check_finite, check_reprojection
from bridgevla_ros.planner.grasp import Cloud3d
from bridgevla_ros.planner.planner import Planner
from bridgevla_ros.planner.witness import Witness
from bridgevla_ros.simulation.world import World

SEED = 900_021  # a purple and a green cube, bars, a plate, a white ball


@pytest.fixture(scope="module")
def case() -> Case:
    found = suite.draw_case(SEED, World())
    assert found is not None
    return found


@pytest.fixture(scope="module")
def good(case: Case) -> Anchors:
    backend = TruthBackend(case.world, case.source, case.destination)
    return backend.anchors(case.frame, case.world.T_base_camera, case.instruction, 0)


@pytest.fixture(scope="module")
def eyes() -> Eyes:
    return EmbeddedBackend(PlannerConfig()).eyes


def answer(case: Case, given: Faulty, eyes: Eyes | None = None) -> tuple[ErrorCode, str]:
    backend = suite.GivenAnchors()
    backend.given = given
    config = PlannerConfig(
        semantic_limit=0.0,
        waypoint_source="model" if given.local else "geometry",
        workspace_min=given.workspace_min
        or (0.25, -0.40, -0.20),  # so that the table itself is what stops a plan through it
    )
    planner = Planner(config, backend=backend, arm=ArmModel.load())
    if eyes is not None:
        planner.witness = Witness(eyes, PlannerConfig().semantic_limit)
    request = PlanRequest(given.frame.stamp, "t", "r", case.instruction, 0, 0, 0)
    plan = planner.plan(
        request, given.frame, case.world.T_base_camera, now=0.0, joints=case.world.joint_state()
    )
    return plan.code, plan.message


@pytest.fixture(scope="module")
def arm() -> ArmModel:
    return ArmModel.load()


@pytest.fixture(scope="module")
def draft(case: Case, good: Anchors, arm: ArmModel) -> gate.Draft:
    """The good plan of the case, as the checks see it."""
    backend = suite.GivenAnchors()
    backend.given = Faulty(good, case.frame)
    world = case.world
    planner = Planner(PlannerConfig(semantic_limit=0.0), backend=backend, arm=arm)
    request = PlanRequest(case.frame.stamp, "t", "r", case.instruction, 0, 0, 0)
    plan = planner.plan(request, case.frame, world.T_base_camera, now=0.0, joints=world.joint_state())
    assert plan.code is ErrorCode.NONE, plan.message
    return gate.Draft(
        plan.waypoints,
        tuple(plan.T_base_camera @ w.T_camera_tcp for w in plan.waypoints),
        plan.anchors,
        plan.intrinsics,
        plan.T_base_camera,
        Cloud3d.of(case.frame, world.T_base_camera, 0.0),
        world.joint_state(),
    )


def refusal(draft: gate.Draft, arm: ArmModel, config: PlannerConfig | None = None) -> BridgeError:
    """What the gate says; every refusal has a value beyond its limit, and tells what to do."""
    with pytest.raises(BridgeError) as caught:
        gate.check(draft, config or PlannerConfig(), arm)
    error = caught.value
    assert np.isfinite([error.value, error.limit]).all()
    assert error.value != error.limit
    assert error.remedy
    return error


def test_every_check_runs(draft: gate.Draft, arm: ArmModel) -> None:
    assert gate.check(draft, PlannerConfig(), arm) == (
        "finite", "certain", "depth", "workspace", "support", "reprojection", "path", "body", "cloud",
    )  # fmt: skip


def test_the_path_is_followed_from_where_the_arm_is(draft: gate.Draft, arm: ArmModel) -> None:
    sweep = gate.check_path(draft, PlannerConfig(), arm)
    np.testing.assert_allclose(sweep.joints[0], draft.joints.position, atol=0.01)
    for q, pose in zip(sweep.joints, sweep.poses, strict=True):
        assert arm.fk(q).distance(pose)[0] < 1e-3
    steps = np.linalg.norm(np.diff([p.translation for p in sweep.poses], axis=0), axis=1)
    assert steps.max() < 1.5 * SPACING
    for pose in draft.poses_base:  # every waypoint is one of the postures
        assert min(pose.distance(p)[0] for p in sweep.poses) < 1e-3


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"max_condition": 2.0}, ErrorCode.SINGULARITY, "next to a singularity"),
        ({"max_sigma": 0.001}, ErrorCode.DEPTH_HOLE, "mm only"),
        ({"max_reprojection": 1.0}, ErrorCode.REPROJECTION, "px from its anchor"),
    ],
)
def test_limits_are_parameters(
    draft: gate.Draft, arm: ArmModel, change: dict[str, float], code: ErrorCode, words: str
) -> None:
    error = refusal(draft, arm, PlannerConfig(**change))
    assert (error.code, words in error.message) == (code, True), error
    assert error.value > error.limit


def test_a_contact_beside_its_anchor_needs_something_held_that_reaches_there(draft: gate.Draft) -> None:
    number = next(i for i, w in enumerate(draft.waypoints) if w.gripper_event is GripperEvent.CLOSE)
    offset = np.array([0.12, 0.0, 0.0])
    pose = draft.poses_base[number]
    aside = Transform(pose.apply(-offset), pose.rotation)

    def moved(**change: np.ndarray) -> gate.Draft:
        waypoints, poses = list(draft.waypoints), list(draft.poses_base)
        waypoints[number] = dataclasses.replace(
            waypoints[number], T_camera_tcp=draft.T_base_camera.inverse() @ aside, **change
        )
        poses[number] = aside
        return dataclasses.replace(draft, waypoints=tuple(waypoints), poses_base=tuple(poses))

    check_reprojection(moved(contact_offset=offset), PlannerConfig())
    with pytest.raises(BridgeError, match="px from its anchor"):
        check_reprojection(moved(), PlannerConfig())
    with pytest.raises(BridgeError, match="not finite"):
        check_finite(moved(contact_offset=np.full(3, np.nan)))


def test_joints_that_cannot_follow(draft: gate.Draft) -> None:
    slow = ArmModel.load()
    slow.velocity_limit = slow.velocity_limit / 20.0
    error = refusal(draft, slow)
    assert (error.code, error.unit) == (ErrorCode.TOO_FAST, "rad/s")
    assert "times its speed" in error.message


def test_beyond_the_arms_reach(draft: gate.Draft, arm: ArmModel) -> None:
    far = Transform(np.array([1.1, 0.0, 0.3]), draft.poses_base[0].rotation)
    last = dataclasses.replace(draft.waypoints[-1], T_camera_tcp=draft.T_base_camera.inverse() @ far)
    moved = dataclasses.replace(
        draft, waypoints=(*draft.waypoints[:-1], last), poses_base=(*draft.poses_base[:-1], far)
    )
    error = refusal(moved, arm, PlannerConfig(workspace_max=(1.2, 0.4, 0.6)))
    assert error.code in (ErrorCode.UNREACHABLE, ErrorCode.SINGULARITY, ErrorCode.TOO_FAST)
    assert "on the way to waypoint 5" in error.message


def test_an_anchor_that_may_be_anywhere(draft: gate.Draft, arm: ArmModel) -> None:
    def vague(anchor: Keypoint) -> Keypoint:
        return dataclasses.replace(anchor, sigma=0.05)

    error = refusal(dataclasses.replace(draft, anchors=tuple(map(vague, draft.anchors))), arm)
    assert (error.code, error.value, error.unit) == (ErrorCode.DEPTH_HOLE, 0.05, "m")


def with_a_wall(draft: gate.Draft, where: np.ndarray, size: float = 0.044) -> gate.Draft:
    """A wall, seen in one corner of the image, that faces the camera at a point of the base frame."""
    points, side = draft.cloud.points.copy(), np.linspace(-size / 2, size / 2, 12)
    right, down = draft.T_base_camera.rotation[:, 0], draft.T_base_camera.rotation[:, 1]
    points[:12, :12] = where + side[None, :, None] * right + side[:, None, None] * down
    return dataclasses.replace(draft, cloud=dataclasses.replace(draft.cloud, points=points))


def test_something_stands_in_the_way(draft: gate.Draft, arm: ArmModel) -> None:
    sweep = gate.check_path(draft, PlannerConfig(), arm)
    carried = np.flatnonzero(sweep.toward == 3)
    middle = sweep.poses[int(carried[len(carried) // 2])].translation
    error = refusal(with_a_wall(draft, middle), arm)
    assert (error.code, error.unit) == (ErrorCode.COLLISION, "m")
    assert "that is seen there" in error.message
    assert error.value > error.limit
    away = with_a_wall(draft, middle + np.array([0.0, 0.0, 0.6]))
    assert gate.check(away, PlannerConfig(), arm)


def test_what_is_held_counts_as_the_hands(draft: gate.Draft, arm: ArmModel) -> None:
    """A point between the fingers and below them meets what they carry, and nothing of an empty hand."""
    sweep = gate.check_path(draft, PlannerConfig(), arm)
    i = int(np.flatnonzero(sweep.toward == 3)[0])
    one = sweep.at(np.arange(len(sweep.joints)) == i)
    hang = draft.poses_base[1].translation[2] - draft.support
    points = np.tile(one.poses[0].translation - np.array([0.0, 0.0, hang - 0.001]), (STRAY, 1))
    (full,), (part,) = clearances(draft, one, points, arm)
    assert full < 0.0
    assert int(part) == len(arm.capsule_links) + len(arm.gripper.radius)
    none = tuple(dataclasses.replace(w, gripper_event=GripperEvent.NONE) for w in draft.waypoints)
    (empty,), _ = clearances(dataclasses.replace(draft, waypoints=none), one, points, arm)
    assert empty > full + 0.003


def test_the_arm_is_not_in_its_own_way(draft: gate.Draft, arm: ArmModel) -> None:
    """What is seen where the hand is, is the hand; where it is not, it is in the way of the path's start."""
    wrist = arm.fk(draft.joints.position).translation + np.array([0.0, 0.0, 0.12])
    seen = with_a_wall(draft, wrist)
    assert gate.check(seen, PlannerConfig(), arm)
    aside = draft.joints.position + np.array([0.9, 0, 0, 0, 0, 0, 0])
    misled = dataclasses.replace(seen, joints=dataclasses.replace(draft.joints, position=aside))
    assert len(obstacles(misled, arm)) > len(obstacles(seen, arm)) + 15


def test_the_thing_is_not_in_the_way(draft: gate.Draft, arm: ArmModel) -> None:
    points = obstacles(draft, arm)
    contact = draft.poses_base[1].translation
    near = np.linalg.norm(points[:, :2] - contact[:2], axis=1) < 0.02
    assert not (near & (points[:, 2] < contact[2])).any()
    unnamed = obstacles(dataclasses.replace(draft, anchors=()), arm)
    assert len(unnamed) > len(points) + 20


def test_walls_of_the_place_count_only_where_nothing_is_released(draft: gate.Draft, arm: ArmModel) -> None:
    """A ridge beside the release, lower than the hand, belongs to the place; on the way past it does not."""
    drop = draft.poses_base[4].translation
    ridge = with_a_wall(draft, drop - np.array([0.0, 0.0, 0.01]))
    assert gate.check(ridge, PlannerConfig(), arm)
    passed = dataclasses.replace(draft.waypoints[4], gripper_event=GripperEvent.NONE)
    waypoints = (*draft.waypoints[:4], passed, draft.waypoints[5])
    assert "that is seen there" in refusal(dataclasses.replace(ridge, waypoints=waypoints), arm).message


def test_the_arm_meets_itself(draft: gate.Draft, arm: ArmModel) -> None:
    folded = np.array([0.0, -1.7, 0.0, -3.0, 0.0, 0.0, 0.785])
    sweep = gate.Sweep(folded[None], np.array([0.085]), np.array([2]), [arm.fk(folded)])
    with pytest.raises(BridgeError) as caught:
        gate.check_body(draft, sweep, arm)
    error = caught.value
    assert error.code is ErrorCode.COLLISION
    assert "on the way to waypoint 2" in error.message
    assert "would touch" in error.message
    assert error.value < error.limit


def test_a_good_plan_passes(case: Case, good: Anchors, eyes: Eyes) -> None:
    assert answer(case, Faulty(good, case.frame), eyes) == (ErrorCode.NONE, "")


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("through table", ErrorCode.COLLISION, "into the table"),
        ("outside", ErrorCode.OUT_OF_WORKSPACE, "has"),
        ("depth hole", ErrorCode.DEPTH_HOLE, "have depth"),
        ("long depth", ErrorCode.DEPTH_HOLE, "under the table"),
        ("beside", ErrorCode.DEPTH_HOLE, "nothing that stands"),
        ("through thing", ErrorCode.COLLISION, "that is seen there"),
    ],
)
def test_what_geometry_stops(case: Case, good: Anchors, fault: str, code: ErrorCode, words: str) -> None:
    tries = (FAULTS[fault](case, good, np.random.default_rng(k)) for k in range(20))
    found = next(f for f in tries if f is not None)
    got, message = answer(case, found)
    assert (got, words in message) == (code, True), message


def test_the_witness_sees_the_wrong_thing(case: Case, good: Anchors, eyes: Eyes) -> None:
    scene = case.world.scene
    named = scene.object(case.source)
    other = next(o for o in scene.objects if o.movable and o.name in case.seen and o.colour != named.colour)
    moved = dataclasses.replace(good.source, pixel=case.seen[other.name])
    wrong = Faulty(dataclasses.replace(good, source=moved), case.frame)
    code, message = answer(case, wrong, eyes)
    assert code is ErrorCode.NO_TARGET
    assert f"looks {other.colour}, not {named.colour}" in message
    assert answer(case, wrong)[0] is ErrorCode.NONE, "geometry alone has nothing against it"


def test_the_witness_says_nothing_of_what_is_not_named(case: Case, good: Anchors, eyes: Eyes) -> None:
    witness = Witness(eyes, 0.05)
    sights = witness.sights(case.frame, case.world.T_base_camera, "put the cube on the plate", good)
    assert [colour.named for _, colour, _ in sights] == ["", ""]
    assert [thing.named for _, _, thing in sights] == ["cube", "plate"]
    with pytest.raises(BridgeError, match="looks"):
        Witness(eyes, 0.05).check(
            case.frame, case.world.T_base_camera, "put the pink cube on the plate", good
        )


def test_one_look_at_a_frame_serves_the_anchors_and_their_check(case: Case, eyes: Eyes) -> None:
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
