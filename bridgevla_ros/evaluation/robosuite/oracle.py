"""Guidance from robosuite's truth: a scripted demonstrator whose waypoints are then corrupted and followed.

Only ``--guidance oracle`` uses it, to measure what comes after the planner. Poses are in the frame of
the arm's base, z up, metres.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import (
    GripperEvent,
    JointState,
    PlanRequest,
    RgbdFrame,
    WaypointKind,
    WaypointPlan,
)
from bridgevla_ros.evaluation.oracle import answer, waypoint_of
from bridgevla_ros.simulation.demonstrations import Stop
from bridgevla_ros.simulation.demonstrator import near_home, top_down

Poses = dict[str, Transform]
_NONE, _OPEN, _CLOSE = GripperEvent.NONE, GripperEvent.OPEN, GripperEvent.CLOSE
_APPROACH, _CONTACT, _RETREAT, _VIA = (
    WaypointKind.APPROACH, WaypointKind.CONTACT, WaypointKind.RETREAT, WaypointKind.VIA,
)  # fmt: skip
MAX_WIDTH = 0.08
TIP = 0.011
"""Metres that the finger tips reach beyond the TCP."""
RISE = 0.10
"""Metres above a contact from which the hand comes straight down."""
CARRY = 0.14
"""Metres above where it stood that a thing is lifted."""

CAN_MIDDLE, CAN_WIDTH = 0.008, 0.05
"""Metres: the can is taken this far above its middle; its diameter."""
WALL = 0.055
"""Metres that the can keeps from the walls of its compartment: the hand reaches no farther out."""
LEAN, LEAN_FROM, LEAN_WHOLE = 0.45, 0.62, 0.75
"""rad that the hand leans outwards where the arm would be stretched; metres from its axis, none to all."""
NUT_HANDLE, NUT_WIDTH = 0.060, 0.032
"""Metres from the nut's middle to where its handle is held; between the fingers there."""
NUT_TURN = -1.9
"""rad, least turn of the hand from its way at home that joint 7 has room for with some to spare."""
PEG_TOP = 0.10
"""Metres of the peg above its middle."""
NUT_FREE = 0.035
"""Metres of the nut over the top of the peg on the way, and below it where it is let go."""
HINGE_OPEN, LATCH_OPEN = 0.36, 1.25
"""rad: how far the door is pulled (robosuite asks for 0.3) and its handle turned (1.15 frees the bolt)."""
DOOR_VIA: Array = np.array([0.45, 0.05, 0.20])
DOOR_TURN = math.pi / 2
"""Where the hand turns on its way to the handle, and by how much of the half turn."""
HINGE_IN_DOOR: Array = np.array([0.255, 0.0, 0.0])
LATCH_IN_DOOR: Array = np.array([-0.175, 0.0, -0.025])
HANDLE_IN_LATCH: Array = np.array([0.105, -0.102, 0.0])
"""robosuite's door: its hinge's axis and its latch in the door's frame, where the handle is held."""


class Truth(Protocol):
    """Whoever knows where things are."""

    def truth(self) -> tuple[Poses, dict[str, Any]]:
        """Poses in the base frame, and what else the task needs."""
        ...


def lift(poses: Poses, fields: dict[str, Any]) -> list[Stop]:
    """Take the cube and raise it."""
    taken, up = _take_box(poses["cube"], fields["cube_size"])
    return [*taken, Stop(up, _RETREAT, _NONE, 0.0)]


def stack(poses: Poses, fields: dict[str, Any]) -> list[Stop]:
    """Put cube A on cube B, sides along sides."""
    a, b = poses["cubeA"], poses["cubeB"]
    taken, up = _take_box(a, fields["cubeA_size"])
    grasp = taken[-1].T_base_tcp
    # The cube keeps its place in the hand: the hand turns by as much as the cube has to.
    turn = (_yaw(b) - _yaw(a) + math.pi / 4) % (math.pi / 2) - math.pi / 4
    top = b.translation[2] + fields["cubeB_size"][2] / 2
    held = float(grasp.translation[2] - (a.translation[2] - fields["cubeA_size"][2] / 2))
    goal = top_down(np.array([*b.translation[:2], top + held + 0.003]), _angle(grasp) + turn)
    over = _raised(goal, max(up.translation[2], goal.translation[2] + RISE / 2))
    wide = fields["cubeA_size"][1] + 0.025
    return [
        *taken,
        Stop(_raised(grasp, over.translation[2]), _RETREAT, _NONE, 0.0),
        Stop(over, _APPROACH, _NONE, 0.0),
        Stop(goal, _CONTACT, _OPEN, wide),
        Stop(over, _RETREAT, _NONE, wide),
    ]


