"""Parameters of the action expert: of the running node, and of the network."""

from __future__ import annotations

import dataclasses

from bridgevla_ros.core.config import param
from bridgevla_ros.core.errors import BridgeError, ErrorCode

OUTPUTS = ("action", "contact", "dissent")
"""Of the sampler (``model.Sampler``), by the names that its onnx graph gives them."""
CHOICES = {
    "encoder": ("vote", "keypoints", "maxpool"),
    "denoiser": ("mlp", "unet"),
    "beta_schedule": ("squaredcos_cap_v2", "linear"),
    "prediction_type": ("sample", "epsilon"),
}
"""Names that a ``ModelConfig`` may hold."""


@dataclasses.dataclass(frozen=True)
class ExpertConfig:
    """Parameters of the node ``action_expert``."""

    policy: str = param(
        "expert",
        "The learned expert, or a baseline: ik follows guidance, snap shifts it to the nearest cluster.",
        choices=("expert", "ik", "snap"),
    )
    runtime: str = param(
        "onnx",
        "What runs the network: onnx (whole denoising loop in one graph) or torch.",
        choices=("onnx", "torch"),
    )
    weights: str = param("", "Folder with the checkpoint of the expert; empty for the one that ships.")
    device: str = param("cpu", "Device of the torch runtime, e.g. cpu or cuda:0; onnx runs on the cpu.")
    threads: int = param(1, "Threads of the network.", ge=1, le=64)
    rate: float = param(20.0, "Chunks per second of ROS time.", unit="Hz", ge=1.0, le=200.0)
    horizon: int = param(
        16, "Steps of a chunk; the learned expert needs that of its checkpoint.", ge=2, le=64
    )
    dt: float = param(0.05, "Time between steps of a chunk.", unit="s", ge=0.005, le=0.5)
    execute_steps: int = param(8, "Steps executed before the next chunk must be there.", ge=1, le=64)
    denoising_steps: int = param(8, "DDIM steps.", ge=1, le=100)
    samples: int = param(
        4, "Samples per chunk; the medoid is executed, their spread is part of what is reported.", ge=1, le=64
    )
    seed: int = param(0, "Seed of the noise; the same within a guidance, so that chunks agree.", ge=0)
    policy_without_cloud: str = param(
        "hold",
        "Without a fresh cloud: hold publishes nothing, follow goes on along guidance uncorrected.",
        choices=("hold", "follow"),
    )
    cloud_max_age: float = param(0.5, "Older clouds count as lost.", unit="s", ge=0.01, le=60.0)
    joint_max_age: float = param(0.25, "Older joint states count as lost.", unit="s", ge=0.005, le=10.0)
    progress_max_age: float = param(0.5, "Older progress counts as lost.", unit="s", ge=0.01, le=10.0)
    guidance_max_age: float = param(
        120.0, "Guidance from an older image is not followed.", unit="s", ge=1.0, le=3600.0
    )
    max_correction: float = param(
        0.10, "A larger departure from guidance is EXPERT_DIVERGED.", unit="m", ge=0.0, le=0.2
    )
    lock_distance: float = param(
        0.05,
        "Nearer to the contact than this the correction is held: the gripper hides what it reaches for.",
        unit="m",
        ge=0.0,
        le=0.2,
    )
    max_descent: float = param(
        0.07,
        "A correction goes no lower than this below guidance.",
        unit="m",
        ge=0.0,
        le=0.1,
    )
    max_rotation_correction: float = param(
        0.5, "A larger turn away from guidance is EXPERT_DIVERGED.", unit="rad", ge=0.0, le=1.5
    )
    max_spread: float = param(
        0.03, "Samples and votes that disagree by more are EXPERT_DIVERGED.", unit="m", ge=0.0, le=0.2
    )
    resync_distance: float = param(
        0.05,
        "A commanded pose this far from the measured one is given up for it.",
        unit="m",
        ge=0.005,
        le=0.5,
    )
    snap_radius: float = param(
        0.05, "The snap baseline looks this far around the contact.", unit="m", ge=0.01, le=0.2
    )
    up_base: tuple[float, ...] = param((0.0, 0.0, 1.0), "Direction against gravity in the base frame.")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape of the network and the constants its data was made with; stored in the checkpoint.

    Attributes:
        horizon, dt: Steps of a chunk, seconds between them.
        points: Points of the cloud at inference (training draws fewer: the pooling is masked).
        crop_radius: Metres about the contact; points farther away are masked.
        encoder, denoiser: Of CHOICES (ADR 5).
        point_widths: Of the per-point MLP.
        heads: Soft keypoints of encoder "keypoints".
        supports: Horizontal directions in which encoder "vote" feels how far the thing reaches; 0: none.
        cloud_features: Free features of the cloud beside the contact estimate.
        width: Of the FiLM residual MLP, or of the U-Net's first stage; ``blocks``: of the MLP.
        conditioning_width: Of the conditioning vector.
        train_timesteps, beta_schedule, prediction_type: Of the diffusion process.
        position_limit, rotation_limit: Metres, radians: upper ends of the action normaliser
            (min-max to [-1, 1], symmetric).
        gripper_max_width: Metres, upper end of the gripper's normaliser.
        near, far: Metres from the contact: correction is whole nearer than near, none beyond far.
        fade: Metres from the last contact over which its correction fades to guidance.
        omega: rad/s of the critically damped return to the path.
        max_tilt: Rad from straight down; contacts that the hand reaches more aslant are followed as guided:
            no data were made of them.

    Raises:
        BridgeError: BAD_INPUT, a name is none of its CHOICES.
    """

    horizon: int = 16
    dt: float = 0.05
    points: int = 512
    crop_radius: float = 0.12
    encoder: str = "vote"
    denoiser: str = "mlp"
    point_widths: tuple[int, ...] = (64, 64, 96)
    heads: int = 16
    supports: int = 16
    cloud_features: int = 64
    width: int = 256
    blocks: int = 4
    conditioning_width: int = 256
    train_timesteps: int = 100
    beta_schedule: str = "squaredcos_cap_v2"
    prediction_type: str = "sample"
    position_limit: float = 0.08
    rotation_limit: float = 0.5
    gripper_max_width: float = 0.085
    near: float = 0.08
    far: float = 0.20
    fade: float = 0.10
    omega: float = 8.0
    max_tilt: float = 0.6

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise BridgeError(
                    ErrorCode.BAD_INPUT,
                    f"{name} {value!r}; expected one of {', '.join(choices)}",
                    remedy=f"correct {name} in `model` of the configuration",
                )

    @property
    def action_dim(self) -> int:
        """Numbers of one step: 3 position, 6 rotation, 1 gripper."""
        return 10

    @property
    def feature_dim(self) -> int:
        """Length of the proprioception and guidance vector (see ``features.py``)."""
        return 18 + self.horizon * (3 + 6 + 1 + 1) + 12
