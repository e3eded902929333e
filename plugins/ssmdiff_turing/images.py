"""The two kinds of images, as 8-bit levels of one size: of a model or a folder, and real ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from ssmdiff import (
    ConfigError,
    DataError,
    DataTerms,
    RunFolder,
    build_dataset,
    create,
    did_you_mean,
    load_json,
    open_model,
    permutation,
    registry,
    size_text,
    stream,
    terms_of,
    to_levels,
)

Levels = NDArray[np.uint8]

CONFIG = "config.toml"
_SAMPLED = re.compile(r"\d{6,}\.(png|npy)")


@dataclass(frozen=True)
class Kind:
    """Images of one kind.

    Args:
        levels: (N, C, H, W).
        indices: The number of each in what it is taken from.
        source: What that is, for the key.
        is_open: Its images may be shown to anyone.
        terms: On which terms they may be used, where that is known.
    """

    levels: Levels
    indices: tuple[int, ...]
    source: Mapping[str, Any]
    is_open: bool = False
    terms: DataTerms | None = None


@dataclass(frozen=True)
class Synthetic:
    """Where the synthetic images come from, opened, and how to get them.

    Args:
        shape: (C, H, W) of each.
        images: Gives them; a model draws them now, which may take hours.
    """

    shape: tuple[int, ...]
    images: Callable[[], Kind]


def open_synthetic(
    model: Path, n: int, seed: int, asked: Mapping[str, Any], batch_size: int, progress: bool
) -> Synthetic:
    """A run, an exported file, a folder of ``ssmdiff sample`` or any folder of images.

    Args:
        model: Where they come from.
        n: How many.
        seed: Image i of a model depends on (seed, i) alone; of a folder, which are taken.
        asked: ``scheduler``, ``steps`` and ``checkpoint``; None is the model's own.
        batch_size: Images drawn at once.
        progress: Show a bar.

    Raises:
        ConfigError: It is nothing of the kind, or holds too few images, or of several sizes.
        DataError: An image cannot be read.
    """
    if model.is_dir() and not (model / CONFIG).is_file():
        given = [f"--{name}" for name, value in asked.items() if value is not None]
        if given:
            raise ConfigError(f"{', '.join(given)}: {model} holds images that are drawn already")
        files = _sampled_files(model)
        if files:
            chosen = _chosen(len(files), n, seed, str(model))
            levels = [_sampled(files[i]) for i in chosen]
            _refuse_sizes(model, {tuple(image.shape[1:]) for image in levels})
            return _there(Kind(np.stack(levels), chosen, {"folder": str(model)}))
        table = {"name": "folder", "path": str(model)}
        dataset = create("dataset", table, image_size=_size_in(model))
        return _there(_of_dataset(dataset, n, seed, model))
    opened = open_model(model, asked.get("checkpoint"))
    if len(opened.shape) != 3 or opened.shape[0] not in (1, 3):
        raise ConfigError(
            f"{model} draws images of shape {tuple(opened.shape)}; a page shows (1, H, W) or "
            "(3, H, W)"
        )
    sampling = opened.sampling(asked.get("scheduler"), asked.get("steps"), seed)
    stamp = {
        "path": str(model),
        "model": opened.origin(),
        "scheduler": dict(sampling.scheduler),
        "steps": sampling.steps,
        "seed": seed,
    }

    def draw() -> Kind:
        parts = []
        with _bar(progress, f"drawing {n} images", n) as done:
            for batch, images in opened.draw(sampling, range(n), batch_size):
                parts.append(to_levels(np.asarray(images)))
                done(len(batch))
        return Kind(np.concatenate(parts), tuple(range(n)), stamp)

    return Synthetic(tuple(opened.shape), draw)


def real_images(
    data: str | Path, n: int, seed: int, size: tuple[int, int], model: Path, held_out: bool
) -> Kind:
    """Images of a run's data, of a data set by name, of a store or folder, as training reads them.

    Args:
        data: Where they come from.
        n: How many.
        seed: Which are taken.
        size: (H, W) of the synthetic images.
        model: Where the synthetic images come from, which must not hold the real ones.
        held_out: Take those of the held-out patients.

    Raises:
        ConfigError: There is no such data, too little of it, or it would have to be enlarged.
        DataError: An image cannot be read.
    """
    path = Path(data)
    if (path / CONFIG).is_file():
        dataset, source = build_dataset(RunFolder(path).config()), f"the data of {path}"
    elif str(data) in registry().names("dataset"):
        dataset, source = create("dataset", str(data), image_size=size), str(data)
    elif path.is_dir():
        _refuse_inside(path, model)
        kind = "store" if (path / "store.json").is_file() else "folder"
        if kind == "folder":
            _refuse_enlarged(path, size)
        table = {"name": kind, "path": str(path)}
        dataset, source = create("dataset", table, image_size=size), str(path)
    else:
        near = did_you_mean(str(data), registry().names("dataset"))
        raise ConfigError(f"--real {data}: there is no such run, folder or data set; {near}")
    is_open = bool(getattr(dataset, "is_open", False))
    if held_out:
        others = getattr(dataset, "held_out", None)
        if others is None:
            raise ConfigError(
                f"--held-out: {source} holds nobody out; give a run that was trained with "
                "--set data.dataset.held_out=0.1"
            )
        dataset, source = others, f"{source}, held out"
    return _of_dataset(dataset, n, seed, source, is_open)


def refuse_unlike(synthetic: tuple[int, ...], real: tuple[int, ...]) -> None:
    """Both kinds have one size and one number of channels.

    Raises:
        ConfigError: They have not.
    """
    if synthetic != real:
        raise ConfigError(
            f"the synthetic images are {_shape(synthetic)} and the real ones {_shape(real)}; "
            "expected one size and one number of channels. Give the data that the model was "
            "trained on by --real"
        )


def refuse_alike(synthetic: Kind, real: Kind) -> None:
    """No image is there twice, in one kind or in both.

    Raises:
        ConfigError: One is.
    """
    seen: dict[bytes, str] = {}
    for name, kind in (("synthetic", synthetic), ("real", real)):
        for number, image in zip(kind.indices, kind.levels, strict=True):
            other = seen.setdefault(image.tobytes(), f"{name} image {number}")
            if other != f"{name} image {number}":
                raise ConfigError(
                    f"{name} image {number} is {other}, pixel for pixel; expected images that are "
                    "all different"
                )


def _there(images: Kind) -> Synthetic:
    return Synthetic(images.levels.shape[1:], lambda: images)


def _of_dataset(dataset: Any, n: int, seed: int, source: object, is_open: bool = False) -> Kind:
    chosen = _chosen(len(dataset), n, seed, str(source))
    levels = np.stack([to_levels(np.asarray(dataset[i][0])) for i in chosen])
    if levels.ndim != 4 or levels.shape[1] not in (1, 3):
        raise ConfigError(
            f"{source} has images of shape {levels.shape[1:]}; a page shows (1, H, W) or (3, H, W)"
        )
    stamp = {"source": str(source), "images": len(dataset), "fingerprint": dataset.fingerprint()}
    return Kind(levels, chosen, stamp, is_open, terms_of(dataset))


def _chosen(total: int, n: int, seed: int, source: str) -> tuple[int, ...]:
    """``n`` of ``total`` by the seed, in rising order."""
    if total < n:
        raise ConfigError(f"{source} holds {total} images; expected at least {n}. Give a lower --n")
    return tuple(sorted(int(i) for i in permutation(stream(seed, "turing"), total)[:n]))


def _sampled_files(folder: Path) -> list[Path]:
    """The numbered images of ``ssmdiff sample``; none where it did not fill this folder.

    Raises:
        DataError: They are of another format than 8-bit PNG or ``.npy``, or in other units.
    """
    record = folder / "samples.json"
    told: Any = load_json(record).get("format", "png") if record.is_file() else "png"
    form = told if isinstance(told, dict) else {"name": told}
    if form.get("name") not in ("png", "npy") or form.get("units", "model") != "model":
        raise DataError(
            f"{folder} holds images of --format {form.get('name')}, in units of the "
            f"{form.get('units', 'model')}; a page is made of png and npy in units of the model. "
            "Draw them again, or give the run"
        )
    return sorted(p for p in folder.iterdir() if _SAMPLED.fullmatch(p.name))


def _sampled(path: Path) -> Levels:
    """(C, H, W) of a file that ``ssmdiff sample`` wrote."""
    try:
        if path.suffix == ".npy":
            return to_levels(np.load(path, allow_pickle=False))
        with Image.open(path) as picture:
            image = np.asarray(picture.convert("L" if picture.mode == "L" else "RGB"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return image[None] if image.ndim == 2 else np.ascontiguousarray(np.moveaxis(image, -1, 0))


def _sizes(folder: Path) -> set[tuple[int, int]]:
    """(H, W) of every picture in a folder, by their headers."""
    found = set()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            if path.suffix == ".npy":
                height, width = np.load(path, mmap_mode="r", allow_pickle=False).shape[-2:]
            else:
                with Image.open(path) as picture:
                    width, height = picture.size
        except (UnidentifiedImageError, OSError, ValueError, EOFError):
            continue  # no picture; the data set says so where it should be one
        found.add((int(height), int(width)))
    return found


def _size_in(folder: Path) -> tuple[int, int]:
    sizes = _sizes(folder)
    if not sizes:
        raise ConfigError(
            f"{folder} holds no images; expected a run, an exported file or a folder of images"
        )
    _refuse_sizes(folder, sizes)
    return sizes.pop()


def _refuse_sizes(folder: Path, sizes: set[tuple[int, ...]] | set[tuple[int, int]]) -> None:
    if len(sizes) > 1:
        some = " and ".join(size_text(size) for size in sorted(sizes)[:2])
        raise ConfigError(f"{folder} holds images of {some} pixels; expected one size")


def _refuse_enlarged(folder: Path, size: tuple[int, int]) -> None:
    """A real image that is enlarged is blurred, and told by it."""
    small = sorted(s for s in _sizes(folder) if s[0] < size[0] or s[1] < size[1])
    if small:
        raise ConfigError(
            f"{folder} holds real images of {size_text(small[0])} pixels, and the synthetic ones "
            f"have {size_text(size)}; enlarged, they would be told by their blur. Leave them out"
        )


def _refuse_inside(real: Path, model: Path) -> None:
    inner, outer = real.resolve(), model.resolve()
    if model.is_dir() and (inner == outer or outer in inner.parents or inner in outer.parents):
        raise ConfigError(
            f"the real images of {real} and the synthetic ones of {model} lie within each other; "
            "expected two folders apart"
        )


def _shape(shape: tuple[int, ...]) -> str:
    return f"{size_text(shape[1:])} with {shape[0]} channel{'s' * (shape[0] > 1)}"


@contextmanager
def _bar(shown: bool, what: str, total: int) -> Iterator[Callable[[int], None]]:
    if not shown:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)
