"""What a column of an episode holds: type, shape, names, unit; checked once, where data comes in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bridgevla_ros.core.errors import BridgeError, ErrorCode

NUMBERS = (
    "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool",
)  # fmt: skip
"""Element types of numeric columns."""
KINDS = (*NUMBERS, "string", "image", "video")
RESERVED = ("timestamp", "frame_index", "episode_index", "index", "task_index", "task")
"""Columns that every data set has; the writer fills them."""
STAMP = "stamp"
"""The column that our LeRobot data sets have besides."""


@dataclass(frozen=True)
class Feature:
    """One column.

    Attributes:
        dtype: A numpy type of ``NUMBERS``, "string", "image", or "video" (read only).
        shape: Of one frame's value; (1,) for a scalar or a string; (H, W, 3) for colour, (H, W, 1) for depth.
        names: Of the elements of the last axis, e.g. joint names; empty for none.
        unit: E.g. "m", "rad"; empty for none or mixed.
        description: One line: what it is, in which frame.
        depth: An image whose values are float32 metres, NaN where there is no depth.
    """

    dtype: str
    shape: tuple[int, ...] = (1,)
    names: tuple[str, ...] = ()
    unit: str = ""
    description: str = ""
    depth: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in KINDS:
            raise _bad(f"feature of type {self.dtype!r}", f"use one of {', '.join(KINDS)}")
        if not self.shape or any(n < 1 for n in self.shape) or len(self.shape) > 5:
            raise _bad(f"feature of shape {self.shape}", "give 1 to 5 sizes of at least 1; a scalar is (1,)")
        if self.is_image and (len(self.shape) != 3 or self.shape[2] != (1 if self.depth else 3)):
            raise _bad(f"image of shape {self.shape}", "colour is (H, W, 3), depth is (H, W, 1)")
        if self.names and not self.is_image and len(self.names) != self.shape[-1]:
            raise _bad(f"{len(self.names)} names for {self.shape[-1]} elements", "name each element or none")

    @property
    def is_image(self) -> bool:
        """Whether frames are pictures."""
        return self.dtype in ("image", "video")

    @property
    def numpy(self) -> np.dtype[Any]:
        """Type of the column as an array."""
        if self.is_image:
            return np.dtype(np.float32 if self.depth else np.uint8)
        return np.dtype(object if self.dtype == "string" else self.dtype)

    @property
    def row(self) -> tuple[int, ...]:
        """Shape of one frame in an array: scalars, strings and depth have no axis of size 1."""
        if self.depth:
            return self.shape[:2]
        return () if self.shape == (1,) else self.shape

    def to_json(self) -> dict[str, Any]:
        """The entry of ``features`` in a LeRobotDataset's info.json."""
        info: dict[str, Any] = {}
        if self.unit:
            info["unit"] = self.unit
        if self.description:
            info["description"] = self.description
        if self.depth:
            info |= {"is_depth_map": True, "depth_unit": "m"}
        names: Any = ["height", "width", "channels"] if self.is_image else list(self.names) or None
        return {"dtype": self.dtype, "shape": list(self.shape), "names": names} | (
            {"info": info} if info else {}
        )

    @classmethod
    def from_json(cls, name: str, entry: Mapping[str, Any]) -> Feature:
        """Inverse of ``to_json``; takes what others wrote as well.

        Raises:
            BridgeError: BAD_INPUT for a type or shape that is not known.
        """
        info = {**(entry.get("video_info") or {}), **(entry.get("info") or {})}
        depth = bool(info.get("is_depth_map", info.get("video.is_depth_map", False)))
        try:
            dtype, shape = str(entry["dtype"]), tuple(int(n) for n in entry["shape"])
        except (KeyError, TypeError, ValueError) as error:
            raise _bad(
                f"feature {name!r} is described by {dict(entry)}", "it lacks dtype or shape"
            ) from error
        picture = dtype in ("image", "video")
        if picture and len(shape) == 3 and shape[0] in (1, 3) and shape[2] not in (1, 3):
            shape = (shape[1], shape[2], shape[0])  # written channels first
        names = entry.get("names")
        if isinstance(names, Mapping):  # e.g. {"motors": [...]}
            names = next(iter(names.values()), None)
        flat = tuple(map(str, names)) if isinstance(names, list | tuple) and not picture else ()
        if len(flat) != shape[-1]:
            flat = ()
        unit, description = str(info.get("unit", "")), str(info.get("description", ""))
        try:
            return cls(dtype, shape, flat, unit, description, depth and picture)
        except BridgeError as error:
            raise _bad(f"feature {name!r}: {error.message}", error.remedy) from error


