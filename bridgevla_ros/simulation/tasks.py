"""Scenes and tasks drawn from a seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bridgevla_ros.simulation.config import SimConfig
from bridgevla_ros.simulation.scene import (
    COLOURS,
    MOVABLE,
    PLACES,
    CameraSpec,
    LightSpec,
    ObjectSpec,
    SceneSpec,
)

X_RANGE = (0.34, 0.66)
Y_RANGE = (-0.28, 0.28)
CLEARANCE = 0.035
"""Metres left between footprints: an open finger is 12 mm thick on each side of the object."""


@dataclass(frozen=True)
class Task:
    """One pick-and-place.

    Attributes:
        source: Name of the object to move.
        destination: Name of the place.
        instruction: Words that ask for it.
    """

    source: str
    destination: str
    instruction: str


def sample_scene(
    seed: int,
    *,
    objects: tuple[int, int] = (2, 5),
    places: tuple[int, int] = (1, 2),
    drawer_share: float = 0.2,
    camera_jitter: bool = True,
) -> SceneSpec:
    """Draw a scene in which every movable object can be picked and every place reached.

    No two things have the same colour and kind, so that colour and kind name each.

    Args:
        seed: The same seed gives the same scene.
        objects: Fewest and most movable objects.
        places: Fewest and most places (bowl, plate, box), beside a drawer.
        drawer_share: Probability of an open drawer at the side.
        camera_jitter: Move the camera by centimetres and degrees.
    """
    for attempt in range(200):
        rng = np.random.default_rng([seed, attempt])
        things = _things(rng, objects, places, drawer_share)
        if things is not None and _pairs(things):
            return dress(seed, things, rng, camera_jitter=camera_jitter)
    raise RuntimeError(f"no scene with {objects} objects and {places} places fits the table (seed {seed})")


def dress(
    seed: int, things: tuple[ObjectSpec, ...], rng: np.random.Generator, *, camera_jitter: bool = True
) -> SceneSpec:
    """A scene of these things under a camera, light and surroundings drawn from ``rng``."""
    return SceneSpec(
        seed=seed,
        objects=things,
        camera=_camera(rng, camera_jitter),
        light=LightSpec(
            (float(rng.uniform(-0.5, 0.3)), float(rng.uniform(-0.5, 0.5)), -1.0),
            float(rng.uniform(0.45, 0.65)),
            float(rng.uniform(0.32, 0.45)),
        ),
        table_rgb=_muted(rng, 0.25, 0.62),
        table_texture=str(rng.choice(["flat", "grain", "checker"], p=[0.4, 0.4, 0.2])),
        floor_rgb=_muted(rng, 0.15, 0.5),
    )


def scene_from_config(config: SimConfig) -> SceneSpec:
    """The scene that a simulator with this configuration shows."""
    return sample_scene(
        config.scene_seed,
        objects=(config.objects_min, max(config.objects_min, config.objects_max)),
        camera_jitter=config.camera_jitter,
    )


_WORDINGS = (
    "put the {source} {preposition} the {destination}",
    "place the {source} {preposition} the {destination}",
    "pick up the {source} and put it {preposition} the {destination}",
    "move the {source} to the {destination}",
)


def sample_task(scene: SceneSpec, rng: np.random.Generator) -> Task:
    """Draw one pick-and-place that the scene allows.

    Raises:
        ValueError: Nothing can be picked or there is no place for it.
    """
    pairs = _pairs(scene.objects)
    if not pairs:
        raise ValueError(f"no pick-and-place among {[o.name for o in scene.objects]}")
    source, destination = pairs[int(rng.integers(len(pairs)))]
    wording = _WORDINGS[int(rng.integers(len(_WORDINGS)))]
    preposition = "on" if destination.kind == "plate" else "in"
    words = wording.format(source=source.name, destination=destination.name, preposition=preposition)
    return Task(source.name, destination.name, words)


def task_pairs(scene: SceneSpec) -> list[tuple[str, str]]:
    """Names of every source with every place that it can lie in."""
    return [(source.name, destination.name) for source, destination in _pairs(scene.objects)]


def has_task(scene: SceneSpec) -> bool:
    """Whether anything can be picked and placed."""
    return bool(_pairs(scene.objects))


def default_task(scene: SceneSpec) -> Task:
    """The task that belongs to a scene: the same scene always gives the same."""
    return sample_task(scene, np.random.default_rng([scene.seed, 0x7A5C]))


def _pairs(things: tuple[ObjectSpec, ...]) -> list[tuple[ObjectSpec, ObjectSpec]]:
    """Every source with every place that it can lie in."""
    return [(s, d) for s in things for d in things if s.movable and d.kind in PLACES and _fits(s, d)]


def _fits(source: ObjectSpec, destination: ObjectSpec) -> bool:
    """Whether it can lie there: a bar needs a plate, or a container longer than itself."""
    if source.kind != "bar" or destination.kind == "plate":
        return True
    if destination.kind == "drawer":
        return False
    return source.size[0] < 0.8 * destination.size[0]


def _muted(rng: np.random.Generator, low: float, high: float) -> tuple[float, float, float]:
    """A greyish or woody colour."""
    level, warm = rng.uniform(low, high), rng.uniform(-0.03, 0.10)
    return float(level + warm / 2), float(level), float(max(level - warm, 0.05))


def _camera(rng: np.random.Generator, jitter: bool) -> CameraSpec:
    spread = rng.uniform(-1.0, 1.0, 7) * (1.0 if jitter else 0.0)
    position = (1.14 + 0.05 * spread[0], 0.10 * spread[1], 0.66 + 0.05 * spread[2])
    target = (0.50 + 0.02 * spread[3], 0.02 * spread[4], 0.02 + 0.02 * spread[5])
    return CameraSpec.look_at(
        (float(position[0]), float(position[1]), float(position[2])),
        (float(target[0]), float(target[1]), float(target[2])),
        fovy=42.0,
        roll=math.radians(2.0) * float(spread[6]),
    )


def object_size(rng: np.random.Generator, kind: str) -> tuple[float, float, float]:
    """Extents of a thing or place of that kind, metres, drawn."""

    def u(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    if kind == "cube":
        side = u(0.036, 0.055)
        return side, side, side
    if kind == "ball":
        diameter = u(0.040, 0.055)
        return diameter, diameter, diameter
    if kind == "cylinder":
        diameter = u(0.036, 0.052)
        return diameter, diameter, u(0.065, 0.095)
    if kind == "bar":
        return u(0.10, 0.14), u(0.026, 0.034), u(0.026, 0.034)
    if kind == "bowl":
        diameter = u(0.135, 0.165)
        return diameter, diameter, u(0.040, 0.052)
    if kind == "plate":
        diameter = u(0.15, 0.19)
        return diameter, diameter, 0.014
    if kind == "box":
        return u(0.13, 0.17), u(0.12, 0.15), u(0.04, 0.06)
    if kind == "drawer":
        return 0.20, 0.17, 0.085
    raise ValueError(f"kind {kind!r}")


_DENSITY = {"cube": 350.0, "ball": 350.0, "cylinder": 350.0, "bar": 350.0}
_PLACE_MASS = {"bowl": 0.35, "plate": 0.35, "box": 0.40, "drawer": 0.30}


def _mass(kind: str, size: tuple[float, float, float]) -> float:
    if kind in _PLACE_MASS:
        return _PLACE_MASS[kind]
    fill = {"cube": 1.0, "bar": 1.0, "ball": math.pi / 6, "cylinder": math.pi / 4}[kind]
    return _DENSITY[kind] * fill * size[0] * size[1] * size[2]


def _things(
    rng: np.random.Generator, objects: tuple[int, int], places: tuple[int, int], drawer_share: float
) -> tuple[ObjectSpec, ...] | None:
    """Things in a random order and place, or None when they do not fit."""
    drawer = bool(rng.random() < drawer_share)
    n_places = int(rng.integers(places[0], places[1] + 1))
    n_objects = int(rng.integers(objects[0], objects[1] + 1))
    kinds = ["drawer"] if drawer else []
    kinds += [str(k) for k in rng.choice(["bowl", "plate", "box"], max(n_places - drawer, 0))]
    kinds += [str(k) for k in rng.choice(MOVABLE, n_objects, p=[0.34, 0.22, 0.26, 0.18])]
    names: set[str] = set()
    discs: list[tuple[float, float, float]] = []
    placed: list[ObjectSpec] = []
    for kind in kinds:
        for _ in range(20):
            colour = str(rng.choice(list(COLOURS)))
            if f"{colour} {kind}" not in names:
                break
        else:
            return None
        names.add(f"{colour} {kind}")
        size = object_size(rng, kind)
        thing = _place(rng, kind, colour, size, discs)
        if thing is None:
            return None
        placed.append(thing)
    order = rng.permutation(len(placed))
    return tuple(placed[i] for i in order)


def _place(
    rng: np.random.Generator,
    kind: str,
    colour: str,
    size: tuple[float, float, float],
    discs: list[tuple[float, float, float]],
) -> ObjectSpec | None:
    """Find room; ``discs`` holds the x, y, radius that are taken and gets the new ones."""
    for _ in range(60):
        if kind == "drawer":
            side = float(rng.choice([-1.0, 1.0]))
            x, y = rng.uniform(0.42, 0.50), side * rng.uniform(0.33, 0.36)
            yaw = -side * math.pi / 2 + rng.uniform(-0.12, 0.12)
            opening = float(rng.uniform(0.10, 0.13))
            reach = size[0] / 2 + opening
            wanted = [
                (x + r * math.cos(yaw), y + r * math.sin(yaw), 0.10)
                for r in np.linspace(0.0, reach - 0.04, 4)
            ]
        else:
            x, y = rng.uniform(*X_RANGE), rng.uniform(*Y_RANGE)
            yaw = rng.uniform(-math.pi, math.pi)
            opening = 0.0
            round_ = kind in ("ball", "cylinder", "bowl", "plate")
            wanted = [(x, y, size[0] / 2 if round_ else math.hypot(size[0], size[1]) / 2)]
        if all(math.hypot(a - p, b - q) > r + s + CLEARANCE for a, b, r in wanted for p, q, s in discs):
            discs.extend(wanted)
            return ObjectSpec(
                f"{colour} {kind}", kind, colour, size, (float(x), float(y), 0.0), float(yaw),
                _mass(kind, size), 0.8, opening,
            )  # fmt: skip
    return None
