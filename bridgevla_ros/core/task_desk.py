"""The task machine with the log of what came in; the node and a replay feed it alike."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from bridgevla_ros.core.config import param
from bridgevla_ros.core.input_log import InputKind, InputLog, InputLogger
from bridgevla_ros.core.task_machine import Output, TaskConfig, TaskMachine
from bridgevla_ros.core.types import DepthQuality, Guidance, Progress, WaypointPlan


@dataclass(frozen=True)
class TaskNodeConfig:
    """Parameters of the node beside those of the task."""

    seed: int = param(0, "Seed that goes with each plan request.", ge=0, le=2**31 - 1)
    managed_nodes: tuple[str, ...] = param(
        ("planner", "cropper", "trajectory", "action_expert"),
        "Lifecycle nodes that are configured and activated, and again after they were restarted.",
    )


class TaskDesk:
    """Feeds the machine and notes what it is fed. All times in seconds.

    Attributes:
        machine: The core.
    """

    def __init__(self, config: TaskConfig, seed: int = 0) -> None:
        self.machine = TaskMachine(config, seed=seed)
        self._log = InputLogger()
        self._lost: tuple[str, ...] | None = None
        self._untouched = True

    # ---- the operator

    def instruct(
        self,
        now: float,
        instruction: str,
        *,
        autonomy: str = "",
        plan_only: bool = False,
        preempt: bool = False,
        timeout: float = 0.0,
    ) -> str:
        """As ``TaskMachine.instruct``."""
        said = {
            "instruction": instruction,
            "autonomy": autonomy,
            "plan_only": plan_only,
            "preempt": preempt,
            "timeout": timeout,
        }
        self._log.note(InputKind.INSTRUCT, now, text=json.dumps(said))
        self._untouched = False
        return self.machine.instruct(
            now, instruction, autonomy=autonomy, plan_only=plan_only, preempt=preempt, timeout=timeout
        )

    def approve(self, now: float, plan_id: str, digest: str, approve: bool, reason: str = "") -> None:
        """As ``TaskMachine.approve``."""
        said = {"plan_id": plan_id, "digest": digest, "approve": approve, "reason": reason}
        self._log.note(InputKind.APPROVE, now, text=json.dumps(said))
        self.machine.approve(now, plan_id, digest, approve, reason)

    def cancel(self, now: float) -> bool:
        """As ``TaskMachine.cancel``."""
        self._log.note(InputKind.CANCEL, now, text="{}")
        return self.machine.cancel(now)

    # ---- the other nodes

    def on_plan(self, plan: WaypointPlan, now: float) -> None:
        """Take a plan."""
        self._log.note(InputKind.PLAN, now, plan.stamp)
        self.machine.on_plan(plan, now)

    def on_guidance(self, guidance: Guidance, now: float) -> None:
        """Take guidance."""
        self._log.note(InputKind.GUIDANCE, now, guidance.stamp)
        self.machine.on_guidance(guidance, now)

    def on_progress(self, progress: Progress, now: float) -> None:
        """Take what the streamer reports."""
        self._log.note(InputKind.PROGRESS, now, progress.stamp)
        self.machine.on_progress(progress, now)

    def on_depth_quality(self, quality: DepthQuality, now: float) -> None:
        """Take the newest depth quality."""
        self._log.note(InputKind.DEPTH_QUALITY, now, quality.stamp)
        self.machine.on_depth_quality(quality, now)

    def on_nodes(self, lost: Iterable[str], now: float) -> None:
        """Take the names of nodes that are not active; noted when they change."""
        names = tuple(lost)
        if names != self._lost:
            self._lost = names
            self._log.note(InputKind.NODES, now, text=json.dumps(names))
        self.machine.on_nodes(names, now)

    # ---- time

    def tick(self, now: float) -> list[Output]:
        """As ``TaskMachine.tick``."""
        self._log.note(InputKind.TICK, now)
        return self.machine.tick(now)

    def log(self, now: float) -> InputLog | None:
        """What came in since the last piece of the log; None in most periods."""
        piece = self._log.piece(now, self._untouched)
        if piece is not None and self._untouched and self._lost is not None:
            # Each piece that a replay may start at says which nodes are lost.
            self._log.note(InputKind.NODES, now, text=json.dumps(self._lost))
        return piece
