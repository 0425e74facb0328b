"""Shared memory that killed processes left behind.

Fast DDS gives each process a segment in /dev/shm (64 MB by our profile, all of it real memory) and removes it
when the process ends by itself. One that is killed leaves it, and nobody else removes it: a node that is
killed again and again fills the memory. The owner holds a lock on the file ``<segment>_el`` beside it as long
as it lives, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import time
from pathlib import Path

FOLDER = Path("/dev/shm")
_SEGMENT = re.compile(r"(?:fastrtps|fastdds)_[0-9a-f]{16}")
_SETTLED = 10.0
"""Seconds: a younger file may be one whose owner is just about to lock it."""


def stale_segments(folder: Path = FOLDER) -> list[Path]:
    """Segments in ``folder`` whose owner is gone; those of other users do not count."""
    return [path for path in _segments(folder) if not _owned(_lock_of(path))]


def remove_stale_segments(folder: Path = FOLDER) -> int:
    """Remove segments whose owner is gone, with their lock files; returns bytes of memory that were freed."""
    freed = 0
    for path in stale_segments(folder):
        with contextlib.suppress(OSError):  # another process was quicker, or it is not ours to remove
            size = path.stat().st_blocks * 512
            path.unlink()
            freed += size
        with contextlib.suppress(OSError):
            _lock_of(path).unlink()
    return freed


def _segments(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _SEGMENT.fullmatch(path.name))


def _lock_of(segment: Path) -> Path:
    return segment.with_name(f"{segment.name}_el")


def _owned(lock: Path) -> bool:
    """Whether a process holds the lock, or may be about to."""
    try:
        if time.time() - lock.stat().st_mtime < _SETTLED:
            return True
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held; or not there, or of another user: then it is not ours to judge
        return True
    return False
