"""Labels from the simulator's truth: whose points these are, where the contact is now, what else is there."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import mujoco
import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import WaypointKind
from bridgevla_ros.simulation.demonstrations import ContactTruth, Subgoal
from bridgevla_ros.simulation.scene import UNSEEN
from bridgevla_ros.simulation.suites import Step
from bridgevla_ros.simulation.world import World
from bridgevla_ros.training.data_bank import OTHERS

MARGIN = 0.007
"""Metres outside a thing's surface within which a point is still its own (voxels are 4 mm)."""
NEAR = 0.10
"""Metres from the contact beyond which points of the thing (a cabinet) say nothing about it."""
APART = 0.03
"""Metres; what is nearer to a contact in the plane is the same to a planner (a lid and its pot)."""
_KIND = mujoco.mjtGeom


class FirstContact(NamedTuple):
    """A contact that begins a touch: index of its waypoint, its truth, and (3,) metres, base frame, from it
    to the next contact of the touch; zeros without one."""

    waypoint: int
    truth: ContactTruth
    onward: Array


def first_contacts(subgoal: Subgoal) -> list[FirstContact]:
    """The contacts that begin a touch.

    Contacts that follow one another without a waypoint between are one touch (turn, pull, push): what was
    corrected at its first contact is carried on.
    """
    out: list[FirstContact] = []
    stops = subgoal.waypoints
    touching = [stop.kind == WaypointKind.CONTACT for stop in stops]
    for i, stop in enumerate(stops):
        if touching[i] and not (i and touching[i - 1]):
            after = stops[i + 1] if i + 1 < len(stops) and touching[i + 1] else stop
            onward = after.T_base_tcp.translation - stop.T_base_tcp.translation
            out.append(FirstContact(i, subgoal.contacts[sum(touching[:i])], onward))
    return out


def class_of(step: Step, truth: ContactTruth, kind: str, first: bool) -> str:
    """Name of a contact, e.g. "pick cube", "place bowl", "press button"."""
    if step.skill in ("lift", "pick_place"):
        return f"{'pick' if first else 'place'} {kind}"
    return f"{step.skill} {kind}"


class ContactTracker(Protocol):
    """Whoever knows a contact's truth while its thing may move."""

    def pose(self) -> Transform:
        """T_base_tcp of the contact now."""
        ...

    def labels(self) -> dict[str, Any]:
        """Columns of ``data_bank.LABELS`` that truth alone gives."""
        ...

    def on_target(self, points: Array) -> NDArray[np.bool_]:
        """Which of (N, 3) points, metres, base frame, are the target's."""
        ...


class Tracker:
    """A contact's truth in this package's own scenes.

    Args:
        world: Asked for truth.
        contact: As it was when this is made.
        step: That it belongs to; the held thing is none that a planner could mean.
    """

    def __init__(self, world: World, contact: FirstContact, step: Step) -> None:
        truth = contact.truth
        self.world, self.truth, self._onward = world, truth, contact.onward
        self._T_thing_tcp = world.object_pose(truth.target).inverse() @ truth.T_base_tcp
        self._base = float(world.object_pose(truth.target).translation[2])
        self._held = step.source if truth.target != step.source else ""
        self.kind = world.scene.object(truth.target).kind

    def pose(self) -> Transform:
        """T_base_tcp of the contact now."""
        return self.world.object_pose(self.truth.target) @ self._T_thing_tcp

    def labels(self) -> dict[str, Any]:
        """Columns of ``data_bank.LABELS`` that truth alone gives."""
        pose = self.pose()
        risen = float(self.world.object_pose(self.truth.target).translation[2]) - self._base
        others = np.full((OTHERS, 2), np.nan)
        spots = self._others(pose)
        others[: len(spots)] = spots[:OTHERS]
        return {
            "event": int(self.truth.event),
            "pose": np.concatenate([pose.translation, pose.quat()]),
            "yaw_period": self.truth.yaw_period,
            "z_band": np.asarray(self.truth.z_band) + risen,
            "x_band": self.truth.x_band,
            "others": others,
            "onward": self._onward,
        }

    def _others(self, pose: Transform) -> Array:
        found = []
        middle = self.world.object_pose(self.truth.target).translation[:2]
        for thing in self.world.scene.objects:
            spot = self.world.object_pose(thing.name).translation[:2]
            same = thing.name in (self.truth.target, self._held) or thing.kind in UNSEEN
            if not same and np.linalg.norm(spot - middle) > APART:
                found.append(spot)
        found.sort(key=lambda s: float(np.linalg.norm(s - pose.translation[:2])))
        return np.array(found).reshape(-1, 2)

    def on_target(self, points: Array) -> NDArray[np.bool_]:
        """Which of (N, 3) points, metres, base frame, are the target's."""
        if self.kind in UNSEEN or not len(points):
            return np.zeros(len(points), bool)
        near = np.linalg.norm(points - self.pose().translation, axis=1) < NEAR
        return np.asarray(near & on_body(self.world, self.truth.target, points))


def on_body(world: World, name: str, points: Array, margin: float = MARGIN) -> NDArray[np.bool_]:
    """Which of (N, 3) points, metres, base frame, lie in or at most ``margin`` outside a thing's geometry."""
    model, data = world.model, world.data
    root = int(model.body(name).id)
    found = np.zeros(len(points), bool)
    for geom in range(model.ngeom):
        body = int(model.geom_bodyid[geom])
        while body not in (root, 0):
            body = int(model.body_parentid[body])
        if body != root:
            continue
        rotation, size = data.geom_xmat[geom].reshape(3, 3), model.geom_size[geom]
        kind = int(model.geom_type[geom])
        found |= in_shape(kind, size, (points - data.geom_xpos[geom]) @ rotation, margin)
    return found


def in_shape(kind: int, size: Array, local: Array, margin: float = MARGIN) -> NDArray[np.bool_]:
    """Which of (N, 3) points, metres, in a geom's frame, lie in or at most ``margin`` outside it.

    Args:
        kind: Of mjtGeom: a box, a cylinder; anything else counts as a sphere.
        size: (3,) metres, MuJoCo's meaning for the kind.
        local: The points.
        margin: Metres.
    """
    if kind == _KIND.mjGEOM_BOX:
        inside = np.all(np.abs(local) <= size + margin, axis=1)
    elif kind == _KIND.mjGEOM_CYLINDER:
        inside = np.hypot(local[:, 0], local[:, 1]) <= size[0] + margin
        inside &= np.abs(local[:, 2]) <= size[1] + margin
    else:
        inside = np.linalg.norm(local, axis=1) <= size[0] + margin
    return np.asarray(inside)
