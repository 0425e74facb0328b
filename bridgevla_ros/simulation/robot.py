"""Panda with a Robotiq 2F-85 as a MuJoCo model that steps and renders cheaply.

The kinematics, inertias and meshes come from the ``gym-hil`` wheel (Apache-2.0), found without importing
it. Its torque motors are replaced by position servos with gravity compensation, and its 270k mesh
triangles by clustered ones: software rendering time is proportional to them.
"""

from __future__ import annotations

import functools
import importlib.util
from collections import defaultdict
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from bridgevla_ros.core.transforms import Array

JOINT_NAMES = tuple(f"joint{i}" for i in range(1, 8))
HOME: Array = np.array([0.0, -0.5, 0.0, -2.3, 0.0, 1.8, np.pi / 4])
"""(7,) rad, that of config/robots/panda_2f85.yaml: TCP at (0.40, 0, 0.39) m looking straight down."""

TCP_SITE = "tcp"
TCP_OFFSET = 0.142
"""Metres from the gripper's base to the TCP, as in config/robots/panda_2f85.urdf."""
GRIPPER_ROOT = "base_mount"

SERVO_KP: Array = np.array([9000.0, 9000.0, 7000.0, 7000.0, 4000.0, 4000.0, 2500.0])
"""(7,) N m/rad. With velocity feed-forward 1 to 2 mrad of lag are left at 1 rad/s (measured)."""
SERVO_KV: Array = np.array([420.0, 420.0, 300.0, 300.0, 90.0, 90.0, 45.0])
"""(7,) N m s/rad, near critical damping for the arm's inertias."""
SERVO_FORCE: Array = np.array([87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0])
"""(7,) N m, the Panda's data sheet."""

LINKAGE = tuple(
    f"{side}_{part}_joint" for side in ("right", "left") for part in ("coupler", "spring_link", "follower")
)
LINKAGE_ARMATURE = 0.01
"""kg m2 added to each joint of the fingers' linkage.

The source gives these none, its driven joint 0.005: parts of a few grams, which in 72 of 120 rough grasps
whirled at over 20 rad/s, until in one lift of a lid in some fifty physics was no longer finite. With 0.005 it
is 4 of 120, with this 2, of another 120 none (measured; the value is our choice).
"""

GRIPPER_ANGLE: Array = np.array([0.0, 0.1025, 0.2024, 0.3023, 0.4022, 0.5021, 0.6020, 0.7019, 0.7970])
GRIPPER_WIDTH: Array = np.array([0.0854, 0.0758, 0.0657, 0.0552, 0.0441, 0.0328, 0.0212, 0.0095, 0.0])
"""Driver angle (rad) against distance between the pad faces (m), measured on this model unloaded.
The pads lean by up to 3.5 degrees as they close, so that they touch at 2 mm."""
GRIPPER_MAX_WIDTH = 0.085

_CLUSTER_ARM = 0.007
_CLUSTER_GRIPPER = 0.0025


def assets() -> Path:
    """Folder of gym-hil's MuJoCo files.

    Raises:
        FileNotFoundError: The wheel is not installed.
    """
    found = importlib.util.find_spec("gym_hil")
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError(
            "the robot model ships in the gym-hil package, which is missing: pip install --no-deps gym-hil"
        )
    return Path(found.submodule_search_locations[0]) / "assets"


def width_from_angle(angle: float) -> float:
    """Metres between the pads for a driver angle in rad."""
    return float(np.interp(angle, GRIPPER_ANGLE, GRIPPER_WIDTH))


def angle_from_width(width: float) -> float:
    """Driver angle in rad for metres between the pads."""
    return float(np.interp(width, GRIPPER_WIDTH[::-1], GRIPPER_ANGLE[::-1]))


@functools.cache
def _simplified() -> tuple[dict[str, list[tuple[Array, NDArray[np.int32], Any]]], dict[str, list[Array]]]:
    """Clustered visual meshes and convex collision hulls of each body, in the body's frame."""
    spec = mujoco.MjSpec.from_file(str(assets() / "panda.xml"))
    owners: list[tuple[str, str]] = []
    for body in spec.bodies:
        for i, geom in enumerate(body.geoms):
            if geom.type == mujoco.mjtGeom.mjGEOM_MESH:
                geom.name = f"{body.name}:{i}"
                owners.append((body.name, geom.name))
    model = spec.compile()
    soup: dict[tuple[str, tuple[float, ...]], list[tuple[Array, NDArray[np.int32]]]] = defaultdict(list)
    hulls: dict[str, list[Array]] = defaultdict(list)
    for body_name, geom_name in owners:
        geom = model.geom(geom_name)
        mesh = int(geom.dataid[0])
        start, count = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
        rotation = np.zeros(9)
        mujoco.mju_quat2Mat(rotation, geom.quat)
        vertices = model.mesh_vert[start : start + count] @ rotation.reshape(3, 3).T + geom.pos
        if int(geom.group[0]) == 3:
            hulls[body_name].append(_hull(vertices))
            continue
        start, count = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
        rgba = geom.rgba if int(geom.matid[0]) < 0 else model.mat_rgba[int(geom.matid[0])]
        soup[body_name, tuple(float(c) for c in rgba)].append(
            (vertices, np.array(model.mesh_face[start : start + count]))
        )
    visual: dict[str, list[tuple[Array, NDArray[np.int32], Any]]] = defaultdict(list)
    for (body_name, rgba), parts in soup.items():
        cell = _CLUSTER_ARM if body_name.startswith("link") else _CLUSTER_GRIPPER
        offsets = np.cumsum([0] + [len(v) for v, _ in parts[:-1]])
        merged = np.concatenate([v for v, _ in parts])
        faces = np.concatenate([f + o for (_, f), o in zip(parts, offsets, strict=True)])
        vertices, faces = _cluster(merged, faces, cell)
        if len(faces) >= 4:
            visual[body_name].append((vertices, faces, rgba))
    return dict(visual), dict(hulls)


