"""Training samples, drawn on the fly: guidance with an error, a state beside it, a cloud, the label.

A sample takes one frame of the bank, one point of a guidance whose arm stands about as far from its contact
as the frame's did, and ONE error of the guidance (``data_corruption``). The label is what carries the arm to
the true contact through the blend of ``expert.features``; where too little of the target shows, it is
guidance. The state's own offset from guidance is drawn apart from that error, so that it tells nothing about
it; only states of a running expert (DAgger) are taken as they were.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import GripperEvent
from bridgevla_ros.expert import features
from bridgevla_ros.expert.config import ModelConfig
from bridgevla_ros.training.data_bank import STEP, Bank
from bridgevla_ros.training.data_corruption import (
    Recipe,
    horizontal_yaw,
    keep_nearest,
    position_errors,
    wrap,
    yaw_errors,
)
from bridgevla_ros.training.data_guidance import GuidanceLibrary
from bridgevla_ros.training.data_kernels import gather

__all__ = ["Batch", "GuidanceLibrary", "Recipe", "Sampler", "turn"]

F32 = NDArray[np.float32]
STATE = (
    "tcp_position",
    "tcp_rotation",
    "linear_velocity",
    "angular_velocity",
    "gripper_width",
    "cloud_age",
    "guidance_age",
)
"""What of a state an expert's own rows bring, in the local frame, beside the names of a library's rows."""


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch, float32.

    Attributes:
        features: (B, F); cloud: (B, N, 4); mask: (B, N).
        contact: (B, 5) true correction and presence; action: (B, H * 10).
        target: (B, N) 1 where the point is the target's and the label says so; truth, no input.
    """

    features: F32
    cloud: F32
    mask: F32
    contact: F32
    action: F32
    target: F32


