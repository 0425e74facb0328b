"""What the streamer does with the arm: one pick-and-place, and everything that interrupts it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from streamer_rig import ARM, PERIOD, Rig, check_smooth, follow, refuse

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.guidance import retreat_end
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.streamer import Streamer
from bridgevla_ros.core.streamer_config import StreamerConfig
from bridgevla_ros.core.types import Lease, StreamerState

S = StreamerState


@pytest.fixture
def moving() -> Rig:
    """Under way to the first gripper event."""
    rig = Rig()
    report = rig.run(1.0)
    assert report.state == S.MOVING
    assert report.progress > 0.05
    return rig


def standing(rig: Rig) -> bool:
    return bool(np.abs(rig.v).max() < 0.02)


def test_a_pick_and_place_runs_to_its_end() -> None:
    rig = Rig()
    report = rig.run(20.0, until=S.FINISHED)
    assert (report.state, report.code, report.events_done, report.progress) == (S.FINISHED, 0, 3, 1.0)
    assert rig.now - 10.0 < 1.8 * rig.guidance.duration
    progress = np.array([r.progress for r in rig.reports])
    assert (np.diff(progress) >= 0).all()
    assert np.linalg.norm(ARM.fk(rig.q).translation - rig.guidance.position[-1]) < 0.01
    check_smooth(rig.commands)


def test_the_path_is_followed_closely() -> None:
    rig = Rig()
    while rig.step().state != S.FINISHED:
        if rig.commands and rig.reports[-1].state == S.MOVING:
            at = np.interp(
                rig.reports[-1].progress, rig.guidance.progress, np.arange(len(rig.guidance.progress))
            )
            wanted = rig.guidance.position[round(float(at))]
            assert np.linalg.norm(rig.commands[-1].T_base_tcp.translation - wanted) < 0.015


def test_the_first_command_is_the_measured_state() -> None:
    rig = Rig()
    rig.q = ARM.home + 0.03
    while not rig.commands:
        rig.step()
    np.testing.assert_array_equal(rig.commands[0].position, np.tile(ARM.home + 0.03, (5, 1)))


def test_nothing_moves_without_a_lease() -> None:
    rig = Rig()
    rig.leasing = False
    rig.run(1.0)
    assert not rig.commands


def test_a_chunk_for_another_guidance_moves_nothing() -> None:
    rig = Rig()
    rig.thinking = False
    report = rig.run(0.2)
    chunk = follow(rig.guidance, rig.joints(), report, 1)
    rig.streamer.on_chunk(replace(chunk, guidance_id="another"), rig.now)
    rig.run(0.5)
    np.testing.assert_array_equal(rig.commands[-1].position[0], ARM.home)


def test_a_lost_lease_brakes_within_its_time_and_returns(moving: Rig) -> None:
    moving.leasing = False
    report = moving.run(0.75)
    assert (report.state, report.code) == (S.HELD, ErrorCode.LEASE_EXPIRED)
    assert standing(moving)
    moving.leasing = True
    assert moving.run(20.0, until=S.FINISHED).state == S.FINISHED
    check_smooth(moving.commands)


def test_stop_brakes_and_waits_for_resume(moving: Rig) -> None:
    moving.streamer.stop("enough")
    report = moving.run(0.5)
    assert (report.state, report.code, report.message) == (S.STOPPED, ErrorCode.STOPPED, "enough")
    assert standing(moving)
    held = moving.q.copy()
    moving.run(2.0)
    np.testing.assert_allclose(moving.q, held, atol=1e-3)
    check_smooth(moving.commands)
    moving.streamer.resume(moving.now)
    moving.commands.clear()
    assert moving.run(20.0, until=S.FINISHED).state == S.FINISHED
    np.testing.assert_allclose(moving.commands[0].position[0], held, atol=2e-3)
    check_smooth(moving.commands)


def test_stop_is_not_lifted_while_the_arm_moves(moving: Rig) -> None:
    moving.streamer.stop()
    moving.run(0.02)
    with pytest.raises(BridgeError, match="still moves"):
        moving.streamer.resume(moving.now)


def test_hold_slows_down_along_the_path_and_resume_goes_on(moving: Rig) -> None:
    moving.streamer.hold("wait")
    report = moving.run(0.6)
    assert (report.state, report.code) == (S.HELD, ErrorCode.STOPPED)
    assert standing(moving)
    at = int(np.argmin(np.abs(moving.guidance.progress - report.progress)))
    assert np.linalg.norm(ARM.fk(moving.q).translation - moving.guidance.position[at]) < 0.01
    moving.run(1.0)
    moving.streamer.resume(moving.now)
    assert moving.run(20.0, until=S.FINISHED).state == S.FINISHED
    check_smooth(moving.commands)


def test_missing_joint_states_hold_the_arm(moving: Rig) -> None:
    moving.sensing = False
    report = moving.run(0.6)
    assert (report.state, report.code) == (S.HELD, ErrorCode.SENSOR_LOST)
    assert report.value > report.limit == pytest.approx(0.1)
    assert standing(moving)
    moving.sensing = True
    assert moving.run(20.0, until=S.FINISHED).state == S.FINISHED


def test_a_silent_expert_ends_in_a_named_hold(moving: Rig) -> None:
    moving.thinking = False
    report = moving.run(2.5)
    assert (report.state, report.code) == (S.HELD, ErrorCode.CONTROLLER_INACTIVE)
    assert standing(moving)
    check_smooth(moving.commands)
    moving.thinking = True
    assert moving.run(20.0, until=S.FINISHED).state == S.FINISHED


@pytest.mark.parametrize("fault", ["nan", "jump", "limits", "old", "shape", "away", "dt"])
def test_bad_chunks_are_dropped_and_end_in_a_named_hold(moving: Rig, fault: str) -> None:
    moving.thinking = False
    expected = {"old": ErrorCode.SENSOR_LOST, "shape": ErrorCode.BAD_INPUT, "dt": ErrorCode.BAD_INPUT}
    for k in range(200):
        if k % 5 == 0:
            chunk = follow(moving.guidance, moving.joints(), moving.reports[-1], k)
            joints = chunk.joints.copy()
            if fault == "nan":
                joints[7, 3] = np.nan
            elif fault == "jump":
                joints[8:] += 0.5
            elif fault == "limits":
                joints[:, 3] = np.linspace(joints[0, 3], 0.2, len(joints))
            elif fault == "away":
                joints += 0.5
            elif fault == "shape":
                joints = joints[:, :6]
            chunk = replace(
                chunk,
                joints=joints,
                stamp=chunk.stamp - (1.0 if fault == "old" else 0.0),
                dt=0.0 if fault == "dt" else chunk.dt,
            )
            moving.streamer.on_chunk(chunk, moving.now)
        report = moving.step()
    assert moving.streamer.rejected > 10 or fault == "old"
    assert report.state == S.HELD
    assert report.code == expected.get(fault, ErrorCode.EXPERT_DIVERGED) or fault == "old"
    assert standing(moving)
    check_smooth(moving.commands)


@pytest.mark.parametrize("code", [ErrorCode.EXPERT_DIVERGED, ErrorCode.SENSOR_LOST, ErrorCode.UNREACHABLE])
def test_a_refusing_expert_ends_in_a_hold_by_its_name(moving: Rig, code: ErrorCode) -> None:
    moving.thinking = False
    reports = []
    for k in range(200):
        if k % 5 == 0:
            refused = refuse(moving.guidance, moving.joints(), moving.reports[-1], code)
            moving.streamer.on_chunk(refused, moving.now)
        reports.append(moving.step())
    held = reports[-1]
    assert (held.state, held.code, held.message) == (S.HELD, code, "samples disagree")
    assert (held.value, held.limit, held.unit) == (0.05, 0.03, "m")
    assert {r.code for r in reports} == {ErrorCode.NONE, code}, "no other name in between"
    assert reports[20].state == S.MOVING, "what was proven is followed to its end"
    assert moving.streamer.rejected == 0
    assert standing(moving)
    moving.thinking = True
    assert moving.run(20.0, until=S.FINISHED).state == S.FINISHED
    check_smooth(moving.commands)


def test_a_single_refusal_stops_nothing(moving: Rig) -> None:
    refused = refuse(moving.guidance, moving.joints(), moving.reports[-1])
    moving.streamer.on_chunk(refused, moving.now)
    began = len(moving.reports)
    moving.run(20.0, until=S.FINISHED)
    assert {r.code for r in moving.reports[began:]} == {ErrorCode.NONE}
    assert moving.reports[-1].state == S.FINISHED


def test_a_refusal_takes_the_place_of_silence_and_is_forgotten_after_it() -> None:
    rig = Rig()
    rig.thinking = False
    assert rig.run(1.5).code == ErrorCode.CONTROLLER_INACTIVE
    rig.streamer.on_chunk(refuse(rig.guidance, rig.joints(), rig.reports[-1]), rig.now)
    assert rig.run(0.1).code == ErrorCode.EXPERT_DIVERGED
    rig.streamer.on_chunk(
        replace(refuse(rig.guidance, rig.joints(), rig.reports[-1]), guidance_id="another", message="other"),
        rig.now,
    )
    assert rig.run(0.1).message == "samples disagree"
    rig.leasing = False
    assert rig.run(0.5).code == ErrorCode.EXPERT_DIVERGED
    rig.leasing = rig.thinking = True
    assert rig.run(20.0, until=S.FINISHED).code == ErrorCode.NONE


def test_an_arm_that_does_not_follow_trips_the_stop(moving: Rig) -> None:
    moving.lag = 5.0
    report = moving.run(3.0, until=S.STOPPED)
    assert (report.state, report.code) == (S.STOPPED, ErrorCode.TRACKING_ERROR)
    assert report.value > report.limit


def test_closing_on_nothing_is_a_failed_grasp_after_a_retreat() -> None:
    rig = Rig(object_width=0.0)
    report = rig.run(10.0)
    assert (report.state, report.code, report.events_done) == (S.HELD, ErrorCode.GRASP_FAILED, 2)
    assert report.value <= report.limit == pytest.approx(rig.config.min_grasp_width)
    assert standing(rig)
    contact = rig.guidance.event_progress[1]
    end = retreat_end(rig.guidance, contact)
    assert contact < end < rig.guidance.event_progress[2]
    assert report.progress == pytest.approx(end, abs=0.01)
    assert rig.width > 0.02, "the gripper opens again before the retreat"


def test_an_object_lost_on_the_way_is_a_failed_grasp() -> None:
    rig = Rig()
    while rig.step().events_done < 2:
        pass
    rig.run(0.5)
    rig.object_width = 0.0
    report = rig.run(1.5)
    assert (report.state, report.code, report.events_done) == (S.HELD, ErrorCode.GRASP_FAILED, 2)


def test_the_gripper_works_only_while_the_arm_stands() -> None:
    rig = Rig()
    while rig.step().state != S.FINISHED:
        if np.isfinite(rig.commands[-1].gripper_width) if rig.commands else False:
            assert np.abs(rig.commands[-1].velocity[0]).max() < 0.1
            assert np.abs(rig.v).max() < 0.1


def test_a_new_guidance_starts_at_zero(moving: Rig) -> None:
    moving.guidance = replace(moving.guidance, guidance_id="g2")
    moving.streamer.on_guidance(moving.guidance)
    report = moving.run(0.11)
    assert report.guidance_id == "g2"
    assert report.progress < 0.02
    check_smooth(moving.commands)


def test_guidance_into_the_table_stops_above_it() -> None:
    rig = Rig()
    position = rig.guidance.position.copy()
    position[:, 2] -= 0.08
    rig.guidance = replace(rig.guidance, position=position)
    report = rig.run(6.0)
    assert (report.state, report.code) == (S.HELD, ErrorCode.COLLISION)
    lowest = min(ARM.finger_tips(c.T_base_tcp, 0.085)[:, 2].min() for c in rig.commands)
    assert lowest > rig.config.tip_clearance - 1e-3
    assert report.events_done == 1
    check_smooth(rig.commands)


def test_guidance_out_of_the_workspace_stops_at_its_edge() -> None:
    rig = Rig(config=replace(StreamerConfig(), workspace_upper=(0.85, 0.05, 0.7)))
    report = rig.run(6.0)
    assert (report.state, report.code) == (S.HELD, ErrorCode.OUT_OF_WORKSPACE)
    assert max(c.T_base_tcp.translation[1] for c in rig.commands) < 0.051
    assert (report.value, report.limit) == (pytest.approx(0.05, abs=0.01), 0.05)


def test_a_late_tick_continues_on_the_tail_that_was_sent(moving: Rig) -> None:
    sent = moving.commands[-1]
    late = moving.now + 0.06
    moving.now = round(late, 6)
    moving.streamer.on_joint_state(moving.joints())
    command, _ = moving.streamer.tick(moving.now)
    assert command is not None
    t = command.stamp - sent.stamp
    on_tail = np.array([np.interp(t, sent.time_from_start, c) for c in sent.position.T])
    np.testing.assert_allclose(command.position[0], on_tail, atol=0.01)


def test_an_early_tick_commands_nothing(moving: Rig) -> None:
    command, _ = moving.streamer.tick(moving.now - PERIOD + 0.001)
    assert command is None


def test_a_fresh_streamer_holds_whatever_it_hears() -> None:
    streamer = Streamer(StreamerConfig(), ArmModel.load())
    streamer.on_lease(Lease(0.0, 0.3, "t", "unknown"))
    command, report = streamer.tick(0.0)
    assert command is None
    assert (report.state, report.code, report.guidance_id) == (S.HELD, 0, "")
    assert math.isnan(report.gripper_width)
