"""Sets of images as 8-bit levels: of a data set, of a folder that was sampled, of a model.

What is drawn is kept in parts of one batch each. A part is whole or not there, so an evaluation
that was stopped goes on, and several processes share the parts.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from ssmdiff import (
    ConfigError,
    DataError,
    ImageItem,
    ImageModel,
    ImageSet,
    SamplingSettings,
    to_levels,
    write_atomically,
)

Levels = NDArray[np.uint8]

_FILE = re.compile(r"\d{6,}\.(png|npy)")
SAMPLES_RECORD = "samples.json"
"""What ``ssmdiff sample`` writes beside its images."""


class _Images(ABC):
    """A set that gives its images one by one. What it does not know of them is None."""

    groups: Sequence[str] | None = None
    class_names: Sequence[str] = ()

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """(N,) the class of each image, None where it is not known."""
        return None

    def levels(self, indices: Sequence[int]) -> Levels:
        """(B, C, H, W) of these images."""
        return np.stack([self._one(int(i)) for i in indices])

    @abstractmethod
    def _one(self, i: int) -> Levels:
        """(C, H, W)."""


class DataImages(_Images):
    """Images of a data set, all of them or evenly spread ones.

    Args:
        dataset: An ``ssmdiff.ImageDataset``.
        count: At most so many.
        name: For people.
        indices: These instead, in this order.
    """

    def __init__(
        self,
        dataset: Any,
        count: int | None = None,
        name: str = "data",
        indices: Sequence[int] | None = None,
    ) -> None:
        self.dataset, self.name = dataset, name
        total = len(dataset)
        count = total if count is None else min(count, total)
        if count < 1:
            raise ConfigError(f"{name} has no images to judge by")
        self.indices = np.linspace(0, total - 1, count).astype(int)
        self._own_order = indices is not None
        if indices is not None:
            self.indices = np.asarray(indices, int)
        self._kept: dict[int, Levels] = {}
        self._labels: dict[int, int] = {}
        self.class_names = tuple(getattr(dataset, "class_names", ()))
        self.shape: tuple[int, ...] = self._one(0).shape
        groups = getattr(dataset, "groups", None)
        self.groups = None if groups is None else [str(groups[i]) for i in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Of a data set with classes; an image is read to know its class."""
        if not self.class_names:
            return None
        for i in range(len(self)):
            self._one(i)
        return np.array([self._labels[i] for i in range(len(self))], np.int64)

    def _one(self, i: int) -> Levels:
        # Drawing a phantom or decoding a file is dearer than to keep a byte a pixel of it.
        if i not in self._kept:
            item = ImageItem(*self.dataset[int(self.indices[i])])
            self._kept[i], self._labels[i] = to_levels(np.asarray(item.image)), int(item.label)
        return self._kept[i]

    def digest(self) -> str:
        text = f"data {self.dataset.fingerprint()} {len(self.dataset)} {len(self)}"
        if self._own_order:
            text += f" {self.indices.tolist()}"
        return hashlib.sha256(text.encode()).hexdigest()


class SampledFolder(_Images):
    """A folder that ``ssmdiff sample`` filled: its numbered images, PNG or .npy; or ``ssmdiff
    translate`` and ``inpaint``, whose record names its images.

    Args:
        path: The folder.
        count: At most so many, from the first.

    Raises:
        DataError: It holds no such images, or images of several sizes.
    """

    def __init__(self, path: Path, count: int | None = None) -> None:
        self.path = self.name = path
        self._known = self._record()
        form = self._known.get("format", "png")
        told = form if isinstance(form, dict) else {"name": form}
        if told.get("name") not in ("png", "npy") or told.get("units", "model") != "model":
            raise DataError(
                f"{path} holds images of --format {told.get('name')}, in units of the "
                f"{told.get('units', 'model')}; evaluate reads png and npy in units of the model. "
                "Draw them again, or give it the run"
            )
        self.files = self._files()[:count]
        if not self.files:
            raise DataError(
                f"{path} holds no images such as 000000.png; expected --out of ssmdiff sample"
            )
        self.shape: tuple[int, ...] = self._one(0).shape
        classes = self._known.get("classes")
        self.class_names = tuple(classes) if isinstance(classes, list) else ()

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """As the record beside the images says; None where it does not of every one."""
        told = self._known.get("labels")
        names = [told.get(path.name) for path in self.files] if isinstance(told, dict) else [None]
        if not set(names) <= set(self.class_names):
            return None
        return np.array([self.class_names.index(name) for name in names], np.int64)

    def _files(self) -> list[Path]:
        names = self._known.get("names")
        if not isinstance(names, list):
            return sorted(p for p in self.path.iterdir() if _FILE.fullmatch(p.name))
        inside = [name for name in names if isinstance(name, str) and ".." not in Path(name).parts]
        there = [self.path / name for name in inside if not Path(name).is_absolute()]
        return [path for path in there if path.is_file()]

    @property
    def reading(self) -> dict[str, Any]:
        """Options of the data set ``folder`` by which the images were read that these are of."""
        told = self._known.get("reading")
        return dict(told) if isinstance(told, dict) else {}

    def __len__(self) -> int:
        return len(self.files)

    def _one(self, i: int) -> Levels:
        path = self.files[i]
        try:
            if path.suffix == ".npy":
                image = to_levels(np.load(path, allow_pickle=False))
            else:
                with Image.open(path) as picture:
                    image = np.asarray(picture.convert("RGB" if picture.mode != "L" else "L"))
                image = image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}") from error
        if i and image.shape != self.shape:
            raise DataError(f"{path} is {image.shape}; {self.files[0].name} is {self.shape}")
        return image

    def digest(self) -> str:
        known = hashlib.sha256(b"files")
        for path in self.files:
            known.update(path.read_bytes())
        return known.hexdigest()

    def stamp(self) -> dict[str, Any]:
        """How the images were drawn, as far as the record beside them says."""
        told = {key: value for key, value in self._known.items() if key not in ("labels", "each")}
        return {"folder": str(self.path), **({"record": told} if told else {})}

    def _record(self) -> dict[str, Any]:
        record = self.path / SAMPLES_RECORD
        if not record.is_file():
            return {}
        try:
            found = json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{record} cannot be read: {error}") from error
        if not isinstance(found, dict):
            raise DataError(f"{record} holds no record of ssmdiff sample; delete it, and go on")
        return found


