"""The thread that writes: compression, disk and splits stay out of the callbacks that receive."""

from __future__ import annotations

import errno
import queue
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bridgevla_ros.bags import provenance
from bridgevla_ros.bags.writer import BagWriter
from bridgevla_ros.core.errors import BridgeError, ErrorCode

FLUSH_PERIOD = 0.5
"""Seconds between two times that a chunk is ended and handed to the system: half of what a kill may cost."""
DISK_PERIOD = 1.0
"""Seconds between two looks at the free disk space."""

HURRY = 0.1
"""Part of the queue's limit from which on chunks are not compressed: a larger bag, but no lost frame."""

Message = tuple[str, int, bytes]
Command = Callable[[BagWriter], None]


class Sink:
    """Takes messages from any thread and writes them in its own.

    Args:
        writer: Written to by this thread alone from now on.
        min_free: Bytes; with less on the disk the bag is finished and ``failure`` says so.
        queue_limit: Bytes that may wait; a message that comes then is refused and counted.
        free: Free bytes on the disk of a folder; a test may say otherwise.
        flush_period: Seconds between two times that what was taken in is handed to the system.
    """

    def __init__(
        self,
        writer: BagWriter,
        *,
        min_free: int = 0,
        queue_limit: int = 512 << 20,
        free: Callable[[Path], int] | None = None,
        flush_period: float = FLUSH_PERIOD,
    ) -> None:
        self._writer = writer
        self._flush_period = flush_period
        self._min_free = min_free
        self._limit = queue_limit
        self._free = free if free is not None else free_bytes
        self._queue: queue.SimpleQueue[Message | Command | None] = queue.SimpleQueue()
        # Each is written by one thread alone, so that no lock stands in the way of a callback.
        self._taken = 0
        self._done = 0
        self.messages = 0
        self.bytes_written = 0
        self.failure: BridgeError | None = None
        self._thread = threading.Thread(target=self._serve, name="bag-writer", daemon=True)
        self._thread.start()

    # For the thread that receives --------------------------------------------------------------------------

    def put(self, topic: str, data: bytes) -> bool:
        """Take in a message received now; False where it had to be refused."""
        if self.failure is not None or self.waiting > self._limit:
            return False
        self._taken += len(data)
        self._queue.put((topic, time.time_ns(), data))
        return True

    def do(self, command: Command) -> None:
        """Do something with the writer, after all that was put before."""
        self._queue.put(command)

    @property
    def waiting(self) -> int:
        """Bytes taken in and not yet written."""
        return self._taken - self._done

    def close(self, last: Command | None = None) -> None:
        """Write what waits, do ``last``, finish the bag."""
        if last is not None:
            self.do(last)
        self._queue.put(None)
        self._thread.join()

    # The thread --------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        flushed = looked = time.monotonic()
        while True:
            try:
                item = self._queue.get(timeout=FLUSH_PERIOD)
                if item is None:
                    break
                self._handle(item)
            except queue.Empty:
                pass
            now = time.monotonic()
            if now - flushed >= self._flush_period:
                self._guarded(self._writer.flush)
                flushed = now
            if now - looked >= DISK_PERIOD:
                self._guard_disk()
                looked = now
        if self.failure is None:
            self._guarded(self._writer.close)

    def _handle(self, item: Message | Command) -> None:
        if callable(item):
            if self.failure is None:
                self._guarded(lambda: item(self._writer))
            return
        topic, stamp, data = item
        self._done += len(data)
        self._writer.hurry(self.waiting > HURRY * self._limit)
        if self.failure is None and self._guarded(lambda: self._writer.write(topic, stamp, data)):
            self.messages += 1
            self.bytes_written += len(data)

    def _guarded(self, work: Callable[[], None]) -> bool:
        """Do something that writes; False, and ``failure`` set, where the disk refuses."""
        try:
            work()
        except OSError as error:
            self._writer.abandon()
            code = ErrorCode.DISK_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else ErrorCode.BAD_INPUT
            self.failure = BridgeError(
                code,
                f"{self._writer.folder} cannot be written: {error.strerror}",
                remedy="free space, or record to another disk; what was written before can be read",
            )
            return False
        return True

    def _guard_disk(self) -> None:
        """Finish the bag while there is still room for its index."""
        if self.failure is not None:
            return
        failure = disk_full(self._writer.folder, self._free(self._writer.folder), self._min_free)
        if failure is not None and self._guarded(lambda: self._end_with(failure)):
            self.failure = failure

    def _end_with(self, failure: BridgeError) -> None:
        self._writer.note(provenance.END, {"reason": str(failure)})
        self._writer.close()


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk that a folder is on, or will be made on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def disk_full(folder: Path, free: int, limit: int) -> BridgeError | None:
    """The refusal where a disk has less than ``limit`` bytes left, None where it has enough."""
    if free >= limit:
        return None
    return BridgeError(
        ErrorCode.DISK_FULL,
        f"{free / 1e9:.2f} GB are left on the disk of {folder}, below the limit of {limit / 1e9:.2f} GB",
        value=free / 1e9,
        limit=limit / 1e9,
        unit="GB",
        remedy="free space, record to another disk, or lower min_free",
    )
