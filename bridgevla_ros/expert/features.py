"""Local frames, the blend of corrections along the path, and the network's feature vector.

The same functions serve training (batched, kinematic samples) and the running policy, so that the
two cannot drift apart. Everything is expressed in the LOCAL FRAME of the next contact: origin where
guidance makes it, z against gravity, x along the horizontal part of the TCP's x axis. A turned base or a
moved camera therefore changes nothing but rounding. What makes contact is called TCP here; where that is
something held aside of the fingers (``Waypoint.contact_offset``), its pose is meant.

What is blended. Let ``c`` be the correction of the next contact (true minus guided) and ``w`` the
share of it that belongs at a point of the path (1 near the contact, 0 far away). The commanded pose
departs from guidance by an offset that follows ``w c`` through a critically damped return with
frequency ``omega``. That return is linear, so the chunk splits into a part that anyone can compute
(guidance plus the decaying present offset: what a policy without eyes does) and a part that only the
cloud tells, ``gain * c``. The network predicts the second part; where it sees nothing it predicts 0
and the chunk degrades into following.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.expert.config import ModelConfig

POSITION_SCALE = 0.1
"""Metres that become 1 in the features."""
CLIP = 4.0
"""Features are clipped here: beyond 0.4 m from the contact distance no longer matters."""
STATE_DIM = 18
"""Features of the state, the first ones: TCP position and rotation, velocities, offset from guidance."""
TAIL_DIM = 12
"""Features after the window: closes, opens, none, two widths, three of the cloud, guidance's age, three of
the way on."""


def local_frame(position: Array, rotation: Array, up: Array) -> Transform:
    """T_base_local of a contact.

    Args:
        position: (3,) metres, where guidance makes contact, base frame.
        rotation: (3, 3) guidance's TCP orientation there.
        up: (3,) direction against gravity, base frame.
    """
    z = up / np.linalg.norm(up)
    for axis in (rotation[:, 0], rotation[:, 1], rotation[:, 2]):
        x = axis - z * float(z @ axis)
        norm = float(np.linalg.norm(x))
        if norm > 0.5:
            break
    x = x / norm
    return Transform(position, np.stack([x, np.cross(z, x), z], axis=1))


def weight(distance: Array, config: ModelConfig) -> Array:
    """Share of the next contact's correction at a distance (metres, any shape) from it."""
    s = np.clip((config.far - distance) / (config.far - config.near), 0.0, 1.0)
    return np.asarray(s * s * (3.0 - 2.0 * s))


def fade(distance: Array, config: ModelConfig) -> Array:
    """Share of the last contact's correction at a distance (metres, any shape) from it."""
    s = np.clip(1.0 - distance / config.fade, 0.0, 1.0)
    return np.asarray(s * s * (3.0 - 2.0 * s))


def decay(offset: Array, velocity: Array, times: Array, omega: float) -> Array:
    """Critically damped return of an offset to zero.

    Args:
        offset: (..., D) at time 0.
        velocity: (..., D) per second at time 0.
        times: (H,) seconds.
        omega: rad/s.

    Returns:
        (..., H, D).
    """
    t = times[:, None]
    return np.asarray(
        (offset[..., None, :] + (velocity + omega * offset)[..., None, :] * t) * np.exp(-omega * t)
    )


def gains(w: Array, w_now: Array, w_rate: Array, config: ModelConfig) -> Array:
    """Share of the next contact's correction that step k of a chunk carries beyond the free return.

    Args:
        w: (..., H) weights at the steps.
        w_now, w_rate: (...,) weight at the present guidance point and its rate, 1/s.

    Returns:
        (..., H), 0 where the present offset alone explains the step.
    """
    times = config.dt * np.arange(1, w.shape[-1] + 1)
    free = decay(np.asarray(w_now)[..., None], np.asarray(w_rate)[..., None], times, config.omega)
    return np.asarray(w - free[..., 0])


def rot6(rotation: Array) -> Array:
    """First two columns of (..., 3, 3) rotations, as (..., 6)."""
    return np.concatenate([rotation[..., :, 0], rotation[..., :, 1]], axis=-1)


def rotation_from_rot6(values: Array) -> Array:
    """(..., 3, 3) rotations by Gram-Schmidt (Zhou et al. 2019), inverse of ``rot6``."""
    a, b = values[..., :3], values[..., 3:]
    x = a / np.linalg.norm(a, axis=-1, keepdims=True)
    y = b - np.sum(x * b, axis=-1, keepdims=True) * x
    y = y / np.linalg.norm(y, axis=-1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], axis=-1)


