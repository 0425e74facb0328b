"""The planner's way from request and frame to plan, with the shipped weights on rendered scenes."""

import contextlib
import dataclasses

import mujoco
import numpy as np
import pytest
from scene_rig import scene, thing

from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import (
    GripperEvent,
    JointState,
    PlanRequest,
    RgbdFrame,
    WaypointKind,
    WaypointPlan,
)
from bridgevla_ros.planner.backends.embedded import EmbeddedBackend
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.draw import annotate
from bridgevla_ros.planner.grasp import Cloud3d, boxes, grasp
from bridgevla_ros.planner.lifting import lift
from bridgevla_ros.planner.place import _relief, place
from bridgevla_ros.planner.planner import Planner, digest
from bridgevla_ros.planner.stops import HALF_TURN
from bridgevla_ros.simulation.world import World

SCENE = scene(
    thing("red cube", (0.045, 0.045, 0.045), 0.45, -0.15),
    thing("green cube", (0.045, 0.045, 0.045), 0.60, 0.00),
    thing("yellow bar", (0.12, 0.03, 0.03), 0.42, 0.05, 0.9),
    thing("blue bowl", (0.15, 0.15, 0.045), 0.45, 0.22),
    thing("white plate", (0.17, 0.17, 0.014), 0.62, -0.20),
)


@pytest.fixture(scope="module")
def planner() -> Planner:
    return Planner(PlannerConfig())


def ask(planner: Planner, frame: RgbdFrame, world: World, text: str, **request: int) -> WaypointPlan:
    return planner.plan(
        PlanRequest(0.0, "task", "request", text, **request), frame, world.T_base_camera, now=0.1
    )


def under(plan: WaypointPlan, world: World) -> list[str]:
    segmentation = world.render_segmentation()
    ids = [int(segmentation[round(float(a.pixel[1])), round(float(a.pixel[0]))]) for a in plan.anchors]
    return [world.scene.objects[i - 1].name if i > 0 else "nothing" for i in ids]


def test_a_plan_grips_the_thing_and_lets_go_over_the_place(
    planner: Planner, frame: RgbdFrame, world: World
) -> None:
    plan = ask(planner, frame, world, "put the red cube in the blue bowl")
    assert plan.code == ErrorCode.NONE, plan.message
    assert under(plan, world) == ["red cube", "blue bowl"]
    kinds = [w.kind for w in plan.waypoints]
    assert kinds == [
        WaypointKind.APPROACH, WaypointKind.CONTACT, WaypointKind.RETREAT,
        WaypointKind.APPROACH, WaypointKind.CONTACT, WaypointKind.RETREAT,
    ]  # fmt: skip
    assert [w.gripper_event for w in plan.waypoints if w.gripper_event] == [
        GripperEvent.OPEN, GripperEvent.CLOSE, GripperEvent.OPEN,
    ]  # fmt: skip
    poses = [plan.T_base_camera @ w.T_camera_tcp for w in plan.waypoints]
    grip, drop = poses[1].translation, poses[4].translation
    assert np.linalg.norm(grip[:2] - [0.45, -0.15]) < 0.01
    assert 0.015 < grip[2] < 0.040
    assert np.linalg.norm(drop[:2] - [0.45, 0.22]) < 0.02
    for pose in poses:
        np.testing.assert_allclose(pose.rotation[:, 2], [0.0, 0.0, -1.0], atol=1e-6)
    assert plan.waypoints[0].gripper_width > 0.055


def test_the_same_meaning_gives_the_same_plan(planner: Planner, frame: RgbdFrame, world: World) -> None:
    one = ask(planner, frame, world, "put the red cube in the blue bowl")
    two = ask(planner, frame, world, "drop the crimson block into the blue dish")
    assert two.code == ErrorCode.NONE, two.message
    for a, b in zip(one.waypoints, two.waypoints, strict=True):
        assert a.T_camera_tcp.distance(b.T_camera_tcp)[0] < 0.005


