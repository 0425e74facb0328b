"""How far two outputs are apart, in millimetres, degrees and milliseconds, and how far they may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from bridgevla_ros.bags.replay.result import Answer, Difference
from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import (
    ActionChunk,
    ArmCommand,
    Cloud,
    DepthQuality,
    Guidance,
    Lease,
    PlanRequest,
    Progress,
    WaypointPlan,
)

TOLERANCES: dict[str, tuple[float, float, str]] = {
    # quantity: (same machine, another machine, unit)
    "anchor": (1.0, 1.0, "mm"),
    "anchor pixel": (0.01, 1.0, "px"),
    "anchor confidence": (1e-5, 1e-2, ""),
    "waypoint": (1.0, 1.0, "mm"),
    "waypoint rotation": (0.5, 0.5, "deg"),
    "waypoint gripper width": (0.5, 0.5, "mm"),
    "camera pose": (0.1, 0.1, "mm"),
    "camera rotation": (0.01, 0.01, "deg"),
    "null probability": (1e-5, 1e-2, ""),
    "spline": (0.1, 1.0, "mm"),
    "spline rotation": (0.05, 0.5, "deg"),
    "spline time": (1.0, 5.0, "ms"),
    "gripper event": (1.0, 5.0, "ms"),
    "gripper event width": (0.1, 0.5, "mm"),
    "contact": (0.1, 1.0, "mm"),
    "contact offset": (0.1, 1.0, "mm"),
    "crop": (0.01, 1.0, "mm"),
    "crop centre": (0.1, 1.0, "mm"),
    "point age": (1.0, 1.0, "ms"),
    "valid depth": (1e-4, 1e-3, ""),
    "valid depth in crop": (1e-3, 1e-2, ""),
    "points in crop": (0.0, 5.0, ""),
    "depth noise": (0.01, 0.1, "mm"),
    "calibration residual": (0.05, 0.5, "mm"),
    "chunk": (0.01, 1.0, "mm"),
    "chunk rotation": (math.degrees(1e-5), math.degrees(1e-3), "deg"),
    "chunk joints": (math.degrees(1e-5), math.degrees(1e-3), "deg"),
    "chunk joint speed": (math.degrees(1e-4), math.degrees(1e-2), "deg/s"),
    "chunk gripper width": (0.01, 1.0, "mm"),
    "chunk progress": (1e-5, 1e-3, ""),
    "chunk time": (0.001, 0.001, "ms"),
    "refused value": (1e-5, 1e-3, ""),
    "command": (math.degrees(1e-5), math.degrees(1e-3), "deg"),
    "command speed": (math.degrees(1e-4), math.degrees(1e-2), "deg/s"),
    "command time": (0.01, 1.0, "ms"),
    "command tcp": (0.01, 1.0, "mm"),
    "command rotation": (math.degrees(1e-5), math.degrees(1e-3), "deg"),
    "gripper command": (0.01, 0.5, "mm"),
    "progress": (1e-5, 1e-3, ""),
    "speed scale": (1e-4, 1e-2, ""),
    "lease time": (0.01, 0.01, "ms"),
}
"""Requirements: a plan within 1 mm; chunks within 1e-5 (m, rad, share) on the same machine, 1e-3 on another.
The others are our choice, tight enough that a changed parameter shows."""

_UNITS = {"mm": 1e3, "deg": 180.0 / math.pi, "deg/s": 180.0 / math.pi, "ms": 1e3, "px": 1.0, "": 1.0}


@dataclass(frozen=True)
class Gap:
    """One compared quantity.

    Attributes:
        quantity: A name of ``TOLERANCES``, or of something that is equal or not.
        value: In the core's unit (m, rad, s); infinity where words differ.
        recorded, replayed: Words, where they differ.
    """

    quantity: str
    value: float
    recorded: str = ""
    replayed: str = ""


def differences(
    answer: Answer, same_machine: bool
) -> tuple[list[Difference], dict[str, tuple[float, float, str]], bool]:
    """Compare one output.

    Returns:
        What is beyond tolerance; quantity -> (difference, tolerance, unit) of all that was compared; whether
        all of it is equal to the last bit.
    """
    found: list[Difference] = []
    seen: dict[str, tuple[float, float, str]] = {}
    exact = True
    for gap in gaps(answer):
        if gap.quantity in answer.skip:
            continue
        same, other, unit = TOLERANCES.get(gap.quantity, (0.0, 0.0, ""))
        tolerance = same if same_machine else other
        value = gap.value * _UNITS[unit] if math.isfinite(gap.value) else math.inf
        exact = exact and value == 0.0
        if value > tolerance:
            found.append(
                Difference(
                    answer.node, answer.topic, answer.stamp, answer.key, gap.quantity, value, tolerance, unit,
                    gap.recorded, gap.replayed, answer.index,
                )
            )  # fmt: skip
        if gap.quantity in TOLERANCES:
            before = seen.get(gap.quantity, (0.0, tolerance, unit))[0]
            seen[gap.quantity] = (max(before, value), tolerance, unit)
    return found, seen, exact


def spatial(answer: Answer) -> bool:
    """Whether an output has a place that can be drawn."""
    kinds = (WaypointPlan, Guidance, Cloud, ActionChunk)
    return isinstance(answer.expected, kinds) or isinstance(answer.actual, kinds)


def gaps(answer: Answer) -> Iterator[Gap]:
    """All compared quantities of an output."""
    if answer.actual is None and answer.expected is None:
        return
    if answer.actual is None:
        yield Gap(answer.topic, math.inf, _describe(answer.expected), answer.refusal or "nothing")
        return
    if answer.expected is None:
        yield Gap(answer.topic, math.inf, "nothing", _describe(answer.actual))
        return
    yield from _COMPARE[type(answer.expected)](answer.expected, answer.actual)


def _plan(a: WaypointPlan, b: WaypointPlan) -> Iterator[Gap]:
    yield from _poses("camera pose", "camera rotation", [a.T_base_camera], [b.T_base_camera])
    yield _number("null probability", a.null_probability, b.null_probability)
    yield _words("code", a.code.name, b.code.name, a.message, b.message)
    yield _words("subgoal", a.subgoal, b.subgoal)
    yield _words("steps", f"{a.step} of {a.steps_total}", f"{b.step} of {b.steps_total}")
    if len(a.anchors) == len(b.anchors):
        for one, two in zip(a.anchors, b.anchors, strict=True):
            yield Gap("anchor", _distance(one.position_camera, two.position_camera))
            yield Gap("anchor pixel", _distance(one.pixel, two.pixel))
            yield _number("anchor confidence", one.confidence, two.confidence)
    else:
        yield _words("anchors", str(len(a.anchors)), str(len(b.anchors)))
    kinds = [", ".join(f"{w.kind.name} {w.gripper_event.name}".lower() for w in p.waypoints) for p in (a, b)]
    yield _words("waypoints", *kinds)
    if kinds[0] == kinds[1]:
        poses = [[p.T_base_camera @ w.T_camera_tcp for w in p.waypoints] for p in (a, b)]
        yield from _poses("waypoint", "waypoint rotation", *poses)
        for w, v in zip(a.waypoints, b.waypoints, strict=True):
            yield _number("waypoint gripper width", w.gripper_width, v.gripper_width)
            yield Gap("contact offset", _distance(w.contact_offset, v.contact_offset))


def _guidance(a: Guidance, b: Guidance) -> Iterator[Gap]:
    yield _words("code", a.code.name, b.code.name, a.message, b.message)
    yield _words("events", *[", ".join(e.name.lower() for e in g.events) for g in (a, b)])
    if len(a.progress) == 0 or len(b.progress) == 0:
        if len(a.progress) != len(b.progress):
            yield _words("samples", str(len(a.progress)), str(len(b.progress)))
        return
    yield Gap("spline time", abs(a.duration - b.duration))
    if len(a.progress) == len(b.progress):
        yield Gap("spline", _farthest(a.position, b.position))
        yield Gap("spline rotation", _turn(a.quat, b.quat))
        yield Gap("spline time", _largest(a.nominal_time - b.nominal_time))
    else:  # another duration: the paths themselves, sample by sample of progress
        at = np.interp(a.progress, b.progress, np.arange(len(b.progress)))
        path = np.stack([np.interp(at, np.arange(len(b.progress)), c) for c in b.position.T], axis=1)
        yield Gap("spline", _farthest(a.position, path))
    if a.events == b.events:
        yield Gap("gripper event", _largest(a.event_progress * a.duration - b.event_progress * b.duration))
        yield Gap("gripper event width", _largest(a.event_width - b.event_width))
    if len(a.contact_position) == len(b.contact_position):
        yield Gap("contact", _farthest(a.contact_position, b.contact_position))
        yield Gap("contact offset", _farthest(a.contact_offset, b.contact_offset))
    else:
        yield _words("contacts", str(len(a.contact_position)), str(len(b.contact_position)))


def _cloud(a: Cloud, b: Cloud) -> Iterator[Gap]:
    if not len(a.points_base) or not len(b.points_base):
        yield _words("points", str(len(a.points_base)), str(len(b.points_base)))
        return
    one, two = a.points_base.astype(np.float64), b.points_base.astype(np.float64)
    yield Gap("crop centre", _distance(one.mean(axis=0), two.mean(axis=0)))
    if np.array_equal(a.points_base, b.points_base):
        yield Gap("crop", 0.0)
        yield Gap("point age", _largest(a.age.astype(np.float64) - b.age))
        return
    # Which points stand for a surface may change with the last bit of depth; the surface may not.
    there, matched = cKDTree(two).query(one)
    back, _ = cKDTree(one).query(two)
    yield Gap("crop", max(float(there.max()), float(back.max())))
    yield Gap("point age", _largest(a.age.astype(np.float64) - b.age[matched]))


def _quality(a: DepthQuality, b: DepthQuality) -> Iterator[Gap]:
    yield _words("code", a.code.name, b.code.name)
    yield _number("valid depth", a.valid_fraction, b.valid_fraction)
    yield _number("valid depth in crop", a.target_valid_fraction, b.target_valid_fraction)
    yield _number("points in crop", a.points_target, b.points_target)
    yield _number("depth noise", a.noise, b.noise)
    yield _number("calibration residual", a.robot_residual, b.robot_residual)


def _chunk(a: ActionChunk, b: ActionChunk) -> Iterator[Gap]:
    yield _words("code", a.code.name, b.code.name, a.message, b.message)
    if a.code != ErrorCode.NONE and a.code == b.code:
        yield _number("refused value", a.value, b.value)
    if a.position.shape != b.position.shape:
        yield _words("steps", str(len(a.position)), str(len(b.position)))
        return
    yield Gap("chunk", _farthest(a.position, b.position))
    yield Gap("chunk rotation", _turn(a.quat, b.quat))
    yield Gap("chunk joints", _largest(a.joints - b.joints))
    yield Gap("chunk joint speed", _largest(a.joint_velocities - b.joint_velocities))
    yield Gap("chunk gripper width", _largest(a.gripper_width - b.gripper_width))
    yield Gap("chunk progress", _largest(a.progress - b.progress))
    yield Gap("chunk time", max(abs(a.stamp - b.stamp), abs(a.dt - b.dt)))
    yield _words("sequence", str(a.sequence), str(b.sequence))
    yield _words("execute steps", str(a.execute_steps), str(b.execute_steps))


def _command(a: ArmCommand, b: ArmCommand) -> Iterator[Gap]:
    if a.position.shape != b.position.shape:
        yield _words("points", str(len(a.position)), str(len(b.position)))
        return
    yield Gap("command", _largest(a.position - b.position))
    yield Gap("command speed", _largest(a.velocity - b.velocity))
    yield Gap("command time", _largest(a.time_from_start - b.time_from_start))
    yield from _poses("command tcp", "command rotation", [a.T_base_tcp], [b.T_base_tcp])


def _progress(a: Progress, b: Progress) -> Iterator[Gap]:
    yield _words("state", a.state.name, b.state.name)
    yield _words("code", a.code.name, b.code.name, a.message, b.message)
    yield _words("guidance", a.guidance_id, b.guidance_id)
    yield _words("events done", str(a.events_done), str(b.events_done))
    yield _number("progress", a.progress, b.progress)
    yield _number("speed scale", a.speed_scale, b.speed_scale)


def _lease(a: Lease, b: Lease) -> Iterator[Gap]:
    yield _words("lease", f"{a.task_id} {a.guidance_id}", f"{b.task_id} {b.guidance_id}")
    yield Gap("lease time", max(abs(a.stamp - b.stamp), abs(a.duration - b.duration)))


def _request(a: PlanRequest, b: PlanRequest) -> Iterator[Gap]:
    yield _words("request", *[f"{r.request_id} step {r.step} attempt {r.attempt}" for r in (a, b)])
    yield _words("instruction", a.instruction, b.instruction)


def _status(a: Any, b: Any) -> Iterator[Gap]:
    yield _words("stage", a.stage.name, b.stage.name)
    yield _words("code", a.code.name, b.code.name, a.message, b.message)
    yield _words("step", *[f"{s.step} of {s.steps_total}, try {s.retries}" for s in (a, b)])
    yield _words("lease valid", str(a.lease_valid), str(b.lease_valid))
    yield _number("progress", a.progress, b.progress)


def _width(a: float, b: float) -> Iterator[Gap]:
    yield _number("gripper command", a, b)


def _table() -> dict[type, Callable[[Any, Any], Iterator[Gap]]]:
    from bridgevla_ros.core.task_status import TaskStatus

    return {
        WaypointPlan: _plan,
        Guidance: _guidance,
        Cloud: _cloud,
        DepthQuality: _quality,
        ActionChunk: _chunk,
        ArmCommand: _command,
        Progress: _progress,
        Lease: _lease,
        PlanRequest: _request,
        TaskStatus: _status,
        float: _width,
    }


_COMPARE = _table()


def _describe(value: Any) -> str:
    """A word or two for an output that has no counterpart."""
    code = getattr(value, "code", None)
    name = type(value).__name__
    return f"{name} {code.name}" if code else name


def _words(quantity: str, a: str, b: str, more_a: str = "", more_b: str = "") -> Gap:
    if a == b:
        return Gap(quantity, 0.0)
    return Gap(quantity, math.inf, f"{a} {more_a}".strip(), f"{b} {more_b}".strip())


def _number(quantity: str, a: float, b: float) -> Gap:
    if a == b:
        return Gap(quantity, 0.0)
    if math.isnan(a) or math.isnan(b):
        same = math.isnan(a) and math.isnan(b)
        return Gap(quantity, 0.0 if same else math.inf, "" if same else f"{a:g}", "" if same else f"{b:g}")
    return Gap(quantity, abs(a - b))


def _largest(values: Array) -> float:
    return float(np.abs(values).max(initial=0.0))


def _distance(a: Array, b: Array) -> float:
    return float(np.linalg.norm(np.asarray(a) - np.asarray(b)))


def _farthest(a: Array, b: Array) -> float:
    return float(np.linalg.norm(a - b, axis=-1).max(initial=0.0))


def _turn(a: Array, b: Array) -> float:
    """Largest angle between (K, 4) quaternions, rad; 0 where they are equal to the last bit."""
    if np.array_equal(a, b):
        return 0.0
    return float((Rotation.from_quat(a) * Rotation.from_quat(b).inv()).magnitude().max(initial=0.0))


def _poses(position: str, rotation: str, a: list[Transform], b: list[Transform]) -> Iterator[Gap]:
    for one, two in zip(a, b, strict=True):
        yield Gap(position, _distance(one.translation, two.translation))
        if np.array_equal(one.rotation, two.rotation):
            yield Gap(rotation, 0.0)
        else:
            turn = Rotation.from_matrix(one.rotation) * Rotation.from_matrix(two.rotation).inv()
            yield Gap(rotation, float(turn.magnitude()))
