"""Runs the sampler in onnxruntime: the whole denoising loop in one graph, no torch in the process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import numpy_helper

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.expert.checkpoint import Checkpoint
from bridgevla_ros.expert.config import OUTPUTS

F32 = NDArray[np.float32]
PREFIX = "model."
"""Parameters of the sampler module are those of the checkpoint under this name."""


def graph_name(denoising_steps: int) -> str:
    """File of the unrolled loop inside a checkpoint folder."""
    return f"sampler_{denoising_steps}.onnx"


def strip(model: Any, checkpoint_names: set[str]) -> Any:
    """Empty the initializers that the checkpoint's tensors will fill (in place)."""
    for tensor in model.graph.initializer:
        if tensor.name.removeprefix(PREFIX) in checkpoint_names:
            tensor.ClearField("raw_data")
    return model


def fill(model: Any, tensors: dict[str, F32]) -> Any:
    """Put the checkpoint's tensors into the graph (in place).

    Raises:
        BridgeError: MODEL_ERROR, an initializer is empty and the checkpoint does not know it, or its
            shape is another.
    """
    for tensor in model.graph.initializer:
        value = tensors.get(tensor.name.removeprefix(PREFIX))
        if value is None:
            if not tensor.raw_data and int(np.prod(list(tensor.dims))) > 0:
                raise BridgeError(
                    ErrorCode.MODEL_ERROR,
                    f"the checkpoint lacks {tensor.name!r}",
                    remedy="remove sampler_*.onnx beside the checkpoint: it is then made anew",
                )
            continue
        if tuple(tensor.dims) != value.shape:
            raise BridgeError(
                ErrorCode.MODEL_ERROR,
                f"{tensor.name}: {value.shape} in the checkpoint, {tuple(tensor.dims)} in its onnx graph",
                remedy="remove sampler_*.onnx beside the checkpoint: it is then made anew",
            )
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), tensor.name))
    return model


def save_graph(folder: Path, checkpoint: Checkpoint, denoising_steps: int) -> Path:
    """Export the stripped graph into a checkpoint folder (needs torch)."""
    from bridgevla_ros.expert.runtime_torch import build, export_onnx

    model = strip(export_onnx(build(checkpoint, denoising_steps)), set(checkpoint.tensors))
    path = folder / graph_name(denoising_steps)
    path.write_bytes(model.SerializeToString())
    return path


def _read(path: Path) -> Any:
    try:
        return onnx.load_model_from_string(path.read_bytes())
    except DecodeError as error:
        raise BridgeError(
            ErrorCode.MODEL_ERROR,
            f"{path} is half-written or no onnx graph: {error}",
            remedy=f"remove {path.name}: it is then made anew",
        ) from error


class OnnxRuntime:
    """Runs the unrolled graph; a number of steps that was not exported is exported now, in memory."""

    def __init__(self, checkpoint: Checkpoint, denoising_steps: int, threads: int) -> None:
        path = checkpoint.folder / graph_name(denoising_steps)
        model = fill(_read(path), checkpoint.tensors) if path.is_file() else None
        if model is None or {output.name for output in model.graph.output} != set(OUTPUTS):
            from bridgevla_ros.expert.runtime_torch import build, export_onnx

            model = export_onnx(build(checkpoint, denoising_steps))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, features: F32, cloud: F32, mask: F32, noise: F32) -> tuple[F32, F32, F32]:
        """See ``Sampler.forward``."""
        feed = {"features": features, "cloud": cloud, "mask": mask, "noise": noise}
        action, contact, dissent = self._session.run(list(OUTPUTS), feed)
        return action, contact, dissent
