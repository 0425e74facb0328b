"""Parameters of the simulated cell."""

from __future__ import annotations

from dataclasses import dataclass

from bridgevla_ros.core.config import param


@dataclass(frozen=True)
class SimConfig:
    """Scene, sensors, pacing and faults of the simulator."""

    scene_seed: int = param(0, "Seed from which scene, task, sensor noise and camera pose are drawn", ge=0)
    scene_file: str = param("", "JSON file of a scene; empty to draw one from scene_seed")
    goal: str = param("", "Words of the goal to judge; empty for the task drawn with the scene")
    objects_min: int = param(2, "Fewest movable objects in a drawn scene", ge=1, le=6)
    objects_max: int = param(5, "Most movable objects in a drawn scene", ge=1, le=6)
    image_width: int = param(320, "Width of colour and depth image", unit="px", ge=32, le=1920)
    image_height: int = param(240, "Height of colour and depth image", unit="px", ge=32, le=1080)
    camera_rate: float = param(10.0, "Images per second of simulated time", unit="Hz", ge=0.1, le=60.0)
    camera_latency: float = param(
        0.0, "Simulated time from exposure to publication", unit="s", ge=0.0, le=2.0
    )
    camera_jitter: bool = param(True, "Move the camera by centimetres and degrees from scene to scene")
    renderer: str = param("osmesa", "Off-screen OpenGL", choices=("osmesa", "egl"))
    depth_encoding: str = param("32FC1", "Encoding of the depth image", choices=("32FC1", "16UC1"))
    depth_noise: float = param(
        1.0, "Scale of the depth faults (noise, holes, flying pixels, bias); 0 for none", ge=0.0, le=10.0
    )
    colour_noise: float = param(1.5, "Standard deviation of colour noise, 0..255 scale", ge=0.0, le=50.0)
    stereo_baseline: float = param(
        0.0,
        "Baseline of a stereo pair, whose images (camera/left, camera/right) are published in place of the "
        "depth image; 0: a depth camera",
        unit="m",
        ge=0.0,
        le=0.5,
    )
    projector: float = param(
        2.0,
        "Brightness of the speckles that a projector throws for the stereo pair, in shares of the scene's "
        "light; 0: none",
        ge=0.0,
        le=20.0,
    )
    joint_state_rate: float = param(
        100.0, "Joint states per second of simulated time", unit="Hz", ge=10, le=500
    )
    clock_rate: float = param(200.0, "Clock messages per second of simulated time", unit="Hz", ge=20, le=500)
    outcome_rate: float = param(5.0, "Judgements per second of simulated time", unit="Hz", ge=0.1, le=50.0)
    real_time_factor: float = param(
        1.0, "Simulated seconds per wall second at most; 0 for as fast as possible", ge=0.0, le=20.0
    )
    command_mode: str = param("joint", "Commands that move the arm", choices=("joint", "ee"))
    backpressure_age: float = param(
        0.03, "While commands stream, wait for them when the newest is older than this", unit="s", ge=0.005
    )
    backpressure_wait: float = param(
        0.2, "Longest wall time to wait for a command before time goes on", unit="s", ge=0.0, le=5.0
    )
    gripper_speed: float = param(0.1, "Speed of the gripper opening", unit="m/s", ge=0.01, le=0.5)
    gripper_force: float = param(40.0, "Greatest force of each finger", unit="N", ge=5.0, le=80.0)
