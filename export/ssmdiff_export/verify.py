"""An exported file from draft to kept: made in a folder of its own, compared with torch, published.

Is it the model? Its predictions stand beside torch's before anybody relies on it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from ssmdiff import (
    Conditions,
    ConfigError,
    ExportError,
    ExportPrecision,
    Run,
    order_tensors,
    stream,
)

from ssmdiff_export.runtime.card import Parity
from ssmdiff_export.tracing import GraphInputs, first_line

TOLERANCE: dict[str, float] = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1}
"""Largest difference over the largest prediction of torch in float32."""
NOTICEABLE = 0.1
"""Of the tolerance: a change of the order that changes torch's prediction by more has to show."""

Arrays = dict[str, np.ndarray]
Predict = Callable[[Arrays], np.ndarray]
"""Named inputs of the graph to its prediction."""
Stage = Callable[[str], None]
"""Called with what begins now, such as ``"tracing"``."""


@contextmanager
def stages(show: bool) -> Iterator[Stage]:
    """A spinner that names the stage, on stderr; nothing where that is no terminal."""
    if not show:
        yield lambda _: None
        return
    with Console(file=sys.stderr).status("exporting") as status:
        yield lambda stage: status.update(f"exporting: {stage}")


def refuse_to_replace(path: Path, overwrite: bool) -> None:
    """Check that the file may be written, before anything is computed.

    Raises:
        ConfigError: It is there already, or a folder is.
    """
    if path.is_dir():
        raise ConfigError(f"--out {path} is a folder; expected a file, such as {path / 'model'}")
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} is there already; choose another --out, or give --overwrite")


@contextmanager
def draft_folder(path: Path) -> Iterator[Path]:
    """A folder beside ``path`` in which files are made; it goes away, whatever happens.

    Raises:
        ExportError: The disk is full or not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".tmp-{path.name}-", dir=path.parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror or error}") from error


def publish(folder: Path, path: Path, with_data: bool) -> tuple[Path, ...]:
    """Move the finished files into place, the model last: a reader sees the old or the new one."""
    kept = [path]
    if with_data:
        kept.insert(0, data_file(path))
    data_file(path).unlink(missing_ok=True)
    for file in kept:
        with (folder / file.name).open("rb") as written:
            os.fsync(written.fileno())
        (folder / file.name).replace(file)
    return tuple(reversed(kept))


def data_file(path: Path) -> Path:
    """The one file beside a model that may hold its weights."""
    return path.with_name(f"{path.name}.data")


@dataclass(frozen=True)
class Case:
    """One call: seeds of the noise and of the orders, images of the batch."""

    seed: int
    order_seed: int
    batch: int

    @property
    def images(self) -> tuple[int, int]:
        """What decides everything but the orders."""
        return self.seed, self.batch


# The last two differ in the orders alone.
CASES = (Case(0, 0, 1), Case(1, 1, 5), Case(1, 2, 5))


@dataclass(frozen=True)
class Comparison(Parity):
    """How far a file is from torch, and what a person is told of it."""

    blank: bool
    """Torch's predictions are 0 everywhere: an untrained model, whose comparison says little."""

    @property
    def line(self) -> str:
        """For a person."""
        if self.blank:
            return (
                "compared with torch: both predict 0 everywhere, as an untrained model does; "
                "that says little"
            )
        return (
            f"compared with torch: largest difference {self.max_abs:.2e}, "
            f"{self.max_rel:.2e} of the largest value (at most {self.tolerance:.0e}) "
            f"over {self.cases} cases"
        )


def comparison_text(comparison: Comparison | None) -> str:
    """What a person is told of a comparison, or that there was none."""
    return "not compared with torch" if comparison is None else comparison.line


