"""One MCAP file, whole, cut off or damaged.

A finished file is read through its index, in the order of receipt. One without an index (the recorder was
killed, the disk was full, the copy was cut short) is read from the front as far as it goes. A chunk that
fails its checksum is left out and said; what comes after it is read.
"""

from __future__ import annotations

import heapq
import struct
import zlib
from collections.abc import Collection, Iterator
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import lz4.frame
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.reader import SeekingReader
from mcap.records import Attachment, Channel, Chunk, ChunkIndex, Header, Metadata, Schema
from rosbags.rosbag2.errors import ReaderError
from rosbags.rosbag2.metadata import parse_qos

from bridgevla_ros.bags.storage import Connection, Record
from bridgevla_ros.core.errors import BridgeError, ErrorCode

MAGIC = b"\x89MCAP0\r\n"
REPEATED = "bridgevla.repeated"
"""Metadata record of a split: ``until`` is the stamp (ns) of latched messages repeated from the file before,
the other keys are their topics with their number."""

_BROKEN = (McapError, ValueError, RuntimeError, struct.error, zstandard.ZstdError, EOFError, KeyError)
_MESSAGE_HEAD = struct.Struct("<HIQQ")


class _Raw(NamedTuple):
    """A record as it lies in the file; without its content where that was not asked for."""

    opcode: int
    offset: int
    length: int
    content: bytes


