"""Examples from demonstrations: data sets that `bridgevla dataset from-bags` wrote.

A recording does not say where the model should have pointed. The gripper does: where it closed and held was
the thing, where it opened again was the place, and both are projected into the first image, in which the arm
stands aside and nothing has moved yet. That is coarser than truth: the arm need not have been in the middle.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.camera import project
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import CameraIntrinsics, GripperEvent, RgbdFrame, WaypointKind
from bridgevla_ros.datasets.episode import DatasetReader, Episode
from bridgevla_ros.planner.answers import LocalWaypoint
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.language import normalise
from bridgevla_ros.planner.lifting import lift
from bridgevla_ros.planner.parse import MAX_OFFSET
from bridgevla_ros.training.sft_examples import Example, Writer, local_waypoint

MOVED = 0.005
"""Metres by which a commanded width must change to be a gripper event (our choice)."""
HELD = 0.004
"""Metres that stay between the fingers when something is in them, as the arm's streamer takes it."""
IMAGE, DEPTH = "observation.images.front", "observation.images.depth"
NEEDED = (IMAGE, "observation.camera", "observation.tcp", "observation.gripper", "action")


class Unfit(Exception):
    """Why an episode teaches nothing."""


def convert(
    reader: DatasetReader,
    folder: Path,
    *,
    fewest: int = 50,
    table_height: float = 0.0,
    intrinsics: CameraIntrinsics | None = None,
    on_episode: Callable[[int], None] = lambda done: None,
) -> Counter[str]:
    """Write an example for each demonstration of one pick-and-place that ended well.

    Args:
        reader: Of a data set with images, as from-bags writes it.
        folder: Of the examples.
        fewest: Demonstrations that each task must have; a task is its words.
        table_height: Of the support plane, metres, base frame.
        intrinsics: Of the images; None: as the episodes tell.
        on_episode: Called with the number of episodes done.

    Returns:
        How many episodes were left out, by reason.

    Raises:
        BridgeError: BAD_INPUT: no images, no demonstration that fits, or a task with too few.
    """
    lacking = [name for name in NEEDED if name not in reader.features]
    if lacking:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{reader.root} has no column {', '.join(lacking)}",
            remedy="record colour images and make the data set with bridgevla dataset from-bags (whole bags, "
            "not trimmed ones)",
        )
    columns = [*NEEDED, DEPTH] if DEPTH in reader.features else list(NEEDED)
    writer, left, tasks = Writer(folder), Counter[str](), Counter[str]()
    for info in reader.episodes:
        try:
            episode = reader.episode(info.index, columns)
            made = example_of(episode, table_height, intrinsics)
            writer.add(made, episode.columns[IMAGE][0])
            tasks[made.instruction] += 1
        except Unfit as reason:
            left[str(reason)] += 1
        on_episode(info.index + 1)
    _enough(reader.root, tasks, left, fewest)
    return left


def _enough(root: Path, tasks: Counter[str], left: Counter[str], fewest: int) -> None:
    reasons = "; ".join(f"{count} {why}" for why, count in left.most_common())
    if not tasks:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"no episode of {root} is a demonstration ({reasons or 'it is empty'})",
            remedy="a demonstration closes the gripper on one thing and lets go of it once",
        )
    task, count = tasks.most_common()[-1]
    if count < fewest:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{count} demonstrations of {task!r} are too few" + (f" ({reasons})" if reasons else ""),
            value=float(count),
            limit=float(fewest),
            remedy=f"record more, or train on as many as there are with --demonstrations-min {count}",
        )


