"""Per-pixel loops of the cropper, compiled by numba: one pass over the depth image, no temporaries.

All lengths are metres. ``R`` (3, 3) and ``t`` (3,) are ``T_base_camera``; ``k`` is fx, fy, cx, cy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., object])
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


def compiled(function: F) -> F:
    """Compile with numba, cached beside the source; the GIL is let go while it runs."""
    return cast(F, numba.njit(cache=True, nogil=True)(function))


@compiled
def body_distance(x: float, y: float, z: float, start: F64, end: F64, radius: F64) -> tuple[float, int]:
    """Signed distance from a point to the nearest capsule surface, and its index; inf and -1 without any."""
    best, which = np.inf, -1
    for c in range(len(radius)):
        dx, dy, dz = end[c, 0] - start[c, 0], end[c, 1] - start[c, 1], end[c, 2] - start[c, 2]
        px, py, pz = x - start[c, 0], y - start[c, 1], z - start[c, 2]
        length = dx * dx + dy * dy + dz * dz
        s = 0.0
        if length > 0.0:
            s = min(max((px * dx + py * dy + pz * dz) / length, 0.0), 1.0)
        ex, ey, ez = px - s * dx, py - s * dy, pz - s * dz
        d = np.sqrt(ex * ex + ey * ey + ez * ez) - radius[c]
        if d < best:
            best, which = d, c
    return best, which


@compiled
def _inside_body(x: float, y: float, z: float, start: F64, end: F64, radius: F64, guess: int) -> int:
    """Index of a capsule that holds the point, tried from ``guess`` on; -1 without any.

    Neighbouring pixels mostly lie in the same capsule.
    """
    for i in range(len(radius)):
        c = (guess + i) % len(radius)
        dx, dy, dz = end[c, 0] - start[c, 0], end[c, 1] - start[c, 1], end[c, 2] - start[c, 2]
        px, py, pz = x - start[c, 0], y - start[c, 1], z - start[c, 2]
        along, length = px * dx + py * dy + pz * dz, dx * dx + dy * dy + dz * dz
        square = px * px + py * py + pz * pz
        if along > 0.0:
            square = square - 2.0 * along + length if along >= length else square - along * along / length
        if square <= radius[c] * radius[c]:
            return c
    return -1


@compiled
def body_distances(points: F64, start: F64, end: F64, radius: F64) -> F64:
    """(M,) signed distance of (M, 3) points to the nearest capsule surface."""
    out = np.empty(len(points))
    for i in range(len(points)):
        out[i] = body_distance(points[i, 0], points[i, 1], points[i, 2], start, end, radius)[0]
    return out


@compiled
def nearest_gaps(points: F64, start: F64, end: F64, radius: F64, rank: int) -> tuple[F64, F64]:
    """How near a body comes to points, posture by posture.

    Args:
        points: (M, 3).
        start, end: (S, C, 3) capsules of S postures.
        radius: (C,).
        rank: The nearest ``rank - 1`` points are overlooked: they may be stray.

    Returns:
        (S,) signed distance of the ``rank``-th nearest point to the surface, inf where fewer points lie in
        the body's reach, and (S,) the capsule that it is nearest to.
    """
    gaps, which = np.full(len(start), np.inf), np.full(len(start), -1.0)
    low, high = np.empty(3), np.empty(3)
    for axis in range(3):
        low[axis], high[axis] = points[:, axis].min(), points[:, axis].max()
    best, owner = np.empty(rank), np.empty(rank)
    near = np.empty(len(radius), np.int64)
    for s in range(len(start)):
        best[:], owner[:] = np.inf, -1.0
        count = 0
        for c in range(len(radius)):
            apart = False
            for axis in range(3):
                a, b = start[s, c, axis], end[s, c, axis]
                apart = apart or min(a, b) - radius[c] > high[axis] or max(a, b) + radius[c] < low[axis]
            if not apart:
                near[count] = c
                count += 1
        if count == 0:
            continue
        chosen = near[:count]
        starts, ends, radii = start[s][chosen], end[s][chosen], radius[chosen]
        for i in range(len(points)):
            d, c = body_distance(points[i, 0], points[i, 1], points[i, 2], starts, ends, radii)
            if d < best[rank - 1]:
                at = rank - 1
                while at > 0 and best[at - 1] > d:
                    best[at], owner[at] = best[at - 1], owner[at - 1]
                    at -= 1
                best[at], owner[at] = d, chosen[c]
        gaps[s], which[s] = best[rank - 1], owner[rank - 1]
    return gaps, which


@compiled
def count_valid(depth: F32, low: float, high: float) -> int:
    """Pixels whose depth lies within low .. high; NaN and infinities do not."""
    count = 0
    for v in range(depth.shape[0]):
        for u in range(depth.shape[1]):
            if low <= depth[v, u] <= high:
                count += 1
    return count


@compiled
def count_valid_disk(
    depth: F32, u0: float, v0: float, radius: float, low: float, high: float
) -> tuple[int, int]:
    """Valid pixels, and all pixels of the image, inside a disk."""
    valid, total = 0, 0
    for v in range(max(0, int(np.ceil(v0 - radius))), min(depth.shape[0], int(v0 + radius) + 1)):
        for u in range(max(0, int(np.ceil(u0 - radius))), min(depth.shape[1], int(u0 + radius) + 1)):
            if (u - u0) ** 2 + (v - v0) ** 2 <= radius * radius:
                total += 1
                if low <= depth[v, u] <= high:
                    valid += 1
    return valid, total


@compiled
def support_candidates(
    depth: F32,
    k: F64,
    R: F64,
    t: F64,
    low: float,
    high: float,
    box: F64,
    height: float,
    band: float,
    stride: int,
) -> F64:
    """(M, 3) points, base frame, of every ``stride``-th pixel over the workspace near a height."""
    rows, columns = depth.shape
    out = np.empty(((rows // stride + 1) * (columns // stride + 1), 3))
    count = 0
    for v in range(0, rows, stride):
        b = (v - k[3]) / k[1]
        for u in range(0, columns, stride):
            d = depth[v, u]
            if not low <= d <= high:
                continue
            a = (u - k[2]) / k[0]
            z = (R[2, 0] * a + R[2, 1] * b + R[2, 2]) * d + t[2]
            if abs(z - height) > band:
                continue
            x = (R[0, 0] * a + R[0, 1] * b + R[0, 2]) * d + t[0]
            y = (R[1, 0] * a + R[1, 1] * b + R[1, 2]) * d + t[1]
            if box[0, 0] <= x <= box[1, 0] and box[0, 1] <= y <= box[1, 1]:
                out[count, 0], out[count, 1], out[count, 2] = x, y, z
                count += 1
    return out[:count]


@compiled
def scan(
    depth: F32,
    k: F64,
    R: F64,
    t: F64,
    low: float,
    high: float,
    box: F64,
    plane: F64,
    clearance: float,
    slope: float,
    neighbours: int,
    start: F64,
    end: F64,
    radius: F64,
    body_box: F64,
    grid: NDArray[np.int32],
    token: int,
    voxel: float,
    out: F32,
) -> int:
    """Points of the workspace: not support, not robot, not flying, one a voxel.

    Args:
        depth: (H, W).
        k, R, t: Camera.
        low, high: Valid depth.
        box: (2, 3) workspace corners.
        plane: (3,) a, b, c of z = a x + b y + c.
        clearance: Points up to this above the plane are dropped; -inf keeps all.
        slope: Pixel widths of depth beyond which a neighbour is on another surface.
        neighbours: Fewest of 8 on the same surface.
        start, end, radius: Capsules of the robot, margin included.
        body_box: (2, 3) corners of a box around all capsules.
        grid: (X, Y, Z) last token written to each voxel of the box; changed here.
        token: Differs from all written before.
        voxel: Edge.
        out: (M, 3) receives the points; later ones are dropped when it is full.

    Returns:
        Points written.
    """
    rows, columns = depth.shape
    step = slope / min(k[0], k[1])
    count, guess = 0, 0
    for v in range(rows):
        b = (v - k[3]) / k[1]
        for u in range(columns):
            d = float(depth[v, u])
            if not low <= d <= high:
                continue
            a = (u - k[2]) / k[0]
            z = (R[2, 0] * a + R[2, 1] * b + R[2, 2]) * d + t[2]
            if z < box[0, 2] or z > box[1, 2]:
                continue
            x = (R[0, 0] * a + R[0, 1] * b + R[0, 2]) * d + t[0]
            y = (R[1, 0] * a + R[1, 1] * b + R[1, 2]) * d + t[1]
            if x < box[0, 0] or x > box[1, 0] or y < box[0, 1] or y > box[1, 1]:
                continue
            if z - (plane[0] * x + plane[1] * y + plane[2]) <= clearance:
                continue
            i = int((x - box[0, 0]) / voxel)
            j = int((y - box[0, 1]) / voxel)
            l = int((z - box[0, 2]) / voxel)  # noqa: E741
            if grid[i, j, l] == token:
                continue
            if (
                body_box[0, 0] <= x <= body_box[1, 0]
                and body_box[0, 1] <= y <= body_box[1, 1]
                and body_box[0, 2] <= z <= body_box[1, 2]
            ):
                hit = _inside_body(x, y, z, start, end, radius, guess)
                if hit >= 0:
                    guess = hit
                    continue
            if neighbours > 0:
                near = 0
                reach = step * d + 0.002
                for dv in range(-1, 2):
                    for du in range(-1, 2):
                        vv, uu = v + dv, u + du
                        if (
                            (dv != 0 or du != 0)
                            and 0 <= vv < rows
                            and 0 <= uu < columns
                            and abs(depth[vv, uu] - d) <= reach
                        ):
                            near += 1
                if near < neighbours:
                    continue
            if count == len(out):
                return count
            grid[i, j, l] = token
            out[count, 0], out[count, 1], out[count, 2] = x, y, z
            count += 1
    return count


@compiled
def still_hidden(
    points: F32,
    depth: F32,
    k: F64,
    R: F64,
    t: F64,
    low: float,
    high: float,
    margin: float,
    start: F64,
    end: F64,
    radius: F64,
) -> NDArray[np.bool_]:
    """Which remembered points (M, 3), base frame, the robot's body hides in a new depth image.

    A point is kept where the ray to it meets a capsule before the point and the depth there is
    missing or in front of it. Seen again, seen through, hidden by anything else, outside the image or
    now inside the robot: not kept.
    """
    keep = np.zeros(len(points), np.bool_)
    for i in range(len(points)):
        x, y, z = float(points[i, 0]), float(points[i, 1]), float(points[i, 2])
        dx, dy, dz = x - t[0], y - t[1], z - t[2]
        depth_here = R[0, 2] * dx + R[1, 2] * dy + R[2, 2] * dz
        if depth_here <= 0.0:
            continue
        u = int(np.rint((R[0, 0] * dx + R[1, 0] * dy + R[2, 0] * dz) / depth_here * k[0] + k[2]))
        v = int(np.rint((R[0, 1] * dx + R[1, 1] * dy + R[2, 1] * dz) / depth_here * k[1] + k[3]))
        if not (0 <= u < depth.shape[1] and 0 <= v < depth.shape[0]):
            continue
        d = depth[v, u]
        if low <= d <= high:
            if d >= depth_here - margin:
                continue
            s = d / depth_here
            if body_distance(t[0] + s * dx, t[1] + s * dy, t[2] + s * dz, start, end, radius)[0] > margin:
                continue
        elif not _ray_meets_body(t, dx, dy, dz, start, end, radius):
            continue
        keep[i] = body_distance(x, y, z, start, end, radius)[0] > 0.0
    return keep


@compiled
def _ray_meets_body(t: F64, dx: float, dy: float, dz: float, start: F64, end: F64, radius: F64) -> bool:
    """Whether the segment from the camera to a point passes through a capsule (sphere tracing)."""
    length = np.sqrt(dx * dx + dy * dy + dz * dz)
    s = 0.0
    for _ in range(64):
        d = body_distance(t[0] + s * dx, t[1] + s * dy, t[2] + s * dz, start, end, radius)[0]
        if d <= 1e-3:
            return True
        s += d / length
        if s >= 1.0:
            return False
    return False


@compiled
def body_points(
    depth: F32,
    k: F64,
    R: F64,
    t: F64,
    low: float,
    high: float,
    plane: F64,
    height: float,
    start: F64,
    end: F64,
    radius: F64,
    band: float,
    thin: float,
    stride: int,
) -> F64:
    """(M, 3) points, base frame, of every ``stride``-th pixel that look like the robot.

    They lie within ``band`` of the surface of a capsule that is thicker than ``thin`` (fingers are thin,
    and what they hold lies beside them), and higher than ``height`` above the plane.
    """
    rows, columns = depth.shape
    out = np.empty(((rows // stride + 1) * (columns // stride + 1), 3))
    count = 0
    for v in range(0, rows, stride):
        b = (v - k[3]) / k[1]
        for u in range(0, columns, stride):
            d = depth[v, u]
            if not low <= d <= high:
                continue
            a = (u - k[2]) / k[0]
            x = (R[0, 0] * a + R[0, 1] * b + R[0, 2]) * d + t[0]
            y = (R[1, 0] * a + R[1, 1] * b + R[1, 2]) * d + t[1]
            z = (R[2, 0] * a + R[2, 1] * b + R[2, 2]) * d + t[2]
            if z - (plane[0] * x + plane[1] * y + plane[2]) < height:
                continue
            distance, c = body_distance(x, y, z, start, end, radius)
            if c >= 0 and abs(distance) < band and radius[c] > thin:
                out[count, 0], out[count, 1], out[count, 2] = x, y, z
                count += 1
    return out[:count]


@compiled
def body_shift(points: F64, start: F64, end: F64, radius: F64, axis: F64, iterations: int) -> F64:
    """(3,) translation of (M, 3) robot points against the capsule model.

    Capsules enclose the body, so that points lie inside by an unknown inset: it is estimated with the
    shift. Along the camera's axis (3,) the two cannot be told apart; that part is held at 0. Robust
    Gauss-Newton: residuals beyond 1 cm of the median count less.
    """
    shift = np.zeros(3)
    distance, row = np.empty(len(points)), np.empty((len(points), 4))
    for _ in range(iterations):
        for i in range(len(points)):
            x, y, z = points[i, 0] - shift[0], points[i, 1] - shift[1], points[i, 2] - shift[2]
            distance[i], c = body_distance(x, y, z, start, end, radius)
            d = end[c] - start[c]
            length = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
            px, py, pz = x - start[c, 0], y - start[c, 1], z - start[c, 2]
            s = 0.0
            if length > 0.0:
                s = min(max((px * d[0] + py * d[1] + pz * d[2]) / length, 0.0), 1.0)
            ex, ey, ez = px - s * d[0], py - s * d[1], pz - s * d[2]
            norm = max(np.sqrt(ex * ex + ey * ey + ez * ez), 1e-9)
            row[i, 0], row[i, 1], row[i, 2], row[i, 3] = ex / norm, ey / norm, ez / norm, -1.0
        middle = np.median(distance)
        normal, right = np.zeros((4, 4)), np.zeros(4)
        for i in range(len(points)):
            weight = 1.0 / max(1.0, abs(distance[i] - middle) / 0.01)
            for m in range(4):
                right[m] += weight * row[i, m] * distance[i]
                for n in range(4):
                    normal[m, n] += weight * row[i, m] * row[i, n]
        for m in range(3):
            normal[m, m] += 0.01 * len(points)  # prior: about 2 cm, against insets that vary by 2 mm
            for n in range(3):
                normal[m, n] += len(points) * axis[m] * axis[n]
            right[m] -= 0.01 * len(points) * shift[m]
        normal[3, 3] += 1e-6
        step = np.linalg.solve(normal, right)
        shift += step[:3]
    shift -= axis * (axis[0] * shift[0] + axis[1] * shift[1] + axis[2] * shift[2])
    return shift
