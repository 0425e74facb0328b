"""The task again: every request, lease and status from the log of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bridgevla_ros.bags.replay.crossing import crossed
from bridgevla_ros.bags.replay.logged import Entry, LoggedReplay, Outputs
from bridgevla_ros.bags.replay.parts import PARTS
from bridgevla_ros.bags.replay.recording import Recording
from bridgevla_ros.bags.replay.result import Answer
from bridgevla_ros.bags.replay.settings import Settings
from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.core.input_log import InputKind
from bridgevla_ros.core.task_desk import TaskDesk, TaskNodeConfig
from bridgevla_ros.core.task_machine import Output, TaskConfig
from bridgevla_ros.core.types import Lease, PlanRequest
from bridgevla_ros.ros import conversions


class TaskReplay(LoggedReplay[TaskDesk]):
    """Ticks a task machine at the recorded times."""

    node = "task"

    def __init__(self, recording: Recording, settings: Settings, seed: int | None) -> None:
        super().__init__(recording)
        self._settings, self._config = settings.configs(self.node, TaskNodeConfig, TaskConfig)
        self._seed = self._settings.seed if seed is None else seed
        self._outputs = {name: Outputs(recording, name) for name in PARTS[self.node].outputs}

    def fresh(self) -> TaskDesk:
        """An idle task."""
        return TaskDesk(self._config, seed=self._seed)

    def sources(self) -> list[tuple[Outputs, Callable[[Any], Any]]]:
        """All that it puts out."""
        return [(outputs, _READ[name]) for name, outputs in self._outputs.items()]

    def feed(self, entry: Entry, desk: TaskDesk) -> Iterator[Answer]:
        """One input; what was refused then is refused again, and changed nothing."""
        try:
            outputs = self._given(entry, desk)
        except BridgeError:
            return
        for output in outputs:
            yield self._answer(output)

    def _given(self, entry: Entry, desk: TaskDesk) -> Sequence[Output]:
        """What a desk puts out on one input."""
        kind, now, message, said = entry.kind, entry.now, entry.message, entry.said
        if kind == InputKind.TICK:
            return tuple(desk.tick(now))
        if kind == InputKind.PLAN:
            desk.on_plan(conversions.waypoint_plan_from_msg(message), now)
        elif kind == InputKind.GUIDANCE:
            desk.on_guidance(conversions.guidance_from_msg(message), now)
        elif kind == InputKind.PROGRESS:
            desk.on_progress(conversions.progress_from_msg(message), now)
        elif kind == InputKind.DEPTH_QUALITY:
            desk.on_depth_quality(conversions.depth_quality_from_msg(message), now)
        elif kind == InputKind.NODES:
            desk.on_nodes(said, now)
        elif kind == InputKind.INSTRUCT:
            desk.instruct(now, **said)
        elif kind == InputKind.APPROVE:
            desk.approve(now, **said)
        elif kind == InputKind.CANCEL:
            desk.cancel(now)
        return ()

    def _answer(self, output: Output) -> Answer:
        made: Any
        if isinstance(output, PlanRequest):
            name, key, made = "plan_request", output.request_id, conversions.plan_request_to_msg(output)
        elif isinstance(output, Lease):
            name, key, made = "lease", output.guidance_id or "revoked", conversions.lease_to_msg(output)
        else:
            name, key = "status", f"{output.task_id} {output.stage.name.lower()}"
            made = conversions.task_status_to_msg(output)
        outputs, read = self._outputs[name], _READ[name]
        item = outputs.next(output.stamp)
        expected = None if item is None else read(outputs.message(item))
        index = -1 if item is None else item.index
        return Answer(self.node, name, index, output.stamp, key, expected, read(crossed(made)), made)


_READ: dict[str, Any] = {
    "plan_request": conversions.plan_request_from_msg,
    "lease": conversions.lease_from_msg,
    "status": conversions.task_status_from_msg,
}
