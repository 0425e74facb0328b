"""Joint targets to motor torques: what the cabinet of a torque-controlled arm does, at physics rate."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STIFFNESS = 900.0
"""1/s^2: position gain of the computed torque, a natural frequency of 30 rad/s (our choice)."""
DAMPING = 60.0
"""1/s: critical damping."""


class TorqueArm:
    """An arm with one torque motor on each joint and a gripper of two servoed fingers, in a MuJoCo model.

    Args:
        model, data: Stepped by ``follow``.
        joints: Names of the arm's joints, from the base outwards.
        motors: Names of their actuators; gain 1, control in N m.
        fingers: Names of the two finger joints; the first opens to positive, the second to negative.
        finger_motors: Names of their position actuators.
        closed: Metres that the fingers' joints are apart when the pads meet.

    Raises:
        KeyError: The model has no such joint or actuator.
    """

    def __init__(
        self,
        model: Any,
        data: Any,
        joints: tuple[str, ...],
        motors: tuple[str, ...],
        fingers: tuple[str, str],
        finger_motors: tuple[str, str],
        closed: float = 0.0,
    ) -> None:
        self.model, self.data, self.closed = model, data, closed
        self.joints = joints
        self._qpos = np.array([model.joint(n).qposadr[0] for n in joints])
        self._dof = np.array([model.joint(n).dofadr[0] for n in joints])
        self._motors = np.array([model.actuator(n).id for n in motors])
        self._finger_qpos = np.array([model.joint(n).qposadr[0] for n in fingers])
        self._finger_dof = np.array([model.joint(n).dofadr[0] for n in fingers])
        self._finger_motors = np.array([model.actuator(n).id for n in finger_motors])
        self._torque = np.array(model.actuator_ctrlrange[self._motors])
        self._reach = float(np.abs(model.actuator_ctrlrange[self._finger_motors]).max())
        self._mass = np.zeros((model.nv, model.nv))
        self._wanted = self.position, self.velocity  # now: what the row before asked for

    @property
    def position(self) -> Array:
        """(7,) rad, measured."""
        return np.array(self.data.qpos[self._qpos])

    @property
    def velocity(self) -> Array:
        """(7,) rad/s, measured."""
        return np.array(self.data.qvel[self._dof])

    @property
    def limits(self) -> Array:
        """(7, 2) rad, lowest and highest."""
        return np.array([self.model.joint(n).range for n in self.joints])

    @property
    def width(self) -> float:
        """Metres between the pads."""
        left, right = self.data.qpos[self._finger_qpos]
        return max(float(left - right) - self.closed, 0.0)

    @property
    def width_rate(self) -> float:
        """Metres per second, positive opening."""
        left, right = self.data.qvel[self._finger_dof]
        return float(left - right)

    def follow(self, positions: Array, velocities: Array, widths: Array) -> float:
        """Step physics once for each row, by computed torque, clipped to what the motors give.

        The torque gives the acceleration between the row before and this one, and in addition pulls the
        measured state to where the row before wanted it to be by now.

        Args:
            positions: (n, 7) rad, wanted after each step.
            velocities: (n, 7) rad/s.
            widths: (n,) metres between the pads.

        Returns:
            Greatest joint error, rad, after any of the steps.
        """
        model, data = self.model, self.data
        worst = 0.0
        for position, velocity, width in zip(positions, velocities, widths, strict=True):
            mujoco.mj_step1(model, data)
            mujoco.mj_fullM(model, self._mass, data.qM)
            acceleration = (velocity - self._wanted[1]) / model.opt.timestep
            acceleration += STIFFNESS * (self._wanted[0] - data.qpos[self._qpos])
            acceleration += DAMPING * (self._wanted[1] - data.qvel[self._dof])
            torque = self._mass[np.ix_(self._dof, self._dof)] @ acceleration
            torque += data.qfrc_bias[self._dof] - data.qfrc_passive[self._dof]
            data.ctrl[self._motors] = np.clip(torque, self._torque[:, 0], self._torque[:, 1])
            half = min(max((width + self.closed) / 2, 0.0), self._reach)
            data.ctrl[self._finger_motors] = half, -half
            mujoco.mj_step2(model, data)
            self._wanted = np.array(position), np.array(velocity)
            worst = max(worst, float(np.abs(position - data.qpos[self._qpos]).max()))
        return worst
