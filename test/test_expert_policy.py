"""The policies: frames, blending, bounds, baselines, refusals."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel, IkResult
from bridgevla_ros.core.trajectory import TrajectoryConfig, TrajectoryGenerator
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import (
    CameraIntrinsics,
    Cloud,
    GripperEvent,
    Guidance,
    JointState,
    Progress,
    StreamerState,
    Waypoint,
    WaypointKind,
    WaypointPlan,
)
from bridgevla_ros.expert import features
from bridgevla_ros.expert.config import ExpertConfig, ModelConfig
from bridgevla_ros.expert.policy import (
    ExpertObservation,
    FollowPolicy,
    LearnedPolicy,
    SnapPolicy,
    disagreement,
    make_policy,
)

DOWN = np.diag([1.0, -1.0, -1.0])
SOURCE, TARGET = np.array([0.50, 0.10, 0.02]), np.array([0.55, -0.15, 0.08])


@pytest.fixture(scope="module")
def arm() -> ArmModel:
    return ArmModel.load()


@pytest.fixture(scope="module")
def learned(arm: ArmModel) -> LearnedPolicy:
    return LearnedPolicy(ExpertConfig(), arm)


def make_guidance(arm: ArmModel, yaw: float = 0.4, T_base_camera: Transform | None = None) -> Guidance:
    """A pick and a place, starting at home; the plan is told in the frame of a camera."""
    T_camera_base = (T_base_camera or Transform.identity()).inverse()

    def at(
        position: Array, kind: WaypointKind, event: GripperEvent = GripperEvent.NONE, width: float = 0.08
    ) -> Waypoint:
        pose = T_camera_base @ Transform(position, Rotation.from_euler("z", yaw).as_matrix() @ DOWN)
        return Waypoint(pose, kind, event, width, np.zeros(2), 1.0, 1.0)

    lift = np.array([0.0, 0.0, 0.13])
    waypoints = (
        at(SOURCE + lift, WaypointKind.APPROACH, GripperEvent.OPEN),
        at(SOURCE, WaypointKind.CONTACT, GripperEvent.CLOSE, 0.0),
        at(SOURCE + lift, WaypointKind.RETREAT),
        at(TARGET + lift, WaypointKind.APPROACH),
        at(TARGET, WaypointKind.CONTACT, GripperEvent.OPEN),
        at(TARGET + lift, WaypointKind.RETREAT),
    )
    plan = WaypointPlan(
        0.0, "camera", "base_link", "p", "t", "r", "", "", 0, 1, (), waypoints, T_camera_base.inverse(),
        CameraIntrinsics(1, 1, 1.0, 1.0, 0.0, 0.0), "", "", 0, "",
    )  # fmt: skip
    guidance = TrajectoryGenerator(TrajectoryConfig()).generate(
        plan, T_camera_base.inverse(), arm.fk(arm.home), 0.08
    )
    assert guidance.code == ErrorCode.NONE, guidance.message
    return guidance


def box_cloud(center: Array, stamp: float, side: float = 0.04) -> Cloud:
    """The top and the camera's side of a cube whose middle is at ``center``."""
    u, v = np.meshgrid(np.linspace(-0.5, 0.5, 11) * side, np.linspace(-0.5, 0.5, 11) * side)
    flat = np.full(u.size, side / 2)
    top, front = np.stack([u.ravel(), v.ravel(), flat], 1), np.stack([flat, u.ravel(), v.ravel()], 1)
    points = (center + np.concatenate([top, front])).astype(np.float32)
    return Cloud(stamp, points, np.zeros(len(points), np.float32), center, "")


def observe(
    arm: ArmModel,
    guidance: Guidance,
    progress: float,
    done: int,
    *,
    cloud: Cloud | None = None,
    offset: Array | None = None,
    now: float = 10.0,
    state: StreamerState = StreamerState.MOVING,
) -> ExpertObservation:
    """An arm that stands ``offset`` beside the guidance."""
    index = int(np.abs(guidance.progress - progress).argmin())
    at = guidance.position[index] + (np.zeros(3) if offset is None else offset)
    solved = arm.ik(Transform.from_quat(at, guidance.quat[index]), arm.home, restarts=3)
    assert solved.ok
    joints = JointState(now, solved.q, np.zeros(7), 0.08)
    executed = Progress(now, guidance.guidance_id, progress, done, state, 1.0, 0.08)
    return ExpertObservation(now, (joints,), cloud, guidance, executed)


