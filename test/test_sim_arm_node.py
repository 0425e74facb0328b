"""sim_arm as a process: what it publishes, and that commands move it."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from bridgevla.msg import SimOutcome
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from bridgevla_ros.core import resources
from bridgevla_ros.core.robot import RobotConfig
from bridgevla_ros.ros import conversions, qos
from bridgevla_ros.ros.tf import TransformBuffer
from bridgevla_ros.simulation.robot import HOME, JOINT_NAMES

ROBOT = RobotConfig.load(resources.find_robot("panda_2f85"))


def test_publishes_what_a_cell_does_and_obeys(
    node: Node, processes: Any, spin_until: Callable[..., bool]
) -> None:
    heard: dict[str, list[Any]] = defaultdict(list)
    topics = {
        "/clock": (Clock, qos.CLOCK),
        "joint_states": (JointState, qos.SENSOR),
        "camera/color/image_raw": (Image, qos.SENSOR),
        "camera/color/camera_info": (CameraInfo, qos.SENSOR),
        "camera/depth/image_raw": (Image, qos.SENSOR),
        "sim_arm/outcome": (SimOutcome, qos.LATCHED),
    }
    for name, (kind, profile) in topics.items():
        node.create_subscription(kind, name, heard[name].append, profile)
    buffer = TransformBuffer(node)
    publisher = node.create_publisher(JointTrajectory, "arm/joint_trajectory", qos.COMMAND)
    processes.node("sim_arm", "-p", "scene_seed:=4", "-p", "depth_encoding:=16UC1")
    assert spin_until(node, lambda: all(heard[t] for t in topics), 60.0), dict(heard).keys()
    assert spin_until(node, lambda: len(heard["joint_states"]) > 50, 20.0)

    colour, depth = heard["camera/color/image_raw"][-1], heard["camera/depth/image_raw"][-1]
    assert (colour.encoding, depth.encoding) == ("rgb8", "16UC1")
    assert (colour.width, colour.height) == (depth.width, depth.height) == (320, 240)
    stamps = np.array([conversions.stamp_from_msg(m.header.stamp) for m in heard["joint_states"]])
    assert np.median(np.diff(stamps)) <= 0.0101
    state = conversions.joint_state_from_msg(heard["joint_states"][-1], ROBOT)
    assert np.allclose(state.position, HOME, atol=2e-3)
    assert state.gripper_width > 0.08
    assert buffer.known("base_link", "camera_color_optical_frame", None)
    assert buffer.known("base_link", "tcp", None)
    assert heard["sim_arm/outcome"][-1].judged
    assert not heard["sim_arm/outcome"][-1].done

    goal = HOME + np.array([0.2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    point = JointTrajectoryPoint(
        positions=goal.tolist(), velocities=[0.0] * 7, time_from_start=conversions.duration_to_msg(1.0)
    )
    command = JointTrajectory(
        header=conversions.header(conversions.stamp_from_msg(heard["/clock"][-1].clock), "base_link"),
        joint_names=list(JOINT_NAMES),
        points=[point],
    )
    publisher.publish(command)

    def there() -> bool:
        now = conversions.joint_state_from_msg(heard["joint_states"][-1], ROBOT)
        return bool(np.allclose(now.position, goal, atol=3e-3))

    assert spin_until(node, there, 30.0)


def test_physics_that_breaks_ends_the_node_with_a_word() -> None:
    script = """
import sys
import numpy as np
from bridgevla_ros.nodes import sim_arm

step = sim_arm.World.step
def breaking(world, dt):
    if world.now > 0.5:
        world.data.qvel[:] = np.nan
    step(world, dt)
sim_arm.World.step = breaking
sys.exit(sim_arm.main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "physics is not finite after 0.5" in done.stderr
    assert "Traceback" not in done.stderr, done.stderr
