"""From plans to guidance, and the window that the expert asks for."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.guidance import next_contact, window
from bridgevla_ros.core.time_law import peaks
from bridgevla_ros.core.trajectory import MAX_CONTACT_OFFSET, TrajectoryConfig, TrajectoryGenerator
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import (
    CameraIntrinsics,
    GripperEvent,
    Guidance,
    Waypoint,
    WaypointKind,
    WaypointPlan,
)

VIA, APPROACH, CONTACT, RETREAT = WaypointKind
NONE, OPEN, CLOSE = GripperEvent
DOWN = Rotation.from_euler("x", np.pi)
START = Transform(np.array([0.45, 0.0, 0.4]), DOWN.as_matrix())
CAMERA_POSE = Transform.from_quat([1.0, 0.2, 0.8], Rotation.from_euler("xyz", [2.3, 0.1, 1.4]).as_quat())


def waypoint(xyz, kind=VIA, event=NONE, yaw=0.0, tilt=0.0, width=0.08) -> Waypoint:
    pose = Transform(np.array(xyz), (Rotation.from_euler("zy", (yaw, tilt)) * DOWN).as_matrix())
    return Waypoint(CAMERA_POSE.inverse() @ pose, kind, event, width, np.zeros(2), 0.8, 1.0)


def plan(*waypoints: Waypoint, **changes) -> WaypointPlan:
    made = WaypointPlan(
        3.5, "camera", "base_link", "plan7", "task1", "request1", "words", "words", 0, 1, (), waypoints,
        CAMERA_POSE, CameraIntrinsics(320, 240, 300.0, 300.0, 160.0, 120.0), "model", "", 0, "digest",
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


PICK_AND_PLACE = plan(
    waypoint([0.5, 0.1, 0.15], APPROACH, OPEN, 0.8, width=0.085),
    waypoint([0.5, 0.1, 0.02], CONTACT, CLOSE, 0.8, width=0.0),
    waypoint([0.5, 0.1, 0.17], RETREAT, yaw=0.8),
    waypoint([0.6, -0.2, 0.2], APPROACH, yaw=0.1),
    waypoint([0.6, -0.2, 0.08], CONTACT, OPEN, 0.1, width=0.085),
    waypoint([0.6, -0.2, 0.2], RETREAT, yaw=0.1),
)


def generate(which: WaypointPlan, start: Transform = START, **config) -> Guidance:
    return TrajectoryGenerator(TrajectoryConfig(**config)).generate(which, CAMERA_POSE, start, 0.08)


def assert_sound(guidance: Guidance, config: TrajectoryConfig) -> None:
    """Limits, consistency of positions and twists, rest at events, monotone progress."""
    assert guidance.code == ErrorCode.NONE, guidance.message
    time, period = guidance.nominal_time, config.sample_period
    assert (np.diff(guidance.progress) > 0.0).all()
    assert guidance.progress[0] == 0.0
    assert guidance.progress[-1] == 1.0
    assert np.diff(time).max() <= period + 1e-9
    for array in (guidance.position, guidance.quat, guidance.linear_velocity, guidance.angular_velocity):
        assert np.isfinite(array).all()
    grid = np.linspace(0.0, time[-1], int(time[-1] / 0.01) + 2)
    linear = np.column_stack([np.interp(grid, time, c) for c in guidance.linear_velocity.T])
    angular = np.column_stack([np.interp(grid, time, c) for c in guidance.angular_velocity.T])
    # Interpolating between samples adds corners at them: jerk is judged on the samples' own spacing.
    speed = peaks(linear, angular, grid[1])
    assert speed[0, 0] <= config.max_speed * 1.001
    assert speed[1, 0] <= config.max_angular_speed * 1.001
    limits = config.limits()
    cuts = [
        0,
        *(int(np.argmin(np.abs(guidance.progress - p))) for p in guidance.event_progress),
        len(time) - 1,
    ]
    for a, b in pairwise(cuts):
        if b - a < 3:
            continue
        for values, acceleration, jerk in (
            (guidance.linear_velocity, limits.acceleration, limits.jerk),
            (guidance.angular_velocity, limits.angular_acceleration, limits.angular_jerk),
        ):
            rates = np.diff(values[a : b + 1], axis=0) / np.diff(time[a : b + 1])[:, None]
            assert np.linalg.norm(rates, axis=1).max() <= acceleration * 1.005
            middle = 0.5 * (time[a:b] + time[a + 1 : b + 1])
            jerks = np.diff(rates, axis=0) / np.diff(middle)[:, None]
            assert np.linalg.norm(jerks, axis=1).max() <= jerk * 1.02
    for p in (0.0, 1.0, *guidance.event_progress):
        at = int(np.argmin(np.abs(guidance.progress - p)))
        assert abs(guidance.progress[at] - p) < 1e-12
        assert np.abs(guidance.linear_velocity[at]).max() < 1e-12
        assert np.abs(guidance.angular_velocity[at]).max() < 1e-12
    # Positions are the integral of the twists (Simpson by the cubic rule on each sample interval).
    step = np.diff(time)[:, None]
    moved = np.diff(guidance.position, axis=0)
    mean = 0.5 * (guidance.linear_velocity[1:] + guidance.linear_velocity[:-1]) * step
    assert np.abs(moved - mean).max() <= config.max_jerk * period**3 / 6
    turned = (
        Rotation.from_quat(guidance.quat[1:]) * Rotation.from_quat(guidance.quat[:-1]).inv()
    ).as_rotvec()
    mean = 0.5 * (guidance.angular_velocity[1:] + guidance.angular_velocity[:-1]) * step
    assert np.abs(turned - mean).max() <= config.max_angular_jerk * period**3 / 6


@pytest.mark.parametrize("height", [0.4, 0.05])
def test_pick_and_place(height: float) -> None:
    start = Transform(np.array([0.45, 0.0, height]), START.rotation)
    guidance = generate(PICK_AND_PLACE, start)
    assert_sound(guidance, TrajectoryConfig())
    assert guidance.events == (OPEN, CLOSE, OPEN)
    np.testing.assert_allclose(guidance.event_width, [0.085, 0.0, 0.085])
    np.testing.assert_allclose(guidance.contact_position, [[0.5, 0.1, 0.02], [0.6, -0.2, 0.08]], atol=1e-9)
    np.testing.assert_allclose(guidance.contact_progress, guidance.event_progress[1:])
    np.testing.assert_allclose(guidance.position[0], start.translation, atol=1e-9)
    np.testing.assert_allclose(guidance.position[-1], [0.6, -0.2, 0.2], atol=1e-9)
    for at, xyz in ((1, [0.5, 0.1, 0.02]), (2, [0.6, -0.2, 0.08])):
        index = int(np.argmin(np.abs(guidance.progress - guidance.event_progress[at])))
        np.testing.assert_allclose(guidance.position[index], xyz, atol=1e-9)
    assert guidance.duration < 12.0


def test_contacts_are_reached_and_left_straight() -> None:
    guidance = generate(PICK_AND_PLACE)
    for contact, above in (([0.5, 0.1, 0.02], 0.15), ([0.6, -0.2, 0.08], 0.2)):
        near = np.linalg.norm(guidance.position[:, :2] - contact[:2], axis=1) < 0.03
        low = near & (guidance.position[:, 2] < above)
        assert low.sum() > 20
        assert np.linalg.norm(guidance.position[low, :2] - contact[:2], axis=1).max() < 1e-9
    # and whatever is lower than the retreat stands right above one of the two contacts
    low = guidance.position[:, 2] < 0.15 - 1e-6
    apart = np.linalg.norm(
        guidance.position[low][:, None, :2] - guidance.contact_position[None, :, :2], axis=2
    )
    assert apart.min(axis=1).max() < 1e-9


def test_low_start_rises_first() -> None:
    guidance = generate(PICK_AND_PLACE, Transform(np.array([0.35, -0.3, 0.03]), START.rotation))
    low = guidance.position[:, 2] < 0.15 - 1e-6
    until = int(np.argmin(low))
    assert until > 10
    np.testing.assert_allclose(guidance.position[:until, :2], [[0.35, -0.3]] * until, atol=1e-9)


def test_contact_speed_holds_on_the_way_down() -> None:
    guidance = generate(PICK_AND_PLACE, contact_speed=0.05)
    down = guidance.kind == CONTACT
    assert np.linalg.norm(guidance.linear_velocity[down], axis=1).max() <= 0.05 * 1.001
    assert np.linalg.norm(guidance.linear_velocity[~down], axis=1).max() > 0.1


xyz = st.tuples(st.floats(0.26, 0.79), st.floats(-0.39, 0.39), st.floats(0.0, 0.59))


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            xyz,
            st.sampled_from(WaypointKind),
            st.sampled_from(GripperEvent),
            st.floats(-3, 3),
            st.floats(-0.5, 0.5),
        ),
        min_size=1,
        max_size=6,
    ),
    xyz,
)
def test_limits_hold_for_any_waypoints(rows, start) -> None:
    config = TrajectoryConfig()
    made = plan(*(waypoint(p, kind, event, yaw, tilt) for p, kind, event, yaw, tilt in rows))
    guidance = TrajectoryGenerator(config).generate(
        made, CAMERA_POSE, Transform(np.array(start), START.rotation), 0.04
    )
    assert_sound(guidance, config)
    assert (guidance.position >= np.array(config.workspace_min) - 1e-9).all()
    assert (guidance.position <= np.array(config.workspace_max) + 1e-9).all()
    for p, *_ in rows:
        assert np.linalg.norm(guidance.position - p, axis=1).min() < config.max_speed * config.sample_period


@settings(max_examples=10)
@example(1.0, 3.0, 3.0, 1.0)
@example(0.697, 3.908, 3.965, 0.496)
@given(st.floats(0.05, 1.0), st.floats(0.3, 5.0), st.floats(3.0, 100.0), st.floats(0.2, 3.0))
def test_any_limits_hold(speed: float, acceleration: float, jerk: float, angular: float) -> None:
    config = TrajectoryConfig(
        max_speed=speed, max_acceleration=acceleration, max_jerk=jerk, max_angular_speed=angular
    )
    assert_sound(TrajectoryGenerator(config).generate(PICK_AND_PLACE, CAMERA_POSE, START, 0.08), config)


def test_same_input_same_guidance_and_another_start_another_id() -> None:
    one, two = generate(PICK_AND_PLACE), generate(PICK_AND_PLACE)
    assert one.guidance_id == two.guidance_id
    np.testing.assert_array_equal(one.position, two.position)
    moved = Transform(START.translation + np.array([0.0, 0.01, 0.0]), START.rotation)
    assert generate(PICK_AND_PLACE, moved).guidance_id != one.guidance_id


def test_position_only_waypoint_keeps_the_orientation() -> None:
    free = dataclasses.replace(waypoint([0.6, 0.1, 0.3], yaw=1.5), orientation_valid=False)
    guidance = generate(plan(free))
    apart = Rotation.from_quat(guidance.quat) * Rotation.from_matrix(START.rotation).inv()
    assert apart.magnitude().max() < 1e-6


def test_plan_without_motion_still_reaches_its_event() -> None:
    here = Waypoint(CAMERA_POSE.inverse() @ START, APPROACH, OPEN, 0.08, np.zeros(2), 0.8, 1.0)
    guidance = generate(plan(here))
    assert_sound(guidance, TrajectoryConfig())
    assert guidance.events == (OPEN,)


NAN = float("nan")


@pytest.mark.parametrize(
    ("waypoints", "code", "words"),
    [
        ([waypoint([0.9, 0.0, 0.2])], ErrorCode.OUT_OF_WORKSPACE, "x is 0.900 m"),
        ([waypoint([0.5, 0.0, 0.2]), waypoint([0.5, 0.0, -0.1])], ErrorCode.OUT_OF_WORKSPACE, "waypoint 1"),
        ([], ErrorCode.BAD_INPUT, "0 waypoints"),
        ([waypoint([0.5, 0.0, 0.2])] * 65, ErrorCode.BAD_INPUT, "65 waypoints"),
        ([waypoint([NAN, 0.0, 0.2])], ErrorCode.BAD_INPUT, "nan"),
        ([waypoint([0.5, 0.0, 0.2], CONTACT, CLOSE, width=NAN)], ErrorCode.BAD_INPUT, "gripper width"),
    ],
)
def test_refusals_name_what_is_wrong(waypoints, code: ErrorCode, words: str) -> None:
    guidance = generate(plan(*waypoints))
    assert guidance.code == code
    assert words in guidance.message
    assert len(guidance.progress) == len(guidance.position) == 0
    if code == ErrorCode.OUT_OF_WORKSPACE:
        assert np.isfinite([guidance.value, guidance.limit]).all()
        assert guidance.unit == "m"


def test_refused_plan_and_broken_poses_are_refused() -> None:
    refused = generate(plan(code=ErrorCode.NO_TARGET, message="no red cube"))
    assert (refused.code, refused.message) == (ErrorCode.NO_TARGET, "no red cube")
    mirrored = Transform(START.translation, np.diag([1.0, 1.0, -1.0]))
    assert generate(PICK_AND_PLACE, mirrored).code == ErrorCode.BAD_INPUT
    generator = TrajectoryGenerator(TrajectoryConfig())
    lost = Transform(np.full(3, NAN), np.eye(3))
    assert generator.generate(PICK_AND_PLACE, lost, START, 0.08).code == ErrorCode.BAD_INPUT
    assert generator.generate(PICK_AND_PLACE, CAMERA_POSE, START, NAN).code == ErrorCode.BAD_INPUT
    with pytest.raises(BridgeError, match="not a box"):
        TrajectoryGenerator(TrajectoryConfig(workspace_min=(0.9, 0.0, 0.0)))


GUIDANCE = generate(PICK_AND_PLACE)


@given(st.floats(0.0, 1.0), st.integers(0, 3))
def test_window_waits_at_the_next_event_and_agrees_with_the_samples(progress: float, done: int) -> None:
    seen = window(GUIDANCE, progress, done, 16, 0.05)
    last = 1.0 if done == 3 else GUIDANCE.event_progress[done]
    assert (seen.progress <= last + 1e-12).all()
    assert (np.diff(seen.progress) >= -1e-12).all()
    wanted = np.minimum(progress * GUIDANCE.duration + 0.05 * np.arange(1, 17), last * GUIDANCE.duration)
    np.testing.assert_allclose(seen.progress * GUIDANCE.duration, wanted, atol=1e-9)
    exact = np.column_stack([np.interp(wanted, GUIDANCE.nominal_time, c) for c in GUIDANCE.position.T])
    np.testing.assert_allclose(seen.position, exact, atol=2e-4)
    np.testing.assert_allclose(np.linalg.norm(seen.quat, axis=1), 1.0)
    waiting = seen.progress >= last - 1e-12
    assert np.abs(seen.linear_velocity[waiting]).max(initial=0.0) < 1e-9
    assert np.abs(seen.angular_velocity[waiting]).max(initial=0.0) < 1e-9


def test_window_of_a_refusal_is_an_error() -> None:
    with pytest.raises(BridgeError, match="no guidance"):
        window(generate(plan()), 0.0, 0, 16, 0.05)


def test_a_contact_that_is_made_beside_the_tcp_is_looked_at_there() -> None:
    offset = np.array([0.06, 0.0, 0.01])
    held = dataclasses.replace(waypoint([0.5, 0.0, 0.1], kind=CONTACT, event=OPEN), contact_offset=offset)
    guidance = generate(plan(waypoint([0.5, 0.0, 0.3]), held))
    assert guidance.code == ErrorCode.NONE, guidance.message
    np.testing.assert_allclose(guidance.contact_position[0], [0.5, 0.0, 0.1], atol=1e-9)
    made = next_contact(guidance, 0.0, 0)
    assert made is not None
    rotation = Rotation.from_quat(guidance.quat[-1]).as_matrix()
    np.testing.assert_allclose(made, guidance.contact_position[0] + rotation @ offset, atol=1e-6)


@pytest.mark.parametrize("offset", [[0.0, 0.4, 0.0], [np.nan, 0.0, 0.0], [0.1, 0.1]])
def test_a_contact_offset_beyond_any_held_thing_is_refused(offset: list[float]) -> None:
    far = dataclasses.replace(
        waypoint([0.5, 0.0, 0.1], kind=CONTACT, event=OPEN), contact_offset=np.array(offset)
    )
    refused = generate(plan(far))
    assert refused.code == ErrorCode.BAD_INPUT
    assert "contact offset of waypoint 0" in refused.message
    assert refused.limit == MAX_CONTACT_OFFSET


def test_next_contact_follows_the_events() -> None:
    source, destination = GUIDANCE.contact_position
    closing, placing = GUIDANCE.contact_progress
    for progress, done, wanted in (
        (0.0, 0, source),
        (closing, 1, source),
        (closing, 2, destination),
        (closing + 0.05, 2, destination),
        (placing, 3, destination),
        (1.0, 3, destination),
    ):
        np.testing.assert_array_equal(next_contact(GUIDANCE, progress, done), wanted)
    assert next_contact(generate(plan()), 0.0, 0) is None
    assert next_contact(generate(plan(waypoint([0.5, 0.0, 0.3]))), 0.0, 0) is None
