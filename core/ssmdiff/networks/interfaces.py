"""What blocks, backbones, noise schedulers and data sets are: the interfaces that plugins fill.

Axis letters: B batch, C channels, H W (D) grid, L tokens, K directions, T timesteps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from ssmdiff.orders.scan import OrderPlan, Scan, ScanSlot
from ssmdiff.orders.scan_order import Grid, ScanOrder


class OrderTensors(NamedTuple):
    """A :class:`ssmdiff.ScanOrder` on a device, as blocks and graphs receive it."""

    order: Tensor
    """(K, L) int32: ``order[k, t]`` is the token visited at time t."""
    restart: Tensor | None = None
    """(K, L) bool or None: the state starts anew before time t."""


def order_tensors(orders: Sequence[ScanOrder], device: torch.device) -> tuple[OrderTensors, ...]:
    """The orders of a plan on a device. Each table is copied there once, and never written to.

    The copies live as long as their tables: those of fixed scans from step to step, those of random
    ones for the step that drew them. To a GPU they go through pinned memory, without a wait.
    """
    # Under a mode that watches or replaces tensors (a fake one, say) a copy is no plain tensor, and
    # must not be met again outside of it.
    cache = _on_device if torch._C._len_torch_dispatch_stack() == 0 else {}
    found = []
    for order in orders:
        copies = cache.setdefault(order, {})
        if device not in copies:
            copies[device] = OrderTensors(
                _copy_to(order.index, device),
                None if order.restart is None else _copy_to(order.restart, device),
            )
        found.append(copies[device])
    return tuple(found)


_on_device: MutableMapping[ScanOrder, dict[torch.device, OrderTensors]] = WeakKeyDictionary()


def _copy_to(table: np.ndarray, device: torch.device) -> Tensor:
    # No inference tensor even while sampling: training meets the same copy.
    with torch.inference_mode(False):
        host = torch.tensor(table)
        if device.type == "cuda":
            return host.pin_memory().to(device, non_blocking=True)
        return host.to(device)


class Block(Protocol):
    """Mixes the tokens of a feature map, by a state space model or otherwise; an ``nn.Module``.

    A factory is called as ``factory(channels=..., time_channels=..., directions=..., **options)``
    and may leave out what it does not need (a convolution needs no directions).
    """

    scan_calls: int
    """How many S6 calls one forward pass makes: the number of orders that it is given."""

    def __call__(self, x: Tensor, time: Tensor, orders: Sequence[OrderTensors]) -> Tensor:
        """Same shape and dtype as ``x``.

        Args:
            x: (B, C, *grid), any memory format; channels-last saves copies.
            time: (B, time_channels) embedding of the timestep (and of the label, if any), already
                through its last activation: a block maps it linearly.
            orders: ``scan_calls`` orders, each of L = prod(grid) tokens in K = directions rows.
        """
        ...


BlockFactory = Callable[[int, int], nn.Module]
"""``(channels, time_channels) -> block``: what a backbone receives.

It builds its blocks in the order in which it calls them: a scan may vary from slot to slot, and
with it the directions of a block."""


class Backbone(Protocol):
    """A denoiser network; an ``nn.Module``.

    A factory is called as ``factory(in_channels=..., scan=..., block=..., num_classes=...,
    **options)``, where ``block`` is a :data:`BlockFactory` and ``num_classes`` is 0 when
    the model is unconditional. Called as ``model(x=..., timesteps=..., context=...)`` it drops into
    MONAI's ``DiffusionInferer`` unmodified.
    """

    scan: Scan

    def __call__(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        orders: Sequence[OrderTensors] | None = None,
    ) -> Tensor:
        """The prediction, in the shape of ``x``.

        Args:
            x: (B, C, *image_size) noisy images.
            timesteps: (), (1,) or (B,), integer or float.
            context: (B,) integer class labels for a conditional model, else None.
            orders: One per slot of :meth:`scan_slots`; None lets the backbone draw its own.

        Raises:
            ConfigError: The image size is not one that the network's strides divide.
        """
        ...

    def scan_slots(self, image_size: Grid) -> list[ScanSlot]:
        """Every S6 call of one forward pass in order, with its grid of tokens."""
        ...


def own_orders(
    scan: Scan, slots: Sequence[ScanSlot], device: torch.device
) -> tuple[OrderTensors, ...]:
    """What a backbone does when it is given no orders: draw them from torch's global generator.

    So ``torch.manual_seed`` governs it, as it governs dropout. Training, sampling and export pass
    the orders of an :class:`ssmdiff.OrderPlan` instead.
    """
    stochastic = any(scan.at(i).stochastic for i in range(len(slots)))
    seed = int(torch.randint(2**62, (), device="cpu")) if stochastic else 0
    return order_tensors(OrderPlan(scan, tuple(slots), seed).draw(0), device)


class NoiseScheduler(Protocol):
    """Turns a denoiser into images: the protocol that diffusers and MONAI share.

    A factory is called as ``factory(betas=..., prediction_type=..., **options)`` with betas (T,)
    float64 and prediction_type ``epsilon``, ``sample`` or ``v_prediction``.
    """

    timesteps: Tensor
    """The timesteps of one sampling run, in the order of the calls, after ``set_timesteps``."""

    def set_timesteps(self, num_inference_steps: int) -> None: ...

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise, (B, C, *image_size)."""
        ...

    def scale_model_input(self, sample: Tensor, timestep: Any) -> Tensor: ...

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **options: Any) -> Any:
        """One step back; the new sample is ``.prev_sample`` of the result, or its first item.

        A scheduler whose steps are random takes a parameter ``noise``, (B, C, *image_size) float32
        standard normal numbers that are a function of (seed, image, step) alone. One that takes
        ``generator`` instead, as diffusers does, gets a list of torch.Generators, one per image.
        """
        ...


class ImageSample(NamedTuple):
    """One image of a data set."""

    image: Tensor
    """(C, *image_size) float32, -1 to 1."""
    label: int = 0
    """Class index, 0 where the data set has no classes."""


class ImageDataset(Protocol):
    """Images of one size; a map-style ``torch.utils.data.Dataset``, a pure function of the index.

    A factory is called as ``factory(image_size=(H, W), **options)``.
    """

    channels: int
    class_names: tuple[str, ...]
    """Empty where the data set has no classes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> ImageSample: ...

    def fingerprint(self) -> str:
        """A digest of what the images are made from, so that a resumed run can tell a change."""
        ...


Denoiser = Callable[[Tensor, Tensor, Sequence[OrderTensors]], Tensor]
"""``(x, timesteps, orders) -> prediction``: a torch module, an ONNX session, an engine."""

Betas = np.ndarray
"""(T,) float64, beta_1 .. beta_T of eq. 1."""

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
)
"""What activations are in each precision, in training and in exported graphs."""
