"""Named checks that every plan passes before anybody hears of it.

Each refuses by a BridgeError with code, value, limit, unit and what to do. They run from the cheap to the
dear; the first that fails names the plan's fault.
"""

from __future__ import annotations

from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.gate.collision import check_body, check_cloud
from bridgevla_ros.planner.gate.depth import check_certain, check_depth
from bridgevla_ros.planner.gate.draft import Draft
from bridgevla_ros.planner.gate.sweep import Sweep, check_path
from bridgevla_ros.planner.gate.waypoints import (
    check_finite,
    check_reprojection,
    check_support,
    check_workspace,
)

__all__ = [
    "Draft",
    "Sweep",
    "check",
    "check_body",
    "check_certain",
    "check_cloud",
    "check_depth",
    "check_finite",
    "check_path",
    "check_reprojection",
    "check_support",
    "check_workspace",
]


def check(draft: Draft, config: PlannerConfig, arm: ArmModel) -> tuple[str, ...]:
    """Run all checks in order; returns their names.

    Raises:
        BridgeError: Of the first check that fails, with value and limit.
    """
    check_finite(draft)
    check_certain(draft, config)
    check_depth(draft)
    check_workspace(draft, config)
    check_support(draft, arm)
    check_reprojection(draft, config)
    sweep = check_path(draft, config, arm)
    check_body(draft, sweep, arm)
    check_cloud(draft, sweep, config, arm)
    return (
        "finite", "certain", "depth", "workspace", "support", "reprojection", "path", "body", "cloud",
    )  # fmt: skip
