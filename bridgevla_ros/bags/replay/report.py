"""The report of a replay: one HTML file, pictures inside."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path

from bridgevla_ros.bags.mapping import TopicMapping
from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.bags.replay import drawing
from bridgevla_ros.bags.replay.compare import TOLERANCES
from bridgevla_ros.bags.replay.recording import Recording
from bridgevla_ros.bags.replay.result import Answer, Difference, ReplayResult
from bridgevla_ros.bags.replay.text import largest

_LISTED = 200
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #212529;
margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; font-size: 13px } td, th { padding: .25rem .7rem; text-align: left;
border-bottom: 1px solid #e9ecef; vertical-align: top } td.n, th.n { text-align: right }
.same { color: #2b8a3e } .differs { color: #c92a2a } .quiet { color: #868e96; font-size: 13px }
.pictures { display: flex; gap: 1rem; flex-wrap: wrap }
.pictures img { max-width: 100%; border: 1px solid #dee2e6 }
"""


def report(result: ReplayResult, mapping: TopicMapping | Path | None = None) -> str:
    """The report as HTML."""
    parts = [_verdict(result), _nodes(result), _divergence(result, mapping)]
    if any(t.series for t in result.tallies.values()):
        parts.append(
            "<h2>Over time</h2><p class=quiet>Differences as multiples of their tolerance (red line); the "
            "three largest of each node.</p>"
            f"<img src='{drawing.over_time(result)}' alt='differences over time'>"
        )
    parts += [_differences(result), _versions(result), _tolerances(result)]
    body = "\n".join(part for part in parts if part)
    title = f"Replay of {escape(result.path)}"
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{title}</title>"
        f"<style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )


def _verdict(result: ReplayResult) -> str:
    word = "cannot be replayed" if result.impossible else "same" if result.same else "differs"
    css = "same" if result.same else "differs"
    lines = [f"<h1>Replay of {escape(result.path)}: <span class={css}>{word}</span></h1>"]
    if result.impossible:
        lines.append(f"<p>{escape(result.impossible)}</p>")
    else:
        expected = f"golden outputs ({escape(result.golden)})" if result.golden else "the recorded outputs"
        bits = ", equal in every bit" if result.exact else ""
        speed = f" ({result.speed:.1f} times real time)" if math.isfinite(result.speed) else ""
        lines.append(
            f"<p>Compared with {expected} under the tolerances of the {result.tolerance} machine{bits}. "
            f"{result.recorded_seconds:.1f} s replayed in {result.seconds:.1f} s{speed}.</p>"
        )
    if result.reasons:
        lines.append("<h2>Known causes</h2><ul>" + _items(result.reasons) + "</ul>")
    if result.notes:
        lines.append("<ul class=quiet>" + _items(result.notes) + "</ul>")
    return "".join(lines)


def _items(lines: list[str]) -> str:
    return "".join(f"<li>{escape(line)}</li>" for line in lines)


def _nodes(result: ReplayResult) -> str:
    rows = []
    for node, tally in result.tallies.items():
        skipped = "; ".join(f"{n}: {why}" for why, n in tally.skipped.items())
        rows.append(
            f"<tr><td>{node}</td><td class=n>{tally.total}</td><td class=n>{tally.exact}</td>"
            f"<td class=n>{tally.differing}</td><td>{escape(largest(tally))}</td>"
            f"<td>{escape(skipped)}</td></tr>"
        )
    head = (
        "<tr><th>node</th><th class=n>outputs</th><th class=n>equal in every bit</th>"
        "<th class=n>differ</th><th>nearest to its tolerance</th><th>not compared</th></tr>"
    )
    return f"<table>{head}{''.join(rows)}</table>" if rows else ""


def _divergence(result: ReplayResult, mapping: TopicMapping | Path | None) -> str:
    """The first difference, on the image and in space."""
    first = result.first
    if first is None:
        return ""
    lines = [f"<h2>First divergence</h2><p>{escape(str(first))}</p>"]
    answer = result.tallies[first.node].shown
    if answer is None or drawing.shape(answer.expected) is None:
        answer = next(
            (t.shown for t in result.tallies.values() if t.shown and drawing.shape(t.shown.expected)), None
        )
    if answer is None:
        return "".join(lines)
    return "".join(lines) + _pictures(answer, result, mapping)


