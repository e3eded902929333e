"""What a metric must do: figures that are a function of the sets of images, not of their order."""

from __future__ import annotations

import dataclasses
import functools
import json
import typing
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmdiff.errors import ConfigError, DataError
from ssmdiff.runs.evaluation import Evaluated, Evaluation, Figure, Metric, Section, SetName
from ssmdiff.testing import probes
from ssmdiff.testing.probe_images import chosen, probe_evaluation
from ssmdiff.testing.report import NotApplicableError, ViolationError
from ssmdiff.testing.suite import Subject, Suite

COUNTS = (128, 512)
WITHIN = 1e-6
"""Between two orders of the samples, relative: what sums in another order round off."""
FAR = 3.0


class MetricSubject(Subject):
    """A metric, over sets of the first size that it takes."""

    _refusal = ""

    @functools.cached_property
    def metric(self) -> Metric:
        metric: Metric = self.build()
        return metric

    @functools.cached_property
    def evaluation(self) -> Evaluation:
        """Raises NotApplicableError: it refuses every size. Says why once."""
        if self._refusal:
            raise NotApplicableError(self._refusal)
        for count in COUNTS:
            evaluation = probe_evaluation(count)
            try:
                self.metric(evaluation)
            except (ConfigError, DataError) as error:
                reason = error
                continue
            return evaluation
        self._refusal = "no size is taken, as above"
        raise NotApplicableError(f"refuses {COUNTS[-1]} images a set: {reason}")

    @property
    def count(self) -> int:
        return len(self.evaluation.samples.features)

    @functools.cached_property
    def found(self) -> list[Figure]:
        return list(self.metric(self.evaluation))


suite = Suite("metric", MetricSubject)


def _values(found: Sequence[Figure]) -> dict[str, float]:
    return {figure.name: figure.value for figure in found}


@suite.check
def protocol(subject: MetricSubject) -> str:
    """``section`` is one of a report's, ``needs`` names sets."""
    section: Any = getattr(subject.metric, "section", None)
    if section not in typing.get_args(Section):
        raise ViolationError(
            f"section is {section!r}", f"one of {', '.join(typing.get_args(Section))}"
        )
    needs: Any = getattr(subject.metric, "needs", None)
    sets = typing.get_args(SetName)
    if not isinstance(needs, tuple) or not set(needs) <= set(sets) or "samples" not in needs:
        raise ViolationError(f"needs is {needs!r}", f"a tuple of {', '.join(sets)}, samples in it")
    return f"{section}, from {', '.join(needs)}"


