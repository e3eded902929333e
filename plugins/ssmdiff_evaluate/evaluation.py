"""One evaluation: sets of images, through feature networks, to figures with a protocol stamp."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from ssmdiff import (
    ConfigError,
    Evaluated,
    Evaluation,
    FeatureNetwork,
    Figure,
    ImageSet,
    Metric,
    create,
    registry,
    versions,
)

from ssmdiff_evaluate.features import Seen, features_of, keep_in
from ssmdiff_evaluate.sets import Mirrored

SECTIONS = ("quality", "diversity", "novelty", "use")
FEATURES = ("texture", "contrastive", "pixels")
"""The feature networks of an evaluation that names none; they need no download."""
IMAGES = "images"
"""What stands for the network where a metric looks at the images themselves."""
COPIES_NETWORK = "contrastive"
"""What copies are looked for with: an encoder that was trained to tell one image from another."""
RECORD = "record.json"
SEED = 0
"""Of what metrics draw, subsets and pairs; the same for all, so that figures can be compared."""
_STAMPED = (
    *("ssmdiff", "numpy", "scipy", "scikit-image", "PyWavelets", "torch", "torchmetrics", "monai"),
)


class Progress(Protocol):
    """Shows how far a long piece of work is."""

    def __call__(self, what: str, total: int) -> AbstractContextManager[Callable[[int], None]]: ...


@dataclass(frozen=True)
class Sets:
    """The images of an evaluation."""

    reference: ImageSet
    samples: ImageSet
    held_out: ImageSet | None = None
    targets: ImageSet | None = None
    """What each sample should have been, in the order of the samples."""


@dataclass(frozen=True)
class Judged:
    """A figure with the metric and the features that it is of."""

    section: str
    metric: str
    features: str
    figure: Figure

    def to_dict(self) -> dict[str, Any]:
        return {
            "section": self.section,
            "metric": self.metric,
            "features": self.features,
            **asdict(self.figure),
        }


@dataclass(frozen=True)
class Refusal:
    """A metric that could not be asked, and why."""

    section: str
    metric: str
    features: str
    reason: str


@dataclass(frozen=True)
class Record:
    """What an evaluation found, under which protocol."""

    stamp: Mapping[str, Any]
    figures: Sequence[Judged]
    refusals: Sequence[Refusal]
    model: Mapping[str, Any] = field(default_factory=dict)
    """What is known of the model: parameters, device, images a second."""

    def to_json(self) -> str:
        return json.dumps(
            {
                "stamp": self.stamp,
                "model": self.model,
                "figures": [judged.to_dict() for judged in self.figures],
                "refusals": [asdict(refusal) for refusal in self.refusals],
            },
            indent=2,
        )

    def find(self, name: str) -> Figure:
        """The figure whose name begins so.

        Raises:
            ConfigError: There is none, or several.
        """
        found = [j.figure for j in self.figures if j.figure.name.startswith(name)]
        if len(found) != 1:
            names = ", ".join(j.figure.name for j in self.figures)
            raise ConfigError(f"{len(found)} figures begin with {name!r}; there are: {names}")
        return found[0]


@dataclass(frozen=True)
class Network:
    """A feature network and its options, for the stamp."""

    network: FeatureNetwork
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """A metric and its options, for the stamp."""

    metric: Metric
    options: Mapping[str, Any]

    @property
    def of_images(self) -> bool:
        """Whether it looks at images alone, so once and not for every network."""
        return bool(getattr(self.metric, "of_images", False))


def components(
    features: Sequence[str | Mapping[str, Any]],
    metrics: Sequence[str | Mapping[str, Any]] | None,
    targets: bool = False,
) -> tuple[dict[str, Network], dict[str, Asked]]:
    """Feature networks and metrics by name; None is :func:`usual_metrics`.

    Raises:
        ConfigError: A component is not there, or an option does not fit.
    """
    names = usual_metrics(targets) if metrics is None else metrics
    chosen = {
        _name(table): Asked(create("metric", table), _options("metric", table)) for table in names
    }
    networks = {
        _name(table): Network(create("features", table), _options("features", table))
        for table in features
    }
    return networks, chosen


def usual_metrics(targets: bool) -> list[str]:
    """Those of an evaluation that names none: of the installed ones, those that need targets where
    there are some, and the others where there are none."""
    installed = registry().names("metric")
    return [name for name in installed if ("targets" in create("metric", name).needs) == targets]


def judge(
    sets: Sets,
    networks: Mapping[str, Network],
    metrics: Mapping[str, Asked],
    cache: Path,
    origin: Mapping[str, Any],
    model: Mapping[str, Any],
    progress: Progress,
) -> Record:
    """Every metric over every feature network.

    Args:
        sets: The images.
        networks: Feature networks by name, of :func:`components`.
        metrics: Metrics by name, likewise.
        cache: Where features are kept.
        origin: How the samples came about, for the stamp.
        model: What is known of it, for comparisons.
        progress: Shows how far it is.
    """
    figures: list[Judged] = []
    refusals: list[Refusal] = []
    known: dict[str, Any] = {}

    def ask(asked: Mapping[str, Asked], evaluation: Evaluation, seen: str) -> None:
        for name, one in asked.items():
            metric = one.metric
            missing = [need for need in metric.needs if evaluation.set(need) is None]
            with progress(f"{seen}: {name}", 1) as done:
                try:
                    if missing:
                        raise ConfigError(
                            NO_TARGETS if "targets" in missing else no_held_out(sets.reference)
                        )
                    found = metric(evaluation)
                except ConfigError as error:
                    refusals.append(Refusal(metric.section, name, seen, str(error)))
                else:
                    figures.extend(Judged(metric.section, name, seen, f) for f in found)
                done(1)

    of_features = {name: one for name, one in metrics.items() if not one.of_images}
    for network_name, chosen in networks.items() if of_features else ():
        network = chosen.network
        with progress(f"{network_name}: getting ready", 1) as done:
            network.fit(sets.reference)
            done(1)
        evaluation = _evaluation(network_name, network, sets, cache, progress)
        known[network_name] = {
            "digest": network.digest(),
            "options": chosen.options,
            "size": int(evaluation.reference.features.shape[1]),
        }
        ask(of_features, evaluation, network_name)
    of_images = {name: one for name, one in metrics.items() if one.of_images}
    ask(of_images, _evaluation(IMAGES, None, sets, cache, progress), IMAGES)
    figures.sort(key=lambda judged: SECTIONS.index(judged.section))
    options = {name: one.options for name, one in metrics.items()}
    return Record(_stamp(sets, known, options, origin), figures, refusals, model)


NO_TARGETS = (
    "it needs what each image should have been; give a folder of images of the same names by "
    "--targets"
)
NO_HELD_OUT = (
    "it needs images of other patients that nothing was trained on, and the data holds none out. "
    "The built-in heads have them; a store has them by --split of ssmdiff data prepare; for a "
    "folder set data.dataset.held_out, a share or a list of files, and data.dataset.group, so that "
    "a patient is on one side alone"
)


def no_held_out(reference: ImageSet) -> str:
    """Why what needs other patients is left out."""
    if reference.groups is not None and len(set(reference.groups)) == 1:
        return (
            "it needs images of other patients that nothing was trained on, and the data is of one "
            "patient alone: how near samples come to this patient cannot be told from how near "
            "patients are to each other"
        )
    return NO_HELD_OUT


def _evaluation(
    name: str, network: FeatureNetwork | None, sets: Sets, cache: Path, progress: Progress
) -> Evaluation:
    """The sets under a network; what no metric asks for is not looked at."""

    def seen(images: ImageSet, what: str) -> Evaluated:
        def look(images: ImageSet) -> NDArray[np.floating]:
            if network is None:
                return np.empty((len(images), 0), np.float32)
            with progress(f"{name}: features of {what}", len(images)) as done:
                return features_of(images, network, cache, done)

        return Seen(images, look)

    return Evaluation(
        name,
        seen(sets.reference, "the reference"),
        seen(sets.samples, "samples"),
        None if sets.held_out is None else seen(sets.held_out, "held-out images"),
        SEED,
        seen(Mirrored(sets.reference), "the mirrored reference"),
        keep_in(cache),
        progress,
        None if sets.targets is None else seen(sets.targets, "targets"),
    )


def _stamp(
    sets: Sets,
    networks: Mapping[str, Any],
    metrics: Mapping[str, Any],
    origin: Mapping[str, Any],
) -> dict[str, Any]:
    """The protocol: what two evaluations must have in common to be compared; the metrics' options,
    which those that both asked must have in common; the samples."""

    def of(images: ImageSet | None) -> dict[str, Any] | None:
        return (
            None
            if images is None
            else {"count": len(images), "shape": list(images.shape), "digest": images.digest()}
        )

    found = versions()
    return {
        "protocol": {
            "features": networks,
            "reference": of(sets.reference),
            "held_out": of(sets.held_out),
            **({} if sets.targets is None else {"targets": of(sets.targets)}),
            "samples": {"count": len(sets.samples), "shape": list(sets.samples.shape)},
            "levels": "8 bits, -1 is 0 and 1 is 255",
            "seed": SEED,
            "versions": {name: found[name] for name in _STAMPED if name in found},
        },
        "metrics": metrics,
        "samples": {**origin, "digest": sets.samples.digest()},
    }


def protocol_digest(stamp: Mapping[str, Any]) -> str:
    """Eight letters that two evaluations share if they may be compared."""
    text = json.dumps(stamp["protocol"], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _name(table: str | Mapping[str, Any]) -> str:
    return table if isinstance(table, str) else str(table.get("name"))


def _options(kind: str, table: str | Mapping[str, Any]) -> dict[str, Any]:
    chosen = {"name": table} if isinstance(table, str) else dict(table)
    options = registry().options(kind, chosen)
    return {key: value for key, value in options.items() if key != "name"}


def nearest_pairs(record: Record, network: str = COPIES_NETWORK) -> list[tuple[int, int, float]]:
    """(sample, training image, correlation) of the most alike, by the search for copies."""
    for judged in record.figures:
        if judged.metric == "copies" and judged.features == network:
            return [(int(i), int(j), float(c)) for i, j, c in judged.figure.details["pairs"]]
    return []


def mean_and_background(images: ImageSet, count: int = 256) -> dict[str, float]:
    """Mean level of a set, -1 to 1, its spread from image to image, and the mean darkest tenth."""
    chosen = np.linspace(0, len(images) - 1, min(count, len(images))).astype(int).tolist()
    x = images.levels(chosen).astype(np.float64).reshape(len(chosen), -1) / 127.5 - 1
    means = x.mean(axis=1)
    dark = np.sort(x, axis=1)[:, : max(1, x.shape[1] // 10)].mean()
    return {"mean": float(means.mean()), "spread": float(means.std()), "darkest": float(dark)}
