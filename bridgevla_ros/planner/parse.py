"""Strict reading of what vision-language models write. What does not fit is PARSE, never a guess."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import GripperEvent, WaypointKind
from bridgevla_ros.planner.answers import LocalWaypoint
from bridgevla_ros.planner.conventions import convention

MAX_TEXT = 20_000
"""Characters of an answer that are read (our choice)."""

MAX_OFFSET = 0.6
"""Metres that a waypoint may lie from its anchor (our choice)."""

MAX_WAYPOINTS = 16

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_TUPLE = re.compile(rf"[(\[]\s*({_NUMBER})\s*,\s*({_NUMBER})\s*[)\]]")
_FENCE = re.compile(r"```(?:[a-zA-Z]*)\s*\n?(.*?)```", re.DOTALL)
_THINK = re.compile(r"<think>.*?</think>", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_MOLMO_POINT = re.compile(rf'<point\s+x="\s*({_NUMBER})"\s+y="\s*({_NUMBER})"[^>]*>([^<]*)</point>')
_MOLMO_MANY = re.compile(r"<points\s+([^>]*)>([^<]*)</points>")
_MOLMO_ATTRIBUTE = re.compile(rf'([xy])(\d+)="\s*({_NUMBER})"')
_MOLMO2 = re.compile(r'<points\s+coords="([\d\s;]+)"')
_LOC = re.compile(r"((?:<loc\d{4}>)+)\s*([^<;]*)")


def _fail(reason: str, text: str) -> BridgeError:
    shown = text if len(text) <= 120 else text[:117] + "..."
    return BridgeError(
        ErrorCode.PARSE,
        f"{reason} in the model's answer {shown!r}",
        remedy="check that the checkpoint is one that points, and its convention",
    )


def _strip(text: str) -> str:
    """The answer without thoughts, tags and fences."""
    if len(text) > MAX_TEXT:
        raise _fail(f"{len(text)} characters, more than {MAX_TEXT},", text)
    text = _THINK.sub("", text)
    if found := _ANSWER.search(text):
        text = found.group(1)
    if found := _FENCE.search(text):
        text = found.group(1)
    return text.strip()


def points(text: str, name: str) -> list[tuple[float, float, str]]:
    """Points of an answer in the order written.

    Args:
        text: What the model wrote.
        name: Convention.

    Returns:
        (first, second, label) in the model's coordinates; an empty list where the model says that
        there is nothing.

    Raises:
        BridgeError: PARSE.
    """
    reader = {"json": _json_points, "molmo": _molmo, "molmo2": _molmo2, "tuples": _tuples, "loc": _loc}
    found = reader[convention(name).syntax](_strip(text))
    for first, second, _ in found:
        if not (math.isfinite(first) and math.isfinite(second)):
            raise _fail("a coordinate that is not finite", text)
    return found


def _load(text: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise _fail("no JSON", text) from error


def _json_points(text: str) -> list[tuple[float, float, str]]:
    data = _load(text)
    items = data if isinstance(data, list) else [data]
    out = []
    for item in items:
        if not isinstance(item, dict):
            raise _fail("an entry that is no object", text)
        label = item.get("label", "")
        if "point_2d" in item:
            pair = _numbers(item["point_2d"], 2, text)
        elif "bbox_2d" in item:
            box = _numbers(item["bbox_2d"], 4, text)
            pair = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]
        else:
            raise _fail("an entry without point_2d or bbox_2d", text)
        out.append((pair[0], pair[1], str(label)))
    return out


def _numbers(value: Any, count: int, text: str) -> list[float]:
    ok = isinstance(value, list) and len(value) == count
    if not ok or any(isinstance(v, bool) or not isinstance(v, int | float) for v in value):
        raise _fail(f"not {count} numbers", text)
    try:
        return [float(v) for v in value]
    except OverflowError as error:
        raise _fail("a number that is too large", text) from error


def _molmo(text: str) -> list[tuple[float, float, str]]:
    if re.fullmatch(r"There (?:are|is) none\.?", text.strip(), re.IGNORECASE):
        return []
    out = [(float(x), float(y), label.strip()) for x, y, label in _MOLMO_POINT.findall(text)]
    for attributes, label in _MOLMO_MANY.findall(text):
        values = {(axis, int(i)): float(v) for axis, i, v in _MOLMO_ATTRIBUTE.findall(attributes)}
        for i in sorted({i for _, i in values}):
            if ("x", i) not in values or ("y", i) not in values:
                raise _fail(f"point {i} without x or y", text)
            out.append((values["x", i], values["y", i], label.strip()))
    if not out:
        raise _fail("no <point>", text)
    return out


def _molmo2(text: str) -> list[tuple[float, float, str]]:
    if re.fullmatch(r"There (?:are|is) none\.?", text.strip(), re.IGNORECASE):
        return []
    found = _MOLMO2.findall(text)
    if not found:
        raise _fail("no <points coords>", text)
    out = []
    for body in found:
        values = [int(v) for v in body.replace(";", " ").split()]
        if len(values) < 4 or (len(values) - 1) % 3:
            raise _fail(f"{len(values)} numbers where an image and triples belong", text)
        out += [(float(values[k + 1]), float(values[k + 2]), "") for k in range(1, len(values), 3)]
    return out


def _tuples(text: str) -> list[tuple[float, float, str]]:
    if re.fullmatch(r"\[\s*\]", text):
        return []
    found = _TUPLE.findall(text)
    if not found:
        raise _fail("no (x, y)", text)
    return [(float(x), float(y), "") for x, y in found]


def _loc(text: str) -> list[tuple[float, float, str]]:
    out = []
    for tokens, label in _LOC.findall(text):
        values = [float(v) for v in re.findall(r"\d{4}", tokens)]
        if len(values) == 2:
            out.append((values[0], values[1], label.strip()))
        elif len(values) == 4:  # a box: y0 x0 y1 x1
            out.append(((values[0] + values[2]) / 2, (values[1] + values[3]) / 2, label.strip()))
        else:
            raise _fail(f"{len(values)} <loc> in a row", text)
    if not out:
        raise _fail("no <loc>", text)
    return out


_KINDS = {k.name.lower(): k for k in WaypointKind}
_EVENTS = {e.name.lower(): e for e in GripperEvent}


def waypoints(text: str, anchors: int) -> list[LocalWaypoint]:
    """Waypoints of the second turn.

    The model writes JSON: ``[{"anchor": 0, "offset": [x, y, z], "yaw": a, "kind": "approach",
    "gripper": "open"}, ...]``, metres and rad in the gravity-aligned, camera-yaw frame.

    Args:
        text: What the model wrote.
        anchors: How many there are to refer to.

    Raises:
        BridgeError: PARSE; OUT_OF_RANGE: too far from the anchor, or an angle beyond 2 pi.
    """
    clean = _strip(text)
    data = _load(clean)
    if not isinstance(data, list) or not 1 <= len(data) <= MAX_WAYPOINTS:
        raise _fail(f"not a list of 1 to {MAX_WAYPOINTS} waypoints", text)
    out = []
    for item in data:
        if not isinstance(item, dict):
            raise _fail("an entry that is no object", text)
        unknown = set(item) - {"anchor", "offset", "yaw", "kind", "gripper"}
        if unknown:
            raise _fail(f"unknown key {sorted(unknown)[0]!r}", text)
        anchor = item.get("anchor")
        if isinstance(anchor, bool) or not isinstance(anchor, int) or not 0 <= anchor < anchors:
            raise _fail(f"anchor {anchor!r} of {anchors}", text)
        offset: Array = np.array(_numbers(item.get("offset"), 3, text))
        yaw = _numbers([item.get("yaw", 0.0)], 1, text)[0]
        if not np.isfinite(offset).all() or np.abs(offset).max() > MAX_OFFSET or not abs(yaw) <= 2 * math.pi:
            worst = float(np.abs(offset).max())
            raise BridgeError(
                ErrorCode.OUT_OF_RANGE,
                f"a waypoint lies {worst:g} m and {yaw:g} rad from its anchor",
                value=worst,
                limit=MAX_OFFSET,
                unit="m",
            )
        kind, event = item.get("kind", "via"), item.get("gripper", "none")
        if kind not in list(_KINDS) or event not in list(_EVENTS):  # a list or an object has no hash
            raise _fail(f"kind {kind!r} or gripper {event!r}", text)
        out.append(LocalWaypoint(anchor, offset, yaw, _KINDS[kind], _EVENTS[event]))
    return out
