"""Pick and place from truth: shows that the physics allows it, and where a good grasp would be.

Nothing that runs on the robot's side uses this; it sees through the table.
"""

from __future__ import annotations

import math

import numpy as np

from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.simulation.judge import outcome
from bridgevla_ros.simulation.robot import GRIPPER_MAX_WIDTH
from bridgevla_ros.simulation.scene import LONG, TOOLS, ObjectSpec, SceneSpec, drawer_tray, handle_ends
from bridgevla_ros.simulation.world import World

LOWEST_TCP = 0.022
"""Metres above the table: closed fingers reach 21 mm beyond the TCP."""
TOP_GRASP = 0.030
"""Metres below the top at which tall things are taken."""
FINGER = 0.022
"""Metres beside the object that an open finger needs."""
SAFE_HEIGHT = 0.22
SPEED = 0.30
"""Metres a second, greatest, of the TCP between waypoints."""


def top_down(position: Array, angle: float) -> Transform:
    """T_base_tcp looking down, fingers opening along ``angle`` (rad, about base z)."""
    z = np.array([0.0, 0.0, -1.0])
    y = np.array([math.cos(angle), math.sin(angle), 0.0])
    return Transform(np.asarray(position, np.float64), np.stack([np.cross(y, z), y, z], axis=1))


def grasp_pose(scene: SceneSpec, name: str, pose: Transform | None = None) -> tuple[Transform, float]:
    """The best top-down grasp of an object.

    Args:
        scene: Truth.
        name: A movable object.
        pose: T_base_object where it is now; by default where the scene put it.

    Returns:
        T_base_tcp, and the metres between the pads when it is held.
    """
    thing = scene.object(name)
    pose = thing.pose if pose is None else pose
    middle = sum(handle_ends(thing)) / 2 if thing.kind in LONG else 0.0
    centre = pose.apply([middle, 0.0, thing.size[2] / 2])
    height = thing.size[2]
    z = pose.translation[2] + max(height / 2, height - TOP_GRASP if height > 0.06 else 0.0, LOWEST_TCP)
    yaw = math.atan2(pose.rotation[1, 0], pose.rotation[0, 0])
    width = held_width(thing)
    if thing.kind == "cube":
        angles = [yaw, yaw + math.pi / 2]
    elif thing.kind in LONG:
        angles = [yaw + math.pi / 2]
    else:
        angles = [k * math.pi / 8 for k in range(8)]
    best = max(angles, key=lambda a: _merit(scene, thing, centre, a, width))
    return top_down(np.array([centre[0], centre[1], z]), near_home(best)), width


def held_width(thing: ObjectSpec) -> float:
    """Metres between the pads when it is held."""
    if thing.kind in TOOLS:
        return thing.handle
    if thing.kind == "ring":
        return thing.size[0]
    return thing.size[1] if thing.kind == "lid" else min(thing.size[:2])


def near_home(angle: float) -> float:
    """The same opening, half a turn away at most from that of the arm at home (-90 degrees)."""
    return (angle + math.pi) % math.pi - math.pi


def _merit(scene: SceneSpec, thing: ObjectSpec, centre: Array, angle: float, width: float) -> float:
    """Room beside the object for both fingers, metres, and a little for a short way of joint 7."""
    reach = max(width / 2, GRIPPER_MAX_WIDTH / 2) + FINGER / 2
    room = math.inf
    for side in (-1.0, 1.0):
        finger = centre[:2] + side * reach * np.array([math.cos(angle), math.sin(angle)])
        for other in scene.objects:
            if other is not thing:
                gap = float(np.linalg.norm(finger - np.array(other.position[:2]))) - other.radius
                room = min(room, gap)
    turn = abs((angle + math.pi / 2 + math.pi / 2) % math.pi - math.pi / 2)
    return min(room, 0.03) - 0.005 * turn


