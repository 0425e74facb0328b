"""The embedded model looking at one frame and reading one clause, each once however often it is asked."""

from __future__ import annotations

import torch

from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import RgbdFrame
from bridgevla_ros.planner.grounding import GroundingModel, ImageFeatures, TextBelief, TokenEncoder
from bridgevla_ros.planner.image import network_image, network_input


class Eyes:
    """The model's text part and image trunk, which remember their last input; one serves one thread.

    Whoever sets anchors and whoever checks them ask about the same frame and clause, one after the other.

    Args:
        model: In evaluation mode.
        encoder: Of the words.
    """

    def __init__(self, model: GroundingModel, encoder: TokenEncoder) -> None:
        self.model, self.encoder = model, encoder
        self._clause: str | None = None
        self._frame: RgbdFrame | None = None
        self._pose = b""
        self._belief: TextBelief
        self._offsets: list[tuple[int, int]]
        self._seen: ImageFeatures

    @torch.inference_mode()
    def read(self, clause: str) -> tuple[TextBelief, list[tuple[int, int]]]:
        """What one clause says (B = 1), and each token's range of characters in it."""
        if clause != self._clause:
            tokens, mask, offsets = self.encoder([clause])
            self._belief, self._offsets = self.model.text(tokens, mask), offsets[0]
            self._clause = clause
        return self._belief, self._offsets

    @torch.inference_mode()
    def look(self, frame: RgbdFrame, T_base_camera: Transform) -> ImageFeatures:
        """What one frame shows (B = 1). The frame is known again by identity: frames are never changed."""
        pose = T_base_camera.translation.tobytes() + T_base_camera.rotation.tobytes()
        if frame is not self._frame or pose != self._pose:
            size = self.model.config
            rgb, heights = network_image(frame, T_base_camera, size.image_height, size.image_width)
            self._seen = self.model.trunk(torch.from_numpy(network_input(rgb, heights))[None])
            self._frame, self._pose = frame, pose
        return self._seen
