"""The streamer as a process: what it imports, what it commands, and what happens when it dies."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bridgevla.msg import ActionChunk as ActionChunkMsg
from bridgevla.msg import Guidance as GuidanceMsg
from bridgevla.msg import Lease as LeaseMsg
from bridgevla.msg import Progress as ProgressMsg
from bridgevla.srv import Hold, Resume, Stop
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import JointState as JointStateMsg
from std_msgs.msg import Float64MultiArray
from streamer_rig import ARM, follow, pick_and_place, refuse
from trajectory_msgs.msg import JointTrajectory

from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.types import JointState, Lease, Progress, StreamerState
from bridgevla_ros.ros import conversions, qos


def test_no_inference_library_is_imported() -> None:
    script = (
        "import sys, bridgevla_ros.nodes.arm_streamer\n"
        "print([m for m in ('torch', 'onnxruntime', 'transformers', 'mujoco', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Cell:
    """Arm, task and expert of a test: the arm follows perfectly, the expert follows guidance."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.guidance = pick_and_place()
        self.q, self.width = ARM.home.copy(), 0.085
        self.trajectories: list[JointTrajectory] = []
        self.poses: list[PoseStamped] = []
        self.widths: list[float] = []
        self.progress: list[Progress] = []
        self.leasing = self.thinking = self.refusing = False
        self.sequence = 0
        self.joints = node.create_publisher(JointStateMsg, "joint_states", qos.SENSOR)
        self.lease = node.create_publisher(LeaseMsg, "lease", qos.COMMAND)
        self.chunk = node.create_publisher(ActionChunkMsg, "action_chunk", qos.COMMAND)
        self.latched = node.create_publisher(GuidanceMsg, "guidance", qos.LATCHED)
        node.create_subscription(JointTrajectory, "arm/joint_trajectory", self._on_command, qos.COMMAND)
        node.create_subscription(PoseStamped, "arm/ee_pose", self.poses.append, qos.COMMAND)
        node.create_subscription(Float64MultiArray, "gripper/command", self._on_gripper, qos.RELIABLE)
        node.create_subscription(ProgressMsg, "progress", self._on_progress, qos.COMMAND)
        self.latched.publish(conversions.guidance_to_msg(self.guidance))
        node.create_timer(0.01, self._sense)
        node.create_timer(0.05, self._think)
        node.create_timer(0.1, self._grant)

    def now(self) -> float:
        return float(self.node.get_clock().now().nanoseconds) * 1e-9

    def _state(self) -> JointState:
        return JointState(self.now(), self.q, np.zeros(7), self.width)

    def _on_command(self, msg: JointTrajectory) -> None:
        self.trajectories.append(msg)
        self.q = np.array(msg.points[0].positions)

    def _on_gripper(self, msg: Float64MultiArray) -> None:
        self.widths.append(msg.data[0])
        self.width = max(msg.data[0], 0.03)

    def _on_progress(self, msg: ProgressMsg) -> None:
        self.progress.append(conversions.progress_from_msg(msg))

    def _sense(self) -> None:
        self.joints.publish(conversions.joint_state_to_msg(self._state(), ARM.config))

    def _grant(self) -> None:
        if self.leasing:
            lease = Lease(self.now(), 0.3, "t", self.guidance.guidance_id)
            self.lease.publish(conversions.lease_to_msg(lease))

    def _think(self) -> None:
        last = self.progress[-1] if self.progress else None
        if self.thinking and last is not None and last.guidance_id == self.guidance.guidance_id:
            self.sequence += 1
            chunk = follow(self.guidance, self._state(), last, self.sequence)
            if self.refusing:
                chunk = refuse(self.guidance, self._state(), last)
            self.chunk.publish(conversions.action_chunk_to_msg(chunk, ARM.joint_names))

    def call(self, kind: Any, name: str, spin_until: Callable[..., bool]) -> Any:
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(5.0)
        future = client.call_async(kind.Request(reason="test"))
        assert spin_until(self.node, future.done)
        return future.result()


