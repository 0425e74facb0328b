"""Contacts without gripper events, and chains of contacts along which a correction is carried."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.guidance import chain, contacts_done, event_at, grasps
from bridgevla_ros.core.trajectory import TrajectoryConfig, TrajectoryGenerator
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import (
    CameraIntrinsics,
    GripperEvent,
    Guidance,
    Waypoint,
    WaypointKind,
    WaypointPlan,
)
from bridgevla_ros.expert.config import ModelConfig
from bridgevla_ros.expert.outlook import Outlook, look_ahead

DOWN = Rotation.from_euler("x", np.pi).as_matrix()
APPROACH, CONTACT, RETREAT = WaypointKind.APPROACH, WaypointKind.CONTACT, WaypointKind.RETREAT
NONE, OPEN, CLOSE = GripperEvent
MODEL = ModelConfig()

Row = tuple[list[float], WaypointKind, GripperEvent]


def guidance_of(*rows: Row) -> Guidance:
    camera = CameraIntrinsics(1, 1, 1.0, 1.0, 0.0, 0.0)
    waypoints = tuple(
        Waypoint(Transform(np.array(xyz), DOWN), kind, event, 0.0, np.zeros(2), 1.0, 1.0)
        for xyz, kind, event in rows
    )
    plan = WaypointPlan(
        0.0, "camera", "base", "plan", "task", "request", "", "", 0, 1, (), waypoints,
        Transform.identity(), camera, "", "", 0, "",
    )  # fmt: skip
    start = Transform(np.array([0.45, 0.0, 0.35]), DOWN)
    guidance = TrajectoryGenerator(TrajectoryConfig()).generate(plan, Transform.identity(), start, 0.08)
    assert guidance.code == 0, guidance.message
    return guidance


PRESS = guidance_of(
    ([0.5, 0.1, 0.15], APPROACH, CLOSE), ([0.5, 0.1, 0.05], CONTACT, NONE), ([0.5, 0.1, 0.20], RETREAT, NONE)
)
PUSH = guidance_of(
    ([0.5, 0.1, 0.15], APPROACH, CLOSE),
    ([0.5, 0.1, 0.03], CONTACT, NONE),
    ([0.5, -0.1, 0.03], CONTACT, NONE),
    ([0.5, -0.1, 0.20], RETREAT, NONE),
)
PULL = guidance_of(
    ([0.5, 0.1, 0.15], APPROACH, OPEN),
    ([0.5, 0.1, 0.04], CONTACT, CLOSE),
    ([0.5, -0.05, 0.04], CONTACT, OPEN),
    ([0.5, -0.05, 0.20], RETREAT, NONE),
)
PICK_AND_PLACE = guidance_of(
    ([0.5, 0.1, 0.15], APPROACH, OPEN),
    ([0.5, 0.1, 0.03], CONTACT, CLOSE),
    ([0.5, 0.1, 0.20], RETREAT, NONE),
    ([0.5, -0.1, 0.20], APPROACH, NONE),
    ([0.5, -0.1, 0.08], CONTACT, OPEN),
    ([0.5, -0.1, 0.20], RETREAT, NONE),
)


def ahead(guidance: Guidance, progress: float, events_done: int) -> Outlook:
    return look_ahead(guidance, progress, events_done, 0.08, MODEL, np.array([0.0, 0.0, 1.0]))


@pytest.mark.parametrize(
    ("guidance", "chains"),
    [
        (PRESS, [(0, 0)]),
        (PUSH, [(0, 1), (0, 1)]),
        (PULL, [(0, 1), (0, 1)]),
        (PICK_AND_PLACE, [(0, 0), (1, 1)]),
    ],
)
def test_contacts_are_chained_where_the_hand_does_not_leave(
    guidance: Guidance, chains: list[tuple[int, int]]
) -> None:
    assert [chain(guidance, k) for k in range(len(guidance.contact_progress))] == chains


def test_a_chain_tells_the_way_to_its_next_contact() -> None:
    """At its first contact, whole and exact; a contact by itself has none, nor has the end of the path."""
    for guidance, way in ((PUSH, [0.0, -0.2, 0.0]), (PULL, [0.0, -0.15, 0.0]), (PICK_AND_PLACE, [0.0] * 3)):
        np.testing.assert_allclose(ahead(guidance, 0.0, 0).contact.onward, way, atol=1e-9)
    np.testing.assert_array_equal(ahead(PUSH, 1.0, 1).contact.onward, np.zeros(3))


def test_a_contact_says_how_aslant_the_hand_reaches_it() -> None:
    assert ahead(PUSH, 0.0, 0).contact.tilt == pytest.approx(0.0, abs=1e-6)
    turned = (Rotation.from_euler("y", -0.8) * Rotation.from_quat(PUSH.quat)).as_quat()
    assert ahead(dataclasses.replace(PUSH, quat=turned), 0.0, 0).contact.tilt == pytest.approx(0.8, abs=1e-6)


def test_only_closing_at_a_contact_takes_hold() -> None:
    assert [grasps(PRESS, k) for k in range(-1, 2)] == [False, False, False]
    assert [grasps(PULL, k) for k in range(3)] == [False, True, False]
    assert [event_at(PUSH, 0), event_at(PUSH, 1)] == [None, None]
    assert [event_at(PULL, 0), event_at(PULL, 1)] == [1, 2]


def test_a_contact_without_event_is_over_when_progress_is_beyond_it() -> None:
    first, second = PUSH.contact_progress
    assert contacts_done(PUSH, 0.0, 1) == 0
    assert contacts_done(PUSH, float(first), 1) == 0
    assert contacts_done(PUSH, float(first) + 0.01, 1) == 1
    assert contacts_done(PUSH, float(second) + 0.01, 1) == 2
    assert contacts_done(PULL, float(PULL.contact_progress[0]), 1) == 0  # the gripper has yet to close
    assert contacts_done(PULL, float(PULL.contact_progress[0]), 2) == 1


def test_a_contact_without_event_is_corrected_on_the_way_to_it() -> None:
    near = ahead(PRESS, float(PRESS.contact_progress[0]) - 0.5 / PRESS.duration, 1)
    assert near.contact.exists
    assert near.contact.event == NONE
    assert near.weights.min() == 1.0
    assert near.gains.max() > 0.1
    assert near.kept.max() == 0.0


@pytest.mark.parametrize(("guidance", "done"), [(PUSH, 1), (PULL, 2)])
def test_along_a_chain_the_correction_is_carried_whole_then_fades(guidance: Guidance, done: int) -> None:
    begin, end = guidance.contact_progress
    within = ahead(guidance, float(begin + end) / 2, done)
    assert not within.contact.exists
    assert within.kept_now == 1.0
    assert within.kept[within.window.progress <= end].min() == 1.0
    assert within.gains.max() == 0.0
    after = ahead(guidance, float(end) + 0.7 * (1.0 - float(end)), len(guidance.events))
    assert after.contacts_done == 2
    assert after.kept_now < 1.0
    assert np.all(np.diff(after.kept) <= 1e-9)


def test_after_a_grasp_the_correction_fades_as_the_hand_rises() -> None:
    begin = float(PICK_AND_PLACE.contact_progress[0])
    now = ahead(PICK_AND_PLACE, begin, 2)
    apart: Array = np.linalg.norm(now.window.position - PICK_AND_PLACE.contact_position[0], axis=1)
    assert now.contact.exists
    assert now.kept_now == 1.0
    assert np.all(np.diff(now.kept[np.argsort(apart)]) <= 1e-9)
    assert now.kept[-1] < 0.9