class Mirrored(_Images):
    """The images of another set flipped left to right."""

    def __init__(self, images: ImageSet) -> None:
        self.images, self.shape = images, images.shape
        self.groups, self.class_names = images.groups, images.class_names

    @property
    def labels(self) -> NDArray[np.int64] | None:
        return self.images.labels

    def __len__(self) -> int:
        return len(self.images)

    def levels(self, indices: Sequence[int]) -> Levels:
        return self.images.levels(indices)[..., ::-1].copy()

    def _one(self, i: int) -> Levels:
        one: Levels = self.levels([i])[0]
        return one

    def digest(self) -> str:
        return hashlib.sha256(f"mirrored {self.images.digest()}".encode()).hexdigest()


class DrawnImages(_Images):
    """Images 0 to n - 1 of a model and a seed, drawn into a folder in parts of one batch.

    Args:
        model: A run, or an exported file.
        sampling: Of :meth:`ssmdiff.ImageModel.sampling`.
        count: n.
        folder: Where parts are kept; those of other settings have folders of their own.
        batch_size: Images of a part. Another batch rounds otherwise, so it is part of what is kept.
    """

    def __init__(
        self,
        model: ImageModel[Any],
        sampling: SamplingSettings,
        count: int,
        folder: Path,
        batch_size: int = 64,
    ) -> None:
        self.model, self.sampling, self.count = model, sampling, count
        self.batch_size = batch_size
        self.shape: tuple[int, ...] = tuple(model.shape)
        self.class_names = tuple(model.class_names)
        self.folder = folder / self.digest()[:16]
        self._part: tuple[int, Levels] | None = None

    def __len__(self) -> int:
        return self.count

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """The class that each image was drawn for; None of an unconditional model."""
        found = self.model.labels(self.sampling, range(self.count))
        return None if found is None else np.array(found, np.int64)

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.stamp(), sort_keys=True).encode()).hexdigest()

    def stamp(self) -> dict[str, Any]:
        """What decides the images."""
        guidance = self.sampling.guidance.record(self.model.conditions)
        return {
            "model": self.model.origin(),
            "scheduler": dict(self.sampling.scheduler),
            "steps": self.sampling.steps,
            "seed": self.sampling.seed,
            "told": self.model.conditions.recorded_asked(self.sampling.told),
            **({} if guidance is None else {"guidance": guidance}),
            "batch_size": self.batch_size,
            "shape": list(self.shape),
        }

    def parts(self) -> list[range]:
        """The indices of each part; the last may be short."""
        return list(batches(self.count, self.batch_size))

    def draw(
        self, rank: int = 0, world: int = 1, on_images: Callable[[int], None] | None = None
    ) -> int:
        """Draw what is missing; of several processes each its own parts, the first waits for all.

        Returns:
            How many images this process drew.

        Raises:
            DivergedError: An image is not finite.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        shown = on_images or (lambda count: None)
        mine = list(enumerate(self.parts()))[rank::world]
        missing = [part for part in mine if not self._path(*part).is_file()]
        wanted = [i for _, indices in missing for i in indices]
        shown(sum(len(indices) for _, indices in mine) - len(wanted))
        if missing:
            # In one go: a batch is a part, and on a GPU the network is recorded once for all.
            drawn = self.model.draw(self.sampling, wanted, self.batch_size)
            for part, (batch, images) in zip(missing, drawn, strict=True):
                write_part(self._path(*part), to_levels(np.asarray(images)))
                shown(len(batch))
        while rank == 0 and self._missing():
            time.sleep(0.2)
        return len(wanted)

    def _missing(self) -> bool:
        return not all(self._path(n, part).is_file() for n, part in enumerate(self.parts()))

    def _one(self, i: int) -> Levels:
        number = i // self.batch_size
        if self._part is None or self._part[0] != number:
            self._part = (number, read_part(self._path(number, self.parts()[number])))
        image: Levels = self._part[1][i % self.batch_size]
        return image

    def _path(self, number: int, indices: range) -> Path:
        return self.folder / f"part-{number:06d}-{len(indices)}.npy"


def write_part(path: Path, array: NDArray[Any]) -> None:
    """An array as ``.npy``, whole or not there."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomically(path, buffer.getvalue())


def read_part(path: Path) -> NDArray[Any]:
    """What :func:`write_part` wrote.

    Raises:
        DataError: It is damaged.
    """
    try:
        part: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}. Delete it, and go on") from error
    return part


def batches(count: int, size: int = 256) -> Iterator[range]:
    """0 to count - 1, ``size`` at a time."""
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def processes() -> tuple[int, int]:
    """(rank, number of processes), as torchrun tells them."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
