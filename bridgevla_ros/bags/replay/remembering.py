"""What the replays of cropper and action expert share: both remember what came before."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from bridgevla_ros.bags.replay.recording import Item, Recording
from bridgevla_ros.bags.replay.result import BEFORE, Skipped
from bridgevla_ros.bags.replay.state import first_stamp, read_state
from bridgevla_ros.core.types import ActionChunk, DepthQuality, Guidance
from bridgevla_ros.ros import conversions

Output = TypeVar("Output", DepthQuality, ActionChunk)


class RememberingReplay:
    """Outputs in order, from where a memory is known.

    Attributes:
        node: Its name.
        until: Seconds; outputs from there on are left alone.
        weights: Source -> (recorded, present) SHA-256.
        carried: State that a piece of a recording carries; empty once it was taken up.
    """

    node: str

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.until = math.inf
        self.weights: dict[str, tuple[str, str]] = {}
        self.carried = read_state(recording.bag, self.node)
        self._first = first_stamp(recording.bag)
        self._guidance: dict[str, Guidance] | None = None

    def guidance(self, guidance_id: str) -> Guidance | None:
        """Recorded guidance; None where the bag lacks it."""
        if self._guidance is None:
            items = self.recording.items("guidance")
            made = [conversions.guidance_from_msg(self.recording.message(item)) for item in items]
            self._guidance = {guidance.guidance_id: guidance for guidance in made}
        return self._guidance.get(guidance_id)

    def due(
        self, items: Iterable[Item], read: Callable[[Any], Output]
    ) -> Iterator[tuple[Item, Output] | Skipped]:
        """Recorded outputs that can be replayed, and why others cannot."""
        for item in items:
            expected = read(self.recording.message(item))
            if math.isnan(expected.computed_at):
                yield Skipped(self.node, "recorded before outputs named their inputs")
            elif expected.stamp >= self.until:
                return
            elif expected.stamp < self._first:
                yield Skipped(self.node, BEFORE)
            else:
                yield item, expected
