"""The whole graph as separate processes: the demo does its job, and nothing that goes wrong moves the arm.

The demo comes first, alone on the machine. The tests of faults share one graph, in which this program stands
between the camera and the nodes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bridgevla.msg import TaskStatus
from bridgevla.srv import Resume, Stop
from sensor_msgs.msg import CameraInfo, Image
from sensor_msgs.msg import JointState as JointStateMsg

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.ros import conversions, qos
from bridgevla_ros.session import Session
from bridgevla_ros.simulation import tasks
from bridgevla_ros.simulation.scene import COLOURS, MOVABLE

SEED = 1
STREAMS = {
    "color/image_raw": Image,
    "color/camera_info": CameraInfo,
    "depth/image_raw": Image,
    "depth/camera_info": CameraInfo,
}


def test_the_demo_does_its_job(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "bridgevla_ros.cli", "demo", "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=Path(__file__).parent.parent,
        check=False,
    )
    words = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, words
    result = json.loads((out / "result.json").read_text())
    assert result["success"], words
    assert result["error_code"] == "NONE"
    assert {"task", "planner", "cropper", "trajectory", "action_expert", "arm_streamer", "sim_arm"} <= set(
        result["nodes"]
    )
    assert len(result["planner"]["sha256"]) == 64
    seconds = result["seconds"]
    assert 0 < seconds["plan"] <= seconds["first_motion"] <= seconds["task"] < time.monotonic() - began
    assert result["commands"]["ros_time"]["rate_hz"] == pytest.approx(100.0, rel=0.05)
    assert (out / "plan.png").stat().st_size > 5000
    assert any((out / name).is_file() for name in ("run.mp4", "run.gif"))
    assert list((out / "bag").glob("*.mcap"))
    assert str(out / "plan.png") in done.stdout.replace("\n", "")


class Camera:
    """Passes the simulator's images on; may stop, or go black."""

    def __init__(self, session: Session) -> None:
        self.on = True
        self.black = False
        node = session.node
        for name, kind in STREAMS.items():
            publisher = node.create_publisher(kind, f"camera/{name}", qos.SENSOR)
            node.create_subscription(kind, f"unplugged/{name}", self._pass_on(name, publisher), qos.SENSOR)

    def _pass_on(self, name: str, publisher: Any) -> Any:
        def pass_on(msg: Any) -> None:
            if not self.on:
                return
            if self.black and name == "color/image_raw":
                rgb = conversions.rgb_from_msg(msg)
                stamp = conversions.stamp_from_msg(msg.header.stamp)
                msg = conversions.rgb_to_msg(np.zeros_like(rgb), stamp, msg.header.frame_id)
            publisher.publish(msg)

        return pass_on


class Cell:
    """A running graph, its camera and where its arm is."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.camera = Camera(session)
        self.joints = np.full(8, np.nan)
        self.speed = np.nan
        self.stamp = np.nan  # of the joints: simulated seconds, whatever the machine has to do beside
        session.node.create_subscription(JointStateMsg, "joint_states", self._on_joints, qos.SENSOR)

    def _on_joints(self, msg: JointStateMsg) -> None:
        self.joints = np.asarray(msg.position)
        self.speed = float(np.abs(msg.velocity).max())
        self.stamp = conversions.stamp_from_msg(msg.header.stamp)

    def listen(self, seconds: float) -> None:
        self.session.wait(lambda: False, seconds)

    def stands(self, seconds: float = 5.0) -> bool:
        """Whether the arm comes to rest, and stays there for a moment."""
        if not self.session.wait(lambda: self.speed < 0.02, seconds):
            return False
        before = self.joints
        self.listen(1.0)
        return bool(np.abs(self.joints - before).max() < 0.01)

    def moves(self, words: str, preempt: bool = True) -> Any:
        """Give an instruction and wait until it moves the arm; the service's answer."""
        answer = self.session.instruct(words, autonomy="auto", preempt=preempt)
        assert answer.accepted, answer.message
        moving = self.session.wait(
            lambda: self.session.heard.first_motion is not None and self.speed > 0.02, 60.0
        )
        assert moving, self.describe()
        return answer

    def end_of(self, answer: Any, seconds: float) -> TaskStatus:
        """Status at the end of a task."""
        assert self.session.wait(lambda: self.session.ended(answer.task_id), seconds), self.describe()
        status = self.session.heard.status
        assert status is not None
        return status

    def reaches(self, stage: int, seconds: float, naming: str = "") -> bool:
        """Whether a status comes of this stage, whose message holds what is to be named."""

        def reached() -> bool:
            status = self.session.heard.status
            return status is not None and status.stage == stage and naming in status.message

        return self.session.wait(reached, seconds)

    def describe(self) -> str:
        status = self.session.heard.status
        return f"{status}\n{self.session.logs.tail()}"


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    logs = tmp_path_factory.mktemp("graph") / "log"
    names = tuple((f"camera/{name}", f"unplugged/{name}") for name in STREAMS)
    with Session({"seed": str(SEED), "policy": "ik"}, logs, remappings={"sim_arm": names}) as session:
        made = Cell(session)
        ready = session.wait(lambda: not session.missing(), 90.0)
        assert ready, f"{session.missing()}\n{session.logs.tail()}"
        assert session.wait(lambda: bool(np.isfinite(made.joints).all()), 10.0)
        yield made


