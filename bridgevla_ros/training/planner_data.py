"""Rendered scenes for the planner, cached as arrays under runs/."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.planner.grounding import STRIDE
from bridgevla_ros.planner.image import network_image
from bridgevla_ros.planner.language import COLOURS, THINGS
from bridgevla_ros.simulation.config import SimConfig
from bridgevla_ros.simulation.lookalikes import with_lookalike
from bridgevla_ros.simulation.robot import HOME, JOINT_NAMES
from bridgevla_ros.simulation.scene import CameraSpec, SceneSpec
from bridgevla_ros.simulation.suites import randomise
from bridgevla_ros.simulation.tasks import sample_scene
from bridgevla_ros.simulation.world import World

MAX_OBJECTS = 12
MIN_PIXELS = 12
"""Fewest pixels of the network's input that make a thing askable: less is neither there nor absent."""

TRAIN_SEED = 100_000
VALIDATION_SEED = 900_000
"""First scene seeds; the evaluation suites use 1000.. and 5000.. (grounding)."""

_COLOUR = {c.name: i + 1 for i, c in enumerate(COLOURS)}
_THING = {t.name: i + 1 for i, t in enumerate(THINGS)}


@dataclass(frozen=True)
class Frames:
    """``F`` rendered frames, network sized.

    Attributes:
        rgb: (F, H, W, 3) uint8.
        heights: (F, H, W) uint8, as ``planner.image`` stores them.
        owner: (F, H/4, W/4) uint8, object of each cell's centre, 1-based; 0 none.
        colours, things: (F, MAX_OBJECTS) uint8 classes; 0 where there is no object.
        pixels: (F, MAX_OBJECTS) int32, visible pixels of the network's input.
        anchors: (F, MAX_OBJECTS, 2) float32, row and column, in cells, of the middle of a drawer's open
            part; NaN for the rest, whose anchor is the middle of what is seen of them.
    """

    rgb: NDArray[np.uint8]
    heights: NDArray[np.uint8]
    owner: NDArray[np.uint8]
    colours: NDArray[np.uint8]
    things: NDArray[np.uint8]
    pixels: NDArray[np.int32]
    anchors: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rgb)

    @classmethod
    def concatenate(cls, parts: list[Frames]) -> Frames:
        """All frames of the parts, in order."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(cls)))

    def without(self, pairs: tuple[tuple[int, int], ...]) -> Frames:
        """Frames in which no thing has one of these (colour, thing) classes."""
        keep = np.ones(len(self), bool)
        for colour, thing in pairs:
            keep &= ~((self.colours == colour) & (self.things == thing)).any(1)
        return Frames(**{f.name: getattr(self, f.name)[keep] for f in dataclasses.fields(self)})

    def save(self, path: Path) -> None:
        """Write as npz, atomically."""
        part = path.with_suffix(".part.npz")
        np.savez(part, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)})
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Frames:
        """Read what ``save`` wrote."""
        with np.load(path) as data:
            return cls(**{f.name: data[f.name] for f in dataclasses.fields(cls)})


def vary(scene: SceneSpec, rng: np.random.Generator) -> SceneSpec:
    """The scene under another camera, of wider spread than the simulator's own jitter.

    The spread (centimetres and degrees about the same view) is our choice.
    """
    spread = rng.normal(0.0, 1.0, 8)
    position = (1.14 + 0.05 * spread[0], 0.10 * spread[1], 0.66 + 0.05 * spread[2])
    target = (0.50 + 0.02 * spread[3], 0.03 * spread[4], 0.02 + 0.01 * spread[5])
    camera = CameraSpec.look_at(
        (float(position[0]), float(position[1]), float(position[2])),
        (float(target[0]), float(target[1]), float(target[2])),
        fovy=float(42.0 + 1.5 * np.clip(spread[6], -2, 2)),
        roll=float(np.radians(2.5) * spread[7]),
    )
    return dataclasses.replace(scene, camera=camera)


def draw_scene(seed: int, rng: np.random.Generator, cluttered: bool) -> SceneSpec:
    """A scene to train on; a cluttered one has up to eight movable things, half of them lookalikes."""
    if not cluttered:
        scene = sample_scene(seed, objects=(2, 6), places=(1, 3), drawer_share=0.25)
        return vary(scene, rng) if rng.random() < 0.6 else scene
    scene = sample_scene(seed, objects=(1, 8), places=(1, 2), drawer_share=0.25)
    if rng.random() < 0.5:
        scene = with_lookalike(scene, rng) or scene
    return randomise(scene, rng, physics=False, camera=False, start=False)


def move_camera(world: World, rng: np.random.Generator, wide: bool = False) -> None:
    """Look from elsewhere, without compiling the scene again; ``wide``: from anywhere before the table."""
    if wide:
        world.scene = randomise(world.scene, rng, physics=False, light=False, start=False)
    else:
        world.scene = vary(world.scene, rng)
    camera = world.model.camera("camera")
    pose = world.scene.camera.pose
    x, y, z, w = Rotation.from_matrix(pose.rotation @ np.diag([1.0, -1.0, -1.0])).as_quat()
    camera.pos[:], camera.quat[:], camera.fovy[:] = pose.translation, (w, x, y, z), world.scene.camera.fovy


def pose_arm(world: World, arm: ArmModel, rng: np.random.Generator) -> None:
    """Put the gripper over the table, without asking what it would touch: only its looks matter."""
    position = np.array([rng.uniform(0.30, 0.68), rng.uniform(-0.32, 0.32), rng.uniform(0.06, 0.42)])
    tilt, yaw = rng.normal(0.0, 0.12, 2), rng.uniform(-np.pi / 2, np.pi / 2)
    down = Rotation.from_euler("xyz", [np.pi + tilt[0], tilt[1], yaw]).as_matrix()
    joints = arm.ik(Transform(position, down), HOME, tolerance=(0.02, 0.1)).q
    for name, angle in zip(JOINT_NAMES, joints, strict=True):
        world.data.qpos[world.model.joint(name).qposadr[0]] = angle
    mujoco.mj_forward(world.model, world.data)


def shuffle_objects(world: World, rng: np.random.Generator) -> None:
    """Lift, tip and drop some movable things elsewhere, also into places: what a second look sees."""
    for thing in world.scene.objects:
        if not thing.movable or rng.random() > 0.35:
            continue
        joint = int(world.model.body(thing.name).jntadr[0])
        address = int(world.model.jnt_qposadr[joint])
        if rng.random() < 0.4:
            place = world.scene.objects[int(rng.integers(len(world.scene.objects)))]
            at = world.object_pose(place.name).translation + np.array([*rng.uniform(-0.02, 0.02, 2), 0.09])
        else:
            at = np.array([rng.uniform(0.32, 0.68), rng.uniform(-0.3, 0.3), rng.uniform(0.02, 0.25)])
        x, y, z, w = Rotation.from_euler(
            "zyx", [rng.uniform(-3, 3), rng.normal(0, 0.4), rng.normal(0, 0.4)]
        ).as_quat()
        world.data.qpos[address : address + 7] = [*at, w, x, y, z]
    mujoco.mj_step(world.model, world.data, int(rng.integers(1, 120)))
    mujoco.mj_forward(world.model, world.data)


def drawer_anchors(world: World, height: int, width: int) -> NDArray[np.float32]:
    """(MAX_OBJECTS, 2) row and column in cells of the middle of each drawer's open part; NaN for the rest."""
    anchors = np.full((MAX_OBJECTS, 2), np.nan, np.float32)
    k = world.intrinsics
    T_camera_base = world.T_base_camera.inverse()
    for i, thing in enumerate(world.scene.objects[:MAX_OBJECTS]):
        if thing.kind != "drawer":
            continue
        opening = world.drawer_opening(thing.name)
        middle = world.object_pose(thing.name).apply(
            [thing.size[0] / 2 + opening / 2, 0.0, thing.size[2] / 3]
        )
        x, y, z = T_camera_base.apply(middle)
        row, column = (k.fy * y / z + k.cy + 0.5) / k.height, (k.fx * x / z + k.cx + 0.5) / k.width
        anchors[i] = row * height / STRIDE - 0.5, column * width / STRIDE - 0.5
    return anchors


