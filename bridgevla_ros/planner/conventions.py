"""How vision-language models write points: each convention with exact maps to pixels and back.

The convention is a required setting of a model, never guessed from the numbers. Pixels are (u, v) of
the camera's image with centres at whole numbers, so an image of width W spans -0.5 .. W - 0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array


@dataclass(frozen=True)
class Convention:
    """Coordinates of one family of models.

    Attributes:
        name: Setting.
        scale: Range of both coordinates, 0..scale over the image; 0 means pixels of the resized image.
        multiple: Sides of the resized image are multiples of this; 0: the image is not resized.
        y_first: The first number is the vertical one.
        syntax: How ``parse`` reads points: "json", "molmo", "molmo2", "tuples" or "loc".
        integer: Numbers are written without decimals.
        prompt: What to ask for, put after the question.
    """

    name: str
    scale: float
    multiple: int
    y_first: bool
    syntax: str
    integer: bool
    prompt: str


_JSON = (
    'Answer with JSON only: [{"point_2d": [x, y], "label": "..."}], the object to take first, then the place.'
)
_TUPLES = "Answer with a list of tuples only, [(x, y), ...], the object to take first, then the place."

CONVENTIONS = {
    c.name: c
    for c in (
        Convention("pixel", 0.0, 0, False, "json", False, _JSON + " Coordinates are pixels."),
        Convention("qwen2.5", 0.0, 28, False, "json", True, _JSON),
        Convention("qwen3", 1000.0, 0, False, "json", True, _JSON),
        Convention(
            "molmo", 100.0, 0, False, "molmo", False, "Point to the object to take, then to the place."
        ),
        Convention(
            "molmo2", 1000.0, 0, False, "molmo2", True, "Point to the object to take, then to the place."
        ),
        Convention(
            "robopoint", 1.0, 0, False, "tuples", False, _TUPLES + " Coordinates are between 0 and 1."
        ),
        Convention("robobrain", 0.0, 0, False, "tuples", True, _TUPLES),
        Convention("embodied-r1", 0.0, 0, False, "tuples", True, _TUPLES),
        Convention("paligemma", 1024.0, 0, True, "loc", True, "detect the object to take ; the place"),
    )
}


def convention(name: str) -> Convention:
    """Look one up.

    Raises:
        ValueError: Unknown; names those there are.
    """
    if name not in CONVENTIONS:
        raise ValueError(f"coordinate convention {name!r}; expected one of {sorted(CONVENTIONS)}")
    return CONVENTIONS[name]


def smart_resize(
    height: int,
    width: int,
    multiple: int = 28,
    min_pixels: int = 56 * 56,
    max_pixels: int = 14 * 14 * 4 * 1280,
) -> tuple[int, int]:
    """Size (height, width) that Qwen-VL processors resize to.

    Sides become multiples of ``multiple`` (28 for Qwen2.5-VL, 32 for Qwen3-VL) with about the same
    aspect, and the area is brought between the two limits.

    Raises:
        ValueError: Aspect ratio over 200.
    """
    if max(height, width) / min(height, width) > 200:
        raise ValueError(f"aspect ratio of a {width}x{height} image is over 200")
    h, w = (
        max(multiple, round(height / multiple) * multiple),
        max(multiple, round(width / multiple) * multiple),
    )
    if h * w > max_pixels:
        beta = math.sqrt(height * width / max_pixels)
        h = max(multiple, math.floor(height / beta / multiple) * multiple)
        w = max(multiple, math.floor(width / beta / multiple) * multiple)
    elif h * w < min_pixels:
        beta = math.sqrt(min_pixels / (height * width))
        h, w = math.ceil(height * beta / multiple) * multiple, math.ceil(width * beta / multiple) * multiple
    return h, w


def _span(c: Convention, width: int, height: int) -> Array:
    """(2,) what the numbers run to along u and v."""
    if c.scale:
        return np.array([c.scale, c.scale])
    if c.multiple:
        h, w = smart_resize(height, width, c.multiple)
        return np.array([w, h], np.float64)
    return np.array([width, height], np.float64)


def to_pixels(points: Array, name: str, width: int, height: int) -> Array:
    """Model coordinates to pixels.

    Args:
        points: (N, 2) as written by the model, in its order.
        name: Convention.
        width, height: Of the camera's image.

    Returns:
        (N, 2) u, v.

    Raises:
        BridgeError: OUT_OF_RANGE: outside the convention's range, with value and limit.
    """
    c = convention(name)
    written = np.asarray(points, np.float64).reshape(-1, 2)
    xy = written[:, ::-1] if c.y_first else written
    span = _span(c, width, height)
    outside = ~np.isfinite(xy) | (xy < 0.0) | (xy > span)
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise BridgeError(
            ErrorCode.OUT_OF_RANGE,
            f"the model wrote {'xy'[column]} = {xy[row, column]:g}; "
            f"convention {name!r} runs from 0 to {span[column]:g}",
            value=float(xy[row, column]),
            limit=float(span[column]),
            remedy="set the convention of this model; the planner does not guess it",
        )
    return np.asarray(xy / span * np.array([width, height]) - (0.5 if c.scale else 0.0))


def from_pixels(pixels: Array, name: str, width: int, height: int) -> Array:
    """Pixels (N, 2) to model coordinates, in the model's order, not rounded; inverse of ``to_pixels``."""
    c = convention(name)
    uv = np.asarray(pixels, np.float64).reshape(-1, 2) + (0.5 if c.scale else 0.0)
    xy = uv / np.array([width, height]) * _span(c, width, height)
    return np.asarray(xy[:, ::-1] if c.y_first else xy)


def write(pixels: Array, labels: list[str], name: str, width: int, height: int) -> str:
    """What a model of that convention would answer for these pixels; the inverse of ``parse.points``."""
    c = convention(name)
    values = from_pixels(pixels, name, width, height)
    if c.integer:
        limit = _span(c, width, height)
        values = np.clip(
            np.round(values), 0, (limit[::-1] if c.y_first else limit) - (1 if c.syntax == "loc" else 0)
        )
    pairs = [tuple(int(x) if c.integer else round(float(x), 4) for x in row) for row in values]
    if c.syntax == "json":
        items = ", ".join(
            f'{{"point_2d": [{a}, {b}], "label": "{text}"}}'
            for (a, b), text in zip(pairs, labels, strict=True)
        )
        return f"```json\n[{items}]\n```"
    if c.syntax == "molmo":
        return "\n".join(
            f'<point x="{a}" y="{b}" alt="{text}">{text}</point>'
            for (a, b), text in zip(pairs, labels, strict=True)
        )
    if c.syntax == "molmo2":
        body = " ".join(f"{i + 1} {int(a):03d} {int(b):03d}" for i, (a, b) in enumerate(pairs))
        return f'<points coords="1 {body}">'
    if c.syntax == "tuples":
        return "[" + ", ".join(f"({a}, {b})" for a, b in pairs) + "]"
    return " ; ".join(
        f"<loc{int(a):04d}><loc{int(b):04d}> {text}" for (a, b), text in zip(pairs, labels, strict=True)
    )
