"""The action expert as a node: chunks when all is there, named refusals in their place when it is not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from bridgevla.msg import ActionChunk as ActionChunkMsg
from bridgevla.msg import Guidance as GuidanceMsg
from bridgevla.msg import Progress as ProgressMsg
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState as JointStateMsg
from sensor_msgs.msg import PointCloud2

from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.types import Cloud, Guidance, JointState, Progress, StreamerState
from bridgevla_ros.nodes.action_expert import ActionExpertNode
from bridgevla_ros.ros import conversions, qos
from bridgevla_ros.training.expert_bench import observation

ARM = ArmModel.load()
SEEN = observation(ARM)


class Cell:
    """What surrounds the node, with everything good; a test leaves out one thing. Time is simulated."""

    def __init__(self, **parameters: float) -> None:
        self.time = 100.0
        given = {"use_sim_time": True, **parameters}
        self.expert = ActionExpertNode(parameter_overrides=[Parameter(k, value=v) for k, v in given.items()])
        self.node = Node("cell")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.expert)
        self.executor.add_node(self.node)
        self.chunks: list[ActionChunkMsg] = []
        self.refusals: list[ActionChunkMsg] = []
        self.codes: list[str] = []
        self.clock = self.node.create_publisher(Clock, "/clock", qos.CLOCK)
        self.cloud = self.node.create_publisher(PointCloud2, "cloud", qos.SENSOR)
        self.joints = self.node.create_publisher(JointStateMsg, "joint_states", qos.SENSOR)
        self.guidance = self.node.create_publisher(GuidanceMsg, "guidance", qos.LATCHED)
        self.progress = self.node.create_publisher(ProgressMsg, "progress", qos.COMMAND)
        self.node.create_subscription(ActionChunkMsg, "action_chunk", self._on_chunk, qos.COMMAND)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.RELIABLE)
        assert self.expert.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert self.expert.trigger_activate() == TransitionCallbackReturn.SUCCESS

    def _on_chunk(self, msg: ActionChunkMsg) -> None:
        (self.refusals if msg.code else self.chunks).append(msg)

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        self.codes += [v.value for s in msg.status if s.name.endswith("action_expert") for v in s.values[:1]]

    def feed(self, *, without: str = "") -> None:
        """Publish one of each, stamped now, and let 50 ms pass."""
        now = self.time
        joints, progress = SEEN.joints[-1], SEEN.progress
        state = JointState(now, joints.position, joints.velocity, joints.gripper_width)
        cloud = SEEN.cloud
        assert cloud is not None
        seen = Cloud(now, cloud.points_base, cloud.age, cloud.center_base)
        guidance = Guidance(**{**vars(SEEN.guidance), "stamp": now})
        executed = Progress(now, progress.guidance_id, progress.progress, 1, StreamerState.MOVING, 1.0, 0.08)
        if without != "joints":
            self.joints.publish(conversions.joint_state_to_msg(state, ARM.config))
        if without != "cloud":
            self.cloud.publish(conversions.cloud_to_msg(seen))
        if without != "guidance":
            self.guidance.publish(conversions.guidance_to_msg(guidance))
        if without != "progress":
            self.progress.publish(conversions.progress_to_msg(executed))
        self.time += 0.05
        self.clock.publish(Clock(clock=conversions.stamp_to_msg(self.time)))

    def until(self, condition: Callable[[], object], seconds: float = 20.0, *, without: str = "") -> bool:
        """Feed until the condition holds or that much simulated time has passed."""
        end = self.time + seconds
        while self.time < end:
            if condition():
                return True
            self.feed(without=without)
            quiet = time.monotonic() + 0.03
            while time.monotonic() < quiet:
                self.executor.spin_once(timeout_sec=0.01)
        return bool(condition())

    def close(self) -> None:
        self.executor.shutdown()
        self.expert.destroy_node()
        self.node.destroy_node()


@pytest.fixture
def cell(ros: None) -> Iterator[Cell]:
    made = Cell()
    yield made
    made.close()


def test_chunks_name_their_inputs(cell: Cell) -> None:
    assert cell.until(lambda: len(cell.chunks) >= 5)
    msg = cell.chunks[-1]
    chunk = conversions.action_chunk_from_msg(msg, ARM.joint_names)
    assert msg.header.frame_id == "base_link"
    assert chunk.guidance_id == SEEN.guidance.guidance_id
    assert chunk.joints.shape == (16, 7)
    assert chunk.source == "expert"
    assert len(chunk.model_sha256) == 64
    assert len(chunk.cloud_stamps) == 1
    assert chunk.joint_stamps[-1] == pytest.approx(chunk.stamp, abs=1e-6)
    reached = np.array([ARM.fk(q).translation for q in chunk.joints])
    assert np.abs(reached - chunk.position).max() < 1e-3
    assert chunk.sequence > conversions.action_chunk_from_msg(cell.chunks[0], ARM.joint_names).sequence


@pytest.mark.parametrize("missing", ["joints", "cloud", "progress"])
def test_without_an_input_no_chunk_and_a_name(cell: Cell, missing: str) -> None:
    assert cell.until(lambda: "SENSOR_LOST" in cell.codes, without=missing)
    assert cell.chunks == []
    if missing == "progress":
        assert cell.refusals == []  # the streamer itself is silent: there is nobody to tell
    else:
        assert cell.until(lambda: cell.refusals, without=missing)
        assert {ErrorCode(m.code) for m in cell.refusals} == {ErrorCode.SENSOR_LOST}


def test_samples_that_disagree_are_refused_by_name(ros: None) -> None:
    cell = Cell(max_spread=0.0)
    try:
        assert cell.until(lambda: len(cell.refusals) >= 3)
        assert cell.chunks == []
        msg = cell.refusals[-1]
        told = conversions.action_chunk_from_msg(msg, ARM.joint_names)
        assert told.code == ErrorCode.EXPERT_DIVERGED
        assert "disagreement of samples" in told.message
        assert (told.value > told.limit, told.limit, told.unit) == (True, 0.0, "m")
        assert (told.guidance_id, told.sequence, len(told.joints)) == (SEEN.guidance.guidance_id, 0, 0)
        assert len(told.cloud_stamps) == 1
        assert len(told.joint_stamps) >= 1
        assert told.computed_at > told.stamp > 99.0
    finally:
        cell.close()


def test_a_cloud_that_stops_coming_ends_the_chunks(cell: Cell) -> None:
    assert cell.until(lambda: cell.chunks)
    cell.until(lambda: False, 1.5, without="cloud")
    count = len(cell.chunks)
    cell.codes.clear()
    assert cell.until(lambda: "SENSOR_LOST" in cell.codes, without="cloud")
    assert len(cell.chunks) == count
    assert cell.until(lambda: len(cell.chunks) > count)  # it comes back by itself


def test_without_guidance_nothing(cell: Cell) -> None:
    cell.until(lambda: False, 0.6, without="guidance")
    assert cell.chunks == []


def test_deactivated_it_is_silent(cell: Cell) -> None:
    assert cell.until(lambda: cell.chunks)
    assert cell.expert.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    cell.until(lambda: False, 0.2)
    count = len(cell.chunks)
    cell.until(lambda: False, 0.4)
    assert len(cell.chunks) == count
