"""What ``bridgevla bench expert`` runs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np

from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.trajectory import TrajectoryConfig, TrajectoryGenerator
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import (
    CameraIntrinsics,
    Cloud,
    GripperEvent,
    JointState,
    Progress,
    StreamerState,
    Waypoint,
    WaypointKind,
    WaypointPlan,
)
from bridgevla_ros.expert.config import ExpertConfig
from bridgevla_ros.expert.policy import ExpertObservation, make_policy

CASES = (
    ("expert onnx", ExpertConfig()),
    ("expert onnx, 1 sample", ExpertConfig(samples=1)),
    ("expert torch", ExpertConfig(runtime="torch")),
    ("snap", ExpertConfig(policy="snap")),
    ("ik", ExpertConfig(policy="ik")),
)


def observation(arm: ArmModel) -> ExpertObservation:
    """An arm one second above a grasp, 512 points of a cube in sight."""
    down = np.diag([1.0, -1.0, -1.0])
    contact = np.array([0.5, 0.1, 0.02])

    def at(height: float, kind: WaypointKind, event: GripperEvent) -> Waypoint:
        pose = Transform(contact + np.array([0.0, 0.0, height]), down)
        return Waypoint(pose, kind, event, 0.08, np.zeros(2), 1.0, 1.0)

    waypoints = (
        at(0.12, WaypointKind.APPROACH, GripperEvent.OPEN),
        at(0.0, WaypointKind.CONTACT, GripperEvent.CLOSE),
        at(0.15, WaypointKind.RETREAT, GripperEvent.NONE),
    )
    plan = WaypointPlan(
        0.0, "camera", "base_link", "plan", "task", "request", "", "", 0, 1, (), waypoints,
        Transform.identity(), CameraIntrinsics(1, 1, 1.0, 1.0, 0.0, 0.0), "", "", 0, "",
    )  # fmt: skip
    guidance = TrajectoryGenerator(TrajectoryConfig()).generate(
        plan, Transform.identity(), arm.fk(arm.home), 0.08
    )
    progress = float(guidance.event_progress[1]) - 1.0 / guidance.duration
    index = int(np.abs(guidance.progress - progress).argmin())
    pose = Transform.from_quat(guidance.position[index], guidance.quat[index])
    q = arm.ik(pose, arm.home, restarts=3).q
    points = np.random.default_rng(0).uniform(-0.02, 0.02, (512, 3)) + contact + np.array([0.01, 0.0, 0.0])
    cloud = Cloud(9.9, points.astype(np.float32), np.zeros(512, np.float32), contact, guidance.guidance_id)
    executed = Progress(10.0, guidance.guidance_id, progress, 1, StreamerState.MOVING, 1.0, 0.08)
    return ExpertObservation(10.0, (JointState(10.0, q, np.zeros(7), 0.08),), cloud, guidance, executed)


def rows() -> Iterator[tuple[str, Callable[[], object], str]]:
    """Name, work and note of each row; a checkpoint that is missing leaves its rows out, with its reason."""
    arm = ArmModel.load()
    seen = observation(arm)
    for name, config in CASES:
        try:
            policy = make_policy(config, arm)
        except BridgeError as error:
            yield name, lambda: None, str(error)
            continue
        note = (
            f"{config.samples} samples, {config.denoising_steps} steps" if policy.source == "expert" else ""
        )
        yield f"chunk {name}", functools.partial(policy.chunk, seen, 0), note
