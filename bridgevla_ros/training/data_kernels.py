"""The sampler's loop over points, compiled by numba."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.perception.kernels import F32, F64, compiled


@compiled
def gather(
    points: NDArray[np.int16],
    age: NDArray[np.int16],
    target: NDArray[np.bool_],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    origin: F64,
    yaw: F64,
    erase: NDArray[np.bool_],
    uniform: F32,
    step: float,
    radius: float,
    scale: float,
    cloud: F32,
    mask: F32,
    hit: F32,
    seen: NDArray[np.int64],
    near: NDArray[np.int64],
) -> None:
    """Crop, thin out and turn the clouds of a batch.

    Args:
        points: (P, 3) in ``step`` metres; ``age``: (P,) ms; ``target``: (P,).
        start, stop: (B,) where each sample's points begin and end.
        origin: (B, 3) metres, of the local frame, beside the same centre as the points.
        yaw: (B,) rad of the local frame.
        erase: (B,) leave out the target.
        uniform: (B, N) random numbers 0..1 that choose the points.
        step, radius, scale: Metres of a unit of ``points``; of the ball that is kept; that become 1.
        cloud: (B, N, 4), zeros, gets x, y, z, age; ``mask``: (B, N), zeros, gets 1 where a point is.
        hit: (B, N), zeros, gets 1 where the point is the target's.
        seen: (B,) gets the number of the target's points within the ball, before thinning out; ``near``: (B,)
            of all points within it.
    """
    size, room = uniform.shape
    index = np.empty(np.max(stop - start) if size else 0, np.int64)
    for b in range(size):
        found, own = 0, 0
        for i in range(start[b], stop[b]):
            if erase[b] and target[i]:
                continue
            dx = points[i, 0] * step - origin[b, 0]
            dy = points[i, 1] * step - origin[b, 1]
            dz = points[i, 2] * step - origin[b, 2]
            if dx * dx + dy * dy + dz * dz <= radius * radius:
                index[found] = i
                found += 1
                if target[i]:
                    own += 1
        seen[b], near[b] = own, found
        c, s = np.cos(yaw[b]), np.sin(yaw[b])
        for k in range(min(found, room)):
            if found > room:  # Fisher-Yates: the first ``room`` places of a shuffle
                j = k + min(int(uniform[b, k] * (found - k)), found - k - 1)
                index[k], index[j] = index[j], index[k]
            i = index[k]
            dx = points[i, 0] * step - origin[b, 0]
            dy = points[i, 1] * step - origin[b, 1]
            cloud[b, k, 0] = (c * dx + s * dy) / scale
            cloud[b, k, 1] = (c * dy - s * dx) / scale
            cloud[b, k, 2] = (points[i, 2] * step - origin[b, 2]) / scale
            cloud[b, k, 3] = min(max(age[i] * 1e-3, 0.0), 5.0)
            mask[b, k] = 1.0
            hit[b, k] = 1.0 if target[i] else 0.0
