"""What stands on the table, as plain data."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import CameraIntrinsics

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.06, 0.06),
    "green": (0.08, 0.52, 0.12),
    "blue": (0.06, 0.16, 0.72),
    "yellow": (0.90, 0.78, 0.06),
    "orange": (0.93, 0.38, 0.02),
    "purple": (0.38, 0.08, 0.55),
    "pink": (0.94, 0.42, 0.62),
    "white": (0.90, 0.90, 0.88),
}
"""Linear reflectances, apart from each other under the lights that ``sample_scene`` draws."""

MOVABLE = ("cube", "ball", "cylinder", "bar")
PLACES = ("bowl", "plate", "box", "drawer")
TOOLS = ("mallet", "paddle")
"""Kinds with a handle, by which they are taken, and a head at its +x end."""
LONG = ("bar", *TOOLS)
"""Kinds that are taken across, anywhere along their handle (``handle_ends``)."""
CARRIED = ("ring", "lid", *TOOLS)
"""Kinds, beside MOVABLE, that can be picked up."""
UNSEEN = ("mark",)
"""Kinds without height: depth does not show them."""

CABINET_WALL = 0.006
"""Metres."""


@dataclass(frozen=True)
class ObjectSpec:
    """One thing on the table.

    Attributes:
        name: Unique in the scene, e.g. "red cube".
        kind: One of MOVABLE or PLACES, or of ``assets.BUILDERS``.
        colour: Key of COLOURS.
        size: Extents x, y, z in its own frame, metres (a drawer: of its cabinet).
        position: Of the middle of its base, metres, base_link; z = 0 is the table.
        yaw: About z, rad. A drawer opens along its own +x.
        mass: kg.
        friction: Sliding, against the table and the fingers.
        opening: Of a drawer, metres pulled out; 0 for the rest.
        handle: Metres across the handle of a tool, or of a drawer's wide one; 0 for the small one.
    """

    name: str
    kind: str
    colour: str
    size: tuple[float, float, float]
    position: tuple[float, float, float]
    yaw: float
    mass: float
    friction: float = 0.8
    opening: float = 0.0
    handle: float = 0.0

    @property
    def movable(self) -> bool:
        """Whether it can be picked."""
        return self.kind in MOVABLE or self.kind in CARRIED

    @property
    def radius(self) -> float:
        """Metres from its axis that it covers on the table (a drawer: see ``footprint``)."""
        if self.kind in ("ball", "cylinder", "bowl", "plate", "ring", "lid", "pot", "mark"):
            return self.size[0] / 2
        if self.kind == "post":
            return self.size[1] / 2
        return math.hypot(self.size[0], self.size[1]) / 2

    @property
    def pose(self) -> Transform:
        """T_base_object of the frame in the middle of its base."""
        return Transform(np.array(self.position), Rotation.from_euler("z", self.yaw).as_matrix())


@dataclass(frozen=True)
class CameraSpec:
    """Where the camera stands: optical frame (x right, y down, z forward) in base_link.

    Attributes:
        position: Metres.
        quat: x, y, z, w.
        fovy: Vertical field of view, degrees.
    """

    position: tuple[float, float, float]
    quat: tuple[float, float, float, float]
    fovy: float = 42.0

    @classmethod
    def look_at(
        cls,
        position: tuple[float, float, float],
        target: tuple[float, float, float],
        fovy: float,
        roll: float = 0.0,
    ) -> CameraSpec:
        """A camera at ``position`` whose axis meets ``target``, rolled by rad about that axis."""
        forward = np.subtract(target, position).astype(float)
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward], axis=1)
        rotation = rotation @ Rotation.from_euler("z", roll).as_matrix()
        x, y, z, w = (float(c) for c in Rotation.from_matrix(rotation).as_quat())
        return cls(position, (x, y, z, w), fovy)

    @property
    def pose(self) -> Transform:
        """T_base_camera."""
        return Transform.from_quat(self.position, self.quat)

    def intrinsics(self, width: int, height: int) -> CameraIntrinsics:
        """Pinhole of an image of that size, pixel centres at whole numbers."""
        focal = height / 2 / math.tan(math.radians(self.fovy) / 2)
        return CameraIntrinsics(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


@dataclass(frozen=True)
class LightSpec:
    """A directional light and the head light's ambient share."""

    direction: tuple[float, float, float] = (-0.3, 0.2, -1.0)
    diffuse: float = 0.55
    ambient: float = 0.40


@dataclass(frozen=True)
class SceneSpec:
    """All that makes a scene.

    Attributes:
        seed: It was drawn from; seeds noise too.
        objects: Movable things and places.
        camera: Of both images.
        light: Lighting.
        table_rgb: Mean colour of the table top.
        table_texture: "flat", "grain" or "checker".
        floor_rgb: Colour of what is not table.
        start: (7,) rad, posture of the arm at time 0; empty for home.
    """

    seed: int
    objects: tuple[ObjectSpec, ...]
    camera: CameraSpec
    light: LightSpec = field(default_factory=LightSpec)
    table_rgb: tuple[float, float, float] = (0.45, 0.42, 0.38)
    table_texture: str = "flat"
    floor_rgb: tuple[float, float, float] = (0.25, 0.27, 0.30)
    start: tuple[float, ...] = ()

    def object(self, name: str) -> ObjectSpec:
        """The object of that name.

        Raises:
            KeyError: With the names there are.
        """
        for thing in self.objects:
            if thing.name == name:
                return thing
        raise KeyError(f"no {name!r} in the scene; there are {[o.name for o in self.objects]}")

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> SceneSpec:
        """From ``to_json``'s text."""
        data: dict[str, Any] = json.loads(text)

        def tuples(values: dict[str, Any]) -> dict[str, Any]:
            return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}

        data["objects"] = tuple(ObjectSpec(**tuples(o)) for o in data["objects"])
        data["camera"] = CameraSpec(**tuples(data["camera"]))
        data["light"] = LightSpec(**tuples(data["light"]))
        return cls(**tuples(data))


def drawer_tray(size: tuple[float, float, float]) -> tuple[float, float, float]:
    """Outer extents of the sliding tray of a drawer whose cabinet has extents ``size``, metres."""
    gap = CABINET_WALL + 0.003
    return size[0] - 0.012, size[1] - 2 * gap, size[2] - 2 * gap - 0.004


def handle_ends(thing: ObjectSpec) -> tuple[float, float]:
    """Metres along the x axis of a thing of LONG, from its middle: where its handle begins and ends.

    A bar is all handle.
    """
    head = thing.size[1] if thing.kind in TOOLS else 0.0
    return -thing.size[0] / 2, thing.size[0] / 2 - head
