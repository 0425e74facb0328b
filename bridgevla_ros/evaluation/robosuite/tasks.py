"""robosuite's tasks as this package meets them: words, camera, table, workspace. Base frame, metres."""

from __future__ import annotations

from dataclasses import dataclass

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.types import CameraIntrinsics
from bridgevla_ros.simulation.scene import CameraSpec

WIDTH, HEIGHT = 320, 240


@dataclass(frozen=True)
class TaskSetup:
    """One task.

    Attributes:
        name: robosuite's.
        instruction: What the operator says.
        table_height: Of the surface that things stand on: the arm stands on a pedestal above it.
        camera: The adapter's own, fixed to the arm's base.
        workspace: Lowest and highest corner of the box that the TCP and its waypoints stay in.
    """

    name: str
    instruction: str
    table_height: float
    camera: CameraSpec
    workspace: tuple[tuple[float, float, float], tuple[float, float, float]]

    @property
    def intrinsics(self) -> CameraIntrinsics:
        """Of colour and depth image."""
        return self.camera.intrinsics(WIDTH, HEIGHT)


# Opposite the arm, as far and as steep as in this package's own scenes.
_FRONT = CameraSpec.look_at((1.20, 0.0, 0.55), (0.56, 0.0, -0.09), 42.0)
_TABLE = ((0.25, -0.40, -0.13), (0.85, 0.40, 0.50))

TASKS = {
    setup.name: setup
    for setup in (
        TaskSetup("Lift", "pick up the red cube", -0.112, _FRONT, _TABLE),
        TaskSetup("Stack", "put the red cube on the green cube", -0.112, _FRONT, _TABLE),
        TaskSetup(
            "PickPlaceCan",
            "put the red can in the dark wooden box",
            -0.092,
            CameraSpec.look_at((1.45, 0.115, 0.75), (0.60, 0.115, -0.09), 50.0),
            ((0.25, -0.50, -0.11), (0.90, 0.70, 0.50)),
        ),
        TaskSetup(
            "NutAssemblySquare",
            "put the square nut on the square peg",
            -0.092,
            CameraSpec.look_at((1.35, 0.10, 0.60), (0.62, 0.10, -0.07), 42.0),
            ((0.20, -0.40, -0.11), (0.90, 0.50, 0.50)),
        ),
        TaskSetup(
            "Door",
            "open the door",
            -0.112,
            CameraSpec.look_at((1.10, 0.60, 0.55), (0.40, -0.22, 0.16), 42.0),
            ((0.10, -0.50, -0.13), (0.85, 0.50, 0.70)),
        ),
    )
}


def setup_of(task: str) -> TaskSetup:
    """The task of a name.

    Raises:
        BridgeError: BAD_INPUT, there is no such task.
    """
    if task not in TASKS:
        raise BridgeError(
            ErrorCode.BAD_INPUT, f"robosuite task {task!r}", remedy=f"Use one of {', '.join(TASKS)}."
        )
    return TASKS[task]
