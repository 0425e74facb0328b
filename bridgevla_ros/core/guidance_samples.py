"""Samples of guidance while it is laid, piece by piece."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import WaypointKind


class Samples:
    """Collects the samples of consecutive pieces; the rest between two of them is kept once."""

    def __init__(self) -> None:
        self.time: list[Array] = []
        self._rows: list[tuple[Array, Array, Array, Array, NDArray[np.int64]]] = []

    def add(
        self,
        time: Array,
        position: Array,
        quat: Array,
        linear: Array,
        angular: Array,
        kind: NDArray[np.int64],
    ) -> None:
        """Append a piece: (K,) seconds, (K, 3), (K, 4), (K, 3), (K, 3), and the kind of each sample's leg."""
        cut = 1 if self.time else 0
        self.time.append(time[cut:])
        self._rows.append((position[cut:], quat[cut:], linear[cut:], angular[cut:], kind[cut:]))

    def hold(self, position: Array, quat: Array, kind: WaypointKind, period: float) -> None:
        """Two samples at one pose: the guidance of a plan that asks for no motion."""
        still = np.zeros((2, 3))
        pose = np.tile(position, (2, 1)), np.tile(quat, (2, 1))
        self.add(np.array([0.0, period]), *pose, still, still, np.full(2, int(kind), np.int64))

    def joined(self) -> tuple[Array, Array, Array, Array, Array, NDArray[np.int64]]:
        """Everything added, in the order of ``add``; no two neighbouring quaternions are opposed."""
        position, quat, linear, angular, kind = (np.concatenate(c) for c in zip(*self._rows, strict=True))
        dots = np.einsum("ij,ij->i", quat[1:], quat[:-1])
        signs = np.cumprod(np.concatenate([[1.0], np.where(dots < 0.0, -1.0, 1.0)]))
        return np.concatenate(self.time), position, quat * signs[:, None], linear, angular, kind
