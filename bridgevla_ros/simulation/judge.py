"""What holds in the world, from truth: relations between things, and whether a goal is reached."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.simulation.goals import Goal
from bridgevla_ros.simulation.scene import ObjectSpec, drawer_tray
from bridgevla_ros.simulation.world import World

REST_SPEED = 0.02
"""m/s below which an object counts as at rest."""
MOVED = 0.03
"""Metres from its start beyond which an object counts as moved."""
DRAWER_OPEN, DRAWER_CLOSED = 0.08, 0.015
"""Metres of opening beyond which a drawer is open, below which it is closed."""
LIFTED = 0.10
"""Metres above the table that the lowest point of a lifted thing has."""
AT_MARK = 0.03
"""Metres from the middle of a mark within which a thing stands on it."""
PRESSED = 0.7
"""Share of a button's travel that counts as pressed; it counts from the moment it happens."""
TURNED = math.radians(60.0)
"""Turn of a knob, either way."""
UNCOVERED = 0.05
"""Metres between the rim of a pot and its lid that is held above it."""
THREADED = 0.02
"""Metres below the tip of a post that the middle of a ring has."""


@dataclass(frozen=True)
class Outcome:
    """The truth at one moment, as in ``msg/SimOutcome.msg``.

    Attributes:
        stamp: Simulated seconds.
        judged: False: the goal names nothing that can be judged.
        done: The goal holds now, with its objects at rest and let go.
        goal: The goal in words.
        relations: E.g. "red cube in blue bowl", "green ball held".
        moved: Objects more than 3 cm from where they started.
        moved_distance: Metres, of each of ``moved``.
    """

    stamp: float
    judged: bool
    done: bool
    goal: str
    relations: tuple[str, ...]
    moved: tuple[str, ...]
    moved_distance: tuple[float, ...]


def lowest_point(thing: ObjectSpec, pose: Transform) -> float:
    """Height of the lowest point of a movable object, metres; ``pose`` has its origin at the base."""
    half = np.array(thing.size) / 2
    centre = pose.apply([0.0, 0.0, half[2]])
    up = pose.rotation[2]
    if thing.kind == "ball":
        reach = half[0]
    elif thing.kind in ("cylinder", "ring", "lid"):
        reach = abs(up[2]) * half[2] + half[0] * math.sqrt(max(1.0 - up[2] ** 2, 0.0))
    else:
        reach = float(np.abs(up) @ half)
    return float(centre[2] - reach)


def _centre(thing: ObjectSpec, pose: Transform) -> Array:
    return pose.apply([0.0, 0.0, thing.size[2] / 2])


def relation(world: World, source: str, destination: str) -> str | None:
    """ "in" or "on" where the source rests in or on the destination (or is held there), else None."""
    what, where = world.scene.object(source), world.scene.object(destination)
    pose = world.object_pose(source)
    T_place = world.object_pose(destination)
    if where.kind == "drawer":
        T_place = T_place @ Transform(
            np.array([0.006 + world.drawer_opening(destination), 0.0, 0.009]), np.eye(3)
        )
    local = T_place.inverse().apply(_centre(what, pose))
    bottom = lowest_point(what, pose) - T_place.translation[2]
    if where.kind == "plate":
        touching = world.touching(source)
        inside = math.hypot(local[0], local[1]) < where.size[0] / 2
        return "on" if inside and destination in touching and "table" not in touching else None
    if where.kind == "bowl":
        inside = math.hypot(local[0], local[1]) < 0.92 * where.size[0] / 2
        return "in" if inside and bottom < where.size[2] - 0.005 else None
    if where.kind in ("box", "drawer"):
        x, y, z = where.size if where.kind == "box" else drawer_tray(where.size)
        inside = abs(local[0]) < x / 2 and abs(local[1]) < y / 2
        return "in" if inside and bottom < z - 0.005 else None
    if where.kind == "mark":
        near = math.hypot(local[0], local[1]) < AT_MARK
        return "at" if near and lowest_point(what, pose) < 0.015 else None
    if where.kind == "post":
        inside = math.hypot(local[0], local[1]) < what.size[1] / 2
        threaded = what.kind == "ring" and inside and local[2] < where.size[2] - THREADED
        return "on" if threaded and abs(pose.rotation[2, 2]) > 0.9 else None
    touching = world.touching(source)
    above = local[2] - where.size[2] / 2 > 0.6 * where.size[2] / 2
    near = math.hypot(local[0], local[1]) < 0.7 * max(where.size[:2])
    return "on" if above and near and destination in touching and "table" not in touching else None


def relations(world: World) -> tuple[str, ...]:
    """All that holds, in words."""
    found: list[str] = []
    for thing in world.scene.objects:
        if thing.kind == "drawer":
            opening = world.drawer_opening(thing.name)
            state = "open" if opening > DRAWER_OPEN else "closed" if opening < DRAWER_CLOSED else "ajar"
            found.append(f"{thing.name} {state}")
        if not thing.movable:
            continue
        touching = world.touching(thing.name)
        if "robot" in touching and "table" not in touching:
            found.append(f"{thing.name} held")
        for other in world.scene.objects:
            word = None if other is thing else relation(world, thing.name, other.name)
            if word:
                found.append(f"{thing.name} {word} {other.name}")
    return tuple(found)


def holds(world: World, goal: Goal) -> bool:
    """Whether a goal is reached, at rest and let go."""
    if goal.predicate == "open":
        return world.drawer_opening(goal.source) > DRAWER_OPEN
    if goal.predicate == "closed":
        return world.drawer_opening(goal.source) < DRAWER_CLOSED
    if goal.predicate == "pressed":
        return world.pressed_most(goal.source) >= PRESSED
    if goal.predicate == "turned":
        return abs(world.knob_angle(goal.source)) >= TURNED
    touching = world.touching(goal.source)
    if goal.predicate in ("held", "lifted", "uncovered"):
        held = "robot" in touching and "table" not in touching
        pose = world.object_pose(goal.source)
        if goal.predicate == "lifted":
            return held and lowest_point(world.scene.object(goal.source), pose) >= LIFTED
        if goal.predicate == "uncovered":
            rim = world.object_pose(goal.destination).translation[2]
            rim += world.scene.object(goal.destination).size[2]
            return held and pose.translation[2] >= rim + UNCOVERED
        return held
    if "robot" in touching or world.object_speed(goal.source) > REST_SPEED:
        return False
    return relation(world, goal.source, goal.destination) is not None


def judge(world: World, goals: tuple[Goal, ...], words: str) -> Outcome:
    """Compare the world with its goals.

    Args:
        world: Asked for its truth.
        goals: All of them must hold; none: nothing is judged.
        words: The goal as the operator put it.
    """
    moved, distances = [], []
    for thing in world.scene.objects:
        distance = float(
            np.linalg.norm(world.object_pose(thing.name).translation - world.initial_positions[thing.name])
        )
        if distance > MOVED:
            moved.append(thing.name)
            distances.append(distance)
    return Outcome(
        stamp=world.now,
        judged=bool(goals),
        done=bool(goals) and all(holds(world, g) for g in goals),
        goal=words,
        relations=relations(world),
        moved=tuple(moved),
        moved_distance=tuple(distances),
    )


def outcome(world: World) -> Outcome:
    """Compare the world with the goal that it was set."""
    return judge(world, world.goals, world.goal_words)
