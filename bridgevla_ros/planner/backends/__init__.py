"""Who finds anchors in an image: one protocol, chosen by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import RgbdFrame
from bridgevla_ros.planner.answers import Anchor, Anchors, LocalWaypoint
from bridgevla_ros.planner.config import PlannerConfig

if TYPE_CHECKING:
    from bridgevla_ros.planner.backends.chat import ChatBackend

__all__ = ["Anchor", "Anchors", "Backend", "LocalWaypoint", "make_backend"]


class Backend(Protocol):
    """Finds anchors, and perhaps waypoints. Raises BridgeError with the code of a refusal."""

    name: str
    sha256: str

    def anchors(self, frame: RgbdFrame, T_base_camera: Transform, clause: str, seed: int) -> Anchors:
        """First turn: image and words to anchors."""
        ...

    def waypoints(
        self, frame: RgbdFrame, clause: str, anchors: Anchors, depths: Array, seed: int
    ) -> list[LocalWaypoint]:
        """Second turn: the same conversation with the anchors' depths (metres) to waypoints."""
        ...


def make_backend(config: PlannerConfig) -> Backend:
    """Load the backend that the configuration names."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # loading takes a second; the bars would fill a node's log
    if config.backend == "embedded":
        from bridgevla_ros.planner.backends.embedded import EmbeddedBackend

        return EmbeddedBackend(config)
    chat: ChatBackend
    if config.backend == "openai":
        from bridgevla_ros.planner.backends.openai import OpenAiBackend

        chat = OpenAiBackend(config)
    else:
        from bridgevla_ros.planner.backends.transformers import TransformersBackend

        chat = TransformersBackend(config)
    if config.self_test:
        from bridgevla_ros.planner.self_test import check_pointing

        check_pointing(chat)
    return chat
