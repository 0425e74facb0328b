"""One episode of the bank: a privileged demonstrator moves the simulated arm, the sensors are recorded.

The demonstrator sees the truth and follows the production spline through the true waypoints of each step
(off its own way between contacts), with physics. What is recorded is what a real cell's sensors would give:
the cloud that the real ``Cropper`` makes of a faulty depth image, joints, TCP, gripper, camera pose. Labels
are kept apart (``data_truth``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.guidance import window
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.trajectory import TrajectoryConfig, TrajectoryGenerator
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import GripperEvent, Guidance, JointState, RgbdFrame, WaypointKind
from bridgevla_ros.perception.config import CropperConfig
from bridgevla_ros.perception.cropper import Cropper
from bridgevla_ros.simulation import suites
from bridgevla_ros.simulation.config import SimConfig
from bridgevla_ros.simulation.demonstrations import Stop, Subgoal, subgoal
from bridgevla_ros.simulation.judge import judge
from bridgevla_ros.simulation.scene import SceneSpec
from bridgevla_ros.simulation.suites import Step, SuiteTask
from bridgevla_ros.simulation.tasks import default_task, sample_scene
from bridgevla_ros.simulation.world import SimulationError, World
from bridgevla_ros.training.data_bank import Bank, from_rows
from bridgevla_ros.training.data_faults import DepthFaults, FaultyDepth
from bridgevla_ros.training.data_guidance import plan_of
from bridgevla_ros.training.data_truth import ContactTracker, Tracker, class_of, first_contacts

BANK_RADIUS = 0.215
"""Metres: the crop, a guidance error of up to 7 cm beside it, and the bank's own centre being off."""
BANK_POINTS = 1536
CENTER_SIGMA = 0.012
"""Metres per axis by which the recorded crop's centre is off the contact, as a planner's is."""
PERIOD = 0.2
"""Seconds between frames."""
NEAR = 0.30
"""Metres from the next contact within which frames are taken."""
MOST_FRAMES = 12
"""For one contact."""
IK_PERIOD = 0.1
"""Seconds between joint knots of a demonstration."""
MOMENT = 0.02
"""Seconds of physics at a time: a button is down for no longer than that."""
GRIP_TIME = 1.0
"""Seconds at most for the gripper."""

MIX: dict[str, float] = {
    "pick and place": 0.14,
    "lift": 0.10,
    "place": 0.13,
    "stack": 0.10,
    "ring": 0.08,
    "twins": 0.08,
    "long thing": 0.10,
    "lid": 0.06,
    "press": 0.07,
    "push": 0.07,
    "turn": 0.07,
    "open": 0.05,
    "close": 0.05,
}
"""Share of each task among episodes; the long suite is made of the same contacts."""


FREE = TrajectoryConfig(workspace_min=(-1.0, -1.0, -0.1), workspace_max=(1.5, 1.0, 1.2))
"""Where the demonstrator of this package's own scenes may go."""


class Watched(NamedTuple):
    """A contact before which frames are taken: number of its waypoint, its truth, its class."""

    waypoint: int
    tracker: ContactTracker
    name: str


@dataclass(frozen=True)
class EpisodeRecord:
    """What an episode left.

    Attributes:
        rows, clouds, classes: As ``data_bank.from_rows`` takes them.
        task: Name; ``failure``: "" or what went wrong.
    """

    rows: list[dict[str, Any]]
    clouds: list[tuple[Array, Array, NDArray[np.bool_]]]
    classes: list[str]
    task: str
    failure: str


def draw_scene(seed: int) -> tuple[SceneSpec, SuiteTask]:
    """The scene and task of an episode; half of the cameras stand where the suites' do, half anywhere."""
    rng = np.random.default_rng([seed, 0xDA7A])
    name = str(rng.choice(list(MIX), p=np.array(list(MIX.values())) / sum(MIX.values())))
    if name == "pick and place":
        scene = sample_scene(seed)
        drawn = default_task(scene)
        task = suites.pick_and_place(drawn.source, drawn.destination, drawn.instruction)
    else:
        scene, task = suites.draw(name, seed)
    return suites.randomise(scene, rng, camera=bool(rng.random() < 0.5)), task


