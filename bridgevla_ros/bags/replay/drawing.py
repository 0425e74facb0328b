"""Pictures of a divergence: on the camera's image, in space, and over time."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bridgevla_ros.bags.replay.recording import Recording
from bridgevla_ros.bags.replay.result import Answer, ReplayResult, Tally
from bridgevla_ros.core.camera import project
from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import ActionChunk, CameraIntrinsics, Cloud, Guidance, WaypointPlan
from bridgevla_ros.ros import conversions

RECORDED, REPLAYED, CONTEXT = "#2a78d6", "#e8590c", "#868e96"
"""Blue for what was, orange for what came out now, grey for what both share."""


@dataclass(frozen=True, eq=False)
class Shape:
    """An output in space.

    Attributes:
        points: (N, 3) metres, base frame.
        line: They follow one another.
        marks: (M, 3) metres: single places, e.g. anchors.
    """

    points: Array
    line: bool
    marks: Array = field(default_factory=lambda: np.empty((0, 3)))


@dataclass(frozen=True, eq=False)
class View:
    """A camera image and where it was taken.

    Attributes:
        rgb: (H, W, 3) uint8.
        stamp: Seconds.
        intrinsics: Of the camera.
        T_base_camera: At the stamp.
    """

    rgb: NDArray[np.uint8]
    stamp: float
    intrinsics: CameraIntrinsics
    T_base_camera: Transform


def shape(value: Any) -> Shape | None:
    """Where an output lies; None for one without a place."""
    if isinstance(value, WaypointPlan):
        poses = [value.T_base_camera @ w.T_camera_tcp for w in value.waypoints]
        anchors = [value.T_base_camera.apply(a.position_camera) for a in value.anchors]
        return Shape(_rows([p.translation for p in poses]), True, _rows(anchors))
    if isinstance(value, Guidance):
        return Shape(value.position, True, value.contact_position)
    if isinstance(value, ActionChunk):
        return Shape(value.position, True)
    if isinstance(value, Cloud):
        return Shape(value.points_base.astype(np.float64), False)
    return None


def _rows(points: list[Array]) -> Array:
    return np.array(points, np.float64).reshape(-1, 3)


def context(recording: Recording, answer: Answer) -> Array:
    """(N, 3) metres: the guidance that an output belongs to, if the bag has it."""
    wanted = getattr(answer.expected, "guidance_id", "")
    if isinstance(answer.expected, Guidance) or not wanted:
        return np.empty((0, 3))
    for item in recording.items("guidance"):
        guidance = conversions.guidance_from_msg(recording.message(item))
        if guidance.guidance_id == wanted:
            return guidance.position
    return np.empty((0, 3))


def view(recording: Recording, answer: Answer, base_frame: str = "base_link") -> View | None:
    """The colour image nearest to an output, with its camera; None where the bag lacks one of them."""
    colors, infos = recording.items("camera/color/image_raw"), recording.items("camera/color/camera_info")
    if not colors or not infos:
        return None
    stamp = min(colors, key=lambda i: abs(i.stamp - answer.stamp)).stamp
    found = next(iter(recording.fetch("camera/color/image_raw", [stamp])), None)
    info = min(infos, key=lambda i: abs(i.stamp - stamp))
    try:
        intrinsics = conversions.intrinsics_from_msg(recording.message(info))
        pose = recording.lookup(info.received)(base_frame, intrinsics.frame, stamp)
    except BridgeError:
        return None
    if found is None:
        return None
    return View(conversions.rgb_from_msg(found[1]), stamp, intrinsics, pose)


def on_image(answer: Answer, there: View, guide: Array) -> str:
    """The divergence on the camera's image, as a data URI."""
    figure = _figure(6.4, 4.8)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.imshow(there.rgb)
    axes.set_axis_off()
    axes.set_xlim(0, there.rgb.shape[1] - 1)
    axes.set_ylim(there.rgb.shape[0] - 1, 0)
    if len(guide):
        _pixels(axes, Shape(guide, True), there, CONTEXT, 1.0, "guidance")
    for value, colour, width, name in _sides(answer):
        there_shape = shape(value)
        if there_shape is not None:
            _pixels(axes, there_shape, there, colour, width, name)
    _zoom(axes, answer, there)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", fontsize=9, framealpha=0.85)
    return _uri(figure)


def _zoom(axes: Axes, answer: Answer, there: View) -> None:
    """Look at what differs, with what stands around it."""
    height, width = there.rgb.shape[:2]
    camera = there.T_base_camera.inverse()
    seen = [camera.apply(s.points) for s in map(shape, (answer.expected, answer.actual)) if s is not None]
    points = np.concatenate([s[s[:, 2] > 0.01] for s in seen if len(s)] or [np.empty((0, 3))])
    if not len(points):
        return
    pixels = project(points, there.intrinsics)
    inside = pixels[((pixels >= 0) & (pixels < [width, height])).all(axis=1)]
    if not len(inside):
        return
    low, high = inside.min(axis=0), inside.max(axis=0)
    scale = min(1.0, max(0.35, 1.6 * float(((high - low) / [width, height]).max())))
    size = np.array([width, height]) * scale
    corner = np.clip((low + high) / 2 - size / 2, 0, np.array([width, height]) - size)
    axes.set_xlim(corner[0], corner[0] + size[0])
    axes.set_ylim(corner[1] + size[1], corner[1])


def _sides(answer: Answer) -> tuple[tuple[Any, str, float, str], ...]:
    return (
        (answer.expected, RECORDED, 4.0, "recorded"),
        (answer.actual, REPLAYED, 1.8, "now"),
    )