def place_pose(world: World, source: str, destination: str, grasp: Transform) -> Transform:
    """T_base_tcp at which to let go of ``source``, held as ``grasp`` took it from where it stood."""
    what, where = world.scene.object(source), world.scene.object(destination)
    T_place = world.object_pose(destination)
    grip_height = float(grasp.translation[2] - world.object_pose(source).translation[2])
    centre = np.zeros(3)
    rim = where.size[2]
    if where.kind == "drawer":
        # Only what sticks out of the cabinet can be reached from above.
        opening = world.drawer_opening(destination)
        size = drawer_tray(where.size)
        centre[0] = where.size[0] / 2 + (0.006 + opening + size[0] / 2 - where.size[0] / 2) / 2
        rim = 0.009 + size[2]
    spot = T_place.apply(centre)
    floor = spot[2] + 0.012
    z = floor + grip_height if where.kind == "plate" else max(spot[2] + rim + 0.02, floor + grip_height)
    angle = math.atan2(grasp.rotation[1, 1], grasp.rotation[0, 1])
    if what.kind == "bar" or where.kind in ("box", "drawer"):
        # A bar lies along the container; the fingers open along a side of it.
        yaw = math.atan2(T_place.rotation[1, 0], T_place.rotation[0, 0])
        options = [yaw + math.pi / 2] if what.kind == "bar" else [yaw, yaw + math.pi / 2]
        angle = min(options, key=lambda a: abs((a + math.pi) % math.pi - math.pi / 2))
    return top_down(np.array([spot[0], spot[1], z]), near_home(angle))


class Demonstrator:
    """Moves a world's arm along straight lines with inverse kinematics.

    Args:
        world: Commanded and stepped.
        arm: Kinematics of the same arm.
    """

    def __init__(self, world: World, arm: ArmModel) -> None:
        self.world, self._arm = world, arm

    def pick_and_place(self, source: str, destination: str) -> str:
        """Do it; time passes in the world.

        Returns:
            "" where it is done by the judge's truth, else the first thing that went wrong:
            "unreachable", "not grasped", "lost" or "missed".
        """
        world = self.world
        grasp, width = grasp_pose(world.scene, source, world.object_pose(source))
        place = place_pose(world, source, destination, grasp)
        world.command_gripper(GRIPPER_MAX_WIDTH)
        for target in (_above(grasp), grasp):
            if not self.move(target):
                return "unreachable"
        world.command_gripper(0.0)
        world.step(1.0)
        if world.joint_state().gripper_width < 0.5 * width:
            return "not grasped"
        for target in (_above(grasp), _above(place), place):
            if not self.move(target):
                return "unreachable"
        world.step(0.2)
        if world.joint_state().gripper_width < 0.5 * width:
            return "lost"
        world.command_gripper(GRIPPER_MAX_WIDTH)
        world.step(0.8)
        if not self.move(_above(place)):
            return "unreachable"
        world.step(1.0)
        world.set_goal(f"put the {source} in the {destination}")
        return "" if outcome(world).done else "missed"

    def move(self, target: Transform) -> bool:
        """Go straight to ``target`` (T_base_tcp) and wait for it; False where no IK was found."""
        world, arm = self.world, self._arm
        start, q = world.T_base_tcp, world.joint_state().position
        distance, angle = start.distance(target)
        duration = max(1.875 * distance / SPEED, 1.875 * angle / 1.2, 0.3)
        count = max(int(duration / 0.05), 4)
        positions = [q]
        for k in range(1, count + 1):
            s = k / count
            result = arm.ik(start.interpolate(target, s**3 * (10 - 15 * s + 6 * s * s)), positions[-1])
            if not result.ok or float(np.abs(result.q - positions[-1]).max()) > 0.5:
                return False
            positions.append(result.q)
        q_all = np.array(positions)
        times = np.linspace(0.0, duration, count + 1)
        velocities = np.gradient(q_all, times, axis=0)
        velocities[[0, -1]] = 0.0
        world.command_joint_trajectory(world.now, times, q_all, velocities)
        world.step(duration + 0.1)
        return True


def _above(pose: Transform) -> Transform:
    height = np.array([pose.translation[0], pose.translation[1], SAFE_HEIGHT])
    return Transform(height, pose.rotation)
