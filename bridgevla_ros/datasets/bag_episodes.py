"""Episodes in bags: found by task id, cut out, and put on the even grid of a data set.

A frame at time t holds of every sensor the newest measurement whose stamp is not after t. ``action`` is where
the arm was one frame later and the width that the gripper was told: what was done, not what was wanted.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.bags.faults import TaskSpan, find_tasks
from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.bags.trim import NOTE
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import Cloud, DepthQuality, Guidance, JointState, Progress
from bridgevla_ros.datasets.features import Feature
from bridgevla_ros.datasets.messages import POSE

COLOUR, DEPTH = "/camera/color/image_raw", "/camera/depth/image_raw"
CLOUD, JOINTS, GRIPPER = "/cloud", "/joint_states", "/gripper/command"
QUALITY, GUIDANCE, PROGRESS, OUTCOME = "/depth_quality", "/guidance", "/progress", "/sim_arm/outcome"
PLAN, INFO = "/plan", "/camera/color/camera_info"
TOPICS = (COLOUR, DEPTH, CLOUD, JOINTS, GRIPPER, QUALITY, GUIDANCE, PROGRESS, OUTCOME, PLAN, INFO)
JUDGED_WITHIN = 4_000_000_000
"""Nanoseconds of receipt after the end of a task in which a judge's word counts for it."""


@dataclass
class Series:
    """Messages of one topic: stamps in seconds, receipt in seconds, and what they hold."""

    stamps: list[float] = field(default_factory=list)
    received: list[float] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def add(self, stamp: float, received: float, value: Any) -> None:
        """Append one."""
        self.stamps.append(stamp)
        self.received.append(received)
        self.values.append(value)

    def at(self, stamp: float) -> Any:
        """The newest value that is not later than ``stamp``; the first where all are later."""
        return self.values[max(bisect.bisect_right(self.stamps, stamp + 1e-9) - 1, 0)]


@dataclass
class BagEpisode:
    """One task of a bag.

    Attributes:
        bag: Its folder.
        span: The task.
        success: A judge's word; None where the bag has no judge.
        series: What was heard, by topic.
    """

    bag: Path
    span: TaskSpan
    success: bool | None = None
    series: dict[str, Series] = field(default_factory=dict)

    def there(self, topic: str) -> bool:
        """Whether anything was heard on a topic."""
        return bool(topic in self.series and self.series[topic].stamps)

    @property
    def bounds(self) -> tuple[float, float]:
        """Stamps (s) between which joints, and images where there are any, are known."""
        needed = [self.series[t] for t in (JOINTS, COLOUR, DEPTH) if self.there(t)]
        if not self.there(JOINTS):
            return 0.0, 0.0
        return max(s.stamps[0] for s in needed), min(s.stamps[-1] for s in needed)


def find_episodes(path: Path, mapping: Path | None = None) -> list[BagEpisode]:
    """Tasks of one bag, each with what was heard while it ran.

    Raises:
        BridgeError: BAD_INPUT where the bag cannot be read, or tells of no task.
    """
    bag = Bag(path, mapping)
    spans = find_tasks(bag)
    if not spans:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{path} tells of no task (no /status with a task id)",
            remedy="record the whole graph, or name its topics in a mapping file",
        )
    decode = _decoders(ArmModel.load())
    # A trimmed bag holds the colour images that plans were made from, and no others.
    trimmed = f"{NOTE}.first_stamp" in bag.custom and bag.custom.get(f"{NOTE}.colour") != "true"
    topics = [t for t in TOPICS if t in bag.connections() and not (trimmed and t == COLOUR)]
    episodes = []
    for i, span in enumerate(spans):
        stop = min(span.last + JUDGED_WITHIN, spans[i + 1].first if i + 1 < len(spans) else 2**62)
        episode = BagEpisode(Path(path), span, series={t: Series() for t in TOPICS})
        for item in bag.messages(topics, start=span.first, stop=stop):
            if item.topic == OUTCOME:
                episode.success = bool(item.message.done) if item.message.judged else None
            elif item.received_ns <= span.last:
                found = decode[item.topic](item.message)
                if found is not None:
                    episode.series[item.topic].add(found[0], item.received, found[1])
        episodes.append(episode)
    return episodes


