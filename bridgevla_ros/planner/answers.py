"""What a backend answers: anchors in the image, and perhaps waypoints around them."""

from __future__ import annotations

from dataclasses import dataclass

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import GripperEvent, WaypointKind


class AlreadyDone(BridgeError):
    """What is asked for is so before anything moved: an answer, with code NONE, and no refusal."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.NONE, message)


@dataclass(frozen=True, eq=False)
class Anchor:
    """A point in the image that answers one role of the instruction.

    Attributes:
        label: Words it stands for.
        pixel: (2,) u, v.
        confidence: 0..1.
    """

    label: str
    pixel: Array
    confidence: float


@dataclass(frozen=True, eq=False)
class Anchors:
    """Answer of the first turn.

    Attributes:
        source: What to take.
        destination: Where to put it; None when the instruction names no place.
        null_probability: 0..1, the surer of the two that a named thing is not there.
        remaining: How many things fitted the words of the source, itself among them; 1 where it is not known.
        reference: What the destination is told by, where it is a free spot beside something; else None.
    """

    source: Anchor
    destination: Anchor | None
    null_probability: float = 0.0
    remaining: int = 1
    reference: Anchor | None = None


@dataclass(frozen=True, eq=False)
class LocalWaypoint:
    """A waypoint of the second turn, in the gravity-aligned, camera-yaw frame.

    That frame has z up and x along the camera's view on the ground; its origin is the lifted anchor.

    Attributes:
        anchor: 0 source, 1 destination.
        offset: (3,) metres from that anchor.
        yaw: rad, of the finger opening from the frame's y axis, about z.
        kind: What it is for.
        event: What the gripper does on arrival.
    """

    anchor: int
    offset: Array
    yaw: float
    kind: WaypointKind
    event: GripperEvent
