"""A tree of frames over time: bisect and slerp (30 us a lookup). No ROS."""

from __future__ import annotations

import bisect
from collections.abc import Callable

import numpy as np

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Transform

Lazy = Transform | Callable[[], Transform]
"""A transform, or what makes it: most that are heard on /tf are never looked up."""


class _Edge:
    """T_parent_child over time, or fixed."""

    def __init__(self, parent: str, fixed: bool) -> None:
        self.parent = parent
        self.fixed = fixed
        self.stamps: list[float] = []
        self.transforms: list[Lazy] = []

    def add(self, stamp: float, transform: Lazy, memory: float) -> None:
        if self.fixed:
            self.stamps, self.transforms = [stamp], [transform]
            return
        if self.stamps and stamp < self.stamps[-1] - memory:
            # Time went back: a simulator was reset or a bag started again. What was known is void.
            self.stamps, self.transforms = [], []
        at = bisect.bisect_left(self.stamps, stamp)
        if at < len(self.stamps) and self.stamps[at] == stamp:
            self.transforms[at] = transform
            return
        self.stamps.insert(at, stamp)
        self.transforms.insert(at, transform)
        # Cut in blocks, so that the cost of deleting from the front is spread out.
        old = bisect.bisect_left(self.stamps, self.stamps[-1] - memory)
        if old > 256:
            del self.stamps[:old], self.transforms[:old]

    def at(self, index: int) -> Transform:
        """The transform at an index, made at its first use."""
        entry = self.transforms[index]
        if not isinstance(entry, Transform):
            entry = self.transforms[index] = entry()
        return entry


class TransformTree:
    """Transforms between frames at a time, interpolated, never extrapolated.

    Args:
        memory: Seconds of moving transforms that are kept.
    """

    def __init__(self, memory: float = 10.0) -> None:
        self.memory = memory
        self._edges: dict[str, _Edge] = {}

    def add(
        self,
        transform: Lazy,
        parent: str,
        child: str,
        stamp: float,
        *,
        fixed: bool = False,
    ) -> None:
        """Take in T_parent_child. A child that changes its parent forgets the old one.

        Args:
            transform: T_parent_child, or what makes it.
            parent, child: Frame names.
            stamp: Seconds.
            fixed: It holds for all times (/tf_static).

        Raises:
            BridgeError: NO_TRANSFORM where the edge would close a loop.
        """
        ancestor: str | None = parent
        while ancestor is not None:
            if ancestor == child:
                raise BridgeError(
                    ErrorCode.NO_TRANSFORM,
                    f"transform {parent} -> {child} would close a loop of frames",
                )
            above = self._edges.get(ancestor)
            ancestor = above.parent if above else None
        edge = self._edges.get(child)
        if edge is None or edge.parent != parent or edge.fixed != fixed:
            edge = self._edges[child] = _Edge(parent, fixed)
        edge.add(stamp, transform, self.memory)

    def frames(self) -> tuple[str, ...]:
        """All frame names, sorted."""
        return tuple(sorted({*self._edges, *(e.parent for e in self._edges.values())}))

    def lookup(self, target: str, source: str, stamp: float | None) -> Transform:
        """T_target_source at a time.

        Args:
            target, source: Frame names.
            stamp: Seconds; None for the newest time at which every transform on the way is known.

        Raises:
            BridgeError: NO_TRANSFORM: a frame is unknown, the two are not connected, or the time lies
                outside of what is known (value: by how many seconds).
        """
        up_target, up_source = self._ancestors(target), self._ancestors(source)
        common = next((frame for frame in up_source if frame in up_target), None)
        if common is None:
            known = self.frames()
            missing = [f for f in (target, source) if f not in known]
            why = f"no frame {missing}" if missing else "the two are not connected"
            raise BridgeError(
                ErrorCode.NO_TRANSFORM,
                f"{source} -> {target}: {why}; known frames: {list(known)}",
                remedy="publish /tf and /tf_static of the robot and of the camera's mount",
            )
        path_source = up_source[: up_source.index(common)]
        path_target = up_target[: up_target.index(common)]
        if stamp is None:
            moving = [e for f in (*path_source, *path_target) if not (e := self._edges[f]).fixed]
            stamp = min((e.stamps[-1] for e in moving), default=0.0)
        return self._compose(path_target, stamp).inverse() @ self._compose(path_source, stamp)

    def _ancestors(self, frame: str) -> list[str]:
        """The frame, its parent, ... up to the root; only the frame itself where it is unknown."""
        chain = [frame]
        while (edge := self._edges.get(chain[-1])) is not None:
            chain.append(edge.parent)
        return chain

    def _compose(self, path: list[str], stamp: float) -> Transform:
        """T_common_frame for frames from a leaf up to below the common ancestor."""
        result = Transform.identity()
        for child in path:
            result = self._at(child, stamp) @ result
        return result

    def _at(self, child: str, stamp: float) -> Transform:
        edge = self._edges[child]
        if edge.fixed:
            return edge.at(0)
        first, last = edge.stamps[0], edge.stamps[-1]
        if not first <= stamp <= last:
            ahead = stamp > last
            gap = stamp - last if ahead else first - stamp
            raise BridgeError(
                ErrorCode.NO_TRANSFORM,
                f"{edge.parent} -> {child} is known from {first:.3f} to {last:.3f} s; {stamp:.3f} s is "
                f"{gap:.3f} s {'after the newest' if ahead else 'before the oldest'}",
                value=gap,
                limit=0.0,
                unit="s",
                remedy="check that camera and robot share one clock",
            )
        after = bisect.bisect_left(edge.stamps, stamp)
        if edge.stamps[after] == stamp:
            return edge.at(after)
        t0, t1 = edge.stamps[after - 1], edge.stamps[after]
        return edge.at(after - 1).interpolate(
            edge.at(after), float(np.clip((stamp - t0) / (t1 - t0), 0.0, 1.0))
        )
