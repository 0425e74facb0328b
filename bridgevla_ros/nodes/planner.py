"""Node ``planner``: a request, an image and words in, a plan of waypoints out."""

from __future__ import annotations

import dataclasses
import queue
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bridgevla.msg import PlanRequest as PlanRequestMsg
from bridgevla.msg import WaypointPlan as WaypointPlanMsg
from sensor_msgs.msg import CameraInfo, Image

from bridgevla_ros.core.config import param
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import CameraIntrinsics, PlanRequest, RgbdFrame, WaypointPlan
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.draw import annotate
from bridgevla_ros.planner.planner import Planner
from bridgevla_ros.ros import conversions, parameters, qos
from bridgevla_ros.ros.diagnostics import Diagnostics
from bridgevla_ros.ros.lifecycle import ManagedNode
from bridgevla_ros.ros.spin import run_node
from bridgevla_ros.ros.tf import TransformBuffer


@dataclass(frozen=True)
class PlannerNodeConfig:
    """Parameters of the node beside those of the planner."""

    image_timeout: float = param(
        3.0,
        "A request waits this long for an image taken after it, and for its transform",
        unit="s",
        ge=0.1,
        le=60.0,
    )
    sync_tolerance: float = param(
        0.02, "Colour, depth and camera_info may differ by this in stamp", unit="s", ge=0.0, le=1.0
    )


@dataclass(frozen=True)
class Job:
    """What the worker plans."""

    request: PlanRequest
    frame: RgbdFrame
    T_base_camera: Transform
    now: float


NO_CAMERA = CameraIntrinsics(1, 1, 1.0, 1.0, 0.0, 0.0)


