"""What the networks here are built from: sizes, spectral norm, residual blocks, attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from ssmdiff import ConfigError, size_text
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

COARSEST = 4  # pixels of the shorter side where a network is narrowest
MOST = 16  # times the width, at most
ATTENTION = 32  # pixels of the shorter side at which there is attention, at most

Initialise = Callable[[Tensor], Any]


def halvings(image_size: tuple[int, ...], name: str) -> tuple[int, tuple[int, int]]:
    """How often an image is halved until its shorter side has 4 pixels, and what it is then.

    Raises:
        ConfigError: It cannot be.
    """
    if len(image_size) == 2:
        times = max(min(image_size) // COARSEST, 1).bit_length() - 1
        height, width = (side >> times for side in image_size)
        whole = (height << times, width << times) == tuple(image_size)
        if times >= 2 and whole and min(height, width) == COARSEST:
            return times, (height, width)
    raise ConfigError(
        f"gan {name!r} makes pictures whose shorter side is 16, 32, 64, 128 or 256 pixels, and "
        f"whose longer one is as often divisible by 2; got {size_text(image_size)}"
    )


def stages_of(width: int, times: int) -> list[int]:
    """Channels from the coarsest map to the finest: 16, 8, 4, 2 and 1 times the width."""
    return [width * min(2**i, MOST) for i in reversed(range(times))]


def attention_at(image_size: tuple[int, ...]) -> int:
    """The shorter side of the map with attention: 32 pixels of images of 128, as in the paper.

    NOTE(paper): it has images of 128 pixels alone; of smaller ones it is a quarter of the side, and
    8 pixels at least.
    """
    return min(ATTENTION, max(min(image_size) // 4, 2 * COARSEST))


class Sharing:
    """Makes convolutions and linear maps, spectrally normalised, with weights begun in one way.

    A weight W is divided by its largest singular value, which one step of the power method a call
    follows in training: torch's ``spectral_norm``.

    Args:
        initialise: The weights; biases begin at 0.
    """

    def __init__(self, initialise: Initialise) -> None:
        self.initialise = initialise

    def conv(self, inside: int, outside: int, kernel: int, bias: bool = True) -> nn.Module:
        """A convolution that keeps the size of the map."""
        made = nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=bias)
        return self._normalised(made)

    def linear(self, inside: int, outside: int, bias: bool = True) -> nn.Module:
        """A linear map."""
        return self._normalised(nn.Linear(inside, outside, bias=bias))

    def _normalised(self, module: nn.Conv2d | nn.Linear) -> nn.Module:
        with torch.no_grad():
            if not module.weight.is_meta:
                self.initialise(module.weight)
            if module.bias is not None:
                module.bias.zero_()
        return spectral_norm(module)


class PlainNorm(nn.BatchNorm2d):
    """Batch norm; what it is given besides is of no use to it."""

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        return super().forward(x)


class UpBlock(nn.Module):
    """A residual block that doubles the sides: norm, ReLU, nearest, 3x3, norm, ReLU, 3x3.

    Args:
        make: Makes its layers.
        inside: Channels of what comes in.
        outside: Of what goes out.
        norm: ``norm(channels)``: a module of (x, z); None for no norms.
    """

    def __init__(
        self,
        make: Sharing,
        inside: int,
        outside: int,
        norm: Callable[[int], nn.Module] | None,
    ) -> None:
        super().__init__()
        self.norm1 = norm(inside) if norm else None
        self.norm2 = norm(outside) if norm else None
        self.conv1, self.conv2 = make.conv(inside, outside, 3), make.conv(outside, outside, 3)
        self.shortcut = make.conv(inside, outside, 1)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        h = F.relu(self.norm1(x, z) if self.norm1 else x)
        h = self.conv1(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        h = self.conv2(F.relu(self.norm2(h, z) if self.norm2 else h))
        # Nearest and 1x1 may change places, and the map is smaller before.
        shortcut = F.interpolate(self.shortcut(x), scale_factor=2.0, mode="nearest")
        summed: Tensor = h + shortcut
        return summed


class DownBlock(nn.Module):
    """A residual block that halves the sides: ReLU, 3x3, ReLU, 3x3, mean of four.

    Args:
        make: Makes its layers.
        inside: Channels of what comes in.
        outside: Of what goes out.
        first: Its input is an image: no ReLU before it.
        pooled: Whether it halves the sides.
    """

    def __init__(
        self, make: Sharing, inside: int, outside: int, first: bool = False, pooled: bool = True
    ) -> None:
        super().__init__()
        self.first, self.pooled = first, pooled
        self.conv1, self.conv2 = make.conv(inside, outside, 3), make.conv(outside, outside, 3)
        kept = inside == outside and not pooled
        self.shortcut = None if kept else make.conv(inside, outside, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        shortcut = x if self.shortcut is None else self.shortcut(self._pool(x))
        return self._pool(h) + shortcut

    def _pool(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2) if self.pooled else x


class Attention(nn.Module):
    """Self-attention over a map (SAGAN, eq. 1 to 3), with gain gamma, 0 at first.

    beta = softmax(f(x)^T g(x)), o = v(beta h(x)), y = gamma o + x; f and g have C/8 channels, h has
    C/2. Keys and values are pooled 2x2, as in the authors' code.
    """

    def __init__(self, make: Sharing, channels: int) -> None:
        super().__init__()
        narrow, half = max(channels // 8, 1), max(channels // 2, 1)
        self.query = make.conv(channels, narrow, 1, bias=False)
        self.key = make.conv(channels, narrow, 1, bias=False)
        self.value = make.conv(channels, half, 1, bias=False)
        self.out = make.conv(half, channels, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2)
        key, value = (F.max_pool2d(m(x), 2).flatten(2) for m in (self.key, self.value))
        weights = torch.softmax(query.transpose(1, 2) @ key, dim=-1)
        mixed = value @ weights.transpose(1, 2)
        out: Tensor = self.out(mixed.unflatten(2, x.shape[2:]))
        return x + self.gain * out
