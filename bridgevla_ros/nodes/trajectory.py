"""Node ``trajectory``: plans in, timed splines out."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from bridgevla.msg import Guidance as GuidanceMsg
from bridgevla.msg import WaypointPlan as WaypointPlanMsg
from nav_msgs.msg import Path
from sensor_msgs.msg import JointState as JointStateMsg
from visualization_msgs.msg import MarkerArray

from bridgevla_ros.core.config import param
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.trajectory import TrajectoryConfig, TrajectoryGenerator, refusal, refused
from bridgevla_ros.core.types import Guidance, JointState, WaypointPlan
from bridgevla_ros.ros import conversions, parameters, qos
from bridgevla_ros.ros.diagnostics import Diagnostics
from bridgevla_ros.ros.lifecycle import ManagedNode
from bridgevla_ros.ros.spin import run_node
from bridgevla_ros.ros.tf import TransformBuffer


@dataclass(frozen=True)
class TrajectoryNodeConfig:
    """Parameters of the node beside those of the generator."""

    robot: str = param("panda_2f85", "Robot of config/robots, or a path to its YAML file")
    joint_max_age: float = param(0.5, "Older joint states are SENSOR_LOST", unit="s", ge=0.01, le=10.0)
    plan_max_age: float = param(120.0, "Plans of an older image are STALE_IMAGE", unit="s", ge=0.1, le=3600.0)
    wait: float = param(
        1.0, "A plan waits this long for transforms and joint states", unit="s", ge=0.0, le=30.0
    )


class TrajectoryNode(ManagedNode):
    """Makes guidance from each plan, starting at the TCP that is measured when the plan arrives."""

    def __init__(self) -> None:
        super().__init__("trajectory")
        self._settings, generator = parameters.declare_all(self, TrajectoryNodeConfig, TrajectoryConfig)
        self._generator = TrajectoryGenerator(generator)

    def configure(self) -> None:
        """Load the robot, open the topics."""
        self._arm = ArmModel.load(self._settings.robot)
        self._joints: JointState | None = None
        self._waiting: tuple[WaypointPlan, float] | None = None
        self._transforms = TransformBuffer(self, memory=self._settings.plan_max_age)
        self._diagnostics = Diagnostics(self)
        self._guidance = self.create_publisher(GuidanceMsg, "guidance", qos.LATCHED)
        self._path = self.create_publisher(Path, "guidance/path", qos.LATCHED)
        self._markers = self.create_publisher(MarkerArray, "guidance/markers", qos.LATCHED)
        self._inputs = [
            self.create_subscription(WaypointPlanMsg, "plan", self._on_plan, qos.LATCHED),
            self.create_subscription(JointStateMsg, "joint_states", self._on_joints, qos.SENSOR),
        ]
        self._timer = self.create_timer(0.02, self._serve)

    def cleanup(self) -> None:
        """Close the topics."""
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        for publisher in (self._guidance, self._path, self._markers):
            self.destroy_publisher(publisher)
        self.destroy_timer(self._timer)

    def _now(self) -> float:
        return float(self.get_clock().now().nanoseconds) * 1e-9

    def _on_joints(self, msg: JointStateMsg) -> None:
        self._joints = conversions.joint_state_from_msg(msg, self._arm.joint_names)

    def _on_plan(self, msg: WaypointPlanMsg) -> None:
        if not self.active:
            return
        try:
            plan = conversions.waypoint_plan_from_msg(msg)
        except BridgeError as error:
            stamp = conversions.stamp_from_msg(msg.header.stamp)
            self._publish(refused(stamp, msg.base_frame or "base_link", msg.plan_id, msg.task_id, error))
            return
        self._waiting = (plan, self._now())
        self._serve()

    def _serve(self) -> None:
        """Answer the waiting plan as soon as transforms and joint states allow, or refuse it in the end."""
        if not self.active or self._waiting is None:
            return
        plan, since = self._waiting
        now = self._now()
        try:
            guidance = self._generate(plan, now)
        except BridgeError as error:
            patient = error.code in (ErrorCode.NO_TRANSFORM, ErrorCode.SENSOR_LOST)
            if patient and 0.0 <= now - since < self._settings.wait:
                return
            guidance = refusal(plan, error)
        self._waiting = None
        self._publish(guidance)

    def _generate(self, plan: WaypointPlan, now: float) -> Guidance:
        if plan.code != ErrorCode.NONE:
            return refusal(plan, BridgeError(plan.code, plan.message))
        if now - plan.stamp > self._settings.plan_max_age:
            raise BridgeError(
                ErrorCode.STALE_IMAGE,
                f"plan {plan.plan_id} was made from an image {now - plan.stamp:.1f} s old",
                value=now - plan.stamp,
                limit=self._settings.plan_max_age,
                unit="s",
            )
        transform = self._transforms.lookup(plan.base_frame, plan.camera_frame, plan.stamp)
        joints = self._joints
        age = now - joints.stamp if joints is not None else float("inf")
        if joints is None or age > self._settings.joint_max_age:
            raise BridgeError(
                ErrorCode.SENSOR_LOST,
                "no joint_states yet" if joints is None else f"joint_states are {age:.2f} s old",
                value=age,
                limit=self._settings.joint_max_age,
                unit="s",
                remedy="Start the arm's driver, or check that its clock is this one's.",
            )
        return self._generator.generate(plan, transform, self._arm.fk(joints.position), joints.gripper_width)

    def _publish(self, guidance: Guidance) -> None:
        if guidance.code != ErrorCode.NONE:
            self.get_logger().warning(
                f"plan {guidance.plan_id} refused: {guidance.code.name}: {guidance.message}"
            )
        self._guidance.publish(conversions.guidance_to_msg(guidance))
        self._path.publish(conversions.guidance_to_path(guidance))
        self._markers.publish(conversions.guidance_to_markers(guidance))
        self._diagnostics.set(
            guidance.code,
            guidance.message or f"guidance {guidance.guidance_id}",
            {"plan": guidance.plan_id, "duration_s": guidance.duration, "samples": len(guidance.progress)},
        )


def main() -> int:
    """Entry point."""
    return run_node(TrajectoryNode)


if __name__ == "__main__":
    sys.exit(main())