def test_roles_are_told_apart(planner: Planner, frame: RgbdFrame, world: World) -> None:
    one = planner.backend.anchors(frame, world.T_base_camera, "put the red cube on the green cube", 0)
    two = planner.backend.anchors(frame, world.T_base_camera, "put the green cube on the red cube", 0)
    assert one.destination is not None
    assert two.destination is not None
    np.testing.assert_allclose(one.source.pixel, two.destination.pixel, atol=8.0)
    np.testing.assert_allclose(one.destination.pixel, two.source.pixel, atol=8.0)
    assert np.linalg.norm(one.source.pixel - two.source.pixel) > 30


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", ErrorCode.NOT_UNDERSTOOD),
        ("make me a coffee", ErrorCode.NOT_UNDERSTOOD),
        ("asdf qwer zxcv", ErrorCode.NOT_UNDERSTOOD),
        ("put the vermilion cube in the blue bowl", ErrorCode.NOT_UNDERSTOOD),
        ("put the banana in the blue bowl", ErrorCode.NOT_UNDERSTOOD),
        ("put the red cube in the blue bowl " * 3000, ErrorCode.NOT_UNDERSTOOD),
        ("put the purple ball in the blue bowl", ErrorCode.NO_TARGET),
        ("put the black cube in the blue bowl", ErrorCode.NO_TARGET),
        ("put the cube in the blue bowl", ErrorCode.AMBIGUOUS),
    ],
)
def test_refusals(planner: Planner, frame: RgbdFrame, world: World, text: str, code: ErrorCode) -> None:
    plan = ask(planner, frame, world, text)
    assert plan.code == code, plan.message
    assert plan.waypoints == ()
    assert plan.request_id == "request"
    if code == ErrorCode.AMBIGUOUS:
        assert set(plan.candidates) == {"red cube", "green cube"}


def test_images_that_show_nothing(planner: Planner, frame: RgbdFrame, world: World) -> None:
    text = "put the red cube in the blue bowl"
    black = dataclasses.replace(frame, rgb=np.zeros_like(frame.rgb))
    assert ask(planner, black, world, text).code == ErrorCode.NO_TARGET
    blind = dataclasses.replace(frame, depth=np.full_like(frame.depth, np.nan))
    assert ask(planner, blind, world, text).code == ErrorCode.DEPTH_HOLE
    cut = dataclasses.replace(frame, depth=frame.depth[:100])
    assert ask(planner, cut, world, text).code == ErrorCode.BAD_INPUT
    hole = frame.depth.copy()
    anchor = ask(planner, frame, world, text).anchors[0].pixel
    u, v = round(float(anchor[0])), round(float(anchor[1]))
    hole[v - 6 : v + 7, u - 6 : u + 7] = np.nan
    plan = ask(planner, dataclasses.replace(frame, depth=hole), world, text)
    assert plan.code == ErrorCode.DEPTH_HOLE
    assert "limit 0.3" in plan.message


def test_steps_and_attempts(planner: Planner, frame: RgbdFrame, world: World) -> None:
    text = "put the red cube in the blue bowl, then the green cube on the white plate"
    second = ask(planner, frame, world, text, step=1)
    assert second.code == ErrorCode.NONE, second.message
    assert (second.step, second.steps_total) == (1, 2)
    assert under(second, world) == ["green cube", "white plate"]
    assert ask(planner, frame, world, text, step=2).code == ErrorCode.OUT_OF_RANGE
    first, again = (ask(planner, frame, world, text, attempt=n) for n in (0, 1))
    heights = [(p.T_base_camera @ p.waypoints[1].T_camera_tcp).translation[2] for p in (first, again)]
    assert heights[1] < heights[0]


def test_without_a_place_the_thing_is_lifted(planner: Planner, frame: RgbdFrame, world: World) -> None:
    plan = ask(planner, frame, world, "pick up the yellow bar")
    assert plan.code == ErrorCode.NONE, plan.message
    assert under(plan, world) == ["yellow bar"]
    assert [w.gripper_event for w in plan.waypoints] == [
        GripperEvent.OPEN,
        GripperEvent.CLOSE,
        GripperEvent.NONE,
    ]


