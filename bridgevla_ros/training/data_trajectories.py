"""Recorded end-effector paths as guidance for stage 1: from LeRobot data sets, data sets in MCAP, or bags.

Stage 1 needs no clouds, so any robot's path serves: what it did at 3D poses, with the moments at which its
gripper closed or opened. Each such moment is taken for a contact; the path up to it is its guidance. Frames
do not matter (all is kept in the local frame of the next contact) as long as z points up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
QUATERNION, EULER = ("qx", "qy", "qz", "qw"), ("roll", "pitch", "yaw")
_NAMES = ("tcp", "eef", "ee_pose", "end_effector", "ee")


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


def read_paths(folder: Path) -> Iterator[RecordedPath]:
    """Paths of a data set, or of the bags that lie in a folder.

    Raises:
        BridgeError: BAD_INPUT where there is neither, or they hold no end-effector poses.
    """
    if (folder / "meta" / "info.json").is_file() or (folder / "dataset.json").is_file():
        data = open_dataset(folder)
        names = pose_columns(data.features)
        wanted = {name for name, _ in (*names.values(),)}
        for i in range(len(data.episodes)):
            episode = data.episode(i, wanted)
            yield _from_columns(episode.columns, episode.stamps, names)
        return
    for bag in find_bags(folder):
        yield from _from_bag(Bag(bag))


def pose_columns(features: Mapping[str, Feature]) -> dict[str, tuple[str, list[int]]]:
    """Where a data set keeps the hand's pose.

    Taken by the names of elements (x, y, z, qx .. or roll ..), or from a column of seven that is called
    after the hand. Observations go before actions.

    Returns:
        "position", "quat" or "euler", perhaps "width" -> (column, elements of it).

    Raises:
        BridgeError: BAD_INPUT with the columns that there are.
    """
    order = sorted(features, key=lambda n: (not n.startswith("observation"), n))
    found: dict[str, tuple[str, list[int]]] = {}
    for name in order:
        feature = features[name]
        elements = [e.rsplit(".", 1)[-1].lower() for e in feature.names]
        last = name.rsplit(".", 1)[-1].lower()
        if "position" not in found and not name.startswith(("label", "observation.camera")):
            for kind, wanted in (("quat", QUATERNION), ("euler", EULER)):
                if {"x", "y", "z", *wanted} <= set(elements):
                    found["position"] = name, [elements.index(e) for e in "xyz"]
                    found[kind] = name, [elements.index(e) for e in wanted]
                    break
            else:
                if feature.shape == (7,) and any(n in last for n in _NAMES):
                    found["position"], found["quat"] = (name, [0, 1, 2]), (name, [3, 4, 5, 6])
        if "width" not in found and feature.unit == "m" and feature.shape == (1,) and "gripper" in last:
            found["width"] = name, [0]
        elif "width" not in found and "gripper" in elements and feature.dtype.startswith("float"):
            found["width"] = name, [elements.index("gripper")]
    if "position" not in found:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"no end-effector pose among the columns {sorted(features)}",
            remedy="Name the elements of a column x, y, z, qx, qy, qz, qw (or roll, pitch, yaw).",
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
    width = None
    if "width" in names:
        width = take("width")[:, 0]
        if width.max() > 0.3:  # open share 0..1, not metres
            width = OPEN_WIDTH * np.clip(width, 0.0, 1.0)
    return RecordedPath(np.asarray(stamps, np.float64), take("position"), quat, width)


def _from_bag(bag: Bag) -> Iterator[RecordedPath]:
    """By a topic of PoseStamped that is called after the hand, else by joint states of our arm."""
    from bridgevla_ros.ros import conversions as c

    kinds = {topic: connection.msgtype for topic, connection in bag.connections().items()}
    poses = [
        t for t, k in kinds.items()
        if k == "geometry_msgs/msg/PoseStamped" and any(n in t.lower() for n in _NAMES)
    ]  # fmt: skip
    stamps: list[float] = []
    position: list[Array] = []
    quat: list[Array] = []
    width: list[float] = []
    if poses:
        for item in bag.messages([poses[0]]):
            pose = item.message.pose
            stamps.append(c.stamp_from_msg(item.message.header.stamp))
            position.append(np.array([pose.position.x, pose.position.y, pose.position.z]))
            q = pose.orientation
            quat.append(np.array([q.x, q.y, q.z, q.w]))
    elif "/joint_states" in kinds:
        arm = ArmModel.load()
        for item in bag.messages(["/joint_states"]):
            state = c.joint_state_from_msg(item.message, arm.config)
            T_base_tcp = arm.fk(state.position)
            stamps.append(state.stamp)
            position.append(T_base_tcp.translation)
            quat.append(T_base_tcp.quat())
            width.append(state.gripper_width)
    if not stamps:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"no end-effector pose among the topics {sorted(kinds)}",
            remedy="Record a geometry_msgs/PoseStamped on a topic named after tcp or eef, or /joint_states.",
        )
    keep = np.concatenate([[True], np.diff(stamps) > 1e-6])
    yield RecordedPath(
        np.array(stamps)[keep], np.array(position)[keep], np.array(quat)[keep],
        np.array(width)[keep] if width else None,
    )  # fmt: skip


def guidance_of(path: RecordedPath) -> Guidance | None:
    """The path as guidance: rests cut out, gripper events as contacts; None where nothing happens on it."""
    times = np.minimum(np.arange(path.stamps[0], path.stamps[-1], PERIOD), path.stamps[-1])
    if len(times) < 8:
        return None
    position = np.stack([np.interp(times, path.stamps, c) for c in path.position.T], axis=1)
    rotation = Slerp(path.stamps, Rotation.from_quat(path.quat))(times)
    width = None if path.width is None else np.interp(times, path.stamps, path.width)
    speed = np.linalg.norm(np.gradient(position, PERIOD, axis=0), axis=1)
    turning = np.zeros(len(times))
    turning[1:] = (rotation[1:] * rotation[:-1].inv()).magnitude() / PERIOD
    events = [] if width is None else gripper_events(width)
    moves = (speed > STILL[0]) | (turning > STILL[1])
    moves[[0, -1]] = True
    moves[[index for index, _, _ in events]] = True
    kept = np.flatnonzero(moves)
    if len(kept) < 8 or not events:
        return None
    place = {int(old): new for new, old in enumerate(kept)}
    clock: Array = PERIOD * np.arange(len(kept), dtype=np.float64)
    position, rotation = position[kept], rotation[kept]
    quat = rotation.as_quat()
    signs = np.cumprod(np.where(np.sum(quat[1:] * quat[:-1], axis=1) < 0.0, -1.0, 1.0))
    quat[1:] *= signs[:, None]
    linear = np.gradient(position, PERIOD, axis=0)
    angular = np.zeros_like(linear)
    angular[1:-1] = (rotation[2:] * rotation[:-2].inv()).as_rotvec() / (2 * PERIOD)
    at = np.array([place[index] for index, _, _ in events])
    linear[at], angular[at] = 0.0, 0.0
    return Guidance(
        stamp=0.0, base_frame="base", guidance_id="recorded", plan_id="", task_id="",
        progress=clock / clock[-1], nominal_time=clock, position=position, quat=quat,
        linear_velocity=linear, angular_velocity=angular, event_progress=clock[at] / clock[-1],
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


def extend(library: GuidanceLibrary, folder: Path, model: ModelConfig, period: float = 0.2) -> int:
    """Add the recorded paths of a folder to a library; returns how many served.

    Raises:
        BridgeError: BAD_INPUT where none did.
    """
    rows: list[dict[str, Array]] = []
    used = 0
    for path in track(list(read_paths(folder)), "recorded paths"):
        guidance = guidance_of(path)
        if guidance is not None:
            rows.extend(rows_along(guidance, model, period))
            used += 1
    if not used:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"no path in {folder} has a gripper that closes or opens",
            remedy="The gripper's width must be recorded beside the poses.",
        )
    library.extend(rows)
    return used
