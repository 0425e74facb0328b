"""robosuite's adapter: protocol, arm, frames and demonstrator here; the rest where its environment exists."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bridgevla_ros.cli import main
from bridgevla_ros.core import resources
from bridgevla_ros.core.camera import deproject
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import GripperEvent, PlanRequest, RgbdFrame, WaypointKind
from bridgevla_ros.evaluation import pictures
from bridgevla_ros.evaluation.episode import PlanNoise
from bridgevla_ros.evaluation.robosuite import client, episode, oracle
from bridgevla_ros.evaluation.robosuite.tasks import TASKS, setup_of
from bridgevla_ros.evaluation.spec import EpisodeSpec
from bridgevla_ros.expert import checkpoint
from bridgevla_ros.expert.model import ExpertModel
from bridgevla_ros.robosuite_server import protocol, server
from bridgevla_ros.robosuite_server.arm import TorqueArm
from bridgevla_ros.robosuite_server.protocol import Message, ProtocolError
from bridgevla_ros.simulation.camera import OffscreenCamera
from bridgevla_ros.training.appf import load_weights
from bridgevla_ros.training.appf_config import TrainConfig
from bridgevla_ros.training.data_episodes import bank_of
from bridgevla_ros.training.data_generate import shards
from bridgevla_ros.training.data_robosuite import RobosuiteStage, task_of

JOINTS = tuple(f"j{i}" for i in range(7))
FINGERS = ("left", "right")


# -- protocol --------------------------------------------------------------------------------------------


def test_a_message_comes_back_as_it_went() -> None:
    sent = Message(
        "step",
        {"seed": 3, "words": "grüß"},
        {
            "positions": np.arange(14.0).reshape(2, 7),
            "rgb": np.zeros((2, 3, 3), np.uint8),
            "depth": np.array([[np.inf, 0.5]], np.float32),
            "none": np.zeros((0, 3)),
        },
    )
    stream = io.BytesIO()
    protocol.write(stream, sent)
    protocol.write(stream, Message("judge"))
    stream.seek(0)
    got = protocol.read(stream)
    assert got is not None
    assert (got.op, got.fields) == (sent.op, sent.fields)
    for name, array in sent.arrays.items():
        assert got.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(got.arrays[name], array)
    second = protocol.read(stream)
    assert second is not None
    assert (second.op, second.fields, second.arrays) == ("judge", {}, {})
    assert protocol.read(stream) is None


def test_a_message_that_breaks_off_is_named() -> None:
    stream = io.BytesIO()
    protocol.write(stream, Message("step", {}, {"positions": np.zeros((5, 7))}))
    whole = stream.getvalue()
    for length in (1, 7, 9, len(whole) // 2, len(whole) - 1):
        with pytest.raises(ProtocolError, match="broke off"):
            protocol.read(io.BytesIO(whole[:length]))


@given(st.binary(min_size=8, max_size=60))
@settings(max_examples=50)
def test_what_is_no_message_is_refused(noise: bytes) -> None:
    with pytest.raises(ProtocolError):
        protocol.read(io.BytesIO(b"\xff" + noise))


def test_an_array_that_is_not_sent_whole_is_refused() -> None:
    stream = io.BytesIO()
    protocol.write(stream, Message("x", {}, {"a": np.zeros(4)}))
    lied = stream.getvalue().replace(b"[4]", b"[3]")
    with pytest.raises(ProtocolError, match="8 bytes more"):
        protocol.read(io.BytesIO(lied))
    with pytest.raises(ValueError, match="complex128"):
        protocol.write(io.BytesIO(), Message("x", {}, {"a": np.zeros(2, complex)}))


# -- the arm's torques -----------------------------------------------------------------------------------


def small_arm(torque: float = 200.0) -> TorqueArm:
    """Seven joints in a row, a motor each, two fingers with position servos; gravity pulls."""
    inner = '<body name="hand" pos="0 0 0.1"><geom size="0.02" mass="0.3"/>'
    for side, low, high in (("left", 0.0, 0.04), ("right", -0.04, 0.0)):
        inner += (
            f'<body name="{side}"><joint name="{side}" type="slide" axis="0 1 0" range="{low} {high}" '
            f'damping="100" armature="1"/><geom size="0.005" mass="0.05" contype="0" conaffinity="0"/></body>'
        )
    inner += "</body>"
    for i in reversed(range(7)):
        axis = "0 0 1" if i % 2 == 0 else "0 1 0"
        inner = (
            f'<body name="b{i}" pos="0 0 0.15"><joint name="j{i}" axis="{axis}" range="-2.5 2.5" '
            f'armature="0.5" damping="0.1"/><geom type="capsule" size="0.03 0.05" mass="2" contype="0" '
            f'conaffinity="0"/>{inner}</body>'
        )
    motors = "".join(
        f'<motor name="m{i}" joint="j{i}" ctrlrange="-{torque} {torque}" ctrllimited="true"/>'
        for i in range(7)
    )
    servos = "".join(f'<position name="s_{s}" joint="{s}" kp="1000" ctrlrange="{r}"/>'
                     for s, r in (("left", "0 0.04"), ("right", "-0.04 0")))  # fmt: skip
    model = mujoco.MjModel.from_xml_string(
        f'<mujoco><compiler angle="radian" autolimits="true"/><option timestep="0.002"/>'
        f"<worldbody>{inner}</worldbody><actuator>{motors}{servos}</actuator></mujoco>"
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return TorqueArm(
        model, data, JOINTS, tuple(f"m{i}" for i in range(7)), FINGERS, ("s_left", "s_right"), 0.001
    )


def test_computed_torque_follows_within_milliradians() -> None:
    arm = small_arm()
    t = 0.002 * np.arange(1, 1001)[:, None]
    phase = np.arange(7)[None] * 0.4
    q = 0.4 * (np.sin(2.0 * t + phase) - np.sin(phase)) * np.minimum(t / 0.5, 1.0)
    v = np.gradient(q, 0.002, axis=0)
    assert np.abs(v).max() > 0.7
    error = arm.follow(q, v, np.full(1000, 0.03))
    assert error < 0.005  # rad
    np.testing.assert_allclose(arm.position, q[-1], atol=0.001)
    assert arm.width == pytest.approx(0.03, abs=1e-3)


def test_motors_give_no_more_than_they_have() -> None:
    arm = small_arm(torque=1.0)
    far = np.tile(np.full(7, 1.0), (50, 1))
    assert arm.follow(far, np.zeros_like(far), np.zeros(50)) > 0.5
    assert np.abs(arm.data.ctrl[:7]).max() <= 1.0


# -- frames ----------------------------------------------------------------------------------------------


def test_the_named_camera_sees_along_its_optical_axis() -> None:
    """A box 1 m in front of the camera, left of its middle and above it; what is hidden is not seen."""
    pose = TASKS["Stack"].camera.pose
    quat = server._quat_of_optical(pose.rotation)
    there = pose.apply([-0.10, -0.05, 1.0])
    place, turn = " ".join(map(str, pose.translation)), " ".join(map(str, quat))
    box = " ".join(map(str, there))
    model = mujoco.MjModel.from_xml_string(
        f'<mujoco><worldbody><light pos="0 0 3"/><camera name="eye" fovy="42" pos="{place}" quat="{turn}"/>'
        f'<geom type="sphere" size="0.02" pos="{box}" group="1"/>'
        f'<geom type="sphere" size="0.5" pos="{box}" group="5"/></worldbody></mujoco>'
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = OffscreenCamera(model, 320, 240, camera="eye", groups=(1,))
    try:
        _, depth = camera.rgbd(data)
    finally:
        camera.close()
    rows, columns = np.nonzero(np.isfinite(depth) & (depth < 2.0))
    intrinsics = TASKS["Stack"].intrinsics
    middle = np.array([columns.mean(), rows.mean()])
    point = deproject(middle[None], np.array([depth[rows, columns].min()]), intrinsics)[0]
    np.testing.assert_allclose(pose.apply(point), there, atol=0.022)
    assert depth[rows, columns].min() == pytest.approx(0.98, abs=0.003)


@pytest.fixture(scope="module")
def arm() -> ArmModel:
    return ArmModel.load(client.ROBOT)


def test_an_arm_that_is_another_is_refused(arm: ArmModel) -> None:
    q = arm.home + 0.1
    limits = np.column_stack([arm.lower, arm.upper])
    site = (arm.fk(q) @ client.T_SITE_TCP.inverse()).matrix()
    client.check_kinematics(arm, q, site, limits)
    moved = site.copy()
    moved[2, 3] += 0.003
    with pytest.raises(BridgeError, match=r"3\.0 mm"):
        client.check_kinematics(arm, q, moved, limits)
    narrow = limits * 0.9
    with pytest.raises(BridgeError, match="joint limit"):
        client.check_kinematics(arm, q, site, narrow)


# -- the demonstrator ------------------------------------------------------------------------------------

UPRIGHT = np.eye(3)


def yawed(angle: float) -> Any:
    return Rotation.from_euler("z", angle).as_matrix()


def reached(arm: ArmModel, stops: list[oracle.Stop]) -> None:
    """The arm follows straight lines through all waypoints from home, away from singularities."""
    q, before = arm.home, arm.fk(arm.home)
    for i, stop in enumerate(stops):
        for share in np.linspace(0.1, 1.0, 10):
            result = arm.ik(before.interpolate(stop.T_base_tcp, float(share)), q)
            assert result.ok, f"{share:.1f} of the way to waypoint {i} at {stop.T_base_tcp.translation}"
            assert result.condition < 60.0, f"waypoint {i}: condition {result.condition}"
            q = result.q
        before = stop.T_base_tcp


@given(st.floats(-3.1, 3.1), st.floats(-3.1, 3.1))
@settings(max_examples=25)
def test_the_stack_ends_sides_along_sides(first: float, second: float) -> None:
    a, b = np.array([0.50, -0.06, -0.092]), np.array([0.58, 0.07, -0.087])
    poses = {"cubeA": Transform(a, yawed(first)), "cubeB": Transform(b, yawed(second))}
    stops = oracle.stack(poses, {"cubeA_size": [0.04] * 3, "cubeB_size": [0.05] * 3})
    grasp = next(s for s in stops if s.event is GripperEvent.CLOSE).T_base_tcp
    goal = next(
        s for s in stops if s.kind is WaypointKind.CONTACT and s.event is GripperEvent.OPEN
    ).T_base_tcp
    placed = goal @ grasp.inverse() @ poses["cubeA"]
    np.testing.assert_allclose(placed.translation, [*b[:2], b[2] + 0.045 + 0.003], atol=1e-9)
    between = math.degrees(math.atan2(placed.rotation[1, 0], placed.rotation[0, 0]) - second)
    assert (between + 45) % 90 - 45 == pytest.approx(0.0, abs=1e-6)


class Toppled:
    """A cube that fell over, beside one that stands."""

    def truth(self) -> tuple[dict[str, Transform], dict[str, Any]]:
        lying = Rotation.from_euler("x", 40.0, degrees=True).as_matrix()
        poses = {"cubeA": Transform([0.5, 0.0, -0.09], lying), "cubeB": Transform([0.6, 0.1, -0.09], UPRIGHT)}
        return poses, {"cubeA_size": [0.04] * 3, "cubeB_size": [0.05] * 3}


def test_what_the_demonstrator_cannot_take_is_refused(arm: ArmModel) -> None:
    frame = RgbdFrame(
        1.0, np.zeros((2, 2, 3), np.uint8), np.ones((2, 2), np.float32), TASKS["Stack"].intrinsics
    )
    plan = oracle.OraclePlanner(Toppled(), "Stack", arm).plan(
        PlanRequest(0.5, "task", "request", "stack"), frame, TASKS["Stack"].camera.pose, now=1.2
    )
    assert (plan.code, plan.waypoints) == (ErrorCode.BAD_INPUT, ())
    assert "upright" in plan.message


@given(st.floats(-3.1, 3.1), st.floats(0.11, 0.225))
@settings(max_examples=25)
def test_the_nut_ends_around_the_peg(yaw: float, y: float) -> None:
    poses = {
        "nut": Transform([0.4475, y, -0.082], yawed(yaw)),
        "peg": Transform([0.79, 0.10, -0.062], UPRIGHT),
    }
    stops = oracle.nut_assembly_square(poses, {})
    grasp = next(s for s in stops if s.event is GripperEvent.CLOSE).T_base_tcp
    release = next(s for s in stops if s.kind is WaypointKind.CONTACT and s.event is GripperEvent.OPEN)
    goal = release.T_base_tcp
    np.testing.assert_allclose(goal.apply(release.contact_offset)[:2], [0.79, 0.10], atol=1e-6)
    placed = goal @ grasp.inverse() @ poses["nut"]
    np.testing.assert_allclose(placed.translation[:2], [0.79, 0.10], atol=1e-6)
    assert placed.translation[2] < -0.062 + 0.1  # below the top of the peg
    turned = math.degrees(math.atan2(placed.rotation[1, 0], placed.rotation[0, 0]))
    assert (turned + 45) % 90 - 45 == pytest.approx(0.0, abs=1e-6)


def test_the_demonstrator_stays_within_reach(arm: ArmModel) -> None:
    bins = {"bin1": Transform([0.6, -0.15, -0.112], UPRIGHT), "bin2": Transform([0.6, 0.38, -0.112], UPRIGHT)}
    for x, y in ((0.48, -0.32), (0.72, -0.32), (0.72, 0.02), (0.48, 0.02)):
        stops = oracle.pick_place_can(
            {"can": Transform([x, y, -0.052], UPRIGHT), **bins}, {"bin_size": [0.39, 0.49]}
        )
        reached(arm, stops)
        goal = stops[-2].T_base_tcp.translation
        assert 0.6 < goal[0] < 0.795
        assert 0.38 < goal[1] < 0.625
    for yaw in np.linspace(-3.0, 3.0, 8):
        nut = {
            "nut": Transform([0.4475, 0.17, -0.082], yawed(yaw)),
            "peg": Transform([0.79, 0.1, -0.062], UPRIGHT),
        }
        reached(arm, oracle.nut_assembly_square(nut, {}))


def test_the_door_is_held_on_an_arc_about_its_hinge() -> None:
    door = Transform([0.36, -0.34, 0.188], yawed(math.radians(170)))
    stops = oracle.door({"door": door}, {"hinge": 0.0, "latch_joint": 0.0})
    axis = door.apply(oracle.HINGE_IN_DOOR)
    close = next(i for i, s in enumerate(stops) if s.event is GripperEvent.CLOSE)
    pull = stops[close + 5 :]
    assert len(pull) == 6
    radii = [float(np.linalg.norm((s.T_base_tcp.translation - axis)[:2])) for s in pull]
    assert max(radii) - min(radii) < 1e-9
    swept = pull[0].T_base_tcp.distance(pull[-1].T_base_tcp)[1]
    assert swept == pytest.approx(oracle.HINGE_OPEN, abs=1e-6)


# -- errors ----------------------------------------------------------------------------------------------


def test_without_its_environment_the_command_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("BRIDGEVLA_ROBOSUITE_PYTHON", str(tmp_path / "python"))
    with pytest.raises(BridgeError, match="environment of its own") as refused:
        episode.specs(1, 1)
    assert "make setup-robosuite" in refused.value.remedy
    assert main(["eval", "--suite", "robosuite", "--episodes", "1"]) == 2
    said = capsys.readouterr()
    assert "make setup-robosuite" in said.out + said.err


@pytest.mark.parametrize(("noise", "blind"), [(0.0, True), (0.01, False)])
def test_depth_that_is_to_be_noisy_is_looked_at(noise: float, blind: bool) -> None:
    """And the noise of plans is the same whether or not it is."""
    spec = EpisodeSpec(
        "robosuite", 1, 0, "ik", guidance="oracle", guidance_noise=(0.02, 10.0), depth_noise=noise
    )
    graph = episode.make_graph(spec, cast(Any, None), TASKS["Lift"])
    assert graph.blind is blind
    assert (graph.frame_filter is None) is blind
    assert isinstance(graph.plan_filter, PlanNoise)
    assert graph.plan_filter.rng.random() == np.random.default_rng([1, 0, 0x401]).random()


def test_a_planner_that_would_be_told_anchors_is_refused() -> None:
    with pytest.raises(BridgeError, match="no anchors") as refused:
        episode.specs(1, 1, planner="truth", guidance="planner")
    assert "--guidance oracle" in refused.value.remedy


def test_an_experts_own_states_are_not_recorded_there(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match="robosuite"):
        shards(tmp_path, 200_000, 5, policy="some", scenes="robosuite")
    made = shards(tmp_path, 200_000, 15, scenes="robosuite")
    assert [s.path.name for s in made] == ["bank-robosuite-200000-10.npz", "bank-robosuite-200010-5.npz"]


def test_fine_tuning_goes_on_from_the_shipped_weights() -> None:
    """Their settings fit its shape, and change it slower than it was trained."""
    further = TrainConfig.load(resources.find_config("training/appf_further.yaml"))
    first = TrainConfig.load(resources.find_config("training/appf_two_core.yaml"))
    earlier = load_weights(ExpertModel(further.shape()), checkpoint.SHIPPED)
    assert earlier["training"]
    assert further.stage2.learning_rate < first.stage2.learning_rate
    assert further.stage2.steps < first.stage2.steps


def test_a_task_that_robosuite_does_not_have() -> None:
    with pytest.raises(BridgeError, match="Wipe") as refused:
        setup_of("Wipe")
    assert refused.value.code is ErrorCode.BAD_INPUT
    assert "NutAssemblySquare" in refused.value.remedy


def test_the_servers_own_errors_come_through() -> None:
    """The real process, with this interpreter: it has no robosuite."""
    process = client.Server(Path(sys.executable))
    try:
        with pytest.raises(BridgeError, match="before reset"):
            process.ask("render")
        with pytest.raises(BridgeError, match="before reset"):
            process.ask("dance")
        with pytest.raises(BridgeError, match="No module named 'robosuite'"):
            process.ask("reset", {"task": "Lift", "seed": 0})
    finally:
        process.close()
    with pytest.raises(BridgeError) as ended:
        process.ask("render")
    assert ended.value.code is ErrorCode.CONTROLLER_INACTIVE


# -- with robosuite --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cell(arm: ArmModel) -> Iterator[client.RobosuiteCell]:
    try:
        python = client.interpreter()
    except BridgeError as refused:
        pytest.skip(str(refused))
    process = client.Server(python)
    yield client.RobosuiteCell(process, arm, depth_noise=0.0)
    process.close()


def test_a_seed_is_a_scene_and_depth_shows_the_cube_where_it_is(cell: client.RobosuiteCell) -> None:
    places = []
    for seed in (900100, 900101, 900100):
        cell.reset(TASKS["Lift"], seed)
        places.append(cell.truth()[0]["cube"].translation)
    np.testing.assert_array_equal(places[0], places[2])
    assert np.linalg.norm(places[0] - places[1]) > 1e-3
    frame = cell.render()
    rows, columns = np.indices(frame.depth.shape)
    pixels = np.column_stack([columns.ravel(), rows.ravel()]).astype(float)
    points = cell.T_base_camera.apply(deproject(pixels, frame.depth.ravel(), frame.intrinsics))
    red = (frame.rgb[..., 0].astype(int) - frame.rgb[..., 1] > 60).ravel()
    cube = points[red & (np.linalg.norm(points - places[2], axis=1) < 0.1)]
    assert len(cube) > 30
    assert abs(cube[:, 2].max() - (places[2][2] + 0.021)) < 0.004
    np.testing.assert_allclose((cube[:, :2].min(0) + cube[:, :2].max(0)) / 2, places[2][:2], atol=0.012)


def test_the_arm_in_robosuite_follows(cell: client.RobosuiteCell, arm: ArmModel) -> None:
    cell.reset(TASKS["Lift"], 900100)
    start = cell.joint_state().position
    here = arm.fk(start)
    target = arm.ik(Transform(here.translation + np.array([0.0, 0.0, 0.1]), here.rotation), start)
    assert target.ok
    times = np.linspace(0.05, 1.0, 20)
    s = (times**3 * (10 - 15 * times + 6 * times**2))[:, None]
    positions = start + s * (target.q - start)
    velocities = np.gradient(positions, times, axis=0)
    velocities[-1] = 0.0
    cell.command_joint_trajectory(cell.now, times, positions, velocities)
    cell.command_gripper(0.02)
    cell.step(1.5)
    assert cell.tracking_error < 0.01
    np.testing.assert_allclose(
        arm.fk(cell.joint_state().position).translation, arm.fk(target.q).translation, atol=2e-3
    )
    assert cell.joint_state().gripper_width == pytest.approx(0.02, abs=4e-3)
    assert not cell.judge()


def test_an_episode_is_drawn(cell: client.RobosuiteCell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episode, "new_cell", lambda: cell)
    drawn = pictures.picture(EpisodeSpec("robosuite", 900100, 0, "ik", guidance="oracle"))
    assert "seed 900100, ik" in drawn.caption
    assert (drawn.rgb == pictures.PATH).all(axis=-1).sum() > 100


def a_seed_of(task: str) -> int:
    return next(seed for seed in range(900000, 900005) if task_of(seed) == task)


def test_each_five_seeds_are_a_scene_of_each_task_and_those_held_out_of_any() -> None:
    for first in range(900000, 900050, 5):
        assert {task_of(seed) for seed in range(first, first + 5)} == set(TASKS)
    assert {task_of(seed) for seed in range(900009, 900209, 10)} == set(TASKS)


def test_a_demonstration_is_recorded_with_its_truth(cell: client.RobosuiteCell) -> None:
    """Both cubes are seen where robosuite says that they are."""
    stage = RobosuiteStage(cell)
    bank = bank_of([stage.play(a_seed_of("Stack"))], {})
    assert cell.success
    assert cell.tracking_error < 0.005
    assert set(bank.classes) == {"pick cube", "place cube"}
    first, last = bank.cloud(0), bank.cloud(len(bank) - 1)
    start, end = bank["pose"][0, :3], bank["pose"][-1, :3]
    assert np.linalg.norm(end[:2] - start[:2]) > 0.05
    for (points, _, target), pose in ((first, start), (last, end)):
        assert target.sum() > 50
        assert np.linalg.norm((points[target] - pose)[:, :2], axis=1).max() < 0.05
    held = np.linalg.norm(cell.truth()[0]["cubeA"].translation[:2] - end[:2])
    assert held < 0.01  # the demonstration ended with the cube where the label says


def test_a_nut_held_by_its_handle_is_recorded_as_if_the_fingers_were_over_the_peg(
    cell: client.RobosuiteCell, arm: ArmModel
) -> None:
    bank = bank_of([RobosuiteStage(cell).play(a_seed_of("NutAssemblySquare"))], {})
    assert cell.success
    peg = cell.truth()[0]["peg"].translation
    number = bank.classes.index("place peg")
    last = np.flatnonzero(bank["class"] == number)[-1]
    np.testing.assert_allclose(bank["pose"][last, :2], peg[:2], atol=0.002)
    for frame, aside in ((0, 0.0), (last, oracle.NUT_HANDLE)):
        tcp = arm.fk(bank["joints"][frame].astype(float)).translation
        assert np.linalg.norm(bank["tcp"][frame, :3] - tcp) == pytest.approx(aside, abs=2e-3)
    points, _, target = bank.cloud(last)
    assert target.sum() > 50
    assert np.linalg.norm((points[target] - peg)[:, :2], axis=1).max() < 0.04
