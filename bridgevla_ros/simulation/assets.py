"""Things that are pressed, turned, uncovered or threaded: geometry, and the builders of their MuJoCo bodies.

All are drawn by formula (our choice of sizes); what is gripped is nearly as wide as the gripper opens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mujoco
from scipy.spatial.transform import Rotation

from bridgevla_ros.simulation.scene import ObjectSpec, handle_ends

BUTTON_TRAVEL = 0.010
"""Metres that a button's cap goes down."""
CAP_SHARE = 0.24
"""Radius of the cap by the side of the housing."""
CAP_PROUD = 0.004
"""Metres that a cap pressed down still stands above its housing."""
KNOB_BASE = 0.014
"""Metres of a knob's height that do not turn."""
LID_DISC = 0.008
"""Metres; the rest of a lid's height is its knob."""
POST_BASE = 0.008
"""Metres of a post's foot."""
HANDLE_LENGTH, HANDLE_THICKNESS = 0.036, 0.018
"""Metres that a wide drawer handle stands out, and its height."""

Geom = Callable[..., None]
"""``scene_model._geom``: (body, thing, shape, size, shade, **settings)."""


def cap_top(thing: ObjectSpec, pressed: float) -> float:
    """Metres above its base of a button's cap that is ``pressed`` metres down."""
    return thing.size[2] - pressed


def button(body: Any, thing: ObjectSpec, geom: Geom) -> None:
    """A housing, and a sprung cap in its middle; size: side, side, height of the cap at rest."""
    # A cap and its own housing pass through each other: contact type 2 meets all others, not itself.
    apart = {"contype": 2, "conaffinity": 1}
    half = thing.size[0] / 2
    top = (thing.size[2] - BUTTON_TRAVEL - CAP_PROUD) / 2
    geom(body, thing, "box", [half, half, top], pos=[0, 0, top], rgba=[0.32, 0.32, 0.34, 1.0], **apart)
    cap = body.add_body(name=f"{thing.name}/cap")
    cap.add_joint(
        name=f"{thing.name}/press", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, 0, -1],
        range=[0.0, BUTTON_TRAVEL], limited=True, stiffness=250.0, springref=-0.004, damping=4.0,
    )  # fmt: skip
    low = thing.size[2] - BUTTON_TRAVEL - 2 * CAP_PROUD
    middle = (thing.size[2] + low) / 2
    geom(
        cap, thing, "cylinder", [CAP_SHARE * thing.size[0], (thing.size[2] - low) / 2, 0],
        pos=[0, 0, middle], mass=0.02, **apart,
    )  # fmt: skip


def knob(body: Any, thing: ObjectSpec, geom: Geom) -> None:
    """A foot, and a grip bar that turns on it; size: width that is gripped, depth, height."""
    x, y, z = thing.size
    geom(
        body, thing, "cylinder", [0.62 * max(x, y), KNOB_BASE / 2 - 0.001, 0],
        pos=[0, 0, KNOB_BASE / 2 - 0.001], rgba=[0.32, 0.32, 0.34, 1.0],
    )  # fmt: skip
    head = body.add_body(name=f"{thing.name}/head", pos=[0, 0, KNOB_BASE])
    head.add_joint(
        name=f"{thing.name}/hinge", type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0, 0, 1],
        range=[-2.9, 2.9], limited=True, damping=0.05, frictionloss=0.12, armature=1e-4,
    )  # fmt: skip
    high = (z - KNOB_BASE) / 2
    geom(head, thing, "box", [x / 2, y / 2, high], pos=[0, 0, high], mass=thing.mass)


def pot(body: Any, thing: ObjectSpec, geom: Geom) -> None:
    """A round vessel without handles; size: diameter, diameter, height."""
    radius, height, wall, staves = thing.size[0] / 2, thing.size[2], 0.004, 16
    geom(body, thing, "cylinder", [radius - wall, 0.004, 0], pos=[0, 0, 0.004], shade=0.7)
    _staves(body, thing, geom, radius, wall, height, staves, shade=0.9)


