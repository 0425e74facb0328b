"""Core types survive the trip through their messages; nonsense on the wire is refused."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from bridgevla_ros.core import resources
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.robot import RobotConfig
from bridgevla_ros.core.task_status import Stage, TaskStatus
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import (
    ActionChunk,
    ArmCommand,
    CameraIntrinsics,
    Cloud,
    DepthQuality,
    GripperEvent,
    Guidance,
    JointState,
    Keypoint,
    Lease,
    PlanRequest,
    Progress,
    Role,
    StreamerState,
    Waypoint,
    WaypointKind,
    WaypointPlan,
)
from bridgevla_ros.ros import conversions

QUICK = settings(max_examples=20)

JOINTS = tuple(f"joint{i}" for i in range(1, 8))
ROBOT = RobotConfig.load(resources.find_robot("panda_2f85"))


def assert_same(a: Any, b: Any, path: str = "") -> None:
    """Equal field by field; floats to float32's precision (many fields travel so), NaN equals NaN."""
    if is_dataclass(a):
        assert type(a) is type(b), path
        for f in fields(a):
            assert_same(getattr(a, f.name), getattr(b, f.name), f"{path}.{f.name}")
    elif isinstance(a, np.ndarray):
        assert np.shape(a) == np.shape(b), path
        np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-9, err_msg=path)
    elif isinstance(a, tuple):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}[{i}]")
    elif isinstance(a, float):
        assert (math.isnan(a) and math.isnan(b)) or b == pytest.approx(a, rel=1e-6, abs=1e-9), path
    else:
        assert a == b, path
        if isinstance(a, IntEnum):
            assert type(a) is type(b), path


finite = st.floats(-100.0, 100.0, allow_nan=False, width=32)
unit = st.floats(0.0, 1.0, width=32)
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
seeds = st.integers(0, 2**64 - 1)
# Simulated time to the nanosecond, and wall-clock time.
stamps = st.one_of(
    st.integers(0, 10**13).map(lambda ns: ns / 1e9),
    st.floats(1.7e9, 1.9e9, allow_nan=False),
)
codes = st.sampled_from(list(ErrorCode))
vectors = arrays(np.float64, 3, elements=finite)
pixels = arrays(np.float64, 2, elements=st.floats(0, 640, width=32))
rotations = arrays(np.float64, 3, elements=st.floats(-3, 3)).map(
    lambda v: Rotation.from_rotvec(v).as_matrix()
)
transforms = st.builds(Transform, vectors, rotations)


@st.composite
def guidances(draw: st.DrawFn) -> Guidance:
    k, e, c = draw(st.integers(0, 30)), draw(st.integers(0, 3)), draw(st.integers(0, 2))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    quat = Rotation.random(k, random_state=1).as_quat() if k else np.zeros((0, 4))
    return Guidance(
        stamp=draw(stamps),
        base_frame="base_link",
        guidance_id=draw(text),
        plan_id=draw(text),
        task_id=draw(text),
        progress=np.linspace(0, 1, k),
        nominal_time=np.linspace(0, 9, k),
        position=rng.normal(size=(k, 3)),
        quat=quat,
        linear_velocity=rng.normal(size=(k, 3)),
        angular_velocity=rng.normal(size=(k, 3)),
        event_progress=np.sort(rng.random(e)),
        events=tuple(draw(st.sampled_from(list(GripperEvent))) for _ in range(e)),
        event_width=rng.random(e) * 0.08,
        kind=rng.integers(0, 4, k),
        contact_position=rng.normal(size=(c, 3)),
        contact_progress=np.sort(rng.random(c)),
        contact_offset=rng.normal(size=(c, 3)),
        code=draw(codes),
        message=draw(text),
        value=draw(st.one_of(finite, st.just(math.nan))),
        limit=draw(finite),
        unit=draw(text),
    )


