"""The arm streamer: turns action chunks into commands at control rate, and proves each one.

Every control period
1. the state that was commanded for now is found (after a late tick: on the braking tail that was sent),
2. the wanted velocity follows the chunk, scaled uniformly along the path,
3. one jerk-limited step towards it is taken when braking from its end is proven to stay inside the
   envelope; otherwise the arm follows the last proven brake.
Whatever goes out ends at rest, so that silence is a controlled stop. Progress is what was consumed.
"""

from __future__ import annotations

import math

import numpy as np

from bridgevla_ros.core.chunk_path import ChunkPath, validate
from bridgevla_ros.core.commanded import Commanded
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.gripping import GripperJob, GripperMonitor
from bridgevla_ros.core.guidance import grasps, retreat_end
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.motion import Brake, JointMotion, MotionLimits, step_towards
from bridgevla_ros.core.safety import Clearance, Envelope, Reason
from bridgevla_ros.core.streamer_config import StreamerConfig
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import (
    ActionChunk,
    ArmCommand,
    GripperEvent,
    Guidance,
    JointState,
    Lease,
    Progress,
    StreamerState,
)

# Chunk steps ahead at which the reference is read: the velocity law answers 1.5 periods late.
_LEAD = 1.5
_LEAST_SCALE = 0.03
# Seconds of proven motion after which a bound no longer counts as the reason of a hold.
_CLEAR_AFTER = 0.1
# Seconds that the next chunk may take after a gripper event before the arm counts as held.
_PAUSE = 0.3
_BOUNDS = (ErrorCode.COLLISION, ErrorCode.OUT_OF_WORKSPACE, ErrorCode.UNREACHABLE, ErrorCode.SINGULARITY)