@pytest.fixture
def cell(node: Node, processes: Any, spin_until: Callable[..., bool]) -> Cell:
    processes.node("arm_streamer")
    made = Cell(node)
    assert spin_until(node, lambda: bool(made.progress), 20.0), "the streamer reports"
    return made


def wait(
    cell: Cell, spin_until: Callable[..., bool], condition: Callable[[Progress], bool], timeout: float = 15.0
) -> None:
    assert spin_until(cell.node, lambda: condition(cell.progress[-1]), timeout), cell.progress[-1]


def test_lease_hold_stop_and_death(cell: Cell, processes: Any, spin_until: Callable[..., bool]) -> None:
    # Nothing is commanded before there is a lease.
    cell.thinking = True
    spin_until(cell.node, lambda: False, 0.5)
    assert not cell.trajectories
    assert cell.progress[-1].state == StreamerState.HELD

    # With one it begins at the measured state, and every command ends at rest.
    cell.leasing = True
    wait(cell, spin_until, lambda p: p.progress > 0.02 and p.state == StreamerState.MOVING)
    np.testing.assert_allclose(cell.trajectories[0].points[0].positions, ARM.home, atol=1e-9)
    assert list(cell.trajectories[0].joint_names) == list(ARM.joint_names)
    for command in cell.trajectories:
        assert np.abs(command.points[-1].velocities).max() == 0.0
        assert len(command.points) >= 3
    assert cell.poses, "the end-effector pose is telemetry"

    # Hold and resume.
    assert cell.call(Hold, "hold", spin_until).accepted
    wait(cell, spin_until, lambda p: p.state == StreamerState.HELD and p.code == ErrorCode.STOPPED)
    assert cell.call(Resume, "resume", spin_until).accepted
    wait(cell, spin_until, lambda p: p.state == StreamerState.MOVING and p.code == ErrorCode.NONE)

    # An expert that refuses is heard by its name.
    cell.refusing = True
    wait(cell, spin_until, lambda p: p.state == StreamerState.HELD and p.code == ErrorCode.EXPERT_DIVERGED)
    assert cell.progress[-1].message == "samples disagree"
    cell.refusing = False
    wait(cell, spin_until, lambda p: p.state == StreamerState.MOVING and p.code == ErrorCode.NONE)

    # Stop stays until resume.
    assert cell.call(Stop, "stop", spin_until).accepted
    wait(cell, spin_until, lambda p: p.state == StreamerState.STOPPED)
    spin_until(cell.node, lambda: False, 0.5)
    before = cell.q.copy()
    spin_until(cell.node, lambda: False, 0.3)
    np.testing.assert_allclose(cell.q, before, atol=1e-6)
    assert cell.call(Resume, "resume", spin_until).accepted
    wait(cell, spin_until, lambda p: p.state == StreamerState.MOVING)

    # A lost lease brakes.
    cell.leasing = False
    wait(cell, spin_until, lambda p: p.state == StreamerState.HELD and p.code == ErrorCode.LEASE_EXPIRED, 3.0)
    cell.leasing = True
    wait(cell, spin_until, lambda p: p.events_done >= 1, 30.0)
    assert cell.widths[0] == pytest.approx(0.085)

    # Killed in motion: the last command by itself comes to rest near where it was.
    wait(cell, spin_until, lambda p: p.state == StreamerState.MOVING and p.speed_scale > 0.5, 15.0)
    processes.running[0].send_signal(signal.SIGKILL)
    time.sleep(0.2)
    spin_until(cell.node, lambda: False, 0.3)
    last = cell.trajectories[-1]
    assert np.abs(last.points[-1].velocities).max() == 0.0
    end = last.points[-1].time_from_start
    assert end.sec == 0
    assert end.nanosec < 0.8e9
    travel = np.abs(np.subtract(last.points[-1].positions, last.points[0].positions)).max()
    assert travel < 0.3


def test_a_wrong_parameter_is_refused_by_name(processes: Any, tmp_path: Any) -> None:
    log = tmp_path / "log"
    process = processes.node("arm_streamer", "-p", "tcp_sped_limit:=0.1", log=log)
    assert process.wait(20.0) != 0
    assert "tcp_speed_limit" in log.read_text()
