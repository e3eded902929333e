"""What a feature network must do: a vector for each image, whatever stands beside it."""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ssmdiff.errors import ConfigError, DataError
from ssmdiff.orders.scan import size_text
from ssmdiff.registry.registry import registry, split_spec
from ssmdiff.runs.evaluation import FeatureNetwork
from ssmdiff.testing import probes
from ssmdiff.testing.probe_images import ProbeImages
from ssmdiff.testing.report import NotApplicableError, ViolationError
from ssmdiff.testing.suite import Subject, Suite

SHAPES = ((1, 32, 32), (3, 32, 32), (1, 64, 64), (3, 64, 64))
COUNT = 24
"""Images of the reference."""
WITHIN = 1e-4
"""Between the vectors of an image in two batches, over the largest value: float32's rounding in a
deep network, and far below what another image changes."""

Vectors = NDArray[np.floating]


class FeaturesSubject(Subject):
    """A feature network, fitted to a reference of the first shape that it takes."""

    _refusal = ""

    def fitted(self, seed: int = 1, **other: Any) -> FeatureNetwork:
        """A new one, fitted to a reference; with other options if any are given."""
        name, options = split_spec(self.kind, self.spec)
        network: FeatureNetwork = registry().create(self.kind, {"name": name, **options, **other})
        network.fit(self.images(seed))
        return network

    def images(self, seed: int = 1, count: int = COUNT) -> ProbeImages:
        """The reference is that of seed 1."""
        return ProbeImages(count, self.shape, seed)

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W).

        Raises:
            NotApplicableError: It refuses every one: it needs a file, say. Says why once.
        """
        if self._refusal:
            raise NotApplicableError(self._refusal)
        for shape in SHAPES:
            try:
                network: FeatureNetwork = self.build()
                network.fit(images := ProbeImages(COUNT, shape, 1))
                network(images.levels([0]))
            except ConfigError as error:
                reason = error
                continue
            return shape
        self._refusal = "cannot be fitted here, as above"
        raise NotApplicableError(f"cannot be fitted here: {reason}")

    @functools.cached_property
    def network(self) -> FeatureNetwork:
        return self.fitted()

    @functools.cached_property
    def other(self) -> FeatureNetwork:
        """Fitted to another reference."""
        return self.fitted(seed=3)

    @property
    def levels(self) -> NDArray[np.uint8]:
        """(8, C, H, W): four of the reference, four new ones; a copy, whoever writes to it."""
        return np.concatenate([self.images(seed).levels(range(4)) for seed in (1, 2)])

    @functools.cached_property
    def found(self) -> Vectors:
        """(8, d) of these images."""
        return self.network(self.levels)


suite = Suite("features", FeaturesSubject)


@suite.check
def vectors(subject: FeaturesSubject) -> str:
    """Vectors are (B, d), float32 or float64, finite, and differ between images."""
    found, count = subject.found, len(subject.levels)
    if not isinstance(found, np.ndarray) or found.dtype not in (np.float32, np.float64):
        got = getattr(found, "dtype", type(found).__name__)
        raise ViolationError(f"vectors are {got}", "a numpy array of float32 or float64")
    if found.ndim != 2 or len(found) != count or found.shape[1] < 1:
        raise ViolationError(f"vectors of {count} images have shape {found.shape}", f"({count}, d)")
    if not np.isfinite(found).all():
        raise ViolationError(
            f"{int((~np.isfinite(found)).sum())} values are not finite", "finite values"
        )
    if len(np.unique(found, axis=0)) == 1:
        raise ViolationError("all images have the same vector", "other images, other vectors")
    return f"d = {found.shape[1]}, of {size_text(subject.shape)} images"


@suite.check
def batches(subject: FeaturesSubject) -> str:
    """The vector of an image is the same alone, in a batch, and in another order."""
    expected = subject.found
    scale = float(np.abs(expected).max()) or 1.0
    ways = {"alone": [[i] for i in range(len(expected))], "in another order": [[5, 0, 7, 2]]}
    for way, parts in ways.items():
        for indices in parts:
            got = subject.network(subject.levels[indices])
            off = float(np.abs(got - expected[indices]).max()) / scale
            if not off <= WITHIN:
                raise ViolationError(
                    f"the vector of an image {way} is off by {off:.2g} of the largest value from "
                    "that in a batch of 8",
                    f"the same within {WITHIN:g}: a function of each image alone",
                )
    return f"alone and in batches within {WITHIN:g}"


@suite.check
def digest(subject: FeaturesSubject) -> str:
    """One for one network: the same when fitted again, another where the vectors are others."""
    first, again = subject.network.digest(), subject.fitted().digest()
    for word in (first, again):
        if not isinstance(word, str) or not re.fullmatch("[0-9a-f]{64}", word):
            raise ViolationError(f"the digest is {word!r}", "a sha256 in hex, 64 digits")
    if first != again:
        raise ViolationError(
            "fitted twice to one reference it has two digests", "one: vectors are kept by it"
        )
    others: dict[str, FeatureNetwork] = {"another reference": subject.other}
    for option, value in _others(subject):
        try:
            others[f"{option} = {value!r}"] = subject.fitted(**{option: value})
        except (ConfigError, DataError):
            continue
    for what, network in others.items():
        if network.digest() != first:
            continue
        if not np.array_equal(network(subject.levels), subject.found):
            raise ViolationError(
                f"with {what} the vectors are others and the digest is the same",
                "the digest of everything that decides the vectors",
            )
    return f"{first[:12]}..., of {len(others)} others"


def _others(subject: FeaturesSubject) -> Iterator[tuple[str, Any]]:
    """For each option that is a word of a list or a whole number, another value of it."""
    chosen: Mapping[str, Any] = split_spec(subject.kind, subject.spec)[1]
    factory = type(subject.build())
    hints = typing.get_type_hints(factory.__init__)
    for name, parameter in inspect.signature(factory).parameters.items():
        value = chosen.get(name, parameter.default)
        if typing.get_origin(hints.get(name)) is Literal:
            yield from ((name, other) for other in typing.get_args(hints[name]) if other != value)
        elif type(value) is int:
            yield name, value + 1


@suite.check
def reference(subject: FeaturesSubject) -> str:
    """``trained_on_reference`` says whether another reference gives other vectors."""
    learns: Any = getattr(subject.network, "trained_on_reference", None)
    if not isinstance(learns, bool):
        raise ViolationError(f"trained_on_reference is {learns!r}", "True or False")
    if not learns and not np.array_equal(subject.other(subject.levels), subject.found):
        raise ViolationError(
            "trained_on_reference is False, and another reference gives other vectors", "True"
        )
    return "learns from the reference" if learns else "comes trained"


@suite.check
def randomness(subject: FeaturesSubject) -> str:
    """Fitting and calling depend on no global random state, and move none."""
    before = probes.global_states()
    network = subject.fitted()
    network(subject.levels)
    if probes.global_states() != before:
        raise ViolationError(
            "a global random state was moved", "numbers from ssmdiff.stream(seed, purpose)"
        )
    with probes.disturbed_globals():
        other = subject.fitted()
        got = other(subject.levels)
    if other.digest() != network.digest() or not np.allclose(
        got, subject.found, rtol=0, atol=WITHIN * float(np.abs(subject.found).max())
    ):
        raise ViolationError(
            "with other global random states it is another network",
            "a function of the reference and the options alone",
        )
    return "no global random state is used or moved"


@suite.check
def untouched_input(subject: FeaturesSubject) -> str:
    """It writes to no image, and what it gave is not written to later."""
    levels = subject.levels
    first = subject.network(levels)
    kept = first.copy()
    subject.network(levels[::-1].copy())
    if not np.array_equal(levels, subject.levels):
        raise ViolationError("the images were written to", "images as they were")
    if not np.array_equal(first, kept):
        raise ViolationError(
            "vectors of an earlier call were written over by a later one", "an array of its own"
        )
    return "images and earlier vectors as they were"


@suite.check
def refusals(subject: FeaturesSubject) -> str:
    """What does not fit is refused in a sentence: other images, none to learn from."""
    channels, *sides = subject.shape
    d = subject.found.shape[1]
    shapes = [(channels + 4, *sides), (channels, 2, 2), (channels, *(2 * side for side in sides))]
    said = 0
    for shape in shapes:
        images = np.zeros((2, *shape), np.uint8)
        said += _refused(f"images {size_text(shape)}", lambda x=images: subject.network(x), 2, d)

    def learn(count: int) -> Vectors:
        network: FeatureNetwork = subject.build()
        network.fit(subject.images(count=count))
        return network(subject.levels)

    for count in (0, 1):
        said += _refused(f"a reference of {count} images", lambda n=count: learn(n), 8, None)
    return f"{said} of {len(shapes) + 2} refused, the others served"


def _refused(what: str, call: Any, count: int, d: int | None) -> bool:
    """Whether it was refused; finite vectors if not."""
    try:
        found = call()
    except (ConfigError, DataError):
        return True
    except Exception as error:
        raise ViolationError(
            f"{what}: {type(error).__name__}: {error}", "finite vectors, or an ssmdiff.ConfigError"
        ) from error
    shape: Sequence[int] = np.shape(found)
    if len(shape) != 2 or shape[0] != count or (d is not None and shape[1] != d):
        raise ViolationError(f"{what}: vectors of shape {shape}", f"({count}, {d or 'd'})")
    if not np.isfinite(found).all():
        raise ViolationError(f"{what}: values that are not finite", "an ssmdiff.ConfigError")
    return False
