"""One picture of a run: what the camera saw at the moments that matter, and what went on in between.

bridgevla bag plot runs/demo/bag                 writes bag.png beside the bag
bridgevla bag plot BAG -o run.png --html run.html
"""

from __future__ import annotations

import argparse
import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.bags.digest import Task, code_name, of_type, tasks
from bridgevla_ros.bags.info import add_bag_arguments, describe
from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.bags.stats import TopicTimes, read_times
from bridgevla_ros.core.errors import BridgeError, ErrorCode

Shot = tuple[float, str, NDArray[np.uint8]]
Series = tuple[NDArray[np.float64], NDArray[np.float64]]

WIDTH = 15.0
"""Inches."""
LEFT_RIGHT = (0.125, 0.965)
"""Edges of the timelines, as parts of the width."""
LEAD = 2.0
"""Seconds shown before the first task."""
STRIP = 8
"""Most pictures of the strip."""
STAGE_COLOURS = {
    "idle": "#e3e6ea",
    "planning": "#f2c14e",
    "approval": "#c9a0dc",
    "moving": "#6aaed6",
    "gripping": "#7bc8a4",
    "verifying": "#b8d8ba",
    "hold": "#f4845f",
    "done": "#3a9d5d",
    "failed": "#c8412f",
}


@dataclass
class Lines:
    """What the timelines show, by time of receipt in seconds.

    Attributes:
        progress, speed_scale: (times, values) of the streamer's Progress.
        tcp_speed: (times, m/s) by the poses that are commanded.
        correction, sigma: (times, metres) of the chunks.
        joint_speed: (times, rad/s) of the fastest joint.
        events: (time, what) of plans, refusals and reports with a code.
    """

    progress: Series
    speed_scale: Series
    tcp_speed: Series
    correction: Series
    sigma: Series
    joint_speed: Series
    events: list[tuple[float, str]] = field(default_factory=list)


def read_lines(bag: Bag) -> Lines:
    """Read what the timelines show."""
    rows: dict[str, list[tuple[float, ...]]] = {k: [] for k in ("progress", "chunk", "pose", "joint")}
    events: list[tuple[float, str]] = []
    said = 0
    for item in bag.messages(
        of_type(
            bag,
            "bridgevla/msg/Progress",
            "bridgevla/msg/ActionChunk",
            "bridgevla/msg/WaypointPlan",
            "geometry_msgs/msg/PoseStamped",
            "sensor_msgs/msg/JointState",
        )
    ):
        kind, msg, at = item.msgtype.rsplit("/", 1)[1], item.message, item.received
        if kind == "Progress":
            rows["progress"].append((at, msg.progress, msg.speed_scale))
            if msg.code and msg.code != said:
                events.append((at, code_name(msg.code)))
            said = msg.code
        elif kind == "ActionChunk":
            rows["chunk"].append((at, msg.correction, msg.correction_sigma))
        elif kind == "WaypointPlan":
            events.append((at, "plan" if msg.code == 0 else code_name(msg.code)))
        elif kind == "PoseStamped":
            p, stamp = msg.pose.position, msg.header.stamp
            rows["pose"].append((at, stamp.sec + 1e-9 * stamp.nanosec, p.x, p.y, p.z))
        elif len(msg.velocity):
            rows["joint"].append((at, float(np.max(np.abs(msg.velocity)))))
    progress, chunk = _table(rows["progress"], 3), _table(rows["chunk"], 3)
    joint = _table(rows["joint"], 2)
    return Lines(
        (progress[:, 0], progress[:, 1]),
        (progress[:, 0], progress[:, 2]),
        _speed(_table(rows["pose"], 5)),
        (chunk[:, 0], chunk[:, 1]),
        (chunk[:, 0], chunk[:, 2]),
        (joint[:, 0], joint[:, 1]),
        events,
    )


def _table(rows: list[tuple[float, ...]], width: int) -> NDArray[np.float64]:
    return np.asarray(rows, float).reshape(-1, width)


