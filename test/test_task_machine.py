"""The task's rules: what it grants, refuses, retries, waits for and gives up on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.task_machine import Stage, TaskConfig, TaskMachine, TaskStatus
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import (
    CHECK,
    CameraIntrinsics,
    DepthQuality,
    GripperEvent,
    Guidance,
    Lease,
    PlanRequest,
    Progress,
    StreamerState,
    WaypointPlan,
)

S = StreamerState
EVENTS = (GripperEvent.OPEN, GripperEvent.CLOSE, GripperEvent.OPEN)


class Bench:
    """A task machine with the other nodes played by the test."""

    def __init__(self, config: TaskConfig | None = None, **goal: object) -> None:
        self.machine = TaskMachine(config or TaskConfig())
        self.now = 5.0
        self.requests: list[PlanRequest] = []
        self.leases: list[Lease] = []
        self.statuses: list[TaskStatus] = []
        self.guidance_id = ""
        self.task_id = self.machine.instruct(self.now, "put the red cube in the bowl", **goal)  # type: ignore[arg-type]

    @property
    def status(self) -> TaskStatus:
        return self.machine.status

    def run(self, seconds: float = 0.05) -> TaskStatus:
        for _ in range(max(1, round(seconds / 0.05))):
            self.now = round(self.now + 0.05, 6)
            for output in self.machine.tick(self.now):
                if isinstance(output, PlanRequest):
                    self.requests.append(output)
                elif isinstance(output, Lease):
                    self.leases.append(output)
                else:
                    self.statuses.append(output)
        return self.status

    def plan(self, code: ErrorCode = ErrorCode.NONE, steps: int = 1, **changes: object) -> None:
        request = self.requests[-1]
        plan = WaypointPlan(
            stamp=self.now, camera_frame="c", base_frame="b", plan_id=f"plan-{request.request_id}",
            task_id=self.task_id, request_id=request.request_id, instruction=request.instruction, subgoal="",
            step=request.step, steps_total=steps, anchors=(), waypoints=(),
            T_base_camera=Transform.identity(),
            intrinsics=CameraIntrinsics(1, 1, 1.0, 1.0, 0.0, 0.0), model="", model_sha256="", seed=0,
            digest="d" + request.request_id, code=code, message="" if code == 0 else "no such thing",
            candidates=("the red cube",) if code else (),
        )  # fmt: skip
        self.machine.on_plan(replace(plan, **changes), self.now)  # type: ignore[arg-type]

    def guide(self, code: ErrorCode = ErrorCode.NONE) -> None:
        plan = self.machine.plan
        assert plan is not None
        self.guidance_id = f"g-{plan.plan_id}"
        empty = np.zeros(0)
        guidance = Guidance(
            stamp=self.now, base_frame="b", guidance_id=self.guidance_id, plan_id=plan.plan_id,
            task_id=self.task_id, progress=empty, nominal_time=empty, position=empty, quat=empty,
            linear_velocity=empty, angular_velocity=empty, event_progress=np.array([0.2, 0.4, 0.9]),
            events=EVENTS, event_width=empty, kind=np.zeros(0, np.int64),
            contact_position=np.zeros((2, 3)), contact_progress=np.array([0.4, 0.9]),
            contact_offset=np.zeros((2, 3)), code=code, message="too far" if code else "",
        )  # fmt: skip
        self.machine.on_guidance(guidance, self.now)

    def report(
        self, progress: float, state: StreamerState = S.MOVING, code: ErrorCode = ErrorCode.NONE,
        events: int = 0, width: float = 0.03, seconds: float = 0.05, guidance_id: str | None = None,
    ) -> TaskStatus:  # fmt: skip
        """The streamer says the same for a while."""
        for _ in range(max(1, round(seconds / 0.05))):
            given_id = self.guidance_id if guidance_id is None else guidance_id
            self.machine.on_progress(
                Progress(self.now, given_id, progress, events, state, 1.0, width, code, "why"), self.now
            )
            self.run()
        return self.status

    def start_moving(self) -> None:
        self.run()
        self.plan()
        self.guide()
        self.run()
        self.report(0.1, seconds=0.2)
        assert self.status.stage == Stage.MOVING

    def arrive(self, width: float = 0.085) -> TaskStatus:
        """Follow the path to its end."""
        self.report(0.5, events=2, width=0.03)
        self.report(0.95, events=3, width=width)
        return self.report(1.0, S.FINISHED, events=3, width=width)

    def finish(self, width: float = 0.085, code: ErrorCode = ErrorCode.NONE) -> TaskStatus:
        """The same, and the planner says whether the step is done."""
        self.arrive(width)
        if self.status.stage == Stage.VERIFYING:
            self.plan(code, plan_id="verdict", message="what depth says")
        return self.run()


def test_a_task_runs_to_done() -> None:
    bench = Bench()
    assert bench.run().stage == Stage.PLANNING
    assert [r.request_id for r in bench.requests] == [f"{bench.task_id}-0-0"]
    assert not bench.leases
    bench.plan()
    bench.guide()
    bench.run()
    bench.report(0.1, seconds=1.0)
    assert 9 <= len(bench.leases) <= 12
    assert all(lease.guidance_id == bench.guidance_id and lease.duration == 0.3 for lease in bench.leases)
    assert bench.report(0.4, S.GRIPPING, events=1).stage == Stage.GRIPPING
    status = bench.finish()
    assert (status.stage, status.code, status.lease_valid) == (Stage.DONE, ErrorCode.NONE, False)
    assert bench.leases[-1].guidance_id == "", "permission is taken back"
    assert bench.machine.result is not None
    assert bench.machine.result.verified
    check = bench.requests[-1]
    assert (check.attempt, check.step, check.stamp > bench.requests[0].stamp) == (CHECK, 0, True)
    assert (status.message, status.plan_id) == ("what depth says", bench.machine.plan.plan_id)
    stages = list(dict.fromkeys(s.stage for s in bench.statuses))
    assert stages == [Stage.PLANNING, Stage.MOVING, Stage.GRIPPING, Stage.VERIFYING, Stage.DONE]


def test_every_step_is_planned_anew() -> None:
    bench = Bench()
    bench.run()
    bench.plan(steps=2)
    bench.guide()
    bench.run()
    bench.finish()
    bench.run()
    assert (bench.status.stage, bench.status.step, bench.requests[-1].step) == (Stage.PLANNING, 1, 1)
    bench.plan(steps=2)
    bench.guide()
    bench.run()
    assert bench.finish().stage == Stage.DONE
    assert bench.machine.result is not None
    assert bench.machine.result.steps_done == 2


def test_what_depth_says_is_not_done_is_tried_again_and_then_given_up() -> None:
    bench = Bench(TaskConfig(max_retries=1))
    bench.start_moving()
    status = bench.finish(code=ErrorCode.VERIFY_FAILED)
    assert (status.stage, status.retries, bench.requests[-1].attempt) == (Stage.PLANNING, 1, 1)
    bench.plan()
    bench.guide()
    bench.run()
    status = bench.finish(code=ErrorCode.VERIFY_FAILED)
    assert (status.stage, status.code) == (Stage.FAILED, ErrorCode.VERIFY_FAILED)
    assert status.message == "what depth says"
    assert "where the thing is" in status.remedy
    assert bench.machine.result is not None
    assert not bench.machine.result.verified


def test_a_step_that_cannot_be_seen_is_done_and_not_verified() -> None:
    bench = Bench()
    bench.run()
    bench.plan(steps=2)
    bench.guide()
    bench.run()
    assert bench.finish(code=ErrorCode.DEPTH_HOLE).step == 1
    bench.plan(steps=2)
    bench.guide()
    bench.run()
    assert bench.finish().stage == Stage.DONE
    assert bench.machine.result is not None
    assert not bench.machine.result.verified, "each step counts, not the last alone"


def test_a_planner_that_does_not_judge_ends_the_task() -> None:
    bench = Bench(TaskConfig(plan_timeout=2.0))
    bench.start_moving()
    assert bench.arrive().stage == Stage.VERIFYING
    assert bench.run(1.5).stage == Stage.VERIFYING
    assert (bench.run(1.0).stage, bench.status.code) == (Stage.FAILED, ErrorCode.TIMEOUT)


def test_a_planner_that_is_lost_while_it_judges_is_waited_for() -> None:
    bench = Bench(TaskConfig(plan_timeout=2.0))
    bench.start_moving()
    bench.arrive()
    bench.machine.on_nodes(["planner"], bench.now)
    assert bench.run(4.0).stage == Stage.HOLD
    bench.machine.on_nodes([], bench.now)
    assert bench.run().stage == Stage.VERIFYING
    bench.plan(ErrorCode.DEPTH_HOLE)
    assert bench.run().stage == Stage.DONE


def test_the_gripper_alone_may_tell() -> None:
    bench = Bench(TaskConfig(done_by="gripper"))
    bench.start_moving()
    assert bench.arrive().stage == Stage.DONE
    assert [r.attempt for r in bench.requests] == [0]


def test_a_path_without_its_gripper_events_is_not_carried_out() -> None:
    bench = Bench()
    bench.start_moving()
    status = bench.report(1.0, S.FINISHED, events=1)
    assert (status.stage, status.code) == (Stage.FAILED, ErrorCode.VERIFY_FAILED)
    assert (status.value, status.limit) == (1.0, 3.0)


def test_busy_unless_preempted() -> None:
    bench = Bench()
    bench.start_moving()
    with pytest.raises(BridgeError, match="BUSY"):
        bench.machine.instruct(bench.now, "something else")
    second = bench.machine.instruct(bench.now, "something else", preempt=True)
    assert bench.machine.result is not None
    ended = bench.machine.result.status
    assert (ended.task_id, ended.code) == (bench.task_id, ErrorCode.CANCELLED)
    assert second != bench.task_id
    bench.report(0.1, S.MOVING, seconds=0.2)
    assert len(bench.requests) == 1, "planning waits until the arm stands"
    assert bench.leases[-1].guidance_id == ""
    bench.report(0.1, S.HELD, ErrorCode.LEASE_EXPIRED)
    assert bench.requests[-1].task_id == second


def test_cancel_takes_the_permission_back() -> None:
    bench = Bench()
    bench.start_moving()
    assert bench.machine.cancel(bench.now)
    status = bench.run()
    assert (status.stage, status.code) == (Stage.FAILED, ErrorCode.CANCELLED)
    assert bench.leases[-1].guidance_id == ""
    count = len(bench.leases)
    bench.run(1.0)
    assert len(bench.leases) == count
    assert not bench.machine.cancel(bench.now)


def test_a_refused_plan_says_what_could_have_been_meant() -> None:
    bench = Bench()
    bench.run()
    bench.plan(ErrorCode.NO_TARGET)
    assert (bench.status.stage, bench.status.code) == (Stage.FAILED, ErrorCode.NO_TARGET)
    assert bench.status.candidates == ("the red cube",)
    assert bench.status.remedy
    bench.run(1.0)
    assert not bench.leases


def test_refused_guidance_fails() -> None:
    bench = Bench()
    bench.run()
    bench.plan()
    bench.guide(ErrorCode.OUT_OF_WORKSPACE)
    assert (bench.run().stage, bench.status.code) == (Stage.FAILED, ErrorCode.OUT_OF_WORKSPACE)


def test_a_plan_for_another_request_is_ignored() -> None:
    bench = Bench()
    bench.run()
    bench.plan(request_id="old")
    assert bench.run().plan_id == ""


def test_plan_only_moves_nothing() -> None:
    bench = Bench(plan_only=True)
    bench.run()
    bench.plan()
    bench.guide()
    assert bench.run(1.0).stage == Stage.DONE
    assert not bench.leases


def test_ask_waits_for_the_digest() -> None:
    bench = Bench(autonomy="ask")
    bench.run()
    bench.plan()
    bench.guide()
    bench.run(1.0)
    assert bench.status.stage == Stage.AWAIT_APPROVAL
    assert not bench.leases
    plan = bench.machine.plan
    assert plan is not None
    with pytest.raises(BridgeError, match="SCENE_CHANGED"):
        bench.machine.approve(bench.now, plan.plan_id, "another", True)
    assert not bench.run().lease_valid
    bench.machine.approve(bench.now, plan.plan_id, plan.digest, True)
    bench.run()
    assert bench.status.stage == Stage.MOVING
    assert bench.leases
    with pytest.raises(BridgeError, match="BUSY"):
        bench.machine.approve(bench.now, plan.plan_id, plan.digest, True)


@pytest.mark.parametrize("silent", [True, False])
def test_no_approval_no_motion(silent: bool) -> None:
    bench = Bench(TaskConfig(approval_timeout=2.0), autonomy="ask")
    bench.run()
    bench.plan()
    bench.guide()
    bench.run()
    plan = bench.machine.plan
    assert plan is not None
    if silent:
        bench.run(2.5)
    else:
        bench.machine.approve(bench.now, plan.plan_id, plan.digest, False, "no")
    expected = ErrorCode.APPROVAL_EXPIRED if silent else ErrorCode.REJECTED_BY_OPERATOR
    assert (bench.status.stage, bench.status.code) == (Stage.FAILED, expected)
    assert not bench.leases


def test_failed_grasps_are_tried_again_twice() -> None:
    bench = Bench()
    bench.start_moving()
    for attempt in (1, 2):
        bench.report(0.4, S.HELD, ErrorCode.GRASP_FAILED, events=1, width=0.0)
        assert (bench.status.stage, bench.status.retries) == (Stage.PLANNING, attempt)
        bench.report(0.4, S.HELD, ErrorCode.GRASP_FAILED, events=1, width=0.0)
        assert bench.requests[-1].attempt == attempt
        bench.plan()
        bench.guide()
        bench.run()
        bench.report(0.1)
    bench.report(0.4, S.HELD, ErrorCode.GRASP_FAILED, events=1, width=0.0)
    assert (bench.status.stage, bench.status.code) == (Stage.FAILED, ErrorCode.GRASP_FAILED)
    assert len(bench.requests) == 3


def test_what_was_not_let_go_is_not_done() -> None:
    bench = Bench()
    bench.start_moving()
    status = bench.finish(width=0.031)
    assert (status.stage, status.code) == (Stage.FAILED, ErrorCode.VERIFY_FAILED)
    assert bench.machine.result is not None
    assert not bench.machine.result.verified


def test_a_gripper_seen_opening_does_not_raise_the_carried_width() -> None:
    bench = Bench()
    bench.start_moving()
    bench.report(0.8, events=2, width=0.03)
    bench.report(0.9, S.GRIPPING, events=2, width=0.08)
    bench.report(0.95, events=3, width=0.085)
    assert bench.report(1.0, S.FINISHED, events=3, width=0.085).stage == Stage.VERIFYING


def test_every_silence_ends_in_a_named_failure() -> None:
    config = TaskConfig(plan_timeout=2.0, guidance_timeout=1.0, stall_timeout=2.0, recovery_timeout=3.0)
    bench = Bench(config)
    bench.run(3.0)
    assert (bench.status.code, bench.status.message) == (ErrorCode.TIMEOUT, "the planner does not answer")
    bench = Bench(config)
    bench.run()
    bench.plan()
    bench.run(2.0)
    assert (bench.status.code, bench.status.message) == (
        ErrorCode.TIMEOUT, "the trajectory node does not answer",
    )  # fmt: skip
    bench = Bench(config)
    bench.start_moving()
    bench.report(0.1, seconds=3.0)
    assert (bench.status.code, bench.status.message) == (ErrorCode.TIMEOUT, "the arm makes no progress")
    bench = Bench(config)
    bench.start_moving()
    bench.run(1.0)
    assert (bench.status.stage, bench.status.code) == (Stage.HOLD, ErrorCode.CONTROLLER_INACTIVE)
    bench.run(3.0)
    assert bench.status.stage == Stage.FAILED
    bench = Bench(TaskConfig(task_timeout=4.0), timeout=1.0)
    bench.run(1.5)
    assert (bench.status.stage, bench.status.code) == (Stage.FAILED, ErrorCode.TIMEOUT)


@pytest.mark.parametrize("back_in_time", [True, False])
def test_a_lost_camera_holds_and_comes_back(back_in_time: bool) -> None:
    bench = Bench(TaskConfig(recovery_timeout=3.0))
    good = DepthQuality(5.0, 1.0, math.nan, 0.0, 100, math.nan, math.nan)
    bench.machine.on_depth_quality(good, bench.now)
    bench.start_moving()
    bench.report(0.2, seconds=1.5)
    assert (bench.status.stage, bench.status.code) == (Stage.HOLD, ErrorCode.SENSOR_LOST)
    assert not bench.status.lease_valid
    assert bench.leases[-1].guidance_id == ""
    if back_in_time:
        bench.machine.on_depth_quality(good, bench.now)
        bench.report(0.2, S.HELD, ErrorCode.LEASE_EXPIRED)
        assert bench.status.stage == Stage.MOVING
        assert bench.status.lease_valid
    else:
        bench.report(0.2, S.HELD, ErrorCode.LEASE_EXPIRED, seconds=3.5)
        assert (bench.status.stage, bench.status.code) == (Stage.FAILED, ErrorCode.SENSOR_LOST)


def test_a_lost_node_is_named_and_waited_for() -> None:
    bench = Bench()
    bench.start_moving()
    bench.machine.on_nodes(["action_expert"], bench.now)
    bench.report(0.2, seconds=1.0)
    assert (bench.status.stage, bench.status.code) == (Stage.HOLD, ErrorCode.CONTROLLER_INACTIVE)
    assert "action_expert" in bench.status.message
    assert not bench.status.lease_valid
    bench.machine.on_nodes([], bench.now)
    assert bench.report(0.2).stage == Stage.MOVING


@pytest.mark.parametrize(("seconds", "stage"), [(15.0, Stage.MOVING), (25.0, Stage.FAILED)])
def test_a_task_that_itself_stood_still_does_not_go_on_with_an_old_plan(seconds: float, stage: Stage) -> None:
    bench = Bench()
    bench.start_moving()
    bench.now += seconds
    bench.report(0.2)
    bench.report(0.2)
    assert bench.status.stage == stage
    if stage == Stage.FAILED:
        assert (bench.status.code, bench.status.limit) == (ErrorCode.TIMEOUT, 20.0)
        assert bench.status.value > 20.0
        assert not bench.status.lease_valid


def test_the_operators_hold_is_shown_and_lasts() -> None:
    bench = Bench()
    bench.start_moving()
    bench.report(0.2, S.HELD, ErrorCode.STOPPED, seconds=30.0)
    assert (bench.status.stage, bench.status.code) == (Stage.HOLD, ErrorCode.STOPPED)
    assert bench.report(0.21).stage == Stage.MOVING
    assert math.isnan(bench.status.value)
    assert bench.status.message == ""


def test_a_restarted_streamer_never_continues_a_half_done_path() -> None:
    bench = Bench()
    bench.start_moving()
    bench.report(0.5, events=2)
    first = bench.guidance_id
    bench.leases.clear()
    bench.report(0.0, S.HELD, guidance_id="", seconds=0.5)
    assert bench.status.stage == Stage.PLANNING
    assert first not in [lease.guidance_id for lease in bench.leases]


def test_a_bound_before_the_arm_fails_with_its_name() -> None:
    bench = Bench()
    bench.start_moving()
    bench.report(0.2, S.HELD, ErrorCode.COLLISION, seconds=5.0)
    assert (bench.status.stage, bench.status.code) == (Stage.FAILED, ErrorCode.COLLISION)


def test_status_goes_out_ten_times_a_second() -> None:
    bench = Bench()
    bench.run(2.0)
    assert 18 <= len(bench.statuses) <= 24


def test_what_is_so_already_passes_without_motion_in_plain_words() -> None:
    bench = Bench()
    bench.run()
    bench.plan(steps=2, message="the red cube is already in the blue bowl")
    bench.run()
    assert "the red cube is already in the blue bowl" in [s.message for s in bench.statuses]
    assert (bench.status.stage, bench.status.step) == (Stage.PLANNING, 1)
    bench.plan(steps=2, message="the ball is already in the blue bowl")
    bench.run()
    assert not bench.leases
    assert (bench.status.stage, bench.status.code) == (Stage.DONE, ErrorCode.NONE)
    assert bench.status.message == "the ball is already in the blue bowl"
    result = bench.machine.result
    assert result is not None
    assert (result.steps_done, result.status.steps_total, result.verified) == (2, 2, True)


def test_a_task_that_only_plans_says_what_is_so_already() -> None:
    bench = Bench(plan_only=True)
    bench.run()
    bench.plan(message="the red cube is already in the blue bowl")
    assert bench.run().message == "the red cube is already in the blue bowl"
    assert bench.status.stage == Stage.DONE
