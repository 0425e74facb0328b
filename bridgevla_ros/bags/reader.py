"""Read bags: MCAP and sqlite3, of one or many files, whole ones and those of a recorder that was killed.

What is broken is left out and said in ``Bag.damage``; what can be read is read.
"""

from __future__ import annotations

import difflib
import re
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import zstandard

from bridgevla_ros.bags import metadata
from bridgevla_ros.bags.definitions import BagTypes
from bridgevla_ros.bags.mapping import TopicMapping
from bridgevla_ros.bags.mcap_file import McapFile
from bridgevla_ros.bags.provenance import RunRecord
from bridgevla_ros.bags.sqlite_file import SqliteFile
from bridgevla_ros.bags.storage import BagFile, Connection, Record
from bridgevla_ros.core.errors import BridgeError, ErrorCode

_SUFFIXES = (".mcap", ".db3")
_ZSTD_SUFFIXES = (".zstd", ".zst")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
"""First bytes of a message that rosbag2 compressed; CDR begins with 0."""


@dataclass(frozen=True)
class BagMessage:
    """One message of a bag.

    Attributes:
        topic: Name.
        msgtype: e.g. "bridgevla/msg/Guidance".
        received: Seconds of the wall clock at receipt.
        message: Decoded; it has the fields of the ROS message, so that ``ros.conversions`` takes it.
        received_ns: The same in nanoseconds.
        published_ns: Nanoseconds of the wall clock when it was published, that of receipt where unknown.
    """

    topic: str
    msgtype: str
    received: float
    message: Any
    received_ns: int = 0
    published_ns: int = 0