def _cluster(vertices: Array, faces: NDArray[np.int32], cell: float) -> tuple[Array, NDArray[np.int32]]:
    """Merge all vertices of one grid cell into their mean; faces that collapse are dropped."""
    _, index, counts = np.unique(
        np.floor(vertices / cell).astype(np.int64), axis=0, return_inverse=True, return_counts=True
    )
    index = index.reshape(-1)
    merged = np.stack([np.bincount(index, vertices[:, k]) for k in range(3)], 1) / counts[:, None]
    faces = index[faces].astype(np.int32)
    keep = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])
    faces = faces[keep]
    _, first = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
    return merged, faces[np.sort(first)]


def _hull(vertices: Array) -> Array:
    """Corners of the convex hull, thinned to a 3 mm grid."""
    corners = vertices[ConvexHull(vertices).vertices]
    _, first = np.unique(np.round(corners / 0.003), axis=0, return_index=True)
    return np.asarray(corners[np.sort(first)], np.float64)


def robot_spec() -> Any:
    """A fresh ``MjSpec`` of the arm and gripper, base at the origin, ready to receive a scene."""
    visual, hulls = _simplified()
    spec = mujoco.MjSpec.from_file(str(assets() / "panda.xml"))
    for sensor in list(spec.sensors):
        spec.delete(sensor)
    for body in spec.bodies:
        body.gravcomp = 1.0
        for geom in list(body.geoms):
            if geom.type == mujoco.mjtGeom.mjGEOM_MESH:
                spec.delete(geom)
        for camera in list(body.cameras):
            spec.delete(camera)
    for mesh in list(spec.meshes):
        spec.delete(mesh)
    for name, parts in visual.items():
        body = spec.body(name)
        for i, (vertices, faces, rgba) in enumerate(parts):
            spec.add_mesh(name=f"{name}_v{i}", uservert=vertices.ravel(), userface=faces.ravel())
            body.add_geom(
                type=mujoco.mjtGeom.mjGEOM_MESH, meshname=f"{name}_v{i}", contype=0, conaffinity=0,
                group=2, density=0, rgba=rgba,
            )  # fmt: skip
    for name, corners_list in hulls.items():
        body = spec.body(name)
        for i, corners in enumerate(corners_list):
            faces = ConvexHull(corners).simplices
            spec.add_mesh(
                name=f"{name}_c{i}", uservert=corners.ravel(), userface=_outward(corners, faces).ravel()
            )
            body.add_geom(
                type=mujoco.mjtGeom.mjGEOM_MESH, meshname=f"{name}_c{i}", group=3, density=0, contype=1,
                conaffinity=1,
            )  # fmt: skip
    mount = spec.body(GRIPPER_ROOT)
    mount.explicitinertial = True
    mount.mass, mount.ipos, mount.inertia = 0.1, [0.0, 0.0, 0.005], [4e-5, 4e-5, 6e-5]
    spec.body("base").add_site(name=TCP_SITE, pos=[0.0, 0.0, TCP_OFFSET], group=4)
    for i, name in enumerate(JOINT_NAMES):
        actuator = spec.actuator(f"actuator{i + 1}")
        actuator.set_to_position(kp=float(SERVO_KP[i]), kv=float(SERVO_KV[i]))
        actuator.forcerange = [-SERVO_FORCE[i], SERVO_FORCE[i]]
        actuator.forcelimited = True
        actuator.ctrllimited = False
        lower, upper = spec.joint(name).range
        if not (-3.2 < lower < upper < 3.9 and upper - lower > 3.0):
            raise ValueError(f"{name}: range {lower, upper} rad; was the model loaded in degrees?")
    for name in LINKAGE:
        spec.joint(name).armature = LINKAGE_ARMATURE
    for side in ("left", "right"):
        for i in (1, 2):
            pad = spec.geom(f"{side}_pad{i}")
            pad.friction = [1.1, 0.02, 0.0005]
            pad.condim = 4
            pad.rgba = [0.15, 0.15, 0.15, 1.0]
    return spec


def _outward(vertices: Array, faces: NDArray[np.int32]) -> NDArray[np.int32]:
    """Turn the faces of a convex body outwards."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    inward = np.einsum("ij,ij->i", np.cross(b - a, c - a), a - vertices.mean(0)) < 0
    faces = faces.copy()
    faces[inward] = faces[inward][:, ::-1]
    return faces
