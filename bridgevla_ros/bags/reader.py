"""Read bags, whole ones and those of a recorder that was killed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mcap.exceptions import McapError
from mcap.reader import NonSeekingReader, make_reader

from bridgevla_ros.bags.definitions import ensure, make_typestore
from bridgevla_ros.core.errors import BridgeError, ErrorCode


@dataclass(frozen=True)
class BagMessage:
    """One message of a bag.

    Attributes:
        topic: Name.
        msgtype: e.g. "bridgevla/msg/Guidance".
        received: Seconds of the wall clock at receipt.
        message: Decoded; it has the fields of the ROS message, so that ``ros.conversions`` takes it.
    """

    topic: str
    msgtype: str
    received: float
    message: Any


class Bag:
    """A recorded run.

    Args:
        path: Folder of the bag, or its .mcap file.

    Raises:
        BridgeError: BAD_INPUT where there is no MCAP file.
    """

    def __init__(self, path: Path) -> None:
        self.files = sorted(path.glob("*.mcap")) if path.is_dir() else [path]
        if not self.files or not all(f.is_file() for f in self.files):
            raise BridgeError(
                ErrorCode.BAD_INPUT, f"{path} holds no .mcap file", remedy="name a bag's folder"
            )
        self.path = path

    @cached_property
    def _store(self) -> Any:
        return make_typestore()

    def raw(self, topics: Collection[str] | None = None) -> Iterator[tuple[str, str, int, bytes]]:
        """Topic, type, nanoseconds of receipt and CDR bytes, in the order of receipt.

        A bag that was cut off is read up to where it ends.
        """
        for file in self.files:
            with file.open("rb") as stream:
                try:
                    finished = make_reader(stream).get_summary() is not None
                except McapError:
                    finished = False
                stream.seek(0)
                reader = make_reader(stream) if finished else NonSeekingReader(stream)
                found = reader.iter_messages(topics=topics, log_time_order=finished)
                while True:
                    try:
                        schema, channel, message = next(found)
                    except StopIteration:
                        break
                    except McapError:
                        if finished:
                            raise
                        break
                    yield channel.topic, schema.name if schema else "", message.log_time, message.data

    def messages(self, topics: Collection[str] | None = None) -> Iterator[BagMessage]:
        """Decoded messages in the order of receipt; ``topics`` None for all."""
        for topic, msgtype, stamp, data in self.raw(topics):
            ensure(self._store, msgtype)
            yield BagMessage(topic, msgtype, stamp / 1e9, self._store.deserialize_cdr(data, msgtype))

    def topics(self) -> dict[str, tuple[str, int]]:
        """Topic -> (type, number of messages)."""
        counts: dict[str, tuple[str, int]] = {}
        for topic, msgtype, _, _ in self.raw():
            counts[topic] = (msgtype, counts.get(topic, ("", 0))[1] + 1)
        return counts

    def last(self, topic: str) -> Any | None:
        """The last message of a topic, None where there is none."""
        newest: tuple[str, bytes] | None = None
        for _, msgtype, _, data in self.raw([topic]):
            newest = (msgtype, data)
        if newest is None:
            return None
        ensure(self._store, newest[0])
        return self._store.deserialize_cdr(newest[1], newest[0])
