"""A place in which things lie: where its walls are, where there is room, and when there is none."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from bridgevla_ros.core.camera import project
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.planner.grasp import Cloud3d, Grasp
from bridgevla_ros.planner.lifting import lift
from bridgevla_ros.planner.place import Place, place, release
from bridgevla_ros.simulation.scene import ObjectSpec
from bridgevla_ros.simulation.tasks import sample_scene
from bridgevla_ros.simulation.world import World

MIDDLE = (0.50, 0.05)
BOX = ObjectSpec("blue box", "box", "blue", (0.16, 0.14, 0.05), (*MIDDLE, 0.0), 0.3, 0.3)


def cube(colour: str, x: float, y: float, side: float = 0.04) -> ObjectSpec:
    position = (MIDDLE[0] + x, MIDDLE[1] + y, 0.012)
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


def seen(world: World, *things: ObjectSpec) -> Place:
    """The place that an anchor in the middle of the box gives, whatever lies there."""
    world.load(dataclasses.replace(sample_scene(900_011), objects=(BOX, *things)))
    frame = world.render()
    middle = world.T_base_camera.inverse().apply(np.array([[*MIDDLE, 0.02]]))
    pixel = project(middle, frame.intrinsics)[0]
    cloud = Cloud3d.of(frame, world.T_base_camera, 0.0)
    return place(cloud, pixel, lift(frame, world.T_base_camera, pixel))


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_what_lies_in_a_box_is_not_its_wall(world: World, count: int) -> None:
    where = seen(world, *CUBES[:count])
    assert np.linalg.norm(where.center - MIDDLE) < 0.015
    assert abs(where.rim - 0.05) < 0.01
    assert abs(where.floor - 0.006) < 0.012
    assert 0.05 < float(np.median(where.walls)) < 0.09
    assert (len(where.things) > 0) == (count > 0)


def test_a_second_thing_is_let_go_beside_the_first(world: World) -> None:
    position, _ = release(held(), seen(world, CUBES[0]), 0.06)
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
