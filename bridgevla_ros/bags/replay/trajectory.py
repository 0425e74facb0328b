"""The trajectory generator again: each recorded guidance from its plan and the joint state that it names."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bridgevla_ros.bags.replay.crossing import crossed
from bridgevla_ros.bags.replay.recording import Item, Recording
from bridgevla_ros.bags.replay.result import BEFORE, Answer, Missing, Skipped
from bridgevla_ros.bags.replay.settings import Settings
from bridgevla_ros.bags.replay.state import first_stamp
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.guiding import Guide, TrajectoryNodeConfig
from bridgevla_ros.core.trajectory import TrajectoryConfig, TrajectoryGenerator
from bridgevla_ros.core.types import Guidance, WaypointPlan
from bridgevla_ros.ros import conversions

NODE = "trajectory"


class TrajectoryReplay:
    """Lays each spline once more."""

    def __init__(self, recording: Recording, settings: Settings, seed: int | None) -> None:
        self._recording = recording
        self._settings, generator = settings.configs(NODE, TrajectoryNodeConfig, TrajectoryConfig)
        self._arm = settings.arm(self._settings.robot)
        self._guide = Guide(self._settings, TrajectoryGenerator(generator), self._arm)
        self.weights: dict[str, tuple[str, str]] = {}

    def answers(self) -> Iterator[Answer | Missing | Skipped]:
        """Every guidance in the bag."""
        recording = self._recording
        plans: dict[str, list[tuple[int, WaypointPlan]]] = {}
        for item in recording.items("plan"):
            plan = conversions.waypoint_plan_from_msg(recording.message(item))
            plans.setdefault(plan.plan_id, []).append((item.received, plan))
        first = first_stamp(recording.bag)
        for item in recording.items("guidance"):
            expected = conversions.guidance_from_msg(recording.message(item))
            if math.isnan(expected.computed_at):
                yield Skipped(NODE, "recorded before outputs named their inputs")
                continue
            known = plans.get(expected.plan_id, [])
            if not known:
                gone = Missing(NODE, expected.stamp, expected.plan_id, "plan", expected.plan_id)
                yield Skipped(NODE, BEFORE) if expected.stamp < first else gone
                continue
            before = [plan for received, plan in known if received <= item.received]
            plan = (before or [plan for _, plan in known])[-1]
            for answer in self._again(item, expected, plan):
                cut = isinstance(answer, Missing) and expected.stamp < first
                yield Skipped(NODE, BEFORE) if cut else answer

    def _again(
        self, item: Item, expected: Guidance, plan: WaypointPlan
    ) -> Iterator[Answer | Missing | Skipped]:
        recording, guide, now = self._recording, self._guide, expected.computed_at
        lookup = recording.lookup(item.received)
        guide.joints = None
        if not math.isnan(expected.joint_stamp):
            message = recording.one("joint_states", expected.joint_stamp)
            if message is None:
                wanted = f"{expected.joint_stamp:.6f} s"
                yield Missing(NODE, expected.stamp, expected.plan_id, "joint_states", wanted)
                return
            guide.joints = conversions.joint_state_from_msg(message, self._arm.config)
        elif expected.code in (ErrorCode.NO_TRANSFORM, ErrorCode.SENSOR_LOST):
            # It waited in vain for what had not come by then.
            lookup = recording.lookup_until(item.received)
            heard = [i for i in recording.items("joint_states") if i.received <= item.received]
            if heard:
                newest = recording.message(heard[-1])
                guide.joints = conversions.joint_state_from_msg(newest, self._arm.config)
        try:
            actual = guide.guidance(plan, lookup, now)
        except BridgeError as error:
            actual = guide.refused(plan, error, now)
        made = conversions.guidance_to_msg(actual)
        again = conversions.guidance_from_msg(crossed(made))
        yield Answer(NODE, "guidance", item.index, expected.stamp, expected.plan_id, expected, again, made)
