"""What samples are worth to a model that learns from them: train on them, test on real images.

A small classifier (MONAI's DenseNet) is trained three times over: on real images, on as many
samples of the same classes, and on both; each is tested on the same real images of other patients.
Esteban et al. (arXiv 1706.02633) call the second row TSTR, the first TRTR.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from ssmdiff import ConfigError, Evaluation, Figure, ImageSet, Section, SetName, stream

Array = NDArray[np.float64]

VERSION = "classifier-1"
"""Part of what is kept under a name: a change that moves any figure gets a new one."""
FEW = 8
"""Images of a class below which nothing is trained or tested."""
ROWS = ("real", "samples", "both")
MEASURES = ("accuracy", "AUC")
_READ = 256
_DRAWS = 1000  # of the bootstrap


class Labelled(NamedTuple):
    """Images with their classes."""

    levels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    groups: tuple[str, ...]
    """The patient of each; of images whose patient is not known, the image itself."""

    def digest(self) -> str:
        known = hashlib.sha256(np.ascontiguousarray(self.levels).tobytes())
        known.update(self.labels.tobytes())
        return known.hexdigest()

    def and_also(self, other: Labelled) -> Labelled:
        """Both."""
        return Labelled(
            np.concatenate([self.levels, other.levels]),
            np.concatenate([self.labels, other.labels]),
            self.groups + other.groups,
        )


class Classifier:
    """Accuracy and AUC of a classifier trained on real images, on samples and on both.

    The same number of images of each class is taken of both sides, so that the first two rows
    differ in the images alone; every training has the same number of steps. Nothing is chosen by
    the held-out images, which test it.

    Args:
        images: At most so many of each side.
        steps: Optimiser steps of a training, of 32 images each.
        seeds: Trainings of a row, of other weights and batches.
        flips: Show images mirrored left to right as well; False where the side tells the class.
        device: Where it is trained.
    """

    section: Section = "use"
    needs: tuple[SetName, ...] = ("reference", "samples", "held_out")
    of_images = True

    def __init__(
        self,
        images: Annotated[int, Field(ge=2 * FEW)] = 2000,
        steps: Annotated[int, Field(ge=1, le=100_000)] = 200,
        seeds: Annotated[int, Field(ge=1, le=20)] = 3,
        flips: bool = True,
        device: str = "cpu",
    ) -> None:
        self.images, self.steps, self.seeds = images, steps, seeds
        self.flips, self.device = flips, device

    def __call__(self, evaluation: Evaluation) -> Sequence[Figure]:
        assert evaluation.held_out is not None  # it needs it
        sides = {
            "real": evaluation.reference.images,
            "samples": evaluation.samples.images,
            "held-out images": evaluation.held_out.images,
        }
        names = classes_of(sides)
        counts = {what: _counts(images, names, what) for what, images in sides.items()}
        most = np.maximum(self.images // len(names), FEW)
        each = np.minimum(np.minimum(counts["real"], counts["samples"]), most)
        real, drawn = (labelled(sides[what], names, each) for what in ("real", "samples"))
        test = labelled(sides["held-out images"], names, counts["held-out images"])
        learnt = {"real": real, "samples": drawn, "both": real.and_also(drawn)}
        trainings = len(learnt) * self.seeds
        with evaluation.progress(f"{trainings} trainings", trainings * self.steps) as done:
            found = {
                row: np.stack([self._answers(evaluation, images, test, seed, len(names), done)
                               for seed in range(self.seeds)])
                for row, images in learnt.items()
            }  # fmt: skip
        return self._figures(found, learnt, test, names, evaluation.seed)

    def _answers(
        self,
        evaluation: Evaluation,
        images: Labelled,
        test: Labelled,
        seed: int,
        classes: int,
        done: Callable[[int], None],
    ) -> NDArray[np.float32]:
        """(H, classes) probabilities that a trained classifier gives the held-out images; kept.

        ``done`` is told of each step, and of those of a training that was kept.
        """
        from ssmdiff_metrics import classifying

        options = (self.steps, self.flips, self.device, seed, evaluation.seed)
        key = f"{VERSION} {classifying.RECIPE} {options} {images.digest()} {test.digest()}"

        left = self.steps

        def step() -> None:
            nonlocal left
            left -= 1
            done(1)

        def train() -> NDArray[np.float32]:
            return classifying.answers(
                images.levels, images.labels, test.levels, classes, self.steps,
                (evaluation.seed, seed), self.flips, self.device, step,
            )  # fmt: skip

        found = evaluation.keep(key, train)
        done(left)
        return found

    def _figures(
        self,
        found: dict[str, NDArray[np.float32]],
        learnt: dict[str, Labelled],
        test: Labelled,
        names: Sequence[str],
        seed: int,
    ) -> list[Figure]:
        weights, seeds = resampled(test.groups, self.seeds, seed)
        one = np.ones((1, len(test.labels)))
        chance = (np.bincount(test.labels).max() / len(test.labels), 0.5)
        figures = []
        for measure, score, guess in zip(MEASURES, (accuracy, auc), chance, strict=True):
            at_real = None
            for row in ROWS:
                each = np.array([score(p, test.labels, one)[0] for p in found[row]])
                drawn = np.stack([score(p, test.labels, weights) for p in found[row]])
                spread = np.take_along_axis(drawn, seeds, axis=0).mean(axis=0)
                low, high = np.nanquantile(spread, [0.025, 0.975])
                value = float(each.mean())
                count = len(learnt[row].labels)
                figures.append(
                    Figure(
                        f"{measure}, trained on {row} (n = {count})",
                        value,
                        "higher",
                        (float(low), float(high)),
                        reference=at_real,
                        floor=float(guess),
                        note=f"{self.seeds} seeds, {each.min():.3f} to {each.max():.3f}; tested on "
                        f"{len(test.labels)} held-out images of {len(set(test.groups))} patients, "
                        f"classes {', '.join(names)}",
                        details={"seeds": each.tolist(), "steps": self.steps},
                    )
                )
                at_real = value if row == "real" else at_real
        return figures


def classes_of(sides: dict[str, ImageSet]) -> Sequence[str]:
    """The classes that all sides have.

    Raises:
        ConfigError: A side has none, or others.
    """
    if sides["real"].labels is None or sides["held-out images"].labels is None:
        raise ConfigError(
            "it needs classes, and the data has none; a folder of folders has them with "
            "data.dataset.labels = 'folders'"
        )
    names = list(sides["real"].class_names)
    if sides["samples"].labels is None:
        raise ConfigError(
            "it needs to know the class of each sample: those of a model that was trained with "
            "model.class_conditional = true, drawn by ssmdiff"
        )
    for what, images in sides.items():
        if sorted(images.class_names) != sorted(names):
            raise ConfigError(
                f"the classes of {what} are {', '.join(images.class_names)}; those of the data are "
                f"{', '.join(names)}"
            )
    if len(names) < 2:
        raise ConfigError(f"there is one class, {names[0]}; expected at least two to tell apart")
    return names


def _numbers(images: ImageSet, names: Sequence[str]) -> NDArray[np.int64]:
    """(N,) the class of each image as an index of ``names``."""
    own = np.array([list(names).index(name) for name in images.class_names], np.int64)
    numbers: NDArray[np.int64] = own[np.asarray(images.labels, np.int64)]
    return numbers


def _counts(images: ImageSet, names: Sequence[str], what: str) -> NDArray[np.int64]:
    """Images of each class.

    Raises:
        ConfigError: A class has fewer than eight.
    """
    found = np.bincount(_numbers(images, names), minlength=len(names))
    if found.min() < FEW:
        few = int(found.argmin())
        raise ConfigError(
            f"class {names[few]!r} has {found[few]} of {what}; expected at least {FEW} of every "
            "class"
        )
    return found


def labelled(images: ImageSet, names: Sequence[str], each: NDArray[np.int64]) -> Labelled:
    """So many images of each class: those whose pixels hash to the smallest numbers, in that order,
    so that neither depends on the order of the set."""
    numbers = _numbers(images, names)
    digests: list[bytes] = []
    for start in range(0, len(images), _READ):
        part = images.levels(range(start, min(start + _READ, len(images))))
        digests += [hashlib.sha256(one.tobytes()).digest() for one in part]
    order = sorted(range(len(images)), key=lambda i: (digests[i], numbers[i]))
    chosen = [
        i for c, count in enumerate(each) for i in [i for i in order if numbers[i] == c][:count]
    ]
    groups = images.groups
    patients = [f"image {digests[i].hex()}" if groups is None else groups[i] for i in chosen]
    return Labelled(images.levels(chosen), numbers[chosen], tuple(patients))


def accuracy(answers: NDArray[np.float32], labels: NDArray[np.int64], weights: Array) -> Array:
    """(B,) weighted shares of images whose likeliest class is theirs; weights are (B, H)."""
    right = answers.argmax(axis=1) == labels
    found: Array = weights @ right / weights.sum(axis=1)
    return found


def auc(answers: NDArray[np.float32], labels: NDArray[np.int64], weights: Array) -> Array:
    """(B,) weighted areas under the ROC curve, over classes against the rest (one of two classes)
    the plain mean; NaN where a class has no weight."""
    classes = answers.shape[1]
    each = [
        _binary(answers[:, c].astype(np.float64), labels == c, weights)
        for c in ([1] if classes == 2 else range(classes))
    ]
    found: Array = np.mean(each, axis=0)
    return found


def _binary(scores: Array, positive: NDArray[np.bool_], weights: Array) -> Array:
    """Weight of pairs (positive above negative, ties by half) over that of all pairs."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    sums = [
        np.add.reduceat(weights[:, order] * side[order], starts, axis=1)
        for side in (positive, ~positive)
    ]
    above, below = sums
    under = below.cumsum(axis=1) - below / 2
    pairs = above.sum(axis=1) * below.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = np.where(pairs > 0, (above * under).sum(axis=1) / pairs, np.nan)
    return found


def resampled(groups: Sequence[str], seeds: int, seed: int) -> tuple[Array, NDArray[np.int64]]:
    """A bootstrap over patients and trainings: (B, H) weights, and (S, B) seeds with repeats."""
    generator = stream(seed, "classifier bootstrap")
    names = sorted(set(groups))
    place = {name: i for i, name in enumerate(names)}
    times = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), _DRAWS)
    weights = times[:, [place[name] for name in groups]].astype(np.float64)
    return weights, generator.integers(0, seeds, (seeds, _DRAWS))
