"""Wrong plans for suite ``gate``: each fault takes a good plan's anchors and spoils one thing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import GripperEvent, RgbdFrame, WaypointKind
from bridgevla_ros.planner.answers import Anchors, LocalWaypoint
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.lifting import lift
from bridgevla_ros.planner.planner import camera_yaw
from bridgevla_ros.simulation.world import World


@dataclass(frozen=True)
class Case:
    """A scene with its task, and where everything is seen (pixels by name)."""

    world: World
    frame: RgbdFrame
    source: str
    destination: str
    instruction: str
    seen: dict[str, Array]


@dataclass(frozen=True)
class Faulty:
    """What the planner gets instead.

    Attributes:
        anchors, frame: Of the first turn.
        local: Of a second turn; empty where waypoints come from geometry.
        workspace_min: Of a cell whose box is not narrower than the arm's reach; None: the usual one.
    """

    anchors: Anchors
    frame: RgbdFrame
    local: tuple[LocalWaypoint, ...] = ()
    workspace_min: tuple[float, float, float] | None = None


Fault = Callable[[Case, Anchors, np.random.Generator], Faulty | None]


def swapped(case: Case, anchors: Anchors, rng: np.random.Generator) -> Faulty | None:
    """Each role points at the other's thing."""
    assert anchors.destination is not None
    source = dataclasses.replace(anchors.source, pixel=anchors.destination.pixel)
    destination = dataclasses.replace(anchors.destination, pixel=anchors.source.pixel)
    return Faulty(Anchors(source, destination), case.frame)


def _elsewhere(case: Case, rng: np.random.Generator, movable: bool, but: str) -> Array | None:
    scene = case.world.scene
    names = [o.name for o in scene.objects if o.movable == movable and o.name != but and o.name in case.seen]
    return case.seen[names[int(rng.integers(len(names)))]] if names else None


def wrong_thing(case: Case, anchors: Anchors, rng: np.random.Generator) -> Faulty | None:
    """The source points at another thing."""
    pixel = _elsewhere(case, rng, True, case.source)
    if pixel is None:
        return None
    moved = dataclasses.replace(anchors.source, pixel=pixel)
    return Faulty(dataclasses.replace(anchors, source=moved), case.frame)


def wrong_place(case: Case, anchors: Anchors, rng: np.random.Generator) -> Faulty | None:
    """The destination points at another place."""
    assert anchors.destination is not None
    pixel = _elsewhere(case, rng, False, case.destination)
    if pixel is None:
        return None
    moved = dataclasses.replace(anchors.destination, pixel=pixel)
    return Faulty(dataclasses.replace(anchors, destination=moved), case.frame)


def beside(case: Case, anchors: Anchors, rng: np.random.Generator) -> Faulty | None:
    """The source points at the table next to the thing, away from all that is seen."""
    k, depth = case.frame.intrinsics, 1.0
    for _ in range(50):
        angle, metres = rng.uniform(-np.pi, np.pi), rng.uniform(0.06, 0.15)
        pixel = anchors.source.pixel + k.fx * metres / depth * np.array([np.cos(angle), np.sin(angle)])
        inside = (pixel > 8).all() and pixel[0] < k.width - 8 and pixel[1] < k.height - 8
        if inside and all(np.linalg.norm(pixel - other) > 0.06 * k.fx for other in case.seen.values()):
            moved = dataclasses.replace(anchors.source, pixel=pixel)
            return Faulty(dataclasses.replace(anchors, source=moved), case.frame)
    return None


def depth_hole(case: Case, anchors: Anchors, rng: np.random.Generator) -> Faulty | None:
    """Nothing is measured around the source."""
    depth = case.frame.depth.copy()
    u, v = np.round(anchors.source.pixel).astype(int)
    reach = int(rng.integers(8, 20))
    depth[max(v - reach, 0) : v + reach, max(u - reach, 0) : u + reach] = np.nan
    return Faulty(anchors, dataclasses.replace(case.frame, depth=depth))


def long_depth(case: Case, anchors: Anchors, rng: np.random.Generator) -> Faulty | None:
    """Depth reads long around the source: the thing seems to lie farther away."""
    depth = case.frame.depth.copy()
    u, v = np.round(anchors.source.pixel).astype(int)
    window = (slice(max(v - 25, 0), v + 25), slice(max(u - 25, 0), u + 25))
    depth[window] *= rng.uniform(1.04, 1.08)
    return Faulty(anchors, dataclasses.replace(case.frame, depth=depth))


