"""A vision-language model points at targets that were drawn for it, before it may plan.

A convention that is set wrongly gives points that look right: an answer in 0..1000 read as pixels stays
inside a large image. On a drawn image the targets are known, so a wrong scale, exchanged axes or exchanged
colour channels show, and the setting that would fit can be named.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import CameraIntrinsics, RgbdFrame
from bridgevla_ros.planner import conventions, parse, prompt
from bridgevla_ros.planner.backends.chat import ChatBackend

WIDTH, HEIGHT = 320, 240
SOURCE = np.array([230.0, 62.0])
DESTINATION = np.array([88.0, 150.0])
"""Pixels of the red square and of the blue circle: no exchange of axes or roles maps one onto the other."""

TOLERANCE = 20.0
"""Pixels at 320 of width, half the size of what is drawn (our choice)."""

CLAUSE = "put the red square on the blue circle"


@dataclass(frozen=True)
class Reading:
    """One way to read the answer, and how far its points then lie from the targets (pixels, the worse)."""

    convention: str
    axes_exchanged: bool
    colours_exchanged: bool
    error: float

    @property
    def advice(self) -> str:
        """What to set."""
        parts = [f"set convention to {self.convention!r}"]
        if self.axes_exchanged:
            parts = [f"its numbers fit convention {self.convention!r} with the two axes exchanged"]
        if self.colours_exchanged:
            parts.append("red and blue are exchanged: it gets BGR for RGB, or mixes up the two roles")
        return "; ".join(parts)


def drawn_frame() -> RgbdFrame:
    """The test image: a red square and a blue circle on grey, a metre away."""
    rgb = np.full((HEIGHT, WIDTH, 3), 190, np.uint8)
    u, v = (int(x) for x in SOURCE)
    cv2.rectangle(rgb, (u - 20, v - 20), (u + 20, v + 20), (200, 20, 20), -1)
    u, v = (int(x) for x in DESTINATION)
    cv2.circle(rgb, (u, v), 22, (20, 40, 200), -1)
    intrinsics = CameraIntrinsics(WIDTH, HEIGHT, 300.0, 300.0, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)
    return RgbdFrame(0.0, rgb, np.ones((HEIGHT, WIDTH), np.float32), intrinsics)


def check_pointing(backend: ChatBackend) -> float:
    """Let the model point once at the drawn targets.

    Returns:
        Pixels between the worse of its two points and its target.

    Raises:
        BridgeError: MODEL_ERROR where it does not point, or points by another convention than the one set,
            which is then named; TIMEOUT and MODEL_ERROR of the backend itself.
    """
    name = backend.config.convention
    answer = backend.generate(prompt.first_turn(CLAUSE, name), drawn_frame(), 0)
    readings = sorted(_readings(answer), key=lambda r: (r.error, r.convention != name))
    plain = [r for r in readings if not (r.axes_exchanged or r.colours_exchanged)]
    mine = next((r for r in plain if r.convention == name), None)
    if mine is not None and mine.error <= TOLERANCE:
        return mine.error
    shown = answer if len(answer) <= 160 else answer[:157] + "..."
    best = readings[0] if readings else None
    if best is None or best.error > TOLERANCE:
        remedy = "take a checkpoint that points at things, and set its convention"
    else:
        remedy = best.advice
    raise BridgeError(
        ErrorCode.MODEL_ERROR,
        f"self-test: told to point at a red square at {SOURCE.tolist()} and a blue circle at "
        f"{DESTINATION.tolist()} of a {WIDTH}x{HEIGHT} image, the model wrote {shown!r}, which convention "
        f"{name!r} does not bring there",
        value=mine.error if mine is not None else float("nan"),
        limit=TOLERANCE,
        unit="px",
        remedy=remedy,
    )


def _readings(answer: str) -> list[Reading]:
    """The answer as every convention reads it, as it stands, with axes exchanged, with targets exchanged."""
    out = []
    targets = np.stack([SOURCE, DESTINATION])
    for name in conventions.CONVENTIONS:
        try:
            written = parse.points(answer, name)
        except BridgeError:
            continue
        if len(written) != 2:
            continue
        numbers = np.array([p[:2] for p in written])
        for axes in (False, True):
            try:
                pixels = conventions.to_pixels(numbers[:, ::-1] if axes else numbers, name, WIDTH, HEIGHT)
            except BridgeError:
                continue
            for colours in (False, True):
                error = _apart(pixels, targets[::-1] if colours else targets)
                out.append(Reading(name, axes, colours, error))
    return out


def _apart(pixels: Array, targets: Array) -> float:
    return float(np.linalg.norm(pixels - targets, axis=1).max())
