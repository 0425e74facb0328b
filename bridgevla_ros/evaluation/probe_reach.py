"""Reaches of a policy with its inputs tampered with: what the probe measures in one scene.

The arm is placed where each chunk says (an ideal arm), the camera looks again, the policy is asked again,
until the gripper would close. Nothing else is simplified: rendered depth with its faults, the cropper with
its memory, the plan from the image, the production spline, the policy as it runs. A reach costs about a
tenth of an episode, so that many tell slopes apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.guidance import next_contact
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import (
    Cloud,
    GripperEvent,
    Guidance,
    JointState,
    PlanRequest,
    Progress,
    StreamerState,
    Waypoint,
    WaypointKind,
    WaypointPlan,
)
from bridgevla_ros.evaluation.episode import Episode, make_graph
from bridgevla_ros.evaluation.spec import EpisodeSpec
from bridgevla_ros.expert.policy import ExpertObservation, FollowPolicy
from bridgevla_ros.simulation import robot
from bridgevla_ros.simulation.scene import ObjectSpec
from bridgevla_ros.simulation.world import World

Change = Callable[[ExpertObservation], ExpertObservation]

PERIOD = 4
"""Steps of a chunk between two looks: 0.2 s."""
FROM = 0.22
"""Metres from the contact at which a reach begins: a little outside of where corrections are made."""
STEPS = 60
"""Looks after which a reach is given up (a policy that waits does not arrive)."""
WIDTH = 0.085
"""Metres, the open gripper."""


@dataclass(frozen=True)
class Reached:
    """How a reach ended.

    Attributes:
        tcp: (3,) metres, base frame, at the end.
        finger: (3,) unit vector along which the fingers close.
        progress: Of the guidance, where it ended.
        arrived: The contact's progress was reached.
        observations: What the policy was shown, before any tampering.
        code: Why the policy gave no chunk; empty if it always did.
    """

    tcp: Array
    finger: Array
    progress: float
    arrived: bool
    observations: tuple[ExpertObservation, ...]
    code: str = ""


class Scene:
    """One scene with a policy in it, and the plan for one thing in it.

    Args:
        spec: Scene seed, policy, weights and planner.
        world: Loaded with the scene.
        episode: What is asked for.

    Raises:
        BridgeError: The planner refuses.
    """

    def __init__(self, spec: EpisodeSpec, world: World, episode: Episode) -> None:
        graph = make_graph(spec, world, episode)
        assert isinstance(graph.policy, FollowPolicy)
        self.world, self.arm, self.policy = world, graph.arm, graph.policy
        self.cropper, self.trajectory, self.planner = graph.cropper, graph.trajectory, graph.planner
        self.target = episode.source
        self.seed = spec.seed
        self._home = world.joint_state().position
        self.plan = self._plan(episode.instruction)

    def _plan(self, words: str) -> WaypointPlan:
        world = self.world
        request = PlanRequest(0.0, "probe", "probe", words)
        joints = world.joint_state()
        plan = self.planner.plan(request, world.render(), world.T_base_camera, now=world.now, joints=joints)
        if plan.code is not ErrorCode.NONE:
            raise BridgeError(plan.code, plan.message)
        return plan

    def guidance(self, plan: WaypointPlan | None = None) -> Guidance:
        """The spline of a plan (of the scene's own by default), from the arm's start.

        Raises:
            BridgeError: It is refused.
        """
        plan = self.plan if plan is None else plan
        made = self.trajectory.generate(plan, plan.T_base_camera, self.arm.fk(self._home), WIDTH)
        if made.code is not ErrorCode.NONE:
            raise BridgeError(made.code, made.message)
        return made

    # -- the world ---------------------------------------------------------------------------------

    def put_arm(self, q: Array) -> None:
        """Place the arm, gripper open."""
        data = self.world.data
        for name, value in zip(robot.JOINT_NAMES, q, strict=True):
            data.joint(name).qpos[0] = value
        data.qvel[:] = 0.0
        mujoco.mj_forward(self.world.model, data)

    def shift_target(self, by: Array) -> None:
        """Move the thing that is asked for, metres, base frame."""
        model = self.world.model
        address = int(model.jnt_qposadr[model.body(self.target).jntadr[0]])
        self.world.data.qpos[address : address + 3] += by
        mujoco.mj_forward(model, self.world.data)

    # -- reaching ----------------------------------------------------------------------------------

    def reach(
        self,
        guidance: Guidance,
        change: Change | None = None,
        *,
        begin: float | None = None,
        until: float | None = None,
    ) -> Reached:
        """Follow the policy's chunks along a guidance.

        Args:
            guidance: What the streamer counts progress on.
            change: Tampers with what the policy is shown.
            begin: Progress to begin at; None for ``FROM`` before the first contact.
            until: Progress to stop at; None for the first contact.
        """
        self.policy.reset()
        self.cropper.reset()
        at = start_of_reach(guidance) if begin is None else begin
        end = float(guidance.contact_progress[0]) if until is None else until
        events = int(np.sum(guidance.event_progress < at - 1e-9))
        index = int(np.abs(guidance.progress - at).argmin())
        T = Transform.from_quat(guidance.position[index], guidance.quat[index])
        q, velocity = self.arm.ik(T, self._home, restarts=2).q, np.zeros(7)
        now = guidance.stamp + 0.1
        seen: list[ExpertObservation] = []
        joints: tuple[JointState, ...] = ()
        for _ in range(STEPS):
            obs = self.look(guidance, q, velocity, joints, at, events, now)
            seen.append(obs)
            try:
                chunk = self.policy.chunk(obs if change is None else change(obs), self.seed)
            except BridgeError as error:
                return self._reached(q, at, False, seen, error.code.name)
            step = PERIOD - 1
            q, velocity = chunk.joints[step], chunk.joint_velocities[step]
            # The streamer counts progress on the guidance that it has, tampered with or not.
            at = min(at + PERIOD * chunk.dt / guidance.duration, self._halt(guidance, events))
            now, joints = now + PERIOD * chunk.dt, (obs.joints[-1],)
            if at >= end - 1e-6:
                return self._reached(q, at, True, seen)
            if events < len(guidance.events) and at >= guidance.event_progress[events] - 1e-9:
                events += 1
        return self._reached(q, at, False, seen)

    @staticmethod
    def _halt(guidance: Guidance, events: int) -> float:
        return float(guidance.event_progress[events]) if events < len(guidance.events) else 1.0

    def _reached(
        self, q: Array, at: float, arrived: bool, seen: Sequence[ExpertObservation], code: str = ""
    ) -> Reached:
        T = self.arm.fk(q)
        return Reached(T.translation, T.rotation[:, 1], at, arrived, tuple(seen), code)

    def look(
        self,
        guidance: Guidance,
        q: Array,
        velocity: Array,
        before: Sequence[JointState],
        at: float,
        events: int,
        now: float,
    ) -> ExpertObservation:
        """What the policy gets to see with the arm at ``q``."""
        self.put_arm(q)
        frame = dataclasses.replace(self.world.render(), stamp=now)
        joints = JointState(now, np.asarray(q), np.asarray(velocity), WIDTH)
        center = next_contact(guidance, at, events)
        cloud, _ = self.cropper.crop(
            frame, self.world.T_base_camera, joints, center, guidance.guidance_id, now
        )
        moving = Progress(now, guidance.guidance_id, at, events, StreamerState.MOVING, 1.0, WIDTH)
        return ExpertObservation(now, (*before, joints), cloud, guidance, moving)

    def closes_on(self, reached: Reached) -> bool:
        """Whether the fingers would close on the target: it fits between them, and they stand over it."""
        thing = self.world.scene.object(self.target)
        pose = self.world.object_pose(self.target)
        across = reached.finger
        along = np.cross(across, [0.0, 0.0, 1.0])
        away = pose.translation - reached.tcp
        spare = WIDTH / 2 - _half_extent(thing, pose, across)
        over = 0.8 * _half_extent(thing, pose, along)
        height = reached.tcp[2] - pose.translation[2]
        return bool(
            reached.arrived
            and abs(float(away @ across)) < spare
            and abs(float(away @ along)) < over
            and 0.0 < height < thing.size[2]
        )


def _half_extent(thing: ObjectSpec, pose: Transform, axis: Array) -> float:
    if thing.kind in ("ball", "cylinder"):
        return thing.size[0] / 2
    local = pose.rotation.T @ axis
    return float(np.abs(local) @ (np.array(thing.size) / 2))


def start_of_reach(guidance: Guidance) -> float:
    """Progress of the last sample before the first contact that is ``FROM`` away from it, or 0."""
    before = guidance.progress <= guidance.contact_progress[0]
    away = np.linalg.norm(guidance.position - guidance.contact_position[0], axis=1) >= FROM
    far = np.flatnonzero(before & away)
    return float(guidance.progress[far[-1]]) if len(far) else 0.0


# -- tampering -------------------------------------------------------------------------------------


def shifted_plan(plan: WaypointPlan, by: Array) -> WaypointPlan:
    """The plan, displaced by (3,) metres in the base frame."""
    shift = plan.T_base_camera.inverse().rotate(by)
    moved = tuple(
        dataclasses.replace(
            w, T_camera_tcp=Transform(w.T_camera_tcp.translation + shift, w.T_camera_tcp.rotation)
        )
        for w in plan.waypoints
    )
    return dataclasses.replace(plan, waypoints=moved)


def with_detour(plan: WaypointPlan, via_base: Array) -> WaypointPlan:
    """The plan, by way of (3,) metres, base frame, before its first waypoint."""
    first = plan.waypoints[0]
    place = plan.T_base_camera.inverse().apply(via_base)
    via = Waypoint(
        Transform(place, first.T_camera_tcp.rotation), WaypointKind.VIA, GripperEvent.NONE, WIDTH,
        first.pixel, float(place[2]), 1.0,
    )  # fmt: skip
    return dataclasses.replace(plan, waypoints=(via, *plan.waypoints))


def waiting(guidance: Guidance) -> Guidance:
    """Guidance erased: the arm is told to stay where the reach begins."""
    index = int(np.abs(guidance.progress - start_of_reach(guidance)).argmin())
    still, none = np.zeros_like(guidance.position), np.zeros(0)
    return dataclasses.replace(
        guidance,
        position=np.repeat(guidance.position[index : index + 1], len(still), axis=0),
        quat=np.repeat(guidance.quat[index : index + 1], len(still), axis=0),
        linear_velocity=still, angular_velocity=still, event_progress=none, events=(), event_width=none,
        contact_position=np.zeros((0, 3)), contact_progress=none, contact_offset=np.zeros((0, 3)),
    )  # fmt: skip


def cloud_of(points: Array, obs: ExpertObservation) -> Cloud:
    """A cloud just seen, (N, 3) metres in the base frame."""
    cloud = obs.cloud
    assert cloud is not None
    age = np.zeros(len(points), np.float32)
    return dataclasses.replace(cloud, points_base=np.asarray(points, np.float32), age=age)


def no_cloud(obs: ExpertObservation) -> ExpertObservation:
    """The cloud erased: the camera works and nothing stands there."""
    return dataclasses.replace(obs, cloud=cloud_of(np.zeros((0, 3)), obs))


def other_cloud(points_from_contact: Array) -> Change:
    """The cloud swapped: of another scene, in the same place relative to the contact."""

    def change(obs: ExpertObservation) -> ExpertObservation:
        assert obs.cloud is not None
        return dataclasses.replace(obs, cloud=cloud_of(points_from_contact + obs.cloud.center_base, obs))

    return change


def moved_cloud(by: Array) -> Change:
    """The cloud shifted by (3,) metres."""

    def change(obs: ExpertObservation) -> ExpertObservation:
        assert obs.cloud is not None
        moved = (obs.cloud.points_base + by).astype(np.float32)
        return dataclasses.replace(obs, cloud=dataclasses.replace(obs.cloud, points_base=moved))

    return change


def same_cloud(first: Cloud) -> Change:
    """The cloud frozen: always that first one, as if just taken."""

    def change(obs: ExpertObservation) -> ExpertObservation:
        return dataclasses.replace(obs, cloud=dataclasses.replace(first, stamp=obs.now))

    return change


def other_guidance(guidance: Guidance) -> Change:
    """Another guidance in place of the one that is counted on, at the same progress of its reach."""

    def change(obs: ExpertObservation) -> ExpertObservation:
        events = int(np.sum(guidance.event_progress < obs.progress.progress - 1e-9))
        progress = dataclasses.replace(obs.progress, events_done=events, guidance_id=guidance.guidance_id)
        return dataclasses.replace(obs, guidance=guidance, progress=progress)

    return change


def same_progress(first: Progress) -> Change:
    """Guidance frozen: always what it said at first."""

    def change(obs: ExpertObservation) -> ExpertObservation:
        return dataclasses.replace(obs, progress=dataclasses.replace(first, stamp=obs.now))

    return change


# -- measuring -------------------------------------------------------------------------------------


def nearest(world: World, names: Sequence[str], tcp: Array) -> str:
    """Which of these things the TCP is nearest to, over the table."""
    return min(names, key=lambda n: float(np.hypot(*(world.object_pose(n).translation - tcp)[:2])))


def plain(vector: Array) -> list[float]:
    """For JSON."""
    return [round(float(v), 6) for v in vector]


def difference(policy: Any, obs: ExpertObservation, change: Change, seed: int) -> float:
    """Metres between the chunks with and without a change, root mean square over the steps.

    The policy remembers nothing of either. NaN where it gives no chunk for one of them.
    """
    chunks = []
    for shown in (obs, change(obs)):
        policy.reset()
        try:
            chunks.append(policy.chunk(shown, seed).position)
        except BridgeError:
            return float("nan")
    return float(np.sqrt(np.mean(np.sum((chunks[0] - chunks[1]) ** 2, axis=1))))
