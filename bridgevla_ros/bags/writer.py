"""Write bags: MCAP files that each stand alone, and metadata.yaml of rosbag2.

No ROS in it: the recorder feeds it from a thread, tools that cut or make bags call it directly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2.metadata import dump_qos_v9
from rosbags.typesys.store import Typestore

from bridgevla_ros.bags import metadata, provenance
from bridgevla_ros.bags.definitions import definition, installed
from bridgevla_ros.bags.mcap_file import REPEATED
from bridgevla_ros.bags.metadata import FileSummary
from bridgevla_ros.bags.storage import Connection
from bridgevla_ros.core.errors import BridgeError, ErrorCode

COMPRESSION = {"none": CompressionType.NONE, "lz4": CompressionType.LZ4, "zstd": CompressionType.ZSTD}
CHUNK = 4 << 20
"""Bytes of a chunk: a few images; it is ended earlier by ``flush``. Our choice."""
MOST_REPEATED = 1000
"""Transforms of /tf_static come one message a broadcaster: distinct ones are all kept, up to this many."""


_RECORD = 31
"""Bytes of a message record beside its data."""


class BagWriter:
    """Writes one bag.

    Args:
        folder: Of the bag; must not exist yet.
        compression: Of the chunks: none, lz4 or zstd.
        split_bytes: Begin a new file when one has reached this size; 0 for never.
        split_seconds: Begin a new file after this much recorded time; 0 for never.
        custom: custom_data of metadata.yaml.
        distro: ROS distribution, for metadata.yaml.

    Raises:
        BridgeError: BAD_INPUT where the folder exists or the compression is unknown.
    """

    def __init__(
        self,
        folder: Path,
        *,
        compression: str = "none",
        split_bytes: int = 0,
        split_seconds: float = 0.0,
        custom: Mapping[str, str] | None = None,
        distro: str | None = None,
    ) -> None:
        if compression not in COMPRESSION:
            raise BridgeError(
                ErrorCode.BAD_INPUT, f"compression {compression!r}; expected one of {sorted(COMPRESSION)}"
            )
        self.folder = Path(folder)
        if self.folder.exists():
            raise BridgeError(
                ErrorCode.BAD_INPUT, f"{self.folder} exists already", remedy="name another folder"
            )
        self.folder.mkdir(parents=True)
        self.custom = dict(custom or {})
        self.distro = provenance.distro() if distro is None else distro
        self._compression = COMPRESSION[compression]
        self._hurried = False
        self._split_bytes = split_bytes
        self._split_ns = int(split_seconds * 1e9)
        self._connections: dict[str, Connection] = {}
        self._counts: dict[str, int] = {}
        self._sequence: dict[str, int] = {}
        self._files: list[FileSummary] = []
        self._notes: dict[str, dict[str, str]] = {}
        self._attached: dict[str, tuple[str, bytes]] = {}
        self._latched: dict[str, deque[bytes]] = {}
        self._file: _File | None = _File(self._path(0), self._compression)
        self.written = 0
        """Bytes of finished files."""

    def _path(self, index: int) -> Path:
        return self.folder / f"{self.folder.name}_{index}.mcap"

    # What is said about the run ----------------------------------------------------------------------------

    def note(self, name: str, values: Mapping[str, str]) -> None:
        """Write a metadata record, into this file and later ones, and into custom_data as ``name.key``."""
        values = {str(k): str(v) for k, v in values.items()}
        self._notes[name] = values
        self.custom.update({f"{name}.{key}": value for key, value in values.items()})
        self._open_file().mcap.add_metadata(name, values)

    def attach(self, name: str, media_type: str, data: bytes) -> None:
        """Attach a file, to this file of the bag and every later one."""
        self._attached[name] = (media_type, data)
        self._open_file().mcap.add_attachment(0, 0, name, media_type, data)

    # Messages ----------------------------------------------------------------------------------------------

    def add(self, connection: Connection) -> None:
        """Declare a topic; once, before its first message."""
        self._connections[connection.topic] = connection
        self._counts.setdefault(connection.topic, 0)

    def add_type(
        self, topic: str, msgtype: str, *, store: Typestore | None = None, qos: tuple[Any, ...] = ()
    ) -> None:
        """Declare a topic of an installed type (or one of ``store``).

        Raises:
            BridgeError: BAD_INPUT where the type is unknown.
        """
        text, digest = definition(store if store is not None else installed(), msgtype)
        self.add(Connection(topic, msgtype, text, "ros2msg", digest, qos))

    def write(self, topic: str, received: int, data: bytes, published: int | None = None) -> None:
        """Write one message.

        Args:
            topic: A declared one.
            received: Nanoseconds; not before those written earlier.
            data: CDR bytes.
            published: Nanoseconds when it was published, where known.

        Raises:
            BridgeError: BAD_INPUT for a topic that was not declared.
        """
        connection = self._connections.get(topic)
        if connection is None:
            raise BridgeError(ErrorCode.BAD_INPUT, f"{topic} was not declared", remedy="call add first")
        file = self._open_file()
        if file.count and self._split_due(file, received):
            self._finish_file()
            file = self._begin_file(received)
        number = self._sequence.get(topic, 0) + 1
        self._sequence[topic] = number & 0xFFFFFFFF
        file.write(connection, received, received if published is None else published, number, data)
        self._counts[topic] += 1
        if connection.latched:
            self._keep(connection, data)

    def _split_due(self, file: _File, received: int) -> bool:
        by_time = self._split_ns and received - file.first >= self._split_ns
        return bool(by_time or (self._split_bytes and file.size >= self._split_bytes))

    def _keep(self, connection: Connection, data: bytes) -> None:
        """Remember what a late joiner would get."""
        if connection.msgtype == "tf2_msgs/msg/TFMessage":
            kept = self._latched.setdefault(connection.topic, deque(maxlen=MOST_REPEATED))
            if data in kept:
                kept.remove(data)
        else:
            depth = sum(max(int(q.depth), 1) for q in connection.qos)
            kept = self._latched.setdefault(connection.topic, deque(maxlen=min(depth, MOST_REPEATED)))
        kept.append(data)

    # Files -------------------------------------------------------------------------------------------------

    def _open_file(self) -> _File:
        if self._file is None:
            raise BridgeError(ErrorCode.BAD_INPUT, f"{self.folder} is closed")
        return self._file

    def _begin_file(self, received: int) -> _File:
        """The next file: it begins with all that was said, and with the latched messages once more."""
        self._hurried = False
        file = self._file = _File(self._path(len(self._files)), self._compression)
        before = received - 1
        repeated = {topic: str(len(messages)) for topic, messages in self._latched.items()}
        file.mcap.add_metadata(REPEATED, {"until": str(before), **repeated})
        for name, values in self._notes.items():
            file.mcap.add_metadata(name, values)
        for name, (media_type, data) in self._attached.items():
            file.mcap.add_attachment(0, 0, name, media_type, data)
        for topic, messages in self._latched.items():
            for data in messages:
                file.write(self._connections[topic], before, before, 0, data)
                self._counts[topic] += 1
        return file

    def _finish_file(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        self._files.append(FileSummary(file.path.name, file.bounds, file.count))
        file.finish(metadata.text(self._information([self._files[-1]], file.counts), root=False))
        self.written += file.path.stat().st_size
        metadata.write(self.folder, self._information(self._files, self._counts))

    def _information(self, files: list[FileSummary], counts: Mapping[str, int]) -> dict[str, Any]:
        return metadata.information(files, counts, self._connections, self.custom, self.distro)

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.written + (self._file.size if self._file is not None else 0)

    def hurry(self, on: bool) -> None:
        """Leave chunks uncompressed for as long as there is more to write than compression lets through."""
        if on != self._hurried and self._file is not None:
            self._hurried = on
            self._file.set_compression(CompressionType.NONE if on else self._compression)

    def flush(self) -> None:
        """End the chunk and hand it to the system: what was written so far survives this process."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Finish the bag: index and metadata.yaml. May be called twice."""
        self._finish_file()

    def abandon(self) -> None:
        """Let go of a file that cannot be finished (the disk is full): what reached the disk stays."""
        file, self._file = self._file, None
        if file is not None:
            file.abandon()

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _File:
    """One MCAP file being written."""

    def __init__(self, path: Path, compression: CompressionType) -> None:
        self.path = path
        self._stream: BinaryIO = path.open("xb")
        self.mcap = McapWriter(self._stream, chunk_size=CHUNK, compression=compression)
        self.mcap.start(profile="ros2", library="bridgevla")
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}
        self.counts: dict[str, int] = {}
        self.count = 0
        self.first = 0
        self.last = 0
        self._pending = 0

    @property
    def bounds(self) -> tuple[int, int] | None:
        return (self.first, self.last) if self.count else None

    @property
    def size(self) -> int:
        return self._stream.tell() + self._pending

    def write(self, connection: Connection, received: int, published: int, number: int, data: bytes) -> None:
        channel = self._channels.get(connection.topic)
        if channel is None:
            channel = self._add_channel(connection)
        self.mcap.add_message(channel, received, data, published, number)
        self.first = received if not self.count else min(self.first, received)
        self.last = max(self.last, received)
        self.count += 1
        self.counts[connection.topic] = self.counts.get(connection.topic, 0) + 1
        size = len(data) + _RECORD
        self._pending = self._pending + size if self._pending < CHUNK else size

    def _add_channel(self, connection: Connection) -> int:
        schema = self._schemas.get(connection.msgtype)
        if schema is None:
            text = connection.definition.encode()
            encoding = connection.encoding if text else ""
            schema = self.mcap.register_schema(connection.msgtype, encoding, text)
            self._schemas[connection.msgtype] = schema
        described = {
            "offered_qos_profiles": _yaml(dump_qos_v9(list(connection.qos))),
            "topic_type_hash": connection.type_hash,
        }
        channel = self.mcap.register_channel(connection.topic, connection.serialization, schema, described)
        self._channels[connection.topic] = channel
        return int(channel)

    def flush(self) -> None:
        self.mcap.flush()
        self._pending = 0

    def set_compression(self, kind: CompressionType) -> None:
        """Of chunks from now on. The format allows it; the library has no public word for it."""
        self.mcap._Writer__compression = kind

    def finish(self, information: str) -> None:
        self.mcap.add_metadata("rosbag2", {"serialized_metadata": information})
        self.mcap.finish()
        self._stream.close()

    def abandon(self) -> None:
        with suppress(
            OSError
        ):  # what is still buffered has no place any more; the file is closed all the same
            self._stream.close()


def _yaml(profiles: Any) -> str:
    import yaml

    return str(yaml.safe_dump(profiles, sort_keys=False)).strip() if profiles else ""
