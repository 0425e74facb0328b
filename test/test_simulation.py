"""The simulated cell: does it see, move, grip and judge as it says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import GripperEvent
from bridgevla_ros.simulation import suites
from bridgevla_ros.simulation.config import SimConfig
from bridgevla_ros.simulation.demonstrations import subgoal
from bridgevla_ros.simulation.demonstrator import Demonstrator
from bridgevla_ros.simulation.goals import Goal, parse_goal
from bridgevla_ros.simulation.judge import outcome
from bridgevla_ros.simulation.noise import DepthNoise
from bridgevla_ros.simulation.robot import HOME, LINKAGE
from bridgevla_ros.simulation.scene import CameraSpec, ObjectSpec, SceneSpec
from bridgevla_ros.simulation.tasks import default_task, sample_scene
from bridgevla_ros.simulation.world import SimulationError, World


def _scene() -> SceneSpec:
    things = (
        ObjectSpec("red cube", "cube", "red", (0.045, 0.045, 0.045), (0.48, -0.12, 0.0), 0.3, 0.03),
        ObjectSpec("blue ball", "ball", "blue", (0.05, 0.05, 0.05), (0.42, 0.22, 0.0), 0.0, 0.03),
        ObjectSpec("blue cube", "cube", "blue", (0.045, 0.045, 0.045), (0.60, -0.15, 0.0), 0.0, 0.03),
        ObjectSpec("blue bowl", "bowl", "blue", (0.15, 0.15, 0.045), (0.52, 0.10, 0.0), 0.0, 0.35),
    )
    return SceneSpec(7, things, CameraSpec.look_at((1.14, 0.05, 0.66), (0.5, 0.0, 0.02), 42.0, 0.03))


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    world = World(SimConfig(), _scene())
    yield world
    world.close()


@pytest.fixture
def world(shared: World) -> World:
    shared.reset()
    shared.set_goal("")
    return shared


def test_scene_survives_json() -> None:
    scene = sample_scene(3)
    assert SceneSpec.from_json(scene.to_json()) == scene


@pytest.mark.parametrize("seed", range(0, 400, 20))
def test_drawn_scenes_name_each_thing_and_offer_a_task(seed: int) -> None:
    scene = sample_scene(seed)
    assert scene == sample_scene(seed)
    names = [o.name for o in scene.objects]
    assert len(set(names)) == len(names)
    task = default_task(scene)
    assert parse_goal(task.instruction, scene) == (Goal("placed", task.source, task.destination),)


def test_what_is_rendered_lies_where_the_camera_model_says(world: World) -> None:
    frame, labels = world.render(faults=False), world.render_segmentation()
    rows, columns = np.nonzero(labels == 2)  # the ball looks the same from everywhere
    k = frame.intrinsics
    centre_base = world.object_pose("blue ball").apply([0.0, 0.0, 0.025])
    x, y, z = world.T_base_camera.inverse().apply(centre_base)
    assert columns.mean() == pytest.approx(k.fx * x / z + k.cx, abs=0.6)
    assert rows.mean() == pytest.approx(k.fy * y / z + k.cy, abs=0.6)
    assert frame.depth[rows, columns].min() == pytest.approx(z - 0.025, abs=2e-3)


def test_depth_is_metres_along_the_optical_axis(world: World) -> None:
    frame, labels = world.render(faults=False), world.render_segmentation()
    rows, columns = np.nonzero(labels == 0)
    k, depth = frame.intrinsics, frame.depth[rows, columns].astype(float)
    points = np.stack([(columns - k.cx) / k.fx * depth, (rows - k.cy) / k.fy * depth, depth], axis=1)
    base = world.T_base_camera.apply(points)
    table = base[(np.abs(base[:, 0] - 0.5) < 0.2) & (np.abs(base[:, 1]) < 0.3)]
    assert len(table) > 1000
    assert np.percentile(np.abs(table[:, 2]), 95) < 1e-3


def test_simulated_arm_is_the_arm_of_the_configuration(world: World) -> None:
    arm = ArmModel.load("panda_2f85")
    state = world.joint_state()
    assert np.allclose(arm.home, HOME)
    distance, angle = arm.fk(state.position).distance(world.T_base_tcp)
    assert distance < 1e-5
    assert angle < 1e-5
    model = arm.link_transforms(state.position)
    for name, transform in world.link_transforms().items():
        if name in model:
            distance, angle = model[name].distance(transform)
            assert max(distance, angle) < 1e-4, name


def test_streamed_trajectories_are_tracked(world: World) -> None:
    amplitude, rate = np.array([0.4, 0.3, 0.4, 0.3, 0.5, 0.4, 0.6]), 2 * np.pi * 0.5

    def wanted(t: float) -> tuple[np.ndarray, np.ndarray]:
        return HOME + amplitude * (1 - np.cos(rate * t)) / 2, amplitude * rate * np.sin(rate * t) / 2

    ahead, worst = np.array([0.01, 0.05, 0.15]), 0.0
    for _ in range(150):
        points = [wanted(world.now + a) for a in ahead]
        world.command_joint_trajectory(
            world.now, ahead, np.stack([p for p, _ in points]), np.stack([v for _, v in points])
        )
        world.step(0.01)
        worst = max(worst, float(np.abs(world.joint_state().position - wanted(world.now)[0]).max()))
    assert worst < 0.004


def test_trajectory_of_the_past_is_refused(world: World) -> None:
    world.step(0.5)
    with pytest.raises(ValueError, match="ended"):
        world.command_joint_trajectory(0.0, np.array([0.1]), HOME[None] + 1.0, np.zeros((1, 7)))


@pytest.mark.parametrize(("width", "read"), [(0.0, 0.002), (0.02, 0.02), (0.05, 0.05)])
def test_gripper_goes_to_its_width(world: World, width: float, read: float) -> None:
    world.command_gripper(width)
    world.step(1.5)
    pads = [world.data.geom(f"{side}_pad1").xpos for side in ("left", "right")]
    assert world.joint_state().gripper_width == pytest.approx(read, abs=1e-3)
    assert np.linalg.norm(pads[0] - pads[1]) - 0.008 == pytest.approx(width, abs=1.5e-3)


def test_fingers_do_not_whirl_when_they_grip_a_knob_off_its_middle() -> None:
    scene, task = suites.draw("lid", 930000)
    world = World(SimConfig(), scene)
    try:
        demonstrator = Demonstrator(world, ArmModel.load("panda_2f85"))
        dofs = [int(world.model.joint(name).dofadr[0]) for name in LINKAGE]
        knob = next(s.T_base_tcp for s in subgoal(world, task, 0).waypoints if s.event is GripperEvent.CLOSE)
        fastest = []
        for draw in (1, 2, 3, 4):
            shift = np.random.default_rng(draw).normal(0.0, [0.012, 0.012, 0.006])
            world.reset()
            for height in (0.10, 0.0):
                target = knob.translation + shift + np.array([0.0, 0.0, height])
                assert demonstrator.move(Transform(target, knob.rotation))
            world.command_gripper(0.0)
            speeds = []
            for _ in range(400):
                world.step(world.model.opt.timestep)
                speeds.append(float(np.abs(world.data.qvel[dofs]).max()))
            fastest.append(max(speeds))
        assert max(fastest) < 5.0, fastest  # rad/s; without armature 11 to 19
    finally:
        world.close()


def test_physics_that_is_not_finite_is_an_error_until_the_next_scene(world: World) -> None:
    world.data.qvel[world.model.joint("joint3").dofadr[0]] = np.nan
    with pytest.raises(SimulationError, match=r"scene \d+: physics is not finite after 0\.000 s"):
        world.step(0.01)
    with pytest.raises(SimulationError):
        world.step(0.01)
    world.reset()
    world.step(0.01)
    assert world.now == pytest.approx(0.01)


def test_things_stay_where_they_are(world: World) -> None:
    world.step(2.0)
    found = outcome(world)
    assert found.judged
    assert not found.done
    assert found.moved == ()
    assert all(world.object_speed(o.name) < 0.01 for o in world.scene.objects)


def test_pick_and_place_is_judged_done(world: World) -> None:
    assert Demonstrator(world, ArmModel.load("panda_2f85")).pick_and_place("red cube", "blue bowl") == ""
    found = outcome(world)
    assert "red cube in blue bowl" in found.relations
    assert "red cube" in found.moved
    world.set_goal("put the blue ball in the blue bowl")
    assert not outcome(world).done


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("put the crimson block into the azure dish", (Goal("placed", "red cube", "blue bowl"),)),
        ("into the blue bowl put the cube that is red", (Goal("placed", "red cube", "blue bowl"),)),
        ("stack the red cube on top of the blue cube", (Goal("placed", "red cube", "blue cube"),)),
        ("pick up the sphere and put it in the bowl", (Goal("placed", "blue ball", "blue bowl"),)),
        ("lift the red cube", (Goal("held", "red cube"),)),
        (
            "take the crimson block nearest to me and drop it into the bowl",
            (Goal("placed", "red cube", "blue bowl"),),
        ),
        ("put the red cube left of the blue bowl", ()),
        ("take the red cube out of the blue bowl", ()),
        ("put the cube in the bowl", ()),
        ("put the green cube in the bowl", ()),
        ("sing a song", ()),
        ("", ()),
    ],
)
def test_operators_words_become_goals_or_nothing(words: str, expected: tuple[Goal, ...]) -> None:
    assert parse_goal(words, _scene()) == expected


def test_depth_faults_are_seeded_and_grow_with_distance() -> None:
    near, far = np.full((240, 320), 0.6, np.float32), np.full((240, 320), 1.2, np.float32)
    first, again = DepthNoise(1.0, 5).apply(near), DepthNoise(1.0, 5).apply(near)
    assert np.array_equal(first, again, equal_nan=True)
    assert np.nanstd(DepthNoise(1.0, 5).apply(far)) > 2.5 * np.nanstd(first)
    assert np.array_equal(DepthNoise(0.0, 5).apply(near), near)
    millimetres = first[np.isfinite(first)] * 1000
    assert np.allclose(millimetres, np.round(millimetres), atol=1e-3)
