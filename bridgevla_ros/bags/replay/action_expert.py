"""The action expert again: each recorded chunk from joints, cloud, guidance and progress that it names.

A chunk continues the one before it, so they are replayed in order from sequence 0 of each guidance, or
from a state that the bag carries.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from bridgevla_ros.bags.replay.crossing import crossed
from bridgevla_ros.bags.replay.recording import Item, Recording
from bridgevla_ros.bags.replay.result import BEFORE, Answer, Missing, Skipped
from bridgevla_ros.bags.replay.settings import Settings
from bridgevla_ros.bags.replay.state import first_stamp, read_state
from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.core.types import ActionChunk, Guidance
from bridgevla_ros.expert.config import ExpertConfig
from bridgevla_ros.expert.observer import ActionExpertNodeConfig, Idle, Observer
from bridgevla_ros.expert.policy import make_policy
from bridgevla_ros.ros import conversions

NODE = "action_expert"
OUTPUTS = ("action_chunk",)
NEEDS = ("guidance", "progress", "joint_states")


class ExpertReplay:
    """Runs the policy once more, with a memory of its own.

    Attributes:
        until: Seconds; outputs from there on are left alone.
        weights: Source -> (recorded, present) SHA-256.
    """

    NODE, NEEDS = NODE, NEEDS

    def __init__(self, recording: Recording, settings: Settings, seed: int | None) -> None:
        self._recording, self._seed = recording, seed
        self._settings, self._config = settings.configs(NODE, ActionExpertNodeConfig, ExpertConfig)
        self._arm = settings.arm(self._settings.robot)
        self._policy = make_policy(self._config, self._arm)
        self._policy.warm_up()
        self._guidance: dict[str, Guidance] = {}
        self._at = ("", -1)  # guidance and sequence that the memory belongs to
        self._first = first_stamp(recording.bag)
        self._state = read_state(recording.bag, NODE)
        self.until = math.inf
        self.weights: dict[str, tuple[str, str]] = {}

    def answers(self) -> Iterator[Answer | Missing | Skipped]:
        """Every chunk in the bag."""
        recording = self._recording
        for item in recording.items("guidance"):
            guidance = conversions.guidance_from_msg(recording.message(item))
            self._guidance[guidance.guidance_id] = guidance
        for item in recording.items("action_chunk"):
            expected = conversions.action_chunk_from_msg(recording.message(item), self._arm.joint_names)
            if math.isnan(expected.computed_at):
                yield Skipped(NODE, "recorded before outputs named their inputs")
                continue
            if expected.stamp >= self.until:
                return
            if expected.stamp < self._first:
                yield Skipped(NODE, BEFORE)
                continue
            self.weights[expected.source] = (expected.model_sha256, self._policy.model_sha256)
            yield from self._again(item, expected)

    def _again(self, item: Item, expected: ActionChunk) -> Iterator[Answer | Missing | Skipped]:
        key = f"{expected.guidance_id} chunk {expected.sequence}"
        if expected.sequence == 0:
            self._policy.reset()
        elif self._state and self._fits(expected):
            self._policy.recall({name: value[()] for name, value in self._state.items()})
            self._state = {}
        elif self._at != (expected.guidance_id, expected.sequence - 1):
            yield Skipped(NODE, "the chunks before it are not in the bag")
            return
        self._at = (expected.guidance_id, expected.sequence)
        observer = Observer(self._settings)
        missing = self._fill(observer, expected, key)
        yield from missing
        if any(m.topic != "cloud" for m in missing):
            self._at = ("", -1)
            return
        actual, refusal = None, ""
        observation = observer.observe(expected.computed_at)
        if isinstance(observation, Idle):
            refusal = observation.message
        else:
            try:
                seed = expected.seed if self._seed is None else self._seed
                actual = self._policy.chunk(observation, seed)
            except BridgeError as error:
                refusal = str(error)
        if actual is None:
            yield Answer(
                NODE, "action_chunk", item.index, expected.stamp, key, expected, None, refusal=refusal
            )
            return
        message = conversions.action_chunk_to_msg(actual, self._arm.joint_names, self._settings.base_frame)
        again = conversions.action_chunk_from_msg(crossed(message), self._arm.joint_names)
        yield Answer(NODE, "action_chunk", item.index, expected.stamp, key, expected, again, message)

    def state(self) -> dict[str, Any]:
        """What the next chunk continues from; empty where it is not known."""
        return self._policy.remembered() if self._at[0] else {}

    def _fits(self, expected: ActionChunk) -> bool:
        """Whether the state is that of the chunk before."""
        state = self._state
        return (str(state["guidance_id"]), int(state["sequence"])) == (
            expected.guidance_id,
            expected.sequence,
        )

    def _fill(self, observer: Observer, expected: ActionChunk, key: str) -> list[Missing]:
        """Give the observer what the chunk names; what is not in the bag is returned."""
        recording, missing = self._recording, []

        def lacks(topic: str, wanted: str) -> None:
            missing.append(Missing(NODE, expected.stamp, key, topic, wanted))

        for stamp in expected.joint_stamps:
            joints = recording.one("joint_states", stamp)
            if joints is None:
                lacks("joint_states", f"{stamp:.6f} s")
            else:
                observer.on_joints(conversions.joint_state_from_msg(joints, self._arm.joint_names))
        for stamp in expected.cloud_stamps:
            cloud = recording.one("cloud", stamp)
            if cloud is None:
                lacks("cloud", f"{stamp:.6f} s")
            else:
                observer.on_cloud(conversions.cloud_from_msg(cloud), cloud.header.frame_id)
        guidance = self._guidance.get(expected.guidance_id)
        if guidance is None:
            lacks("guidance", expected.guidance_id)
        else:
            observer.on_guidance(guidance)
        progress = recording.one("progress", expected.progress_stamp)
        if progress is None:
            lacks("progress", f"{expected.progress_stamp:.6f} s")
        else:
            observer.on_progress(conversions.progress_from_msg(progress))
        return missing
