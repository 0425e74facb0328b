"""Points of many guidances, each in the local frame of its next contact: what stage 1 is trained on.

Guidance is the production code's own (``TrajectoryGenerator``, ``look_ahead``). Plans are drawn: pick and
place, lift, and contacts without a gripper event (press, push), with what real plans suffer beside the error
of their contact: waypoints that are missing, each other waypoint a little off its own way (seen from the
contact that is slow drift), other timing, and detours through free space. Recorded end-effector paths can be
added (``data_trajectories``).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.trajectory import TrajectoryConfig, TrajectoryGenerator
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import (
    CameraIntrinsics,
    GripperEvent,
    Guidance,
    Waypoint,
    WaypointKind,
    WaypointPlan,
)
from bridgevla_ros.expert.config import ModelConfig
from bridgevla_ros.expert.outlook import Outlook, look_ahead

DOWN = np.diag([1.0, -1.0, -1.0])
"""TCP orientation at yaw 0: looking straight down."""
UP: Array = np.array([0.0, 0.0, 1.0])
OPEN_WIDTH = 0.085
DRIFT = 0.008
"""Metres, standard deviation per axis of a waypoint that is no contact."""
MISSING = 0.12
"""Share of approaches and of retreats that a plan lacks."""
DETOUR = 0.35
"""Share of plans that go through one or two free points first."""

Stop = tuple[Transform, WaypointKind, GripperEvent, float]


class GuidanceLibrary:
    """Points of guidances, in the local frame of their next contact, sorted by distance from it.

    Attributes (R rows):
        rows: Name -> array with R first.
    """

    def __init__(self, plans: int, seed: int, model: ModelConfig, period: float = 0.2) -> None:
        rng = np.random.default_rng([seed, 0x61])
        self.model = model
        found: list[dict[str, Array]] = []
        for _ in range(plans):
            stops, start = random_stops(rng)
            guidance = random_generator(rng).generate(plan_of(stops), Transform.identity(), start, OPEN_WIDTH)
            if guidance.code != 0:
                raise ValueError(f"random plan was refused: {guidance.message}")
            found.extend(rows_along(guidance, model, period))
        self.rows: dict[str, Array] = {}
        self.extend(found)

    def extend(self, found: Iterable[dict[str, Array]]) -> None:
        """Add rows (of ``rows_along``)."""
        found = list(found)
        if found:
            new = {name: np.stack([row[name] for row in found]) for name in found[0]}
            self.rows = {
                name: np.concatenate([self.rows[name], v]) if self.rows else v for name, v in new.items()
            }
        distance = np.linalg.norm(self.rows["now"], axis=1)
        self._sorted: dict[int, tuple[NDArray[np.int64], Array]] = {}
        for event in GripperEvent:
            mine = np.flatnonzero((self.rows["exists"] > 0) & (self.rows["event"] == int(event)))
            mine = mine[np.argsort(distance[mine], kind="stable")]
            if len(mine):
                self._sorted[int(event)] = (mine, distance[mine])
        self.ended = np.flatnonzero(self.rows["exists"] == 0)

    def __len__(self) -> int:
        return len(self.rows["exists"])

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """Draw from these rows (R,) only."""
        for event, (index, distance) in list(self._sorted.items()):
            good = rows[index]
            self._sorted[event] = (index[good], distance[good])

    def draw(self, rng: np.random.Generator, event: NDArray[np.int64], distance: Array) -> NDArray[np.int64]:
        """(B,) rows whose next contact has these gripper events (B,), about these metres (B,) away."""
        out = np.empty(len(distance), np.int64)
        for kind in np.unique(event):
            index, away = self._sorted.get(int(kind), self._sorted[int(GripperEvent.OPEN)])
            which = np.flatnonzero(event == kind)
            width = 0.01 + 0.1 * distance[which]
            low = np.searchsorted(away, distance[which] - width)
            high = np.maximum(np.searchsorted(away, distance[which] + width), low + 1)
            pick = low + (rng.random(len(which)) * (high - low)).astype(np.int64)
            out[which] = index[np.minimum(pick, len(index) - 1)]
        return out


def rows_along(guidance: Guidance, model: ModelConfig, period: float) -> list[dict[str, Array]]:
    """A row every ``period`` seconds of a guidance, and one before and after each gripper event."""
    out = []
    events = guidance.event_progress
    step = period / guidance.duration
    for progress in np.arange(0.0, 1.0, step):
        done = int(np.sum(events < progress - 1e-9))
        near = np.flatnonzero(np.abs(events - progress) < 0.5 * step)
        for at, count in [(float(progress), done)] + [(float(events[i]), int(i)) for i in near]:
            ahead = look_ahead(guidance, at, count, OPEN_WIDTH, model, UP)
            out.append(row_of(ahead))
    return out


def row_of(ahead: Outlook) -> dict[str, Array]:
    """An outlook in the local frame of its contact: all that the features take from guidance."""
    frame = ahead.contact.T_base_local.inverse()
    width = ahead.widths[0] if not ahead.clamped[0] else OPEN_WIDTH
    row = {
        "window_position": frame.apply(ahead.window.position),
        "window_rotation": frame.rotation @ ahead.rotations,
        "gain": ahead.gains,
        "weight": ahead.weights[:1],
        "clamped": ahead.clamped,
        "widths": ahead.widths,
        "now": frame.apply(ahead.now.position[0]),
        "now_rotation": frame.rotation @ Rotation.from_quat(ahead.now.quat[0]).as_matrix(),
        "linear": frame.rotate(ahead.now.linear_velocity[0]),
        "angular": frame.rotate(ahead.now.angular_velocity[0]),
        "exists": float(ahead.contact.exists),
        "event": float(ahead.contact.event),
        "event_width": ahead.event_width,
        "before": width,
    }
    return {name: np.asarray(value, np.float64) for name, value in row.items()}


def random_generator(rng: np.random.Generator) -> TrajectoryGenerator:
    """The production generator with a timing of its own, and room for any plan."""
    return TrajectoryGenerator(
        TrajectoryConfig(
            max_speed=float(rng.uniform(0.12, 0.30)),
            contact_speed=float(rng.uniform(0.05, 0.14)),
            workspace_min=(-2.0, -2.0, -1.0),
            workspace_max=(2.0, 2.0, 2.0),
        )
    )


def plan_of(stops: list[Stop]) -> WaypointPlan:
    """A plan in the base frame of these waypoints."""
    waypoints = tuple(Waypoint(T, kind, event, w, np.zeros(2), 1.0, 1.0) for T, kind, event, w in stops)
    camera = CameraIntrinsics(1, 1, 1.0, 1.0, 0.0, 0.0)
    return WaypointPlan(
        0.0, "camera", "base", "plan", "task", "request", "", "", 0, 1, (), waypoints, Transform.identity(),
        camera, "", "", 0, "",
    )  # fmt: skip


def _pose(rng: np.random.Generator, position: Array, yaw: float, tilt: float = 0.0) -> Transform:
    lean = Rotation.from_rotvec([*rng.normal(0.0, tilt, 2), 0.0]) if tilt else Rotation.identity()
    return Transform(position, (lean * Rotation.from_euler("z", yaw)).as_matrix() @ DOWN)


def random_stops(rng: np.random.Generator) -> tuple[list[Stop], Transform]:
    """Waypoints of one sub-goal and the TCP pose it starts at, metres, base frame."""
    close, none = GripperEvent.CLOSE, GripperEvent.NONE
    source = np.array([rng.uniform(0.35, 0.65), rng.uniform(-0.3, 0.3), rng.uniform(0.012, 0.06)])
    yaw = float(rng.uniform(-np.pi / 2, np.pi / 2))
    drawn = rng.random()
    if drawn < 0.22:
        stops = _touch(rng, source, yaw)
    else:
        width = float(rng.choice([rng.uniform(0.0, 0.02), rng.uniform(0.02, 0.075)]))
        lift = rng.uniform(0.08, 0.16, 2)
        stops = [
            (_pose(rng, source + lift[0] * UP, yaw), WaypointKind.APPROACH, GripperEvent.OPEN, OPEN_WIDTH),
            (_pose(rng, source, yaw), WaypointKind.CONTACT, close, width),
            (_pose(rng, source + lift[1] * UP, yaw), WaypointKind.RETREAT, none, width),
        ]
        if drawn > 0.34:
            stops += _put(rng, source, yaw, width)
    stops = [_off(rng, stop) for stop in stops if not _missing(rng, stop)]
    if rng.random() < DETOUR:
        at = 0 if len(stops) < 5 or rng.random() < 0.5 else 3
        first = stops[0][3]
        for _ in range(int(rng.integers(1, 3))):
            free = np.array([rng.uniform(0.3, 0.7), rng.uniform(-0.35, 0.35), rng.uniform(0.15, 0.45)])
            stops.insert(at, (_pose(rng, free, yaw, 0.1), WaypointKind.VIA, none, first))
    start = np.array([rng.uniform(0.3, 0.6), rng.uniform(-0.3, 0.3), rng.uniform(0.15, 0.45)])
    return stops, _pose(rng, start, rng.uniform(-1.5, 1.5), 0.1)


def _put(rng: np.random.Generator, source: Array, yaw: float, width: float) -> list[Stop]:
    """Approach, place, retreat."""
    while True:
        target = np.array([rng.uniform(0.35, 0.65), rng.uniform(-0.3, 0.3), rng.uniform(0.03, 0.12)])
        if np.linalg.norm(target[:2] - source[:2]) > 0.11:
            break
    turn, lift = rng.uniform(-0.8, 0.8), rng.uniform(0.08, 0.16, 2)
    none = GripperEvent.NONE
    return [
        (_pose(rng, target + lift[0] * UP, yaw + turn), WaypointKind.APPROACH, none, width),
        (_pose(rng, target, yaw + turn), WaypointKind.CONTACT, GripperEvent.OPEN, OPEN_WIDTH),
        (_pose(rng, target + lift[1] * UP, yaw + turn), WaypointKind.RETREAT, none, OPEN_WIDTH),
    ]


def _touch(rng: np.random.Generator, at: Array, yaw: float) -> list[Stop]:
    """Shut the fingers, touch without a gripper event, perhaps go on in touch (push), retreat."""
    none = GripperEvent.NONE
    lift = rng.uniform(0.05, 0.14, 2)
    above = at + lift[0] * UP
    stops: list[Stop] = [
        (_pose(rng, above, yaw), WaypointKind.APPROACH, GripperEvent.CLOSE, 0.0),
        (_pose(rng, at, yaw), WaypointKind.CONTACT, none, 0.0),
    ]
    if rng.random() < 0.5:
        heading, way = rng.uniform(-np.pi, np.pi), rng.uniform(0.02, 0.12)
        at = at + way * np.array([np.cos(heading), np.sin(heading), 0.0])
        stops.append((_pose(rng, at, yaw), WaypointKind.CONTACT, none, 0.0))
    stops.append((_pose(rng, at + lift[1] * UP, yaw), WaypointKind.RETREAT, none, 0.0))
    return stops


def _missing(rng: np.random.Generator, stop: Stop) -> bool:
    # A plan that touches with shut fingers needs them shut; open they are from the start.
    free = stop[1] != WaypointKind.CONTACT and stop[2] != GripperEvent.CLOSE
    return bool(free and rng.random() < MISSING)


def _off(rng: np.random.Generator, stop: Stop) -> Stop:
    T, kind, event, width = stop
    if kind == WaypointKind.CONTACT:
        return stop
    turn = Rotation.from_rotvec([0.0, 0.0, rng.normal(0.0, 0.05)]).as_matrix()
    return Transform(T.translation + rng.normal(0.0, DRIFT, 3), turn @ T.rotation), kind, event, width
