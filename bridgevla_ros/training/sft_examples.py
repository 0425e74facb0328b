"""What a vision-language model is taught: images with the answers that it should write.

A folder of examples holds images/, examples.jsonl (an object a line: image, instruction, intrinsics, points
in pixels, depths, waypoints) and, of rendered scenes, masks/. No coordinate convention is in it: answers
are written for the model that is taught, by the same table that its answers are read with.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import CameraIntrinsics, GripperEvent, WaypointKind
from bridgevla_ros.planner import conventions, prompt
from bridgevla_ros.planner.answers import LocalWaypoint
from bridgevla_ros.planner.viewpoint import camera_yaw

FILE = "examples.jsonl"


@dataclass(frozen=True, eq=False)
class Example:
    """One image with an instruction.

    Attributes:
        image: Path of the image (PNG).
        instruction: In words, as the planner hands it to a backend.
        intrinsics: Of the image.
        pixels: (A, 2) u, v of thing and place; (0, 2) where there is nothing to take.
        labels: (A,) their names.
        depths: (A,) metres, as measured; NaN where they were not.
        waypoints: Of the second turn; empty where they are not known.
        source: Where it comes from.
        mask: Path of an image of 0, 1 (on the thing), 2 (on the place); None where nobody knows.
    """

    image: Path
    instruction: str
    intrinsics: CameraIntrinsics
    pixels: Array
    labels: tuple[str, ...]
    depths: Array
    waypoints: tuple[LocalWaypoint, ...] = ()
    source: str = ""
    mask: Path | None = None

    def rgb(self) -> NDArray[np.uint8]:
        """(H, W, 3)."""
        with Image.open(self.image) as image:
            return np.asarray(image.convert("RGB"))


@dataclass(frozen=True)
class Turn:
    """A conversation up to the user's last word, and the answer to it; ``example`` is an index."""

    example: int
    messages: list[prompt.Message]
    answer: str


def turns(examples: Sequence[Example], convention: str, both: bool) -> list[Turn]:
    """Every turn that examples can teach, as the planner would ask it.

    Args:
        examples: What to teach.
        convention: Of the model.
        both: The second turn too, where depths and waypoints are known.
    """
    out = []
    for i, example in enumerate(examples):
        first = prompt.first_turn(example.instruction, convention)
        answer = points_answer(example, convention)
        if answer:
            out.append(Turn(i, first, answer))
        if both and example.waypoints and np.isfinite(example.depths).all():
            second = prompt.second_turn(first, answer, example.depths, example.intrinsics)
            out.append(Turn(i, second, waypoints_answer(example.waypoints)))
    return out


_NOTHING = {
    "json": "```json\n[]\n```",
    "tuples": "[]",
    "molmo": "There are none.",
    "molmo2": "There are none.",
}


def points_answer(example: Example, convention: str) -> str:
    """Answer of the first turn; empty where the convention cannot say that there is nothing."""
    if not len(example.pixels):
        return _NOTHING.get(conventions.convention(convention).syntax, "")
    k = example.intrinsics
    return conventions.write(example.pixels, list(example.labels), convention, k.width, k.height)


def waypoints_answer(waypoints: Sequence[LocalWaypoint]) -> str:
    """Answer of the second turn; ``parse.waypoints`` reads it (millimetres, hundredths of a rad)."""
    return json.dumps(
        [
            {
                "anchor": w.anchor,
                "offset": [round(float(x), 3) + 0.0 for x in w.offset],
                "yaw": round(w.yaw, 2) + 0.0,
                "kind": w.kind.name.lower(),
                "gripper": w.event.name.lower(),
            }
            for w in waypoints
        ]
    )


