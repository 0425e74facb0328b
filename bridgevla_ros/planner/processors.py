"""The processor of a checkpoint folder: text and images in, tensors out."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoProcessor, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils import is_torchvision_available


def load_processor(folder: Path) -> ProcessorMixin:
    """Load it; nothing is downloaded.

    The processors of Qwen-VL and others also read videos, for which they want torchvision. A planner shows
    images alone: where torchvision is not installed, the same processor is made without its video part.

    Raises:
        OSError, ValueError, ImportError, KeyError: The folder holds none, or a damaged one.
    """
    kind = PROCESSOR_MAPPING.get(type(AutoConfig.from_pretrained(folder, local_files_only=True)), None)
    if kind is None or is_torchvision_available() or "video_processor" not in kind.get_attributes():
        return AutoProcessor.from_pretrained(folder, local_files_only=True)
    return image_only(kind).from_pretrained(folder, local_files_only=True)


def image_only(kind: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """A processor class without its video part. It keeps the name, under which it is saved."""

    def init(self: Any, *parts: Any, **named: Any) -> None:
        given = signature.bind(self, *parts, **named).arguments
        given.pop("self")
        rest = given.pop("kwargs", {})
        kind.__init__(self, video_processor=None, **given, **rest)

    whole = inspect.signature(kind.__init__)
    kept = [p for name, p in whole.parameters.items() if name != "video_processor"]
    signature = whole.replace(parameters=kept)  # transformers finds the parts by it
    init.__signature__ = signature  # type: ignore[attr-defined]
    return type(kind.__name__, (kind,), {"__init__": init, "__module__": kind.__module__})
