"""From a plan's waypoints to guidance: a timed spline in the base frame, indexed by progress."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from bridgevla_ros.core import bspline
from bridgevla_ros.core.config import param
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.guidance_samples import Samples
from bridgevla_ros.core.time_law import Limits, plan_time_law, velocities
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import GripperEvent, Guidance, Waypoint, WaypointKind, WaypointPlan

MAX_WAYPOINTS = 64
"""About five suffice for a sub-goal; more than this is a runaway planner."""
MAX_CONTACT_OFFSET = 0.3
"""Metres: nothing that one hand holds reaches farther (our choice)."""


@dataclass(frozen=True)
class TrajectoryConfig:
    """Parameters of the trajectory generator."""

    max_speed: float = param(0.25, "Linear speed limit of the TCP", unit="m/s", ge=0.01, le=2.0)
    max_acceleration: float = param(1.0, "Linear acceleration limit", unit="m/s^2", ge=0.05, le=20.0)
    max_jerk: float = param(10.0, "Linear jerk limit", unit="m/s^3", ge=0.5, le=1000.0)
    max_angular_speed: float = param(1.0, "Angular speed limit", unit="rad/s", ge=0.02, le=6.0)
    max_angular_acceleration: float = param(
        4.0, "Angular acceleration limit", unit="rad/s^2", ge=0.1, le=50.0
    )
    max_angular_jerk: float = param(40.0, "Angular jerk limit", unit="rad/s^3", ge=1.0, le=2000.0)
    contact_speed: float = param(0.12, "Speed limit on the way into a contact", unit="m/s", ge=0.005, le=2.0)
    sample_period: float = param(
        0.02, "Nominal time between samples of the guidance", unit="s", ge=0.002, le=0.2
    )
    workspace_min: tuple[float, ...] = param(
        (0.25, -0.40, -0.01), "Lowest corner of the box that TCP waypoints and path stay in", unit="m"
    )
    workspace_max: tuple[float, ...] = param((0.80, 0.40, 0.60), "Highest corner of that box", unit="m")
    table_height: float = param(
        0.0, "Height of the support plane in the base frame", unit="m", ge=-2.0, le=2.0
    )
    low_start: float = param(
        0.12, "A start lower than this above the table rises first", unit="m", ge=0.0, le=1.0
    )
    rise_height: float = param(
        0.15, "Height above the table that a low start rises to", unit="m", ge=0.0, le=1.0
    )

    def limits(self) -> Limits:
        """Speed, acceleration and jerk limits."""
        return Limits(
            self.max_speed,
            self.max_acceleration,
            self.max_jerk,
            self.max_angular_speed,
            self.max_angular_acceleration,
            self.max_angular_jerk,
            self.contact_speed,
        )


@dataclass(frozen=True, eq=False)
class _Stop:
    """A waypoint in the base frame, as the path needs it."""

    position: Array
    quat: Array
    kind: WaypointKind
    event: GripperEvent
    width: float
    exact: bool = False
    contact_offset: Array = field(default_factory=lambda: np.zeros(3))


@dataclass(frozen=True, eq=False)
class Route:
    """Where a plan leads; when is another matter.

    Attributes:
        pieces: Spline between two rests, with the indices of the stops at its ends.
        widths: Metres between the pads on leaving each stop.
        before: Stops that come before the first waypoint: the start, perhaps a rise.
    """

    pieces: list[tuple[bspline.PathSpline, int, int]]
    widths: tuple[float, ...]
    before: int


class TrajectoryGenerator:
    """Turns plans into guidance; holds nothing but its configuration."""

    def __init__(self, config: TrajectoryConfig) -> None:
        """Raises BridgeError BAD_INPUT for a workspace that is no box."""
        self.config = config
        self._low = np.array(config.workspace_min, np.float64)
        self._high = np.array(config.workspace_max, np.float64)
        if self._low.shape != (3,) or self._high.shape != (3,) or not np.all(self._low < self._high):
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"workspace {config.workspace_min} .. {config.workspace_max} is not a box of three sides",
                remedy="Give workspace_min and workspace_max three numbers each, the first below the second.",
            )

    def generate(
        self,
        plan: WaypointPlan,
        T_base_camera: Transform,
        T_base_tcp_start: Transform,
        gripper_width: float,
    ) -> Guidance:
        """Lay a timed spline from the measured TCP through the waypoints of a plan.

        Args:
            plan: Waypoints in the camera frame; a refused plan gives a refused guidance with its code.
            T_base_camera: At the plan's stamp.
            T_base_tcp_start: Measured TCP now.
            gripper_width: Measured width now, metres.

        Returns:
            Guidance whose samples keep every limit, or a refusal that says what was wrong.
        """
        if plan.code != ErrorCode.NONE:
            return refusal(plan, BridgeError(plan.code, plan.message))
        try:
            stops = self._stops(plan.waypoints, T_base_camera, T_base_tcp_start, gripper_width)
        except BridgeError as error:
            return refusal(plan, error)
        return self._sample(plan, stops)

    def route(
        self,
        waypoints: tuple[Waypoint, ...],
        T_base_camera: Transform,
        T_base_tcp_start: Transform,
        gripper_width: float,
    ) -> Route:
        """The path that ``generate`` would time. Raises BridgeError where it would refuse."""
        stops = self._stops(waypoints, T_base_camera, T_base_tcp_start, gripper_width)
        widths = [gripper_width]
        for stop in stops[1:]:
            widths.append(widths[-1] if stop.event == GripperEvent.NONE else stop.width)
        return Route(self._pieces(stops, len(waypoints)), tuple(widths), len(stops) - len(waypoints))

    def _stops(
        self,
        waypoints: tuple[Waypoint, ...],
        T_base_camera: Transform,
        start: Transform,
        gripper_width: float,
    ) -> list[_Stop]:
        """Start, perhaps a rise, and the waypoints, checked, in the base frame."""
        _check_transform("camera pose in the base frame", T_base_camera)
        _check_transform("measured TCP pose", start)
        _check_width("measured gripper width", gripper_width)
        if not 1 <= len(waypoints) <= MAX_WAYPOINTS:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"plan has {len(waypoints)} waypoints; expected 1 to {MAX_WAYPOINTS}",
                value=len(waypoints),
                limit=MAX_WAYPOINTS,
            )
        quat = start.quat()
        stops = [_Stop(start.translation, quat, WaypointKind.VIA, GripperEvent.NONE, gripper_width)]
        if start.translation[2] < self.config.table_height + self.config.low_start:
            above = start.translation.copy()
            above[2] = self.config.table_height + self.config.rise_height
            stops.append(_Stop(above, quat, WaypointKind.VIA, GripperEvent.NONE, gripper_width))
        for index, waypoint in enumerate(waypoints):
            stops.append(self._stop(index, waypoint, T_base_camera, stops[-1].quat))
        return stops

    def _stop(self, index: int, waypoint: Waypoint, T_base_camera: Transform, before: Array) -> _Stop:
        name = f"waypoint {index} ({waypoint.kind.name})"
        _check_transform(name, waypoint.T_camera_tcp)
        if waypoint.gripper_event != GripperEvent.NONE:
            _check_width(f"gripper width of {name}", waypoint.gripper_width)
        pose = T_base_camera @ waypoint.T_camera_tcp
        for axis, (value, low, high) in enumerate(zip(pose.translation, self._low, self._high, strict=True)):
            if not low <= value <= high:
                limit = low if value < low else high
                raise BridgeError(
                    ErrorCode.OUT_OF_WORKSPACE,
                    f"{name}: {'xyz'[axis]} is {value:.3f} m, {'below' if value < low else 'above'} the "
                    f"workspace limit {limit:.3f} m in the base frame",
                    value=float(value),
                    limit=float(limit),
                    unit="m",
                    remedy="Move the object into reach, or widen the workspace box if the cell allows it.",
                )
        quat = pose.quat() if waypoint.orientation_valid else before
        if quat @ before < 0.0:
            quat = -quat
        event, width = waypoint.gripper_event, float(waypoint.gripper_width)
        _check_offset(f"contact offset of {name}", waypoint.contact_offset)
        return _Stop(
            pose.translation, quat, waypoint.kind, event, width, waypoint.exact, waypoint.contact_offset
        )

    def _pieces(self, stops: list[_Stop], waypoints: int) -> list[tuple[bspline.PathSpline, int, int]]:
        """Splines between rests, with the indices of the first and last stop of each."""
        positions = np.array([s.position for s in stops])
        quats = np.array([s.quat for s in stops])
        contact = np.array([s.kind == WaypointKind.CONTACT for s in stops])
        straight = contact[1:] | contact[:-1]
        straight[0] |= len(stops) - waypoints == 2  # the rise
        rests = contact | np.array([s.event != GripperEvent.NONE for s in stops])
        box = (np.minimum(self._low, positions.min(0)), np.maximum(self._high, positions.max(0)))
        return bspline.build(positions, quats, straight, rests, box)

    def _sample(self, plan: WaypointPlan, stops: list[_Stop]) -> Guidance:
        config = self.config
        positions = np.array([s.position for s in stops])
        contact = np.array([s.kind == WaypointKind.CONTACT for s in stops])
        clock, sampled = 0.0, Samples()
        reached = np.zeros(len(stops))
        for path, first, last in self._pieces(stops, len(plan.waypoints)):
            turn = float(np.abs(path.turns).max())
            if (
                first + 1 == last
                and np.linalg.norm(positions[last] - positions[first]) < 1e-6
                and turn < 1e-6
            ):
                reached[last] = clock  # already there
                continue
            law = plan_time_law(path, config.limits(), contact[first + 1 : last + 1])
            count = int(np.ceil(law.duration / config.sample_period)) + 1
            local = np.linspace(0.0, law.duration, count)
            u, u_rate = law.at(local)
            u_rate[[0, -1]] = 0.0
            linear, angular = velocities(path, u, u_rate)
            leg, _ = path.legs(u)
            kinds = np.array([s.kind for s in stops[first + 1 : last + 1]], np.int64)[leg]
            sampled.add(clock + local, path.position(u), path.quat(u), linear, angular, kinds)
            clock += law.duration
            reached[last] = clock
        if not sampled.time:
            hold = stops[-1]
            sampled.hold(hold.position, hold.quat, hold.kind, config.sample_period)
            clock = config.sample_period
        return self._guidance(plan, stops, sampled, reached / clock)

    def _guidance(
        self, plan: WaypointPlan, stops: list[_Stop], sampled: Samples, progress_at: Array
    ) -> Guidance:
        time, position, quat, linear, angular, kind = sampled.joined()
        events = [i for i, s in enumerate(stops) if s.event != GripperEvent.NONE]
        contacts = [i for i, s in enumerate(stops) if s.kind == WaypointKind.CONTACT and not s.exact]
        digest = hashlib.sha256()
        for part in (plan.plan_id, plan.digest):
            digest.update(part.encode())
        for values in (time, position, quat):
            digest.update(np.round(values, 9).tobytes())
        return Guidance(
            stamp=plan.stamp,
            base_frame=plan.base_frame,
            guidance_id=f"{plan.plan_id}-{digest.hexdigest()[:12]}",
            plan_id=plan.plan_id,
            task_id=plan.task_id,
            progress=time / time[-1],
            nominal_time=time,
            position=position,
            quat=quat,
            linear_velocity=linear,
            angular_velocity=angular,
            event_progress=progress_at[events],
            events=tuple(stops[i].event for i in events),
            event_width=np.array([stops[i].width for i in events], np.float64),
            kind=kind,
            contact_position=np.array([stops[i].position for i in contacts], np.float64).reshape(-1, 3),
            contact_progress=progress_at[contacts],
            contact_offset=np.array([stops[i].contact_offset for i in contacts], np.float64).reshape(-1, 3),
        )


def refusal(plan: WaypointPlan, error: BridgeError) -> Guidance:
    """Guidance without samples that says why a plan is not followed."""
    return refused(plan.stamp, plan.base_frame, plan.plan_id, plan.task_id, error)


def refused(stamp: float, base_frame: str, plan_id: str, task_id: str, error: BridgeError) -> Guidance:
    """Like ``refusal``, for a plan that could not even be read."""
    none, vectors = np.empty(0), np.empty((0, 3))
    return Guidance(
        stamp=stamp,
        base_frame=base_frame,
        guidance_id="",
        plan_id=plan_id,
        task_id=task_id,
        progress=none,
        nominal_time=none,
        position=vectors,
        quat=np.empty((0, 4)),
        linear_velocity=vectors,
        angular_velocity=vectors,
        event_progress=none,
        events=(),
        event_width=none,
        kind=np.empty(0, np.int64),
        contact_position=vectors,
        contact_progress=none,
        contact_offset=vectors,
        code=error.code,
        message=error.message,
        value=error.value,
        limit=error.limit,
        unit=error.unit,
    )


def _check_transform(name: str, transform: Transform) -> None:
    finite = np.isfinite(transform.translation).all() and np.isfinite(transform.rotation).all()
    error = (
        float(np.abs(transform.rotation @ transform.rotation.T - np.eye(3)).max()) if finite else float("nan")
    )
    if not finite or error > 1e-3 or np.linalg.det(transform.rotation) < 0.0:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{name} is not a rigid transform: translation {transform.translation.tolist()}, "
            f"rotation {transform.rotation.tolist()}",
            value=error,
            limit=1e-3,
        )


def _check_offset(name: str, offset: Array) -> None:
    length = float(np.linalg.norm(offset)) if np.shape(offset) == (3,) else np.nan
    if not length <= MAX_CONTACT_OFFSET:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{name} is {np.asarray(offset).tolist()} m",
            value=length,
            limit=MAX_CONTACT_OFFSET,
            unit="m",
            remedy="Give metres (x, y, z) from the TCP to where contact is made; zeros between the fingers.",
        )


def _check_width(name: str, width: float) -> None:
    if not np.isfinite(width) or width < -1e-3:
        raise BridgeError(
            ErrorCode.BAD_INPUT, f"{name} is {width} m; expected 0 or more", value=width, limit=0.0, unit="m"
        )
