"""One episode of a suite: scene from the seed, instruction in other words, the graph's cores, the judge."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.streamer import Streamer
from bridgevla_ros.core.streamer_config import StreamerConfig
from bridgevla_ros.core.task_machine import TaskConfig, TaskMachine
from bridgevla_ros.core.trajectory import TrajectoryConfig, TrajectoryGenerator
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import RgbdFrame, WaypointPlan
from bridgevla_ros.evaluation import conditions, wording
from bridgevla_ros.evaluation.oracle import OraclePlanner
from bridgevla_ros.evaluation.rollout import EpisodeTrace, FrameFilter, Graph, SubgoalPlanner
from bridgevla_ros.evaluation.spec import EpisodeResult, EpisodeSpec
from bridgevla_ros.evaluation.truth import TruthBackend
from bridgevla_ros.expert.config import ExpertConfig
from bridgevla_ros.expert.policy import make_policy
from bridgevla_ros.perception.config import CropperConfig
from bridgevla_ros.perception.cropper import Cropper
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.planner import Planner
from bridgevla_ros.simulation import suites
from bridgevla_ros.simulation.config import SimConfig
from bridgevla_ros.simulation.judge import judge
from bridgevla_ros.simulation.scene import SceneSpec
from bridgevla_ros.simulation.suites import SuiteTask
from bridgevla_ros.simulation.tasks import sample_scene, task_pairs
from bridgevla_ros.simulation.world import World


@lru_cache(maxsize=1)
def _arm() -> ArmModel:
    return ArmModel.load()


@lru_cache(maxsize=1)
def _embedded() -> Planner:
    return Planner(PlannerConfig(), arm=_arm())


@lru_cache(maxsize=1)
def _world() -> World:
    return World(SimConfig())


STILL = 0.005
"""Metres of TCP travel below which nothing moved (encoders and servo ripple)."""


class PlanNoise:
    """A planner's error: drawn anew for each plan, the same for all waypoints of it.

    Who tries again looks again, so that a miss does not repeat itself for ever.

    Args:
        metres: Standard deviation along each axis of the camera frame.
        degrees: Standard deviation about the vertical.
        rng: Drawn from once a plan.
    """

    def __init__(self, metres: float, degrees: float, rng: np.random.Generator) -> None:
        self.metres, self.degrees, self.rng = metres, degrees, rng

    def draw(self, plan: WaypointPlan) -> tuple[Array, float]:
        """(3,) metres, camera frame, and rad about the vertical: the error of this plan."""
        del plan
        return self.rng.normal(0.0, self.metres, 3), float(np.radians(self.rng.normal(0.0, self.degrees)))

    def __call__(self, plan: WaypointPlan) -> WaypointPlan:
        """The plan, moved and turned by an error of its own."""
        shift_camera, yaw = self.draw(plan)
        T_base_camera = plan.T_base_camera
        turn = Rotation.from_rotvec([0.0, 0.0, yaw]).as_matrix()
        moved = []
        for waypoint in plan.waypoints:
            T_base_tcp = T_base_camera @ waypoint.T_camera_tcp
            turned = Transform(T_base_tcp.translation, turn @ T_base_tcp.rotation)
            T_camera_tcp = T_base_camera.inverse() @ turned
            shifted = Transform(T_camera_tcp.translation + shift_camera, T_camera_tcp.rotation)
            moved.append(dataclasses.replace(waypoint, T_camera_tcp=shifted))
        return dataclasses.replace(plan, waypoints=tuple(moved))


class DepthNoise:
    """Noise on each depth pixel, beside the sensor's own faults."""

    def __init__(self, metres: float, rng: np.random.Generator) -> None:
        self.metres, self.rng = metres, rng

    def __call__(self, frame: RgbdFrame) -> RgbdFrame:
        """The frame with noisy depth."""
        noise = self.rng.normal(0.0, self.metres, frame.depth.shape).astype(np.float32)
        return dataclasses.replace(frame, depth=frame.depth + noise)


def plan_noise(spec: EpisodeSpec) -> PlanNoise | None:
    """The error of an episode's plans; None where guidance is right.

    It and ``depth_noise`` draw from generators of their own: what plans get does not hang on how many images
    were seen.
    """
    if not any(spec.guidance_noise):
        return None
    return PlanNoise(*spec.guidance_noise, np.random.default_rng([spec.seed, spec.variant, 0x401]))


def depth_noise(spec: EpisodeSpec) -> DepthNoise | None:
    """The noise on an episode's depth; None where there is none beside the sensor's faults."""
    if not spec.depth_noise:
        return None
    return DepthNoise(spec.depth_noise, np.random.default_rng([spec.seed, spec.variant, 0x402]))


def black(frame: RgbdFrame) -> RgbdFrame:
    """The lens cap is on: no colour; depth still measures."""
    return dataclasses.replace(frame, rgb=np.zeros_like(frame.rgb))


@dataclass(frozen=True)
class Episode:
    """A task in a scene.

    Attributes:
        task: Steps and goals, truth.
        instruction: What the operator says.
    """

    task: SuiteTask
    instruction: str

    @property
    def source(self) -> str:
        """Name of what the last step handles."""
        return self.task.steps[-1].source

    @property
    def destination(self) -> str:
        """Name of the place of the last step; empty where it has none."""
        return self.task.steps[-1].destination


