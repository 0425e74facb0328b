"""Camera images, joint states, clouds and depth quality."""

from __future__ import annotations

import array
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from bridgevla.msg import DepthQuality as DepthQualityMsg
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from sensor_msgs.msg import JointState as JointStateMsg

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.robot import RobotConfig
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import (
    CameraIntrinsics,
    Cloud,
    DepthQuality,
    JointState,
    RgbdFrame,
)
from bridgevla_ros.ros.conversions.common import (
    code_from_msg,
    header,
    optional_stamp_from_msg,
    optional_stamp_to_msg,
    stamp_from_msg,
    stamp_to_msg,
)

_COLOUR: dict[str, tuple[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]]] = {
    "rgb8": (3, lambda a: a),
    "bgr8": (3, lambda a: a[..., ::-1]),
    "rgba8": (4, lambda a: a[..., :3]),
    "bgra8": (4, lambda a: a[..., 2::-1]),
    "mono8": (1, lambda a: np.repeat(a, 3, axis=2)),
}


def rgb_to_msg(rgb: NDArray[np.uint8], stamp: float, frame: str) -> Image:
    """(H, W, 3) uint8 to an rgb8 image."""
    return _image(np.ascontiguousarray(rgb, np.uint8), "rgb8", stamp, frame)


def grey_to_msg(grey: NDArray[np.uint8], stamp: float, frame: str) -> Image:
    """(H, W) uint8 to a mono8 image."""
    return _image(np.ascontiguousarray(grey, np.uint8), "mono8", stamp, frame)


def _image(pixels: NDArray[Any], encoding: str, stamp: float, frame: str) -> Image:
    """(H, W) or (H, W, C) contiguous, little-endian pixels as they stand to an image."""
    return Image(
        header=header(stamp, frame),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=pixels.strides[0],
        data=array.array("B", pixels.tobytes()),
    )


def rgb_from_msg(msg: Image) -> NDArray[np.uint8]:
    """Image (rgb8, bgr8, rgba8, bgra8, mono8) to contiguous (H, W, 3) uint8 RGB."""
    if msg.encoding not in _COLOUR:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"colour encoding {msg.encoding!r}; expected one of {sorted(_COLOUR)}",
            remedy="set the camera driver's colour format to rgb8",
        )
    channels, to_rgb = _COLOUR[msg.encoding]
    rows = _rows(msg, channels)
    return np.ascontiguousarray(to_rgb(rows.reshape(msg.height, msg.width, channels)))


def _rows(msg: Image, pixel_bytes: int) -> NDArray[np.uint8]:
    """(H, W * pixel_bytes) uint8 without the padding of each row."""
    data = np.frombuffer(msg.data, np.uint8)
    used = msg.width * pixel_bytes
    if msg.height == 0 or msg.width == 0 or msg.step < used or len(data) < msg.height * msg.step:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"image of {msg.width}x{msg.height} {msg.encoding} has step {msg.step} and {len(data)} bytes",
            value=float(len(data)),
            limit=float(max(msg.height * max(msg.step, used), 1)),
            unit="bytes",
        )
    return data[: msg.height * msg.step].reshape(msg.height, msg.step)[:, :used]


def depth_to_msg(depth: NDArray[np.float32], stamp: float, frame: str, encoding: str = "16UC1") -> Image:
    """(H, W) metres to 16UC1 (millimetres, 0 where invalid or beyond 65.535 m) or 32FC1 (metres)."""
    if encoding == "16UC1":
        millimetres = np.where(np.isfinite(depth) & (depth > 0) & (depth < 65.535), depth, 0.0) * 1000.0
        return _image(np.rint(millimetres).astype("<u2"), encoding, stamp, frame)
    if encoding == "32FC1":
        return _image(np.ascontiguousarray(depth, "<f4"), encoding, stamp, frame)
    raise BridgeError(
        ErrorCode.BAD_INPUT,
        f"depth encoding {encoding!r}; expected one of ['16UC1', '32FC1']",
    )


def depth_from_msg(msg: Image) -> NDArray[np.float32]:
    """Depth image by its encoding to (H, W) float32 metres (REP-118)."""
    from bridgevla_ros.core.camera import decode_depth

    return decode_depth(
        memoryview(msg.data),
        msg.encoding,
        msg.height,
        msg.width,
        msg.step,
        bool(msg.is_bigendian),
    )


