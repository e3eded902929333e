"""What papers print: distances, counts that a table is computed from, and what they leave open."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Doctor:
    """One reader of a visual Turing test, as printed.

    Args:
        table: Its number, in Roman.
        real: Real images (judged real, judged synthetic).
        synthetic: Synthetic images, likewise.
        per_kind: What the paper heads "Precision": of each kind the share that was recognised.
        per_judgement: What it heads "Recall": of each judgement the share that was right.
        fisher: Fisher's exact p, two-sided, of table V.
    """

    table: str
    real: tuple[int, int]
    synthetic: tuple[int, int]
    per_kind: tuple[float, float]
    per_judgement: tuple[float, float]
    fisher: float


VM_DDPM = {
    "doctor 1": Doctor("III", (86, 14), (81, 17), (0.860, 0.173), (0.515, 0.548), 0.56136),
    "doctor 2": Doctor("IV", (44, 28), (58, 21), (0.611, 0.266), (0.431, 0.429), 0.11982),
}
"""Ju and Zhou, arXiv 2405.05667, tables III to V."""

DATA = {"chestxray14": "ChestX-ray14", "brats2018": "BraTS 2018", "acdc": "ACDC"}
"""The paper's data sets, in the order of its tables."""


def _row(*distances: float) -> dict[str, float]:
    return dict(zip(DATA, distances, strict=True))


PRINTED: dict[str, dict[str, dict[str, float]]] = {
    "1": {
        "dcgan": _row(98.216, 83.768, 89.473),
        "sagan": _row(42.753, 90.582, 79.037),
        "unet-gan": _row(94.668, 60.097, 82.113),
        "ddpm": _row(23.679, 28.335, 66.630),
        "ddim": _row(21.695, 22.391, 47.434),
        "vm-ddpm": _row(11.783, 12.513, 34.525),
    },
    "2": {
        "cross": _row(16.783, 13.578, 40.691),
        "vm-ddpm": _row(11.783, 12.513, 34.525),
    },
}
"""Table -> system -> data set -> FID, lower is better."""

PROTOCOL = (
    "FID of 50,000 synthetic images at 128 x 128; 34,999, 6,528 and 1,798 real ones. Neither the "
    "weights, nor the resize, nor the reference, nor an interval is told."
)
"""How the paper's distances came about, as far as it says."""

OPEN = (
    "how long was trained: here 300,000 steps of 16 images for every system, the GANs' too",
    "the noise: T = 1000 and linear betas from 1e-4 to 0.02, as Ho et al.",
    "the average of the weights: decay 0.9999, for every system",
    "how VM-DDPM's images were drawn: by ancestral sampling in 1,000 steps, as DDPM's; DDIM in 50",
    "the width of VM-DDPM: 64 channels, 84 million parameters",
    "the network of DDPM and DDIM: Ho et al.'s, 128 channels, attention at 16 x 16",
    "Inception's weights and resize: the TorchScript file of clean-fid, bicubic (pil-bicubic)",
    "what the images are held against: those trained on, as training reads them, without flips",
    "which 1,798 slices of ACDC: all 1,902 of the training patients at ED and ES",
    "which 6,528 slices of BraTS 2018, of what sequence: FLAIR, 15 % of a slice not background",
    "whom the 34,999 radiographs are of: test patients of the official lists are held out of them",
    "the seeds and their number: one",
)
"""What the paper leaves open, and what is done here at its scale."""