def at_contact(guidance: Guidance) -> float:
    """Progress a little before the first contact."""
    return float(guidance.contact_progress[0]) - 0.3 / guidance.duration


def test_ik_follows_the_guidance_window(arm: ArmModel) -> None:
    guidance = make_guidance(arm)
    chunk = FollowPolicy(ExpertConfig(policy="ik"), arm).chunk(
        observe(arm, guidance, at_contact(guidance), 1), 0
    )
    assert np.linalg.norm(chunk.position[-1] - SOURCE) < 1e-3  # the window waits at the CLOSE event
    assert chunk.progress[-1] == pytest.approx(guidance.event_progress[1])
    reached = np.array([arm.fk(q).translation for q in chunk.joints])
    assert np.abs(reached - chunk.position).max() < 3e-4
    assert chunk.source == "ik"
    assert np.isnan(chunk.correction_sigma)


def test_an_offset_returns_smoothly_and_replanning_agrees(arm: ArmModel) -> None:
    guidance = make_guidance(arm)
    policy = FollowPolicy(ExpertConfig(policy="ik"), arm)
    progress = 0.05
    first = policy.chunk(observe(arm, guidance, progress, 0, offset=np.array([0.0, 0.03, 0.0])), 0)
    window = (
        FollowPolicy(ExpertConfig(policy="ik"), arm).chunk(observe(arm, guidance, progress, 0), 0).position
    )
    away = np.linalg.norm(first.position - window, axis=1)
    assert away[0] > 0.024
    assert away[-1] < 0.002
    assert np.all(np.diff(away) < 0)
    again = policy.chunk(observe(arm, guidance, float(first.progress[0]), 0, now=10.05), 0)
    assert np.abs(again.position[:8] - first.position[1:9]).max() < 2e-3


def test_the_correction_stays_at_the_grasp_and_fades_in_the_retreat(arm: ArmModel) -> None:
    guidance = make_guidance(arm)
    policy = SnapPolicy(ExpertConfig(policy="snap"), arm)
    center = SOURCE + np.array([0.0, 0.02, 0.0])
    now, progress, done = 10.0, float(guidance.event_progress[0]), 1
    offsets, last = [], None
    while done < 3 and progress < 0.9:
        cloud = box_cloud(center, now)
        obs = observe(arm, guidance, progress, done, cloud=cloud, now=now)
        chunk = policy.chunk(obs, 0)
        if last is not None:
            assert np.linalg.norm(chunk.position[0] - last) < 0.02  # no jump from chunk to chunk, 50 ms apart
        last = chunk.position[0]
        at_end = chunk.progress[0] >= guidance.event_progress[done] - 1e-9
        if at_end and progress >= guidance.event_progress[done] - 1e-9:
            offsets.append(
                chunk.position[0] - guidance.position[np.abs(guidance.progress - progress).argmin()]
            )
            done += 1
        progress, now = float(chunk.progress[0]), now + 0.05
    assert np.linalg.norm(offsets[0][:2] - [0.0, 0.02]) < 0.006  # at the grasp: on the cube
    assert np.linalg.norm(offsets[1]) < 0.004  # at the place, where no cloud is: on guidance