def _decoders(arm: ArmModel) -> dict[str, Callable[[Any], tuple[float, Any] | None]]:
    from bridgevla_ros.ros import conversions as c

    def stamped(read: Callable[[Any], Any]) -> Callable[[Any], tuple[float, Any]]:
        return lambda m: (c.stamp_from_msg(m.header.stamp), read(m))

    last = [0.0]

    def joints(message: Any) -> tuple[float, Any]:
        state = c.joint_state_from_msg(message, arm.config)
        last[0] = state.stamp
        return state.stamp, state

    def gripper(message: Any) -> tuple[float, Any]:
        # It has no stamp of its own: it takes effect after the last measurement that was heard.
        return last[0], c.gripper_command_from_msg(message)

    def guidance(message: Any) -> tuple[float, Any] | None:
        found = c.guidance_from_msg(message)
        return (last[0], found) if found.code is ErrorCode.NONE else None

    def camera(message: Any) -> tuple[float, Any] | None:
        plan = c.waypoint_plan_from_msg(message) if not message.code else None
        return None if plan is None else (last[0], plan.T_base_camera)

    return {
        PLAN: camera,
        COLOUR: stamped(c.rgb_from_msg),
        INFO: stamped(c.intrinsics_from_msg),
        DEPTH: stamped(c.depth_from_msg),
        CLOUD: stamped(c.cloud_from_msg),
        JOINTS: joints,
        GRIPPER: gripper,
        QUALITY: stamped(c.depth_quality_from_msg),
        GUIDANCE: guidance,
        PROGRESS: stamped(c.progress_from_msg),
    }


def features(episode: BagEpisode, *, points: int = 512, depth: bool = False) -> dict[str, Feature]:
    """Columns that an episode's bag can fill."""
    arm = ArmModel.load()
    names = arm.joint_names
    base = "base frame, x y z then quaternion"
    out = {
        "observation.state": Feature("float32", (len(names),), tuple(f"{n}.pos" for n in names), "rad"),
        "observation.velocity": Feature("float32", (len(names),), tuple(f"{n}.vel" for n in names), "rad/s"),
        "observation.tcp": Feature("float32", (7,), POSE, "m", f"measured TCP, {base}"),
        "observation.gripper": Feature("float32", unit="m", description="between the finger pads, measured"),
        "observation.guidance": Feature(
            "float32", (7,), POSE, "m", f"guidance at the executed progress, {base}; the TCP without guidance"
        ),
        "observation.progress": Feature("float32", description="0..1 of the guidance, executed"),
        "action": Feature(
            "float32",
            (8,),
            (*POSE, "gripper"),
            "m",
            "TCP one frame later, base frame; gripper width that was commanded",
        ),
    }
    if episode.there(COLOUR):
        height, width = episode.series[COLOUR].values[0].shape[:2]
        out["observation.images.front"] = Feature("image", (height, width, 3))
    if depth and episode.there(DEPTH):
        height, width = episode.series[DEPTH].values[0].shape
        out["observation.images.depth"] = Feature("image", (height, width, 1), unit="m", depth=True)
    if episode.there(PLAN):
        out["observation.camera"] = Feature(
            "float32", (7,), POSE, "m", f"camera, optical axes, as the plan had it, {base}"
        )
    if episode.there(CLOUD):
        out["observation.cloud"] = Feature(
            "float32",
            (points, 4),
            ("x", "y", "z", "age"),
            "m, s",
            "base frame; seconds since each point was seen; repeated where fewer were",
        )
        out["observation.cloud_count"] = Feature("int32", description="rows of the cloud that are distinct")
    return out


