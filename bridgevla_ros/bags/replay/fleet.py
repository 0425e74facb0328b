"""Many replays: spread over processes that keep what they loaded."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from bridgevla_ros.bags.mapping import TopicMapping
from bridgevla_ros.bags.replay.digest import Digest
from bridgevla_ros.bags.replay.engine import replay
from bridgevla_ros.bags.replay.result import ReplayResult
from bridgevla_ros.core.errors import BridgeError


@dataclass(frozen=True)
class Job:
    """One replay; arguments as of ``engine.replay``."""

    path: Path
    nodes: tuple[str, ...]
    seed: int | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    mapping: TopicMapping | Path | None = None
    tolerance: str = "auto"
    golden: bool = True


class Replayed(NamedTuple):
    """What came of a job.

    Attributes:
        result: Its outcome; a bag that cannot be read is ``impossible``.
        digests: Node -> fingerprint of every bit of its outputs.
        process: Identity of the process.
    """

    result: ReplayResult
    digests: dict[str, str]
    process: int


_KEEP: dict[Hashable, Any] = {}
"""Models that a process of the pool has loaded."""


def _run(job: Job, keep: dict[Hashable, Any] | None = None) -> Replayed:
    digest = Digest()
    try:
        result = replay(
            job.path,
            job.nodes,
            seed=job.seed,
            overrides=job.overrides,
            mapping=job.mapping,
            tolerance=job.tolerance,
            golden=job.golden,
            watch=digest,
            keep=_KEEP if keep is None else keep,
        )
    except BridgeError as error:
        result = ReplayResult(str(job.path), job.nodes, impossible=error.message)
    for tally in result.tallies.values():
        tally.shown = None
    return Replayed(result, digest.of_nodes(), os.getpid())


class Fleet(AbstractContextManager["Fleet"]):
    """Replays jobs side by side.

    Args:
        processes: How many; with one, in this process.
    """

    def __init__(self, processes: int) -> None:
        self._keep: dict[Hashable, Any] = {}
        self._pool: ProcessPoolExecutor | None = None
        if processes > 1:
            self._pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))

    def __exit__(self, *_: object) -> None:
        """Wait for what was begun."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def run(self, jobs: Sequence[Job]) -> Iterator[Replayed]:
        """Outcomes in the order of the jobs.

        Raises:
            ConfigError: An override is unknown or not allowed.
        """
        if self._pool is None:
            return (_run(job, self._keep) for job in jobs)
        return self._pool.map(_run, jobs)
