"""Columns as standard messages and back, so that a data set in MCAP is also a bag that viewers show.

| column | message |
|---|---|
| colour image | sensor_msgs/Image rgb8 |
| depth image | sensor_msgs/Image 32FC1, metres |
| float32 rows whose names begin with x, y, z | sensor_msgs/PointCloud2 |
| x y z qx qy qz qw | geometry_msgs/PoseStamped |
| names that all end in .pos, .vel or .effort, float64 or float32 | sensor_msgs/JointState |
| any other numbers | std_msgs/<type>MultiArray |
| string | std_msgs/String |

Nothing is rounded: what comes back equals what went in, float32 through float64 included.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.bags.definitions import installed
from bridgevla_ros.datasets.features import Feature

POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")
BASE_FRAME = "base_link"
_ARRAYS = {
    "bool": "UInt8", "float32": "Float32", "float64": "Float64", "int8": "Int8", "int16": "Int16",
    "int32": "Int32", "int64": "Int64", "uint8": "UInt8", "uint16": "UInt16", "uint32": "UInt32",
    "uint64": "UInt64",
}  # fmt: skip
_JOINTS = {".pos": "position", ".vel": "velocity", ".effort": "effort"}


class Codec(Protocol):
    """One way to put a column into messages.

    Attributes:
        msgtype: e.g. "sensor_msgs/msg/Image".
    """

    msgtype: str

    def encode(self, value: Any, stamp: float, frame: str) -> Any:
        """Message of one frame's value."""
        ...

    def decode(self, message: Any) -> Any:
        """Inverse of ``encode``."""
        ...


def codec(feature: Feature) -> Codec:
    """How a column travels."""
    if feature.is_image:
        return _ImageCodec(feature)
    if feature.dtype == "string":
        return _StringCodec()
    if len(feature.row) == 2 and feature.dtype == "float32" and feature.names[:3] == POSE[:3]:
        return _CloudCodec(feature)
    if feature.names == POSE and feature.dtype in ("float32", "float64"):
        return _PoseCodec(feature)
    joints = feature.dtype in ("float32", "float64") and len(feature.row) == 1 and feature.names
    if joints and all(n.endswith(tuple(_JOINTS)) for n in feature.names) and _regular(feature.names):
        return _JointCodec(feature)
    return _ArrayCodec(feature)


def make(msgtype: str, **fields: Any) -> Any:
    """A message of rosbags' types."""
    return installed().types[msgtype](**fields)