class Sampler:
    """Draws batches. All randomness comes from the generator that is given."""

    def __init__(self, bank: Bank, library: GuidanceLibrary, model: ModelConfig, recipe: Recipe) -> None:
        self.library, self.model, self.recipe, self.bank = library, model, recipe, bank
        self._position = bank["pose"][:, :3].astype(np.float64)
        self._rotation = Rotation.from_quat(bank["pose"][:, 3:]).as_matrix().reshape(-1, 3, 3)
        self._yaw = horizontal_yaw(self._rotation)
        along = self._rotation[:, :, 0] * [1.0, 1.0, 0.0]
        self._along = along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
        self._onward = bank["onward"].astype(np.float64)
        self._center = bank["center"].astype(np.float64)
        ray = bank["camera"][:, :3] - self._position
        self._ray = ray / np.linalg.norm(ray, axis=1, keepdims=True)
        self._distance = np.linalg.norm(bank["tcp"][:, :3] - self._position, axis=1)
        self._others = bank["others"].astype(np.float64) - self._position[:, None, :2]
        # Kinds of contacts that are rare in the bank are drawn more often than they occur, by the root.
        share = 1.0 / np.sqrt(np.bincount(bank["class"], minlength=len(bank.classes)).clip(1))
        chance = share[bank["class"]]
        if bank.own and len(np.unique(bank.own["frame"])) < len(bank):
            chance[bank.own["frame"]] = 0.0  # their clouds are cropped about the guidance they had
        self._cumulative = np.cumsum(chance / chance.sum())
        rows = library.rows
        self._own_first = len(library)
        self._own = self._own_meant()
        if bank.own:
            rows = {name: np.concatenate([v, bank.own[name]]) for name, v in rows.items()}
        self._rows = rows

    # -- batches ---------------------------------------------------------------------------------

    def trajectories(self, rng: np.random.Generator, size: int) -> Batch:
        """Stage 1: no clouds; the contact is told with a little noise, or (a sixth) not at all."""
        recipe = self.recipe
        frames = self._draw_frames(rng, size)
        distance = np.where(rng.random(size) < 0.7, rng.uniform(0.0, 0.22, size), rng.uniform(0.1, 0.6, size))
        index = self.library.draw(rng, self.bank["event"][frames].astype(np.int64), distance)
        ended = rng.random(size) < 0.05
        index[ended] = rng.choice(self.library.ended, int(ended.sum()))
        origin, yaw = self._corrupt(rng, frames, None)
        known = (rng.random(size) < 5 / 6) & ~ended
        contact = self.label(frames, origin, yaw, known)
        told = contact.copy()
        told[:, :4] += known[:, None] * rng.normal(0.0, recipe.hint_sigma, (size, 4)).astype(np.float32)
        zero = np.zeros(size)
        onward = self._onward_local(rng, frames, yaw, None)
        vector = self._features(rng, index, zero, zero, zero, onward, None)
        empty = np.zeros((size, 0, 4), np.float32)
        return Batch(vector, empty, empty[..., 0], told, self._action(index, contact), empty[..., 0])

    def clouds(
        self,
        rng: np.random.Generator,
        size: int,
        frames: NDArray[np.int64] | None = None,
        error: Array | None = None,
    ) -> Batch:
        """Stage 2: a cloud, and a guidance with one error.

        Args:
            rng: Source of randomness.
            size: B.
            frames: (B,) indices of frames; drawn where not given (some are the expert's own states then).
            error: (B, 3) metres, base frame, of the guidance; drawn where not given.
        """
        recipe, bank = self.recipe, self.bank
        own: NDArray[np.int64] | None = None
        if frames is None:
            frames = self._draw_frames(rng, size)
            if len(self._own):
                picked = self._own[rng.integers(len(self._own), size=size)]
                own = np.where(rng.random(size) < recipe.own_share, picked, -1)
                frames = np.where(own >= 0, bank.own["frame"][picked], frames)
        origin, yaw = self._corrupt(rng, frames, error)
        if own is not None:
            mine = own >= 0
            origin[mine], yaw[mine] = bank.own["origin"][own[mine]], bank.own["yaw"][own[mine]]
        count = int(rng.integers(recipe.points[0], recipe.points[1] + 1))
        erase, blind = rng.random(size) < recipe.erase_share, rng.random(size) < recipe.blind_share
        cloud = np.zeros((size, count, 4), np.float32)
        mask, hit = np.zeros((size, count), np.float32), np.zeros((size, count), np.float32)
        seen, near = np.zeros(size, np.int64), np.zeros(size, np.int64)
        start = bank.first[frames]
        gather(
            bank.points, bank.age, bank.target, start, np.where(blind, start, bank.first[frames + 1]),
            origin - self._center[frames], yaw, erase, rng.random((size, count), np.float32), STEP,
            self.model.crop_radius, features.POSITION_SCALE, cloud, mask, hit, seen, near,
        )  # fmt: skip
        grain = rng.standard_normal((size, count, 3), np.float32)
        cloud[..., :3] += (0.0005 / features.POSITION_SCALE) * grain * mask[..., None]
        known = seen >= recipe.min_target
        contact = self.label(frames, origin, yaw, known)
        distance = np.maximum(self._distance[frames] + rng.uniform(-0.03, 0.01, size), 0.0)
        index = self.library.draw(rng, bank["event"][frames].astype(np.int64), distance)
        if own is not None:
            index = np.where(own >= 0, self._own_first + own, index)
        age = rng.uniform(0.0, recipe.cloud_age, size)
        present = mask.any(axis=1).astype(float)
        onward = self._onward_local(rng, frames, yaw, own)
        # As at run time: of what the camera shows there, not of what is left for the sake of speed.
        fraction = np.minimum(near, self.model.points) / self.model.points
        vector = self._features(rng, index, present, age, fraction, onward, own)
        action = self._action(index, contact)
        return Batch(vector, cloud, mask, contact, action, hit * known[:, None].astype(np.float32))

    def _own_meant(self) -> NDArray[np.int64]:
        """Rows of an expert's own states whose guidance means what the label says (``Recipe.nearest``)."""
        bank = self.bank
        if not bank.own:
            return np.empty(0, np.int64)
        frames = bank.own["frame"].astype(np.int64)
        error = bank.own["origin"][:, :2] - self._position[frames, :2]
        others = np.linalg.norm(self._others[frames] - error[:, None], axis=-1)
        limit = self.recipe.nearest * np.fmin.reduce(others, axis=1, initial=np.inf)
        return np.flatnonzero(np.linalg.norm(error, axis=1) <= limit)

    # -- parts -----------------------------------------------------------------------------------

    def _draw_frames(self, rng: np.random.Generator, size: int) -> NDArray[np.int64]:
        return np.minimum(np.searchsorted(self._cumulative, rng.random(size)), len(self.bank) - 1)

    def _corrupt(
        self, rng: np.random.Generator, frames: NDArray[np.int64], error: Array | None
    ) -> tuple[Array, Array]:
        """Guided contacts of frames: (B, 3) metres, base frame, and (B,) rad of their local frames."""
        recipe, bank, size = self.recipe, self.bank, len(frames)
        if error is None:
            error = position_errors(rng, recipe, self._ray[frames])
            error = keep_nearest(error, self._others[frames], recipe.nearest)
        low, high = bank["z_band"][frames].astype(np.float64).T
        near, far = bank["x_band"][frames].astype(np.float64).T
        origin = self._position[frames] + rng.uniform(near, far)[:, None] * self._along[frames] + error
        origin[:, 2] = rng.uniform(low, high) + error[:, 2]
        period = bank["yaw_period"][frames].astype(np.float64)
        turns = np.where(period > 0.0, period, 0.0) * rng.integers(8, size=size)
        aligned = self._yaw[frames] + turns + yaw_errors(rng, recipe, size)
        return origin, np.where(period > 0.0, aligned, rng.uniform(-np.pi, np.pi, size))

    def _onward_local(
        self, rng: np.random.Generator, frames: NDArray[np.int64], yaw: Array, own: NDArray[np.int64] | None
    ) -> Array:
        """(B, 3) metres, the guided way to the next contact of the chain, in the guided local frames.

        An expert's own states had it exact: their plans' errors moved all contacts alike.
        """
        way = self._onward[frames]
        off = rng.normal(size=(len(frames), 2)) * rng.choice(self.recipe.onward_sigmas, len(frames))[:, None]
        noisy = np.linalg.norm(way, axis=1) > 0.0
        if own is not None:
            noisy &= own < 0
        way[:, :2] += off * noisy[:, None]
        return turn(way, -yaw)

    def label(self, frames: NDArray[np.int64], origin: Array, yaw: Array, known: NDArray[np.bool_]) -> F32:
        """(B, 5): what carries guided contacts onto the true ones, in their local frames, and presence.

        Height, and the place along a bar or handle, are left alone within the frame's bands, yaw where any
        is as good.

        Args:
            frames: (B,) indices.
            origin: (B, 3) metres, base frame, of the guided contacts; ``yaw``: (B,) rad.
            known: (B,) False: the answer is guidance (zeros).
        """
        model, bank = self.model, self.bank
        correction = self._position[frames] - origin
        along = self._along[frames]
        near, far = bank["x_band"][frames].astype(np.float64).T
        correction += np.clip(-np.sum(correction * along, axis=1), near, far)[:, None] * along
        low, high = bank["z_band"][frames].astype(np.float64).T
        correction[:, 2] = np.clip(origin[:, 2], low, high) - origin[:, 2]
        turned = wrap(self._yaw[frames] - yaw, bank["yaw_period"][frames].astype(np.float64))
        values = np.concatenate(
            [turn(correction, -yaw) / model.position_limit, (turned / model.rotation_limit)[:, None]], axis=1
        )
        values = np.clip(values, -1.0, 1.0)
        return np.concatenate([values * known[:, None], known[:, None]], axis=1).astype(np.float32)

    def _action(self, index: NDArray[np.int64], contact: F32) -> F32:
        rows, model = self._rows, self.model
        gain = rows["gain"][index]
        position = gain[..., None] * contact[:, None, :3] * model.position_limit
        angle = gain * contact[:, None, 3] * model.rotation_limit
        return encode_yaw_action(position, angle, rows["widths"][index], model)

    def _features(
        self,
        rng: np.random.Generator,
        index: NDArray[np.int64],
        present: Array,
        age: Array,
        fraction: Array,
        onward: Array,
        own: NDArray[np.int64] | None,
    ) -> F32:
        r, size = self.recipe, len(index)
        rows = {name: values[index] for name, values in self._rows.items()}
        spread = rng.choice(r.offset_sigmas, size=size)[:, None]
        weight = np.maximum(rows["weight"], 0.3)
        turned = Rotation.from_rotvec(rng.normal(0.0, 0.06, (size, 3))).as_matrix()
        speed = rng.choice([0.0, 0.5, 1.0], size=size, p=[0.15, 0.15, 0.7])[:, None]
        oldest = rng.choice(r.guidance_ages, size=size, p=r.guidance_age_shares)
        state = {
            "tcp_position": rows["now"] + weight * spread * rng.normal(size=(size, 3)),
            "tcp_rotation": turned @ rows["now_rotation"],
            "linear_velocity": speed * rows["linear"] + rng.normal(0.0, r.velocity_sigma, (size, 3)),
            "angular_velocity": speed * rows["angular"] + rng.normal(0.0, 0.1, (size, 3)),
            "gripper_width": np.clip(rows["before"] + rng.normal(0.0, 0.01, size), 0.0, 0.085),
            "cloud_age": age,
            "guidance_age": rng.random(size) * oldest,
        }
        if own is not None and (own >= 0).any():
            mine = own >= 0
            for name in STATE:
                state[name][mine] = self.bank.own[name][own[mine]]
        state["cloud_age"] = state["cloud_age"] * present
        return features.vector(
            **state,
            guided_now=rows["now"],
            window_position=rows["window_position"],
            window_rotation=rows["window_rotation"],
            gain=rows["gain"],
            clamped=rows["clamped"],
            closes=(rows["event"] == GripperEvent.CLOSE) * rows["exists"],
            opens=(rows["event"] == GripperEvent.OPEN) * rows["exists"],
            event_width=rows["event_width"],
            cloud_present=present,
            points_fraction=fraction,
            onward=onward,
            gripper_max_width=self.model.gripper_max_width,
        )


def encode_yaw_action(position: Array, angle: Array, width: Array, model: ModelConfig) -> F32:
    """``features.encode_action`` of turns about the vertical, flattened: (B, H * 10).

    Args:
        position: (B, H, 3) metres; ``angle``: (B, H) rad; ``width``: (B, H) metres.
    """
    out = np.zeros((*angle.shape, 10), np.float32)
    c, s = np.cos(angle), np.sin(angle)
    out[..., :3] = position / model.position_limit
    out[..., 3], out[..., 4] = (c - 1.0) / model.rotation_limit, s / model.rotation_limit
    out[..., 6], out[..., 7] = -s / model.rotation_limit, (c - 1.0) / model.rotation_limit
    out[..., 9] = 2.0 * width / model.gripper_max_width - 1.0
    return out.reshape(len(angle), -1)


def turn(vectors: Array, angle: Array) -> Array:
    """(B, 3) vectors turned about z by (B,) rad."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack(
        [c * vectors[:, 0] - s * vectors[:, 1], s * vectors[:, 0] + c * vectors[:, 1], vectors[:, 2]], axis=1
    )
