"""What the checks look at."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import CameraIntrinsics, JointState, Keypoint, Waypoint
from bridgevla_ros.planner.grasp import Cloud3d


@dataclass(frozen=True, eq=False)
class Draft:
    """A plan that nobody has heard of yet.

    Attributes:
        waypoints: In order of motion; ``poses_base``: their poses in the base frame.
        anchors: Lifted.
        intrinsics, T_base_camera: Of the frame.
        cloud: What the frame shows, and the plane that things stand on.
        joints: Where the arm was.
        beside: (3,) metres, base frame, how far what lies in the place moves the release (``Release``).
    """

    waypoints: tuple[Waypoint, ...]
    poses_base: tuple[Transform, ...]
    anchors: tuple[Keypoint, ...]
    intrinsics: CameraIntrinsics
    T_base_camera: Transform
    cloud: Cloud3d
    joints: JointState
    beside: Array = field(default_factory=lambda: np.zeros(3))

    @property
    def support(self) -> float:
        """Metres, height of the plane that things stand on, as seen."""
        return self.cloud.support

    def name(self, index: int) -> str:
        """How a waypoint is called in a refusal."""
        return f"waypoint {index} ({self.waypoints[index].kind.name.lower()})"