@pytest.mark.parametrize("turns", [False, True])
def test_what_is_held_beside_the_fingers_is_corrected_as_if_the_fingers_were_there(
    arm: ArmModel, learned: LearnedPolicy, monkeypatch: pytest.MonkeyPatch, turns: bool
) -> None:
    if turns:  # whatever the network sees, it turns what is held by 0.3 rad
        model = learned.model
        shift, turn = (
            np.tile([0.01, 0.0, 0.0], (model.horizon, 1)),
            np.tile([0.0, 0.0, 0.3], (model.horizon, 1)),
        )
        action = features.encode_action(shift, turn, np.zeros(model.horizon), model)
        monkeypatch.setattr(learned, "runtime", lambda *_: (action[None], action[None], np.zeros(1)))
    offset = np.array([0.05, -0.02, 0.0])
    between = make_guidance(arm)
    last = Rotation.from_quat(between.quat[-1]).apply(offset)
    beside = dataclasses.replace(
        between,
        guidance_id="beside",
        position=between.position - Rotation.from_quat(between.quat).apply(offset),
        contact_position=between.contact_position - last,
        contact_offset=np.tile(offset, (2, 1)),
    )
    progress = float(between.contact_progress[1]) - 0.6 / between.duration
    cloud = box_cloud(TARGET + np.array([0.010, 0.014, -0.045]), 9.95, side=0.05)
    made, hands = [], []
    for guidance in (between, beside):
        learned.reset()
        chunk = learned.chunk(observe(arm, guidance, progress, 2, cloud=cloud), 3)
        turned = Rotation.from_quat(chunk.quat)
        made.append(chunk.position + turned.apply(guidance.contact_offset[1]))
        hands.append(turned)
    assert np.linalg.norm(made[0][-1] - TARGET) > 0.005
    assert not turns or (hands[0] * Rotation.from_quat(between.quat[-1]).inv()).magnitude()[-1] > 0.2
    np.testing.assert_allclose(made[1], made[0], atol=5e-4)
    assert (hands[0] * hands[1].inv()).magnitude().max() < 2e-3


@pytest.mark.parametrize("name", ["cloud", "joints", "progress", "guidance"])
def test_stale_inputs_are_named(arm: ArmModel, name: str) -> None:
    guidance = make_guidance(arm)
    policy = SnapPolicy(ExpertConfig(policy="snap", guidance_max_age=20.0), arm)
    obs = observe(arm, guidance, 0.1, 0, cloud=box_cloud(SOURCE, 10.0))
    policy.chunk(obs, 0)
    assert obs.cloud is not None
    changed: dict[str, ExpertObservation] = {
        "cloud": dataclasses.replace(obs, cloud=dataclasses.replace(obs.cloud, stamp=9.0)),
        "joints": dataclasses.replace(obs, joints=(dataclasses.replace(obs.joints[0], stamp=9.0),)),
        "progress": dataclasses.replace(obs, progress=dataclasses.replace(obs.progress, stamp=9.0)),
        "guidance": dataclasses.replace(obs, guidance=dataclasses.replace(guidance, stamp=-20.0)),
    }
    with pytest.raises(BridgeError) as caught:
        policy.chunk(changed[name], 0)
    assert caught.value.code == (ErrorCode.STALE_IMAGE if name == "guidance" else ErrorCode.SENSOR_LOST)
    assert caught.value.value > caught.value.limit > 0
    if name == "cloud":
        follow = SnapPolicy(ExpertConfig(policy="snap", policy_without_cloud="follow"), arm)
        assert follow.chunk(changed[name], 0).cloud_stamps == ()


def test_a_correction_over_the_bound_is_refused_not_clipped(arm: ArmModel) -> None:
    guidance = make_guidance(arm)
    cloud = box_cloud(SOURCE + np.array([0.0, 0.03, 0.0]), 10.0)
    policy = SnapPolicy(ExpertConfig(policy="snap", max_correction=0.02), arm)
    with pytest.raises(BridgeError) as caught:
        policy.chunk(observe(arm, guidance, at_contact(guidance), 1, cloud=cloud), 0)
    assert caught.value.code == ErrorCode.EXPERT_DIVERGED
    assert 0.02 < caught.value.value < 0.04
    assert caught.value.limit == 0.02


def test_the_same_inputs_give_the_same_chunk(arm: ArmModel, learned: LearnedPolicy) -> None:
    guidance = make_guidance(arm)
    obs = observe(
        arm, guidance, at_contact(guidance), 1, cloud=box_cloud(SOURCE + np.array([0.0, 0.012, 0.0]), 10.0)
    )
    chunks = []
    for _ in range(2):
        learned.reset()
        chunks.append(learned.chunk(obs, 7))
    assert np.array_equal(chunks[0].joints, chunks[1].joints)
    assert chunks[0].model_sha256 == learned.model_sha256
    assert len(learned.model_sha256) == 64


