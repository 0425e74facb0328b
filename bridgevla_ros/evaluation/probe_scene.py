"""What the probe does in one scene: reaches as they should be, and with one input changed at a time."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import Guidance
from bridgevla_ros.evaluation import probe_reach as reaching
from bridgevla_ros.evaluation.episode import Episode, PlanNoise, draw_episode
from bridgevla_ros.evaluation.probe_reach import Change, Reached, Scene
from bridgevla_ros.evaluation.spec import EpisodeSpec
from bridgevla_ros.simulation.config import SimConfig
from bridgevla_ros.simulation.suites import pick_and_place
from bridgevla_ros.simulation.tasks import task_pairs
from bridgevla_ros.simulation.world import World

SHIFTS = (0.015, 0.03)
"""Metres by which target and guidance are moved."""
DETOUR = 0.06
"""Metres by which a waypoint in free space is moved."""
TWIN_ERROR = (0.02, 10.0)
"""Metres, degrees: one sigma of the planner-like error that twins are also tried with."""
LOOK_AT_EVERY = 3
"""Every third observation of a reach is asked what each change does to the chunk."""


@dataclass(frozen=True)
class SceneSpecOfProbe:
    """A scene to probe in: plain data."""

    seed: int
    policy: str
    weights: str = ""


def probe_scene(what: SceneSpecOfProbe) -> dict[str, Any]:
    """All reaches of one scene.

    Returns:
        ``skipped`` (why the planner refused, else empty); ``reaches``: name -> a list of
        {shift, answer, closes, code}; ``actions``: name -> metres, a list; ``twins``: name -> the named one
        was taken, a list; ``followed_other``: the arm went where the swapped guidance led, or None.
    """
    world = World(SimConfig())
    try:
        return _probe(what, world)
    finally:
        world.close()


def _spec(what: SceneSpecOfProbe) -> EpisodeSpec:
    return EpisodeSpec("main", what.seed, policy=what.policy, planner="truth", weights=what.weights)


def _probe(what: SceneSpecOfProbe, world: World) -> dict[str, Any]:
    spec = _spec(what)
    foreign = _foreign_points(spec, world)
    episode = draw_episode(spec, world)
    try:
        scene = Scene(spec, world, episode)
        guidance = scene.guidance()
    except BridgeError as error:
        return {"seed": what.seed, "skipped": error.code.name}
    rng = np.random.default_rng([what.seed, 0xC0D])
    angles = rng.uniform(-np.pi, np.pi, 2)
    shifts = [s * np.array([np.cos(a), np.sin(a), 0.0]) for s, a in zip(SHIFTS, angles, strict=True)]
    base = scene.reach(guidance)
    tried = _Reaches(scene, base)
    tried.add("as it is", base, np.zeros(3))
    _targets(scene, guidance, base, shifts, tried)
    displaced = [scene.guidance(reaching.shifted_plan(scene.plan, by)) for by in shifts]
    for by, moved in zip(shifts, displaced, strict=True):
        tried.add("guidance shifted", scene.reach(moved), by)
    by, moved = shifts[1], displaced[1]
    tried.add("guidance shifted, cloud erased", scene.reach(moved, reaching.no_cloud), by)
    if foreign is not None:
        tried.add("guidance shifted, cloud swapped", scene.reach(moved, reaching.other_cloud(foreign)), by)
    tried.add("cloud shifted", scene.reach(guidance, reaching.moved_cloud(by)), by)
    first = base.observations[0]
    still = reaching.other_guidance(reaching.waiting(guidance))
    tried.add("guidance erased", scene.reach(guidance, still), np.zeros(3))
    tried.add("guidance frozen", scene.reach(guidance, reaching.same_progress(first.progress)), np.zeros(3))
    swapped, followed_other = _swapped(spec, scene, tried, episode)
    _free_space(scene, rng, tried)
    changes: dict[str, Change] = {
        "cloud erased": reaching.no_cloud,
        "cloud shifted": reaching.moved_cloud(by),
        "guidance erased": still,
        "guidance shifted": reaching.other_guidance(moved),
        "guidance frozen": reaching.same_progress(first.progress),
    }
    if first.cloud is not None:
        changes["cloud frozen"] = reaching.same_cloud(first.cloud)
    if foreign is not None:
        changes["cloud swapped"] = reaching.other_cloud(foreign)
    if swapped is not None:
        changes["guidance swapped"] = reaching.other_guidance(swapped)
    seen = base.observations[1::LOOK_AT_EVERY]
    actions = {
        name: [reaching.difference(scene.policy, obs, change, what.seed) for obs in seen]
        for name, change in sorted(changes.items())
    }
    return {
        "seed": what.seed,
        "skipped": "",
        "target": scene.target,
        "reaches": tried.made,
        "actions": actions,
        "followed_other": followed_other,
        "twins": _twins(what, world),
    }


class _Reaches:
    """Collects reaches as plain data; answers are against the reach as it is."""

    def __init__(self, scene: Scene, base: Reached) -> None:
        self._scene, self._base = scene, base
        self.made: dict[str, list[dict[str, Any]]] = {}

    def add(self, name: str, reached: Reached, shift: Array, answer: Array | None = None) -> None:
        answer = reached.tcp - self._base.tcp if answer is None else answer
        self.made.setdefault(name, []).append(
            {
                "shift": reaching.plain(shift),
                "answer": reaching.plain(answer),
                "closes": self._scene.closes_on(reached),
                "code": reached.code or self._base.code,
            }
        )


def _targets(scene: Scene, guidance: Guidance, base: Reached, shifts: list[Array], tried: _Reaches) -> None:
    """The target moved, seen; and moved while the cloud is frozen, unseen."""
    for by in shifts:
        scene.shift_target(by)
        tried.add("target shifted", scene.reach(guidance), by)
        if by is shifts[-1] and base.observations[0].cloud is not None:
            frozen = reaching.same_cloud(base.observations[0].cloud)
            tried.add("target shifted, cloud frozen", scene.reach(guidance, frozen), by)
        scene.shift_target(-by)


def _foreign_points(spec: EpisodeSpec, world: World) -> Array | None:
    """(N, 3) metres: a cloud of another scene relative to its own contact."""
    other = dataclasses.replace(spec, seed=spec.seed + 500_000)
    episode = draw_episode(other, world)
    try:
        scene = Scene(other, world, episode)
        guidance = scene.guidance()
    except BridgeError:
        return None
    at = reaching.start_of_reach(guidance)
    index = int(np.abs(guidance.progress - at).argmin())
    T = Transform.from_quat(guidance.position[index], guidance.quat[index])
    q = scene.arm.ik(T, scene.arm.home, restarts=2).q
    events = int(np.sum(guidance.event_progress < at - 1e-9))
    cloud = scene.look(guidance, q, np.zeros(7), (), at, events, 0.1).cloud
    if cloud is None or not len(cloud.points_base):
        return None
    return np.asarray(cloud.points_base - cloud.center_base, np.float64)


def _swapped(
    spec: EpisodeSpec, scene: Scene, tried: _Reaches, episode: Episode
) -> tuple[Guidance | None, bool | None]:
    """Guidance to another thing of the same scene; did the arm go there?"""
    scene.world.reset()  # the arm out of the camera's way
    others = [pair for pair in task_pairs(scene.world.scene) if pair[0] != episode.source]
    for source, destination in others:
        words = f"put the {source} in the {destination}"
        there = Episode(pick_and_place(source, destination, words), words)
        try:
            second = Scene(spec, scene.world, there)
            guidance = second.guidance()
        except BridgeError:
            continue
        reached = second.reach(guidance)
        tried.add("guidance swapped", reached, np.zeros(3))
        return guidance, reaching.nearest(scene.world, (episode.source, source), reached.tcp) == source
    return None, None


def _free_space(scene: Scene, rng: np.random.Generator, tried: _Reaches) -> None:
    """A detour far from any contact, by two ways: does the arm go with it?"""
    plan = scene.plan
    start = scene.guidance().position[0]
    first = (plan.T_base_camera @ plan.waypoints[0].T_camera_tcp).translation
    contact = scene.guidance().contact_position[0]
    middle = (start + first) / 2
    middle[2] = max(middle[2], contact[2] + 0.26)
    along = first - start
    side = np.array([-along[1], along[0], 0.0])
    length = float(np.linalg.norm(side))
    side = side / length if length > 0.02 else np.array([0.0, 1.0, 0.0])
    side = DETOUR * float(rng.choice([-1.0, 1.0])) * side
    ends = []
    for via in (middle - side / 2, middle + side / 2):
        try:
            guidance = scene.guidance(reaching.with_detour(plan, via))
        except BridgeError:
            return
        before = guidance.progress < guidance.contact_progress[0]
        near = np.linalg.norm(guidance.position[before] - via, axis=1)
        until = float(guidance.progress[before][int(near.argmin())])
        reached = scene.reach(guidance, begin=0.0, until=until)
        guided = np.array([np.interp(reached.progress, guidance.progress, c) for c in guidance.position.T])
        ends.append((reached, guided))
    (one, guided_one), (two, guided_two) = ends
    tried.add("detour in free space", two, guided_two - guided_one, two.tcp - one.tcp)


def _twins(what: SceneSpecOfProbe, world: World) -> dict[str, bool]:
    """Two identical things 10 cm apart: is the one taken that guidance was made for?"""
    spec = dataclasses.replace(_spec(what), suite="twins", guidance="oracle")
    episode = draw_episode(spec, world)
    rng = np.random.default_rng([what.seed, 0x72])
    taken: dict[str, bool] = {}
    try:
        scene = Scene(spec, world, episode)
        plans = {"as planned": scene.plan, "off by 2 cm, 10 degrees": PlanNoise(*TWIN_ERROR, rng)(scene.plan)}
        for name, plan in plans.items():
            reached = scene.reach(scene.guidance(plan))
            names = (episode.source, f"other {episode.source}")
            taken[name] = reaching.nearest(world, names, reached.tcp) == episode.source
    except BridgeError:
        return taken
    return taken
