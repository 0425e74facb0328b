"""The embedded planner: role queries on MiniLM tokens steer a heatmap with a null cell."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModel

from bridgevla_ros.core.camera import project
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import RgbdFrame
from bridgevla_ros.planner import clauses, frame_words
from bridgevla_ros.planner.backends import Anchor, Anchors, LocalWaypoint
from bridgevla_ros.planner.candidates import Found, Query, View
from bridgevla_ros.planner.clauses import Clause
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.eyes import Eyes
from bridgevla_ros.planner.grounding import GroundingModel, TextBelief, TokenEncoder
from bridgevla_ros.planner.language import COLOURS, OTHER_COLOURS, THINGS, known_words, names
from bridgevla_ros.planner.phrases import NounPhrase, not_understood
from bridgevla_ros.planner.relations import viewer_frame
from bridgevla_ros.planner.resolve import Choice, Resolver, Setting
from bridgevla_ros.planner.saying import RELATION_WORDS
from bridgevla_ros.planner.spot import Table, free_spot
from bridgevla_ros.planner.viewpoint import camera_yaw
from bridgevla_ros.planner.vocabulary import (
    COLOUR_ANY,
    COLOUR_OTHER,
    THING_ANY,
    THING_NONE,
    THING_OTHER,
    label,
)

SHIPPED = Path(__file__).resolve().parents[2] / "weights" / "planner"

SAME = 0.01
"""Share of the image's width within which two anchors are one."""

DARK = 6.0
"""Brightest 1% of an image below this (0..255) is no image."""


