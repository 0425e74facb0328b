"""The report of `bridgevla dataset from-bags`: one HTML file with its pictures in it."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.datasets.bag_episodes import COLOUR, DEPTH, JOINTS, QUALITY, BagEpisode
from bridgevla_ros.datasets.quality import Check, fit, why_not

STRIP = 6
"""Pictures of an episode's strip."""
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1em}
body{color:#222;background:#fff}
table{border-collapse:collapse;margin:.6em 0}
td,th{padding:.2em .7em;border-bottom:1px solid #ddd;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}
.yes{color:#176b2c}.no{color:#a3161e;font-weight:600}.unknown{color:#777}
img{max-width:100%}h2{margin-top:2em;border-top:2px solid #ddd;padding-top:.6em}
"""


@dataclass(frozen=True)
class Entry:
    """One episode in the report.

    Attributes:
        title: Bag and task.
        instruction: The words.
        checks: Findings.
        index: Of the episode in the data set; None where it was left out.
        frames: In the data set.
        strip, plots: Pictures, PNG or JPEG; empty where there are none.
    """

    title: str
    instruction: str
    checks: Sequence[Check]
    index: int | None = None
    frames: int = 0
    strip: bytes = b""
    plots: bytes = b""


def strip(episode: BagEpisode) -> bytes:
    """Images of an episode side by side, as JPEG: colour, and depth below; empty without any."""
    import cv2

    colours, depths = episode.series[COLOUR], episode.series[DEPTH]
    leading = colours if colours.values else depths
    if not leading.values:
        return b""
    chosen = np.linspace(0, len(leading.values) - 1, STRIP).round().astype(int)
    rows = []
    if colours.values:
        small = [cv2.resize(colours.values[i], (240, 180), interpolation=cv2.INTER_AREA) for i in chosen]
        rows.append(np.hstack(small))
    if depths.values:
        rows.append(np.hstack([_coloured(depths.at(leading.stamps[i])) for i in chosen]))
    picture = cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR)
    ok, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return bytes(data) if ok else b""


def _coloured(depth: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Depth in colours from its 2nd to its 98th percentile; black where there is none."""
    import cv2

    valid = np.isfinite(depth)
    low, high = np.percentile(depth[valid], [2, 98]) if valid.any() else (0.0, 1.0)
    scaled = np.clip((np.nan_to_num(depth) - low) / max(high - low, 1e-6), 0.0, 1.0)
    colours = cv2.applyColorMap((255 * (1.0 - scaled)).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    colours[~valid] = 0
    rgb = cv2.cvtColor(colours, cv2.COLOR_BGR2RGB)
    return np.asarray(cv2.resize(rgb, (240, 180), interpolation=cv2.INTER_NEAREST), np.uint8)


def plots(episode: BagEpisode) -> bytes:
    """Periods of the streams, depth quality and the gripper over time, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.4), layout="constrained")
    FigureCanvasAgg(figure)
    rates, depth, hand = figure.subplots(1, 3)
    begin = episode.bounds[0]
    for name, topic in (("colour", COLOUR), ("depth", DEPTH), ("joints", JOINTS)):
        stamps = np.array(episode.series[topic].stamps) - begin
        if len(stamps) > 1:
            rates.plot(stamps[1:], 1e3 * np.diff(stamps), ".", ms=3, label=name)
    rates.set(title="period, ms", xlabel="s", yscale="log")
    said = episode.series[QUALITY]
    if said.values:
        at = np.array(said.stamps) - begin
        depth.plot(at, [q.valid_fraction for q in said.values], label="valid, share")
        depth.plot(at, [100 * q.robot_residual for q in said.values], ".", ms=3, label="calibration, cm")
        depth.plot(at, [100 * q.noise for q in said.values], ".", ms=3, label="noise, cm")
    depth.set(title="depth", xlabel="s", ylim=(0, None))
    joints = episode.series[JOINTS]
    hand.plot(
        np.array(joints.stamps) - begin, [100 * s.gripper_width for s in joints.values], label="gripper, cm"
    )
    hand.set(title="gripper", xlabel="s")
    for axes in (rates, depth, hand):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=90)
    return buffer.getvalue()


def write(path: Path, entries: Sequence[Entry], refused: Sequence[str], about: str) -> None:
    """Write the report.

    Args:
        path: HTML file.
        entries: Episodes.
        refused: Bags that could not be read, and why.
        about: What was made, one line.
    """
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Data set from bags</title><style>{_STYLE}"
        f"</style><h1>Data set from bags</h1><p>{html.escape(about)}</p>"
    ]
    if refused:
        parts.append("<h2>Bags that gave nothing</h2><ul>")
        parts += [f"<li>{html.escape(line)}</li>" for line in refused]
        parts.append("</ul>")
    parts.append("<h2>Episodes</h2><table><tr><th>bag, task<th>instruction<th>frames<th>taken</tr>")
    for entry in entries:
        taken = f"episode {entry.index}" if entry.index is not None else why_not(entry.checks)
        sort = "yes" if entry.index is not None else "no"
        parts.append(
            f"<tr><td>{html.escape(entry.title)}<td>{html.escape(entry.instruction)}"
            f"<td class=n>{entry.frames}<td class={sort}>{html.escape(taken)}</tr>"
        )
    parts.append("</table>")
    parts += [_section(entry) for entry in entries]
    path.write_text("\n".join(parts) + "</html>\n", encoding="utf-8")


def _section(entry: Entry) -> str:
    rows = "".join(_row(c) for c in entry.checks)
    pictures = "".join(
        f'<p><img alt="{name}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'
        for name, kind, data in (("images", "jpeg", entry.strip), ("plots", "png", entry.plots))
        if data
    )
    state = "fit" if fit(entry.checks) else "not fit"
    return (
        f"<h2>{html.escape(entry.title)}: {state}</h2><p>{html.escape(entry.instruction)}</p>{pictures}"
        f"<table><tr><th>check<th>value<th>limit<th>unit<th></tr>{rows}</table>"
    )


_VERDICTS = {True: ("holds", "yes"), False: ("fails", "no"), None: ("not counted", "unknown")}


def _row(check: Check) -> str:
    verdict, sort = _VERDICTS[check.passed]
    words = f"{verdict}: {html.escape(check.note)}" if check.note else verdict
    numbers = f"<td class=n>{_number(check.value)}<td class=n>{_number(check.limit)}"
    return f"<tr><td>{html.escape(check.name)}{numbers}<td>{check.unit}<td class={sort}>{words}</tr>"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def to_json(entry: Entry) -> dict[str, Any]:
    """An episode for report.json; numbers that JSON lacks become null."""
    return {
        "title": entry.title,
        "instruction": entry.instruction,
        "episode": entry.index,
        "frames": entry.frames,
        "fit": fit(entry.checks),
        "why_not": why_not(entry.checks),
        "checks": {
            c.name: {
                "value": None if math.isnan(c.value) else c.value,
                "limit": c.limit,
                "unit": c.unit,
                "passed": c.passed,
                "note": c.note,
            }
            for c in entry.checks
        },
    }
