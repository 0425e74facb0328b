"""One sqlite3 file (.db3) of rosbag2, whole or cut off."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from rosbags.rosbag2.errors import ReaderError
from rosbags.rosbag2.metadata import parse_qos

from bridgevla_ros.bags.storage import Connection, Record
from bridgevla_ros.core.errors import BridgeError, ErrorCode


class SqliteFile:
    """See ``storage.BagFile``.

    Raises:
        BridgeError: BAD_INPUT where it is no such file, or where not even the list of topics can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: list[str] = []
        self.repeated_until = -1
        self.repeated: dict[str, int] = {}
        self._ids: dict[int, Connection] = {}
        self.finished = self._has_log or path.stat().st_size >= _size_by_header(path)
        try:
            with closing(self._open()) as db:
                self._read_topics(db)
        except sqlite3.DatabaseError as error:
            if not self._ids:
                raise BridgeError(
                    ErrorCode.BAD_INPUT, f"{path} is no readable rosbag2 database: {error}"
                ) from error
            self.finished = False
        if not self.finished:
            self._say("the database is damaged: read as far as it goes")

    def _say(self, what: str) -> None:
        line = f"{self.path.name}: {what}"
        if line not in self.damage:
            self.damage.append(line)

    @property
    def _has_log(self) -> bool:
        return self.path.with_name(self.path.name + "-wal").exists()

    def _open(self) -> sqlite3.Connection:
        """Read-only. A log beside it (-wal, of a recorder that was killed) is taken in where possible."""
        base = self.path.absolute().as_uri()
        if self._has_log:
            try:
                db = sqlite3.connect(f"{base}?mode=ro", uri=True)
                db.execute("SELECT count(*) FROM sqlite_master").fetchone()
                return db
            except sqlite3.OperationalError:  # a read-only folder: the log cannot be opened
                self._say("its write-ahead log cannot be read: the last messages may be missing")
        db = sqlite3.connect(f"{base}?immutable=1", uri=True)
        if not self.finished:
            # Otherwise a file that is shorter than its header says is refused as a whole.
            db.execute("PRAGMA writable_schema = ON")
        return db

    def _read_topics(self, db: sqlite3.Connection) -> None:
        columns = {row[1] for row in db.execute("PRAGMA table_info(topics)")}
        if not {"name", "type"} <= columns:
            raise BridgeError(
                ErrorCode.BAD_INPUT, f"{self.path} has no table of topics", remedy="name a rosbag2 database"
            )
        definitions: dict[str, tuple[str, str]] = {}
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'message_definitions'").fetchone():
            for msgtype, encoding, text in db.execute(
                "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            ):
                definitions[msgtype] = (encoding, text)
        optional = [
            c if c in columns else f"'{default}'"
            for c, default in (
                ("serialization_format", "cdr"),
                ("offered_qos_profiles", ""),
                ("type_description_hash", ""),
            )
        ]
        for i, topic, msgtype, serialization, qos, digest in db.execute(
            f"SELECT id, name, type, {', '.join(optional)} FROM topics"
        ):
            encoding, text = definitions.get(msgtype, ("", ""))
            self._ids[i] = Connection(
                topic, msgtype, text, encoding, digest or "", _qos(qos), serialization or "cdr"
            )

    def records(
        self, topics: Collection[str] | None = None, start: int | None = None, stop: int | None = None
    ) -> Iterator[Record]:
        """Records in the order of receipt; of a damaged file in the order of writing, up to the damage."""
        ids = [i for i, c in self._ids.items() if topics is None or c.topic in topics]
        low, high = 0 if start is None else start, 2**63 - 1 if stop is None else stop
        marks = ",".join("?" * len(ids))
        # Without the index on timestamps, which may be what is lost.
        order = "timestamp, id" if self.finished else "id"
        source = "messages" if self.finished else "messages NOT INDEXED"
        query = (
            f"SELECT topic_id, timestamp, data FROM {source} WHERE topic_id IN ({marks}) "
            f"AND timestamp >= ? AND timestamp < ? ORDER BY {order}"
        )
        with closing(self._open()) as db:
            try:
                for i, stamp, data in db.execute(query, (*ids, low, high)):
                    yield Record(self._ids[i], stamp, stamp, data)
            except sqlite3.DatabaseError as error:
                self._say(f"{error}: what follows is lost")

    def connections(self) -> dict[str, Connection]:
        """By topic."""
        return {c.topic: c for c in self._ids.values()}

    def counts(self) -> dict[str, int] | None:
        """Messages by topic; None for a damaged file."""
        if not self.finished:
            return None
        with closing(self._open()) as db:
            found = dict(db.execute("SELECT topic_id, count(*) FROM messages GROUP BY topic_id").fetchall())
        return {c.topic: found.get(i, 0) for i, c in self._ids.items()}

    def bounds(self) -> tuple[int, int] | None:
        """First and last stamp, None for a damaged or empty file."""
        if not self.finished:
            return None
        with closing(self._open()) as db:
            low, high = db.execute("SELECT min(timestamp), max(timestamp) FROM messages").fetchone()
        return None if low is None else (low, high)

    def notes(self) -> dict[str, dict[str, str]]:
        """This format has none."""
        return {}

    def attachments(self) -> dict[str, bytes]:
        """This format has none."""
        return {}


def _size_by_header(path: Path) -> int:
    """Bytes that a database file has by its header: page size (1 stands for 65536) times pages."""
    with path.open("rb") as stream:
        head = stream.read(32)
    if len(head) < 32:
        return 32
    page = int.from_bytes(head[16:18], "big")
    return (65536 if page == 1 else page) * int.from_bytes(head[28:32], "big")


def _qos(text: str | None) -> tuple[Any, ...]:
    try:
        return tuple(parse_qos(text or ""))
    except (ReaderError, KeyError, TypeError):
        return ()
