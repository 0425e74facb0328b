"""A place in which things lie: its walls, what lies there, where there is room, when there is none."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from scene_rig import scene

from bridgevla_ros.core.camera import project
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import PlanRequest, RgbdFrame
from bridgevla_ros.planner.already import lies_in
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.grasp import Cloud3d, Grasp
from bridgevla_ros.planner.lifting import lift
from bridgevla_ros.planner.place import Place, place, release
from bridgevla_ros.planner.planner import Planner
from bridgevla_ros.simulation.scene import ObjectSpec
from bridgevla_ros.simulation.tasks import sample_scene
from bridgevla_ros.simulation.world import World

MIDDLE = (0.50, 0.05)
BOX = ObjectSpec("blue box", "box", "blue", (0.16, 0.14, 0.05), (*MIDDLE, 0.0), 0.3, 0.3)


BOWL = ObjectSpec("blue bowl", "bowl", "blue", (0.15, 0.15, 0.046), (*MIDDLE, 0.0), 0.3, 0.3)
PLATE = ObjectSpec("blue plate", "plate", "blue", (0.17, 0.17, 0.014), (*MIDDLE, 0.0), 0.3, 0.3)


def cube(colour: str, x: float, y: float, side: float = 0.04, z: float = 0.012) -> ObjectSpec:
    position = (MIDDLE[0] + x, MIDDLE[1] + y, z)
    return ObjectSpec(f"{colour} cube", "cube", colour, (side, side, side), position, 0.3, 0.05)


CUBES = (cube("red", 0.0, 0.0), cube("green", 0.045, -0.025), cube("yellow", -0.045, 0.015))


def held(width: float = 0.035, length: float = 0.035) -> Grasp:
    finger = np.array([0.0, 1.0])
    return Grasp(np.array([0.4, -0.2, 0.025]), finger, width, length, 0.035, 0.025, 0.003, 200)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = World(scene=dataclasses.replace(sample_scene(900_011), objects=(BOX,)))
    yield made
    made.close()


@dataclasses.dataclass(frozen=True)
class View:
    """What the camera sees of a place with things in it."""

    cloud: Cloud3d
    where: Place
    pixels: dict[str, np.ndarray]


def look(
    world: World, place_: ObjectSpec, *things: ObjectSpec, beside: tuple[float, float] = (0.0, 0.0)
) -> View:
    """A place as an anchor gives it that lies ``beside`` its middle, whatever lies there."""
    world.load(dataclasses.replace(sample_scene(900_011), objects=(place_, *things)))
    frame = world.render()
    segmentation = world.render_segmentation()
    pixels = {}
    for i, thing in enumerate((place_, *things)):
        rows, columns = np.nonzero(segmentation == i + 1)
        pixels[thing.name] = np.array([np.median(columns), np.median(rows)])
    at = np.array([[MIDDLE[0] + beside[0], MIDDLE[1] + beside[1], 0.02]])
    pixel = project(world.T_base_camera.inverse().apply(at), frame.intrinsics)[0]
    cloud = Cloud3d.of(frame, world.T_base_camera, 0.0)
    return View(cloud, place(cloud, pixel, lift(frame, world.T_base_camera, pixel)), pixels)


def seen(world: World, *things: ObjectSpec) -> Place:
    """The place that an anchor in the middle of the box gives, whatever lies there."""
    return look(world, BOX, *things).where


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_what_lies_in_a_box_is_not_its_wall(world: World, count: int) -> None:
    where = seen(world, *CUBES[:count])
    assert np.linalg.norm(where.center - MIDDLE) < 0.015
    assert abs(where.rim - 0.05) < 0.01
    assert abs(where.floor - 0.006) < 0.012
    assert 0.05 < float(np.median(where.walls)) < 0.09
    assert (len(where.things) > 0) == (count > 0)


def test_a_second_thing_is_let_go_beside_the_first(world: World) -> None:
    position = release(held(), seen(world, CUBES[0]), 0.06).position
    beside = np.linalg.norm(position[:2] - MIDDLE)
    assert 0.025 < beside < 0.07


def test_a_full_box_is_refused_with_its_numbers(world: World) -> None:
    full = [cube(c, x, y, 0.05) for c, x, y in (
        ("red", 0.0, 0.0), ("green", 0.05, 0.014), ("yellow", -0.05, -0.014), ("pink", -0.012, 0.045),
        ("white", 0.012, -0.045),
    )]  # fmt: skip
    where = seen(world, *full)
    with pytest.raises(BridgeError) as refusal:
        release(held(0.05, 0.06), where, 0.075)
    assert refusal.value.code is ErrorCode.OUT_OF_RANGE
    assert "no room is left" in refusal.value.message
    assert refusal.value.value < refusal.value.limit


@pytest.mark.parametrize(("place_", "rim"), [(BOWL, 0.046), (PLATE, 0.014), (BOX, 0.05)])
@pytest.mark.parametrize("beside", [(0.0, 0.0), (0.02, -0.05)])
def test_the_middle_of_a_place_does_not_move_with_what_lies_there(
    world: World, place_: ObjectSpec, rim: float, beside: tuple[float, float]
) -> None:
    """Whether the anchor lies on what lies there or on the place itself."""
    red = cube("red", -0.01, 0.02)
    view = look(world, place_, red, beside=beside)
    assert np.linalg.norm(view.where.center - MIDDLE) < 0.008
    assert abs(view.where.rim - rim) < 0.008
    assert abs(view.where.floor - 0.006) < 0.01
    top = world.object_pose(red.name).translation[:2]
    off = np.abs(view.where.things[:, :2] - top).max(1)
    assert (off < 0.04).mean() > 0.9, "what is told apart is the cube"
    assert len(view.where.things) > 20
    position = release(held(), view.where, 0.06).position
    assert np.linalg.norm(position[:2] - top) > 0.03
    assert np.linalg.norm(position[:2] - MIDDLE) < place_.size[0] / 2 - 0.01
    assert lies_in(view.cloud, view.pixels[red.name], view.where)


def test_a_full_bowl_is_refused_with_its_numbers(world: World) -> None:
    full = [cube("red", -0.024, 0.0, 0.045, 0.02), cube("green", 0.024, 0.0, 0.045, 0.02)]
    where = look(world, BOWL, *full).where
    with pytest.raises(BridgeError, match="no room is left") as refusal:
        release(held(0.06, 0.07), where, 0.08)
    assert refusal.value.code is ErrorCode.OUT_OF_RANGE


@pytest.mark.parametrize(
    ("place_", "thing"),
    [
        (BOWL, cube("red", 0.10, 0.0, z=0.0)),
        (PLATE, cube("red", 0.115, 0.0, z=0.0)),
        (BOX, cube("red", 0.12, 0.0, z=0.0)),
        (PLATE, cube("red", -0.12, 0.02, z=0.0)),
    ],
)
def test_what_stands_beside_a_place_is_not_already_there(
    world: World, place_: ObjectSpec, thing: ObjectSpec
) -> None:
    view = look(world, place_, thing)
    assert not lies_in(view.cloud, view.pixels[thing.name], view.where)


def test_a_thing_of_its_places_own_colour_is_told_by_its_height(world: World) -> None:
    blue = cube("blue", 0.01, -0.02)
    where = look(world, BOX, blue).where
    assert np.linalg.norm(where.center - MIDDLE) < 0.008
    off = np.abs(where.things[:, :2] - world.object_pose(blue.name).translation[:2]).max(1)
    assert len(off) > 20
    assert (off < 0.035).mean() > 0.9


STOCKED = (
    BOX,
    cube("red", 0.0, -0.02, 0.045),
    cube("green", -0.01, 0.04, 0.045),
    dataclasses.replace(cube("yellow", 0.0, 0.0, 0.045), position=(0.45, -0.20, 0.0)),
)


@pytest.fixture(scope="module")
def planner() -> Planner:
    return Planner(PlannerConfig())


@pytest.fixture(scope="module")
def stocked(world: World) -> tuple[RgbdFrame, Transform]:
    """Two cubes lie in a box, a third stands beside it."""
    world.load(scene(*STOCKED))
    return world.render(), world.T_base_camera


@pytest.mark.parametrize(
    ("words", "said", "steps"),
    [
        ("put the red cube in the blue box", ["the red cube is already in the blue box"], 1),
        ("put the red cube and the yellow cube in the blue box", ["red cube is already in", ""], 2),
        ("put all the cubes in the blue box", [""], 1),
        ("put three cubes in the blue box", ["2 of 3 cubes are already in the blue box"] * 2 + [""], 3),
    ],
)
def test_what_is_in_its_place_is_said_and_not_done_again(
    planner: Planner, stocked: tuple[RgbdFrame, Transform], words: str, said: list[str], steps: int
) -> None:
    frame, T_base_camera = stocked
    for step, message in enumerate(said):
        plan = planner.plan(PlanRequest(0.0, words, "r", words, step), frame, T_base_camera, now=0.1)
        assert plan.code is ErrorCode.NONE, plan.message
        assert message in plan.message
        assert plan.steps_total == steps
        assert (len(plan.waypoints) > 0) == (not message)
        if plan.waypoints:
            taken = (plan.T_base_camera @ plan.waypoints[1].T_camera_tcp).translation
            assert np.linalg.norm(taken[:2] - [0.45, -0.20]) < 0.02


def test_all_of_them_there_is_done_at_once(planner: Planner, world: World) -> None:
    inside = [o for o in STOCKED if o.name != "yellow cube"]
    world.load(scene(*inside))
    words = "put all the cubes in the blue box"
    plan = planner.plan(PlanRequest(0.0, "t", "r", words), world.render(), world.T_base_camera, now=0.1)
    assert (plan.code, plan.waypoints) == (ErrorCode.NONE, ())
    assert plan.message == "all 2 cubes are already in the blue box"


def test_a_second_try_does_not_take_one_image_for_proof(
    planner: Planner, stocked: tuple[RgbdFrame, Transform]
) -> None:
    frame, T_base_camera = stocked
    again = PlanRequest(0.0, "t", "r", "put the red cube in the blue box", attempt=1)
    plan = planner.plan(again, frame, T_base_camera, now=0.1)
    assert "already" not in plan.message
