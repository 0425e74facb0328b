"""Node ``task``: the operator's door. It owns the steps, grants motion, and keeps the other nodes up."""

from __future__ import annotations

import sys
import time
from dataclasses import replace

from bridgevla.action import ExecuteInstruction
from bridgevla.msg import DepthQuality as DepthQualityMsg
from bridgevla.msg import Guidance as GuidanceMsg
from bridgevla.msg import InputLog as InputLogMsg
from bridgevla.msg import Lease as LeaseMsg
from bridgevla.msg import PlanRequest as PlanRequestMsg
from bridgevla.msg import Progress as ProgressMsg
from bridgevla.msg import TaskStatus as TaskStatusMsg
from bridgevla.msg import WaypointPlan as WaypointPlanMsg
from bridgevla.srv import ApprovePlan, Instruct
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.safety import Reason
from bridgevla_ros.core.task_desk import TaskDesk, TaskNodeConfig
from bridgevla_ros.core.task_machine import TaskConfig, TaskResult, TaskStatus
from bridgevla_ros.core.task_status import Stage, fields, refusal
from bridgevla_ros.core.types import Lease, PlanRequest
from bridgevla_ros.ros import clock, conversions, parameters, qos
from bridgevla_ros.ros.diagnostics import Diagnostics
from bridgevla_ros.ros.lifecycle_manager import LifecycleManager
from bridgevla_ros.ros.spin import run_node

_RATE = 50.0
_CLOCK_PERIOD = 0.5
_CLOCK_STILL = 10.0
"""Wall seconds in which ROS time may stand still: a simulator on a busy machine pauses for less."""
_CLOCK_REMEDY = "Look whether what publishes /clock runs: sim_arm, or a bag that is played. The task waits."