def local_waypoint(
    pose: Transform,
    kind: WaypointKind,
    event: GripperEvent,
    anchor: int,
    lifted: Array,
    T_base_camera: Transform,
) -> LocalWaypoint:
    """A TCP pose in the base frame as an offset from a lifted anchor, as the planner turns it back.

    Args:
        pose: T_base_tcp, looking down.
        kind, event: What it is for.
        anchor: 0 thing, 1 place.
        lifted: (3,) the anchor, metres, base frame.
        T_base_camera: Gives the frame's heading.
    """
    heading = camera_yaw(T_base_camera)
    c, s = np.cos(heading), np.sin(heading)
    dx, dy, dz = pose.translation - lifted
    finger = pose.rotation[:2, 1]
    yaw = float(np.arctan2(finger[1], finger[0])) - heading - np.pi / 2
    yaw = (yaw + np.pi / 2) % np.pi - np.pi / 2  # the two fingers are alike
    return LocalWaypoint(anchor, np.array([c * dx + s * dy, c * dy - s * dx, dz]), yaw, kind, event)


class Writer:
    """Writes a folder of examples, one after the other; what is written stays if it is killed."""

    def __init__(self, folder: Path) -> None:
        """Raises BridgeError BAD_INPUT where the folder holds examples already."""
        if (folder / FILE).exists():
            raise BridgeError(
                ErrorCode.BAD_INPUT, f"{folder} holds examples already", remedy="name another folder"
            )
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "masks").mkdir(exist_ok=True)
        self.folder, self.count = folder, 0

    def add(self, example: Example, rgb: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None) -> None:
        """Append one; its ``image`` and ``mask`` are set here."""
        name = f"{self.count:06d}.png"
        image = self.folder / "images" / name
        Image.fromarray(rgb).save(image, compress_level=3)
        where = None
        if mask is not None:
            where = self.folder / "masks" / name
            Image.fromarray(mask).save(where)
        example = dataclasses.replace(example, image=image, mask=where)
        with (self.folder / FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(_to_json(example, self.folder)) + "\n")
        self.count += 1


def _to_json(example: Example, folder: Path) -> dict[str, Any]:
    return {
        "image": str(example.image.relative_to(folder)),
        "instruction": example.instruction,
        "intrinsics": dataclasses.asdict(example.intrinsics),
        "points": np.round(example.pixels, 2).tolist(),
        "labels": list(example.labels),
        "depths": [None if not np.isfinite(d) else round(float(d), 4) for d in example.depths],
        "waypoints": json.loads(waypoints_answer(example.waypoints)),
        "source": example.source,
        "mask": None if example.mask is None else str(example.mask.relative_to(folder)),
    }


def read(folder: Path) -> list[Example]:
    """Examples of a folder.

    Raises:
        BridgeError: BAD_INPUT where it holds none, or a line is not one.
    """
    path = folder / FILE
    if not path.is_file():
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{folder} holds no {FILE}",
            remedy="name a folder of examples, or have some made: --scenes N, --demonstrations DATASET",
        )
    return list(_read(path, folder))


def _read(path: Path, folder: Path) -> Iterator[Example]:
    for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(text)
            yield _example(row, folder)
        except (ValueError, KeyError, TypeError) as error:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"{path}, line {line} is no example: {error!r}",
                remedy="docs/sft.md lists the keys",
            ) from error


def _example(row: dict[str, Any], folder: Path) -> Example:
    waypoints = tuple(
        LocalWaypoint(
            int(w["anchor"]),
            np.array(w["offset"], np.float64),
            float(w["yaw"]),
            WaypointKind[w["kind"].upper()],
            GripperEvent[w["gripper"].upper()],
        )
        for w in row["waypoints"]
    )
    depths = np.array([np.nan if d is None else d for d in row["depths"]], np.float64)
    example = Example(
        folder / row["image"], str(row["instruction"]), CameraIntrinsics(**row["intrinsics"]),
        np.array(row["points"], np.float64).reshape(-1, 2), tuple(row["labels"]), depths, waypoints,
        str(row.get("source", "")), folder / row["mask"] if row.get("mask") else None,
    )  # fmt: skip
    if not len(example.pixels) == len(example.labels) == len(example.depths) <= 2:
        raise ValueError(f"{len(example.pixels)} points, {len(example.labels)} labels, {len(depths)} depths")
    return example
