"""What a demonstrator who sees the truth would do now: waypoints and contacts of each step of a task.

Labels and oracle guidance come from here; nothing that runs on the robot's side uses it.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import GripperEvent, WaypointKind
from bridgevla_ros.simulation import assets
from bridgevla_ros.simulation.demonstrator import (
    LOWEST_TCP,
    SAFE_HEIGHT,
    Demonstrator,
    grasp_pose,
    held_width,
    near_home,
    place_pose,
    top_down,
)
from bridgevla_ros.simulation.judge import judge
from bridgevla_ros.simulation.robot import GRIPPER_MAX_WIDTH
from bridgevla_ros.simulation.scene import LONG, ObjectSpec, SceneSpec, handle_ends
from bridgevla_ros.simulation.suites import Step, SuiteTask
from bridgevla_ros.simulation.world import World

TIP = 0.021
"""Metres that closed fingers reach beyond the TCP."""
FINGER_HALF = 0.011
"""Metres from the TCP's axis to the flat side of closed fingers, across their opening."""
APPROACH = 0.10
"""Metres above a contact from which the hand comes straight down."""
LIFT = 0.15
"""Metres that a thing is lifted by."""
END_OF_HANDLE = 0.020
"""Metres from either end of a bar or handle within which the fingers do not grip it."""
CLEAR_OF_FOOT = 0.004
"""Metres above the height at which the pads close on a knob's foot instead of its grip bar: a label
there would let half of all small errors do so."""
RUN_UP = 0.012
"""Metres between closed fingers and what they will push."""
TURN = math.radians(78.0)
"""Turn that a knob is given; 60 degrees are asked for."""
PULL = 0.125
"""Metres that a drawer is pulled out."""
_NONE, _OPEN, _CLOSE = GripperEvent.NONE, GripperEvent.OPEN, GripperEvent.CLOSE
_VIA_APPROACH, _CONTACT, _RETREAT = WaypointKind.APPROACH, WaypointKind.CONTACT, WaypointKind.RETREAT


BETWEEN_THE_FINGERS: Array = np.zeros(3)
BETWEEN_THE_FINGERS.setflags(write=False)


class Stop(NamedTuple):
    """A waypoint of the demonstrator.

    Attributes:
        T_base_tcp: Where the hand is.
        kind: What it is for.
        event: What the gripper does there.
        width: Metres after it.
        contact_offset: See ``Waypoint``.
    """

    T_base_tcp: Transform
    kind: WaypointKind
    event: GripperEvent
    width: float
    contact_offset: Array = BETWEEN_THE_FINGERS


