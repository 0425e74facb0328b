"""Recorded end-effector paths as guidance for stage 1: from LeRobot data sets, data sets in MCAP, or bags.

Stage 1 needs no clouds, so any robot's path serves: what it did at 3D poses, with the moments at which its
gripper closed or opened. Each such moment is taken for a contact; the path up to it is its guidance. Where
the gripper never moves, or nobody recorded it, contacts are touches without a gripper event: where the hand
comes to rest, and where the path ends. A label is what a correction of the told contact does to the path,
so that it is right whatever was there. Frames do not matter (all is kept in the local frame of the next
contact) as long as z points up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from scipy.spatial.transform import Rotation, Slerp

from bridgevla_ros.bags.reader import Bag, find_bags
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import GripperEvent, Guidance, WaypointKind
from bridgevla_ros.datasets.features import Feature
from bridgevla_ros.datasets.reading import open_dataset
from bridgevla_ros.expert.config import ModelConfig
from bridgevla_ros.training.data_guidance import OPEN_WIDTH, GuidanceLibrary, rows_along

PERIOD = 0.05
"""Seconds between the samples that a path is brought to."""
STILL = 0.004, 0.03
"""m/s and rad/s below which the hand rests; rests are cut out, guidance waits by itself."""
CHANGE = 0.010
"""Metres that the gripper's width changes by in an event."""
REST = 0.3
"""Seconds: a rest that long is taken for a touch, on paths without gripper events."""
FEWEST = 8
"""Samples in motion that a path needs."""
QUATERNION, EULER = ("qx", "qy", "qz", "qw"), ("roll", "pitch", "yaw")
JOINTS = "/joint_states"
_HAND = re.compile(r"(?<![a-z0-9])(tcp|eef|ee|end_?effector)(?![a-z0-9])")
_TOLD = re.compile(r"arm/ee_pose$|(?<![a-z0-9])(command|cmd|goal|target|desired)(?![a-z0-9])")
"""Topics of poses that were wanted; the first is our arm_streamer's."""


@dataclass(frozen=True, eq=False)
class RecordedPath:
    """One recorded motion.

    Attributes:
        stamps: (T,) seconds, rising.
        position: (T, 3) metres, z up; ``quat``: (T, 4) x, y, z, w.
        width: (T,) metres between the pads; None where the recording does not tell.
    """

    stamps: Array
    position: Array
    quat: Array
    width: Array | None


def find_sources(folder: Path) -> list[Path]:
    """Data sets and bags that a path stands for: itself, or all that lie below it.

    Raises:
        BridgeError: BAD_INPUT where there is none.
    """
    sets = {p.parents[1] for p in folder.rglob("meta/info.json")}
    sets |= {p.parent for p in folder.rglob("dataset.json")}
    try:
        bags = find_bags(folder)
    except BridgeError as error:
        if not sets:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"{folder} {'holds neither bags nor data sets' if folder.exists() else 'does not exist'}",
                remedy="Name a folder with bags (.mcap, .db3), LeRobot data sets (meta/info.json) or data "
                "sets in MCAP (dataset.json).",
            ) from error
        bags = []
    return [*sorted(sets), *(bag for bag in bags if not any(bag.is_relative_to(s) for s in sets))]


def read_paths(source: Path) -> Iterator[RecordedPath]:
    """Paths of one data set or bag.

    Raises:
        BridgeError: BAD_INPUT where it cannot be read, or holds no end-effector poses.
    """
    if not ((source / "meta" / "info.json").is_file() or (source / "dataset.json").is_file()):
        yield _from_bag(Bag(source))
        return
    data = open_dataset(source)
    names = pose_columns(data.features)
    wanted = {name for name, _ in names.values()}
    for i in range(len(data.episodes)):
        episode = data.episode(i, wanted)
        yield _from_columns(episode.columns, episode.stamps, names)


def names_hand(name: str) -> bool:
    """Whether a topic or column is called after the hand, by a whole word: ``ee`` is none in ``speed``."""
    return bool(_HAND.search(name.lower()))


