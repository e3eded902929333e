"""What blocks and backbones are built from, for authors of networks."""

from ssmdiff.networks.backbone import ImageBackbone, TimeEmbedding, checkpoint_activations
from ssmdiff.networks.layers import (
    MLP,
    Fuse,
    KeepFloat32,
    ResidualBlock,
    TimedNorm,
    channels_last,
    grid_angles,
    init_A_log,
    init_delta_bias,
    largest_divisor,
    to_map,
    to_tokens,
    zeroed,
)

__all__ = [
    "MLP",
    "Fuse",
    "ImageBackbone",
    "KeepFloat32",
    "ResidualBlock",
    "TimeEmbedding",
    "TimedNorm",
    "channels_last",
    "checkpoint_activations",
    "grid_angles",
    "init_A_log",
    "init_delta_bias",
    "largest_divisor",
    "to_map",
    "to_tokens",
    "zeroed",
]
