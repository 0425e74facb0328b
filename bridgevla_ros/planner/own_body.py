"""Which pixels show the arm itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import JointState, RgbdFrame
from bridgevla_ros.perception.kernels import body_distances
from bridgevla_ros.planner.grasp import ABOVE, Cloud3d, without

OWN = 0.03
"""Metres from the arm's body within which a point is the arm, or what it holds: model and calibration."""


def without_arm(
    frame: RgbdFrame, T_base_camera: Transform, table_height: float, joints: JointState, arm: ArmModel
) -> RgbdFrame:
    """The frame, with a cloud in which the arm is not: what it hangs over has no walls of its height."""
    own = own_body(Cloud3d.of(frame, T_base_camera, table_height), joints, arm)
    return without(frame, T_base_camera, table_height, own)


def own_body(cloud: Cloud3d, joints: JointState, arm: ArmModel) -> NDArray[np.bool_]:
    """(H, W) which pixels show the arm, where it was when the image was taken."""
    start, end, radius = arm.body_capsules(joints.position, joints.gripper_width)
    high = cloud.points[..., 2] > cloud.support + ABOVE
    own = np.zeros(high.shape, bool)
    own[high] = body_distances(np.ascontiguousarray(cloud.points[high]), start, end, radius) < OWN
    return own
