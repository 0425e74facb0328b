"""From heatmaps to things: which places in the image could be meant, and where these are in space."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import RgbdFrame
from bridgevla_ros.planner.already import lies_in
from bridgevla_ros.planner.eyes import Eyes
from bridgevla_ros.planner.grasp import Cloud3d, boxes, extents, fit_sphere, segment
from bridgevla_ros.planner.grounding import STRIDE
from bridgevla_ros.planner.language import MOVABLE_THINGS, THINGS
from bridgevla_ros.planner.lifting import lift
from bridgevla_ros.planner.place import outline, place
from bridgevla_ros.planner.rim import Rim
from bridgevla_ros.planner.vocabulary import (
    COLOUR_ANY,
    COLOUR_CLASSES,
    COLOUR_OTHER,
    THING_ANY,
    THING_CLASSES,
    THING_NAMES,
    THING_OTHER,
    label,
)

CLUSTER = 3
"""Cells about a peak that belong to it."""

PEAKS = 12
"""Most peaks of one heatmap that are looked at."""

LEAST_SHARE = 0.08
"""A peak with less than this share of the strongest one's mass is none."""

AGREEMENT = 0.30
"""Least probability, by the dense heads at a peak, of the colour and of the kind asked for. With it and
``LEAST_SHARE`` all of two things alike were found in 38 of 39 development scenes, and no rival of a single
thing; by the mass alone a ball and a cube of one colour were rivals in 1 of 100."""

MAX_EXTENT = 16
"""Cells, the longest that a thing is in the image."""

DOUBT = 0.03
"""Share of the weaker of cube and ball (bar and cylinder) at a peak, from which depth tells which it is."""

ROUND = 0.002
"""Metres, root mean square distance from the best sphere below which a thing is a ball: on development scenes
95% of the balls had less than 0.0012, 95% of the cubes more than 0.0028."""

CONTRADICTED = 0.99
"""Probability that nothing is there where shape says that the only candidate is of another kind."""

CONFIRMED = 0.4
"""Factor on that probability where shape says that the candidate is of the kind that is asked for."""

FULL = 0.2
"""The same where colour and kind agree and depth shows the rim of such a place, with things within."""

LONG = 2.0
"""Ratio of the sides of its footprint from which a thing is a bar; standing cylinders have 1."""

TALL = 0.35
"""Share by which a standing cylinder is taller than wide; a cube by no more than half of it."""

ONE_THING = 0.025
"""Metres within which two measured middles are those of one thing."""

ONE_PLACE = 0.10
"""The same for places, which are larger: a drawer's cabinet and its tray are one."""

CUBE, BALL = THING_NAMES.index("cube"), THING_NAMES.index("ball")
BAR, CYLINDER = THING_NAMES.index("bar"), THING_NAMES.index("cylinder")
MOVABLE = tuple(i + 1 for i, thing in enumerate(THINGS) if thing.name in MOVABLE_THINGS)
HOLDING = tuple(i + 1 for i, thing in enumerate(THINGS) if thing.name not in MOVABLE_THINGS)


@dataclass(frozen=True, eq=False)
class Query:
    """One question to the heatmap head.

    Attributes:
        colours: (COLOUR_CLASSES,) probabilities.
        things: (THING_CLASSES,) probabilities.
        role: 0 source, 1 destination.
        words: What is asked for.
    """

    colours: Tensor
    things: Tensor
    role: int
    words: str

    @classmethod
    def of(cls, colour: int, thing: int, role: int) -> Query:
        """A question by classes, without doubt."""
        colours, things = torch.zeros(COLOUR_CLASSES), torch.zeros(THING_CLASSES)
        colours[colour] = things[thing] = 1.0
        return cls(colours, things, role, label(colour, thing))

    @property
    def colour(self) -> int:
        """Class asked for."""
        return int(self.colours.argmax())

    @property
    def thing(self) -> int:
        """Class asked for."""
        return int(self.things.argmax())


