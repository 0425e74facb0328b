"""The cropper as a node, fed by real publishers: good images, and each kind of bad one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from bridgevla.msg import DepthQuality as DepthQualityMsg
from bridgevla.msg import Guidance as GuidanceMsg
from bridgevla.msg import Progress as ProgressMsg
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from sensor_msgs.msg import JointState as JointStateMsg

from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.inputs import JointBuffer
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.trajectory import TrajectoryConfig, TrajectoryGenerator
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import (
    GripperEvent,
    Guidance,
    JointState,
    Progress,
    RgbdFrame,
    StreamerState,
    Waypoint,
    WaypointKind,
    WaypointPlan,
)
from bridgevla_ros.nodes.cropper import CropperNode
from bridgevla_ros.perception import synthetic
from bridgevla_ros.ros import conversions, qos
from bridgevla_ros.ros.tf import TransformBroadcaster

ARM = ArmModel.load("panda_2f85")
CAMERA = synthetic.camera_looking_at(np.array([1.15, 0.25, 0.75]), np.array([0.5, 0.0, 0.05]))
INTRINSICS = replace(synthetic.intrinsics_of(160, 120, fov_y=0.75), frame="eye")
CUBE = np.array([[0.50, -0.02, 0.0], [0.54, 0.02, 0.05]])
OTHER = np.array([[0.40, -0.25, 0.0], [0.45, -0.20, 0.08]])
SCENE = synthetic.SyntheticScene(np.stack([CUBE, OTHER]), ARM.body_capsules(ARM.home, 0.085))
FRAME: RgbdFrame = synthetic.render(SCENE, INTRINSICS, CAMERA)[0]


class Cell:
    """Camera and arm of a test, and what the cropper answers."""

    def __init__(self, with_tf: bool = True) -> None:
        self.cropper = CropperNode()
        self.node = Node("cell")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.cropper)
        self.executor.add_node(self.node)
        self.quality: list[DepthQualityMsg] = []
        self.clouds: list[PointCloud2] = []
        make, take = self.node.create_publisher, self.node.create_subscription
        self.depth = make(Image, "camera/depth/image_raw", qos.SENSOR)
        self.info = make(CameraInfo, "camera/depth/camera_info", qos.SENSOR)
        self.joints = make(JointStateMsg, "joint_states", qos.SENSOR)
        self.guidance = make(GuidanceMsg, "guidance", qos.LATCHED)
        self.progress = make(ProgressMsg, "progress", qos.COMMAND)
        take(DepthQualityMsg, "depth_quality", self.quality.append, qos.RELIABLE)
        take(PointCloud2, "cloud", self.clouds.append, qos.SENSOR)
        self.broadcaster = TransformBroadcaster(self.node, fixed=True)
        assert self.cropper.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert self.cropper.trigger_activate() == TransitionCallbackReturn.SUCCESS
        if with_tf:
            self.broadcaster.send(self.now(), {("base_link", "eye"): CAMERA})
        wired = self.until(
            lambda: (
                self.depth.get_subscription_count()
                and self.info.get_subscription_count()
                and self.joints.get_subscription_count()
                and self.node.count_publishers("depth_quality")
                and (not with_tf or self.cropper._transforms.known("base_link", "eye", None))
            )
        )
        assert wired
        self.spin(0.2)

    def now(self) -> float:
        return self.node.get_clock().now().nanoseconds * 1e-9

    def spin(self, seconds: float) -> None:
        self.until(lambda: False, seconds)

    def until(self, condition: Callable[[], object], timeout: float = 8.0) -> bool:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if condition():
                return True
            self.executor.spin_once(timeout_sec=0.02)
        return bool(condition())

    def show(
        self,
        depth: np.ndarray = FRAME.depth,
        *,
        info: bool = True,
        joints: bool = True,
        delay: float = 0.0,
        encoding: str = "32FC1",
        change: Callable[[Image], None] | None = None,
    ) -> float:
        """Publish one image with what belongs to it; its stamp."""
        stamp = self.now() - delay
        if joints:
            self.move(stamp - 0.01)
        if info:
            self.info.publish(conversions.intrinsics_to_msg(INTRINSICS, stamp))
        image = conversions.depth_to_msg(depth, stamp, "eye", encoding)
        if change is not None:
            change(image)
        self.depth.publish(image)
        if joints:
            self.move(stamp + 0.01)
        return stamp

    def move(self, stamp: float) -> None:
        state = JointState(stamp, ARM.home, np.zeros(7), 0.085)
        self.joints.publish(conversions.joint_state_to_msg(state, ARM.config))

    def answer(self) -> DepthQualityMsg:
        """The next quality."""
        count = len(self.quality)
        assert self.until(lambda: len(self.quality) > count), "no answer"
        return self.quality[-1]

    def assert_alive(self) -> None:
        for _ in range(5):
            count = len(self.clouds)
            self.show()
            if self.until(lambda count=count: len(self.clouds) > count, 2.0):
                return
        pytest.fail("no cloud from a good image any more")

    def close(self) -> None:
        self.executor.shutdown()
        self.cropper.destroy_node()
        self.node.destroy_node()


@pytest.fixture
def cell(ros: None) -> Iterator[Cell]:
    made = Cell()
    yield made
    made.close()


@pytest.mark.parametrize("encoding", ["32FC1", "16UC1"])
def test_cloud_and_quality_carry_the_images_stamp(cell: Cell, encoding: str) -> None:
    stamp = cell.show(encoding=encoding)
    quality = cell.answer()
    assert cell.until(lambda: cell.clouds)
    cloud = conversions.cloud_from_msg(cell.clouds[-1])
    assert quality.code == ErrorCode.NONE
    assert conversions.stamp_from_msg(quality.header.stamp) == pytest.approx(stamp, abs=1e-6)
    assert cloud.stamp == pytest.approx(stamp, abs=1e-6)
    assert cell.clouds[-1].header.frame_id == "base_link"
    assert cloud.points_base.shape == (512, 3)
    outside = np.minimum(
        *(
            np.maximum(np.maximum(b[0] - cloud.points_base, cloud.points_base - b[1]), 0).max(1)
            for b in (CUBE, OTHER)
        )
    )
    assert outside.max() < 4e-3


def other_size(image: Image) -> None:
    image.height, image.width = image.width, image.height
    image.step = 4 * image.width


def other_encoding(image: Image) -> None:
    image.encoding = "mono8"


def cut_short(image: Image) -> None:
    image.data = image.data[:100]


@pytest.mark.parametrize("change", [other_size, other_encoding, cut_short])
def test_images_that_cannot_be_read(cell: Cell, change: Callable[[Image], None]) -> None:
    cell.show(change=change)
    assert cell.answer().code == ErrorCode.BAD_INPUT
    assert not cell.clouds
    cell.assert_alive()


def test_no_camera_info(cell: Cell) -> None:
    cell.show(info=False)
    assert cell.answer().code == ErrorCode.SENSOR_LOST
    assert not cell.clouds
    cell.assert_alive()


def test_no_joint_states(cell: Cell) -> None:
    cell.show(joints=False)
    assert cell.answer().code == ErrorCode.SENSOR_LOST
    assert not cell.clouds
    cell.assert_alive()


def test_no_transform(ros: None) -> None:
    cell = Cell(with_tf=False)
    try:
        cell.show()
        assert cell.answer().code == ErrorCode.NO_TRANSFORM
        assert not cell.clouds
        cell.broadcaster.send(cell.now(), {("base_link", "eye"): CAMERA})
        cell.assert_alive()
    finally:
        cell.close()


def test_depth_without_depth(cell: Cell) -> None:
    cell.show(np.full_like(FRAME.depth, np.nan))
    assert cell.answer().code == ErrorCode.DEPTH_HOLE
    cell.assert_alive()


def test_image_from_long_ago(cell: Cell) -> None:
    cell.show(delay=2.0)
    assert cell.answer().code == ErrorCode.STALE_IMAGE
    assert not cell.clouds
    cell.assert_alive()


def test_camera_that_stops(cell: Cell) -> None:
    cell.show()
    assert cell.answer().code == ErrorCode.NONE
    assert cell.until(lambda: cell.quality[-1].code == ErrorCode.SENSOR_LOST, 4.0)
    cell.assert_alive()


def guidance() -> Guidance:
    down = np.diag([1.0, -1.0, -1.0])

    def at(x: float, y: float, z: float, kind: WaypointKind, event: GripperEvent) -> Waypoint:
        return Waypoint(Transform(np.array([x, y, z]), down), kind, event, 0.05, np.zeros(2), 1.0, 1.0)

    waypoints = (
        at(0.52, 0.0, 0.15, WaypointKind.APPROACH, GripperEvent.OPEN),
        at(0.52, 0.0, 0.03, WaypointKind.CONTACT, GripperEvent.CLOSE),
        at(0.52, 0.0, 0.15, WaypointKind.RETREAT, GripperEvent.NONE),
        at(0.425, -0.225, 0.09, WaypointKind.CONTACT, GripperEvent.OPEN),
    )
    plan = WaypointPlan(
        0.0, "eye", "base_link", "p", "t", "r", "", "", 0, 1, (), waypoints, Transform.identity(),
        INTRINSICS, "", "", 0, "",
    )  # fmt: skip
    start = Transform(np.array([0.4, 0.0, 0.4]), down)
    return TrajectoryGenerator(TrajectoryConfig()).generate(plan, Transform.identity(), start, 0.05)


def test_crop_follows_guidance_and_progress(cell: Cell) -> None:
    made = guidance()
    cell.guidance.publish(conversions.guidance_to_msg(made))
    assert cell.until(lambda: cell.cropper._feed.guidance is not None)

    def center() -> np.ndarray:
        cell.assert_alive()
        return conversions.cloud_from_msg(cell.clouds[-1]).points_base.mean(0)

    assert np.linalg.norm(center()[:2] - [0.52, 0.0]) < 0.03
    done = Progress(cell.now(), made.guidance_id, 0.9, 2, StreamerState.MOVING, 1.0, 0.04)
    cell.progress.publish(conversions.progress_to_msg(done))
    assert cell.until(lambda: cell.cropper._feed.progress is not None)
    assert np.linalg.norm(center()[:2] - [0.425, -0.225]) < 0.03
    other = replace(done, guidance_id="of another plan")
    cell.progress.publish(conversions.progress_to_msg(other))
    assert cell.until(lambda: cell.cropper._feed.progress.guidance_id == other.guidance_id)
    assert np.linalg.norm(center()[:2] - [0.52, 0.0]) < 0.03


def test_silent_until_active_and_after_deactivation(cell: Cell) -> None:
    assert cell.cropper.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    cell.show()
    cell.spin(0.5)
    assert not cell.quality
    assert cell.cropper.trigger_activate() == TransitionCallbackReturn.SUCCESS
    cell.assert_alive()


def test_joint_buffer_interpolates_and_never_extrapolates() -> None:
    buffer = JointBuffer()
    for stamp, value in ((1.0, 0.0), (2.0, 1.0), (1.5, 0.2)):
        buffer.add(JointState(stamp, np.full(7, value), np.zeros(7), value))
    assert buffer.at(1.25).position == pytest.approx([0.1] * 7)
    assert buffer.at(1.75).gripper_width == pytest.approx(0.6)
    assert buffer.at(2.0).position == pytest.approx([1.0] * 7)
    for stamp in (0.5, 2.5):
        with pytest.raises(Exception, match="no joint_states around"):
            buffer.at(stamp)