def lid(body: Any, thing: ObjectSpec, geom: Geom) -> None:
    """A disc with a plug below and a round knob on it; size: disc, knob (diameters), height."""
    disc, grip, height = thing.size
    geom(
        body, thing, "cylinder", [disc / 2, LID_DISC / 2, 0], pos=[0, 0, LID_DISC / 2],
        mass=0.6 * thing.mass, shade=0.85,
    )  # fmt: skip
    geom(body, thing, "cylinder", [disc / 2 - 0.013, 0.003, 0], pos=[0, 0, -0.003], mass=0.1 * thing.mass)
    high = (height - LID_DISC) / 2
    geom(body, thing, "cylinder", [grip / 2, high, 0], pos=[0, 0, LID_DISC + high], mass=0.3 * thing.mass)


def post(body: Any, thing: ObjectSpec, geom: Geom) -> None:
    """A pin on a round foot; size: diameter of the pin, of the foot, height."""
    pin, foot, height = thing.size
    geom(body, thing, "cylinder", [foot / 2, POST_BASE / 2, 0], pos=[0, 0, POST_BASE / 2], shade=0.7)
    geom(body, thing, "cylinder", [pin / 2, height / 2, 0], pos=[0, 0, height / 2])


def ring(body: Any, thing: ObjectSpec, geom: Geom) -> None:
    """A thick ring; size: outer diameter, hole, height."""
    outer, hole, height = thing.size
    _staves(body, thing, geom, outer / 2, (outer - hole) / 2, height, 16, mass=thing.mass)


def mallet(body: Any, thing: ObjectSpec, geom: Geom) -> None:
    """A handle with a block across its end; size: whole length, side of the block, height."""
    _handled(body, thing, geom)
    half = thing.size[1] / 2
    geom(
        body, thing, "box", [half, half, thing.size[2] / 2],
        pos=[thing.size[0] / 2 - half, 0, thing.size[2] / 2], mass=0.6 * thing.mass, shade=0.8,
    )  # fmt: skip


def paddle(body: Any, thing: ObjectSpec, geom: Geom) -> None:
    """A handle with a disc at its end; size: whole length, diameter of the disc, height."""
    _handled(body, thing, geom)
    half = thing.size[1] / 2
    geom(
        body, thing, "cylinder", [half, thing.size[2] / 2, 0],
        pos=[thing.size[0] / 2 - half, 0, thing.size[2] / 2], mass=0.6 * thing.mass, shade=0.8,
    )  # fmt: skip


def _handled(body: Any, thing: ObjectSpec, geom: Geom) -> None:
    low, high = handle_ends(thing)
    geom(
        body, thing, "box", [(high - low) / 2 + 0.002, thing.handle / 2, thing.size[2] / 2],
        pos=[(low + high) / 2 + 0.002, 0, thing.size[2] / 2], mass=0.4 * thing.mass,
    )  # fmt: skip


def mark(body: Any, thing: ObjectSpec, geom: Geom) -> None:
    """A painted disc: seen, not felt; size: diameter, diameter, thickness."""
    high = thing.size[2] / 2
    geom(body, thing, "cylinder", [thing.size[0] / 2, high, 0], pos=[0, 0, high], contype=0, conaffinity=0)


def handle(tray: Any, thing: ObjectSpec, geom: Geom, front: float, height: float) -> None:
    """A wide bar in front of a drawer's tray, ``thing.handle`` metres across."""
    half = HANDLE_LENGTH / 2
    geom(
        tray, thing, "box", [half, thing.handle / 2, HANDLE_THICKNESS / 2],
        pos=[front + half, 0, height], shade=0.45, mass=0.05,
    )  # fmt: skip


def _staves(
    body: Any, thing: ObjectSpec, geom: Geom, radius: float, wall: float, height: float, count: int,
    mass: float = 0.0, shade: float = 1.0,
) -> None:  # fmt: skip
    """A ring of boxes: a hollow cylinder."""
    for i in range(count):
        angle = 2 * math.pi * i / count
        x, y, z, w = Rotation.from_euler("z", angle).as_quat()
        middle = radius - wall / 2
        extra = {"mass": mass / count} if mass else {}
        geom(
            body, thing, "box", [wall / 2, radius * math.tan(math.pi / count), height / 2],
            pos=[middle * math.cos(angle), middle * math.sin(angle), height / 2], quat=[w, x, y, z],
            shade=shade * (0.94 + 0.06 * math.cos(angle)), **extra,
        )  # fmt: skip


BUILDERS: dict[str, Callable[[Any, ObjectSpec, Geom], None]] = {
    "button": button,
    "knob": knob,
    "pot": pot,
    "lid": lid,
    "post": post,
    "ring": ring,
    "mark": mark,
    "mallet": mallet,
    "paddle": paddle,
}
