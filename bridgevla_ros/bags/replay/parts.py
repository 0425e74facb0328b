"""What each node puts out and needs, without importing what computes it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol

from bridgevla_ros.bags.replay.result import Answer, Missing, Skipped

if TYPE_CHECKING:
    from bridgevla_ros.bags.replay.recording import Recording
    from bridgevla_ros.bags.replay.settings import Settings


class NodeReplay(Protocol):
    """What replays one node.

    Attributes:
        weights: Source -> (recorded, present) SHA-256.
    """

    weights: dict[str, tuple[str, str]]

    def answers(self) -> Iterator[Answer | Missing | Skipped]:
        """Outputs, recorded and replayed, in order."""
        ...


class Part(NamedTuple):
    """One node.

    Attributes:
        module, name: Of the class that replays it, below ``bridgevla_ros.bags.replay``.
        outputs: Relative names of topics; one of them is enough.
        needs: Relative names of topics without which nothing can be replayed.
    """

    module: str
    name: str
    outputs: tuple[str, ...]
    needs: tuple[str, ...]

    def make(self, recording: Recording, settings: Settings, seed: int | None) -> NodeReplay:
        """Load what the node would load."""
        module = import_module(f"bridgevla_ros.bags.replay.{self.module}")
        made: NodeReplay = getattr(module, self.name)(recording, settings, seed)
        return made


_COMMANDS = ("arm/joint_trajectory", "arm_streamer/joint_trajectory", "gripper/command")
PARTS = {
    "planner": Part("planner", "PlannerReplay", ("plan",), ("plan_request", "camera/color/image_raw")),
    "cropper": Part("cropper", "CropperReplay", ("depth_quality",), ("camera/depth/image_raw",)),
    "trajectory": Part("trajectory", "TrajectoryReplay", ("guidance",), ("plan",)),
    "action_expert": Part(
        "action_expert", "ExpertReplay", ("action_chunk",), ("guidance", "progress", "joint_states")
    ),
    "task": Part("task", "TaskReplay", ("status", "lease", "plan_request"), ("task/inputs",)),
    "arm_streamer": Part("streamer", "StreamerReplay", ("progress", *_COMMANDS), ("arm_streamer/inputs",)),
}