def test_the_other_hand_is_taken_where_the_first_cannot_follow(
    planner: Planner, frame: RgbdFrame, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hand is turned as far as its joint goes: half a turn more or less, and it need not turn back."""
    q = planner.arm.home.copy()
    q[6] -= 3.5
    turned = JointState(0.0, q, np.zeros_like(q), 0.08)
    request = PlanRequest(0.0, "task", "request", "put the green cube on the white plate")
    plan = planner.plan(request, frame, world.T_base_camera, now=0.1, joints=turned)
    assert plan.code == ErrorCode.NONE, plan.message
    at_home = ask(planner, frame, world, request.instruction)
    for one, other in zip(plan.waypoints, at_home.waypoints, strict=True):
        np.testing.assert_allclose(one.T_camera_tcp.translation, other.T_camera_tcp.translation)
    apart = plan.waypoints[1].T_camera_tcp.rotation.T @ at_home.waypoints[1].T_camera_tcp.rotation
    np.testing.assert_allclose(apart, HALF_TURN, atol=1e-9)

    monkeypatch.setattr("bridgevla_ros.planner.planner.by_either_hand", lambda stops: iter([stops]))
    alone = planner.plan(request, frame, world.T_base_camera, now=0.1, joints=turned)
    assert alone.code == ErrorCode.UNREACHABLE


def test_the_hand_over_a_place_is_no_wall_of_it(planner: Planner) -> None:
    """As it hangs after a first thing was let go there."""
    with contextlib.closing(World(scene=SCENE)) as world:
        over = Transform(np.array([0.45, 0.22, 0.20]), planner.arm.fk(planner.arm.home).rotation)
        world.data.qpos[:7] = planner.arm.ik(over, planner.arm.home).q
        mujoco.mj_forward(world.model, world.data)
        frame, joints = world.render(), world.joint_state()
        request = PlanRequest(0.0, "task", "request", "put the red cube in the blue bowl")
        plan = planner.plan(request, frame, world.T_base_camera, now=0.1, joints=joints)
        assert plan.code == ErrorCode.NONE, plan.message
        drop = (plan.T_base_camera @ plan.waypoints[4].T_camera_tcp).translation
        np.testing.assert_allclose(drop[:2], [0.45, 0.22], atol=0.02)
        assert drop[2] < 0.08
        blind = planner.plan(request, frame, world.T_base_camera, now=0.1)  # as if the arm were at home
        if blind.code == ErrorCode.NONE:  # then from over what it takes for a wall
            assert (blind.T_base_camera @ blind.waypoints[4].T_camera_tcp).translation[2] > 0.2


def test_out_of_the_workspace(frame: RgbdFrame, world: World, planner: Planner) -> None:
    narrow = Planner(PlannerConfig(workspace_max=(0.40, 0.40, 0.60)), planner.backend, planner.arm)
    plan = ask(narrow, frame, world, "put the red cube in the blue bowl")
    assert plan.code == ErrorCode.OUT_OF_WORKSPACE
    assert "x = 0.4" in plan.message


def test_a_wrong_camera_pose_is_refused(planner: Planner, frame: RgbdFrame, world: World) -> None:
    lifted = Transform(
        world.T_base_camera.apply(np.zeros(3)) + np.array([0.0, 0.0, 0.5]), world.T_base_camera.rotation
    )
    plan = planner.plan(
        PlanRequest(0.0, "task", "request", "put the red cube in the blue bowl"), frame, lifted, now=0.1
    )
    assert plan.code != ErrorCode.NONE
    assert plan.waypoints == ()


def test_the_digest_is_of_what_moves_the_arm(planner: Planner, frame: RgbdFrame, world: World) -> None:
    plan = ask(planner, frame, world, "put the red cube in the blue bowl")
    assert plan.digest == digest(plan)
    assert digest(dataclasses.replace(plan, latency=9.0, null_probability=0.4)) == plan.digest
    for change in ({"gripper_width": 0.01}, {"contact_offset": np.array([0.0, 0.03, 0.0])}):
        waypoint = dataclasses.replace(plan.waypoints[1], **change)
        other = dataclasses.replace(plan, waypoints=(plan.waypoints[0], waypoint, *plan.waypoints[2:]))
        assert digest(other) != plan.digest


def test_plans_repeat(planner: Planner, frame: RgbdFrame, world: World) -> None:
    text = "put the red cube in the blue bowl"
    assert ask(planner, frame, world, text).digest == ask(planner, frame, world, text).digest


def test_drawing_changes_a_copy(planner: Planner, frame: RgbdFrame, world: World) -> None:
    before = frame.rgb.copy()
    plan = ask(planner, frame, world, "put the red cube in the blue bowl")
    image = annotate(frame.rgb, plan)
    assert image.dtype == np.uint8
    assert image.shape == (480, 640, 3)
    np.testing.assert_array_equal(frame.rgb, before)
    assert np.any(annotate(frame.rgb, dataclasses.replace(plan, waypoints=())) != image)


def test_a_frame_is_put_in_space_once(frame: RgbdFrame, world: World) -> None:
    T = world.T_base_camera
    cloud = Cloud3d.of(frame, T, 0.0)
    assert Cloud3d.of(frame, Transform(T.translation.copy(), T.rotation.copy()), 0.0) is cloud
    assert Cloud3d.of(dataclasses.replace(frame), T, 0.0) is not cloud
    moved = Cloud3d.of(frame, Transform(T.translation + np.array([0.0, 0.0, 0.1]), T.rotation), 0.0)
    np.testing.assert_allclose((moved.points - cloud.points)[..., 2][np.isfinite(frame.depth)], 0.1)
    k = frame.intrinsics
    for row, column in ((3, 5), (120, 160), (200, 31)):
        ray = np.array([(column - k.cx) / k.fx, (row - k.cy) / k.fy, 1.0])
        expected = T.apply(ray * float(frame.depth[row, column]))
        np.testing.assert_allclose(cloud.points[row, column], expected, atol=1e-12)


def test_boxes_at_many_angles_are_those_one_by_one() -> None:
    xy, angles = np.random.default_rng(3).normal(0.0, 0.03, (200, 2)), np.radians(np.arange(0.0, 90.0, 7.0))
    for angle, box in zip(angles, boxes(xy, angles), strict=True):
        direction = np.array([np.cos(angle), np.sin(angle)])
        along, across = xy @ direction, xy @ np.array([-direction[1], direction[0]])
        expected = [*np.percentile(along, (1.5, 98.5)), *np.percentile(across, (1.5, 98.5))]
        np.testing.assert_allclose(box, expected, atol=1e-12)


def test_a_height_map_keeps_the_highest_point_of_each_cell_and_its_colour(
    frame: RgbdFrame, world: World
) -> None:
    start = world.object_pose("blue bowl").translation
    relief, points = _relief(Cloud3d.of(frame, world.T_base_camera, 0.0), start)
    cells = [tuple(c) for c in np.floor((points[:, :2] - relief.low) / relief.cell).astype(int)]
    heights: dict[tuple[int, ...], list[float]] = {}
    for cell, z in zip(cells, points[:, 2].tolist(), strict=True):
        heights.setdefault(cell, []).append(z)
    for i, j in np.random.default_rng(1).integers(0, len(relief.top), (300, 2)).tolist():
        found = heights.get((i, j), [])
        expected = max(found) if len(found) >= 2 else np.nan
        np.testing.assert_equal(relief.top[i, j], expected)
        assert np.isfinite(relief.colour[i, j]).all() == bool(found)


def test_geometry_from_depth_alone(frame: RgbdFrame, world: World) -> None:
    arm = ArmModel.load()
    home = arm.fk(arm.home)
    cloud = Cloud3d.of(frame, world.T_base_camera, 0.0)
    segmentation = world.render_segmentation()
    for i, item in enumerate(SCENE.objects):
        rows, columns = np.nonzero(segmentation == i + 1)
        pixel = np.array([columns.mean(), rows.mean()])
        truth = world.object_pose(item.name).translation[:2]
        if item.movable:
            found = grasp(cloud, pixel, home, 0.085)
            assert np.linalg.norm(found.center[:2] - truth) < 0.010
            assert abs(found.width - min(item.size[:2])) < 0.010
            if item.kind == "bar":
                along = np.array([np.cos(item.yaw), np.sin(item.yaw)])
                assert abs(float(found.finger @ along)) < np.sin(np.radians(8.0))
        else:
            where = place(cloud, pixel, lift(frame, world.T_base_camera, pixel))
            assert np.linalg.norm(where.center - truth) < 0.015
            assert abs(where.floor - 0.006) < 0.008


def test_checkpoint_is_a_transformers_model_with_a_recipe() -> None:
    import json

    from bridgevla_ros.planner.backends.embedded import SHIPPED

    backend = EmbeddedBackend(PlannerConfig())
    assert len(backend.sha256) == 64
    assert sum(p.numel() for p in backend.model.parameters()) < 2_000_000
    recipe = json.loads((SHIPPED / "recipe.json").read_text(encoding="utf-8"))
    assert {"language", "vision"} <= set(recipe)


def test_missing_weights_say_so(tmp_path: object) -> None:
    from bridgevla_ros.core.errors import BridgeError

    with pytest.raises(BridgeError, match="no weights") as caught:
        EmbeddedBackend(PlannerConfig(weights=str(tmp_path)))
    assert caught.value.code == ErrorCode.MODEL_ERROR