class Scene(Protocol):
    """What a demonstration needs of a simulated cell."""

    @property
    def now(self) -> float:
        """Simulated seconds."""
        ...

    @property
    def T_base_camera(self) -> Transform:
        """Pose of the optical frame."""
        ...

    @property
    def T_base_tcp(self) -> Transform:
        """Where the TCP is."""
        ...

    def step(self, dt: float) -> None:
        """Let ``dt`` seconds pass."""
        ...

    def joint_state(self) -> JointState:
        """Encoders of arm and gripper."""
        ...

    def render(self, *, faults: bool = True) -> RgbdFrame:
        """Expose colour and depth now, with the sensor's faults or without."""
        ...

    def command_joint_trajectory(
        self, stamp: float, times: Array, positions: Array, velocities: Array
    ) -> None:
        """Follow these points from now on: (M,) s after ``stamp``, (M, 7) rad, (M, 7) rad/s."""
        ...

    def command_gripper(self, width: float) -> None:
        """Open or close to ``width`` metres."""
        ...


class Sensors:
    """The cell's sensors with their faults, and the rows of a bank that they fill.

    Args:
        world: Seen.
        arm: For the cropper's model of the robot, and forward kinematics.
        config: The cropper's, but for what a bank has wider.
    """

    def __init__(self, world: Scene, arm: ArmModel, config: CropperConfig | None = None) -> None:
        self.world, self.arm = world, arm
        wide = dataclasses.replace(
            config or CropperConfig(), points=BANK_POINTS, crop_radius=BANK_RADIUS, min_points=1
        )
        self._cropper = Cropper(wide, arm)

    def reset(self, seed: int, faults: DepthFaults) -> None:
        """Begin an episode of the world's present scene."""
        self._cropper.reset()
        self._depth = FaultyDepth(faults, seed)

    def look(self, center: Array) -> tuple[dict[str, Any], Array, Array] | None:
        """One depth image through the cropper; None where the frame was dropped or shows nothing.

        Args:
            center: (3,) metres, base frame, of the crop.

        Returns:
            OBSERVED columns of the row; (N, 3) points, metres, base frame; (N,) ages, seconds.
        """
        if not self._depth.arrives():
            return None
        world = self.world
        clean = world.render(faults=False)
        frame = RgbdFrame(world.now, clean.rgb, self._depth.apply(clean.depth), clean.intrinsics)
        joints, T_base_camera = world.joint_state(), world.T_base_camera
        cloud, _ = self._cropper.crop(frame, T_base_camera, joints, center, "bank", world.now)
        points, first = np.unique(cloud.points_base, axis=0, return_index=True)
        T_base_tcp = self.arm.fk(joints.position)
        row = {
            "stamp": world.now,
            "camera": np.concatenate([T_base_camera.translation, T_base_camera.quat()]),
            "joints": joints.position,
            "joint_velocity": joints.velocity,
            "tcp": np.concatenate([T_base_tcp.translation, T_base_tcp.quat()]),
            "twist": self.arm.jacobian(joints.position) @ joints.velocity,
            "width": joints.gripper_width,
            "center": center.astype(np.float32),
        }
        return row, points.astype(np.float64), cloud.age[first].astype(np.float64)


