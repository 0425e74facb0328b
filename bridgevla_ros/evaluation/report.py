"""A report as one HTML file that needs nothing else: tables, plots (SVG), pictures (JPEG), the command."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray


@dataclass(frozen=True)
class Table:
    """Cells as text; ``note`` stands below."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Plot:
    """A figure; ``caption`` says what it shows, also to those who cannot see it."""

    figure: Figure
    caption: str


@dataclass(frozen=True)
class Picture:
    """(H, W, 3) uint8 with words; ``good`` colours its frame (None: neither)."""

    rgb: NDArray[np.uint8]
    caption: str
    good: bool | None = None


@dataclass(frozen=True)
class Section:
    """A part of a report."""

    title: str
    text: str = ""
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Report:
    """A whole report.

    Attributes:
        title: What was measured.
        verdict: The answer in a sentence or two.
        good: Whether gates were met; None where there are none.
        made: Command, commit, weights, machine, as lines of "name: value".
        sections: In order.
    """

    title: str
    verdict: str
    made: dict[str, Any]
    sections: tuple[Section, ...] = field(default=())
    good: bool | None = None


def svg(figure: Figure) -> str:
    """A figure as SVG without the XML head; texts are paths, so that it looks the same everywhere."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def jpeg(rgb: NDArray[np.uint8]) -> str:
    """A picture as data URL."""
    import imageio.v3 as imageio

    data = imageio.imwrite("<bytes>", rgb, extension=".jpg", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")


def html(report: Report) -> str:
    """The report's HTML."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["svg"] = lambda figure: Markup(svg(figure))
    environment.filters["jpeg"] = jpeg
    return environment.from_string(_TEMPLATE).render(report=report, style=Markup(_STYLE))


def write(path: Path, report: Report) -> None:
    """Write the report's file; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html(report), encoding="utf-8")


_STYLE = """
:root { --ink: #1d2530; --dim: #5b6674; --line: #dfe4ea; --ground: #f6f7f9; --good: #1a7f4b; --bad: #b3372f; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
       font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 10px; letter-spacing: -.01em; }
h2 { font-size: 20px; margin: 0 0 6px; }
p { margin: 6px 0 14px; max-width: 76ch; }
.verdict { font-size: 18px; max-width: 76ch; }
.badge { display: inline-block; padding: 2px 12px; border-radius: 99px; color: #fff; font-weight: 600;
         font-size: 14px; margin-bottom: 12px; }
.good.badge { background: var(--good); } .bad.badge { background: var(--bad); }
section, .made { background: #fff; border: 1px solid var(--line); border-radius: 10px;
                 padding: 22px 24px; margin-top: 20px; }
.made { padding: 14px 24px; font-size: 14px; }
.made dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 18px; margin: 0; }
.made dt { color: var(--dim); } .made dd { margin: 0; overflow-wrap: anywhere; }
code { font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; background: #f0f2f5;
       padding: 1px 6px; border-radius: 4px; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14.5px; font-variant-numeric: tabular-nums;
        margin: 8px 0 4px; }
th, td { text-align: left; padding: 6px 18px 6px 0; border-bottom: 1px solid var(--line);
         vertical-align: top; }
th { color: var(--dim); font-weight: 600; white-space: nowrap; }
td:first-child { font-weight: 600; }
.note, figcaption { color: var(--dim); font-size: 13.5px; }
figure { margin: 14px 0 0; } figure svg { max-width: 100%; height: auto; display: block; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 18px; }
.pictures img { width: 100%; border-radius: 6px; border: 3px solid var(--line); display: block; }
.pictures .good img { border-color: var(--good); } .pictures .bad img { border-color: var(--bad); }
@media (max-width: 560px) { .pictures { grid-template-columns: 1fr; } main { padding: 20px 12px 60px; } }
"""

_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ report.title }}</title>
<style>{{ style }}</style>
</head>
<body><main>
<h1>{{ report.title }}</h1>
{% if report.good is not none %}
<div class="badge {{ 'good' if report.good else 'bad' }}">{{ 'passed' if report.good else 'failed' }}</div>
{% endif %}
<p class="verdict">{{ report.verdict }}</p>
<div class="made"><dl>
{% for name, value in report.made.items() %}
<dt>{{ name }}</dt><dd>{% if name == 'command' %}<code>{{ value }}</code>{% else %}{{ value }}{% endif %}</dd>
{% endfor %}
</dl></div>
{% for section in report.sections %}
<section>
<h2>{{ section.title }}</h2>
{% if section.text %}<p>{{ section.text }}</p>{% endif %}
{% for table in section.tables %}
<div class="wide"><table>
<thead><tr>{% for cell in table.header %}<th>{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% if table.note %}<div class="note">{{ table.note }}</div>{% endif %}
{% endfor %}
{% for plot in section.plots %}
<figure role="img" aria-label="{{ plot.caption }}">{{ plot.figure | svg }}
<figcaption>{{ plot.caption }}</figcaption></figure>
{% endfor %}
{% if section.pictures %}
<div class="pictures">
{% for picture in section.pictures %}
<figure class="{{ '' if picture.good is none else 'good' if picture.good else 'bad' }}">
<img src="{{ picture.rgb | jpeg }}" alt="{{ picture.caption }}">
<figcaption>{{ picture.caption }}</figcaption></figure>
{% endfor %}
</div>
{% endif %}
</section>
{% endfor %}
</main></body></html>
"""