def draw_episode(spec: EpisodeSpec, world: World) -> Episode:
    """Load the scene of the seed and draw a task in it; variant k names the k-th other source.

    A scene without enough tasks is passed over for the next one of the same seed.
    """
    name = task_name(spec)
    if name:
        scene, task = suites.draw(name, spec.seed)
        world.load(_looked(spec, scene))
        return Episode(task, task.instruction)
    for attempt in itertools.count():
        scene = sample_scene(spec.seed + 1_000_000_000 * attempt)
        rng = np.random.default_rng([spec.seed, attempt, 0xE7])
        by_source: dict[str, list[str]] = {}
        for source, destination in task_pairs(scene):
            by_source.setdefault(source, []).append(destination)
        if len(by_source) <= (1 if spec.suite == "named" else 0):
            continue
        world.load(_looked(spec, scene))
        order = [str(name) for name in rng.permutation(sorted(by_source))]
        source = order[spec.variant]
        destination = str(rng.choice(by_source[source]))
        words = wording.instruct(rng, scene.object(source), scene.object(destination))
        return Episode(suites.pick_and_place(source, destination, words), words)
    raise AssertionError("unreachable")


def task_name(spec: EpisodeSpec) -> str:
    """The task of ``simulation.suites`` that a spec asks for; empty for the suites of pick-and-place."""
    if spec.suite in suites.TASKS:
        return spec.suite
    if spec.suite in ("short", "mid", "long"):
        names = suites.tasks_of(spec.suite)
        return names[spec.seed % len(names)]
    return ""


def _looked(spec: EpisodeSpec, scene: SceneSpec) -> SceneSpec:
    if not spec.look:
        return scene
    return conditions.change_look(scene, spec.look, np.random.default_rng([spec.seed, 0x100C]))


def make_graph(spec: EpisodeSpec, world: World, episode: Episode) -> Graph:
    """The graph's cores for one episode; learned parts are loaded once a process."""
    arm, oracle = _arm(), spec.guidance == "oracle"
    world.grainy = not oracle
    planner: SubgoalPlanner
    if oracle:
        planner = OraclePlanner(world, episode.task)
    elif spec.planner == "truth":
        planner = Planner(
            PlannerConfig(semantic_limit=0.0),  # the truth needs no second opinion
            backend=TruthBackend(world, episode.source, episode.destination),
            arm=arm,
        )
    else:
        planner = _embedded()
    noisy = depth_noise(spec)
    filters: list[FrameFilter] = [noisy] if noisy is not None else []
    poor = conditions.frame_filter(
        spec.depth_keep, spec.depth_scale, np.random.default_rng([spec.seed, 0xDE]), spec.seed
    )
    filters += [poor] if poor is not None else []
    filters += [black] if spec.suite == "black" else []
    return Graph(
        world,
        arm,
        planner,
        Cropper(CropperConfig(), arm),
        TrajectoryGenerator(TrajectoryConfig()),
        make_policy(ExpertConfig(policy=spec.policy, weights=spec.weights), arm),
        Streamer(StreamerConfig(), arm),
        TaskMachine(TaskConfig(done_by="gripper" if oracle else "depth"), seed=spec.seed),
        frame_filter=(lambda frame: functools.reduce(lambda f, change: change(f), filters, frame))
        if filters
        else None,
        plan_filter=plan_noise(spec),
        blind=oracle and spec.policy == "ik" and not filters,
        seed=spec.seed,
    )


def run_episode(spec: EpisodeSpec) -> EpisodeResult:
    """Run one episode and judge it by the simulator's truth."""
    world = _world()
    episode = draw_episode(spec, world)
    trace = make_graph(spec, world, episode).run(episode.instruction)
    return judge_episode(spec, world, episode, trace)


def judge_episode(spec: EpisodeSpec, world: World, episode: Episode, trace: EpisodeTrace) -> EpisodeResult:
    """Compare what happened with what was asked."""
    outcome = judge(world, episode.task.goals, episode.instruction)
    status = trace.final
    assert status is not None
    named = {name for step in episode.task.steps for name in (step.source, step.destination)}
    others = [name for name in outcome.moved if name not in named]
    cause = ""
    if spec.suite == "black":
        travelled = max(float(np.linalg.norm(p - trace.tcp_path[0])) for p in trace.tcp_path)
        success = travelled < STILL and not outcome.moved
        cause = "" if success else "MOVED"
    elif spec.suite == "named":
        success = episode.source in outcome.moved and not others
    else:
        success = outcome.done
    if not success and not cause:
        if status.code is not ErrorCode.NONE:
            cause = status.code.name
        elif others and episode.source not in outcome.moved:
            cause = "WRONG_OBJECT"
        else:
            cause = "NOT_AT_PLACE" if outcome.moved else "NOTHING_MOVED"
    return EpisodeResult(
        suite=spec.suite,
        seed=spec.seed,
        variant=spec.variant,
        policy=spec.policy,
        planner=spec.planner,
        instruction=episode.instruction,
        source=episode.source,
        destination=episode.destination,
        success=success,
        cause=cause,
        code=status.code.name,
        message=status.message,
        moved=outcome.moved,
        relations=outcome.relations,
        plans=len(trace.plans),
        sim_seconds=round(trace.sim_seconds, 3),
        wall_seconds=round(trace.wall_seconds, 3),
        task=episode.task.name,
    )
