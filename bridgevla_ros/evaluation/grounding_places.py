"""Rows of suite ``grounding`` on places that are not empty, and on places beside things.

A first thing is let go in its place as planned and comes to rest, or it ends beside. Then the planner hears
the same words again, and words for a second thing; what it lets go falls in the simulator. Truth is the
simulator's relation of thing and place, and for spots on the table where things truly stand.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import mujoco
import numpy as np

from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import CHECK, GripperEvent, PlanRequest, WaypointPlan
from bridgevla_ros.evaluation.grounding_done import SETTLE, done, happen
from bridgevla_ros.evaluation.grounding_families import Question, cluttered, ground, said
from bridgevla_ros.evaluation.grounding_rows import Report, Row, Stage
from bridgevla_ros.planner.backends import Backend
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.planner import Planner
from bridgevla_ros.simulation.scene import ObjectSpec, SceneSpec
from bridgevla_ros.simulation.tasks import sample_scene, task_pairs
from bridgevla_ros.simulation.world import World

ABOUT = {
    "second thing": "a thing lies in the place, another is let go as planned: both lie there in the end",
    "second thing done": "what depth says of it then, and of the same thing let go over the place's rim",
    "already there": "the thing lies in its place: said so, nothing moves",
    "not yet there": "it lies beside its place, on the rim, where it was: not called already there",
    "free spot": "next to, left of, ... something, between two: free, on the table, where the words say",
}
"""Rows, with the sentence of the table."""

WAYS = {
    "beside": "next to", "left": "left of", "right": "right of", "behind": "behind", "front": "in front of",
    "between": "between",
}  # fmt: skip
AHEAD = {"left": (0.0, 1.0), "right": (0.0, -1.0), "behind": (1.0, 0.0), "front": (-1.0, 0.0)}

TOLD = np.radians(45.0)
"""Half opening of the cone in which a spot truly is left of, behind, ... something."""

NEAR, FAR = 0.12, 0.20
"""Metres from edge to edge up to which a spot truly is beside something, or left of, ... it."""


def run_places(backend: Backend, seed: int, episodes: int, report: Report) -> dict[str, dict[str, Any]]:
    """Rows by name, as those of ``grounding_rows.run_families``."""
    planner, stage = Planner(PlannerConfig(), backend, ArmModel.load()), Stage()
    rows = {name: Row() for name in ABOUT}
    for episode in range(episodes):
        report("places", episode + 1, episodes)
        rng = np.random.default_rng([seed + episode, 0x2D])
        _filled(planner, stage, rows, seed + episode, rng)
        _spot(planner, stage, rows["free spot"], seed + episode, rng)
    stage.close()
    return {name: row.as_json(ABOUT[name]) for name, row in rows.items()}


def _filled(
    planner: Planner, stage: Stage, rows: dict[str, Row], seed: int, rng: np.random.Generator
) -> None:
    """One scene, in which a first thing comes to lie in its place, and one in which it does not."""
    scene = sample_scene(seed, objects=(3, 5), drawer_share=0.0)
    names, pairs = [o.name for o in scene.objects], task_pairs(scene)
    place = str(rng.choice(sorted({p for _, p in pairs})))
    things = rng.permutation([s for s, p in pairs if p == place])
    if len(things) < 2:
        return
    (first, second), goal = (names.index(t) for t in things[:2]), names.index(place)
    kind = scene.objects[goal].kind
    world, _, _, _ = stage.show(scene)
    plan = _plan(planner, world, _words(scene, first, goal), f"{seed}-first")
    if plan.code != ErrorCode.NONE:
        return
    for what in ("placed askew" if seed % 2 else "placed", str(rng.choice(["on the rim", "dropped beside"]))):
        after = happen(what, scene, first, goal, plan, rng)
        assert after is not None
        kept = {second: scene.objects[second], goal: scene.objects[goal]}
        objects = tuple(kept.get(i, o) for i, o in enumerate(after.objects))
        world.load(dataclasses.replace(after, objects=objects))
        world.step(SETTLE)
        inside = done(world, names[first], names[goal])
        row = rows["already there" if inside else "not yet there"]
        answer = _plan(planner, world, _words(scene, first, goal), f"{seed}-{what}")
        already = answer.code == ErrorCode.NONE and not answer.waypoints
        text = f"{answer.code.name}: {answer.message}" if answer.message else "planned to do it"
        question = Question(_words(scene, first, goal), kind=f"{kind}, {what}")
        row.count(question, seed, already == inside, text, answer.code)
        if inside and what.startswith("placed"):
            _second(planner, world, rows, seed, (first, second, goal))


def _second(
    planner: Planner, world: World, rows: dict[str, Row], seed: int, which: tuple[int, int, int]
) -> None:
    """Plan for a second thing, let it fall where the plan opens the gripper, and look where both end."""
    (first, second, goal), row = which, rows["second thing"]
    scene = world.scene
    names = [o.name for o in scene.objects]
    question = Question(_words(scene, second, goal), kind=scene.objects[goal].kind)
    plan = _plan(planner, world, question.instruction, f"{seed}-second")
    if plan.code != ErrorCode.NONE or not plan.waypoints:
        row.count(question, seed, False, f"{plan.code.name}: {plan.message}", plan.code)
        return
    before, thing, where = world.data.qpos.copy(), scene.objects[second], scene.objects[goal]
    grip, release = _contacts(plan)
    to_rim = np.array([np.cos(seed), np.sin(seed), 0.0]) * where.radius
    for shift in (np.zeros(3), to_rim):
        world.data.qpos[:] = before
        _let_go(world, thing, Transform(release.translation + shift, release.rotation) @ grip.inverse())
        world.step(SETTLE)
        lie = [name for name in (names[first], names[second]) if done(world, name, names[goal])]
        if not shift.any():
            row.count(question, seed, len(lie) == 2, f"planned; in the end there: {lie}", ErrorCode.NONE)
        frame = world.render()
        request = PlanRequest(frame.stamp, f"{seed}-second", "r", question.instruction, attempt=CHECK)
        verdict = planner.plan(request, frame, world.T_base_camera, now=frame.stamp)
        there = names[second] in lie
        question = dataclasses.replace(question, kind="done" if there else "not done")
        right = (verdict.code == ErrorCode.NONE) == there
        rows["second thing done"].count(question, seed, right, verdict.message, verdict.code)


def _words(scene: SceneSpec, thing: int, goal: int) -> str:
    where = scene.objects[goal]
    return f"put the {said(scene.objects[thing])} {'on' if where.kind == 'plate' else 'in'} the {said(where)}"


def _plan(planner: Planner, world: World, words: str, task_id: str) -> WaypointPlan:
    """What the planner answers to the scene as it stands, the arm at home."""
    frame = world.render()
    request = PlanRequest(frame.stamp, task_id, "r", words)
    return planner.plan(request, frame, world.T_base_camera, now=frame.stamp)


def _contacts(plan: WaypointPlan) -> list[Transform]:
    """TCP poses, base frame, where the gripper closes and where it opens."""
    poses = [(w.gripper_event, plan.T_base_camera @ w.T_camera_tcp) for w in plan.waypoints]
    closing = next(i for i, (event, _) in enumerate(poses) if event == GripperEvent.CLOSE)
    return [poses[closing][1], next(p for e, p in poses[closing:] if e == GripperEvent.OPEN)]


def _let_go(world: World, thing: ObjectSpec, T_moved: Transform) -> None:
    """Put a thing, as it was gripped, to where the gripper opens."""
    moved = T_moved @ world.object_pose(thing.name)
    joint = world.model.body(thing.name).jntadr[0]
    at, speed = int(world.model.jnt_qposadr[joint]), int(world.model.jnt_dofadr[joint])
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, moved.rotation.ravel())
    world.data.qpos[at : at + 7] = [*moved.translation, *quat]
    world.data.qvel[speed : speed + 6] = 0.0
    mujoco.mj_forward(world.model, world.data)


# ---- beside things


def _spot(planner: Planner, stage: Stage, row: Row, seed: int, rng: np.random.Generator) -> None:
    """A free spot that a relation tells."""
    scene = cluttered(seed, rng)
    world, _, _, seen = stage.show(scene)
    names = [said(o) for o in scene.objects]
    single = [i for i in seen if names.count(names[i]) == 1]
    things = [i for i in single if scene.objects[i].movable]
    kind = str(rng.choice(list(WAYS)))
    if not things:
        return
    thing = int(rng.choice(things))
    others = [i for i in single if i != thing and scene.objects[i].kind != "drawer"]
    told = [int(i) for i in rng.permutation(others)[: 2 if kind == "between" else 1]]
    if len(told) < (2 if kind == "between" else 1):
        return
    words = f"put the {names[thing]} {WAYS[kind]} {' and '.join(f'the {names[i]}' for i in told)}"
    question = Question(words, (thing,), kind=kind)
    plan = _plan(planner, world, words, f"{seed}-spot")
    if plan.code != ErrorCode.NONE:
        possible = _possible(scene, kind, thing, told)
        if possible or plan.code != ErrorCode.NO_TARGET:
            row.count(question, seed, False, f"{plan.code.name}: {plan.message}", plan.code)
        return
    grip, release = (pose.translation for pose in _contacts(plan))
    why = _fault(scene, kind, thing, told, release - grip * [0.0, 0.0, 1.0])
    row.count(question, seed, not why, why, ErrorCode.NONE)


def _fault(scene: SceneSpec, kind: str, thing: int, told: list[int], release: Array) -> str:
    """What is wrong with where the foot of a thing is let go; empty for nothing."""
    config, xy = PlannerConfig(), release[:2]
    if not (np.array(config.workspace_min[:2]) < xy).all() or not (xy < config.workspace_max[:2]).all():
        return "it is off the table"
    if release[2] > 0.03:
        return f"it is let go {1000 * release[2]:.0f} mm above the table"
    room = _room(scene, thing, xy[None])[0] - _least(scene.objects[thing])
    if room < 0.0:
        return f"what stands there is {-1000 * room:.0f} mm into it"
    return "" if _stands(scene, kind, thing, told, xy[None])[0] else f"it is not {WAYS[kind]}"


def _least(thing: ObjectSpec) -> float:
    """Metres from its middle to its edge where it is nearest."""
    return min(thing.size[:2]) / 2


def _room(scene: SceneSpec, thing: int, spots: Array) -> Array:
    """(N,) metres from spots to the nearest edge of anything else on the table."""
    gaps = [np.full(len(spots), np.inf)]
    for i, other in enumerate(scene.objects):
        if i == thing:
            continue
        offset = spots - np.array(other.position[:2])
        if other.kind in ("cube", "bar", "box"):
            c, s = np.cos(other.yaw), np.sin(other.yaw)
            beyond = np.abs(offset @ np.array([[c, -s], [s, c]])) - np.array(other.size[:2]) / 2
            gaps.append(np.linalg.norm(np.maximum(beyond, 0.0), axis=1) + np.minimum(beyond.max(1), 0.0))
        elif other.kind == "drawer":
            gaps.append(_drawer_room(other, spots))
        else:
            gaps.append(np.linalg.norm(offset, axis=1) - other.radius)
    return np.asarray(np.min(gaps, axis=0))


def _drawer_room(drawer: ObjectSpec, spots: Array) -> Array:
    """(N,) metres from spots to a cabinet with its tray pulled out."""
    c, s = np.cos(drawer.yaw), np.sin(drawer.yaw)
    local = (spots - np.array(drawer.position[:2])) @ np.array([[c, -s], [s, c]])
    local[:, 0] -= drawer.opening / 2
    beyond = np.abs(local) - np.array([drawer.size[0] + drawer.opening, drawer.size[1]]) / 2
    return np.asarray(np.linalg.norm(np.maximum(beyond, 0.0), axis=1) + np.minimum(beyond.max(1), 0.0))


def _stands(scene: SceneSpec, kind: str, thing: int, told: list[int], spots: Array) -> Array:
    """(N,) which spots stand as is said, by truth."""
    mark = dataclasses.replace(scene.objects[thing], position=(0.0, 0.0, 0.0))
    at = np.array([ground(_with_last(scene, mark, xy))[-1] for xy in spots])
    xy, reference = ground(scene), scene.objects[told[0]]
    if kind == "between":
        way = xy[told[1]] - xy[told[0]]
        length = float(np.linalg.norm(way))
        share = (at - xy[told[0]]) @ way / length**2
        off = np.abs((at - xy[told[0]]) @ np.array([-way[1], way[0]])) / length
        return np.asarray((np.abs(share - 0.5) < 0.3) & (off < 0.3 * length))
    offset = at - xy[told[0]]
    distance = np.linalg.norm(offset, axis=1)
    gap = distance - reference.radius - scene.objects[thing].radius
    if kind == "beside":
        return np.asarray(gap < NEAR)
    ahead = offset @ np.array(AHEAD[kind]) / np.maximum(distance, 1e-9)
    return np.asarray((ahead > np.cos(TOLD)) & (gap < FAR))


def _with_last(scene: SceneSpec, thing: ObjectSpec, xy: Array) -> SceneSpec:
    moved = dataclasses.replace(thing, position=(float(xy[0]), float(xy[1]), 0.0))
    return dataclasses.replace(scene, objects=(*scene.objects, moved))


def _possible(scene: SceneSpec, kind: str, thing: int, told: list[int]) -> bool:
    """Whether the whole thing and the opened fingers surely find room somewhere as is said."""
    config = PlannerConfig()
    low, high = np.array(config.workspace_min[:2]) + 0.05, np.array(config.workspace_max[:2]) - 0.05
    spots = np.stack(np.meshgrid(*[np.arange(a, b, 0.02) for a, b in zip(low, high, strict=True)]), -1)
    spots = spots.reshape(-1, 2)
    spots = spots[_room(scene, thing, spots) > scene.objects[thing].radius + 0.05]
    return bool(len(spots)) and bool(_stands(scene, kind, thing, told, spots).any())
