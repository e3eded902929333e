"""Images a second: from files, from a store, and from MONAI's cached data set.

    python benchmarks/data_throughput.py --json benchmarks/results/data_throughput.json

PNG files, slices of NIfTI volumes and of DICOM series as a reader gives them, each decoded for each
image; a store of 112,120 images of 128 x 128 (1.8 GB, its pictures some heads over and over); and
MONAI's CacheDataset, all of it decoded and held in memory before the clock starts. In a random
order, in batches of 64, by torch's DataLoader with 0 and 2 workers, as float32 from -1 to 1. Files
are warm. Run it on a quiet machine; the load is part of the result.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import ssmdiff
import torch
from numpy.typing import NDArray
from PIL import Image
from ssmdiff_bench.machine import load_average, machine
from ssmdiff_data.store import ArraySpec, StoreWriter, Table
from ssmdiff_data.stored import levels_of
from torch.utils.data import DataLoader, Dataset, RandomSampler

SIDE, BATCH, DEPTH = 128, 64, 64
HEADS = 256  # pictures that differ
STORED = 112_120  # images of ChestX-ray14
SECONDS = 8.0


class Slices(Dataset[torch.Tensor]):
    """Slices of volumes, each read by a reader when it is asked for."""

    def __init__(self, reader: str, sources: list[ssmdiff.Source], depth: int) -> None:
        self.reader, self.sources, self.depth = reader, sources, depth

    def __len__(self) -> int:
        return len(self.sources) * self.depth

    def __getitem__(self, index: int) -> torch.Tensor:
        volume, place = divmod(index, self.depth)
        data = _reader(self.reader).read(self.sources[volume])
        values = np.asarray(data.values, np.float32).reshape(-1, SIDE, SIDE)
        return torch.from_numpy(values[place : place + 1] / np.float32(127.5) - 1)


@functools.cache
def _reader(name: str) -> ssmdiff.Reader:
    reader: ssmdiff.Reader = ssmdiff.create("reader", name)
    return reader


def heads() -> NDArray[np.uint8]:
    """(HEADS, SIDE, SIDE)."""
    data = ssmdiff.create("dataset", "phantom", image_size=(SIDE, SIDE))
    drawn = np.stack([data[i].image.numpy()[0] for i in range(HEADS)])
    return np.asarray(levels_of(drawn, "uint8"))


def write_png(folder: Path, pictures: NDArray[np.uint8]) -> Dataset[Any]:
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i:04d}.png")
    table = {"name": "folder", "path": str(folder)}
    data: Dataset[Any] = ssmdiff.create("dataset", table, image_size=(SIDE, SIDE))
    return data


def write_nifti(folder: Path, pictures: NDArray[np.uint8]) -> Dataset[Any]:
    for i in range(0, len(pictures), DEPTH):
        volume = np.moveaxis(pictures[i : i + DEPTH], 0, -1)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / f"{i}.nii.gz")
    files = sorted(folder.iterdir())
    return Slices("nifti", [ssmdiff.Source((f,), f.name) for f in files], DEPTH)


def write_dicom(folder: Path, pictures: NDArray[np.uint8]) -> Dataset[Any]:
    """Secondary captures, a file a picture."""
    from pydicom.dataset import Dataset as Header
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    for i, picture in enumerate(pictures):
        header, header.file_meta = Header(), FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = generate_uid(
            entropy_srcs=[str(i)]
        )
        header.SeriesInstanceUID = generate_uid(entropy_srcs=["series", str(i)])
        header.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
        header.Modality, header.Rows, header.Columns = "OT", SIDE, SIDE
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated = header.BitsStored = 8
        header.HighBit, header.PixelRepresentation = 7, 0
        header.PixelData = picture.tobytes()
        header.save_as(folder / f"{i:04d}.dcm", enforce_file_format=True)
    sources = _reader("dicom").sources(folder, sorted(folder.iterdir()))
    return Slices("dicom", [s for s in sources if isinstance(s, ssmdiff.Source)], 1)


def write_store(folder: Path, pictures: NDArray[np.uint8]) -> Dataset[Any]:
    writer = StoreWriter(folder, STORED, {"image": ArraySpec((1, SIDE, SIDE), "uint8")})
    for start in range(0, STORED, HEADS):
        writer.append({"image": pictures[: min(HEADS, STORED - start), None]})
    groups = [f"{i // 4:020d}" for i in range(STORED)]
    writer.finish(Table(["train"] * STORED, groups, [0] * STORED, {}), (), {})
    table = {"name": "store", "path": str(folder)}
    data: Dataset[Any] = ssmdiff.create("dataset", table, image_size=(SIDE, SIDE))
    return data


def monai_cache(folder: Path) -> Dataset[Any]:
    """The PNG files, decoded and scaled once, held in memory."""
    from monai.data import CacheDataset
    from monai.transforms import Compose, EnsureChannelFirst, LoadImage, ScaleIntensityRange

    steps = [LoadImage(image_only=True), EnsureChannelFirst(), ScaleIntensityRange(0, 255, -1, 1)]
    files = [str(path) for path in sorted(folder.iterdir())]
    data: Dataset[Any] = CacheDataset(files, Compose(steps), progress=False)
    return data


def measured(data: Dataset[Any], workers: int, seconds: float) -> dict[str, float]:
    """Images a second once the first batches have come, and processor time for each image, that of
    the workers too: the second depends little on what else the machine does."""
    generator = torch.Generator().manual_seed(0)
    sampler = RandomSampler(data, True, 10**7, generator)  # type: ignore[arg-type]
    loader = DataLoader(data, BATCH, sampler=sampler, num_workers=workers)
    before_s = sum(os.times()[:4])
    batches = iter(loader)
    for _ in range(4):
        next(batches)
    start_s, count = time.perf_counter(), 0
    while (passed_s := time.perf_counter() - start_s) < seconds:
        batch = next(batches)
        count += len(batch[0] if isinstance(batch, list | tuple) else batch)
    del batches  # the workers end, and their time is known
    spent_s = sum(os.times()[:4]) - before_s
    ahead = 2 * workers * BATCH  # read, and never asked for
    images = count + 4 * BATCH + ahead
    return {
        "images_per_s": round(count / passed_s, 1),
        "processor_us_per_image": round(spent_s / images * 1e6, 1),
    }


def sources(folder: Path) -> Iterator[tuple[str, Dataset[Any]]]:
    pictures = heads()
    makers = {"png": write_png, "nifti": write_nifti, "dicom": write_dicom, "store": write_store}
    for name, write in makers.items():
        (folder / name).mkdir()
        if name in ("png", "store") or name in ssmdiff.registry().names("reader"):
            yield name, write(folder / name, pictures)
    yield "monai-cache", monai_cache(folder / "png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each measurement")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    before = load_average()
    with tempfile.TemporaryDirectory() as folder:
        for name, data in sources(Path(folder)):
            for workers in (0, 2):
                row = measured(data, workers, given.seconds)
                rows.append({"source": name, "workers": workers, **row})
                print(name, f"{workers} workers", row, flush=True)
    result = {
        "machine": machine(),
        "load_average": [before, load_average()],
        "side_px": SIDE,
        "batch": BATCH,
        "stored_images": STORED,
        "rows": rows,
    }
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