def test_the_expert_goes_to_the_object_beside_the_guidance(arm: ArmModel, learned: LearnedPolicy) -> None:
    """Guidance is 15 mm off: the chunk ends nearer to the true middle; without a cloud it follows."""
    guidance = make_guidance(arm)
    center = SOURCE + Rotation.from_euler("z", 0.4).apply([0.0, 0.015, 0.0])
    box = box_cloud(np.zeros(3), 10.0)
    turned = Rotation.from_euler("z", 0.4).apply(box.points_base).astype(np.float32) + center.astype(
        np.float32
    )
    obs = observe(arm, guidance, at_contact(guidance), 1, cloud=dataclasses.replace(box, points_base=turned))
    learned.reset()
    seen = learned.chunk(obs, 0)
    assert np.linalg.norm((seen.position[-1] - center)[:2]) < 0.007
    learned.reset()
    empty = dataclasses.replace(box, points_base=np.zeros((0, 3), np.float32), age=np.zeros(0, np.float32))
    blind = learned.chunk(dataclasses.replace(obs, cloud=empty), 0)
    assert np.linalg.norm((blind.position[-1] - SOURCE)[:2]) < 0.003


def test_what_is_reached_from_the_side_is_followed(arm: ArmModel, learned: LearnedPolicy) -> None:
    """No data were made of such contacts: the network is not asked."""
    guidance, aside = make_guidance(arm), SOURCE + np.array([0.02, 0.0, 0.0])
    obs = observe(arm, guidance, at_contact(guidance), 1, cloud=box_cloud(aside, 10.0))
    scene = learned._scene(obs)
    assert np.linalg.norm(learned.residual(scene, 0).position[-1, :2]) > 0.01
    limit = learned.model.max_tilt
    for tilt, followed in ((limit - 0.01, False), (limit + 0.01, True)):
        aslant = dataclasses.replace(scene, contact=dataclasses.replace(scene.contact, tilt=tilt))
        assert np.any(learned.residual(aslant, 0).position) != followed


def test_runtimes_agree(arm: ArmModel, learned: LearnedPolicy) -> None:
    guidance = make_guidance(arm)
    obs = observe(
        arm, guidance, at_contact(guidance), 1, cloud=box_cloud(SOURCE + np.array([0.01, 0.0, 0.0]), 10.0)
    )
    learned.reset()
    torch_policy = LearnedPolicy(ExpertConfig(runtime="torch"), arm)
    a, b = learned.chunk(obs, 3), torch_policy.chunk(obs, 3)
    assert np.abs(a.position - b.position).max() < 1e-4
    assert np.abs(a.joints - b.joints).max() < 1e-3


class _AnyArm:
    """Kinematics of an arm that can be anywhere: joints 0..5 are the TCP's position and rotation vector."""

    def fk(self, q: Array) -> Transform:
        return Transform(q[:3], Rotation.from_rotvec(q[3:6]).as_matrix())

    def jacobian(self, q: Array) -> Array:
        return np.eye(6, 7)

    def ik(self, T_base_tcp: Transform, seed: Array, *, iterations: int = 1) -> IkResult:
        rotvec = Rotation.from_matrix(T_base_tcp.rotation).as_rotvec()
        return IkResult(np.concatenate([T_base_tcp.translation, rotvec, [0.0]]), True, 0.0, 0.0, 1.0, 1)


def turn_observation(obs: ExpertObservation, T: Transform) -> ExpertObservation:
    """The same cell with its base frame turned and moved; joints are those of ``_AnyArm``."""
    g = obs.guidance
    turned = Rotation.from_matrix(T.rotation)
    guidance = dataclasses.replace(
        g,
        position=T.apply(g.position),
        quat=(turned * Rotation.from_quat(g.quat)).as_quat(),
        linear_velocity=T.rotate(g.linear_velocity),
        angular_velocity=T.rotate(g.angular_velocity),
        contact_position=T.apply(g.contact_position),
    )
    q = obs.joints[-1].position
    rotvec = (turned * Rotation.from_rotvec(q[3:6])).as_rotvec()
    joints = dataclasses.replace(obs.joints[-1], position=np.concatenate([T.apply(q[:3]), rotvec, [0.0]]))
    cloud = obs.cloud
    if cloud is not None:
        cloud = dataclasses.replace(cloud, points_base=T.apply(cloud.points_base).astype(np.float32))
    return dataclasses.replace(obs, guidance=guidance, joints=(joints,), cloud=cloud)


