"""The two turns of the conversation with a vision-language model."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import CameraIntrinsics
from bridgevla_ros.planner.conventions import convention

Message = dict[str, Any]


def first_turn(clause: str, name: str) -> list[Message]:
    """Image and instruction: ask for anchors, in the model's own way of pointing."""
    text = (
        f"A robot arm is told: {clause!r}. Point at the thing that it has to take, then at the place where "
        f"it has to put it (leave the place out if the instruction names none). {convention(name).prompt}"
    )
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]


def second_turn(
    history: list[Message], answer: str, depths: Array, intrinsics: CameraIntrinsics
) -> list[Message]:
    """The conversation so far, depths and intrinsics: ask for waypoints as offsets from the anchors."""
    camera = {k: round(float(getattr(intrinsics, k)), 2) for k in ("fx", "fy", "cx", "cy")}
    text = (
        f"The points are at depths of {json.dumps([round(float(d), 3) for d in np.asarray(depths)])} m; the "
        f"camera has {json.dumps(camera)}, image {intrinsics.width}x{intrinsics.height}. Write the gripper's "
        'waypoints as JSON only: [{"anchor": 0, "offset": [x, y, z], "yaw": a, '
        '"kind": "via|approach|contact|retreat", "gripper": "none|open|close"}]. Offsets are metres from '
        "anchor 0 (the thing) or 1 (the place); z is up, x points away from the camera along the ground, "
        "y to the left. yaw turns the fingers, in rad."
    )
    return [
        *history,
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        {"role": "user", "content": [{"type": "text", "text": text}]},
    ]