def intrinsics_to_msg(intrinsics: CameraIntrinsics, stamp: float) -> CameraInfo:
    """Pinhole camera without distortion."""
    fx, fy, cx, cy = intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy
    return CameraInfo(
        header=header(stamp, intrinsics.frame),
        width=intrinsics.width,
        height=intrinsics.height,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=[fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )


def intrinsics_from_msg(msg: CameraInfo) -> CameraIntrinsics:
    """Intrinsics of a rectified camera: P where it is set, else K; binning and ROI are refused."""
    projection = msg.p if msg.p[0] else None
    fx, fy, cx, cy = (
        (projection[0], projection[5], projection[2], projection[6])
        if projection is not None
        else (msg.k[0], msg.k[4], msg.k[2], msg.k[5])
    )
    if not all(map(math.isfinite, (fx, fy, cx, cy))) or fx <= 0 or fy <= 0 or not msg.width:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"camera_info has fx {fx}, fy {fy}, width {msg.width}: the camera is not calibrated",
            value=float(fx),
            limit=0.0,
            unit="px",
            remedy="calibrate the camera and publish K or P",
        )
    if projection is None and any(abs(d) > 1e-9 for d in msg.d):
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            "camera_info has lens distortion and no projection matrix",
            remedy="publish rectified images with P filled in",
        )
    if max(msg.binning_x, msg.binning_y) > 1 or msg.roi.width not in (0, msg.width):
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            "camera_info has binning or a region of interest",
            remedy="publish full images, or camera_info of the image that is published",
        )
    return CameraIntrinsics(
        msg.width,
        msg.height,
        float(fx),
        float(fy),
        float(cx),
        float(cy),
        msg.header.frame_id,
    )


def baseline_from_msg(msg: CameraInfo) -> float:
    """Metres that the right camera of a rectified pair stands to the right: P[3] = -fx * baseline."""
    if not msg.p[0] > 0.0:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            "the right camera's camera_info has no projection matrix P",
            value=float(msg.p[0]),
            limit=0.0,
            unit="px",
            remedy="calibrate the stereo pair; its P tells the baseline",
        )
    return -float(msg.p[3]) / float(msg.p[0])


def right_info_to_msg(intrinsics: CameraIntrinsics, baseline: float, stamp: float, frame: str) -> CameraInfo:
    """Of the right camera of a rectified pair, ``baseline`` metres to the right of the left one."""
    msg = intrinsics_to_msg(dataclasses.replace(intrinsics, frame=frame), stamp)
    msg.p[3] = -intrinsics.fx * baseline
    return msg


def frame_to_msgs(
    frame: RgbdFrame, depth_encoding: str = "16UC1"
) -> tuple[Image, CameraInfo, Image, CameraInfo]:
    """Colour image, its info, depth image, its info; one stamp, one frame."""
    name = frame.intrinsics.frame
    return (
        rgb_to_msg(frame.rgb, frame.stamp, name),
        intrinsics_to_msg(frame.intrinsics, frame.stamp),
        depth_to_msg(frame.depth, frame.stamp, name, depth_encoding),
        intrinsics_to_msg(frame.intrinsics, frame.stamp),
    )


def frame_from_msgs(
    rgb: Image, info: CameraInfo, depth: Image, depth_info: CameraInfo | None = None
) -> RgbdFrame:
    """One registered RGB-D frame from synchronised messages; the stamp is the depth image's.

    Raises:
        BridgeError: BAD_INPUT where sizes, frames or intrinsics of colour and depth differ.
    """
    if (rgb.width, rgb.height) != (depth.width, depth.height):
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"colour is {rgb.width}x{rgb.height}, depth is {depth.width}x{depth.height}",
            value=float(depth.width),
            limit=float(rgb.width),
            unit="px",
            remedy="have the driver publish depth registered (aligned) to colour",
        )
    intrinsics = intrinsics_from_msg(info)
    if (intrinsics.width, intrinsics.height) != (rgb.width, rgb.height):
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"camera_info is for {info.width}x{info.height}, the image is {rgb.width}x{rgb.height}",
            value=float(info.width),
            limit=float(rgb.width),
            unit="px",
        )
    if depth_info is not None:
        other = intrinsics_from_msg(depth_info)
        mine = np.array([intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy])
        theirs = np.array([other.fx, other.fy, other.cx, other.cy])
        if other.frame != intrinsics.frame or float(np.abs(mine - theirs).max()) > 1.0:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"depth ({other.frame}) is not registered to colour ({intrinsics.frame})",
                value=float(np.abs(mine - theirs).max()),
                limit=1.0,
                unit="px",
                remedy="have the driver publish depth registered (aligned) to colour",
            )
    return RgbdFrame(
        stamp_from_msg(depth.header.stamp),
        rgb_from_msg(rgb),
        depth_from_msg(depth),
        intrinsics,
    )


def joint_state_to_msg(state: JointState, robot: RobotConfig, frame: str = "") -> JointStateMsg:
    """Arm joints by name, then ``robot.gripper_joint``: the width between the pads, metres."""
    return JointStateMsg(
        header=header(state.stamp, frame),
        name=[*robot.joint_names, robot.gripper_joint],
        position=[
            *np.asarray(state.position, float).tolist(),
            float(state.gripper_width),
        ],
        velocity=[
            *np.asarray(state.velocity, float).tolist(),
            float(state.gripper_velocity),
        ],
    )


