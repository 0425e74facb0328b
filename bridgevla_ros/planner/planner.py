"""Image and instruction to a checked plan of waypoints, or to a refusal that says why."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bridgevla_ros.core.camera import check_frame
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import (
    CHECK,
    CameraIntrinsics,
    GripperEvent,
    JointState,
    Keypoint,
    PlanRequest,
    RgbdFrame,
    Role,
    Waypoint,
    WaypointKind,
    WaypointPlan,
)
from bridgevla_ros.perception.monocular import DepthNetwork, fill
from bridgevla_ros.perception.smoothing import smooth
from bridgevla_ros.planner import gate
from bridgevla_ros.planner.agenda import Agenda
from bridgevla_ros.planner.already import lies_in
from bridgevla_ros.planner.answers import AlreadyDone
from bridgevla_ros.planner.backends import Anchor, Anchors, Backend, LocalWaypoint, make_backend
from bridgevla_ros.planner.backends.chat import ChatBackend
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.done import Before, Verdict, events_of, judge
from bridgevla_ros.planner.grasp import Cloud3d, grasp, top_down
from bridgevla_ros.planner.language import normalise
from bridgevla_ros.planner.ledger import Ledger
from bridgevla_ros.planner.lifting import Lifted, lift
from bridgevla_ros.planner.own_body import without_arm
from bridgevla_ros.planner.place import Place, free_ground, place, release
from bridgevla_ros.planner.stops import POSTURE, Stop, by_either_hand, waypoints_of
from bridgevla_ros.planner.viewpoint import camera_yaw as camera_yaw

if TYPE_CHECKING:
    from bridgevla_ros.planner.witness import Witness

RETRY_STEP = 0.004
"""Metres that a second and third try grasp lower."""


class Planner:
    """One way from request and frame to plan. Not for two threads at a time, but for ``cancel``.

    Attributes:
        ledger: Where the time of the last plan went: understand, anchors, lift, waypoints, gate.
        witness: The second opinion on anchors; None where it is switched off.
        verdict: Whether a step is done, of the last request; None where it did not ask or nothing was known.
    """

    def __init__(
        self, config: PlannerConfig, backend: Backend | None = None, arm: ArmModel | None = None
    ) -> None:
        self.config = config
        self.backend = make_backend(config) if backend is None else backend
        self.arm = ArmModel.load(config.robot) if arm is None else arm
        self._home = self.arm.fk(self.arm.home)
        still = np.zeros(len(self.arm.home))
        self._at_home = JointState(0.0, self.arm.home, still, self.arm.gripper_max_width)
        self.ledger = Ledger()
        self.witness = _witness(config, self.backend)
        self._network = _network(config)
        self._agenda = Agenda(strict=self.backend.name == "embedded")
        self._before: Before | None = None
        self.verdict: Verdict | None = None

    def cancel(self) -> None:
        """End a plan that is being made, which is then refused as CANCELLED; from any thread."""
        if isinstance(self.backend, ChatBackend):
            self.backend.cancel()

    def costs(self) -> dict[str, float]:
        """Seconds of the last plan by section; of a vision-language model also tokens and their rate."""
        out = {f"{name}_s": seconds for name, seconds in self.ledger.seconds.items()}
        if isinstance(self.backend, ChatBackend):
            usage = self.backend.usage
            out |= {"encode_s": usage.encode, "generate_s": usage.generate, "tokens": float(usage.tokens)}
            out |= {"tokens_per_s": usage.tokens_per_second, "cached_turns": float(usage.cached)}
        if self.verdict is not None:
            shares = ("left", "arrived", "beside", "visible")
            out |= {f"done_{name}": getattr(self.verdict, name) for name in shares}
        return out

    def plan(
        self,
        request: PlanRequest,
        frame: RgbdFrame,
        T_base_camera: Transform,
        *,
        now: float,
        joints: JointState | None = None,
    ) -> WaypointPlan:
        """Answer a request from one frame: plan a step or, where it is a ``CHECK``, say whether it is done.

        Args:
            request: What is wanted; its stamp is no later than the frame's.
            frame: Colour and depth.
            T_base_camera: At the frame's stamp.
            now: Seconds, for the plan's latency.
            joints: Where the arm was when the frame was taken; None: taken to be at home, wide open.

        Returns:
            A plan, or a refusal with its code; BridgeError never leaves this method.
        """
        self.verdict = None
        if request.attempt == CHECK:
            return self._check(request, frame, T_base_camera, now, joints)
        clause, total = "", 0
        anchors: tuple[Keypoint, ...] = ()
        null = 0.0
        ledger = self.ledger = Ledger()
        try:
            with ledger.section("understand"):
                goals = self._agenda.goals(normalise(request.instruction))
                total = self._agenda.total(request.task_id, goals)
                entry = self._agenda.entry(request.task_id, goals, request.step)
                clause = entry.words
                check_frame(frame)
                _check_depth(frame)
            with ledger.section("lift"):
                frame = _smooth(frame)
            if self._network is not None:
                with ledger.section("depth"):
                    numbers = self._network.numbers(frame.rgb)
                    frame = fill(frame, numbers, self.config.depth_writes, self.config.depth_residual)
            arm = self._at_home if joints is None else joints
            with ledger.section("lift"):
                frame = without_arm(frame, T_base_camera, self.config.table_height, arm, self.arm)
                cloud = Cloud3d.of(frame, T_base_camera, self.config.table_height)
            seed = request.seed + self.config.seed + request.attempt
            with ledger.section("anchors"):
                found = self.backend.anchors(frame, T_base_camera, clause, seed)
            null = found.null_probability
            self._agenda.count(request.task_id, entry, found.remaining)
            total = self._agenda.total(request.task_id, goals)
            with ledger.section("lift"):
                noise = self.config.depth_noise
                lifted = [lift(frame, T_base_camera, a.pixel, noise) for a in _given(found)]
                anchors = _keypoints(found, lifted, T_base_camera)
            with ledger.section("waypoints"):
                if self.config.waypoint_source == "model":
                    depths = np.array([x.depth for x in lifted])
                    local = self.backend.waypoints(frame, clause, found, depths, seed)
                    stops = self._from_model(local, lifted, T_base_camera)
                else:
                    where = _place(found, lifted, cloud)
                    anchors = _surer(anchors, where)
                    if request.attempt == 0 and where is not None:
                        _check_already(found, where, cloud)
                    stops = self._from_geometry(request, found, where, cloud)
            with ledger.section("gate"):
                draft = gate.Draft((), (), anchors, frame.intrinsics, T_base_camera, cloud, arm)
                waypoints = self._passing(stops, draft)
                if self.witness is not None:
                    self.witness.check(frame, T_base_camera, clause, found)
        except BridgeError as error:
            answer = self.refusal(
                request, error, frame.stamp, frame.intrinsics, T_base_camera,
                subgoal=clause, steps_total=total, anchors=anchors, null_probability=null,
                latency=now - frame.stamp,
            )  # fmt: skip
            if not isinstance(error, AlreadyDone):
                return answer
            self._agenda.count(request.task_id, entry, 1)  # it is a step, done at once
            total = self._agenda.total(request.task_id, goals)
            return dataclasses.replace(answer, plan_id=f"{request.request_id}-already", steps_total=total)
        pixels = tuple(np.asarray(a.pixel, np.float64) for a in _given(found))
        self._before = Before(
            request.task_id, request.step, cloud, frame.intrinsics, T_base_camera, pixels, tuple(lifted),
            events_of(waypoints), found.reference is not None,
        )  # fmt: skip
        plan = WaypointPlan(
            stamp=frame.stamp,
            camera_frame=frame.intrinsics.frame,
            base_frame=self.config.base_frame,
            plan_id=f"{request.request_id}-plan",
            task_id=request.task_id,
            request_id=request.request_id,
            instruction=request.instruction,
            subgoal=clause,
            step=request.step,
            steps_total=total,
            anchors=anchors,
            waypoints=waypoints,
            T_base_camera=T_base_camera,
            intrinsics=frame.intrinsics,
            model=self.backend.name,
            model_sha256=self.backend.sha256,
            seed=seed,
            digest="",
            null_probability=null,
            latency=now - frame.stamp,
            computed_at=now,
        )
        return dataclasses.replace(plan, digest=digest(plan))

    def forget(self) -> None:
        """Know no earlier step, as after a start."""
        self._before = None

    def remembers(self, request: PlanRequest) -> bool:
        """Whether the image that a step was planned from is still known."""
        before = self._before
        return before is not None and (before.task_id, before.step) == (request.task_id, request.step)

    def _check(
        self,
        request: PlanRequest,
        frame: RgbdFrame,
        T_base_camera: Transform,
        now: float,
        joints: JointState | None,
    ) -> WaypointPlan:
        """Whether a step that was carried out is done; an answer without waypoints."""
        ledger = self.ledger = Ledger()
        message = "NOT_SEEN: the planner was started again, or another step was planned, in between"
        code = ErrorCode.DEPTH_HOLE
        if self._before is not None and self.remembers(request):
            with ledger.section("check"):
                arm = self._at_home if joints is None else joints
                self.verdict = judge(self._before, _smooth(frame), T_base_camera, arm, self.arm)
                code, message = self.verdict.code, self.verdict.sentence()
        answer = self.refusal(
            request, BridgeError(code, message), frame.stamp, frame.intrinsics, T_base_camera,
            latency=now - frame.stamp,
        )  # fmt: skip
        return dataclasses.replace(answer, plan_id=f"{request.request_id}-verdict")

    def refusal(
        self,
        request: PlanRequest,
        error: BridgeError,
        stamp: float,
        intrinsics: CameraIntrinsics,
        T_base_camera: Transform,
        *,
        subgoal: str = "",
        steps_total: int = 0,
        anchors: tuple[Keypoint, ...] = (),
        null_probability: float = 0.0,
        latency: float = 0.0,
    ) -> WaypointPlan:
        """The answer to a request that cannot be planned; carries value, limit and remedy in its message."""
        return WaypointPlan(
            stamp=stamp,
            camera_frame=intrinsics.frame,
            base_frame=self.config.base_frame,
            plan_id=f"{request.request_id}-refused",
            task_id=request.task_id,
            request_id=request.request_id,
            instruction=request.instruction[:2000],
            subgoal=subgoal,
            step=request.step,
            steps_total=steps_total,
            anchors=anchors,
            waypoints=(),
            T_base_camera=T_base_camera,
            intrinsics=intrinsics,
            model=self.backend.name,
            model_sha256=self.backend.sha256,
            seed=request.seed,
            digest="",
            null_probability=null_probability,
            code=error.code,
            message=describe(error),
            candidates=error.candidates,
            latency=latency,
        )

    def _from_geometry(
        self, request: PlanRequest, found: Anchors, where: Place | None, cloud: Cloud3d
    ) -> tuple[Stop, ...]:
        """Grip at the source, carry, let go at the destination, all from above."""
        config = self.config
        thing = grasp(cloud, found.source.pixel, self._home, self.arm.gripper_max_width)
        lower = min(request.attempt * RETRY_STEP, max(0.0, thing.hang - 0.016))
        center = thing.center - np.array([0.0, 0.0, lower])
        opening = min(self.arm.gripper_max_width, thing.width + config.grip_opening)
        up = max(config.travel_height + config.table_height, cloud.support + thing.hang + 0.12)
        up = max(up, center[2] + config.approach_height)
        none = GripperEvent.NONE

        def at(xyz: Array, z: float, finger: Array) -> Transform:
            return top_down(np.array([xyz[0], xyz[1], z]), finger)

        stops = [
            Stop(
                at(center, center[2] + config.approach_height, thing.finger),
                WaypointKind.APPROACH,
                GripperEvent.OPEN,
                opening,
                0,
            ),
            Stop(at(center, center[2], thing.finger), WaypointKind.CONTACT, GripperEvent.CLOSE, 0.0, 0),
            Stop(at(center, up, thing.finger), WaypointKind.RETREAT, none, 0.0, 0),
        ]
        if where is not None:
            let_go = min(self.arm.gripper_max_width, thing.width + 0.025)
            given = release(thing, where, let_go)
            goal, finger = given.position, given.finger
            over = max(up, goal[2] + config.approach_height)
            free = found.reference is not None
            stops += [
                Stop(at(goal, over, finger), WaypointKind.APPROACH, none, 0.0, 1),
                Stop(
                    at(goal, goal[2], finger),
                    WaypointKind.CONTACT,
                    GripperEvent.OPEN,
                    let_go,
                    1,
                    free,
                    given.beside,
                ),
                Stop(at(goal, over, finger), WaypointKind.RETREAT, none, let_go, 1),
            ]
        return tuple(stops)

    def _passing(self, stops: tuple[Stop, ...], draft: gate.Draft) -> tuple[Waypoint, ...]:
        """Waypoints that pass the gate, by either hand.

        Raises:
            BridgeError: Why those of the first choice do not pass.
        """
        first: BridgeError | None = None
        for chosen in by_either_hand(stops):
            draft = dataclasses.replace(
                draft,
                waypoints=waypoints_of(chosen, draft.anchors, draft.intrinsics, draft.T_base_camera),
                poses_base=tuple(s.pose for s in chosen),
                beside=np.sum([s.beside for s in chosen], 0),
            )
            try:
                gate.check(draft, self.config, self.arm)
            except BridgeError as error:
                first = first or error
                if error.code not in POSTURE:
                    break
            else:
                return draft.waypoints
        assert first is not None
        raise first

    def _from_model(
        self, local: list[LocalWaypoint], lifted: list[Lifted], T_base_camera: Transform
    ) -> tuple[Stop, ...]:
        """Offsets of the second turn, from the gravity-aligned, camera-yaw frame to the base frame."""
        yaw = camera_yaw(T_base_camera)
        turn = np.array([[np.cos(yaw), -np.sin(yaw), 0.0], [np.sin(yaw), np.cos(yaw), 0.0], [0.0, 0.0, 1.0]])
        stops, width = [], self.arm.gripper_max_width
        for waypoint in local:
            if not 0 <= waypoint.anchor < len(lifted):
                raise BridgeError(
                    ErrorCode.PARSE,
                    f"a waypoint refers to anchor {waypoint.anchor}; there are {len(lifted)}",
                    value=float(waypoint.anchor),
                    limit=float(len(lifted)),
                )
            angle = yaw + waypoint.yaw + np.pi / 2
            finger = np.array([np.cos(angle), np.sin(angle)])
            if float(finger @ self._home.rotation[:2, 1]) < 0:
                finger = -finger  # the two fingers are alike
            position = lifted[waypoint.anchor].position + turn @ np.asarray(waypoint.offset, np.float64)
            if waypoint.event != GripperEvent.NONE:
                width = self.arm.gripper_max_width if waypoint.event == GripperEvent.OPEN else 0.0
            stops.append(
                Stop(top_down(position, finger), waypoint.kind, waypoint.event, width, waypoint.anchor)
            )
        return tuple(stops)


def _place(found: Anchors, lifted: list[Lifted], cloud: Cloud3d) -> Place | None:
    """Where to let go; None where nothing is to be put down."""
    if found.destination is None:
        return None
    if found.reference is not None:
        return free_ground(lifted[1], cloud.support)
    return place(cloud, found.destination.pixel, lifted[1])


def _surer(anchors: tuple[Keypoint, ...], where: Place | None) -> tuple[Keypoint, ...]:
    """Anchors, that of a place as certain as its middle, whatever depth its own pixel has."""
    if where is None or where.sigma >= anchors[1].sigma:
        return anchors
    return anchors[0], dataclasses.replace(anchors[1], sigma=where.sigma)


def _check_already(found: Anchors, where: Place, cloud: Cloud3d) -> None:
    """Raises AlreadyDone where the thing lies in its place."""
    if found.destination is None or found.reference is not None:
        return
    if lies_in(cloud, found.source.pixel, where):
        preposition = "on" if where.flat else "in"
        message = f"the {found.source.label} is already {preposition} the {found.destination.label}"
        raise AlreadyDone(message)


def describe(error: BridgeError) -> str:
    """One line: what is wrong, value and limit, what to do."""
    text = error.message
    if np.isfinite(error.value) and np.isfinite(error.limit):
        unit = f" {error.unit}" if error.unit else ""
        text += f" (value {error.value:.4g}{unit}, limit {error.limit:.4g}{unit})"
    return f"{text}; {error.remedy}" if error.remedy else text


def digest(plan: WaypointPlan) -> str:
    """SHA-256 over what moves the arm: task, step, each pose (base frame, micrometres), event, width."""
    hashed = hashlib.sha256(f"{plan.task_id}\n{plan.step}\n{plan.base_frame}\n{plan.subgoal}\n".encode())
    for waypoint in plan.waypoints:
        pose = plan.T_base_camera @ waypoint.T_camera_tcp
        numbers = np.round(
            np.concatenate([pose.translation, pose.rotation.ravel(), [waypoint.gripper_width]]), 6
        )
        hashed.update((numbers + 0.0).astype("<f8").tobytes())
        hashed.update(struct.pack("<BB?", waypoint.kind, waypoint.gripper_event, waypoint.orientation_valid))
        if waypoint.exact:
            hashed.update(b"exact")
        if waypoint.contact_offset.any():
            hashed.update(np.round(waypoint.contact_offset, 6).astype("<f8").tobytes())
    return hashed.hexdigest()


def _check_depth(frame: RgbdFrame) -> None:
    valid = float((np.isfinite(frame.depth) & (frame.depth > 0)).mean())
    if valid < 0.05:
        raise BridgeError(
            ErrorCode.DEPTH_HOLE,
            f"only {100 * valid:.1f}% of the depth image is valid",
            value=valid,
            limit=0.05,
            remedy="check the depth camera",
        )


def _smooth(frame: RgbdFrame) -> RgbdFrame:
    return dataclasses.replace(frame, depth=smooth(frame.depth))


def _witness(config: PlannerConfig, backend: Backend) -> Witness | None:
    """The embedded model's eyes: those of the backend where it is the embedded one."""
    from bridgevla_ros.planner.backends.embedded import EmbeddedBackend
    from bridgevla_ros.planner.witness import Witness

    if config.semantic_limit <= 0.0:
        return None
    embedded = backend if isinstance(backend, EmbeddedBackend) else EmbeddedBackend(PlannerConfig())
    return Witness(embedded.eyes, config.semantic_limit)


def _network(config: PlannerConfig) -> DepthNetwork | None:
    """What fills the depth sensor's holes; None where nothing does."""
    if config.depth_source != "monocular":
        return None
    return DepthNetwork(Path(config.depth_weights), config.device)


def _given(found: Anchors) -> list[Anchor]:
    return [found.source] if found.destination is None else [found.source, found.destination]


def _keypoints(found: Anchors, lifted: list[Lifted], T_base_camera: Transform) -> tuple[Keypoint, ...]:
    T_camera_base = T_base_camera.inverse()
    return tuple(
        Keypoint(
            role=Role(i),
            label=anchor.label,
            pixel=np.asarray(anchor.pixel, np.float64),
            depth=point.depth,
            position_camera=T_camera_base.apply(point.position),
            sigma=point.sigma,
            confidence=anchor.confidence,
        )
        for i, (anchor, point) in enumerate(zip(_given(found), lifted, strict=True))
    )