@settings(max_examples=15)
@given(
    yaw=st.floats(-3.1, 3.1), shift=st.tuples(*[st.floats(-0.5, 0.5)] * 3), seed=st.integers(0, 2**31),
    before=st.floats(0.0, 1.5),
)  # fmt: skip
def test_a_turned_base_changes_nothing_but_rounding(
    arm: ArmModel,
    learned: LearnedPolicy,
    yaw: float,
    shift: tuple[float, float, float],
    seed: int,
    before: float,
) -> None:
    guidance = make_guidance(arm)
    rng = np.random.default_rng(seed)
    progress = float(guidance.contact_progress[0]) - before / guidance.duration
    center = SOURCE + rng.normal(0.0, 0.01, 3)
    obs = observe(
        arm,
        guidance,
        progress,
        int(np.sum(guidance.event_progress < progress)),
        cloud=box_cloud(center, 10.0),
    )
    pose = arm.fk(obs.joints[0].position)
    q = np.concatenate([pose.translation, Rotation.from_matrix(pose.rotation).as_rotvec(), [0.0]])
    obs = dataclasses.replace(obs, joints=(dataclasses.replace(obs.joints[0], position=q),))
    T = Transform(np.array(shift), Rotation.from_euler("z", yaw).as_matrix())
    policies: list[Callable[[], FollowPolicy]] = [
        lambda: FollowPolicy(ExpertConfig(policy="ik"), _AnyArm()),  # type: ignore[arg-type]
        lambda: SnapPolicy(ExpertConfig(policy="snap"), _AnyArm()),  # type: ignore[arg-type]
    ]
    for make in policies:
        plain, moved = make().chunk(obs, seed), make().chunk(turn_observation(obs, T), seed)
        assert np.abs(T.apply(plain.position) - moved.position).max() < 1e-6
    network = LearnedPolicy.__new__(LearnedPolicy)
    network.__dict__.update(learned.__dict__, arm=_AnyArm())
    network.reset()
    plain = network.chunk(obs, seed)
    network.reset()
    moved = network.chunk(turn_observation(obs, T), seed)
    assert np.abs(T.apply(plain.position) - moved.position).max() < 1e-4
    assert moved.correction == pytest.approx(plain.correction, abs=1e-4)


@settings(max_examples=8)
@given(
    turn=st.tuples(*[st.floats(-1.0, 1.0)] * 3), shift=st.tuples(*[st.floats(-0.8, 0.8)] * 3),
    before=st.floats(0.0, 1.0),
)  # fmt: skip
def test_a_moved_camera_changes_nothing_but_rounding(
    arm: ArmModel,
    learned: LearnedPolicy,
    turn: tuple[float, float, float],
    shift: tuple[float, float, float],
    before: float,
) -> None:
    """Plan and points in the frame of one camera or of another: the same cell, the same chunk."""
    center = SOURCE + np.array([0.012, -0.007, 0.004])
    seen = box_cloud(center, 10.0)
    chunks = []
    for T_base_camera in (
        Transform(np.array([1.1, 0.0, 0.7]), DOWN),
        Transform(np.add(shift, (0.4, 0.0, 0.9)), Rotation.from_rotvec(turn).as_matrix() @ DOWN),
    ):
        guidance = make_guidance(arm, T_base_camera=T_base_camera)
        points_camera = T_base_camera.inverse().apply(seen.points_base)
        cloud = dataclasses.replace(seen, points_base=T_base_camera.apply(points_camera).astype(np.float32))
        progress = float(guidance.contact_progress[0]) - before / guidance.duration
        done = int(np.sum(guidance.event_progress < progress))
        learned.reset()
        chunks.append(learned.chunk(observe(arm, guidance, progress, done, cloud=cloud), 3))
    assert np.abs(chunks[0].position - chunks[1].position).max() < 1e-4
    assert np.abs(chunks[0].joints - chunks[1].joints).max() < 1e-3


