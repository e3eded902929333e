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

from ssmdiff_evaluate.features import features_of

SECTIONS = ("quality", "diversity", "novelty", "use")
FEATURES = ("texture", "contrastive", "pixels")
"""The feature networks of an evaluation that names none; they need no download."""
COPIES_NETWORK = "contrastive"
"""What copies are looked for with: an encoder that was trained to tell one image from another."""
_ON_IMAGES = ("ms-ssim",)
"""Metrics that look at the images themselves, so once and not for every network."""
RECORD = "record.json"
SEED = 0
"""Of what metrics draw, subsets and pairs; the same for all, so that figures can be compared."""
_STAMPED = ("ssmdiff", "numpy", "scipy", "scikit-image", "PyWavelets", "torch", "torchmetrics")


class Progress(Protocol):
    """Shows how far a long piece of work is."""

    def __call__(self, what: str, total: int) -> AbstractContextManager[Callable[[int], None]]: ...


@dataclass(frozen=True)
class Sets:
    """The images of an evaluation."""

    reference: ImageSet
    samples: ImageSet
    held_out: ImageSet | None = None


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


def components(
    features: Sequence[str | Mapping[str, Any]],
    metrics: Sequence[str | Mapping[str, Any]] | None,
) -> tuple[dict[str, Network], dict[str, Metric]]:
    """Feature networks and metrics by name; None is all metrics that are installed.

    Raises:
        ConfigError: A component is not there, or an option does not fit.
    """
    names = registry().names("metric") if metrics is None else metrics
    chosen = {_name(table): create("metric", table) for table in names}
    networks = {
        _name(table): Network(create("features", table), _options("features", table))
        for table in features
    }
    return networks, chosen


def judge(
    sets: Sets,
    networks: Mapping[str, Network],
    metrics: Mapping[str, Metric],
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
    for place, (network_name, chosen) in enumerate(networks.items()):
        network = chosen.network
        with progress(f"{network_name}: getting ready", 1) as done:
            network.fit(sets.reference)
            done(1)
        evaluation = _evaluation(network_name, network, sets, cache, progress)
        known[network_name] = {
            "digest": network.digest(),
            "options": chosen.options,
            "size": int(evaluation.samples.features.shape[1]),
        }
        asked = {
            name: metric
            for name, metric in metrics.items()
            if (place == 0 or name not in _ON_IMAGES)
        }
        with progress(f"{network_name}: figures", len(asked)) as done:
            for name, metric in asked.items():
                missing = [need for need in metric.needs if evaluation.set(need) is None]
                try:
                    if missing:
                        raise ConfigError(no_held_out(sets.reference))
                    found = metric(evaluation)
                except ConfigError as error:
                    refusals.append(Refusal(metric.section, name, network_name, str(error)))
                else:
                    figures += [Judged(metric.section, name, network_name, f) for f in found]
                done(1)
    figures.sort(key=lambda judged: SECTIONS.index(judged.section))
    return Record(_stamp(sets, known, origin), figures, refusals, model)


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
    name: str, network: FeatureNetwork, sets: Sets, cache: Path, progress: Progress
) -> Evaluation:
    """The sets under a network."""
    wanted = {"reference": sets.reference, "samples": sets.samples}
    if sets.held_out is not None:
        wanted["held_out"] = sets.held_out
    total = sum(map(len, wanted.values()))
    mirror = sets.held_out is not None
    with progress(f"{name}: features", total + mirror * len(sets.reference)) as done:
        found = {
            key: Evaluated(images, features_of(images, network, cache, on_images=done))
            for key, images in wanted.items()
        }
        mirrored = (
            features_of(sets.reference, network, cache, mirrored=True, on_images=done)
            if mirror
            else None
        )
    return Evaluation(
        name, found["reference"], found["samples"], found.get("held_out"), SEED, mirrored
    )


def _stamp(sets: Sets, networks: Mapping[str, Any], origin: Mapping[str, Any]) -> dict[str, Any]:
    """The protocol: what two evaluations must have in common to be compared, and the samples."""

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
            "samples": {"count": len(sets.samples), "shape": list(sets.samples.shape)},
            "levels": "8 bits, -1 is 0 and 1 is 255",
            "seed": SEED,
            "versions": {name: found[name] for name in _STAMPED if name in found},
        },
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
