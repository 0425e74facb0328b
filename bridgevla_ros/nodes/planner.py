"""Node ``planner``: a request, an image and words in, a plan of waypoints out."""

from __future__ import annotations

import dataclasses
import queue
import sys
import threading
import time

from bridgevla.msg import PlanRequest as PlanRequestMsg
from bridgevla.msg import TaskStatus as TaskStatusMsg
from bridgevla.msg import WaypointPlan as WaypointPlanMsg
from sensor_msgs.msg import CameraInfo, Image
from sensor_msgs.msg import JointState as JointStateMsg

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.types import PlanRequest, RgbdFrame, WaypointPlan
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.draw import annotate
from bridgevla_ros.planner.matching import FrameMatcher, Job, PlannerNodeConfig, unanswered
from bridgevla_ros.planner.planner import Planner
from bridgevla_ros.ros import clock, conversions, parameters, qos
from bridgevla_ros.ros.diagnostics import Diagnostics
from bridgevla_ros.ros.lifecycle import ManagedNode
from bridgevla_ros.ros.spin import run_node
from bridgevla_ros.ros.tf import TransformBuffer


class PlannerNode(ManagedNode):
    """Answers every request with exactly one plan or refusal. A new request supersedes one that waits."""

    def __init__(self) -> None:
        super().__init__("planner")
        self._settings, self._planner_config = parameters.declare_all(self, PlannerNodeConfig, PlannerConfig)

    def configure(self) -> None:
        """Load the weights, open the topics, start the worker."""
        self._planner = Planner(self._planner_config)
        self._frames: FrameMatcher[Image, CameraInfo] = FrameMatcher(
            self._settings, self._planner_config.base_frame, conversions.frame_from_msgs
        )
        self._waiting: tuple[PlanRequest, float, float] | None = None
        self._answered: set[str] = set()
        self._planning = ""  # task of the newest job
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[WaypointPlan, RgbdFrame]] = queue.SimpleQueue()
        self._transforms = TransformBuffer(self)
        self._diagnostics = Diagnostics(self)
        self._plan = self.create_publisher(WaypointPlanMsg, "plan", qos.LATCHED)
        self._image = self.create_publisher(Image, "plan/image", qos.LATCHED)
        self._inputs = [
            self.create_subscription(PlanRequestMsg, "plan_request", self._on_request, qos.LATCHED),
            self.create_subscription(TaskStatusMsg, "status", self._on_status, qos.LATCHED),
            self.create_subscription(Image, "camera/color/image_raw", self._on_color, qos.SENSOR),
            self.create_subscription(Image, "camera/depth/image_raw", self._on_depth, qos.SENSOR),
            self.create_subscription(CameraInfo, "camera/color/camera_info", self._on_info, qos.SENSOR),
            self.create_subscription(JointStateMsg, "joint_states", self._on_joints, qos.SENSOR),
        ]
        self._timer = self.create_timer(0.02, self._serve)
        self._worker = threading.Thread(target=self._work, name="planner", daemon=True)
        self._worker.start()

    def cleanup(self) -> None:
        """Stop the worker, close the topics."""
        self._jobs.put(None)
        self._worker.join(timeout=10.0)
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        for publisher in (self._plan, self._image):
            self.destroy_publisher(publisher)
        self.destroy_timer(self._timer)
        self._transforms.close()

    def _now(self) -> float:
        return clock.seconds(self)

    def _on_color(self, msg: Image) -> None:
        self._frames.color.add(conversions.stamp_from_msg(msg.header.stamp), msg)

    def _on_depth(self, msg: Image) -> None:
        self._frames.depth.add(conversions.stamp_from_msg(msg.header.stamp), msg)

    def _on_info(self, msg: CameraInfo) -> None:
        self._frames.info.add(conversions.stamp_from_msg(msg.header.stamp), msg)

    def _on_joints(self, msg: JointStateMsg) -> None:
        self._frames.joints.add(conversions.joint_state_from_msg(msg, self._planner.arm.config))

    def _on_request(self, msg: PlanRequestMsg) -> None:
        if not self.active:
            return
        request = conversions.plan_request_from_msg(msg)
        if request.request_id in self._answered:
            return  # latched: the last request comes again after a reconnection
        if self._waiting is not None:
            superseded = self._waiting[0]
            error = BridgeError(ErrorCode.CANCELLED, f"request {request.request_id} came in its place")
            self._refuse(superseded, error)
        self._answered.add(request.request_id)
        self._planner.cancel()  # what is still being thought about is no longer wanted
        # Wall time ends a wait as well: simulated time stands still when the simulator dies.
        self._waiting = (request, self._now(), time.monotonic())

    def _on_status(self, msg: TaskStatusMsg) -> None:
        """A task that has ended needs no plan."""
        if msg.task_id == self._planning and msg.stage in (TaskStatusMsg.DONE, TaskStatusMsg.FAILED):
            self._planning = ""
            self._planner.cancel()

    def _serve(self) -> None:
        """Publish what the worker made; hand over a waiting request as soon as its image is there."""
        while not self._results.empty():
            plan, frame = self._results.get()
            self._publish(plan, frame)
        if not self.active or self._waiting is None:
            return
        request, since, since_wall = self._waiting
        now = self._now()
        waited = max(now - since, (time.monotonic() - since_wall) / 10.0)
        try:
            job = self._frames.job(request, self._transforms.lookup, now)
        except BridgeError as error:
            patient = error.code in (ErrorCode.STALE_IMAGE, ErrorCode.NO_TRANSFORM)
            if patient and 0.0 <= waited < self._settings.image_timeout:
                return
            self._waiting = None
            self._refuse(request, error)
            return
        self._waiting = None
        self._planning = request.task_id
        self._jobs.put(job)

    def _work(self) -> None:
        """Plan, one job after the other; the executor stays free."""
        while True:
            job = self._jobs.get()
            if job is None:
                return
            started = time.monotonic()
            plan = job.plan(
                self._planner, lambda trace: self.get_logger().error(f"planning failed:\n{trace}")
            )
            latency = plan.latency + time.monotonic() - started
            self._results.put((dataclasses.replace(plan, latency=latency), job.frame))

    def _refuse(self, request: PlanRequest, error: BridgeError) -> None:
        """Answer without having looked at an image."""
        self._publish(unanswered(self._planner, request, error, self._now()), None)

    def _publish(self, plan: WaypointPlan, frame: RgbdFrame | None) -> None:
        self._plan.publish(conversions.waypoint_plan_to_msg(plan))
        if frame is not None:
            image = annotate(frame.rgb, plan)
            self._image.publish(conversions.rgb_to_msg(image, plan.stamp, plan.camera_frame))
        if plan.code != ErrorCode.NONE:
            self.get_logger().warning(f"{plan.request_id} refused: {plan.code.name}: {plan.message}")
        self._diagnostics.set(
            plan.code,
            plan.message or f"plan {plan.plan_id}",
            {
                "model": plan.model,
                "latency_s": plan.latency,
                "null_probability": plan.null_probability,
                **(self._planner.costs() if frame is not None else {}),
            },
        )


def main() -> int:
    """Entry point."""
    return run_node(PlannerNode)


if __name__ == "__main__":
    sys.exit(main())