class PlannerNode(ManagedNode):
    """Answers every request with exactly one plan or refusal. A new request supersedes one that waits."""

    def __init__(self) -> None:
        super().__init__("planner")
        self._settings, self._planner_config = parameters.declare_all(self, PlannerNodeConfig, PlannerConfig)

    def configure(self) -> None:
        """Load the weights, open the topics, start the worker."""
        self._planner = Planner(self._planner_config)
        self._rgb: deque[Image] = deque(maxlen=12)
        self._depth: deque[Image] = deque(maxlen=12)
        self._info: deque[CameraInfo] = deque(maxlen=12)
        self._waiting: tuple[PlanRequest, float, float] | None = None
        self._answered: set[str] = set()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[WaypointPlan, RgbdFrame]] = queue.SimpleQueue()
        self._transforms = TransformBuffer(self)
        self._diagnostics = Diagnostics(self)
        self._plan = self.create_publisher(WaypointPlanMsg, "plan", qos.LATCHED)
        self._image = self.create_publisher(Image, "plan/image", qos.LATCHED)
        self._inputs = [
            self.create_subscription(PlanRequestMsg, "plan_request", self._on_request, qos.LATCHED),
            self.create_subscription(Image, "camera/color/image_raw", _keep(self._rgb), qos.SENSOR),
            self.create_subscription(Image, "camera/depth/image_raw", _keep(self._depth), qos.SENSOR),
            self.create_subscription(CameraInfo, "camera/color/camera_info", _keep(self._info), qos.SENSOR),
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
        return float(self.get_clock().now().nanoseconds) * 1e-9

    def _on_request(self, msg: PlanRequestMsg) -> None:
        if not self.active:
            return
        request = conversions.plan_request_from_msg(msg)
        if request.request_id in self._answered:
            return  # latched: the last request comes again after a reconnection
        if self._waiting is not None:
            superseded = self._waiting[0]
            error = BridgeError(ErrorCode.CANCELLED, f"request {request.request_id} came in its place")
            self._refuse(superseded, error, superseded.stamp)
        self._answered.add(request.request_id)
        # Wall time ends a wait as well: simulated time stands still when the simulator dies.
        self._waiting = (request, self._now(), time.monotonic())

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
            job = self._job(request, now)
        except BridgeError as error:
            patient = error.code in (ErrorCode.STALE_IMAGE, ErrorCode.NO_TRANSFORM)
            if patient and 0.0 <= waited < self._settings.image_timeout:
                return
            self._waiting = None
            self._refuse(request, error, request.stamp)
            return
        self._waiting = None
        self._jobs.put(job)

    def _job(self, request: PlanRequest, now: float) -> Job:
        """The newest synchronised frame taken after the request, with its transform."""
        tolerance = self._settings.sync_tolerance
        fresh = [
            d for d in reversed(self._depth) if conversions.stamp_from_msg(d.header.stamp) >= request.stamp
        ]
        for depth in fresh:
            stamp = conversions.stamp_from_msg(depth.header.stamp)
            rgb, info = _nearest(self._rgb, stamp, tolerance), _nearest(self._info, stamp, tolerance)
            if rgb is None or info is None or conversions.stamp_from_msg(rgb.header.stamp) < request.stamp:
                continue
            frame = conversions.frame_from_msgs(rgb, info, depth)
            transform = self._transforms.lookup(
                self._planner_config.base_frame, frame.intrinsics.frame, frame.stamp
            )
            return Job(request, frame, transform, now)
        raise self._missing(request, now)

    def _missing(self, request: PlanRequest, now: float) -> BridgeError:
        """Which of the streams keeps the request waiting."""
        streams = {"colour": self._rgb, "depth": self._depth, "camera_info": self._info}
        newest = {
            k: conversions.stamp_from_msg(v[-1].header.stamp) if v else None for k, v in streams.items()
        }
        absent = [k for k, v in newest.items() if v is None]
        if absent:
            text = f"no {' and no '.join(absent)} was received"
            age = float("inf")
        else:
            oldest = min(newest, key=lambda k: newest[k] or 0.0)
            age = now - float(newest[oldest] or 0.0)
            text = f"no synchronised image since the request; the newest {oldest} is {age:.1f} s old"
        return BridgeError(
            ErrorCode.STALE_IMAGE,
            text,
            value=age,
            limit=self._settings.image_timeout,
            unit="s",
            remedy="check the camera's driver, its topics' names and its clock",
        )

    def _work(self) -> None:
        """Plan, one job after the other; the executor stays free."""
        while True:
            job = self._jobs.get()
            if job is None:
                return
            started = time.monotonic()
            try:
                plan = self._planner.plan(job.request, job.frame, job.T_base_camera, now=job.now)
            except Exception as error:
                self.get_logger().error(f"planning failed:\n{traceback.format_exc()}")
                failure = BridgeError(ErrorCode.MODEL_ERROR, f"{type(error).__name__}: {error}")
                plan = self._planner.refusal(
                    job.request, failure, job.frame.stamp, job.frame.intrinsics, job.T_base_camera
                )
            latency = plan.latency + time.monotonic() - started
            self._results.put((dataclasses.replace(plan, latency=latency), job.frame))

    def _refuse(self, request: PlanRequest, error: BridgeError, stamp: float) -> None:
        """Answer without having looked at an image."""
        self._publish(self._planner.refusal(request, error, stamp, NO_CAMERA, Transform.identity()), None)

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
            {"model": plan.model, "latency_s": plan.latency, "null_probability": plan.null_probability},
        )


def _keep(messages: deque[Any]) -> Callable[[Any], None]:
    """A callback that keeps messages; rclpy takes no built-in method."""

    def keep(msg: Any) -> None:
        messages.append(msg)

    return keep


def _nearest(
    messages: deque[Image] | deque[CameraInfo], stamp: float, tolerance: float
) -> Image | CameraInfo | None:
    """The message nearest to a stamp, None beyond the tolerance."""
    if not messages:
        return None
    best = min(messages, key=lambda m: abs(conversions.stamp_from_msg(m.header.stamp) - stamp))
    return best if abs(conversions.stamp_from_msg(best.header.stamp) - stamp) <= tolerance else None


def main() -> int:
    """Entry point."""
    return run_node(PlannerNode)


if __name__ == "__main__":
    sys.exit(main())
