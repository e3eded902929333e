"""What an evaluation is made of: sets of images, feature networks and metrics; numpy alone.

    images -> features (a network, with the digest of its weights) -> metrics -> figures

A feature network turns 8-bit images into vectors, a metric judges a set of samples by them. Both
are kinds of component; the job ``evaluate`` composes them, caches what is dear, and stamps what
comes out. Axis letters: N images, d features, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ssmdiff.errors import ContractError

Section = Literal["quality", "diversity", "novelty", "use"]
SetName = Literal["reference", "samples", "held_out", "targets"]
Keep = Callable[[str, Callable[[], NDArray[Any]]], NDArray[Any]]
"""``keep(key, make)``: the array of this key as it was kept, else made now and kept. The key is a
text that holds everything that the array depends on."""


Shown = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""``with progress("trainings", 9) as done:`` and ``done(1)`` after each: how far long work is."""


def keep_nothing(key: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """A :data:`Keep` that makes it anew."""
    return make()


def show_nothing(what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    """A :data:`Shown` that nobody sees."""
    return nullcontext(lambda count: None)


class ImageSet(Protocol):
    """Images of one size as 8-bit levels, each a function of its index: of a folder, a run, data.

    Levels are what a PNG of the image holds: 0 for -1, 255 for 1, rounded to the nearest.
    """

    shape: tuple[int, ...]
    """(C, H, W)."""
    class_names: Sequence[str]
    """Empty where there are no classes."""
    groups: Sequence[str] | None
    """(N,) the patient that each image is of, None where that is not known."""

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """(N,) class of each image as an index of ``class_names``, None where it is not known."""
        ...

    def __len__(self) -> int: ...

    def levels(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """(B, C, H, W) of these images."""
        ...

    def digest(self) -> str:
        """sha256, in hex, of what the images are made from."""
        ...


class FeatureNetwork(Protocol):
    """Vectors of images; a pure function of each image alone, once it is fitted."""

    trained_on_reference: bool
    """Whether :meth:`fit` learns from the reference; False for one that comes trained."""

    def fit(self, reference: ImageSet) -> None:
        """Learn what the network needs from the reference, which the training images are. Called
        once, before any image is looked at; a network that comes trained loads its weights."""
        ...

    def __call__(self, levels: NDArray[np.uint8]) -> NDArray[np.floating]:
        """(B, C, H, W) to (B, d), float32 or float64."""
        ...

    def digest(self) -> str:
        """sha256, in hex, of weights and of everything else that decides the vectors."""
        ...


@dataclass(frozen=True)
class Evaluated:
    """A set of images under one feature network.

    Args:
        images: The images.
        features: (N, d).
    """

    images: ImageSet
    features: NDArray[np.floating]


@dataclass(frozen=True)
class Evaluation:
    """What a metric is given.

    Args:
        network: Name of the feature network.
        reference: The training images.
        samples: What is judged.
        held_out: Images of other patients that nothing was trained on, None where there are none.
        seed: For what is drawn: subsets, pairs.
        mirrored: The reference's images flipped left to right.
        keep: For arrays that are dear: ``keep("everything that decides it", lambda: array)``. Of
            ``ssmdiff evaluate`` they lie in its cache, so that an evaluation that was stopped goes
            on; by default nothing is kept.
        progress: For what takes over two seconds: ``with progress("trainings", 9) as done:`` and
            ``done(1)`` after each. Of ``ssmdiff evaluate`` it is a bar.
        targets: What each sample should have been, as many and in the same order; None where there
            are none.
    """

    network: str
    reference: Evaluated
    samples: Evaluated
    held_out: Evaluated | None = None
    seed: int = 0
    mirrored: Evaluated | None = None
    keep: Keep = keep_nothing
    progress: Shown = show_nothing
    targets: Evaluated | None = None

    def set(self, name: SetName) -> Evaluated | None:
        """One of those that a metric may need, by name."""
        found: Evaluated | None = getattr(self, name)
        return found


@dataclass(frozen=True)
class Figure:
    """One number, with what is needed to read it.

    Args:
        name: Of the number, with what it depends on: ``FD texture (n = 256)``.
        value: The number.
        better: Where a better model moves it; ``reference`` towards the value of real images.
        interval: 95%, where one is known.
        reference: What real images give by the same rule, where that is known.
        floor: What two samples of one distribution give at these counts, where that is known.
        note: A sentence: how the number was found, what it does not say.
    """

    name: str
    value: float
    better: Literal["lower", "higher", "reference"]
    interval: tuple[float, float] | None = None
    reference: float | None = None
    floor: float | None = None
    note: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not np.isfinite(self.value):
            raise ContractError(f"figure {self.name!r} is {self.value}; expected a finite number")


@dataclass(frozen=True)
class Watched:
    """What was found of a checkpoint as its run trains.

    Args:
        figures: All of them.
        best: The one that says which checkpoint is the best; None if it could not be had.
        protocol: Digest of how they were found; figures of two protocols are not compared.
    """

    figures: Sequence[Figure]
    best: Figure | None
    protocol: str


class Metric(Protocol):
    """Judges samples: ``factory(**options)`` gives one.

    One with ``of_images = True`` looks at images and labels and at no features, so it is asked once
    and not for every feature network.
    """

    section: Section
    """Where its figures stand in a report."""
    needs: tuple[SetName, ...]
    """The sets it cannot do without."""

    def __call__(self, evaluation: Evaluation) -> Sequence[Figure]:
        """Its figures.

        Raises:
            ConfigError: Too few images, or none of a kind that it needs; says what would help.
        """
        ...