class EmbeddedBackend:
    """Loads ``GroundingModel`` and MiniLM; one instance serves one thread."""

    name = "embedded"

    def __init__(self, config: PlannerConfig) -> None:
        self.config = config
        folder = Path(config.weights) if config.weights else SHIPPED
        file = folder / "model.safetensors"
        if not file.exists():
            raise BridgeError(
                ErrorCode.MODEL_ERROR,
                f"no weights of the embedded planner in {folder}",
                remedy="bridgevla train planner, or set the parameter weights",
            )
        torch.set_num_threads(config.threads)
        model = AutoModel.from_pretrained(folder, local_files_only=True)
        if not isinstance(model, GroundingModel):
            raise BridgeError(
                ErrorCode.MODEL_ERROR, f"{folder} holds a {type(model).__name__}, not a GroundingModel"
            )
        self.model = model.eval()
        self.eyes = Eyes(self.model, TokenEncoder())
        self.sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        self.threshold = config.null_threshold or float(model.config.null_threshold)

    @torch.inference_mode()
    def anchors(self, frame: RgbdFrame, T_base_camera: Transform, clause: str, seed: int) -> Anchors:
        """Ground both roles of a clause. The seed is not used: nothing is sampled."""
        read = clauses.read(clause)
        belief, offsets = self.eyes.read(read.plain)
        asked = roles(read, belief, offsets)
        self._understood(read, belief, offsets)
        bright = np.count_nonzero(frame.rgb >= DARK) > 0.01 * frame.rgb.size + 1.0  # 25 times cheaper
        if not bright and float(np.percentile(frame.rgb, 99)) < DARK:
            raise BridgeError(
                ErrorCode.NO_TARGET,
                "the camera image is black: nothing can be seen",
                value=float(np.percentile(frame.rgb, 99)),
                limit=DARK,
                remedy="check the light and the camera",
            )
        view = View(self.eyes, frame, T_base_camera, self.config.table_height)
        resolver = Resolver(view, self._setting(T_base_camera))
        found = resolver.prepare(asked)
        choices = _choices(resolver, asked, found)
        anchors = [
            Anchor(query.words, c.candidate.pixel, float(min(1.0, c.candidate.mass * (1.0 - c.null))))
            for (_, query), c in zip(asked, choices, strict=True)
        ]
        for other in anchors[1:]:
            _apart(anchors[0].label, anchors[0].pixel, other.label, other.pixel, frame.rgb.shape[1])
        null, remaining = max(c.null for c in choices), choices[0].remaining
        place = anchors[1] if len(anchors) > 1 else None
        if place is None or not read.goal:
            return Anchors(anchors[0], place, null, remaining)
        spot = self._spot(view, read.goal, [c.label for c in anchors[1:]], choices, T_base_camera)
        return Anchors(anchors[0], replace(spot, confidence=place.confidence), null, remaining, place)

    def _spot(
        self, view: View, kind: str, names: list[str], choices: list[Choice], T_base_camera: Transform
    ) -> Anchor:
        """The free spot on the table that a relation to one or two things tells."""
        told = [c.candidate for c in choices[1:]]
        if kind == "between" and len(told) == 1:
            told += choices[1].others
            names = [f"two {names[0]}s"]
            if len(told) != 2:
                raise BridgeError(
                    ErrorCode.NO_TARGET if len(told) < 2 else ErrorCode.AMBIGUOUS,
                    f"a place between two of {told[0].label!r} is named; {len(told)} can be seen",
                    value=float(len(told)),
                    limit=2.0,
                    remedy="name both by colour and kind",
                )
        source = choices[0].candidate
        for other in told:
            _apart(source.label, source.pixel, other.label, other.pixel, view.frame.rgb.shape[1])
        label = f"{RELATION_WORDS[kind]} {' and '.join(names)}"
        low, high = np.array(self.config.workspace_min[:2]), np.array(self.config.workspace_max[:2])
        table = Table(low, high, viewer_frame(self._setting(T_base_camera).viewer_yaw))
        references = [view.measure(c) for c in told]
        spot = free_spot(view.cloud, kind, view.measure(source), references, table, label)
        pixel = project(T_base_camera.inverse().apply(spot)[None], view.frame.intrinsics)[0]
        return Anchor(label, pixel, 1.0)

    def _setting(self, T_base_camera: Transform) -> Setting:
        """What choosing depends on beside words and image."""
        config = self.config
        low, high = config.workspace_min, config.workspace_max
        corners = np.array([[x, y] for x in (low[0], high[0]) for y in (low[1], high[1])])
        camera, robot = T_base_camera.translation[:2], np.zeros(2)
        from_camera = config.viewpoint == "camera"
        return Setting(
            self.threshold,
            config.ambiguity,
            camera_yaw(T_base_camera) if from_camera else 0.0,
            camera if from_camera else robot,
            robot,
            camera,
            corners,
        )

    def waypoints(
        self, frame: RgbdFrame, clause: str, anchors: Anchors, depths: Array, seed: int
    ) -> list[LocalWaypoint]:
        """The embedded model has no second turn."""
        raise BridgeError(
            ErrorCode.MODEL_ERROR,
            "the embedded planner predicts anchors only",
            remedy="set waypoint_source to geometry",
        )

    def _understood(self, read: Clause, belief: TextBelief, offsets: list[tuple[int, int]]) -> None:
        """Refuse what is no task, and words that are not known."""
        clause = read.plain
        colours, things = belief.colours[0].argmax(-1).tolist(), belief.things[0].argmax(-1).tolist()
        task = float(torch.sigmoid(belief.task[0]))
        empty = not read.things or (colours[0] == COLOUR_ANY and things[0] == THING_ANY and read.simple)
        if task < 0.5 or things[0] == THING_NONE or empty:
            raise BridgeError(
                ErrorCode.NOT_UNDERSTOOD,
                f"{_short(clause)!r} names nothing that the arm could take",
                value=task,
                limit=0.5,
                remedy=f'say for example "put the red cube in the blue bowl"; known {known_words()}',
            )
        for role in range(2):
            words = _attended(clause, belief.attention[0, role], offsets)
            if things[role] == THING_OTHER:
                raise _unknown(words)
            if things[role] == THING_NONE:
                continue
            for classes, chosen in ((COLOURS, colours[role]), (THINGS, things[role])):
                if 0 < chosen <= len(classes) and not names(clause, classes[chosen - 1]):
                    raise _unknown(words)  # believed, but no word of the lexicon says so
            if colours[role] == COLOUR_OTHER:
                if not any(word in words.casefold() for word in OTHER_COLOURS):
                    raise _unknown(words)
                raise BridgeError(
                    ErrorCode.NO_TARGET,
                    f"nothing here is known to be {words!r}",
                    remedy=f"known {known_words()}",
                )


