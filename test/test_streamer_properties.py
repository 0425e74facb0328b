"""No input makes the streamer command a jump: limits hold for any sequence of chunks, gaps and leases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streamer_rig import ARM, PERIOD, Rig, check_smooth, follow

from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.core.motion import Brake, JointMotion, MotionLimits, step_towards
from bridgevla_ros.core.streamer_config import StreamerConfig
from bridgevla_ros.core.types import StreamerState

LIMITS = MotionLimits(ARM.velocity_limit, ARM.acceleration_limit, ARM.jerk_limit)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_one_step_keeps_the_limits_whatever_is_wanted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    state = JointMotion.at_rest(ARM.home)
    wanted = np.zeros(7)
    for k in range(150):
        if rng.random() < 0.3:
            wanted = rng.choice([0.0, 1e-4, 0.1, 1.0, 1e6]) * rng.standard_normal(7)
        after = step_towards(state, wanted, LIMITS, PERIOD)
        assert (np.abs(after.v) <= LIMITS.velocity * (1 + 1e-9)).all()
        assert (np.abs(after.a) <= LIMITS.acceleration * (1 + 1e-9)).all()
        assert (np.abs(after.a - state.a) <= LIMITS.jerk * PERIOD * (1 + 1e-9)).all()
        if k % 30 == 0:
            brake = Brake(after, LIMITS)
            np.testing.assert_allclose(brake.at(0.0).v, after.v)
            assert np.abs(brake.at(brake.duration).v).max() == 0
            for t in np.linspace(0, brake.duration, 20):
                assert (np.abs(brake.at(t).a) <= LIMITS.acceleration * (1 + 1e-6)).all()
                assert (brake.at(t).q >= brake.lowest - 2e-3).all()
                assert (brake.at(t).q <= brake.highest + 2e-3).all()
        state = after


def test_a_wanted_velocity_is_met_without_ringing() -> None:
    state, wanted = JointMotion.at_rest(ARM.home), np.full(7, 0.3)
    speeds = []
    for _ in range(60):
        state = step_towards(state, wanted, LIMITS, PERIOD)
        speeds.append(state.v)
    assert np.max(speeds) < 0.3 * 1.02
    np.testing.assert_allclose(speeds[-1], wanted, atol=1e-6)


FAULTS = [
    "none",
    "none",
    "nan",
    "inf",
    "jump",
    "noise",
    "gap",
    "lease",
    "joints",
    "hold",
    "resume",
    "stop",
    "offset",
]


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from(FAULTS), min_size=4, max_size=9))
def test_no_sequence_of_faults_reaches_the_arm(seed: int, faults: list[str]) -> None:
    rng = np.random.default_rng(seed)
    rig = Rig()
    rig.thinking = False
    groups: list[list[object]] = [[]]
    for fault in ["none", *faults]:
        rig.leasing, rig.sensing = fault != "lease", fault != "joints"
        if fault == "hold":
            rig.streamer.hold()
        if fault == "stop":
            rig.streamer.stop()
        if fault == "resume":
            try:
                rig.streamer.resume(rig.now)
            except BridgeError:  # it still moves, or there is no joint state: the stop stays
                pass
            else:
                groups.append([])  # after a stop the command starts again from measured
        for k in range(40):
            if k % 5 == 0 and fault != "gap" and rig.reports:
                chunk = follow(rig.guidance, rig.joints(), rig.reports[-1], k)
                joints = chunk.joints.copy()
                if fault in ("nan", "inf"):
                    joints[rng.integers(16), rng.integers(7)] = np.nan if fault == "nan" else np.inf
                elif fault == "jump":
                    joints[rng.integers(16) :] += rng.choice([-0.5, 0.5])
                elif fault == "noise":
                    joints += 0.02 * rng.standard_normal(joints.shape)
                elif fault == "offset":
                    joints += 0.2 * rng.standard_normal(7)
                rig.streamer.on_chunk(replace(chunk, joints=joints), rig.now)
            before = len(rig.commands)
            rig.step()
            groups[-1].extend(rig.commands[before:])
    for group in groups:
        if len(group) > 3:
            check_smooth(group)  # type: ignore[arg-type]


def test_a_jump_of_half_a_radian_does_not_reach_the_arm() -> None:
    for guard in (True, False):
        # Without the checks on chunks the limits alone still keep the arm smooth: two lines of defence.
        config = StreamerConfig() if guard else replace(StreamerConfig(), too_fast=20.0, join_limit=3.0)
        rig = Rig(config=config)
        rig.run(1.0)
        rig.thinking = False
        before = rig.commands[-1].position[0]
        chunk = follow(rig.guidance, rig.joints(), rig.reports[-1], 99)
        rig.streamer.on_chunk(replace(chunk, joints=chunk.joints + 0.5), rig.now)
        report = rig.step()
        assert np.abs(rig.commands[-1].position[0] - before).max() < 0.02
        rig.run(1.5)
        check_smooth(rig.commands)
        assert (rig.streamer.rejected > 0) == guard
        if guard:
            assert np.abs(rig.commands[-1].position[0] - before).max() < 0.45
            assert report.state in (StreamerState.MOVING, StreamerState.HELD)