def code_of(cell: Cell, words: str) -> ErrorCode:
    """Code with which an instruction is refused, at once or by the planner."""
    answer = cell.session.instruct(words)
    if not answer.accepted:
        assert answer.message
        return ErrorCode(answer.code)
    return ErrorCode(cell.end_of(answer, 40.0).code)


@pytest.mark.parametrize(
    ("words", "codes"),
    [
        ("", {ErrorCode.NOT_UNDERSTOOD}),
        (" \n\t", {ErrorCode.NOT_UNDERSTOOD}),
        ("?! 12 ---", {ErrorCode.NOT_UNDERSTOOD}),
        ("put the red cube in the blue bowl " * 3000, {ErrorCode.BAD_INPUT}),
        ("put the r\x80\x99d cube in the b\x00wl".replace("\x00", "\x01"), {ErrorCode.BAD_INPUT}),
        ("put the \ufffd\ufffd in the bowl", {ErrorCode.BAD_INPUT}),
        ("\u202e把红色方块放进蓝色碗里 \U0001f916", {ErrorCode.NOT_UNDERSTOOD, ErrorCode.BAD_INPUT}),
        ("colourless green ideas sleep furiously", {ErrorCode.NOT_UNDERSTOOD, ErrorCode.NO_TARGET}),
    ],
    ids=["empty", "blank", "no words", "100 kB", "control", "not UTF-8", "unicode", "nonsense"],
)
def test_bad_words_end_in_a_named_code_and_move_nothing(
    cell: Cell, words: str, codes: set[ErrorCode]
) -> None:
    before = cell.joints
    assert code_of(cell, words) in codes, cell.describe()
    assert np.abs(cell.joints - before).max() < 0.01


def absent_object() -> str:
    """A colour and kind that the scene does not hold."""
    there = {o.name for o in tasks.sample_scene(SEED).objects}
    return next(f"{c} {k}" for c in COLOURS for k in MOVABLE if f"{c} {k}" not in there)


def test_an_object_that_is_not_there_is_not_guessed(cell: Cell) -> None:
    before = cell.joints
    place = next(o.name for o in tasks.sample_scene(SEED).objects if o.kind not in MOVABLE)
    assert code_of(cell, f"put the {absent_object()} in the {place}") == ErrorCode.NO_TARGET, cell.describe()
    assert np.abs(cell.joints - before).max() < 0.01


def the_task() -> str:
    return tasks.default_task(tasks.sample_scene(SEED)).instruction


def test_a_black_image_moves_nothing(cell: Cell) -> None:
    before = cell.joints
    cell.camera.black = True
    try:
        assert code_of(cell, the_task()) != ErrorCode.NONE
    finally:
        cell.camera.black = False
    assert np.abs(cell.joints - before).max() < 0.01


def test_a_killed_streamer_stops_the_arm_and_comes_back_held(cell: Cell) -> None:
    session = cell.session
    answer = cell.moves(the_task(), preempt=False)
    starts, pid = session.supervisor.starts("arm_streamer"), session.supervisor.pid("arm_streamer")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    # Nobody commands now: what was sent ends in a braking tail.
    killed = cell.stamp
    assert session.wait(lambda: cell.speed < 0.02, 30.0), f"speed {cell.speed} rad/s"
    assert cell.stamp - killed < 1.0
    assert session.wait(lambda: session.supervisor.starts("arm_streamer") > starts, 10.0)
    # The task looks again and goes on, or gives up by name.
    went_on = session.wait(
        lambda: session.ended(answer.task_id) or (cell.speed > 0.02 and session.heard.status.retries > 0),
        60.0,
    )
    assert went_on, cell.describe()
    if session.ended(answer.task_id):
        assert session.heard.status.code != ErrorCode.NONE