def example_of(episode: Episode, table_height: float, intrinsics: CameraIntrinsics | None) -> Example:
    """An episode as an example; its image stays in the episode.

    Raises:
        Unfit: Why it teaches nothing.
    """
    if episode.extra.get("success") is False or episode.extra.get("code", "NONE") != "NONE":
        raise Unfit("failed")
    values = episode.columns
    closed, opened = gripper_events(values["action"][:, 7], values["observation.gripper"])
    image = values[IMAGE][0]
    k = intrinsics or _intrinsics(episode)
    if (k.height, k.width) != image.shape[:2]:
        raise Unfit(f"intrinsics are of {k.width}x{k.height} pixels, images of another size")
    T_base_camera = _pose(values["observation.camera"][0])
    grasp, release = _pose(values["observation.tcp"][closed]), _pose(values["observation.tcp"][opened])
    hang = np.array([0.0, 0.0, grasp.translation[2] - table_height])
    ends = [grasp.translation, release.translation - hang]
    pixels = project(T_base_camera.inverse().apply(np.stack(ends)), k)
    if (pixels < 0).any() or (pixels > [k.width - 1, k.height - 1]).any():
        raise Unfit("grasped or let go outside the image")
    depths: Array = np.full(2, np.nan)
    waypoints: tuple[LocalWaypoint, ...] = ()
    if DEPTH in values:
        frame = RgbdFrame(0.0, image, values[DEPTH][0].reshape(image.shape[:2]), k)
        depths, waypoints = _second_turn(frame, T_base_camera, pixels, (grasp, release))
    return Example(
        Path(), normalise(episode.task), k, pixels, ("thing", "place"), depths, waypoints,
        f"{episode.extra.get('bag', 'episode')}, {episode.extra.get('task_id', '')}".strip(", "),
    )  # fmt: skip


def gripper_events(told: NDArray[Any], width: NDArray[Any]) -> tuple[int, int]:
    """Frames at which a thing was gripped and let go.

    Args:
        told: (T,) commanded width, metres.
        width: (T,) measured.

    Raises:
        Unfit: Not exactly one thing was gripped and let go.
    """
    change = np.diff(np.asarray(told, np.float64))
    closing, opening = np.flatnonzero(change < -MOVED) + 1, np.flatnonzero(change > MOVED) + 1
    pairs = []
    for i in closing:
        later = opening[opening > i]
        again = closing[closing > i]
        if len(later) and (not len(again) or later[0] < again[0]):
            held = float(np.median(width[(i + later[0]) // 2 : later[0]]))
            if held > HELD:
                pairs.append((int(i), int(later[0])))
    if len(pairs) != 1:
        raise Unfit("without a grasp that held" if not pairs else "with several grasps: one step each")
    return pairs[0]


def _pose(flat: NDArray[Any]) -> Transform:
    return Transform.from_quat(np.asarray(flat[:3], np.float64), np.asarray(flat[3:], np.float64))


def _intrinsics(episode: Episode) -> CameraIntrinsics:
    known = episode.extra.get("intrinsics")
    if not isinstance(known, dict):
        raise Unfit("without the camera's intrinsics: give --intrinsics FX FY CX CY")
    names = {f.name for f in dataclasses.fields(CameraIntrinsics)}
    return CameraIntrinsics(**{n: v for n, v in known.items() if n in names})


def _second_turn(
    frame: RgbdFrame, T_base_camera: Transform, pixels: Array, contacts: tuple[Transform, Transform]
) -> tuple[Array, tuple[LocalWaypoint, ...]]:
    """Measured depths and waypoints about the lifted anchors; NaN and none where depth fails there."""
    try:
        lifted = [lift(frame, T_base_camera, p) for p in pixels]
    except BridgeError:
        return np.full(len(pixels), np.nan), ()
    up = PlannerConfig().approach_height
    out = []
    events = (GripperEvent.CLOSE, GripperEvent.OPEN)
    for i, (contact, anchor) in enumerate(zip(contacts, lifted, strict=True)):
        above = Transform(contact.translation + np.array([0.0, 0.0, up]), contact.rotation)
        before = GripperEvent.OPEN if i == 0 else GripperEvent.NONE
        for pose, kind, event in (
            (above, WaypointKind.APPROACH, before),
            (contact, WaypointKind.CONTACT, events[i]),
            (above, WaypointKind.RETREAT, GripperEvent.NONE),
        ):
            out.append(local_waypoint(pose, kind, event, i, anchor.position, T_base_camera))
    if max(float(np.abs(w.offset).max()) for w in out) > MAX_OFFSET:
        return np.full(len(pixels), np.nan), ()
    return np.array([a.depth for a in lifted]), tuple(out)
