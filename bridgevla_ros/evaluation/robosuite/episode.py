"""One episode of a robosuite task: the graph's cores around robosuite's scene, judged by its own check."""

from __future__ import annotations

import atexit
import dataclasses
from functools import lru_cache
from typing import Any

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.streamer import Streamer
from bridgevla_ros.core.streamer_config import StreamerConfig
from bridgevla_ros.core.task_machine import TaskConfig, TaskMachine
from bridgevla_ros.core.trajectory import TrajectoryConfig, TrajectoryGenerator
from bridgevla_ros.evaluation.episode import depth_noise, plan_noise
from bridgevla_ros.evaluation.robosuite.client import ROBOT, RobosuiteCell, Server, interpreter
from bridgevla_ros.evaluation.robosuite.oracle import OraclePlanner
from bridgevla_ros.evaluation.robosuite.tasks import TASKS, TaskSetup, setup_of
from bridgevla_ros.evaluation.rollout import EpisodeTrace, Graph, SubgoalPlanner
from bridgevla_ros.evaluation.spec import EpisodeResult, EpisodeSpec
from bridgevla_ros.expert.config import ExpertConfig
from bridgevla_ros.expert.policy import make_policy
from bridgevla_ros.perception.config import CropperConfig
from bridgevla_ros.perception.cropper import Cropper
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.planner import Planner

SUITE = "robosuite"
NAMES = tuple(TASKS)


def specs(seed: int, episodes: int, task: str = "", **settings: Any) -> list[EpisodeSpec]:
    """Episodes of one task, or of all five on the same seeds; the variant is the task's place in ``NAMES``.

    Raises:
        BridgeError: BAD_INPUT, there is no such task, robosuite's environment has not been set up, or the
            planner is to be told robosuite's truth.
    """
    if settings.get("planner") == "truth" and settings.get("guidance") != "oracle":
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            "robosuite tells the planner no anchors",
            remedy="Use --guidance oracle for the demonstrator's waypoints, or --planner embedded.",
        )
    interpreter()
    chosen = [setup_of(task).name] if task else list(NAMES)
    return [
        EpisodeSpec(SUITE, seed + i, NAMES.index(name), **settings)
        for i in range(episodes)
        for name in chosen
    ]


@lru_cache(maxsize=1)
def _arm() -> ArmModel:
    return ArmModel.load(ROBOT)


@lru_cache(maxsize=1)
def _server() -> Server:
    server = Server(interpreter())
    atexit.register(server.close)
    return server


def new_cell(*, depth_noise: float = 1.0) -> RobosuiteCell:
    """A cell in this process's one robosuite process; not two of them at a time.

    Raises:
        BridgeError: BAD_INPUT, robosuite's environment has not been set up.
    """
    return RobosuiteCell(_server(), _arm(), depth_noise=depth_noise)


def planner_config(setup: TaskSetup) -> PlannerConfig:
    """The planner for this arm and table."""
    low, high = setup.workspace
    return PlannerConfig(robot=ROBOT, table_height=setup.table_height, workspace_min=low, workspace_max=high)


@lru_cache(maxsize=1)
def _embedded(task: str) -> Planner:
    return Planner(planner_config(TASKS[task]), arm=_arm())


def make_graph(spec: EpisodeSpec, cell: RobosuiteCell, setup: TaskSetup) -> Graph:
    """The graph's cores for one episode, told where this table stands."""
    arm, (low, high) = _arm(), setup.workspace
    planner: SubgoalPlanner
    if spec.guidance == "oracle":
        planner = OraclePlanner(cell, setup.name, arm)
    else:
        planner = _embedded(setup.name)
    return Graph(
        cell,
        arm,
        planner,
        Cropper(CropperConfig(workspace_min=low, workspace_max=high, support_height=setup.table_height), arm),
        TrajectoryGenerator(
            TrajectoryConfig(workspace_min=low, workspace_max=high, table_height=setup.table_height)
        ),
        make_policy(ExpertConfig(policy=spec.policy, weights=spec.weights), arm),
        Streamer(
            StreamerConfig(workspace_lower=low, workspace_upper=high, table_height=setup.table_height), arm
        ),
        TaskMachine(TaskConfig(done_by="gripper" if spec.guidance == "oracle" else "depth"), seed=spec.seed),
        plan_filter=plan_noise(spec),
        frame_filter=depth_noise(spec),
        blind=spec.guidance == "oracle" and spec.policy == "ik" and not spec.depth_noise,
        seed=spec.seed,
    )


def run_episode(spec: EpisodeSpec) -> EpisodeResult:
    """Run one episode; success is what robosuite's own check says once all has come to rest.

    Raises:
        BridgeError: robosuite's environment has not been set up, or its process broke off.
    """
    setup = TASKS[NAMES[spec.variant]]
    cell = new_cell()
    cell.reset(setup, spec.seed)
    trace = make_graph(spec, cell, setup).run(setup.instruction)
    return judge_episode(spec, setup, cell, trace)


def judge_episode(
    spec: EpisodeSpec, setup: TaskSetup, cell: RobosuiteCell, trace: EpisodeTrace
) -> EpisodeResult:
    """Ask robosuite; say what went wrong."""
    status = trace.final
    assert status is not None
    success, cause = cell.judge(), ""
    if not success:
        cause = status.code.name if status.code is not ErrorCode.NONE else "NOT_DONE"
        if cell.ever:
            cause = "UNDONE"
    result = EpisodeResult(
        suite=SUITE,
        seed=spec.seed,
        variant=spec.variant,
        policy=spec.policy,
        planner=spec.planner,
        instruction=setup.instruction,
        source="",
        destination="",
        success=success,
        cause=cause,
        code=status.code.name,
        message=status.message,
        moved=(),
        relations=(f"tracking error {cell.tracking_error:.4f} rad",),
        plans=len(trace.plans),
        sim_seconds=round(trace.sim_seconds, 3),
        wall_seconds=round(trace.wall_seconds, 3),
    )
    return dataclasses.replace(result, task=setup.name)
