"""Other looks and other depth than the suites': textures, light and camera; sparse and poor depth.

Pure functions of a scene or a frame; what is drawn comes from the generator that is given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import RgbdFrame
from bridgevla_ros.simulation import noise
from bridgevla_ros.simulation.scene import CameraSpec, LightSpec, SceneSpec

LOOKS = {
    "": "as drawn",
    "textures": "table and floor in strong colours, checkered",
    "lighting": "much darker or brighter, from low at the side",
    "camera_angle": "camera 30 degrees round the table, to the left or to the right",
    "camera_distance": "camera 30 cm farther back",
    "camera_beyond": "camera 75 degrees round the table and 60 cm farther back, beyond all training",
    "all": "textures, lighting, camera_angle and camera_distance together",
}
"""Name -> what it changes. The suites' camera stands 0.83 to 0.97 m from the table's middle, within some
10 degrees of straight ahead.

- The expert sees points, no colour: textures and light do not reach it. In half of its training episodes the
  camera stood like the suites', in half anywhere in front (``simulation.suites.randomise``): up to 57 degrees
  to either side, 0.75 to 1.30 m away. camera_angle and camera_distance lie within that; camera_beyond lies
  outside by angle (65 degrees or more) and by distance (1.43 m or more).
- The planner sees colour. The one that ships was trained on muted colours, light from above and a camera that
  strays about the suites' by centimetres (10 cm to the side, one sigma). ``bridgevla train planner`` with its
  12 shards has one frame in eight (``planner_data.render``: half of the later shots of cluttered scenes) from
  a camera anywhere in front, as above.
"""

CAMERAS = {
    "camera_angle": (np.radians(30.0), 0.0),
    "camera_distance": (0.0, 0.30),
    "camera_beyond": (np.radians(75.0), 0.60),
    "all": (np.radians(30.0), 0.30),
}
"""Look -> how far its camera goes round, rad, to either side, and back, metres."""
AIM_HEIGHT = 0.02
"""Metres above the table of the point that the camera goes round."""


def change_look(scene: SceneSpec, look: str, rng: np.random.Generator) -> SceneSpec:
    """The scene under another look; what stands where does not change.

    Raises:
        ValueError: No such look.
    """
    if look not in LOOKS:
        raise ValueError(f"look {look!r}; expected one of {sorted(LOOKS)}")
    # Drawn in one order whatever the look: "all" of a seed is the sum of its parts.
    hues, light, side = rng.random(4), rng.random(3), float(rng.choice([-1.0, 1.0]))
    if look in ("textures", "all"):
        scene = dataclasses.replace(
            scene,
            table_rgb=_strong(float(hues[0]), 0.25 + 0.35 * float(hues[1])),
            floor_rgb=_strong(float(hues[2]), 0.15 + 0.35 * float(hues[3])),
            table_texture="checker",
        )
    if look in ("lighting", "all"):
        dark = bool(light[0] < 0.5)
        low = float(np.radians(360.0 * light[1]))
        scene = dataclasses.replace(
            scene,
            light=LightSpec(
                (float(np.cos(low)), float(np.sin(low)), -0.6),
                0.25 if dark else 0.95,
                0.16 if dark else 0.55,
            ),
        )
    if look in CAMERAS:
        orbit, back = CAMERAS[look]
        scene = dataclasses.replace(scene, camera=move_camera(scene.camera, side * orbit, back))
    return scene


def move_camera(camera: CameraSpec, orbit: float, back: float) -> CameraSpec:
    """The camera turned by ``orbit`` rad about the vertical through what it looks at, then moved back.

    Args:
        camera: Looking down at the table.
        orbit: rad, positive counter-clockwise from above.
        back: Metres along its own axis, away from the table.
    """
    T = camera.pose
    forward = T.rotation[:, 2]
    aim = T.translation + forward * (AIM_HEIGHT - T.translation[2]) / forward[2]
    turn = Rotation.from_rotvec([0.0, 0.0, orbit])
    position = aim + turn.apply(T.translation - aim) - back * turn.apply(forward)
    quat = (turn * Rotation.from_matrix(T.rotation)).as_quat()
    return CameraSpec(_three(position), (*_three(quat[:3]), float(quat[3])), camera.fovy)


def frame_filter(
    depth_keep: float, depth_scale: float, rng: np.random.Generator, seed: int
) -> Callable[[RgbdFrame], RgbdFrame] | None:
    """What makes depth sparse or poor; None where it stays as it is.

    Args:
        depth_keep: Share of the pixels that keep their depth, drawn anew for each frame.
        depth_scale: 1 as ever; k adds the sensor's faults (noise, holes, flying pixels, bias) once more,
            k - 1 times as strong.
        rng: Which pixels.
        seed: Of the further faults, which are others than those of a sensor of this seed.

    Raises:
        ValueError: A share outside 0..1, or a scale below 1.
    """
    if not 0.0 < depth_keep <= 1.0 or not 1.0 <= depth_scale <= 11.0:
        raise ValueError(
            f"depth_keep {depth_keep}, depth_scale {depth_scale}; expected over 0 to 1, and 1 to 11"
        )
    if depth_keep == 1.0 and depth_scale == 1.0:
        return None
    own = np.random.default_rng([seed, 0xADD]).integers(2**62)
    faults = noise.DepthNoise(depth_scale - 1.0, int(own))

    def change(frame: RgbdFrame) -> RgbdFrame:
        depth = faults.apply(frame.depth)
        if depth_keep < 1.0:
            depth[rng.random(depth.shape) >= depth_keep] = np.nan
        return dataclasses.replace(frame, depth=depth)

    return change


def _strong(hue: float, level: float) -> tuple[float, float, float]:
    """A saturated colour of mean ``level``."""
    wheel = 0.5 + 0.5 * np.cos(2.0 * np.pi * (hue + np.array([0.0, 1.0, 2.0]) / 3.0))
    return _three(np.clip(2.0 * level * (0.1 + 0.9 * wheel), 0.0, 1.0))


def _three(values: Array) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in values)
    return x, y, z
