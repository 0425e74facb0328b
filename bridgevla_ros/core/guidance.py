"""What guidance tells at a progress: the window ahead, contacts, gripper events, the end of a retreat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import GripperEvent, Guidance, WaypointKind

_SAME = 1e-6
"""Progress by which a contact and its gripper event may differ."""


@dataclass(frozen=True, eq=False)
class GuidanceWindow:
    """Guidance at the next H nominal times, waiting at the next unfinished gripper event and at the end.

    Attributes:
        progress: (H,) 0..1.
        position: (H, 3) metres, TCP, base frame.
        quat: (H, 4) x, y, z, w.
        linear_velocity: (H, 3) m/s; 0 while it waits.
        angular_velocity: (H, 3) rad/s, base frame; 0 while it waits.
    """

    progress: Array
    position: Array
    quat: Array
    linear_velocity: Array
    angular_velocity: Array


def window(guidance: Guidance, progress: float, events_done: int, horizon: int, dt: float) -> GuidanceWindow:
    """Guidance at ``dt``, 2 ``dt``, ... ``horizon`` ``dt`` of nominal time after an executed progress.

    Args:
        guidance: Not a refusal.
        progress: 0..1, executed.
        events_done: Gripper events completed; the window waits at the next one.
        horizon: H.
        dt: Seconds.

    Raises:
        BridgeError: BAD_INPUT, the guidance has no samples or progress is not a number.
    """
    if not len(guidance.progress) or not np.isfinite(progress):
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"no guidance at progress {progress} of {len(guidance.progress)} samples",
            value=progress,
        )
    duration = guidance.duration
    last = 1.0
    if events_done < len(guidance.event_progress):
        last = float(guidance.event_progress[max(events_done, 0)])
    wanted = float(np.clip(progress, 0.0, 1.0)) * duration + dt * np.arange(1, horizon + 1)
    times = np.minimum(wanted, last * duration)
    grid = guidance.nominal_time
    after = np.clip(np.searchsorted(grid, times, side="right"), 1, len(grid) - 1)
    before = after - 1
    span = grid[after] - grid[before]
    x = np.clip((times - grid[before]) / span, 0.0, 1.0)[:, None]
    span = span[:, None]
    p0, p1 = guidance.position[before], guidance.position[after]
    v0, v1 = guidance.linear_velocity[before], guidance.linear_velocity[after]
    position = (  # cubic Hermite: agrees with the sampled velocities
        (1 + 2 * x) * (1 - x) ** 2 * p0
        + x * (1 - x) ** 2 * span * v0
        + x**2 * (3 - 2 * x) * p1
        - x**2 * (1 - x) * span * v1
    )
    q0, q1 = guidance.quat[before], guidance.quat[after]
    q1 = np.where(np.sum(q0 * q1, axis=1, keepdims=True) < 0.0, -q1, q1)
    quat = (1 - x) * q0 + x * q1  # neighbours are 20 ms apart: normalising is as good as slerp
    moving = (wanted <= last * duration)[:, None]
    return GuidanceWindow(
        progress=times / duration,
        position=position,
        quat=quat / np.linalg.norm(quat, axis=1, keepdims=True),
        linear_velocity=np.where(moving, (1 - x) * v0 + x * v1, 0.0),
        angular_velocity=np.where(
            moving, (1 - x) * guidance.angular_velocity[before] + x * guidance.angular_velocity[after], 0.0
        ),
    )


def contacts_done(guidance: Guidance, progress: float, events_done: int) -> int:
    """How many CONTACT waypoints are over.

    One is over when its gripper event is done; one without an event when progress is beyond it.
    """
    for index, at in enumerate(guidance.contact_progress):
        due = int(np.sum(guidance.event_progress <= at + _SAME))
        acts = event_at(guidance, index) is not None
        if progress <= at + 1e-3 and not (acts and events_done >= due):
            return index
    return len(guidance.contact_progress)


def contact_pose(guidance: Guidance, contact: int) -> Transform:
    """T_base_tcp at a contact, moved to where contact is made (the TCP itself but for what is held aside)."""
    nearest = int(np.abs(guidance.progress - guidance.contact_progress[contact]).argmin())
    tcp = Transform.from_quat(guidance.contact_position[contact], guidance.quat[nearest])
    return Transform(tcp.apply(guidance.contact_offset[contact]), tcp.rotation)


def next_contact(guidance: Guidance, progress: float, events_done: int) -> Array | None:
    """Where the next CONTACT is made, (3,) metres, base frame: what perception should look at.

    After the last one it stays the last one. None for a refusal or a guidance without contacts.
    """
    if not len(guidance.contact_position):
        return None
    index = min(contacts_done(guidance, progress, events_done), len(guidance.contact_position) - 1)
    return contact_pose(guidance, index).translation


def chain(guidance: Guidance, contact: int) -> tuple[int, int]:
    """First and last of the contacts that follow each other without the hand leaving in between.

    Something is pushed, pulled or turned along a chain: a correction made at its first contact holds for
    all of it.

    Args:
        guidance: Not a refusal.
        contact: Index of a contact; an isolated one is its own chain.
    """
    first = last = contact
    while first > 0 and _stays(guidance, first - 1):
        first -= 1
    while last + 1 < len(guidance.contact_progress) and _stays(guidance, last):
        last += 1
    return first, last


def _stays(guidance: Guidance, contact: int) -> bool:
    """Whether the path leads from this contact straight to the next."""
    begin, end = guidance.contact_progress[contact : contact + 2]
    between = (guidance.progress > begin + _SAME) & (guidance.progress <= end + _SAME)
    return bool(np.all(guidance.kind[between] == WaypointKind.CONTACT))


def event_at(guidance: Guidance, contact: int) -> int | None:
    """Index of the gripper event that happens at a contact; None where it has none."""
    found = np.flatnonzero(np.abs(guidance.event_progress - guidance.contact_progress[contact]) <= _SAME)
    return int(found[0]) if len(found) else None


def grasps(guidance: Guidance, event: int) -> bool:
    """Whether a gripper event is to take hold of something.

    Closing at a CONTACT is; elsewhere the fingers are only shut, to press or push with them.
    """
    if not 0 <= event < len(guidance.events) or guidance.events[event] != GripperEvent.CLOSE:
        return False
    return bool(np.any(np.abs(guidance.contact_progress - guidance.event_progress[event]) <= _SAME))


def retreat_end(guidance: Guidance, progress: float) -> float:
    """Progress at which the retreat that begins at ``progress`` ends; ``progress`` if there is none."""
    end = progress
    for at, kind in zip(guidance.progress, guidance.kind, strict=True):
        if at <= progress:
            continue
        if kind != WaypointKind.RETREAT:
            break
        end = float(at)
    return end
