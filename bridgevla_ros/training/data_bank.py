"""The bank: what the expert's sensors gave in many episodes, and beside it the truth for labels.

One row is a FRAME: the cloud that the real ``Cropper`` made of one depth image while the arm moved, and
what encoders told. Arrays are columns over all frames; points of all clouds stand one after the other.
Columns in ``OBSERVED`` hold nothing that a real cell would not give; those in ``LABELS`` are truth. Rows
of ``own`` are states of a learned expert (DAgger): the guidance it had and where it stood.

On disk: ``bank-<first seed>.npz`` shards, written whole or not at all, no pickle.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.errors import BridgeError, ErrorCode

FIRST_SEED = 200_000
"""Scenes of the evaluation suites have seeds below; none of them is trained on."""
FORMAT = 3
STEP = 1.0 / 8192
"""Metres, 0.12 mm: resolution of stored points."""
OTHERS = 6
"""Most other things around a contact whose places are kept."""

OBSERVED: dict[str, tuple[str, tuple[int, ...]]] = {
    "stamp": ("f8", ()),
    "camera": ("f4", (7,)),
    "joints": ("f4", (7,)),
    "joint_velocity": ("f4", (7,)),
    "tcp": ("f4", (7,)),
    "twist": ("f4", (6,)),
    "width": ("f4", ()),
    "center": ("f4", (3,)),
    "count": ("i4", ()),
}
"""Name -> dtype and shape of a row: seconds of the episode; T_base_camera and T_base_tcp as x y z and
quaternion x y z w; rad, rad/s; TCP twist m/s and rad/s, base axes; gripper width, metres; centre of the
crop, metres, base frame (off the true contact by a planner's error); points of the cloud. Where what is held
makes contact beside the fingers, ``tcp`` and ``twist`` are of that point of the hand, as ``pose`` is."""
LABELS: dict[str, tuple[str, tuple[int, ...]]] = {
    "episode": ("i8", ()),
    "contact": ("i2", ()),
    "class": ("i2", ()),
    "event": ("i1", ()),
    "pose": ("f4", (7,)),
    "yaw_period": ("f4", ()),
    "z_band": ("f4", (2,)),
    "x_band": ("f4", (2,)),
    "others": ("f4", (OTHERS, 2)),
    "onward": ("f4", (3,)),
}
"""Scene seed; index of the next contact in the episode; index into ``classes``; its gripper event; its true
T_base_tcp; yaw that changes nothing, rad (0: any yaw does); lowest and highest good TCP height, metres, base
frame; metres along the true TCP's x axis by which the contact may lie aside (along a bar or handle); x, y of
what a planner could have meant instead, NaN where there is nothing; metres, base frame, from the contact to
the next one of its chain (where it is pushed or pulled to), zeros without one."""


@dataclass(frozen=True, eq=False)
class Bank:
    """Frames of many episodes.

    Attributes:
        columns: Name of OBSERVED or LABELS -> (M, ...) array.
        points: (P, 3) int16 steps of STEP metres, base frame's axes, relative to their frame's ``center``.
        age: (P,) int16 milliseconds since each point was seen.
        target: (P,) bool, truth: the point is the next contact's thing.
        classes: Names of contacts, "<verb> <kind of thing>", e.g. "pick cube".
        own: Name -> (O, ...) array of the expert's own states, "frame" (O,) among them; or empty.
        meta: Of the generation: ``made``, what ``join`` says of it (``_made``).
    """

    columns: Mapping[str, NDArray[Any]]
    points: NDArray[np.int16]
    age: NDArray[np.int16]
    target: NDArray[np.bool_]
    classes: tuple[str, ...]
    own: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    first: NDArray[np.int64] = field(init=False, repr=False)
    """(M + 1,) where the points of each frame begin."""

    def __post_init__(self) -> None:
        count = self.columns["count"].astype(np.int64)
        object.__setattr__(self, "first", np.concatenate([[0], np.cumsum(count)]))
        if int(self.first[-1]) != len(self.points):
            raise ValueError(f"{self.first[-1]} points are announced, {len(self.points)} are there")

    def __len__(self) -> int:
        return len(self.columns["count"])

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    @property
    def verbs(self) -> NDArray[np.str_]:
        """(M,) first word of each frame's class."""
        first: NDArray[np.str_] = np.array([c.split()[0] for c in self.classes])
        verbs: NDArray[np.str_] = first[self.columns["class"]]
        return verbs

    def cloud(self, frame: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """(N, 3) points in metres, base frame, (N,) ages in seconds and (N,) truth of one frame."""
        part = slice(int(self.first[frame]), int(self.first[frame + 1]))
        center = self.columns["center"][frame].astype(np.float64)
        points = np.multiply(self.points[part], STEP, dtype=np.float64) + center
        return points, np.multiply(self.age[part], 1e-3, dtype=np.float64), self.target[part]

    def targets(self) -> NDArray[np.int64]:
        """(M,) number of the target's points in each frame."""
        total = np.concatenate([[0], np.cumsum(self.target, dtype=np.int64)])
        return np.asarray(total[self.first[1:]] - total[self.first[:-1]])

    def select(self, frames: NDArray[Any]) -> Bank:
        """The frames of a mask (M,) or of indices, in their order; own states go with their frames."""
        chosen = np.flatnonzero(frames) if frames.dtype == bool else np.asarray(frames, np.int64)
        index = _ranges(self.first[chosen], self.first[chosen + 1])
        own: dict[str, NDArray[Any]] = {}
        if self.own:
            new = np.full(len(self), -1, np.int64)
            new[chosen] = np.arange(len(chosen))
            kept = np.flatnonzero(new[self.own["frame"]] >= 0)
            if len(kept):
                own = {name: values[kept] for name, values in self.own.items()}
                own["frame"] = new[own["frame"]]
        return Bank(
            {name: values[chosen] for name, values in self.columns.items()},
            self.points[index], self.age[index], self.target[index], self.classes, own, self.meta,
        )  # fmt: skip

    def split(self, share: float) -> tuple[Bank, Bank]:
        """To train on, and that share of demonstrated episodes, evenly by their seeds, which only measure.

        States of experts are all trained on: their own errors make them no measure.
        """
        demonstrated = np.ones(len(self), bool)
        if self.own:
            demonstrated[self.own["frame"]] = False
        if not demonstrated.any():
            demonstrated[:] = True
        seeds = np.unique(self.columns["episode"][demonstrated])
        every = max(1, round(1.0 / share))
        chosen = seeds[every - 1 :: every] if len(seeds) >= every else seeds[-1:]
        held = demonstrated & np.isin(self.columns["episode"], chosen)
        return self.select(~held), self.select(held)

    def save(self, path: Path) -> None:
        """Write one shard, whole or not at all."""
        text = json.dumps({"format": FORMAT, "classes": self.classes, "meta": dict(self.meta)})
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        arrays: dict[str, Any] = {f"column.{k}": v for k, v in self.columns.items()}
        arrays |= {f"own.{k}": v for k, v in self.own.items()}
        arrays |= {"points": self.points, "age": self.age, "target": np.packbits(self.target)}
        with partial.open("wb") as stream:
            np.savez_compressed(stream, info=np.frombuffer(text.encode(), np.uint8), **arrays)
        partial.rename(path)

    @classmethod
    def load(cls, folder: Path) -> Bank:
        """All shards of a folder (finished ones are always whole), or one shard.

        Raises:
            BridgeError: BAD_INPUT, there is none, or one is of another format or damaged.
        """
        paths = sorted(folder.glob("bank-*.npz")) if folder.is_dir() else [folder]
        paths = [p for p in paths if p.is_file()]
        if not paths:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"{folder} holds no shards bank-*.npz",
                remedy=f"Make some: bridgevla data generate --output {folder}",
            )
        return join([_read(path) for path in paths])


def _read(path: Path) -> Bank:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
            info = json.loads(data["info"].tobytes())
            if info.get("format") != FORMAT:
                raise BridgeError(
                    ErrorCode.BAD_INPUT,
                    f"{path} has format {info.get('format')}, expected {FORMAT}",
                    remedy="Make it again with this version: bridgevla data generate.",
                )
            points = data["points"]
            lacking = {*OBSERVED, *LABELS} - {k.removeprefix("column.") for k in data.files}
            if lacking:
                raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
            return Bank(
                {k[7:]: data[k] for k in data.files if k.startswith("column.")},
                points,
                data["age"],
                np.unpackbits(data["target"], count=len(points)).astype(bool),
                tuple(info["classes"]),
                {k[4:]: data[k] for k in data.files if k.startswith("own.")},
                info["meta"],
            )
    except BridgeError:
        raise
    except Exception as error:  # wrong bytes raise ten kinds in zipfile, zlib, numpy and json
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{path} is damaged: {error}",
            remedy="Delete it and run bridgevla data generate again: it fills the gap.",
        ) from error


