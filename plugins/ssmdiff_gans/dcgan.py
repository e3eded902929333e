"""DCGAN (Radford et al.): strided convolutions with batch norm, and nothing else.

Figure 1 of the paper is ``width = 128`` at 64 pixels; 64, the default, is the width of PyTorch's
example. Larger images take a stage more on either side.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from ssmdiff import Adam, Gan
from torch import Tensor, nn

from ssmdiff_gans.layers import halvings, stages_of

SLOPE = 0.2  # of LeakyReLU
SPREAD = 0.02  # of weights at first
KERNEL = 4


class Generator(nn.Module):
    """z to an image: transposed 4x4 convolutions, batch norm and ReLU between them, tanh last.

    Args:
        channels: C of the image.
        latent_size: Numbers of z.
        coarsest: (h, w) of the first map.
        stages: Channels of each map, the coarsest first.
    """

    def __init__(
        self, channels: int, latent_size: int, coarsest: tuple[int, int], stages: list[int]
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(latent_size, stages[0], coarsest, bias=False),
            nn.BatchNorm2d(stages[0]),
            nn.ReLU(),
        ]
        for inside, outside in zip(stages, [*stages[1:], channels], strict=True):
            layers.append(nn.ConvTranspose2d(inside, outside, KERNEL, 2, 1, bias=False))
            layers += [nn.BatchNorm2d(outside), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-2], nn.Tanh())
        self.apply(_begin)

    def forward(self, z: Tensor) -> Tensor:
        """(B, latent_size) to (B, C, H, W)."""
        images: Tensor = self.layers(z[:, :, None, None])
        return images


class Discriminator(nn.Module):
    """An image to one verdict: 4x4 convolutions of stride 2, batch norm but in the first, and
    LeakyReLU.

    Args:
        channels: C of the image.
        coarsest: (h, w) of the last map.
        stages: Channels of each map, the finest first.
    """

    def __init__(self, channels: int, coarsest: tuple[int, int], stages: list[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (inside, outside) in enumerate(zip([channels, *stages], stages, strict=False)):
            layers.append(nn.Conv2d(inside, outside, KERNEL, 2, 1, bias=False))
            if i:
                layers.append(nn.BatchNorm2d(outside))
            layers.append(nn.LeakyReLU(SLOPE))
        self.layers = nn.Sequential(*layers, nn.Conv2d(stages[-1], 1, coarsest, bias=False))
        self.apply(_begin)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 1)."""
        verdicts: Tensor = self.layers(images)
        return verdicts.flatten(1)


def _begin(module: nn.Module) -> None:
    """Weights N(0, 0.02), gains N(1, 0.02)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, SPREAD)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, SPREAD)


class DCGAN(Gan):
    """Its two networks.

    Args:
        channels: C of the images.
        image_size: (H, W).
        latent_size: Numbers of z.
        width: Channels of the finest map; those of the coarsest are 16 times as many at most.
    """

    adam: ClassVar = dict.fromkeys(("generator", "discriminator"), Adam(betas=(0.5, 0.999)))

    def __init__(
        self,
        channels: int,
        image_size: tuple[int, ...],
        latent_size: int,
        width: Annotated[int, Field(ge=1)] = 64,
    ) -> None:
        times, coarsest = halvings(image_size, "dcgan")
        stages = stages_of(width, times)
        super().__init__(
            Generator(channels, latent_size, coarsest, stages),
            Discriminator(channels, coarsest, stages[::-1]),
        )
