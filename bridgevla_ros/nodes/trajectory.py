"""Node ``trajectory``: plans in, timed splines out."""

from __future__ import annotations

import sys
from dataclasses import replace

from bridgevla.msg import Guidance as GuidanceMsg
from bridgevla.msg import WaypointPlan as WaypointPlanMsg
from nav_msgs.msg import Path
from sensor_msgs.msg import JointState as JointStateMsg
from visualization_msgs.msg import MarkerArray

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.guiding import Guide, TrajectoryNodeConfig
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.trajectory import TrajectoryConfig, TrajectoryGenerator, refused
from bridgevla_ros.core.types import Guidance, WaypointPlan
from bridgevla_ros.ros import clock, conversions, parameters, qos
from bridgevla_ros.ros.diagnostics import Diagnostics
from bridgevla_ros.ros.lifecycle import ManagedNode
from bridgevla_ros.ros.spin import run_node
from bridgevla_ros.ros.tf import TransformBuffer


class TrajectoryNode(ManagedNode):
    """Makes guidance from each plan, starting at the TCP that is measured when the plan arrives."""

    def __init__(self) -> None:
        super().__init__("trajectory")
        self._settings, generator = parameters.declare_all(self, TrajectoryNodeConfig, TrajectoryConfig)
        self._generator = TrajectoryGenerator(generator)

    def configure(self) -> None:
        """Load the robot, open the topics."""
        self._arm = ArmModel.load(self._settings.robot)
        self._guide = Guide(self._settings, self._generator, self._arm)
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
        return clock.seconds(self)

    def _on_joints(self, msg: JointStateMsg) -> None:
        self._guide.joints = conversions.joint_state_from_msg(msg, self._arm.config)

    def _on_plan(self, msg: WaypointPlanMsg) -> None:
        if not self.active:
            return
        try:
            plan = conversions.waypoint_plan_from_msg(msg)
        except BridgeError as error:
            stamp = conversions.stamp_from_msg(msg.header.stamp)
            answer = refused(stamp, msg.base_frame or "base_link", msg.plan_id, msg.task_id, error)
            self._publish(replace(answer, computed_at=self._now()))
            return
        if plan.code == ErrorCode.NONE and not plan.waypoints:
            return  # a step is done: there is nothing to follow
        self._waiting = (plan, self._now())
        self._serve()

    def _serve(self) -> None:
        """Answer the waiting plan as soon as transforms and joint states allow, or refuse it in the end."""
        if not self.active or self._waiting is None:
            return
        plan, since = self._waiting
        now = self._now()
        try:
            guidance = self._guide.guidance(plan, self._transforms.lookup, now)
        except BridgeError as error:
            patient = error.code in (ErrorCode.NO_TRANSFORM, ErrorCode.SENSOR_LOST)
            if patient and 0.0 <= now - since < self._settings.wait:
                return
            guidance = self._guide.refused(plan, error, now)
        self._waiting = None
        self._publish(guidance)

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
