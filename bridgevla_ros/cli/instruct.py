"""Give the running graph an instruction and follow it until it is done.

Ctrl-C cancels the task and waits until the arm has stopped; a second Ctrl-C leaves at once.
Exit status: 0 done, 1 refused or failed (the code is shown), 2 the words cannot be used, 3 nobody answers, or
not any more, 130 cancelled.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bridgevla.msg import TaskStatus
    from rclpy.node import Node
    from rich.console import Console

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_NOBODY, EXIT_CANCELLED = 0, 1, 2, 3, 130
_GRACE = 3.0
"""Seconds in which a result may still come after the graph has turned to something else, or has gone."""
_SILENCE = 5.0
"""Seconds without a word of the task, which speaks ten times a second of ROS time, until that is told."""
STAGES = (
    "IDLE",
    "PLANNING",
    "AWAIT_APPROVAL",
    "MOVING",
    "GRIPPING",
    "VERIFYING",
    "HOLD",
    "DONE",
    "FAILED",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("instruction", help='plain language, e.g. "put the red cube in the blue bowl"')
    parser.add_argument("--autonomy", choices=("auto", "ask"), default="", help="move at once, or ask first")
    parser.add_argument("--plan-only", action="store_true", help="plan, do not move")
    parser.add_argument("--preempt", action="store_true", help="stop a running task first")
    parser.add_argument("--timeout", type=float, default=0.0, help="seconds of ROS time; 0: as configured")
    parser.add_argument(
        "--wait", type=float, default=15.0, help="seconds to look for the graph (default: 15)"
    )
    parser.add_argument("--namespace", default="", help="namespace of the graph")


def decode(word: str) -> str:
    """Return an argument as it can travel in a message.

    Raises:
        ValueError: Its bytes are not UTF-8; Python hands such bytes on as lone surrogates.
    """
    try:
        return os.fsencode(word).decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte {error.object[error.start]:#04x} at {error.start}"
        raise ValueError(
            f"BAD_INPUT: the instruction is not UTF-8 ({byte}); type it again, or set the terminal to UTF-8"
        ) from error


def run(args: argparse.Namespace) -> int:
    """Send the goal and follow it."""
    try:
        args.instruction = decode(args.instruction)
    except ValueError as error:
        print(f"bridgevla instruct: {error}", file=sys.stderr)
        return EXIT_USAGE

    from rich.console import Console

    from bridgevla_ros import bringup

    # The same discovery and transport as the graph.
    for name, value in bringup.build({}).environment:
        os.environ.setdefault(name, value)
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    console = Console()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("instruct", namespace=args.namespace)
    try:
        return _Follower(node, console, args).follow()
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


class _Follower:
    """One goal, from sending to result."""

    def __init__(self, node: Node, console: Console, args: argparse.Namespace) -> None:
        from bridgevla.action import ExecuteInstruction
        from bridgevla.msg import TaskStatus, WaypointPlan
        from bridgevla.srv import ApprovePlan
        from rclpy.action import ActionClient
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        from bridgevla_ros.ros import qos

        self.node = node
        self.console = console
        self.args = args
        self.action = ExecuteInstruction
        self.client = ActionClient(node, ExecuteInstruction, "execute_instruction")
        self.approve = node.create_client(ApprovePlan, "approve_plan")
        self.status: TaskStatus | None = None
        self.plan: WaypointPlan | None = None
        self.asked = ""
        self.interrupts = 0
        self.stage = ""
        self.newest: TaskStatus | None = None
        self.doubtful: float | None = None
        self.heard, self.silent = time.monotonic(), False
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.row = self.bar.add_task("sent", total=1.0)
        node.create_subscription(WaypointPlan, "plan", self._on_plan, qos.LATCHED)
        node.create_subscription(TaskStatus, "status", self._on_status, qos.LATCHED)

    def follow(self) -> int:
        """Send, show, cancel on Ctrl-C; returns the exit status."""
        old = signal.signal(signal.SIGINT, self._on_interrupt)
        try:
            with self.bar:
                return self._follow()
        finally:
            signal.signal(signal.SIGINT, old)

    def _follow(self) -> int:
        if not self._wait_for_server():
            return EXIT_CANCELLED if self.interrupts else EXIT_NOBODY
        goal = self.action.Goal(
            instruction=self.args.instruction,
            autonomy=self.args.autonomy,
            plan_only=self.args.plan_only,
            preempt=self.args.preempt,
        )
        goal.timeout.sec = int(self.args.timeout)
        goal.timeout.nanosec = int(self.args.timeout % 1.0 * 1e9)
        sending = self.client.send_goal_async(goal, feedback_callback=self._on_feedback)
        # A goal that is on its way can be cancelled only once it is accepted.
        handle = self._until(sending, interrupts=2, seconds=self.args.wait)
        if handle is None:
            if self.interrupts >= 2:
                return EXIT_CANCELLED
            self.console.print("[red]no answer[/]: the task node was there and did not take the goal")
            self.console.print("what to do: look at its log; if it was just started again, ask once more")
            return EXIT_NOBODY
        if not handle.accepted:
            self.console.print(
                "[red]refused[/]: the task node does not take the goal; is a task running already?"
            )
            self.console.print("what to do: add --preempt to stop that task first, or wait for it")
            return EXIT_FAILED
        result = handle.get_result_async()
        cancelling: Any = None
        self.heard = time.monotonic()
        while not result.done():
            self._spin()
            self._note_silence()
            self._ask_for_approval()
            if self.interrupts and cancelling is None:
                self.console.print("cancelling; the arm stops first (Ctrl-C again leaves at once)")
                cancelling = handle.cancel_goal_async()
            if self.interrupts > 1:
                return EXIT_CANCELLED
            if self._lost():
                self.console.print("[red]lost[/]: the task node ended, or was started again, during the task")
                self.console.print(
                    "the arm has stopped and holds; what to do: look at the log of task, ask again"
                )
                return EXIT_NOBODY
        return self._show_result(result.result())

    def _lost(self) -> bool:
        """Whether no result will come: for a while nobody serves the goal, or another task has its place."""
        mine, now = self.status, self.newest
        gone = not self.client.server_is_ready()
        if gone or (mine is not None and now is not None and now.task_id != mine.task_id):
            self.doubtful = self.doubtful or time.monotonic()
            return time.monotonic() - self.doubtful > _GRACE
        self.doubtful = None
        return False

    def _note_silence(self) -> None:
        """Tell, once each time, that nothing is heard of the task, and when it is heard again."""
        silent = time.monotonic() - self.heard > _SILENCE
        if silent == self.silent:
            return
        self.silent = silent
        if not silent:
            self.console.print("the task node speaks again")
            return
        self.console.print(f"[yellow]silent[/]: no word of the task node for {_SILENCE:g} s")
        self.console.print(
            "without its lease the arm holds; what to do: wait, or look whether its process hangs, or "
            "the simulator's (kill -9 ends it; bringup starts the task node again)"
        )

    def _wait_for_server(self) -> bool:
        until = time.monotonic() + self.args.wait
        while not self.client.server_is_ready():
            self._spin()
            if self.interrupts:
                return False
            if time.monotonic() > until:
                name = self.node.get_namespace().rstrip("/") + "/execute_instruction"
                self.console.print(f"[red]nobody answers[/] on {name}")
                self.console.print(
                    "what to do: start the graph with `bridgevla up`; is ROS_DOMAIN_ID the same?"
                )
                return False
        return True

    def _until(self, future: Any, interrupts: int = 1, seconds: float = math.inf) -> Any:
        """Return what a future brings, None when so many interrupts, or seconds, came first."""
        until = time.monotonic() + seconds
        while not future.done():
            self._spin()
            if self.interrupts >= interrupts or time.monotonic() > until:
                return None
        return future.result()

    def _spin(self) -> None:
        import rclpy

        rclpy.spin_once(self.node, timeout_sec=0.1)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupts += 1

    def _on_plan(self, message: Any) -> None:
        self.plan = message

    def _on_status(self, message: Any) -> None:
        self.newest, self.heard = message, time.monotonic()

    def _on_feedback(self, message: Any) -> None:
        self.status = status = message.feedback.status
        line = describe_status(status)
        self.bar.update(self.row, completed=status.progress, description=line.split(":")[0])
        if line != self.stage:
            self.stage = line
            self.console.print(line, highlight=False, markup=False)

    def _ask_for_approval(self) -> None:
        """Let the operator decide on a plan that waits, at a terminal."""
        status, plan = self.status, self.plan
        if (
            status is None
            or plan is None
            or status.stage != status.AWAIT_APPROVAL
            or self.asked == plan.digest
        ):
            return
        if plan.plan_id != status.plan_id:
            return
        self.asked = plan.digest
        self.console.print(f"plan {plan.plan_id}: {plan.subgoal or plan.instruction}", markup=False)
        for anchor in plan.anchors:
            where = (
                f"({anchor.position.x:.2f}, {anchor.position.y:.2f}, {anchor.position.z:.2f}) m in the camera"
            )
            self.console.print(f"  {anchor.label}: {where}, confidence {anchor.confidence:.2f}", markup=False)
        self.console.print(f"  {len(plan.waypoints)} waypoints; pictured on the topic plan/image")
        if not sys.stdin.isatty():
            self.console.print("  approve it with the service approve_plan", markup=False)
            return
        from bridgevla.srv import ApprovePlan

        self.bar.stop()
        try:
            yes = input("move? [y/N] ").strip().lower() in ("y", "yes")
        except EOFError:
            yes = False
        self.bar.start()
        request = ApprovePlan.Request(plan_id=plan.plan_id, digest=plan.digest, approve=yes)
        request.reason = "" if yes else "refused at the terminal"
        answer = self._until(self.approve.call_async(request))
        if answer is not None and not answer.accepted:
            self.console.print(f"not accepted: {answer.message}", markup=False)

    def _show_result(self, wrapped: Any) -> int:
        from action_msgs.msg import GoalStatus

        from bridgevla_ros.core.errors import ErrorCode

        result, status = wrapped.result, wrapped.result.status
        if wrapped.status == GoalStatus.STATUS_CANCELED or status.code == ErrorCode.CANCELLED:
            self.console.print("[yellow]cancelled[/]")
            return EXIT_CANCELLED
        if wrapped.status == GoalStatus.STATUS_SUCCEEDED and status.code == ErrorCode.NONE:
            seen = ", seen to have worked" if result.verified else ""
            steps = f"{result.steps_done} of {status.steps_total} steps"
            self.console.print(f"[green]done[/]: {steps}{seen}. {status.message}".rstrip())
            return EXIT_DONE
        self.console.print(f"[red]{code_name(status.code)}[/]: {status.message}")
        self._explain(status)
        return EXIT_FAILED

    def _explain(self, status: TaskStatus) -> None:
        """Say what the result knows of the failure: value, limit, remedy, candidates."""
        if math.isfinite(status.value):
            limit = f", limit {status.limit:.4g} {status.unit}" if math.isfinite(status.limit) else ""
            self.console.print(f"value {status.value:.4g} {status.unit}{limit}", markup=False)
        if status.remedy:
            self.console.print(f"what to do: {status.remedy}", markup=False)
        if status.candidates:
            self.console.print("what could be meant: " + ", ".join(status.candidates), markup=False)


def code_name(code: int) -> str:
    """Return the name of an error code, the number where it has none."""
    from bridgevla_ros.core.errors import ErrorCode

    try:
        return ErrorCode(code).name
    except ValueError:
        return f"code {code}"


def describe_status(status: Any) -> str:
    """Return one line for a TaskStatus: stage, step, progress in tens, message."""
    names = {getattr(status, name): name.lower().replace("_", " ") for name in STAGES}
    parts = [names.get(status.stage, str(status.stage))]
    if status.steps_total > 1:
        parts.append(f"step {status.step + 1}/{status.steps_total}")
    if status.retries:
        parts.append(f"try {status.retries + 1}")
    if status.stage in (status.MOVING, status.GRIPPING):
        parts.append(f"{int(status.progress * 10) * 10} %")
    if status.code:
        parts.append(code_name(status.code))
    return ", ".join(parts) + (f": {status.message}" if status.message else "")
