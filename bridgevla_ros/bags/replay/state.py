"""What cropper and action expert remembered where a piece was cut from a recording: read from the piece."""

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
