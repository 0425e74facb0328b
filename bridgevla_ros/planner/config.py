"""Parameters of the planner."""

from __future__ import annotations

from dataclasses import dataclass

from bridgevla_ros.core.config import ConfigError, param

BACKENDS = ("embedded", "transformers", "openai")
CONVENTION_NAMES = (
    "", "pixel", "qwen2.5", "qwen3", "molmo", "molmo2", "robopoint", "robobrain", "embodied-r1", "paligemma",
)  # fmt: skip


@dataclass(frozen=True)
class PlannerConfig:
    """What thinks, what it may answer, and where the arm may go."""

    backend: str = param("embedded", "Who finds the anchors", choices=BACKENDS)
    weights: str = param("", "Checkpoint folder of the backend; empty for the embedded planner that ships")
    convention: str = param(
        "",
        "How the model writes coordinates; required by the transformers and openai backends",
        choices=CONVENTION_NAMES,
    )
    waypoint_source: str = param(
        "geometry",
        "Where 3D waypoints come from: depth geometry around the anchors, or the model's second turn",
        choices=("geometry", "model"),
    )
    max_new_tokens: int = param(256, "Most tokens a turn of a vision-language model", ge=8, le=4096)
    temperature: float = param(
        0.0, "Sampling temperature of a vision-language model; 0 is greedy", ge=0.0, le=2.0
    )
    answer_timeout: float = param(
        20.0, "A vision-language model gets this long for each turn", unit="s", ge=0.1, le=600.0
    )
    device: str = param("cpu", "Device of the transformers backend, e.g. cpu or cuda:0")
    server_url: str = param(
        "http://127.0.0.1:8000/v1",
        "Server of the openai backend; its key is taken from the environment, BRIDGEVLA_API_KEY",
    )
    server_model: str = param("", "Name of the model on that server; required by the openai backend")
    server_retries: int = param(
        2, "A request that the server refuses for load or a lost connection is repeated so often", ge=0, le=10
    )
    cached_answers: int = param(
        32,
        "Answers of a vision-language model that are kept for the same question and image",
        ge=0,
        le=4096,
    )
    self_test: bool = param(
        True, "When configured, a vision-language model must point at targets that are drawn for it"
    )
    null_threshold: float = param(
        0.0,
        "Probability of 'not there' that refuses; 0 for the one calibrated with the weights",
        ge=0.0,
        le=1.0,
    )
    ambiguity: float = param(
        0.4, "A second peak with this share of the first one's mass is AMBIGUOUS", ge=0.0, le=1.0
    )
    viewpoint: str = param(
        "camera",
        "Whose left, right, near and far is meant: that of the picture, or as seen from the arm's base",
        choices=("camera", "robot"),
    )
    threads: int = param(1, "Threads of torch", ge=1, le=64)
    seed: int = param(0, "Added to each request's seed", ge=0)
    robot: str = param("panda_2f85", "Robot of config/robots, or a path to its YAML file")
    base_frame: str = param("base_link", "Frame that gravity and the workspace are given in; z up")
    table_height: float = param(
        0.0, "Height of the support plane in the base frame", unit="m", ge=-2.0, le=2.0
    )
    approach_height: float = param(
        0.10, "Height of approach and retreat above a contact", unit="m", ge=0.02, le=0.4
    )
    travel_height: float = param(
        0.20, "Lowest TCP height above the table while carrying", unit="m", ge=0.05, le=0.6
    )
    grip_opening: float = param(
        0.035, "Gripper opens this much wider than the thing, before the grasp", unit="m", ge=0.005, le=0.1
    )
    workspace_min: tuple[float, ...] = param(
        (0.25, -0.40, -0.01), "Lowest corner of the box that waypoints stay in", unit="m"
    )
    workspace_max: tuple[float, ...] = param((0.80, 0.40, 0.60), "Highest corner of that box", unit="m")
    max_reprojection: float = param(
        12.0,
        "Greatest distance of a contact from its anchor in the image, at 320 pixels of width",
        unit="px",
        ge=1.0,
    )
    semantic_limit: float = param(
        0.05,
        "Least probability, by the embedded model's eyes, that an anchor lies on what is named; 0: not asked",
        ge=0.0,
        le=1.0,
    )
    depth_source: str = param(
        "sensor",
        "Where depth comes from: the depth image alone (of a sensor, or of node stereo), or also from a "
        "network that looks at the colour image where the depth image has holes",
        choices=("sensor", "monocular"),
    )
    depth_weights: str = param("", "Checkpoint folder of that depth-estimation network")
    depth_writes: str = param(
        "inverse",
        "What that network writes, but for scale and shift: inverse depth (Depth Anything, DPT) or depth",
        choices=("inverse", "depth"),
    )
    depth_residual: float = param(
        0.05, "Greatest share by which the network may be off what the sensor sees", ge=0.001, le=1.0
    )
    depth_noise: float = param(
        0.002,
        "Error of depth alike over a whole thing at 1 m, one standard deviation; it grows with the square "
        "of distance. Of stereo: 0.1 px / (focal length in px * baseline)",
        unit="m",
        ge=0.0,
        le=0.2,
    )
    max_sigma: float = param(
        0.03, "Greatest standard deviation of an anchor's position", unit="m", ge=0.001, le=1.0
    )
    max_condition: float = param(
        40.0, "Greatest condition number of the arm's Jacobian along the path", ge=1.0
    )
    max_joint_speed: float = param(
        4.0,
        "Greatest speed of a joint where the TCP goes at its own, in limits of that joint; the arm is slowed "
        "by as much",
        ge=1.0,
        le=100.0,
    )
    max_overlap: float = param(
        0.003,
        "Depth by which the arm's model, which is rounder than the arm, may reach into what is seen",
        unit="m",
        ge=0.0,
        le=0.2,
    )

    def __post_init__(self) -> None:
        if self.backend != "embedded" and not self.convention:
            raise ConfigError(
                f"convention must be set for the {self.backend} backend; one of {list(CONVENTION_NAMES[1:])}"
            )
        if self.backend == "transformers" and not self.weights:
            raise ConfigError("weights must name the checkpoint folder of the transformers backend")
        if self.depth_source == "monocular" and not self.depth_weights:
            raise ConfigError("depth_weights must name the checkpoint folder of a depth-estimation model")
        if self.backend == "openai" and not self.server_model:
            raise ConfigError("server_model must name a model of the server")
