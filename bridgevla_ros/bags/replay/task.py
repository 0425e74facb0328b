"""The task again: every request, lease and status from the log of its inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bridgevla_ros.bags.replay.crossing import crossed
from bridgevla_ros.bags.replay.logged import Entry, Outputs, entries
from bridgevla_ros.bags.replay.recording import Recording
from bridgevla_ros.bags.replay.result import Answer, Missing, Skipped
from bridgevla_ros.bags.replay.settings import Settings
from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.core.input_log import InputKind
from bridgevla_ros.core.task_desk import TaskDesk, TaskNodeConfig
from bridgevla_ros.core.task_machine import Output, TaskConfig
from bridgevla_ros.core.types import Lease, PlanRequest
from bridgevla_ros.ros import conversions

NODE = "task"
OUTPUTS = ("status", "lease", "plan_request")
NEEDS = ("task/inputs",)


class TaskReplay:
    """Ticks a task machine at the recorded times."""

    def __init__(self, recording: Recording, settings: Settings, seed: int | None) -> None:
        self._recording = recording
        self._settings, self._config = settings.configs(NODE, TaskNodeConfig, TaskConfig)
        self._seed = self._settings.seed if seed is None else seed
        self._outputs = {name: Outputs(recording, name) for name in OUTPUTS}
        self._desk: TaskDesk | None = None
        self._begun, self._ended = float("inf"), float("-inf")
        self.weights: dict[str, tuple[str, str]] = {}

    def answers(self) -> Iterator[Answer | Missing | Skipped]:
        """Every output of the recorded ticks."""
        for entry in entries(self._recording, NODE):
            if isinstance(entry, Missing):
                yield entry
            elif isinstance(entry, Skipped):
                yield from self._start(entry)
            elif self._desk is not None:
                yield from self._take(entry, self._desk)
        yield from self._unmatched()

    def _start(self, skipped: Skipped) -> Iterator[Answer | Skipped]:
        yield from self._unmatched()
        if skipped.why:
            self._desk = None
            yield skipped
            return
        self._desk = TaskDesk(self._config, seed=self._seed)
        self._begun, self._ended = float("inf"), float("-inf")

    def _take(self, entry: Entry, desk: TaskDesk) -> Iterator[Answer]:
        kind, now, message, said = entry.kind, entry.now, entry.message, entry.said
        try:
            if kind == InputKind.TICK:
                self._begun, self._ended = min(self._begun, now), now
                for output in desk.tick(now):
                    yield self._answer(output)
            elif kind == InputKind.PLAN:
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
        except BridgeError:
            pass  # refused then as well: the operator was told so, and nothing changed

    def _answer(self, output: Output) -> Answer:
        made: Any
        if isinstance(output, PlanRequest):
            name, key, made = "plan_request", output.request_id, conversions.plan_request_to_msg(output)
        elif isinstance(output, Lease):
            name, key, made = "lease", output.guidance_id or "revoked", conversions.lease_to_msg(output)
        else:
            name, key = "status", f"{output.task_id} {output.stage.name.lower()}"
            made = conversions.task_status_to_msg(output)
        item = self._outputs[name].next(output.stamp)
        expected = None if item is None else _READ[name](self._recording.message(item))
        index = -1 if item is None else item.index
        return Answer(NODE, name, index, output.stamp, key, expected, _READ[name](crossed(made)), made)

    def _unmatched(self) -> Iterator[Answer]:
        """What was recorded and did not come again."""
        if self._desk is None:
            return
        for name, outputs in self._outputs.items():
            for item in outputs.left(self._begun, self._ended):
                expected = _READ[name](outputs.message(item))
                yield Answer(NODE, name, item.index, item.stamp, f"at {item.stamp:.3f} s", expected, None)


_READ: dict[str, Any] = {
    "plan_request": conversions.plan_request_from_msg,
    "lease": conversions.lease_from_msg,
    "status": conversions.task_status_from_msg,
}
