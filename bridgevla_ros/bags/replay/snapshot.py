"""What cropper and action expert remember at one moment of a recording, to go along with a piece of it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.bags.replay.action_expert import ExpertReplay
from bridgevla_ros.bags.replay.cropper import CropperReplay
from bridgevla_ros.bags.replay.parts import PARTS
from bridgevla_ros.bags.replay.recording import Recording
from bridgevla_ros.bags.replay.settings import Settings


def replay_state(bag: Bag, stamp: float) -> bytes:
    """State before the first output of a stamp or later, for the attachment ``ATTACHMENT``.

    Args:
        bag: The whole recording: it is replayed up to there.
        stamp: Seconds.

    Raises:
        BridgeError: BAD_INPUT where the recording itself does not replay up to there.
    """
    recording, settings = Recording(bag), Settings(bag)
    arrays: dict[str, Any] = {}
    kinds: tuple[type[CropperReplay | ExpertReplay], ...] = (CropperReplay, ExpertReplay)
    for kind in kinds:
        if not all(recording.items(name) for name in PARTS[kind.node].needs):
            continue
        runner = kind(recording, settings, None)
        runner.until = stamp
        for _ in runner.answers():
            pass
        arrays |= {f"{kind.node}/{name}": value for name, value in runner.state().items()}
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    return stream.getvalue()