def compare(
    run: Run,
    predict: Predict,
    precision: ExportPrecision,
    what: str,
    stage: Stage = lambda _: None,
    cases: tuple[Case, ...] = CASES,
) -> Comparison:
    """Hold a file against the model of the run, over seeds, timesteps, batch sizes and orders.

    Args:
        run: The model in torch, float32.
        predict: The file.
        precision: Decides the tolerance.
        what: How messages name the file.
        stage: Told of the progress.
        cases: What to compare.

    Raises:
        ExportError: It does not run, a random order makes no difference in it, or it differs by
            more than the tolerance.
    """
    interface = GraphInputs.of(run)
    tolerance, worst_abs, worst_rel, blank = TOLERANCE[precision], 0.0, 0.0, True
    before: tuple[Case, NDArray[Any], NDArray[Any]] | None = None
    for i, case in enumerate(cases):
        stage(f"comparing with torch, case {i + 1} of {len(cases)}")
        inputs = case_inputs(run, interface, case)
        expected = reference(run, interface, case, inputs)
        try:
            got = predict(inputs)
        except Exception as error:  # what a runtime raises is its own
            raise ExportError(f"{what} does not run: {first_line(error)}") from error
        if got.shape != expected.shape:
            raise ExportError(f"{what} gives shape {got.shape}; expected {expected.shape}")
        size = float(np.abs(expected).max())
        blank = blank and size == 0
        difference = float(np.abs(got.astype(np.float64) - expected).max())
        finite = bool(np.isfinite(got).all())
        difference = difference if finite else float("inf")
        worst_abs = max(worst_abs, difference)
        worst_rel = max(worst_rel, difference / size if size else difference)
        if finite and before is not None and before[0].images == case.images:
            _refuse_baked(before[1:], (expected, got), NOTICEABLE * tolerance * size, what)
        before = (case, expected, got)
    if not worst_rel <= tolerance:
        raise ExportError(
            f"{what} does not agree with torch: the largest difference is {worst_abs:.3g}, "
            f"{worst_rel:.3g} of the largest value; expected at most {tolerance:g} ({precision})"
        )
    return Comparison(worst_abs, worst_rel, tolerance, len(cases), blank)


def case_inputs(run: Run, interface: GraphInputs, case: Case) -> Arrays:
    """The graph's inputs of a case; the timesteps are spread over the whole process."""
    noise = stream(case.seed, "export")
    if not interface.walks:
        z = [run.noise.draw(noise) for _ in range(case.batch)]
        return {"x": np.stack(z)}
    size = run.config.data.image_size
    shape, told = (case.batch, run.channels, *size), interface.conditions
    last = getattr(run.method, "noisiest", 0)
    spread = (np.arange(case.batch) + 0.5) / case.batch * last
    inputs = {
        "x": noise.standard_normal(shape, dtype=np.float32),
        "timesteps": np.round(spread).astype(np.float32),
    }
    numbers = Conditions(one for one in told if one.width)
    if numbers:
        usual = [numbers.told({}, i) for i in range(case.batch)]
        (inputs["context"],) = numbers.encoded(usual, size)
    if told.planes:  # no mask or image is at hand, and any values will do
        places = noise.standard_normal((case.batch, told.planes, *size), dtype=np.float32)
        inputs["x"] = np.concatenate([inputs["x"], places], axis=1)
    return inputs | interface.arrays(interface.plan.draw(case.order_seed))


@torch.inference_mode()
def reference(
    run: Run, interface: GraphInputs, case: Case, inputs: Mapping[str, Any]
) -> np.ndarray:
    """What torch predicts, float32."""
    device = run.device
    if not interface.walks:
        x = torch.from_numpy(inputs["x"]).to(device)
        made: np.ndarray = run.denoiser()(x, torch.zeros(len(x)), ()).cpu().numpy()
        return made
    prediction = run.model(
        x=torch.from_numpy(inputs["x"]).to(device),
        timesteps=torch.from_numpy(inputs["timesteps"]).to(device),
        context=torch.from_numpy(inputs["context"]).to(device) if "context" in inputs else None,
        orders=order_tensors(interface.plan.draw(case.order_seed), device),
    )
    result: np.ndarray = prediction.float().cpu().numpy()
    return result


def onnx_predict(path: Path, precision: ExportPrecision = "fp32") -> Predict:
    """The file in ONNX Runtime, on the CPU, without our library of operators.

    ONNX Runtime computes nothing in bfloat16 on a CPU. A bfloat16 file is compared through its
    float32 twin, which rounds to bfloat16 wherever the file does.

    Raises:
        ExportError: ONNX Runtime refuses it.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        with _openable(path, precision) as file:
            session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common root of their own
        raise ExportError(f"ONNX Runtime refuses {path.name}: {first_line(error)}") from error

    def predict(inputs: Arrays) -> np.ndarray:
        result: np.ndarray = session.run(["prediction"], inputs)[0]
        return result

    return predict


@contextmanager
def _openable(path: Path, precision: ExportPrecision) -> Iterator[Path]:
    """The file, or a twin of it for as long as a session is made."""
    if precision != "bf16":
        yield path
        return
    from ssmdiff_export.bfloat16 import write_twin

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".tmp-twin-") as folder:
        twin = Path(folder) / path.name
        write_twin(path, twin)
        yield twin


def _refuse_baked(
    before: tuple[np.ndarray, np.ndarray],
    after: tuple[np.ndarray, np.ndarray],
    noticeable: float,
    what: str,
) -> None:
    """Refuse a file that gives one prediction under two orders, where torch gives two."""
    change = float(np.abs(after[0] - before[0]).max())
    if change > noticeable and not np.abs(after[1] - before[1]).max() > change / 2:
        raise ExportError(
            f"{what}: another scan order changes torch's prediction by {change:.3g}, and the "
            "file's hardly; a random order was baked in"
        )