def pick_place_can(poses: Poses, fields: dict[str, Any]) -> list[Stop]:
    """Put the can into its compartment, the one far from the arm on the left, near that one's near corner."""
    can, second = poses["can"], poses["bin2"]
    grasp = _leaning(can.apply([0.0, 0.0, CAN_MIDDLE]))
    x, y = second.translation[:2] + np.array([0.01 + WALL, 0.01 + WALL])
    goal = _leaning(np.array([x, y, grasp.translation[2] + 0.025]))
    height = can.translation[2] + 0.20
    wide = CAN_WIDTH + 0.025
    return [
        Stop(_raised(grasp, height), _APPROACH, _OPEN, CAN_WIDTH + 0.02),
        Stop(grasp, _CONTACT, _CLOSE, 0.0),
        Stop(_raised(grasp, height), _RETREAT, _NONE, 0.0),
        Stop(_raised(goal, height), _APPROACH, _NONE, 0.0),
        Stop(goal, _CONTACT, _OPEN, wide),
        Stop(_raised(goal, height), _RETREAT, _NONE, wide),
    ]


def nut_assembly_square(poses: Poses, fields: dict[str, Any]) -> list[Stop]:
    """Take the nut by its handle and put it over the square peg, handle towards the arm."""
    nut, peg = poses["nut"], poses["peg"]
    handle = nut.apply([NUT_HANDLE, 0.0, 0.0])
    low = max(handle[2], handle[2] - 0.01 + TIP + 0.003)
    T_nut_tcp = Transform(np.array([NUT_HANDLE, 0.0, low - nut.translation[2]]), np.eye(3))
    # The square fits in four ways: the one with the handle to the arm needs the least reach.
    way = min((_yaw(peg) + k * math.pi / 2 for k in range(4)), key=math.cos)
    turn = _wrapped(way - _yaw(nut))
    # The hand ends as at home, or half a turn from there where joint 7 could not have begun so far back.
    begin = _wrapped(-turn)
    angle = begin - math.pi / 2 if begin > NUT_TURN else begin + math.pi / 2
    grasp = top_down(np.array([*handle[:2], low]), angle)
    spot = peg.translation + Rotation.from_euler("z", way).as_matrix() @ T_nut_tcp.translation
    rest = peg.translation[2] + PEG_TOP
    goal = top_down(np.array([spot[0], spot[1], rest - NUT_FREE]), angle + turn)
    over = _raised(goal, rest + NUT_FREE + T_nut_tcp.translation[2])
    between = (np.array([*grasp.translation[:2], over.translation[2]]) + over.translation) / 2
    wide = NUT_WIDTH + 0.025
    return [
        Stop(_raised(grasp, low + RISE), _APPROACH, _OPEN, NUT_WIDTH + 0.035),
        Stop(grasp, _CONTACT, _CLOSE, 0.0),
        Stop(_raised(grasp, over.translation[2]), _RETREAT, _NONE, 0.0),
        Stop(top_down(between, angle + turn / 2), _VIA, _NONE, 0.0),  # turns the way joint 7 can
        Stop(over, _APPROACH, _NONE, 0.0),
        Stop(goal, _CONTACT, _OPEN, wide, grasp.inverse().rotate(nut.translation - handle)),
        Stop(_raised(goal, over.translation[2] + 0.03), _RETREAT, _NONE, wide),
    ]


def door(poses: Poses, fields: dict[str, Any]) -> list[Stop]:
    """Hold the handle, turn it down, pull the door open and keep it open: it swings without friction."""
    hinge, latch = float(fields["hinge"]), float(fields["latch_joint"])
    T_base_door = poses["door"]

    def held(open_by: float, turn: float, back: float = 0.0) -> Transform:
        """T_base_tcp at the handle of a door opened by one angle with its handle turned by the other."""
        swing = Rotation.from_euler("z", open_by - hinge).as_matrix()
        T_now_then = Transform(HINGE_IN_DOOR - swing @ HINGE_IN_DOOR, swing)
        T_door_latch = Transform(LATCH_IN_DOOR, Rotation.from_euler("y", turn).as_matrix())
        # Into the door along its y; the fingers open along the latch's z, above and below the handle.
        axes = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]).T
        T_latch_tcp = Transform(HANDLE_IN_LATCH - [0.0, back, 0.0], axes)
        return T_base_door @ T_now_then @ T_door_latch @ T_latch_tcp

    wide = 0.075
    # From looking down to the handle is half a turn: halfway, so that it goes the way joint 6 has room for.
    halfway = Rotation.from_rotvec(DOOR_TURN * np.array([0.0, 1.0, 1.0]) / math.sqrt(2.0)).as_matrix()
    stops = [
        Stop(Transform(DOOR_VIA, halfway @ top_down(np.zeros(3), -math.pi / 2).rotation), _VIA, _NONE, wide),
        Stop(held(hinge, latch, 0.10), _APPROACH, _OPEN, wide),
        Stop(held(hinge, latch), _CONTACT, _CLOSE, 0.0),
    ]
    for turn in np.linspace(latch, LATCH_OPEN, 6)[1:]:
        stops.append(Stop(held(hinge, float(turn)), _VIA, _NONE, 0.0))
    for open_by in np.linspace(hinge, HINGE_OPEN, 6)[1:]:
        stops.append(Stop(held(float(open_by), LATCH_OPEN), _VIA, _NONE, 0.0))
    return stops