def test_the_expert_sees_nothing_but_the_local_frame(arm: ArmModel, learned: LearnedPolicy) -> None:
    """What enters the network is the same wherever the cell stands: no absolute coordinate leaks in."""
    guidance = make_guidance(arm)
    obs = observe(arm, guidance, at_contact(guidance), 1, cloud=box_cloud(SOURCE + 0.01, 10.0))
    pose = arm.fk(obs.joints[0].position)
    q = np.concatenate([pose.translation, Rotation.from_matrix(pose.rotation).as_rotvec(), [0.0]])
    obs = dataclasses.replace(obs, joints=(dataclasses.replace(obs.joints[0], position=q),))
    network = LearnedPolicy.__new__(LearnedPolicy)
    network.__dict__.update(learned.__dict__, arm=_AnyArm())
    T = Transform(np.array([0.7, -1.3, 0.4]), Rotation.from_euler("z", 2.1).as_matrix())
    plain, moved = (network.inputs(network._scene(o)) for o in (obs, turn_observation(obs, T)))
    for a, b in zip(plain, moved, strict=True):
        order = [np.lexsort(x[0].T) if x.ndim == 3 else slice(None) for x in (a, b)]
        assert np.allclose(
            a[0][order[0]] if a.ndim == 3 else a, b[0][order[1]] if b.ndim == 3 else b, atol=2e-5
        )


@pytest.mark.parametrize("points", [0, 1, 7])
def test_a_cloud_with_few_points_is_no_reason_to_fail(
    arm: ArmModel, learned: LearnedPolicy, points: int
) -> None:
    """Fewer points than the network takes are masked, not invented."""
    guidance = make_guidance(arm)
    whole = box_cloud(SOURCE, 10.0)
    cloud = dataclasses.replace(whole, points_base=whole.points_base[:points], age=whole.age[:points])
    obs = observe(arm, guidance, at_contact(guidance), 1, cloud=cloud)
    _, _, mask = learned.inputs(learned._scene(obs))
    assert mask.sum() == points
    learned.reset()
    assert np.isfinite(learned.chunk(obs, 0).joints).all()


@pytest.mark.parametrize("what", ["points", "ages"])
def test_a_cloud_that_is_not_finite_is_named(arm: ArmModel, learned: LearnedPolicy, what: str) -> None:
    guidance = make_guidance(arm)
    cloud = box_cloud(SOURCE, 10.0)
    if what == "points":
        cloud.points_base[3, 1] = np.nan
    else:
        cloud.age[3] = np.inf
    learned.reset()
    with pytest.raises(BridgeError, match="not finite") as caught:
        learned.chunk(observe(arm, guidance, at_contact(guidance), 1, cloud=cloud), 0)
    assert caught.value.code == ErrorCode.BAD_INPUT
    assert caught.value.remedy


def test_the_spread_is_of_the_samples_and_of_the_votes() -> None:
    steps = np.zeros((2, 3, 3))
    steps[1, :, 0] = 0.002
    assert disagreement(steps, 0.0, np.ones(3)) == pytest.approx(0.001)
    assert disagreement(0.0 * steps, 0.004, np.array([0.0, 0.0, 1.0])) == pytest.approx(0.004 / np.sqrt(3.0))
    assert disagreement(steps, 0.004, np.ones(3)) == pytest.approx(np.hypot(0.001, 0.004))


def test_gripping_freezes_the_pose(arm: ArmModel) -> None:
    guidance = make_guidance(arm)
    policy = SnapPolicy(ExpertConfig(policy="snap"), arm)
    at = float(guidance.event_progress[1])
    now = 10.0
    for _ in range(20):
        obs = observe(
            arm, guidance, at, 1, cloud=box_cloud(SOURCE + np.array([0.0, 0.02, 0.0]), now), now=now
        )
        moving, now = policy.chunk(obs, 0), now + 0.05
    gone = box_cloud(SOURCE + np.array([0.0, -0.02, 0.0]), now)
    gripping = policy.chunk(
        observe(
            arm,
            guidance,
            at,
            1,
            cloud=gone,
            now=now,
            offset=moving.position[0] - SOURCE,
            state=StreamerState.GRIPPING,
        ),
        0,
    )
    assert np.abs(gripping.position - moving.position[0]).max() < 1e-3


