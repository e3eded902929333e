"""A graph in ONNX Runtime: opened where it was asked for and nowhere else, called by names."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ssmdiff import ConfigError, ExportError

from ssmdiff_export.runtime.card import OPERATORS
from ssmdiff_export.runtime.files import FileReport

PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
"""ONNX Runtime's name of each, and who computes the few nodes (shapes) that it leaves out."""
BATCHED = ("x", "timesteps", "context")
"""Inputs with a batch axis; orders have none."""
PACKAGES = {"cpu": "onnxruntime", "cuda": "onnxruntime-gpu", "tensorrt": "onnxruntime-gpu"}


class Session:
    """Calls the graph.

    Args:
        report: The file, checked.
        provider: ``cpu``, ``cuda`` or ``tensorrt``.
        library: The shared library of our operator for ONNX Runtime; native code, so one that you
            built yourself (``ssmdiff export --ort-library``).
        threads: Threads of one call; None leaves it to ONNX Runtime.

    Raises:
        ConfigError: There is no such provider or library here, or no ONNX Runtime.
        ExportError: ONNX Runtime refuses the file, or would run it elsewhere than asked.
    """

    def __init__(
        self,
        report: FileReport,
        provider: str = "cpu",
        library: Path | None = None,
        threads: int | None = None,
    ) -> None:
        ort = _onnxruntime()
        wanted = _available(ort, provider)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        self.report, self.provider = report, provider
        try:
            if library is not None:
                options.register_custom_ops_library(str(_library(library)))
            self._session = ort.InferenceSession(str(report.path), options, providers=list(wanted))
        except Exception as error:  # ONNX Runtime's errors share no class of their own
            if isinstance(error, ConfigError):
                raise
            raise ExportError(f"ONNX Runtime refuses {report.path}: {error}") from error
        self._session.disable_fallback()
        found = self._session.get_providers()
        if found[0] != wanted[0]:
            raise ExportError(
                f"ONNX Runtime fell back from {wanted[0]} to {found[0]}; its log says why. Try: "
                f"ssmdiff doctor, or provider {provider_of(found[0])!r}"
            )
        self._check_inputs()
        self._bound: _Bound | None = None
        self._ort = ort
        # ONNX's Scan keeps to one core, so the images of a batch take one each. Our library's
        # operators take all cores as they are.
        walks = library is None and bool({*OPERATORS.values()} & {*report.functions})
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self._parts = _Parts(self._session, (threads or cores or 1) if walks else 1)

    def _check_inputs(self) -> None:
        """The graph takes what the card says, whatever else the file says about shapes."""
        card = self.report.card
        named = {"x"} if card.latent is not None else {"x", "timesteps"}
        context = (
            ("tensor(int64)", []) if card.takes_classes else ("tensor(float)", [card.told.width])
        )
        if card.told.width:
            named.add("context")
        tokens = {slot.order: slot.tokens for slot in card.slots if slot.order is not None}
        try:
            inputs = {i.name: (i.type, i.shape) for i in self._session.get_inputs()}
            outputs = {o.name: (o.type, o.shape) for o in self._session.get_outputs()}
        except UnicodeDecodeError as error:  # ONNX Runtime itself takes any bytes as a name
            raise ExportError(
                f"{self.report.path} is damaged: a name of its inputs, outputs or their axes is no "
                f"text ({error})"
            ) from error
        fits = inputs.keys() == named | tokens.keys() and list(outputs) == ["prediction"]
        if fits:
            wanted = {"x": card.input_shape, "prediction": card.shape}
            fits = all(
                (kind, shape[1:]) == ("tensor(float)", list(wanted[name]))
                and not isinstance(shape[0], int)
                for name, (kind, shape) in (("x", inputs["x"]), *outputs.items())
            ) and all(
                inputs[name][0] == "tensor(int32)" and inputs[name][1][1:] == [length]
                for name, length in tokens.items()
            )
            kind, shape = inputs.get("context", (context[0], [None, *context[1]]))
            fits = fits and (kind, shape[1:]) == context
        if not fits:
            raise ExportError(
                f"{self.report.path}: the graph has inputs {inputs} and outputs {outputs}; its "
                f"model card promises images of {card.shape} and {len(tokens)} orders"
            )

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The prediction, (B, C, H, W).

        Raises:
            ExportError: ONNX Runtime fails.
        """
        try:
            if self.provider == "cpu":
                return self._parts.run(inputs)
            if self._bound is None or not self._bound.fits(inputs):
                shape = (len(inputs["x"]), *self.report.card.shape)
                self._bound = _Bound(self._ort, self._session, inputs, shape)
            return self._bound.run(inputs)
        except Exception as error:  # ONNX Runtime's errors share no class of their own
            raise ExportError(f"ONNX Runtime failed on {self.report.path}: {error}") from error


class _Parts:
    """Calls on the CPU, for parts of the batch at once."""

    def __init__(self, session: Any, most: int) -> None:
        self.session, self.most = session, most
        self.pool = ThreadPoolExecutor(most) if most > 1 else None

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        images = len(inputs["x"])
        parts = min(images, self.most)
        if self.pool is None or parts < 2:
            return self._one(inputs)
        bounds = [images * i // parts for i in range(parts + 1)]
        pieces = [
            {k: v[a:b] if k in BATCHED else v for k, v in inputs.items()}
            for a, b in itertools.pairwise(bounds)
        ]
        return np.concatenate(list(self.pool.map(self._one, pieces)))

    def _one(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        (prediction,) = self.session.run(["prediction"], dict(inputs))
        return np.asarray(prediction)


class _Bound:
    """Inputs and output that stay on the GPU between calls of one batch size (IO binding)."""

    def __init__(
        self, ort: Any, session: Any, inputs: Mapping[str, NDArray[Any]], shape: tuple[int, ...]
    ) -> None:
        self.session, self.binding = session, session.io_binding()
        self.inputs = {
            name: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value), "cuda", 0)
            for name, value in inputs.items()
        }
        for name, value in self.inputs.items():
            self.binding.bind_ortvalue_input(name, value)
        self.output = ort.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, "cuda", 0)
        self.binding.bind_ortvalue_output("prediction", self.output)
        self.shapes = {name: value.shape for name, value in inputs.items()}

    def fits(self, inputs: Mapping[str, NDArray[Any]]) -> bool:
        return self.shapes == {name: value.shape for name, value in inputs.items()}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        for name, value in inputs.items():
            self.inputs[name].update_inplace(np.ascontiguousarray(value))
        self.session.run_with_iobinding(self.binding)
        prediction: NDArray[np.float32] = self.output.numpy()
        return prediction


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ConfigError(
            "sampling from an ONNX file needs ONNX Runtime, which is not installed. "
            "Try: pip install 'ssmdiff[onnx]', or pip install onnxruntime"
        ) from error
    return onnxruntime


def _available(ort: Any, provider: str) -> tuple[str, ...]:
    if provider not in PROVIDERS:
        raise ConfigError(f"there is no provider {provider!r}; expected {', '.join(PROVIDERS)}")
    wanted, present = PROVIDERS[provider], ort.get_available_providers()
    if wanted[0] not in present:
        raise ConfigError(
            f"provider {provider!r} was asked for, and the ONNX Runtime that is installed has "
            f"{', '.join(map(provider_of, present))}. Try: pip install {PACKAGES[provider]}"
        )
    return tuple(name for name in wanted if name in present)


def provider_of(name: str) -> str:
    """Our name of one of ONNX Runtime's providers; its own where we have none."""
    return next((own for own, names in PROVIDERS.items() if names[0] == name), name)


def _library(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(
            f"there is no operator library {path}. Build it with: ssmdiff export --ort-library"
        )
    return path.resolve()
