"""The whole graph from one program: start it on a ROS domain of its own, talk to it, end it.

``bridgevla demo`` and the end-to-end tests use it; an operator's programs can.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import rclpy
from bridgevla.msg import Progress as ProgressMsg
from bridgevla.msg import SimOutcome, TaskStatus, WaypointPlan
from bridgevla.srv import Instruct
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.context import Context
from rclpy.experimental import EventsExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from bridgevla_ros import bringup
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.ros import conversions, qos
from bridgevla_ros.ros.domain import free_domain, release_domain
from bridgevla_ros.supervisor import Supervisor

ENDED = (TaskStatus.DONE, TaskStatus.FAILED)
MANAGED = ("planner", "cropper", "trajectory", "action_expert")


class _Lifecycle:
    """Asks a managed node for its state, again and again."""

    def __init__(self, node: Node, name: str) -> None:
        self._client = node.create_client(GetState, f"{name}/get_state")
        self._answer: Any = None
        self._state = State.PRIMARY_STATE_UNKNOWN
        self._asked = -1.0

    def active(self) -> bool:
        """Whether the newest answer said so; asks anew now and then."""
        now = time.monotonic()
        if self._answer is not None and self._answer.done():
            self._state = self._answer.result().current_state.id
            self._answer = None
        overdue = self._answer is None or now - self._asked > 2.0
        if overdue and now - self._asked > 0.3 and self._client.service_is_ready():
            self._answer, self._asked = self._client.call_async(GetState.Request()), now
        return bool(self._state == State.PRIMARY_STATE_ACTIVE)


class LogFiles:
    """Keeps what each process says in a file of its own.

    Args:
        folder: Where; made if needed.
        also: Called with (process, line) for each line as well.
    """

    def __init__(self, folder: Path, also: Callable[[str, str], None] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._also = also
        self._files: dict[str, Any] = {}

    def __call__(self, name: str, line: str) -> None:
        """Take in one line."""
        if name not in self._files:
            self._files[name] = (self.folder / f"{name}.log").open("w", encoding="utf-8", buffering=1)
        self._files[name].write(line + "\n")
        if self._also is not None:
            self._also(name, line)

    def tail(self, lines: int = 8) -> str:
        """The last lines of every process, for an error message."""
        return "\n".join(
            f"[{path.stem}] {line}"
            for path in sorted(self.folder.glob("*.log"))
            for line in path.read_text(encoding="utf-8").splitlines()[-lines:]
        )

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()


@dataclass
class Heard:
    """What the graph said, newest last.

    Attributes:
        statuses: (monotonic seconds, TaskStatus) at each change of task, stage, step, retries or code.
        status: The newest.
        plans: (monotonic seconds, WaypointPlan).
        outcome: The simulator's newest SimOutcome.
        progress: The streamer's newest Progress.
        first_motion: Monotonic seconds at which progress first left 0 after ``instruct``.
    """

    statuses: list[tuple[float, TaskStatus]] = field(default_factory=list)
    status: TaskStatus | None = None
    plans: list[tuple[float, WaypointPlan]] = field(default_factory=list)
    outcome: SimOutcome | None = None
    progress: ProgressMsg | None = None
    first_motion: float | None = None


class Session:
    """A running graph, as a context manager.

    Args:
        arguments: Of ``bridgevla up``, by name.
        logs: Folder for the output of the processes.
        on_line: Called with (process, line) as well.
        remappings: (from, to) pairs by node name, to come between two nodes.
    """

    def __init__(
        self,
        arguments: Mapping[str, str],
        logs: Path,
        *,
        on_line: Callable[[str, str], None] | None = None,
        remappings: Mapping[str, tuple[tuple[str, str], ...]] | None = None,
    ) -> None:
        graph = bringup.build(arguments)
        self.domain = free_domain()
        extra = {"ROS_DOMAIN_ID": str(self.domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        extra_names = remappings or {}
        self.graph = replace(
            graph,
            environment=(*graph.environment, *extra.items()),
            nodes=tuple(
                replace(n, remappings=(*n.remappings, *extra_names.get(n.name, ()))) for n in graph.nodes
            ),
        )
        self.logs = LogFiles(logs, on_line)
        self.supervisor = Supervisor(self.graph, sink=self.logs)
        self.heard = Heard()
        self.started = time.monotonic()

    def __enter__(self) -> Session:
        # Ours must find theirs: the same discovery and transport.
        os.environ.update(dict(self.graph.environment))
        self.supervisor.__enter__()
        try:
            self._context = Context()
            rclpy.init(
                args=[],
                context=self._context,
                domain_id=self.domain,
                signal_handler_options=SignalHandlerOptions.NO,
            )
            self.node: Node = rclpy.create_node(
                "operator",
                context=self._context,
                namespace=self.graph.namespace or None,
                start_parameter_services=False,
                parameter_overrides=[Parameter("use_sim_time", value=False)],
            )
            self._executor = EventsExecutor(context=self._context)
            self._executor.add_node(self.node)
            self._instruct = self.node.create_client(Instruct, "instruct")
            self._lifecycles = {n: _Lifecycle(self.node, n) for n in MANAGED if self._has(n)}
            self._listen()
        except BaseException:
            self.supervisor.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process; may be called twice."""
        self.supervisor.stop()
        if self._context.ok():
            self._executor.shutdown(timeout_sec=1.0)
            self.node.destroy_node()
            rclpy.shutdown(context=self._context)
            self._context.destroy()
        release_domain(self.domain)
        self.logs.close()

    def _listen(self) -> None:
        heard = self.heard

        def on_status(msg: TaskStatus) -> None:
            def key(s: TaskStatus) -> tuple[object, ...]:
                return s.task_id, s.stage, s.step, s.retries, s.code

            if heard.status is None or key(heard.status) != key(msg):
                heard.statuses.append((time.monotonic(), msg))
            heard.status = msg

        def on_plan(msg: WaypointPlan) -> None:
            heard.plans.append((time.monotonic(), msg))

        def on_outcome(msg: SimOutcome) -> None:
            heard.outcome = msg

        def on_progress(msg: ProgressMsg) -> None:
            heard.progress = msg
            moving = msg.state == ProgressMsg.MOVING and 0.0 < msg.progress < 1.0
            if moving and heard.first_motion is None:
                heard.first_motion = time.monotonic()

        self.node.create_subscription(TaskStatus, "status", on_status, qos.LATCHED)
        self.node.create_subscription(WaypointPlan, "plan", on_plan, qos.LATCHED)
        self.node.create_subscription(SimOutcome, "sim_arm/outcome", on_outcome, qos.LATCHED)
        self.node.create_subscription(ProgressMsg, "progress", on_progress, qos.COMMAND)

    def spin(self, seconds: float = 0.05) -> None:
        """Listen for a moment.

        Raises:
            BridgeError: SENSOR_LOST where the process that nothing works without has ended.
        """
        self._executor.spin_once(timeout_sec=seconds)
        if self.supervisor.failed:
            raise BridgeError(
                ErrorCode.SENSOR_LOST,
                f"{self.supervisor.failed} has ended:\n{self.logs.tail(3)}",
                remedy=f"look at {self.logs.folder}/{self.supervisor.failed}.log",
            )

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Listen until a condition holds; whether it does in time (wall clock)."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            self.spin()
        return True

    def missing(self) -> list[str]:
        """What is not there yet, in words; empty when the graph can take an instruction."""
        there = set(self.nodes())
        lacking = [f"node {n.name}" for n in self.graph.nodes if n.name not in there]
        if not self._instruct.service_is_ready():
            lacking.append("service instruct")
        if self.heard.status is None:
            lacking.append("status of the task")
        lacking += [f"{name} active" for name, cycle in self._lifecycles.items() if not cycle.active()]
        if self._has("sim_arm") and self.heard.outcome is None:
            lacking.append("simulator's outcome")
        return lacking

    def _has(self, name: str) -> bool:
        return any(n.name == name for n in self.graph.nodes)

    def nodes(self) -> list[str]:
        """Names of the nodes in the graph, beside this program's."""
        return sorted({n for n, _ in self.node.get_node_names_and_namespaces()} - {self.node.get_name()})

    def instruct(self, instruction: str, *, seconds: float = 10.0, **options: Any) -> Any:
        """Call the service ``instruct``; returns its response.

        Args:
            instruction: The words.
            seconds: Wall time to wait for the answer.
            options: Other fields of the request.

        Raises:
            BridgeError: TIMEOUT where nobody answers.
        """
        self.heard.first_motion = None
        answer = self._instruct.call_async(Instruct.Request(instruction=instruction, **options))
        if not self.wait(answer.done, seconds):
            raise BridgeError(
                ErrorCode.TIMEOUT,
                "the service instruct does not answer",
                value=seconds,
                limit=seconds,
                unit="s",
                remedy="look at the log of task",
            )
        return answer.result()

    def call(self, kind: type[Any], name: str, request: Any, seconds: float = 10.0) -> Any:
        """Call any other service; returns its response, None where nobody answers in time."""
        client = self.node.create_client(kind, name)
        try:
            if not self.wait(client.service_is_ready, seconds):
                return None
            answer = client.call_async(request)
            return answer.result() if self.wait(answer.done, seconds) else None
        finally:
            self.node.destroy_client(client)

    def ended(self, task_id: str) -> bool:
        """Whether a task is done or has failed."""
        status = self.heard.status
        return status is not None and status.task_id == task_id and status.stage in ENDED

    def sim_time(self) -> float:
        """Simulated seconds of the newest outcome, NaN before the first."""
        outcome = self.heard.outcome
        return conversions.stamp_from_msg(outcome.header.stamp) if outcome is not None else float("nan")
