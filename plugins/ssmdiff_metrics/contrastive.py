"""Features of a network trained on the reference itself, to tell one image from another.

Dar et al. (arXiv 2402.01054): an encoder learns by NT-Xent (temperature 0.07) that views of one
image belong together and those of others do not, so that correlation of its features finds copies
of a training image. It needs no download, and half a minute for the built-in heads on two cores.
"""

from __future__ import annotations

import hashlib
import math
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from ssmdiff import ConfigError, ImageSet, Seed, stream, stream_seed
from torch import Tensor, nn

from ssmdiff_metrics.classifying import moved
from ssmdiff_metrics.fitting import require_channels, require_images

VERSION = "contrastive-2"
TEMPERATURE = 0.07
BATCH = 128


class Encoder(nn.Module):
    """Four halvings by strided convolutions, the mean over what is left, two linear layers with
    batch norms.

    Args:
        channels: Of the image.
        width: Of the first layer; doubled at each halving but the last.
        size: d of the features.
    """

    def __init__(self, channels: int, width: int, size: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 4 * width]
        layers: list[nn.Module] = []
        before = channels
        for out in widths:
            layers += [
                nn.Conv2d(before, out, 3, stride=2, padding=1, bias=False),
                nn.GroupNorm(math.gcd(out // 8, out), out),
                nn.SiLU(),
                nn.Conv2d(out, out, 3, padding=1, bias=False),
                nn.GroupNorm(math.gcd(out // 8, out), out),
                nn.SiLU(),
            ]
            before = out
        self.features = nn.Sequential(*layers)
        # Images of one kind are nearly one vector at first, and stay on a line or two without the
        # normalisation over the batch: of 64 features two were used.
        self.project = nn.Sequential(
            nn.Linear(before, 2 * size),
            nn.BatchNorm1d(2 * size),
            nn.SiLU(),
            nn.Linear(2 * size, size),
            nn.BatchNorm1d(size, affine=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in -1 to 1 to (B, d) of length 1."""
        h = self.features(x.contiguous(memory_format=torch.channels_last))
        return F.normalize(self.project(h.mean(dim=(2, 3))), dim=1)


class Contrastive:
    """Vectors in which two images are near if they are views of one: flipped, shifted, brightened.

    Args:
        steps: Optimiser steps of 128 images, each seen in two views.
        size: d.
        width: Channels of the first layer.
        seed: Of the weights, the batches and the views.
    """

    trained_on_reference = True

    def __init__(
        self,
        steps: Annotated[int, Field(ge=1, le=100_000)] = 300,
        size: Annotated[int, Field(ge=8, le=1024)] = 64,
        width: Annotated[int, Field(ge=8, le=256)] = 16,
        seed: Seed = 0,
    ) -> None:
        self.steps, self.size, self.width, self.seed = steps, size, width, seed
        self.encoder: Encoder | None = None
        self.channels = 0

    def fit(self, reference: ImageSet) -> None:
        """Train the encoder; a function of the reference and the options alone."""
        require_images(reference, "contrastive")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(self.seed, "contrastive weights"))
            encoder = Encoder(reference.shape[0], self.width, self.size)
        encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimiser = torch.optim.AdamW(encoder.parameters(), lr=2e-3, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, self.steps)
        batch = min(BATCH, len(reference))
        for step in range(self.steps):
            generator = stream(self.seed, "contrastive batch", step)
            indices = generator.permutation(len(reference))[:batch].tolist()
            x = _unit(reference.levels(indices))
            loss = nt_xent(encoder(_view(x, generator)), encoder(_view(x, generator)))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        self.encoder, self.channels = encoder.eval(), reference.shape[0]

    @torch.inference_mode()
    def __call__(self, levels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, C, H, W) to (B, d) of length 1."""
        if self.encoder is None:
            raise ConfigError("contrastive features are learnt from a reference; call fit first")
        require_channels(levels, self.channels, "contrastive")
        found: NDArray[np.float32] = self.encoder(_unit(levels)).numpy()
        return found

    def digest(self) -> str:
        known = hashlib.sha256(f"{VERSION} {self.size} {self.width}".encode())
        for name, value in (self.encoder.state_dict() if self.encoder else {}).items():
            known.update(name.encode() + value.numpy().tobytes())
        return known.hexdigest()

    def state(self) -> dict[str, Tensor]:
        """The weights, to be kept: what was trained once need not be trained again."""
        return dict(self.encoder.state_dict()) if self.encoder else {}

    def restore(self, state: dict[str, Tensor], channels: int) -> None:
        """Take weights that :meth:`state` gave."""
        encoder = Encoder(channels, self.width, self.size)
        encoder.load_state_dict(state)
        self.channels = channels
        self.encoder = encoder.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def nt_xent(first: Tensor, second: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """NT-Xent (Chen et al. 2020, eq. 1) of two views, (B, d) of length 1 each: mean over 2 B."""
    batch = len(first)
    both = torch.cat([first, second])
    alike = both @ both.T / temperature
    alike.fill_diagonal_(-torch.inf)
    partner = torch.arange(2 * batch).roll(batch)
    return F.cross_entropy(alike, partner)


def _unit(levels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(levels.astype(np.float32)).div_(127.5).sub_(1)


def _view(x: Tensor, generator: np.random.Generator) -> Tensor:
    """Each image flipped or not, shifted by up to a sixteenth, brighter or darker, with noise."""
    batch = len(x)
    x = moved(x, generator)
    gain = torch.from_numpy(generator.uniform(0.9, 1.1, batch).astype(np.float32))
    offset = torch.from_numpy(generator.uniform(-0.1, 0.1, batch).astype(np.float32))
    noise = torch.from_numpy(generator.standard_normal(tuple(x.shape), np.float32))
    return x * gain[:, None, None, None] + offset[:, None, None, None] + 0.03 * noise
