"""From an observation to a chunk that follows guidance: the baseline ``ik``, and what all policies share.

Windows, blending, inverse kinematics and bounds are here; a policy adds its residual beyond guidance.
See ``features.py`` for the frames and the blend.

| step | meaning |
|---|---|
| -1, 0 | observed: the last two joint states, 0 is newest |
| 0 .. H-1 | predicted, ``dt`` apart, the first at ``stamp + dt`` |
| 0 .. E-1 | executed before the next chunk must be there |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import (
    ActionChunk,
    Cloud,
    Guidance,
    JointState,
    Progress,
    StreamerState,
)
from bridgevla_ros.expert import features
from bridgevla_ros.expert.config import ExpertConfig, ModelConfig
from bridgevla_ros.expert.outlook import Outlook, look_ahead

_ARM = "check the arm's driver, and that its clock is this one's"
"""What to do where the arm does not say where it is."""


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
        sigma: Metres, disagreement of samples and votes; NaN of policies without.
    """

    position: Array
    rotvec: Array
    widths: Array
    sigma: float = float("nan")


@dataclass(frozen=True, eq=False)
class _Memory:
    """What was commanded last: the blend continues from there, not from the lagging measurement.

    Attributes:
        guidance_id, contacts_done, sequence: Of the last chunk.
        stamp: Seconds; ``times``: (H + 1,) after it, 0 first.
        progress: (H + 1,); ``offset``: (H + 1, 6) from guidance; ``joints``: (H + 1, 7).
        last_offset: (6,) offset when the last contact was over.
    """

    guidance_id: str
    contacts_done: int
    sequence: int
    stamp: float
    times: Array
    progress: Array
    offset: Array
    joints: Array
    last_offset: Array


class ExpertPolicy(Protocol):
    """What the node and the rollout call."""

    def chunk(self, obs: ExpertObservation, seed: int) -> ActionChunk:
        """Commands of the next H steps.

        Raises:
            BridgeError: SENSOR_LOST, STALE_IMAGE, EXPERT_DIVERGED, UNREACHABLE, BAD_INPUT or
                MODEL_ERROR; ``refusal`` makes of it what tells the streamer.
        """
        ...