def test_stop_brakes_and_waits_for_resume(cell: Cell) -> None:
    session = cell.session
    cell.moves(the_task())
    stopped = session.call(Stop, "stop", Stop.Request(reason="a hand in the cell"))
    assert stopped is not None
    assert stopped.accepted
    assert cell.stands(), f"speed {cell.speed} rad/s"
    assert cell.reaches(TaskStatus.HOLD, 20.0), cell.describe()
    assert session.heard.status.code == ErrorCode.STOPPED, cell.describe()
    resumed = session.call(Resume, "resume", Resume.Request())
    assert resumed is not None
    assert resumed.accepted, resumed.message
    assert session.wait(lambda: cell.speed > 0.02, 20.0), cell.describe()


def test_busy_then_camera_lost_then_expert_killed(cell: Cell) -> None:
    """One task through all of it, to its end."""
    session = cell.session
    answer = cell.moves(the_task())

    second = session.instruct(the_task())
    assert not second.accepted
    assert second.code == ErrorCode.BUSY

    cell.camera.on = False
    assert cell.reaches(TaskStatus.HOLD, 15.0), cell.describe()
    assert session.heard.status.code == ErrorCode.SENSOR_LOST, cell.describe()
    assert cell.stands(), f"speed {cell.speed} rad/s"
    cell.camera.on = True
    assert session.wait(lambda: session.heard.status.stage != TaskStatus.HOLD, 15.0), cell.describe()
    assert not session.ended(answer.task_id), cell.describe()

    starts, pid = session.supervisor.starts("action_expert"), session.supervisor.pid("action_expert")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert session.wait(lambda: cell.speed < 0.02, 5.0), f"speed {cell.speed} rad/s"
    assert session.wait(lambda: session.supervisor.starts("action_expert") > starts, 10.0)
    status = cell.end_of(answer, 150.0)
    assert status.stage == TaskStatus.DONE or status.code != ErrorCode.NONE, cell.describe()


@contextlib.contextmanager
def frozen(cell: Cell, name: str) -> Iterator[None]:
    """A process that is there and does nothing."""
    pid = cell.session.supervisor.pid(name)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def another_task() -> str:
    """A thing and a place that ``the_task`` does not speak of."""
    scene = tasks.sample_scene(SEED)
    thing = next(o.name for o in scene.objects if o.kind == "cube" and o.name not in the_task())
    place = next(o.name for o in scene.objects if not o.movable and o.name not in the_task())
    return f"put the {thing} in the {place}"


def test_what_hangs_is_held_by_name_and_goes_on(cell: Cell) -> None:
    """Task node and cropper hang, the planner is killed, each in motion: one task through all of it."""
    session = cell.session
    answer = cell.moves(another_task())
    with frozen(cell, "task"):
        held = session.wait(lambda: session.heard.progress.code == ErrorCode.LEASE_EXPIRED, 5.0)
        assert held, session.heard.progress
        assert cell.stands(), f"speed {cell.speed} rad/s"
    assert session.wait(lambda: cell.speed > 0.02, 20.0), cell.describe()

    with frozen(cell, "cropper"):
        assert cell.reaches(TaskStatus.HOLD, 10.0), cell.describe()
        assert session.heard.status.code in (ErrorCode.SENSOR_LOST, ErrorCode.CONTROLLER_INACTIVE)
        assert session.heard.status.remedy
        assert cell.stands(), f"speed {cell.speed} rad/s"
    assert session.wait(lambda: cell.speed > 0.02, 20.0), cell.describe()

    starts, pid = session.supervisor.starts("planner"), session.supervisor.pid("planner")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    # By name: a cropper that answers late after its pause may be held for once more just then.
    assert cell.reaches(TaskStatus.HOLD, 10.0, naming="planner"), cell.describe()
    assert session.heard.status.code == ErrorCode.CONTROLLER_INACTIVE
    assert cell.stands(), f"speed {cell.speed} rad/s"
    assert session.wait(lambda: session.heard.status.stage != TaskStatus.HOLD, 90.0), cell.describe()
    assert session.supervisor.starts("planner") == starts + 1
    ended = session.ended(answer.task_id)
    assert not ended or session.heard.status.code == ErrorCode.CONTROLLER_INACTIVE, cell.describe()


def test_without_the_simulator_everything_ends_by_name(cell: Cell) -> None:
    """The last test: the graph is gone after it."""
    session = cell.session
    pid = session.supervisor.pid("sim_arm")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    still = session.wait(lambda: "ROS time stands still" in session.heard.status.message, 20.0)
    assert still, cell.describe()
    assert session.heard.status.code == ErrorCode.SENSOR_LOST
    assert "sim_arm" in session.heard.status.remedy
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(BridgeError, match="sim_arm has ended") as ended:
        session.wait(lambda: False, 30.0)
    assert ended.value.code == ErrorCode.SENSOR_LOST
    session.supervisor.stop()
    assert all(session.supervisor.pid(node.name) is None for node in session.graph.nodes)
