"""What a data set must do: images of one size, each a function of its index alone."""

from __future__ import annotations

import pickle
from typing import Any

import torch
from torch import Tensor

from ssmdiff.diffusion.conditions import LABEL, Condition
from ssmdiff.errors import ConfigError
from ssmdiff.orders.scan import Grid, size_text
from ssmdiff.runs.datasets import DatasetSummary, ImageDataset, summary_of
from ssmdiff.testing import probes
from ssmdiff.testing.report import NotApplicableError, ViolationError
from ssmdiff.testing.suite import Subject, Suite

SIZES: tuple[Grid, ...] = ((16, 16), (16, 24), (33, 20))
BEYOND = 1e-5
"""How far beyond -1 or 1 a value may lie: what resizing in float32 rounds off, and far below the
7.8e-3 of a level of 8 bits."""


class DatasetSubject(Subject):
    """A data set, at the first size that it serves."""

    def new(self, size: Grid | None = None) -> ImageDataset:
        dataset: ImageDataset = self.build(image_size=size or self.size)
        return dataset

    @property
    def size(self) -> Grid:
        for size in SIZES:
            try:
                self.build(image_size=size)
            except ConfigError:
                continue
            return size
        self.build(image_size=SIZES[0])
        raise NotApplicableError("no size is served")


suite = Suite("dataset", DatasetSubject)


