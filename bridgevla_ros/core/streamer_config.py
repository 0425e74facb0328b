"""Parameters of the arm streamer, its envelope and its gripper events."""

from __future__ import annotations

from dataclasses import dataclass

from bridgevla_ros.core.config import param
from bridgevla_ros.core.gripping import GrippingConfig
from bridgevla_ros.core.safety import EnvelopeConfig


@dataclass(frozen=True)
class StreamerConfig(EnvelopeConfig, GrippingConfig):
    """Parameters of the arm streamer."""

    rate: float = param(100.0, "Control rate.", unit="Hz", ge=20.0, le=1000.0)
    joint_state_timeout: float = param(
        0.1, "Joint states older than this hold the arm.", unit="s", ge=0.02, le=2.0
    )
    tcp_speed_limit: float = param(0.4, "Fastest TCP along the path.", unit="m/s", ge=0.01, le=2.0)
    tracking_gain: float = param(8.0, "Gain that closes the gap to the chunk.", unit="1/s", ge=0.5, le=40.0)
    tracking_slow: float = param(
        0.06, "Gap to the chunk at which the path waits.", unit="rad", ge=0.005, le=1.0
    )
    join_limit: float = param(
        0.25, "Chunks that start farther than this from the arm are dropped.", unit="rad", ge=0.01, le=3.0
    )
    too_fast: float = param(
        3.0, "Chunk steps faster than this times the velocity limit are dropped.", ge=1.0, le=20.0
    )
    scale_rate: float = param(
        4.0, "How fast the share of the nominal speed changes.", unit="1/s", ge=0.2, le=50.0
    )
    following_error: float = param(
        0.25, "Commanded minus measured joint position that trips the stop.", unit="rad", ge=0.01, le=3.0
    )
    singularity_slow: float = param(
        40.0, "Condition number of the Jacobian at which motion slows.", ge=2.0, le=1e6
    )
    singularity_stop: float = param(
        100.0, "Condition number of the Jacobian at which motion stops.", ge=2.0, le=1e6
    )
    event_tolerance: float = param(
        1e-3, "Progress that counts as arrived at a gripper event.", ge=1e-6, le=0.05
    )
    rest_velocity: float = param(
        0.02, "Joint velocity that counts as standing still.", unit="rad/s", ge=1e-4, le=0.5
    )
    chunk_wait: float = param(
        1.0, "Seconds without a usable chunk until the hold is reported.", unit="s", ge=0.1, le=30.0
    )