class Stage:
    """Plays episodes. One instance serves one process."""

    def __init__(self) -> None:
        self.arm = ArmModel.load()
        self.world = World(SimConfig(colour_noise=0.0), sample_scene(0))
        self.sensors = Sensors(self.world, self.arm)

    def play(self, seed: int) -> EpisodeRecord:
        """Demonstrate the task of a seed and record it; an episode whose physics broke is empty."""
        scene, task = draw_scene(seed)
        try:
            return self._play(scene, task, seed)
        except SimulationError:
            return EpisodeRecord([], [], [], task.name, "physics broke")

    def _play(self, scene: SceneSpec, task: SuiteTask, seed: int) -> EpisodeRecord:
        self.world.load(scene)
        rng = np.random.default_rng([seed, 0x5747])
        self.sensors.reset(seed, DepthFaults.draw(rng))
        record = EpisodeRecord([], [], [], task.name, "")
        failure = ""
        self.sensors.look(np.array([0.5, 0.0, 0.05]))  # the cropper remembers what the arm will hide
        for step in range(len(task.steps)):
            goal = subgoal(self.world, task, step)
            performance = Performance(self.sensors, FREE, goal.waypoints, seed, record, rng)
            performance.watch(self._watched(task.steps[step], goal))
            failure = performance.run()
            if failure:
                break
        if not failure and not self._done(task):
            failure = "missed"
        return EpisodeRecord(record.rows, record.clouds, record.classes, task.name, failure)

    def _watched(self, step: Step, goal: Subgoal) -> list[Watched]:
        watched = []
        for number, first in enumerate(first_contacts(goal)):
            tracker = Tracker(self.world, first, step)
            name = class_of(step, first.truth, tracker.kind, number == 0)
            watched.append(Watched(first.waypoint, tracker, name))
        return watched

    def _done(self, task: SuiteTask) -> bool:
        """Whether the judge agrees, after what moves came to rest."""
        for _ in range(4):
            if judge(self.world, task.goals, task.instruction).done:
                return True
            self.world.step(0.25)
        return False


