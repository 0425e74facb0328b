"""States of a running expert, labelled by truth (DAgger, Ross et al. 2011).

The expert drives the real graph's cores (``evaluation.rollout``) along oracle guidance with a planner's error
drawn once a plan. Recorded is what it was given at each step: its cloud, its state, its guidance. The label
is the true contact, as in demonstrations. Merged into the bank, these rows are trained on as they were.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.streamer import Streamer
from bridgevla_ros.core.streamer_config import StreamerConfig
from bridgevla_ros.core.task_machine import TaskConfig, TaskMachine
from bridgevla_ros.core.trajectory import TrajectoryConfig, TrajectoryGenerator
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import ActionChunk, Cloud, JointState, PlanRequest, RgbdFrame, WaypointPlan
from bridgevla_ros.evaluation.episode import PlanNoise
from bridgevla_ros.evaluation.oracle import OraclePlanner
from bridgevla_ros.evaluation.rollout import Graph
from bridgevla_ros.expert.config import ExpertConfig
from bridgevla_ros.expert.outlook import Outlook, look_ahead
from bridgevla_ros.expert.policy import ExpertObservation, FollowPolicy, make_policy
from bridgevla_ros.perception.config import CropperConfig
from bridgevla_ros.perception.cropper import Cropper
from bridgevla_ros.simulation.config import SimConfig
from bridgevla_ros.simulation.demonstrations import subgoal
from bridgevla_ros.simulation.judge import judge
from bridgevla_ros.simulation.suites import SuiteTask
from bridgevla_ros.simulation.tasks import sample_scene
from bridgevla_ros.simulation.world import SimulationError, World
from bridgevla_ros.training.data_bank import Bank, from_rows
from bridgevla_ros.training.data_corruption import Recipe, position_errors, yaw_errors
from bridgevla_ros.training.data_episodes import NEAR, PERIOD, draw_scene
from bridgevla_ros.training.data_faults import DepthFaults, FaultyDepth
from bridgevla_ros.training.data_guidance import UP, row_of
from bridgevla_ros.training.data_truth import Tracker, class_of, first_contacts

LIMIT = 45.0
"""Simulated seconds for one step of a task."""


class RecipeNoise(PlanNoise):
    """A planner's error by the training recipe."""

    def __init__(self, recipe: Recipe, rng: np.random.Generator) -> None:
        super().__init__(0.0, 0.0, rng)
        self._recipe = recipe

    def draw(self, plan: WaypointPlan) -> tuple[Array, float]:
        """(3,) metres, camera frame, and rad about the vertical."""
        camera = plan.T_base_camera
        middle = np.mean([(camera @ w.T_camera_tcp).translation for w in plan.waypoints], axis=0)
        ray = (camera.translation - middle)[None] / np.linalg.norm(camera.translation - middle)
        error = position_errors(self.rng, self._recipe, ray)[0]
        return camera.inverse().rotate(error), float(yaw_errors(self.rng, self._recipe, 1)[0])


class _Oracle(OraclePlanner):
    """Oracle guidance that remembers the truth it came from."""

    def __init__(self, world: World, task: SuiteTask) -> None:
        super().__init__(world, task)
        self._scene, self._steps = world, task
        self.contacts: dict[int, tuple[Tracker, str]] = {}

    def plan(
        self,
        request: PlanRequest,
        frame: RgbdFrame,
        T_base_camera: Transform,
        *,
        now: float,
        joints: JointState | None = None,
    ) -> WaypointPlan:
        """As the oracle."""
        found, step = subgoal(self._scene, self._steps, request.step), self._steps.steps[request.step]
        kinds = [s.kind.name for s in found.waypoints]
        self.contacts = {}
        for number, first in enumerate(first_contacts(found)):
            tracker = Tracker(self._scene, first, step)
            ordinal = kinds[: first.waypoint].count("CONTACT")
            self.contacts[ordinal] = tracker, class_of(step, first.truth, tracker.kind, number == 0)
        return super().plan(request, frame, T_base_camera, now=now, joints=joints)


class _Recorder:
    """The expert as the graph calls it; keeps what it was given.

    Attributes:
        rows, clouds, classes: As ``data_bank.from_rows`` takes them; ``own``: of ``Bank``, row by row.
    """

    def __init__(self, policy: FollowPolicy, world: World, arm: ArmModel, oracle: _Oracle, seed: int) -> None:
        self._policy, self._world, self._arm, self._oracle, self._seed = policy, world, arm, oracle, seed
        self._next = 0.0
        self.rows: list[dict[str, Any]] = []
        self.clouds: list[tuple[Array, Array, NDArray[np.bool_]]] = []
        self.classes: list[str] = []
        self.own: list[dict[str, Array]] = []

    def chunk(self, obs: ExpertObservation, seed: int) -> ActionChunk:
        """The expert's."""
        if obs.now >= self._next - 1e-9 and obs.cloud is not None and len(obs.cloud.points_base):
            self._keep(obs, obs.cloud)
        return self._policy.chunk(obs, seed)

    def _keep(self, obs: ExpertObservation, cloud: Cloud) -> None:
        guidance, joints = obs.guidance, obs.joints[-1]
        same = obs.progress.guidance_id == guidance.guidance_id and cloud.guidance_id == guidance.guidance_id
        if not same or obs.now - cloud.stamp > self._policy.config.cloud_max_age:
            return
        ahead = look_ahead(
            guidance, obs.progress.progress, obs.progress.events_done, joints.gripper_width,
            self._policy.model, UP,
        )  # fmt: skip
        known = self._oracle.contacts.get(ahead.contacts_done)
        if not ahead.contact.exists or known is None:
            return
        T_base_tcp = self._arm.fk(joints.position)
        if np.linalg.norm(T_base_tcp.translation - ahead.contact.T_base_local.translation) > NEAR:
            return
        self._next = obs.now + PERIOD
        tracker, name = known
        twist = self._arm.jacobian(joints.position) @ joints.velocity
        camera = self._world.T_base_camera
        points, first = np.unique(cloud.points_base, axis=0, return_index=True)
        center = np.asarray(cloud.center_base, np.float32)
        self.rows.append(
            tracker.labels()
            | {
                "episode": self._seed,
                "contact": ahead.contacts_done,
                "stamp": cloud.stamp,
                "camera": np.concatenate([camera.translation, camera.quat()]),
                "joints": joints.position,
                "joint_velocity": joints.velocity,
                "tcp": np.concatenate([T_base_tcp.translation, T_base_tcp.quat()]),
                "twist": twist,
                "width": joints.gripper_width,
                "center": center,
            }
        )
        points_base: Array = points.astype(np.float64)
        age: Array = cloud.age[first].astype(np.float64)
        self.clouds.append((points_base - center, age, tracker.on_target(points_base)))
        self.classes.append(name)
        self.own.append(_own_row(obs, cloud, ahead, T_base_tcp, twist))


