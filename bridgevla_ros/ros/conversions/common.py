"""Stamps, durations, poses and transforms.

A stamp in the core is a float of seconds. Float to message to float is exact. Message to float is
exact to the nanosecond up to 104 days (simulated time); on the wall clock a float resolves 0.24 us,
so a stamp that is passed on may differ from its source by 0.12 us. Two messages with the same stamp
always give the same float: the core may match stamps by equality, other programs that match our
outputs to camera messages need a tolerance of 1 us.
"""

from __future__ import annotations

import math

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, Pose, Quaternion, TransformStamped, Vector3
from geometry_msgs.msg import Transform as TransformMsg
from std_msgs.msg import Header

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array, Transform

NS = 1_000_000_000


def _split(seconds: float) -> tuple[int, int]:
    """Whole seconds and nanoseconds; the fraction is taken off before scaling, which keeps it exact."""
    whole = math.floor(seconds)
    nanoseconds = round((seconds - whole) * NS)
    return (whole + 1, 0) if nanoseconds == NS else (whole, nanoseconds)


def nanoseconds(seconds: float) -> int:
    """Seconds to whole nanoseconds; division by ``NS`` gives the same float again."""
    whole, fraction = _split(seconds)
    return whole * NS + fraction


def stamp_to_msg(stamp: float) -> Time:
    """Seconds to a message stamp, rounded to the nanosecond."""
    if not math.isfinite(stamp):
        raise BridgeError(ErrorCode.BAD_INPUT, f"stamp {stamp} is not a time", value=stamp, unit="s")
    sec, nanosec = _split(stamp)
    return Time(sec=sec, nanosec=nanosec)


def stamp_from_msg(msg: Time) -> float:
    """Message stamp to the nearest float of seconds.

    Below 2^23 s (97 days of simulated time) every nanosecond has a float of its own; at the date of today
    floats are 238 ns apart. Within the graph stamps are compared as floats, which survive any number of
    messages unchanged.
    """
    return float((msg.sec * NS + msg.nanosec) / NS)


def optional_stamp_to_msg(stamp: float) -> Time:
    """Like ``stamp_to_msg``; NaN, where nothing is named, becomes 0."""
    return Time() if math.isnan(stamp) else stamp_to_msg(stamp)


def optional_stamp_from_msg(msg: Time) -> float:
    """Like ``stamp_from_msg``; 0 becomes NaN."""
    return stamp_from_msg(msg) if msg.sec or msg.nanosec else math.nan


def duration_to_msg(seconds: float) -> Duration:
    """Seconds to a message duration, rounded to the nanosecond."""
    if not math.isfinite(seconds):
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"duration {seconds} is not a time",
            value=seconds,
            unit="s",
        )
    sec, nanosec = _split(seconds)
    return Duration(sec=sec, nanosec=nanosec)


def duration_from_msg(msg: Duration) -> float:
    """Message duration to the nearest float of seconds."""
    return float((msg.sec * NS + msg.nanosec) / NS)


def header(stamp: float, frame: str) -> Header:
    """Header from seconds and a frame name."""
    return Header(stamp=stamp_to_msg(stamp), frame_id=frame)


def _quaternion(xyzw: Array) -> Quaternion:
    return Quaternion(x=float(xyzw[0]), y=float(xyzw[1]), z=float(xyzw[2]), w=float(xyzw[3]))


def _rigid(translation: tuple[float, float, float], q: Quaternion, what: str) -> Transform:
    values = np.array([*translation, q.x, q.y, q.z, q.w])
    norm = float(np.linalg.norm(values[3:]))
    if not np.isfinite(values).all() or abs(norm - 1.0) > 0.01:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{what} has a position or quaternion that is no pose: {values.tolist()}",
            value=norm,
            limit=1.0,
            remedy="publish finite positions and unit quaternions",
        )
    return Transform.from_quat(values[:3], values[3:])


def pose_to_msg(transform: Transform) -> Pose:
    """T_frame_body to a pose, metres."""
    x, y, z = transform.translation.tolist()
    return Pose(position=Point(x=x, y=y, z=z), orientation=_quaternion(transform.quat()))


def pose_from_msg(msg: Pose) -> Transform:
    """Pose to T_frame_body, metres; BAD_INPUT where it holds no finite unit quaternion."""
    p = msg.position
    return _rigid((p.x, p.y, p.z), msg.orientation, "pose")


def transform_to_msg(transform: Transform) -> TransformMsg:
    """T_parent_child to a transform message, metres."""
    x, y, z = transform.translation.tolist()
    return TransformMsg(translation=Vector3(x=x, y=y, z=z), rotation=_quaternion(transform.quat()))


def transform_from_msg(msg: TransformMsg) -> Transform:
    """Transform message to T_parent_child; BAD_INPUT where it holds no finite unit quaternion."""
    t = msg.translation
    return _rigid((t.x, t.y, t.z), msg.rotation, "transform")


def transform_stamped_to_msg(transform: Transform, parent: str, child: str, stamp: float) -> TransformStamped:
    """T_parent_child at a time."""
    return TransformStamped(
        header=header(stamp, parent),
        child_frame_id=child,
        transform=transform_to_msg(transform),
    )


def transform_stamped_from_msg(
    msg: TransformStamped,
) -> tuple[Transform, str, str, float]:
    """T_parent_child, parent, child, seconds; leading slashes of frame names are dropped."""
    return (
        transform_from_msg(msg.transform),
        msg.header.frame_id.lstrip("/"),
        msg.child_frame_id.lstrip("/"),
        stamp_from_msg(msg.header.stamp),
    )


def point_to_msg(xyz: Array) -> Point:
    """(3,) metres to a point."""
    return Point(x=float(xyz[0]), y=float(xyz[1]), z=float(xyz[2]))


def point_from_msg(msg: Point) -> Array:
    """Point to (3,) metres."""
    return np.array([msg.x, msg.y, msg.z])


def poses_to_msg(position: Array, quat: Array) -> list[Pose]:
    """(K, 3) metres and (K, 4) x, y, z, w to poses."""
    return [
        Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=a, y=b, z=c, w=d))
        for (x, y, z), (a, b, c, d) in zip(
            np.asarray(position, float).tolist(),
            np.asarray(quat, float).tolist(),
            strict=True,
        )
    ]


def poses_from_msg(poses: list[Pose]) -> tuple[Array, Array]:
    """Poses to (K, 3) metres and (K, 4) x, y, z, w."""
    position = np.array([(p.position.x, p.position.y, p.position.z) for p in poses], float)
    quat = np.array(
        [(p.orientation.x, p.orientation.y, p.orientation.z, p.orientation.w) for p in poses],
        float,
    )
    return position.reshape(-1, 3), quat.reshape(-1, 4)


def floats(values: object) -> Array:
    """Sequence field of a message to a (N,) float64 array."""
    return np.asarray(values, np.float64).reshape(-1)


def code_from_msg(code: int) -> ErrorCode:
    """Error code of a message; BAD_INPUT for a number that is not in the table."""
    try:
        return ErrorCode(code)
    except ValueError:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"error code {code} is not in the table",
            value=float(code),
        ) from None