@dataclasses.dataclass(frozen=True, eq=False)
class ContactTruth:
    """The true pose of a contact.

    Attributes:
        target: Name of the thing that is touched.
        T_base_tcp: Of the TCP there.
        event: What the gripper does there; NONE: it presses, pushes or pulls.
        yaw_period: Rad by which the TCP may be turned about the vertical and do as well: 0 where any
            turn does (round things), pi/2 (cubes), pi (bars, and whatever is pushed: the fingers stand
            across its way), 2 pi (only this one).
        z_band: Metres, lowest and highest TCP height at which it succeeds too.
        x_band: Metres along the TCP's x axis, from ``T_base_tcp``, by which the contact may lie aside and
            succeed too: along a bar, along a handle.
    """

    target: str
    T_base_tcp: Transform
    event: GripperEvent
    yaw_period: float
    z_band: tuple[float, float]
    x_band: tuple[float, float] = (0.0, 0.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Subgoal:
    """One step of a task, from the true state of the world.

    Attributes:
        words: What is done, in plain words.
        waypoints: In order of motion.
        contacts: One for each CONTACT of ``waypoints``, in order.
    """

    words: str
    waypoints: tuple[Stop, ...]
    contacts: tuple[ContactTruth, ...]


def steps_total(task: SuiteTask) -> int:
    """How many sub-goals a task has."""
    return len(task.steps)


def subgoal(world: World, task: SuiteTask, step: int) -> Subgoal:
    """What the demonstrator would do now for a step.

    Args:
        world: Asked for its truth, not changed.
        task: Of this world's scene.
        step: 0-based.

    Raises:
        IndexError: The task has no such step.
        ValueError: A skill that nobody knows.
    """
    if not 0 <= step < len(task.steps):
        raise IndexError(f"step {step} of a task with {len(task.steps)} steps")
    what = task.steps[step]
    if what.skill not in _SKILLS:
        raise ValueError(f"skill {what.skill!r}; expected one of {sorted(_SKILLS)}")
    stops = _SKILLS[what.skill](world, what)
    return Subgoal(
        f"{what.skill.replace('_', ' ')} {what.source} {what.destination}".strip(),
        tuple(stop for stop, _ in stops),
        tuple(truth for _, truth in stops if truth is not None),
    )


def perform(world: World, arm: ArmModel, task: SuiteTask) -> str:
    """Carry a task out along straight lines between its waypoints; time passes in the world.

    Shows that the physics allows it, without planner, policy or streamer.

    Returns:
        "" where the judge says that it is done, else "unreachable" or "missed".
    """
    hand = Demonstrator(world, arm)
    for step in range(steps_total(task)):
        for stop in subgoal(world, task, step).waypoints:
            if not hand.move(stop.T_base_tcp):
                return "unreachable"
            if stop.event != _NONE:
                world.command_gripper(stop.width)
                world.step(0.9)
    world.step(1.0)
    return "" if judge(world, task.goals, task.instruction).done else "missed"


# -- the scene as it is now --------------------------------------------------------------------------


def scene_now(world: World) -> SceneSpec:
    """The scene with everything where it truly is now."""
    things = []
    for thing in world.scene.objects:
        pose = world.object_pose(thing.name)
        x, y, z = (float(c) for c in pose.translation)
        yaw = math.atan2(pose.rotation[1, 0], pose.rotation[0, 0])
        things.append(dataclasses.replace(thing, position=(x, y, z), yaw=yaw))
    return dataclasses.replace(world.scene, objects=tuple(things))


def highest(world: World, without: str) -> float:
    """Metres above the table of the highest point of all things but one."""
    tops = [world.object_pose(t.name).translation[2] + t.size[2] for t in world.scene.objects
            if t.name != without]  # fmt: skip
    return float(max(tops, default=0.0))


def _up(pose: Transform, height: float) -> Transform:
    return Transform(np.array([*pose.translation[:2], height]), pose.rotation)


def _moved(pose: Transform, position: Array) -> Transform:
    return Transform(position, pose.rotation)


def _yaw_period(thing: ObjectSpec) -> float:
    if thing.kind == "cube":
        return math.pi / 2
    return math.pi if thing.kind in (*LONG, "knob") else 0.0


def _x_band(thing: ObjectSpec, T_base_thing: Transform, grip: Transform) -> tuple[float, float]:
    """See ``ContactTruth``."""
    if thing.kind not in LONG:
        return 0.0, 0.0
    ends = handle_ends(thing)
    low, high = ends[0] + END_OF_HANDLE, ends[1] - END_OF_HANDLE
    if low >= high:
        return 0.0, 0.0
    way = [
        float((T_base_thing.apply([x, 0.0, 0.0]) - grip.translation) @ grip.rotation[:, 0])
        for x in (low, high)
    ]
    return min(way), max(way)


_Stops = list[tuple[Stop, ContactTruth | None]]


# -- skills ------------------------------------------------------------------------------------------


def _grip(world: World, name: str) -> tuple[Transform, ContactTruth]:
    """T_base_tcp that grips a thing, and the contact's truth."""
    scene = scene_now(world)
    thing = scene.object(name)
    base, top = thing.position[2], thing.position[2] + thing.size[2]
    if thing.kind == "lid":
        as_knob = dataclasses.replace(thing, kind="cylinder", size=(thing.size[1],) * 2 + (thing.size[2],))
        others = tuple(o for o in scene.objects if o.kind not in ("lid", "pot"))
        scene = dataclasses.replace(scene, objects=(*others, as_knob))
    elif thing.kind == "ring":
        scene = dataclasses.replace(
            scene, objects=tuple(
                dataclasses.replace(o, size=(o.size[0], o.size[0], o.size[2])) if o.name == name else o
                for o in scene.objects
            )
        )  # fmt: skip
    pose, _ = grasp_pose(scene, name, world.object_pose(name))
    low, high = max(LOWEST_TCP, base + 0.35 * thing.size[2]), top - 0.010
    if thing.kind == "lid":
        pose = _moved(pose, np.array([*pose.translation[:2], top - 0.012]))
        low, high = top - 0.016, top - 0.004
    high = max(high, float(pose.translation[2]))
    z_band = (min(low, float(pose.translation[2])), high)
    x_band = _x_band(thing, world.object_pose(name), pose)
    return pose, ContactTruth(name, pose, _CLOSE, _yaw_period(thing), z_band, x_band)


def _take(world: World, name: str, rise: float) -> tuple[_Stops, Transform]:
    """Grip a thing and rise to a TCP height of at least ``rise``; and the grip."""
    grip, truth = _grip(world, name)
    before = max(float(grip.translation[2]) + APPROACH, highest(world, name) + 0.06)
    after = max(rise, before)
    stops: _Stops = [
        (Stop(_up(grip, before), _VIA_APPROACH, _OPEN, GRIPPER_MAX_WIDTH), None),
        (Stop(grip, _CONTACT, _CLOSE, 0.0), truth),
        (Stop(_up(grip, after), _RETREAT, _NONE, 0.0), None),
    ]
    return stops, grip


def _lift(world: World, step: Step) -> _Stops:
    grip, _ = _grip(world, step.source)
    stops, _ = _take(world, step.source, float(grip.translation[2]) + LIFT)
    return stops


def _pick_place(world: World, step: Step) -> _Stops:
    scene = scene_now(world)
    what, where = scene.object(step.source), scene.object(step.destination)
    grip, _ = _grip(world, step.source)
    hang = float(grip.translation[2]) - what.position[2]
    travel = max(SAFE_HEIGHT, highest(world, step.source) + hang + 0.05)
    stops, grip = _take(world, step.source, travel)
    goal, room = _release(world, what, where, grip, hang)
    over = max(travel, float(goal.translation[2]) + APPROACH)
    width = min(GRIPPER_MAX_WIDTH, held_width(what) + 0.025)
    truth = ContactTruth(
        step.destination, goal, _OPEN, _place_period(what, where),
        (float(goal.translation[2]) - 0.002, float(goal.translation[2]) + room),
    )  # fmt: skip
    stops += [
        (Stop(_up(goal, over), _VIA_APPROACH, _NONE, 0.0), None),
        (Stop(goal, _CONTACT, _OPEN, width), truth),
        (Stop(_up(goal, over), _RETREAT, _NONE, width), None),
    ]
    return stops


def _place_period(what: ObjectSpec, where: ObjectSpec) -> float:
    if what.kind == "bar":
        return math.pi
    return math.pi / 2 if where.kind in ("box", "drawer") else 0.0


def _release(
    world: World, what: ObjectSpec, where: ObjectSpec, grip: Transform, hang: float
) -> tuple[Transform, float]:
    """T_base_tcp at which a thing is let go, and the metres that it may be dropped from above it."""
    x, y, z = where.position
    if where.kind in ("bowl", "plate", "box", "drawer"):
        return place_pose(world, what.name, where.name, grip), 0.02
    if where.kind == "mark":
        height, room = z + hang + 0.004, 0.012
    elif where.kind == "post":
        height, room = z + assets.POST_BASE + 0.016 + hang, where.size[2] - 0.05
    else:
        height, room = z + where.size[2] + hang + 0.004, 0.010
    return _moved(grip, np.array([x, y, height])), room


def _press(world: World, step: Step) -> _Stops:
    thing = scene_now(world).object(step.source)
    x, y, z = thing.position
    low = z + assets.cap_top(thing, assets.BUTTON_TRAVEL) + TIP
    down = top_down(np.array([x, y, low]), -math.pi / 2)
    over = max(low + APPROACH, highest(world, step.source) + 0.06)
    # The judge lets a press end 3 mm higher; a label there would let half of all small errors miss.
    truth = ContactTruth(step.source, down, _NONE, 0.0, (low - 0.002, low + 0.001))
    return [
        (Stop(_up(down, over), _VIA_APPROACH, _CLOSE, 0.0), None),
        (Stop(down, _CONTACT, _NONE, 0.0), truth),
        (Stop(_up(down, over), _RETREAT, _NONE, 0.0), None),
    ]


def _push(world: World, step: Step) -> _Stops:
    scene = scene_now(world)
    thing, goal = scene.object(step.source), scene.object(step.destination)
    start, end = np.array(thing.position[:2]), np.array(goal.position[:2])
    way = (end - start) / max(float(np.linalg.norm(end - start)), 1e-6)
    behind = thing.size[0] / 2 + FINGER_HALF
    height = max(LOWEST_TCP + 0.004, 0.45 * thing.size[2])
    angle = near_home(math.atan2(way[1], way[0]) + math.pi / 2)
    first = top_down(np.array([*(start - way * (behind + RUN_UP)), height]), angle)
    last = top_down(np.array([*(end - way * behind), height]), angle)
    over = max(height + APPROACH, highest(world, step.source) + 0.06)
    band = (LOWEST_TCP, max(height, 0.7 * thing.size[2]))
    return [
        (Stop(_up(first, over), _VIA_APPROACH, _CLOSE, 0.0), None),
        (Stop(first, _CONTACT, _NONE, 0.0), ContactTruth(step.source, first, _NONE, math.pi, band)),
        (Stop(last, _CONTACT, _NONE, 0.0), ContactTruth(step.source, last, _NONE, math.pi, band)),
        (Stop(_up(last, over), _RETREAT, _NONE, 0.0), None),
    ]


def _turn(world: World, step: Step) -> _Stops:
    thing = scene_now(world).object(step.source)
    x, y, z = thing.position
    height = z + max(thing.size[2] - 0.014, LOWEST_TCP)
    begin = near_home(thing.yaw + world.knob_angle(step.source))
    sign = 1.0 if begin < -math.pi / 2 else -1.0  # towards the posture at home: far from joint limits
    at = np.array([x, y, height])
    poses = [top_down(at, begin + sign * share * TURN) for share in (0.0, 0.5, 1.0)]
    over = max(height + APPROACH, highest(world, step.source) + 0.06)
    band = (z + max(assets.KNOB_BASE + 0.010 + CLEAR_OF_FOOT, LOWEST_TCP), z + thing.size[2] - 0.006)
    events = ((_CLOSE, 0.0), (_NONE, 0.0), (_OPEN, GRIPPER_MAX_WIDTH))
    stops: _Stops = [(Stop(_up(poses[0], over), _VIA_APPROACH, _OPEN, GRIPPER_MAX_WIDTH), None)]
    for pose, (event, width) in zip(poses, events, strict=True):
        truth = ContactTruth(step.source, pose, event, math.pi, band)
        stops.append((Stop(pose, _CONTACT, event, width), truth))
    stops.append((Stop(_up(poses[-1], over), _RETREAT, _NONE, GRIPPER_MAX_WIDTH), None))
    return stops


def _handle(world: World, name: str, outward: float, opening: float) -> Transform:
    """T_base_tcp at a drawer's wide handle: fingers open along it.

    Args:
        outward: Metres from the tray's front.
        opening: Metres that the drawer is out.
    """
    thing = world.scene.object(name)
    T_base_cabinet = world.object_pose(name)
    local = np.array([thing.size[0] / 2 + opening + outward, 0.0, thing.size[2] / 2 - 0.002])
    yaw = math.atan2(T_base_cabinet.rotation[1, 0], T_base_cabinet.rotation[0, 0])
    return top_down(T_base_cabinet.apply(local), near_home(yaw + math.pi / 2))


def _open(world: World, step: Step) -> _Stops:
    opening = world.drawer_opening(step.source)
    grip = _handle(world, step.source, 0.024, opening)
    pulled = _handle(world, step.source, 0.024, PULL)
    z = float(grip.translation[2])
    over = max(z + APPROACH, highest(world, "") + 0.06)
    band = (z - 0.012, z + 0.010)
    wide = GRIPPER_MAX_WIDTH
    return [
        (Stop(_up(grip, over), _VIA_APPROACH, _OPEN, wide), None),
        (Stop(grip, _CONTACT, _CLOSE, 0.0), ContactTruth(step.source, grip, _CLOSE, math.pi, band)),
        (Stop(pulled, _CONTACT, _OPEN, wide), ContactTruth(step.source, pulled, _OPEN, math.pi, band)),
        (Stop(_up(pulled, over), _RETREAT, _NONE, wide), None),
    ]


def _close(world: World, step: Step) -> _Stops:
    face = assets.HANDLE_LENGTH + FINGER_HALF
    first = _handle(world, step.source, face + RUN_UP, world.drawer_opening(step.source))
    last = _handle(world, step.source, face, 0.002)
    z = float(first.translation[2])
    over = max(z + APPROACH, highest(world, "") + 0.06)
    band = (z - 0.012, z + 0.014)
    return [
        (Stop(_up(first, over), _VIA_APPROACH, _CLOSE, 0.0), None),
        (Stop(first, _CONTACT, _NONE, 0.0), ContactTruth(step.source, first, _NONE, math.pi, band)),
        (Stop(last, _CONTACT, _NONE, 0.0), ContactTruth(step.source, last, _NONE, math.pi, band)),
        (Stop(_up(last, over), _RETREAT, _NONE, 0.0), None),
    ]


_SKILLS = {
    "press": _press,
    "lift": _lift,
    "push": _push,
    "turn": _turn,
    "pick_place": _pick_place,
    "open": _open,
    "close": _close,
}