class TaskNode(Node):
    """Wires services, the action and topics to the task machine."""

    def __init__(self) -> None:
        super().__init__("task")
        settings, config = parameters.declare_all(self, TaskNodeConfig, TaskConfig)
        self._desk = TaskDesk(config, seed=settings.seed)
        self._machine = self._desk.machine
        self._goals: dict[str, ServerGoalHandle] = {}
        self._results: dict[bytes, ExecuteInstruction.Result] = {}
        self._request = self.create_publisher(PlanRequestMsg, "plan_request", qos.LATCHED)
        self._lease = self.create_publisher(LeaseMsg, "lease", qos.COMMAND)
        self._status = self.create_publisher(TaskStatusMsg, "status", qos.LATCHED)
        self._log = self.create_publisher(InputLogMsg, "~/inputs", qos.RELIABLE)
        self._diagnostics = Diagnostics(self)
        self.create_subscription(WaypointPlanMsg, "plan", self._on_plan, qos.LATCHED)
        self.create_subscription(GuidanceMsg, "guidance", self._on_guidance, qos.LATCHED)
        self.create_subscription(ProgressMsg, "progress", self._on_progress, qos.COMMAND)
        self.create_subscription(DepthQualityMsg, "depth_quality", self._on_depth, qos.RELIABLE)
        self.create_service(Instruct, "instruct", self._on_instruct)
        self.create_service(ApprovePlan, "approve_plan", self._on_approve)
        self._action = ActionServer(
            self,
            ExecuteInstruction,
            "execute_instruction",
            execute_callback=self._conclude,
            handle_accepted_callback=self._on_goal,
            goal_callback=lambda goal: GoalResponse.ACCEPT,
            cancel_callback=self._on_cancel,
        )
        self._manager = LifecycleManager(self, settings.managed_nodes)
        self._clock_moved = (0.0, 0.0)  # ROS time, and the steady clock when it was first read
        self.create_timer(1.0 / _RATE, self._tick)
        self.create_timer(_CLOCK_PERIOD, self._watch_clock, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _now(self) -> float:
        return clock.seconds(self)

    # ---- the operator

    def _on_instruct(self, request: Instruct.Request, response: Instruct.Response) -> Instruct.Response:
        try:
            response.task_id = self._begin(request)
        except BridgeError as error:
            response.code, response.message = int(error.code), _sentence(error)
            response.candidates = list(error.candidates)
        else:
            response.accepted, response.message = True, "planning"
        return response

    def _begin(self, request: Instruct.Request | ExecuteInstruction.Goal) -> str:
        task_id = self._desk.instruct(
            self._now(),
            request.instruction,
            autonomy=request.autonomy,
            plan_only=request.plan_only,
            preempt=request.preempt,
            timeout=conversions.duration_from_msg(request.timeout),
        )
        self.get_logger().info(f"{task_id}: {self._machine.status.instruction[:200]!r}")
        return task_id

    def _on_approve(
        self, request: ApprovePlan.Request, response: ApprovePlan.Response
    ) -> ApprovePlan.Response:
        try:
            self._desk.approve(self._now(), request.plan_id, request.digest, request.approve, request.reason)
        except BridgeError as error:
            response.code, response.message = int(error.code), _sentence(error)
        else:
            response.accepted, response.message = True, "approved" if request.approve else "refused"
        return response

    def _on_goal(self, handle: ServerGoalHandle) -> None:
        """Begin a goal's task. It is executed, in rclpy's sense, when it has ended.

        A callback that waits for the end would need a thread of its own, or, as a coroutine, would be
        polled all the time: that took half a core here.
        """
        try:
            self._goals[self._begin(handle.request)] = handle
        except BridgeError as error:
            self._end_goal(handle, TaskResult(refusal(self._now(), error), 0, False))

    def _end_goal(self, handle: ServerGoalHandle, result: TaskResult) -> None:
        self._results[bytes(handle.goal_id.uuid)] = ExecuteInstruction.Result(
            status=conversions.task_status_to_msg(result.status),
            steps_done=result.steps_done,
            verified=result.verified,
        )
        handle.execute()

    def _conclude(self, handle: ServerGoalHandle) -> ExecuteInstruction.Result:
        result = self._results.pop(bytes(handle.goal_id.uuid))
        if result.status.code == ErrorCode.NONE:
            handle.succeed()
        elif handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
        return result

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        current = self._goals.get(self._machine.status.task_id)
        if current is None or bytes(current.goal_id.uuid) != bytes(handle.goal_id.uuid):
            return CancelResponse.REJECT
        self._desk.cancel(self._now())
        return CancelResponse.ACCEPT

    # ---- the other nodes

    def _on_plan(self, msg: WaypointPlanMsg) -> None:
        self._desk.on_plan(conversions.waypoint_plan_from_msg(msg), self._now())

    def _on_guidance(self, msg: GuidanceMsg) -> None:
        self._desk.on_guidance(conversions.guidance_from_msg(msg), self._now())

    def _on_progress(self, msg: ProgressMsg) -> None:
        self._desk.on_progress(conversions.progress_from_msg(msg), self._now())

    def _on_depth(self, msg: DepthQualityMsg) -> None:
        self._desk.on_depth_quality(conversions.depth_quality_from_msg(msg), self._now())

    # ---- time

    def _tick(self) -> None:
        now = self._now()
        if now <= 0.0:  # simulated time has not begun
            return
        self._desk.on_nodes(self._manager.lost(), now)
        for output in self._desk.tick(now):
            if isinstance(output, PlanRequest):
                self._request.publish(conversions.plan_request_to_msg(output))
            elif isinstance(output, Lease):
                self._lease.publish(conversions.lease_to_msg(output))
            else:
                self._publish_status(output)
        self._end_goals()
        log = self._desk.log(now)
        if log is not None:
            self._log.publish(conversions.input_log_to_msg(log))

    def _watch_clock(self) -> None:
        """Say it where ROS time stands still: no timer on it runs then, and nothing else here would speak."""
        now, steady = self._now(), time.monotonic()
        if now != self._clock_moved[0]:
            self._clock_moved = (now, steady)
        stood = steady - self._clock_moved[1]
        if now > 0.0 and stood > _CLOCK_STILL:
            reason = Reason(ErrorCode.SENSOR_LOST, "ROS time stands still", stood, _CLOCK_STILL, "s")
            status = self._machine.status
            stage = Stage.HOLD if self._machine.running else status.stage
            said = fields(reason) | {"stage": stage, "speed_scale": 0.0, "remedy": _CLOCK_REMEDY}
            self._publish_status(replace(status, **said))

    def _publish_status(self, status: TaskStatus) -> None:
        message = conversions.task_status_to_msg(status)
        self._status.publish(message)
        goal = self._goals.get(status.task_id)
        if goal is not None and goal.is_active:
            goal.publish_feedback(ExecuteInstruction.Feedback(status=message))
        values = {"stage": status.stage.name, "task": status.task_id, "step": status.step}
        self._diagnostics.set(status.code, status.message or status.stage.name, values)

    def _end_goals(self) -> None:
        """Wake the goals whose task has ended; one that was pre-empted ended too."""
        running = self._machine.status.task_id if self._machine.running else ""
        for task_id in [name for name in self._goals if name != running]:
            result = self._machine.result
            if result is None or result.status.task_id != task_id:
                came_first = BridgeError(ErrorCode.CANCELLED, "another instruction came first")
                result = TaskResult(replace(refusal(self._now(), came_first), task_id=task_id), 0, False)
            self._end_goal(self._goals.pop(task_id), result)


def _sentence(error: BridgeError) -> str:
    return f"{error.message}. {error.remedy}" if error.remedy else error.message


def main() -> int:
    """Entry point."""
    return run_node(TaskNode)


if __name__ == "__main__":
    sys.exit(main())
