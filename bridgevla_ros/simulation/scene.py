"""What stands on the table, as plain data, and its MuJoCo model."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import CameraIntrinsics
from bridgevla_ros.simulation import assets
from bridgevla_ros.simulation.robot import robot_spec

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

TIMESTEP = 0.0025
"""Seconds: two physics steps make one clock message of 200 Hz, so that 100 Hz timers fire without jitter."""

CABINET_WALL = 0.006
BOX_WALL = 0.005


@dataclass(frozen=True)
class ObjectSpec:
    """One thing on the table.

    Attributes:
        name: Unique in the scene, e.g. "red cube".
        kind: One of MOVABLE or PLACES, or of ``assets``.
        colour: Key of COLOURS.
        size: Extents x, y, z in its own frame, metres (a drawer: of its cabinet).
        position: Of the middle of its base, metres, base_link; z = 0 is the table.
        yaw: About z, rad. A drawer opens along its own +x.
        mass: kg.
        friction: Sliding, against the table and the fingers.
        opening: Of a drawer, metres pulled out; 0 for the rest.
        handle: Of a drawer, metres across a wide handle; 0 for the small one.
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
        return self.kind in MOVABLE or self.kind in assets.CARRIED

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


def build(scene: SceneSpec) -> Any:
    """Compile a scene.

    Bodies are named as the objects (a drawer's sliding part "<name>/tray"), the camera "camera".

    Returns:
        ``mujoco.MjModel``.
    """
    spec = robot_spec()
    option = spec.option
    option.timestep = TIMESTEP
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio = 10.0
    option.noslip_iterations = 3
    spec.visual.quality.offsamples = 0
    spec.visual.quality.shadowsize = 0
    spec.visual.map.znear = 0.01
    spec.visual.map.zfar = 40.0
    spec.visual.headlight.ambient = [scene.light.ambient] * 3
    spec.visual.headlight.diffuse = [0.15] * 3
    spec.visual.headlight.specular = [0.0] * 3
    spec.stat.extent = 1.0
    spec.stat.center = [0.5, 0.0, 0.2]
    world = spec.worldbody
    _surroundings(spec, scene)
    world.add_light(
        pos=[0.5, 0.0, 2.0],
        dir=list(scene.light.direction),
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        diffuse=[scene.light.diffuse] * 3,
        specular=[0.1] * 3,
        castshadow=False,
    )
    camera = scene.camera.pose
    opengl = Rotation.from_matrix(camera.rotation @ np.diag([1.0, -1.0, -1.0])).as_quat()
    world.add_camera(
        name="camera", pos=camera.translation, quat=[opengl[3], *opengl[:3]], fovy=scene.camera.fovy
    )
    for thing in scene.objects:
        _BUILDERS[thing.kind](world, thing)
    return spec.compile()


def _surroundings(spec: Any, scene: SceneSpec) -> None:
    world = spec.worldbody
    table: dict[str, Any] = {"rgba": [*scene.table_rgb, 1.0]}
    if scene.table_texture != "flat":
        rgb = np.array(scene.table_rgb)
        spec.add_texture(
            name="table",
            type=mujoco.mjtTexture.mjTEXTURE_2D,
            builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER
            if scene.table_texture == "checker"
            else mujoco.mjtBuiltin.mjBUILTIN_FLAT,
            rgb1=rgb,
            rgb2=rgb * 0.85,
            mark=mujoco.mjtMark.mjMARK_RANDOM
            if scene.table_texture == "grain"
            else mujoco.mjtMark.mjMARK_NONE,
            random=0.05,
            markrgb=rgb * 0.8,
            width=256,
            height=256,
        )
        material = spec.add_material(name="table", texrepeat=[4, 4], specular=0.0, shininess=0.0)
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "table"
        table = {"material": "table"}
    world.add_geom(
        name="table", type=mujoco.mjtGeom.mjGEOM_BOX, pos=[0.35, 0.0, -0.02], size=[0.75, 0.70, 0.02],
        friction=[0.7, 0.01, 0.0005], **table,
    )  # fmt: skip
    world.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_BOX, pos=[0.0, 0.0, -0.76], size=[3.0, 3.0, 0.01],
        rgba=[*scene.floor_rgb, 1.0], contype=0, conaffinity=0,
    )  # fmt: skip
    world.add_geom(
        name="wall", type=mujoco.mjtGeom.mjGEOM_BOX, pos=[-1.6, 0.0, 0.5], size=[0.01, 3.0, 1.5],
        rgba=[*(0.6 + 0.4 * np.array(scene.floor_rgb)), 1.0], contype=0, conaffinity=0,
    )  # fmt: skip


