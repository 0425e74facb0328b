"""A short run through the nodes' own objects, written into a bag by the mcap library by hand.

No process, no DDS, no recorder of ours: what the nodes would publish is put into the file message by message.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mcap.reader import make_reader
from mcap.writer import Writer
from rclpy.serialization import serialize_message
from tf2_msgs.msg import TFMessage

from bridgevla_ros.bags.definitions import definition, installed
from bridgevla_ros.bags.replay import ReplayResult, engine
from bridgevla_ros.bags.replay.crossing import crossed
from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.core.guiding import Guide, TrajectoryNodeConfig
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.streamer_config import StreamerConfig
from bridgevla_ros.core.streamer_desk import StreamerDesk
from bridgevla_ros.core.task_desk import TaskDesk
from bridgevla_ros.core.task_machine import TaskConfig
from bridgevla_ros.core.trajectory import TrajectoryConfig, TrajectoryGenerator
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import (
    ArmCommand,
    GripperEvent,
    JointState,
    Lease,
    PlanRequest,
    Waypoint,
    WaypointKind,
    WaypointPlan,
)
from bridgevla_ros.expert.config import ExpertConfig
from bridgevla_ros.expert.observer import ActionExpertNodeConfig, Idle, Observer
from bridgevla_ros.expert.policy import make_policy
from bridgevla_ros.perception import synthetic
from bridgevla_ros.perception.config import CropperConfig
from bridgevla_ros.perception.cropper import Cropper
from bridgevla_ros.perception.feed import CropperFeed, CropperNodeConfig, DepthImage
from bridgevla_ros.ros import conversions

CAMERA = synthetic.camera_looking_at(np.array([1.15, 0.25, 0.75]), np.array([0.5, 0.0, 0.05]))
INTRINSICS = replace(synthetic.intrinsics_of(160, 120, fov_y=0.75), frame="eye")
CUBE = np.array([[0.50, -0.02, 0.0], [0.54, 0.02, 0.05]])
EXPERT: dict[str, Any] = {"policy": "expert", "cloud_max_age": 0.12}
"""Parameters of the rig's expert: a cloud each tenth of a second contents it, one that is lost does not."""
LOST = 1.13
"""Seconds after the start at which no image comes."""
RECORDED = {f"action_expert.{name}": value for name, value in EXPERT.items()}
"""The rig's bag, like a foreign one, holds no parameters."""
START = 5.0
"""Seconds at which simulated time begins."""


