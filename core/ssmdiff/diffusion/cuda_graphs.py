"""CUDA graphs in sampling: the launches of a whole network, recorded once and replayed.

A small network is launched more slowly from Python than the card computes it. Every call of a
denoiser in a sampling run has the same shapes, so its launches are recorded at the first call, over
buffers of its own; later calls copy their inputs into the buffers and replay. A graph holds memory
for one forward pass as long as its denoiser lives.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ssmdiff.diffusion.denoisers import TensorDenoiser
from ssmdiff.ops.kernels import note_order, restarts_in

WARM_UPS = 3
"""Calls before recording: libraries allocate workspaces, Triton compiles and tunes."""

Capture = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]
"""``run -> (replay, output)``: each replay does what ``run`` did, and leaves it in ``output``."""


class CaptureError(RuntimeError):
    """The launches could not be recorded."""


def capture_cuda(run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Record the launches of ``run`` on the current device; other threads go on meanwhile, such as
    one that pins the memory of the next batch.

    Raises:
        CaptureError: It waits for the device, or does something else that a graph cannot hold.
    """
    current, side = torch.cuda.current_stream(), torch.cuda.Stream()
    side.wait_stream(current)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(side):  # and back again: torch leaves the stream set where it fails
        for _ in range(WARM_UPS):
            run()
        try:
            # Its own stream would be of the device of the first recording of the process.
            with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                output = run()
        except RuntimeError as error:
            raise CaptureError(str(error).partition("\n")[0]) from error
    current.wait_stream(side)
    return graph.replay, output


class _Recorded(NamedTuple):
    inputs: list[Tensor]
    replay: Callable[[], None]
    output: Tensor


class RecordedDenoiser:
    """A denoiser that is recorded at its first call with some shapes, and replayed after it.

    Where the recording fails, it warns once and calls the denoiser as it is from then on.

    Args:
        denoiser: On a GPU, and the same function of its arguments at every call.
        capture: What records; another one in tests.
    """

    def __init__(self, denoiser: TensorDenoiser, capture: Capture = capture_cuda) -> None:
        self._denoiser, self._capture = denoiser, capture
        self._recorded: dict[tuple[object, ...], _Recorded] = {}
        self._refused = False

    def __call__(
        self, x: Tensor, timesteps: Tensor, orders: Sequence[Tensor], *told: Tensor
    ) -> Tensor:
        """The prediction, a tensor of its own: a later call does not change it."""
        if self._refused:
            return self._denoiser(x, timesteps, orders, *told)
        given = [x, timesteps, *orders, *told]
        # A kernel leaves the restarts out of its launches where an order is known to have none.
        form = (*((t.shape, t.dtype) for t in given), *map(restarts_in, orders))
        try:
            recorded = self._recorded.get(form) or self._record(x, timesteps, orders, *told)
        except CaptureError as error:
            said = f"sampling runs without CUDA graphs, and the images are the same: {error}"
            warnings.warn(said, stacklevel=2)
            self._refused = True
            return self._denoiser(x, timesteps, orders, *told)
        self._recorded[form] = recorded
        for buffer, tensor in zip(recorded.inputs, given, strict=True):
            buffer.copy_(tensor)
        recorded.replay()
        return recorded.output.clone()

    def _record(
        self, x: Tensor, timesteps: Tensor, orders: Sequence[Tensor], *told: Tensor
    ) -> _Recorded:
        """Buffers with the values of this call, and the launches over them."""
        x, timesteps, *given = (t.clone() for t in (x, timesteps, *told))
        orders = [_clone(order) for order in orders]
        with torch.cuda.device_of(x):  # a stream is of the current device, and records no other
            replay, output = self._capture(lambda: self._denoiser(x, timesteps, orders, *given))
        return _Recorded([x, timesteps, *orders, *given], replay, output)


def _clone(order: Tensor) -> Tensor:
    restarts = restarts_in(order)
    return order.clone() if restarts is None else note_order(order.clone(), restarts)
