"""What a file of a bag gives, whatever its format: connections and records, as far as it is whole."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol


@dataclass(frozen=True)
class Connection:
    """A topic as it was recorded.

    Attributes:
        topic: Name.
        msgtype: e.g. "sensor_msgs/msg/Image".
        definition: Text with all it is made of; empty where the bag has none.
        encoding: Of the definition, "ros2msg" or "ros2idl".
        type_hash: RIHS01 hash, empty where unknown.
        qos: Offered by the publishers (``rosbags.interfaces.Qos``).
        serialization: Of the messages; all that we read is "cdr".
    """

    topic: str
    msgtype: str
    definition: str = ""
    encoding: str = "ros2msg"
    type_hash: str = ""
    qos: tuple[Any, ...] = ()
    serialization: str = "cdr"

    @property
    def latched(self) -> bool:
        """Whether a late joiner gets the last message: every publisher is transient local."""
        return bool(self.qos) and all(q.durability.name == "TRANSIENT_LOCAL" for q in self.qos)


class Record(NamedTuple):
    """One message as stored: nanoseconds of receipt and of publication, CDR bytes."""

    connection: Connection
    received: int
    published: int
    data: bytes


class BagFile(Protocol):
    """One file of a bag.

    Attributes:
        path: Where.
        finished: It was closed properly, so that counts and bounds are known without reading it.
        repeated_until: Records up to this stamp (ns) are latched ones repeated from the file before; -1 for
            none.
        repeated: How many those are, by topic.
        damage: What was found broken so far.
    """

    path: Path
    finished: bool
    repeated_until: int
    repeated: dict[str, int]
    damage: list[str]

    def records(
        self, topics: Collection[str] | None, start: int | None, stop: int | None
    ) -> Iterator[Record]:
        """Records in the order of receipt; ``start`` and ``stop`` (exclusive) in nanoseconds."""

    def connections(self) -> dict[str, Connection]:
        """By topic."""

    def counts(self) -> dict[str, int] | None:
        """Messages by topic; None where the file must be read to know."""

    def bounds(self) -> tuple[int, int] | None:
        """First and last stamp, ns; None where the file must be read to know, or where it is empty."""

    def notes(self) -> dict[str, dict[str, str]]:
        """Metadata records by name, the last of a name."""

    def attachments(self) -> dict[str, bytes]:
        """Attached files by name."""
