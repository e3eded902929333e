"""A ResNet-50 trained on 1.35 million radiological images (RadImageNet), by MONAI's network.

The file is the PyTorch one of github.com/BMEII-AI/RadImageNet: the first nine children of a
ResNet-50 in a row, so that its keys begin with ``backbone.0`` to ``backbone.7``. It is asked for
with its hash, as no hash of it is published. Another file goes by the same name, converted from
Keras: its convolutions have biases and its strides stand elsewhere, and a loader that is not strict
takes it without a word. Here every key and shape is held against ``radimagenet_resnet50.json``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from ssmdiff import ConfigError, DataError, ImageSet
from torch import nn

from ssmdiff_metrics.checkpoints import require_grey_or_colour, require_hash, require_keys

SIDE = 224
_NAMES = {0: "conv1", 1: "bn1", 4: "layer1", 5: "layer2", 6: "layer3", 7: "layer4"}
"""What the children of the row are called in MONAI's ResNet."""


class RadImageNet:
    """2,048 features of the ResNet-50 of RadImageNet, after global average pooling.

    Images are scaled to -1 to 1 and to 224 pixels (bilinear, half-pixel centres, no antialias) with
    channels in the order blue, green, red, as its authors read them by OpenCV; grey is repeated.

    Args:
        path: The file, a state dict saved by torch.
        sha256: What it must hash to; it is not opened otherwise.
        device: Where the network runs.
    """

    trained_on_reference = False

    def __init__(
        self,
        path: str,
        sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")],
        device: str = "cpu",
    ) -> None:
        self.path, self.sha256, self.device = Path(path).expanduser(), sha256, device
        self.network: nn.Module | None = None

    def fit(self, reference: ImageSet) -> None:
        """Load the file, once its hash is known to be right; nothing is learnt.

        Raises:
            ConfigError: It is not there, or MONAI is not.
            DataError: It is another file, or holds another network.
        """
        if not self.path.is_file():
            raise ConfigError(
                f"features 'radimagenet' need the file {self.path}, which is not there. Its "
                "authors give it at github.com/BMEII-AI/RadImageNet"
            )
        require_hash(self.path, self.sha256)
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # pickle's own errors are of many kinds
            raise DataError(f"{self.path} is no state dict that torch can read: {error}") from error
        require_keys(
            state,
            "radimagenet_resnet50.json",
            f"{self.path} is not the ResNet-50 of RadImageNet, of its authors' PyTorch file",
        )
        network = resnet50()
        network.load_state_dict({renamed(k): v for k, v in state.items()}, strict=True)
        self.network = network.eval().to(self.device)

    @torch.inference_mode()
    def __call__(self, levels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, 1 or 3, H, W) to (B, 2048)."""
        if self.network is None:
            raise ConfigError("features 'radimagenet' have no weights yet; call fit first")
        require_grey_or_colour(levels, "radimagenet")
        x = torch.from_numpy(levels.astype(np.float32)).to(self.device)
        bgr = x.flip(1) if x.shape[1] == 3 else x.expand(-1, 3, -1, -1)
        scaled = F.interpolate(
            (bgr - 127.5) * 2 / 255, (SIDE, SIDE), mode="bilinear", align_corners=False
        )
        found: NDArray[np.float32] = self.network(scaled).float().cpu().numpy()
        return found

    def digest(self) -> str:
        return hashlib.sha256(f"radimagenet-1 {self.sha256}".encode()).hexdigest()


def resnet50() -> nn.Module:
    """MONAI's ResNet-50 of two dimensions without a head: strides in the 3 x 3 convolutions, no
    biases, which are those of the file.

    Raises:
        ConfigError: MONAI is not installed.
    """
    try:
        from monai.networks.nets.resnet import ResNet
    except ImportError as error:
        raise ConfigError(
            "features 'radimagenet' are computed by MONAI's ResNet; install it: pip install monai"
        ) from error
    network: nn.Module = ResNet(
        "bottleneck",
        [3, 4, 6, 3],
        [64, 128, 256, 512],
        spatial_dims=2,
        n_input_channels=3,
        conv1_t_stride=2,
        feed_forward=False,
        bias_downsample=False,
    )
    return network


def renamed(key: str) -> str:
    """``backbone.4.0.conv1.weight`` to ``layer1.0.conv1.weight``."""
    _, child, rest = key.split(".", 2)
    return f"{_NAMES[int(child)]}.{rest}"
