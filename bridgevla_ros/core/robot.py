"""What is known of an arm beside its URDF: limits, postures, gripper, the shape of its body."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from bridgevla_ros.core.config import ConfigError, from_mapping, param
from bridgevla_ros.core.transforms import Array


@dataclass(frozen=True)
class RobotConfig:
    """One arm with its gripper, from ``config/robots/<name>.yaml``."""

    name: str = param("", "Name of the robot.")
    urdf: str = param("", "URDF file beside the YAML file.")
    base_frame: str = param("base_link", "Root link; z up, x forward.")
    tcp_frame: str = param("tcp", "Tool centre point: z out of the gripper, y along finger opening.")
    joint_names: tuple[str, ...] = param((), "Arm joints, from the base outwards.")
    gripper_joint: str = param("gripper_width", "Name of the gripper in joint_states; metres between pads.")
    lower: tuple[float, ...] = param((0.0,), "Lower joint limits.", unit="rad", ge=-7.0, le=7.0)
    upper: tuple[float, ...] = param((0.0,), "Upper joint limits.", unit="rad", ge=-7.0, le=7.0)
    velocity_limit: tuple[float, ...] = param((1.0,), "The maker's velocity limits.", unit="rad/s", ge=0.0)
    acceleration_limit: tuple[float, ...] = param(
        (1.0,), "The maker's acceleration limits.", unit="rad/s^2", ge=0.0
    )
    jerk_limit: tuple[float, ...] = param((1.0,), "The maker's jerk limits.", unit="rad/s^3", ge=0.0)
    velocity_scale: float = param(1.0, "Share of the velocity limits that is used.", ge=0.01, le=1.0)
    acceleration_scale: float = param(1.0, "Share of the acceleration limits that is used.", ge=0.01, le=1.0)
    jerk_scale: float = param(1.0, "Share of the jerk limits that is used.", ge=0.01, le=1.0)
    home: tuple[float, ...] = param((0.0,), "Posture to start from, gripper pointing down.", unit="rad")
    null_posture: tuple[float, ...] = param((0.0,), "Posture the redundancy is drawn to.", unit="rad")
    gripper_min_width: float = param(0.0, "Pads closed.", unit="m", ge=0.0, le=0.5)
    gripper_max_width: float = param(0.08, "Pads wide open.", unit="m", ge=0.0, le=0.5)
    capsule_links: tuple[str, ...] = param((), "Link of each body capsule.")
    capsules: tuple[float, ...] = param(
        (0.0,),
        "Body: start x y z, end x y z, radius of each, in its link.",
        unit="m",
        ge=-2.0,
        le=2.0,
    )
    pad_z: tuple[float, ...] = param(
        (0.0,), "Polynomial width -> z of the pads' centre in tcp, highest power first."
    )
    pad_half_length: float = param(0.019, "Half of a pad along the approach.", unit="m", ge=0.0, le=0.2)
    pad_half_width: float = param(0.011, "Half of a pad across the fingers.", unit="m", ge=0.0, le=0.2)
    pad_thickness: float = param(0.0085, "Of a pad along finger opening.", unit="m", ge=0.0, le=0.2)
    finger_capsules: tuple[float, ...] = param(
        (0.0,),
        "Capsules that move with the pad at +y, relative to the centre of its inner face.",
        unit="m",
    )
    linkage_capsules: tuple[float, ...] = param(
        (0.0,),
        "Capsules that swing: start fixed in tcp, end relative to the pad at +y.",
        unit="m",
    )

    def __post_init__(self) -> None:
        n = len(self.joint_names)
        for field in (
            "lower",
            "upper",
            "velocity_limit",
            "acceleration_limit",
            "jerk_limit",
        ):
            if len(getattr(self, field)) != n:
                raise ConfigError(f"{self.name}: {field} has {len(getattr(self, field))} values, joints {n}")
        for field in ("home", "null_posture"):
            posture = getattr(self, field)
            if len(posture) != n or np.any(np.less(posture, self.lower) | np.greater(posture, self.upper)):
                raise ConfigError(f"{self.name}: {field} {posture} is not inside the joint limits")
        if len(self.capsules) != 7 * len(self.capsule_links):
            raise ConfigError(f"{self.name}: capsules needs 7 numbers for each of capsule_links")

    @classmethod
    def load(cls, path: Path) -> RobotConfig:
        """Read a robot's YAML file.

        Raises:
            ConfigError: A field is unknown, of the wrong type or size, or out of range.
        """
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: expected a mapping of robot fields")
        return from_mapping(cls, values, where=str(path))


def capsule_rows(flat: tuple[float, ...]) -> tuple[Array, Array, Array]:
    """Split a flat list into (C, 3) starts, (C, 3) ends and (C,) radii."""
    rows = np.asarray(flat, np.float64).reshape(-1, 7)
    return rows[:, :3], rows[:, 3:6], rows[:, 6]


class GripperShape:
    """Where the fingers are at a given width, in the tcp frame, both sides."""

    def __init__(self, config: RobotConfig) -> None:
        self._config = config
        self._finger = capsule_rows(config.finger_capsules)
        self._linkage = capsule_rows(config.linkage_capsules)
        self.radius = np.tile(np.concatenate([self._finger[2], self._linkage[2]]), 2)
        self._width = float("nan")
        self._start, self._end, self._tips = self._shape(config.gripper_max_width)

    def pad_center(self, width: float) -> Array:
        """(3,) metres, centre of the inner face of the pad at +y."""
        inside = min(max(width, self._config.gripper_min_width), self._config.gripper_max_width)
        return np.array([0.0, inside / 2, np.polyval(self._config.pad_z, inside)])

    def capsules(self, width: float) -> tuple[Array, Array, Array]:
        """(C, 3) starts, (C, 3) ends, (C,) radii of both fingers, metres, tcp frame."""
        self._set(width)
        return self._start, self._end, self.radius

    def tips(self, width: float) -> Array:
        """(8, 3) metres, tcp frame: the outermost corners of both pads, the first to touch a table."""
        self._set(width)
        return self._tips

    def _set(self, width: float) -> None:
        """Keep the shape of the newest width: it seldom changes between calls."""
        if width != self._width:
            self._width = width
            self._start, self._end, self._tips = self._shape(width)

    def _shape(self, width: float) -> tuple[Array, Array, Array]:
        c, pad = self._config, self.pad_center(width)
        start = np.concatenate([self._finger[0] + pad, self._linkage[0]])
        end = np.concatenate([self._finger[1] + pad, self._linkage[1] + pad])
        corners = np.array(
            [
                [x, pad[1] + y, pad[2] + c.pad_half_length]
                for x in (-c.pad_half_width, c.pad_half_width)
                for y in (0.0, c.pad_thickness)
            ]
        )
        return _mirrored(start), _mirrored(end), _mirrored(corners)


def _mirrored(rows: Array) -> Array:
    """(2M, 3): the rows, then the same on the other finger."""
    return np.concatenate([rows, rows * [1.0, -1.0, 1.0]])