def time(seconds: float) -> Any:
    """builtin_interfaces/Time."""
    nanoseconds = round(seconds * 1e9)
    return make("builtin_interfaces/msg/Time", sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def header(stamp: float, frame: str) -> Any:
    """std_msgs/Header."""
    return make("std_msgs/msg/Header", stamp=time(stamp), frame_id=frame)


def pose(value: NDArray[Any]) -> Any:
    """geometry_msgs/Pose of x y z qx qy qz qw."""
    x, y, z, qx, qy, qz, qw = map(float, value)
    return make(
        "geometry_msgs/msg/Pose",
        position=make("geometry_msgs/msg/Point", x=x, y=y, z=z),
        orientation=make("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
    )


class _ImageCodec:
    msgtype = "sensor_msgs/msg/Image"

    def __init__(self, feature: Feature) -> None:
        self._feature = feature

    def encode(self, value: NDArray[Any], stamp: float, frame: str) -> Any:
        height, width = value.shape[:2]
        return make(
            self.msgtype,
            header=header(stamp, frame),
            height=height,
            width=width,
            encoding="32FC1" if self._feature.depth else "rgb8",
            is_bigendian=0,
            step=value.nbytes // height,
            data=np.ascontiguousarray(value).reshape(-1).view(np.uint8),
        )

    def decode(self, message: Any) -> NDArray[Any]:
        feature = self._feature
        return np.frombuffer(message.data.tobytes(), feature.numpy).reshape(feature.row)


class _StringCodec:
    msgtype = "std_msgs/msg/String"

    def encode(self, value: Any, stamp: float, frame: str) -> Any:
        return make(self.msgtype, data=str(value))

    def decode(self, message: Any) -> str:
        return str(message.data)


class _CloudCodec:
    msgtype = "sensor_msgs/msg/PointCloud2"

    def __init__(self, feature: Feature) -> None:
        self._feature = feature

    def encode(self, value: NDArray[Any], stamp: float, frame: str) -> Any:
        names = self._feature.names
        fields = [
            make("sensor_msgs/msg/PointField", name=n, offset=4 * i, datatype=7, count=1)
            for i, n in enumerate(names)
        ]
        return make(
            self.msgtype,
            header=header(stamp, BASE_FRAME),
            height=1,
            width=len(value),
            fields=fields,
            is_bigendian=False,
            point_step=4 * len(names),
            row_step=4 * len(names) * len(value),
            data=np.ascontiguousarray(value, np.float32).reshape(-1).view(np.uint8),
            is_dense=bool(np.isfinite(value).all()),
        )

    def decode(self, message: Any) -> NDArray[Any]:
        return np.frombuffer(message.data.tobytes(), np.float32).reshape(self._feature.row)


class _PoseCodec:
    msgtype = "geometry_msgs/msg/PoseStamped"

    def __init__(self, feature: Feature) -> None:
        self._feature = feature

    def encode(self, value: NDArray[Any], stamp: float, frame: str) -> Any:
        return make(self.msgtype, header=header(stamp, BASE_FRAME), pose=pose(value))

    def decode(self, message: Any) -> NDArray[Any]:
        p, q = message.pose.position, message.pose.orientation
        return np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w], self._feature.numpy)


class _JointCodec:
    msgtype = "sensor_msgs/msg/JointState"

    def __init__(self, feature: Feature) -> None:
        self._feature = feature
        self._columns = {
            field: [i for i, n in enumerate(feature.names) if n.endswith(end)]
            for end, field in _JOINTS.items()
        }
        first = next(c for c in self._columns.values() if c)
        self._joints = [feature.names[i].rpartition(".")[0] for i in first]

    def encode(self, value: NDArray[Any], stamp: float, frame: str) -> Any:
        parts = {field: value[columns].astype(np.float64) for field, columns in self._columns.items()}
        return make(self.msgtype, header=header(stamp, ""), name=self._joints, **parts)

    def decode(self, message: Any) -> NDArray[Any]:
        out = np.empty(self._feature.row, self._feature.numpy)
        for field, columns in self._columns.items():
            if columns:
                out[columns] = getattr(message, field)
        return out


class _ArrayCodec:
    def __init__(self, feature: Feature) -> None:
        self._feature = feature
        self.msgtype = f"std_msgs/msg/{_ARRAYS[feature.dtype]}MultiArray"

    def encode(self, value: Any, stamp: float, frame: str) -> Any:
        array = np.asarray(value)
        dtype = np.dtype(np.uint8) if array.dtype == bool else array.dtype
        shape = self._feature.shape
        strides = np.cumprod([1, *shape[::-1]])[1:][::-1]
        dims = [
            make("std_msgs/msg/MultiArrayDimension", label=f"axis{i}", size=n, stride=int(s))
            for i, (n, s) in enumerate(zip(shape, strides, strict=True))
        ]
        layout = make("std_msgs/msg/MultiArrayLayout", dim=dims, data_offset=0)
        return make(self.msgtype, layout=layout, data=np.ascontiguousarray(array, dtype).reshape(-1))

    def decode(self, message: Any) -> Any:
        return np.asarray(message.data).astype(self._feature.numpy).reshape(self._feature.row)


def _regular(names: tuple[str, ...]) -> bool:
    """Whether positions, velocities and efforts are of the same joints, in one order."""
    lists = [[n.rpartition(".")[0] for n in names if n.endswith(end)] for end in _JOINTS]
    present = [part for part in lists if part]
    return all(part == present[0] for part in present) and len(set(present[0])) == len(present[0])