def _speed(poses: NDArray[np.float64]) -> Series:
    """Speed of poses (receipt, stamp, x, y, z), over a tenth of a second; pauses are rest."""
    if len(poses) < 12:
        return np.zeros(0), np.zeros(0)
    step = 10
    elapsed = poses[step:, 1] - poses[:-step, 1]
    way = np.linalg.norm(poses[step:, 2:] - poses[:-step, 2:], axis=1)
    valid = (elapsed > 1e-3) & (elapsed < 0.5)
    speed = np.where(valid, way / np.maximum(elapsed, 1e-3), 0.0)
    return poses[step:, 0], speed


# The strip -------------------------------------------------------------------------------------------------


def moments(found: list[Task], bounds: tuple[float, float], most: int = STRIP) -> list[tuple[float, str]]:
    """Times worth a picture, seconds, with what happens then: changes of stage, else evenly spread.

    Stages that last are thinned out last; the beginning of a task and its end are always there.
    """
    marked: list[tuple[float, str, int]] = []
    for task in found:
        for i, (at, stage, code) in enumerate(task.changes):
            if stage == "idle":
                continue
            weight = 2 if i == 0 or stage in ("done", "failed", "hold") or code != "NONE" else 1
            marked.append((at, stage if code == "NONE" else f"{stage}: {code}", weight))
    if not marked:
        return [(float(t), "") for t in np.linspace(*bounds, most)]
    while len(marked) > most:
        gaps = [
            (weight, marked[i + 1][0] - at if i + 1 < len(marked) else np.inf, i)
            for i, (at, _, weight) in enumerate(marked)
        ]
        marked.pop(min(gaps)[2])
    return [(at, label) for at, label, _ in marked]


def pictures(bag: Bag, wanted: list[tuple[float, str]]) -> list[Shot]:
    """The camera's picture at each moment: the first one from then on, the last where none follows."""
    from bridgevla_ros.ros import conversions

    topic = _camera(bag)
    if topic is None:
        return []
    found: list[Shot] = []
    last: Any = None
    todo = list(wanted)
    try:
        for record in bag.records([topic]):
            last = record
            while todo and record.received / 1e9 >= todo[0][0]:
                image = conversions.rgb_from_msg(bag.decode(record.connection.msgtype, record.data))
                found.append((*todo.pop(0), image))
            if not todo:
                break
        if last is not None and todo:
            image = conversions.rgb_from_msg(bag.decode(last.connection.msgtype, last.data))
            found += [(at, label, image) for at, label in todo]
    except BridgeError as error:  # another robot's encoding: the timelines are worth drawing all the same
        bag.leave_out(topic, f"pictures that cannot be shown: {error.message}")
    return found


def _camera(bag: Bag) -> str | None:
    """The colour image topic: the one named so, else the one with the most pictures in colour."""
    counts = bag.topics()
    images = [t for t in of_type(bag, "sensor_msgs/msg/Image") if t in counts]
    colour = [t for t in images if "color" in t or "rgb" in t] or [t for t in images if "depth" not in t]
    return max(colour, key=lambda t: counts[t][1], default=None)


# The figure ------------------------------------------------------------------------------------------------


