"""The MuJoCo model of a scene."""

from __future__ import annotations

import math
from typing import Any

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from bridgevla_ros.simulation import assets
from bridgevla_ros.simulation.robot import robot_spec
from bridgevla_ros.simulation.scene import CABINET_WALL, CARRIED, COLOURS, ObjectSpec, SceneSpec, drawer_tray

TIMESTEP = 0.0025
"""Seconds: two physics steps make one clock message of 200 Hz, so that 100 Hz timers fire without jitter."""

BOX_WALL = 0.005
"""Metres."""


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
    # Not back to time 0 with the arm stretched out, as if nothing had been: ``World.step`` says so.
    option.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
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
    if thing.kind in CARRIED:
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
