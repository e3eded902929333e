"""The job ``bench``: each benchmark measured, and returned as a record.

``ssmdiff.job("bench")`` is :data:`bench`; ``ssmdiff bench`` prints what it returns.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from ssmdiff import ConfigError, did_you_mean, load_run

from ssmdiff_bench import compare, sample, scan, step
from ssmdiff_bench.compare import Effort
from ssmdiff_bench.export import export_ways
from ssmdiff_bench.machine import machine
from ssmdiff_bench.memory import METHODS, why_not
from ssmdiff_bench.record import Record
from ssmdiff_bench.worker import Case, Way


class Bench:
    """The benchmarks. Of each, ``only`` are ways by name, ``repeats`` the timed calls of a way in a
    case, ``seconds`` how long they may take together, and ``limit`` seconds for one call."""

    def scan(
        self,
        tokens: Sequence[int] = (256, 1024, 4096),
        *,
        batch: int = 1,
        channels: int = 192,
        directions: int = 4,
        states: int = 16,
        order: str = "random",
        dtype: str = "float32",
        device: str | None = None,
        only: Sequence[str] | None = None,
        repeats: int = 20,
        seconds: float = 1.0,
        limit: float = 5.0,
        progress: bool = False,
    ) -> Record:
        """The selective scan: our kernels and how others compute it.

        Raises:
            ConfigError: A setting is none of those that there are.
        """
        _one_of("--order", order, ("raster", "random"))
        _one_of("--dtype", dtype, ("float32", "bfloat16", "float16"))
        shape = scan.ScanShape(
            batch,
            channels,
            directions,
            states,
            order,  # type: ignore[arg-type]
            dtype,
            _device(device),
        )
        settings = dataclasses.asdict(shape)
        settings["difference"] = "of the output, relative to its largest value"
        record = Record("scan", machine(), settings, [], "tokens")
        ways, cases = scan.scan_ways(shape), scan.cases(list(tokens))
        _measure(record, ways, cases, Effort(repeats, seconds, limit), only, progress)
        return record

    def step(
        self,
        pixels: Sequence[int] = (64, 128),
        *,
        preset: str = "tiny",
        channels: int | None = None,
        batch: int = 1,
        precision: str = "fp32",
        device: str | None = None,
        only: Sequence[str] | None = None,
        repeats: int = 5,
        seconds: float = 5.0,
        limit: float = 30.0,
        progress: bool = False,
    ) -> Record:
        """A training step: VM-DDPM's UNet, and others of as many parameters.

        Raises:
            ConfigError: A setting is none of those that there are, or the network cannot be built.
        """
        _one_of("--precision", precision, ("fp32", "bf16"))
        shape = step.StepShape(preset, channels, batch, precision, _device(device))
        for side in pixels:
            step.check(shape, side)
        record = Record("step", machine(), dataclasses.asdict(shape), [], "pixels")
        ways, cases = step.step_ways(shape), step.cases(pixels)
        _measure(record, ways, cases, Effort(repeats, seconds, limit), only, progress)
        record.extra["growth"] = step.growths(record)
        record.shown = step.SHOWN
        return record

    def sample(
        self,
        run: str | Path,
        *,
        n: int = 4,
        steps: int = 10,
        seed: int = 0,
        batch_size: int = 16,
        label: int | None = None,
        checkpoint: str = "latest",
        only: Sequence[str] | None = None,
        repeats: int = 5,
        seconds: float = 10.0,
        limit: float = 120.0,
        progress: bool = False,
    ) -> Record:
        """The same images of a run by torch, torch.compile, ONNX Runtime and TensorRT.

        Raises:
            CheckpointError: There is no such run.
        """
        path = Path(run)
        trained = load_run(path, checkpoint)  # refuse what is no run before anything is started
        draw = sample.Draw(n, steps, seed, batch_size, label)
        image_size = trained.config.data.image_size
        settings = dataclasses.asdict(draw) | {
            "run": str(run),
            "checkpoint": trained.checkpoint.path.name,
            "image_size": list(image_size),
            "difference": "largest of a pixel, as a part of the range -1 to 1",
        }
        record = Record("sample", machine(), settings, [], "pixels")
        with tempfile.TemporaryDirectory(prefix="ssmdiff-bench-") as folder:
            ways = sample.torch_ways(path, checkpoint, draw)
            if only is None or set(only) - {way.name for way in ways}:
                ways += export_ways(path, checkpoint, draw, Path(folder), progress)
            cases = [{"series": sample.SERIES, "size": math.prod(image_size)}]
            effort = Effort(repeats, seconds, limit)
            _measure(record, ways, cases, effort, only, progress, sample.SCALE)
            sample.finish(record.rows, n)
        record.shown = sample.SHOWN
        return record


bench = Bench()


def _measure(
    record: Record,
    ways: Sequence[Way],
    cases: Sequence[Case],
    effort: Effort,
    only: Sequence[str] | None,
    progress: bool,
    scale: float | None = None,
) -> None:
    """Fill the record's rows, behind a progress bar if there is to be one."""
    record.settings |= dataclasses.asdict(effort) | {"memory": METHODS | {"cpu_lacks": why_not()}}
    chosen = compare.choose(ways, only)
    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=Console(file=sys.stderr),
        transient=True,
        disable=not progress,
    )
    with bar:
        tell = _teller(bar, compare.steps(chosen, cases))
        record.rows = compare.measure(chosen, cases, effort, tell, scale)


def _teller(bar: Progress, total: int) -> Callable[[str], None]:
    task = bar.add_task("", total=total)

    def tell(text: str) -> None:
        if text:
            bar.update(task, description=text)
        else:
            bar.advance(task)

    return tell


def _one_of(option: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{option} {value!r}; {did_you_mean(value, known)}")


def _device(name: str | None) -> str:
    """``cpu`` or ``cuda``; by default a GPU where there is one."""
    if name is not None:
        _one_of("--device", name, ("cpu", "cuda"))
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: no GPU was found (torch.cuda.is_available() is False)")
    return name or ("cuda" if torch.cuda.is_available() else "cpu")
