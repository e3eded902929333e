"""Readers of the built-in heads: what a picture of a head shows, by small networks.

    python benchmarks/head_readers.py       # trains both, says how well they read real heads

One reads the tissue of each pixel, the other size, angle and findings. They are trained on heads of
another seed than any model is, with a little noise, and held against heads that neither they nor
any model saw. What they say of real heads stands beside everything that they say of drawn ones:
benchmarks/conditions.py.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ssmdiff
import torch
from numpy.typing import NDArray
from ssmdiff_data.phantom import PhantomDataset
from ssmdiff_metrics.use import auc
from torch import Tensor, nn
from torch.nn import functional

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "runs/conditions/readers.pt"
SIDE = 32
SEED = 20_000  # no model is trained on heads of this seed
HEADS, BATCH = 8192, 32
STEPS = {"mask": 2000, "values": 3000}
NOISE = 0.02  # standard deviation, of images in -1 to 1
NUMBERS = ("size", "angle")
CONDITIONS = {one.name: one for one in PhantomDataset.conditions}
TISSUES = CONDITIONS["mask"].names
FINDINGS = CONDITIONS["findings"].names


def convolution(inner: int, outer: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()
    )


class MaskReader(nn.Module):
    """(B, 1, H, W) -> (B, tissues, H, W): a UNet of three levels (Ronneberger et al., 2015)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        w = width
        self.down = nn.ModuleList(
            [
                nn.Sequential(convolution(1, w), convolution(w, w)),
                nn.Sequential(convolution(w, 2 * w, 2), convolution(2 * w, 2 * w)),
                nn.Sequential(convolution(2 * w, 2 * w, 2), convolution(2 * w, 2 * w)),
            ]
        )
        self.up = nn.ModuleList([convolution(4 * w, 2 * w), convolution(3 * w, w)])
        self.out = nn.Conv2d(w, len(TISSUES), 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for level in self.down:
            x = level(x)
            kept.append(x)
        for level, beside in zip(self.up, kept[1::-1], strict=True):
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = level(torch.cat([x, beside], 1))
        logits: Tensor = self.out(x)
        return logits


class ValueReader(nn.Module):
    """(B, 1, H, W) -> (B, numbers + findings): numbers on -1 to 1, then logits."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        w = width
        self.features = nn.Sequential(
            convolution(1, w),
            convolution(w, 2 * w, 2),
            convolution(2 * w, 2 * w),
            convolution(2 * w, 4 * w, 2),
            convolution(4 * w, 4 * w),
            convolution(4 * w, 4 * w, 2),
            nn.Flatten(),
        )
        inner = 4 * w * (SIDE // 8) ** 2
        self.out = nn.Sequential(
            nn.Linear(inner, 128), nn.ReLU(), nn.Linear(128, len(NUMBERS) + len(FINDINGS))
        )

    def forward(self, x: Tensor) -> Tensor:
        values: Tensor = self.out(self.features(x))
        return values


def on_range(name: str, values: Any) -> Any:
    """A number of a head on -1 to 1."""
    one = CONDITIONS[name]
    return 2 * (values - one.low) / (one.high - one.low) - 1


def off_range(name: str, values: Any) -> Any:
    one = CONDITIONS[name]
    return (values + 1) / 2 * (one.high - one.low) + one.low


def told_numbers(told: Any) -> list[float]:
    """Numbers on -1 to 1, and each finding as 0 or 1."""
    bits = [float(i in told["findings"]) for i in range(len(FINDINGS))]
    return [*(on_range(name, told[name]) for name in NUMBERS), *bits]


def heads(seed: int, count: int, kind: str, first: int = 0) -> tuple[Tensor, Tensor]:
    """(N, 1, H, W) images; masks (N, H, W) or numbers (N, numbers + findings)."""
    data = PhantomDataset((SIDE, SIDE), length=first + count, seed=seed)
    items = [data[i] for i in range(first, first + count)]
    images = torch.stack([item.image for item in items])
    if kind == "mask":
        return images, torch.stack([item.told["mask"] for item in items]).long()
    return images, torch.tensor([told_numbers(item.told) for item in items])


def mask_loss(answer: Tensor, target: Tensor) -> Tensor:
    """Cross entropy, and what the soft Dice of the tissues lacks (Milletari et al., 2016)."""
    there = functional.one_hot(target, len(TISSUES)).movedim(-1, 1)
    read = answer.softmax(1)
    both, all_of_it = (read * there).sum((0, 2, 3)), (read + there).sum((0, 2, 3))
    lacking = 1 - (2 * both / (all_of_it + 1)).mean()
    return functional.cross_entropy(answer, target) + lacking


def value_loss(answer: Tensor, target: Tensor) -> Tensor:
    count = len(NUMBERS)
    numbers = functional.mse_loss(answer[:, :count], target[:, :count])
    return numbers + functional.binary_cross_entropy_with_logits(
        answer[:, count:], target[:, count:]
    )


READERS: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor, Tensor], Tensor]]] = {
    "mask": (MaskReader, mask_loss),
    "values": (ValueReader, value_loss),
}


def trained(kind: str) -> tuple[nn.Module, float]:
    """A reader and the seconds of the processor that it took; a function of the seeds alone."""
    make, loss_of = READERS[kind]
    begin = time.process_time()
    images, targets = heads(SEED, HEADS, kind)
    torch.manual_seed(0)
    network = make().train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    steps = STEPS[kind]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, steps)
    for step in range(steps):
        generator = ssmdiff.stream(SEED, f"reader of {kind}", step)
        chosen = torch.from_numpy(generator.integers(0, HEADS, BATCH))
        noise = generator.standard_normal((BATCH, 1, SIDE, SIDE)).astype(np.float32)
        size = NOISE * generator.random()
        x, target = images[chosen] + size * torch.from_numpy(noise), targets[chosen]
        if kind == "mask" and generator.random() < 0.5:
            x, target = x.flip(-1), target.flip(-1)
        loss = loss_of(network(x.to(memory_format=torch.channels_last)), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval(), time.process_time() - begin


class Readers:
    """Both readers, from the disk if they are there."""

    def __init__(self, kept: Path = KEPT) -> None:
        self.seconds: dict[str, float] = {}
        found = torch.load(kept, weights_only=True) if kept.is_file() else {}
        self.networks: dict[str, nn.Module] = {}
        for kind, (make, _) in READERS.items():
            if kind not in found:
                network, seconds = trained(kind)
                found[kind] = {"state": network.state_dict(), "seconds": seconds}
            self.networks[kind] = make()
            self.networks[kind].load_state_dict(found[kind]["state"])
            self.networks[kind].eval()
            self.seconds[kind] = round(found[kind]["seconds"], 1)
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save(found, kept)

    @torch.inference_mode()
    def _read(self, kind: str, images: Tensor) -> Tensor:
        return torch.cat([self.networks[kind](part) for part in images.split(64)])

    def masks(self, images: Tensor) -> NDArray[np.int64]:
        """(N, H, W) of (N, 1, H, W)."""
        found: NDArray[np.int64] = self._read("mask", images).argmax(1).numpy()
        return found

    def numbers(self, images: Tensor) -> dict[str, NDArray[np.float64]]:
        """(N,) each."""
        read = self._read("values", images).double().numpy()
        return {name: off_range(name, read[:, i]) for i, name in enumerate(NUMBERS)}

    def scores(self, images: Tensor) -> NDArray[np.float64]:
        """(N, findings): logits of each."""
        return self._read("values", images)[:, len(NUMBERS) :].double().numpy()

    def findings(self, images: Tensor) -> NDArray[np.bool_]:
        """(N, findings): whether each is there."""
        found: NDArray[np.bool_] = self.scores(images) > 0
        return found


def dice(read: NDArray[np.integer], given: NDArray[np.integer]) -> dict[str, float]:
    """2 |A and B| / (|A| + |B|) of each tissue over the pixels of all images, and their mean."""
    found = {}
    for number, name in enumerate(TISSUES):
        a, b = read == number, given == number
        if (total := int(a.sum() + b.sum())) > 0:
            found[name] = round(2 * int((a & b).sum()) / total, 4)
    return {"mean": round(float(np.mean(list(found.values()))), 4), **found}


def correlations(
    read: dict[str, NDArray[np.float64]], given: dict[str, Sequence[float]]
) -> dict[str, float]:
    return {name: round(float(np.corrcoef(read[name], given[name])[0, 1]), 4) for name in given}


def accuracies(read: NDArray[np.bool_], given: NDArray[np.bool_]) -> dict[str, float]:
    """The share of images in which each finding is read as it was given."""
    right = (read == given).mean(0)
    return {name: round(float(right[i]), 4) for i, name in enumerate(FINDINGS)}


def areas(scores: NDArray[np.float64], given: NDArray[np.bool_]) -> dict[str, float]:
    """Of each finding the area under the ROC curve."""
    alike = np.ones((1, len(given)))
    found = {}
    for i, name in enumerate(FINDINGS):
        answers = np.stack([-scores[:, i], scores[:, i]], axis=1).astype(np.float32)
        found[name] = round(float(auc(answers, given[:, i].astype(np.int64), alike)[0]), 4)
    return found


def on_real(readers: Readers, count: int = 1024) -> dict[str, Any]:
    """How well they read heads held out from every model: those of seed 0 after the first 4,096."""
    images, masks = heads(0, count, "mask", first=4096)
    _, told = heads(0, count, "values", first=4096)
    given = {name: off_range(name, told[:, i].numpy()) for i, name in enumerate(NUMBERS)}
    findings, scores = told[:, len(NUMBERS) :].numpy() > 0.5, readers.scores(images)
    return {
        "heads": count,
        "dice": dice(readers.masks(images), masks.numpy()),
        "correlation": correlations(readers.numbers(images), given),
        "accuracy": accuracies(scores > 0, findings),
        "area": areas(scores, findings),
        "training_cpu_s": readers.seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kept", type=Path, default=KEPT)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(json.dumps(on_real(Readers(arguments.kept)), indent=1))


if __name__ == "__main__":
    main()
