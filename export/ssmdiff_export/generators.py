"""Runs whose network makes an image in one call, as a GAN's generator does, in a file."""

from __future__ import annotations

import copy

import torch
from ssmdiff import ExportError, Run, TensorDenoiser
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ssmdiff_export.runtime.card import Latent


class ExportedGenerator(nn.Module):
    """``x -> images``, float32 outside.

    Args:
        denoise: The network as its method calls it.
        model: The network, in the precision of the file.
        dtype: The precision.
    """

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


def plain(model: nn.Module) -> nn.Module:
    """A copy whose weights are numbers, where they are computed at every call (spectral norm)."""
    copied = copy.deepcopy(model).eval()
    for module in list(copied.modules()):
        if parametrize.is_parametrized(module):
            names = list(module.parametrizations)  # type: ignore[arg-type]
            values = {name: getattr(module, name).detach() for name in names}
            # Not by torch's own function, which would change the class of the model's module too.
            before = parametrize.type_before_parametrizations(module)
            del module.parametrizations
            module.__class__ = before
            for name, value in values.items():
                module.register_parameter(name, nn.Parameter(value))
    return copied


def latent_of_run(run: Run) -> Latent:
    """What its images are made of."""
    network = run.config.method.get("network", run.config.method)
    (size,), distribution = run.noise
    return Latent(network, size, distribution)
