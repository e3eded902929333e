"""A denoiser over a TensorRT engine: buffers made once for each batch size, then replayed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ssmdiff import ConfigError, ExportError
from torch import Tensor

from ssmdiff_export.tensorrt.binding import (
    TENSORRT,
    Product,
    load_tensorrt,
    logged,
    made,
    make_logger,
)
from ssmdiff_export.tensorrt.cache import Engine, EngineCache
from ssmdiff_export.tensorrt.device import Cuda, Device

OUTPUT = "prediction"


@dataclass
class _Call:
    """One batch size: tensors at fixed addresses, and the work between them."""

    inputs: dict[str, Tensor]
    output: Tensor
    context: Any
    run: Callable[[], None]


class EngineDenoiser:
    """An engine on a device.

    Args:
        engine: From an :class:`~ssmdiff_export.tensorrt.cache.EngineCache`, which vouches for it.
        device: Where it runs.

    Raises:
        ExportError: TensorRT does not take the engine; what it logged is in the message.
    """

    def __init__(self, engine: Engine, device: Device) -> None:
        trt = load_tensorrt(engine.product)
        self.card, self.device, self._product = engine.card, device, engine.product
        self._trt, self._logger = trt, make_logger(trt)
        name = f"{engine.product.title} {trt.__version__}"
        # The runtime must outlive the engine.
        self._runtime = made(
            lambda: trt.Runtime(self._logger), f"{name} does not run", self._logger
        )
        self._engine = self._runtime.deserialize_cuda_engine(engine.plan)
        if self._engine is None:
            raise ExportError(
                f"{name} does not take the engine; build it anew{logged(self._logger)}"
            )
        self._dtypes = {
            trt.DataType.FLOAT: torch.float32,
            trt.DataType.INT32: torch.int32,
            trt.DataType.INT64: torch.int64,
        }
        modes = {name: self._engine.get_tensor_mode(name) for name in self._names()}
        self.inputs = [n for n, mode in modes.items() if mode == trt.TensorIOMode.INPUT]
        outputs = [n for n, mode in modes.items() if mode == trt.TensorIOMode.OUTPUT]
        if outputs != [OUTPUT] or "x" not in self.inputs:
            raise ExportError(
                f"the engine maps {self.inputs} to {outputs}; expected x, ... to {OUTPUT}"
            )
        self._calls: dict[int, _Call] = {}

    @property
    def batch(self) -> tuple[int, int, int]:
        """Fewest, usual and most images of a call."""
        shapes = self._engine.get_tensor_profile_shape("x", 0)
        fewest, usual, most = (int(shape[0]) for shape in shapes)
        return fewest, usual, most

    @property
    def device_memory_bytes(self) -> int:
        """Temporary memory of one call."""
        return int(self._engine.device_memory_size_v2)

    @torch.inference_mode()
    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The prediction (B, C, *image_size) float32, a tensor of the caller's own.

        Args:
            inputs: By the names of the graph, on any device: ``x``, ``timesteps`` (B,),
                ``context`` (B, M) of a model that is told numbers, ``order_<slot>`` (K, L) int32.

        Raises:
            ExportError: An input is missing, of a wrong shape, or the batch is out of range.
        """
        call = self._call(len(inputs["x"]))
        if set(inputs) != set(self.inputs):
            raise ExportError(f"the engine takes {self.inputs}; got {sorted(inputs)}")
        for name, buffer in call.inputs.items():
            if inputs[name].shape != buffer.shape:
                raise ExportError(
                    f"{name} has shape {tuple(inputs[name].shape)}; expected {tuple(buffer.shape)}"
                )
            buffer.copy_(inputs[name])
        call.run()
        return call.output.clone()

    def run(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The same with arrays."""
        tensors = {n: torch.tensor(a, device=self.device.torch_device) for n, a in inputs.items()}
        prediction = self(tensors)
        array: np.ndarray = prediction.cpu().numpy()
        return array

    def _call(self, size: int) -> _Call:
        if size not in self._calls:
            fewest, _, most = self.batch
            if not fewest <= size <= most:
                raise ExportError(
                    f"a batch of {size} images is outside the engine's {fewest} to {most}; draw "
                    f"them with --batch-size {most}, or export with another --batch"
                )
            self._calls[size] = self._prepare(size)
        return self._calls[size]

    def _prepare(self, size: int) -> _Call:
        """A context of its own: a CUDA graph is bound to the shapes of the context it came from."""
        context = self._context()
        if context is None:
            raise ExportError(f"TensorRT has no memory for a context{logged(self._logger)}")
        inputs = {}
        for name in self.inputs:
            shape = tuple(self._engine.get_tensor_shape(name))
            inputs[name] = self._buffer(name, (size, *shape[1:]) if shape[0] == -1 else shape)
            if not context.set_input_shape(name, tuple(inputs[name].shape)):
                raise ExportError(
                    f"TensorRT refuses shape {tuple(inputs[name].shape)} of {name}"
                    f"{logged(self._logger)}"
                )
        missing = context.infer_shapes()
        if missing:
            raise ExportError(f"TensorRT misses the shapes of {missing}{logged(self._logger)}")
        output = self._buffer(OUTPUT, tuple(context.get_tensor_shape(OUTPUT)))
        for name, buffer in {**inputs, OUTPUT: output}.items():
            if not context.set_tensor_address(name, buffer.data_ptr()):
                raise ExportError(f"TensorRT refuses the buffer of {name}{logged(self._logger)}")

        def enqueue(stream: int) -> None:
            if not context.execute_async_v3(stream):
                raise ExportError(f"TensorRT cannot run the engine{logged(self._logger)}")

        return _Call(inputs, output, context, self.device.capture(enqueue))

    def _context(self) -> Any:
        if not self._product.specialised:
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        strategies = self._trt.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        return self._engine.create_execution_context(config)

    def _buffer(self, name: str, shape: tuple[int, ...]) -> Tensor:
        dtype = self._dtypes[self._engine.get_tensor_dtype(name)]
        return torch.zeros(shape, dtype=dtype, device=self.device.torch_device)

    def _names(self) -> list[str]:
        return [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]


def load_engine(
    path: Path,
    device: Device | None = None,
    cache: EngineCache | None = None,
    product: Product = TENSORRT,
) -> EngineDenoiser:
    """The denoiser of an engine file that this user built on this machine.

    Args:
        path: Written by ``ssmdiff export RUN --to tensorrt`` or ``--to tensorrt-rtx``.
        device: The first GPU by default.
        cache: Whose manifests vouch for the file; the user's own by default.
        product: What a message says to build it with, where the file is not known.

    Raises:
        ExportError: The file was not built here, there is no TensorRT, or it was built for another
            TensorRT, GPU or driver. Only a file that passed all of that is opened.
        ConfigError: There is no GPU; or the file is for cards, and none of them is here.
    """
    engine = (cache or EngineCache()).find(path, product)
    product = engine.product
    trt = load_tensorrt(product)
    try:
        device = device or Cuda()
    except ExportError as error:
        raise ConfigError(f"{path} does not run here: {error}") from error
    try:
        engine.refuse_elsewhere(path, device.machine(trt.__version__, product.target))
    except ExportError as error:
        if product.capabilities:
            raise ConfigError(str(error)) from error
        raise
    return EngineDenoiser(engine, device)
