"""Train on samples, test on real images: planted cases whose answer is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import ssmdiff
from numpy.typing import NDArray
from sets import Images
from sklearn.metrics import roc_auc_score
from ssmdiff import ConfigError, Evaluated, Evaluation, Figure
from ssmdiff_metrics import classifying
from ssmdiff_metrics.use import accuracy, auc, labelled, resampled
from torch import nn


def squares(count: int, seed: int, classes: int = 2) -> Images:
    """Noise with a bright square at a place that tells the class."""
    generator = np.random.default_rng(seed)
    levels = generator.integers(0, 120, (count, 1, 12, 12)).astype(np.uint8)
    labels = generator.permutation(np.arange(count) % classes)
    for image, label in zip(levels, labels, strict=True):
        image[0, 4 * label : 4 + 4 * label, 2:10] += 60
    return Images(levels, labels=labels, class_names=("a", "b", "c")[:classes])


def seen(images: Images) -> Evaluated:
    return Evaluated(images, np.zeros((len(images), 0)))


def evaluation(samples: Images, real: Images | None = None, held_out: Images | None = None):
    sides = real or squares(160, 1), samples, held_out or squares(200, 2)
    return Evaluation("images", *map(seen, sides))


def relabelled(images: Images, labels: NDArray[np.int64]) -> Images:
    return Images(images.all, images.groups, labels, images.class_names)


def shuffled(images: Images) -> Images:
    """Half of each class, at random, called the other: what is left of the class is nothing."""
    labels = images.labels.copy()
    for label in (0, 1):
        places = np.random.default_rng(label).permutation(np.flatnonzero(images.labels == label))
        labels[places[: len(places) // 2]] = 1 - label
    return relabelled(images, labels)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of one layer in MONAI's place, whose import alone takes seconds."""

    def network(channels: int, classes: int) -> nn.Module:
        flat = nn.AvgPool2d(2), nn.Flatten(), nn.BatchNorm1d(36 * channels)
        return nn.Sequential(*flat, nn.Linear(36 * channels, classes))

    monkeypatch.setattr(classifying, "densenet", network)


def figures(of: Evaluation, **options) -> dict[str, Figure]:
    table = {"name": "classifier", "steps": 40, "flips": False, **options}
    found = ssmdiff.create("metric", table)(of)
    return {figure.name.partition(" (")[0]: figure for figure in found}


@pytest.mark.usefixtures("small")
def test_samples_that_are_the_real_images_are_worth_as_much() -> None:
    real = squares(160, 1)
    order = np.random.default_rng(3).permutation(160)
    copies = Images(real.all[order], None, real.labels[order], real.class_names)
    found = figures(evaluation(copies, real))
    assert list(found) == [
        f"{measure}, trained on {row}"
        for measure in ("accuracy", "AUC")
        for row in ("real", "samples", "both")
    ]
    for measure, guess in (("accuracy", 0.5), ("AUC", 0.5)):
        on_real, on_samples = (found[f"{measure}, trained on {row}"] for row in ("real", "samples"))
        assert on_real.value > 0.9
        assert on_samples.value == on_real.value == on_samples.reference
        assert on_samples.interval == on_real.interval
        assert on_real.interval[0] <= on_real.value <= on_real.interval[1]
        assert on_real.floor == guess
        assert on_real.value == pytest.approx(np.mean(on_real.details["seeds"]))
        assert len(on_real.details["seeds"]) == 3
    assert found["AUC, trained on both"].name.endswith("(n = 320)")


@pytest.mark.usefixtures("small")
def test_samples_of_shuffled_classes_teach_nothing() -> None:
    real = squares(160, 1)
    found = figures(evaluation(shuffled(real), real))
    low, high = found["AUC, trained on samples"].interval
    assert low < 0.5 < high
    assert found["accuracy, trained on samples"].value == pytest.approx(0.5, abs=0.15)
    assert found["AUC, trained on samples"].value < found["AUC, trained on real"].interval[0]


@pytest.mark.usefixtures("small")
def test_three_classes_are_judged_over_each_against_the_rest() -> None:
    found = figures(evaluation(squares(180, 5, 3), squares(180, 1, 3), squares(120, 2, 3)))
    assert found["AUC, trained on samples"].value > 0.9
    assert found["accuracy, trained on samples"].floor == pytest.approx(1 / 3)


@pytest.mark.usefixtures("small")
def test_neither_the_order_of_a_set_nor_that_of_its_classes_moves_a_figure() -> None:
    samples = squares(160, 5)
    order = np.random.default_rng(6).permutation(160)
    names = tuple(reversed(samples.class_names))
    other = Images(samples.all[order], None, 1 - samples.labels[order], names)
    assert figures(evaluation(samples), seeds=1) == figures(evaluation(other), seeds=1)