def render(
    first_seed: int,
    scenes: int,
    shots: int,
    height: int,
    width: int,
    config: SimConfig | None = None,
    cluttered: bool = False,
) -> Frames:
    """Draw scenes and expose each ``shots`` times: first as drawn with the arm at home,
    then with camera and objects moved, every other time with the gripper over the table.

    Args:
        first_seed: Seeds are consecutive.
        scenes: How many.
        shots: Frames a scene.
        height, width: Of the network's input.
        config: Of the simulated sensors.
        cluttered: See ``draw_scene``; half of the later shots are then seen from a camera far off.
    """
    out: dict[str, list[NDArray[np.generic]]] = {f.name: [] for f in dataclasses.fields(Frames)}
    world: World | None = None
    arm = ArmModel.load()
    for seed in range(first_seed, first_seed + scenes):
        rng = np.random.default_rng([seed, 0xDA7A])
        scene = draw_scene(seed, rng, cluttered)
        if world is None:
            world = World(config, scene)
        else:
            world.load(scene)
        for shot in range(shots):
            if shot >= 1:
                move_camera(world, rng, wide=cluttered and rng.random() < 0.5)
                shuffle_objects(world, rng)
            if shot % 2 == 1:
                pose_arm(world, arm, rng)
            frame, segmentation = world.render(), world.render_segmentation()
            rgb, heights = network_image(frame, world.T_base_camera, height, width)
            rows = (np.arange(height // STRIDE) + 0.5) * STRIDE * segmentation.shape[0] / height
            columns = (np.arange(width // STRIDE) + 0.5) * STRIDE * segmentation.shape[1] / width
            owner = np.maximum(segmentation[rows.astype(int)][:, columns.astype(int)], 0)
            counts = np.bincount(np.maximum(segmentation, 0).ravel(), minlength=MAX_OBJECTS + 1)[
                1 : MAX_OBJECTS + 1
            ]
            names = scene.objects[:MAX_OBJECTS]
            padding = [0] * (MAX_OBJECTS - len(names))
            out["rgb"].append(rgb)
            out["heights"].append(heights)
            out["owner"].append(owner.astype(np.uint8))
            out["colours"].append(np.array([_COLOUR[o.colour] for o in names] + padding, np.uint8))
            out["things"].append(np.array([_THING[o.kind] for o in names] + padding, np.uint8))
            out["anchors"].append(drawer_anchors(world, height, width))
            out["pixels"].append((counts * (height * width) / segmentation.size).astype(np.int32))
    if world is not None:
        world.close()
    return Frames(**{k: np.stack(v) for k, v in out.items()})
