"""Oracle guidance: plans from the demonstrator's truth; what follows is measured apart from a planner."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from bridgevla_ros.core.camera import project
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import (
    CameraIntrinsics,
    JointState,
    Keypoint,
    PlanRequest,
    RgbdFrame,
    Role,
    Waypoint,
    WaypointKind,
    WaypointPlan,
)
from bridgevla_ros.planner.planner import digest
from bridgevla_ros.simulation.demonstrations import Stop, Subgoal, steps_total, subgoal
from bridgevla_ros.simulation.scene import UNSEEN
from bridgevla_ros.simulation.suites import SuiteTask
from bridgevla_ros.simulation.world import World


def waypoint_of(
    stop: Stop, T_camera_base: Transform, intrinsics: CameraIntrinsics, *, exact: bool = False
) -> Waypoint:
    """A demonstrator's waypoint as a plan tells it: in the camera's frame, and sure of itself."""
    pose = T_camera_base @ stop.T_base_tcp
    pixel = project(pose.translation[None], intrinsics)[0]
    depth = float(pose.translation[2])
    return Waypoint(
        pose, stop.kind, stop.event, stop.width, pixel, depth, 1.0,
        exact=exact, contact_offset=stop.contact_offset,
    )  # fmt: skip


def answer(
    request: PlanRequest,
    frame: RgbdFrame,
    T_base_camera: Transform,
    waypoints: tuple[Waypoint, ...],
    *,
    now: float,
    subgoal: str,
    **others: Any,
) -> WaypointPlan:
    """The plan of these waypoints (camera frame) that answers a request; ``others``: further fields."""
    settings: dict[str, Any] = {"base_frame": "base_link", "steps_total": 1, "anchors": ()} | others
    plan = WaypointPlan(
        **settings,
        stamp=frame.stamp,
        camera_frame=frame.intrinsics.frame,
        plan_id=f"{request.request_id}-plan",
        task_id=request.task_id,
        request_id=request.request_id,
        instruction=request.instruction,
        subgoal=subgoal,
        step=request.step,
        waypoints=waypoints,
        T_base_camera=T_base_camera,
        intrinsics=frame.intrinsics,
        model=OraclePlanner.name,
        model_sha256="",
        seed=request.seed,
        digest="",
        latency=now - frame.stamp,
    )
    return dataclasses.replace(plan, digest=digest(plan))


class OraclePlanner:
    """Answers a request with what the demonstrator would do now; exact, an error is added afterwards.

    Args:
        world: Asked for its truth at the moment of the image.
        task: Whose steps are asked for; the words of the request are not read.
    """

    name = "oracle"

    def __init__(self, world: World, task: SuiteTask) -> None:
        self._world, self._task = world, task

    def plan(
        self,
        request: PlanRequest,
        frame: RgbdFrame,
        T_base_camera: Transform,
        *,
        now: float,
        joints: JointState | None = None,
    ) -> WaypointPlan:
        """Waypoints of the request's step, in the camera frame."""
        found = subgoal(self._world, self._task, request.step)
        T_camera_base = T_base_camera.inverse()
        waypoints = []
        truths = iter(found.contacts)
        for stop in found.waypoints:
            at = next(truths).target if stop.kind == WaypointKind.CONTACT else ""
            waypoints.append(waypoint_of(stop, T_camera_base, frame.intrinsics, exact=self._unseen(at)))
        return answer(
            request, frame, T_base_camera, tuple(waypoints), now=now, subgoal=found.words,
            steps_total=steps_total(self._task), anchors=_anchors(found, frame, T_camera_base),
        )  # fmt: skip

    def _unseen(self, target: str) -> bool:
        """A place that depth cannot show is a free spot, as our own planner says of free spots."""
        return bool(target) and self._world.scene.object(target).kind in UNSEEN


def _anchors(found: Subgoal, frame: RgbdFrame, T_camera_base: Transform) -> tuple[Keypoint, ...]:
    """One keypoint for each thing that is touched, where it is touched first."""
    anchors: list[Keypoint] = []
    for contact in found.contacts:
        if contact.target in {a.label for a in anchors}:
            continue
        point = T_camera_base.apply(contact.T_base_tcp.translation)
        pixel = project(point[None], frame.intrinsics)[0]
        role = Role.SOURCE if not anchors else Role.DESTINATION
        anchors.append(
            Keypoint(role, contact.target, np.asarray(pixel, np.float64), float(point[2]), point, 0.0, 1.0)
        )
    return tuple(anchors)