def draw(bag: Bag, path: Path, *, whole: bool = False) -> None:
    """Draw a bag into a PNG.

    Args:
        bag: What to draw.
        path: Of the PNG.
        whole: From the first message on; else from a little before the first task.

    Raises:
        BridgeError: BAD_INPUT for a bag without messages.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    bounds = bag.bounds()
    if bounds is None:
        raise BridgeError(ErrorCode.BAD_INPUT, f"{bag.path} holds no messages")
    start, end = bounds[0] / 1e9, bounds[1] / 1e9
    found, lines, times = tasks(bag), read_lines(bag), read_times(bag)
    if found and not whole:
        start = max(start, found[0].began - LEAD)
    strip = pictures(bag, moments(found, (start, end)))
    wide = LEFT_RIGHT[1] - LEFT_RIGHT[0]
    tall = 0.85 * WIDTH * wide / max(len(strip), 5) if strip else 0.05
    heights = [tall, 0.4, 1.5, 1.5, 1.5, 2.6]
    total = sum(heights) + 2.6
    figure = plt.figure(figsize=(WIDTH, total), facecolor="white")
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights, hspace=0.26)
    _draw_strip(figure, grid[0], strip, start)
    axes = [figure.add_subplot(grid[1])]
    axes += [figure.add_subplot(grid[i], sharex=axes[0]) for i in range(2, len(heights))]
    _draw_stages(axes[0], found, start, end)
    _draw_motion(axes[1], axes[2], axes[3], lines, start)
    _draw_rates(axes[4], times, start, end)
    for at, _, _ in strip:
        for axis in axes[1:]:
            axis.axvline(at - start, color="#999999", linewidth=0.6, linestyle=":", zorder=0)
    for axis in axes[:-1]:
        axis.tick_params(labelbottom=False)
    axes[0].set_xlim(0.0, max(end - start, 1e-3))
    axes[-1].set_xlabel("seconds (wall clock)")
    figure.suptitle(
        _title(bag, found), x=LEFT_RIGHT[0], y=1.0 - 0.12 / total, ha="left", va="top", fontsize=12
    )
    left, right = LEFT_RIGHT
    figure.subplots_adjust(left=left, right=right, top=1.0 - 0.75 / total, bottom=0.5 / total)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _title(bag: Bag, found: list[Task]) -> str:
    said = "; ".join(
        f"“{t.instruction}”: {t.result}" + ("" if t.code == "NONE" else f" ({t.code})") for t in found[:3]
    )
    more = f" and {len(found) - 3} more tasks" if len(found) > 3 else ""
    run = bag.run
    lost = f"   {sum(run.lost.values())} messages lost" if run is not None and run.lost else ""
    return f"{bag.path.resolve().name}   {said or 'no task'}{more}{lost}"


def _draw_strip(figure: Any, cell: Any, strip: list[Shot], start: float) -> None:
    if not strip:
        return
    inner = cell.subgridspec(1, max(len(strip), 5), wspace=0.04)
    for i, (at, label, image) in enumerate(strip):
        axis = figure.add_subplot(inner[0, i])
        axis.imshow(image)
        axis.set_xticks([])
        axis.set_yticks([])
        stage = label.split(":")[0]
        for side in axis.spines.values():
            side.set_color(STAGE_COLOURS.get(stage, "#bbbbbb"))
            side.set_linewidth(2.5)
        axis.set_title(f"{at - start:.1f} s  {stage}", fontsize=9, pad=3)
        if ":" in label:
            axis.set_xlabel(label.split(": ", 1)[1], fontsize=8, color=STAGE_COLOURS["failed"], labelpad=2)


def _draw_stages(axis: Any, found: list[Task], start: float, end: float) -> None:
    shown: set[str] = set()
    for task in found:
        ends = [at for at, _, _ in task.changes[1:]] + [end]
        for (at, stage, _), until in zip(task.changes, ends, strict=True):
            axis.axvspan(at - start, until - start, color=STAGE_COLOURS.get(stage, "#eeeeee"), linewidth=0)
            wide = until - at > 0.045 * (end - start)
            if wide:
                axis.text((at + until) / 2 - start, 0.5, stage, ha="center", va="center", fontsize=8)
            shown.add(stage)
    axis.set_yticks([])
    axis.set_ylim(0.0, 1.0)
    axis.set_ylabel("task", rotation=0, ha="right", va="center")


def _draw_motion(top: Any, middle: Any, bottom: Any, lines: Lines, start: float) -> None:
    def plot(axis: Any, series: Series, **style: Any) -> None:
        if len(series[0]):
            axis.plot(series[0] - start, series[1], linewidth=1.1, **style)

    plot(top, lines.progress, color="#2b6ca3", label="progress")
    plot(top, lines.speed_scale, color="#e08a1e", label="speed scale", alpha=0.8)
    top.set_ylabel("progress")
    top.set_ylim(-0.05, 1.12)
    plot(middle, lines.tcp_speed, color="#2b6ca3", label="TCP, m/s")
    plot(middle, lines.joint_speed, color="#8b6bb1", label="fastest joint, rad/s", alpha=0.8)
    middle.set_ylabel("speed")
    for series, label, colour in (
        (lines.correction, "correction", "#c8412f"),
        (lines.sigma, "spread of samples", "#8a8a8a"),
    ):
        plot(bottom, (series[0], 1e3 * series[1]), color=colour, label=label)
    bottom.set_ylabel("chunks, mm")
    for axis in (top, middle, bottom):
        axis.grid(alpha=0.25)
        axis.margins(y=0.12)
        if axis.get_lines():
            axis.legend(loc="lower right", bbox_to_anchor=(1.0, 0.97), fontsize=8, ncols=2, frameon=False)
    for at, what in lines.events:
        refused = what != "plan"
        top.axvline(at - start, color="#c8412f" if refused else "#3a9d5d", linewidth=1.0)
        top.annotate(what, (at - start, 1.03), fontsize=7, color="#c8412f" if refused else "#3a9d5d")


def _draw_rates(axis: Any, times: dict[str, TopicTimes], start: float, end: float, most: int = 10) -> None:
    """Messages a second of the busiest topics, one line each, against each topic's own median."""
    edges = np.arange(0.0, end - start + 1e-9, 1.0)  # whole seconds: half of one would look like a loss
    if len(edges) < 3:
        axis.set_yticks([])
        return
    busy = sorted((t for t in times if len(times[t].received) >= 20), key=lambda t: -len(times[t].received))
    chosen = sorted(busy[:most], reverse=True)
    for row, topic in enumerate(chosen):
        counts, _ = np.histogram(np.asarray(times[topic].received) - start, edges)
        usual = float(np.median(counts[counts > 0]))
        share = np.clip(counts / max(usual, 1.0), 0.0, 1.5) / 1.5
        axis.bar(edges[:-1], 0.85 * share, width=1.0, bottom=row, align="edge", color="#9cc4dc", linewidth=0)
        poor = (counts < 0.5 * usual) & (counts > 0)
        axis.bar(
            edges[:-1][poor],
            0.85 * share[poor],
            width=1.0,
            bottom=row,
            align="edge",
            color="#c8412f",
            linewidth=0,
        )
        axis.text(
            1.003, (row + 0.4) / max(len(chosen), 1), f"{usual:.0f} Hz", transform=axis.transAxes, fontsize=7
        )
    axis.set_yticks(np.arange(len(chosen)) + 0.4, chosen, fontsize=7)
    axis.set_ylim(0, max(len(chosen), 1))
    axis.tick_params(axis="y", length=0)