@st.composite
def chunks(draw: st.DrawFn) -> ActionChunk:
    h = draw(st.integers(1, 16))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    return ActionChunk(
        stamp=draw(stamps),
        guidance_id=draw(text),
        task_id=draw(text),
        sequence=draw(st.integers(0, 2**32 - 1)),
        seed=draw(seeds),
        dt=draw(st.floats(0.01, 0.2)),
        execute_steps=draw(st.integers(1, 16)),
        position=rng.normal(size=(h, 3)),
        quat=Rotation.random(h, random_state=1).as_quat().reshape(h, 4),
        joints=rng.normal(size=(h, 7)),
        joint_velocities=rng.normal(size=(h, 7)),
        gripper_width=rng.random(h),
        progress=np.linspace(0, 1, h),
        guidance_progress=draw(unit),
        cloud_stamps=tuple(draw(st.lists(stamps, max_size=2))),
        joint_stamps=tuple(draw(st.lists(stamps, max_size=2))),
        correction=draw(unit),
        correction_sigma=draw(st.one_of(unit, st.just(math.nan))),
        model_sha256=draw(text),
        source=draw(st.sampled_from(["expert", "ik", "snap"])),
    )


keypoints = st.builds(
    Keypoint,
    st.sampled_from(list(Role)),
    text,
    pixels,
    st.one_of(unit, st.just(math.nan)),
    vectors,
    unit,
    unit,
)
waypoints = st.builds(
    Waypoint,
    transforms,
    st.sampled_from(list(WaypointKind)),
    st.sampled_from(list(GripperEvent)),
    unit,
    pixels,
    unit,
    unit,
    unit,
    st.booleans(),
)
intrinsics = st.builds(
    CameraIntrinsics,
    st.integers(2, 640),
    st.integers(2, 480),
    st.floats(1, 1000),
    st.floats(1, 1000),
    st.floats(0, 640),
    st.floats(0, 480),
    st.just("camera"),
)
plans = st.builds(
    WaypointPlan,
    stamp=stamps,
    camera_frame=st.just("camera"),
    base_frame=text,
    plan_id=text,
    task_id=text,
    request_id=text,
    instruction=text,
    subgoal=text,
    step=st.integers(0, 9),
    steps_total=st.integers(0, 9),
    anchors=st.lists(keypoints, max_size=2).map(tuple),
    waypoints=st.lists(waypoints, max_size=6).map(tuple),
    T_base_camera=transforms,
    intrinsics=intrinsics,
    model=text,
    model_sha256=text,
    seed=seeds,
    digest=text,
    null_probability=unit,
    code=codes,
    message=text,
    candidates=st.lists(text, max_size=3).map(tuple),
    latency=unit,
    color_stamp=st.one_of(stamps.filter(bool), st.just(math.nan)),
    joint_stamp=st.one_of(stamps.filter(bool), st.just(math.nan)),
    computed_at=st.one_of(stamps.filter(bool), st.just(math.nan)),
)
requests = st.builds(PlanRequest, stamps, text, text, text, st.integers(0, 9), st.integers(0, 2), seeds)
progresses = st.builds(
    Progress,
    stamps,
    text,
    unit,
    st.integers(0, 9),
    st.sampled_from(list(StreamerState)),
    unit,
    unit,
    codes,
    text,
    st.one_of(finite, st.just(math.nan)),
    finite,
    text,
)
qualities = st.builds(
    DepthQuality,
    stamps,
    unit,
    unit,
    unit,
    st.integers(0, 10**6),
    unit,
    st.just(math.nan),
    codes,
)
statuses = st.builds(
    TaskStatus,
    stamps,
    text,
    text,
    text,
    st.sampled_from(list(Stage)),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 2),
    unit,
    unit,
    codes,
    text,
    finite,
    st.just(math.nan),
    text,
    text,
    st.lists(text, max_size=3).map(tuple),
    st.booleans(),
)
leases = st.builds(Lease, stamps, st.integers(0, 10**10).map(lambda ns: ns / 1e9), text, text)


@QUICK
@given(stamps)
def test_stamp_to_message_and_back_is_exact(stamp: float) -> None:
    assert conversions.stamp_from_msg(conversions.stamp_to_msg(stamp)) == stamp


@QUICK
@given(st.integers(0, 2**23 - 1), st.integers(0, 999_999_999))
@example(2**23 - 1, 999_999_999)
def test_simulated_stamps_keep_every_nanosecond(sec: int, nanosec: int) -> None:
    msg = Time(sec=sec, nanosec=nanosec)
    assert conversions.stamp_to_msg(conversions.stamp_from_msg(msg)) == msg


