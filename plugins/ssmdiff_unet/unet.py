"""DDPM's UNet: ResNet blocks, self-attention at some sizes, time added in each block.

The network is ``UNet2DModel`` of the diffusers library with the settings of Ho et al.'s published
ones: sines before cosines, asymmetric padding where an image is halved, one head of attention.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from diffusers import UNet2DModel
from pydantic import Field
from ssmdiff import BlockFactory, ConfigError, Grid, Scan, ScanSlot
from ssmdiff.nn import ContextEmbedding, ImageBackbone, is_transformed, largest_divisor, zeroed
from torch import Tensor, nn


class _Untouched(nn.Module):
    """The timesteps and what is told as they are: the library embeds them."""

    def forward(self, timesteps: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return timesteps, context


class DDPMUNet(ImageBackbone):
    """A denoiser of images without a state space model: the network of the paper's DDPM row.

    With n = len(widths) stages the image is halved n - 1 times. A stage has ``layers`` ResNet
    blocks on the way down, one more on the way up, and attention after each of them if it is
    listed; the bottleneck always has attention.

    Args:
        in_channels: Channels of the image, and of what is told in places.
        out_channels: Channels of the image.
        scan: Not used.
        block: Not used.
        context_channels: Numbers that are told of an image; 0 for none.
        channels: C.
        widths: Channels of each stage over C.
        layers: ResNet blocks of each stage.
        attention: The stages that have attention, the first is 0: for (1,) at half the image's
            side.
        dropout: Probability in the ResNet blocks.

    Raises:
        ConfigError: There is no such stage.
    """

    name = "unet"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        scan: Scan,
        block: BlockFactory,
        context_channels: int = 0,
        channels: Annotated[int, Field(ge=4, multiple_of=4)] = 128,
        widths: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (
            1,
            2,
            2,
            2,
        ),
        layers: Annotated[int, Field(ge=1)] = 2,
        attention: tuple[Annotated[int, Field(ge=0)], ...] = (1,),
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__(in_channels, out_channels, scan, context_channels, channels, channels)
        self.embedding = _Untouched()  # type: ignore[assignment]
        self.stages = len(widths)
        if strange := [stage for stage in attention if stage >= self.stages]:
            raise ConfigError(
                f"model.backbone.attention: there is no stage {strange[0]}; widths "
                f"{list(widths)} make the stages 0 to {self.stages - 1}"
            )
        kinds = ["Attn" * (stage in attention) for stage in range(self.stages)]
        with _silenced("diffusers.models.unets.unet_2d_blocks"):  # one head is what is wanted
            self.unet = UNet2DModel(
                in_channels=in_channels,
                out_channels=out_channels,
                block_out_channels=tuple(channels * width for width in widths),
                down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
                up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
                layers_per_block=layers,
                attention_head_dim=None,
                norm_num_groups=largest_divisor(channels, min(32, channels // 4)),
                norm_eps=1e-6,
                downsample_padding=0,
                flip_sin_to_cos=False,
                freq_shift=1,
                dropout=dropout,
                num_class_embeds=context_channels or None,
            )
        if context_channels:  # the library looks one row up; several numbers are told here
            told = ContextEmbedding(context_channels, 4 * channels)
            told.weight = self.unet.class_embedding.weight
            self.unet.class_embedding = told
        # NOTE(paper): Ho et al. start the last convolution and those that end a block at zero; the
        # library none. The last one is, here: a network starts by predicting 0.
        zeroed(self.unet.conv_out)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        orders: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """The prediction, (B, C, H, W); see :class:`ssmdiff.Backbone`.

        Raises:
            ConfigError: An image size that the halvings do not divide, or a context that does not
                fit the model.
        """
        embedded: Any = self.start(x, timesteps, context, orders)[0]
        timesteps, context = embedded
        recompute = self.activation_checkpointing and not is_transformed()
        if recompute != self.unet.is_gradient_checkpointing:
            switch = ("disable", "enable")[recompute]
            getattr(self.unet, f"{switch}_gradient_checkpointing")()
        prediction: Tensor
        (prediction,) = self.unet(x, timesteps, context, return_dict=False)
        return prediction

    def scan_slots(self, image_size: Grid) -> list[ScanSlot]:
        """None.

        Raises:
            ConfigError: The halvings do not divide the image size.
        """
        self.check_sides(
            image_size, 2 ** (self.stages - 1), f"{self.stages - 1} halvings", "fewer 'widths'"
        )
        return []


@contextmanager
def _silenced(name: str) -> Iterator[None]:
    """Without the warnings of a logger."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
