"""Open a data set, whichever format it has."""

from __future__ import annotations

from pathlib import Path

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.datasets.episode import DatasetReader
from bridgevla_ros.datasets.lerobot_reader import LeRobotReader
from bridgevla_ros.datasets.mcap_dataset import McapReader


def open_dataset(root: Path) -> DatasetReader:
    """Reader of a LeRobotDataset v3 or of a data set in MCAP.

    Raises:
        BridgeError: BAD_INPUT where the folder is neither, or damaged.
    """
    root = Path(root)
    if (root / "meta" / "info.json").is_file():
        return LeRobotReader(root)
    if (root / "dataset.json").is_file():
        return McapReader(root)
    raise BridgeError(
        ErrorCode.BAD_INPUT,
        f"{root} is no data set: there is neither meta/info.json nor dataset.json",
        remedy="name the folder of a LeRobotDataset v3, or one that `bridgevla data generate` wrote",
    )