def _own_row(
    obs: ExpertObservation, cloud: Cloud, ahead: Outlook, T_base_tcp: Transform, twist: Array
) -> dict[str, Array]:
    """Guidance and state as the expert had them, in the local frame of the guided contact."""
    frame = ahead.contact.T_base_local
    T_local_base = frame.inverse()
    state = {
        "origin": frame.translation,
        "yaw": np.arctan2(frame.rotation[1, 0], frame.rotation[0, 0]),
        "tcp_position": T_local_base.apply(T_base_tcp.translation),
        "tcp_rotation": T_local_base.rotation @ T_base_tcp.rotation,
        "linear_velocity": T_local_base.rotate(twist[:3]),
        "angular_velocity": T_local_base.rotate(twist[3:]),
        "gripper_width": obs.joints[-1].gripper_width,
        "cloud_age": obs.now - cloud.stamp,
        "guidance_age": obs.now - obs.guidance.stamp,
    }
    return row_of(ahead) | {name: np.asarray(value, np.float64) for name, value in state.items()}


class OwnStage:
    """Lets an expert act. One instance serves one process.

    Args:
        checkpoint: Folder of the expert.
        recipe: Errors of guidance.

    Raises:
        BridgeError: MODEL_ERROR, the checkpoint is missing, damaged or does not fit.
    """

    def __init__(self, checkpoint: Path, recipe: Recipe | None = None) -> None:
        self.arm = ArmModel.load()
        self.world = World(SimConfig(), sample_scene(0))
        self.policy = make_policy(ExpertConfig(policy="expert", weights=str(checkpoint)), self.arm)
        self.cropper = Cropper(CropperConfig(), self.arm)
        self.recipe = recipe or Recipe()

    def play(self, seed: int) -> tuple[_Recorder, str]:
        """One episode; what was recorded, and "<task>: done" or how it failed."""
        scene, task = draw_scene(seed)
        world = self.world
        world.load(scene)
        self.policy.reset()
        self.cropper.reset()
        rng = np.random.default_rng([seed, 0xDA66])
        depth = FaultyDepth(DepthFaults.draw(rng), seed)

        def faulty(frame: RgbdFrame) -> RgbdFrame:
            clean = world.render(faults=False)
            image = depth.apply(clean.depth) if depth.arrives() else np.full_like(clean.depth, np.nan)
            return RgbdFrame(frame.stamp, clean.rgb, image, frame.intrinsics)

        oracle = _Oracle(world, task)
        recorder = _Recorder(self.policy, world, self.arm, oracle, seed)
        graph = Graph(
            world, self.arm, oracle, self.cropper, TrajectoryGenerator(TrajectoryConfig()), recorder,
            Streamer(StreamerConfig(), self.arm), TaskMachine(TaskConfig(), seed=seed),
            frame_filter=faulty, plan_filter=RecipeNoise(self.recipe, rng), seed=seed,
        )  # fmt: skip
        try:
            trace = graph.run(task.instruction, limit=LIMIT * len(task.steps))
        except BridgeError as error:
            return recorder, f"{task.name}: {error.code.name}"
        except SimulationError:
            return _Recorder(self.policy, world, self.arm, oracle, seed), f"{task.name}: physics broke"
        if judge(world, task.goals, task.instruction).done:
            return recorder, f"{task.name}: done"
        code = trace.final.code.name if trace.final is not None else "NONE"
        return recorder, f"{task.name}: {code if code != 'NONE' else 'missed'}"

    def bank(self, seeds: tuple[int, ...]) -> tuple[Bank, Counter[str]]:
        """The bank of some episodes, and how often each task ended how."""
        ends: Counter[str] = Counter()
        rows, clouds, classes, own = [], [], [], []
        for seed in seeds:
            recorder, end = self.play(seed)
            ends[end] += 1
            rows += recorder.rows
            clouds += recorder.clouds
            classes += recorder.classes
            own += recorder.own
        columns: dict[str, NDArray[Any]] = {}
        if own:
            columns = {name: np.stack([row[name] for row in own]) for name in own[0]}
            columns["frame"] = np.arange(len(own))
        return from_rows(rows, clouds, classes, {}, columns), ends
