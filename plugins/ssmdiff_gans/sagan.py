"""SAGAN (Zhang et al.): residual blocks, attention in both networks, spectral norm everywhere.

Without classes: plain batch norm in the place of a conditional one, and no projection.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch.nn.functional as F
from pydantic import Field
from ssmdiff import Adam, Gan
from torch import Tensor, nn

from ssmdiff_gans.layers import (
    Attention,
    DownBlock,
    PlainNorm,
    Sharing,
    UpBlock,
    attention_at,
    halvings,
    stages_of,
)

MAKE = Sharing(nn.init.xavier_uniform_)


class Generator(nn.Module):
    """z to an image: a linear map, blocks that double the sides, attention before two of them.

    Args:
        channels: C of the image.
        latent_size: Numbers of z.
        coarsest: (h, w) of the first map.
        stages: Channels of what each block gives, the coarsest first.
        attention: The shorter side of the map with attention.
    """

    def __init__(
        self,
        channels: int,
        latent_size: int,
        coarsest: tuple[int, int],
        stages: list[int],
        attention: int,
    ) -> None:
        super().__init__()
        self.coarsest = coarsest
        self.enter = MAKE.linear(latent_size, stages[0] * coarsest[0] * coarsest[1])
        blocks: list[nn.Module] = []
        side = min(coarsest)
        for inside, outside in zip([stages[0], *stages], stages, strict=False):
            blocks.append(UpBlock(MAKE, inside, outside, PlainNorm))
            side *= 2
            if side == attention:
                blocks.append(Attention(MAKE, outside))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(stages[-1])
        self.leave = MAKE.conv(stages[-1], channels, 3)

    def forward(self, z: Tensor) -> Tensor:
        """(B, latent_size) to (B, C, H, W)."""
        x = self.blocks(self.enter(z).unflatten(1, (-1, *self.coarsest)))
        images: Tensor = self.leave(F.relu(self.norm(x))).tanh()
        return images


class Discriminator(nn.Module):
    """An image to one verdict: blocks that halve the sides, attention after the second.

    Args:
        channels: C of the image.
        coarsest: The shorter side of the last map.
        stages: Channels of what each block gives, the finest first; the last comes twice.
        attention: The shorter side of the map with attention.
    """

    def __init__(self, channels: int, coarsest: int, stages: list[int], attention: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        side = coarsest << len(stages)
        for inside, outside in zip([channels, *stages], stages, strict=False):
            blocks.append(DownBlock(MAKE, inside, outside, first=not blocks))
            side //= 2
            if side == attention:
                blocks.append(Attention(MAKE, outside))
        self.blocks = nn.Sequential(*blocks, DownBlock(MAKE, stages[-1], stages[-1], pooled=False))
        self.leave = MAKE.linear(stages[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 1)."""
        verdict: Tensor = self.leave(F.relu(self.blocks(images)).sum((2, 3)))
        return verdict


class SAGAN(Gan):
    """Its two networks.

    Args:
        channels: C of the images.
        image_size: (H, W).
        latent_size: Numbers of z.
        width: Channels of the finest map; those of the coarsest are 16 times as many at most.
    """

    adam: ClassVar = {
        "generator": Adam(betas=(0.0, 0.9)),
        "discriminator": Adam(rate=4.0, betas=(0.0, 0.9)),  # 4e-4 beside 1e-4
    }

    def __init__(
        self,
        channels: int,
        image_size: tuple[int, ...],
        latent_size: int,
        width: Annotated[int, Field(ge=1)] = 64,
    ) -> None:
        times, coarsest = halvings(image_size, "sagan")
        stages, place = stages_of(width, times), attention_at(image_size)
        super().__init__(
            Generator(channels, latent_size, coarsest, stages, place),
            Discriminator(channels, min(coarsest), stages[::-1], place),
        )
