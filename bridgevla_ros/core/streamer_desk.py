"""The streamer with what goes out at which period, and the log of what came in."""

from __future__ import annotations

import json
from dataclasses import dataclass

from bridgevla_ros.core.config import param
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.input_log import InputKind, InputLog, InputLogger
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.streamer import Streamer
from bridgevla_ros.core.streamer_config import StreamerConfig
from bridgevla_ros.core.types import (
    ActionChunk,
    ArmCommand,
    Guidance,
    JointState,
    Lease,
    Progress,
    StreamerState,
)

# Progress goes out every second control period; a gripper command is repeated every tenth.
_PROGRESS_EVERY = 2
_GRIPPER_EVERY = 10


@dataclass(frozen=True)
class StreamerNodeConfig:
    """Parameters of the node beside those of the streamer."""

    robot: str = param("panda_2f85", "Robot of config/robots, or a path to its YAML file.")
    command_mode: str = param(
        "joint",
        "What the arm obeys: joint trajectories, or end-effector poses; the other is telemetry.",
        choices=("joint", "ee"),
    )
    realtime_priority: int = param(
        0, "SCHED_FIFO priority of this process where permitted; 0 leaves it normal.", ge=0, le=90
    )


@dataclass(frozen=True, eq=False)
class StreamerOutput:
    """What goes out after one control period.

    Attributes:
        command: For the arm; None where nothing is commanded.
        gripper: Metres between the finger pads to command; None to say nothing.
        progress: What the streamer is at.
        report: ``progress`` is to be published.
        changed: State, code or events differ from the last report.
        log: What came in since the last piece of the log; None in most periods.
    """

    command: ArmCommand | None
    gripper: float | None
    progress: Progress
    report: bool
    changed: bool
    log: InputLog | None


class StreamerDesk:
    """Feeds the streamer and notes what it is fed; the node and a replay do the same through it.

    Attributes:
        streamer: The core.
    """

    def __init__(self, config: StreamerConfig, arm: ArmModel) -> None:
        self.streamer = Streamer(config, arm)
        self._log = InputLogger()
        self._ticks = 0
        self._now = 0.0
        self._gripper_width = float("nan")
        self._reported: tuple[StreamerState, ErrorCode, int] | None = None

    @property
    def code(self) -> ErrorCode:
        """Of the last report; NONE before the first."""
        return ErrorCode.NONE if self._reported is None else self._reported[1]

    # ---- inputs; times in seconds

    def on_joints(self, state: JointState) -> None:
        """Take a measurement."""
        self._log.note(InputKind.JOINTS, self._now, state.stamp)
        self.streamer.on_joint_state(state)

    def on_guidance(self, guidance: Guidance) -> None:
        """Take guidance."""
        self._log.note(InputKind.GUIDANCE, self._now, guidance.stamp)
        self.streamer.on_guidance(guidance)

    def on_lease(self, lease: Lease) -> None:
        """Take permission to move."""
        self._log.note(InputKind.LEASE, self._now, lease.stamp)
        self.streamer.on_lease(lease)

    def on_chunk(self, chunk: ActionChunk | BridgeError, stamp: float, now: float) -> None:
        """Take a chunk, or why it could not be read."""
        self._log.note(InputKind.CHUNK, now, stamp)
        if isinstance(chunk, BridgeError):
            self.streamer.on_bad_chunk(chunk)
        else:
            self.streamer.on_chunk(chunk, now)

    def stop(self, reason: str) -> None:
        """Protective stop."""
        self._log.note(InputKind.STOP, self._now, text=json.dumps({"reason": reason}))
        self.streamer.stop(reason)

    def hold(self, reason: str) -> None:
        """Slow down and keep still."""
        self._log.note(InputKind.HOLD, self._now, text=json.dumps({"reason": reason}))
        self.streamer.hold(reason)

    def resume(self, now: float) -> None:
        """Go on; BridgeError as ``Streamer.resume``."""
        self._log.note(InputKind.RESUME, now, text="{}")
        self.streamer.resume(now)

    # ---- the control period

    def tick(self, now: float) -> StreamerOutput:
        """Run one control period and say what goes out."""
        self._log.note(InputKind.TICK, now)
        self._now = now
        self._ticks += 1
        command, progress = self.streamer.tick(now)
        key = (progress.state, progress.code, progress.events_done)
        changed = key != self._reported
        self._reported = key
        return StreamerOutput(
            command,
            None if command is None else self._gripper(command),
            progress,
            changed or self._ticks % _PROGRESS_EVERY == 0,
            changed,
            self._log.piece(now, self.streamer.untouched),
        )

    def _gripper(self, command: ArmCommand) -> float | None:
        width = command.gripper_width
        changed = width != self._gripper_width
        self._gripper_width = width
        due = changed or self._ticks % _GRIPPER_EVERY == 0
        return width if due and width == width else None  # NaN leaves the gripper as it is