def join(banks: list[Bank]) -> Bank:
    """One bank of several; classes are merged by name."""
    classes = tuple(sorted({c for bank in banks for c in bank.classes}))
    columns: dict[str, NDArray[Any]] = {}
    for name in (*OBSERVED, *LABELS):
        columns[name] = np.concatenate([bank[name] for bank in banks])
    renamed = [np.array([classes.index(c) for c in b.classes], np.int16)[b["class"]] for b in banks]
    columns["class"] = np.concatenate(renamed)
    starts = np.concatenate([[0], np.cumsum([len(b) for b in banks])])
    own: dict[str, NDArray[Any]] = {}
    having = [(bank, int(start)) for bank, start in zip(banks, starts[:-1], strict=True) if bank.own]
    for name in having[0][0].own if having else ():
        shift = [start if name == "frame" else 0 for _, start in having]
        own[name] = np.concatenate([b.own[name] + s for (b, _), s in zip(having, shift, strict=True)])
    return Bank(
        columns,
        np.concatenate([b.points for b in banks]),
        np.concatenate([b.age for b in banks]),
        np.concatenate([b.target for b in banks]),
        classes,
        own,
        {"made": _made([bank.meta for bank in banks])},
    )


def _made(metas: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of all shards, by who moved and where: how many episodes, ranges of their seeds, and how they ended.

    What an older version joined kept the first and the last seed alone: the range then spans more seeds than
    there are episodes.
    """
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for part in [part for meta in metas for part in meta.get("made", [meta])]:
        who, where = part.get("policy") or "demonstrator", part.get("scenes") or "ours"
        seeds, ends = list(part.get("seeds", ())), part.get("ends", {})
        group = groups.setdefault(
            (who, where), {"policy": who, "scenes": where, "episodes": 0, "seeds": [], "ends": {}}
        )
        group["episodes"] += part.get("episodes", len(seeds))
        if "episodes" in part:
            ranges = [seeds] if seeds and isinstance(seeds[0], int) else seeds
        else:
            ranges = [[seed, seed] for seed in seeds]
        group["seeds"] = _joined([*group["seeds"], *ranges])
        group["ends"] = dict(sorted((Counter(group["ends"]) + Counter(ends)).items()))
    return [groups[key] for key in sorted(groups)]


def _joined(ranges: list[list[int]]) -> list[list[int]]:
    """Ranges [first, last], rising; those that touch or overlap become one."""
    out: list[list[int]] = []
    for first, last in sorted(ranges):
        if out and first <= out[-1][1] + 1:
            out[-1][1] = max(out[-1][1], last)
        else:
            out.append([first, last])
    return out


def _ranges(start: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whole numbers start[0] .. stop[0] - 1, start[1] .. , one range after the other."""
    length = stop - start
    ends = np.cumsum(length)
    total = int(ends[-1]) if len(ends) else 0
    index: NDArray[np.int64] = np.arange(total) + np.repeat(start - (ends - length), length)
    return index


def from_rows(
    rows: list[dict[str, Any]],
    clouds: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]],
    classes: list[str],
    meta: Mapping[str, Any],
    own: Mapping[str, NDArray[Any]] | None = None,
) -> Bank:
    """A bank of rows with all columns ("class" by ``classes``, its names row by row) and their clouds.

    Args:
        rows: One dict a frame, without "class" and "count".
        clouds: (N, 3) points in metres relative to the row's centre, (N,) ages in seconds and (N,) truth,
            a frame each.
        classes: Name of each row's contact.
        meta: Kept beside it.
        own: See ``Bank``.
    """
    names = tuple(sorted(set(classes)))
    columns: dict[str, NDArray[Any]] = {}
    for name, (dtype, shape) in (OBSERVED | LABELS).items():
        if name == "class":
            columns[name] = np.array([names.index(c) for c in classes], dtype)
        elif name == "count":
            columns[name] = np.array([len(c[0]) for c in clouds], dtype)
        else:
            columns[name] = np.array([row[name] for row in rows], dtype).reshape(len(rows), *shape)
    return Bank(
        columns,
        np.round(np.concatenate([np.zeros((0, 3)), *(c[0] for c in clouds)]) / STEP).astype(np.int16),
        np.round(np.concatenate([np.zeros(0), *(c[1] for c in clouds)]) * 1e3).astype(np.int16),
        np.concatenate([np.zeros(0, bool), *(c[2] for c in clouds)]).astype(bool),
        names,
        own or {},
        meta,
    )
