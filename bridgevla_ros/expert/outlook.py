"""What lies ahead on a guidance: window, next contact, and how much of its correction belongs where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.trajectory import GuidanceWindow, window
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import GripperEvent, Guidance
from bridgevla_ros.expert import features
from bridgevla_ros.expert.config import ModelConfig


@dataclass(frozen=True, eq=False)
class Contact:
    """The next contact of a guidance, or its end where none is left.

    Attributes:
        exists: False: ``T_base_local`` stands at the end of the path and nothing is corrected.
        T_base_local: Local frame of the contact.
        event: What the gripper does there.
        width: Metres after that event.
    """

    exists: bool
    T_base_local: Transform
    event: GripperEvent
    width: float


@dataclass(frozen=True, eq=False)
class Outlook:
    """Guidance ahead of an executed progress.

    Attributes:
        window: Guidance at the steps; ``now``: guidance at the executed progress (H = 1).
        rotations: (H, 3, 3) of the window.
        contact: The next contact.
        weights: (H,) share of its correction along the window; ``gains``: (H,) see ``features``.
        clamped: (H,) 1 where the window waits at an event.
        widths: (H,) metres, scheduled gripper width.
        event_width: Metres after the next event (now, if none is left).
    """

    window: GuidanceWindow
    now: GuidanceWindow
    rotations: Array
    contact: Contact
    weights: Array
    gains: Array
    clamped: Array
    widths: Array
    event_width: float


def look_ahead(
    guidance: Guidance, progress: float, events_done: int, gripper_width: float, model: ModelConfig, up: Array
) -> Outlook:
    """Window, next contact and gains at an executed progress.

    Args:
        guidance: Not a refusal.
        progress: 0..1.
        events_done: Gripper events completed.
        gripper_width: Metres, scheduled before the first event.
        model: Horizon and blend.
        up: (3,) against gravity, base frame.
    """
    ahead = window(guidance, progress, events_done, model.horizon, model.dt)
    now = window(guidance, progress, events_done, 1, 0.0)
    contact = next_contact(guidance, events_done, up)
    origin = contact.T_base_local.translation
    weights, gain = np.zeros(model.horizon), np.zeros(model.horizon)
    if contact.exists:
        weights = features.weight(np.linalg.norm(ahead.position - origin, axis=1), model)
        here = features.weight(np.linalg.norm(now.position - origin, axis=1), model)
        gain = features.gains(weights, here[0], (weights[0] - here[0]) / model.dt, model)
    left = events_done < len(guidance.events)
    clamped = np.zeros(model.horizon, bool)
    if left:
        clamped = ahead.progress >= guidance.event_progress[events_done] - 1e-9
    past = 0 < events_done <= len(guidance.events)
    before = float(guidance.event_width[events_done - 1]) if past else gripper_width
    event_width = float(guidance.event_width[events_done]) if left else before
    return Outlook(
        window=ahead,
        now=now,
        rotations=Rotation.from_quat(ahead.quat).as_matrix(),
        contact=contact,
        weights=weights,
        gains=gain,
        clamped=clamped.astype(float),
        widths=np.where(clamped, event_width, before),
        event_width=event_width,
    )


def next_contact(guidance: Guidance, events_done: int, up: Array) -> Contact:
    """The first contact whose event is not done yet; else the end of the path."""
    passed = float(guidance.event_progress[events_done - 1]) if events_done > 0 else -1.0
    ahead = np.flatnonzero(guidance.contact_progress > passed + 1e-9)
    if len(ahead) == 0 or events_done >= len(guidance.events):
        rotation = Rotation.from_quat(guidance.quat[-1]).as_matrix()
        frame = features.local_frame(guidance.position[-1], rotation, up)
        return Contact(False, frame, GripperEvent.NONE, float("nan"))
    index = int(ahead[0])
    at = float(guidance.contact_progress[index])
    nearest = int(np.abs(guidance.progress - at).argmin())
    frame = features.local_frame(
        guidance.contact_position[index], Rotation.from_quat(guidance.quat[nearest]).as_matrix(), up
    )
    event = int(np.abs(guidance.event_progress - at).argmin())
    return Contact(True, frame, guidance.events[event], float(guidance.event_width[event]))


def contact_of_event(guidance: Guidance, event: int) -> Array | None:
    """(3,) position of the contact at which an event happens; None if it happens elsewhere."""
    if event >= len(guidance.event_progress):
        return None
    apart = np.abs(guidance.contact_progress - guidance.event_progress[event])
    if len(apart) == 0 or apart.min() > 1e-3:
        return None
    return np.asarray(guidance.contact_position[int(apart.argmin())])
