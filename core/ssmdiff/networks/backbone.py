"""What blocks and backbones are, and what backbones share.

First the interfaces that plugins fill, then the time embedding, the checks of images, labels and
orders, and the orders of a plan on a device. Axis letters: B batch, C channels, H W (D) grid, L
tokens, K directions, T timesteps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any, ClassVar, Protocol
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ssmdiff.errors import ConfigError
from ssmdiff.ops.derivatives import is_transformed
from ssmdiff.ops.kernels import is_readable, is_watched, note_order
from ssmdiff.orders.scan import Grid, OrderPlan, Scan, ScanOrder, ScanSlot, size_text


class Block(Protocol):
    """Mixes the tokens of a feature map, by a state space model or otherwise; an ``nn.Module``.

    A factory is called as ``factory(channels=..., time_channels=..., directions=..., **options)``
    and may leave out what it does not need (a convolution needs no directions).
    """

    scan_calls: int
    """How many S6 calls one forward pass makes: the number of orders that it is given."""
    slot: int
    """Where its S6 calls begin in ``scan_slots`` of the network; set by the factory."""

    def __call__(self, x: Tensor, time: Tensor, orders: Sequence[Tensor]) -> Tensor:
        """Same shape and dtype as ``x``.

        Args:
            x: (B, C, *grid), any memory format; channels-last saves copies.
            time: (B, time_channels) embedding of the timestep (and of what else is told), already
                through its last activation: a block maps it linearly.
            orders: ``scan_calls`` of them, (K, L) int32 with L = prod(grid) and K = directions, to
                be handed to :func:`ssmdiff.selective_scan` as they are.
        """
        ...


class BlockFactory(Protocol):
    """What a backbone receives, to build the blocks of its network: each for slots of its own."""

    def __call__(self, channels: int, time_channels: int, *, slot: int) -> Any:
        """A :class:`Block` whose S6 calls are ``slot`` and those after it, ``scan_calls`` in all.

        A scan may vary from slot to slot, and with it the directions of a block.

        Args:
            channels: C of the feature maps that it mixes.
            time_channels: Width of the time embedding.
            slot: Its place in ``scan_slots``.
        """
        ...


class Backbone(Protocol):
    """A denoiser network; an ``nn.Module``.

    A factory is called as ``factory(in_channels=..., out_channels=..., scan=..., block=...,
    context_channels=..., **options)``, where ``block`` is a :class:`BlockFactory`. The input has
    the C channels of the image first, and after them P more of what the model is told that has a
    place in it, such as masks; what has none is ``context_channels`` numbers, 0 for no such thing.
    See :class:`ssmdiff.Conditions`. Called as ``model(x=..., timesteps=..., context=...)`` it drops
    into MONAI's ``DiffusionInferer`` unmodified.
    """

    scan: Scan

    def __call__(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        orders: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """The prediction, (B, C, *image_size).

        Args:
            x: (B, C + P, *image_size) noisy images, and what is told of them that has a place.
            timesteps: (), (1,) or (B,), integer or float.
            context: (B, M) floating point, what is told that has no place; None where M is 0. An
                ``ImageBackbone`` that is told a label alone also takes (B,) whole numbers.
            orders: One per slot of :meth:`scan_slots`; None lets the backbone draw its own.

        Raises:
            ConfigError: The image size is not one that the network's strides divide.
        """
        ...

    def scan_slots(self, image_size: Grid) -> list[ScanSlot]:
        """Every S6 call of one forward pass in order, with its grid of tokens."""
        ...


DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
)
"""What activations are in each precision, in training and in exported graphs."""


class ContextEmbedding(nn.Module):
    """context @ weight, a row for each number: of a label, which is one 1 among zeros, its row."""

    def __init__(self, context_channels: int, time_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(context_channels, time_channels))

    def forward(self, context: Tensor) -> Tensor:
        """(B, M) to (B, time_channels), in float32 at least: a number is told whole."""
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        device = context.device.type
        on = torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=False) if on else nullcontext():
            return (context.to(wide) @ self.weight.to(wide)).to(self.weight.dtype)


class TimeEmbedding(nn.Module):
    """Sinusoids of the timestep, an MLP, what else is told if anything is, and a SiLU.

    The SiLU is applied here once, so that every layer needs one linear map of its own.

    Args:
        channels: Sinusoids, half of them sines; even.
        time_channels: Width of the embedding.
        context_channels: Numbers that are told; 0 for none.
    """

    def __init__(self, channels: int, time_channels: int, context_channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.expand = nn.Linear(channels, time_channels)
        self.mix = nn.Linear(time_channels, time_channels)
        told = ContextEmbedding(context_channels, time_channels) if context_channels else None
        self.label = told  # by this name runs of before know it, whose models are told a label

    def forward(self, timesteps: Tensor, context: Tensor | None) -> Tensor:
        """(B,) timesteps of any dtype and (B, M) numbers to (B, time_channels)."""
        half = self.channels // 2
        steps = torch.arange(half, device=timesteps.device, dtype=torch.float32)
        angles = timesteps.float()[:, None] * torch.exp(-math.log(10_000) / half * steps)
        waves = torch.cat([angles.cos(), angles.sin()], dim=1).to(self.expand.weight.dtype)
        embedding = self.mix(F.silu(self.expand(waves)))
        if self.label is not None and context is not None:
            embedding = embedding + self.label(context)
        return F.silu(embedding)


class ImageBackbone(nn.Module):
    """A denoiser of (H, W) images that checks its arguments in one place.

    A subclass sets ``name``, implements ``scan_slots`` and ``forward`` as ``Backbone`` has them,
    begins ``forward`` with :meth:`start`, and builds its blocks with :meth:`build_block`.

    Args:
        in_channels: Channels of the image, and of what is told in places.
        out_channels: Channels of the image.
        scan: Orders the tokens of each S6 call; drawn from when a call brings no orders.
        context_channels: Numbers that are told of an image; 0 for none.
        channels: Sinusoids of the time embedding, even.
        time_channels: Width of the time embedding.
    """

    name: ClassVar[str]
    activation_checkpointing: bool = False
    """Whether :meth:`run_layer` keeps only what goes into a layer, and computes the layer again in
    the backward pass. Set by :func:`recompute_activations`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        scan: Scan,
        context_channels: int,
        channels: int,
        time_channels: int,
    ) -> None:
        super().__init__()
        self.scan = scan
        self.in_channels, self.out_channels = in_channels, out_channels
        self.context_channels = context_channels
        self.embedding = TimeEmbedding(channels, time_channels, context_channels)
        self.scan_calls = 0

    def build_block(self, block: BlockFactory, channels: int, time_channels: int) -> Any:
        """A block whose slots follow those of the blocks that were built before it."""
        built = block(channels, time_channels, slot=self.scan_calls)
        self.scan_calls += built.scan_calls
        return built

    def scan_slots(self, image_size: Grid) -> list[ScanSlot]:
        """One slot for each S6 call of ``forward``, by the numbers that its blocks have."""
        raise NotImplementedError

    def start(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None,
        orders: Sequence[Tensor] | None,
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """The time embedding (B, time_channels) and the orders, all arguments checked.

        Raises:
            ConfigError: An image size that the network cannot serve, a context or orders that do
                not fit the model.
        """
        for name, value in (("x", x), ("timesteps", timesteps), ("context", context)):
            if not isinstance(value, Tensor) and (name != "context" or value is not None):
                raise ConfigError(
                    f"backbone {self.name}: {name} is {type(value).__name__}; expected a tensor, "
                    f"such as torch.tensor({[value] if isinstance(value, int | float) else '...'})"
                )
        if x.dim() != 4 or x.shape[1] != self.in_channels or not x.is_floating_point():
            raise ConfigError(
                f"backbone {self.name}: x is {x.dtype} of shape {tuple(x.shape)}; "
                f"expected floating point (B, {self.in_channels}, H, W)"
            )
        slots = self.scan_slots(tuple(x.shape[2:]))
        if orders is None:
            orders = _draw_orders(self.scan, slots, x.device)
        else:
            _check_orders(orders, slots)
        batch = x.shape[0]
        context = self._numbers(context, batch)
        return self.embedding(_per_image(timesteps, batch), context), orders

    def run_layer(self, layer: nn.Module, *arguments: Any) -> Any:
        """``layer(*arguments)``, recomputed in the backward pass where that was asked for.

        Dropout is drawn from the same state of the generators again, so gradients are the same.
        Under torch.func and forward mode, where torch cannot recompute, nothing is recomputed.
        """
        if self.activation_checkpointing and torch.is_grad_enabled() and not is_transformed():
            return checkpoint(layer, *arguments, use_reentrant=False)
        return layer(*arguments)

    def check_sides(self, image_size: Grid, stride: int, reason: str, remedy: str) -> None:
        """Refuse an image size that ``stride`` does not divide, and name the nearest that it does.

        Args:
            image_size: (H, W).
            stride: What every side must be a multiple of.
            reason: Which options make that stride.
            remedy: What makes it smaller.
        """
        if len(image_size) != 2:
            raise ConfigError(f"backbone {self.name} takes (H, W) images, got size {image_size}")
        if any(side < stride or side % stride for side in image_size):
            nearest = [max(stride, (side + stride // 2) // stride * stride) for side in image_size]
            raise ConfigError(
                f"image size {size_text(image_size)}: every side must be a multiple of {stride} "
                f"({reason}); nearest: {size_text(nearest)}. Smaller strides: {remedy}"
            )

    def _numbers(self, context: Tensor | None, batch: int) -> Tensor | None:
        """The context as (B, M), checked; labels of classes become one 1 among zeros each."""
        count = self.context_channels
        if context is None or not count:
            if context is None and not count:
                return None
            raise ConfigError(
                f"the model needs context: ({batch}, {count}) numbers, or ({batch},) labels"
                if count
                else "the model is unconditional and was given a context; leave it out"
            )
        labels = context.dtype in (torch.int64, torch.int32)
        shape = (batch,) if labels else (batch, count)
        if tuple(context.shape) != shape or not (labels or context.is_floating_point()):
            raise ConfigError(
                f"context is {context.dtype} of shape {tuple(context.shape)}; expected floating "
                f"point ({batch}, {count}), or ({batch},) int64 or int32 class labels"
            )
        if not labels:
            return context
        # Not on a GPU: to read them there would make every call wait for the device.
        if batch and context.device.type == "cpu" and is_readable(context):
            low, high = int(context.min()), int(context.max())
            if low < 0 or high >= count:
                raise ConfigError(
                    f"context holds the label {low if low < 0 else high}; the model has "
                    f"{count} classes, labels 0 to {count - 1}"
                )
        return (context[:, None] == torch.arange(count, device=context.device)).float()


def recompute_activations(model: nn.Module) -> None:
    """Let a backbone recompute its layers in the backward pass instead of keeping their insides.

    A backbone that can do so has an attribute ``activation_checkpointing``, False until it is set
    here, and then runs its layers through ``torch.utils.checkpoint``; an :class:`ImageBackbone` has
    both. A backbone may leave it out.

    Raises:
        ConfigError: This one does.
    """
    if not hasattr(model, "activation_checkpointing"):
        raise ConfigError(
            f"train.activation_checkpointing: the backbone {type(model).__name__} cannot recompute "
            "its layers (it has no attribute 'activation_checkpointing'); leave it out, and try "
            "a smaller train.micro_batch_size"
        )
    model.activation_checkpointing = True  # type: ignore[assignment]


def orders_of(block: Any, orders: Sequence[Tensor]) -> Sequence[Tensor]:
    """The orders of a block's own S6 calls, out of those of the whole network."""
    return orders[block.slot : block.slot + block.scan_calls]


def own_orders(scan: Scan, slots: Sequence[ScanSlot], device: torch.device) -> tuple[Tensor, ...]:
    """What a backbone does when it is given no orders: draw them from torch's global generator.

    So ``torch.manual_seed`` governs it, as it governs dropout. Training, sampling and export pass
    the orders of an :class:`ssmdiff.OrderPlan` instead.
    """
    stochastic = any(scan.at(i).stochastic for i in range(len(slots)))
    seed = int(torch.randint(2**62, (), device="cpu")) if stochastic else 0
    return order_tensors(OrderPlan(scan, tuple(slots), seed).draw(0), device)


# Orders are drawn with numpy on the host: torch.compile breaks its graph there and does not trace.
_draw_orders = torch.compiler.disable(own_orders)


def _check_orders(orders: Sequence[Tensor], slots: Sequence[ScanSlot]) -> None:
    if len(orders) != len(slots):
        raise ConfigError(
            f"the model makes {len(slots)} S6 calls on an image of this size and was given "
            f"{len(orders)} orders; expected one per slot of scan_slots(image_size)"
        )
    for i, (order, slot) in enumerate(zip(orders, slots, strict=True)):
        if order.shape[-1] != math.prod(slot.grid):
            raise ConfigError(
                f"order {i} visits {order.shape[-1]} tokens; slot {i} is a "
                f"{size_text(slot.grid)} grid of {math.prod(slot.grid)}. Were the orders drawn for "
                "another image size?"
            )


def _per_image(timesteps: Tensor, batch: int) -> Tensor:
    """Timesteps of shape (), (1,) or (B,) as (B,)."""
    if timesteps.dim() > 1 or (timesteps.dim() == 1 and timesteps.shape[0] not in (1, batch)):
        raise ConfigError(
            f"timesteps have shape {tuple(timesteps.shape)}; expected (), (1,) or ({batch},)"
        )
    return timesteps.reshape(-1).expand(batch)


def order_tensors(orders: Sequence[ScanOrder], device: torch.device) -> tuple[Tensor, ...]:
    """The orders of a plan on a device. Each table is copied there once, and never written to.

    The copies live as long as their tables: those of fixed scans from step to step, those of random
    ones for the step that drew them. To a GPU they go through pinned memory, without a wait.
    """
    # Under a mode that watches or replaces tensors (a fake one, say) a copy is no plain tensor, and
    # must not be met again outside of it.
    cache = {} if is_watched() else _on_device
    found = []
    for order in orders:
        copies = cache.setdefault(order, {})
        if device not in copies:
            copies[device] = note_order(_copy_to(order.coded, device), order.restart is not None)
        found.append(copies[device])
    return tuple(found)


_on_device: MutableMapping[ScanOrder, dict[torch.device, Tensor]] = WeakKeyDictionary()


def _copy_to(table: NDArray[Any], device: torch.device) -> Tensor:
    # No inference tensor even while sampling, and none of a transform's: training meets the same.
    with torch.inference_mode(False), torch._C._DisableFuncTorch():
        host = torch.tensor(table)
        if device.type == "cuda":
            return host.pin_memory().to(device, non_blocking=True)
        return host.to(device)