def _indices(dataset: ImageDataset) -> list[int]:
    n = len(dataset)
    return sorted({0, 1 % n, n // 2, n - 1})


@suite.check
def images(subject: DatasetSubject) -> str:
    """Images are (C, *image_size) float32 in -1 to 1, with a label among the classes."""
    served = []
    for size in SIZES:
        try:
            dataset = subject.new(size)
        except ConfigError:
            continue
        served.append(size_text(size))
        if not isinstance(dataset.channels, int) or dataset.channels < 1:
            raise ViolationError(f"channels is {dataset.channels!r}", "a whole number, at least 1")
        for index in _indices(dataset):
            _image(dataset, index, size)
    if not served:
        raise ViolationError(f"refuses all of {SIZES}", "at least one of these image sizes")
    return f"{len(dataset)} images, at {', '.join(served)}"


def _image(dataset: ImageDataset, index: int, size: Grid) -> None:
    item = dataset[index]
    if not hasattr(item, "image"):
        raise ViolationError(f"item {index} is a {type(item).__name__}", "an ssmdiff ImageItem")
    image, label = item.image, item.label
    expected = (dataset.channels, *size)
    if not isinstance(image, Tensor) or image.dtype != torch.float32:
        got = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise ViolationError(f"image {index} is {got}", "a float32 tensor")
    if tuple(image.shape) != expected:
        raise ViolationError(f"image {index} has shape {tuple(image.shape)}", f"{expected}")
    if not (image.isfinite().all() and image.abs().max() <= 1 + BEYOND):
        # Nine digits tell every float32 from its neighbour.
        raise ViolationError(
            f"image {index} reaches from {float(image.min()):.9g} to {float(image.max()):.9g}",
            f"finite values from -1 to 1, within {BEYOND:g}",
            "image.clamp(-1, 1) where a resize overshoots",
        )
    classes = max(1, len(dataset.class_names))
    if type(label) is not int or not 0 <= label < classes:
        raise ViolationError(
            f"image {index} has label {label!r}", f"an int from 0 to {classes - 1}"
        )


@suite.check
def length(subject: DatasetSubject) -> str:
    """It has a length, and an index past its end is an IndexError."""
    dataset = subject.new()
    n = len(dataset)
    if n < 1:
        raise ViolationError(f"{n} images", "at least one")
    try:
        dataset[n]
    except IndexError:
        return f"{n} images"
    raise ViolationError(f"image {n} of {n} is there", "an IndexError")


@suite.check
def class_names(subject: DatasetSubject) -> str:
    """``class_names`` is a tuple of words, empty where there are no classes."""
    names = subject.new().class_names
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise ViolationError(f"class_names is {names!r}", "a tuple of words, empty for no classes")
    if len(set(names)) != len(names):
        raise ViolationError(f"class_names is {names!r}", "names that differ")
    return f"{len(names)} classes"


@suite.check
def conditions(subject: DatasetSubject) -> str:
    """What it declares that it can tell of an image is told, of its kind and within its range."""
    dataset = subject.new()
    size = tuple(dataset[0].image.shape[1:])
    declared = getattr(dataset, "conditions", ())
    found = {one.name: one for one in declared if isinstance(one, Condition)}
    if len(found) != len(declared):
        raise ViolationError(f"conditions is {declared!r}", "ssmdiff.Condition, of different names")
    if LABEL in found:
        raise ViolationError(
            f"conditions has one called {LABEL!r}",
            "another name: that is the class, see class_names",
        )
    told = [(index, dataset[index].told) for index in _indices(dataset)]
    for index, values in told:
        for name in values:
            if name not in found:
                raise ViolationError(
                    f"image {index} tells {name!r}, which is not declared",
                    f"one of {', '.join(found) or 'no conditions'}",
                )
    for name, one in found.items():
        known = [(index, values[name]) for index, values in told if name in values]
        if not one.optional and len(known) < len(told):
            missing = next(index for index, values in told if name not in values)
            raise ViolationError(
                f"image {missing} does not tell {name!r}",
                "a value of every image",
                "optional=True where some images lack it",
            )
        for index, value in known:
            _told(one, value, size, f"image {index}, {name!r}:")
    if not found:
        raise NotApplicableError("tells nothing beside the class")
    return f"{', '.join(found)} of {len(told)} images"


def _told(one: Condition, value: Any, size: tuple[int, ...], where: str) -> None:
    """One value of one image: of its kind, as :class:`ssmdiff.Condition` has it, and in range."""
    count = len(one.names)
    if one.kind == "number":
        real = isinstance(value, int | float) and not isinstance(value, bool)
        if not (real and one.low <= value <= one.high):
            raise ViolationError(
                f"{where} {value!r}", f"a number from {one.low:g} to {one.high:g}, low to high"
            )
    elif one.kind in ("label", "labels"):
        members = value if one.kind == "labels" else (value,)
        if not isinstance(members, tuple | list | set | frozenset):
            raise ViolationError(f"{where} {value!r}", f"a tuple of numbers from 0 to {count - 1}")
        for member in members:
            if type(member) is not int or not 0 <= member < count:
                raise ViolationError(f"{where} {value!r}", f"numbers from 0 to {count - 1}, as int")
    else:
        shape = size if one.kind == "mask" else (one.channels, *size)
        if not isinstance(value, Tensor) or tuple(value.shape) != shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ViolationError(f"{where} {got}", f"a tensor of {shape}")
        if one.kind == "mask":
            least, most = int(value.min()), int(value.max())
            if value.is_floating_point() or not 0 <= least <= most < count:
                raise ViolationError(
                    f"{where} {value.dtype} from {least} to {most}",
                    f"whole numbers from 0 to {count - 1}, those of its names",
                )
        elif value.dtype != torch.float32 or not value.abs().max() <= 1:
            raise ViolationError(
                f"{where} {value.dtype} up to {float(value.abs().max()):.9g}",
                "float32 from -1 to 1",
            )


@suite.check
def determinism(subject: DatasetSubject) -> str:
    """Image i is a function of i alone: of no global random state, and of no image before it."""
    first, second = subject.new(), subject.new()
    before = probes.global_states()
    drawn = {index: first[index] for index in _indices(first)}
    if probes.global_states() != before:
        raise ViolationError(
            "reading an image moved a global random state",
            "numbers from ssmdiff.orders.seeds.stream(seed, purpose, index), if any",
        )
    for index in reversed(_indices(second)):
        _assert_equal(drawn[index], second[index], f"image {index} of two data sets")
        _assert_equal(drawn[index], first[index], f"image {index} read twice")
    return "the same twice, in another order, from another data set"


@suite.check
def pickling(subject: DatasetSubject) -> str:
    """It can be sent to the worker processes of a loader."""
    dataset = subject.new()
    dataset[0]
    sent: ImageDataset = pickle.loads(pickle.dumps(dataset))
    for index in _indices(dataset):
        _assert_equal(dataset[index], sent[index], f"image {index} after pickling")
    return "the same after pickling"


@suite.check
def fingerprint(subject: DatasetSubject) -> str:
    """The digest by which a resumed run tells a change is a word, the same every time."""
    first, second = subject.new(), subject.new()
    prints = {first.fingerprint(), first.fingerprint(), second.fingerprint()}
    first[0]
    prints.add(first.fingerprint())
    if len(prints) != 1 or not all(isinstance(p, str) and p for p in prints):
        raise ViolationError(f"{sorted(map(repr, prints))}", "one word that is the same every time")
    return f"{next(iter(prints))[:12]}..."


@suite.check
def summary(subject: DatasetSubject) -> str:
    """What it says of itself, if anything, is lines of text, the same every time."""
    dataset = subject.new()
    if not hasattr(dataset, "summary"):
        raise NotApplicableError("no summary")
    told = summary_of(dataset)
    if not isinstance(told, DatasetSummary):
        raise ViolationError(f"summary() is a {type(told).__name__}", "an ssmdiff.DatasetSummary")
    for line in (*told.lines, *told.warnings):
        if not isinstance(line, str) or not line.strip() or "\n" in line:
            raise ViolationError(f"summary() has the line {line!r}", "text of one line")
    if summary_of(dataset) != told:
        raise ViolationError("summary() differs when it is called again", "the same every time")
    return f"{len(told.lines)} lines, {len(told.warnings)} warnings"


def _assert_equal(a: Any, b: Any, items: str) -> None:
    if a.label != b.label or not torch.equal(a.image, b.image):
        raise ViolationError(f"{items} differ", "equal bits and labels")
    told = (dict(a.told), dict(b.told))
    for name in told[0].keys() | told[1].keys():
        one, other = (values.get(name) for values in told)
        if isinstance(one, Tensor) and isinstance(other, Tensor):
            same = torch.equal(one, other)
        else:
            same = one == other
        if not same:
            raise ViolationError(f"{items} differ in {name!r}", "what is told is equal too")