def pose_columns(features: Mapping[str, Feature]) -> dict[str, tuple[str, list[int]]]:
    """Where a data set keeps the hand's pose.

    Taken by the names of elements (x, y, z, qx .. or roll ..), or from a column of seven that is called
    after the hand. Observations go before actions, columns called after the hand before others.

    Returns:
        "position", "quat" or "euler", perhaps "width" -> (column, elements of it).

    Raises:
        BridgeError: BAD_INPUT with the columns that there are.
    """
    order = sorted(features, key=lambda n: (not n.startswith("observation"), not names_hand(n), n))
    found: dict[str, tuple[str, list[int]]] = {}
    for name in order:
        feature = features[name]
        elements = [e.rsplit(".", 1)[-1].lower() for e in feature.names]
        if "position" not in found and not name.startswith(("label", "observation.camera")):
            for kind, wanted in (("quat", QUATERNION), ("euler", EULER)):
                if {"x", "y", "z", *wanted} <= set(elements):
                    found["position"] = name, [elements.index(e) for e in "xyz"]
                    found[kind] = name, [elements.index(e) for e in wanted]
                    break
            else:
                if feature.shape == (7,) and names_hand(name):
                    found["position"], found["quat"] = (name, [0, 1, 2]), (name, [3, 4, 5, 6])
        words = re.split(r"[^a-z0-9]+", name.rsplit(".", 1)[-1].lower())
        if "width" not in found and feature.unit == "m" and feature.shape == (1,) and "gripper" in words:
            found["width"] = name, [0]
        elif "width" not in found and "gripper" in elements and feature.dtype.startswith("float"):
            found["width"] = name, [elements.index("gripper")]
    if "position" not in found:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"no end-effector pose among the columns {sorted(features)}",
            remedy="Name the elements of a column x, y, z, qx, qy, qz, qw (or roll, pitch, yaw), or call a "
            "column of these seven after tcp, ee or eef.",
        )
    return found


def _from_columns(
    columns: Mapping[str, NDArray[Any]], stamps: Array, names: Mapping[str, tuple[str, list[int]]]
) -> RecordedPath:
    def take(kind: str) -> Array:
        name, elements = names[kind]
        values = columns[name].reshape(len(stamps), -1)
        return np.asarray(values[:, elements], np.float64)

    if "quat" in names:
        quat = take("quat")
    else:
        quat = Rotation.from_euler("xyz", take("euler")).as_quat()
    width = take("width")[:, 0] if "width" in names else None
    return _checked(f"column {names['position'][0]}", stamps, take("position"), quat, width)


def _from_bag(bag: Bag) -> RecordedPath:
    """Poses of a PoseStamped called after the hand; else by joint states of our arm; else commanded ones.

    The gripper's width is that of the joint states, at the same time; None where they do not tell it.
    """
    kinds = {topic: connection.msgtype for topic, connection in bag.connections().items()}
    poses = sorted(t for t, k in kinds.items() if k == "geometry_msgs/msg/PoseStamped" and names_hand(t))
    measured = [t for t in poses if not _TOLD.search(t.lower())]
    joints = JOINTS in kinds
    width, reached = _from_joints(bag, fk=not measured) if joints else (_Samples(), _Samples())
    where, found = JOINTS, reached
    if not found.stamps and poses:
        where = (measured or poses)[0]
        found = _from_poses(bag, where)
    if not found.stamps:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"no end-effector pose among the topics {sorted(kinds)}",
            remedy="Record a geometry_msgs/PoseStamped on a topic named after tcp, ee or eef, or "
            f"/joint_states with {', '.join(ArmModel.load().config.joint_names)}.",
        )
    values = np.array(found.values)
    stamps = np.array(found.stamps)
    widths = np.interp(stamps, width.stamps, np.ravel(width.values)) if width.stamps else None
    return _checked(f"topic {where}", stamps, values[:, :3], values[:, 3:], widths)


@dataclass
class _Samples:
    """Rows of numbers at stamps (s)."""

    stamps: list[float] = field(default_factory=list)
    values: list[Array] = field(default_factory=list)


