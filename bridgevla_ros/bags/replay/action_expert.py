"""The action expert again: each recorded chunk from joints, cloud, guidance and progress that it names.

A chunk continues the one before it, so they are replayed in order from sequence 0 of each guidance, or
from a state that the bag carries.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bridgevla_ros.bags.replay.crossing import crossed
from bridgevla_ros.bags.replay.recording import Item, Recording
from bridgevla_ros.bags.replay.remembering import RememberingReplay
from bridgevla_ros.bags.replay.result import Answer, Missing, Skipped
from bridgevla_ros.bags.replay.settings import Settings
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.types import ActionChunk
from bridgevla_ros.expert.config import ExpertConfig
from bridgevla_ros.expert.following import ExpertObservation, FollowPolicy
from bridgevla_ros.expert.observer import ActionExpertNodeConfig, Idle, Observer
from bridgevla_ros.expert.policy import make_policy
from bridgevla_ros.ros import conversions


class ExpertReplay(RememberingReplay):
    """Runs the policy once more, with a memory of its own."""

    node = "action_expert"

    def __init__(self, recording: Recording, settings: Settings, seed: int | None) -> None:
        super().__init__(recording)
        self._seed = seed
        self._settings, self._config = settings.configs(self.node, ActionExpertNodeConfig, ExpertConfig)
        self._arm = settings.arm(self._settings.robot)
        self._policy = settings.loaded(self._config, self._settings.robot, self._load)
        self._policy.reset()
        self._at = ("", -1)  # guidance and sequence that the memory belongs to

    def _load(self) -> FollowPolicy:
        policy = make_policy(self._config, self._arm)
        policy.warm_up()
        return policy

    def answers(self) -> Iterator[Answer | Missing | Skipped]:
        """Every chunk in the bag, and every refusal in the place of one."""
        names = self._arm.joint_names
        chunks = self.recording.items("action_chunk")
        for found in self.due(chunks, lambda message: conversions.action_chunk_from_msg(message, names)):
            if isinstance(found, Skipped):
                yield found
                continue
            item, expected = found
            self.weights[expected.source] = (expected.model_sha256, self._policy.model_sha256)
            yield from self._again(item, expected)

    def _again(self, item: Item, expected: ActionChunk) -> Iterator[Answer | Missing | Skipped]:
        key = f"{expected.guidance_id} chunk {expected.sequence}"
        if expected.sequence == 0:
            self._policy.reset()
        elif self.carried and self._fits(expected):
            self._policy.recall({name: value[()] for name, value in self.carried.items()})
            self.carried = {}
        elif self._at != (expected.guidance_id, expected.sequence - 1):
            yield Skipped(self.node, "the chunks before it are not in the bag")
            return
        # A refusal leaves no trace: the next chunk has its sequence and continues from the one before it.
        refused = expected.code != ErrorCode.NONE
        self._at = (expected.guidance_id, expected.sequence - refused)
        observer = Observer(self._settings)
        missing = self._fill(observer, expected, key)
        yield from missing
        if any(m.topic != "cloud" for m in missing):
            self._at = self._at if refused else ("", -1)
            return
        actual, refusal = None, ""
        observation = observer.observe(expected.computed_at)
        if isinstance(observation, Idle):
            refusal = observation.message
        else:
            actual = self._chunk(observation, expected.seed if self._seed is None else self._seed, refused)
        made = again = None
        if actual is not None:
            names = self._arm.joint_names
            made = conversions.action_chunk_to_msg(actual, names, self._settings.base_frame)
            again = conversions.action_chunk_from_msg(crossed(made), names)
        yield Answer(
            self.node, "action_chunk", item.index, expected.stamp, key, expected, again, made, refusal
        )

    def _chunk(self, observation: ExpertObservation, seed: int, refused: bool) -> ActionChunk:
        """What is put out now; where it was refused then, the memory stays as it was."""
        before = self._policy.remembered() if refused else {}
        try:
            chunk = self._policy.chunk(observation, seed)
        except BridgeError as error:
            return self._policy.refusal(observation, seed, error)
        if refused:
            self._policy.recall(before)
        return chunk

    def state(self) -> dict[str, Any]:
        """What the next chunk continues from; empty where it is not known."""
        return self._policy.remembered() if self._at[0] else {}

    def _fits(self, expected: ActionChunk) -> bool:
        """Whether the state is that of the chunk before."""
        state = self.carried
        return (str(state["guidance_id"]), int(state["sequence"])) == (
            expected.guidance_id,
            expected.sequence,
        )

    def _fill(self, observer: Observer, expected: ActionChunk, key: str) -> list[Missing]:
        """Give the observer what the chunk names; what is not in the bag is returned."""
        recording, missing = self.recording, []

        def lacks(topic: str, wanted: str) -> None:
            missing.append(Missing(self.node, expected.stamp, key, topic, wanted))

        for stamp in expected.joint_stamps:
            joints = recording.one("joint_states", stamp)
            if joints is None:
                lacks("joint_states", f"{stamp:.6f} s")
            else:
                observer.on_joints(conversions.joint_state_from_msg(joints, self._arm.config))
        for stamp in expected.cloud_stamps:
            cloud = recording.one("cloud", stamp)
            if cloud is None:
                lacks("cloud", f"{stamp:.6f} s")
            else:
                observer.on_cloud(conversions.cloud_from_msg(cloud), cloud.header.frame_id)
        guidance = self.guidance(expected.guidance_id)
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
