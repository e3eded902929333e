"""What blocks and backbones are built from, for authors of networks."""

from ssmdiff.networks.backbone import (
    ContextEmbedding,
    ImageBackbone,
    TimeEmbedding,
    orders_of,
    recompute_activations,
)
from ssmdiff.networks.layers import (
    MLP,
    Fuse,
    ResidualBlock,
    TimedNorm,
    channels_last,
    grid_angles,
    largest_divisor,
    to_map,
    to_tokens,
    zeroed,
)
from ssmdiff.networks.replacing import replaceable, replacing
from ssmdiff.networks.selective import SelectiveParameters
from ssmdiff.ops.derivatives import is_transformed

__all__ = [
    "MLP",
    "ContextEmbedding",
    "Fuse",
    "ImageBackbone",
    "ResidualBlock",
    "SelectiveParameters",
    "TimeEmbedding",
    "TimedNorm",
    "channels_last",
    "grid_angles",
    "is_transformed",
    "largest_divisor",
    "orders_of",
    "recompute_activations",
    "replaceable",
    "replacing",
    "to_map",
    "to_tokens",
    "zeroed",
]
