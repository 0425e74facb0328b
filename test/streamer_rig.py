"""A small closed loop for the streamer: an arm and an expert that follows guidance."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.guidance import window
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.streamer import Streamer
from bridgevla_ros.core.streamer_config import StreamerConfig
from bridgevla_ros.core.trajectory import TrajectoryConfig, TrajectoryGenerator
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import (
    ActionChunk,
    ArmCommand,
    CameraIntrinsics,
    GripperEvent,
    Guidance,
    JointState,
    Lease,
    Progress,
    StreamerState,
    Waypoint,
    WaypointKind,
    WaypointPlan,
)
from bridgevla_ros.expert.following import ExpertObservation, refusal

ARM = ArmModel.load()
DOWN = ARM.fk(ARM.home).rotation
PERIOD = 0.01


def pick_and_place(arm: ArmModel = ARM, name: str = "g1") -> Guidance:
    """Guidance from home: pick at (0.5, 0.1), place at (0.5, -0.15)."""
    steps = [
        ((0.5, 0.1, 0.15), WaypointKind.APPROACH, GripperEvent.OPEN, 0.085),
        ((0.5, 0.1, 0.025), WaypointKind.CONTACT, GripperEvent.CLOSE, 0.0),
        ((0.5, 0.1, 0.15), WaypointKind.RETREAT, GripperEvent.NONE, 0.0),
        ((0.5, -0.15, 0.15), WaypointKind.APPROACH, GripperEvent.NONE, 0.0),
        ((0.5, -0.15, 0.06), WaypointKind.CONTACT, GripperEvent.OPEN, 0.085),
        ((0.5, -0.15, 0.16), WaypointKind.RETREAT, GripperEvent.NONE, 0.085),
    ]
    waypoints = tuple(
        Waypoint(Transform(np.array(p), DOWN), kind, event, width, np.zeros(2), 0.5, 1.0)
        for p, kind, event, width in steps
    )
    plan = WaypointPlan(
        stamp=0.0, camera_frame="camera", base_frame="base_link", plan_id="p", task_id="t", request_id="r",
        instruction="", subgoal="", step=0, steps_total=1, anchors=(), waypoints=waypoints,
        T_base_camera=Transform.identity(), intrinsics=CameraIntrinsics(64, 48, 60.0, 60.0, 32.0, 24.0),
        model="", model_sha256="", seed=0, digest="",
    )  # fmt: skip
    start = arm.fk(arm.home)
    guidance = TrajectoryGenerator(TrajectoryConfig()).generate(plan, Transform.identity(), start, 0.085)
    assert guidance.message == ""
    return replace(guidance, guidance_id=name, task_id="t")


def follow(
    guidance: Guidance, joints: JointState, progress: Progress, sequence: int, arm: ArmModel = ARM
) -> ActionChunk:
    """The chunk that follows guidance by inverse kinematics from the observed state."""
    dt, horizon = 0.05, 16
    ahead = window(guidance, progress.progress, progress.events_done, horizon, dt)
    q, rows = joints.position, []
    for position, quat in zip(ahead.position, ahead.quat, strict=True):
        q = arm.ik(Transform.from_quat(position, quat), q).q
        rows.append(q)
    return ActionChunk(
        stamp=joints.stamp, guidance_id=guidance.guidance_id, task_id="t", sequence=sequence, seed=0, dt=dt,
        execute_steps=8, position=ahead.position, quat=ahead.quat, joints=np.array(rows),
        joint_velocities=np.zeros((horizon, 7)), gripper_width=np.zeros(horizon), progress=ahead.progress,
        guidance_progress=progress.progress, cloud_stamps=(), joint_stamps=(joints.stamp,), correction=0.0,
        correction_sigma=float("nan"), model_sha256="", source="ik",
    )  # fmt: skip


def refuse(
    guidance: Guidance, joints: JointState, progress: Progress, code: ErrorCode = ErrorCode.EXPERT_DIVERGED
) -> ActionChunk:
    """What the expert puts out where it finds no chunk."""
    seen = ExpertObservation(joints.stamp, (joints,), None, guidance, progress)
    why = BridgeError(code, "samples disagree", value=0.05, limit=0.03, unit="m")
    return refusal(seen, 0, why)


@dataclass
class Rig:
    """Streamer, arm and expert on one clock.

    Attributes:
        object_width: Metres, what is between the pads when they close; 0 for nothing.
        commanded: (t, q) of every first point, in order.
    """

    arm: ArmModel = ARM
    config: StreamerConfig = field(default_factory=StreamerConfig)
    object_width: float = 0.03
    lag: float = 0.03

    def __post_init__(self) -> None:
        self.streamer = Streamer(self.config, self.arm)
        self.guidance = pick_and_place(self.arm)
        self.now = 10.0
        self.q = self.arm.home.copy()
        self.v = np.zeros(7)
        self.width, self.width_target = 0.085, 0.085
        self.command: ArmCommand | None = None
        self.commands: list[ArmCommand] = []
        self.reports: list[Progress] = []
        self.sequence = 0
        self.leasing = self.sensing = self.thinking = True
        self.streamer.on_guidance(self.guidance)

    def joints(self) -> JointState:
        return JointState(self.now, self.q.copy(), self.v.copy(), self.width)

    def _move(self, dt: float) -> None:
        if self.command is not None:
            target = sample(self.command, self.now + dt)
            q = self.q + (target - self.q) * (1 - np.exp(-dt / self.lag))
            self.v, self.q = (q - self.q) / dt, q
            if np.isfinite(self.command.gripper_width):
                self.width_target = self.command.gripper_width
        low = self.object_width if self.streamer._events_done < 3 else 0.0
        target_width = max(self.width_target, low)
        self.width += float(np.clip(target_width - self.width, -0.1 * dt, 0.1 * dt))

    def step(self) -> Progress:
        """One control period; the expert thinks at 20 Hz, the lease comes at 10 Hz."""
        k = round(self.now / PERIOD)
        if self.sensing:
            self.streamer.on_joint_state(self.joints())
        if self.leasing and k % 10 == 0:
            self.streamer.on_lease(Lease(self.now, 0.3, "t", self.guidance.guidance_id))
        if self.thinking and k % 5 == 0 and self.reports:
            last = self.reports[-1]
            if last.guidance_id == self.guidance.guidance_id and last.state != StreamerState.FINISHED:
                self.sequence += 1
                chunk = follow(self.guidance, self.joints(), last, self.sequence, self.arm)
                self.streamer.on_chunk(chunk, self.now)
        command, report = self.streamer.tick(self.now)
        if command is not None:
            self.command = command
            self.commands.append(command)
        self.reports.append(report)
        self._move(PERIOD)
        self.now = round(self.now + PERIOD, 6)
        return report

    def run(self, seconds: float, until: StreamerState | None = None) -> Progress:
        """Step until a state is reached or the time is over."""
        report = self.step()
        for _ in range(round(seconds / PERIOD)):
            report = self.step()
            if until is not None and report.state == until:
                break
        return report


def sample(command: ArmCommand, now: float) -> Array:
    """Joints that a trajectory controller would hold at a time: linear between points, then the last."""
    t = now - command.stamp
    return np.array([np.interp(t, command.time_from_start, column) for column in command.position.T])


def check_smooth(commands: list[ArmCommand], arm: ArmModel = ARM) -> None:
    """Assert limits on velocity, acceleration, jerk and joints over the first points of commands."""
    q = np.array([c.position[0] for c in commands])
    t = np.array([c.stamp + c.time_from_start[0] for c in commands])
    np.testing.assert_allclose(np.diff(t), PERIOD, atol=1e-6)
    v = np.diff(q, axis=0) / PERIOD
    a = np.diff(v, axis=0) / PERIOD
    j = np.diff(a, axis=0) / PERIOD
    assert (np.abs(v) <= arm.velocity_limit * (1 + 1e-6)).all()
    assert (np.abs(a) <= arm.acceleration_limit * (1 + 1e-6)).all()
    assert (np.abs(j) <= arm.jerk_limit * (1 + 1e-6)).all()
    assert (q >= arm.lower).all()
    assert (q <= arm.upper).all()
    for command in commands:
        assert np.abs(command.velocity[-1]).max() == 0.0, "every command ends at rest"
        # The points agree with their own velocities: the tail leaves the first point smoothly.
        step = np.diff(command.position, axis=0) / np.diff(command.time_from_start)[:, None]
        assert (np.abs(step) <= arm.velocity_limit * (1 + 1e-6)).all()
