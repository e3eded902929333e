"""The Inception network of the FID, from NVIDIA's TorchScript file; no torchvision.

The file is that of clean-fid and StyleGAN (a port of TensorFlow's inception-2015-12-05). What the
libraries differ in is the resize to 299 pixels, so it is an option with their names. The features
are the 2,048 after global average pooling; grey images are repeated thrice.
"""

from __future__ import annotations

import hashlib
import os
import urllib.request
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from ssmdiff import ConfigError, DataError, ImageSet
from torch import Tensor

from ssmdiff_metrics.checkpoints import require_hash

URL = (
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
    "inception-2015-12-05.pt"
)
SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
SIDE = 299
Resize = Literal["tf1", "torch", "antialias", "pil-bicubic"]


class Inception:
    """FID's features: 2,048 of the Inception network of 2015.

    Args:
        path: The TorchScript file ``inception-2015-12-05.pt``; by default that in ssmdiff's cache
            folder, if ``download`` fetched it.
        download: Fetch the file (96 MB) if it is not there.
        resize: To 299 pixels, as ``tf1`` (bilinear without half-pixel centres: torch-fidelity, KID
            of torchmetrics), ``torch`` (bilinear: pytorch-fid), ``antialias`` (torchmetrics' FID),
            ``pil-bicubic`` (clean-fid).
        sha256: What the file must hash to, if it is not the published one.
        device: Where the network runs.
    """

    trained_on_reference = False

    def __init__(
        self,
        path: str | None = None,
        download: bool = False,
        resize: Resize = "pil-bicubic",
        sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = SHA256,
        device: str = "cpu",
    ) -> None:
        self.path = Path(path).expanduser() if path else cache_folder() / "inception-2015-12-05.pt"
        self.download, self.resize, self.sha256, self.device = download, resize, sha256, device
        self.network: Any = None

    def fit(self, reference: ImageSet) -> None:
        """Load the file, once its hash is known to be right; nothing is learnt.

        Raises:
            ConfigError: It is not there.
            DataError: It is another file, or has another interface.
        """
        if not self.path.is_file():
            if not self.download:
                raise ConfigError(
                    f"features 'inception' need the file {self.path}, which is not there. Fetch it "
                    f"from {URL} and give features.path, or set features.download = true; features "
                    "texture, contrastive and pixels need no download"
                )
            fetch(URL, self.path, self.sha256)
        require_hash(self.path, self.sha256)
        try:
            network = torch.jit.load(self.path, map_location=self.device)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise DataError(f"{self.path} is no TorchScript file: {error}") from error
        if not hasattr(network, "layers"):
            raise DataError(f"{self.path} has no 'layers'; expected the Inception network of {URL}")
        self.network = network.eval()

    @torch.inference_mode()
    def __call__(self, levels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, 1 or 3, H, W) to (B, 2048)."""
        if self.network is None:
            raise ConfigError("features 'inception' have no weights yet; call fit first")
        if levels.shape[1] not in (1, 3):
            raise ConfigError(
                f"features 'inception' see 1 or 3 channels; the images have {levels.shape[1]}"
            )
        rgb = levels if levels.shape[1] == 3 else levels.repeat(3, axis=1)
        x = resized(rgb, self.resize).to(self.device)
        # The resize inside of the file is left out: `layers` alone, on what it is given there.
        features = self.network.layers((x - 128) / 128)
        found: NDArray[np.float32] = features.reshape(len(levels), -1).float().cpu().numpy()
        if found.shape[1] != 2048:
            raise DataError(f"{self.path} gave {found.shape[1]} features an image; expected 2048")
        return found

    def digest(self) -> str:
        return hashlib.sha256(f"inception {self.sha256} {self.resize}".encode()).hexdigest()


def resized(levels: NDArray[np.uint8], method: Resize, side: int = SIDE) -> Tensor:
    """(B, C, H, W) levels to float32 of ``side`` x ``side``, 0 to 255, by a library's way."""
    if method == "pil-bicubic":
        scaled = [[_bicubic(plane, side) for plane in image] for image in levels]
        return torch.from_numpy(np.array(scaled).clip(0, 255))
    x = torch.from_numpy(levels.astype(np.float32))
    if method == "tf1":
        return _tf1_bilinear(x, side)
    return F.interpolate(
        x, (side, side), mode="bilinear", align_corners=False, antialias=method == "antialias"
    )


def _bicubic(plane: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    image = Image.fromarray(plane.astype(np.float32))  # its mode is F
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), np.float32)


def _tf1_bilinear(x: Tensor, side: int) -> Tensor:
    """Bilinear as TensorFlow 1 had it: output pixel i looks at i times the scale, no half pixel."""
    for axis in (2, 3):
        size = x.shape[axis]
        place = torch.arange(side, dtype=torch.float32) * (size / side)
        low = place.floor().long().clamp(max=size - 1)
        high = (low + 1).clamp(max=size - 1)
        share = (place - low).reshape([-1 if a == axis else 1 for a in range(4)])
        x = x.index_select(axis, low) * (1 - share) + x.index_select(axis, high) * share
    return x


def cache_folder() -> Path:
    """``$SSMDIFF_CACHE``, or ``ssmdiff`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SSMDIFF_CACHE") or Path(base) / "ssmdiff")


def fetch(url: str, path: Path, sha256: str) -> None:
    """Download a file beside its place, hold it against its hash, and move it there.

    Raises:
        DataError: It cannot be had, or is another file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with urllib.request.urlopen(url, timeout=60) as source, part.open("wb") as target:
            while chunk := source.read(1 << 20):
                target.write(chunk)
        require_hash(part, sha256)
        part.replace(path)
    except OSError as error:
        raise DataError(f"cannot download {url}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
