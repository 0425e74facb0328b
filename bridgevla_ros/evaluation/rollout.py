"""One episode through the cores of the nodes, in one process on simulated time.

The nodes only convert messages and call these same cores. Here the cores are wired as the topics wire
them, each with the latency that it has between processes, so that an episode repeats bit for bit and
runs as fast as the machine allows. No core is given anything that the sensors would not give it.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.guidance import next_contact
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.streamer import Streamer
from bridgevla_ros.core.task_machine import TaskMachine, TaskStatus
from bridgevla_ros.core.trajectory import TrajectoryGenerator
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import (
    CHECK,
    Cloud,
    DepthQuality,
    Guidance,
    JointState,
    Lease,
    PlanRequest,
    Progress,
    RgbdFrame,
    WaypointPlan,
)
from bridgevla_ros.expert.following import refusal
from bridgevla_ros.expert.policy import ExpertObservation, ExpertPolicy
from bridgevla_ros.perception.cropper import Cropper


class Cell(Protocol):
    """What the graph needs of a simulated cell: its sensors, its commands and its clock."""

    @property
    def now(self) -> float:
        """Simulated seconds since the episode began."""
        ...

    @property
    def T_base_camera(self) -> Transform:
        """Pose of the optical frame."""
        ...

    def step(self, dt: float) -> None:
        """Let ``dt`` seconds pass."""
        ...

    def joint_state(self) -> JointState:
        """Encoders of arm and gripper."""
        ...

    def render(self) -> RgbdFrame:
        """Expose colour and depth now."""
        ...

    def command_joint_trajectory(
        self, stamp: float, times: Array, positions: Array, velocities: Array
    ) -> None:
        """Follow these points from now on: (M,) s after ``stamp``, (M, 7) rad, (M, 7) rad/s."""
        ...

    def command_gripper(self, width: float) -> None:
        """Open or close to ``width`` metres."""
        ...


class SubgoalPlanner(Protocol):
    """The planner's core."""

    def plan(
        self,
        request: PlanRequest,
        frame: RgbdFrame,
        T_base_camera: Transform,
        *,
        now: float,
        joints: JointState | None = None,
    ) -> WaypointPlan:
        """Answer a request from one frame; refusals carry a code."""
        ...


class FrameFilter(Protocol):
    """Changes what the camera delivers, e.g. blacks it out."""

    def __call__(self, frame: RgbdFrame, /) -> RgbdFrame:
        """What arrives instead of ``frame``."""
        ...


class PlanFilter(Protocol):
    """Changes a plan before it is followed, e.g. adds planner error."""

    def __call__(self, plan: WaypointPlan) -> WaypointPlan:
        """What is followed instead of ``plan``."""
        ...


@dataclass(frozen=True)
class Timing:
    """Rates and latencies of the graph, seconds.

    Latencies are what a message takes from its input's stamp to the next node's core, our choice from
    figures of ``bridgevla bench`` with margin: they are fixed so that an episode repeats.
    """

    tick: float = 0.01
    camera_period: float = 0.1
    policy_period: float = 0.05
    progress_period: float = 0.02
    planner_latency: float = 0.3
    cropper_latency: float = 0.05
    policy_latency: float = 0.02
    message_latency: float = 0.002


@dataclass
class EpisodeTrace:
    """What happened in one episode.

    Attributes:
        stages: (sim seconds, stage name, code name) at each change.
        plans: Plans and refusals, in order; ``guidances``: what was made of them.
        verdicts: Answers whether a step is done, in order.
        tcp_path: (3,) metres, base frame, measured, at the camera rate.
        final: Last task status.
        sim_seconds, wall_seconds: Duration.
    """

    stages: list[tuple[float, str, str]] = field(default_factory=list)
    plans: list[WaypointPlan] = field(default_factory=list)
    guidances: list[Guidance] = field(default_factory=list)
    verdicts: list[WaypointPlan] = field(default_factory=list)
    tcp_path: list[Array] = field(default_factory=list)
    final: TaskStatus | None = None
    sim_seconds: float = 0.0
    wall_seconds: float = 0.0