@QUICK
@given(st.integers(2**30, 2**31 - 1), st.integers(0, 999_999_999))
def test_stamps_of_the_wall_clock_are_rounded_once_and_then_kept(sec: int, nanosec: int) -> None:
    stamp = conversions.stamp_from_msg(Time(sec=sec, nanosec=nanosec))
    back = conversions.stamp_to_msg(stamp)
    rounded_by = (back.sec - sec) * 10**9 + back.nanosec - nanosec
    assert abs(rounded_by) <= 120
    assert conversions.stamp_from_msg(back) == stamp


def test_a_stamp_that_is_no_time_is_refused() -> None:
    with pytest.raises(BridgeError, match="BAD_INPUT"):
        conversions.stamp_to_msg(math.nan)


@QUICK
@given(transforms)
def test_poses_and_transforms(transform: Transform) -> None:
    for back in (
        conversions.pose_from_msg(conversions.pose_to_msg(transform)),
        conversions.transform_from_msg(conversions.transform_to_msg(transform)),
    ):
        np.testing.assert_allclose(back.matrix(), transform.matrix(), atol=1e-9)


def test_a_zero_quaternion_is_refused() -> None:
    msg = conversions.pose_to_msg(Transform.identity())
    msg.orientation.w = 0.0
    with pytest.raises(BridgeError, match="no pose"):
        conversions.pose_from_msg(msg)


@QUICK
@given(plans)
def test_waypoint_plan(plan: WaypointPlan) -> None:
    msg = conversions.waypoint_plan_to_msg(plan)
    assert len(msg.poses_base) == len(plan.waypoints)
    assert_same(plan, conversions.waypoint_plan_from_msg(msg))


@QUICK
@given(requests)
def test_plan_request(request: PlanRequest) -> None:
    assert_same(
        request,
        conversions.plan_request_from_msg(conversions.plan_request_to_msg(request)),
    )


@QUICK
@given(guidances())
def test_guidance(guidance: Guidance) -> None:
    assert_same(guidance, conversions.guidance_from_msg(conversions.guidance_to_msg(guidance)))


@QUICK
@given(chunks(), st.permutations(range(7)))
def test_action_chunk_in_any_joint_order(chunk: ActionChunk, order: list[int]) -> None:
    msg = conversions.action_chunk_to_msg(chunk, JOINTS)
    msg.joint_names = [msg.joint_names[i] for i in order]
    for point in msg.joints:
        point.positions = [point.positions[i] for i in order]
        point.velocities = [point.velocities[i] for i in order]
    assert_same(chunk, conversions.action_chunk_from_msg(msg, JOINTS))


@QUICK
@given(stamps.filter(bool), codes.filter(bool), text, finite, st.one_of(finite, st.just(math.nan)))
def test_a_refusal_in_the_place_of_a_chunk(
    stamp: float, code: ErrorCode, message: str, value: float, limit: float
) -> None:
    refusal = ActionChunk(
        stamp, "g", "t", 3, 7, 0.0, 0, np.zeros((0, 3)), np.zeros((0, 4)), np.zeros((0, 7)), np.zeros((0, 7)),
        np.zeros(0), np.zeros(0), 0.5, (stamp,), (stamp,), math.nan, math.nan, "sha", "expert", stamp, stamp,
        code, message, value, limit, "m",
    )  # fmt: skip
    msg = conversions.action_chunk_to_msg(refusal, JOINTS)
    assert_same(refusal, conversions.action_chunk_from_msg(msg, JOINTS))
    msg.gripper = [0.04]
    with pytest.raises(BridgeError, match="steps"):
        conversions.action_chunk_from_msg(msg, JOINTS)


@QUICK
@given(progresses)
def test_progress(progress: Progress) -> None:
    assert_same(progress, conversions.progress_from_msg(conversions.progress_to_msg(progress)))


@QUICK
@given(qualities)
def test_depth_quality(quality: DepthQuality) -> None:
    assert_same(
        quality,
        conversions.depth_quality_from_msg(conversions.depth_quality_to_msg(quality)),
    )


@QUICK
@given(statuses)
def test_task_status(status: TaskStatus) -> None:
    assert_same(status, conversions.task_status_from_msg(conversions.task_status_to_msg(status)))


