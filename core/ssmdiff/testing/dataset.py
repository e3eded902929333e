"""What a data set must do: images of one size, each a function of its index alone."""

from __future__ import annotations

import pickle
from typing import Any

import torch
from torch import Tensor

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
    image, label = item[:2]
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
    if not hasattr(item, "image"):
        raise ViolationError(f"item {index} is a {type(item).__name__}", "an ssmdiff ImageItem")


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
    if a[1] != b[1] or not torch.equal(a[0], b[0]):
        raise ViolationError(f"{items} differ", "equal bits and labels")