@dataclass(frozen=True, eq=False)
class Candidate:
    """Something in the image that could be meant.

    Attributes:
        pixel: (2,) u, v.
        cell: Row and column of the heatmap.
        mass: Share of the heatmap, 0..1.
        label: What it looks like, e.g. "red cube".
        colour, thing: Classes that it looks like.
        certain: The kind was told by its shape in space.
    """

    pixel: Array
    cell: tuple[float, float]
    mass: float
    label: str
    colour: int
    thing: int
    certain: bool = False


@dataclass(frozen=True, eq=False)
class Found:
    """Answer to a query.

    Attributes:
        candidates: Heaviest first.
        null: Probability that nothing of the kind is there.
    """

    candidates: tuple[Candidate, ...]
    null: float


@dataclass(frozen=True, eq=False)
class Measured:
    """A candidate in space. Base frame, metres.

    Attributes:
        center: (2,) middle on the ground.
        radius: Half of its greater extent on the ground.
        size: Its length, width and height multiplied, cubic metres.
        height: Of its top above the support.
    """

    center: Array
    radius: float
    size: float
    height: float


class View:
    """One frame, asked for things; what it has measured it remembers.

    Args:
        eyes: The model.
        frame: Colour and depth.
        T_base_camera: At the frame's stamp.
        table_height: Of the support plane, metres.
    """

    def __init__(
        self, eyes: Eyes, frame: RgbdFrame, T_base_camera: Transform, table_height: float = 0.0
    ) -> None:
        self.eyes, self.frame, self.T_base_camera = eyes, frame, T_base_camera
        self._table_height = table_height
        seen = eyes.look(frame, T_base_camera)
        self.seen = seen
        self.tints: Array = seen.colours[0].softmax(0).numpy()
        self.kinds: Array = seen.things[0].softmax(0).numpy()
        self._measured: dict[tuple[float, float], Measured] = {}

    @cached_property
    def cloud(self) -> Cloud3d:
        """Every pixel in space."""
        return Cloud3d.of(self.frame, self.T_base_camera, self._table_height)

    @torch.inference_mode()
    def ask(self, queries: list[Query]) -> list[Found]:
        """Answer queries, all at once."""
        logits = self.eyes.model.head(
            self.seen,
            torch.stack([q.colours for q in queries]),
            torch.stack([q.things for q in queries]),
            torch.tensor([q.role for q in queries]),
            torch.zeros(len(queries), dtype=torch.long),
        )
        return [self._found(q, row) for q, row in zip(queries, logits.softmax(-1).numpy(), strict=True)]

    def _found(self, query: Query, probability: Array) -> Found:
        rows, columns = self.kinds.shape[-2:]
        heat = probability[:-1].reshape(rows, columns)
        if query.thing == THING_ANY:  # "the red one": what can be taken, or what holds things
            wanted = list(MOVABLE if query.role == 0 else HOLDING)
            heat = heat * (self.kinds[wanted].sum(0) + 1e-3)
        heat = heat / max(float(heat.sum()), 1e-12)
        candidates: list[Candidate] = []
        for candidate in (self._candidate(p) for p in clusters(heat)):
            strong = not candidates or candidate.mass >= LEAST_SHARE * candidates[0].mass
            if strong and not any(self._same(candidate, other) for other in candidates):
                candidates.append(candidate)
        fitting = [c for c in candidates if self._fits(query, c)]
        null = float(probability[-1])
        if not fitting and candidates[0].certain and query.thing not in (THING_ANY, candidates[0].thing):
            null = max(null, CONTRADICTED)  # a ball by its shape is no cube
        elif fitting and fitting[0].certain and fitting[0].thing == query.thing:
            null *= CONFIRMED
        return Found(tuple(fitting or candidates[:1]), null)

    def _fits(self, query: Query, candidate: Candidate) -> bool:
        """Whether a peak is a thing that looks like what is asked for."""
        if self.agreement(query, candidate) < AGREEMENT:
            return False
        colour = 0 < query.colour < COLOUR_OTHER and candidate.colour != query.colour
        return not colour and not (0 < query.thing < THING_OTHER and candidate.thing != query.thing)

    def _same(self, one: Candidate, other: Candidate) -> bool:
        """Whether two peaks lie on one thing: alike, nothing between them, and one middle in space."""
        if one.label != other.label:
            return False
        a, b = np.array(one.cell), np.array(other.cell)
        steps = int(np.abs(a - b).max()) + 1
        cells = np.round(a + (b - a) * np.linspace(0.0, 1.0, steps)[:, None]).astype(int)
        if steps > MAX_EXTENT or (self.kinds[0, cells[:, 0], cells[:, 1]] > 0.5).any():
            return False
        try:
            apart = float(np.linalg.norm(self.measure(one).center - self.measure(other).center))
        except BridgeError:
            return True
        return apart < (ONE_PLACE if one.thing in HOLDING else ONE_THING)

    def agreement(self, query: Query, candidate: Candidate) -> float:
        """The lesser of the probabilities of colour and of kind next to a peak; 1 where none is asked."""
        near, least = _near(candidate.cell), 1.0
        if query.colour != COLOUR_ANY:
            least = float(self.tints[query.colour][near].max())
        if query.thing == THING_ANY or query.thing >= len(self.kinds):
            return least
        if candidate.certain:
            return least if candidate.thing == query.thing else 0.0
        return min(least, float(self.kinds[query.thing][near].max()))

    def _candidate(self, peak: tuple[float, float, float]) -> Candidate:
        row, column, mass = peak
        size, frame = self.eyes.model.config, self.frame
        u = (column + 0.5) * STRIDE * frame.rgb.shape[1] / size.image_width - 0.5
        v = (row + 0.5) * STRIDE * frame.rgb.shape[0] / size.image_height - 0.5
        pixel, near = np.array([u, v]), _near((row, column))
        colour = int(self.tints[1:-1][:, *near].sum((1, 2)).argmax()) + 1
        shares = self.kinds[1:-2][:, *near].sum((1, 2))
        thing, certain = int(shares.argmax()) + 1, False
        for pair in (CUBE, BALL), (BAR, CYLINDER):
            weaker = float(shares[[k - 1 for k in pair]].min())
            if thing in pair and weaker > DOUBT * float(shares.sum()):
                shape = self._shape(pixel, pair)
                thing, certain = shape or thing, bool(shape)
        return Candidate(pixel, (row, column), mass, label(colour, thing), colour, thing, certain)

    def _shape(self, pixel: Array, pair: tuple[int, int]) -> int:
        """Which of cube and ball, or of bar and cylinder, depth shows there; 0 where it shows nothing."""
        try:
            mask, roi = segment(self.cloud, pixel)
        except BridgeError:
            return 0
        points = self.cloud.points[roi][mask]
        if BALL in pair:
            return BALL if fit_sphere(points)[2] < ROUND else CUBE
        _, low, high = _footprint(points)
        return BAR if high > LONG * low else CYLINDER

    def measure(self, candidate: Candidate) -> Measured:
        """Where a candidate stands and how large it is, by depth.

        Raises:
            BridgeError: DEPTH_HOLE.
        """
        if candidate.cell not in self._measured:
            self._measured[candidate.cell] = self._measure(candidate)
        return self._measured[candidate.cell]

    def confirmed(self, query: Query, found: Found) -> Found:
        """The same, surer that what is asked for is there where depth tells it in or around a full place.

        The eyes learned empty places and things on the table. A place counts by its rim, with things within;
        a thing that lies in one by its shape in space, where the eyes see its colour there.
        """
        candidate = found.candidates[0]
        try:
            rim = outline(self.cloud, lift(self.frame, self.T_base_camera, candidate.pixel))
            if rim is None or not len(rim.things):
                return found
            if query.thing in MOVABLE:
                colour = query.colour == COLOUR_ANY or float(
                    self.tints[query.colour][_near(candidate.cell)].max()
                )
                if colour < AGREEMENT or self._kind_in(rim, candidate.pixel) != query.thing:
                    return found
                candidate = replace(candidate, label=query.words, colour=query.colour, thing=query.thing)
                return Found((candidate,), found.null * FULL)
        except BridgeError:
            return found
        told = self._fits(query, candidate) and rim.kind == THING_NAMES[candidate.thing]
        return replace(found, null=found.null * FULL) if told else found

    def _kind_in(self, rim: Rim, pixel: Array) -> int:
        """Class of a thing that lies in a place, by its shape; 0 for none."""
        mask, roi = segment(self.cloud, pixel)
        points = self.cloud.points[roi][mask]
        within = rim.shape.room(points[:, :2]) > 0.0
        if within.mean() < 0.95:
            return 0
        _, low, high = _footprint(points)
        upright = (float(np.percentile(points[:, 2], 97)) - rim.floor) / max(low, 1e-6)
        if fit_sphere(points)[2] < ROUND:
            return BALL
        if high > LONG * low:
            return BAR if upright < 1.0 + TALL else 0
        if high > (1.0 + TALL) * low or 1.0 + TALL / 2 < upright < 1.0 + TALL:
            return 0  # a cylinder that lies, or one of two
        return CUBE if upright < 1.0 + TALL else CYLINDER

    def lying(self, among: list[Candidate], where: Candidate) -> list[Candidate]:
        """The things that lie in a place; without those that are in doubt."""
        try:
            lifted = lift(self.frame, self.T_base_camera, where.pixel)
        except BridgeError:
            return []
        into = place(self.cloud, where.pixel, lifted)
        return [c for c in among if lies_in(self.cloud, c.pixel, into)]

    def _measure(self, candidate: Candidate) -> Measured:
        lifted = lift(self.frame, self.T_base_camera, candidate.pixel)
        if candidate.thing in HOLDING:
            where = place(self.cloud, candidate.pixel, lifted)
            radius = float(np.median(where.walls)) + 0.01
            height = max(where.rim - self.cloud.support, 0.005)
            return Measured(np.asarray(where.center), radius, 4 * radius**2 * height, height)
        try:
            mask, roi = segment(self.cloud, candidate.pixel)
        except BridgeError:
            return Measured(lifted.position[:2], 0.03, 0.0, 0.0)
        points = self.cloud.points[roi][mask]
        area, _, long = _footprint(points)
        low_x, high_x, low_y, high_y = extents(points[:, :2], 0.0)
        height = float(np.percentile(points[:, 2], 97)) - self.cloud.support
        center = np.array([(low_x + high_x) / 2, (low_y + high_y) / 2])
        return Measured(center, long / 2, area * max(height, 0.005), height)


