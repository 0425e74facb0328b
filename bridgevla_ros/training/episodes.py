"""A bank of what the expert's camera sees, rendered from scenes of the simulator.

For each scene: the arm is put along an approach to one object and, with that object between its
fingers, along an approach to one place; every view is rendered with the sensor's faults and goes
through the real ``Cropper`` in order of time, so that clouds have one side, holes, the gripper's
shadow and remembered points with their ages. Truth (which points are the target's, where it stands)
is kept beside the clouds for labels; the clouds hold nothing that a real camera would not give.

The arm is placed, not simulated: 0.5 s a scene instead of the 10 s a task takes. Guidance, its errors
and the state on or off the path are drawn on the fly by ``episodes_sampling``.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import JointState, RgbdFrame
from bridgevla_ros.perception.config import CropperConfig
from bridgevla_ros.perception.cropper import Cropper
from bridgevla_ros.simulation import robot
from bridgevla_ros.simulation.config import SimConfig
from bridgevla_ros.simulation.scene import ObjectSpec
from bridgevla_ros.simulation.tasks import sample_scene
from bridgevla_ros.simulation.world import World

FIRST_SEED = 200_000
"""Scenes of the evaluation suites have seeds below; none of them is trained on."""
BANK_RADIUS = 0.17
"""Metres: 5 cm more than the crop, so that training can shift the centre."""
BANK_POINTS = 1536
DOWN = np.diag([1.0, -1.0, -1.0])
"""TCP orientation at yaw 0: looking straight down."""


@dataclass(frozen=True)
class View:
    """One cloud of the bank.

    Attributes:
        scene_seed: Of the scene.
        phase: "pick" or "place".
        kind, size, yaw: Of the target (object or place), metres, rad.
        base: (3,) metres, base frame: middle of the target's base (of a drawer: of its open part).
        height: Metres of the TCP above the contact in this view.
        held: Metres that the held object reaches below the TCP; 0 in a pick.
        points: (P, 3) float16, metres, relative to ``base``, base frame's axes.
        age: (P,) float16 seconds.
        target: (P,) bool, the point is the target's.
        tcp: (3,) metres relative to ``base``: where the gripper was.
    """

    scene_seed: int
    phase: str
    kind: str
    size: tuple[float, float, float]
    yaw: float
    base: tuple[float, float, float]
    height: float
    held: float
    points: NDArray[np.float16]
    age: NDArray[np.float16]
    target: NDArray[np.bool_]
    tcp: Array


class Studio:
    """Renders views of scenes. One instance serves one thread."""

    def __init__(self, noise: float = 1.0) -> None:
        self._arm = ArmModel.load()
        self._world = World(SimConfig(depth_noise=noise), sample_scene(FIRST_SEED))
        self._cropper = Cropper(
            CropperConfig(points=BANK_POINTS, crop_radius=BANK_RADIUS, min_points=1), self._arm
        )
        self._widths, self._gripper = self._gripper_table()

    def _gripper_table(self) -> tuple[Array, Array]:
        """Positions of the gripper's linkage against its width, measured by closing it once."""
        world = self._world
        names = [
            f"{side}_{part}_joint"
            for side in ("right", "left")
            for part in ("driver", "coupler", "spring_link", "follower")
        ]
        self._names = names
        rows, widths = [], []
        for width in np.linspace(0.085, 0.0, 9):
            world.command_gripper(float(width))
            world.step(1.2)
            rows.append([float(world.data.joint(n).qpos[0]) for n in names])
            widths.append(world.joint_state().gripper_width)
        order = np.argsort(widths)
        return np.array(widths)[order], np.array(rows)[order]

    def _pose(self, q: Array, width: float, held: tuple[ObjectSpec, Transform] | None) -> None:
        data = self._world.data
        for name, value in zip(robot.JOINT_NAMES, q, strict=True):
            data.joint(name).qpos[0] = value
        for i, name in enumerate(self._names):
            data.joint(name).qpos[0] = np.interp(width, self._widths, self._gripper[:, i])
        if held is not None:
            thing, T_tcp_object = held
            T = self._arm.fk(q) @ T_tcp_object
            x, y, z, w = T.quat()
            model = self._world.model
            address = int(model.jnt_qposadr[model.body(thing.name).jntadr[0]])
            data.qpos[address : address + 7] = [*T.translation, w, x, y, z]
        data.qvel[:] = 0.0
        mujoco.mj_forward(self._world.model, data)

    def views(self, seed: int) -> Iterator[View]:
        """All views of one scene; what cannot be reached is left out."""
        rng = np.random.default_rng([seed, 0xE9])
        world = self._world
        world.load(sample_scene(seed))
        self._cropper.reset()
        scene = world.scene
        source = scene.objects[rng.choice([i for i, o in enumerate(scene.objects) if o.movable])]
        place = scene.objects[rng.choice([i for i, o in enumerate(scene.objects) if not o.movable])]
        T_source, T_place = world.object_pose(source.name), world.object_pose(place.name)
        base_place = T_place.translation
        if place.kind == "drawer":  # the part of the tray that stands open is the place
            opening = world.drawer_opening(place.name)
            base_place = T_place.apply([(place.size[0] + opening) / 2, 0.0, 0.0])
            place = dataclasses.replace(place, size=(opening, place.size[1], place.size[2]))
        base_source = T_source.translation
        yaw_source = float(Rotation.from_matrix(T_source.rotation).as_euler("zyx")[0])
        yaw_place = float(Rotation.from_matrix(T_place.rotation).as_euler("zyx")[0])
        yaw = wrap_half(yaw_source + (rng.integers(2) * np.pi / 2 if source.kind == "cube" else 0.0))
        if source.kind in ("ball", "cylinder"):
            yaw = rng.uniform(-np.pi / 2, np.pi / 2)
        grip = source.size[2] / 2 + rng.uniform(-0.2, 0.25) * source.size[2]
        self._clock = 0.0
        q = np.asarray(robot.HOME) + rng.normal(0.0, 0.08, 7)
        contact = base_source + np.array([0.0, 0.0, grip])
        for height in (None, *rng.uniform([0.18, 0.10, 0.05, 0.02, 0.0], [0.30, 0.16, 0.09, 0.045, 0.012])):
            if height is not None:
                q = self._reach(contact, float(height), yaw, q, rng)
            shot = self._shoot(q, 0.085, None, contact, rng)
            if shot is not None:
                yield self._view(seed, "pick", source, yaw_source, base_source, height, 0.0, shot)
        grasped = Transform(np.array([0.0, 0.0, grip]), Rotation.from_euler("z", yaw).as_matrix() @ DOWN)
        T_tcp_object = grasped.inverse() @ Transform(
            np.zeros(3), Rotation.from_euler("z", yaw_source).as_matrix()
        )
        width = float(min(source.size[1] if source.kind == "bar" else source.size[0], 0.084))
        contact = base_place + np.array([0.0, 0.0, grip + rng.uniform(0.005, 0.06)])
        yaw = wrap_half(yaw + rng.uniform(-0.6, 0.6))
        for height in rng.uniform([0.18, 0.09, 0.04, 0.0], [0.28, 0.16, 0.09, 0.03]):
            q = self._reach(contact, float(height), yaw, q, rng)
            shot = self._shoot(q, width, (source, T_tcp_object), contact, rng)
            if shot is not None:
                yield self._view(seed, "place", place, yaw_place, base_place, height, grip, shot)

    def _reach(self, contact: Array, height: float, yaw: float, q: Array, rng: np.random.Generator) -> Array:
        sigma = 0.015 if height > 0.09 else 0.005
        above = contact + np.array([*rng.normal(0.0, sigma, 2), height])
        rotation = Rotation.from_euler("z", yaw + rng.normal(0.0, 0.08)).as_matrix() @ DOWN
        return self._arm.ik(Transform(above, rotation), q, restarts=2).q

    def _shoot(
        self,
        q: Array,
        width: float,
        held: tuple[ObjectSpec, Transform] | None,
        center: Array,
        rng: np.random.Generator,
    ) -> tuple[Any, Array] | None:
        self._pose(q, width, held)
        self._clock += rng.uniform(0.3, 1.2)
        frame = self._world.render()
        frame = RgbdFrame(self._clock, frame.rgb, frame.depth, frame.intrinsics)
        joints = JointState(self._clock, q, np.zeros(7), width)
        cloud, _ = self._cropper.crop(frame, self._world.T_base_camera, joints, center, "bank", self._clock)
        if len(cloud.points_base) == 0:
            return None
        return cloud, self._arm.fk(q).translation

    def _view(
        self, seed: int, phase: str, thing: ObjectSpec, yaw: float, base: Array,
        height: float | None, held: float, shot: tuple[Any, Array],
    ) -> View:  # fmt: skip
        cloud, tcp = shot
        points, first = np.unique(cloud.points_base, axis=0, return_index=True)
        relative = points.astype(np.float64) - base
        return View(
            seed, phase, thing.kind, thing.size, yaw, tuple(float(v) for v in base),  # type: ignore[arg-type]
            float(tcp[2] - base[2]) if height is None else float(height), held,
            relative.astype(np.float16), cloud.age[first].astype(np.float16),
            on_target(relative, thing, yaw), tcp - base,
        )  # fmt: skip


