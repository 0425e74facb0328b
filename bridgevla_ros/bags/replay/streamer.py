"""The streamer again: every command and every report of progress from the log of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from bridgevla_ros.bags.replay.crossing import crossed
from bridgevla_ros.bags.replay.logged import Entry, LoggedReplay, Outputs
from bridgevla_ros.bags.replay.recording import Recording
from bridgevla_ros.bags.replay.result import Answer
from bridgevla_ros.bags.replay.settings import Settings
from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.core.input_log import InputKind
from bridgevla_ros.core.streamer_config import StreamerConfig
from bridgevla_ros.core.streamer_desk import StreamerDesk, StreamerNodeConfig, StreamerOutput
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import ArmCommand
from bridgevla_ros.ros import conversions


class StreamerReplay(LoggedReplay[StreamerDesk]):
    """Ticks a streamer at the recorded times."""

    node = "arm_streamer"

    def __init__(self, recording: Recording, settings: Settings, seed: int | None) -> None:
        super().__init__(recording)
        self._settings, self._config = settings.configs(self.node, StreamerNodeConfig, StreamerConfig)
        self._arm = settings.arm(self._settings.robot)
        live = self._settings.command_mode == "joint"
        self._commands = Outputs(
            recording, "arm/joint_trajectory" if live else "arm_streamer/joint_trajectory"
        )
        self._poses = Outputs(recording, "arm/ee_pose")
        self._progress = Outputs(recording, "progress")
        self._widths = iter(recording.items("gripper/command"))

    def fresh(self) -> StreamerDesk:
        """A streamer that was just started."""
        return StreamerDesk(self._config, self._arm)

    def sources(self) -> list[tuple[Outputs, Callable[[Any], Any]]]:
        """Commands and progress."""
        return [(self._commands, self._without_pose), (self._progress, conversions.progress_from_msg)]

    def _without_pose(self, message: Any) -> ArmCommand:
        parts = conversions.joint_trajectory_from_msg(message, self._arm.joint_names)
        return ArmCommand(*parts, Transform.identity())

    def feed(self, entry: Entry, desk: StreamerDesk) -> Iterator[Answer]:
        """One input."""
        kind, message = entry.kind, entry.message
        if kind == InputKind.TICK:
            yield from self._compare(desk.tick(entry.now))
        elif kind == InputKind.JOINTS:
            desk.on_joints(conversions.joint_state_from_msg(message, self._arm.config))
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
            progress, outputs = output.progress, self._progress
            item = outputs.next(progress.stamp)
            made, read = conversions.progress_to_msg(progress, base), conversions.progress_from_msg
            expected = None if item is None else read(outputs.message(item))
            actual = read(crossed(made))
            key = f"{progress.guidance_id or 'no guidance'} {progress.state.name.lower()}"
            index = -1 if item is None else item.index
            yield Answer(self.node, "progress", index, progress.stamp, key, expected, actual, made)

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
        index, key = -1 if item is None else item.index, f"at {command.stamp:.3f} s"
        return Answer(self.node, self._commands.name, index, command.stamp, key, expected, again, trajectory)

    def _gripper(self, width: float, stamp: float) -> Answer:
        item = next(self._widths, None)
        expected = None
        if item is not None:
            expected = conversions.gripper_command_from_msg(self.recording.message(item))
        index = -1 if item is None else item.index
        made = conversions.gripper_command_to_msg(width)
        again = conversions.gripper_command_from_msg(made)
        return Answer(self.node, "gripper/command", index, stamp, f"at {stamp:.3f} s", expected, again, made)
