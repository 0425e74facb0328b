"""From a plan, transforms and the newest joint state to guidance."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bridgevla_ros.core.config import param
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.inputs import Lookup
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.trajectory import TrajectoryGenerator, refusal
from bridgevla_ros.core.types import Guidance, JointState, WaypointPlan


@dataclass(frozen=True)
class TrajectoryNodeConfig:
    """Parameters of the node beside those of the generator."""

    robot: str = param("panda_2f85", "Robot of config/robots, or a path to its YAML file")
    joint_max_age: float = param(0.5, "Older joint states are SENSOR_LOST", unit="s", ge=0.01, le=10.0)
    plan_max_age: float = param(120.0, "Plans of an older image are STALE_IMAGE", unit="s", ge=0.1, le=3600.0)
    wait: float = param(
        1.0, "A plan waits this long for transforms and joint states", unit="s", ge=0.0, le=30.0
    )


class Guide:
    """Makes guidance from plans, starting at the newest measured TCP.

    Attributes:
        joints: Newest joint state; None before the first.
    """

    def __init__(self, settings: TrajectoryNodeConfig, generator: TrajectoryGenerator, arm: ArmModel) -> None:
        self._settings = settings
        self._generator = generator
        self._arm = arm
        self.joints: JointState | None = None

    def guidance(self, plan: WaypointPlan, lookup: Lookup, now: float) -> Guidance:
        """Guidance of a plan, or its refusal where the plan itself cannot be followed.

        Raises:
            BridgeError: STALE_IMAGE; NO_TRANSFORM or SENSOR_LOST, which waiting may mend.
        """
        if plan.code != ErrorCode.NONE:
            return replace(refusal(plan, BridgeError(plan.code, plan.message)), computed_at=now)
        if now - plan.stamp > self._settings.plan_max_age:
            raise BridgeError(
                ErrorCode.STALE_IMAGE,
                f"plan {plan.plan_id} was made from an image {now - plan.stamp:.1f} s old",
                value=now - plan.stamp,
                limit=self._settings.plan_max_age,
                unit="s",
            )
        transform = lookup(plan.base_frame, plan.camera_frame, plan.stamp)
        joints = self.joints
        age = now - joints.stamp if joints is not None else float("inf")
        if joints is None or age > self._settings.joint_max_age:
            raise BridgeError(
                ErrorCode.SENSOR_LOST,
                "no joint_states yet" if joints is None else f"joint_states are {age:.2f} s old",
                value=age,
                limit=self._settings.joint_max_age,
                unit="s",
                remedy="Start the arm's driver, or check that its clock is this one's.",
            )
        start = self._arm.fk(joints.position)
        guidance = self._generator.generate(plan, transform, start, joints.gripper_width)
        return replace(guidance, joint_stamp=joints.stamp, computed_at=now)

    def refused(self, plan: WaypointPlan, error: BridgeError, now: float) -> Guidance:
        """Guidance without samples that says why a plan is not followed."""
        return replace(refusal(plan, error), computed_at=now)
