"""A patch transformer with any block in the transformer's place (DiT, DiS, ZigMa).

patches      image -> tokens (B, L, C), L = (H / p) (W / p), plus 2-D sin-cos positions
layers       h + gate (block(m) - m), m = norm(h) (1 + scale) + shift; long skips join i, n - 1 - i
projection   adaptive norm, linear to p x p pixels
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from ssmdiff import BlockFactory, Grid, Scan, ScanSlot
from ssmdiff.nn import Fuse, ImageBackbone, grid_angles, orders_of, to_map, to_tokens, zeroed
from torch import Tensor, nn

POSITION_BASE = 10_000.0
"""Of the frequencies of the sin-cos positions, as in DiT."""


class AdaptiveNorm(nn.Module):
    """norm(x) (1 + scale) + shift, both linear in the time embedding and zero at the start."""

    def __init__(self, channels: int, time_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, elementwise_affine=False)
        self.time = zeroed(nn.Linear(time_channels, 2 * channels))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, L, C) and (B, time_channels) to (B, L, C)."""
        scale, shift = self.time(time).unsqueeze(1).chunk(2, dim=2)
        modulated: Tensor = self.norm(x) * (1 + scale) + shift
        return modulated


class Layer(nn.Module):
    """A block inside adaLN-zero: x + gate (block(m) - m) with m = norm(x) (1 + scale) + shift.

    NOTE(paper): DiT adds gate f(m) with f the attention or the MLP. Our blocks carry their own
    residual, block(m) = m + f(m), so f(m) is what they add. A layer starts as the identity.

    Args:
        channels: C.
        time_channels: Width of the time embedding.
        block: See :class:`ssmdiff.Block`.
        skip: Whether the features of an earlier layer join first.
    """

    def __init__(self, channels: int, time_channels: int, block: Any, skip: bool) -> None:
        super().__init__()
        self.join = Fuse(2, channels) if skip else None
        self.norm = AdaptiveNorm(channels, time_channels)
        self.gate = zeroed(nn.Linear(time_channels, channels))
        self.block = block

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        grid: Grid,
        orders: Sequence[Tensor],
        skip: Tensor | None,
    ) -> Tensor:
        """(B, L, C) tokens, the time, the network's orders and maybe (B, L, C) to (B, L, C)."""
        if self.join is not None and skip is not None:
            x = self.join(x, skip)
        m = self.norm(x, time)
        added = to_tokens(self.block(to_map(m, grid), time, orders_of(self.block, orders))) - m
        joined: Tensor = x + self.gate(time).unsqueeze(1) * added
        return joined


class Isotropic(ImageBackbone):
    """A denoiser of images: patches, a stack of ``depth`` equal layers, patches.

    Args:
        in_channels: Channels of the image, and of what is told in places.
        out_channels: Channels of the image.
        scan: Orders the tokens of each S6 call; drawn from when a call brings no orders.
        block: Builds a block, see :class:`ssmdiff.BlockFactory`.
        context_channels: Numbers that are told of an image; 0 for none.
        channels: C.
        depth: Layers.
        patch: Side of a patch in pixels.
        long_skips: Layer i joins layer depth - 1 - i, as in DiS and U-ViT; without, as in DiT.
    """

    name = "isotropic"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        scan: Scan,
        block: BlockFactory,
        context_channels: int = 0,
        channels: Annotated[int, Field(ge=4, multiple_of=4)] = 384,
        depth: Annotated[int, Field(ge=1)] = 12,
        patch: Annotated[int, Field(ge=1, le=64)] = 4,
        long_skips: bool = True,
    ) -> None:
        # NOTE(paper): the time is C wide as in DiT, not 4 C as in the UNet: each layer's 3 C
        # modulations read it, and would otherwise outweigh the blocks.
        super().__init__(in_channels, out_channels, scan, context_channels, channels, channels)
        self.channels, self.patch = channels, patch
        self.skips = depth // 2 if long_skips else 0
        self.patches = nn.Conv2d(in_channels, channels, patch, stride=patch)
        self.layers = nn.ModuleList(
            Layer(
                channels,
                channels,
                self.build_block(block, channels, channels),
                skip=i >= depth - self.skips,
            )
            for i in range(depth)
        )
        self.out_norm = AdaptiveNorm(channels, channels)
        self.out = zeroed(nn.Linear(channels, out_channels * patch**2))

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        orders: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """The prediction, (B, C, H, W); see :class:`ssmdiff.Backbone`.

        Raises:
            ConfigError: An image size that the patch does not divide, a context or orders that do
                not fit the model.
        """
        time, orders = self.start(x, timesteps, context, orders)
        h = self.patches(x)
        grid: Grid = tuple(h.shape[2:])
        h = to_tokens(h)
        h = h + self.positions(grid, x.device).to(h.dtype)
        skips: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            skip = skips.pop() if i >= len(self.layers) - self.skips else None
            h = self.run_layer(layer, h, time, grid, orders, skip)
            if i < self.skips:
                skips.append(h)
        pixels = self.out(self.out_norm(h, time))
        return F.pixel_shuffle(to_map(pixels, grid), self.patch)

    def positions(self, grid: Grid, device: torch.device) -> Tensor:
        """The sin-cos positions of a grid, (L, C) float32: of each axis half the channels."""
        angles = grid_angles(grid, self.channels // 4, POSITION_BASE, device)
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    def scan_slots(self, image_size: Grid) -> list[ScanSlot]:
        """One slot for each S6 call of :meth:`forward`, one layer after the other.

        Raises:
            ConfigError: The patch does not divide the image size.
        """
        self.check_sides(image_size, self.patch, f"patch {self.patch}", "a smaller 'patch'")
        slot = ScanSlot(tuple(side // self.patch for side in image_size))
        return [slot] * self.scan_calls