DEMONSTRATORS: dict[str, Callable[[Poses, dict[str, Any]], list[Stop]]] = {
    "Lift": lift,
    "Stack": stack,
    "PickPlaceCan": pick_place_can,
    "NutAssemblySquare": nut_assembly_square,
    "Door": door,
}


class OraclePlanner:
    """Answers each request with the demonstrator's waypoints for things where they truly are now.

    Args:
        cell: Asked for the truth.
        task: robosuite's name of it.
        arm: Names the base frame.
    """

    def __init__(self, cell: Truth, task: str, arm: ArmModel) -> None:
        self._cell, self._task, self._arm = cell, task, arm

    def plan(
        self,
        request: PlanRequest,
        frame: RgbdFrame,
        T_base_camera: Transform,
        *,
        now: float,
        joints: JointState | None = None,
    ) -> WaypointPlan:
        """One sub-goal: the whole task; refused where a thing lies as the demonstrator cannot take it."""
        poses, fields = self._cell.truth()
        stops, code, message = [], ErrorCode.NONE, ""
        try:
            stops = DEMONSTRATORS[self._task](poses, fields)
        except BridgeError as error:
            code, message = error.code, error.message
        T_camera_base = T_base_camera.inverse()
        waypoints = tuple(waypoint_of(stop, T_camera_base, frame.intrinsics) for stop in stops)
        return answer(
            request, frame, T_base_camera, waypoints, now=now, subgoal=request.instruction,
            base_frame=self._arm.config.base_frame, code=code, message=message,
        )  # fmt: skip


def _take_box(pose: Transform, size: list[float]) -> tuple[list[Stop], Transform]:
    """Approach and grasp of a box that stands upright, across its sides; and the pose above it."""
    if abs(pose.rotation[2, 2]) < 0.9:
        raise BridgeError(ErrorCode.BAD_INPUT, "the cube does not stand upright")
    yaw = _yaw(pose)
    angle = min((near_home(yaw + k * math.pi / 2) for k in range(2)), key=lambda a: abs(a + math.pi / 2))
    z = max(pose.translation[2], pose.translation[2] - size[2] / 2 + TIP + 0.003)
    grasp = top_down(np.array([*pose.translation[:2], z]), angle)
    taken = [
        Stop(_raised(grasp, z + RISE), _APPROACH, _OPEN, min(MAX_WIDTH, max(size[:2]) + 0.035)),
        Stop(grasp, _CONTACT, _CLOSE, 0.0),
    ]
    return taken, _raised(grasp, z + CARRY)


def _leaning(position: Array) -> Transform:
    """T_base_tcp with the fingers opening across the reach; far out it leans outwards about their axis."""
    reach, towards = math.hypot(position[0], position[1]), math.atan2(position[1], position[0])
    lean = LEAN * min(max((reach - LEAN_FROM) / (LEAN_WHOLE - LEAN_FROM), 0.0), 1.0)
    down = top_down(position, towards - math.pi / 2)
    return Transform(position, down.rotation @ Rotation.from_euler("y", lean).as_matrix())


def _raised(pose: Transform, height: float) -> Transform:
    return Transform(np.array([pose.translation[0], pose.translation[1], height]), pose.rotation)


def _yaw(pose: Transform) -> float:
    return math.atan2(pose.rotation[1, 0], pose.rotation[0, 0])


def _angle(T_base_tcp: Transform) -> float:
    """Direction in which the fingers open, rad about base z."""
    return math.atan2(T_base_tcp.rotation[1, 1], T_base_tcp.rotation[0, 1])


def _wrapped(angle: float) -> float:
    return (angle + math.pi) % (2 * math.pi) - math.pi