class Streamer:
    """The only thing that commands the arm. Pure: feed it, then ``tick`` it at the control rate.

    Attributes:
        config, arm: As given.
        state: What it does with the arm.
        rejected: Chunks dropped so far.
    """

    def __init__(self, config: StreamerConfig, arm: ArmModel) -> None:
        self.config, self.arm = config, arm
        self.state = StreamerState.HELD
        self.rejected = 0
        self._dt = 1.0 / config.rate
        self._limits = MotionLimits(arm.velocity_limit, arm.acceleration_limit, arm.jerk_limit)
        self._envelope = Envelope(config, arm)
        self._joints: JointState | None = None
        self._commanded = Commanded(arm, self._limits, config.rate)
        self._guidances: dict[str, Guidance] = {}
        self._lease: Lease | None = None
        self._guidance: Guidance | None = None
        self._path: ChunkPath | None = None
        self._waiting_since = -math.inf
        self._tau = 0.0
        self._scale = 0.0
        self._progress = 0.0
        self._events_done = 0
        self._job: GripperJob | None = None
        self._gripper = GripperMonitor(config)
        self._reason = Reason()
        self._dropped: Reason | None = None
        self._silent = False  # the reason is that no usable chunk came
        self._blocked_at = -math.inf
        self._condition = 1.0  # of the Jacobian where the arm is commanded to be
        self._operator_hold = False
        self._stopping = False
        self._failed = False  # until a new guidance
        self._missed: Reason | None = None  # closed on nothing: retreating with the gripper open
        self._clear_at = 1.0  # progress at which that retreat ends

    @property
    def untouched(self) -> bool:
        """Nothing has been commanded, permitted or offered to follow: only the newest joints are known."""
        asked = self._operator_hold or self._stopping
        return self._commanded.motion is None and self._lease is None and not self._guidances and not asked

    # ---- inputs

    def on_joint_state(self, joints: JointState) -> None:
        """Take a measurement; a non-finite or older one is ignored, so that the timeout tells of it."""
        usable = np.isfinite(joints.position).all() and np.isfinite(joints.velocity).all()
        if not usable or joints.position.shape != (len(self.arm.joint_names),):
            return
        if self._joints is None or joints.stamp >= self._joints.stamp:
            self._joints = joints
            self._gripper.on_joint_state(joints)

    def on_guidance(self, guidance: Guidance) -> None:
        """Remember a guidance; it moves nothing until a lease names it."""
        active = self._guidance.guidance_id if self._guidance else ""
        if guidance.code == ErrorCode.NONE and len(guidance.progress) and guidance.guidance_id != active:
            self._guidances = {guidance.guidance_id: guidance} | {
                key: value for key, value in self._guidances.items() if value is self._guidance
            }

    def on_lease(self, lease: Lease) -> None:
        """Take permission to move; a stop in force stays in force."""
        self._lease = lease

    def on_chunk(self, chunk: ActionChunk, now: float) -> None:
        """Take a chunk for the active guidance; one that cannot be followed is dropped with a reason.

        A refusal takes nothing away: what was proven is followed to its end, then the hold has its name.
        """
        if self._guidance is None or chunk.guidance_id != self._guidance.guidance_id or self._failed:
            return
        if self._path is not None and chunk.stamp < self._path.chunk.stamp:
            return
        if chunk.code != ErrorCode.NONE:
            self._dropped = Reason(chunk.code, chunk.message, chunk.value, chunk.limit, chunk.unit)
            return
        try:
            validate(chunk, self.arm, now, too_fast=self.config.too_fast)
            start = self._commanded_at(chunk.stamp)
            path = ChunkPath(chunk, start, self.arm, self._limits, self.config.tcp_speed_limit)
            tau = path.reach(self._progress)
            motion = self._commanded.motion
            here = motion.q if motion is not None else start
            behind = np.abs(path.at(tau)[0] - here).max()
            gap = float(max(behind, np.abs(chunk.joints[0] - start).max()))
            if gap > self.config.join_limit:
                raise BridgeError(
                    ErrorCode.EXPERT_DIVERGED,
                    "the chunk starts away from the arm",
                    value=gap,
                    limit=self.config.join_limit,
                    unit="rad",
                )
        except BridgeError as refusal:
            self.on_bad_chunk(refusal)
            return
        self._path, self._tau, self._dropped = path, tau, None

    def on_bad_chunk(self, error: BridgeError) -> None:
        """Count a chunk that could not even be read."""
        self.rejected += 1
        self._dropped = Reason.of(error)

    def stop(self, reason: str = "") -> None:
        """Protective stop: brake at once; motion starts again only after ``resume``."""
        self._protective_stop(Reason(ErrorCode.STOPPED, reason or "stopped by the operator"))

    def hold(self, reason: str = "") -> None:
        """Slow down along the path, then keep the last commanded position until ``resume``."""
        self._operator_hold = True
        if self._reason.code == ErrorCode.NONE:
            self._reason = Reason(ErrorCode.STOPPED, reason or "held by the operator")

    def resume(self, now: float) -> None:
        """Go on after ``hold``; after ``stop``, from the measured state.

        Raises:
            BridgeError: SENSOR_LOST without joint states; CONTROLLER_INACTIVE while the arm still moves.
        """
        if self._stopping:
            if not self._fresh(now):
                raise BridgeError(
                    ErrorCode.SENSOR_LOST,
                    "no joint states",
                    remedy="bring the arm's driver back, then resume",
                )
            assert self._joints is not None
            moving = float(np.abs(self._joints.velocity).max())
            if moving > 5 * self.config.rest_velocity:
                raise BridgeError(
                    ErrorCode.CONTROLLER_INACTIVE,
                    "the arm still moves",
                    value=moving,
                    limit=5 * self.config.rest_velocity,
                    unit="rad/s",
                    remedy="wait until it stands still, then resume",
                )
            self._commanded.forget()
            self._path, self._job, self._scale = None, None, 0.0
            self._stopping = False
            self.state = StreamerState.HELD
        self._operator_hold = False
        self._waiting_since = now
        if not self._failed:
            self._reason, self._silent, self._dropped = Reason(), False, None

    # ---- the control period

    def tick(self, now: float) -> tuple[ArmCommand | None, Progress]:
        """Run one control period.

        Args:
            now: Seconds, the clock of all stamps; never goes back.

        Returns:
            The command (None before the first motion and where a period has not passed), and progress.
        """
        self._adopt_guidance(now)
        commanded = self._commanded
        if commanded.early(now):
            return None, self._report(now)
        want = self._may_follow(now)
        if commanded.motion is None:
            if not want:
                return None, self._report(now)
            assert self._joints is not None
            self._condition = self.arm.condition(commanded.start(self._joints.position, now).q)
            want = False  # the first command is the measured state
        here = commanded.here(now)
        self._check_following(here)
        commanded.follow(self._advance(here, now, want and not self._stopping), now)
        self._settle(now)
        width = self._job.width if self._job is not None else math.nan
        return commanded.message(now, width), self._report(now)

    def _may_follow(self, now: float) -> bool:
        """True when lease, sensors and operator allow motion along the path; sets the reason if not."""
        if self._stopping or self._failed or self._guidance is None:
            return False
        if not self._fresh(now):
            age, limit = (
                now - self._joints.stamp if self._joints else math.inf,
                self.config.joint_state_timeout,
            )
            self._hold_for(Reason(ErrorCode.SENSOR_LOST, "no joint states", age, limit, "s"))
            return False
        if self.state == StreamerState.FINISHED:
            return False
        lease = self._lease
        live = lease is not None and now <= lease.stamp + lease.duration
        if not live or lease is None or lease.guidance_id != self._guidance.guidance_id:
            age = now - lease.stamp if lease else math.inf
            limit = lease.duration if lease else 0.0
            self._hold_for(Reason(ErrorCode.LEASE_EXPIRED, "the lease to move has ended", age, limit, "s"))
            return False
        if self._reason.code in (ErrorCode.SENSOR_LOST, ErrorCode.LEASE_EXPIRED) and not self._silent:
            self._reason = Reason()
            self._waiting_since = now
        return True

    def _advance(self, here: JointMotion, now: float, want: bool) -> JointMotion:
        """The state to command for now + dt."""
        if self._job is not None or not want or self._path is None:
            self._scale = 0.0
            return self._commanded.braking(now + self._dt)
        path, config = self._path, self.config
        reference, _ = path.at(self._tau)
        gap = float(np.abs(reference - here.q).max())
        scale, tau = self._next_scale(path, gap, now)
        ahead = min(tau + (_LEAD - 1) * scale * self._dt, self._last_tau(path))
        _, v = path.at(ahead)
        wanted = scale * v + config.tracking_gain * (path.at(tau)[0] - here.q)
        fastest = float((np.abs(wanted) / self._limits.velocity).max())
        if fastest > 1.0:
            wanted = wanted / fastest
        after = step_towards(here, wanted, self._limits, self._dt)
        brake, condition = Brake(after, self._limits), self.arm.condition(after.q)
        broken = self._envelope.check_brake(here, brake, self._gripper_width())
        if broken is None:
            broken = self._singular(condition)
        if broken is not None:
            self._scale = max(0.0, self._scale - config.scale_rate * self._dt)
            self._reason, self._blocked_at, self._silent = Reason.of(broken), now, False
            return self._commanded.braking(now + self._dt)
        if self._reason.code in _BOUNDS and now - self._blocked_at > _CLEAR_AFTER:
            self._reason = Reason()
        self._commanded.prove(brake, now + self._dt)
        self._scale, self._tau, self._condition = scale, tau, condition
        self._progress = max(self._progress, path.progress(tau))
        return after

    def _next_scale(self, path: ChunkPath, gap: float, now: float) -> tuple[float, float]:
        """Share of the nominal speed for this period, and the chunk time after it."""
        config, dt = self.config, self._dt
        last = self._last_tau(path)
        left = min(last - self._tau, path.chunk.stamp + path.end - now)
        cap = min(
            path.allowed_scale(self._tau, 0.15),
            math.sqrt(2 * config.scale_rate * max(left, 0.0)),
            min(1.0, max(0.0, 2.0 - gap / config.tracking_slow)),
        )
        if last - self._tau > 0 and path.chunk.stamp + path.end > now:
            cap = max(cap, _LEAST_SCALE)
        if gap > 2 * config.tracking_slow or self._operator_hold:
            cap = 0.0
        condition = self._condition
        if condition > config.singularity_slow:
            room = config.singularity_stop - config.singularity_slow
            cap *= max(0.1, 1 - (condition - config.singularity_slow) / max(room, 1e-9))
        scale = min(max(cap, self._scale - config.scale_rate * dt), self._scale + config.scale_rate * dt)
        return scale, min(self._tau + scale * dt, last)

    def _last_tau(self, path: ChunkPath) -> float:
        """Chunk time that must not be passed: its end, or the next gripper event."""
        guidance = self._guidance
        assert guidance is not None
        stop = self._clear_at if self._missed is not None else 1.0
        if self._events_done < len(guidance.events):
            stop = min(stop, float(guidance.event_progress[self._events_done]))
        return max(self._tau, min(path.end, path.reach(stop))) if stop < 1.0 else path.end

    def _singular(self, condition: float) -> Clearance | None:
        limit = self.config.singularity_stop
        if condition <= limit or condition <= self._condition:
            return None
        message = "the arm comes too near a singularity"
        return Clearance(limit - condition, ErrorCode.SINGULARITY, message, condition, limit, "")

    def _settle(self, now: float) -> None:
        """Gripper events, the end of the guidance, and the state that follows."""
        motion = self._commanded.motion
        assert motion is not None
        still = bool(np.abs(motion.v).max() < self.config.rest_velocity)
        if self._stopping:
            self.state = StreamerState.STOPPED
            return
        guidance, joints = self._guidance, self._joints
        if guidance is None or self._failed or self.state == StreamerState.FINISHED:
            if self.state != StreamerState.FINISHED:
                self.state = StreamerState.HELD
            return
        if self._job is not None:
            self._run_job(now)
            return
        if self._gripper.lost_object():
            self._fail(self._gripper.reason("the object slipped out of the gripper"))
            return
        tolerance = self.config.event_tolerance
        arrived = still and self._path is not None and self._gap() < 0.02
        permitted = self._reason.code == ErrorCode.NONE and not self._operator_hold and joints is not None
        if self._missed is not None:
            if self._progress >= self._clear_at - tolerance and (arrived or still):
                self._fail(self._missed)
                return
        elif self._events_done < len(guidance.events):
            at_event = self._progress >= float(guidance.event_progress[self._events_done]) - tolerance
            if at_event and arrived and permitted:
                event = guidance.events[self._events_done]
                width = float(guidance.event_width[self._events_done])
                self._job = GripperJob(event, width, now, self._gripper.width())
                self.state = StreamerState.GRIPPING
                return
        elif self._progress >= 1.0 - tolerance and arrived and permitted:
            self.state, self._progress = StreamerState.FINISHED, 1.0
            return
        self._note_silence(now)
        waiting = self._path is None and (self._events_done == 0 or now - self._waiting_since > _PAUSE)
        held = self._reason.code != ErrorCode.NONE or waiting
        stays = held and (still or self.state == StreamerState.HELD)
        self.state = StreamerState.HELD if stays else StreamerState.MOVING

    def _run_job(self, now: float) -> None:
        """Wait for the gripper; judge a grasp."""
        assert self._job is not None
        assert self._guidance is not None
        if self._reason.code in (ErrorCode.SENSOR_LOST, ErrorCode.LEASE_EXPIRED):
            self.state = StreamerState.HELD
            return
        self.state = StreamerState.GRIPPING
        if not self._gripper.done(self._job, now):
            return
        job, self._job = self._job, None
        if self._missed is not None:  # open again: back off
            self._go_on(now)
            return
        self._progress = max(self._progress, float(self._guidance.event_progress[self._events_done]))
        takes = grasps(self._guidance, self._events_done)
        self._events_done += 1
        if takes and not self._gripper.holds_object():
            self._back_off(job, now)
            return
        self._gripper.carrying = takes
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        self._path = self._dropped = None
        self._waiting_since = now
        self.state = StreamerState.MOVING

    def _back_off(self, job: GripperJob, now: float) -> None:
        """Open again and retreat as planned, so that the camera sees the object for the next try."""
        assert self._guidance is not None
        self._missed = self._gripper.reason("the gripper closed on nothing")
        self._clear_at = retreat_end(self._guidance, self._progress)
        self._job = GripperJob(GripperEvent.OPEN, job.start_width, now, self._gripper.width())

    def _note_silence(self, now: float) -> None:
        """Name the hold when no usable chunk has come for a while, or the last were refused or dropped."""
        path = self._path
        if path is not None and now < path.chunk.stamp + path.end:
            self._waiting_since = now
            if self._silent:
                self._silent, self._reason = False, Reason()
            return
        waited, held = now - self._waiting_since, self._reason.code != ErrorCode.NONE
        if held and not self._silent:
            return
        if self._dropped is not None and (path is not None or waited > _PAUSE):
            self._silent, self._reason = True, self._dropped
        elif not held and waited > self.config.chunk_wait:
            message, limit = "no fresh chunk from the action expert", self.config.chunk_wait
            self._silent = True
            self._reason = Reason(ErrorCode.CONTROLLER_INACTIVE, message, waited, limit, "s")

    # ---- helpers

    def _adopt_guidance(self, now: float) -> None:
        """Start on the guidance that a live lease names, from progress 0."""
        lease = self._lease
        if lease is None or not lease.guidance_id or now > lease.stamp + lease.duration or self._stopping:
            return
        if self._guidance is not None and self._guidance.guidance_id == lease.guidance_id:
            return
        guidance = self._guidances.get(lease.guidance_id)
        if guidance is None:
            return
        self._guidance, self._path, self._job = guidance, None, None
        self._progress, self._events_done, self._tau, self._scale = 0.0, 0, 0.0, 0.0
        self._failed, self._silent, self._dropped, self._reason = False, False, None, Reason()
        self._missed = None
        self._gripper.carrying = False
        self._waiting_since = now
        self.state = StreamerState.HELD

    def _protective_stop(self, reason: Reason) -> None:
        self._stopping, self._job, self._path = True, None, None
        self._reason = reason
        motion = self._commanded.motion
        if motion is None or motion.is_at_rest():
            self.state = StreamerState.STOPPED

    def _check_following(self, here: JointMotion) -> None:
        if self._joints is None or self._stopping or self._joints.stamp < self._commanded.history.oldest:
            return
        error = np.abs(self._commanded_at(self._joints.stamp) - self._joints.position)
        worst = int(np.argmax(error))
        if error[worst] > self.config.following_error:
            message = f"{self.arm.joint_names[worst]} does not follow its command"
            value, limit = float(error[worst]), self.config.following_error
            self._protective_stop(Reason(ErrorCode.TRACKING_ERROR, message, value, limit, "rad"))

    def _commanded_at(self, stamp: float) -> Array:
        """(7,) rad commanded at a time; measured where nothing was commanded."""
        if len(self._commanded.history):
            return self._commanded.history.at(stamp)
        assert self._joints is not None
        return self._joints.position

    def _gap(self) -> float:
        motion = self._commanded.motion
        assert self._path is not None
        assert motion is not None
        return float(np.abs(self._path.at(self._tau)[0] - motion.q).max())

    def _fresh(self, now: float) -> bool:
        limit = self.config.joint_state_timeout
        return self._joints is not None and now - self._joints.stamp <= limit

    def _hold_for(self, reason: Reason) -> None:
        if self._reason.code in (ErrorCode.NONE, ErrorCode.CONTROLLER_INACTIVE, reason.code):
            self._reason, self._silent = reason, False

    def _fail(self, reason: Reason) -> None:
        self._failed, self._path, self._job = True, None, None
        self._gripper.carrying = False
        self._reason = reason
        self.state = StreamerState.HELD

    def _gripper_width(self) -> float:
        return self._joints.gripper_width if self._joints else self.arm.gripper_max_width

    def _report(self, now: float) -> Progress:
        reason = self._reason
        return Progress(
            now,
            self._guidance.guidance_id if self._guidance else "",
            self._progress,
            self._events_done,
            self.state,
            self._scale,
            self._joints.gripper_width if self._joints else math.nan,
            reason.code,
            reason.message,
            reason.value,
            reason.limit,
            reason.unit,
        )
