"""Node ``sim_arm``: camera and arm of the simulated cell, on the topics of a real one.

Simulated time stands still while images are rendered, and (for a bounded time) while streamed commands
are late: a slow machine is slow, not wrong. The truth is told on ``~/outcome`` only.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import Any

import numpy as np
from bridgevla.msg import SimOutcome
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from sensor_msgs.msg import JointState as JointStateMsg
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from bridgevla_ros.core import resources
from bridgevla_ros.core.config import ConfigError
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.robot import RobotConfig
from bridgevla_ros.ros import conversions, parameters, qos
from bridgevla_ros.ros.spin import run_node
from bridgevla_ros.ros.tf import TransformBroadcaster
from bridgevla_ros.simulation.config import SimConfig
from bridgevla_ros.simulation.judge import outcome
from bridgevla_ros.simulation.world import SimulationError, World

ROBOT = "panda_2f85"
"""The arm that ``simulation`` builds, in ``config/robots``."""
BASE_FRAME = "base_link"
RIGHT_FRAME = "camera_right_optical_frame"
CATCH_UP = 0.05
"""Simulated seconds that may be caught up after a delay; beyond that, time has simply been slower."""
POSE_LEAD = 0.02
"""Seconds after its stamp at which a streamed end-effector pose is reached: two control periods."""


class _Every:
    """Tells when something with a rate is due in simulated time."""

    def __init__(self, rate: float) -> None:
        self._period, self._next = 1.0 / rate, 0.0

    def due(self, now: float) -> bool:
        if now < self._next - 1e-9:
            return False
        self._next = max(self._next + self._period, now)
        return True


class SimArmNode(Node):
    """Wires topics to a ``World`` and lets its time pass."""

    def __init__(self) -> None:
        super().__init__("sim_arm")
        self._config = config = parameters.declare(self, SimConfig)
        try:
            self._world = World(config)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"sim_arm: the scene cannot be built: {error}") from error
        self._robot = RobotConfig.load(resources.find_robot(ROBOT))
        self._arm = ArmModel.load(ROBOT) if config.command_mode == "ee" else None
        self._quantum = 1.0 / config.clock_rate
        self._camera_due, self._joints_due = _Every(config.camera_rate), _Every(config.joint_state_rate)
        self._outcome_due, self._tf_due = _Every(config.outcome_rate), _Every(config.joint_state_rate / 2)
        self._exposed: deque[tuple[float, Any]] = deque()
        self._anchor: tuple[float, float] | None = None
        self._command_stamp = -np.inf
        self._pose_joints: tuple[float, np.ndarray] | None = None
        self._waiting_since: float | None = None

        self._time = self.create_publisher(Clock, "/clock", qos.CLOCK)
        self._joints = self.create_publisher(JointStateMsg, "joint_states", qos.SENSOR)
        cameras = ("color", "left", "right") if config.stereo_baseline > 0.0 else ("color", "depth")
        self._images = tuple(
            self.create_publisher(kind, f"camera/{camera}/{topic}", qos.SENSOR)
            for camera in cameras
            for kind, topic in ((Image, "image_raw"), (CameraInfo, "camera_info"))
        )
        self._outcome = self.create_publisher(SimOutcome, "~/outcome", qos.LATCHED)
        self._tf = TransformBroadcaster(self)
        self._fixed_tf = TransformBroadcaster(self, fixed=True)
        camera_frame = self._world.intrinsics.frame
        self._fixed_tf.send(0.0, {(BASE_FRAME, camera_frame): self._world.T_base_camera})
        if config.command_mode == "joint":
            self.create_subscription(
                JointTrajectory, "arm/joint_trajectory", self._on_trajectory, qos.COMMAND
            )
        else:
            self.create_subscription(PoseStamped, "arm/ee_pose", self._on_pose, qos.COMMAND)
        self.create_subscription(Float64MultiArray, "gripper/command", self._on_gripper, qos.RELIABLE)
        self._world.render()  # the first image builds what later ones reuse
        factor = config.real_time_factor
        self.create_timer(self._quantum / (2.5 * factor) if factor > 0 else 1e-4, self._tick)
        names = ", ".join(o.name for o in self._world.scene.objects)
        self.get_logger().info(f"scene {self._world.scene.seed}: {names}")

    # ---- commands

    def _on_trajectory(self, msg: JointTrajectory) -> None:
        stamp, times, positions, velocities = conversions.joint_trajectory_from_msg(
            msg, self._robot.joint_names
        )
        try:
            self._world.command_joint_trajectory(stamp, times, positions, velocities)
        except ValueError as error:
            raise BridgeError(ErrorCode.BAD_INPUT, str(error)) from error
        self._command_stamp = max(self._command_stamp, stamp)

    def _on_pose(self, msg: PoseStamped) -> None:
        """Inverse kinematics of an arm that takes Cartesian commands, seeded by the last ones."""
        assert self._arm is not None
        stamp, target = conversions.stamp_from_msg(msg.header.stamp), conversions.pose_from_msg(msg.pose)
        last = self._pose_joints
        seed = self._world.joint_state().position if last is None or stamp - last[0] > 0.2 else last[1]
        result = self._arm.ik(target, seed)
        step = float(np.abs(result.q - seed).max())
        if not result.ok or step > 0.5:
            self._pose_joints = None
            raise BridgeError(
                ErrorCode.UNREACHABLE,
                "end-effector pose cannot be followed from here",
                value=step if result.ok else result.position_error,
                limit=0.5 if result.ok else 1e-4,
                unit="rad" if result.ok else "m",
            )
        velocity = np.zeros(7)
        if last is not None and 1e-3 < stamp - last[0] <= 0.2:
            velocity = (result.q - last[1]) / (stamp - last[0])
        velocity = np.clip(velocity, -self._arm.velocity_limit, self._arm.velocity_limit)
        try:
            self._world.command_joint_trajectory(
                stamp,
                np.array([POSE_LEAD, POSE_LEAD + 0.1]),
                np.stack([result.q, result.q + 0.03 * velocity]),
                np.stack([velocity, np.zeros(7)]),
            )
        except ValueError as error:
            raise BridgeError(ErrorCode.BAD_INPUT, str(error)) from error
        self._pose_joints = (stamp, result.q)
        self._command_stamp = max(self._command_stamp, stamp)

    def _on_gripper(self, msg: Float64MultiArray) -> None:
        self._world.command_gripper(conversions.gripper_command_from_msg(msg))

    # ---- time

    def _tick(self) -> None:
        wall, now = time.monotonic(), self._world.now
        factor = self._config.real_time_factor
        if self._anchor is None:
            self._anchor = (wall, now)
        elif factor > 0.0:
            ahead = (now - self._anchor[1]) - (wall - self._anchor[0]) * factor
            if ahead > 0.0:
                return
            if ahead < -CATCH_UP:
                self._anchor = (wall, now + CATCH_UP)
        if self._must_wait(wall, now):
            return
        try:
            self._world.step(self._quantum)
        except SimulationError as error:
            self.get_logger().fatal(str(error))
            raise SystemExit(1) from error
        self._publish(self._world.now)

    def _must_wait(self, wall: float, now: float) -> bool:
        """Whether a streamed command is late and may still be waited for."""
        if now - self._command_stamp <= self._config.backpressure_age:
            self._waiting_since = None
            return False
        if not np.isfinite(self._command_stamp):
            return False
        if self._waiting_since is None:
            self._waiting_since = wall
        if wall - self._waiting_since < self._config.backpressure_wait:
            return True
        self._command_stamp, self._waiting_since = -np.inf, None  # the stream has ended
        return False

    def _publish(self, now: float) -> None:
        stamp = conversions.stamp_to_msg(now)
        if self._joints_due.due(now):
            self._joints.publish(conversions.joint_state_to_msg(self._world.joint_state(), self._robot))
        if self._tf_due.due(now):
            links = self._world.link_transforms()
            self._tf.send(now, {(BASE_FRAME, name): transform for name, transform in links.items()})
        self._time.publish(Clock(clock=stamp))
        if self._camera_due.due(now):
            self._exposed.append((now, self._expose()))
        while self._exposed and now - self._exposed[0][0] >= self._config.camera_latency - 1e-9:
            for publisher, msg in zip(self._images, self._exposed.popleft()[1], strict=True):
                publisher.publish(msg)
        if self._outcome_due.due(now):
            self._publish_outcome(now)

    def _expose(self) -> tuple[Any, ...]:
        """Messages for ``_images``: colour and depth, or colour and the stereo pair."""
        frame, baseline = self._world.render(), self._config.stereo_baseline
        msgs = conversions.frame_to_msgs(frame, self._config.depth_encoding)
        if baseline <= 0.0:
            return msgs
        left, right = self._world.render_pair()
        return (
            *msgs[:2],
            conversions.grey_to_msg(left, frame.stamp, frame.intrinsics.frame),
            msgs[1],
            conversions.grey_to_msg(right, frame.stamp, RIGHT_FRAME),
            conversions.right_info_to_msg(frame.intrinsics, baseline, frame.stamp, RIGHT_FRAME),
        )

    def _publish_outcome(self, now: float) -> None:
        reached = outcome(self._world)
        self._outcome.publish(
            SimOutcome(
                header=conversions.header(now, BASE_FRAME),
                judged=reached.judged,
                done=reached.done,
                goal=reached.goal,
                relations=list(reached.relations),
                moved=list(reached.moved),
                moved_distance=list(reached.moved_distance),
            )
        )

    def destroy_node(self) -> None:
        """Free the renderer with the node."""
        self._world.close()
        super().destroy_node()


def main() -> int:
    """Entry point."""
    return run_node(SimArmNode)


if __name__ == "__main__":
    sys.exit(main())