def _pictures(answer: Answer, result: ReplayResult, mapping: TopicMapping | Path | None) -> str:
    recording = Recording(Bag(Path(result.path), mapping))
    guide = drawing.context(recording, answer)
    there = drawing.view(recording, answer)
    words = f"{answer.node}, {answer.topic} at {answer.stamp:.3f} s ({answer.key})"
    shown = [f"<img src='{drawing.in_space(answer, guide)}' alt='the divergence in space'>"]
    note = "The bag has no colour image with camera_info and transform."
    if there is not None:
        picture = drawing.on_image(answer, there, guide)
        shown.insert(0, f"<img src='{picture}' alt='the divergence on the image'>")
        note = f"Image of {there.stamp:.3f} s."
    return f"<p class=quiet>{escape(words)}. {note}</p><div class=pictures>{''.join(shown)}</div>"


def _differences(result: ReplayResult) -> str:
    rows = [_row(d) for d in sorted(result.differences, key=lambda d: d.stamp)[:_LISTED]]
    gone = [f"<li>{escape(str(m))}</li>" for m in result.missing[:_LISTED]]
    parts = [
        f"<p>The replay of {node} stopped early: {escape(why)}</p>" for node, why in result.stopped.items()
    ]
    if gone:
        parts.append(f"<h2>Missing inputs ({len(result.missing)})</h2><ul>{''.join(gone)}</ul>")
    if rows:
        total = len(result.differences) + sum(result.left_out.values())
        head = (
            "<tr><th class=n>s</th><th>node</th><th>output</th><th>quantity</th><th class=n>difference</th>"
            "<th class=n>tolerance</th><th>recorded</th><th>now</th></tr>"
        )
        shown = f", the first {len(rows)} shown" if total > len(rows) else ""
        parts.append(f"<h2>Differences ({total}{shown})</h2><table>{head}{''.join(rows)}</table>")
    return "".join(parts)


def _row(d: Difference) -> str:
    value = f"{d.value:.4g} {d.unit}" if math.isfinite(d.value) else ""
    limit = f"{d.tolerance:.2g} {d.unit}" if math.isfinite(d.value) else ""
    return (
        f"<tr><td class=n>{d.stamp:.3f}</td><td>{d.node}</td><td>{escape(d.key)}</td>"
        f"<td>{escape(d.quantity)}</td><td class=n>{value}</td><td class=n>{limit}</td>"
        f"<td>{escape(d.recorded)}</td><td>{escape(d.replayed)}</td></tr>"
    )


def _versions(result: ReplayResult) -> str:
    recorded, here = result.versions.get("recorded", {}), result.versions.get("present", {})
    if not here:
        return ""
    rows = []
    for name in sorted({*recorded, *here}):
        a, b = str(recorded.get(name, "")), str(here.get(name, ""))
        mark = " class=differs" if a and a != b else ""
        rows.append(
            f"<tr{mark}><td>{escape(name)}</td><td>{escape(a[:64])}</td><td>{escape(b[:64])}</td></tr>"
        )
    head = "<tr><th></th><th>recorded with</th><th>replayed with</th></tr>"
    return f"<h2>Versions</h2><table>{head}{''.join(rows)}</table>"


def _tolerances(result: ReplayResult) -> str:
    used = {q for t in result.tallies.values() for q in t.largest}
    rows = [
        f"<tr><td>{q}</td><td class=n>{same:.3g} {unit}</td><td class=n>{other:.3g} {unit}</td></tr>"
        for q, (same, other, unit) in TOLERANCES.items()
        if q in used
    ]
    head = "<tr><th>quantity</th><th class=n>same machine</th><th class=n>another</th></tr>"
    return f"<h2>Tolerances</h2><table>{head}{''.join(rows)}</table>" if rows else ""
