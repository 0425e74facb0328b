"""``bridgevla instruct`` against an action server: exit status, remedy, and Ctrl-C that cancels."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridgevla_ros.core.errors import ErrorCode

ROOT = Path(__file__).resolve().parents[1]
_FEEDBACK = 0.1  # s between feedback, as the task node gives it


class Door:
    """An `execute_instruction` server: words of the instruction say how the goal ends."""

    def __init__(self) -> None:
        import rclpy
        from bridgevla.action import ExecuteInstruction
        from bridgevla.msg import TaskStatus
        from rclpy.action import ActionServer, CancelResponse
        from rclpy.callback_groups import ReentrantCallbackGroup
        from rclpy.executors import MultiThreadedExecutor

        from bridgevla_ros.ros import qos

        self.restarted = TaskStatus(stage=TaskStatus.IDLE)
        self.moving = TaskStatus(stage=TaskStatus.MOVING, task_id="task-1")
        self.action = ExecuteInstruction
        self.instructions: list[str] = []
        self.cancelled = threading.Event()
        self.node = rclpy.create_node("door")
        self.server = ActionServer(
            self.node,
            ExecuteInstruction,
            "execute_instruction",
            self._execute,
            callback_group=ReentrantCallbackGroup(),
            cancel_callback=lambda _: CancelResponse.ACCEPT,
        )
        self.status = self.node.create_publisher(TaskStatus, "status", qos.LATCHED)
        self.executor = MultiThreadedExecutor(3)  # a goal that nobody follows any more keeps one
        self.executor.add_node(self.node)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._spin)
        self.thread.start()

    def _spin(self) -> None:
        while not self.ended.is_set():
            self.executor.spin_once(timeout_sec=0.05)

    def _execute(self, goal: Any) -> Any:
        self.instructions.append(goal.request.instruction)
        feedback, result = self.action.Feedback(), self.action.Result()
        status = feedback.status
        status.stage, status.progress, status.message = status.MOVING, 0.42, "on the way"
        status.task_id = "task-1"
        if "slow" in goal.request.instruction:
            self.status.publish(status)
            while not goal.is_cancel_requested and not self.ended.is_set():
                goal.publish_feedback(feedback)
                time.sleep(_FEEDBACK)
            if goal.is_cancel_requested:
                goal.canceled()
            else:
                goal.abort()
            self.cancelled.set()
            result.status.code = int(ErrorCode.CANCELLED)
        elif "absent" in goal.request.instruction:
            # No feedback: what is published before the client is discovered is lost, and must not be needed.
            status.stage, status.code = status.FAILED, int(ErrorCode.NO_TARGET)
            status.message = "there is no absent cube"
            status.value, status.limit, status.unit = 0.9, 0.5, "probability"
            status.remedy, status.candidates = "name another object", ["red cube", "green ball"]
            goal.abort()
            result.status = status
        else:
            for _ in range(20):
                goal.publish_feedback(feedback)
                time.sleep(_FEEDBACK)
            goal.succeed()
            result.status.steps_total = result.steps_done = 1
            result.verified = True
        return result

    def close(self) -> None:
        """End the thread and the node."""
        self.ended.set()
        self.thread.join()
        self.executor.shutdown()
        self.server.destroy()
        self.node.destroy_node()


@pytest.fixture(scope="module")
def door(ros: None) -> Iterator[Door]:
    made = Door()
    yield made
    made.close()


def start(*words: str | bytes) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bridgevla_ros.cli", "instruct", *words]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


def test_done(door: Door) -> None:
    code, said = finish(start("put the red cube in the blue bowl"))
    assert code == 0, said
    assert door.instructions[-1] == "put the red cube in the blue bowl"
    assert "moving, 40 %: on the way" in said
    assert "done: 1 of 1 steps, seen to have worked" in said


def test_refusal_says_why_and_what_to_do(door: Door) -> None:
    code, said = finish(start("take the absent cube"))
    assert code == 1, said
    assert "NO_TARGET: there is no absent cube" in said
    assert "value 0.9 probability, limit 0.5 probability" in said
    assert "what to do: name another object" in said
    assert "what could be meant: red cube, green ball" in said


def test_a_task_node_that_started_again_is_not_waited_for(door: Door) -> None:
    process = start("slow, please, and lost")
    assert process.stdout is not None
    assert "on the way" in process.stdout.readline()
    door.status.publish(door.restarted)
    code, said = finish(process)
    assert code == 3, said
    assert "lost: the task node ended, or was started again" in said
    assert "ask again" in said


def test_silence_is_told_and_an_interrupt_cancels_through_the_action(door: Door) -> None:
    process = start("slow, please")
    assert process.stdout is not None
    first = process.stdout.readline()
    assert "on the way" in first
    # The task node hangs: that is told, with what to do, and when it is over.
    assert "silent: no word of the task node for 5 s" in process.stdout.readline()
    hint = [process.stdout.readline() for _ in range(2)]
    assert "the arm holds; what to do:" in "".join(hint)
    door.status.publish(door.moving)
    assert any("speaks again" in process.stdout.readline() for _ in range(2))
    process.send_signal(signal.SIGINT)
    code, said = finish(process)
    assert door.cancelled.wait(5.0), (code, said)
    assert code == 130, said
    assert "cancelled" in said


def test_nobody_answers(door: Door) -> None:
    code, said = finish(start("anything", "--wait", "0.3", "--namespace", "elsewhere"))
    assert code == 3, said
    assert "/elsewhere/execute_instruction" in said
    assert "bridgevla up" in said


def test_words_that_are_not_utf8_are_refused(door: Door) -> None:
    before = len(door.instructions)
    code, said = finish(start(os.fsdecode(b"put the caf\xe9 cup away")))
    assert code == 2, said
    assert "BAD_INPUT" in said
    assert "0xe9" in said
    assert len(door.instructions) == before
