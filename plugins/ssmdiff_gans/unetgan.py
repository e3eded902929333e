"""U-Net GAN (Schonfeld et al.): the discriminator is a UNet, which judges an image and its pixels.

Written from the paper alone. The generator is BigGAN's without classes: its batch norms are
modulated by parts of z (self-modulation), as the paper has it for sets without classes.

NOTE(paper): BigGAN's attention is left out, and both outputs of the discriminator weigh the same,
the decoder by the mean over its pixels.
"""

from __future__ import annotations

import functools
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from ssmdiff import Adam, AdversarialLoss, ConfigError, Discriminate, Gan, Verdicts
from torch import Tensor, nn

from ssmdiff_gans.layers import DownBlock, Sharing, UpBlock, halvings, stages_of

MAKE = Sharing(nn.init.orthogonal_)
UNIFORMS = 4  # of an image: whether it is mixed, how large the box is, and its place
RISES_UNTIL = 0.5  # share of the run
Share = Annotated[float, Field(ge=0, le=1)]


class Modulated(nn.Module):
    """Batch norm with a gain and a bias that are linear maps of z."""

    def __init__(self, channels: int, latent_size: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = MAKE.linear(latent_size, channels, bias=False)
        self.bias = MAKE.linear(latent_size, channels, bias=False)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        gain, bias = (m(z)[:, :, None, None] for m in (self.gain, self.bias))
        steered: Tensor = self.norm(x) * (1 + gain) + bias
        return steered


class Generator(nn.Module):
    """z to an image: its first part makes the coarsest map, each other part steers a block.

    Args:
        channels: C of the image.
        latent_size: Numbers of z.
        coarsest: (h, w) of the first map.
        stages: Channels of what each block gives, the coarsest first.
    """

    def __init__(
        self, channels: int, latent_size: int, coarsest: tuple[int, int], stages: list[int]
    ) -> None:
        super().__init__()
        parts = len(stages) + 1
        self.parts = [latent_size // parts + (i < latent_size % parts) for i in range(parts)]
        self.coarsest = coarsest
        self.enter = MAKE.linear(self.parts[0], stages[0] * coarsest[0] * coarsest[1])
        self.blocks = nn.ModuleList(
            UpBlock(MAKE, inside, outside, functools.partial(Modulated, latent_size=part))
            for part, inside, outside in zip(
                self.parts[1:], [stages[0], *stages[:-1]], stages, strict=True
            )
        )
        self.norm = nn.BatchNorm2d(stages[-1])
        self.leave = MAKE.conv(stages[-1], channels, 3)

    def forward(self, z: Tensor) -> Tensor:
        """(B, latent_size) to (B, C, H, W)."""
        first, *others = z.split(self.parts, dim=1)
        x = self.enter(first).unflatten(1, (-1, *self.coarsest))
        for block, part in zip(self.blocks, others, strict=True):
            x = block(x, part)
        image: Tensor = self.leave(F.relu(self.norm(x))).tanh()
        return image


class Discriminator(nn.Module):
    """An image to a verdict on it and one on each of its pixels.

    The encoder halves the sides to 4 pixels; the decoder doubles them again, without norms, and
    sees the encoder's map of each size beside its own.

    Args:
        channels: C of the image.
        stages: Channels of what each block of the encoder gives, the finest first.
    """

    def __init__(self, channels: int, stages: list[int]) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            DownBlock(MAKE, inside, outside, first=i == 0)
            for i, (inside, outside) in enumerate(zip([channels, *stages], stages, strict=False))
        )
        self.verdict = MAKE.linear(stages[-1], 1)
        given = [*stages[-2::-1], stages[0]]
        taken = [stages[-1], *(2 * width for width in stages[-2::-1])]
        self.up = nn.ModuleList(
            UpBlock(MAKE, inside, outside, None)
            for inside, outside in zip(taken, given, strict=True)
        )
        self.pixels = MAKE.conv(stages[0], 1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) to (B, 1) and (B, 1, H, W)."""
        maps: list[Tensor] = []
        x = images
        for block in self.down:
            x = block(x)
            maps.append(x)
        verdict = self.verdict(F.relu(maps.pop()).sum((2, 3)))
        for i, block in enumerate(self.up):
            x = block(x if i == 0 else torch.cat([x, maps.pop()], dim=1))
        return verdict, self.pixels(F.relu(x))


class UNetGAN(Gan):
    """Its two networks, and the consistency of the discriminator under CutMix.

    Args:
        channels: C of the images.
        image_size: (H, W).
        latent_size: Numbers of z, one for each block and one more at least.
        width: Channels of the finest map; those of the coarsest are 16 times as many at most.
        cutmix: Share of the images that are mixed; it rises from 0 over the first half of a run.
        consistency: lambda, the weight of the consistency loss.
    """

    adam: ClassVar = {
        "generator": Adam(betas=(0.0, 0.999)),
        "discriminator": Adam(rate=5.0, betas=(0.0, 0.999)),  # 5e-4 beside 1e-4
    }
    uniforms = UNIFORMS

    def __init__(
        self,
        channels: int,
        image_size: tuple[int, ...],
        latent_size: int,
        width: Annotated[int, Field(ge=1)] = 64,
        cutmix: Share = 0.5,
        consistency: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        times, coarsest = halvings(image_size, "unetgan")
        if latent_size <= times:
            raise ConfigError(
                f"gan 'unetgan' shares z out among {times + 1} parts of its generator; method."
                f"latent_size is {latent_size}, expected at least {times + 1}"
            )
        stages = stages_of(width, times)
        super().__init__(
            Generator(channels, latent_size, coarsest, stages),
            Discriminator(channels, stages[::-1]),
        )
        self.cutmix, self.consistency = cutmix, consistency

    def regularisation(
        self,
        discriminate: Discriminate,
        loss: AdversarialLoss,
        real: Tensor,
        fake: Tensor,
        verdicts: tuple[Verdicts, Verdicts],
        uniforms: Tensor,
        progress: float,
    ) -> Tensor:
        """Losses on mixed images, eq. 6 to 8 of the paper, of those that are mixed; 0 of others.

        mix(x, G(z), M) = M x + (1 - M) G(z) is a fake as a whole, and M says which of its pixels
        real; L_cons = |D_dec(mix(x, G(z), M)) - mix(D_dec(x), D_dec(G(z)), M)|^2, a mean over
        pixels.

        NOTE(paper): each image is mixed or not by a draw of its own, where the paper draws for a
        step; the mean is the same, and no image depends on its batch.
        """
        share = self.cutmix * min(progress / RISES_UNTIL, 1.0)
        found = torch.zeros(len(real), device=real.device)
        if not share:
            return found
        weights = (uniforms[:, 0] < share).float()
        # Where none is mixed, one is looked at and weighs nothing: every process of a run calls the
        # discriminator as often, or they would wait for each other.
        chosen = weights.nonzero()[:, 0] if bool(weights.any()) else weights.new_zeros(1).long()
        mask = boxes(uniforms[chosen], (real.shape[2], real.shape[3]))
        whole, pixels = discriminate(mixed(real[chosen], fake[chosen], mask))
        wanted = mixed(verdicts[0][1][chosen], verdicts[1][1][chosen], mask)
        of_pixels = mixed(loss.real(pixels.float()), loss.fake(pixels.float()), mask)
        each = (loss.fake(whole.float()).flatten(1).mean(1) + of_pixels.flatten(1).mean(1)) / 2
        apart = (pixels.float() - wanted.float()).square().flatten(1).mean(1)
        return found.index_put((chosen,), weights[chosen] * (each + self.consistency * apart))


def mixed(real: Tensor, fake: Tensor, mask: Tensor) -> Tensor:
    """M real + (1 - M) fake."""
    return mask * real + (1 - mask) * fake


def boxes(uniforms: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 1, H, W) masks M: 0 inside a box, 1 around it.

    The box takes a share of the image that is uniform over 0 to 1, Beta(1, 1), has the image's
    proportions, and lies wholly in it.

    Args:
        uniforms: (B, 4); the last three are looked at.
        size: (H, W).
    """
    side, place = uniforms[:, 1].sqrt(), uniforms[:, 2:4]
    inside = torch.ones((), dtype=torch.bool, device=uniforms.device)
    for axis, length in enumerate(size):
        extent = (side * length).round()
        start = (place[:, axis] * (length - extent + 1)).floor()
        at = torch.arange(length, device=uniforms.device)
        along = (at >= start[:, None]) & (at < (start + extent)[:, None])
        inside = inside & (along[:, :, None] if axis == 0 else along[:, None, :])
    return (~inside)[:, None].float()
