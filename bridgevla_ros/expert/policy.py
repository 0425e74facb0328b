"""Policies that turn an observation into a chunk: the learned expert and the two baselines."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import GripperEvent
from bridgevla_ros.expert import checkpoint, features
from bridgevla_ros.expert.config import ExpertConfig
from bridgevla_ros.expert.following import (
    ExpertObservation,
    ExpertPolicy,
    FollowPolicy,
    Residual,
    Scene,
    check_output,
)

__all__ = [
    "ExpertObservation",
    "ExpertPolicy",
    "FollowPolicy",
    "LearnedPolicy",
    "SnapPolicy",
    "make_policy",
]

F32 = NDArray[np.float32]
Runtime = Callable[[F32, F32, F32, F32], tuple[F32, F32, F32]]


def disagreement(position: Array, dissent: float, gains: Array) -> float:
    """What a chunk's own sources differ by: root mean square over its steps, metres (our choice).

    The samples share one look at the cloud and agree about it, right or wrong; its points, each of which
    votes for a contact, do not.

    Args:
        position: (S, H, 3) metres, residuals of the samples.
        dissent: Metres, of the votes.
        gains: (H,) share of the contact's correction in each step.
    """
    drawn = position.var(axis=0).sum(axis=-1)
    return float(np.sqrt(np.mean(drawn + (gains * dissent) ** 2)))


def medoid(position: Array) -> int:
    """The sample of (S, H, 3) metres that is nearest to the others: what is executed."""
    apart = np.linalg.norm(position[:, None] - position[None], axis=-1).mean(axis=-1)
    return int(apart.sum(axis=1).argmin())


class SnapPolicy(FollowPolicy):
    """Baseline ``snap``: shift the spline to the nearest cluster of the local cloud, then follow."""

    source = "snap"
    needs_cloud = True
    LINK = 0.012
    """Metres; nearer points are one cluster."""

    def residual(self, scene: Scene, seed: int) -> Residual:
        """Shift by the horizontal middle of the cluster whose middle is nearest to the contact."""
        shift = np.zeros(3)
        if scene.cloud is not None and scene.contact.exists:
            shift[:2] = self.shift(scene.contact.T_base_local.inverse().apply(scene.cloud.points_base))
        position = scene.gains[:, None] * scene.contact.T_base_local.rotate(shift)
        return Residual(position, np.zeros_like(position), scene.widths)

    def shift(self, points: Array) -> Array:
        """(2,) metres, local frame: middle of the nearest cluster of (N, 3) local points, or 0."""
        near = points[np.linalg.norm(points, axis=1) <= self.model.crop_radius]
        if len(near) < 10:
            return np.zeros(2)
        pairs = cKDTree(near).query_pairs(self.LINK, output_type="ndarray")
        graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(near), len(near)))
        count, label = connected_components(graph, directed=False)
        best = np.zeros(2)
        nearest = self.config.snap_radius
        for i in range(count):
            cluster = near[label == i]
            if len(cluster) < 10:
                continue
            middle = (cluster[:, :2].min(axis=0) + cluster[:, :2].max(axis=0)) / 2.0
            if np.hypot(*middle) < nearest:
                best, nearest = middle, float(np.hypot(*middle))
        return best


class LearnedPolicy(FollowPolicy):
    """The diffusion expert."""

    source = "expert"
    needs_cloud = True

    def __init__(self, config: ExpertConfig, arm: ArmModel) -> None:
        loaded = checkpoint.load(config.weights)
        model = loaded.config
        for name, value, trained, unit in (
            ("horizon", config.horizon, model.horizon, "steps"),
            ("dt", config.dt, model.dt, "s"),
        ):
            if round(value, 6) != round(trained, 6):
                raise BridgeError(
                    ErrorCode.MODEL_ERROR,
                    f"{name} {value:g} {unit} is configured, the checkpoint in {loaded.folder} was trained "
                    f"with {trained:g} {unit}",
                    value=value,
                    limit=trained,
                    unit=unit,
                    remedy=f"set the action expert's {name} to {trained:g}, or name another checkpoint in "
                    "weights",
                )
        super().__init__(config, arm, model)
        self.model_sha256 = loaded.sha256
        self.runtime: Runtime
        if config.runtime == "onnx":
            from bridgevla_ros.expert.runtime_onnx import OnnxRuntime

            self.runtime = OnnxRuntime(loaded, config.denoising_steps, config.threads)
        else:
            from bridgevla_ros.expert.runtime_torch import TorchRuntime

            self.runtime = TorchRuntime(loaded, config.denoising_steps, config.device, config.threads)

    def warm_up(self) -> None:
        """Run the network once on nothing."""
        model = self.model
        noise = np.zeros((self.config.samples, model.horizon * model.action_dim), np.float32)
        cloud = np.zeros((1, model.points, 4), np.float32)
        self.runtime(np.zeros((1, model.feature_dim), np.float32), cloud, cloud[..., 0], noise)

    def inputs(self, scene: Scene) -> tuple[F32, F32, F32]:
        """The network's (1, F) features, (1, N, 4) cloud and (1, N) mask."""
        obs, model, contact = scene.observation, self.model, scene.contact
        T_local_base = contact.T_base_local.inverse()
        cloud = np.zeros((1, model.points, 4), np.float32)
        mask = np.zeros((1, model.points), np.float32)
        if scene.cloud is not None and len(scene.cloud.points_base) and contact.exists:
            # The cropper repeats points where it has too few; repeated ones would weigh more.
            _, first = np.unique(scene.cloud.points_base, axis=0, return_index=True)
            first.sort()
            values, keep = features.cloud_input(
                T_local_base.apply(scene.cloud.points_base[first]),
                scene.cloud.age[first].astype(np.float64),
                model,
            )
            chosen = values[keep]
            if len(chosen) > model.points:
                chosen = chosen[np.linspace(0, len(chosen) - 1, model.points).astype(int)]
            cloud[0, : len(chosen)] = chosen
            mask[0, : len(chosen)] = 1.0
        local = T_local_base.rotation
        close = contact.exists and contact.event == GripperEvent.CLOSE
        opens = contact.exists and contact.event == GripperEvent.OPEN
        present = float(mask.any())
        # The network thinks of the point that makes contact, as if the fingers were there.
        hand = contact.made_at(scene.T_base_tcp.translation, scene.T_base_tcp.rotation)
        lever = hand - scene.T_base_tcp.translation
        now_rotation = Rotation.from_quat(scene.now.quat).as_matrix()
        vector = features.vector(
            tcp_position=T_local_base.apply(hand)[None],
            tcp_rotation=(local @ scene.T_base_tcp.rotation)[None],
            linear_velocity=(local @ (scene.twist[:3] + np.cross(scene.twist[3:], lever)))[None],
            angular_velocity=(local @ scene.twist[3:])[None],
            guided_now=T_local_base.apply(contact.made_at(scene.now.position, now_rotation)),
            window_position=T_local_base.apply(contact.made_at(scene.window.position, scene.rotations))[None],
            window_rotation=(local @ scene.rotations)[None],
            gain=scene.gains[None],
            clamped=scene.clamped[None],
            closes=np.array([float(close)]),
            opens=np.array([float(opens)]),
            gripper_width=np.array([obs.joints[-1].gripper_width]),
            event_width=np.array([scene.event_width]),
            cloud_present=np.array([present]),
            cloud_age=np.array([0.0 if scene.cloud is None else obs.now - scene.cloud.stamp]) * present,
            points_fraction=np.array([mask.mean()]),
            guidance_age=np.array([obs.now - obs.guidance.stamp]),
            onward=(local @ contact.onward)[None],
            gripper_max_width=model.gripper_max_width,
        )
        return vector, cloud, mask

    def residual(self, scene: Scene, seed: int) -> Residual:
        """Denoise ``samples`` chunks and take the medoid."""
        model, contact = self.model, scene.contact
        if not contact.exists or contact.tilt > model.max_tilt:
            zero = np.zeros((model.horizon, 3))
            return Residual(zero, zero, scene.widths, 0.0)
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal((self.config.samples, model.horizon * model.action_dim)).astype(
            np.float32
        )
        action, _, dissent = self.runtime(*self.inputs(scene), noise)
        check_output(action, self.source)
        shaped = action.reshape(-1, model.horizon, model.action_dim)
        position, rotvec, widths = features.decode_action(shaped, model)
        best = medoid(position)
        sigma = disagreement(position, float(dissent[0]) * model.position_limit, scene.gains)
        frame = contact.T_base_local
        position[best, :, 2] = np.maximum(position[best, :, 2], -self.config.max_descent)
        moved, turned = frame.rotate(position[best]), frame.rotate(rotvec[best])
        held: Array = scene.rotations @ contact.offset
        # The hand goes round the point that makes contact.
        moved += held - Rotation.from_rotvec(turned).apply(held)
        return Residual(moved, turned, widths[best], sigma)


def make_policy(config: ExpertConfig, arm: ArmModel) -> FollowPolicy:
    """The policy that a configuration names.

    Raises:
        BridgeError: MODEL_ERROR, the checkpoint is missing, damaged or does not fit.
    """
    if config.policy == "expert":
        return LearnedPolicy(config, arm)
    return {"ik": FollowPolicy, "snap": SnapPolicy}[config.policy](config, arm)