def _from_poses(bag: Bag, topic: str) -> _Samples:
    """(7,) x y z, quaternion."""
    out = _Samples()
    for item in bag.messages([topic]):
        p, q = item.message.pose.position, item.message.pose.orientation
        out.stamps.append(_stamp(item.message))
        out.values.append(np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w]))
    return out


def _from_joints(bag: Bag, *, fk: bool) -> tuple[_Samples, _Samples]:
    """The gripper's width, and poses by forward kinematics, of the messages that name our arm's joints."""
    arm, width, poses = ArmModel.load(), _Samples(), _Samples()
    names, gripper = arm.config.joint_names, arm.config.gripper_joint
    for item in bag.messages([JOINTS]):
        at = dict(zip(item.message.name, item.message.position, strict=False))
        if gripper in at and np.isfinite(at[gripper]):
            width.stamps.append(_stamp(item.message))
            width.values.append(np.array([at[gripper]]))
        if fk and all(name in at and np.isfinite(at[name]) for name in names):
            T_base_tcp = arm.fk(np.array([at[name] for name in names]))
            poses.stamps.append(_stamp(item.message))
            poses.values.append(np.concatenate([T_base_tcp.translation, T_base_tcp.quat()]))
    return width, poses


def _stamp(message: Any) -> float:
    stamp = message.header.stamp
    return float(stamp.sec + 1e-9 * stamp.nanosec)


def _checked(where: str, stamps: Array, position: Array, quat: Array, width: Array | None) -> RecordedPath:
    """A path of finite samples in order of time, the width in metres.

    Raises:
        BridgeError: BAD_INPUT, fewer than two samples remain, or orientations are no unit quaternions.
    """
    good = np.isfinite(position).all(axis=1) & np.isfinite(quat).all(axis=1) & np.isfinite(stamps)
    times, first = np.unique(np.asarray(stamps, np.float64)[good], return_index=True)
    if len(times) < 2:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{where}: {len(stamps)} poses, {int(good.sum())} of them finite, at {len(times)} times",
            value=float(len(times)),
            limit=2.0,
            remedy="Record poses with rising stamps.",
        )
    position, quat = position[good][first], quat[good][first]
    length = np.linalg.norm(quat, axis=1)
    off = float(np.abs(length - 1.0).max())
    if off > 0.05:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{where}: its last four numbers are no unit quaternion, but of length {length.min():.2f} to "
            f"{length.max():.2f}",
            value=off,
            limit=0.05,
            remedy="Poses are x, y, z in metres and a quaternion x, y, z, w; name a column's elements where "
            "they are others.",
        )
    if width is not None:
        known = width[good][first]
        width = None if not np.isfinite(known).all() else known
        if width is not None and width.max() > 0.3:  # open share 0..1, not metres
            width = OPEN_WIDTH * np.clip(width, 0.0, 1.0)
    return RecordedPath(times, position, quat, width)


def guidance_of(path: RecordedPath) -> Guidance | None:
    """The path as guidance: rests cut out, gripper events or touches are contacts; None without motion."""
    times = np.minimum(np.arange(path.stamps[0], path.stamps[-1], PERIOD), path.stamps[-1])
    if len(times) < FEWEST:
        return None
    position = np.stack([np.interp(times, path.stamps, c) for c in path.position.T], axis=1)
    rotation = Slerp(path.stamps, Rotation.from_quat(path.quat))(times)
    width = None if path.width is None else np.interp(times, path.stamps, path.width)
    speed = np.linalg.norm(np.gradient(position, PERIOD, axis=0), axis=1)
    turning = np.zeros(len(times))
    turning[1:] = (rotation[1:] * rotation[:-1].inv()).magnitude() / PERIOD
    events = [] if width is None else gripper_events(width)
    moves = (speed > STILL[0]) | (turning > STILL[1])
    if moves.sum() < FEWEST:
        return None
    contacts = [index for index, _, _ in events] or touches(moves)
    moves[[0, -1, *contacts]] = True
    kept = np.flatnonzero(moves)
    place = {int(old): new for new, old in enumerate(kept)}
    clock: Array = PERIOD * np.arange(len(kept), dtype=np.float64)
    position, rotation = position[kept], rotation[kept]
    quat = rotation.as_quat()
    signs = np.cumprod(np.where(np.sum(quat[1:] * quat[:-1], axis=1) < 0.0, -1.0, 1.0))
    quat[1:] *= signs[:, None]
    linear = np.gradient(position, PERIOD, axis=0)
    angular = np.zeros_like(linear)
    angular[1:-1] = (rotation[2:] * rotation[:-2].inv()).as_rotvec() / (2 * PERIOD)
    at = np.array([place[index] for index in contacts])
    linear[at], angular[at] = 0.0, 0.0
    acts = at[: len(events)]
    return Guidance(
        stamp=0.0, base_frame="base", guidance_id="recorded", plan_id="", task_id="",
        progress=clock / clock[-1], nominal_time=clock, position=position, quat=quat,
        linear_velocity=linear, angular_velocity=angular, event_progress=clock[acts] / clock[-1],
        events=tuple(event for _, event, _ in events), event_width=np.array([w for _, _, w in events]),
        kind=np.full(len(kept), int(WaypointKind.APPROACH), np.int64),
        contact_position=position[at], contact_progress=clock[at] / clock[-1],
        contact_offset=np.zeros((len(at), 3)),
    )  # fmt: skip