class McapFile:
    """See ``storage.BagFile``.

    Raises:
        BridgeError: BAD_INPUT where it is no MCAP file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: list[str] = []
        self.size = path.stat().st_size
        self._schemas: dict[int, Schema] = {}
        self._channels: dict[int, Connection] = {}
        with path.open("rb") as stream:
            magic = stream.read(len(MAGIC))
            if not MAGIC.startswith(magic):
                raise BridgeError(
                    ErrorCode.BAD_INPUT, f"{path} is no MCAP file", remedy="name a bag's folder or file"
                )
            self._summary = self._read_summary(stream)
        self.finished = self._summary is not None
        if self._summary is None:
            self._say("it was not finished: read as far as it goes")
        else:
            self._schemas.update(self._summary.schemas)
            for channel in self._summary.channels.values():
                self._add_channel(channel)
        self.library = ""
        self.repeated_until = -1
        self.repeated: dict[str, int] = {}
        self._read_preamble()

    def _say(self, what: str) -> None:
        line = f"{self.path.name}: {what}"
        if line not in self.damage:
            self.damage.append(line)

    def _read_summary(self, stream: BinaryIO) -> Any | None:
        try:
            stream.seek(-len(MAGIC), 2)
            if stream.read() != MAGIC:
                return None
            stream.seek(0)
            return SeekingReader(stream).get_summary()
        except (*_BROKEN, OSError):
            return None

    def _read_preamble(self) -> None:
        """Library, and which messages at the front are repeated, from what stands before the first chunk."""
        for raw in self._scan():
            if raw.opcode == Opcode.HEADER:
                self.library = Header.read(_stream(raw.content)).library
            elif raw.opcode == Opcode.METADATA:
                note = Metadata.read(_stream(raw.content))
                if note.name == REPEATED:
                    self.repeated = {topic: int(count) for topic, count in note.metadata.items()}
                    self.repeated_until = self.repeated.pop("until")
            elif raw.opcode in (Opcode.CHUNK, Opcode.MESSAGE, Opcode.DATA_END):
                return

    # The file, record by record ----------------------------------------------------------------------------

    def _scan(self, contents: Collection[int] | None = None) -> Iterator[_Raw]:
        """Records in the order of the file; those not in ``contents`` (None for all) come without content."""
        with self.path.open("rb") as stream:
            at = stream.seek(len(MAGIC))
            while at + 9 <= self.size:
                head = stream.read(9)
                opcode, length = head[0], int.from_bytes(head[1:], "little")
                if at + 9 + length > self.size:
                    self._say(f"cut off at byte {self.size} inside of a record of {length} bytes")
                    return
                if not 1 <= opcode <= 0x0F and opcode < 0x80:
                    self._say(f"unreadable from byte {at} on")
                    return
                wanted = contents is None or opcode in contents
                yield _Raw(opcode, at, length, stream.read(length) if wanted else b"")
                at += 9 + length
                if opcode == Opcode.FOOTER:
                    return
                if not wanted:
                    stream.seek(at)

    def _add_channel(self, channel: Channel) -> None:
        if channel.id in self._channels:
            return
        schema = self._schemas.get(channel.schema_id)
        try:
            qos = tuple(parse_qos(channel.metadata.get("offered_qos_profiles", "")))
        except (ReaderError, KeyError, TypeError):
            qos = ()
        self._channels[channel.id] = Connection(
            channel.topic,
            schema.name if schema else "",
            schema.data.decode(errors="replace") if schema else "",
            schema.encoding if schema else "",
            channel.metadata.get("topic_type_hash", ""),
            qos,
            channel.message_encoding,
        )

    def _take_definition(self, opcode: int, content: bytes) -> None:
        if opcode == Opcode.SCHEMA:
            schema = Schema.read(_stream(content))
            self._schemas.setdefault(schema.id, schema)
        elif opcode == Opcode.CHANNEL:
            self._add_channel(Channel.read(_stream(content)))

    def _of_chunk(
        self, content: bytes, topics: Collection[str] | None, start: int, stop: int
    ) -> list[Record]:
        """Messages of a chunk, sorted by receipt; empty, and said, where it is damaged."""
        try:
            chunk = Chunk.read(_stream(content))
            data = memoryview(_decompress(chunk))
            if len(data) != chunk.uncompressed_size:
                raise ValueError(f"{len(data)} bytes instead of {chunk.uncompressed_size}")
            if chunk.uncompressed_crc and zlib.crc32(data) != chunk.uncompressed_crc:
                raise ValueError("checksum")
        except _BROKEN as error:
            self._say(f"a chunk of {len(content)} bytes is damaged ({error}) and left out")
            return []
        found, at = [], 0
        while at + 9 <= len(data):
            opcode, length = data[at], int.from_bytes(data[at + 1 : at + 9], "little")
            body = data[at + 9 : at + 9 + length]
            at += 9 + length
            if opcode == Opcode.MESSAGE:
                record = self._message(body, topics, start, stop)
                if record is not None:
                    found.append(record)
            else:
                self._take_definition(opcode, bytes(body))
        return sorted(found, key=lambda r: r.received)

    def _message(
        self, body: memoryview, topics: Collection[str] | None, start: int, stop: int
    ) -> Record | None:
        channel, _, received, published = _MESSAGE_HEAD.unpack_from(body)
        connection = self._channels.get(channel)
        if connection is None:
            self._say(f"messages of a channel ({channel}) that is not described are left out")
            return None
        if (topics is not None and connection.topic not in topics) or not start <= received < stop:
            return None
        return Record(connection, received, published, bytes(body[_MESSAGE_HEAD.size :]))

    # For the reader ----------------------------------------------------------------------------------------

    def records(
        self, topics: Collection[str] | None = None, start: int | None = None, stop: int | None = None
    ) -> Iterator[Record]:
        """Records in the order of receipt."""
        low, high = 0 if start is None else start, 2**64 if stop is None else stop
        if self._summary is not None and self._summary.chunk_indexes:
            yield from self._indexed(self._summary.chunk_indexes, topics, low, high)
            return
        wanted = (Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE, Opcode.CHUNK)
        for raw in self._scan(wanted):
            if raw.opcode == Opcode.CHUNK:
                yield from self._of_chunk(raw.content, topics, low, high)
            elif raw.opcode == Opcode.MESSAGE:
                record = self._message(memoryview(raw.content), topics, low, high)
                if record is not None:
                    yield record
            elif raw.opcode in wanted:
                self._take_definition(raw.opcode, raw.content)

    def _indexed(
        self, index: list[ChunkIndex], topics: Collection[str] | None, start: int, stop: int
    ) -> Iterator[Record]:
        """Chunks by their first stamp, merged where they overlap."""
        ids = None if topics is None else {i for i, c in self._channels.items() if c.topic in topics}
        chunks = sorted(
            (c for c in index if _concerns(c, ids, start, stop)),
            key=lambda c: (c.message_start_time, c.chunk_start_offset),
        )
        pending: list[tuple[int, int, Record]] = []
        order = 0
        with self.path.open("rb") as stream:
            for chunk in chunks:
                while pending and pending[0][0] < chunk.message_start_time:
                    yield heapq.heappop(pending)[2]
                stream.seek(chunk.chunk_start_offset + 9)
                content = stream.read(chunk.chunk_length - 9)
                for record in self._of_chunk(content, topics, start, stop):
                    heapq.heappush(pending, (record.received, order, record))
                    order += 1
        while pending:
            yield heapq.heappop(pending)[2]

    def connections(self) -> dict[str, Connection]:
        """By topic."""
        if not self._channels and self._summary is None:
            for _ in self.records(()):
                pass
        return {c.topic: c for c in self._channels.values()}

    def counts(self) -> dict[str, int] | None:
        """Messages by topic, from the statistics of a finished file."""
        if self._summary is None or self._summary.statistics is None:
            return None
        by_id = self._summary.statistics.channel_message_counts
        counts: dict[str, int] = {}
        for i, connection in self._channels.items():
            counts[connection.topic] = counts.get(connection.topic, 0) + by_id.get(i, 0)
        return counts

    def bounds(self) -> tuple[int, int] | None:
        """First and last stamp, from the statistics of a finished file."""
        statistics = self._summary.statistics if self._summary is not None else None
        if statistics is None or not statistics.message_count:
            return None
        return statistics.message_start_time, statistics.message_end_time

    @cached_property
    def _extras(self) -> tuple[dict[str, dict[str, str]], dict[str, bytes]]:
        notes: dict[str, dict[str, str]] = {}
        files: dict[str, bytes] = {}
        for raw in self._scan((Opcode.METADATA, Opcode.ATTACHMENT)):
            try:
                if raw.opcode == Opcode.METADATA:
                    note = Metadata.read(_stream(raw.content))
                    notes[note.name] = dict(note.metadata)
                elif raw.opcode == Opcode.ATTACHMENT:
                    attachment = Attachment.read(_stream(raw.content))
                    files[attachment.name] = attachment.data
            except _BROKEN as error:
                self._say(f"a note is damaged ({error}) and left out")
        return notes, files

    def notes(self) -> dict[str, dict[str, str]]:
        """Metadata records by name, the last of a name."""
        return self._extras[0]

    def attachments(self) -> dict[str, bytes]:
        """Attached files by name."""
        return self._extras[1]


def _stream(content: bytes) -> ReadDataStream:
    return ReadDataStream(BytesIO(content))


def _decompress(chunk: Chunk) -> bytes:
    if chunk.compression == "":
        return bytes(chunk.data)
    if chunk.compression == "lz4":
        return bytes(lz4.frame.decompress(chunk.data))
    if chunk.compression == "zstd":
        size = chunk.uncompressed_size
        return bytes(zstandard.ZstdDecompressor().decompress(chunk.data, max_output_size=size))
    raise ValueError(f"unknown compression {chunk.compression!r}")


def _concerns(chunk: ChunkIndex, ids: set[int] | None, start: int, stop: int) -> bool:
    """Whether a chunk may hold what is wanted; one without message indexes may hold anything."""
    if chunk.message_end_time < start or chunk.message_start_time >= stop:
        return False
    here = chunk.message_index_offsets
    return ids is None or not here or bool(ids & here.keys())
