"""The cropper again: each recorded crop from the depth image of its stamp, in the recorded order.

What the robot hides is remembered from image to image, so outputs repeat only from an empty memory on
(sequence 0), from a state that the bag carries, or once every image of a memory's length was seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

from bridgevla_ros.bags.replay.crossing import crossed
from bridgevla_ros.bags.replay.recording import Item, Recording
from bridgevla_ros.bags.replay.remembering import RememberingReplay
from bridgevla_ros.bags.replay.result import Answer, Missing, Skipped
from bridgevla_ros.bags.replay.settings import Settings
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.types import Cloud, DepthQuality
from bridgevla_ros.perception.config import CropperConfig
from bridgevla_ros.perception.cropper import Cropper
from bridgevla_ros.perception.feed import CropperFeed, CropperNodeConfig, DepthImage
from bridgevla_ros.ros import conversions

_DEPTH, _INFO = "camera/depth/image_raw", "camera/depth/camera_info"
_POSTURES = frozenset(("calibration residual",))
_WAITED = (ErrorCode.NO_TRANSFORM, ErrorCode.SENSOR_LOST)


class CropperReplay(RememberingReplay):
    """Crops once more, with a memory of its own."""

    node = "cropper"

    def __init__(self, recording: Recording, settings: Settings, seed: int | None) -> None:
        super().__init__(recording)
        self._settings, config = settings.configs(self.node, CropperNodeConfig, CropperConfig)
        self._arm = settings.arm(self._settings.robot)
        self._cropper = Cropper(config, self._arm)
        self._cropper.warm_up()
        self._known_since = math.inf  # stamp from which on no image was missed
        self._whole = False  # the memory began empty or as the recorded one was
        self._next = -1

    def answers(self) -> Iterator[Answer | Missing | Skipped]:
        """Every depth quality in the bag, and the cloud that went with it."""
        recording = self.recording
        qualities = recording.items("depth_quality")
        read = conversions.depth_quality_from_msg
        images = _Images(recording, {read(recording.message(item)).stamp for item in qualities})
        cropped: set[float] = set()
        for found in self.due(qualities, read):
            if isinstance(found, Skipped):
                yield found
                continue
            item, expected = found
            if not expected.joint_stamps:
                # Silence may be told with the stamp of the last image, which was answered already.
                image = None if expected.stamp in cropped else images.of(expected.stamp)
                yield from self._refused(item, expected, image)
            else:
                cropped.add(expected.stamp)
                yield from self._crop(item, expected, images.of(expected.stamp))

    def _crop(self, item: Item, expected: DepthQuality, image: Any) -> Iterator[Answer | Missing | Skipped]:
        self._follow(expected)
        key = f"image {expected.sequence}"
        absent = self._absent(expected, key, image)
        if absent is not None:
            self._known_since, self._whole = math.inf, False
            yield absent
            return
        made: tuple[Cloud, DepthQuality] | BridgeError
        try:
            made = self._feed(expected).crop(
                self._depth(image), self.recording.lookup(item.received), expected.computed_at
            )
        except BridgeError as error:
            made = error
        memory = self._cropper.config.memory
        known = self._whole or expected.stamp - self._known_since > memory
        self._known_since = min(self._known_since, expected.stamp)
        if not known:
            yield Skipped(
                self.node, f"what it remembered from before is not known (it remembers for {memory:g} s)"
            )
            return
        skip = frozenset() if self._whole else _POSTURES
        recorded = self.recording.at("cloud", expected.stamp)
        if isinstance(made, BridgeError):
            yield Answer(
                self.node, "depth_quality", item.index, expected.stamp, key, expected, None, refusal=str(made)
            )
            return
        cloud, quality = made
        yield self._answer(item, key, expected, quality, skip)
        if recorded:
            there = conversions.cloud_from_msg(self.recording.message(recorded[-1]))
            points = conversions.cloud_to_msg(cloud, self._settings.base_frame)
            now = conversions.cloud_from_msg(points)
            yield Answer(self.node, "cloud", recorded[-1].index, expected.stamp, key, there, now, points)

    def state(self) -> dict[str, Any]:
        """What is remembered now; empty where it is not known."""
        return dict(self._cropper.remembered()) if self._whole else {}

    def _follow(self, expected: DepthQuality) -> None:
        """Keep the memory in step with the recorded one."""
        if expected.sequence == 0:
            self._cropper.reset()
            self._whole = True
        elif self.carried and int(self.carried["sequence"]) == expected.sequence:
            self._cropper.recall(self.carried)
            self.carried, self._whole = {}, True
        elif expected.sequence != self._next:  # crops that the bag does not hold
            self._known_since, self._whole = math.inf, False
        self._next = expected.sequence + 1

    def _absent(self, expected: DepthQuality, key: str, image: Any) -> Missing | None:
        """The first input that is named and not there."""
        recording = self.recording

        def missing(topic: str, wanted: str) -> Missing:
            return Missing(self.node, expected.stamp, key, topic, wanted)

        if image is None:
            return missing(_DEPTH, f"{expected.stamp:.6f} s")
        for stamp in expected.joint_stamps:
            if not recording.at("joint_states", stamp):
                return missing("joint_states", f"{stamp:.6f} s")
        if expected.guidance_id and self.guidance(expected.guidance_id) is None:
            return missing("guidance", expected.guidance_id)
        if not math.isnan(expected.progress_stamp) and not recording.at("progress", expected.progress_stamp):
            return missing("progress", f"{expected.progress_stamp:.6f} s")
        return None

    def _feed(self, expected: DepthQuality) -> CropperFeed:
        """Just the inputs that an output names."""
        recording = self.recording
        feed = CropperFeed(self._settings, self._cropper)
        self._add_infos(feed, expected.stamp)
        for stamp in expected.joint_stamps:
            message = recording.one("joint_states", stamp)
            feed.joints.add(conversions.joint_state_from_msg(message, self._arm.config))
        guidance = self.guidance(expected.guidance_id)
        if guidance is not None:
            feed.on_guidance(guidance)
        if not math.isnan(expected.progress_stamp):
            feed.on_progress(
                conversions.progress_from_msg(recording.one("progress", expected.progress_stamp))
            )
        return feed

    def _add_infos(self, feed: CropperFeed, stamp: float) -> None:
        for info in self.recording.items(_INFO):
            if abs(info.stamp - stamp) <= self._settings.sync_tolerance:
                message = self.recording.message(info)
                feed.on_info(info.stamp, partial(conversions.intrinsics_from_msg, message))

    def _depth(self, image: Any) -> DepthImage:
        stamp = conversions.stamp_from_msg(image.header.stamp)
        frame = image.header.frame_id.lstrip("/")
        return DepthImage(stamp, frame, partial(conversions.depth_from_msg, image))

    def _refused(
        self, item: Item, expected: DepthQuality, image: Any
    ) -> Iterator[Answer | Missing | Skipped]:
        """An image that was not cropped, or silence of the camera: is there the same reason again?"""
        recording, now = self.recording, expected.computed_at
        key = f"{expected.code.name} at {expected.stamp:.3f} s"
        feed = CropperFeed(self._settings, self._cropper)
        code = ErrorCode.NONE
        if image is None:  # no image of that stamp: the camera was silent
            heard = [i for i in recording.items(_DEPTH) if i.received <= item.received and i.stamp <= now]
            silence = now - heard[-1].stamp if heard else math.inf
            code = ErrorCode.SENSOR_LOST if silence > self._settings.sensor_timeout else ErrorCode.NONE
        else:
            self._add_infos(feed, expected.stamp)
            for heard_item in recording.items("joint_states"):
                if heard_item.received <= item.received and abs(heard_item.stamp - expected.stamp) < 3.0:
                    state = conversions.joint_state_from_msg(recording.message(heard_item), self._arm.config)
                    feed.joints.add(state)
            waited = expected.code in _WAITED
            lookup = recording.lookup_until if waited else recording.lookup
            try:
                feed.crop(self._depth(image), lookup(item.received), now)
            except BridgeError as error:
                code = error.code
        quality = feed.refusal(code, expected.stamp, now)
        yield self._answer(item, key, expected, quality)

    def _answer(
        self,
        item: Item,
        key: str,
        expected: DepthQuality,
        quality: DepthQuality,
        skip: frozenset[str] = frozenset(),
    ) -> Answer:
        made = conversions.depth_quality_to_msg(quality, self.recording.message(item).header.frame_id)
        again = conversions.depth_quality_from_msg(crossed(made))
        return Answer(
            self.node, "depth_quality", item.index, expected.stamp, key, expected, again, made, skip=skip
        )


class _Images:
    """Depth images by stamp, read from the bag as they come."""

    def __init__(self, recording: Recording, stamps: set[float]) -> None:
        self._stream = recording.fetch(_DEPTH, stamps)
        self._there = {item.stamp for item in recording.items(_DEPTH)}
        self._waiting: dict[float, Any] = {}

    def of(self, stamp: float) -> Any | None:
        """The image of a stamp; None where the bag has none."""
        if stamp not in self._there:
            return None
        while stamp not in self._waiting:
            found = next(self._stream, None)
            if found is None:
                return None
            self._waiting[found[0]] = found[1]
            if len(self._waiting) > 8:  # those are asked for no more
                self._waiting.pop(next(iter(self._waiting)))
        return self._waiting.pop(stamp)
