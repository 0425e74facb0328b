"""From an anchor in the image to where to grip and where to let go, by depth alone.

Everything is worked out gravity-aligned, in the base frame (z up). Objects stand on a support plane.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import RgbdFrame
from bridgevla_ros.planner.lifting import STEP

ABOVE = 0.006
"""Metres above the support plane that make a point part of a thing, three sigma of a depth camera at 1 m."""

MIN_GRIP = 0.020
"""Metres above the support that the TCP keeps: the pads reach 19 mm below it."""

MAX_BITE = 0.030
"""Metres that the TCP goes below the top of a tall thing."""


Region = tuple[NDArray[np.bool_], tuple[slice, slice]]
"""A mask over a window of the image, and the window."""


@dataclass(frozen=True, eq=False)
class Cloud3d:
    """A frame as points: (H, W, 3) metres in the base frame, NaN where depth fails."""

    points: Array
    rgb: NDArray[np.uint8]
    support: float
    _regions: dict[tuple[int, int, int], Region] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, frame: RgbdFrame, T_base_camera: Transform, table_height: float) -> Cloud3d:
        """Deproject every pixel, and find the support plane within 3 cm of where it is said to be.

        Who sets anchors and who plans from them ask for the same frame: the last answer for a frame is kept
        as long as the frame. It is known again by identity: frames are never changed.
        """
        asked = _asked(T_base_camera, table_height)
        known = _CLOUDS.get(frame)
        if known is None or known[0] != asked:
            known = _CLOUDS[frame] = (asked, cls._of(frame, T_base_camera, table_height))
        return known[1]

    @classmethod
    def _of(cls, frame: RgbdFrame, T_base_camera: Transform, table_height: float) -> Cloud3d:
        k, (height, width) = frame.intrinsics, frame.depth.shape
        depth = np.where(np.isfinite(frame.depth) & (frame.depth > 0), frame.depth, np.nan)
        camera = np.empty((height, width, 3))
        camera[..., 2] = depth
        np.multiply((np.arange(width) - k.cx) / k.fx, camera[..., 2], out=camera[..., 0])
        np.multiply(((np.arange(height) - k.cy) / k.fy)[:, None], camera[..., 2], out=camera[..., 1])
        points = T_base_camera.apply(camera.reshape(-1, 3)).reshape(height, width, 3)
        z = points[..., 2].ravel()
        near = z[np.abs(z - table_height) < 0.03]  # NaN is not near
        support = table_height
        if len(near) > 500:
            counts, edges = np.histogram(near, 60, (table_height - 0.03, table_height + 0.03))
            mode = edges[int(counts.argmax())] + 0.0005
            support = float(np.median(near[np.abs(near - mode) < 0.004]))
        return cls(points, frame.rgb, support)


_Asked = tuple[bytes, bytes, float]
_CLOUDS: WeakKeyDictionary[RgbdFrame, tuple[_Asked, Cloud3d]] = WeakKeyDictionary()


def _asked(T_base_camera: Transform, table_height: float) -> _Asked:
    return T_base_camera.translation.tobytes(), T_base_camera.rotation.tobytes(), table_height


def without(
    frame: RgbdFrame, T_base_camera: Transform, table_height: float, pixels: NDArray[np.bool_]
) -> RgbdFrame:
    """The frame again, its cloud without (H, W) pixels; its images keep them: networks know arms."""
    cloud = Cloud3d.of(frame, T_base_camera, table_height)
    points = np.where(pixels[..., None], np.nan, cloud.points)
    again = dataclasses.replace(frame)
    _CLOUDS[again] = _asked(T_base_camera, table_height), Cloud3d(points, cloud.rgb, cloud.support)
    return again


def segment(cloud: Cloud3d, pixel: Array, window: int = 70) -> Region:
    """Pixels above the support that are joined to the anchor in space and alike in colour.

    Args:
        cloud: The frame as points.
        pixel: (2,) u, v.
        window: Pixels on each side that are looked at.

    Returns:
        Mask over the window, and the window. The cloud remembers it: it is not to be written to.

    Raises:
        BridgeError: DEPTH_HOLE: nothing stands above the support there.
    """
    asked = (round(float(pixel[0])), round(float(pixel[1])), window)
    if asked not in cloud._regions:
        cloud._regions[asked] = _segment(cloud, *asked)
    return cloud._regions[asked]


def _segment(cloud: Cloud3d, u: int, v: int, window: int) -> Region:
    height, width = cloud.points.shape[:2]
    roi = (
        slice(max(v - window, 0), min(v + window + 1, height)),
        slice(max(u - window, 0), min(u + window + 1, width)),
    )
    points = cloud.points[roi]
    above = points[..., 2] > cloud.support + ABOVE
    row, column = v - roi[0].start, u - roi[1].start
    colour = chroma(cloud.rgb[roi])
    patch = (slice(max(row - 2, 0), row + 3), slice(max(column - 2, 0), column + 3))
    seed = np.median(colour[patch].reshape(-1, 3), 0)
    alike = lengths(colour - seed) < 0.25
    candidate = above & alike
    # Cut where a neighbour is far: a step in space parts two things of one colour.
    for axis in (0, 1):
        gap = lengths(np.diff(points, axis=axis)) > STEP * 2
        first = (slice(None, -1), slice(None)) if axis == 0 else (slice(None), slice(None, -1))
        candidate[first] &= ~gap
    labels, count = ndimage.label(candidate)
    if count == 0:
        raise _nothing(u, v)
    rows, columns = np.nonzero(labels)
    distance = np.hypot(rows - row, columns - column)
    if labels[row, column] == 0 and distance.min() > 8:
        raise _nothing(u, v)
    chosen = labels[row, column] or labels[rows[distance.argmin()], columns[distance.argmin()]]
    mask = labels == chosen
    if mask.sum() < 12:
        raise _nothing(u, v)
    return mask, roi


def _nothing(u: int, v: int) -> BridgeError:
    return BridgeError(
        ErrorCode.DEPTH_HOLE,
        f"at ({u}, {v}) depth shows nothing that stands above its support",
        value=0.0,
        limit=ABOVE,
        unit="m",
        remedy="look again; a flat or shiny thing cannot be told from the table by depth",
    )


def lengths(vectors: Array) -> Array:
    """Of (..., 3) vectors; numpy's norm along an axis takes four times as long."""
    return np.asarray(np.sqrt(np.einsum("...i,...i->...", vectors, vectors)))


