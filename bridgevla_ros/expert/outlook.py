"""What lies ahead on a guidance: window, next contact, and how much of its correction belongs where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.guidance import GuidanceWindow, chain, contact_pose, contacts_done, event_at, window
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import GripperEvent, Guidance
from bridgevla_ros.expert import features
from bridgevla_ros.expert.config import ModelConfig


@dataclass(frozen=True, eq=False)
class Contact:
    """The next contact of a guidance, or its end where none is left.

    Attributes:
        exists: False: nothing is corrected; no contact is left (``T_base_local`` stands at the end of
            the path), or the hand is within a chain of contacts.
        T_base_local: Local frame of the contact, at the point where it is made.
        event: What the gripper does there; NONE where it presses, pushes or pulls.
        width: Metres after that event; NaN without one.
        onward: (3,) metres, base frame, from it to the next contact of its chain; zeros without one.
        tilt: Rad between the hand there and straight down.
        offset: (3,) metres, TCP frame: from the TCP to where contact is made (``Waypoint.contact_offset``).
    """

    exists: bool
    T_base_local: Transform
    event: GripperEvent
    width: float
    onward: Array
    tilt: float
    offset: Array

    def made_at(self, position: Array, rotation: Array) -> Array:
        """Where contact would be made with the TCP at (..., 3) metres and turned as (..., 3, 3) say."""
        return np.asarray(position + rotation @ self.offset)


@dataclass(frozen=True, eq=False)
class Outlook:
    """Guidance ahead of an executed progress.

    Attributes:
        window: Guidance at the steps; ``now``: guidance at the executed progress (H = 1).
        rotations: (H, 3, 3) of the window.
        contact: The next contact.
        weights: (H,) share of its correction along the window; ``gains``: (H,) see ``features``.
        contacts_done: Contacts that are over.
        kept: (H,) share of the last contact's correction at the steps; ``kept_now``: at the executed
            progress. Whole along the chain of that contact, then fading; 0 before the first contact.
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
    contacts_done: int
    kept: Array
    kept_now: float
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
    done = contacts_done(guidance, progress, events_done)
    contact = next_contact(guidance, done, up)
    weights, gain = np.zeros(model.horizon), np.zeros(model.horizon)
    kept, kept_now = np.zeros(model.horizon), 0.0
    if done > 0:
        kept = features.fade(_apart(guidance, done - 1, ahead), model)
        kept_now = float(features.fade(_apart(guidance, done - 1, now), model)[0])
    if contact.exists:
        weights = features.weight(_apart(guidance, done, ahead), model)
        here = features.weight(_apart(guidance, done, now), model)
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
        contacts_done=done,
        kept=kept,
        kept_now=kept_now,
        clamped=clamped.astype(float),
        widths=np.where(clamped, event_width, before),
        event_width=event_width,
    )


def next_contact(guidance: Guidance, done: int, up: Array) -> Contact:
    """The contact after ``done`` of them; else the end of the path.

    Within a chain of contacts it is not one to correct: the hand holds on, and the correction of the
    chain's first contact is kept.
    """
    if done >= len(guidance.contact_progress):
        rotation = Rotation.from_quat(guidance.quat[-1]).as_matrix()
        frame = features.local_frame(guidance.position[-1], rotation, up)
        return Contact(False, frame, GripperEvent.NONE, float("nan"), np.zeros(3), 0.0, np.zeros(3))
    pose = contact_pose(guidance, done)
    frame = features.local_frame(pose.translation, pose.rotation, up)
    event = event_at(guidance, done)
    first, last = chain(guidance, done)
    onward = contact_pose(guidance, min(done + 1, last)).translation - pose.translation
    tilt = float(np.arccos(np.clip(-pose.rotation[:, 2] @ up / np.linalg.norm(up), -1.0, 1.0)))
    what, width = GripperEvent.NONE, float("nan")
    if event is not None:
        what, width = guidance.events[event], float(guidance.event_width[event])
    offset = guidance.contact_offset[done]
    return Contact(first == done, frame, what, width, onward, tilt, offset)


def _apart(guidance: Guidance, contact: int, ahead: GuidanceWindow) -> Array:
    """(H,) metres from a contact, or from the end of its chain behind it; 0 within the chain."""
    first, last = chain(guidance, contact)
    begin, end = guidance.contact_progress[first], guidance.contact_progress[last]
    before = np.linalg.norm(ahead.position - guidance.contact_position[first], axis=1)
    after = np.linalg.norm(ahead.position - guidance.contact_position[last], axis=1)
    inside = (ahead.progress >= begin) & (ahead.progress <= end)
    return np.where(inside, 0.0, np.where(ahead.progress < begin, before, after))
