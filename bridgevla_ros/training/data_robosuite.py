"""Episodes of the bank from robosuite's scenes: the same recorder around its cell, for fine-tuning.

The demonstrator is the one of ``--guidance oracle``; what is recorded is what the cropper makes of a faulty
depth image of robosuite's scene. Five seeds that begin at a multiple of five are a scene of each task; the
evaluation's seeds are refused as everywhere (``data_generate.shards``).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import GripperEvent, WaypointKind
from bridgevla_ros.evaluation.robosuite.client import RobosuiteCell
from bridgevla_ros.evaluation.robosuite.episode import NAMES
from bridgevla_ros.evaluation.robosuite.oracle import DEMONSTRATORS
from bridgevla_ros.evaluation.robosuite.tasks import TASKS, TaskSetup
from bridgevla_ros.perception.config import CropperConfig
from bridgevla_ros.simulation.demonstrations import Stop
from bridgevla_ros.training.data_bank import OTHERS
from bridgevla_ros.training.data_episodes import FREE, EpisodeRecord, Performance, Sensors, Watched
from bridgevla_ros.training.data_faults import DepthFaults
from bridgevla_ros.training.data_truth import NEAR, in_shape

SETTLE = 1.5
"""Simulated seconds before robosuite is asked whether it is done, as in the evaluation."""


@dataclass(frozen=True)
class Touch:
    """What is true of a contact of a task besides its pose.

    Attributes:
        name: Its class in the bank.
        target: The thing, as ``RobosuiteCell.truth`` names it; ``others``: what else a planner could mean.
        yaw_period: See ``ContactTruth``.
        band: Metres below and above the true TCP height that do as well.
    """

    name: str
    target: str
    others: tuple[str, ...]
    yaw_period: float
    band: tuple[float, float]


_HALF = math.pi / 2
TOUCHES: dict[str, tuple[Touch, ...]] = {
    "Lift": (Touch("pick cube", "cube", (), _HALF, (0.004, 0.010)),),
    "Stack": (
        Touch("pick cube", "cubeA", ("cubeB",), _HALF, (0.004, 0.010)),
        Touch("place cube", "cubeB", (), _HALF, (0.002, 0.010)),
    ),
    "PickPlaceCan": (
        Touch("pick can", "can", (), 0.0, (0.025, 0.015)),
        Touch("place bin", "bin2", (), _HALF, (0.010, 0.030)),
    ),
    "NutAssemblySquare": (
        Touch("pick nut", "nut", ("peg",), 2 * math.pi, (0.001, 0.004)),
        Touch("place peg", "peg", (), _HALF, (0.015, 0.015)),
    ),
    "Door": (Touch("open door", "latch", (), 2 * math.pi, (0.004, 0.004)),),
}
"""The contacts of each task in their order, measured on robosuite's models."""


def task_of(seed: int) -> str:
    """Whose scene a seed is. Each five are in an order of their own: every tenth only measures."""
    number, turn = divmod(seed, len(NAMES))
    return NAMES[int(np.random.default_rng([number, 0x20B1]).permutation(len(NAMES))[turn])]


class RobosuiteTracker:
    """A contact's truth while robosuite's things move; see ``data_truth.ContactTracker``.

    Args:
        cell: Asked for truth.
        touch: Which contact.
        T_base_contact: Where it is now: the TCP, moved to where contact is made.
        event: What the gripper does there.
    """

    def __init__(
        self, cell: RobosuiteCell, touch: Touch, T_base_contact: Transform, event: GripperEvent
    ) -> None:
        self._cell, self._touch, self._event = cell, touch, event
        self._T_thing_contact = cell.truth()[0][touch.target].inverse() @ T_base_contact

    def pose(self) -> Transform:
        """T_base_contact now."""
        return self._cell.truth()[0][self._touch.target] @ self._T_thing_contact

    def labels(self) -> dict[str, Any]:
        """Columns of ``data_bank.LABELS`` that truth alone gives."""
        poses, touch = self._cell.truth()[0], self._touch
        pose = poses[touch.target] @ self._T_thing_contact
        others = np.full((OTHERS, 2), np.nan)
        for i, name in enumerate(touch.others):
            others[i] = poses[name].translation[:2]
        z = float(pose.translation[2])
        return {
            "event": int(self._event),
            "pose": np.concatenate([pose.translation, pose.quat()]),
            "yaw_period": touch.yaw_period,
            "z_band": (z - touch.band[0], z + touch.band[1]),
            "x_band": (0.0, 0.0),
            "others": others,
            "onward": np.zeros(3),
        }

    def on_target(self, points: Array) -> NDArray[np.bool_]:
        """Which of (N, 3) points, metres, base frame, are the target's."""
        found = np.zeros(len(points), bool)
        for row in self._cell.shapes()[self._touch.target]:
            local = (points - row[13:]) @ row[4:13].reshape(3, 3)
            found |= in_shape(int(row[0]), row[1:4], local)
        return np.asarray(found & (np.linalg.norm(points - self.pose().translation, axis=1) < NEAR))


class RobosuiteStage:
    """Plays episodes in robosuite. One instance, and one robosuite process, serves one process.

    Args:
        cell: Whose depth has no faults of its own.
    """

    def __init__(self, cell: RobosuiteCell) -> None:
        self.cell = cell
        self._sensors: dict[str, Sensors] = {}

    def play(self, seed: int) -> EpisodeRecord:
        """Demonstrate the task of a seed and record it."""
        setup = TASKS[task_of(seed)]
        self.cell.reset(setup, seed)
        rng = np.random.default_rng([seed, 0x20B0])
        sensors = self._sensors_of(setup)
        sensors.reset(seed, DepthFaults.draw(rng))
        stops = DEMONSTRATORS[setup.name](*self.cell.truth())
        sensors.look(stops[1].T_base_tcp.translation)  # the cropper remembers what the arm will hide
        record = EpisodeRecord([], [], [], setup.name, "")
        limits = dataclasses.replace(FREE, workspace_min=(-1.0, -1.0, -0.2), table_height=setup.table_height)
        performance = Performance(sensors, limits, stops, seed, record, rng)
        contacts = [i for i, stop in enumerate(stops) if stop.kind == WaypointKind.CONTACT]
        performance.watch(
            [
                self._watched(i, stops[i], touch)
                for i, touch in zip(contacts, TOUCHES[setup.name], strict=True)
            ]
        )
        failure = performance.run()
        if not failure:
            self.cell.step(SETTLE)
            failure = "" if self.cell.judge() else "missed"
        return dataclasses.replace(record, failure=failure)

    def _watched(self, number: int, stop: Stop, touch: Touch) -> Watched:
        at = Transform(stop.T_base_tcp.apply(stop.contact_offset), stop.T_base_tcp.rotation)
        tracker = RobosuiteTracker(self.cell, touch, at, stop.event)
        return Watched(number, tracker, touch.name)

    def _sensors_of(self, setup: TaskSetup) -> Sensors:
        if setup.name not in self._sensors:
            low, high = setup.workspace
            config = CropperConfig(workspace_min=low, workspace_max=high, support_height=setup.table_height)
            self._sensors[setup.name] = Sensors(self.cell, self.cell.arm, config)
        return self._sensors[setup.name]