class HandWritten:
    """The mcap library, used as its documentation says."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("wb")
        self._writer = Writer(self._stream, chunk_size=100_000)
        self._writer.start(profile="ros2", library="by hand")
        self._channels: dict[str, int] = {}
        self._clock = 0

    def write(self, topic: str, message: Any) -> None:
        if topic not in self._channels:
            kind = type(message)
            msgtype = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
            text, _ = definition(installed(), msgtype)
            schema = self._writer.register_schema(msgtype, "ros2msg", text.encode())
            self._channels[topic] = self._writer.register_channel(topic, "cdr", schema)
        self._clock += 1_000
        self._writer.add_message(self._channels[topic], self._clock, serialize_message(message), self._clock)

    def close(self) -> None:
        self._writer.finish()
        self._stream.close()


class Run:
    """Cube, camera and an arm that follows its commands at once."""

    def __init__(self, write: Callable[[str, Any], None]) -> None:
        self.write = write
        self.arm = ArmModel.load("panda_2f85")
        self.desk = StreamerDesk(StreamerConfig(), self.arm)
        self.task = TaskDesk(TaskConfig())
        generator = TrajectoryGenerator(TrajectoryConfig())
        self.guide = Guide(TrajectoryNodeConfig(), generator, self.arm)
        cropper = Cropper(CropperConfig(), self.arm)
        cropper.warm_up()
        self.feed = CropperFeed(CropperNodeConfig(), cropper)
        self.observer = Observer(ActionExpertNodeConfig())
        self.policy = make_policy(ExpertConfig(**EXPERT), self.arm)
        self.q, self.width = self.arm.home.copy(), 0.085
        self.now = START
        self.events: list[tuple[float, Callable[[], None]]] = []

    def go(self, seconds: float) -> None:
        """Run, and record."""
        fixed = conversions.transform_stamped_to_msg(CAMERA, "base_link", "eye", 0.0)
        self.write("/tf_static", TFMessage(transforms=[fixed]))
        self.later(0.2, self.instruct)
        for tick in range(round(100 * seconds)):
            self.now = round(1e9 * START + 1e7 * tick) / 1e9  # whole nanoseconds, as a clock's
            for event in [e for e in self.events if e[0] <= self.now + 1e-9]:
                self.events.remove(event)
                event[1]()
            self.measure()
            if tick % 10 == 3 and tick != round(100 * LOST):
                self.expose()
            if tick % 5 == 4:
                self.act()
            self.command()
            if tick % 2 == 0:
                self.manage()

    def instruct(self) -> None:
        self.task.instruct(self.now, "lift the cube")

    def later(self, delay: float, call: Callable[[], None]) -> None:
        self.events.append((self.now + delay, call))

    def lookup(self, target: str, source: str, stamp: float) -> Transform:
        assert (target, source) == ("base_link", "eye")
        return conversions.transform_from_msg(conversions.transform_to_msg(CAMERA))

    def measure(self) -> None:
        state = JointState(self.now, self.q.copy(), np.zeros(7), self.width)
        message = conversions.joint_state_to_msg(state, self.arm.config)
        self.write("/joint_states", message)
        heard = conversions.joint_state_from_msg(message, self.arm.config)
        self.desk.on_joints(heard)
        self.feed.joints.add(heard)
        self.guide.joints = heard
        self.observer.on_joints(heard)

    def expose(self) -> None:
        """A depth image, half a period old when it is cropped."""
        scene = synthetic.SyntheticScene(CUBE[None], self.arm.body_capsules(self.q, self.width))
        depth = synthetic.render(scene, INTRINSICS, CAMERA)[0].depth
        image = conversions.depth_to_msg(depth, self.now, "eye", "32FC1")
        info = conversions.intrinsics_to_msg(INTRINSICS, self.now)
        self.write("/camera/depth/image_raw", image)
        self.write("/camera/depth/camera_info", info)
        self.feed.on_info(self.now, partial(conversions.intrinsics_from_msg, info))
        waiting = DepthImage(self.now, "eye", partial(conversions.depth_from_msg, image))
        cloud, quality = self.feed.crop(waiting, self.lookup, self.now + 0.005)
        points = crossed(conversions.cloud_to_msg(cloud))
        told = crossed(conversions.depth_quality_to_msg(quality, "eye"))
        self.write("/cloud", points)
        self.write("/depth_quality", told)
        self.observer.on_cloud(conversions.cloud_from_msg(points), "base_link")
        self.task.on_depth_quality(conversions.depth_quality_from_msg(told), self.now)

    def act(self) -> None:
        observation = self.observer.observe(self.now)
        if isinstance(observation, Idle):
            return
        try:
            chunk = self.policy.chunk(observation, 7)
        except BridgeError as error:
            chunk = self.policy.refusal(observation, 7, error)
        message = crossed(conversions.action_chunk_to_msg(chunk, self.arm.joint_names))
        self.write("/action_chunk", message)
        heard = conversions.action_chunk_from_msg(message, self.arm.joint_names)
        self.desk.on_chunk(heard, heard.stamp, self.now)

    def command(self) -> None:
        output = self.desk.tick(self.now)
        if output.command is not None:
            self.obey(output.command, output.gripper)
        if output.report:
            message = crossed(conversions.progress_to_msg(output.progress))
            self.write("/progress", message)
            heard = conversions.progress_from_msg(message)
            self.feed.on_progress(heard)
            self.observer.on_progress(heard)
            self.task.on_progress(heard, self.now)
        if output.log is not None:
            self.write("/arm_streamer/inputs", conversions.input_log_to_msg(output.log))

    def obey(self, command: ArmCommand, gripper: float | None) -> None:
        trajectory, pose, _ = conversions.arm_command_to_msgs(command, self.arm.joint_names)
        self.write("/arm/joint_trajectory", trajectory)
        self.write("/arm/ee_pose", pose)
        if gripper is not None:
            self.write("/gripper/command", conversions.gripper_command_to_msg(gripper))
            self.width = gripper
        self.q = command.position[0].copy()

    def manage(self) -> None:
        self.task.on_nodes((), self.now)
        for output in self.task.tick(self.now):
            if isinstance(output, PlanRequest):
                self.write("/plan_request", conversions.plan_request_to_msg(output))
                self.later(0.05, partial(self.plan, output))
            elif isinstance(output, Lease):
                message = conversions.lease_to_msg(output)
                self.write("/lease", message)
                self.desk.on_lease(conversions.lease_from_msg(message))
            else:
                self.write("/status", conversions.task_status_to_msg(output))
        log = self.task.log(self.now)
        if log is not None:
            self.write("/task/inputs", conversions.input_log_to_msg(log))

    def plan(self, request: PlanRequest) -> None:
        """What a planner answers, and the guidance that follows from it."""
        message = crossed(conversions.waypoint_plan_to_msg(the_plan(self.arm, request, self.now)))
        self.write("/plan", message)
        plan = conversions.waypoint_plan_from_msg(message)
        self.task.on_plan(plan, self.now)
        guidance = crossed(conversions.guidance_to_msg(self.guide.guidance(plan, self.lookup, self.now)))
        self.write("/guidance", guidance)
        heard = conversions.guidance_from_msg(guidance)
        self.feed.on_guidance(heard)
        self.observer.on_guidance(heard)
        self.desk.on_guidance(heard)
        self.task.on_guidance(heard, self.now)


def the_plan(arm: ArmModel, request: PlanRequest, now: float) -> WaypointPlan:
    """Down to the cube, close, and up again."""
    camera = conversions.transform_from_msg(conversions.transform_to_msg(CAMERA))
    down = arm.fk(arm.home).rotation
    waypoints = [
        Waypoint(
            camera.inverse() @ Transform(np.array([0.52, 0.0, z]), down),
            kind, event, width, np.zeros(2), 0.5, 1.0,
        )
        for z, kind, event, width in (
            (0.15, WaypointKind.APPROACH, GripperEvent.OPEN, 0.08),
            (0.03, WaypointKind.CONTACT, GripperEvent.CLOSE, 0.0),
            (0.2, WaypointKind.RETREAT, GripperEvent.NONE, 0.0),
        )
    ]  # fmt: skip
    return WaypointPlan(
        now - 0.05, "eye", "base_link", f"{request.request_id}-plan", request.task_id, request.request_id,
        request.instruction, request.instruction, 0, 1, (), tuple(waypoints), camera, INTRINSICS, "by hand",
        "", 0, "digest", computed_at=now,
    )  # fmt: skip


KEEP: dict[Hashable, Any] = {}
"""Models that a replay of this process has loaded."""


def replay(*arguments: Any, **options: Any) -> ReplayResult:
    """As ``bags.replay.replay``; what it loads is loaded once for all tests of a process."""
    return engine.replay(*arguments, **{"keep": KEEP, **options})


def write_run(folder: Path, seconds: float = 3.0) -> Path:
    """A bag of a short run; returns its file."""
    path = folder / "run.mcap"
    writer = HandWritten(path)
    Run(writer.write).go(seconds)
    writer.close()
    return path


Change = Callable[[str, bytes, int], bytes | None]
"""Sees topic, bytes and number on the topic; None leaves a message out."""


def changed(bag: Path, folder: Path, change: Change, more: Sequence[tuple[str, int, bytes]] = ()) -> Path:
    """A copy of a bag with what ``change`` makes of its messages, and ``more``: topic, nanoseconds, bytes."""
    path = folder / bag.name
    counts: dict[str, int] = {}
    with bag.open("rb") as source, path.open("wb") as target:
        writer = Writer(target, chunk_size=100_000)
        writer.start(profile="ros2", library="by hand")
        channels: dict[str, int] = {}
        for schema, channel, message in make_reader(source).iter_messages():
            assert schema is not None
            topic = channel.topic
            if topic not in channels:
                number = writer.register_schema(schema.name, schema.encoding, schema.data)
                channels[topic] = writer.register_channel(topic, "cdr", number)
            data = change(topic, message.data, counts.setdefault(topic, 0))
            counts[topic] += 1
            if data is not None:
                writer.add_message(channels[topic], message.log_time, data, message.publish_time)
        for topic, when, data in more:
            writer.add_message(channels[topic], when, data, when)
        writer.finish()
    return path
