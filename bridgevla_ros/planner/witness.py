"""A second opinion on anchors: does what stands there look like what the words name?

A vision-language model may point with confidence at the wrong thing. The embedded model's dense heads say
of every cell of the image which colour and which kind of thing is seen there, whoever set the anchor; its
text part says what the words name. Where both are sure and contradict each other, the plan is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import RgbdFrame
from bridgevla_ros.planner.answers import Anchor, Anchors
from bridgevla_ros.planner.clauses import plain
from bridgevla_ros.planner.eyes import Eyes
from bridgevla_ros.planner.grounding import STRIDE, TextBelief
from bridgevla_ros.planner.language import COLOURS, MOVABLE_THINGS, THINGS

REACH = 1
"""Cells on each side of the anchor that may hold what is named."""

SURE = 0.6
"""Probability from which the words' colour or kind counts as named."""


@dataclass(frozen=True)
class Sight:
    """What is seen at an anchor, against what is named.

    Attributes:
        named: e.g. "red"; empty where the words name none or leave it open.
        seen: The likeliest class there.
        agreement: 0..1, greatest probability of the named class next to the anchor; 1 where none is named.
    """

    named: str
    seen: str
    agreement: float


class Witness:
    """Looks at anchors with the embedded model's eyes.

    Args:
        eyes: Shared with the backend where it is the embedded one.
        limit: Least agreement, 0..1.
    """

    def __init__(self, eyes: Eyes, limit: float) -> None:
        self.eyes, self.limit = eyes, limit

    @torch.inference_mode()
    def sights(
        self, frame: RgbdFrame, T_base_camera: Transform, clause: str, anchors: Anchors
    ) -> list[tuple[Anchor, Sight, Sight]]:
        """For each anchor its colour and its kind."""
        belief, _ = self.eyes.read(plain(clause))
        seen = self.eyes.look(frame, T_base_camera)
        size = self.eyes.model.config
        tints, kinds = seen.colours[0].softmax(0).numpy(), seen.things[0].softmax(0).numpy()
        scale = np.array([size.image_width / frame.rgb.shape[1], size.image_height / frame.rgb.shape[0]])
        out = []
        second = anchors.reference or anchors.destination
        given = [anchors.source] if second is None else [anchors.source, second]
        for role, anchor in zip(_roles(belief), given, strict=False):
            cell = np.round(((np.asarray(anchor.pixel) + 0.5) * scale) / STRIDE - 0.5).astype(int)
            colour = belief.colours[0, role].softmax(-1).numpy()
            thing = belief.things[0, role].softmax(-1).numpy()
            out.append(
                (
                    anchor,
                    _sight(tints, colour, cell, tuple(c.name for c in COLOURS)),
                    _sight(kinds, thing, cell, tuple(t.name for t in THINGS)),
                )
            )
        return out

    def check(self, frame: RgbdFrame, T_base_camera: Transform, clause: str, anchors: Anchors) -> float:
        """Returns the least agreement.

        Raises:
            BridgeError: NO_TARGET, an anchor lies on something that is not what is named.
        """
        least = 1.0
        for anchor, colour, thing in self.sights(frame, T_base_camera, clause, anchors):
            for sight in (colour, thing):
                least = min(least, sight.agreement)
                if sight.agreement < self.limit:
                    raise BridgeError(
                        ErrorCode.NO_TARGET,
                        f"what is pointed at for {anchor.label!r} looks {sight.seen}, not {sight.named}",
                        value=sight.agreement,
                        limit=self.limit,
                        remedy="say it in other words, or take a model that points better",
                    )
        return least


def _roles(belief: TextBelief) -> tuple[int, int]:
    """Which of the belief's roles are source and destination.

    The words' order misleads a learned reader: a bowl that is put into a cube was read the wrong way round.
    """
    named = [belief.things[0, role].softmax(-1).numpy() for role in range(2)]
    chosen = [int(n.argmax()) if n.max() >= SURE else 0 for n in named]
    if not all(1 <= c <= len(THINGS) for c in chosen):
        return 0, 1
    carried, place = (THINGS[c - 1].name in MOVABLE_THINGS for c in chosen)
    return (1, 0) if place and not carried else (0, 1)


def _sight(seen: Array, named: Array, cell: Array, names: tuple[str, ...]) -> Sight:
    """Class 0 of ``seen`` (C, H, W) is background, of ``named`` (C,) it is "any"; 1 .. are ``names``."""
    rows, columns = seen.shape[1:]
    row, column = int(np.clip(cell[1], 0, rows - 1)), int(np.clip(cell[0], 0, columns - 1))
    near = seen[
        :, max(row - REACH, 0) : row + REACH + 1, max(column - REACH, 0) : column + REACH + 1
    ].reshape(len(seen), -1)
    likeliest = int(near.max(1)[1 : len(names) + 1].argmax())
    chosen = int(named.argmax())
    if not 1 <= chosen <= len(names) or named[chosen] < SURE:
        return Sight("", names[likeliest], 1.0)
    return Sight(names[chosen - 1], names[likeliest], float(near[chosen].max()))