@pytest.mark.usefixtures("small")
def test_what_was_trained_is_kept_and_another_question_is_trained_anew() -> None:
    kept: dict[str, NDArray] = {}
    made = []

    def keep(key: str, make: Callable[[], NDArray]) -> NDArray:
        if key not in kept:
            made.append(key)
            kept[key] = make()
        return kept[key]

    of = dataclasses.replace(evaluation(squares(160, 5)), keep=keep)
    first = figures(of, seeds=2, steps=3)
    assert len(made) == 6
    assert figures(of, seeds=2, steps=3) == first
    assert len(made) == 6
    figures(of, seeds=3, steps=3)
    assert len(made) == 9
    figures(dataclasses.replace(of, samples=seen(squares(160, 7))), seeds=2, steps=3)
    assert len(made) == 13, "the row of real images is the same"
    figures(of, seeds=2, steps=4)
    assert len(made) == 19


@pytest.mark.usefixtures("small")
def test_a_bar_goes_on_with_every_step_of_every_training() -> None:
    shown: list[tuple[str, int]] = []
    steps: list[int] = []

    @contextmanager
    def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
        shown.append((what, total))
        yield steps.append

    of = dataclasses.replace(evaluation(squares(160, 5)), progress=progress)
    figures(of, seeds=2, steps=3)
    assert shown == [("6 trainings", 18)]
    assert [count for count in steps if count] == [1] * 18
    steps.clear()
    ready = np.full((200, 2), 0.5, np.float32)
    figures(dataclasses.replace(of, keep=lambda key, make: ready), seeds=2, steps=3)
    assert steps == [3] * 6, "what was kept is done at once"


def test_equal_numbers_of_each_class_are_taken_of_both_sides() -> None:
    few = squares(160, 1)
    chosen = labelled(few, ("a", "b"), np.array([20, 9]))
    assert np.bincount(chosen.labels).tolist() == [20, 9]
    assert len(set(chosen.groups)) == 29


@pytest.mark.parametrize(
    ("samples", "real", "held_out", "sentence"),
    [
        (squares(40, 1), Images(squares(40, 1).all), None, "data.dataset.labels = 'folders'"),
        (squares(40, 1), None, Images(squares(40, 1).all), "data.dataset.labels = 'folders'"),
        (Images(squares(40, 1).all), None, None, "model.class_conditional = true"),
        (squares(60, 1, 3), None, None, "the classes of samples are a, b, c; .* are a, b"),
        (
            relabelled(squares(40, 1), np.zeros(40, np.int64)), None, None,
            "class 'b' has 0 of samples; expected at least 8",
        ),
        (squares(40, 1), None, squares(15, 1), "class 'b' has 7 of held-out images"),
    ],
    ids=["no classes", "no classes held out", "unconditional", "other classes", "one", "few"],
)  # fmt: skip
def test_what_cannot_be_trained_is_said_in_a_sentence(samples, real, held_out, sentence) -> None:
    with pytest.raises(ConfigError, match=sentence):
        figures(evaluation(samples, real, held_out))


def test_areas_under_curves_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 80)
    scores = np.round(generator.dirichlet(np.ones(3), 80) + 0.3 * np.eye(3)[labels], 1)  # ties
    scores = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float64)
    weights = np.stack([np.ones(80), generator.integers(0, 4, 80)]).astype(np.float64)
    for row, got in zip(weights, auc(scores, labels, weights), strict=True):
        expected = roc_auc_score(labels, scores, multi_class="ovr", sample_weight=row)
        assert got == pytest.approx(expected, abs=1e-12)
    two = scores[:, :2] / scores[:, :2].sum(axis=1, keepdims=True)
    for row, got in zip(weights, auc(two, labels % 2, weights), strict=True):
        assert got == pytest.approx(roc_auc_score(labels % 2, two[:, 1], sample_weight=row))
    assert np.isnan(auc(two, labels % 2, (labels % 2 == 1)[None].astype(float)))
    right = scores.argmax(axis=1) == labels
    np.testing.assert_allclose(
        accuracy(scores, labels, weights), [right.mean(), np.average(right, weights=weights[1])]
    )


def test_patients_are_drawn_whole() -> None:
    groups = [f"p{i // 4}" for i in range(40)]
    weights, seeds = resampled(groups, 3, 0)
    assert (weights.reshape(-1, 10, 4).std(axis=2) == 0).all()
    assert (weights.sum(axis=1) == 40).all()
    assert seeds.shape == (3, len(weights))
    assert set(seeds.ravel().tolist()) == {0, 1, 2}


@pytest.mark.slow
def test_lesions_of_the_built_in_heads() -> None:
    """Real heads teach where lesions are; the same heads with shuffled classes do not."""
    heads = ssmdiff.create("dataset", {"name": "phantom", "length": 500}, image_size=(32, 32))

    def side(dataset, count: int) -> Images:
        items = [dataset[i] for i in range(count)]
        levels = ssmdiff.to_levels(np.stack([item.image.numpy() for item in items]))
        return Images(levels, None, [item.label for item in items], dataset.class_names)

    real, held_out = side(heads, 500), side(heads.held_out, 300)
    found = figures(evaluation(shuffled(real), real, held_out), steps=150, seeds=1, flips=True)
    assert found["AUC, trained on real"].value > 0.7
    assert found["AUC, trained on real"].interval[0] > found["AUC, trained on samples"].value
    assert found["AUC, trained on samples"].value == pytest.approx(0.5, abs=0.15)