@suite.check
def figures(subject: MetricSubject) -> str:
    """Figures are finite, each with a name of its own, and can be written as JSON."""
    found = subject.found
    if not found or not all(isinstance(figure, Figure) for figure in found):
        raise ViolationError(f"it returns {found!r}", "at least one ssmdiff.Figure")
    names = [figure.name for figure in found]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ViolationError(f"{', '.join(twice)} stands there twice", "names that differ")
    for figure in found:
        low, high = figure.interval or (figure.value, figure.value)
        numbers = [low, high, figure.reference, figure.floor]
        if not all(np.isfinite(number) for number in numbers if number is not None):
            raise ViolationError(
                f"{figure.name!r} has interval {figure.interval}, reference {figure.reference}, "
                f"floor {figure.floor}",
                "finite numbers, or None",
            )
        if low > high:
            raise ViolationError(f"{figure.name!r} has interval {figure.interval}", "(low, high)")
        if figure.better not in ("lower", "higher", "reference"):
            raise ViolationError(
                f"{figure.name!r} is better {figure.better!r}", "lower, higher or reference"
            )
        try:
            json.dumps(dataclasses.asdict(figure), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ViolationError(
                f"{figure.name!r} cannot be written: {error}", "plain values in the record"
            ) from error
    return ", ".join(names)


@suite.check
def names(subject: MetricSubject) -> str:
    """Figures of two feature networks are told apart by their names, or are the same figures."""
    subject.evaluation  # noqa: B018  whether it can be run is known
    others = _values(subject.metric(probe_evaluation(subject.count, "other")))
    mixed = [f.name for f in subject.found if others.get(f.name, f.value) != f.value]
    if mixed:
        raise ViolationError(
            f"{mixed[0]!r} is the name of two figures, over two feature networks",
            "evaluation.network in the name",
        )
    return f"{len(others)} figures of another network"


@suite.check
def determinism(subject: MetricSubject) -> str:
    """A seed gives one set of figures, whatever the global random states, which it leaves alone."""
    expected = _values(subject.found)
    before = probes.global_states()
    metric: Metric = subject.build()
    again = _values(metric(subject.evaluation))
    if probes.global_states() != before:
        raise ViolationError(
            "a global random state was moved", "numbers from ssmdiff.stream(evaluation.seed, ...)"
        )
    with probes.disturbed_globals():
        disturbed = _values(metric(subject.evaluation))
    for got, when in ((again, "when it is asked again"), (disturbed, "with other global states")):
        if got != expected:
            raise ViolationError(f"the figures differ {when}: {got}", f"{expected}")
    return f"{len(expected)} figures, the same three times"


@suite.check
def untouched_input(subject: MetricSubject) -> str:
    """It writes to no features."""
    names: tuple[SetName, ...] = typing.get_args(SetName)
    sides = [side for name in names if (side := subject.evaluation.set(name))]
    before = [side.features.copy() for side in sides]
    subject.metric(subject.evaluation)
    for name, side, kept in zip(names, sides, before, strict=True):
        if not np.array_equal(side.features, kept):
            raise ViolationError(f"the features of {name} were written to", "features as they were")
    return "features as they were"


@suite.check
def order(subject: MetricSubject) -> str:
    """The order of the samples moves no figure, or within its interval where pairs are drawn."""
    evaluation = subject.evaluation
    shuffled = np.random.default_rng(5).permutation(subject.count)
    samples = chosen(evaluation.samples, shuffled.tolist())
    targets = evaluation.targets and chosen(evaluation.targets, shuffled.tolist())
    moved = dataclasses.replace(evaluation, samples=samples, targets=targets)
    others = _values(subject.metric(moved))
    for figure in subject.found:
        low, high = figure.interval or (figure.value, figure.value)
        allowed = max(high - low, WITHIN * max(abs(figure.value), 1e-3))
        off = abs(others.get(figure.name, np.inf) - figure.value)
        if not off <= allowed:
            raise ViolationError(
                f"{figure.name!r} moves by {off:.2g} with the order of the samples",
                f"at most {allowed:.2g}: a figure of a set, or an interval that says how sure it "
                "is",
            )
    return f"{len(others)} figures hold"


@suite.check
def ranking(subject: MetricSubject) -> str:
    """The reference itself is judged no worse than images far from it, as to quality."""
    if subject.metric.section != "quality":
        raise NotApplicableError(f"it judges {subject.metric.section}, not quality")
    evaluation = subject.evaluation
    same = subject.metric(dataclasses.replace(evaluation, samples=evaluation.reference))
    far = _values(subject.metric(probe_evaluation(subject.count, away=FAR)))
    sign = {"lower": 1, "higher": -1}
    ranked = [figure for figure in same if figure.better in sign and figure.name in far]
    for figure in ranked:
        if sign[figure.better] * (figure.value - far[figure.name]) > 0:
            raise ViolationError(
                f"{figure.name!r} is {figure.value:.4g} of the reference itself and "
                f"{far[figure.name]:.4g} of images far from it, and better is {figure.better}",
                "the reference no worse",
            )
    if not ranked:
        raise NotApplicableError("no figure is better lower or higher")
    return ", ".join(f"{f.name}: {f.value:.3g} and {far[f.name]:.3g}" for f in ranked)


@suite.check
def fewer_sets(subject: MetricSubject) -> str:
    """It does without what it does not need: held-out, targets, groups, mirrored features."""
    evaluation, everyone = subject.evaluation, range(subject.count)
    held_out, targets = (
        evaluation.set(name) if name in subject.metric.needs else None
        for name in ("held_out", "targets")
    )

    def bare(side: Evaluated) -> Evaluated:
        return chosen(side, everyone, groups=False)

    found = subject.metric(
        dataclasses.replace(
            evaluation,
            reference=bare(evaluation.reference),
            samples=bare(evaluation.samples),
            held_out=held_out and bare(held_out),
            targets=targets and bare(targets),
            mirrored=None,
        )
    )
    if not found:
        raise ViolationError("no figure", "figures of the sets that it needs")
    return f"{len(found)} figures of what it needs alone"


@suite.check
def few_images(subject: MetricSubject) -> str:
    """Too few images are refused in a sentence."""
    evaluation, refused = subject.evaluation, 0
    needs = subject.metric.needs
    cases = [(name, count) for name in needs for count in (0, 1, 2)]
    for name, count in cases:
        side = evaluation.set(name)
        assert side is not None
        few: Any = {name: chosen(side, range(count))}
        if name == "reference" and evaluation.mirrored is not None:
            few["mirrored"] = chosen(evaluation.mirrored, range(count))
        try:
            subject.metric(dataclasses.replace(evaluation, **few))
        except (ConfigError, DataError):
            refused += 1
        except Exception as error:
            raise ViolationError(
                f"{count} images of {name}: {type(error).__name__}: {error}",
                "figures, or an ssmdiff.ConfigError that says how many it needs",
            ) from error
    return f"{refused} of {len(cases)} refused, the others judged"
