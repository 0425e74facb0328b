"""The simulated cell with a hand in it: `sim_with_a_hand.py OBJECT --ros-args ...` in the place of sim_arm.

When the fingers begin to close for the first time, the hand has put the object somewhere else. The nodes see
that only as their camera does.
"""

from __future__ import annotations

import sys

import mujoco
import numpy as np
from std_msgs.msg import Float64MultiArray

from bridgevla_ros.nodes.sim_arm import SimArmNode
from bridgevla_ros.ros import conversions
from bridgevla_ros.ros.spin import run_node

CLOSING = 0.06
"""Metres: a command for less than this closes the fingers."""
DISTANCES = (0.09, 0.12, 0.15)
"""Metres by which the object is moved: beyond the fingers, and still within reach."""


class SimWithAHand(SimArmNode):
    """``sim_arm``, and somebody who takes an object away once."""

    thing = ""

    def __init__(self) -> None:
        super().__init__()
        self._moved = False

    def _on_gripper(self, msg: Float64MultiArray) -> None:
        super()._on_gripper(msg)
        if not self._moved and conversions.gripper_command_from_msg(msg) < CLOSING:
            self._moved = True
            self._take_away()

    def _take_away(self) -> None:
        """Put the object down at the free place that is nearest, on the table."""
        world = self._world
        here = world.object_pose(self.thing).translation
        others = [
            (world.object_pose(o.name).translation[:2], o.radius)
            for o in world.scene.objects
            if o.name != self.thing
        ]
        radius = next(o.radius for o in world.scene.objects if o.name == self.thing)
        for distance in DISTANCES:
            for angle in np.arange(0.0, 2 * np.pi, np.pi / 8):
                there = here[:2] + distance * np.array([np.cos(angle), np.sin(angle)])
                free = all(np.hypot(*(there - p)) > radius + r + 0.05 for p, r in others)
                if free and 0.36 < there[0] < 0.62 and abs(there[1]) < 0.26:
                    joint = int(world.model.jnt_qposadr[world.model.body(self.thing).jntadr[0]])
                    world.data.qpos[joint : joint + 2] += there - here[:2]
                    mujoco.mj_forward(world.model, world.data)
                    self.get_logger().info(f"a hand moved the {self.thing} by {distance:.2f} m")
                    return
        raise RuntimeError(f"no free place near the {self.thing}")


if __name__ == "__main__":
    SimWithAHand.thing = sys.argv.pop(1)
    sys.exit(run_node(SimWithAHand))
