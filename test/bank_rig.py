"""A bank of views of one cube beside another, made by hand."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.types import GripperEvent
from bridgevla_ros.training.data_bank import FIRST_SEED, OTHERS, Bank, from_rows
from bridgevla_ros.training.data_guidance import DOWN


def cube_bank(
    frames: int = 4,
    yaw: float = 0.3,
    period: float = np.pi / 2,
    seed: int = 0,
    band: tuple[float, float] = (0.0, 0.0),
) -> Bank:
    """The surface of a 5 cm cube and of a neighbour 9 cm away, seen around the grasp of the first."""
    rng = np.random.default_rng(seed)
    turned = Rotation.from_euler("z", yaw).as_matrix()
    rows, clouds = [], []
    for i in range(frames):
        contact = np.array([0.5, 0.1 * rng.uniform(-1, 1), 0.03])
        own = rng.uniform(-0.025, 0.025, (160, 3)) @ turned.T + [0.0, 0.0, -0.005]
        other = rng.uniform(-0.02, 0.02, (60, 3)) + np.array([0.09, 0.0, -0.005])
        off = rng.normal(0.0, 0.01, 3)
        others = np.full((OTHERS, 2), np.nan)
        others[0] = contact[:2] + np.array([0.09, 0.0])
        pose = np.concatenate([contact, Rotation.from_matrix(turned @ DOWN).as_quat()])
        rows.append(
            {
                "stamp": 0.2 * i, "camera": [1.1, 0.0, 0.7, 0.0, 0.0, 0.0, 1.0], "joints": np.zeros(7),
                "joint_velocity": np.zeros(7), "tcp": [*contact[:2], 0.11, 0.0, 0.0, 0.0, 1.0],
                "twist": np.zeros(6), "width": 0.085, "center": contact + off, "episode": FIRST_SEED + i,
                "contact": 0, "event": int(GripperEvent.CLOSE), "pose": pose, "yaw_period": period,
                "z_band": [0.02, 0.04], "x_band": band, "others": others, "onward": [0.12, 0.05, 0.0],
            }
        )  # fmt: skip
        points = np.concatenate([own, other]) - off
        clouds.append((points, np.zeros(220), np.arange(220) < 160))
    return from_rows(rows, clouds, ["pick cube"] * frames, {})