def test_a_missing_checkpoint_is_named(arm: ArmModel, tmp_path: Path) -> None:
    with pytest.raises(BridgeError) as caught:
        make_policy(ExpertConfig(weights=str(tmp_path)), arm)
    assert caught.value.code == ErrorCode.MODEL_ERROR
    assert "bridgevla train expert" in caught.value.remedy


@pytest.mark.parametrize(("name", "value"), [("horizon", 12), ("dt", 0.1)])
def test_steps_that_the_checkpoint_does_not_have_are_named(arm: ArmModel, name: str, value: float) -> None:
    with pytest.raises(BridgeError, match=f"{name} {value:g}") as caught:
        make_policy(dataclasses.replace(ExpertConfig(), **{name: value}), arm)
    trained = getattr(ModelConfig(), name)
    assert (caught.value.code, caught.value.value) == (ErrorCode.MODEL_ERROR, value)
    assert caught.value.limit == trained
    assert f"{name} to {trained:g}" in caught.value.remedy


def test_what_is_not_finite_is_refused(
    arm: ArmModel, learned: LearnedPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the network, and of the joints."""
    guidance = make_guidance(arm)
    obs = observe(arm, guidance, at_contact(guidance), 1, cloud=box_cloud(SOURCE, 10.0))
    bad = np.full((4, 160), 0.1, np.float32)
    bad[1, 3:5] = np.nan
    monkeypatch.setattr(learned, "runtime", lambda *_: (bad, np.zeros((1, 5)), np.zeros(1)))
    learned.reset()
    with pytest.raises(BridgeError, match="2 values that are not finite, of 640") as caught:
        learned.chunk(obs, 0)
    assert (caught.value.code, caught.value.value) == (ErrorCode.MODEL_ERROR, 2.0)
    assert "policy ik" in caught.value.remedy
    lost = dataclasses.replace(obs.joints[-1], velocity=np.full(7, np.inf))
    with pytest.raises(BridgeError, match="not finite") as caught:
        learned.chunk(dataclasses.replace(obs, joints=(lost,)), 0)
    assert (caught.value.value, caught.value.limit) == (7.0, 0.0)
    assert "driver" in caught.value.remedy


def test_every_lost_input_is_refused_with_a_remedy(arm: ArmModel) -> None:
    guidance = make_guidance(arm)
    policy = make_policy(ExpertConfig(policy="ik"), arm)
    obs = observe(arm, guidance, 0.1, 0)
    old = dataclasses.replace(obs.joints[-1], stamp=obs.now - 1.0)
    refused = dataclasses.replace(guidance, code=ErrorCode.UNREACHABLE)
    for broken in (
        dataclasses.replace(obs, joints=()),
        dataclasses.replace(obs, joints=(old,)),
        dataclasses.replace(obs, progress=dataclasses.replace(obs.progress, stamp=obs.now - 2.0)),
        dataclasses.replace(obs, guidance=dataclasses.replace(guidance, stamp=obs.now - 500.0)),
        dataclasses.replace(obs, guidance=refused),
    ):
        with pytest.raises(BridgeError) as caught:
            policy.chunk(broken, 0)
        assert caught.value.remedy
        assert caught.value.value > caught.value.limit


@given(st.lists(st.floats(-0.4, 0.4), min_size=3, max_size=3), st.floats(0.0, 0.085))
def test_actions_round_trip(rotvec: list[float], width: float) -> None:
    config = ModelConfig()
    position = np.array([[0.01, -0.05, 0.07]])
    action = features.encode_action(position, np.array([rotvec]), np.array([width]), config)
    back = features.decode_action(action, config)
    assert np.allclose(back[0], position, atol=1e-6)
    assert np.allclose(back[1], [rotvec], atol=1e-5)
    assert back[2][0] == pytest.approx(width, abs=1e-6)
