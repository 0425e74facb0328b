"""Make bags of a data set for looking at: ``bridgevla dataset to-bag DATASET -o OUT --episode N``.

Every column becomes a topic with a standard message (images, PointCloud2, PoseStamped, JointState, arrays),
so that Foxglove, rviz and `ros2 bag play` show it; poses come with their whole path, and the camera's pose,
where the data set has it, as /tf_static.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)

from bridgevla_ros.bags.definitions import installed
from bridgevla_ros.bags.writer import BagWriter
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.datasets.episode import DatasetReader, Episode
from bridgevla_ros.datasets.features import Feature
from bridgevla_ros.datasets.mcap_dataset import topic_of, write_columns
from bridgevla_ros.datasets.messages import BASE_FRAME, POSE, header, make, pose
from bridgevla_ros.datasets.reading import open_dataset

CAMERA = "observation.camera"
"""Column with the camera's pose in the base frame, where a data set has one."""
_ANY = QosTime(2147483647, 4294967295)
LATCHED = Qos(
    QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL, _ANY, _ANY,
    QosLiveliness.AUTOMATIC, _ANY, False,
)  # fmt: skip


def to_bag(data: DatasetReader, index: int, out: Path) -> int:
    """Write one episode as a bag.

    Args:
        data: The data set.
        index: Of the episode.
        out: Folder of the bag; must not exist.

    Returns:
        Messages written.

    Raises:
        BridgeError: BAD_INPUT: no such episode, or ``out`` exists.
    """
    names = [n for n, f in data.features.items() if not (f.dtype == "video" and f.depth)]
    episode = data.episode(index, names)
    shown = {n: data.features[n] for n in names}
    custom = {"task": episode.task, "dataset": data.root.name, "episode": str(index)}
    store = installed()
    with BagWriter(out, compression="zstd", custom=custom) as bag:
        count = 0
        for topic, msgtype, message in _fixed(episode, shown):
            bag.add_type(topic, msgtype, qos=(LATCHED,))
            bag.write(topic, round(episode.stamps[0] * 1e9), bytes(store.serialize_cdr(message, msgtype)))
            count += 1
        return count + write_columns(bag, shown, episode)


def _fixed(episode: Episode, features: dict[str, Feature]) -> Iterator[tuple[str, str, Any]]:
    """What is said once, at the beginning: where the camera is, and the paths of all poses."""
    begin = float(episode.stamps[0])
    cameras = [n for n, f in features.items() if f.is_image]
    if CAMERA in features and cameras:
        transforms = [_transform(episode.columns[CAMERA][0], begin, _frame(n)) for n in cameras]
        yield "/tf_static", "tf2_msgs/msg/TFMessage", make("tf2_msgs/msg/TFMessage", transforms=transforms)
    for name, feature in features.items():
        if feature.names[:7] == POSE and len(feature.row) == 1 and name != CAMERA:
            rows = episode.columns[name][:, :7]
            yield f"{topic_of(name)}/path", "nav_msgs/msg/Path", _path(rows, episode.stamps)


def _frame(name: str) -> str:
    return name.rpartition(".")[2]


def _path(rows: NDArray[Any], stamps: NDArray[np.float64]) -> Any:
    poses = [
        make("geometry_msgs/msg/PoseStamped", header=header(float(t), BASE_FRAME), pose=pose(row))
        for row, t in zip(rows, stamps, strict=True)
        if np.isfinite(row).all()
    ]
    return make("nav_msgs/msg/Path", header=header(float(stamps[0]), BASE_FRAME), poses=poses)


def _transform(row: NDArray[Any], stamp: float, child: str) -> Any:
    x, y, z = map(float, row[:3])
    return make(
        "geometry_msgs/msg/TransformStamped",
        header=header(stamp, BASE_FRAME),
        child_frame_id=child,
        transform=make(
            "geometry_msgs/msg/Transform",
            translation=make("geometry_msgs/msg/Vector3", x=x, y=y, z=z),
            rotation=pose(row).orientation,
        ),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``bridgevla dataset to-bag``."""
    parser.add_argument("dataset", type=Path, help="folder of a LeRobotDataset v3, or of a data set in MCAP")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write bags into")
    parser.add_argument(
        "--episode", type=int, action="append", default=None, help="which; may repeat (default: all)"
    )


def run(args: argparse.Namespace) -> int:
    """``bridgevla dataset to-bag``."""
    data = open_dataset(args.dataset)
    wanted = args.episode if args.episode is not None else [e.index for e in data.episodes]
    outside = [i for i in wanted if not 0 <= i < len(data.episodes)]
    if outside:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"no episode {outside[0]}",
            value=outside[0],
            limit=len(data.episodes) - 1,
            remedy=f"there are {len(data.episodes)}, counted from 0",
        )
    for index in track(wanted, "episodes"):
        to_bag(data, index, args.output / f"episode-{index:06d}")
    print(f"{len(wanted)} bags in {args.output}; open one in Foxglove, or `ros2 bag play` it")
    return 0