def _bad(message: str, remedy: str) -> BridgeError:
    return BridgeError(ErrorCode.BAD_INPUT, message, remedy=remedy)


def check_features(features: Mapping[str, Feature]) -> None:
    """Refuse names that the format keeps for itself.

    Raises:
        BridgeError: BAD_INPUT.
    """
    if not features:
        raise _bad("a data set without features", "name at least one column")
    for name, feature in features.items():
        if name in RESERVED:
            raise _bad(f"the format fills {name!r} itself", f"leave out {', '.join(RESERVED)}")
        if "/" in name or not name:
            raise _bad(f"no name for a feature: {name!r}", "names hold no slash; parts are joined by dots")
        if feature.dtype == "video":
            raise _bad(f"feature {name!r} is video", "write images: PNG loses nothing")


def check_columns(
    features: Mapping[str, Feature], columns: Mapping[str, NDArray[Any]]
) -> tuple[int, dict[str, NDArray[Any]]]:
    """Bring an episode's columns to their declared types.

    Args:
        features: What is declared.
        columns: Name -> array with one row a frame, or anything that ``np.asarray`` takes.

    Returns:
        Number of frames, and the columns as contiguous arrays (T, *row) in the order of ``features``.

    Raises:
        BridgeError: BAD_INPUT: a column is missing, too much, of another length or shape, or its values do
            not fit its type.
    """
    missing, extra = features.keys() - columns.keys(), columns.keys() - features.keys()
    if missing or extra:
        parts = [
            f"{what} {', '.join(sorted(names))}"
            for what, names in (("lacks", missing), ("has", extra))
            if names
        ]
        raise _bad(f"the episode {' and '.join(parts)}", f"its columns are {', '.join(sorted(features))}")
    arrays = {name: np.asarray(columns[name]) for name in features}
    frames = len(next(iter(arrays.values()))) if arrays else 0
    if frames == 0:
        raise _bad("an episode without frames", "leave it out")
    return frames, {name: _checked(name, features[name], a, frames) for name, a in arrays.items()}


def _checked(name: str, feature: Feature, array: NDArray[Any], frames: int) -> NDArray[Any]:
    if feature.row == () and array.shape == (frames, 1):
        array = array[:, 0]
    if feature.depth and array.shape == (frames, *feature.shape):
        array = array[..., 0]
    if array.shape != (frames, *feature.row):
        raise _bad(f"{name}: shape {array.shape}, declared {(frames, *feature.row)}", "check the column")
    wanted = feature.numpy
    if feature.dtype == "string":
        return np.array([str(v) for v in array], dtype=object)
    if array.dtype == wanted:
        return np.ascontiguousarray(array)
    if wanted.kind == "f" and array.dtype.kind in "fiu":
        return np.ascontiguousarray(array, dtype=wanted)
    with np.errstate(invalid="ignore"):
        cast = array.astype(wanted) if array.dtype.kind in "biuf" else None
    if cast is None or not np.array_equal(cast, array):
        raise _bad(f"{name}: {array.dtype} does not fit {wanted}", "convert it, or declare another type")
    return np.ascontiguousarray(cast)


def check_stamps(stamps: ArrayLike | None, frames: int, fps: float) -> NDArray[np.float64]:
    """(T,) seconds of the frames; frame / fps where none are given.

    Raises:
        BridgeError: BAD_INPUT where they are not one a frame, finite and rising.
    """
    if stamps is None:
        return np.arange(frames) / fps
    out = np.asarray(stamps, np.float64)
    if out.shape != (frames,) or not np.isfinite(out).all() or np.any(np.diff(out) <= 0):
        raise _bad(
            f"stamps of shape {out.shape} for {frames} frames, or not finite and rising",
            "give one second value a frame, each later than the one before",
        )
    return out