@QUICK
@given(leases)
def test_lease(lease: Lease) -> None:
    assert_same(lease, conversions.lease_from_msg(conversions.lease_to_msg(lease)))


@QUICK
@given(stamps, st.integers(0, 100), transforms, st.one_of(unit, st.just(math.nan)))
def test_arm_command(stamp: float, seed: int, pose: Transform, width: float) -> None:
    rng = np.random.default_rng(seed)
    command = ArmCommand(
        stamp,
        np.array([0.01, 0.05, 0.2]),
        rng.normal(size=(3, 7)),
        rng.normal(size=(3, 7)),
        pose,
        width,
    )
    msgs = conversions.arm_command_to_msgs(command, JOINTS)
    assert (msgs[2] is None) == math.isnan(width)
    assert_same(command, conversions.arm_command_from_msgs(*msgs, JOINTS))


@QUICK
@given(st.permutations(range(8)), st.integers(0, 100))
def test_joint_states_are_matched_by_name(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    state = JointState(1.5, rng.normal(size=7), rng.normal(size=7), 0.03, -0.01)
    msg = conversions.joint_state_to_msg(state, ROBOT)
    msg.name = [msg.name[i] for i in order] + ["some_other_joint"]
    msg.position = [msg.position[i] for i in order] + [9.0]
    msg.velocity = [msg.velocity[i] for i in order] + [9.0]
    assert_same(state, conversions.joint_state_from_msg(msg, ROBOT))


def test_a_missing_joint_is_named() -> None:
    other = replace(ROBOT, joint_names=(*JOINTS[:6], "x"), gripper_joint="finger_width")
    msg = conversions.joint_state_to_msg(JointState(0.0, np.zeros(7), np.zeros(7), 0.0), other)
    assert conversions.joint_state_from_msg(msg, other).gripper_width == 0.0
    with pytest.raises(BridgeError, match=r"joint7.*gripper_width.*finger_width"):
        conversions.joint_state_from_msg(msg, ROBOT)


@QUICK
@given(
    arrays(np.float32, (20, 3), elements=st.floats(-2, 2, width=32)),
    arrays(np.float32, 20, elements=st.floats(0, 9, width=32)),
)
def test_cloud(points: np.ndarray, age: np.ndarray) -> None:
    cloud = Cloud(2.25, points, age, np.array([0.5, 0.0, 0.1]), "g1")
    back = conversions.cloud_from_msg(conversions.cloud_to_msg(cloud), cloud.center_base, cloud.guidance_id)
    assert_same(cloud, back)
    assert back.points_base.dtype == np.float32


def test_points_that_are_not_finite_are_dropped() -> None:
    points = np.zeros((3, 3), np.float32)
    points[1, 2] = np.nan
    msg = conversions.cloud_to_msg(Cloud(0.0, points, np.zeros(3, np.float32), np.full(3, np.nan)))
    assert len(conversions.cloud_from_msg(msg).points_base) == 2


def test_a_chunk_of_unequal_lengths_is_refused() -> None:
    chunk = ActionChunk(
        0.0, "g", "t", 0, 0, 0.1, 1, np.zeros((2, 3)), np.tile([0, 0, 0, 1.0], (2, 1)), np.zeros((2, 7)),
        np.zeros((2, 7)), np.zeros(2), np.zeros(2), 0.0, (), (), 0.0, 0.0, "", "ik",
    )  # fmt: skip
    msg = conversions.action_chunk_to_msg(chunk, JOINTS)
    msg.gripper = msg.gripper[:1]
    with pytest.raises(BridgeError, match="steps"):
        conversions.action_chunk_from_msg(msg, JOINTS)


@given(guidances())
@settings(max_examples=10)
def test_guidance_without_contact_offsets_makes_contact_between_the_fingers(guidance: Guidance) -> None:
    """As bags have it that were recorded before there were offsets."""
    message = conversions.guidance_to_msg(guidance)
    message.contact_offsets = []
    read = conversions.guidance_from_msg(message)
    np.testing.assert_array_equal(read.contact_offset, np.zeros_like(guidance.contact_position))
    assert not conversions.guidance_to_msg(read).contact_offsets
