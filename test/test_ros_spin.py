"""Nodes outlive a failed callback, end cleanly at a signal, and say why they cannot start."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

NODE = """
import sys
import rclpy
from rclpy.node import Node
from bridgevla_ros.core.config import ConfigError
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.ros.lifecycle import ManagedNode
from bridgevla_ros.ros.spin import run_node

class Faulty(Node):
    def __init__(self):
        super().__init__("faulty")
        self.ticks = 0
        self.create_timer(0.02, self.tick)

    def tick(self):
        self.ticks += 1
        if self.ticks == 2:
            raise BridgeError(ErrorCode.DEPTH_HOLE, "no depth at the anchor", remedy="look again")
        if self.ticks == 4:
            raise ZeroDivisionError("what nobody thought of")
        if self.ticks == 6:
            print("ALIVE", flush=True)

    def destroy_node(self):
        print("DESTROYED", flush=True)
        super().destroy_node()

class Managed(ManagedNode):
    def __init__(self):
        super().__init__("managed")
        print("ALIVE", flush=True)

    def configure(self):
        raise BridgeError(ErrorCode.MODEL_ERROR, "weights are not there")

def refuse():
    raise ConfigError("node /faulty: unknown parameter 'sped'")

sys.exit(run_node({"faulty": Faulty, "managed": Managed, "refuse": refuse}[sys.argv[1]], sys.argv[2:]))
"""


def start(kind: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-c", NODE, kind, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        cwd=Path(__file__).parent.parent,
    )


def read_until(process: subprocess.Popen[str], word: str, seconds: float = 20.0) -> str:
    text, end = "", time.monotonic() + seconds
    assert process.stdout is not None
    while word not in text and time.monotonic() < end:
        line = process.stdout.readline()
        if not line:
            break
        text += line
    assert word in text, text
    return text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_node_outlives_failures_and_ends_at_a_signal(number: signal.Signals) -> None:
    process = start("faulty")
    text = read_until(process, "ALIVE")
    assert "DEPTH_HOLE: no depth at the anchor (look again)" in text
    assert "ZeroDivisionError: what nobody thought of" in text
    process.send_signal(number)
    rest, _ = process.communicate(timeout=5)
    assert process.returncode == 0, rest
    assert "DESTROYED" in rest
    assert "Traceback" not in rest


def test_a_node_that_cannot_start_says_why() -> None:
    process = start("refuse")
    text, _ = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "cannot start: node /faulty: unknown parameter 'sped'" in text
    assert "Traceback" not in text


def test_a_refused_transition_is_logged(node: Any, spin_until: Any) -> None:
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    process = start("managed")
    try:
        read_until(process, "ALIVE")
        client = node.create_client(ChangeState, "managed/change_state")
        assert spin_until(node, client.service_is_ready, 10.0)
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
        answer = client.call_async(request)
        assert spin_until(node, answer.done, 10.0)
        assert not answer.result().success
    finally:
        process.send_signal(signal.SIGINT)
        text, _ = process.communicate(timeout=10)
    assert "configure refused: MODEL_ERROR: weights are not there" in text
