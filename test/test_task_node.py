"""The task as a process: services, the action, and the lifecycle of the other nodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from bridgevla.action import ExecuteInstruction
from bridgevla.msg import Guidance as GuidanceMsg
from bridgevla.msg import Lease as LeaseMsg
from bridgevla.msg import PlanRequest as PlanRequestMsg
from bridgevla.msg import Progress as ProgressMsg
from bridgevla.msg import TaskStatus as TaskStatusMsg
from bridgevla.msg import WaypointPlan as WaypointPlanMsg
from bridgevla.srv import Instruct
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from streamer_rig import pick_and_place

from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.task_machine import Stage
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import CameraIntrinsics, Progress, StreamerState, WaypointPlan
from bridgevla_ros.ros import conversions, qos
from bridgevla_ros.ros.lifecycle import ManagedNode

S = StreamerState


class Cell:
    """A managed node called planner, and the topics of planner, trajectory and streamer."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(node)
        self.managed: ManagedNode | None = None
        self.requests: list[PlanRequestMsg] = []
        self.leases: list[LeaseMsg] = []
        self.statuses: list[TaskStatusMsg] = []
        self.guidance = pick_and_place()  # of plan "p"
        self.said = Progress(0.0, "", 0.0, 0, S.HELD, 0.0, 0.085)
        self.plan = node.create_publisher(WaypointPlanMsg, "plan", qos.LATCHED)
        self.path = node.create_publisher(GuidanceMsg, "guidance", qos.LATCHED)
        self.progress = node.create_publisher(ProgressMsg, "progress", qos.COMMAND)
        node.create_subscription(PlanRequestMsg, "plan_request", self._on_request, qos.LATCHED)
        node.create_subscription(LeaseMsg, "lease", self.leases.append, qos.COMMAND)
        node.create_subscription(TaskStatusMsg, "status", self.statuses.append, qos.LATCHED)
        node.create_timer(0.05, self._report)
        self.instruct = node.create_client(Instruct, "instruct")
        self.action = ActionClient(node, ExecuteInstruction, "execute_instruction")

    def spin(self, condition: Callable[[], bool], timeout: float = 15.0) -> bool:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and not condition():
            self.executor.spin_once(timeout_sec=0.02)
        return condition()

    def wait(self, stage: Stage, timeout: float = 15.0) -> TaskStatusMsg:
        reached = self.spin(lambda: bool(self.statuses) and self.statuses[-1].stage == stage, timeout)
        assert reached, self.statuses[-1:]
        return self.statuses[-1]

    def start_planner(self) -> None:
        self.managed = ManagedNode("planner")
        self.executor.add_node(self.managed)

    def end_planner(self) -> None:
        assert self.managed is not None
        self.executor.remove_node(self.managed)
        self.managed.destroy_node()
        self.managed = None

    def end(self) -> None:
        if self.managed is not None:
            self.end_planner()
        self.action.destroy()
        self.executor.remove_node(self.node)
        self.executor.shutdown(1.0)

    def _report(self) -> None:
        stamp = float(self.node.get_clock().now().nanoseconds) * 1e-9
        p = self.said
        self.progress.publish(
            conversions.progress_to_msg(
                Progress(stamp, p.guidance_id, p.progress, p.events_done, p.state, 1.0, p.gripper_width)
            )
        )

    def say(self, progress: float, events: int, state: StreamerState, width: float) -> None:
        self.said = Progress(0.0, self.guidance.guidance_id, progress, events, state, 1.0, width)

    def _on_request(self, msg: PlanRequestMsg) -> None:
        self.requests.append(msg)
        if self.managed is None or not self.managed.active:
            return
        refuse = "unicorn" in msg.instruction
        plan = WaypointPlan(
            stamp=0.0, camera_frame="c", base_frame="base_link", plan_id="p", task_id=msg.task_id,
            request_id=msg.request_id, instruction=msg.instruction, subgoal="", step=0, steps_total=1,
            anchors=(), waypoints=(), T_base_camera=Transform.identity(),
            intrinsics=CameraIntrinsics(8, 8, 9.0, 9.0, 4.0, 4.0), model="m", model_sha256="", seed=0,
            digest="d", code=ErrorCode.NO_TARGET if refuse else ErrorCode.NONE,
            message="no unicorn here" if refuse else "", candidates=("the red cube",) if refuse else (),
        )  # fmt: skip
        self.plan.publish(conversions.waypoint_plan_to_msg(plan))
        if not refuse:
            self.path.publish(conversions.guidance_to_msg(self.guidance))

    def goal(self, instruction: str) -> Any:
        assert self.action.wait_for_server(15.0)
        feedback: list[Any] = []
        sent = self.action.send_goal_async(
            ExecuteInstruction.Goal(instruction=instruction), feedback_callback=feedback.append
        )
        assert self.spin(sent.done)
        handle = sent.result()
        assert handle.accepted
        return handle, feedback

    def result(self, handle: Any) -> Any:
        future = handle.get_result_async()
        assert self.spin(future.done)
        return future.result()


