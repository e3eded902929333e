"""torch's side of the sampling loop: what works on tensors, as a denoiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssmdiff.networks.backbone import order_tensors
from ssmdiff.orders.scan import ScanOrder

TensorDenoiser = Callable[..., Tensor]
"""``(x, timesteps, orders, *told) -> prediction`` on tensors of one device."""


class TorchDenoiser:
    """A callable on tensors for the sampling loop, which stays on its device from step to step.

    Args:
        denoise: ``(x, timesteps, orders, *told) -> prediction``.
        device: Where it runs; the CPU by default.
    """

    def __init__(self, denoise: TensorDenoiser, device: torch.device | None = None) -> None:
        self.denoise, self.device = denoise, device or torch.device("cpu")

    def asarray(self, values: NDArray[np.float32 | np.int64]) -> Tensor:
        """A tensor on the device."""
        return torch.from_numpy(values).to(self.device)

    @torch.inference_mode()
    def __call__(
        self, x: Tensor, timesteps: Tensor, orders: Sequence[ScanOrder], *told: Tensor
    ) -> Tensor:
        return self.denoise(x, timesteps, order_tensors(orders, self.device), *told).float()


def module_denoiser(model: nn.Module) -> TensorDenoiser:
    """A backbone as a denoiser: numbers that it is told are its context, planes go with ``x``."""

    def denoise(x: Tensor, timesteps: Tensor, orders: Sequence[Tensor], *told: Tensor) -> Tensor:
        context = next((one for one in told if one.dim() < x.dim()), None)
        planes = [one for one in told if one.dim() == x.dim()]
        x = torch.cat([x, *planes], dim=1) if planes else x
        prediction: Tensor = model(x=x, timesteps=timesteps, context=context, orders=orders)
        return prediction

    return denoise
