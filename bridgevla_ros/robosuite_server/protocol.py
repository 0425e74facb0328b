"""Messages between two processes: a JSON header and raw arrays, length-prefixed, through pipes.

One message is ``<I header length> <I number of bytes that follow the header> header arrays``, little-endian;
the header is ``{"op": ..., "fields": {...}, "arrays": [[name, dtype, shape], ...]}`` and the arrays' bytes
follow in that order, C-contiguous. A request is answered by one message with op ``ok`` or ``error``.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_LENGTHS = struct.Struct("<II")
MAX_HEADER = 1 << 20
MAX_BYTES = 1 << 28
DTYPES = ("float64", "float32", "uint8", "int32")


class ProtocolError(Exception):
    """The other side broke off, or what came is no message."""


@dataclass(frozen=True, eq=False)
class Message:
    """One request or answer.

    Attributes:
        op: What is asked for; ``ok`` or ``error`` in an answer.
        fields: JSON values.
        arrays: Of one of ``DTYPES``.
    """

    op: str
    fields: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


def write(stream: IO[bytes], message: Message) -> None:
    """Send one message.

    Raises:
        ProtocolError: The other side is gone.
        ValueError: An array has a type that is not sent.
    """
    described, parts = [], []
    for name, array in message.arrays.items():
        array = np.ascontiguousarray(array)
        if array.dtype.name not in DTYPES:
            raise ValueError(f"array {name!r} is {array.dtype.name}; expected one of {DTYPES}")
        described.append([name, array.dtype.name, list(array.shape)])
        parts.append(array.tobytes())
    header = json.dumps({"op": message.op, "fields": message.fields, "arrays": described}).encode()
    body = b"".join(parts)
    try:
        stream.write(_LENGTHS.pack(len(header), len(body)) + header + body)
        stream.flush()
    except (BrokenPipeError, ValueError) as error:
        raise ProtocolError(f"the other side is gone: {error}") from error


def read(stream: IO[bytes]) -> Message | None:
    """Receive one message; None where the other side closed between two messages.

    Raises:
        ProtocolError: It broke off inside a message, or what came is no message.
    """
    first = stream.read(1)
    if not first:
        return None
    header_length, body_length = _LENGTHS.unpack(first + _exactly(stream, _LENGTHS.size - 1))
    if header_length > MAX_HEADER or body_length > MAX_BYTES:
        raise ProtocolError(
            f"a message of {header_length} + {body_length} bytes (limit {MAX_HEADER} + {MAX_BYTES}): "
            "something else wrote into the pipe"
        )
    raw = _exactly(stream, header_length)
    body = _exactly(stream, body_length)
    try:
        header = json.loads(raw)
        op, fields, described = str(header["op"]), dict(header["fields"]), list(header["arrays"])
        arrays, start = {}, 0
        for name, dtype, shape in described:
            if dtype not in DTYPES or any(not isinstance(n, int) or n < 0 for n in shape):
                raise ProtocolError(f"array {name!r} is said to be {dtype} {shape}")
            size = math.prod(shape) * np.dtype(dtype).itemsize
            if start + size > len(body):
                raise ProtocolError(f"array {name!r} needs {size} bytes, {len(body) - start} are left")
            arrays[str(name)] = np.frombuffer(body[start : start + size], dtype).reshape(shape)
            start += size
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"no message header: {raw[:200]!r}") from error
    if start != len(body):
        raise ProtocolError(f"{len(body) - start} bytes more than the header says")
    return Message(op, fields, arrays)


def _exactly(stream: IO[bytes], count: int) -> bytes:
    parts, left = [], count
    while left:
        part = stream.read(left)
        if not part:
            raise ProtocolError(f"the other side broke off with {left} bytes to come")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
