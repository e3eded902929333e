"""How a run is judged as it trains: in one way, one checkpoint after the other."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ssmdiff import (
    Config,
    ConfigError,
    FeatureNetwork,
    Figure,
    ImageDataset,
    ImageSet,
    PluginBrokenError,
    SsmdiffError,
    Watched,
    did_you_mean,
    name_of,
    open_model,
    write_atomically,
)

from ssmdiff_evaluate.evaluation import (
    Network,
    Record,
    Sets,
    components,
    judge,
    protocol_digest,
)
from ssmdiff_evaluate.job import REFERENCE, silent
from ssmdiff_evaluate.sets import DataImages, DrawnImages, processes

FEATURES = ("texture",)
METRICS = ({"name": "frechet", "infinite": False, "halves": False},)
"""What a run is judged by that names nothing: seconds, and no download."""
SEED = 0
"""Of the images, as ``ssmdiff evaluate`` has it, so that its figures are those of training."""
JUDGED = "judged"
"""The folder of a run that holds a record of each checkpoint that was judged."""


class Once:
    """A feature network that is fitted once, however often an evaluation asks."""

    def __init__(self, network: FeatureNetwork) -> None:
        self.network, self._fitted = network, False
        self.trained_on_reference = network.trained_on_reference

    def fit(self, reference: ImageSet) -> None:
        if not self._fitted:
            self.network.fit(reference)
            self._fitted = True

    def __call__(self, levels: NDArray[np.uint8]) -> NDArray[np.floating]:
        return self.network(levels)

    def digest(self) -> str:
        return self.network.digest()


class StandIn:
    """Real images in the place of samples: ``count`` of a set, from all over it, if need be again.

    Args:
        images: The set.
        count: How many.
    """

    groups: Sequence[str] | None = None

    def __init__(self, images: ImageSet, count: int) -> None:
        self.images, self.shape, self.class_names = images, images.shape, images.class_names
        total = len(images)
        self.indices = [i * total // count if total >= count else i % total for i in range(count)]

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """The classes of the real images."""
        labels = self.images.labels
        return None if labels is None else labels[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def levels(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        return self.images.levels([self.indices[i] for i in indices])

    def digest(self) -> str:
        return hashlib.sha256(f"{len(self)} of {self.images.digest()}".encode()).hexdigest()


class RunWatch:
    """Judges the checkpoints of a run by its ``train.evaluate``; an ``ssmdiff.Watch``.

    Args:
        config: Of the run.
        dataset: That it trains on.

    Raises:
        ConfigError: Its images are no pictures, or a component is not there.
    """

    def __init__(self, config: Config, dataset: ImageDataset) -> None:
        self.asked, self.dataset = config.train.evaluate, dataset
        self.every = f"train.evaluate_every = {config.train.evaluate_every}"
        if len(config.data.image_size) != 2:
            raise ConfigError(
                f"{self.every} judges pictures, and data.image_size is "
                f"{list(config.data.image_size)}; set train.evaluate_every = 0"
            )
        found, self.metrics = components(
            self.asked.features or FEATURES, self.asked.metrics or METRICS
        )
        self.networks = {
            name: Network(Once(one.network), one.options) for name, one in found.items()
        }
        self._by = ""
        # The run's folder may not be written before it is known that all this works.
        self._looked_at = tempfile.TemporaryDirectory(prefix="ssmdiff-")

    def prove(self) -> str:
        """Judge real images in the place of samples; see ``ssmdiff.Watch``."""
        try:
            known, held_out = self._real()
            samples = StandIn(known if held_out is None else held_out, self.asked.n)
            record = self._judge(samples, Path(self._looked_at.name), {})
        except SsmdiffError as error:
            raise type(error)(f"{self.every}: {error}") from error
        except Exception as error:  # whatever a stranger's metric or network raises
            raise PluginBrokenError(
                f"{self.every}: judging real images raised {name_of(error)}"
            ) from error
        for refusal in record.refusals:
            raise ConfigError(
                f"{self.every} with train.evaluate.n = {self.asked.n}: metric {refusal.metric!r} "
                f"over {refusal.features!r} cannot be had: {refusal.reason}. Try a "
                "larger n, or other metrics"
            )
        best = self._chosen([judged.figure for judged in record.figures])
        self._by = best.name
        whose = "held-out images" if held_out is not None else "images trained on"
        return (
            f"judged every {self.every.rpartition(' ')[2]} steps by {self.asked.n} images; the "
            f"best is kept by {best.name}, {best.better} is better; as many {whose} have "
            f"{best.value:.4g}"
        )

    def __call__(self, folder: Path, checkpoint: str) -> Watched | None:
        """Judge a checkpoint, and write the record; see ``ssmdiff.Watch``."""
        run = open_model(folder, checkpoint)
        sampling = run.sampling(seed=SEED)
        place = folder / JUDGED / "drawn"
        drawn = DrawnImages(run, sampling, self.asked.n, place, self.asked.batch_size)
        rank, world = processes()
        drawn.draw(rank, world)
        if rank != 0:
            return None
        cache = self._settled(folder / "evaluations" / "cache")
        record = self._judge(drawn, cache, {"path": str(folder), **drawn.stamp()})
        write_atomically(folder / JUDGED / f"{checkpoint}.json", record.to_json().encode())
        for other in place.iterdir():  # those of this checkpoint stay, should the run be killed
            if other != drawn.folder:
                shutil.rmtree(other)
        figures = [judged.figure for judged in record.figures]
        best = next((figure for figure in figures if figure.name == self._by), None)
        return Watched(figures, best, protocol_digest(record.stamp))

    def _real(self) -> tuple[DataImages, DataImages | None]:
        """The reference and what is held out; anew each time, so that no pixels are kept."""
        fresh = getattr(self.dataset, "held_out", None)
        return (
            DataImages(self.dataset, REFERENCE, "the data of the run"),
            None if fresh is None else DataImages(fresh, REFERENCE, "held out"),
        )

    def _judge(self, samples: ImageSet, cache: Path, origin: dict[str, Any]) -> Record:
        known, held_out = self._real()
        needed = any("held_out" in asked.metric.needs for asked in self.metrics.values())
        sets = Sets(known, samples, held_out if needed else None)
        return judge(sets, self.networks, self.metrics, cache, origin, {}, silent)

    def _settled(self, cache: Path) -> Path:
        """The run's cache of features, with what was looked at before there was a run."""
        before = Path(self._looked_at.name)
        for path in before.rglob("*.npy"):
            target = cache / path.relative_to(before)
            if not target.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(target, path.read_bytes())
            path.unlink()
        return cache

    def _chosen(self, figures: Sequence[Figure]) -> Figure:
        """The figure that the best checkpoint is kept by.

        Raises:
            ConfigError: There is none of that name, or several, or it has no better side.
        """
        asked = self.asked.best
        exact = [figure for figure in figures if figure.name == asked]
        found = exact or [figure for figure in figures if figure.name.startswith(asked)]
        names = [figure.name for figure in figures]
        if not found:
            raise ConfigError(
                f"train.evaluate.best = {asked!r}: there is no such figure; "
                f"{did_you_mean(asked, names)}"
            )
        if asked and len(found) > 1:
            raise ConfigError(
                f"train.evaluate.best = {asked!r} may be {' or '.join(f.name for f in found)}; "
                "give more of its name"
            )
        if found[0].better == "reference":
            raise ConfigError(
                f"{found[0].name} is best where real images have it, so no checkpoint is the best "
                "by it alone; set train.evaluate.best to a figure that is better lower or higher. "
                f"There are: {', '.join(names)}"
            )
        return found[0]
