"""The job ``evaluate``: opens what is judged and what it is judged by, and writes the evaluation.

``ssmdiff.job("evaluate")`` is :data:`evaluate`.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssmdiff import (
    Config,
    ConfigError,
    Guidance,
    ImageDataset,
    ImageModel,
    build_dataset,
    create,
    did_you_mean,
    open_model,
    registry,
    write_atomically,
)

from ssmdiff_evaluate import cost
from ssmdiff_evaluate.evaluation import (
    FEATURES,
    RECORD,
    Progress,
    Record,
    Sets,
    components,
    judge,
)
from ssmdiff_evaluate.likelihood import bits_of, refuse_bits
from ssmdiff_evaluate.sets import (
    SAMPLES_RECORD,
    DataImages,
    DrawnImages,
    SampledFolder,
    processes,
)
from ssmdiff_evaluate.targets import names_of, size_of_first, targets_of

if TYPE_CHECKING:
    from ssmdiff_evaluate.watching import RunWatch

CONFIG = "config.toml"
REFERENCE = 10_000
"""Reference images that are looked at unless more are asked for."""


class Evaluate:
    """Called, it evaluates; ``ssmdiff evaluate`` in Python."""

    def __call__(
        self,
        model: str | Path | Opened,
        against: str | Path | Mapping[str, Any] | None = None,
        out: str | Path | None = None,
        *,
        n: int = 256,
        features: Sequence[str | Mapping[str, Any]] = FEATURES,
        metrics: Sequence[str | Mapping[str, Any]] | None = None,
        reference: int = REFERENCE,
        seed: int = 0,
        steps: int | None = None,
        scheduler: str | Mapping[str, Any] | None = None,
        checkpoint: str | None = None,
        batch_size: int = 64,
        show_real: bool = False,
        bits: int = 0,
        progress: bool = False,
        targets: str | Path | None = None,
        told: Mapping[str, Any] | None = None,
        guidance: Guidance | float | None = None,
    ) -> Record:
        """Judge the images of a model, and write the evaluation.

        Args:
            model: A run's folder, an exported file, a folder of ``ssmdiff sample``, or any folder
                of images of the reference's size.
            against: The reference: a run (its data), a data set by name or as a table with options,
                a folder of images. By default the data of the run.
            out: Where the evaluation goes; ``RUN/evaluations/NAME`` of a run, else
                ``evaluations/NAME``.
            n: Images drawn of a model; of a folder, how many are looked at.
            features: Feature networks, by name or as tables with options.
            metrics: Metrics likewise; None for all that are installed, with targets for those that
                need them.
            reference: Reference images at most, evenly spread.
            seed: Of the images.
            steps: Sampling steps; by default the model's.
            scheduler: A noise scheduler; by default the model's.
            checkpoint: Of a run; the newest by default.
            batch_size: Images drawn at once.
            show_real: Put real images on the page though their data is not marked open.
            bits: Of so many real images, held out if there are some, tell bits per dimension under
                the model: of a flow its likelihood, of a diffusion L_vb.
            progress: Show bars.
            targets: A folder with what each image of a folder should have been, by the same name;
                it is the reference too, unless one is given.
            told: What the images are told, as :meth:`ssmdiff.ImageModel.sample` takes it; by
                default names in turn, numbers all over their range, masks and images of the run's
                held-out data.
            guidance: How strongly they are led there: 1 is not at all.

        Returns:
            The record; it is in ``out`` too, with tables, plots and one HTML page.

        Raises:
            ConfigError: There is nothing to judge by, or a component or number does not fit.
            DataError: An image cannot be read.
            DivergedError: A drawn image is not finite.
        """
        from ssmdiff_evaluate.page import write_outcome

        if n < 2:
            raise ConfigError(f"n is {n}; expected at least two images to judge")
        paired = targets is not None
        networks, asked_metrics = components(features, metrics, paired)  # before work is done
        opened = model if isinstance(model, Opened) else Opened(Path(model), checkpoint)
        model = opened.path
        asked: dict[str, Any] = {"scheduler": scheduler, "steps": steps, "checkpoint": checkpoint}
        if not isinstance(guidance, Guidance | None):
            guidance = Guidance(guidance)
        asked |= {"tell": told or None, "guidance": guidance}
        opened.refuse_drawn([f"--{name}" for name, value in asked.items() if value is not None])
        folder = Path(out) if out is not None else default_folder(opened, n, seed, told, guidance)
        if bits:
            refuse_bits(opened.model)
        wanted = None if targets is None else _targets(model, n, Path(targets))
        if wanted is not None and against is None:
            dataset, known, source, is_open, fresh = None, wanted, wanted.name, False, None
        else:
            dataset, source, is_open = self._data(opened, against)
            known = DataImages(dataset, reference, source)
            held_out = getattr(dataset, "held_out", None)
            fresh = None if held_out is None else DataImages(held_out, reference, "held out")
        bars = _Bars() if progress and processes()[0] == 0 else silent
        samples, origin, facts = self._samples(
            opened, known, n, seed, batch_size, asked, folder, bars
        )
        if samples.shape != known.shape:
            raise ConfigError(
                f"the samples are {samples.shape} and the reference {source} is {known.shape}; "
                "expected one size. Give the data that the model was trained on by --against"
            )
        if processes()[0] != 0:
            return Record({}, (), ())  # this process drew its part; the first one judges
        if bits:
            facts |= bits_of(opened.model, dataset, bits, seed)
        sets = Sets(known, samples, fresh, wanted)
        cache = folder.parent / "cache"
        record = judge(sets, networks, asked_metrics, cache, origin, facts, bars)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / RECORD, record.to_json().encode())
        write_outcome(folder, model, record, sets, source, show_real, is_open)
        return record

    def watch(self, config: Config, dataset: ImageDataset) -> RunWatch:
        """What judges a run of this configuration as it trains; see ``ssmdiff.Watch``."""
        from ssmdiff_evaluate.watching import RunWatch

        return RunWatch(config, dataset)

    def _data(
        self, opened: Opened, against: str | Path | Mapping[str, Any] | None
    ) -> tuple[Any, str, bool]:
        """The reference, what it is called, and whether its images may be shown."""
        model = opened.path
        if isinstance(against, Mapping):
            dataset = create("dataset", against, image_size=opened.image_size)
            options = ", ".join(f"{k} = {v!r}" for k, v in against.items() if k != "name")
            source = f"{against['name']}{f' with {options}' if options else ''}"
            return dataset, source, bool(getattr(dataset, "is_open", False))
        if against is None:
            if not (model / CONFIG).is_file():
                raise ConfigError(
                    f"{model} does not say what it was trained on; give the reference by "
                    "--against: a run, a data set such as phantom, or a folder of images"
                )
            against = model
        path = Path(against)
        if (path / CONFIG).is_file():
            config: Config = _config_of(path)
            name = str(config.data.dataset["name"])
            dataset, source = build_dataset(config), f"the data of {path} ({name})"
        elif str(against) in registry().names("dataset"):
            dataset = create("dataset", str(against), image_size=opened.image_size)
            source = str(against)
        elif path.is_dir():
            kind = "store" if (path / "store.json").is_file() else "folder"
            table = {"name": kind, "path": str(path)}
            dataset, source = create("dataset", table, image_size=opened.image_size), str(against)
        else:
            near = did_you_mean(str(against), registry().names("dataset"))
            raise ConfigError(
                f"--against {against}: there is no such run, folder or data set; {near}"
            )
        return dataset, source, bool(getattr(dataset, "is_open", False))

    def _samples(
        self,
        opened: Opened,
        reference: DataImages,
        n: int,
        seed: int,
        batch_size: int,
        asked: Mapping[str, Any],
        folder: Path,
        progress: Progress,
    ) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """What is judged, how it came about, and what is known of the model."""
        model = opened.path
        if opened.is_drawn:
            if (model / SAMPLES_RECORD).is_file():
                found = SampledFolder(model, n)
                return found, found.stamp(), {}
            size = reference.shape[1:]
            images = create("dataset", _folder(model), image_size=size)
            return DataImages(images, n, str(model)), {"folder": str(model)}, {}
        trained = opened.model
        sampling = trained.sampling(asked["scheduler"], asked["steps"], seed, told=asked["tell"])
        sampling = trained.guided(sampling, asked["guidance"])
        drawn = DrawnImages(trained, sampling, n, folder.parent / "drawn", batch_size)
        rank, world = processes()
        device = str(getattr(trained, "device", "cpu"))
        bar = progress(f"drawing {n} images", len(range(rank, n, world)))
        with bar as done, cost.measured(device) as spent:
            count = drawn.draw(rank, world, done)
        if rank == 0:
            if count:
                cost.note_drawing(drawn.folder, count, spent, device, world)
            facts = cost.facts_of(trained, sampling) | cost.drawing_of(drawn.folder)
            if not sampling.guidance.is_none:
                facts[cost.GUIDANCE] = sampling.guidance.scale
        else:
            facts = {}
        return drawn, {"path": str(model), **drawn.stamp()}, facts


def _targets(model: Path, n: int, targets: Path) -> DataImages:
    """What the images of a folder should have been, in the order in which they are judged.

    Raises:
        ConfigError: No folder of images is judged, or an image has no target.
    """
    if not model.is_dir() or (model / CONFIG).is_file():
        raise ConfigError(
            f"--targets {targets}: {model} is no folder of images, so none of them has a target by "
            "its name. Translate images with it first: ssmdiff translate"
        )
    if (model / SAMPLES_RECORD).is_file():
        sampled = SampledFolder(model, n)
        return targets_of(names_of(sampled), targets, sampled.shape, sampled.reading)
    images = create("dataset", _folder(model), image_size=size_of_first(model))
    judged = DataImages(images, n, str(model))
    return targets_of(names_of(judged), targets, judged.shape, {})


def _folder(path: Path) -> dict[str, str]:
    return {"name": "folder", "path": str(path)}


evaluate = Evaluate()


def default_folder(
    opened: Opened,
    n: int,
    seed: int,
    told: Mapping[str, Any] | None = None,
    guidance: Guidance | None = None,
) -> Path:
    """``RUN/evaluations/seed-0-n-256``, or beside the folder that one calls from; of images that
    are told or led otherwise ``seed-0-n-256-guidance-2``, with eight letters of what is told."""
    model, name = opened.path, f"seed-{seed}-n-{n}"
    chosen = guidance or Guidance()
    if not chosen.is_none:
        name += f"-guidance-{chosen.scale:g}"
    if told or not (chosen.is_none or chosen == Guidance(chosen.scale)):
        conditions = opened.model.conditions
        asked = conditions.asked(told or {}) if conditions else opened.model.asked(told=told)
        words = [conditions.recorded_asked(asked), chosen.record(conditions)]
        text = json.dumps(words, sort_keys=True)
        name += f"-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    if (model / CONFIG).is_file():
        return model / "evaluations" / name
    return Path("evaluations") / f"{model.name}-{name}"


class Opened:
    """What is judged, opened once and when it is first needed.

    Args:
        path: A run, an exported file, a folder of images.
        checkpoint: Of a run; None is the newest.
    """

    def __init__(self, path: Path, checkpoint: str | None) -> None:
        self.path, self.checkpoint = path, checkpoint

    @property
    def is_drawn(self) -> bool:
        """Whether it is a folder of images."""
        return self.path.is_dir() and not (self.path / CONFIG).is_file()

    def refuse_drawn(self, flags: Sequence[str]) -> None:
        """Refuse flags that say how images are drawn where they are there.

        Raises:
            ConfigError: They are.
        """
        if flags and self.is_drawn:
            raise ConfigError(
                f"{', '.join(flags)}: {self.path} holds images that are drawn already; give the "
                "run or the file that draws them"
            )

    @functools.cached_property
    def model(self) -> ImageModel[Any]:
        """A run, or an exported file."""
        return open_model(self.path, self.checkpoint)

    @property
    def image_size(self) -> tuple[int, ...]:
        """(H, W)."""
        if (self.path / SAMPLES_RECORD).is_file():
            return SampledFolder(self.path, 1).shape[1:]
        if (self.path / CONFIG).is_file() or not self.path.is_dir():
            return tuple(self.model.shape[1:])
        raise ConfigError(
            f"{self.path} is a folder of images of any size; give a run by --against, whose data "
            "says the size that images are read at"
        )


def _config_of(path: Path) -> Config:
    from ssmdiff import RunFolder

    return RunFolder(path).config()


@contextmanager
def silent(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Progress that is not shown."""
    yield lambda _: None


class _Bars:
    """Bars on the terminal; one that begins while another is there stands below it."""

    def __init__(self) -> None:
        self._shown: Any = None

    @contextmanager
    def __call__(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        if self._shown is not None:
            bar = self._shown
            task = bar.add_task(what, total=total)
            yield lambda count: bar.advance(task, count)
            bar.remove_task(task)
            return
        from rich.console import Console
        from rich.progress import Progress as Bar

        with Bar(console=Console(stderr=True), transient=True) as self._shown:
            try:
                with self(what, total) as done:
                    yield done
            finally:
                self._shown = None
