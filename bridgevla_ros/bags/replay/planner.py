"""The planner again: each recorded plan from its request and the image that it names."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bridgevla_ros.bags.replay.crossing import crossed
from bridgevla_ros.bags.replay.recording import Item, Recording
from bridgevla_ros.bags.replay.result import BEFORE, Answer, Missing, Skipped
from bridgevla_ros.bags.replay.settings import Settings
from bridgevla_ros.bags.replay.state import first_stamp
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.task_status import Stage
from bridgevla_ros.core.types import CHECK, PlanRequest, WaypointPlan
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.matching import FrameMatcher, PlannerNodeConfig, unanswered
from bridgevla_ros.planner.planner import Planner
from bridgevla_ros.ros import conversions

NODE = "planner"
_THOUGHTS = frozenset(
    ("null probability", "subgoal", "steps", "anchors", "anchor", "anchor pixel", "anchor confidence")
)
"""How far a plan had come when it was no longer wanted hangs on the moment."""

_OLDER = (
    "plans of this bag do not name the joint state that they used (an older message version): the newest one "
    "before the image is taken"
)


class PlannerReplay:
    """Loads what the node would load, and answers recorded requests.

    Attributes:
        weights: (recorded SHA-256, present SHA-256), once a plan was seen.
    """

    def __init__(self, recording: Recording, settings: Settings, seed: int | None) -> None:
        self._recording, self._seed, self._notes = recording, seed, settings.notes
        self._settings, config = settings.configs(NODE, PlannerNodeConfig, PlannerConfig)
        self._config = config
        arm = settings.arm(config.robot)
        self._planner = settings.loaded(config, config.robot, lambda: Planner(config, arm=arm))
        self._planner.forget()
        self._named = recording.bag.tells("bridgevla/msg/WaypointPlan", "joint_stamp")
        self.weights: dict[str, tuple[str, str]] = {}

    def answers(self) -> Iterator[Answer | Missing | Skipped]:
        """Every plan in the bag."""
        recording = self._recording
        plans = [
            (item, conversions.waypoint_plan_from_msg(recording.message(item)))
            for item in recording.items("plan")
        ]
        looked = [plan for _, plan in plans if not math.isnan(plan.color_stamp)]
        colors = dict(recording.fetch("camera/color/image_raw", {p.color_stamp for p in looked}))
        depths = dict(recording.fetch("camera/depth/image_raw", {p.stamp for p in looked}))
        requests, first = self._requests(), first_stamp(recording.bag)
        for item, plan in plans:
            if plan.stamp < first:
                yield Skipped(NODE, BEFORE)
                continue
            request = requests.get(plan.request_id)
            if request is None:
                yield Missing(NODE, plan.stamp, plan.request_id, "plan_request", plan.request_id)
                continue
            if self._seed is not None:
                request = replace(request, seed=self._seed)
            if request.attempt == CHECK and not self._planner.remembers(request):
                yield Skipped(NODE, "the plan of the step that is judged is not in the bag")
                continue
            if math.isnan(plan.color_stamp):
                yield from self._unseen(item, plan, request, requests)
                continue
            self.weights[plan.model] = (plan.model_sha256, self._planner.backend.sha256)
            color, depth, arm = colors.get(plan.color_stamp), depths.get(plan.stamp), self._arm(plan)
            lacks = self._lacks(plan, color, depth, arm)
            if lacks is not None:
                yield lacks
                continue
            cancelled = plan.code == ErrorCode.CANCELLED and self._unwanted(item, request, requests)
            actual = self._plan(item, plan, request, color, depth, arm, cancelled=cancelled)
            yield self._answer(item, plan, actual, _THOUGHTS if cancelled else frozenset())

    def _unwanted(self, item: Item, request: PlanRequest, requests: dict[str, PlanRequest]) -> bool:
        """Whether a newer request, or the end of the task, had come when an answer was given."""
        if any(r.stamp >= request.stamp and r is not request for r in requests.values()):
            return True
        for status in self._recording.items("status"):
            if status.received > item.received:
                break
            said = conversions.task_status_from_msg(self._recording.message(status))
            if said.task_id == request.task_id and said.stage in (Stage.DONE, Stage.FAILED):
                return True
        return False

    def _plan(
        self,
        item: Item,
        plan: WaypointPlan,
        request: PlanRequest,
        color: Any,
        depth: Any,
        arm: Item | None,
        *,
        cancelled: bool,
    ) -> WaypointPlan:
        frames: FrameMatcher[Any, Any] = self._frames()
        frames.color.add(plan.color_stamp, color)
        frames.depth.add(plan.stamp, depth)
        self._add_infos(frames, plan.stamp, arm)
        now = plan.computed_at
        try:
            job = frames.job(request, self._recording.lookup(item.received), now)
        except BridgeError as error:
            return unanswered(self._planner, request, error, now)
        if cancelled:
            refused = job.refusal(self._planner, BridgeError(ErrorCode.CANCELLED, plan.message))
            return replace(refused, color_stamp=plan.color_stamp, computed_at=now)
        return job.plan(self._planner)

    def _unseen(
        self, item: Item, plan: WaypointPlan, request: PlanRequest, requests: dict[str, PlanRequest]
    ) -> Iterator[Answer | Skipped]:
        """A refusal for want of an image: is there still none that would have done?"""
        if plan.code == ErrorCode.CANCELLED and self._unwanted(item, request, requests):
            error = BridgeError(ErrorCode.CANCELLED, plan.message)
            yield self._answer(item, plan, unanswered(self._planner, request, error, plan.computed_at))
            return
        stamps = [i for i in self._recording.items("camera/depth/image_raw") if i.received <= item.received]
        frames: FrameMatcher[Any, Any] = self._frames()
        wanted = [i.stamp for i in stamps if i.stamp >= request.stamp]
        colors = [i.stamp for i in self._recording.items("camera/color/image_raw")]
        for stamp, depth in self._recording.fetch("camera/depth/image_raw", wanted[-3:]):
            near = [s for s in colors if abs(s - stamp) <= self._settings.sync_tolerance]
            for color_stamp, color in self._recording.fetch("camera/color/image_raw", near):
                frames.color.add(color_stamp, color)
            frames.depth.add(stamp, depth)
            self._add_infos(frames, stamp, self._newest_arm(stamp))
        try:
            job = frames.job(request, self._recording.lookup_until(item.received), plan.computed_at)
        except BridgeError as error:
            # How old the newest image was is told in words; only the code is compared.
            again = BridgeError(error.code, plan.message)
            yield self._answer(item, plan, unanswered(self._planner, request, again, plan.computed_at))
        else:
            yield self._answer(item, plan, job.plan(self._planner))

    def _frames(self) -> FrameMatcher[Any, Any]:
        return FrameMatcher(self._settings, self._config.base_frame, conversions.frame_from_msgs)

    def _add_infos(self, frames: FrameMatcher[Any, Any], stamp: float, arm: Item | None) -> None:
        """What belongs to an image of that stamp: camera_info, and where the arm was."""
        for info in self._recording.items("camera/color/camera_info"):
            if abs(info.stamp - stamp) <= self._settings.sync_tolerance:
                frames.info.add(info.stamp, self._recording.message(info))
        if arm is not None:
            state = conversions.joint_state_from_msg(self._recording.message(arm), self._planner.arm.config)
            frames.joints.add(state)

    def _arm(self, plan: WaypointPlan) -> Item | None:
        """The joint state that a plan names; where plans do not name one yet, the newest before the image."""
        if not self._named:
            if _OLDER not in self._notes:
                self._notes.append(_OLDER)
            return self._newest_arm(plan.stamp)
        found = self._recording.at("joint_states", plan.joint_stamp)
        return found[-1] if found else None

    def _newest_arm(self, stamp: float) -> Item | None:
        arm = [item for item in self._recording.items("joint_states") if item.stamp <= stamp]
        return max(arm, key=lambda item: item.stamp) if arm else None

    def _lacks(self, plan: WaypointPlan, color: Any, depth: Any, arm: Item | None) -> Missing | None:
        """The first input that a plan names and the bag does not have."""
        named = (
            ("camera/color/image_raw", plan.color_stamp, color),
            ("camera/depth/image_raw", plan.stamp, depth),
            ("joint_states", plan.joint_stamp, arm),
        )
        for topic, stamp, found in named:
            if found is None and not math.isnan(stamp):
                return Missing(NODE, plan.stamp, plan.request_id, topic, f"{stamp:.6f} s")
        return None

    def _requests(self) -> dict[str, PlanRequest]:
        found = {}
        for item in self._recording.items("plan_request"):
            request = conversions.plan_request_from_msg(self._recording.message(item))
            found[request.request_id] = request
        return found

    def _answer(
        self,
        item: Item,
        expected: WaypointPlan,
        actual: WaypointPlan,
        skip: frozenset[str] = frozenset(),
    ) -> Answer:
        message = conversions.waypoint_plan_to_msg(actual)
        again = conversions.waypoint_plan_from_msg(crossed(message))
        return Answer(
            NODE, "plan", item.index, expected.stamp, expected.request_id, expected, again, message, skip=skip
        )
