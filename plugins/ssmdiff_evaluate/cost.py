"""What a model costs: parameters, multiply-adds, memory and speed while it draws."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ssmdiff import ImageModel, SamplingSettings, write_atomically

PARAMETERS, DEVICE, GUIDANCE = "parameters", "device", "guidance"
CALL, IMAGE = "multiply-adds of a call", "multiply-adds of an image"
SPEED, MEMORY = "images a second", "peak memory while drawing (MB)"
DRAWN = "drawn.json"
"""Beside the images of a model: how fast they were drawn, and in how much memory."""
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


USUAL = SamplingSettings({}, 1)


def facts_of(model: ImageModel[Any], sampling: SamplingSettings) -> dict[str, Any]:
    """Of the network, where it is one of torch's."""
    network = getattr(model, "model", None)
    if network is None or not hasattr(network, "parameters"):
        return {}
    parameters = list(network.parameters())
    call = multiply_adds(model, sampling)
    return {
        PARAMETERS: sum(p.numel() for p in parameters),
        CALL: call,
        IMAGE: call * _passes(model, sampling),
    }


def _passes(model: ImageModel[Any], sampling: SamplingSettings) -> int:
    """How often the network sees an image on its way: twice where it is led."""
    scheduler = model.new_scheduler(sampling.scheduler)
    scheduler.set_timesteps(sampling.steps)
    return model.calls(sampling) + sampling.guidance.doubled(scheduler.timesteps)


def multiply_adds(model: ImageModel[Any], sampling: SamplingSettings = USUAL) -> int:
    """Of one call of the network for one image, counted as it runs.

    Convolutions and products of matrices by torch's counter (half of its floating-point
    operations), the selective scan by :func:`scan_multiply_adds`. Sums, norms, activations and
    exponentials are not counted.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network: Any = model.model  # type: ignore[attr-defined]
    device = next(network.parameters()).device
    # The order's content moves no count, and the kernel that is chosen computes the same products.
    orders = model.plan().draw(0, 0)
    told = [torch.from_numpy(a).to(device) for a in model.encoded(model.told(sampling, [0]))]
    x = torch.zeros(1, *model.noise.shape, device=device)
    timesteps = torch.zeros(1, dtype=torch.int64, device=device)
    scan = torch.ops.ssmdiff.selective_scan
    counter = FlopCounterMode(display=False, custom_mapping={scan: _scan_flops})
    # The counter asks what a module is given for its gradient, which there is none of in inference;
    # a spectral norm is given a weight.
    trained = [p for p in network.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with _as_it_is(model), counter:
            model.denoiser()(x, timesteps, orders, *told)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    return int(counter.get_total_flops()) // 2


@contextmanager
def _as_it_is(model: Any) -> Iterator[None]:
    """To record a network's launches, as on a GPU, is to call it several times."""
    if not getattr(model, "cuda_graphs", False):
        yield
        return
    model.cuda_graphs = False
    try:
        yield
    finally:
        model.cuda_graphs = True


def scan_multiply_adds(
    batch: int, directions: int, tokens: int, channels: int, states: int, skip: bool
) -> int:
    """Of the selective scan: for each token, channel and state delta A, delta u B, a h + and C h;
    for each token and channel delta u and, with skip weights, D u."""
    each = batch * directions * tokens * channels
    return each * (4 * states + 1 + skip)


def _scan_flops(
    u: tuple[int, ...], delta: tuple[int, ...], A: tuple[int, ...], *shapes: Any, **named: Any
) -> int:
    """Twice the multiply-adds, by the shapes that torch's counter hands over."""
    batch, directions, tokens, channels = delta
    skip = len(shapes) > 3 and shapes[3] is not None
    return 2 * scan_multiply_adds(batch, directions, tokens, channels, A[-1], skip)


@contextmanager
def measured(device: str) -> Iterator[dict[str, float]]:
    """Seconds and the peak of memory, in MB, of what is done inside.

    On CUDA what torch allocated; else the resident memory of the whole process, weights and
    libraries included. Linux can forget an earlier peak; elsewhere it is that of the process's
    life.
    """
    found: dict[str, float] = {}
    cuda = device.startswith("cuda")
    if cuda:
        import torch

        torch.cuda.reset_peak_memory_stats()
    elif _RESET.exists():
        _RESET.write_text("5")
    begin = time.perf_counter()
    yield found
    found["s"] = time.perf_counter() - begin
    found["mb"] = (torch.cuda.max_memory_allocated() if cuda else _peak_bytes()) / 1e6


def _peak_bytes() -> int:
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def note_drawing(
    folder: Path, count: int, found: dict[str, float], device: str, processes: int
) -> None:
    """Keep what drawing took, beside the images, for evaluations that find them there."""
    told: dict[str, Any] = {DEVICE: device}
    told |= {SPEED: round(count / found["s"], 3), MEMORY: round(found["mb"])}
    if processes > 1:  # speed and memory are those of the first
        told[DEVICE] += f", the first of {processes} processes"
    write_atomically(folder / DRAWN, json.dumps(told).encode())


def drawing_of(folder: Path) -> dict[str, Any]:
    """What :func:`note_drawing` kept; empty where nothing is known."""
    try:
        told = json.loads((folder / DRAWN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return dict(told) if isinstance(told, dict) else {}


def in_short(value: Any) -> str:
    """A fact for a table: large numbers with K, M, G or T and four digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if abs(value) < 10_000:
        return f"{value:.4g}"
    power = min(int(np.log10(abs(value)) // 3), 4)
    return f"{value / 1000**power:.4g} {' KMGT'[power]}"
