"""A fingerprint of every bit that nodes put out."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import struct
from typing import Any

import numpy as np

from bridgevla_ros.bags.replay.result import Answer


class Digest:
    """Watches a replay: one fingerprint of every bit of each node's outputs."""

    def __init__(self) -> None:
        self._nodes: dict[str, Any] = {}

    def __call__(self, answer: Answer) -> None:
        """Take an answer."""
        digest = self._nodes.setdefault(answer.node, hashlib.sha256())
        _add(digest, (answer.topic, answer.stamp, answer.refusal, answer.actual))

    def of_nodes(self) -> dict[str, str]:
        """Node -> hexadecimal digest."""
        return {node: digest.hexdigest() for node, digest in self._nodes.items()}


def _add(digest: Any, value: Any) -> None:
    """Bits of a core value. CDR bytes would not do: what fills their gaps is left to chance."""
    digest.update(type(value).__name__.encode())
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype.str} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, enum.Enum):
        digest.update(value.name.encode())
    elif isinstance(value, float):
        digest.update(struct.pack("<d", value))
    elif dataclasses.is_dataclass(value):
        for each in dataclasses.fields(value):
            _add(digest, getattr(value, each.name))
    elif isinstance(value, (tuple, list)):
        for item in value:
            _add(digest, item)
    else:
        digest.update(str(value).encode())
