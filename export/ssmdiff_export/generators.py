"""Runs whose network makes an image in one call, as a GAN's generator does, in a file."""

from __future__ import annotations

import torch
from ssmdiff import ExportError, Run, TensorDenoiser
from torch import Tensor, nn

from ssmdiff_export.precision import in_precision, plain
from ssmdiff_export.runtime.card import Latent


class ExportedGenerator(nn.Module):
    """``x -> images``, float32 outside.

    Args:
        denoise: The network as its method calls it.
        model: The network, in the precision of the file.
        dtype: The precision.
    """

    @classmethod
    def of(cls, run: Run, dtype: torch.dtype) -> ExportedGenerator:
        """Of the network that a run's images are made by."""
        narrow = in_precision(plain(run.model), dtype)
        made = cls(run.method.denoiser(narrow), narrow, dtype)
        return made.eval()

    def __init__(self, denoise: TensorDenoiser, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.denoise, self.model, self.dtype = denoise, model, dtype

    def forward(self, x: Tensor) -> Tensor:
        timesteps = torch.zeros(x.shape[0])
        return self.denoise(x.to(self.dtype), timesteps, ()).float()


def makes_in_one_call(run: Run) -> bool:
    """Whether a run's images are what its network makes of noise by itself."""
    return "sample.steps" in run.config.unread()


def refuse_generator(run: Run, target: str) -> None:
    """Check that a target can hold the run.

    Raises:
        ExportError: It makes an image in one call, and the target is called at timesteps.
    """
    if makes_in_one_call(run):
        raise ExportError(
            f"target {target} holds denoisers, and the run has a generator; export it to onnx, "
            "which ONNX Runtime has providers of GPUs for"
        )


def latent_of_run(run: Run) -> Latent:
    """What its images are made of."""
    network = run.config.method.get("network", run.config.method)
    (size,), distribution = run.noise
    return Latent(network, size, distribution)
