"""What the small vision-language model is taught: instructions about rendered frames, and drawn shapes.

Frames are those of the embedded planner, phrasings come from its grammar; an answer is what the convention's
own table writes. A few images are flat drawings, as the self-test shows one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.planner import conventions, prompt
from bridgevla_ros.planner.language import normalise
from bridgevla_ros.planner.prompt import Message
from bridgevla_ros.planner.vocabulary import (
    COLOUR_ANY,
    COLOUR_NAMES,
    COLOUR_OTHER,
    THING_ANY,
    THING_OTHER,
    label,
)
from bridgevla_ros.training import planner_phrasings as phrasings
from bridgevla_ros.training.planner_data import Frames
from bridgevla_ros.training.planner_vision import Frame, augment
from bridgevla_ros.training.small_vlm_model import CONVENTION, SHAPES, think

MOVABLE = 4
"""The lexicon's first kinds are things to take, the rest places; usually each is asked for as that."""

NO_TASK, ABSENT, TAKE_ONLY = 0.04, 0.2, 0.07
"""Shares of questions: nothing that an arm could do, something that is not there, no place named."""

PAINT = {
    "red": (205, 30, 30), "green": (40, 160, 50), "blue": (30, 50, 200), "yellow": (230, 210, 40),
    "orange": (240, 130, 25), "purple": (130, 50, 160), "white": (245, 245, 245), "black": (20, 20, 20),
    "pink": (240, 140, 180), "brown": (120, 75, 40), "grey": (120, 120, 120), "cyan": (40, 190, 210),
}  # fmt: skip


@dataclass(frozen=True)
class Lesson:
    """A question about one image.

    Attributes:
        messages: As the planner asks.
        answer: As the model shall write it: a thought that names what is meant, then points.
        targets: (n, 2) pixels (u, v) of the network's input; n points, none where nothing is to be taken.
        objects: (n,) objects of the frame that they lie on, 1-based; of a drawing, in order drawn.
        nouns: (n,) words for them in the instruction; may be fewer where they are not known.
    """

    messages: list[Message]
    answer: str
    targets: Array
    objects: tuple[int, ...]
    nouns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scene:
    """One image with lessons: (H, W, 3) uint8, and (H/4, W/4) owner of each cell."""

    rgb: NDArray[np.uint8]
    owner: NDArray[np.uint8]
    lessons: list[Lesson]


def lesson(
    clause: str,
    targets: Array,
    labels: list[str],
    objects: tuple[int, ...],
    size: Array,
    nouns: tuple[str, ...] = (),
    there: tuple[bool, ...] = (True, True),
) -> Lesson:
    """Question and answer for a clause.

    Args:
        clause: The instruction.
        targets, objects, nouns: See ``Lesson``.
        labels: What is meant, whether it is there or not; none where there is nothing to do.
        size: Width and height of the network's input.
        there: Whether each of the labels is there; if one is not, there are no targets.
    """
    width, height = (int(x) for x in size)
    thought = think(labels, there[: len(labels)])
    answer = conventions.write(targets, labels if len(targets) else [], CONVENTION, width, height)
    return Lesson(prompt.first_turn(clause, CONVENTION), thought + answer, targets, objects, nouns)


def middle(frame: Frame, index: int) -> Array | None:
    """(u, v) of the network's input at which a thing is pointed at: on it, as near its middle as can be."""
    rows, columns = np.nonzero(frame.owner == index + 1)
    if not len(rows):
        return None
    at = np.array([rows.mean(), columns.mean()])
    if np.isfinite(frame.anchors[index]).all():
        at = np.asarray(frame.anchors[index], np.float64)
    r, c = np.clip(np.round(at).astype(int), 0, np.array(frame.owner.shape) - 1)
    if frame.owner[r, c] != index + 1:
        nearest = int(np.argmin((rows - at[0]) ** 2 + (columns - at[1]) ** 2))
        at = np.array([rows[nearest], columns[nearest]], np.float64)
    return np.asarray((at[::-1] + 0.5) * 4 - 0.5)


