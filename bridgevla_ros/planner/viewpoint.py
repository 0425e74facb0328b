"""Where the viewer looks."""

from __future__ import annotations

import numpy as np

from bridgevla_ros.core.transforms import Transform


def camera_yaw(T_base_camera: Transform) -> float:
    """Heading of the camera's view on the ground, rad about base z.

    When it looks straight down: of its image's top.
    """
    forward = T_base_camera.rotation[:2, 2]
    if float(np.linalg.norm(forward)) < 0.05:
        forward = -T_base_camera.rotation[:2, 1]
    return float(np.arctan2(forward[1], forward[0]))
