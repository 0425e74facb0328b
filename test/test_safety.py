"""The envelope: distances are true, and a proof of braking means that nothing is hit on the way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streamer_rig import ARM, DOWN

from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.motion import Brake, JointMotion, MotionLimits
from bridgevla_ros.core.safety import Envelope, EnvelopeConfig, segment_distance
from bridgevla_ros.core.transforms import Array, Transform

LIMITS = MotionLimits(ARM.velocity_limit, ARM.acceleration_limit, ARM.jerk_limit)
ENVELOPE = Envelope(EnvelopeConfig(), ARM)


def at(x: float, y: float, z: float) -> Array:
    result = ARM.ik(Transform(np.array([x, y, z]), DOWN), ARM.home, restarts=4)
    assert result.ok
    return result.q


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["any", "parallel", "point", "crossing"]))
def test_segment_distance_is_the_smallest_between_points(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    p1, q1, p2, q2 = rng.uniform(-1, 1, (4, 1, 3))
    if kind == "parallel":
        q2 = p2 + 0.7 * (q1 - p1)
    if kind == "point":
        q1 = p1
    if kind == "crossing":
        p2, q2 = (p1 + q1) / 2 - p2, (p1 + q1) / 2 + p2
    t = np.linspace(0, 1, 201)[:, None]
    a, b = p1 + t * (q1 - p1), p2 + t * (q2 - p2)
    sampled = np.linalg.norm(a[:, None] - b[None], axis=-1).min()
    assert segment_distance(p1, q1, p2, q2)[0] == pytest.approx(sampled, abs=0.02)
    assert segment_distance(p1, q1, p2, q2)[0] <= sampled + 1e-9


def test_home_and_grasps_are_free() -> None:
    for q in (ARM.home, at(0.5, 0.2, 0.02), at(0.35, -0.25, 0.02), at(0.65, 0.0, 0.1)):
        for width in (0.0, 0.04, 0.085):
            assert ENVELOPE.clearance(q, width).margin > 0, ENVELOPE.clearance(q, width)


@pytest.mark.parametrize(
    ("q", "code", "word"),
    [
        (at(0.5, 0.0, -0.01), ErrorCode.COLLISION, "table"),
        (at(0.5, 0.45, 0.2) + 0.3 * np.eye(7)[0], ErrorCode.OUT_OF_WORKSPACE, "workspace in"),
        # Folded back onto itself.
        (np.array([0.0, -1.7, 0.0, -3.0, 0.0, 0.1, 0.0]), ErrorCode.COLLISION, "link"),
    ],
)
def test_what_is_beyond_a_bound_is_named(q: Array, code: ErrorCode, word: str) -> None:
    envelope = ENVELOPE
    if word == "link":
        wide = replace(EnvelopeConfig(), workspace_lower=(-2.0, -2.0, -2.0), workspace_upper=(2.0, 2.0, 2.0))
        envelope = Envelope(replace(wide, table_height=-1.0), ARM)
    found = envelope.clearance(q, 0.04)
    assert found.margin < 0
    assert found.code == code
    assert word in found.message
    assert found.unit == "m"


def test_closing_fingers_reach_lower_than_open_ones() -> None:
    """The linkage pushes the tips 13 mm out: a height that is safe open is not always safe closed."""
    q = at(0.5, 0.0, 0.0)
    assert ENVELOPE.clearance(q, 0.085).margin > ENVELOPE.clearance(q, 0.04).margin
    assert ARM.finger_tips(ARM.fk(q), 0.0)[:, 2].min() < ARM.finger_tips(ARM.fk(q), 0.085)[:, 2].min() - 0.012


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_a_proven_brake_hits_nothing_on_its_way(seed: int) -> None:
    rng = np.random.default_rng(seed)
    q = at(rng.uniform(0.3, 0.6), rng.uniform(-0.3, 0.3), rng.uniform(0.02, 0.3))
    state = JointMotion(
        q, rng.uniform(-1, 1, 7) * LIMITS.velocity, rng.uniform(-1, 1, 7) * LIMITS.acceleration
    )
    here = JointMotion.at_rest(q)
    brake = Brake(state, LIMITS)
    proven = ENVELOPE.check_brake(here, brake, 0.04) is None
    way = [ENVELOPE.clearance(brake.at(t).q, 0.04).margin for t in np.linspace(0, brake.duration, 60)]
    joints = ENVELOPE.joint_clearance(brake.lowest, brake.highest).margin
    if proven:
        # Parts in which nothing moves more than 10 mm are checked by their middle.
        assert min(way) > -0.01
        assert joints >= 0
    else:
        assert min(way) < 0.01 or joints < 0


def test_from_beyond_a_bound_there_is_a_way_back() -> None:
    low = at(0.5, 0.0, 0.0)  # closed tips are in the table's margin here
    envelope = Envelope(replace(EnvelopeConfig(), tip_clearance=0.01), ARM)
    assert envelope.clearance(low, 0.04).margin < 0
    here = JointMotion.at_rest(low)
    up, down = (
        JointMotion(low, ARM.ik(Transform(np.array([0.5, 0.0, z]), DOWN), low).q - low, np.zeros(7))
        for z in (0.02, -0.02)
    )
    assert envelope.check_brake(here, Brake(up, LIMITS), 0.04) is None
    assert envelope.check_brake(here, Brake(down, LIMITS), 0.04) is not None


def test_margins_of_many_postures_are_those_one_by_one() -> None:
    rng = np.random.default_rng(6)
    joints = np.concatenate([rng.uniform(ARM.lower, ARM.upper, (40, 7)), [ARM.home, at(0.5, 0.2, 0.02)]])
    widths = rng.choice([0.0, 0.04, 0.085], len(joints))
    touched = [ENVELOPE.touch(q, float(w)).margin for q, w in zip(joints, widths, strict=True)]
    np.testing.assert_allclose(ENVELOPE.touch_margins(ARM.bodies(joints, widths)), touched, atol=1e-12)
    assert min(touched) < 0.0 < max(touched)