def describe(frame: Frame, index: int, rng: random.Random) -> phrasings.Noun | None:
    """Words that fit one thing of the frame alone; None where colour and kind do not tell it apart."""
    colour, thing = int(frame.colours[index]), int(frame.things[index])
    if rng.random() < 0.12:
        alone = frame.ask(COLOUR_ANY, thing)
        if alone is not None and len(alone.answers) == 1:
            return _noun(rng, COLOUR_ANY, thing)
    alone = frame.ask(colour, thing)
    return _noun(rng, colour, thing) if alone is not None and len(alone.answers) == 1 else None


def _noun(rng: random.Random, colour: int, thing: int) -> phrasings.Noun:
    """A noun phrase of just these classes; one without a colour is drawn until it has none."""
    while True:
        noun = phrasings.noun_phrase(rng, colour=colour or None, thing=thing)
        if noun[1] == colour:
            return noun


def missing(frame: Frame, rng: random.Random) -> phrasings.Noun | None:
    """Words for something that is not there, most often in a colour and of a kind that are."""
    present = np.flatnonzero(frame.there)
    if rng.random() < 0.15 or not len(present):
        return phrasings.noun_phrase(rng, colour=None, thing=None) if rng.random() < 0.3 else None
    hard = rng.random() < 0.7
    colour = int(frame.colours[rng.choice(present)]) if hard else rng.randrange(1, COLOUR_OTHER)
    thing = int(frame.things[rng.choice(present)]) if hard else rng.randrange(1, THING_OTHER)
    query = frame.ask(colour, thing)
    return _noun(rng, colour, thing) if query is not None and not query.answers else None


def plainly_said(rng: random.Random, names: list[str]) -> str:
    """The plainest words for a pick-and-place."""
    verb, into = rng.choice(("put", "place", "move")), rng.choice(("in", "on", "into"))
    return f"{verb} the {names[0]} {into} the {names[1]}"


def question(frame: Frame, rng: random.Random, size: Array, plain: float = 0.0) -> Lesson | None:
    """One instruction about a frame; None where what was drawn cannot be asked.

    Args:
        frame: Asked about.
        rng: Drawn from.
        size: Width and height of the network's input.
        plain: Share of instructions in the plainest words.
    """
    nothing = np.zeros((0, 2))
    kind = rng.random()
    if kind < NO_TASK:
        text = phrasings.no_task(rng)
        return _checked(text, nothing, [], (), size)
    seen = [int(i) for i in np.flatnonzero(frame.seen)]
    if len(seen) < 2:
        return None
    movable = [i for i in seen if frame.things[i] <= MOVABLE]
    places = [i for i in seen if frame.things[i] > MOVABLE]
    plainly = rng.random() < 0.8
    source = rng.choice(movable if movable and plainly else seen)
    others = [i for i in (places if places and plainly else seen) if i != source]
    if not others:
        return None
    place = rng.choice(others)
    nouns = describe(frame, source, rng), describe(frame, place, rng)
    absent = kind < NO_TASK + ABSENT
    if absent:
        away = missing(frame, rng)
        if away is None or not THING_ANY < away[2] < THING_OTHER or not 0 < away[1] < COLOUR_OTHER:
            return None
        query = frame.ask(away[1], away[2])
        if query is None or query.answers:
            return None
        nouns = (away, nouns[1]) if rng.random() < 0.75 else (nouns[0], away)
    if nouns[0] is None or nouns[1] is None:
        return None
    take_only = rng.random() < TAKE_ONLY and (not absent or nouns[0] is away)
    phrase = phrasings.about(rng, nouns[0], None if take_only else nouns[1])
    labels = [label(n[1], n[2]) for n in nouns[: 1 if take_only else 2] if n is not None]
    text, said = phrase.text, tuple(phrase.text[a:b] for a, b in (s for s in phrase.spans if s))
    if not take_only and rng.random() < plain:
        text, said = plainly_said(rng, labels), tuple(labels)
    if absent:
        there = nouns[0] is not away, nouns[1] is not away
        return _checked(text, nothing, labels, (), size, (), there)
    asked = (source,) if take_only else (source, place)
    points = [middle(frame, i) for i in asked]
    if any(p is None for p in points):
        return None
    return _checked(text, np.array(points), labels, tuple(i + 1 for i in asked), size, said)