def _pixels(axes: Axes, drawn: Shape, there: View, colour: str, width: float, name: str) -> None:
    camera = there.T_base_camera.inverse()
    label: str | None = name
    for points, line in ((drawn.points, drawn.line), (drawn.marks, False)):
        seen = camera.apply(points) if len(points) else np.empty((0, 3))
        seen = seen[seen[:, 2] > 0.01] if len(seen) else seen
        if not len(seen):
            continue
        u, v = project(seen, there.intrinsics).T
        if line:
            axes.plot(u, v, color=colour, linewidth=width, solid_capstyle="round", label=label)
            few = len(u) <= 24
            axes.plot(u[:: 1 if few else len(u)], v[:: 1 if few else len(v)], "o", color=colour, ms=width + 2)
        else:
            mark, size = ("+", 160.0) if points is drawn.marks else (".", 6 * width)
            axes.scatter(u, v, color=colour, label=label, marker=mark, s=size, linewidths=width)
        label = None


def in_space(answer: Answer, guide: Array) -> str:
    """The divergence in 3D, as a data URI."""
    figure = _figure(6.4, 4.8)
    axes: Any = figure.add_axes((0.02, 0.04, 0.9, 0.94), projection="3d")
    every = []
    times = _magnification(answer)
    for value, colour, width, name in _sides(answer):
        drawn = shape(value)
        if drawn is None or not len(drawn.points):
            continue
        recorded = shape(answer.expected)
        if times > 1 and value is answer.actual and recorded is not None:
            drawn = Shape(recorded.points + times * (drawn.points - recorded.points), drawn.line)
            name = f"{name}, gap drawn {times} times"
        every += [drawn.points, drawn.marks]
        x, y, z = drawn.points.T
        if drawn.line:
            marker = "o" if len(x) <= 24 else ""
            axes.plot(x, y, z, color=colour, linewidth=width, marker=marker, ms=width + 1, label=name)
        else:
            axes.scatter(x, y, z, color=colour, s=5 * width, label=name, depthshade=False)
        if len(drawn.marks):
            axes.scatter(*drawn.marks.T, color=colour, marker="+", s=120, linewidths=width)
    points = np.concatenate(every) if every else np.zeros((1, 3))
    middle, span = _frame(points)
    near = guide[np.abs(guide - middle).max(axis=1) <= span] if len(guide) else guide
    if len(near):
        axes.plot(*near.T, color=CONTEXT, linewidth=1.0, label="guidance")
    for setter, centre in zip((axes.set_xlim, axes.set_ylim, axes.set_zlim), middle, strict=True):
        setter(centre - span, centre + span)
    axes.set_box_aspect((1, 1, 1))
    axes.set_xlabel("x, m")
    axes.set_ylabel("y, m")
    axes.set_zlabel("z, m")
    axes.tick_params(labelsize=7)
    axes.view_init(elev=24, azim=-50)
    if every:
        axes.legend(loc="upper left", fontsize=9)
    return _uri(figure)


def _magnification(answer: Answer) -> int:
    """How much larger a gap must be drawn to be seen; 1 where it can be seen, or has no pairs of points."""
    a, b = shape(answer.expected), shape(answer.actual)
    if a is None or b is None or not a.line or a.points.shape != b.points.shape or not len(a.points):
        return 1
    gap = float(np.linalg.norm(a.points - b.points, axis=1).max())
    span = max(0.02, float(np.ptp(a.points, axis=0).max()))
    if gap <= 0.0 or gap > 0.05 * span:
        return 1
    return int(10 ** max(0, math.floor(math.log10(0.4 * span / gap))))


def _frame(points: Array) -> tuple[Array, float]:
    low, high = points.min(axis=0), points.max(axis=0)
    return (low + high) / 2.0, max(0.02, float((high - low).max()) * 0.55)


def over_time(result: ReplayResult) -> str:
    """Every quantity over time, as a multiple of its tolerance, as a data URI."""
    rows = [(node, tally) for node, tally in result.tallies.items() if tally.series]
    figure = _figure(9.6, 1.1 + 1.5 * max(1, len(rows)))
    if not rows:
        return _uri(figure)
    shared: list[Any] = list(np.atleast_1d(figure.subplots(len(rows), 1, sharex=True)))
    for axes, (node, tally) in zip(shared, rows, strict=True):
        _node_over_time(axes, node, tally)
    shared[-1].set_xlabel("ROS time, s")
    figure.tight_layout()
    return _uri(figure)


def _node_over_time(axes: Axes, node: str, tally: Tally) -> None:
    floor, peak = 1e-4, 10.0
    shares = {}
    for quantity, series in tally.series.items():
        tolerance = tally.largest[quantity][1]
        stamps, values = np.array(series).T
        share = values / tolerance if tolerance else np.where(values > 0.0, np.inf, 0.0)
        shares[quantity] = (stamps, share)
    worst = sorted(shares, key=lambda q: -float(shares[q][1].max()))[:3]
    for quantity in worst:
        stamps, share = shares[quantity]
        drawn = np.clip(share, floor, 1e6)
        peak = max(peak, float(drawn.max()) * 2.0)
        axes.plot(stamps, drawn, ".", markersize=3.5, label=quantity)
    axes.axhline(1.0, color="#c92a2a", linewidth=1.0)
    axes.set_yscale("log")
    axes.set_ylim(floor / 2.0, peak)
    axes.set_ylabel(f"{node}\nx tolerance", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(axis="y", color="#e9ecef", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7, frameon=False)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=110)
    FigureCanvasAgg(figure)
    return figure


def _uri(figure: Figure) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
