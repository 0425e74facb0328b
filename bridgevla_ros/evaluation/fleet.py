"""Many independent pieces of work on all cores, kept as they come so that a killed run goes on.

A piece is a frozen dataclass of plain data, its answer a dict of plain data. Answers are appended to a
journal beside the JSON that the command writes in the end; one line a piece, flushed, so that a run that
dies loses only what was under way.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridgevla_ros.core.errors import BridgeError, ErrorCode

Answer = dict[str, Any]


@dataclass(frozen=True)
class Piece:
    """A piece of work.

    Attributes:
        work: A function of a module (it crosses to a worker process) from ``what`` to plain data.
        what: A frozen dataclass of plain data; with ``work`` it names the piece in the journal.
    """

    work: Callable[[Any], Answer]
    what: Any

    @property
    def key(self) -> str:
        """The piece's name in a journal: equal for equal work."""
        name = f"{self.work.__module__}.{self.work.__qualname__}"
        return name + " " + json.dumps(dataclasses.asdict(self.what), sort_keys=True)


class Journal:
    """Answers on disk, one JSON line each, under a first line that says what they were made with.

    Args:
        path: The file.
        made_with: Plain data, e.g. hashes of weights; answers made with something else are refused.
        resume: Go on from what the file holds.

    Raises:
        BridgeError: BAD_INPUT: answers are there and ``resume`` is off, or they were made with something
            else, or the file is no journal.
    """

    def __init__(self, path: Path, made_with: dict[str, Any], *, resume: bool) -> None:
        self.path = path
        self.known: dict[str, Answer] = {}
        if path.exists() and path.stat().st_size:
            if not resume:
                lines = path.read_text(encoding="utf-8").splitlines()
                count = sum(line.startswith('{"key"') and line.endswith("}") for line in lines)
                raise BridgeError(
                    ErrorCode.BAD_INPUT,
                    f"{path} holds {count} answers of a run that did not finish",
                    value=count,
                    remedy="give --resume to go on from there, or delete the file",
                )
            self._read(made_with)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        if not self._file.tell():
            self._write({"made_with": made_with})

    def _read(self, made_with: dict[str, Any]) -> None:
        lines = self.path.read_text(encoding="utf-8").splitlines()
        whole = []
        for number, line in enumerate(lines, 1):
            try:
                whole.append(json.loads(line))
            except ValueError:
                if number != len(lines):
                    raise BridgeError(
                        ErrorCode.BAD_INPUT, f"{self.path}:{number} is no JSON", remedy="delete the file"
                    ) from None
        # The process may have died within its last line: that piece is done again.
        self.path.write_text("".join(json.dumps(w) + "\n" for w in whole), encoding="utf-8")
        before = whole[0].get("made_with") if whole else None
        if whole and before != made_with:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"{self.path} was made with {before}, this run would be made with {made_with}",
                remedy="delete the file, or bring back what it was made with",
            )
        self.known = {w["key"]: w["answer"] for w in whole[1:]}

    def add(self, key: str, answer: Answer) -> None:
        """Keep an answer."""
        self.known[key] = answer
        self._write({"key": key, "answer": answer})

    def _write(self, value: dict[str, Any]) -> None:
        self._file.write(json.dumps(value) + "\n")
        self._file.flush()

    def close(self, *, finished: bool) -> None:
        """Close; a finished run's journal is deleted, its answers stand in the JSON."""
        self._file.close()
        if finished:
            self.path.unlink(missing_ok=True)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_pieces(
    pieces: Sequence[Piece], workers: int = 0, journal: Journal | None = None
) -> Iterator[tuple[int, Answer]]:
    """Do the pieces; yield (index, answer) as they come, those of the journal first.

    Args:
        pieces: In the order in which they are begun.
        workers: Processes of one thread each; 0 for one a core, 1 works in this process.
        journal: Keeps the answers.

    Raises:
        BridgeError: TIMEOUT never; MODEL_ERROR, a worker process died (out of memory, or killed).
    """
    left = []
    for index, piece in enumerate(pieces):
        if journal is not None and piece.key in journal.known:
            yield index, journal.known[piece.key]
        else:
            left.append(index)
    for index, answer in _do(pieces, left, min(workers or cores(), max(len(left), 1))):
        if journal is not None:
            journal.add(pieces[index].key, answer)
        yield index, answer


def _do(pieces: Sequence[Piece], left: list[int], workers: int) -> Iterator[tuple[int, Answer]]:
    if workers == 1:
        for index in left:
            yield index, pieces[index].work(pieces[index].what)
        return
    # Inherited by the workers: two threads each on as many cores as workers would slow one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting = {pool.submit(pieces[i].work, pieces[i].what): i for i in left}
        try:
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        except BrokenProcessPool as error:
            raise BridgeError(
                ErrorCode.MODEL_ERROR,
                "a worker process died: killed, or out of memory",
                remedy="give fewer --workers; --resume goes on from what is done",
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class Watch:
    """A progress bar that also tells how many of the done succeeded.

    Use as a context manager; ``saw`` after each answer.
    """

    def __init__(self, what: str, total: int) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task(what, total=total)
        self._what = what
        self._tally: dict[str, list[int]] = {}
        self._began = time.monotonic()

    def __enter__(self) -> Watch:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    @property
    def seconds(self) -> float:
        """Wall time since the beginning."""
        return time.monotonic() - self._began

    def saw(self, group: str = "", success: bool | None = None, note: str = "") -> None:
        """Count one done; ``note`` is printed above the bar."""
        if success is not None:
            tally = self._tally.setdefault(group, [0, 0])
            tally[0] += success
            tally[1] += 1
        if note:
            self._bar.console.print(note, highlight=False, markup=False)
        parts = [f"{group} {100 * won / of:.0f}%".strip() for group, (won, of) in self._tally.items()]
        self._bar.update(self._task, advance=1, description="  ".join([self._what, *parts[-4:]]))