def refusal(
    obs: ExpertObservation,
    seed: int,
    error: BridgeError,
    *,
    sequence: int = 0,
    model_sha256: str = "",
    source: str = "",
) -> ActionChunk:
    """What is put out in the place of a chunk: why there is none, and from what that was seen."""
    clouds = () if obs.cloud is None else (obs.cloud.stamp,)
    same = obs.progress.guidance_id == obs.guidance.guidance_id
    return ActionChunk(
        stamp=obs.joints[-1].stamp if obs.joints else obs.now,
        guidance_id=obs.guidance.guidance_id,
        task_id=obs.guidance.task_id,
        sequence=sequence,
        seed=seed,
        dt=0.0,
        execute_steps=0,
        position=np.zeros((0, 3)),
        quat=np.zeros((0, 4)),
        joints=np.zeros((0, 7)),
        joint_velocities=np.zeros((0, 7)),
        gripper_width=np.zeros(0),
        progress=np.zeros(0),
        guidance_progress=float(np.clip(obs.progress.progress, 0.0, 1.0)) if same else 0.0,
        cloud_stamps=clouds,
        joint_stamps=tuple(j.stamp for j in obs.joints),
        correction=float("nan"),
        correction_sigma=float("nan"),
        model_sha256=model_sha256,
        source=source,
        progress_stamp=obs.progress.stamp,
        computed_at=obs.now,
        code=error.code,
        message=error.message,
        value=error.value,
        limit=error.limit,
        unit=error.unit,
    )


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

    def remembered(self) -> dict[str, Any]:
        """What the next chunk continues from, by name, as plain values and arrays; empty at the start."""
        return {} if self._memory is None else vars(self._memory).copy()

    def recall(self, remembered: Mapping[str, Any]) -> None:
        """Go on from what ``remembered`` gave.

        Raises:
            BridgeError: BAD_INPUT where it is of another version.
        """
        self.reset()
        if not remembered:
            return
        names = {field.name: field.type for field in fields(_Memory)}
        if set(names) != set(remembered):
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"a policy's memory has {sorted(remembered)}; this version's has {sorted(names)}",
                remedy="replay with the version that recorded it",
            )
        plain = {"str": str, "int": int, "float": float}
        values: dict[str, Any] = {
            name: plain.get(str(kind), np.asarray)(remembered[name]) for name, kind in names.items()
        }
        self._memory = _Memory(**values)

    def reset(self) -> None:
        """Forget what was commanded."""
        self._memory = None

    def warm_up(self) -> None:
        """Do now what the first chunk would wait for."""

    def chunk(self, obs: ExpertObservation, seed: int) -> ActionChunk:
        """See ``ExpertPolicy``."""
        scene = self._scene(obs)
        offset, velocity, joints, memory = self._state(scene)
        offsets: Array  # (H, 6) from guidance
        times: Array = self.model.dt * np.arange(1, self.model.horizon + 1, dtype=np.float64)
        if memory.sequence > 0 and (obs.progress.state == StreamerState.GRIPPING or self._locked(scene)):
            offsets = np.repeat(offset[None], self.model.horizon, axis=0)
            added = Residual(offsets[:, :3] * 0.0, offsets[:, 3:] * 0.0, scene.widths)
        else:
            share: Array = scene.kept[:, None] * memory.last_offset
            share_now: Array = scene.kept_now * memory.last_offset
            rate: Array = (share[0] - share_now) / self.model.dt
            offsets = np.add(
                share, features.decay(offset - share_now, velocity - rate, times, self.model.omega)
            )
            added = self.residual(scene, seed)
            self._check(added)
            offsets = offsets + np.concatenate([added.position, added.rotvec], axis=1)
        position = scene.window.position + offsets[:, :3]
        rotation = Rotation.from_rotvec(offsets[:, 3:]) * Rotation.from_matrix(scene.rotations)
        path = self._joints(position, rotation.as_matrix(), joints)
        grid = np.concatenate([joints[None], path])
        self._memory = _Memory(
            obs.guidance.guidance_id,
            scene.contacts_done,
            memory.sequence + 1,
            obs.joints[-1].stamp,
            np.concatenate([[0.0], times]),
            np.concatenate([[self._progress(obs)], scene.window.progress]),
            np.concatenate([offset[None], offsets]),
            grid,
            memory.last_offset,
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
            progress_stamp=obs.progress.stamp,
            computed_at=obs.now,
        )

    def refusal(self, obs: ExpertObservation, seed: int, error: BridgeError) -> ActionChunk:
        """What to put out where ``chunk`` raised; its sequence is that of the next chunk."""
        memory = self._memory
        same = memory is not None and memory.guidance_id == obs.guidance.guidance_id
        sequence = memory.sequence if memory is not None and same else 0
        return refusal(
            obs, seed, error, sequence=sequence, model_sha256=self.model_sha256, source=self.source
        )

    def _locked(self, scene: Scene) -> bool:
        """Too near to the contact to see it; a policy that does not look has nothing to hold."""
        if not (self.needs_cloud and scene.contact.exists):
            return False
        rotation = Rotation.from_quat(scene.now.quat[0]).as_matrix()
        to_go = scene.contact.T_base_local.translation - scene.contact.made_at(
            scene.now.position[0], rotation
        )
        return float(np.linalg.norm(to_go)) < self.config.lock_distance

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
        if obs.cloud is not None and age <= self.config.cloud_max_age:
            _check_finite(obs.cloud)
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
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"guidance {guidance.guidance_id!r} is a refusal",
                value=float(guidance.code),
                limit=float(ErrorCode.NONE),
                remedy="do what the refusal says, then plan again",
            )
        if not obs.joints:
            raise BridgeError(
                ErrorCode.SENSOR_LOST,
                "no joint state has come yet",
                value=float("inf"),
                limit=config.joint_max_age,
                unit="s",
                remedy=_ARM,
            )
        joints = obs.joints[-1]
        lost, stale = ErrorCode.SENSOR_LOST, ErrorCode.STALE_IMAGE
        for name, stamp, limit, code, remedy in (
            ("joint state", joints.stamp, config.joint_max_age, lost, _ARM),
            ("progress", obs.progress.stamp, config.progress_max_age, lost, "check that arm_streamer runs"),
            ("guidance's image", guidance.stamp, config.guidance_max_age, stale, "plan again"),
        ):
            age = obs.now - stamp
            if not age <= limit:
                raise BridgeError(
                    code, f"the {name} is {age:.2f} s old", value=age, limit=limit, unit="s", remedy=remedy
                )
        bad = int(np.sum(~np.isfinite([joints.position, joints.velocity])))
        if bad:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                "a joint position or velocity is not finite",
                value=float(bad),
                limit=0.0,
                remedy=_ARM,
            )
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
        if scene.contacts_done > memory.contacts_done:
            # A new memory, kept with the chunk that it leads to: a try that fails leaves no trace.
            memory = replace(memory, last_offset=offset, contacts_done=scene.contacts_done)
        held = obs.progress.state in (StreamerState.HELD, StreamerState.STOPPED)
        if held or np.linalg.norm(offset[:3] - measured[:3]) > self.config.resync_distance:
            return *fresh, memory
        return offset, rate, joints, memory

    def _new_memory(self, old: _Memory | None) -> _Memory:
        empty = np.zeros(0)
        return _Memory("", 0, 0, 0.0, empty, empty, empty, empty, np.zeros(6))

    # -- output ----------------------------------------------------------------------------------

    def _check(self, added: Residual) -> None:
        check_output(
            np.concatenate([added.position, added.rotvec, added.widths[:, None]], axis=1), self.source
        )
        limits = (
            ("correction", np.linalg.norm(added.position, axis=1).max(), self.config.max_correction, "m"),
            ("turn", np.linalg.norm(added.rotvec, axis=1).max(), self.config.max_rotation_correction, "rad"),
            ("disagreement of samples and votes", np.nan_to_num(added.sigma), self.config.max_spread, "m"),
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
                    remedy="plan again, or move what is reached for nearer to the arm",
                )
            out[k] = seed = result.q
        return out


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


