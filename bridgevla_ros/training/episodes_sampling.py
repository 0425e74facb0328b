"""Training samples, drawn on the fly: guidance with an error, a state beside it, a cloud, the label.

Guidance is the production code's own (``TrajectoryGenerator``, ``window``, ``look_ahead``) over random
pick-and-place plans, kept in the local frame of its next contact. A sample takes one view of the bank,
one point of a guidance whose arm stands about as far away as the view's, and ONE error of the guidance
(planner: position along and across the viewing ray, yaw). The label is what carries the arm to the true
contact through the blend of ``expert.features``; where too little of the target shows, it is guidance.
The state's own offset from guidance is drawn apart from that error, so that it tells nothing about it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.trajectory import TrajectoryConfig, TrajectoryGenerator
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import CameraIntrinsics, GripperEvent, Waypoint, WaypointKind, WaypointPlan
from bridgevla_ros.expert import features
from bridgevla_ros.expert.config import ModelConfig
from bridgevla_ros.expert.outlook import look_ahead
from bridgevla_ros.training.episodes import DOWN, View

F32 = NDArray[np.float32]
CAMERA: Array = np.array([1.14, 0.0, 0.66])
"""Metres, base frame: about where the bank's camera stands; errors are larger along its ray."""


@dataclass(frozen=True)
class Recipe:
    """Settings of the data, stored in the checkpoint.

    Attributes:
        error_sigmas, error_shares: Metres across the ray, and how often each; along the ray 1.5 times.
        error_limit: Metres, longer errors are shortened to this.
        yaw_sigma, yaw_limit: rad.
        offset_sigma: Metres, state beside the path; ``velocity_sigma`` m/s.
        cloud_age: Seconds, clouds are up to this stale; ``guidance_age``: seconds.
        erase_share: Of samples whose target is taken out of the cloud; ``blind_share``: no cloud at all.
        min_target: Fewer points of the target are too few: the label is guidance.
        points: Fewest and most points kept of a cloud.
        hint_sigma: Of the contact that stage 1 is told, in units of the normaliser.
    """

    error_sigmas: tuple[float, ...] = (0.001, 0.006, 0.012, 0.020)
    error_shares: tuple[float, ...] = (0.10, 0.30, 0.40, 0.20)
    error_limit: float = 0.045
    yaw_sigma: float = 0.12
    yaw_limit: float = 0.35
    offset_sigma: float = 0.012
    velocity_sigma: float = 0.03
    cloud_age: float = 0.25
    guidance_age: float = 20.0
    erase_share: float = 0.06
    blind_share: float = 0.04
    min_target: int = 25
    points: tuple[int, int] = (96, 144)
    hint_sigma: float = 0.02


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch, float32.

    Attributes:
        features: (B, F); cloud: (B, N, 4); mask: (B, N).
        contact: (B, 5) true correction and presence; action: (B, H * 10).
    """

    features: F32
    cloud: F32
    mask: F32
    contact: F32
    action: F32


def grasp_band(height: float | Array) -> tuple[Array, Array]:
    """Lowest and highest good TCP height above an object's base, metres.

    Guidance inside the band is left alone: how deep to grasp is the planner's choice. The pads reach
    19 mm below the TCP.
    """
    h = np.asarray(height, float)
    low = np.maximum(0.020, 0.35 * h)
    return low, np.maximum(low + 0.004, np.minimum(0.75 * h, h - 0.010))


class GuidanceLibrary:
    """Points of many guidances, in the local frame of their next contact, sorted by distance.

    Attributes (rows R):
        rows: Name -> array with R first.
    """

    def __init__(self, plans: int, seed: int, model: ModelConfig, period: float = 0.1) -> None:
        rng = np.random.default_rng([seed, 0x61])
        generator = TrajectoryGenerator(
            TrajectoryConfig(workspace_min=(-2.0, -2.0, -1.0), workspace_max=(2.0, 2.0, 2.0))
        )
        found: dict[str, list[Array]] = {}
        up = np.array([0.0, 0.0, 1.0])
        for _ in range(plans):
            plan, start = _random_plan(rng)
            guidance = generator.generate(plan, Transform.identity(), start, 0.085)
            if guidance.code != 0:
                raise ValueError(f"random plan was refused: {guidance.message}")
            events = guidance.event_progress
            for progress in np.arange(0.0, 1.0, period / guidance.duration):
                done = int(np.sum(events < progress - 1e-9))
                near = np.flatnonzero(np.abs(events - progress) < 0.5 * period / guidance.duration)
                cases = [(float(progress), done)] + [(float(events[i]), int(i)) for i in near]
                for at, count in cases:
                    ahead = look_ahead(guidance, at, count, 0.085, model, up)
                    frame = ahead.contact.T_base_local.inverse()
                    row = {
                        "window_position": frame.apply(ahead.window.position),
                        "window_rotation": frame.rotation @ ahead.rotations,
                        "gain": ahead.gains,
                        "weight": ahead.weights[:1],
                        "clamped": ahead.clamped,
                        "widths": ahead.widths,
                        "now": frame.apply(ahead.now.position[0]),
                        "now_rotation": frame.rotation @ Rotation.from_quat(ahead.now.quat[0]).as_matrix(),
                        "linear": frame.rotate(ahead.now.linear_velocity[0]),
                        "angular": frame.rotate(ahead.now.angular_velocity[0]),
                        "exists": np.array(float(ahead.contact.exists)),
                        "closes": np.array(float(ahead.contact.event == GripperEvent.CLOSE)),
                        "event_width": np.array(ahead.event_width),
                        "before": np.array(ahead.widths[0] if not ahead.clamped[0] else 0.085),
                    }
                    for name, value in row.items():
                        found.setdefault(name, []).append(np.asarray(value))
        self.rows = {name: np.stack(values) for name, values in found.items()}
        distance = np.linalg.norm(self.rows["now"], axis=1)
        self._sorted: dict[bool, tuple[NDArray[np.int64], Array]] = {}
        for closes in (True, False):
            mine = np.flatnonzero((self.rows["exists"] > 0) & (self.rows["closes"] == float(closes)))
            mine = mine[np.argsort(distance[mine])]
            self._sorted[closes] = (mine, distance[mine])
        self.ended = np.flatnonzero(self.rows["exists"] == 0)

    def draw(self, rng: np.random.Generator, closes: NDArray[np.bool_], distance: Array) -> NDArray[np.int64]:
        """(B,) rows of the wanted kind of contact at about these distances (B,), metres."""
        out = np.empty(len(distance), np.int64)
        for kind, (index, sorted_distance) in self._sorted.items():
            which = np.flatnonzero(closes == kind)
            width = 0.01 + 0.1 * distance[which]
            low = np.searchsorted(sorted_distance, distance[which] - width)
            high = np.maximum(np.searchsorted(sorted_distance, distance[which] + width), low + 1)
            pick = low + (rng.random(len(which)) * (high - low)).astype(np.int64)
            out[which] = index[np.minimum(pick, len(index) - 1)]
        return out


def _random_plan(rng: np.random.Generator) -> tuple[WaypointPlan, Transform]:
    def pose(position: Array, yaw: float, tilt: float = 0.0) -> Transform:
        lean = Rotation.from_rotvec([*rng.normal(0.0, tilt, 2), 0.0]) if tilt else Rotation.identity()
        return Transform(position, (lean * Rotation.from_euler("z", yaw)).as_matrix() @ DOWN)

    source = np.array([rng.uniform(0.35, 0.65), rng.uniform(-0.3, 0.3), rng.uniform(0.012, 0.06)])
    while True:
        target = np.array([rng.uniform(0.35, 0.65), rng.uniform(-0.3, 0.3), rng.uniform(0.03, 0.12)])
        if np.linalg.norm(target[:2] - source[:2]) > 0.11:
            break
    yaw, turn = rng.uniform(-np.pi / 2, np.pi / 2), rng.uniform(-0.8, 0.8)
    lift = rng.uniform(0.08, 0.16, 4)
    width = rng.uniform(0.0, 0.02)
    open_, close, none = GripperEvent.OPEN, GripperEvent.CLOSE, GripperEvent.NONE
    up = np.array([0.0, 0.0, 1.0])
    table = [
        (pose(source + lift[0] * up, yaw), WaypointKind.APPROACH, open_, 0.085),
        (pose(source, yaw), WaypointKind.CONTACT, close, width),
        (pose(source + lift[1] * up, yaw), WaypointKind.RETREAT, none, width),
        (pose(target + lift[2] * up, yaw + turn), WaypointKind.APPROACH, none, width),
        (pose(target, yaw + turn), WaypointKind.CONTACT, open_, 0.085),
        (pose(target + lift[3] * up, yaw + turn), WaypointKind.RETREAT, none, 0.085),
    ]
    waypoints = tuple(Waypoint(T, kind, event, w, np.zeros(2), 1.0, 1.0) for T, kind, event, w in table)
    start = pose(
        np.array([rng.uniform(0.3, 0.6), rng.uniform(-0.3, 0.3), rng.uniform(0.15, 0.45)]),
        rng.uniform(-1.5, 1.5),
        0.1,
    )
    camera = CameraIntrinsics(1, 1, 1.0, 1.0, 0.0, 0.0)
    plan = WaypointPlan(
        0.0, "camera", "base", "plan", "task", "request", "", "", 0, 1, (), waypoints, Transform.identity(),
        camera, "", "", 0, "",
    )  # fmt: skip
    return plan, start


class Sampler:
    """Draws batches. All randomness comes from the generator that is given."""

    def __init__(
        self, views: list[View], library: GuidanceLibrary, model: ModelConfig, recipe: Recipe
    ) -> None:
        self.library, self.model, self.recipe = library, model, recipe
        self.set_views(views)

    def set_views(self, views: list[View]) -> None:
        """Draw from these views from now on."""
        self.views = views
        self._pick = np.array([v.phase == "pick" for v in views])
        self._height = np.array([v.height for v in views])
        self._size = np.array([v.size for v in views])
        self._base = np.array([v.base for v in views])
        self._yaw = np.array([v.yaw for v in views])
        self._kind = np.array([v.kind for v in views])

    def errors(self, rng: np.random.Generator, base: Array) -> Array:
        """(B, 3) metres, base frame: the planner's error, one a plan."""
        r, b = self.recipe, len(base)
        sigma = rng.choice(r.error_sigmas, size=b, p=r.error_shares)
        ray = CAMERA - base
        ray /= np.linalg.norm(ray, axis=1, keepdims=True)
        error = rng.normal(size=(b, 3))
        error += 0.5 * np.sum(error * ray, axis=1, keepdims=True) * ray
        error *= sigma[:, None]
        length = np.linalg.norm(error, axis=1, keepdims=True)
        return np.asarray(error * np.minimum(1.0, r.error_limit / np.maximum(length, 1e-9)))

    def trajectories(self, rng: np.random.Generator, size: int) -> Batch:
        """Stage 1: no clouds; the contact is told with a little noise, or (a sixth) not at all."""
        closes = rng.random(size) < 0.5
        distance = np.where(rng.random(size) < 0.7, rng.uniform(0.0, 0.22, size), rng.uniform(0.1, 0.6, size))
        index = self.library.draw(rng, closes, distance)
        ended = rng.random(size) < 0.05
        index[ended] = rng.choice(self.library.ended, int(ended.sum()))
        base = self._base[rng.integers(len(self.views), size=size)]
        error = self.errors(rng, base)
        angle = rng.uniform(-np.pi, np.pi, size)
        local = -turn(error, -angle)
        local[~closes, 2] = 0.0
        yaw = np.where(closes, np.clip(rng.normal(0.0, self.recipe.yaw_sigma, size), -0.35, 0.35), 0.0)
        known = (rng.random(size) < 5 / 6) & ~ended
        contact = self._contact(local, yaw, known)
        told = contact.copy()
        told[:, :4] += known[:, None] * rng.normal(0.0, self.recipe.hint_sigma, (size, 4)).astype(np.float32)
        action = self._action(index, contact)
        vector = self._features(rng, index, np.zeros(size), np.zeros(size), np.zeros(size))
        empty = np.zeros((size, 0, 4), np.float32)
        return Batch(vector, empty, empty[..., 0], told, action)

    def clouds(
        self,
        rng: np.random.Generator,
        size: int,
        views: NDArray[np.int64] | None = None,
        error: Array | None = None,
    ) -> Batch:
        """Stage 2: a cloud, and a guidance with one error.

        Args:
            rng: Source of randomness.
            size: B.
            views: (B,) indices of views; drawn where not given.
            error: (B, 3) metres, base frame, of the guidance; drawn where not given.
        """
        r, model = self.recipe, self.model
        chosen = rng.integers(len(self.views), size=size) if views is None else views
        base, pick, height = self._base[chosen], self._pick[chosen], self._size[chosen, 2]
        error = self.errors(rng, base) if error is None else error
        low, high = grasp_band(height)
        truth_z = np.where(
            pick, rng.uniform(low, high), height * rng.uniform(0.3, 1.0, size) + rng.uniform(0.0, 0.08, size)
        )
        goal = error + np.stack([np.zeros(size), np.zeros(size), truth_z], axis=1)
        kind, true_yaw = self._kind[chosen], self._yaw[chosen]
        yaw_error = np.clip(rng.normal(0.0, r.yaw_sigma, size), -r.yaw_limit, r.yaw_limit)
        quarter = np.pi / 2 * rng.integers(4, size=size)
        half = np.pi * rng.integers(2, size=size)
        aligned = true_yaw + np.where(kind == "cube", quarter, half)
        oriented = (kind == "cube") | (kind == "bar")
        yaw = np.where(oriented, aligned + yaw_error, rng.uniform(-np.pi, np.pi, size))
        count = int(rng.integers(r.points[0], r.points[1] + 1))
        cloud = np.zeros((size, count, 4), np.float32)
        mask = np.zeros((size, count), np.float32)
        seen = np.zeros(size, bool)
        erase, blind = rng.random(size) < r.erase_share, rng.random(size) < r.blind_share
        for b in range(size):
            if blind[b]:
                continue
            view = self.views[chosen[b]]
            points = view.points.astype(np.float64)
            keep = np.linalg.norm(points - goal[b], axis=1) <= model.crop_radius
            if erase[b]:
                keep &= ~view.target
            kept = np.flatnonzero(keep)
            seen[b] = np.sum(view.target[kept]) >= r.min_target
            if len(kept) > count:
                kept = rng.choice(kept, count, replace=False)
            local = turn(points[kept] - goal[b], np.full(len(kept), -yaw[b]))
            local += rng.normal(0.0, 0.0005, local.shape)
            cloud[b, : len(kept), :3] = local / features.POSITION_SCALE
            cloud[b, : len(kept), 3] = np.clip(view.age[kept], 0.0, 5.0)
            mask[b, : len(kept)] = 1.0
        correction = np.zeros((size, 3))
        inside = np.clip(goal[:, 2], low, high) - goal[:, 2]
        correction[:, :2] = -error[:, :2]
        correction[:, 2] = np.where(pick, inside, 0.0)
        turned = np.where(oriented & pick, -yaw_error, 0.0)
        contact = self._contact(turn(correction, -yaw), turned, seen)
        distance = np.abs(self._height[chosen] - truth_z * (self._height[chosen] > 0.3)) + rng.uniform(
            -0.03, 0.01, size
        )
        index = self.library.draw(rng, pick, np.maximum(distance, 0.0))
        age = rng.uniform(0.0, r.cloud_age, size)
        vector = self._features(rng, index, mask.any(axis=1).astype(float), age, mask.sum(axis=1) / 512.0)
        return Batch(vector, cloud, mask, contact, self._action(index, contact))

    def _contact(self, correction: Array, yaw: Array, known: NDArray[np.bool_]) -> F32:
        model = self.model
        values = np.concatenate(
            [correction / model.position_limit, (yaw / model.rotation_limit)[:, None]], axis=1
        )
        return np.concatenate([values * known[:, None], known[:, None]], axis=1).astype(np.float32)

    def _action(self, index: NDArray[np.int64], contact: F32) -> F32:
        rows, model = self.library.rows, self.model
        gain = rows["gain"][index]
        position = gain[..., None] * contact[:, None, :3] * model.position_limit
        rotvec = np.zeros_like(position)
        rotvec[..., 2] = gain * contact[:, None, 3] * model.rotation_limit
        action = features.encode_action(position, rotvec, rows["widths"][index], model)
        return action.reshape(len(index), -1)

    def _features(
        self, rng: np.random.Generator, index: NDArray[np.int64], present: Array, age: Array, fraction: Array
    ) -> F32:
        r, size = self.recipe, len(index)
        rows = {name: values[index] for name, values in self.library.rows.items()}
        spread = rng.choice([0.0, 0.3, 1.0, 2.0], size=size)[:, None] * r.offset_sigma
        weight = np.maximum(rows["weight"], 0.3)
        turned = Rotation.from_rotvec(rng.normal(0.0, 0.06, (size, 3))).as_matrix()
        speed = rng.choice([0.0, 0.5, 1.0], size=size, p=[0.15, 0.15, 0.7])[:, None]
        return features.vector(
            tcp_position=rows["now"] + weight * spread * rng.normal(size=(size, 3)),
            tcp_rotation=turned @ rows["now_rotation"],
            linear_velocity=speed * rows["linear"] + rng.normal(0.0, r.velocity_sigma, (size, 3)),
            angular_velocity=speed * rows["angular"] + rng.normal(0.0, 0.1, (size, 3)),
            guided_now=rows["now"],
            window_position=rows["window_position"],
            window_rotation=rows["window_rotation"],
            gain=rows["gain"],
            clamped=rows["clamped"],
            closes=rows["closes"] * rows["exists"],
            opens=(1.0 - rows["closes"]) * rows["exists"],
            gripper_width=np.clip(rows["before"] + rng.normal(0.0, 0.01, size), 0.0, 0.085),
            event_width=rows["event_width"],
            cloud_present=present,
            cloud_age=age * present,
            points_fraction=fraction,
            guidance_age=rng.uniform(0.0, r.guidance_age, size),
            gripper_max_width=self.model.gripper_max_width,
        )


def turn(vectors: Array, angle: Array) -> Array:
    """(B, 3) vectors turned about z by (B,) rad."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack(
        [c * vectors[:, 0] - s * vectors[:, 1], s * vectors[:, 0] + c * vectors[:, 1], vectors[:, 2]], axis=1
    )
