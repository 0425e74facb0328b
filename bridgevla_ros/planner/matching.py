"""From requests and camera streams to what the planner works on."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from bridgevla_ros.core.config import param
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.inputs import JointBuffer, Lookup, Stamped
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import CameraIntrinsics, JointState, PlanRequest, RgbdFrame, WaypointPlan
from bridgevla_ros.planner.planner import Planner

Image = TypeVar("Image")
Info = TypeVar("Info")

NO_CAMERA = CameraIntrinsics(1, 1, 1.0, 1.0, 0.0, 0.0)


@dataclass(frozen=True)
class PlannerNodeConfig:
    """Parameters of the node beside those of the planner."""

    image_timeout: float = param(
        3.0,
        "A request waits this long for an image taken after it, and for its transform",
        unit="s",
        ge=0.1,
        le=60.0,
    )
    sync_tolerance: float = param(
        0.02, "Colour, depth and camera_info may differ by this in stamp", unit="s", ge=0.0, le=1.0
    )


@dataclass(frozen=True)
class Job:
    """What is planned from.

    Attributes:
        request: What is wanted.
        frame: The image.
        T_base_camera: At the frame's stamp.
        now: Seconds, when it was put together.
        color_stamp: Seconds, of the colour image.
        joints: Where the arm was; None where nobody says.
    """

    request: PlanRequest
    frame: RgbdFrame
    T_base_camera: Transform
    now: float
    color_stamp: float
    joints: JointState | None = None

    def plan(self, planner: Planner, report: Callable[[str], None] | None = None) -> WaypointPlan:
        """Plan or refusal that names its inputs.

        Args:
            planner: What plans.
            report: Called with the traceback where a backend fails, which is a refusal as well.
        """
        try:
            plan = planner.plan(
                self.request, self.frame, self.T_base_camera, now=self.now, joints=self.joints
            )
        except Exception as error:
            # A backend of the user's may raise anything; the request must be answered all the same.
            if report is not None:
                report(traceback.format_exc())
            failure = BridgeError(ErrorCode.MODEL_ERROR, f"{type(error).__name__}: {error}")
            plan = self.refusal(planner, failure)
        return self.naming(plan)

    def naming(self, plan: WaypointPlan) -> WaypointPlan:
        """The plan with the stamps of what it was made from."""
        joint_stamp = float("nan") if self.joints is None else self.joints.stamp
        return replace(plan, color_stamp=self.color_stamp, joint_stamp=joint_stamp, computed_at=self.now)

    def refusal(self, planner: Planner, error: BridgeError) -> WaypointPlan:
        """The answer where planning itself failed."""
        return planner.refusal(
            self.request, error, self.frame.stamp, self.frame.intrinsics, self.T_base_camera
        )


class FrameMatcher(Generic[Image, Info]):
    """Finds the newest synchronised image that a request may be answered from.

    Args:
        settings: Of the node.
        base_frame: Frame that camera poses are wanted in.
        build: (colour, info, depth) to a frame; images are decoded only here.
    """

    def __init__(
        self,
        settings: PlannerNodeConfig,
        base_frame: str,
        build: Callable[[Image, Info, Image], RgbdFrame],
    ) -> None:
        self._settings, self._base_frame, self._build = settings, base_frame, build
        self.color: Stamped[Image] = Stamped(12)
        self.depth: Stamped[Image] = Stamped(12)
        self.info: Stamped[Info] = Stamped(12)
        self.joints = JointBuffer()

    def job(self, request: PlanRequest, lookup: Lookup, now: float) -> Job:
        """The newest frame taken after the request, with its transform.

        Raises:
            BridgeError: STALE_IMAGE or NO_TRANSFORM, which waiting may mend; BAD_INPUT.
        """
        tolerance = self._settings.sync_tolerance
        for stamp, depth in self.depth.newest_first():
            if stamp < request.stamp:
                continue
            color, info = self.color.within(stamp, tolerance), self.info.within(stamp, tolerance)
            if color is None or info is None or color[0] < request.stamp:
                continue
            frame = self._build(color[1], info[1], depth)
            transform = lookup(self._base_frame, frame.intrinsics.frame, frame.stamp)
            return Job(request, frame, transform, now, color[0], self.joints.before(frame.stamp))
        raise self._missing(now)

    def _missing(self, now: float) -> BridgeError:
        """Which of the streams keeps a request waiting."""
        streams: dict[str, Stamped[Any]] = {
            "colour": self.color,
            "depth": self.depth,
            "camera_info": self.info,
        }
        newest = {name: s.newest_first()[0][0] if len(s) else None for name, s in streams.items()}
        absent = [name for name, stamp in newest.items() if stamp is None]
        if absent:
            text = f"no {' and no '.join(absent)} was received"
            age = float("inf")
        else:
            oldest = min(newest, key=lambda k: newest[k] or 0.0)
            age = now - float(newest[oldest] or 0.0)
            text = f"no synchronised image since the request; the newest {oldest} is {age:.1f} s old"
        return BridgeError(
            ErrorCode.STALE_IMAGE,
            text,
            value=age,
            limit=self._settings.image_timeout,
            unit="s",
            remedy="check the camera's driver, its topics' names and its clock",
        )


def unanswered(planner: Planner, request: PlanRequest, error: BridgeError, now: float) -> WaypointPlan:
    """Refusal without having looked at an image."""
    plan = planner.refusal(request, error, request.stamp, NO_CAMERA, Transform.identity())
    return replace(plan, computed_at=now)