def wrap_half(angle: float) -> float:
    """The same line's angle in -pi/2 .. pi/2: a parallel gripper has no front."""
    return float((angle + np.pi / 2) % np.pi - np.pi / 2)


def on_target(points: Array, thing: ObjectSpec, yaw: float, margin: float = 0.008) -> NDArray[np.bool_]:
    """Which of (P, 3) points, metres relative to the middle of its base, lie on a thing."""
    c, s = np.cos(yaw), np.sin(yaw)
    x, y = c * points[:, 0] + s * points[:, 1], -s * points[:, 0] + c * points[:, 1]
    inside = (points[:, 2] > -margin) & (points[:, 2] < thing.size[2] + margin)
    if thing.kind in ("ball", "cylinder", "bowl", "plate"):
        return np.asarray(inside & (np.hypot(x, y) < thing.size[0] / 2 + margin))
    return np.asarray(
        inside & (np.abs(x) < thing.size[0] / 2 + margin) & (np.abs(y) < thing.size[1] / 2 + margin)
    )


def save_shard(path: Path, views: list[View]) -> None:
    """Write views as one npz: flat arrays and a JSON of the rest; no pickle."""
    rows = [
        {
            f.name: getattr(v, f.name)
            for f in dataclasses.fields(View)
            if f.name not in ("points", "age", "target", "tcp")
        }
        for v in views
    ]
    np.savez_compressed(
        path,
        meta=np.frombuffer(json.dumps(rows).encode(), np.uint8),
        count=np.array([len(v.points) for v in views]),
        points=np.concatenate([v.points for v in views]),
        age=np.concatenate([v.age for v in views]),
        target=np.concatenate([v.target for v in views]),
        tcp=np.array([v.tcp for v in views]),
    )