def gripper_events(width: Array) -> list[tuple[int, GripperEvent, float]]:
    """(index at which it begins, what, metres afterwards) of every change of the width by over CHANGE."""
    out: list[tuple[int, GripperEvent, float]] = []
    i = 0
    while i < len(width) - 1:
        step = np.sign(width[i + 1] - width[i])
        end = i + 1
        while end < len(width) - 1 and step != 0 and np.sign(width[end + 1] - width[end]) == step:
            end += 1
        if abs(width[end] - width[i]) > CHANGE:
            event = GripperEvent.CLOSE if step < 0 else GripperEvent.OPEN
            if out and out[-1][1] == event:
                out[-1] = (out[-1][0], event, float(width[end]))  # went on after a halt
            else:
                out.append((i, event, float(width[end])))
        i = end
    return out


def touches(moves: NDArray[np.bool_]) -> list[int]:
    """Indices at which the hand comes to rest for REST or longer, once it has moved, and the end.

    Args:
        moves: (T,) whether it moves, PERIOD apart.
    """
    change = np.diff(np.concatenate([[False], ~moves, [False]]).astype(int))
    begin, end = np.flatnonzero(change > 0), np.flatnonzero(change < 0)
    long = (end - begin >= REST / PERIOD - 1e-6) & (begin > 0)
    found = [int(i) for i in begin[long]]
    if not np.any(end[long] == len(moves)):
        found.append(len(moves) - 1)
    return found


def extend(
    library: GuidanceLibrary, folder: Path, model: ModelConfig, period: float = 0.2,
    say: Callable[[str], None] = print,
) -> int:  # fmt: skip
    """Add the recorded paths of all data sets and bags in a folder to a library.

    Args:
        library: Gets their rows.
        folder: As ``find_sources`` takes it.
        model: Horizon and blend.
        period: Seconds between rows.
        say: Is told what gave nothing, and why.

    Returns:
        How many paths served.

    Raises:
        BridgeError: BAD_INPUT where none did.
    """
    rows: list[dict[str, Array]] = []
    used, refused = 0, []
    for source in track(find_sources(folder), "recorded paths"):
        try:
            found = [guidance_of(path) for path in read_paths(source)]
        except BridgeError as error:
            refused.append(f"{source}: {error.message}; {error.remedy}")
            continue
        serving = [guidance for guidance in found if guidance is not None]
        if not serving:
            refused.append(
                f"{source}: on none of {len(found)} paths does the hand move for {FEWEST * PERIOD} s"
            )
        for guidance in serving:
            rows.extend(rows_along(guidance, model, period))
        used += len(serving)
    if not used:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"no path in {folder} serves. {'. '.join(refused[:3])}",
            value=0.0,
            limit=1.0,
            unit="paths",
            remedy="What recordings must hold: docs/data.md, Recorded paths for stage 1.",
        )
    for line in refused:
        say(f"nothing from {line}")
    library.extend(rows)
    return used
