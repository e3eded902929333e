"""The metrics: figures of a section of a report, each with what is needed to read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from ssmdiff import Evaluation, Figure, Section, SetName, stream

from ssmdiff_metrics import frechet, neighbours, novelty, ssim
from ssmdiff_metrics.kid import kernel_distance

Count = Annotated[int, Field(ge=1)]


def distance_name(network: str, count: int) -> str:
    """``FID`` over Inception of 50,000 images alone; else FD with its features and its count."""
    short = "FID" if network == "inception" else f"FD {network}"
    return short if network == "inception" and count >= 50_000 else f"{short} (n = {count})"


class FrechetDistance:
    """FD with its interval, its floor, its value at infinite n, and real half against real half.

    Args:
        blocks: Of the jackknife.
        infinite: Extrapolate to infinitely many samples, 15 distances more.
        halves: Also the distance between two halves of the reference, and the ratio to it.
    """

    section: Section = "quality"
    needs: tuple[SetName, ...] = ("reference", "samples")

    def __init__(
        self,
        blocks: Annotated[int, Field(ge=20)] = frechet.BLOCKS,
        infinite: bool = True,
        halves: bool = True,
    ) -> None:
        self.blocks, self.infinite, self.halves = blocks, infinite, halves

    def __call__(self, evaluation: Evaluation) -> Sequence[Figure]:
        real, drawn = evaluation.reference, evaluation.samples
        n, m = len(real.features), len(drawn.features)
        estimate = frechet.frechet_estimate(
            real.features, drawn.features, _enough(real.images.groups, self.blocks), self.blocks
        )
        fitted = np.linalg.eigvalsh(frechet.moments(real.features).covariance).clip(min=0)
        spectrum = frechet.unspread(fitted, n)
        formula = min(n, m) > spectrum.size
        if formula:
            floor, how = frechet.floor(spectrum, n, m), "floor by formula"
        else:
            floor, _ = frechet.simulated_floor(spectrum, n, m, evaluation.seed)
            how = (
                f"fewer images ({min(n, m)}) than features ({spectrum.size}): floor by simulation "
                "from the fitted spectrum, up to a third too low where eigenvalues fall"
            )
        figures = [
            Figure(
                distance_name(evaluation.network, m),
                estimate.value,
                "lower",
                estimate.interval,
                floor=floor,
                note=f"against {n} reference images; {how}",
            )
        ]
        if self.infinite and m >= 100:
            value, error = frechet.at_infinity(real.features, drawn.features, evaluation.seed)
            reach = 1.96 * error
            figures.append(
                Figure(
                    f"FD {evaluation.network} (n to infinity)",
                    value,
                    "lower",
                    (value - reach, value + reach),
                    note="by a line over 1/n; the interval is that of the line alone",
                )
            )
        if self.halves:
            figures += self._relative(evaluation, estimate.value, float(spectrum.sum()))
        return figures

    def _relative(self, evaluation: Evaluation, value: float, spread: float) -> list[Figure]:
        """FD over that between two halves of the reference, patients kept together; none where the
        halves do not differ by more than rounding."""
        real = evaluation.reference
        first, second = halves(len(real.features), real.images.groups, evaluation.seed)
        between = frechet.frechet_distance(real.features[first], real.features[second])
        if not between > 1e-9 * spread:
            return []
        return [
            Figure(
                f"relative FD {evaluation.network}",
                value / between,
                "lower",
                reference=1.0,
                note=f"FD over that of {len(first)} reference images against {len(second)} "
                f"others, {between:.4g}",
            )
        ]


def _enough(groups: Sequence[str] | None, blocks: int) -> Sequence[str] | None:
    """The groups, where there are enough of them for the blocks; else each image by itself."""
    return groups if groups is not None and len(set(groups)) >= 2 * blocks else None


def halves(
    n: int, groups: Sequence[str] | None, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Two random halves; images of one group are in the same, where there are four groups or more:
    either half needs two images at least."""
    apart = groups is not None and len(set(groups)) >= 4
    names = np.unique(np.asarray(groups), return_inverse=True)[1] if apart else np.arange(n)
    order = stream(seed, "halves").permutation(int(names.max()) + 1)
    first = np.isin(names, order[: len(order) // 2])
    return np.flatnonzero(first), np.flatnonzero(~first)


class KernelDistance:
    """KID, mean and spread over subsets.

    Args:
        subsets: How many.
        subset_size: Images of each, at most as many as there are.
    """

    section: Section = "quality"
    needs: tuple[SetName, ...] = ("reference", "samples")

    def __init__(
        self, subsets: Count = 100, subset_size: Annotated[int, Field(ge=2)] = 1000
    ) -> None:
        self.subsets, self.subset_size = subsets, subset_size

    def __call__(self, evaluation: Evaluation) -> Sequence[Figure]:
        real, drawn = evaluation.reference.features, evaluation.samples.features
        found = kernel_distance(real, drawn, self.subsets, self.subset_size, evaluation.seed)
        return [
            Figure(
                f"KD {evaluation.network} (n = {len(drawn)})"
                if evaluation.network != "inception"
                else f"KID (n = {len(drawn)})",
                found.mean,
                "lower",
                reference=0.0,
                note=f"{found.subsets} subsets of {found.size}, standard deviation "
                f"{found.deviation:.3g}",
                details={"deviation": found.deviation, "subset_size": found.size},
            )
        ]


class Manifold:
    """Precision, recall, density, coverage; the same of held-out images beside, where there are.

    Args:
        neighbours: k.
    """

    section: Section = "diversity"
    needs: tuple[SetName, ...] = ("reference", "samples")

    def __init__(self, neighbours: Count = 5) -> None:
        self.neighbours = neighbours

    def __call__(self, evaluation: Evaluation) -> Sequence[Figure]:
        # Equal numbers on both sides: coverage and recall move with the ratio of the counts.
        count = min(len(evaluation.reference.features), len(evaluation.samples.features))
        known = thinned(evaluation.reference.features, count)
        drawn = thinned(evaluation.samples.features, count)
        found = neighbours.manifold_scores(known, drawn, self.neighbours)
        real = None
        if evaluation.held_out is not None:
            fresh = evaluation.held_out.features
            if len(fresh) > self.neighbours:
                same = min(count, len(fresh))
                real = neighbours.manifold_scores(
                    thinned(known, same), thinned(fresh, same), self.neighbours
                )
        return [
            Figure(
                f"{name} {evaluation.network} (n = {count})",
                value,
                "reference" if name == "density" else "higher",
                reference=None if real is None else getattr(real, name),
                note=f"k = {self.neighbours}, {count} images a side",
            )
            for name, value in found._asdict().items()
        ]


def thinned(features: NDArray[np.floating], count: int) -> NDArray[np.floating]:
    """``count`` rows, evenly spread."""
    chosen: NDArray[np.floating] = features[np.linspace(0, len(features) - 1, count).astype(int)]
    return chosen


class MultiScaleSimilarity:
    """Mean MS-SSIM of pairs of samples, beside that of pairs of reference images.

    Args:
        pairs: How many of each.
    """

    section: Section = "diversity"
    needs: tuple[SetName, ...] = ("reference", "samples")
    of_images = True

    def __init__(self, pairs: Annotated[int, Field(ge=2)] = 512) -> None:
        self.pairs = pairs

    def __call__(self, evaluation: Evaluation) -> Sequence[Figure]:
        found, real = (
            ssim.pair_similarity(side.images, self.pairs, evaluation.seed)
            for side in (evaluation.samples, evaluation.reference)
        )
        reach = 1.96 * found.standard_error
        return [
            Figure(
                f"MS-SSIM of pairs ({found.scales} scale{'s' * (found.scales > 1)})",
                found.mean,
                "reference",
                (found.mean - reach, found.mean + reach),
                reference=real.mean,
                note="above the figure of real pairs: less varied than they are",
            )
        ]


class Copies:
    """Copies of training images by the 95th percentile rule, over flips, without its bias, that
    look like their originals."""

    section: Section = "novelty"
    needs: tuple[SetName, ...] = ("reference", "samples", "held_out")

    def __call__(self, evaluation: Evaluation) -> Sequence[Figure]:
        held_out = evaluation.held_out
        assert held_out is not None  # it needs it
        found = novelty.copy_shares(
            evaluation.reference.features,
            held_out.features,
            evaluation.samples.features,
            None if evaluation.mirrored is None else evaluation.mirrored.features,
            evaluation.seed,
            (evaluation.reference.images, held_out.images, evaluation.samples.images),
        )
        verdict = (
            "The samples hold copies: more of them are called so than of images that cannot be any"
            if found.copying
            else "No more samples are called copies than images that cannot be any"
        )
        return [
            Figure(
                f"copies {evaluation.network} (n = {len(evaluation.samples.features)})",
                found.copies,
                "lower",
                reference=found.fresh,
                floor=found.bound,
                note=f"{verdict}. Threshold {found.threshold:.4f}, upper 95% bound of fresh images "
                f"{found.bound:.3f}. Above the threshold, whatever they look like: "
                f"{found.by_correlation:.3g}{_unseen(found)}",
                details={
                    "copying": found.copying,
                    "threshold": found.threshold,
                    "share_by_correlation": found.by_correlation,
                    "least_alikeness": found.alikeness,
                    "fresh_share": found.fresh,
                    "fresh_bound": found.bound,
                    "memorised_share": found.memorised,
                    "pairs": [
                        [int(i), int(found.originals[i]), float(found.correlation[i])]
                        for i in np.argsort(-found.correlation)[:24]
                    ],
                },
            )
        ]


def _unseen(found: novelty.CopyShares) -> str:
    """A warning, where most of what correlates does not look like its original."""
    if found.by_correlation <= max(found.bound, 2 * found.copies):
        return ""
    return (
        "; most of those do not look like a training image, so these features do not tell such "
        "samples apart"
    )


class Nearness:
    """Authenticity, the distance ratio of training to held-out, and C_T."""

    section: Section = "novelty"
    needs: tuple[SetName, ...] = ("reference", "samples", "held_out")

    def __call__(self, evaluation: Evaluation) -> Sequence[Figure]:
        held_out = evaluation.held_out
        assert held_out is not None  # it needs it
        train, drawn, fresh = (
            side.features for side in (evaluation.reference, evaluation.samples, held_out)
        )
        ratio = neighbours.distance_ratio(train, fresh, drawn)
        middle = float(np.median(ratio))
        boot = np.median(
            ratio[stream(evaluation.seed, "ratio").integers(0, len(ratio), (1000, len(ratio)))],
            axis=1,
        )
        low, high = np.quantile(boot, [0.025, 0.975])
        figures = [
            Figure(
                f"authenticity {evaluation.network}",
                neighbours.authenticity(train, drawn),
                "higher",
                reference=neighbours.authenticity(train, fresh),
                note="share of samples whose nearest training image has a nearer one itself",
            ),
            Figure(
                f"distance ratio {evaluation.network}",
                middle,
                "reference",
                (float(low), float(high)),
                reference=1.0,
                note="median over samples, nearest training over nearest held-out image, equal "
                "numbers of both; below 1 is nearer to training",
            ),
        ]
        score = novelty.copying_test(train, fresh, drawn, seed=evaluation.seed)
        if score is not None:
            figures.append(
                Figure(
                    f"C_T {evaluation.network}",
                    score,
                    "reference",
                    reference=0.0,
                    note="a z-score; below -3 the samples are nearer to training than fresh images",
                )
            )
        return figures