def _body(world: Any, thing: ObjectSpec) -> Any:
    quat = [math.cos(thing.yaw / 2), 0.0, 0.0, math.sin(thing.yaw / 2)]
    return world.add_body(name=thing.name, pos=list(thing.position), quat=quat)


def _geom(
    body: Any, thing: ObjectSpec, shape: str, size: list[float], shade: float = 1.0, **more: Any
) -> None:
    rgb = np.clip(np.array(COLOURS[thing.colour]) * shade, 0.0, 1.0)
    kinds = {
        "box": mujoco.mjtGeom.mjGEOM_BOX,
        "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
        "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    }
    settings: dict[str, Any] = {
        "rgba": [*rgb, 1.0],
        "condim": 4,
        "friction": [thing.friction, 0.01, 0.001],
        "solref": [0.005, 1.0],
        "solimp": [0.95, 0.99, 0.001, 0.5, 2.0],
    }
    settings.update(more)
    body.add_geom(type=kinds[shape], size=size, **settings)


def _movable(world: Any, thing: ObjectSpec) -> None:
    body = _body(world, thing)
    body.add_freejoint()
    x, y, z = (s / 2 for s in thing.size)
    centre = [0.0, 0.0, z]
    if thing.kind in ("cube", "bar"):
        _geom(body, thing, "box", [x, y, z], pos=centre, mass=thing.mass)
    elif thing.kind == "ball":
        # Rolling friction of a soft ball: without it a touch sends it across the table for ever.
        _geom(
            body, thing, "sphere", [x, 0, 0], pos=centre, mass=thing.mass, condim=6,
            friction=[thing.friction, 0.01, 0.002],
        )  # fmt: skip
    else:
        _geom(body, thing, "cylinder", [x, z, 0], pos=centre, mass=thing.mass)


def _bowl(world: Any, thing: ObjectSpec) -> None:
    """A round floor and a ring of outward leaning staves."""
    body = _body(world, thing)
    body.add_freejoint()
    rim, height, floor = thing.size[0] / 2, thing.size[2], 0.55 * thing.size[0] / 2
    staves, half = 16, 0.003
    _geom(body, thing, "cylinder", [floor, half, 0], pos=[0, 0, half], mass=0.5 * thing.mass, shade=0.85)
    lean = math.atan2(rim - floor, height)
    length = math.hypot(rim - floor, height) / 2
    for i in range(staves):
        angle = 2 * math.pi * i / staves
        quat = (Rotation.from_euler("z", angle) * Rotation.from_euler("y", lean)).as_quat()
        middle = (rim + floor) / 2 - half
        _geom(
            body, thing, "box", [half, 1.05 * rim * math.tan(math.pi / staves), length],
            pos=[middle * math.cos(angle), middle * math.sin(angle), height / 2],
            quat=[quat[3], *quat[:3]], mass=0.5 * thing.mass / staves, shade=0.92 + 0.08 * math.cos(angle),
        )  # fmt: skip


def _plate(world: Any, thing: ObjectSpec) -> None:
    """A disc with a low rim."""
    body = _body(world, thing)
    body.add_freejoint()
    radius, height = thing.size[0] / 2, thing.size[2]
    half, parts = 0.003, 20
    _geom(
        body, thing, "cylinder", [0.8 * radius, half, 0], pos=[0, 0, half], mass=0.7 * thing.mass, shade=0.9
    )
    lean = math.atan2(height, 0.24 * radius)
    length = math.hypot(height - half, 0.24 * radius) / 2
    for i in range(parts):
        angle = 2 * math.pi * i / parts
        quat = (Rotation.from_euler("z", angle) * Rotation.from_euler("y", -lean)).as_quat()
        middle = 0.88 * radius
        _geom(
            body, thing, "box", [length, radius * math.tan(math.pi / parts), half * 0.8],
            pos=[middle * math.cos(angle), middle * math.sin(angle), half + (height - half) / 2],
            quat=[quat[3], *quat[:3]], mass=0.3 * thing.mass / parts,
        )  # fmt: skip


def _walls(body: Any, thing: ObjectSpec, size: tuple[float, float, float], wall: float, mass: float) -> None:
    """Floor and four walls of an open container of outer ``size``, standing on z = 0 of ``body``."""
    x, y, z = (s / 2 for s in size)
    t = wall / 2
    _geom(body, thing, "box", [x, y, t], pos=[0, 0, t], mass=mass * 0.4, shade=0.8)
    for sign in (-1.0, 1.0):
        _geom(body, thing, "box", [t, y, z], pos=[sign * (x - t), 0, z], mass=mass * 0.15)
        _geom(body, thing, "box", [x, t, z], pos=[0, sign * (y - t), z], mass=mass * 0.15, shade=0.9)


def _box(world: Any, thing: ObjectSpec) -> None:
    body = _body(world, thing)
    body.add_freejoint()
    _walls(body, thing, thing.size, BOX_WALL, thing.mass)


def drawer_tray(size: tuple[float, float, float]) -> tuple[float, float, float]:
    """Outer extents of the sliding tray of a drawer whose cabinet has extents ``size``, metres."""
    gap = CABINET_WALL + 0.003
    return size[0] - 0.012, size[1] - 2 * gap, size[2] - 2 * gap - 0.004


def _drawer(world: Any, thing: ObjectSpec) -> None:
    """A fixed cabinet, open at its +x side, and a tray that slides out of it by a handle."""
    body = _body(world, thing)
    x, y, z = (s / 2 for s in thing.size)
    t = CABINET_WALL / 2
    _geom(body, thing, "box", [x, y, t], pos=[0, 0, t], shade=0.6)
    _geom(body, thing, "box", [x, y, t], pos=[0, 0, 2 * z - t], shade=0.75)
    _geom(body, thing, "box", [t, y, z], pos=[-(x - t), 0, z], shade=0.6)
    for sign in (-1.0, 1.0):
        _geom(body, thing, "box", [x, t, z], pos=[0, sign * (y - t), z], shade=0.65)
    tray = body.add_body(name=f"{thing.name}/tray", pos=[0.006, 0.0, CABINET_WALL + 0.003])
    tray.add_joint(
        name=f"{thing.name}/slide", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[1, 0, 0],
        range=[0.0, thing.size[0] - 0.03], limited=True, damping=4.0, frictionloss=1.0,
    )  # fmt: skip
    size = drawer_tray(thing.size)
    _walls(tray, thing, size, BOX_WALL, thing.mass)
    if thing.handle > 0.0:
        assets.handle(tray, thing, _geom, size[0] / 2, size[2] / 2)
        return
    _geom(
        tray,
        thing,
        "box",
        [0.009, 0.022, 0.006],
        pos=[size[0] / 2 + 0.008, 0, size[2] / 2],
        shade=0.45,
        mass=0.02,
    )


def _asset(world: Any, thing: ObjectSpec) -> None:
    body = _body(world, thing)
    if thing.kind in assets.CARRIED:
        body.add_freejoint()
    assets.BUILDERS[thing.kind](body, thing, _geom)


_BUILDERS = {
    "cube": _movable,
    "ball": _movable,
    "cylinder": _movable,
    "bar": _movable,
    "bowl": _bowl,
    "plate": _plate,
    "box": _box,
    "drawer": _drawer,
    **dict.fromkeys(assets.BUILDERS, _asset),
}
