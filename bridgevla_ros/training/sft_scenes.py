"""Examples from rendered scenes: the demonstrator's pick-and-place, and things that are not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import RgbdFrame
from bridgevla_ros.evaluation.grounding import absent_pair
from bridgevla_ros.evaluation.truth import TruthBackend
from bridgevla_ros.planner.answers import LocalWaypoint
from bridgevla_ros.planner.language import normalise
from bridgevla_ros.planner.lifting import lift
from bridgevla_ros.planner.parse import MAX_OFFSET
from bridgevla_ros.simulation.config import SimConfig
from bridgevla_ros.simulation.demonstrations import subgoal
from bridgevla_ros.simulation.scene import SceneSpec
from bridgevla_ros.simulation.suites import pick_and_place
from bridgevla_ros.simulation.tasks import Task, sample_scene, sample_task
from bridgevla_ros.simulation.world import World
from bridgevla_ros.training.planner_data import draw_scene
from bridgevla_ros.training.sft_examples import Example, Writer, local_waypoint

FIRST_SEED = 100_000
"""Scenes that the planner is trained on; evaluation and grounding suites have others."""
ABSENT = 0.1
"""Share of scenes in which something is asked for that is not there."""

Draw = Callable[[int, np.random.Generator], SceneSpec]
Choose = Callable[[SceneSpec, np.random.Generator], Task]


def render(
    folder: Path,
    scenes: int,
    first_seed: int = FIRST_SEED,
    *,
    on_scene: Callable[[int], None] = lambda done: None,
    draw: Draw | None = None,
    choose: Choose = sample_task,
    config: SimConfig | None = None,
    absent: float = ABSENT,
) -> int:
    """Draw scenes and write one example each, where truth, seen from the camera, gives one.

    Args:
        folder: Of the examples.
        scenes: How many.
        first_seed: Seeds are consecutive.
        on_scene: Called with the number of scenes done.
        draw: Scene of a seed; by default every other one is cluttered.
        choose: What is asked for in a scene, and in which words.
        config: Of the simulated sensors.
        absent: Share of scenes whose instruction names something that is not there.

    Returns:
        How many examples there are.

    Raises:
        BridgeError: BAD_INPUT: the folder holds examples already.
    """
    writer = Writer(folder)
    world: World | None = None
    for seed in range(first_seed, first_seed + scenes):
        rng = np.random.default_rng([seed, 0x5F7])
        scene = draw(seed, rng) if draw is not None else draw_scene(seed, rng, cluttered=seed % 2 == 1)
        if world is None:
            world = World(config, scene)
        else:
            world.load(scene)
        made = _example(world, rng, f"scene {seed}", absent, choose)
        if made is not None:
            writer.add(*made)
        on_scene(seed - first_seed + 1)
    if world is not None:
        world.close()
    return writer.count


def _example(
    world: World, rng: np.random.Generator, source: str, absent: float, choose: Choose
) -> tuple[Example, NDArray[np.uint8], NDArray[np.uint8]] | None:
    frame, labels = world.render(), world.render_segmentation()
    task = choose(world.scene, rng)
    none = np.zeros(0)
    missing = absent_pair(world.scene, rng) if rng.random() < absent else None
    if missing is not None:
        words = normalise(task.instruction.replace(task.source, missing, 1))
        example = Example(Path(), words, frame.intrinsics, none.reshape(0, 2), (), none, (), source)
        return example, frame.rgb, np.zeros(labels.shape, np.uint8)
    try:
        found = TruthBackend(world, task.source, task.destination).anchors(
            frame, world.T_base_camera, task.instruction, 0
        )
        assert found.destination is not None
        pixels = np.array([found.source.pixel, found.destination.pixel])
        lifted = [lift(frame, world.T_base_camera, p) for p in pixels]
    except BridgeError as error:  # hidden, or its depth fails: the planner would refuse as well
        if error.code not in (ErrorCode.NO_TARGET, ErrorCode.DEPTH_HOLE):
            raise
        return None
    waypoints = _waypoints(world, task.source, task.destination, [x.position for x in lifted])
    mask = np.zeros(labels.shape, np.uint8)
    for i, name in enumerate((task.source, task.destination)):
        mask[labels == [o.name for o in world.scene.objects].index(name) + 1] = i + 1
    example = Example(
        Path(), normalise(task.instruction), frame.intrinsics, pixels, (task.source, task.destination),
        np.array([x.depth for x in lifted]), waypoints, source,
    )  # fmt: skip
    return example, _rgb(frame), mask


def render_task(
    folder: Path,
    words: str,
    kinds: tuple[str, str],
    scenes: int,
    first_seed: int = FIRST_SEED,
    on_scene: Callable[[int], None] = lambda done: None,
) -> int:
    """Examples of one task whose words do not say what to take: the thing and the place of two kinds.

    Args:
        folder: Of the examples.
        words: The instruction, always the same.
        kinds: Of the thing and of the place; each scene has one of either, among others.
        scenes: How many.
        first_seed: Seeds are consecutive.
        on_scene: Called with the number of scenes done.

    Returns:
        How many examples there are.
    """

    def draw(seed: int, rng: np.random.Generator) -> SceneSpec:
        while True:
            scene = sample_scene(int(rng.integers(1 << 40, 1 << 41)))
            if all(sum(o.kind == kind for o in scene.objects) == 1 for kind in kinds):
                return scene

    def choose(scene: SceneSpec, rng: np.random.Generator) -> Task:
        named = [next(o.name for o in scene.objects if o.kind == kind) for kind in kinds]
        return Task(named[0], named[1], words)

    return render(folder, scenes, first_seed, on_scene=on_scene, draw=draw, choose=choose, absent=0.0)


def _rgb(frame: RgbdFrame) -> NDArray[np.uint8]:
    return np.ascontiguousarray(frame.rgb)


def _waypoints(world: World, source: str, destination: str, lifted: list[Array]) -> tuple[LocalWaypoint, ...]:
    """The demonstrator's, each by the nearer anchor on the ground; empty where one would be out of range."""
    out = []
    for stop in subgoal(world, pick_and_place(source, destination), 0).waypoints:
        apart = [float(np.linalg.norm(stop.T_base_tcp.translation[:2] - p[:2])) for p in lifted]
        anchor = int(np.argmin(apart))
        waypoint = local_waypoint(
            stop.T_base_tcp, stop.kind, stop.event, anchor, lifted[anchor], world.T_base_camera
        )
        if np.abs(waypoint.offset).max() > MAX_OFFSET:
            return ()
        out.append(waypoint)
    return tuple(out)