def _second_turn(case: Case, anchors: Anchors, offset: Array) -> Faulty:
    lifted = np.array([0.0, 0.0, 0.10])
    kinds, events = WaypointKind, GripperEvent
    local = (
        LocalWaypoint(0, offset + lifted, 0.0, kinds.APPROACH, events.OPEN),
        LocalWaypoint(0, offset, 0.0, kinds.CONTACT, events.CLOSE),
        LocalWaypoint(0, offset + lifted, 0.0, kinds.RETREAT, events.NONE),
    )
    return Faulty(anchors, case.frame, local)


def through_table(case: Case, anchors: Anchors, rng: np.random.Generator) -> Faulty | None:
    """The model's offset carries the finger tips under the table."""
    top = case.world.object_pose(case.source).translation[2] + case.world.scene.object(case.source).size[2]
    return _second_turn(case, anchors, np.array([0.0, 0.0, -top - rng.uniform(0.01, 0.06)]))


def outside(case: Case, anchors: Anchors, rng: np.random.Generator) -> Faulty | None:
    """The model's offset lies beyond the workspace: towards the camera or sideways."""
    far = rng.uniform(0.3, 0.6)
    direction = (
        np.array([-far, 0.0]) if rng.random() < 0.5 else np.array([0.0, far * rng.choice([-1.0, 1.0])])
    )
    placed = _second_turn(case, anchors, np.array([*direction, 0.0]))
    config = PlannerConfig()
    turn = _turn(case)[:2, :2]
    spot = case.world.object_pose(case.source).translation[:2] + turn @ direction
    low, high = np.array(config.workspace_min[:2]), np.array(config.workspace_max[:2])
    return placed if ((spot < low - 0.03) | (spot > high + 0.03)).any() else None


def _turn(case: Case) -> Array:
    """(3, 3) from the gravity-aligned, camera-yaw frame of a second turn to the base frame."""
    yaw = camera_yaw(case.world.T_base_camera)
    return np.array([[np.cos(yaw), -np.sin(yaw), 0.0], [np.sin(yaw), np.cos(yaw), 0.0], [0.0, 0.0, 1.0]])


def _towards(case: Case, anchors: Anchors, target: Array) -> Array:
    """(3,) offset from the source's anchor, as a second turn writes it, to a point in the base frame."""
    start = lift(case.frame, case.world.T_base_camera, anchors.source.pixel).position
    return np.asarray(_turn(case).T @ (target - start))


def through_thing(case: Case, anchors: Anchors, rng: np.random.Generator) -> Faulty | None:
    """The gripped thing is carried low, through a third one that stands on the table."""
    scene, low = case.world.scene, 0.045
    where = case.world.object_pose(case.source).translation
    others = [
        case.world.object_pose(o.name).translation
        for o in scene.objects
        if o.name in case.seen and o.name not in (case.source, case.destination) and o.size[2] > 0.035
    ]
    others = [p for p in others if np.linalg.norm(p[:2] - where[:2]) > 0.10]
    if not others:
        return None
    middle = others[int(rng.integers(len(others)))]
    good = _second_turn(case, anchors, np.array([0.0, 0.0, -0.01])).local
    via = _towards(case, anchors, np.array([middle[0], middle[1], low]))
    kinds, events = WaypointKind, GripperEvent
    passing = LocalWaypoint(0, via, 0.0, kinds.VIA, events.NONE)
    release = LocalWaypoint(1, np.array([0.0, 0.0, 0.06]), 0.0, kinds.CONTACT, events.OPEN)
    return Faulty(anchors, case.frame, (*good[:2], passing, release))


def into_itself(case: Case, anchors: Anchors, rng: np.random.Generator) -> Faulty | None:
    """The way leads through the column that the arm's first two links are, whatever its posture."""
    angle, radius = rng.uniform(-np.pi, np.pi), rng.uniform(0.0, 0.05)
    inside = np.array([radius * np.cos(angle), radius * np.sin(angle), rng.uniform(0.10, 0.30)])
    local = _second_turn(case, anchors, np.array([0.0, 0.0, -0.01])).local
    via = LocalWaypoint(0, _towards(case, anchors, inside), 0.0, WaypointKind.VIA, GripperEvent.NONE)
    return Faulty(anchors, case.frame, (*local, via), workspace_min=(-0.3, -0.6, -0.01))


FAULTS: dict[str, Fault] = {
    "swapped": swapped,
    "wrong thing": wrong_thing,
    "wrong place": wrong_place,
    "beside": beside,
    "depth hole": depth_hole,
    "long depth": long_depth,
    "through table": through_table,
    "outside": outside,
    "through thing": through_thing,
    "into itself": into_itself,
}
