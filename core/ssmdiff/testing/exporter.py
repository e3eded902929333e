"""What an exporter must do: write a trained model whole or not at all, know it again, sample it."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssmdiff.errors import ConfigError, ExportError, SsmdiffError
from ssmdiff.runs.exporting import ExportRequest, ExportResult
from ssmdiff.runs.run import Run
from ssmdiff.testing.probe_run import TOLD, make_run, probe_parts
from ssmdiff.testing.report import NotApplicableError, ViolationError
from ssmdiff.testing.suite import Subject, Suite

IMAGES, STEPS, SEED = 3, 3, 5
WITHIN = 1 / 255
"""Between an image of the file and the run's: half a level of 8 bits."""


class ExporterSubject(Subject):
    """An exporter, a run of a small untrained network, and what the one made of the other."""

    def __init__(self, kind: str, spec: str | Mapping[str, Any]) -> None:
        super().__init__(kind, spec)
        self.exporter = self.build()
        self._place = tempfile.TemporaryDirectory()  # removed with the subject
        self.folder = Path(self._place.name)

    @functools.cached_property
    def run(self) -> Run:
        with probe_parts():
            return make_run(self.folder / "run")

    @property
    def suffix(self) -> str:
        """Of its files; empty for a folder."""
        return next(iter(getattr(self.exporter, "suffixes", ())), "")

    @functools.cached_property
    def before(self) -> tuple[dict[str, torch.Tensor], bool]:
        """The network's weights before anything was exported, and whether it was in training."""
        model = self.run.model
        return {name: tensor.clone() for name, tensor in model.state_dict().items()}, model.training

    @functools.cached_property
    def result(self) -> ExportResult:
        """What the exporter says it wrote to :attr:`target`, over an older file."""
        self.before  # noqa: B018  noted first
        self.target.parent.mkdir(exist_ok=True)
        if self.suffix:
            self.target.write_text("of an older export")
        try:
            return self.export(self.target, overwrite=True)
        except (ConfigError, ExportError) as error:
            if isinstance(error, ExportError) and not isinstance(error.__cause__, ImportError):
                raise
            shutil.rmtree(self.target.parent)
            raise NotApplicableError(f"cannot write here: {error}") from error

    @property
    def target(self) -> Path:
        return self.folder / "out" / f"probe{self.suffix}"

    def export(self, out: Path, overwrite: bool = False) -> ExportResult:
        request = ExportRequest(self.run, out, overwrite=overwrite)
        with probe_parts():
            result: ExportResult = self.exporter.export(request)
        return result

    def open(self, path: Path) -> Any:
        with probe_parts():
            return self.exporter.open(path)

    @functools.cached_property
    def opened(self) -> Any:
        self.result  # noqa: B018  written before it is opened
        try:
            return self.open(self.target)
        except ConfigError as error:
            raise NotApplicableError(f"cannot open here: {error}") from error

    def draw(self, model: Any, seed: int = SEED, **told: Any) -> np.ndarray:
        """(n, C, *image_size) of a run or of an opened file."""
        with probe_parts():
            told = {**TOLD, **told}
            return np.asarray(model.sample(IMAGES, seed=seed, steps=STEPS, told=told))

    def recognise(self, path: Path) -> bool:
        """What the exporter says of a path."""
        found = self.exporter.recognises(path)
        if not isinstance(found, bool):
            raise ViolationError(f"recognises returns {found!r}", "True or False")
        return found

    def copied(self, name: str) -> Path:
        """The target once more under another name."""
        self.result  # noqa: B018  written before it is copied
        copy = self.folder / "copied" / name
        copy.parent.mkdir(exist_ok=True)
        if self.target.is_dir():
            shutil.copytree(self.target, copy)
        else:
            shutil.copyfile(self.target, copy)
        return copy


suite = Suite("exporter", ExporterSubject)


@suite.check
def protocol(subject: ExporterSubject) -> str:
    """It has what ``ssmdiff export`` and ``ssmdiff sample`` call."""
    for name in ("export", "recognises", "open"):
        if not callable(getattr(subject.exporter, name, None)):
            raise ViolationError(f"there is no method {name!r}", "the methods of ssmdiff.Exporter")
    suffixes: Any = getattr(subject.exporter, "suffixes", None)
    sound = isinstance(suffixes, tuple) and all(
        isinstance(suffix, str) and suffix.startswith(".") for suffix in suffixes
    )
    if not sound:
        raise ViolationError(
            f"suffixes is {suffixes!r}",
            "a tuple such as ('.onnx',), empty for a folder",
        )
    return f"writes {', '.join(suffixes) or 'a folder'}"


@suite.check
def files(subject: ExporterSubject) -> str:
    """It replaces what it may, says what it wrote, and leaves nothing else."""
    result = subject.result
    if not isinstance(result, ExportResult):
        raise ViolationError(f"export returns a {type(result).__name__}", "an ssmdiff.ExportResult")
    said = {Path(path) for path in result.files}
    found = {path for path in subject.target.parent.rglob("*") if path.is_file()}
    unsaid = sorted(str(path.name) for path in found if not said & {path, *path.parents})
    missing = sorted(str(path) for path in said if not path.exists())
    if missing or unsaid or not found or not subject.target.exists():
        raise ViolationError(
            f"files {[path.name for path in said]}, and on disk {[path.name for path in found]}",
            f"what is on disk, all of it, {subject.target.name} among it",
        )
    if not isinstance(result.lines, tuple) or not all(isinstance(x, str) for x in result.lines):
        raise ViolationError(f"lines is {result.lines!r}", "a tuple of sentences for the user")
    size = sum(path.stat().st_size for path in found)
    return f"{len(found)} file{'s' * (len(found) > 1)}, {size / 1000:.0f} kB"


