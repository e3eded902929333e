"""Copies of training images are found, and images that are no copies are not called so."""

from __future__ import annotations

import numpy as np
import pytest
from sets import Images, evaluated, noise
from ssmdiff import ConfigError, Evaluated, Evaluation, create, stream, to_levels
from ssmdiff_metrics.novelty import copy_shares, copying_test

D = 16


def normal(n: int, seed: int, d: int = D) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


TRAIN, HELD_OUT = normal(400, 1), normal(200, 2)
COPIES = TRAIN[:200] + 0.02 * normal(200, 3)


def test_the_rule_is_that_of_the_paper() -> None:
    """Threshold and shares by loops over numpy's correlation coefficient."""
    train, held_out, samples = TRAIN[:60], HELD_OUT[:50], np.vstack([COPIES[:5], normal(35, 4)])
    found = copy_shares(train, held_out, samples, seed=3)

    def alike(a: np.ndarray, b: np.ndarray) -> list[float]:
        return [max(np.corrcoef(x, y)[0, 1] for y in b) for x in a]

    to_train = np.array(alike(samples, train))
    np.testing.assert_allclose(found.correlation, to_train, rtol=1e-9)
    assert found.copies == np.mean(to_train > found.threshold)
    assert found.originals[:5].tolist() == [0, 1, 2, 3, 4]
    assert found.memorised == len(set(found.originals[to_train > found.threshold].tolist())) / 60
    judges = np.sort(np.array_split(stream(3, "copies").permutation(50), 2)[0])
    assert found.threshold == pytest.approx(np.quantile(alike(train, held_out[judges]), 0.95))
    fresh = np.setdiff1d(np.arange(50), judges)
    assert found.fresh == np.mean(np.array(alike(held_out[fresh], train)) > found.threshold)


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_copies_are_caught(share: float) -> None:
    samples = normal(200, 5)
    samples[: int(200 * share)] = COPIES[: int(200 * share)]
    found = copy_shares(TRAIN, HELD_OUT, samples)
    assert found.copying
    assert found.copies >= share
    assert found.bound < found.copies
    copied = found.copied[: int(200 * share)]
    assert sorted(copied.tolist()) == list(range(int(200 * share))), "the most alike come first"
    np.testing.assert_array_equal(found.originals[copied], copied)


def test_mirrored_copies_are_caught_among_mirrored_training_images() -> None:
    mirror = normal(D, 6)  # features of a mirrored image are others
    flipped = TRAIN @ mirror
    samples = COPIES @ mirror
    assert not copy_shares(TRAIN, HELD_OUT, samples).copying
    found = copy_shares(TRAIN, HELD_OUT, samples, flipped)
    assert found.copying
    assert found.copies > 0.95


@pytest.mark.parametrize(
    ("seeds", "allowed"), [(60, 0.12), pytest.param(600, 0.07, marks=pytest.mark.slow)]
)
def test_fresh_images_are_not_called_copies(seeds: int, allowed: float) -> None:
    """False alarms over other training, held-out and fresh images each time: about 5%."""
    alarms = 0
    for seed in range(seeds):
        sides = (normal(n, 1000 * seed + n) for n in (300, 160, 120))
        alarms += copy_shares(*sides, seed=seed).copying
    assert alarms / seeds <= allowed


def test_more_training_images_raise_no_alarm_of_their_own() -> None:
    """The bias that is taken out: by the bare rule the share of fresh images grows with them."""
    train = normal(3000, 7)
    few, many = (copy_shares(t, HELD_OUT, normal(200, 8)) for t in (train[:150], train))
    assert many.copies > 2 * few.copies
    assert many.copies > 0.2
    assert not many.copying


def test_too_few_held_out_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 40 held-out"):
        copy_shares(TRAIN, HELD_OUT[:39], COPIES)


def test_the_z_score_of_copies_is_far_below_zero() -> None:
    assert copying_test(TRAIN, HELD_OUT, COPIES) < -5
    fresh = [copying_test(TRAIN, HELD_OUT, normal(200, 100 + i)) for i in range(10)]
    assert all(abs(score) < 4 for score in fresh)
    away = normal(200, 9) * 2
    assert copying_test(TRAIN, HELD_OUT, away) > 3, "farther than fresh images is above"


