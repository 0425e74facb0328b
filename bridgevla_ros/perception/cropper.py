"""From a depth image to the few points that the expert sees, and how good the depth was."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import fpsample
import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.camera import check_frame, project
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import CameraIntrinsics, Cloud, DepthQuality, JointState, RgbdFrame
from bridgevla_ros.perception import kernels
from bridgevla_ros.perception.config import CropperConfig
from bridgevla_ros.perception.smoothing import smooth

_CAPACITY = 40_000
"""Most voxels of a frame, and most points remembered."""
_MAX_CELLS = 60_000_000
_LAYER = 0.003
"""Metres; thickness of the layers among which the support plane is looked for."""
_RESIDUAL_BAND = 0.05
"""Metres; what lies nearer to the model of the robot is taken to be the robot ..."""
_RESIDUAL_HEIGHT = 0.12
"""... if it is this high above the support, metres, where no objects stand."""
_FINGER_RADIUS = 0.03
"""Metres; thinner capsules are fingers, and what they hold would be taken for them."""
_RESIDUAL_POINTS = 80
"""Fewest robot points that say something about calibration."""
_POSTURES, _POSTURES_MIN = 16, 7
"""Postures whose shifts are put together: at most, and before anything is said."""
_POSTURE_STEP = 0.15
"""Radians that some joint moves from one posture to the next."""


class Body(Protocol):
    """What the cropper needs of an arm model."""

    def body_capsules(self, q: Array, gripper_width: float) -> tuple[Array, Array, Array]:
        """(C, 3) starts, (C, 3) ends, (C,) radii, metres, base frame."""
        ...


@dataclass(frozen=True, eq=False)
class Support:
    """The support plane z = a x + b y + c, base frame.

    Attributes:
        plane: (3,) a, b, c; the expected one where none is seen.
        noise: Metres, standard deviation about it; NaN where none is seen.
    """

    plane: Array
    noise: float


class Cropper:
    """Crops depth images; remembers what the robot hides.

    Frames must come in order of time; an earlier one starts the memory afresh.
    """

    def __init__(self, config: CropperConfig, arm: Body) -> None:
        """Raises BridgeError BAD_INPUT for a workspace that is no box."""
        self.config = config
        self._arm = arm
        low, high = np.array(config.workspace_min, float), np.array(config.workspace_max, float)
        if low.shape != (3,) or high.shape != (3,) or not np.all(low < high):
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"workspace {config.workspace_min} .. {config.workspace_max} is not a box of three sides",
                remedy="Give workspace_min and workspace_max three numbers each, the first below the second.",
            )
        self._box = np.stack([low, high])
        cells = np.ceil((high - low) / config.voxel).astype(int) + 1
        if cells.prod() > _MAX_CELLS:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"workspace of {cells.tolist()} voxels of {config.voxel} m",
                value=float(cells.prod()),
                limit=float(_MAX_CELLS),
                remedy="Use larger voxels or a smaller workspace.",
            )
        self._grid = np.zeros(cells, np.int32)
        self._buffer = np.empty((_CAPACITY, 3), np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget what was seen."""
        self._grid[:] = 0
        self._token = 0
        self._sequence = 0
        self._stamp = -np.inf
        self._points = np.empty((0, 3), np.float32)
        self._seen = np.empty(0)
        self._shifts: deque[tuple[Array, Array]] = deque(maxlen=_POSTURES)

    def remembered(self) -> dict[str, NDArray[Any]]:
        """What later crops depend on, by name: points, when each was seen, postures and their shifts."""
        return {
            "points": self._points,
            "seen": self._seen,
            "postures": np.array([q for q, _ in self._shifts]),
            "shifts": np.array([shift for _, shift in self._shifts]),
            "stamp": np.array(self._stamp),
            "sequence": np.array(self._sequence),
        }

    def recall(self, remembered: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what ``remembered`` gave."""
        self.reset()
        self._points = np.asarray(remembered["points"], np.float32).reshape(-1, 3)
        self._seen = np.asarray(remembered["seen"], np.float64)
        self._shifts.extend(zip(remembered["postures"], remembered["shifts"], strict=True))
        self._stamp, self._sequence = float(remembered["stamp"]), int(remembered["sequence"])

    def warm_up(self) -> None:
        """Compile the kernels now (or load them from numba's cache), so that the first frame is on time."""
        depth = np.full((16, 16), 0.5, np.float32)
        frame = RgbdFrame(
            0.0, np.zeros((16, 16, 3), np.uint8), depth, CameraIntrinsics(16, 16, 16.0, 16.0, 7.5, 7.5)
        )
        middle = self._box.mean(0)
        down = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
        joints = JointState(0.0, np.zeros(7), np.zeros(7), 0.0)
        for stamp in (0.0, 0.1):
            self.crop(
                RgbdFrame(stamp, frame.rgb, depth, frame.intrinsics),
                Transform(middle + np.array([0.0, 0.0, 0.5]), down),
                joints,
                middle,
                "",
                stamp,
            )
        # These frames show too little of the robot to be compared with the model.
        kernels.body_shift(
            np.zeros((8, 3)), np.zeros((1, 3)), np.eye(1, 3), np.full(1, 0.1), np.eye(1, 3)[0], 1
        )
        self.reset()

    def crop(
        self,
        frame: RgbdFrame,
        T_base_camera: Transform,
        joints: JointState,
        center_base: Array | None,
        guidance_id: str,
        now: float,
    ) -> tuple[Cloud, DepthQuality]:
        """Points near the next contact (or of the workspace), without table, robot and flying pixels.

        Args:
            frame: Colour is not looked at.
            T_base_camera: At the frame's stamp.
            joints: At the frame's stamp.
            center_base: (3,) metres, centre of the local crop; None for the whole workspace.
            guidance_id: Guidance that the centre belongs to.
            now: Seconds.

        Returns:
            Cloud of exactly ``points`` points (repeated where fewer are seen) or of none, and the quality.
            Code DEPTH_HOLE: the depth is missing where it is needed; CALIBRATION: the robot is seen
            beside its model; STALE_IMAGE: the frame is older than ``max_age``. An empty cloud under code
            NONE says that nothing stands there.

        Raises:
            BridgeError: BAD_INPUT where the frame's parts do not belong together, or a pose, joints or a
                centre are not finite.
        """
        check_frame(frame)
        _check_finite("camera pose", T_base_camera.translation, T_base_camera.rotation)
        _check_finite("joint state", joints.position, np.array([joints.gripper_width]))
        if center_base is not None:
            center_base = np.asarray(center_base, np.float64).reshape(3)
            _check_finite("crop centre", center_base)
        if frame.stamp < self._stamp:
            self.reset()
        config = self.config
        measured = np.ascontiguousarray(frame.depth, np.float32)
        k = np.array([frame.intrinsics.fx, frame.intrinsics.fy, frame.intrinsics.cx, frame.intrinsics.cy])
        view = (k, np.ascontiguousarray(T_base_camera.rotation), T_base_camera.translation)
        span = (config.depth_min, config.depth_max)
        depth = smooth(measured, *span)
        valid = kernels.count_valid(depth, *span) / depth.size
        start, end, radius = (
            np.ascontiguousarray(a, np.float64)
            for a in self._arm.body_capsules(joints.position, joints.gripper_width)
        )
        support = self._support(depth, view, span)
        noise = support.noise if depth is measured else self._support(measured, view, span).noise
        points = self._scan(depth, valid, view, span, support, (start, end, radius + config.body_margin))
        memory, seen = self._remember(frame.stamp, points, depth, view, span, (start, end, radius))
        everything = np.concatenate([points, memory])
        age = np.concatenate([np.zeros(len(points)), frame.stamp - seen])
        self._points, self._seen = everything, frame.stamp - age
        self._stamp = frame.stamp

        target_valid = float("nan")
        if center_base is not None:
            inside = np.linalg.norm(everything - center_base, axis=1) <= config.crop_radius
            everything, age = everything[inside], age[inside]
            target_valid = self._target_valid(depth, frame.intrinsics, T_base_camera, center_base, span)
        residual = self._residual(depth, view, span, support, (start, end, radius), joints.position)
        code = ErrorCode.NONE
        if now - frame.stamp > config.max_age:
            code = ErrorCode.STALE_IMAGE
        elif not (valid if np.isnan(target_valid) else target_valid) >= config.min_valid and (
            len(everything) < config.min_points or np.isnan(target_valid)
        ):
            code = ErrorCode.DEPTH_HOLE
        elif residual > config.residual_limit:
            code = ErrorCode.CALIBRATION
        quality = DepthQuality(
            stamp=frame.stamp,
            valid_fraction=valid,
            target_valid_fraction=target_valid,
            age=now - frame.stamp,
            points_target=len(everything),
            noise=noise,
            robot_residual=residual,
            code=code,
            sequence=self._sequence,
            computed_at=now,
        )
        self._sequence += 1
        chosen = self._choose(everything)
        cloud = Cloud(
            stamp=frame.stamp,
            points_base=everything[chosen],
            age=age[chosen].astype(np.float32),
            center_base=np.full(3, np.nan) if center_base is None else center_base.copy(),
            guidance_id=guidance_id if center_base is not None else "",
        )
        return cloud, quality

    def _support(
        self, depth: kernels.F32, view: tuple[Array, Array, Array], span: tuple[float, float]
    ) -> Support:
        config = self.config
        stride = max(1, round(np.sqrt(depth.size / 3000)))
        candidates = kernels.support_candidates(
            depth, *view, *span, self._box, config.support_height, config.support_band, stride
        )
        return fit_support(candidates, config.support_height)

    def _scan(
        self,
        depth: kernels.F32,
        valid: float,
        view: tuple[Array, Array, Array],
        span: tuple[float, float],
        support: Support,
        body: tuple[Array, Array, Array],
    ) -> NDArray[np.float32]:
        config = self.config
        start, end, radius = body
        wide = radius[:, None]
        body_box = np.full((2, 3), np.inf)
        if len(radius):
            body_box = np.stack(
                [(np.minimum(start, end) - wide).min(0), (np.maximum(start, end) + wide).max(0)]
            )
        clearance = -np.inf
        if config.drop_support:
            spread = 0.0 if np.isnan(support.noise) else 2.5 * support.noise
            clearance = min(max(config.support_margin, spread), 2.0 * config.support_margin)
        self._token += 1
        count = kernels.scan(
            depth,
            *view,
            *span,
            self._box,
            support.plane,
            clearance,
            config.flying_slope,
            round(config.flying_neighbours * valid),
            *body,
            body_box,
            self._grid,
            self._token,
            config.voxel,
            self._buffer,
        )
        return self._buffer[:count].copy()

    def _remember(
        self,
        stamp: float,
        points: NDArray[np.float32],
        depth: kernels.F32,
        view: tuple[Array, Array, Array],
        span: tuple[float, float],
        body: tuple[Array, Array, Array],
    ) -> tuple[NDArray[np.float32], Array]:
        """Points of earlier frames that the robot hides now, and when each was last seen."""
        recent = stamp - self._seen <= self.config.memory if self.config.memory > 0.0 else np.zeros(0, bool)
        old, seen = self._points[: len(recent)][recent], self._seen[: len(recent)][recent]
        if not len(old):
            return old, seen
        start, end, radius = body
        grown = radius + self.config.body_margin
        keep = kernels.still_hidden(old, depth, *view, *span, self.config.occlusion_margin, start, end, grown)
        cells = ((old - self._box[0]) / self.config.voxel).astype(int)
        keep &= self._grid[cells[:, 0], cells[:, 1], cells[:, 2]] != self._token
        room = max(0, _CAPACITY - len(points))
        return old[keep][:room], seen[keep][:room]

    def _target_valid(
        self,
        depth: kernels.F32,
        intrinsics: CameraIntrinsics,
        T_base_camera: Transform,
        center: Array,
        span: tuple[float, float],
    ) -> float:
        """Share of valid pixels over the crop; 0 where the crop lies outside the image."""
        center_camera = T_base_camera.inverse().apply(center)
        if center_camera[2] <= 0.0:
            return 0.0
        u, v = project(center_camera, intrinsics)[0]
        radius = min(intrinsics.fx, intrinsics.fy) * self.config.crop_radius / center_camera[2]
        valid, total = kernels.count_valid_disk(depth, u, v, radius, *span)
        return valid / total if total else 0.0

    def _residual(
        self,
        depth: kernels.F32,
        view: tuple[Array, Array, Array],
        span: tuple[float, float],
        support: Support,
        body: tuple[Array, Array, Array],
        q: Array,
    ) -> float:
        """Metres that the robot is seen beside its model, across the line of sight; NaN until seen enough."""
        moved = float(np.abs(self._shifts[-1][0] - q).max()) if self._shifts else np.inf
        if moved > _POSTURE_STEP:
            stride = max(1, round(np.sqrt(depth.size / 10_000)))
            points = kernels.body_points(
                depth,
                *view,
                *span,
                support.plane,
                _RESIDUAL_HEIGHT,
                *body,
                _RESIDUAL_BAND,
                _FINGER_RADIUS,
                stride,
            )
            if len(points) >= _RESIDUAL_POINTS:
                shift = kernels.body_shift(points, *body, np.ascontiguousarray(view[1][:, 2]), 6)
                self._shifts.append((q.copy(), shift))
        return robot_residual([shift for _, shift in self._shifts])

    def _choose(self, points: NDArray[np.float32]) -> NDArray[np.int64]:
        """Indices of the points to keep: farthest point sampling, or all of them over and over."""
        wanted, count = self.config.points, len(points)
        if count < self.config.min_points:
            return np.empty(0, np.int64)
        if count <= wanted:
            return np.arange(wanted) % count
        height = 3 if count < 2000 else 5
        chosen = fpsample.bucket_fps_kdline_sampling(points, wanted, h=height, start_idx=0)
        return np.asarray(chosen, np.int64)


def robot_residual(shifts: Sequence[Array]) -> float:
    """Metres by which the robot is seen beside its model, of (3,) shifts seen in the last few postures.

    NaN for fewer than 7 of them. Their mean (our choice): a body fills its capsules unevenly, so that one
    posture alone is wrong by up to 2 cm, and postures in a row are wrong alike; the median goes with
    whichever kind is just the majority.
    """
    if len(shifts) < _POSTURES_MIN:
        return float("nan")
    return float(np.linalg.norm(np.mean(shifts, axis=0)))


def fit_support(candidates: Array, expected_height: float) -> Support:
    """Fit z = a x + b y + c to the largest level layer among points.

    Args:
        candidates: (M, 3) metres, base frame, near the expected height.
        expected_height: Metres; answered where too few points lie in a layer.
    """
    expected = Support(np.array([0.0, 0.0, expected_height]), float("nan"))
    if len(candidates) < 60:
        return expected
    z = candidates[:, 2]
    lowest = float(z.min())
    bins = ((z - lowest) * (1.0 / _LAYER)).astype(np.int64)
    plane = np.array([0.0, 0.0, lowest + (int(np.argmax(np.bincount(bins))) + 0.5) * _LAYER])
    A = np.column_stack([candidates[:, :2], np.ones(len(candidates))])
    reach, sigma = 4.0 * _LAYER, 0.0
    for _ in range(3):
        chosen = np.abs(z - A @ plane) <= reach
        if np.count_nonzero(chosen) < 60:
            return expected
        B, height = A[chosen], z[chosen]
        plane = np.linalg.solve(B.T @ B + 1e-9 * np.eye(3), B.T @ height)
        sigma = 1.4826 * float(np.median(np.abs(height - B @ plane)))
        reach = max(3.0 * sigma, _LAYER)
    if np.hypot(plane[0], plane[1]) > 0.1:  # over 6 degrees: some object's slope, not the table
        return expected
    return Support(plane, sigma)


def _check_finite(name: str, *values: Array) -> None:
    for value in values:
        if not np.isfinite(value).all():
            raise BridgeError(ErrorCode.BAD_INPUT, f"{name} is not finite: {np.asarray(value).tolist()}")
