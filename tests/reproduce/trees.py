"""Folder trees in the layouts of the paper's three data sets, four images each."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image


def _volume(path: Path, draw: np.random.Generator, top: int = 2000) -> None:
    """Two slices."""
    values = draw.integers(1, top, (20, 18, 2)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.5, 1.5, 10, 1])), path)


def acdc(root: Path) -> None:
    """A patient to train on, at the end of diastole and of systole."""
    folder = root / "database" / "training" / "patient001"
    folder.mkdir(parents=True)
    (folder / "Info.cfg").write_text("ED: 1\nES: 9\nGroup: NOR\nHeight: 184\nNbFrame: 30\n")
    for frame in (1, 9):
        stem, draw = folder / f"patient001_frame{frame:02d}", np.random.default_rng(frame)
        _volume(stem.with_name(f"{stem.name}.nii.gz"), draw)
        _volume(stem.with_name(f"{stem.name}_gt.nii.gz"), draw, 4)


def brats2018(root: Path) -> None:
    """Two patients in five files each."""
    for number, grade in enumerate(("HGG", "LGG")):
        name = f"Brats18_CBICA_A{number:02d}_1"
        folder = root / "MICCAI_BraTS_2018_Data_Training" / grade / name
        folder.mkdir(parents=True)
        for ending in ("t1", "t1ce", "t2", "flair", "seg"):
            draw = np.random.default_rng([number, len(ending)])
            _volume(folder / f"{name}_{ending}.nii.gz", draw, 5 if ending == "seg" else 2000)


def chestxray14(root: Path) -> None:
    """Four patients, their table and the two lists."""
    names = [f"{patient:08d}_000.png" for patient in range(1, 5)]
    folder = root / "images_001" / "images"
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        grey = np.random.default_rng(i).integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(grey).save(folder / name)
    with (root / "Data_Entry_2017.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            ["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age",
             "Patient Gender", "View Position", "OriginalImage[Width", "Height]",
             "OriginalImagePixelSpacing[x", "y]"]
        )  # fmt: skip
        for name in names:
            row = [name, "No Finding", 0, int(name[:8]), 58, "M", "PA", 2682, 2749, 0.143, 0.143]
            rows.writerow(row)
    (root / "train_val_list.txt").write_text("\n".join(names))
    (root / "test_list.txt").write_text("")


TREES = {"acdc": acdc, "brats2018": brats2018, "chestxray14": chestxray14}
OPTIONS = {"acdc": (), "brats2018": (), "chestxray14": ("--set", "official=false")}