def test_it_has_no_score_where_no_cell_has_twenty_of_each() -> None:
    assert copying_test(TRAIN, HELD_OUT[:19], COPIES) is None
    assert copying_test(np.ones((50, D)), HELD_OUT, COPIES) is None, "nothing to partition"


def test_the_figures_say_what_was_found() -> None:
    sides = [evaluated(x.astype(np.float32)) for x in (TRAIN[:200], COPIES, HELD_OUT)]
    evaluation = Evaluation("probe", *sides)
    (copies,) = create("metric", "copies")(evaluation)
    assert copies.details["copying"]
    assert copies.value == pytest.approx(1, abs=0.01)
    assert copies.value > copies.floor == copies.details["fresh_bound"]
    assert copies.details["pairs"][0][0] == copies.details["pairs"][0][1], "its own original"
    near = {figure.name: figure for figure in create("metric", "nearness")(evaluation)}
    authentic, ratio, score = (
        near[f"{name} probe"] for name in ("authenticity", "distance ratio", "C_T")
    )
    assert authentic.value < 0.1 < authentic.reference
    assert ratio.value < 0.1
    assert ratio.interval[1] < 1
    assert score.value < -5


def heads(count: int, first: int = 0) -> Images:
    dataset = create("dataset", {"name": "phantom", "length": 400}, image_size=(16, 16))
    drawn = [dataset[first + i].image.numpy() for i in range(count)]
    return Images(to_levels(np.stack(drawn)))


REAL, FRESH = heads(120), heads(80, 200)


def judged(samples: Images, features: np.ndarray):
    sides = (TRAIN[:120], HELD_OUT[:80])
    return copy_shares(*sides, features, images=(REAL, FRESH, samples))


def test_noise_that_features_take_for_one_image_is_not_called_a_copy() -> None:
    """Noise, all of it beside one training image to the features, as `contrastive` maps it."""
    one = TRAIN[7] + 0.01 * normal(60, 30)
    found = judged(noise(60, seed=4), one)
    assert found.by_correlation == 1, "what the published rule says"
    assert found.copies == 0
    assert not found.copying
    assert copy_shares(TRAIN[:120], HELD_OUT[:80], one).copying, "without looking"


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_copies_look_like_their_originals_and_are_caught_among_noise(share: float) -> None:
    count = int(60 * share)
    drawn = np.concatenate([REAL.all[:count], noise(60 - count, seed=5).all])
    drawn = np.clip(
        drawn.astype(int) + np.random.default_rng(0).integers(-12, 13, drawn.shape), 0, 255
    )
    features = np.concatenate([TRAIN[:count], np.repeat(TRAIN[7:8], 60 - count, 0)])
    found = judged(Images(drawn.astype(np.uint8)), features + 0.01 * normal(60, 31))
    assert found.copying
    assert found.by_correlation == 1
    assert found.copies == pytest.approx(share)
    assert sorted(found.copied.tolist()) == list(range(count))


def test_a_model_that_draws_one_copy_over_and_over_is_caught() -> None:
    one = Images(np.repeat(REAL.all[7:8], 60, 0))
    found = judged(one, TRAIN[7] + 0.01 * normal(60, 32))
    assert found.copying
    assert found.copies == 1


def test_mirrored_copies_look_like_their_mirrored_originals() -> None:
    flipped = normal(120, 33)
    samples = Images(REAL.all[:60, :, :, ::-1].copy())
    found = copy_shares(
        TRAIN[:120], HELD_OUT[:80], flipped[:60], flipped, images=(REAL, FRESH, samples)
    )
    assert found.copies == 1


def test_the_figure_says_when_features_do_not_tell_samples_apart() -> None:
    sides = [
        Evaluated(images, features.astype(np.float32))
        for images, features in (
            (REAL, TRAIN[:120]),
            (noise(60, seed=4), TRAIN[7] + 0.01 * normal(60, 30)),
            (FRESH, HELD_OUT[:80]),
        )
    ]
    (figure,) = create("metric", "copies")(Evaluation("probe", *sides))
    assert figure.value == 0
    assert figure.details["share_by_correlation"] == 1
    assert "Above the threshold, whatever they look like: 1; most of those do not" in figure.note