@suite.check
def untouched_run(subject: ExporterSubject) -> str:
    """The run is what it was: its weights, and whether it is in training."""
    before, training = subject.before
    subject.result  # noqa: B018  exported in between
    after = subject.run.model.state_dict()
    for name, tensor in before.items():
        if after[name].dtype != tensor.dtype or not torch.equal(after[name], tensor):
            raise ViolationError(
                f"{name} of the run's model changed", "a copy that is changed in its place"
            )
    if subject.run.model.training != training:
        raise ViolationError("the run's model changed its mode", "the mode that it was in")
    return f"{len(before)} tensors as they were"


@suite.check
def recognition(subject: ExporterSubject) -> str:
    """It knows its own by content, whatever their name, and nothing else by its name."""
    own = subject.copied("renamed.file")
    for path in (subject.target, own):
        if not subject.recognise(path):
            raise ViolationError(
                f"its own {path.name} is not recognised", "True, by what the file holds"
            )
    strange = subject.folder / "strange"
    strange.mkdir(exist_ok=True)
    (strange / f"text{subject.suffix}").write_text("of another program")
    (strange / f"empty{subject.suffix}").write_bytes(b"")
    (strange / "place").mkdir(exist_ok=True)
    (strange / "place" / "file").write_text("of another program")
    for path in (*strange.iterdir(), subject.run.folder.path, strange / "missing"):
        if subject.recognise(path):
            raise ViolationError(
                f"{path.name} is recognised, which it did not write", "False, and no exception"
            )
    return "by content, under any name"


@suite.check
def images(subject: ExporterSubject) -> str:
    """What it wrote gives the images of the run, seed by seed."""
    got, expected = subject.draw(subject.opened), subject.draw(subject.run)
    if got.shape != expected.shape:
        raise ViolationError(f"images of shape {got.shape}", f"{expected.shape}, as the run's")
    error = float(np.abs(got - expected).max())
    if not error <= WITHIN:
        raise ViolationError(
            f"images are off by {error:.2g} from those of the run", f"at most {WITHIN:.2g}"
        )
    if np.array_equal(got, subject.draw(subject.opened, seed=SEED + 1)):
        raise ViolationError("another seed gives the same images", "other images")
    return f"{IMAGES} images within {error:.0e} of the run's"


@suite.check
def told(subject: ExporterSubject) -> str:
    """What it wrote is told what the run is, by name, and heeds each."""
    opened = subject.opened
    if opened.conditions != subject.run.conditions:
        raise ViolationError(
            f"the file is told {opened.conditions!r}", f"{subject.run.conditions!r}, as the run"
        )
    before = subject.draw(opened)
    others = {"label": None, "angle": 0.9, "mask": 1 - TOLD["mask"], "other": None}
    for name, value in others.items():
        got, expected = (subject.draw(one, **{name: value}) for one in (opened, subject.run))
        error = float(np.abs(got - expected).max())
        if not error <= WITHIN:
            raise ViolationError(
                f"with another {name} images are off by {error:.2g} from those of the run",
                f"at most {WITHIN:.2g}",
            )
        if np.array_equal(got, before):
            raise ViolationError(f"another {name} gives the same images", "other images")
    return f"{', '.join(others)}: told and heeded"


@suite.check
def replacing(subject: ExporterSubject) -> str:
    """What is there already is kept, unless it may be replaced."""
    subject.result  # noqa: B018  written before
    before = _contents(subject.target)
    try:
        subject.export(subject.target)
    except ConfigError:
        if _contents(subject.target) == before:
            return "refused without overwrite, and kept"
    raise ViolationError(
        f"{subject.target.name} was written over without overwrite", "a ConfigError, and the old"
    )


@suite.check
def failed_export(subject: ExporterSubject) -> str:
    """An export that fails leaves nothing behind."""
    subject.result  # noqa: B018  whether it can write here is known
    model = subject.run.model
    place = subject.folder / "failed"
    place.mkdir(exist_ok=True)

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a network that cannot be called")

    model.forward = fail
    try:
        subject.export(place / f"probe{subject.suffix}")
    except Exception as error:
        left = sorted(path.name for path in place.rglob("*"))
        if left:
            raise ViolationError(
                f"{', '.join(left)} is left after an export that failed", "nothing"
            ) from error
        return "nothing is left behind"
    finally:
        del model.forward
    raise NotApplicableError("it never calls the network")


@suite.check
def damage(subject: ExporterSubject) -> str:
    """A file that was cut off is refused before an image is made from it."""
    subject.opened  # noqa: B018  whether it can be opened here is known
    copy = subject.copied(f"damaged{subject.suffix}")
    parts = [path for path in copy.rglob("*") if path.is_file()] if copy.is_dir() else [copy]
    largest = max(parts, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    if not subject.recognise(copy):
        return "half of it is not recognised"
    try:
        subject.draw(subject.open(copy))
    except ExportError:
        return "half of it is refused"
    except SsmdiffError as error:
        got = f"half of it raises a {type(error).__name__}"
        raise ViolationError(got, "an ExportError") from error
    raise ViolationError("half of it is opened and sampled", "an ExportError from open")


def _contents(path: Path) -> dict[str, bytes]:
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return {file.name: file.read_bytes() for file in files}
