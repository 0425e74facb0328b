"""Make test/data/lerobot: a data set written by LeRobot itself, which our reader must read.

Run it in an environment with `lerobot` 0.4.4 (not this project's): `python make_lerobot_dataset.py`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

ROOT = Path(__file__).resolve().parent / "lerobot"
MOTORS = [f"m{i}.pos" for i in range(6)]
IMAGE = {"shape": (48, 64, 3), "names": ["height", "width", "channels"]}
FEATURES = {
    "observation.state": {"dtype": "float32", "shape": (6,), "names": MOTORS},
    "action": {"dtype": "float32", "shape": (6,), "names": MOTORS},
    "observation.cloud": {"dtype": "float32", "shape": (4, 3), "names": None},
    "observation.images.video": {"dtype": "video", **IMAGE},
    "observation.images.png": {"dtype": "image", **IMAGE},
}


def main() -> None:
    """Two episodes; what each frame holds follows from its numbers."""
    shutil.rmtree(ROOT, ignore_errors=True)
    data = LeRobotDataset.create("test/made", fps=10, root=ROOT, robot_type="so101", features=FEATURES)
    for episode, frames in enumerate((3, 5)):
        for frame in range(frames):
            image = np.zeros((48, 64, 3), np.uint8)
            image[:, :, episode] = 40 * frame
            data.add_frame(
                {
                    "observation.state": np.full(6, 100 * episode + frame, np.float32),
                    "action": np.arange(6, dtype=np.float32),
                    "observation.cloud": np.full((4, 3), frame, np.float32),
                    "observation.images.video": image,
                    "observation.images.png": image,
                    "task": f"task {episode}",
                }
            )
        data.save_episode()
    data.finalize()


if __name__ == "__main__":
    main()
