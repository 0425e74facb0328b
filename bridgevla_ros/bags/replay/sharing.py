"""Nodes of one bag side by side: this process works as well, and another one begins to load at once."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from bridgevla_ros.bags.replay.result import ReplayResult

Begin = Callable[[], Callable[[str], ReplayResult]]
"""Reads a bag; what it returns replays a node."""

_COST = ("planner", "action_expert", "cropper", "arm_streamer", "task", "trajectory")
"""Loading included; the first takes longest."""


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the garbage collector: while a large library is imported, it takes a sixth of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def by_cost(nodes: Iterable[str]) -> tuple[str, ...]:
    """Those that take longest first."""
    return tuple(sorted(nodes, key=_COST.index))


def side_by_side(begin: Begin, nodes: Sequence[str], processes: int) -> dict[str, ReplayResult]:
    """Replay nodes in this process and others. Each reads the bag once, for all nodes that it takes.

    The others take from the front of the list, where the loading of a large library can begin at once; this
    process, which is running already, takes from the back.

    Args:
        begin: Can be sent to another process.
        nodes: Those that take longest first.
        processes: How many, this one included; two at least.
    """
    context = get_context("spawn")
    ends = context.Array("i", [0, len(nodes)])
    with ProcessPoolExecutor(
        processes - 1, mp_context=context, initializer=_initialize, initargs=(ends,)
    ) as pool:
        others = [pool.submit(_take, begin, tuple(nodes)) for _ in range(processes - 1)]
        try:
            found = dict(_taken(begin, nodes, ends, front=False))
        except BaseException:
            with ends.get_lock():
                ends[0] = ends[1]  # nobody begins another one
            raise
        for other in others:
            found.update(other.result())
    return found


_ENDS: list[Any] = []
"""In another process: first node that nobody took, and the one after the last."""


def _initialize(ends: Any) -> None:
    _ENDS[:] = [ends]


def _take(begin: Begin, nodes: Sequence[str]) -> dict[str, ReplayResult]:
    return dict(_taken(begin, nodes, _ENDS[0], front=True))


def _taken(
    begin: Begin, nodes: Sequence[str], ends: Any, *, front: bool
) -> Iterator[tuple[str, ReplayResult]]:
    replay_node = None
    while True:
        with ends.get_lock():
            first, end = ends[0], ends[1]
            if first >= end:
                return
            index = first if front else end - 1
            ends[0], ends[1] = (first + 1, end) if front else (first, end - 1)
        if replay_node is None:
            replay_node = begin()
        yield nodes[index], replay_node(nodes[index])
