"""The trajectory node: plans in, guidance or refusals out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from bridgevla.msg import Guidance as GuidanceMsg
from bridgevla.msg import WaypointPlan as WaypointPlanMsg
from nav_msgs.msg import Path
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from sensor_msgs.msg import JointState as JointStateMsg
from visualization_msgs.msg import MarkerArray

from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import (
    CameraIntrinsics,
    GripperEvent,
    JointState,
    Waypoint,
    WaypointKind,
    WaypointPlan,
)
from bridgevla_ros.nodes.trajectory import TrajectoryNode
from bridgevla_ros.ros import conversions, qos
from bridgevla_ros.ros.tf import TransformBroadcaster

ARM = ArmModel.load("panda_2f85")
DOWN = np.diag([1.0, -1.0, -1.0])
CAMERA = Transform.from_quat([1.0, 0.2, 0.8], [0.6, 0.6, -0.4, -0.35])


def waypoint(x: float, y: float, z: float, kind=WaypointKind.VIA, event=GripperEvent.NONE) -> Waypoint:
    pose = CAMERA.inverse() @ Transform(np.array([x, y, z]), DOWN)
    return Waypoint(pose, kind, event, 0.08, np.zeros(2), 0.8, 1.0)


GOOD = (
    waypoint(0.5, 0.1, 0.15, WaypointKind.APPROACH, GripperEvent.OPEN),
    waypoint(0.5, 0.1, 0.02, WaypointKind.CONTACT, GripperEvent.CLOSE),
    waypoint(0.5, 0.1, 0.2, WaypointKind.RETREAT),
)


class Cell:
    """Planner and arm of a test."""

    def __init__(self) -> None:
        self.trajectory, self.node = TrajectoryNode(), Node("cell")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.trajectory)
        self.executor.add_node(self.node)
        self.guidance: list[GuidanceMsg] = []
        self.paths: list[Path] = []
        self.markers: list[MarkerArray] = []
        self.plan = self.node.create_publisher(WaypointPlanMsg, "plan", qos.LATCHED)
        self.joints = self.node.create_publisher(JointStateMsg, "joint_states", qos.SENSOR)
        self.node.create_subscription(GuidanceMsg, "guidance", self.guidance.append, qos.LATCHED)
        self.node.create_subscription(Path, "guidance/path", self.paths.append, qos.LATCHED)
        self.node.create_subscription(MarkerArray, "guidance/markers", self.markers.append, qos.LATCHED)
        self.broadcaster = TransformBroadcaster(self.node, fixed=True)
        assert self.trajectory.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert self.trajectory.trigger_activate() == TransitionCallbackReturn.SUCCESS
        assert self.until(
            lambda: (
                self.plan.get_subscription_count()
                and self.joints.get_subscription_count()
                and self.node.count_publishers("guidance")
            )
        )

    def now(self) -> float:
        return self.node.get_clock().now().nanoseconds * 1e-9

    def until(self, condition: Callable[[], object], timeout: float = 8.0) -> bool:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if condition():
                return True
            self.executor.spin_once(timeout_sec=0.02)
        return bool(condition())

    def move(self, q: np.ndarray = ARM.home) -> None:
        """Publish joint states until the node has a fresh one."""
        before = self.trajectory._guide.joints

        def arrived() -> bool:
            state = JointState(self.now(), q, np.zeros(7), 0.085)
            self.joints.publish(conversions.joint_state_to_msg(state, ARM.config))
            return self.trajectory._guide.joints is not before

        assert self.until(arrived)

    def ask(self, *waypoints: Waypoint, age: float = 0.1, **changes: object) -> GuidanceMsg:
        """Publish a plan; the guidance that answers it."""
        plan = WaypointPlan(
            self.now() - age, "eye", "base_link", f"plan{self.now()}", "task", "request", "words", "words", 0,
            1, (), waypoints, CAMERA, CameraIntrinsics(320, 240, 300.0, 300.0, 160.0, 120.0, "eye"), "model",
            "", 0, "digest",
        )  # fmt: skip
        msg = conversions.waypoint_plan_to_msg(dataclasses.replace(plan, **changes))
        return self.ask_message(msg)

    def ask_message(self, msg: WaypointPlanMsg) -> GuidanceMsg:
        self.plan.publish(msg)
        assert self.until(lambda: self.guidance and self.guidance[-1].plan_id == msg.plan_id), "no answer"
        return self.guidance[-1]

    def see(self) -> None:
        self.broadcaster.send(self.now(), {("base_link", "eye"): CAMERA})
        assert self.until(lambda: self.trajectory._transforms.known("base_link", "eye", None))

    def close(self) -> None:
        self.executor.shutdown()
        self.trajectory.destroy_node()
        self.node.destroy_node()


@pytest.fixture
def cell(ros: None) -> Iterator[Cell]:
    made = Cell()
    yield made
    made.close()


def test_guidance_starts_at_the_measured_tcp(cell: Cell) -> None:
    cell.see()
    q = ARM.home + 0.05
    cell.move(q)
    msg = cell.ask(*GOOD)
    assert msg.code == ErrorCode.NONE, msg.message
    guidance = conversions.guidance_from_msg(msg)
    np.testing.assert_allclose(guidance.position[0], ARM.fk(q).translation, atol=1e-9)
    np.testing.assert_allclose(guidance.position[-1], [0.5, 0.1, 0.2], atol=1e-6)
    assert guidance.events == (GripperEvent.OPEN, GripperEvent.CLOSE)
    assert cell.until(lambda: cell.paths and cell.markers)
    assert len(cell.paths[-1].poses) == len(guidance.progress)
    assert cell.paths[-1].header.frame_id == "base_link"


def test_waits_for_transform_and_joints_then_answers(cell: Cell) -> None:
    def arrive() -> None:
        timer.cancel()
        cell.broadcaster.send(cell.now(), {("base_link", "eye"): CAMERA})
        state = JointState(cell.now(), ARM.home, np.zeros(7), 0.085)
        cell.joints.publish(conversions.joint_state_to_msg(state, ARM.config))

    timer = cell.node.create_timer(0.3, arrive)
    assert cell.ask(*GOOD).code == ErrorCode.NONE


def test_no_transform(cell: Cell) -> None:
    cell.move()
    answer = cell.ask(*GOOD)
    assert answer.code == ErrorCode.NO_TRANSFORM
    assert not answer.poses
    cell.see()
    cell.move()
    assert cell.ask(*GOOD).code == ErrorCode.NONE


def test_no_joint_states(cell: Cell) -> None:
    cell.see()
    answer = cell.ask(*GOOD)
    assert answer.code == ErrorCode.SENSOR_LOST
    assert "joint_states" in answer.message


def test_refusals(cell: Cell) -> None:
    cell.see()
    cell.move()
    outside = cell.ask(waypoint(0.95, 0.0, 0.2))
    assert (outside.code, outside.unit) == (ErrorCode.OUT_OF_WORKSPACE, "m")
    assert outside.value == pytest.approx(0.95)
    assert outside.limit == pytest.approx(0.8)
    refused = cell.ask(code=ErrorCode.NO_TARGET, message="no red cube")
    assert (refused.code, refused.message) == (ErrorCode.NO_TARGET, "no red cube")
    assert cell.ask(*GOOD, age=500.0).code == ErrorCode.STALE_IMAGE
    cell.move()
    assert cell.ask(*GOOD).code == ErrorCode.NONE


def test_plan_with_a_pose_that_is_none(cell: Cell) -> None:
    cell.see()
    cell.move()
    plan = WaypointPlan(
        cell.now(), "eye", "base_link", "broken", "task", "request", "words", "words", 0, 1, (), GOOD, CAMERA,
        CameraIntrinsics(320, 240, 300.0, 300.0, 160.0, 120.0, "eye"), "model", "", 0, "digest",
    )  # fmt: skip
    msg = conversions.waypoint_plan_to_msg(plan)
    msg.waypoints[1].pose.position.x = float("nan")
    answer = cell.ask_message(msg)
    assert answer.code == ErrorCode.BAD_INPUT
    assert not answer.poses