def joint_state_from_msg(msg: JointStateMsg, robot: RobotConfig) -> JointState:
    """Joints matched by name, in any order, among any others; velocities default to 0.

    Raises:
        BridgeError: BAD_INPUT where a joint or its position is missing or not finite.
    """
    index = {name: i for i, name in enumerate(msg.name)}
    wanted = [*robot.joint_names, robot.gripper_joint]
    missing = [name for name in wanted if index.get(name, len(msg.position)) >= len(msg.position)]
    if missing:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"joint_states has no position for {missing}; it names {list(msg.name)}",
            value=float(len(wanted) - len(missing)),
            limit=float(len(wanted)),
            unit="joints",
            remedy="set joint_names and gripper_joint in the robot's YAML file to the driver's names",
        )
    position = np.array([msg.position[index[name]] for name in wanted])
    velocity = np.array(
        [msg.velocity[index[name]] if index[name] < len(msg.velocity) else 0.0 for name in wanted]
    )
    if not np.isfinite(position).all() or not np.isfinite(velocity).all():
        raise BridgeError(ErrorCode.BAD_INPUT, f"joint_states is not finite: {position.tolist()}")
    return JointState(
        stamp_from_msg(msg.header.stamp),
        position[:-1],
        velocity[:-1],
        float(position[-1]),
        float(velocity[-1]),
    )


_CLOUD_FIELDS = [
    PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
    for i, name in enumerate(("x", "y", "z", "age"))
]


def cloud_to_msg(cloud: Cloud, frame: str = "base_link") -> PointCloud2:
    """Unordered cloud of x, y, z, age float32. Crop centre and guidance id are not carried."""
    points = np.empty((len(cloud.points_base), 4), "<f4")
    points[:, :3], points[:, 3] = cloud.points_base, cloud.age
    return PointCloud2(
        header=header(cloud.stamp, frame),
        height=1,
        width=len(points),
        fields=_CLOUD_FIELDS,
        is_bigendian=False,
        point_step=16,
        row_step=16 * len(points),
        data=array.array("B", points.tobytes()),
        is_dense=True,
    )


def cloud_from_msg(msg: PointCloud2, center_base: Array | None = None, guidance_id: str = "") -> Cloud:
    """Cloud with float32 fields x, y, z and, where present, age; points that are not finite are dropped.

    Args:
        msg: In the base frame.
        center_base: (3,) metres, where the receiver knows what the crop was centred on.
        guidance_id: Likewise.
    """
    offsets = {f.name: f.offset for f in msg.fields if f.datatype == PointField.FLOAT32}
    if not {"x", "y", "z"} <= offsets.keys() or msg.is_bigendian:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"cloud has float32 fields {sorted(offsets)}; expected x, y, z (little-endian)",
        )
    count = msg.width * msg.height
    if len(msg.data) < count * msg.point_step:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"cloud of {count} points has {len(msg.data)} bytes",
            value=float(len(msg.data)),
            limit=float(count * msg.point_step),
            unit="bytes",
        )
    names = ["x", "y", "z", *(["age"] if "age" in offsets else [])]
    dtype = np.dtype(
        {
            "names": names,
            "formats": ["<f4"] * len(names),
            "offsets": [offsets[name] for name in names],
            "itemsize": msg.point_step,
        }
    )
    raw = np.frombuffer(msg.data, dtype, count)
    points = np.stack([raw["x"], raw["y"], raw["z"]], axis=1)
    age = raw["age"] if "age" in offsets else np.zeros(count, np.float32)
    finite = np.isfinite(points).all(axis=1) & np.isfinite(age)
    return Cloud(
        stamp_from_msg(msg.header.stamp),
        points[finite],
        age[finite].astype(np.float32),
        np.full(3, np.nan) if center_base is None else center_base,
        guidance_id,
    )


def depth_quality_to_msg(quality: DepthQuality, frame: str = "camera_color_optical_frame") -> DepthQualityMsg:
    """Level is BAD where there is a code, POOR where less than half of the pixels are valid."""
    level = (
        DepthQualityMsg.BAD
        if quality.code != ErrorCode.NONE
        else DepthQualityMsg.POOR
        if quality.valid_fraction < 0.5
        else DepthQualityMsg.GOOD
    )
    return DepthQualityMsg(
        header=header(quality.stamp, frame),
        valid_fraction=float(quality.valid_fraction),
        target_valid_fraction=float(quality.target_valid_fraction),
        age=float(quality.age),
        points_target=int(quality.points_target),
        noise=float(quality.noise),
        robot_residual=float(quality.robot_residual),
        level=level,
        code=int(quality.code),
        sequence=quality.sequence,
        guidance_id=quality.guidance_id,
        progress_stamp=optional_stamp_to_msg(quality.progress_stamp),
        joint_stamps=[stamp_to_msg(t) for t in quality.joint_stamps],
        computed_at=optional_stamp_to_msg(quality.computed_at),
    )


def depth_quality_from_msg(msg: DepthQualityMsg) -> DepthQuality:
    """Assessment of one depth image."""
    return DepthQuality(
        stamp_from_msg(msg.header.stamp),
        msg.valid_fraction,
        msg.target_valid_fraction,
        msg.age,
        msg.points_target,
        msg.noise,
        msg.robot_residual,
        code_from_msg(msg.code),
        msg.sequence,
        msg.guidance_id,
        optional_stamp_from_msg(msg.progress_stamp),
        tuple(stamp_from_msg(t) for t in msg.joint_stamps),
        optional_stamp_from_msg(msg.computed_at),
    )