def check_output(values: NDArray[Any], source: str) -> None:
    """Refuse what a policy put out where a number of it is NaN or infinite.

    Raises:
        BridgeError: MODEL_ERROR.
    """
    bad = int(np.sum(~np.isfinite(values)))
    if bad:
        raise BridgeError(
            ErrorCode.MODEL_ERROR,
            f"policy {source} put out {bad} values that are not finite, of {values.size}",
            value=float(bad),
            limit=0.0,
            remedy="follow with policy ik, or name another checkpoint in weights",
        )


def _check_finite(cloud: Cloud) -> None:
    """Raises BridgeError: BAD_INPUT, a point or an age is NaN or infinite."""
    bad = int(np.sum(~np.isfinite(cloud.points_base).all(axis=-1) | ~np.isfinite(cloud.age)))
    if bad:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{bad} of {len(cloud.age)} points of the cloud are not finite",
            value=float(bad),
            limit=0.0,
            remedy="publish only points that are there; the cropper does",
        )


def _velocities(path: Array, dt: float) -> Array:
    """(H, 7) rad/s by central differences over (H + 1, 7) joints, the present first."""
    middle = (path[2:] - path[:-2]) / (2.0 * dt)
    return np.concatenate([middle, (path[-1:] - path[-2:-1]) / dt])
