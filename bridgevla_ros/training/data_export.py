"""Write a bank as a LeRobotDataset v3 or as MCAP bags: what sensors gave, and true labels beside it.

One episode is one scene. Frames come at 5 Hz while the hand is within 0.3 m of its next contact; their real
stamps are in column ``stamp``. Columns that begin with ``label.`` are truth from the simulator and no input.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from bridgevla_ros.core.types import GripperEvent
from bridgevla_ros.datasets.episode import DatasetWriter
from bridgevla_ros.datasets.features import Feature
from bridgevla_ros.datasets.lerobot_writer import LeRobotWriter
from bridgevla_ros.datasets.mcap_dataset import McapWriter
from bridgevla_ros.simulation.robot import JOINT_NAMES
from bridgevla_ros.training.data_bank import Bank
from bridgevla_ros.training.data_episodes import PERIOD

POINTS = 512
_POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")


def features() -> dict[str, Feature]:
    """Columns of the data set."""
    joints = tuple(JOINT_NAMES)
    return {
        "observation.cloud": Feature(
            "float32", (POINTS, 4), ("x", "y", "z", "age"), "", "points, metres, base frame; seconds unseen"
        ),
        "observation.cloud_count": Feature("int32", description="rows of the cloud that are not repeats"),
        "observation.cloud_center": Feature(
            "float32", (3,), ("x", "y", "z"), "m", "of the crop, base frame; beside the contact"
        ),
        "observation.state": Feature("float32", (7,), joints, "rad"),
        "observation.velocity": Feature("float32", (7,), joints, "rad/s"),
        "observation.tcp": Feature("float32", (7,), _POSE, "", "T_base_tcp, metres and quaternion"),
        "observation.gripper": Feature("float32", unit="m", description="between the pads"),
        "observation.camera": Feature("float32", (7,), _POSE, "", "T_base_camera, optical frame"),
        "action": Feature("float32", (8,), (*_POSE, "gripper"), "", "TCP and width one frame later"),
        "label.target": Feature("uint8", (POINTS,), description="1 where the point is the target's"),
        "label.contact": Feature("float32", (7,), _POSE, "", "true T_base_tcp of the next contact"),
        "label.event": Feature("string", description="of the gripper there"),
        "label.yaw_period": Feature("float32", unit="rad", description="turn that changes nothing; 0: any"),
        "label.z_band": Feature("float32", (2,), ("low", "high"), "m", "good TCP heights, base frame"),
        "label.x_band": Feature("float32", (2,), ("low", "high"), "m", "good places along the TCP's x axis"),
        "label.kind": Feature("string", description="what is done with which kind of thing"),
    }


def columns(bank: Bank, frames: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Columns of one episode.

    Args:
        bank: Holds it.
        frames: (T,) its frames, in order of time.
    """
    cloud = np.zeros((len(frames), POINTS, 4), np.float32)
    count, target = np.zeros(len(frames), np.int32), np.zeros((len(frames), POINTS), np.uint8)
    for t, frame in enumerate(frames):
        points, age, own = bank.cloud(int(frame))
        if not len(points):
            continue
        rng = np.random.default_rng([int(bank["episode"][frame]), t])
        chosen = rng.permutation(len(points))[:POINTS]
        count[t] = len(chosen)
        chosen = chosen[np.arange(POINTS) % len(chosen)]
        cloud[t] = np.concatenate([points[chosen], age[chosen, None]], axis=1)
        target[t] = own[chosen]
    tcp, width = bank["tcp"][frames], bank["width"][frames]
    after = np.minimum(np.arange(len(frames)) + 1, len(frames) - 1)
    events = [GripperEvent(int(e)).name for e in bank["event"][frames]]
    return {
        "observation.cloud": cloud,
        "observation.cloud_count": count,
        "observation.cloud_center": bank["center"][frames],
        "observation.state": bank["joints"][frames],
        "observation.velocity": bank["joint_velocity"][frames],
        "observation.tcp": tcp,
        "observation.gripper": width,
        "observation.camera": bank["camera"][frames],
        "action": np.concatenate([tcp[after], width[after, None]], axis=1),
        "label.target": target,
        "label.contact": bank["pose"][frames],
        "label.event": np.array(events, dtype=object),
        "label.yaw_period": bank["yaw_period"][frames],
        "label.z_band": bank["z_band"][frames],
        "label.x_band": bank["x_band"][frames],
        "label.kind": np.array([bank.classes[i] for i in bank["class"][frames]], dtype=object),
    }


def export(bank: Bank, writer: DatasetWriter) -> int:
    """Add every demonstrated episode (states of experts are left out); returns how many there were."""
    own = np.zeros(len(bank), bool)
    if bank.own:
        own[bank.own["frame"]] = True
    seeds = np.unique(bank["episode"][~own])
    for seed in track(seeds, "episodes"):
        frames = np.flatnonzero((bank["episode"] == seed) & ~own)
        frames = frames[np.argsort(bank["stamp"][frames], kind="stable")]
        values = columns(bank, frames)
        words = ", then ".join(dict.fromkeys(str(k) for k in values["label.kind"]))
        writer.add_episode(values, words, stamps=bank["stamp"][frames], extra={"seed": int(seed)})
    return len(seeds)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bridgevla data export``."""
    parser.add_argument("output", type=Path, help="folder of the data set; must not exist")
    parser.add_argument("--bank", type=Path, default=Path("runs/expert/bank"), help="folder or shard")
    parser.add_argument("--format", choices=("lerobot", "mcap"), default="lerobot", help="default lerobot")


def run(args: argparse.Namespace) -> int:
    """Write the data set."""
    bank = Bank.load(args.bank)
    make = LeRobotWriter if args.format == "lerobot" else McapWriter
    with make(args.output, features(), fps=round(1.0 / PERIOD), robot_type="panda") as writer:
        count = export(bank, writer)
    print(f"{count} episodes in {args.output} ({args.format})")
    return 0