def _footprint(points: Array) -> tuple[float, float, float]:
    """Area, lesser and greater side of the smallest rectangle on the ground around (N, 3) points, metres."""
    at = boxes(points[:, :2], np.radians(np.arange(0.0, 90.0, 10.0)))
    sides = np.sort(np.stack([at[:, 1] - at[:, 0], at[:, 3] - at[:, 2]], -1))
    low, high = sides[int(sides.prod(1).argmin())]
    return float(low * high), float(low), float(high)


def _near(cell: tuple[float, float]) -> tuple[slice, slice]:
    """A cell and those around it."""
    row, column = round(cell[0]), round(cell[1])
    return slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2)


def clusters(heat: Array) -> list[tuple[float, float, float]]:
    """Peaks of a normalised heatmap as (row, column, mass), heaviest first; at most ``PEAKS``."""
    left = heat.copy()
    peaks: list[tuple[float, float, float]] = []
    for _ in range(PEAKS):
        row, column = np.unravel_index(int(left.argmax()), left.shape)
        window = (
            slice(max(row - CLUSTER, 0), row + CLUSTER + 1),
            slice(max(column - CLUSTER, 0), column + CLUSTER + 1),
        )
        part = left[window]
        mass = float(part.sum())
        if mass < 1e-3 or (peaks and mass < 0.5 * LEAST_SHARE * peaks[0][2]):
            break
        near = (
            slice(max(row - 1, 0), min(row + 2, heat.shape[0])),
            slice(max(column - 1, 0), min(column + 2, heat.shape[1])),
        )
        weight = left[near]
        grid = np.mgrid[near]
        total = float(weight.sum())
        peaks.append((float((grid[0] * weight).sum() / total), float((grid[1] * weight).sum() / total), mass))
        left[window] = 0.0
    return sorted(peaks, key=lambda p: -p[2])