class Bag:
    """A recorded run.

    Args:
        path: Folder of the bag, or one of its files.
        mapping: For another robot's bag: its names, or the YAML file that says them.

    Attributes:
        files: Storage files in order.
        damage: What was found broken so far; complete after everything was read.

    Raises:
        BridgeError: BAD_INPUT where there is nothing that can be read.
    """

    def __init__(self, path: Path, mapping: TopicMapping | Path | None = None) -> None:
        self.path = Path(path)
        self.mapping = TopicMapping.load(mapping) if isinstance(mapping, Path) else mapping or TopicMapping()
        self._noted: list[str] = []
        self.metadata = metadata.Metadata()
        self.files = self._find()
        self._parts = self._open()
        self._types = BagTypes()
        self._left_out: set[str] = set()

    # Files -------------------------------------------------------------------------------------------------

    def _find(self) -> list[Path]:
        if not self.path.is_dir():
            if self.path.is_file() and _kind(self.path) in _SUFFIXES:
                return [self.path]
            raise BridgeError(
                ErrorCode.BAD_INPUT, f"{self.path} holds no .mcap file", remedy="name a bag's folder"
            )
        there = sorted((p for p in self.path.iterdir() if _kind(p) in _SUFFIXES), key=_natural)
        try:
            self.metadata = metadata.read(self.path)
        except FileNotFoundError:
            self._noted.append("there is no metadata.yaml: the recorder did not come to its end")
        except ValueError as error:
            self._noted.append(str(error))
        listed = [self.path / name for name in self.metadata.files]
        for path in listed:
            if path not in there:
                self._noted.append(f"{path.name} is missing")
        files = [p for p in listed if p in there] + [p for p in there if p not in listed]
        if not files:
            raise BridgeError(
                ErrorCode.BAD_INPUT, f"{self.path} holds no .mcap or .db3 file", remedy="name a bag's folder"
            )
        return files

    def _open(self) -> list[BagFile]:
        parts: list[BagFile] = []
        refused: list[BridgeError] = []
        for path in self.files:
            try:
                plain = self._unpacked(path) if path.suffix in _ZSTD_SUFFIXES else path
                parts.append(McapFile(plain) if _kind(path) == ".mcap" else SqliteFile(plain))
            except BridgeError as error:
                refused.append(error)
                self._noted.append(f"{path.name} is left out: {error.message}")
        if not parts:
            raise refused[0]
        return parts

    def _unpacked(self, path: Path) -> Path:
        """A file that was compressed whole, without its compression, for as long as this object lives."""
        folder = Path(tempfile.mkdtemp(prefix="bridgevla-bag-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        target = folder / path.stem
        with path.open("rb") as packed, target.open("wb") as out:
            try:
                zstandard.ZstdDecompressor().copy_stream(packed, out)
            except zstandard.ZstdError as error:
                self._noted.append(f"{path.name} is cut off or damaged ({error})")
        return target

    @property
    def damage(self) -> list[str]:
        """What was found broken so far."""
        return [*self._noted, *(line for part in self._parts for line in part.damage)]

    # What is in it -----------------------------------------------------------------------------------------

    @cached_property
    def _by_topic(self) -> dict[str, Connection]:
        """Connections under their recorded names, types learnt."""
        found: dict[str, Connection] = {}
        for part in self._parts:
            for topic, connection in part.connections().items():
                known = found.get(topic)
                if known is None or (connection.definition and not known.definition):
                    found[topic] = connection
                self._types.learn(connection.msgtype, connection.encoding, connection.definition)
        for theirs, ours in self.mapping.topics.items():
            if theirs not in found and self.mapping.namespace + theirs not in found:
                near = difflib.get_close_matches(theirs, found, n=1)
                hint = f"; the nearest is {near[0]}" if near else ""
                self._noted.append(f"the mapping's {theirs} (our {ours}) is not in the bag{hint}")
        return found

    def connections(self) -> dict[str, Connection]:
        """By topic, under our names: type, definition and QoS as recorded."""
        return {
            (ours := self.mapping.topic(topic)): self._under_our_names(connection, ours)
            for topic, connection in self._by_topic.items()
        }

    def _under_our_names(self, connection: Connection, topic: str) -> Connection:
        msgtype = self.mapping.msgtype(connection.msgtype)
        if msgtype == connection.msgtype and connection.definition:
            return replace(connection, topic=topic)
        if self._types.missing(msgtype):
            return replace(connection, topic=topic, msgtype=msgtype)
        text, digest = self._types.definition(msgtype)
        return replace(
            connection,
            topic=topic,
            msgtype=msgtype,
            definition=text,
            encoding="ros2msg",
            type_hash=connection.type_hash or digest,
        )

    def bounds(self) -> tuple[int, int] | None:
        """Nanoseconds of receipt of the first and the last message; None for an empty bag."""
        low: list[int] = []
        high: list[int] = []
        for part in self._parts:
            known = part.bounds()
            if known is None and part.counts() is None:
                stamps = [r.received for r in part.records(None, None, None)]
                known = (min(stamps), max(stamps)) if stamps else None
            if known is not None:
                low.append(known[0])
                high.append(known[1])
        return (min(low), max(high)) if low else None

    def topics(self) -> dict[str, tuple[str, int]]:
        """Topic -> (type, number of messages)."""
        found = {topic: (c.msgtype, 0) for topic, c in self.connections().items()}
        for index, part in enumerate(self._parts):
            counts = part.counts()
            if counts is None:
                counts = dict(Counter(r.connection.topic for r in self._of_part(index, None, None, None)))
            elif index:
                counts = {topic: n - part.repeated.get(topic, 0) for topic, n in counts.items()}
            for theirs, count in counts.items():
                ours = self.mapping.topic(theirs)
                found[ours] = (found[ours][0], found[ours][1] + count)
        return {topic: entry for topic, entry in found.items() if entry[1]}

    @cached_property
    def custom(self) -> dict[str, str]:
        """What the recorder wrote about the run: custom_data, and the metadata records as ``name.key``."""
        found: dict[str, str] = {}
        for part in self._parts:
            for name, values in part.notes().items():
                if name.startswith("bridgevla."):
                    found.update({f"{name}.{key}": value for key, value in values.items()})
        return {**found, **self.metadata.custom}

    @cached_property
    def run(self) -> RunRecord | None:
        """Parameters, versions and the rest of what made the run; None for a bag that is not ours."""
        return RunRecord.from_custom(self.custom)

    def attachments(self) -> dict[str, bytes]:
        """Attached files by name."""
        found: dict[str, bytes] = {}
        for part in self._parts:
            found.update(part.attachments())
        return found

    # Messages ----------------------------------------------------------------------------------------------

    def _of_part(
        self, index: int, topics: Collection[str] | None, start: int | None, stop: int | None
    ) -> Iterator[Record]:
        """Records of one file, without those that only repeat the file before."""
        part = self._parts[index]
        repeated = part.repeated_until if index else -1
        for record in part.records(topics, start, stop):
            if record.received > repeated:
                yield record

    def records(
        self, topics: Collection[str] | None = None, start: int | None = None, stop: int | None = None
    ) -> Iterator[Record]:
        """Records under our names, bytes as ``decode`` takes them."""
        by_topic = self._by_topic
        theirs = None if topics is None else {t for t in by_topic if self.mapping.topic(t) in topics}
        ours = self.connections()
        compressed = self.metadata.compression_mode == "message" or not self.metadata.files
        for index in range(len(self._parts)):
            for record in self._of_part(index, theirs, start, stop):
                connection = ours.get(self.mapping.topic(record.connection.topic))
                if connection is None:  # described only after the cut of a file that was not finished
                    continue
                if compressed and record.data[:4] == _ZSTD_MAGIC:
                    data = zstandard.ZstdDecompressor().decompressobj().decompress(record.data)
                    record = record._replace(data=data)
                changed = self._translated(record, connection)
                if changed is not None:
                    yield changed

    def _translated(self, record: Record, connection: Connection) -> Record | None:
        """The record with type, frames and joints under our names; None where that cannot be."""
        theirs, ours = record.connection.msgtype, connection.msgtype
        mapping = self.mapping
        if theirs == ours and not mapping.frames and not mapping.joints:
            return record._replace(connection=connection)
        try:
            if theirs != ours:
                message = self._types.convert(theirs, ours, record.data)
            else:
                if self._types.missing(ours):
                    return record._replace(connection=connection)
                store = self._types.store(ours)
                if not mapping.concerns(ours, store):
                    return record._replace(connection=connection)
                message = self._types.decode(ours, record.data)
            mapping.rename(message, ours, self._types.store(ours))
            return record._replace(connection=connection, data=self._types.encode(ours, message))
        except BridgeError as error:
            self.leave_out(connection.topic, error.message)
            return None

    def raw(
        self, topics: Collection[str] | None = None, start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[str, str, int, bytes]]:
        """Topic, type, nanoseconds of receipt and CDR bytes, in the order of receipt.

        Args:
            topics: Only these; None for all.
            start: From this stamp on, nanoseconds.
            stop: Before this stamp, nanoseconds.
        """
        for connection, received, _, data in self.records(topics, start, stop):
            yield connection.topic, connection.msgtype, received, data

    def messages(
        self, topics: Collection[str] | None = None, start: int | None = None, stop: int | None = None
    ) -> Iterator[BagMessage]:
        """Decoded messages in the order of receipt; arguments as of ``raw``.

        Raises:
            BridgeError: BAD_INPUT where a topic that was asked for is of an unknown type. With ``topics``
                None such topics are left out, and ``damage`` says so; so are single messages that cannot be
                decoded.
        """
        for connection, received, published, data in self.records(topics, start, stop):
            topic, msgtype = connection.topic, connection.msgtype
            if topic in self._left_out and topics is None:
                continue
            missing = self._types.missing(msgtype) if topic not in self._known else ""
            if missing and topics is not None:
                raise BridgeError(
                    ErrorCode.BAD_INPUT,
                    f"{topic} is of the unknown type {msgtype}: {missing}",
                    remedy="install the package that defines it, or map it to a type of the same fields",
                )
            if missing:
                self._left_out.add(topic)
                self.leave_out(topic, f"type {msgtype} is unknown: {missing}")
                continue
            self._known.add(topic)
            try:
                message = self._types.decode(msgtype, data)
            except BridgeError as error:
                self.leave_out(topic, f"messages that cannot be decoded: {error.message}")
                continue
            yield BagMessage(topic, msgtype, received / 1e9, message, received, published)

    @cached_property
    def _known(self) -> set[str]:
        return set()

    def leave_out(self, topic: str, why: str) -> None:
        """Say in ``damage`` that something of a topic is not used."""
        line = f"{topic}: left out: {why}"
        if line not in self._noted and sum(n.startswith(f"{topic}: ") for n in self._noted) < 3:
            self._noted.append(line)

    def decode(self, msgtype: str, data: bytes) -> Any:
        """The message of CDR bytes of this bag.

        Raises:
            BridgeError: BAD_INPUT for an unknown type, or bytes that do not fit it.
        """
        _ = self._by_topic
        return self._types.decode(msgtype, data)

    def as_installed(self, msgtype: str) -> bool:
        """Whether a type has the installed definition in this bag: equal bytes then mean the same."""
        _ = self._by_topic
        return self._types.as_installed(msgtype)

    def tells(self, msgtype: str, field: str) -> bool:
        """Whether a type has a field by the bag's own definition: an older version's may lack it."""
        _ = self._by_topic
        return self._types.tells(msgtype, field)

    def last(self, topic: str) -> Any | None:
        """The last message of a topic, None where there is none."""
        newest: tuple[str, bytes] | None = None
        for _, msgtype, _, data in self.raw([topic]):
            newest = (msgtype, data)
        return None if newest is None else self.decode(*newest)


def find_bags(path: Path) -> list[Path]:
    """Bags that a path stands for: itself, or all that lie below it; golden outputs are none.

    Raises:
        BridgeError: BAD_INPUT where there is none.
    """
    if not path.exists():
        raise BridgeError(
            ErrorCode.BAD_INPUT, f"{path} does not exist", remedy="name a bag, or a folder with bags"
        )
    if path.is_file():
        return [path]
    files = [p for suffix in _SUFFIXES for p in path.rglob(f"*{suffix}*") if _kind(p) == suffix]
    found = {p.parent for p in files if "golden" not in p.relative_to(path).parts}
    if not found:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{path} holds no bag: no .mcap or .db3 file",
            remedy="name a bag, or record one: bridgevla record",
        )
    return sorted(found)


def _kind(path: Path) -> str:
    """The storage suffix of a file, looking through a compression's."""
    name = path.with_suffix("") if path.suffix in _ZSTD_SUFFIXES else path
    return name.suffix


def _natural(path: Path) -> list[Any]:
    """Sort key by which run_2 comes before run_10."""
    return [(0, int(w), "") if w.isdigit() else (1, 0, w) for w in re.split(r"(\d+)", path.name)]