def vector(
    *,
    tcp_position: Array,
    tcp_rotation: Array,
    linear_velocity: Array,
    angular_velocity: Array,
    guided_now: Array,
    window_position: Array,
    window_rotation: Array,
    gain: Array,
    clamped: Array,
    closes: Array,
    opens: Array,
    gripper_width: Array,
    event_width: Array,
    cloud_present: Array,
    cloud_age: Array,
    points_fraction: Array,
    guidance_age: Array,
    onward: Array,
    gripper_max_width: float,
) -> NDArray[np.float32]:
    """The network's feature vector, (B, F) float32; everything in the local frame.

    Args:
        tcp_position: (B, 3) metres; ``tcp_rotation``: (B, 3, 3).
        linear_velocity, angular_velocity: (B, 3) m/s, rad/s.
        guided_now: (B, 3) metres, guidance at the executed progress.
        window_position: (B, H, 3) metres; ``window_rotation``: (B, H, 3, 3).
        gain, clamped: (B, H); clamped is 1 where the window waits at an event.
        closes, opens: (B,) 1 where the next contact closes or opens the gripper.
        gripper_width, event_width: (B,) metres.
        cloud_present, points_fraction: (B,) 0..1.
        cloud_age, guidance_age: (B,) seconds.
        onward: (B, 3) metres, from the guided contact to the next one of its chain (where something is
            pushed or pulled to); zeros without one.
    """
    b = len(tcp_position)
    parts = [
        np.clip(tcp_position / POSITION_SCALE, -CLIP, CLIP),
        rot6(tcp_rotation),
        linear_velocity / 0.25,
        angular_velocity,
        np.clip((tcp_position - guided_now) / 0.03, -CLIP, CLIP),
        np.clip(window_position / POSITION_SCALE, -CLIP, CLIP).reshape(b, -1),
        rot6(window_rotation).reshape(b, -1),
        gain,
        clamped,
        np.stack(
            [
                closes,
                opens,
                1.0 - closes - opens,
                gripper_width / gripper_max_width,
                event_width / gripper_max_width,
                cloud_present,
                np.clip(cloud_age, 0.0, 2.0),
                points_fraction,
                np.clip(guidance_age / 10.0, 0.0, 1.0),
            ],
            axis=-1,
        ),
        np.clip(onward / POSITION_SCALE, -CLIP, CLIP),
    ]
    return np.concatenate(parts, axis=-1).astype(np.float32)


def first_gain(config: ModelConfig) -> int:
    """Index of the first step's gain among the features."""
    return STATE_DIM + 9 * config.horizon


def cloud_input(
    points_local: Array, age: Array, config: ModelConfig
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Points (N, 4) float32 (x, y, z over POSITION_SCALE, age) and mask (N,), in the local frame.

    The crop is a ball about the contact, so that it does not depend on the base's yaw.
    """
    mask = np.linalg.norm(points_local, axis=-1) <= config.crop_radius
    values = np.concatenate([points_local / POSITION_SCALE, np.clip(age, 0.0, 5.0)[..., None]], axis=-1)
    return np.where(mask[..., None], values, 0.0).astype(np.float32), mask


def encode_action(position: Array, rotvec: Array, width: Array, config: ModelConfig) -> NDArray[np.float32]:
    """Residuals (..., 3) metres, (..., 3) rad and width (...,) metres to (..., 10) in [-1, 1]."""
    shape = rotvec.shape[:-1]
    matrix = Rotation.from_rotvec(rotvec.reshape(-1, 3)).as_matrix().reshape(*shape, 3, 3)
    six = (rot6(matrix) - rot6(np.eye(3))) / config.rotation_limit
    grip = 2.0 * width / config.gripper_max_width - 1.0
    return np.concatenate([position / config.position_limit, six, grip[..., None]], axis=-1).astype(
        np.float32
    )


def decode_action(action: NDArray[np.float32], config: ModelConfig) -> tuple[Array, Array, Array]:
    """Inverse of ``encode_action``: position (..., 3), rotation vector (..., 3), width (...,)."""
    values = np.asarray(action, np.float64)
    matrix = rotation_from_rot6(values[..., 3:9] * config.rotation_limit + rot6(np.eye(3)))
    rotvec = Rotation.from_matrix(matrix.reshape(-1, 3, 3)).as_rotvec().reshape(*values.shape[:-1], 3)
    width = (values[..., 9] + 1.0) / 2.0 * config.gripper_max_width
    return values[..., :3] * config.position_limit, rotvec, np.clip(width, 0.0, config.gripper_max_width)
