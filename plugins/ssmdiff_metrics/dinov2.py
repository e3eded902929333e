"""DINOv2, ViT-L/14, by transformers: what recent papers measure Frechet distances by beside FID.

The file is ``model.safetensors`` of huggingface.co/facebook/dinov2-large, asked for with its hash.
Its keys and shapes are held against ``dinov2_large.json``. The features are the 1,024 of the class
token after the last layer norm, as dgm-eval takes them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from ssmdiff import ConfigError, DataError, ImageSet
from torch import Tensor, nn

from ssmdiff_metrics.checkpoints import require_grey_or_colour, require_hash, require_keys
from ssmdiff_metrics.inception import Resize, resized

SIDE = 224
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, 0 to 1
_SINCE_5 = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}
"""What transformers 5 calls what the file, and transformers 4, call otherwise."""


class Dinov2:
    """1,024 features of DINOv2's large network.

    Args:
        path: ``model.safetensors`` of facebook/dinov2-large.
        sha256: What it must hash to; it is not opened otherwise.
        resize: To 224 pixels, by the names of ``inception``.
        device: Where the network runs.
    """

    trained_on_reference = False

    def __init__(
        self,
        path: str,
        sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")],
        resize: Resize = "pil-bicubic",
        device: str = "cpu",
    ) -> None:
        self.path, self.sha256 = Path(path).expanduser(), sha256
        self.resize, self.device = resize, device
        self.network: Any = None

    def fit(self, reference: ImageSet) -> None:
        """Load the file, once its hash is known to be right; nothing is learnt.

        Raises:
            ConfigError: It is not there, or transformers is not.
            DataError: It is another file, or holds another network.
        """
        if not self.path.is_file():
            raise ConfigError(
                f"features 'dinov2' need the file {self.path}, which is not there. It is "
                "model.safetensors of huggingface.co/facebook/dinov2-large, 1.2 GB"
            )
        require_hash(self.path, self.sha256)
        try:
            state = load_file(self.path)
        except SafetensorError as error:
            raise DataError(f"{self.path} is no safetensors file: {error}") from error
        require_keys(state, "dinov2_large.json", f"{self.path} is not DINOv2's large network")
        network = vit_large()
        network.load_state_dict(renamed(state, network), strict=True)
        self.network = network.eval().to(self.device)

    @torch.inference_mode()
    def __call__(self, levels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, 1 or 3, H, W) to (B, 1024)."""
        if self.network is None:
            raise ConfigError("features 'dinov2' have no weights yet; call fit first")
        require_grey_or_colour(levels, "dinov2")
        x = resized(levels, self.resize, SIDE).expand(-1, 3, -1, -1) / 255
        mean, deviation = (torch.tensor(v).reshape(3, 1, 1) for v in (_MEAN, _DEVIATION))
        pixels = ((x - mean) / deviation).to(self.device)
        # The last layer norm is in `last_hidden_state`; token 0 is the class.
        tokens: Tensor = self.network(pixel_values=pixels).last_hidden_state
        found: NDArray[np.float32] = tokens[:, 0].float().cpu().numpy()
        return found

    def digest(self) -> str:
        return hashlib.sha256(f"dinov2-1 {self.sha256} {self.resize}".encode()).hexdigest()


def vit_large() -> nn.Module:
    """The network of facebook/dinov2-large.

    Raises:
        ConfigError: transformers is not installed.
    """
    try:
        from transformers import Dinov2Config, Dinov2Model
    except ImportError as error:
        raise ConfigError(
            "features 'dinov2' are computed by transformers; install it: pip install transformers"
        ) from error
    network: nn.Module = Dinov2Model(
        Dinov2Config(
            hidden_size=1024,
            num_hidden_layers=24,
            num_attention_heads=16,
            patch_size=14,
            image_size=518,
            mlp_ratio=4,
            layer_norm_eps=1e-6,
        )
    )
    return network


def renamed(state: dict[str, Any], network: nn.Module) -> dict[str, Any]:
    """The tensors of the file by the names of the installed transformers."""
    if "encoder.layer.0.attention.q_proj.weight" not in network.state_dict():
        return state
    found = {}
    for key, tensor in state.items():
        for before, since in _SINCE_5.items():
            key = key.replace(before, since)
        found[key] = tensor
    return found
