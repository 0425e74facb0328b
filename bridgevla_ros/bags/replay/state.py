"""What cropper and action expert remember at one moment of a recording, kept inside a piece cut from it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.core.errors import BridgeError, ErrorCode

ATTACHMENT = "replay_state.npz"
"""Name of the attachment of a piece's bag."""
FIRST = "bridgevla.trim.first_stamp"
"""Key in ``Bag.custom``: nanoseconds of the header stamp from which on a piece is complete."""


def replay_state(bag: Bag, stamp: float) -> bytes:
    """State before the first output of a stamp or later, for the attachment ``ATTACHMENT``.

    Args:
        bag: The whole recording: it is replayed up to there.
        stamp: Seconds.

    Raises:
        BridgeError: BAD_INPUT where the recording itself does not replay up to there.
    """
    from bridgevla_ros.bags.replay.action_expert import ExpertReplay
    from bridgevla_ros.bags.replay.cropper import CropperReplay
    from bridgevla_ros.bags.replay.parts import PARTS
    from bridgevla_ros.bags.replay.recording import Recording
    from bridgevla_ros.bags.replay.settings import Settings

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


def read_state(bag: Bag, node: str) -> dict[str, NDArray[Any]]:
    """State of one node that a piece carries; empty where it carries none.

    Raises:
        BridgeError: BAD_INPUT where the attachment cannot be read.
    """
    data = bag.attachments().get(ATTACHMENT)
    if data is None:
        return {}
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            names = [name for name in file.files if name.startswith(f"{node}/")]
            return {name.split("/", 1)[1]: file[name] for name in names}
    except (OSError, ValueError) as error:
        raise BridgeError(
            ErrorCode.BAD_INPUT, f"{ATTACHMENT} of {bag.path} cannot be read: {error}"
        ) from error


def first_stamp(bag: Bag) -> float:
    """Seconds from which on a piece is complete; minus infinity for a whole recording."""
    said = bag.custom.get(FIRST, "")
    return int(said) / 1_000_000_000 if said.lstrip("-").isdigit() else float("-inf")