def columns(
    episode: BagEpisode, wanted: dict[str, Feature], fps: int
) -> tuple[dict[str, NDArray[Any]], NDArray[np.float64]]:
    """An episode on an even grid.

    Args:
        episode: From ``find_episodes``.
        wanted: Of ``features``, perhaps those of another bag of the same robot and camera.
        fps: Frames a second of the bag's own clock.

    Returns:
        Columns (T, *row), and (T,) stamps in seconds.

    Raises:
        BridgeError: BAD_INPUT where it is shorter than two frames, or lacks a column.
    """
    first, last = episode.bounds
    stamps = np.arange(first, last + 1e-9, 1.0 / fps)
    if len(stamps) < 2:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{episode.span.task_id} is {max(last - first, 0.0):.2f} s long",
            value=max(last - first, 0.0),
            limit=1.0 / fps,
            unit="s",
            remedy="it needs at least two frames",
        )
    lacking = sorted(wanted.keys() - features(episode, depth=True).keys())
    if lacking:
        raise BridgeError(ErrorCode.BAD_INPUT, f"{episode.bag} cannot fill {', '.join(lacking)}")
    arm = ArmModel.load()
    states: list[JointState] = [episode.series[JOINTS].at(t) for t in stamps]
    tcp = np.array([flat_pose(arm.fk(s.position)) for s in states], np.float32)
    told = [_gripper(episode, s, t) for s, t in zip(states, stamps, strict=True)]
    guided = [_guided(episode, t, tcp[i]) for i, t in enumerate(stamps)]
    out: dict[str, NDArray[Any]] = {
        "observation.state": np.array([s.position for s in states], np.float32),
        "observation.velocity": np.array([s.velocity for s in states], np.float32),
        "observation.tcp": tcp,
        "observation.gripper": np.array([s.gripper_width for s in states], np.float32),
        "observation.guidance": np.array([g for g, _ in guided], np.float32),
        "observation.progress": np.array([p for _, p in guided], np.float32),
        "action": np.column_stack([np.vstack([tcp[1:], tcp[-1:]]), told]).astype(np.float32),
    }
    if "observation.images.front" in wanted:
        out["observation.images.front"] = np.stack([episode.series[COLOUR].at(t) for t in stamps])
    if "observation.images.depth" in wanted:
        out["observation.images.depth"] = np.stack([episode.series[DEPTH].at(t) for t in stamps])
    if "observation.camera" in wanted:
        out["observation.camera"] = np.array(
            [flat_pose(episode.series[PLAN].at(t)) for t in stamps], np.float32
        )
    if "observation.cloud" in wanted:
        size = wanted["observation.cloud"].shape[0]
        clouds = [_fixed(episode.series[CLOUD].at(t), size) for t in stamps]
        out["observation.cloud"] = np.stack([c for c, _ in clouds])
        out["observation.cloud_count"] = np.array([n for _, n in clouds], np.int32)
    return {name: out[name] for name in wanted}, stamps


def flat_pose(T: Transform) -> NDArray[np.float64]:
    """(7,) x y z and quaternion x y z w."""
    return np.concatenate([T.translation, T.quat()])


def _gripper(episode: BagEpisode, state: JointState, stamp: float) -> float:
    """Width that was told last; the measured one before anything was."""
    series = episode.series[GRIPPER]
    told = series.stamps and series.stamps[0] <= stamp
    return float(series.at(stamp)) if told else state.gripper_width


def _guided(episode: BagEpisode, stamp: float, tcp: NDArray[np.float32]) -> tuple[NDArray[Any], float]:
    """Guidance pose at the executed progress, and that progress; the TCP and 0 before there is any."""
    guidances, progresses = episode.series[GUIDANCE], episode.series[PROGRESS]
    if not guidances.stamps or guidances.stamps[0] > stamp or not progresses.stamps:
        return tcp, 0.0
    guidance: Guidance = guidances.at(stamp)
    progress: Progress = progresses.at(stamp)
    done = progress.progress if progress.guidance_id == guidance.guidance_id else 0.0
    at = int(np.clip(np.searchsorted(guidance.progress, done), 0, len(guidance.progress) - 1))
    return np.concatenate([guidance.position[at], guidance.quat[at]]), done


def _fixed(cloud: Cloud, size: int) -> tuple[NDArray[np.float32], int]:
    """(size, 4) rows x y z age, the distinct ones first; NaN where the cloud is empty."""
    rows = np.column_stack([cloud.points_base, cloud.age]).astype(np.float32)
    rows = np.unique(rows, axis=0)
    if len(rows) == 0:
        return np.full((size, 4), np.nan, np.float32), 0
    if len(rows) > size:
        rows = rows[np.linspace(0, len(rows) - 1, size).round().astype(int)]
    return rows[np.arange(size) % len(rows)], len(rows)


def qualities(episode: BagEpisode) -> list[DepthQuality]:
    """What the cropper said of each depth image."""
    return list(episode.series[QUALITY].values)
