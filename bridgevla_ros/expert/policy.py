"""Policies that turn an observation into a chunk: the learned expert and the two baselines.

One class does what all share (windows, blending, inverse kinematics, bounds); a policy adds the
residual beyond guidance. See ``features.py`` for the frames and the blend.

| step | meaning |
|---|---|
| -1, 0 | observed: the last two joint states, 0 is newest |
| 0 .. H-1 | predicted, ``dt`` apart, the first at ``stamp + dt`` |
| 0 .. E-1 | executed before the next chunk must be there |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.trajectory import GuidanceWindow, window
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import (
    ActionChunk,
    Cloud,
    GripperEvent,
    Guidance,
    JointState,
    Progress,
    StreamerState,
)
from bridgevla_ros.expert import checkpoint, features
from bridgevla_ros.expert.config import ExpertConfig, ModelConfig

F32 = NDArray[np.float32]
Runtime = Callable[[F32, F32, F32, F32], tuple[F32, F32]]


@dataclass(frozen=True, eq=False)
class ExpertObservation:
    """What a policy may look at.

    Attributes:
        now: Seconds of the ROS clock.
        joints: The last two joint states, newest last (one right after start).
        cloud: Newest cloud; None if there never was one.
        guidance: What to follow.
        progress: Executed progress; of an older guidance it counts as 0.
    """

    now: float
    joints: tuple[JointState, ...]
    cloud: Cloud | None
    guidance: Guidance
    progress: Progress


@dataclass(frozen=True, eq=False)
class Contact:
    """The next contact of a guidance, or its end where none is left.

    Attributes:
        exists: False: ``T_base_local`` stands at the end of the path and nothing is corrected.
        T_base_local: Local frame of the contact.
        event: What the gripper does there.
        width: Metres after that event.
    """

    exists: bool
    T_base_local: Transform
    event: GripperEvent
    width: float


@dataclass(frozen=True, eq=False)
class Outlook:
    """Guidance ahead of an executed progress.

    Attributes:
        window: Guidance at the steps; ``now``: guidance at the executed progress (H = 1).
        rotations: (H, 3, 3) of the window.
        contact: The next contact.
        weights: (H,) share of its correction along the window; ``gains``: (H,) see ``features``.
        clamped: (H,) 1 where the window waits at an event.
        widths: (H,) metres, scheduled gripper width.
        event_width: Metres after the next event (now, if none is left).
    """

    window: GuidanceWindow
    now: GuidanceWindow
    rotations: Array
    contact: Contact
    weights: Array
    gains: Array
    clamped: Array
    widths: Array
    event_width: float


@dataclass(frozen=True, eq=False)
class Scene(Outlook):
    """What is worked out of an observation before a policy adds its residual.

    Attributes:
        observation: As given.
        T_base_tcp: Measured.
        twist: (6,) measured m/s, rad/s, base axes.
        cloud: The observation's cloud if it is fresh enough, else None.
    """

    observation: ExpertObservation
    T_base_tcp: Transform
    twist: Array
    cloud: Cloud | None


@dataclass(frozen=True, eq=False)
class Residual:
    """What a policy adds to following.

    Attributes:
        position: (H, 3) metres, base frame.
        rotvec: (H, 3) rad, base frame, applied from the left.
        widths: (H,) metres.
        sigma: Metres, disagreement of samples; NaN where there is one.
    """

    position: Array
    rotvec: Array
    widths: Array
    sigma: float = float("nan")


@dataclass(eq=False)
class _Memory:
    """What was commanded last: the blend continues from there, not from the lagging measurement.

    Attributes:
        guidance_id, events_done, sequence: Of the last chunk.
        stamp: Seconds; ``times``: (H + 1,) after it, 0 first.
        progress: (H + 1,); ``offset``: (H + 1, 6) from guidance; ``joints``: (H + 1, 7).
        last_offset: (6,) offset when the last contact's event was done; ``last_contact``: (3,).
    """

    guidance_id: str
    events_done: int
    sequence: int
    stamp: float
    times: Array
    progress: Array
    offset: Array
    joints: Array
    last_offset: Array
    last_contact: Array


class ExpertPolicy(Protocol):
    """What the node and the rollout call."""

    def chunk(self, obs: ExpertObservation, seed: int) -> ActionChunk:
        """Commands of the next H steps.

        Raises:
            BridgeError: SENSOR_LOST, STALE_IMAGE, EXPERT_DIVERGED, UNREACHABLE, BAD_INPUT or
                MODEL_ERROR: publish nothing, the arm holds.
        """
        ...


class FollowPolicy:
    """Baseline ``ik``: follow the guidance. The other policies override ``residual``."""

    source = "ik"
    needs_cloud = False
    model_sha256 = ""

    def __init__(self, config: ExpertConfig, arm: ArmModel, model: ModelConfig | None = None) -> None:
        self.config = config
        self.arm = arm
        self.model = model or ModelConfig(horizon=config.horizon, dt=config.dt)
        self._up = np.asarray(config.up_base, float)
        self._memory: _Memory | None = None

    def residual(self, scene: Scene, seed: int) -> Residual:
        """What to add beyond following."""
        zero = np.zeros((self.model.horizon, 3))
        return Residual(zero, zero, scene.widths)

    def reset(self) -> None:
        """Forget what was commanded."""
        self._memory = None

    def warm_up(self) -> None:
        """Do now what the first chunk would wait for."""

    def chunk(self, obs: ExpertObservation, seed: int) -> ActionChunk:
        """See ``ExpertPolicy``."""
        scene = self._scene(obs)
        offset, velocity, joints, memory = self._state(scene)
        times = self.model.dt * np.arange(1, self.model.horizon + 1)
        if obs.progress.state == StreamerState.GRIPPING and memory.sequence > 0:
            offsets = np.repeat(offset[None], self.model.horizon, axis=0)
            added = Residual(offsets[:, :3] * 0.0, offsets[:, 3:] * 0.0, scene.widths)
        else:
            distance = np.linalg.norm(scene.window.position - memory.last_contact, axis=1)
            share = features.fade(distance, self.model)[:, None] * memory.last_offset
            before = float(np.linalg.norm(scene.now.position[0] - memory.last_contact))
            share_now = features.fade(np.array(before), self.model) * memory.last_offset
            rate = (share[0] - share_now) / self.model.dt
            offsets = share + features.decay(offset - share_now, velocity - rate, times, self.model.omega)
            added = self.residual(scene, seed)
            self._check(added)
            offsets = offsets + np.concatenate([added.position, added.rotvec], axis=1)
        position = scene.window.position + offsets[:, :3]
        rotation = Rotation.from_rotvec(offsets[:, 3:]) * Rotation.from_matrix(scene.rotations)
        path = self._joints(position, rotation.as_matrix(), joints)
        grid = np.concatenate([joints[None], path])
        self._memory = _Memory(
            obs.guidance.guidance_id,
            self._events_done(obs),
            memory.sequence + 1,
            obs.joints[-1].stamp,
            np.concatenate([[0.0], times]),
            np.concatenate([[self._progress(obs)], scene.window.progress]),
            np.concatenate([offset[None], offsets]),
            grid,
            memory.last_offset,
            memory.last_contact,
        )
        return ActionChunk(
            stamp=obs.joints[-1].stamp,
            guidance_id=obs.guidance.guidance_id,
            task_id=obs.guidance.task_id,
            sequence=memory.sequence,
            seed=seed,
            dt=self.model.dt,
            execute_steps=min(self.config.execute_steps, self.model.horizon),
            position=position,
            quat=np.asarray(rotation.as_quat()),
            joints=path,
            joint_velocities=_velocities(grid, self.model.dt),
            gripper_width=added.widths,
            progress=scene.window.progress,
            guidance_progress=self._progress(obs),
            cloud_stamps=() if scene.cloud is None else (scene.cloud.stamp,),
            joint_stamps=tuple(j.stamp for j in obs.joints),
            correction=float(np.linalg.norm(offsets[-1, :3])),
            correction_sigma=added.sigma,
            model_sha256=self.model_sha256,
            source=self.source,
        )

    # -- observation -----------------------------------------------------------------------------

    @staticmethod
    def _progress(obs: ExpertObservation) -> float:
        same = obs.progress.guidance_id == obs.guidance.guidance_id
        return float(np.clip(obs.progress.progress, 0.0, 1.0)) if same else 0.0

    @staticmethod
    def _events_done(obs: ExpertObservation) -> int:
        same = obs.progress.guidance_id == obs.guidance.guidance_id
        return obs.progress.events_done if same else 0

    def _fresh_cloud(self, obs: ExpertObservation) -> Cloud | None:
        age = float("inf") if obs.cloud is None else obs.now - obs.cloud.stamp
        if age <= self.config.cloud_max_age:
            return obs.cloud
        if self.needs_cloud and self.config.policy_without_cloud == "hold":
            raise BridgeError(
                ErrorCode.SENSOR_LOST,
                "no cloud has come yet" if obs.cloud is None else f"the newest cloud is {age:.2f} s old",
                value=age,
                limit=self.config.cloud_max_age,
                unit="s",
                remedy="check the camera and the cropper, or set policy_without_cloud to follow",
            )
        return None

    def _scene(self, obs: ExpertObservation) -> Scene:
        """Check an observation and work out what every policy needs.

        Raises:
            BridgeError: A stale or refused input, by name.
        """
        guidance, config = obs.guidance, self.config
        if guidance.code != ErrorCode.NONE or len(guidance.progress) == 0:
            raise BridgeError(ErrorCode.BAD_INPUT, f"guidance {guidance.guidance_id!r} is a refusal")
        if not obs.joints:
            raise BridgeError(ErrorCode.SENSOR_LOST, "no joint state has come yet")
        joints = obs.joints[-1]
        for name, age, limit, code in (
            ("joint state", obs.now - joints.stamp, config.joint_max_age, ErrorCode.SENSOR_LOST),
            ("progress", obs.now - obs.progress.stamp, config.progress_max_age, ErrorCode.SENSOR_LOST),
            ("guidance's image", obs.now - guidance.stamp, config.guidance_max_age, ErrorCode.STALE_IMAGE),
        ):
            if not age <= limit:
                raise BridgeError(code, f"the {name} is {age:.2f} s old", value=age, limit=limit, unit="s")
        if not (np.isfinite(joints.position).all() and np.isfinite(joints.velocity).all()):
            raise BridgeError(ErrorCode.BAD_INPUT, "a joint position or velocity is not finite")
        ahead = look_ahead(
            guidance, self._progress(obs), self._events_done(obs), joints.gripper_width, self.model, self._up
        )
        return Scene(
            **vars(ahead),
            observation=obs,
            T_base_tcp=self.arm.fk(joints.position),
            twist=self.arm.jacobian(joints.position) @ joints.velocity,
            cloud=self._fresh_cloud(obs),
        )

    # -- continuation ----------------------------------------------------------------------------

    def _state(self, scene: Scene) -> tuple[Array, Array, Array, _Memory]:
        """Present offset from guidance (6,), its rate (6,), commanded joints (7,) and memory."""
        obs, memory = scene.observation, self._memory
        guided = Rotation.from_quat(scene.now.quat[0])
        measured = np.concatenate(
            [
                scene.T_base_tcp.translation - scene.now.position[0],
                (Rotation.from_matrix(scene.T_base_tcp.rotation) * guided.inv()).as_rotvec(),
            ]
        )
        moving = np.concatenate([scene.now.linear_velocity[0], scene.now.angular_velocity[0]])
        speed = obs.progress.speed_scale if obs.progress.state == StreamerState.MOVING else 0.0
        fresh = (measured, scene.twist - speed * moving, obs.joints[-1].position)
        if memory is None or memory.guidance_id != obs.guidance.guidance_id:
            return *fresh, self._new_memory(memory)
        offset, rate, joints = _at(memory, obs.joints[-1].stamp, self._progress(obs))
        done = self._events_done(obs)
        if done > memory.events_done:
            position = _contact_of_event(obs.guidance, done - 1)
            if position is not None:
                memory.last_offset, memory.last_contact = offset, position
            memory.events_done = done
        held = obs.progress.state in (StreamerState.HELD, StreamerState.STOPPED)
        if held or np.linalg.norm(offset[:3] - measured[:3]) > self.config.resync_distance:
            return *fresh, memory
        return offset, rate, joints, memory

    def _new_memory(self, old: _Memory | None) -> _Memory:
        empty = np.zeros(0)
        return _Memory("", 0, 0, 0.0, empty, empty, empty, empty, np.zeros(6), np.full(3, 1e3))

    # -- output ----------------------------------------------------------------------------------

    def _check(self, added: Residual) -> None:
        values = np.concatenate([added.position, added.rotvec, added.widths[:, None]], axis=1)
        if not np.isfinite(values).all():
            raise BridgeError(
                ErrorCode.MODEL_ERROR, f"policy {self.source} put out a value that is not finite"
            )
        limits = (
            ("correction", np.linalg.norm(added.position, axis=1).max(), self.config.max_correction, "m"),
            ("turn", np.linalg.norm(added.rotvec, axis=1).max(), self.config.max_rotation_correction, "rad"),
            ("disagreement of samples", np.nan_to_num(added.sigma), self.config.max_spread, "m"),
        )
        for name, value, limit, unit in limits:
            if value > limit:
                raise BridgeError(
                    ErrorCode.EXPERT_DIVERGED,
                    f"policy {self.source}: {name} of {value:.3f} {unit} is over {limit:.3f} {unit}",
                    value=float(value),
                    limit=limit,
                    unit=unit,
                    remedy="plan again, or follow with policy ik",
                )

    def _joints(self, position: Array, rotation: Array, seed: Array) -> Array:
        """Joints (H, 7) along the poses, seeded from the last command.

        Raises:
            BridgeError: UNREACHABLE.
        """
        out = np.empty((len(position), 7))
        for k in range(len(position)):
            result = self.arm.ik(Transform(position[k], rotation[k]), seed, iterations=30)
            if result.position_error > 0.005 or result.rotation_error > 0.05:
                raise BridgeError(
                    ErrorCode.UNREACHABLE,
                    f"step {k} of the chunk is {result.position_error * 1e3:.1f} mm out of reach",
                    value=result.position_error,
                    limit=0.005,
                    unit="m",
                )
            out[k] = seed = result.q
        return out


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
        if (config.horizon, round(config.dt, 6)) != (model.horizon, round(model.dt, 6)):
            raise BridgeError(
                ErrorCode.MODEL_ERROR,
                f"horizon {config.horizon} x {config.dt} s is configured, the checkpoint was trained with "
                f"{model.horizon} x {model.dt} s",
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
        obs, model = scene.observation, self.model
        T_local_base = scene.contact.T_base_local.inverse()
        cloud = np.zeros((1, model.points, 4), np.float32)
        mask = np.zeros((1, model.points), np.float32)
        if scene.cloud is not None and len(scene.cloud.points_base) and scene.contact.exists:
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
        close = scene.contact.exists and scene.contact.event == GripperEvent.CLOSE
        opens = scene.contact.exists and scene.contact.event == GripperEvent.OPEN
        present = float(mask.any())
        vector = features.vector(
            tcp_position=T_local_base.apply(scene.T_base_tcp.translation)[None],
            tcp_rotation=(local @ scene.T_base_tcp.rotation)[None],
            linear_velocity=(local @ scene.twist[:3])[None],
            angular_velocity=(local @ scene.twist[3:])[None],
            guided_now=T_local_base.apply(scene.now.position),
            window_position=T_local_base.apply(scene.window.position)[None],
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
            gripper_max_width=model.gripper_max_width,
        )
        return vector, cloud, mask

    def residual(self, scene: Scene, seed: int) -> Residual:
        """Denoise ``samples`` chunks and take the medoid."""
        model = self.model
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal((self.config.samples, model.horizon * model.action_dim)).astype(
            np.float32
        )
        action, _ = self.runtime(*self.inputs(scene), noise)
        if not np.isfinite(action).all():
            raise BridgeError(ErrorCode.MODEL_ERROR, "the expert put out a value that is not finite")
        shaped = action.reshape(-1, model.horizon, model.action_dim)
        position, rotvec, widths = features.decode_action(shaped, model)
        apart = np.linalg.norm(position[:, None] - position[None], axis=-1).mean(axis=-1)
        best = int(apart.sum(axis=1).argmin())
        sigma = (
            float(np.sqrt(np.mean(position.var(axis=0).sum(axis=-1)))) if len(position) > 1 else float("nan")
        )
        turn = scene.contact.T_base_local
        if not scene.contact.exists:
            zero = np.zeros((model.horizon, 3))
            return Residual(zero, zero, scene.widths, 0.0)
        return Residual(turn.rotate(position[best]), turn.rotate(rotvec[best]), widths[best], sigma)


def make_policy(config: ExpertConfig, arm: ArmModel) -> FollowPolicy:
    """The policy that a configuration names.

    Raises:
        BridgeError: MODEL_ERROR, the checkpoint is missing, damaged or does not fit.
    """
    if config.policy == "expert":
        return LearnedPolicy(config, arm)
    return {"ik": FollowPolicy, "snap": SnapPolicy}[config.policy](config, arm)


def look_ahead(
    guidance: Guidance, progress: float, events_done: int, gripper_width: float, model: ModelConfig, up: Array
) -> Outlook:
    """Window, next contact and gains at an executed progress.

    Args:
        guidance: Not a refusal.
        progress: 0..1.
        events_done: Gripper events completed.
        gripper_width: Metres, scheduled before the first event.
        model: Horizon and blend.
        up: (3,) against gravity, base frame.
    """
    ahead = window(guidance, progress, events_done, model.horizon, model.dt)
    now = window(guidance, progress, events_done, 1, 0.0)
    contact = next_contact(guidance, events_done, up)
    origin = contact.T_base_local.translation
    weights, gain = np.zeros(model.horizon), np.zeros(model.horizon)
    if contact.exists:
        weights = features.weight(np.linalg.norm(ahead.position - origin, axis=1), model)
        here = features.weight(np.linalg.norm(now.position - origin, axis=1), model)
        gain = features.gains(weights, here[0], (weights[0] - here[0]) / model.dt, model)
    left = events_done < len(guidance.events)
    clamped = np.zeros(model.horizon, bool)
    if left:
        clamped = ahead.progress >= guidance.event_progress[events_done] - 1e-9
    past = 0 < events_done <= len(guidance.events)
    before = float(guidance.event_width[events_done - 1]) if past else gripper_width
    event_width = float(guidance.event_width[events_done]) if left else before
    return Outlook(
        window=ahead,
        now=now,
        rotations=Rotation.from_quat(ahead.quat).as_matrix(),
        contact=contact,
        weights=weights,
        gains=gain,
        clamped=clamped.astype(float),
        widths=np.where(clamped, event_width, before),
        event_width=event_width,
    )


def next_contact(guidance: Guidance, events_done: int, up: Array) -> Contact:
    """The first contact whose event is not done yet; else the end of the path."""
    passed = float(guidance.event_progress[events_done - 1]) if events_done > 0 else -1.0
    ahead = np.flatnonzero(guidance.contact_progress > passed + 1e-9)
    if len(ahead) == 0 or events_done >= len(guidance.events):
        rotation = Rotation.from_quat(guidance.quat[-1]).as_matrix()
        frame = features.local_frame(guidance.position[-1], rotation, up)
        return Contact(False, frame, GripperEvent.NONE, float("nan"))
    index = int(ahead[0])
    at = float(guidance.contact_progress[index])
    nearest = int(np.abs(guidance.progress - at).argmin())
    frame = features.local_frame(
        guidance.contact_position[index], Rotation.from_quat(guidance.quat[nearest]).as_matrix(), up
    )
    event = int(np.abs(guidance.event_progress - at).argmin())
    return Contact(True, frame, guidance.events[event], float(guidance.event_width[event]))


def _contact_of_event(guidance: Guidance, event: int) -> Array | None:
    """(3,) position of the contact at which an event happens; None if it happens elsewhere."""
    if event >= len(guidance.event_progress):
        return None
    apart = np.abs(guidance.contact_progress - guidance.event_progress[event])
    if len(apart) == 0 or apart.min() > 1e-3:
        return None
    return np.asarray(guidance.contact_position[int(apart.argmin())])


def _at(memory: _Memory, stamp: float, progress: float) -> tuple[Array, Array, Array]:
    """Offset (6,), its rate (6,) and joints (7,) of the last chunk where the arm is now.

    Progress tells where on the chunk; once it waits at an event, the clock does.
    """
    end = memory.progress[-1]
    elapsed = float(np.clip(stamp - memory.stamp, 0.0, memory.times[-1]))
    arrival = int(np.argmax(memory.progress >= end - 1e-9))
    if progress < end - 1e-9:
        rising = memory.progress[: arrival + 1]
        time = float(np.interp(progress, rising, memory.times[: arrival + 1]))
    else:
        time = max(float(memory.times[arrival]), elapsed)
    rates = np.gradient(memory.offset, memory.times, axis=0)
    offset = np.array([np.interp(time, memory.times, c) for c in memory.offset.T])
    rate = np.array([np.interp(time, memory.times, c) for c in rates.T])
    joints = np.array([np.interp(time, memory.times, c) for c in memory.joints.T])
    return offset, rate, joints


def _velocities(path: Array, dt: float) -> Array:
    """(H, 7) rad/s by central differences over (H + 1, 7) joints, the present first."""
    middle = (path[2:] - path[:-2]) / (2.0 * dt)
    return np.concatenate([middle, (path[-1:] - path[-2:-1]) / dt])