class Graph:
    """The graph's cores around a simulated world."""

    def __init__(
        self,
        world: Cell,
        arm: ArmModel,
        planner: SubgoalPlanner,
        cropper: Cropper,
        trajectory: TrajectoryGenerator,
        policy: ExpertPolicy,
        streamer: Streamer,
        task: TaskMachine,
        *,
        timing: Timing | None = None,
        frame_filter: FrameFilter | None = None,
        plan_filter: PlanFilter | None = None,
        blind: bool = False,
        seed: int = 0,
    ) -> None:
        """Wire them.

        Args:
            world, arm, planner, cropper, trajectory, policy, streamer, task: Cores.
            timing: Rates and latencies.
            frame_filter: Applied to every image.
            plan_filter: Applied to every plan.
            blind: Only the planner looks at images: none is exposed while nothing is asked of it, no
                cloud is cropped and depth is not assessed. For policies without eyes.
            seed: Of the policy's noise.
        """
        self.world, self.arm = world, arm
        self.planner, self.cropper, self.trajectory = planner, cropper, trajectory
        self.policy, self.streamer, self.task = policy, streamer, task
        self.timing = timing or Timing()
        self.frame_filter, self.plan_filter = frame_filter, plan_filter
        self.blind = blind
        self.seed = seed
        self._leased_until = -math.inf
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._request: PlanRequest | None = None
        self._guidance: Guidance | None = None
        self._progress: Progress | None = None
        self._cloud: Cloud | None = None
        self._joints: list[JointState] = []
        self._next_progress = 0.0
        self.trace = EpisodeTrace()

    # -- the wires -----------------------------------------------------------------------------

    def run(self, instruction: str, *, limit: float = 120.0, settle: float = 1.5) -> EpisodeTrace:
        """Carry out one instruction.

        Args:
            instruction: The operator's words.
            limit: Simulated seconds after which the episode is given up.
            settle: Simulated seconds that objects get to come to rest after the task ended.

        Raises:
            BridgeError: The task refuses the instruction itself.
        """
        started = time.monotonic()
        timing, world, task = self.timing, self.world, self.task
        ended, instructed = math.inf, False
        next_camera = next_policy = 0.0
        while world.now < min(limit, ended + settle):
            now = world.now
            self._deliver(now)
            self._sense()
            if now >= next_camera - 1e-9:
                next_camera += timing.camera_period
                self.trace.tcp_path.append(self.arm.fk(self._joints[-1].position).translation)
                if ended == math.inf:  # nobody looks any more once the task is over
                    self._expose(now)
            if now >= next_policy - 1e-9:
                next_policy += timing.policy_period
                self._act(now)
            self._command(now)
            if not instructed and now >= 0.2:
                instructed = True
                task.instruct(now, instruction)
            self._manage(now)
            if instructed and not task.running and ended == math.inf:
                ended = now
            world.step(timing.tick)
        self.trace.final = task.status
        self.trace.sim_seconds = world.now
        self.trace.wall_seconds = time.monotonic() - started
        return self.trace

    def _later(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (when, next(self._order), call))

    def _deliver(self, now: float) -> None:
        while self._queue and self._queue[0][0] <= now + 1e-9:
            heapq.heappop(self._queue)[2]()

    def _sense(self) -> None:
        joints = self.world.joint_state()
        self._joints = [*self._joints[-1:], joints]
        self.streamer.on_joint_state(joints)

    def _expose(self, now: float) -> None:
        """One image: to the cropper (unless blind), to the planner when it was asked."""
        asked = self._request is not None and now >= self._request.stamp
        if self.blind and not asked:
            return
        frame = self.world.render()
        if self.frame_filter is not None:
            frame = self.frame_filter(frame)
        T_base_camera, joints = self.world.T_base_camera, self._joints[-1]
        if not self.blind:
            center, guidance_id = self._crop_center()
            cloud, quality = self.cropper.crop(
                frame, T_base_camera, joints, center, guidance_id, now + self.timing.cropper_latency
            )
            self._later(now + self.timing.cropper_latency, lambda: self._on_cloud(cloud, quality))
        request = self._request
        if request is not None and frame.stamp >= request.stamp:
            self._request = None
            plan = self.planner.plan(request, frame, T_base_camera, now=now, joints=joints)
            if request.attempt == CHECK:
                self._later(now + self.timing.planner_latency, lambda: self._on_verdict(plan))
                return
            if self.plan_filter is not None and plan.code is ErrorCode.NONE:
                plan = self.plan_filter(plan)
            self._later(now + self.timing.planner_latency, lambda: self._on_plan(plan))

    def _crop_center(self) -> tuple[Array | None, str]:
        guidance, progress = self._guidance, self._progress
        if guidance is None:
            return None, ""
        begun = progress is not None and progress.guidance_id == guidance.guidance_id
        where = (progress.progress, progress.events_done) if begun and progress is not None else (0.0, 0)
        return next_contact(guidance, *where), guidance.guidance_id

    def _on_cloud(self, cloud: Cloud, quality: DepthQuality) -> None:
        self._cloud = cloud
        self.task.on_depth_quality(quality, self.world.now)

    def _on_plan(self, plan: WaypointPlan) -> None:
        now = self.world.now
        self.trace.plans.append(plan)
        self.task.on_plan(plan, now)
        if plan.code is not ErrorCode.NONE:
            return
        joints = self._joints[-1]
        guidance = self.trajectory.generate(
            plan, plan.T_base_camera, self.arm.fk(joints.position), joints.gripper_width
        )
        self.trace.guidances.append(guidance)
        self._later(now + self.timing.message_latency, lambda: self._on_guidance(guidance))

    def _on_verdict(self, verdict: WaypointPlan) -> None:
        self.trace.verdicts.append(verdict)
        self.task.on_plan(verdict, self.world.now)

    def _on_guidance(self, guidance: Guidance) -> None:
        now = self.world.now
        self.task.on_guidance(guidance, now)
        if guidance.code is ErrorCode.NONE:
            self._guidance = guidance
            self.streamer.on_guidance(guidance)

    def _act(self, now: float) -> None:
        """One period of the policy, while the arm may move: without a lease no chunk is followed."""
        if self._guidance is None or self._progress is None or now > self._leased_until:
            return
        observation = ExpertObservation(now, tuple(self._joints), self._cloud, self._guidance, self._progress)
        try:
            chunk = self.policy.chunk(observation, self.seed)
        except BridgeError as error:
            chunk = refusal(observation, self.seed, error)  # as in the node: the streamer holds and names it
        self._later(now + self.timing.policy_latency, lambda: self.streamer.on_chunk(chunk, self.world.now))

    def _command(self, now: float) -> None:
        command, progress = self.streamer.tick(now)
        if command is not None:
            self.world.command_joint_trajectory(
                command.stamp, command.time_from_start, command.position, command.velocity
            )
            if not np.isnan(command.gripper_width):
                self.world.command_gripper(command.gripper_width)
        if now >= self._next_progress:
            self._next_progress += self.timing.progress_period
            self._progress = progress
            self.task.on_progress(progress, now)

    def _manage(self, now: float) -> None:
        for output in self.task.tick(now):
            if isinstance(output, PlanRequest):
                self._request = output
            elif isinstance(output, Lease):
                self.streamer.on_lease(output)
                self._leased_until = output.stamp + output.duration if output.guidance_id else -math.inf
        status = self.task.status
        entry = (status.stage.name, status.code.name)
        if not self.trace.stages or self.trace.stages[-1][1:] != entry:
            self.trace.stages.append((now, *entry))