def write_html(bag: Bag, picture: Path, path: Path) -> None:
    """A page with the picture and all that ``bag info`` knows, self-contained."""
    import html

    data = base64.b64encode(picture.read_bytes()).decode()
    known = html.escape(json.dumps(describe(bag), indent=2, default=str))
    title = html.escape(bag.path.resolve().name)
    path.write_text(
        f"<!doctype html><meta charset='utf-8'><title>{title}</title>"
        "<style>body{font-family:sans-serif;margin:2em;max-width:1500px}img{width:100%}"
        "pre{background:#f6f7f8;padding:1em;overflow:auto}</style>"
        f"<h1>{title}</h1><img alt='timeline' src='data:image/png;base64,{data}'>"
        f"<details><summary>all that is known</summary><pre>{known}</pre></details>\n",
        encoding="utf-8",
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridgevla bag plot``."""
    add_bag_arguments(parser)
    parser.add_argument("-o", "--output", type=Path, help="PNG to write (default: <bag>.png beside the bag)")
    parser.add_argument(
        "--whole", action="store_true", help="from the first message on; else from the first task"
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="also a page with the picture and the details"
    )


def run(args: argparse.Namespace) -> int:
    """Draw; 0 when the picture is there."""
    from rich.console import Console

    console = Console(highlight=False)
    bag = Bag(args.bag, args.map)
    output = args.output or args.bag.resolve().with_suffix(".png")
    with console.status(f"drawing {args.bag}"):
        draw(bag, output, whole=args.whole)
        if args.html is not None:
            write_html(bag, output, args.html)
    console.print(f"wrote {output}" + (f" and {args.html}" if args.html else ""), soft_wrap=True)
    for line in bag.damage:
        console.print(f"damage: {line}", style="red", markup=False, soft_wrap=True)
    return 0