def _checked(
    text: str,
    targets: Array,
    labels: list[str],
    objects: tuple[int, ...],
    size: Array,
    nouns: tuple[str, ...] = (),
    there: tuple[bool, ...] = (True, True),
) -> Lesson | None:
    try:
        return lesson(normalise(text), targets, labels, objects, size, nouns, there)
    except BridgeError:  # longer than what an operator may say
        return None


def scene(
    frames: Frames, index: int, questions: int, seed: list[int], train: bool = True, plain: float = 0.0
) -> Scene:
    """A frame and instructions about it.

    Args:
        frames: A shard.
        index: Of the frame.
        questions: Tried; those that cannot be asked are left out.
        seed: Everything is drawn from it.
        train: Vary light and mirror; otherwise the frame stands as it was rendered.
        plain: Share of instructions in the plainest words.
    """
    draws, words = np.random.default_rng(seed), random.Random(str(seed))
    rgb, item = frames.rgb[index], Frame(frames, index)
    if train:
        rgb, _ = augment(draws, rgb, frames.heights[index])
        if draws.random() < 0.5:
            rgb = np.ascontiguousarray(rgb[:, ::-1])
            item.mirror()
    size = np.array([rgb.shape[1], rgb.shape[0]])
    asked = [question(item, words, size, plain) for _ in range(questions)]
    return Scene(rgb, item.owner, [q for q in asked if q is not None])


def drawing(height: int, width: int, questions: int, seed: list[int]) -> Scene:
    """Two to four flat shapes on a plain ground, and instructions about them by colour and shape."""
    draws, rng = np.random.default_rng(seed), random.Random(str(seed))
    names = rng.sample(
        sorted({(c, s) for c in PAINT if c in COLOUR_NAMES for s in SHAPES}), rng.randint(2, 4)
    )
    ground = draws.integers(60, 240, 1) + draws.integers(-8, 9, 3)
    rgb = np.clip(np.ones((height, width, 1)) * ground, 0, 255).astype(np.uint8)
    owner = np.zeros((height, width), np.uint8)
    centres: list[Array] = []
    for number, (colour, shape) in enumerate(names, 1):
        radius = int(draws.integers(10, 26))
        for _ in range(50):
            at = draws.uniform([radius, radius], [width - radius, height - radius])
            if all(np.linalg.norm(at - c) > 2.2 * radius + 14 for c in centres):
                break
        else:
            return drawing(height, width, questions, [*seed, 1])
        paint = np.clip(np.array(PAINT[colour]) + draws.integers(-25, 26, 3), 0, 255)
        for canvas, value in ((rgb, paint), (owner, np.array([number]))):
            _shape(canvas, shape, at, radius, tuple(int(v) for v in value))
        centres.append(np.round(at))
    lessons = []
    for _ in range(questions):
        a, b = rng.sample(range(len(names)), 2)
        nouns = [(f"the {' '.join(names[i])}", 0, 0) for i in (a, b)]
        text = phrasings.about(rng, nouns[0], nouns[1]).text
        labels = [" ".join(names[i]) for i in (a, b)]
        size = np.array([width, height])
        made = _checked(text, np.array([centres[a], centres[b]]), labels, (a + 1, b + 1), size, tuple(labels))
        if made is not None:
            lessons.append(made)
    return Scene(rgb, owner[2::4, 2::4], lessons)


def _shape(canvas: NDArray[np.uint8], shape: str, at: Array, radius: int, value: tuple[int, ...]) -> None:
    u, v = (int(x) for x in np.round(at))
    if shape == "circle":
        cv2.circle(canvas, (u, v), radius, value, -1)
    elif shape == "square":
        cv2.rectangle(canvas, (u - radius, v - radius), (u + radius, v + radius), value, -1)
    else:
        corners = np.array([[u, v - radius], [u - radius, v + radius], [u + radius, v + radius]])
        cv2.fillPoly(canvas, [corners], value)
