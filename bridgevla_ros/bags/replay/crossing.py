"""What becomes of an output on its way through a message, as its receivers and the recorder saw it."""

from __future__ import annotations

from typing import Any

from rclpy.serialization import deserialize_message, serialize_message


def crossed(message: Any) -> Any:
    """The message as it arrives: float32 fields have lost what does not fit them."""
    return deserialize_message(serialize_message(message), type(message))
