"""The streamer again: every command and every report of progress from the log of its inputs."""

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
from bridgevla_ros.core.streamer_config import StreamerConfig
from bridgevla_ros.core.streamer_desk import StreamerDesk, StreamerNodeConfig, StreamerOutput
from bridgevla_ros.core.types import ArmCommand
from bridgevla_ros.ros import conversions

NODE = "arm_streamer"
OUTPUTS = ("progress", "arm/joint_trajectory", "arm_streamer/joint_trajectory", "gripper/command")
NEEDS = ("arm_streamer/inputs",)


class StreamerReplay:
    """Ticks a streamer at the recorded times."""

    def __init__(self, recording: Recording, settings: Settings, seed: int | None) -> None:
        self._recording = recording
        self._settings, self._config = settings.configs(NODE, StreamerNodeConfig, StreamerConfig)
        self._arm = settings.arm(self._settings.robot)
        live = self._settings.command_mode == "joint"
        self._commands = Outputs(
            recording, "arm/joint_trajectory" if live else "arm_streamer/joint_trajectory"
        )
        self._poses = Outputs(recording, "arm/ee_pose")
        self._progress = Outputs(recording, "progress")
        self._widths = iter(recording.items("gripper/command"))
        self._desk: StreamerDesk | None = None
        self._begun, self._ended = float("inf"), float("-inf")
        self.weights: dict[str, tuple[str, str]] = {}

    def answers(self) -> Iterator[Answer | Missing | Skipped]:
        """Every command and progress of the recorded control periods."""
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
        self._desk = StreamerDesk(self._config, self._arm)
        self._begun, self._ended = float("inf"), float("-inf")

    def _take(self, entry: Entry, desk: StreamerDesk) -> Iterator[Answer]:
        kind, message, names = entry.kind, entry.message, self._arm.joint_names
        if kind == InputKind.TICK:
            self._begun, self._ended = min(self._begun, entry.now), entry.now
            yield from self._compare(desk.tick(entry.now))
        elif kind == InputKind.JOINTS:
            desk.on_joints(conversions.joint_state_from_msg(message, names))
        elif kind == InputKind.GUIDANCE:
            desk.on_guidance(conversions.guidance_from_msg(message))
        elif kind == InputKind.LEASE:
            desk.on_lease(conversions.lease_from_msg(message))
        elif kind == InputKind.CHUNK:
            desk.on_chunk(self._chunk(message), entry.stamp, entry.now)
        elif kind == InputKind.STOP:
            desk.stop(entry.said["reason"])
        elif kind == InputKind.HOLD:
            desk.hold(entry.said["reason"])
        elif kind == InputKind.RESUME:
            try:
                desk.resume(entry.now)
            except BridgeError:
                pass  # refused then as well: the operator was told so, and nothing changed

    def _chunk(self, message: Any) -> Any:
        try:
            return conversions.action_chunk_from_msg(message, self._arm.joint_names)
        except BridgeError as error:
            return error

    def _compare(self, output: StreamerOutput) -> Iterator[Answer]:
        base = self._arm.config.base_frame
        if output.command is not None:
            yield self._command(output.command, base)
        if output.gripper is not None:
            yield self._gripper(output.gripper, output.progress.stamp)
        if output.report:
            progress = output.progress
            item = self._progress.next(progress.stamp)
            made = conversions.progress_to_msg(progress, base)
            key = f"{progress.guidance_id or 'no guidance'} {progress.state.name.lower()}"
            yield Answer(
                NODE, "progress", -1 if item is None else item.index, progress.stamp, key,
                None if item is None else conversions.progress_from_msg(self._progress.message(item)),
                conversions.progress_from_msg(crossed(made)), made,
            )  # fmt: skip

    def _command(self, command: ArmCommand, base: str) -> Answer:
        names = self._arm.joint_names
        trajectory, pose, _ = conversions.arm_command_to_msgs(command, names, base)
        again = conversions.arm_command_from_msgs(trajectory, pose, None, names)
        item, there = self._commands.next(command.stamp), self._poses.next(command.stamp)
        expected = None
        if item is not None:
            # Poses are telemetry in joint mode; a bag without them still has its commands compared.
            said = pose if there is None else self._poses.message(there)
            expected = conversions.arm_command_from_msgs(self._commands.message(item), said, None, names)
        index = -1 if item is None else item.index
        return Answer(
            NODE,
            self._commands.name,
            index,
            command.stamp,
            f"at {command.stamp:.3f} s",
            expected,
            again,
            trajectory,
        )

    def _gripper(self, width: float, stamp: float) -> Answer:
        item = next(self._widths, None)
        expected = None
        if item is not None:
            expected = conversions.gripper_command_from_msg(self._recording.message(item))
        index = -1 if item is None else item.index
        made = conversions.gripper_command_to_msg(width)
        again = conversions.gripper_command_from_msg(made)
        return Answer(NODE, "gripper/command", index, stamp, f"at {stamp:.3f} s", expected, again, made)

    def _unmatched(self) -> Iterator[Answer]:
        """Commands and progress that were recorded and did not come again."""
        if self._desk is None:
            return
        for outputs, read in ((self._commands, "command"), (self._progress, "progress")):
            for item in outputs.left(self._begun, self._ended):
                message = outputs.message(item)
                expected = (
                    conversions.progress_from_msg(message)
                    if read == "progress"
                    else conversions.joint_trajectory_from_msg(message, self._arm.joint_names)
                )
                yield Answer(
                    NODE, outputs.name, item.index, item.stamp, f"at {item.stamp:.3f} s", expected, None
                )
