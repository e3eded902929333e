"""A small classifier: MONAI's DenseNet, trained from nothing for a fixed number of steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from ssmdiff import ConfigError, stream, stream_seed
from torch import Tensor, nn

RECIPE = "DenseNet 16 + 12 (4, 4, 4), AdamW 3e-3 one cycle, batches of 32, shifts of a sixteenth"
"""What decides a training besides images, seed and options."""
BATCH, RATE = 32, 3e-3
_TESTED = 256  # of a call


def densenet(channels: int, classes: int) -> nn.Module:
    """Three dense blocks of four layers, a twelfth part of DenseNet-121's width.

    Raises:
        ConfigError: MONAI is not installed.
    """
    try:
        from monai.networks.nets.densenet import DenseNet
    except ImportError as error:
        raise ConfigError(
            "metric 'classifier' trains MONAI's DenseNet; install it: pip install "
            "'ssmdiff[evaluate]'"
        ) from error
    network: nn.Module = DenseNet(
        2, channels, classes, init_features=16, growth_rate=12, block_config=(4, 4, 4)
    )
    return network


def answers(
    levels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    test: NDArray[np.uint8],
    classes: int,
    steps: int,
    seed: tuple[int, int],
    flips: bool,
    device: str,
    on_step: Callable[[], None] = lambda: None,
) -> NDArray[np.float32]:
    """(H, classes) probabilities of the test images, by a classifier trained on the others.

    A function of its arguments alone, on one machine: weights, batches and shifts are drawn from
    the seed, and the number of training. ``on_step`` is called after each step.
    """
    first, number = seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(first, "classifier weights", number))
        network = densenet(levels.shape[1], classes).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps) if steps > 1 else None
    targets = torch.from_numpy(labels)
    network.train()
    for step in range(steps):
        generator = stream(first, "classifier batch", number, step)
        chosen = generator.permutation(len(levels))[:BATCH]
        x = moved(_unit(levels[chosen]), generator, flips).to(device)
        loss = F.cross_entropy(network(x), targets[chosen].to(device))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if schedule is not None:
            schedule.step()
        on_step()
    network.eval()
    with torch.inference_mode():
        parts = [
            network(_unit(test[start : start + _TESTED]).to(device)).softmax(dim=1).cpu()
            for start in range(0, len(test), _TESTED)
        ]
    found: NDArray[np.float32] = torch.cat(parts).numpy()
    return found


def _unit(levels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(levels.astype(np.float32)).div_(127.5).sub_(1)


def moved(x: Tensor, generator: np.random.Generator, flips: bool = True) -> Tensor:
    """Each image flipped left to right or not, all shifted by up to a sixteenth of a side."""
    if flips:
        flipped = torch.from_numpy(generator.random(len(x)) < 0.5)
        x = torch.where(flipped[:, None, None, None], x.flip(3), x)
    height, width = x.shape[2:]
    reach = max(1, min(height, width) // 16)
    down, right = (int(generator.integers(-reach, reach + 1)) for _ in range(2))
    padded = F.pad(x, [reach] * 4, mode="replicate")
    return padded[:, :, reach + down : reach + down + height, reach + right : reach + right + width]
