"""The task: from an instruction to a finished, verified sub-goal after sub-goal.

Pure: inputs are calls with the time, outputs are what ``tick`` returns. The arm moves only while this
machine grants leases; to hold, it revokes (a lease that names no guidance).

| stage | waits for | at most |
|---|---|---|
| PLANNING | the arm to stand, the plan, its guidance | plan_timeout, guidance_timeout |
| AWAIT_APPROVAL | the operator, with the plan's digest | approval_timeout |
| MOVING, GRIPPING | progress | stall_timeout |
| HOLD | what was lost to come back | recovery_timeout (the operator: task_timeout) |
| VERIFYING | the planner, which compares depth before and after | plan_timeout |
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.gripping import carried_out
from bridgevla_ros.core.guidance import grasps
from bridgevla_ros.core.safety import Reason
from bridgevla_ros.core.task_heard import Heard
from bridgevla_ros.core.task_status import (
    REMEDIES,
    Stage,
    TaskConfig,
    TaskResult,
    TaskStatus,
    check_approval,
    check_goal,
    check_instruction,
    fields,
    gist,
    reason_of,
)
from bridgevla_ros.core.types import (
    CHECK,
    DepthQuality,
    Guidance,
    Lease,
    PlanRequest,
    Progress,
    StreamerState,
    WaypointPlan,
)

__all__ = ["Output", "Stage", "TaskConfig", "TaskMachine", "TaskResult", "TaskStatus", "check_instruction"]

Output = PlanRequest | Lease | TaskStatus

ENDED = (Stage.IDLE, Stage.DONE, Stage.FAILED)
_STATUS_PERIOD = 0.1
# A streamer that has just got its lease back may still say LEASE_EXPIRED for this long.
_LEASE_GRACE = 1.0
_BOUNDS = (ErrorCode.COLLISION, ErrorCode.OUT_OF_WORKSPACE, ErrorCode.UNREACHABLE, ErrorCode.SINGULARITY)
_NOTHING: dict[str, Any] = fields(Reason())


class TaskMachine:
    """One task at a time.

    Attributes:
        config: As given.
        status: Newest snapshot.
        result: Of the last task that ended; None before.
    """

    def __init__(self, config: TaskConfig, seed: int = 0) -> None:
        self.config = config
        self.status = TaskStatus(0.0)
        self.result: TaskResult | None = None
        self._seed = seed
        self._count = 0
        self._outputs: list[Output] = []
        self._heard = Heard()
        self._published = -math.inf
        self._ticked = math.inf  # before the first tick no time was missed
        self._clear()

    def _clear(self) -> None:
        self._autonomy, self._plan_only = "auto", False
        self._deadline = math.inf
        self._request: PlanRequest | None = None
        self._plan: WaypointPlan | None = None
        self._guidance: Guidance | None = None
        self._since = -math.inf  # start of the present wait
        self._leased = -math.inf
        self._started = False  # the streamer took up this guidance
        self._superseded = False
        self._advanced, self._advanced_at = -1.0, -math.inf
        self._held_since: float | None = None
        self._carried = math.nan
        self._check: PlanRequest | None = None  # asked whether the step is done
        self._verified = True  # as far as it went
        self._account = "planned, not carried out"  # as long as no step has passed

    @property
    def running(self) -> bool:
        """True from an accepted instruction until DONE or FAILED."""
        return self.status.stage not in ENDED

    @property
    def plan(self) -> WaypointPlan | None:
        """Plan of the present sub-goal."""
        return self._plan

    # ---- the operator

    def instruct(
        self,
        now: float,
        instruction: str,
        *,
        autonomy: str = "",
        plan_only: bool = False,
        preempt: bool = False,
        timeout: float = 0.0,
    ) -> str:
        """Accept an instruction and return its task id; planning starts at the next tick.

        Args:
            now: Seconds.
            instruction: Plain language.
            autonomy: "auto", "ask", or "" for the configured default.
            plan_only: Plan and show, do not move.
            preempt: End a running task first.
            timeout: Seconds for the whole task; 0 for the configured default.

        Raises:
            BridgeError: NOT_UNDERSTOOD, BAD_INPUT, BUSY.
        """
        text = check_instruction(instruction)
        check_goal(autonomy, timeout)
        if self.running:
            if not preempt:
                raise BridgeError(
                    ErrorCode.BUSY, f"task {self.status.task_id} is running", remedy=REMEDIES[ErrorCode.BUSY]
                )
            self.cancel(now, "another instruction came first")
        self._clear()
        self._count += 1
        task_id = f"task-{self._count}-{round(now * 1e3)}"
        self._autonomy, self._plan_only = autonomy or self.config.autonomy, plan_only
        self._deadline = now + (timeout or self.config.task_timeout)
        self._since = now
        self.status = TaskStatus(now, task_id=task_id, instruction=text, stage=Stage.PLANNING)
        self._emit()
        return task_id

    def cancel(self, now: float, reason: str = "") -> bool:
        """End the running task; the arm brakes and holds. False when none runs."""
        if not self.running:
            return False
        self._fail(now, Reason(ErrorCode.CANCELLED, reason or "cancelled by the operator"))
        return True

    def approve(self, now: float, plan_id: str, digest: str, approve: bool, reason: str = "") -> None:
        """Let the plan that waits be carried out, or refuse it.

        Raises:
            BridgeError: BUSY (nothing waits), SCENE_CHANGED (another plan waits than the one looked at).
        """
        check_approval(self._plan if self.status.stage == Stage.AWAIT_APPROVAL else None, plan_id, digest)
        if approve:
            self._go(now)
        else:
            self._fail(now, Reason(ErrorCode.REJECTED_BY_OPERATOR, reason or "refused by the operator"))

    # ---- the other nodes

    def on_plan(self, plan: WaypointPlan, now: float) -> None:
        """Take the answer to the present request; any other is ignored."""
        if self._check is not None and plan.request_id == self._check.request_id:
            self._on_verdict(plan, now)
            return
        stage, request = self.status.stage, self._request
        waiting = stage == Stage.PLANNING or (stage == Stage.HOLD and not self._leasing())
        if request is None or plan.request_id != request.request_id or self._plan is not None or not waiting:
            return
        self._plan, self._since = plan, now
        total = max(plan.steps_total, self.status.step + 1)
        self._set(now, plan_id=plan.plan_id, steps_total=total, message=plan.message)
        if plan.code != ErrorCode.NONE:
            self._fail(now, Reason(plan.code, plan.message), plan.candidates)
        elif plan.message and not plan.waypoints:  # what is asked for is so already
            self._passed(now, plan.message)

    def on_guidance(self, guidance: Guidance, now: float) -> None:
        """Take guidance; used when it belongs to the present plan and none was taken for it yet."""
        if not self._leasing():
            self._guidance = guidance
        elif self._guidance and guidance.guidance_id != self._guidance.guidance_id:
            # A restarted planner or trajectory node answered once more: the expert follows the newest.
            self._superseded = self._superseded or guidance.code == ErrorCode.NONE

    def on_progress(self, progress: Progress, now: float) -> None:
        """Take what the streamer reports."""
        self._heard.progress = progress

    def on_depth_quality(self, quality: DepthQuality, now: float) -> None:
        """Take the newest depth quality."""
        self._heard.depth, self._heard.depth_at = quality, now

    def on_nodes(self, lost: Iterable[str], now: float) -> None:
        """Take the names of nodes that are not there or not active, empty when all are."""
        self._heard.lost = tuple(lost)

    # ---- time

    def tick(self, now: float) -> list[Output]:
        """Advance; call at 20 Hz or more.

        Returns:
            What is to be published, in order: requests, leases, status on change and at 10 Hz.
        """
        missed, self._ticked = now - self._ticked, now
        if self.running and now > self._deadline:
            self._fail(now, Reason(ErrorCode.TIMEOUT, "the task took too long", now, self._deadline, "s"))
        if self.running and missed > self.config.recovery_timeout:  # what was planned is as old as that
            self._timeout(now, "the task node itself stood still", missed, self.config.recovery_timeout)
        if self.running:
            self._step(now)
        if now - self._published >= _STATUS_PERIOD - 1e-6:
            self._set(now)
            self._emit()
        outputs, self._outputs = self._outputs, []
        return outputs

    def _step(self, now: float) -> None:
        if self.status.stage == Stage.AWAIT_APPROVAL:
            waited, limit = now - self._since, self.config.approval_timeout
            if waited > limit:
                late = "nobody approved the plan in time"
                self._fail(now, Reason(ErrorCode.APPROVAL_EXPIRED, late, waited, limit, "s"))
        elif self._check is not None:
            self._await_verdict(now)
        elif self._leasing():
            self._move(now)
        else:
            self._plan_step(now)

    def _leasing(self) -> bool:
        """True once motion for the present guidance was begun."""
        return self._leased > -math.inf

    def _plan_step(self, now: float) -> None:
        """PLANNING: stand still, ask, wait for plan and guidance."""
        if not self._all_there(now, Stage.PLANNING):
            return
        config, waited = self.config, now - self._since
        if self._request is None:
            progress = self._heard.progress
            busy = progress is not None and progress.state in (StreamerState.MOVING, StreamerState.GRIPPING)
            if not busy:
                self._ask(now)
            elif waited > config.stall_timeout:
                self._timeout(now, "the arm does not come to rest", waited, config.stall_timeout)
        elif self._plan is None:
            if waited > config.plan_timeout:
                self._timeout(now, "the planner does not answer", waited, config.plan_timeout)
        elif self._guidance is None or self._guidance.plan_id != self._plan.plan_id:
            if waited > config.guidance_timeout:
                self._timeout(now, "the trajectory node does not answer", waited, config.guidance_timeout)
        elif self._guidance.code != ErrorCode.NONE:
            g = self._guidance
            self._fail(now, Reason(g.code, g.message, g.value, g.limit, g.unit))
        elif self._plan_only:
            self._finish(now)
        elif self._autonomy == "ask":
            self._since = now
            self._set(now, stage=Stage.AWAIT_APPROVAL, message="approve the plan to let the arm move")
        else:
            self._go(now)

    def _ask(self, now: float, *, check: bool = False) -> None:
        """Ask for a plan of the step, or whether it is done."""
        status = self.status
        name = f"{status.task_id}-{status.step}-{status.retries}{'-check' if check else ''}"
        attempt = CHECK if check else status.retries
        request = PlanRequest(now, status.task_id, name, status.instruction, status.step, attempt, self._seed)
        self._request, self._check = (self._request, request) if check else (request, None)
        self._since = now
        self._outputs.append(request)

    def _go(self, now: float) -> None:
        """Begin to move along the guidance."""
        self._since = self._advanced_at = now
        self._advanced, self._started, self._superseded, self._held_since = -1.0, False, False, None
        self._set(now, stage=Stage.MOVING, **_NOTHING)
        self._lease(now)

    def _move(self, now: float) -> None:
        """MOVING, GRIPPING and HOLD on the way: renew the lease, watch progress."""
        missing = self._heard.missing(now, self.config, moving=True)
        if missing is not None:
            self._revoke(now)
            self._hold(now, missing, self.config.recovery_timeout)
            return
        guidance, progress = self._guidance, self._heard.progress
        assert guidance is not None
        if self._superseded:
            self._retry(now, Reason(ErrorCode.CONTROLLER_INACTIVE, "planner or trajectory was restarted"))
        elif progress is not None and progress.state == StreamerState.STOPPED:
            self._lease(now)
            self._hold(now, reason_of(progress), math.inf)
        elif progress is None or progress.guidance_id != guidance.guidance_id:
            self._await_streamer(now)
        else:
            self._started = True
            self._note(progress, now)
            self._follow(progress, now)

    def _await_streamer(self, now: float) -> None:
        """The streamer has not taken up the guidance, or no longer knows it."""
        waited, limit = now - self._since, self.config.recovery_timeout
        if self._started:  # where the arm is on the path is not known
            self._retry(now, Reason(ErrorCode.CONTROLLER_INACTIVE, "arm_streamer was restarted"))
        elif waited > limit:
            self._timeout(now, "arm_streamer does not begin", waited, limit)
        else:
            self._lease(now)

    def _follow(self, progress: Progress, now: float) -> None:
        """React to what the streamer says of the present guidance."""
        if progress.state == StreamerState.FINISHED:
            self._verify(now, progress)
            return
        if progress.code == ErrorCode.GRASP_FAILED:
            self._retry(now, reason_of(progress))
            return
        self._lease(now)
        stalled = now - self._advanced_at
        held = progress.state == StreamerState.HELD and progress.code != ErrorCode.NONE
        if held and (progress.code != ErrorCode.LEASE_EXPIRED or stalled > _LEASE_GRACE):
            self._hold(now, reason_of(progress), self._patience(progress.code))
            return
        gripping = progress.state == StreamerState.GRIPPING
        self._unhold(now, Stage.GRIPPING if gripping else Stage.MOVING)
        if stalled > self.config.stall_timeout and progress.code != ErrorCode.NONE:
            self._fail(now, reason_of(progress))
        elif stalled > self.config.stall_timeout:
            self._timeout(now, "the arm makes no progress", stalled, self.config.stall_timeout)

    def _note(self, progress: Progress, now: float) -> None:
        """Remember advance and what was carried."""
        advance = progress.progress + progress.events_done
        if advance > self._advanced + 1e-4:
            self._advanced, self._advanced_at = advance, now
        closed = self._guidance is not None and grasps(self._guidance, progress.events_done - 1)
        # On the way only: while the next event opens the gripper, its width is no longer that of the thing.
        if closed and progress.state != StreamerState.GRIPPING:
            self._carried = progress.gripper_width
        self._set(now, progress=progress.progress, speed_scale=progress.speed_scale)

    def _verify(self, now: float, progress: Progress) -> None:
        """The path was followed to its end: did the gripper hold and let go, and does depth agree?"""
        self._revoke(now)
        self._set(now, stage=Stage.VERIFYING, progress=1.0)
        assert self._guidance is not None
        fault = carried_out(self._guidance, progress, self._carried)
        if fault is not None:
            self._fail(now, fault)
        elif self.config.done_by == "gripper":
            self._passed(now, "done")
        else:
            self._ask(now, check=True)

    def _await_verdict(self, now: float) -> None:
        """VERIFYING: the arm stands, the planner looks."""
        if not self._all_there(now, Stage.VERIFYING):
            return
        waited, limit = now - self._since, self.config.plan_timeout
        if waited > limit:
            self._timeout(now, "the planner does not say whether it is done", waited, limit)

    def _on_verdict(self, plan: WaypointPlan, now: float) -> None:
        """What depth says of the step; where it cannot be seen, the gripper's account stands."""
        self._check = None
        if plan.code == ErrorCode.VERIFY_FAILED:
            self._retry(now, Reason(plan.code, plan.message))
        elif plan.code in (ErrorCode.NONE, ErrorCode.DEPTH_HOLE):
            self._verified = self._verified and plan.code == ErrorCode.NONE
            self._passed(now, plan.message)
        else:
            self._fail(now, Reason(plan.code, plan.message))

    def _passed(self, now: float, account: str) -> None:
        """On to the next step, or to the end."""
        self._account = account
        if self.status.step + 1 < self.status.steps_total:
            self._next(now, step=self.status.step + 1, retries=0)
        else:
            self._finish(now)

    def _retry(self, now: float, reason: Reason) -> None:
        """Look again, at most ``max_retries`` times for one sub-goal."""
        self._revoke(now)
        if self.status.retries >= self.config.max_retries:
            self._fail(now, reason)
        else:
            self._next(now, step=self.status.step, retries=self.status.retries + 1)

    def _next(self, now: float, *, step: int, retries: int) -> None:
        """Plan a sub-goal, anew."""
        self._request = self._plan = self._guidance = None
        self._since, self._leased, self._held_since = now, -math.inf, None
        self._carried = math.nan
        self._set(
            now, stage=Stage.PLANNING, step=step, retries=retries, progress=0.0, speed_scale=0.0, **_NOTHING
        )

    # ---- waiting for what was lost

    def _all_there(self, now: float, stage: Stage) -> bool:
        """While the arm stands: hold as long as something is missing, then begin the stage's wait again."""
        missing = self._heard.missing(now, self.config, moving=False)
        if missing is not None:
            self._hold(now, missing, self.config.recovery_timeout)
            return False
        if self.status.stage == Stage.HOLD:
            self._since = now
            self._unhold(now, stage)
        return True

    def _patience(self, code: ErrorCode) -> float:
        """Seconds that a hold of the streamer may last."""
        if code == ErrorCode.STOPPED:
            return math.inf  # held: the operator's word is awaited; the task's own timeout still counts
        if code in (ErrorCode.SENSOR_LOST, ErrorCode.CONTROLLER_INACTIVE, ErrorCode.LEASE_EXPIRED):
            return self.config.recovery_timeout
        return self.config.blocked_timeout

    def _hold(self, now: float, reason: Reason, patience: float) -> None:
        if self._held_since is None:
            self._held_since = now
        if now - self._held_since > patience:
            self._fail(now, reason)
            return
        if reason.code not in _BOUNDS:  # before a bound the time without progress counts on
            self._advanced_at = now
        self._set(now, stage=Stage.HOLD, speed_scale=0.0, **fields(reason))

    def _unhold(self, now: float, stage: Stage) -> None:
        self._held_since = None
        self._set(now, stage=stage, **_NOTHING)

    # ---- outputs

    def _lease(self, now: float) -> None:
        if now - self._leased < 1.0 / self.config.lease_rate - 1e-6:
            return
        assert self._guidance is not None
        self._leased = now
        task_id, guidance_id = self.status.task_id, self._guidance.guidance_id
        self._outputs.append(Lease(now, self.config.lease_duration, task_id, guidance_id))

    def _revoke(self, now: float) -> None:
        """Take the permission back at once."""
        if self._leasing() and self._lease_valid(now):
            self._outputs.append(Lease(now, 0.0, self.status.task_id, ""))
            self._leased = now - self.config.lease_duration - 1e-3

    def _lease_valid(self, now: float) -> bool:
        return now - self._leased <= self.config.lease_duration

    def _timeout(self, now: float, message: str, value: float, limit: float) -> None:
        self._fail(now, Reason(ErrorCode.TIMEOUT, message, value, limit, "s"))

    def _fail(self, now: float, reason: Reason, candidates: tuple[str, ...] = ()) -> None:
        self._revoke(now)
        self._set(now, stage=Stage.FAILED, speed_scale=0.0, candidates=candidates, **fields(reason))
        self._end()

    def _finish(self, now: float) -> None:
        self._revoke(now)
        self._set(now, stage=Stage.DONE, speed_scale=0.0, **{**_NOTHING, "message": self._account})
        self._end()

    def _end(self) -> None:
        done = self.status.step + int(self.status.stage == Stage.DONE and not self._plan_only)
        verified = self._verified and done > 0
        self.result = TaskResult(self.status, done, verified)
        self._check, self._leased = None, -math.inf

    def _set(self, now: float, **changes: Any) -> None:
        """Update the status; it goes out when more than a number changed."""
        before = self.status
        valid = self.running and self._lease_valid(now)
        self.status = replace(before, **{"stamp": now, "lease_valid": valid, **changes})
        if gist(before) != gist(self.status):
            self._emit()

    def _emit(self) -> None:
        self._published = self.status.stamp
        self._outputs.append(self.status)
