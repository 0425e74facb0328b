"""The two-turn conversation, for every backend that writes text."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import RgbdFrame
from bridgevla_ros.planner import conventions, parse, prompt
from bridgevla_ros.planner.answers import Anchor, Anchors, LocalWaypoint
from bridgevla_ros.planner.config import PlannerConfig


@dataclass
class Usage:
    """What the answers of one plan cost.

    Attributes:
        tokens: Written by the model (pieces of a stream where the server does not count).
        encode: Seconds from asking to the first token, over both turns: image and words are read by then.
        generate: Seconds from the first token to the last, over both turns.
        cached: Turns that were answered from memory.
    """

    tokens: int = 0
    encode: float = 0.0
    generate: float = 0.0
    cached: int = 0

    @property
    def tokens_per_second(self) -> float:
        """0 before anything was written."""
        return self.tokens / self.generate if self.generate > 0.0 else 0.0


class ChatBackend(ABC):
    """Anchors from the first turn, waypoints from the second. One plan at a time.

    Args:
        config: Convention, limits, sampling.

    Attributes:
        usage: Of the present plan.
        on_progress: Called while an answer grows, with the tokens so far.
    """

    name = "chat"
    sha256 = ""

    def __init__(self, config: PlannerConfig) -> None:
        self.config = config
        conventions.convention(config.convention)
        self.usage = Usage()
        self.on_progress: Callable[[int], None] = lambda tokens: None
        self._cancelled = threading.Event()
        self._history: list[prompt.Message] = []
        self._answer = ""
        self._asked = self._heard = 0.0
        self._remembered: OrderedDict[str, str] = OrderedDict()

    @abstractmethod
    def generate(self, messages: list[prompt.Message], frame: RgbdFrame, seed: int) -> str:
        """The model's next answer.

        Raises:
            BridgeError: MODEL_ERROR, TIMEOUT, CANCELLED.
        """

    def anchors(self, frame: RgbdFrame, T_base_camera: Transform, clause: str, seed: int) -> Anchors:
        """First turn. Zero points mean NO_TARGET."""
        self._cancelled.clear()
        self.usage = Usage()
        self._history = prompt.first_turn(clause, self.config.convention)
        self._answer = self.ask(self._history, frame, seed)
        return read_anchors(self._answer, self.config.convention, frame, clause)

    def waypoints(
        self, frame: RgbdFrame, clause: str, anchors: Anchors, depths: Array, seed: int
    ) -> list[LocalWaypoint]:
        """Second turn, in the same conversation."""
        messages = prompt.second_turn(self._history, self._answer, depths, frame.intrinsics)
        return parse.waypoints(self.ask(messages, frame, seed), len(depths))

    def cancel(self) -> None:
        """End the answer that is being written; from any thread."""
        self._cancelled.set()

    def ask(self, messages: list[prompt.Message], frame: RgbdFrame, seed: int) -> str:
        """The answer to a conversation about an image, counted in ``usage``. Raises as ``generate``.

        The very same question about the very same pixels with the same seed is answered from memory: a plan
        that was shown and is then carried out, a bag that is replayed. Depth is always lifted afresh.
        """
        key = _key(messages, frame, seed)
        if key in self._remembered:
            self._remembered.move_to_end(key)
            self.usage.cached += 1
            return self._remembered[key]
        self._asked = self._heard = time.monotonic()
        answer = self.generate(messages, frame, seed)
        if self.config.cached_answers:
            self._remembered[key] = answer
            while len(self._remembered) > self.config.cached_answers:
                self._remembered.popitem(last=False)
        return answer

    def _wrote(self) -> None:
        """Count one more token of the answer.

        Raises:
            BridgeError: CANCELLED.
        """
        now = time.monotonic()
        if self._heard == self._asked:
            self.usage.encode += now - self._asked
        else:
            self.usage.generate += now - self._heard
        self._heard = now
        self.usage.tokens += 1
        self.on_progress(self.usage.tokens)
        self.check_cancelled()

    def check_cancelled(self) -> None:
        """Raises BridgeError CANCELLED once ``cancel`` was called."""
        if self._cancelled.is_set():
            raise BridgeError(ErrorCode.CANCELLED, "the model was stopped: its answer is no longer wanted")


def _key(messages: list[prompt.Message], frame: RgbdFrame, seed: int) -> str:
    digest = hashlib.sha256(json.dumps([messages, frame.rgb.shape, seed]).encode())
    digest.update(np.ascontiguousarray(frame.rgb).tobytes())
    return digest.hexdigest()


def read_anchors(text: str, name: str, frame: RgbdFrame, clause: str) -> Anchors:
    """Points of an answer as anchors: the first is the source, the second the destination.

    Raises:
        BridgeError: PARSE, OUT_OF_RANGE, NO_TARGET (the model says that there is nothing).
    """
    found = parse.points(text, name)
    if not found:
        raise BridgeError(
            ErrorCode.NO_TARGET,
            f"the model sees nothing to take for {clause!r}",
            remedy="name what is on the table",
        )
    if len(found) > 2:
        raise BridgeError(
            ErrorCode.AMBIGUOUS,
            f"the model wrote {len(found)} points; a thing and a place are two",
            value=float(len(found)),
            limit=2.0,
            candidates=tuple(label for _, _, label in found if label),
        )
    height, width = frame.rgb.shape[:2]
    pixels = conventions.to_pixels(np.array([p[:2] for p in found]), name, width, height)
    pixels = np.clip(pixels, 0.0, np.array([width - 1.0, height - 1.0]))
    names = [label or ("source", "destination")[i] for i, (_, _, label) in enumerate(found)]
    anchors = [Anchor(n, p, 1.0) for n, p in zip(names, pixels, strict=True)]
    return Anchors(anchors[0], anchors[1] if len(anchors) > 1 else None)
