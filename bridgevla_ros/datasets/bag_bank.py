"""Training shards of recorded tasks: what the sensors gave, with labels in hindsight.

A simulator knows where the contact truly is; a recording of a real arm does not. But a gripper event that
worked tells: where the TCP was when the fingers moved, of a task that was verified, was a good contact. That
pose is the label of the frames before it. Points beside it count as the target's. Both are coarser than truth
(the arm need not have been in the middle); shards from bags say so in their ``meta``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.guidance import next_contact
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.types import (
    Cloud,
    GripperEvent,
    Guidance,
    JointState,
    Progress,
    StreamerState,
)
from bridgevla_ros.datasets.bag_episodes import CLOUD, GUIDANCE, JOINTS, PLAN, PROGRESS, BagEpisode, flat_pose
from bridgevla_ros.training.data_bank import OTHERS, Bank, from_rows

FIRST_EPISODE = 10**12
"""Episode numbers of bags, far from any scene seed."""
NEAR = 0.3
"""Metres between hand and contact within which frames are kept, as in data from the simulator."""
BESIDE = 0.04
"""Metres from the contact's axis, and below and above it: points so near are taken for the target's."""
Z_MARGIN = 0.005
"""Metres above and below the contact that would have done as well. Our choice."""
YAW_PERIOD = float(np.pi)
"""A parallel gripper has no front; more is not known of what was grasped."""


def to_bank(episode: BagEpisode, number: int) -> Bank | None:
    """Frames before each gripper event of an episode.

    Args:
        episode: A task that ended well.
        number: Tells its episode from others.

    Returns:
        A shard; None where the task failed, or clouds, plan, guidance or progress were not recorded.
    """
    needed = (CLOUD, GUIDANCE, PROGRESS, JOINTS, PLAN)
    good = episode.span.code is ErrorCode.NONE and episode.success is not False
    if not good or not all(episode.there(topic) for topic in needed):
        return None
    arm = ArmModel.load()
    rows: list[dict[str, Any]] = []
    clouds: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
    classes: list[str] = []
    begin = episode.bounds[0]
    contacts = _contacts(episode)
    for k, (since, until, guidance, event) in enumerate(contacts):
        joints: JointState = episode.series[JOINTS].at(until)
        pose = flat_pose(arm.fk(joints.position))
        series = episode.series[CLOUD]
        for stamp, cloud in zip(series.stamps, series.values, strict=True):
            if not since < stamp <= until:
                continue
            now: JointState = episode.series[JOINTS].at(stamp)
            here = flat_pose(arm.fk(now.position))
            if np.linalg.norm(here[:3] - pose[:3]) > NEAR or not len(cloud.points_base):
                continue
            progress: Progress = episode.series[PROGRESS].at(stamp)
            mine = progress.guidance_id == guidance.guidance_id
            center = next_contact(
                guidance, *((progress.progress, progress.events_done) if mine else (0.0, 0))
            )
            rows.append(
                {
                    "stamp": stamp - begin,
                    "camera": flat_pose(episode.series[PLAN].at(stamp)),
                    "joints": now.position,
                    "joint_velocity": now.velocity,
                    "tcp": here,
                    "twist": arm.jacobian(now.position) @ now.velocity,
                    "width": now.gripper_width,
                    "center": center,
                    "episode": FIRST_EPISODE + number,
                    "contact": k,
                    "event": int(event),
                    "pose": pose,
                    "yaw_period": YAW_PERIOD,
                    "z_band": (pose[2] - Z_MARGIN, pose[2] + Z_MARGIN),
                    "x_band": (0.0, 0.0),
                    "others": np.full((OTHERS, 2), np.nan),
                    "onward": np.zeros(3),
                }
            )
            clouds.append(_cloud(cloud, np.asarray(center), pose))
            classes.append("pick thing" if event is GripperEvent.CLOSE else "place thing")
    if not rows:
        return None
    meta = {"source": "bags", "labels": "hindsight", "bag": episode.bag.name, "task": episode.span.task_id}
    return from_rows(rows, clouds, classes, meta)


def _contacts(episode: BagEpisode) -> list[tuple[float, float, Guidance, GripperEvent]]:
    """Gripper events that worked: (stamp of the event before, stamp when it began, guidance, event).

    Of a guidance that ended in GRASP_FAILED the closing did not work, and is left out.
    """
    guidances: dict[str, Guidance] = {g.guidance_id: g for g in episode.series[GUIDANCE].values}
    series = episode.series[PROGRESS]
    failed = {p.guidance_id for p in series.values if p.code is ErrorCode.GRASP_FAILED}
    begun: dict[tuple[str, int], float] = {}
    for stamp, progress in zip(series.stamps, series.values, strict=True):
        if progress.state is StreamerState.GRIPPING and progress.guidance_id in guidances:
            begun.setdefault((progress.guidance_id, progress.events_done), stamp)
    found, since = [], -np.inf
    for (name, index), stamp in begun.items():
        guidance = guidances[name]
        if index < len(guidance.events) and name not in failed:
            found.append((since, stamp, guidance, GripperEvent(int(guidance.events[index]))))
        since = stamp
    return found


def _cloud(
    cloud: Cloud, center: NDArray[np.float64], pose: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Distinct points relative to the centre, their ages, and which are beside the contact."""
    points, first = np.unique(cloud.points_base.astype(np.float64), axis=0, return_index=True)
    off = points - pose[:3]
    beside = (np.hypot(off[:, 0], off[:, 1]) < BESIDE) & (np.abs(off[:, 2]) < BESIDE)
    return points - center, cloud.age[first], beside
