"""Anchors from the simulator's truth: measures all that comes after the language model apart from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.camera import project
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import RgbdFrame
from bridgevla_ros.planner.backends import Anchor, Anchors, LocalWaypoint
from bridgevla_ros.simulation.world import World


class TruthBackend:
    """A planner backend that is told where the named things are; for evaluation only.

    Its anchor is the visible pixel of the thing nearest to the middle of what is visible of it. Depth,
    grasp geometry, plan gate and all that follows are the planner's own.
    """

    name = "truth"
    sha256 = ""

    def __init__(self, world: World, source: str, destination: str) -> None:
        self._world, self._source, self._destination = world, source, destination

    def anchors(self, frame: RgbdFrame, T_base_camera: Transform, clause: str, seed: int) -> Anchors:
        """First turn. Raises BridgeError NO_TARGET where a named thing is hidden."""
        labels = self._world.render_segmentation()
        return Anchors(
            self._anchor(frame, labels, self._source), self._anchor(frame, labels, self._destination)
        )

    def _anchor(self, frame: RgbdFrame, labels: NDArray[np.int32], name: str) -> Anchor:
        index = [thing.name for thing in self._world.scene.objects].index(name) + 1
        pixels = np.argwhere(labels == index)[:, ::-1].astype(float)
        if not len(pixels):
            raise BridgeError(ErrorCode.NO_TARGET, f"the {name} is hidden from the camera")
        thing = self._world.scene.object(name)
        middle = pixels.mean(0)
        if thing.kind == "drawer":  # its open part, not its cabinet
            reach = (thing.size[0] + self._world.drawer_opening(name)) / 2
            tray_base = self._world.object_pose(name).apply([reach, 0.0, thing.size[2] / 3])
            middle = project(self._world.T_base_camera.inverse().apply(tray_base[None]), frame.intrinsics)[0]
        return Anchor(name, pixels[np.argmin(((pixels - middle) ** 2).sum(1))], 1.0)

    def waypoints(
        self, frame: RgbdFrame, clause: str, anchors: Anchors, depths: Array, seed: int
    ) -> list[LocalWaypoint]:
        """Second turn. Raises BridgeError MODEL_ERROR: truth gives anchors only."""
        raise BridgeError(ErrorCode.MODEL_ERROR, "the truth backend gives anchors, not waypoints")
