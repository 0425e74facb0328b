"""Parameters of the cropper."""

from __future__ import annotations

from dataclasses import dataclass

from bridgevla_ros.core.config import param


@dataclass(frozen=True)
class CropperConfig:
    """What the expert gets to see of a depth image."""

    points: int = param(512, "Points of a cloud; drawn with replacement where fewer are seen", ge=1, le=65536)
    min_points: int = param(8, "With fewer points than this the cloud is empty", ge=1, le=4096)
    crop_radius: float = param(
        0.12, "Radius of the local crop around the next contact", unit="m", ge=0.02, le=1.0
    )
    workspace_min: tuple[float, ...] = param(
        (0.25, -0.40, -0.01), "Lowest corner of the workspace in the base frame", unit="m"
    )
    workspace_max: tuple[float, ...] = param((0.80, 0.40, 0.60), "Highest corner of the workspace", unit="m")
    depth_min: float = param(0.1, "Nearer depth is invalid", unit="m", ge=0.0, le=10.0)
    depth_max: float = param(3.0, "Farther depth is invalid", unit="m", ge=0.1, le=100.0)
    voxel: float = param(0.004, "Edge of the voxels that hold one point each", unit="m", ge=0.001, le=0.05)
    body_margin: float = param(
        0.008, "Points nearer than this to the robot's own body are its own", unit="m", ge=0.0, le=0.1
    )
    flying_slope: float = param(
        4.0,
        "A neighbour farther in depth than this many pixel widths lies on another surface",
        ge=0.5,
        le=50.0,
    )
    flying_neighbours: int = param(
        3,
        "A pixel with fewer of 8 neighbours on its surface is a flying pixel, where depth is dense; as many "
        "fewer as pixels are valid; 0 keeps all",
        ge=0,
        le=8,
    )
    drop_support: bool = param(True, "Drop the support plane from the cloud")
    support_height: float = param(0.0, "Expected height of the support plane", unit="m", ge=-2.0, le=2.0)
    support_band: float = param(
        0.03, "The measured support plane lies within this of the expected height", unit="m", ge=0.001, le=0.2
    )
    support_margin: float = param(
        0.008, "Points up to this above the support plane belong to it", unit="m", ge=0.0, le=0.1
    )
    memory: float = param(
        20.0, "Points that the robot hides now are kept this long; 0 for none", unit="s", ge=0.0, le=600.0
    )
    occlusion_margin: float = param(
        0.02,
        "Depth beside a remembered point by more than this is another surface",
        unit="m",
        ge=0.001,
        le=0.2,
    )
    min_valid: float = param(0.3, "A smaller share of valid depth in the crop is DEPTH_HOLE", ge=0.0, le=1.0)
    max_age: float = param(0.5, "Older depth images are STALE_IMAGE", unit="s", ge=0.01, le=60.0)
    residual_limit: float = param(
        0.015, "Robot seen farther beside its model than this is CALIBRATION", unit="m", ge=0.001, le=1.0
    )