class Performance:
    """One sub-goal: follows the spline through the true waypoints and records on the way.

    Args:
        sensors: Of the cell that is moved; they see.
        limits: Where the arm may go; how fast is drawn.
        waypoints: The demonstrator's.
        seed: Of the scene, for the rows.
        record: Filled.
        rng: The demonstrator's own way.
    """

    def __init__(
        self, sensors: Sensors, limits: TrajectoryConfig, waypoints: Sequence[Stop], seed: int,
        record: EpisodeRecord, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.sensors, self.seed, self.record, self.rng = sensors, seed, record, rng
        self.world, self.arm = sensors.world, sensors.arm
        stops = [own for stop in waypoints for own in self._own_way(stop)]
        joints = self.world.joint_state()
        start = self.arm.fk(joints.position)
        quick = dataclasses.replace(
            limits, max_speed=float(rng.uniform(0.28, 0.40)), max_acceleration=2.0, max_jerk=30.0,
            max_angular_speed=1.6, contact_speed=float(rng.uniform(0.10, 0.18)),
        )  # fmt: skip
        plan = plan_of([(s.T_base_tcp, s.kind, s.event, s.width) for s in stops])
        self.guidance: Guidance = TrajectoryGenerator(quick).generate(
            plan, Transform.identity(), start, joints.gripper_width
        )
        self._order = [i for i, s in enumerate(waypoints) if s.kind == WaypointKind.CONTACT]
        self._offsets = [s.contact_offset for s in waypoints]
        self._contacts: list[tuple[float, Watched, Array]] = []
        self._next_frame = self.world.now

    def watch(self, contacts: Sequence[Watched]) -> None:
        """Take frames before these contacts; each is over with its own event, or when it is reached."""
        reached = dict(zip(self._order, map(float, self.guidance.contact_progress), strict=True))
        for contact in contacts:
            center = contact.tracker.pose().translation + self.rng.normal(0.0, CENTER_SIGMA, 3)
            self._contacts.append((reached[contact.waypoint], contact, center))
        self._taken = np.zeros(len(self._contacts), int)

    def _own_way(self, stop: Stop) -> list[Stop]:
        """A waypoint as this demonstrator takes it, and perhaps a free one before an approach.

        Beside a contact the hand moves almost straight: things are nearly as wide as it opens.
        """
        if stop.kind in (WaypointKind.CONTACT, WaypointKind.VIA):
            return [stop]
        T, rng = stop.T_base_tcp, self.rng
        off = np.append(rng.normal(0.0, 0.003, 2), rng.normal(0.0, 0.01))
        out = [stop._replace(T_base_tcp=Transform(T.translation + off, T.rotation))]
        if stop.kind == WaypointKind.APPROACH and rng.random() < 0.6:
            aside = np.append(rng.normal(0.0, 0.03, 2), rng.uniform(0.03, 0.10))
            free = Transform(T.translation + aside, T.rotation)
            out.insert(0, stop._replace(T_base_tcp=free, kind=WaypointKind.VIA, event=GripperEvent.NONE))
        return out

    def run(self) -> str:
        """Do it; returns what went wrong, or "" ."""
        guidance = self.guidance
        if guidance.code != 0:
            return guidance.code.name
        begin = 0.0
        ends = [*guidance.event_progress, 1.0]
        events = [*zip(guidance.events, guidance.event_width, strict=True), None]
        for i, (end, event) in enumerate(zip(ends, events, strict=True)):
            if end > begin + 1e-9 and not self._go(float(begin), float(end), i):
                return "unreachable"
            begin = end
            if event is not None:
                self._grip(*event, float(end))
        return ""

    def _go(self, begin: float, end: float, events_done: int) -> bool:
        """Along the guidance between two progresses, recording; False where the arm cannot go."""
        arm, world = self.arm, self.world
        duration = (end - begin) * self.guidance.duration
        count = max(int(np.ceil(duration / IK_PERIOD)), 2)
        path = window(self.guidance, begin, events_done, count, duration / count)
        q = [world.joint_state().position]
        for k in range(count):
            found = arm.ik(Transform.from_quat(path.position[k], path.quat[k]), q[-1], iterations=40)
            if found.position_error > 0.004 or float(np.abs(found.q - q[-1]).max()) > 0.6:
                return False
            q.append(found.q)
        times = np.linspace(0.0, duration, count + 1)
        positions = np.array(q)
        velocities = np.gradient(positions, times, axis=0)
        velocities[[0, -1]] = 0.0
        started = world.now
        world.command_joint_trajectory(started, times, positions, velocities)
        finish = started + duration + 0.06
        while world.now < finish - 1e-6:
            self._frame(begin + (end - begin) * min((world.now - started) / duration, 1.0))
            until = min(max(self._next_frame, world.now + 0.01), world.now + MOMENT, finish)
            world.step(until - world.now)
        return True

    def _grip(self, event: GripperEvent, width: float, progress: float) -> None:
        """Open or close, and wait until it is still."""
        world = self.world
        if abs(world.joint_state().gripper_width - width) < 0.004:
            return
        self._frame(progress - 1e-6)
        world.command_gripper(float(width))
        for waited in np.arange(0.1, GRIP_TIME, 0.1):
            world.step(0.1)
            if waited > 0.25 and abs(world.joint_state().gripper_velocity) < 0.004:
                break

    def _frame(self, progress: float) -> None:
        """Record if it is time and a contact is near."""
        world = self.world
        if world.now < self._next_frame - 1e-6:
            return
        self._next_frame = world.now + PERIOD
        for i, (over, (waypoint, tracker, name), center) in enumerate(self._contacts):
            if progress >= over:
                continue
            offset = self._offsets[waypoint]  # hand and contact are told where contact is made
            away = float(np.linalg.norm(world.T_base_tcp.apply(offset) - tracker.pose().translation))
            if away > NEAR or self._taken[i] >= MOST_FRAMES:
                return
            seen = self.sensors.look(center)
            if seen is None:
                return
            row, points, age = seen
            self._taken[i] += 1
            held = Transform.from_quat(row["tcp"][:3], row["tcp"][3:]).rotate(offset)
            row["tcp"][:3] += held
            row["twist"][:3] += np.cross(row["twist"][3:], held)
            row |= tracker.labels() | {"episode": self.seed, "contact": i}
            self.record.rows.append(row)
            inside = points - row["center"].astype(np.float64)
            self.record.clouds.append((inside, age, tracker.on_target(points)))
            self.record.classes.append(name)
            return


def bank_of(records: list[EpisodeRecord], meta: dict[str, Any]) -> Bank:
    """The bank of some episodes."""
    return from_rows(
        [row for r in records for row in r.rows],
        [cloud for r in records for cloud in r.clouds],
        [name for r in records for name in r.classes],
        meta,
    )