def load_shard(path: Path) -> list[View]:
    """Inverse of ``save_shard``."""
    with np.load(path, allow_pickle=False) as data:
        rows = json.loads(data["meta"].tobytes())
        ends = np.cumsum(data["count"])
        points, age, target, tcp = data["points"], data["age"], data["target"], data["tcp"]
    out = []
    for row, end, count, where in zip(rows, ends, np.diff(ends, prepend=0), tcp, strict=True):
        part = slice(end - count, end)
        row["size"], row["base"] = tuple(row["size"]), tuple(row["base"])
        out.append(View(**row, points=points[part], age=age[part], target=target[part], tcp=where))
    return out


def generate(folder: Path, first_seed: int, scenes: int, shard: int = 50, report: Any = print) -> None:
    """Render scenes first_seed .. first_seed + scenes - 1 into shards; finished shards are kept.

    Raises:
        ValueError: A seed of the evaluation suites is asked for.
    """
    if first_seed < FIRST_SEED:
        raise ValueError(
            f"scene seed {first_seed} belongs to the evaluation; training starts at {FIRST_SEED}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    studio = Studio()
    start = time.monotonic()
    for begin in range(first_seed, first_seed + scenes, shard):
        path = folder / f"views-{begin}.npz"
        if path.exists():
            continue
        views = [
            v for seed in range(begin, min(begin + shard, first_seed + scenes)) for v in studio.views(seed)
        ]
        partial = path.with_suffix(".part.npz")
        save_shard(partial, views)
        partial.rename(path)
        report(f"{path.name}: {len(views)} views, {time.monotonic() - start:.0f} s")
