"""Recorded end-effector paths for stage 1: our recordings, others' bags, folders of data sets."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_rig import START, cdr, header, make
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bridgevla_ros.bags.writer import BagWriter
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import GripperEvent
from bridgevla_ros.datasets.features import Feature
from bridgevla_ros.datasets.lerobot_writer import LeRobotWriter
from bridgevla_ros.datasets.mcap_dataset import McapWriter
from bridgevla_ros.expert.config import ModelConfig
from bridgevla_ros.training import data_trajectories
from bridgevla_ros.training.data_guidance import DOWN, GuidanceLibrary
from bridgevla_ros.training.data_trajectories import PERIOD, RecordedPath, guidance_of, names_hand, touches

MODEL = ModelConfig()
TIMES: Array = np.arange(0.0, 8.0, 0.1)
REPLAY = Path(__file__).parent / "replay"
CONTACTS = [[0.4, 0.0, 0.05], [0.55, 0.0, 0.1]]


@pytest.fixture(scope="module")
def library() -> GuidanceLibrary:
    return GuidanceLibrary(3, 0, MODEL)


def motion() -> tuple[Array, Array, Array]:
    """(T, 3) metres, (T, 4) and (T,) metres: down, close, up, aside, open, rest."""
    knots = [0.0, 2.0, 3.0, 5.0, 6.0, 8.0]
    z = np.interp(TIMES, knots, [0.3, 0.05, 0.05, 0.25, 0.1, 0.1])
    x = np.interp(TIMES, knots, [0.4, 0.4, 0.4, 0.5, 0.55, 0.55])
    width = np.interp(TIMES, [0.0, 2.2, 2.8, 6.2, 6.8, 8.0], [0.08, 0.08, 0.03, 0.03, 0.08, 0.08])
    quat = np.tile(Rotation.from_matrix(DOWN).as_quat(), (len(TIMES), 1))
    return np.stack([x, 0.0 * x, z], axis=1), quat, width


def stamped(row: NDArray[Any], stamp_ns: int) -> bytes:
    """A PoseStamped of x y z and a quaternion."""
    x, y, z, *q = map(float, row)
    pose = make(
        "geometry_msgs/msg/Pose",
        position=make("geometry_msgs/msg/Point", x=x, y=y, z=z),
        orientation=make("geometry_msgs/msg/Quaternion", x=q[0], y=q[1], z=q[2], w=q[3]),
    )
    return cdr(make("geometry_msgs/msg/PoseStamped", header=header(stamp_ns, "base_link"), pose=pose))


def joint_state(values: dict[str, float], stamp_ns: int) -> bytes:
    empty = np.zeros(0)
    return cdr(
        make(
            "sensor_msgs/msg/JointState", header=header(stamp_ns), name=list(values),
            position=np.array(list(values.values())), velocity=empty, effort=empty,
        )
    )  # fmt: skip


def full_bag(folder: Path) -> Path:
    """What our recorder writes: joint states, and what the streamer commanded, among other topics."""
    position, quat, width = motion()
    arm = ArmModel.load()
    q = arm.home
    with BagWriter(folder) as bag:
        bag.add_type("/joint_states", "sensor_msgs/msg/JointState")
        bag.add_type("/arm/ee_pose", "geometry_msgs/msg/PoseStamped")
        bag.add_type("/status_text", "std_msgs/msg/String")
        for i, t in enumerate(TIMES):
            at = START + round(1e9 * t)
            q = arm.ik(Transform.from_quat(position[i], quat[i]), q, iterations=100).q
            state = dict(zip(arm.joint_names, q, strict=True)) | {"gripper_width": width[i]}
            bag.write("/joint_states", at, joint_state(state, at))
            commanded = np.concatenate([position[min(i + 3, len(TIMES) - 1)], quat[i]])
            bag.write("/arm/ee_pose", at, stamped(commanded, at))
    return folder


def foreign_bag(folder: Path, topic: str, *, gripper: bool) -> Path:
    """Another robot's: poses every 0.1 s, the gripper's joint in between."""
    position, quat, width = motion()
    with BagWriter(folder) as bag:
        bag.add_type(topic, "geometry_msgs/msg/PoseStamped")
        if gripper:
            bag.add_type("/joint_states", "sensor_msgs/msg/JointState")
        for i, t in enumerate(TIMES):
            at = START + round(1e9 * t)
            bag.write(topic, at, stamped(np.concatenate([position[i], quat[i]]), at))
            if gripper:
                later = at + 50_000_000
                bag.write("/joint_states", later, joint_state({"gripper_width": width[i], "a": 0.1}, later))
    return folder


def data_set(folder: Path, writer: type[LeRobotWriter] | type[McapWriter]) -> Path:
    position, quat, width = motion()
    names = ("x", "y", "z", "qx", "qy", "qz", "qw")
    features = {
        "observation.tcp": Feature("float32", (7,), names),
        "observation.gripper": Feature("float32", unit="m"),
        "observation.guidance": Feature("float32", (7,), names),
    }
    columns = {
        "observation.tcp": np.concatenate([position, quat], axis=1),
        "observation.gripper": width,
        "observation.guidance": np.concatenate([position + 0.5, quat], axis=1),
    }
    with writer(folder, features, fps=10) as data:
        data.add_episode(columns, "put it there", stamps=TIMES)
    return folder


def one_path(source: Path) -> RecordedPath:
    (path,) = data_trajectories.read_paths(source)
    return path


def extended(library: GuidanceLibrary, folder: Path, said: list[str]) -> tuple[int, dict[str, Array]]:
    """How many paths served, and the rows that they gave."""
    more = copy.copy(library)
    more.rows = dict(library.rows)
    used = data_trajectories.extend(more, folder, MODEL, say=said.append)
    return used, {name: rows[len(library) :] for name, rows in more.rows.items()}


def check_pick_and_place(path: RecordedPath) -> None:
    guidance = guidance_of(path)
    assert guidance is not None
    assert [e.name for e in guidance.events] == ["CLOSE", "OPEN"]
    assert np.allclose(guidance.contact_position, CONTACTS, atol=0.006)


def test_our_own_recordings_serve(library: GuidanceLibrary, tmp_path: Path) -> None:
    """Every topic is in them: what was measured counts, not what arm_streamer commanded."""
    path = one_path(full_bag(tmp_path / "run"))
    assert np.allclose(path.position, motion()[0], atol=1e-3)
    check_pick_and_place(path)
    used, rows = extended(library, tmp_path, [])
    assert used == 1
    assert {int(e) for e in rows["event"]} == {int(GripperEvent.CLOSE), int(GripperEvent.OPEN)}


def test_a_recording_of_the_whole_graph_serves(library: GuidanceLibrary) -> None:
    said: list[str] = []
    used, rows = extended(library, REPLAY, said)
    assert used == 4
    assert (rows["event"] == GripperEvent.CLOSE).sum() > 20
    assert len(said) == 1
    assert "refused_plan" in said[0]  # the arm stood still
    guidance = guidance_of(one_path(REPLAY / "failed_grasp"))
    assert guidance is not None
    assert [e.name for e in guidance.events] == ["CLOSE", "OPEN", "CLOSE", "OPEN"]


def test_poses_meet_the_width_by_time(tmp_path: Path) -> None:
    check_pick_and_place(one_path(foreign_bag(tmp_path / "run", "/robot/tcp_pose", gripper=True)))


def test_measured_poses_go_before_wanted_ones(tmp_path: Path) -> None:
    folder = foreign_bag(tmp_path / "run", "/robot/tcp_pose", gripper=False)
    path = one_path(folder)
    with BagWriter(tmp_path / "both") as bag:
        for topic in ("/eef/goal", "/robot/tcp"):
            bag.add_type(topic, "geometry_msgs/msg/PoseStamped")
        for i, t in enumerate(TIMES):
            at = START + round(1e9 * t)
            row = np.concatenate([path.position[i], path.quat[i]])
            bag.write("/eef/goal", at, stamped(row + np.array([0.3, 0, 0, 0, 0, 0, 0]), at))
            bag.write("/robot/tcp", at, stamped(row, at))
    assert np.allclose(one_path(tmp_path / "both").position, path.position)


def test_without_a_width_contacts_are_touches(library: GuidanceLibrary, tmp_path: Path) -> None:
    """Where the hand rests: the same two places, without an event."""
    path = one_path(foreign_bag(tmp_path / "run", "/robot/tcp_pose", gripper=False))
    assert path.width is None
    guidance = guidance_of(path)
    assert guidance is not None
    assert not guidance.events
    assert np.allclose(guidance.contact_position, CONTACTS, atol=0.006)
    used, rows = extended(library, tmp_path, [])
    assert used == 1
    assert (rows["event"] == GripperEvent.NONE).all()
    assert rows["exists"].mean() > 0.8
    assert rows["clamped"].max() == 0.0
    assert np.isfinite(np.concatenate([values.ravel() for values in rows.values()])).all()
    still = RecordedPath(path.stamps, path.position, path.quat, np.full(len(TIMES), 0.08))
    found = guidance_of(still)
    assert found is not None
    assert not found.events


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        ("0000111111", [9]),
        ("0111100000", [9]),
        ("01111000000", [5]),
        ("1110000000111", [3, 12]),
        ("11100111", [7]),
        ("111000000", [3]),
        ("11110", [4]),
    ],
)
def test_touches_are_rests_and_the_end(moves: str, expected: list[int]) -> None:
    assert pytest.approx(0.05) == PERIOD
    assert touches(np.array([c == "1" for c in moves])) == expected


def test_a_folder_of_several_data_sets_and_bags(library: GuidanceLibrary, tmp_path: Path) -> None:
    """Bags within a data set in MCAP are its episodes, not recordings beside it."""
    lerobot = data_set(tmp_path / "all" / "one", LeRobotWriter)
    mcap = data_set(tmp_path / "all" / "more" / "two", McapWriter)
    bag = foreign_bag(tmp_path / "all" / "more" / "run", "/tcp", gripper=True)
    with LeRobotWriter(tmp_path / "all" / "none", {"joint_speed": Feature("float32", (7,))}, fps=10) as data:
        data.add_episode({"joint_speed": np.zeros((20, 7))}, "stand still")
    for source in (lerobot, mcap, bag):
        check_pick_and_place(one_path(source))
    said: list[str] = []
    used, _ = extended(library, tmp_path / "all", said)
    assert used == 3
    assert len(said) == 1
    assert "no end-effector pose among the columns ['joint_speed']" in said[0]


@pytest.mark.parametrize(
    ("name", "after_the_hand"),
    [
        ("observation.joint_speed", False), ("/wheel/pose", False), ("/steering_feed", False),
        ("observation.ee_pose", True), ("/left/eef/pose", True), ("/tcp", True), ("EE", True),
        ("observation.end_effector.pose", True), ("endeffector", True), ("/tcp_cam2", True), ("tcpip", False),
    ],
)  # fmt: skip
def test_names_are_whole_words(name: str, after_the_hand: bool) -> None:
    assert names_hand(name) == after_the_hand


def refusals(tmp_path: Path) -> dict[str, str]:
    """Folder -> what its refusal must say."""
    (tmp_path / "empty").mkdir()
    with BagWriter(tmp_path / "words") as bag:
        bag.add_type("/word", "std_msgs/msg/String")
        bag.write("/word", START, cdr(make("std_msgs/msg/String", data="x")))
    position, quat, _ = motion()
    with BagWriter(tmp_path / "no_clock") as bag:
        bag.add_type("/tcp", "geometry_msgs/msg/PoseStamped")
        for i in range(20):
            bag.write("/tcp", START + i, stamped(np.concatenate([position[i], quat[i]]), 0))
    euler = np.concatenate([position, np.full((len(TIMES), 3), 0.7), np.ones((len(TIMES), 1))], axis=1)
    with LeRobotWriter(tmp_path / "euler", {"observation.ee": Feature("float32", (7,))}, fps=10) as data:
        data.add_episode({"observation.ee": euler}, "go")
    return {
        "nowhere": "does not exist",
        "empty": "neither bags nor data sets",
        "words": r"no end-effector pose among the topics \['/word'\].*named after tcp",
        "no_clock": "topic /tcp: 20 poses, 20 of them finite, at 1 times.*rising stamps",
        "euler": "observation.ee: its last four numbers are no unit quaternion.*name a column's elements",
    }


def test_what_cannot_serve_is_named_with_what_is_needed(library: GuidanceLibrary, tmp_path: Path) -> None:
    for folder, words in refusals(tmp_path).items():
        with pytest.raises(BridgeError, match=words) as caught:
            extended(library, tmp_path / folder, [])
        assert caught.value.code == ErrorCode.BAD_INPUT
        assert caught.value.remedy
