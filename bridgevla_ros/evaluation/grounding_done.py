"""Rows of suite ``grounding`` on "done": is a step believed to be done when, and only when, it is?

A scene is planned whole. Then the simulator does to the thing what could have happened, parks the arm where
the plan ends, and the planner judges from its two images. Truth is the simulator's relation of thing and
place; the planner hears nothing of it.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import CHECK, GripperEvent, PlanRequest, WaypointPlan
from bridgevla_ros.evaluation.grounding_families import plain
from bridgevla_ros.evaluation.grounding_rows import Report, Stage
from bridgevla_ros.evaluation.stats import wilson_interval
from bridgevla_ros.planner.backends import Backend
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.planner import Planner
from bridgevla_ros.simulation.judge import relation
from bridgevla_ros.simulation.scene import ObjectSpec, SceneSpec
from bridgevla_ros.simulation.tasks import sample_scene
from bridgevla_ros.simulation.world import World

SETTLE = 1.0
"""Simulated seconds that things get to come to rest."""

HAPPENED = {
    "placed": "the thing is let go over the middle of its place",
    "placed askew": "let go up to 3 cm beside that middle, turned; another thing was pushed by 2 to 4 cm",
    "on the rim": "let go over the place's rim: falls in or out",
    "not moved": "everything stands as it stood",
    "nudged": "the thing was pushed by 5 to 25 mm and turned",
    "dropped beside": "let go 2 to 6 cm beside the place",
    "dropped on the way": "let go 30 to 70% of the way",
    "wrong thing": "another thing of the scene lies in the place",
    "lost": "it is nowhere on the table",
}


@dataclass
class DoneRow:
    """Counts of one thing that happened.

    Attributes:
        done, not_done: Scenes by truth; each by what the planner said.
        misses: The wrong answers.
    """

    done: Counter[str] = field(default_factory=Counter)
    not_done: Counter[str] = field(default_factory=Counter)
    misses: list[dict[str, Any]] = field(default_factory=list)


def happen(
    what: str, scene: SceneSpec, source: int, place: int, plan: WaypointPlan, rng: np.random.Generator
) -> SceneSpec | None:
    """The scene as it stands afterwards, before things fall; None where it cannot be so."""
    thing, where = scene.objects[source], scene.objects[place]
    release = [
        plan.T_base_camera @ w.T_camera_tcp for w in plan.waypoints if w.gripper_event == GripperEvent.OPEN
    ][-1].translation
    home, angle = np.array(thing.position[:2]), rng.uniform(0.0, 2 * np.pi)
    away = np.array([np.cos(angle), np.sin(angle)])
    over = float(release[2]) - 0.02
    others = [i for i, o in enumerate(scene.objects) if o.movable and i != source]
    if what == "placed":
        return _with(scene, {source: _at(thing, release[:2], over, thing.yaw)})
    if what == "placed askew":
        changed = {source: _at(thing, release[:2] + rng.uniform(0.0, 0.03) * away, over, angle)}
        if others:
            i = int(rng.choice(others))
            moved = np.array(scene.objects[i].position[:2]) + rng.uniform(0.02, 0.04) * away
            changed[i] = _at(scene.objects[i], moved, scene.objects[i].position[2], scene.objects[i].yaw)
        return _with(scene, changed)
    if what == "on the rim":
        return _with(scene, {source: _at(thing, release[:2] + where.radius * away, over, angle)})
    if what == "not moved":
        return scene
    if what == "nudged":
        to = home + rng.uniform(0.005, 0.025) * away
        return _with(scene, {source: _at(thing, to, thing.position[2], thing.yaw + rng.uniform(-0.5, 0.5))})
    if what == "dropped beside":
        gap = where.radius + thing.radius + rng.uniform(0.02, 0.06)
        return _with(scene, {source: _at(thing, np.array(where.position[:2]) + gap * away, 0.02, angle)})
    if what == "dropped on the way":
        to = home + rng.uniform(0.3, 0.7) * (release[:2] - home)
        return _with(scene, {source: _at(thing, to, 0.05, angle)})
    if what == "wrong thing":
        if not others:
            return None
        i = int(rng.choice(others))
        return _with(scene, {i: _at(scene.objects[i], release[:2], over, angle)})
    return _with(scene, {source: _at(thing, np.array([-0.6, 1.2]), 0.0, 0.0)})


def _at(thing: ObjectSpec, xy: Array, z: float, yaw: float) -> ObjectSpec:
    return dataclasses.replace(thing, position=(float(xy[0]), float(xy[1]), max(float(z), 0.0)), yaw=yaw)


def _with(scene: SceneSpec, changed: dict[int, ObjectSpec]) -> SceneSpec:
    return dataclasses.replace(scene, objects=tuple(changed.get(i, o) for i, o in enumerate(scene.objects)))


def parked(plan: WaypointPlan, arm: ArmModel) -> tuple[float, ...] | None:
    """(7,) rad, the posture in which a plan ends; None where there is none."""
    found = arm.ik(plan.T_base_camera @ plan.waypoints[-1].T_camera_tcp, arm.home, restarts=4)
    return tuple(float(x) for x in found.q) if found.ok else None


def run_done(backend: Backend, seed: int, episodes: int, report: Report) -> dict[str, Any]:
    """Plan ``episodes`` scenes, let each thing of ``HAPPENED`` happen to them, and ask whether it is done."""
    arm, stage = ArmModel.load(), Stage()
    planner = Planner(PlannerConfig(), backend, arm)
    rows = {what: DoneRow() for what in HAPPENED}
    seconds: list[float] = []
    for episode in range(episodes):
        report("done", episode + 1, episodes)
        rng = np.random.default_rng([seed + episode, 0xD0])
        scene = sample_scene(seed + episode)
        world, frame, _, seen = stage.show(scene)
        question = plain(scene, seen, rng)
        if question is None:
            continue
        source, place = question.source[0], question.place
        request = PlanRequest(frame.stamp, f"task-{episode}", f"r{episode}", question.instruction)
        plan = planner.plan(request, frame, world.T_base_camera, now=frame.stamp)
        posture = parked(plan, arm) if plan.code == ErrorCode.NONE else None
        if posture is None:
            continue
        for what, row in rows.items():
            after = happen(what, scene, source, place, plan, rng)
            if after is None:
                continue
            world.load(dataclasses.replace(after, start=posture))
            world.step(SETTLE)
            shown = world.render()
            begin = time.process_time()
            answer = planner.plan(
                dataclasses.replace(request, attempt=CHECK), shown, world.T_base_camera,
                now=shown.stamp, joints=world.joint_state(),
            )  # fmt: skip
            seconds.append(time.process_time() - begin)
            truth = done(world, scene.objects[source].name, scene.objects[place].name)
            said = answer.message.split(":")[0]
            (row.done if truth else row.not_done)[said] += 1
            if (answer.code == ErrorCode.NONE and not truth) or (
                answer.code == ErrorCode.VERIFY_FAILED and truth
            ):
                row.misses.append(
                    {"seed": seed + episode, "instruction": question.instruction, "answered": answer.message}
                )
    stage.close()
    return summary(rows, seconds)


def done(world: World, source: str, place: str) -> bool:
    """Truth: the thing rests in or on its place."""
    return world.object_speed(source) < 0.05 and relation(world, source, place) is not None


def summary(rows: dict[str, DoneRow], seconds: list[float]) -> dict[str, Any]:
    """Shares of false "done", of false "not done", and of what could not be seen."""
    done, not_done = Counter[str](), Counter[str]()
    for row in rows.values():
        done.update(row.done)
        not_done.update(row.not_done)
    yes, no, unseen = not_done["DONE"], sum(done.values()) - done["DONE"] - done["NOT_SEEN"], done["NOT_SEEN"]
    return {
        "about": 'steps judged from depth before and after; false "done" of those that are not done, '
        'false "not done" of those that are',
        "not_done": sum(not_done.values()),
        "false_done": _share(yes, sum(not_done.values())),
        "not_done_unseen": _share(not_done["NOT_SEEN"], sum(not_done.values())),
        "done": sum(done.values()),
        "false_not_done": _share(no, sum(done.values())),
        "done_unseen": _share(unseen, sum(done.values())),
        "check_cpu_s_median": round(float(np.median(seconds)), 4) if seconds else None,
        "happened": {
            what: {
                "about": HAPPENED[what], "done": dict(row.done), "not_done": dict(row.not_done),
                "misses": row.misses[:10],
            }
            for what, row in rows.items()
        },
    }  # fmt: skip


def _share(count: int, of: int) -> dict[str, Any]:
    return {"count": count, "rate": count / of if of else None, "ci95": list(wilson_interval(count, of))}