def chroma(rgb: NDArray[np.uint8]) -> Array:
    """Colour without its brightness: (H, W, 3); grey things keep a little of theirs."""
    values = rgb.astype(np.float64) / 255.0
    smooth = ndimage.uniform_filter(values, (3, 3, 0))
    brightest = np.maximum(np.maximum(smooth[..., 0], smooth[..., 1]), smooth[..., 2])
    return np.asarray(smooth / (brightest[..., None] + 0.1))


@dataclass(frozen=True, eq=False)
class Grasp:
    """Where to grip a thing from above. Base frame, metres.

    Attributes:
        center: (3,) TCP position.
        finger: (2,) unit vector along which the fingers open.
        width: Of the thing between the fingers.
        length: Of the thing across.
        height: Of its top above the support.
        hang: From the TCP down to the thing's lowest point.
        sigma: Standard deviation of the centre.
        points: Number of points it rests on.
    """

    center: Array
    finger: Array
    width: float
    length: float
    height: float
    hang: float
    sigma: float
    points: int


def extents(xy: Array, angle: float) -> tuple[float, float, float, float]:
    """Robust (low, high) along ``angle`` and across it."""
    low_a, high_a, low_b, high_b = boxes(xy, np.array([angle]))[0].tolist()
    return low_a, high_a, low_b, high_b


def boxes(xy: Array, angles: Array) -> Array:
    """``extents`` of (N, 2) points at (A,) angles at once: (A, 4)."""
    cos, sin = np.cos(angles), np.sin(angles)
    turned = np.stack([xy @ np.stack([cos, sin]), xy @ np.stack([-sin, cos])])
    low, high = np.percentile(turned, (1.5, 98.5), axis=1)
    return np.stack([low[0], high[0], low[1], high[1]], -1)


def fit_sphere(points: Array) -> tuple[Array, float, float]:
    """Least-squares sphere: centre, radius, root mean square residual, all metres."""
    a = np.column_stack([2 * points, np.ones(len(points))])
    solution, *_ = np.linalg.lstsq(a, (points**2).sum(1), rcond=None)
    center = solution[:3]
    radius = float(np.sqrt(max(solution[3] + center @ center, 0.0)))
    residual = np.linalg.norm(points - center, axis=1) - radius
    return center, radius, float(np.sqrt((residual**2).mean()))