def roles(read: Clause, belief: TextBelief, offsets: list[tuple[int, int]]) -> list[tuple[NounPhrase, Query]]:
    """Give the things of a clause their roles: source first, then the place if there is one.

    The learned language part tells who is who: by where each role's query looks and what it believes to
    be there.

    Raises:
        BridgeError: NOT_UNDERSTOOD: more than two things, or a place that is missing.
    """
    heads = [next(i for i, g in enumerate(read.groups) if g == group) for group in dict.fromkeys(read.groups)]
    if len(heads) < len(read.things) and not read.goal:
        raise not_understood(read.text, "it lists several things at once; one thing and one place a step")
    if len(heads) > 2:
        extra = read.things[heads[2]]
        raise not_understood(read.text[extra.start : extra.end], "one thing and one place a step")
    phrases = [read.things[i] for i in heads]
    colours, things = belief.colours[0].softmax(-1), belief.things[0].softmax(-1)
    score = np.array(
        [
            [
                float((colours[role, p.colour] + 1e-4).log() + (things[role, p.thing] + 1e-4).log())
                + float(np.log(_looked_at(belief.attention[0, role], offsets, read.spans[i]) + 1e-3))
                for i, p in zip(heads, phrases, strict=True)
            ]
            for role in range(2)
        ]
    )
    order = list(range(len(phrases)))
    if len(phrases) == 2 and not read.told and score[0, 1] + score[1, 0] > score[0, 0] + score[1, 1]:
        order = [1, 0]
    if len(phrases) == 1 and frame_words.wants_place(clauses.frame(read)):
        raise not_understood(read.text, "it does not say where")
    asked = [
        (phrases[i], _query(phrases[i], role, colours[role], things[role])) for role, i in enumerate(order)
    ]
    second = [p for i, p in enumerate(read.things) if i not in heads]  # of "between A and B"
    return asked + [(p, Query.of(p.colour, p.thing, 1)) for p in second]


def _choices(resolver: Resolver, asked: list[tuple[NounPhrase, Query]], found: list[Found]) -> list[Choice]:
    """One candidate for each thing of a clause.

    Raises:
        AlreadyDone: All that is asked for lies in its place.
        BridgeError: As ``Resolver.choose``.
    """
    phrases = [phrase for phrase, _ in asked]
    try:
        first = resolver.choose(phrases[0], found[0], asked[0][1].words, asked[0][1].role)
    except BridgeError as refused:
        if refused.code != ErrorCode.NO_TARGET or not _one_of_several(phrases):
            raise
        first = resolver.left_over(phrases[0], found[0], phrases[1], found[1])
    rest = [
        resolver.choose(phrase, answer, query.words, query.role)
        for (phrase, query), answer in zip(asked[1:], found[1:], strict=True)
    ]
    return [first, *rest]


def _one_of_several(phrases: list[NounPhrase]) -> bool:
    """Whether a thing is told by not being in the place where it is to go, as ``steps.sub_goals`` says it."""
    last = phrases[0].relations[-1] if len(phrases) == 2 and phrases[0].relations else None
    if last is None or last.kind != "in" or not last.negated:
        return False
    there = last.references[0]
    goal = (phrases[1].colour, phrases[1].thing)
    return isinstance(there, NounPhrase) and (there.colour, there.thing) == goal


def _apart(one: str, at: Array, other: str, other_at: Array, width: int) -> None:
    """Refuse what names one thing twice."""
    if np.linalg.norm(at - other_at) < SAME * width:
        raise BridgeError(
            ErrorCode.NOT_UNDERSTOOD,
            f"{one!r} and {other!r} are the same thing in the image",
            remedy="name what to take and where to put it",
        )


def _query(phrase: NounPhrase, role: int, colours: Tensor, things: Tensor) -> Query:
    """The learned belief where it agrees with the words, with its doubt; else the words."""
    words = label(phrase.colour, phrase.thing)
    if int(colours.argmax()) == phrase.colour and int(things.argmax()) == phrase.thing:
        return Query(colours, things, role, words)
    return Query.of(phrase.colour, phrase.thing, role)


def _looked_at(attention: Tensor, offsets: list[tuple[int, int]], span: tuple[int, int]) -> float:
    """Share of a role query's attention on the tokens of a character range."""
    inside = [a >= span[0] and b <= span[1] and b > a for a, b in offsets]
    return float(attention[: len(inside)][torch.tensor(inside)].sum())


def _attended(clause: str, attention: Tensor, offsets: list[tuple[int, int]]) -> str:
    """The words that a role query looks at."""
    spans = [
        span
        for share, span in zip(attention.tolist(), offsets, strict=False)
        if share > 0.08 and span[1] > span[0]
    ]
    if not spans:
        return _short(clause)
    start, end = min(a for a, _ in spans), max(b for _, b in spans)
    while start > 0 and clause[start - 1].isalnum():
        start -= 1
    while end < len(clause) and clause[end].isalnum():
        end += 1
    return clause[start:end]


def _unknown(words: str) -> BridgeError:
    return BridgeError(
        ErrorCode.NOT_UNDERSTOOD, f"the planner does not know {words!r}", remedy=f"known {known_words()}"
    )


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