@pytest.fixture
def cell(node: Node, processes: Any) -> Iterator[Cell]:
    processes.node("task", "-p", "managed_nodes:=[planner]", "-p", "recovery_timeout:=20.0")
    made = Cell(node)
    assert made.instruct.wait_for_service(20.0)
    made.start_planner()
    active = made.spin(lambda: made.managed is not None and made.managed.active)
    assert active, "the task configures and activates the planner"
    # The manager polls four times a second: let it see that.
    made.spin(lambda: False, 0.8)
    yield made
    made.end()


def test_instructions_to_their_end(cell: Cell) -> None:
    # Refused at the door.
    for text, code in (("", ErrorCode.NOT_UNDERSTOOD), ("x" * 100_000, ErrorCode.BAD_INPUT)):
        future = cell.instruct.call_async(Instruct.Request(instruction=text))
        assert cell.spin(future.done)
        assert not future.result().accepted
        assert future.result().code == code
        assert future.result().message

    # Refused by the planner.
    handle, _ = cell.goal("put the unicorn in the bowl")
    answer = cell.result(handle)
    assert (answer.status, answer.result.status.code) == (GoalStatus.STATUS_ABORTED, ErrorCode.NO_TARGET)
    assert list(cell.wait(Stage.FAILED).candidates) == ["the red cube"]
    assert not cell.leases

    # Carried out, with another refused meanwhile.
    handle, feedback = cell.goal("put the red cube in the bowl")
    cell.wait(Stage.MOVING)
    assert cell.spin(lambda: len(cell.leases) > 3)
    assert cell.leases[-1].guidance_id == cell.guidance.guidance_id
    second, _ = cell.goal("something else")
    assert cell.result(second).result.status.code == ErrorCode.BUSY
    cell.say(0.5, 2, S.MOVING, 0.03)
    cell.spin(lambda: False, 0.3)
    cell.say(1.0, 3, S.FINISHED, 0.085)
    answer = cell.result(handle)
    assert (answer.status, answer.result.status.code) == (GoalStatus.STATUS_SUCCEEDED, ErrorCode.NONE)
    assert (answer.result.steps_done, answer.result.verified) == (1, True)
    assert cell.wait(Stage.DONE).code == ErrorCode.NONE
    assert {m.feedback.status.stage for m in feedback} >= {Stage.PLANNING, Stage.MOVING}


def test_a_planner_that_dies_is_waited_for_and_cancel_ends_it(cell: Cell) -> None:
    handle, _ = cell.goal("put the red cube in the bowl")
    cell.wait(Stage.MOVING)
    # Not before: a task does not ask for a plan while the arm moves.
    cell.say(0.1, 0, S.MOVING, 0.085)
    assert cell.spin(lambda: cell.statuses[-1].progress > 0.05)
    cell.end_planner()
    held = cell.wait(Stage.HOLD)
    assert held.code == ErrorCode.CONTROLLER_INACTIVE
    assert "planner" in held.message
    cell.spin(lambda: False, 0.5)
    assert cell.leases[-1].guidance_id == "", "no permission to move while a node is lost"
    cell.start_planner()
    cell.wait(Stage.MOVING)
    assert cell.managed is not None
    assert cell.managed.active, "it was configured and activated again"

    future = handle.cancel_goal_async()
    assert cell.spin(future.done)
    answer = cell.result(handle)
    assert (answer.status, answer.result.status.code) == (GoalStatus.STATUS_CANCELED, ErrorCode.CANCELLED)
    assert cell.wait(Stage.FAILED).code == ErrorCode.CANCELLED
    cell.spin(lambda: False, 0.5)
    assert cell.leases[-1].guidance_id == ""
    assert not cell.statuses[-1].lease_valid
    assert np.isnan(cell.statuses[-1].value)
