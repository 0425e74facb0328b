"""Runs the sampler in torch, on any of its devices, and exports the onnx graph."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.expert.checkpoint import Checkpoint
from bridgevla_ros.expert.config import OUTPUTS
from bridgevla_ros.expert.diffusion import ddim_steps
from bridgevla_ros.expert.model import ExpertModel, Sampler

F32 = NDArray[np.float32]


def build(checkpoint: Checkpoint, denoising_steps: int) -> Sampler:
    """The sampler of a checkpoint, in evaluation mode.

    Raises:
        BridgeError: MODEL_ERROR, the weights do not fit the card's network.
    """
    model = ExpertModel(checkpoint.config)
    try:
        model.load_state_dict({k: torch.from_numpy(v) for k, v in checkpoint.tensors.items()})
    except RuntimeError as error:
        raise BridgeError(
            ErrorCode.MODEL_ERROR,
            f"the weights in {checkpoint.folder} do not fit the network that their card describes: {error}",
            remedy="copy the checkpoint again, or train it again with this version",
        ) from error
    config = checkpoint.config
    return Sampler(model, ddim_steps(config.train_timesteps, config.beta_schedule, denoising_steps)).eval()


class TorchRuntime:
    """Runs the sampler eagerly."""

    def __init__(self, checkpoint: Checkpoint, denoising_steps: int, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._device = torch.device(device)
        self._sampler = build(checkpoint, denoising_steps).to(self._device)

    def __call__(self, features: F32, cloud: F32, mask: F32, noise: F32) -> tuple[F32, F32, F32]:
        """See ``Sampler.forward``."""
        with torch.inference_mode():
            inputs = [torch.from_numpy(a).to(self._device) for a in (features, cloud, mask, noise)]
            action, contact, dissent = self._sampler(*inputs)
        return action.cpu().numpy(), contact.cpu().numpy(), dissent.cpu().numpy()


def export_onnx(sampler: Sampler) -> Any:
    """The unrolled loop as an onnx ModelProto; the initializers keep the parameters' names."""
    import onnx

    config = sampler.model.config
    example = (
        torch.zeros(1, config.feature_dim),
        torch.zeros(1, config.points, 4),
        torch.ones(1, config.points),
        torch.zeros(2, config.horizon * config.action_dim),
    )
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The TorchScript exporter is deprecated, but it is the one that keeps parameters' names and
        # takes 1 s instead of 9.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            sampler,
            example,
            buffer,  # type: ignore[arg-type]  # this exporter takes any file
            input_names=["features", "cloud", "mask", "noise"],
            output_names=list(OUTPUTS),
            dynamic_axes={"cloud": {1: "N"}, "mask": {1: "N"}, "noise": {0: "S"}, "action": {0: "S"}},
            opset_version=18,
            do_constant_folding=False,
            dynamo=False,
        )
    return onnx.load_from_string(buffer.getvalue())