def _clean(points: Array) -> Array:
    """Without stragglers: each kept point has company within 8 mm."""
    if len(points) > 3000:
        points = points[:: len(points) // 3000 + 1]
    from scipy.spatial import cKDTree

    tree = cKDTree(points)
    company = tree.query_ball_point(points, 0.008, return_length=True)
    keep = company >= min(6, max(2, len(points) // 20))
    return np.asarray(points[keep]) if keep.sum() >= 12 else points


def grasp(cloud: Cloud3d, pixel: Array, T_base_tcp_home: Transform, max_width: float) -> Grasp:
    """Grip a thing from above across its narrow side, where the fingers find room.

    Args:
        cloud: The frame as points.
        pixel: (2,) anchor.
        T_base_tcp_home: The nearest of the equivalent finger directions to this pose is taken.
        max_width: Metres that the gripper opens.

    Raises:
        BridgeError: DEPTH_HOLE; OUT_OF_RANGE: wider than the gripper.
    """
    mask, roi = segment(cloud, pixel)
    points = _clean(cloud.points[roi][mask])
    top = float(np.percentile(points[:, 2], 97))
    height = top - cloud.support
    xy = points[:, :2]
    angles = np.radians(np.arange(0.0, 90.0, 3.0))
    at = boxes(xy, angles)
    areas = (at[:, 1] - at[:, 0]) * (at[:, 3] - at[:, 2])
    best = int(areas.argmin())
    low_a, high_a, low_b, high_b = at[best].tolist()
    axis = np.array([np.cos(angles[best]), np.sin(angles[best])])
    across = np.array([-axis[1], axis[0]])
    middle = axis * (low_a + high_a) / 2 + across * (low_b + high_b) / 2
    sides = (high_a - low_a, high_b - low_b)
    ball, radius, residual = fit_sphere(points)
    flat = (points[:, 2] > top - 0.004).mean()
    round_ = residual < 0.0025 and 0.012 < radius < 0.05 and abs(2 * radius - height) < 0.014 and flat < 0.35
    if round_:
        middle, sides = ball[:2], (2 * radius, 2 * radius)
    choices: list[tuple[float, Array, float, float]] = []
    if round_ or float(areas.max() / areas.min()) < 1.12:  # the same from all sides
        for a in np.radians(np.arange(0.0, 180.0, 15.0)):
            choices.append((0.0, np.array([np.cos(a), np.sin(a)]), min(sides), max(sides)))
    else:
        choices.append((10.0 * sides[0], axis, sides[0], sides[1]))
        choices.append((10.0 * sides[1], across, sides[1], sides[0]))
    bottom = max(float(np.percentile(points[:, 2], 1)), cloud.support)
    # A thing seen from above hides its lower part: it stands on the support unless its lowest visible
    # point hangs well clear of it (then it lies on or in something).
    floor = cloud.support if bottom - cloud.support < 0.6 * height else bottom
    grip = floor + float(np.clip(0.55 * (top - floor), MIN_GRIP, max(MIN_GRIP, top - floor - 0.008)))
    grip = max(grip, top - MAX_BITE)
    others = _others(cloud, roi, mask)
    home = T_base_tcp_home.rotation[:2, 1]
    home = home / max(float(np.linalg.norm(home)), 1e-9)
    scored = []
    for cost, direction, width, length in choices:
        blocked = _blocked(others, np.array([*middle, grip]), direction, width, max_width)
        turn = 1.0 - abs(float(direction @ home))
        scored.append(
            (
                cost + 0.02 * blocked + 0.3 * turn + (100.0 if width > max_width - 0.006 else 0.0),
                direction,
                width,
                length,
            )
        )
    _, finger, width, length = min(scored, key=lambda s: s[0])
    if width > max_width - 0.006:
        raise BridgeError(
            ErrorCode.OUT_OF_RANGE,
            f"the thing is {1000 * width:.0f} mm wide; the gripper takes {1000 * (max_width - 0.006):.0f} mm",
            value=width,
            limit=max_width - 0.006,
            unit="m",
            remedy="name something smaller",
        )
    if float(finger @ home) < 0:
        finger = -finger
    sigma = float(np.hypot(0.003, 0.02 / np.sqrt(len(points))))
    return Grasp(
        np.array([middle[0], middle[1], grip]),
        finger,
        width,
        length,
        height,
        grip - floor,
        sigma,
        len(points),
    )


def _others(cloud: Cloud3d, roi: tuple[slice, slice], mask: NDArray[np.bool_]) -> Array:
    """(M, 3) points above the support in the window that are not the thing's own, nor next to them."""
    points = cloud.points[roi]
    away = ~ndimage.binary_dilation(mask, iterations=3)
    return np.asarray(points[away & (points[..., 2] > cloud.support + 0.012)])


def _blocked(others: Array, center: Array, finger: Array, width: float, max_width: float) -> float:
    """Points where the open fingers would go down, or, of tall things, the linkage that carries them.

    Fingers: 2 cm wide, 1.5 cm thick. Linkage: 5 cm wide, it stands out by 6 cm, 3 cm above the grip.
    """
    if len(others) == 0:
        return 0.0
    relative = others - center
    along, across = (
        np.abs(relative[:, :2] @ finger), np.abs(relative[:, :2] @ np.array([-finger[1], finger[0]])),
    )  # fmt: skip
    opening = min(max_width, width + 0.03) / 2
    fingers = (along > opening - 0.004) & (along < opening + 0.022) & (across < 0.016)
    linkage = (
        (relative[:, 2] > 0.03) & (along > opening - 0.004) & (along < opening + 0.06) & (across < 0.025)
    )
    return float((fingers | linkage).sum())


def top_down(center: Array, finger: Array) -> Transform:
    """T_base_tcp looking straight down: tcp z is -z, tcp y along ``finger`` (unit, horizontal)."""
    y = np.array([finger[0], finger[1], 0.0])
    z = np.array([0.0, 0.0, -1.0])
    return Transform(center, np.column_stack([np.cross(y, z), y, z]))
