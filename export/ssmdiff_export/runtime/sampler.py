"""Images from an exported file, with numpy and ONNX Runtime alone."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ssmdiff import Denoiser, ScanOrder

from ssmdiff_export.runtime.card_model import CardModel
from ssmdiff_export.runtime.files import check_model_file
from ssmdiff_export.runtime.orders import feeds
from ssmdiff_export.runtime.session import Session

Images = NDArray[np.float32]


class OnnxSampler(CardModel[Images]):
    """A trained model in an ONNX file::

        from ssmdiff_export.runtime import OnnxSampler
        images = OnnxSampler("model.onnx").sample(16, seed=0)

    The same loop, schedulers, orders and noise as in torch: image i of a seed is the same image.

    Args:
        path: The file, checked before ONNX Runtime opens it.
        provider: ``cpu``, ``cuda`` or ``tensorrt`` of ONNX Runtime; never another than asked for.
        library: Our operator as a shared library for ONNX Runtime; faster, and not needed.
        threads: Threads of one call of the network; None leaves it to ONNX Runtime.

    Attributes:
        card: What the file says about itself.

    Raises:
        ConfigError: No ONNX Runtime, no such provider, no such library.
        ExportError: The file is damaged, or not one that may be opened.
    """

    def __init__(
        self,
        path: str | Path,
        provider: str = "cpu",
        library: Path | None = None,
        threads: int | None = None,
    ) -> None:
        self.report = check_model_file(path)
        self.card = self.report.card
        self.provider = provider
        self._session = Session(self.report, provider, library, threads)

    def denoise(
        self,
        x: Images,
        timesteps: NDArray[Any],
        orders: Sequence[ScanOrder] = (),
        context: int | NDArray[Any] | None = None,
    ) -> Images:
        """One call of the network.

        Args:
            x: (B, C, H, W) noisy images.
            timesteps: (B,).
            orders: Of the random scans, from ``plan(seed).draw(step)``; none if all are fixed.
            context: A class index or (B,) of them, for a conditional model.
        """
        inputs: dict[str, NDArray[Any]] = {
            "x": np.ascontiguousarray(x, dtype=np.float32),
            "timesteps": np.asarray(timesteps, dtype=np.float32),
            **feeds(self.card, orders),
        }
        if context is not None:
            inputs["context"] = np.full(len(x), context, dtype=np.int64)
        return self.run(inputs)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Images:
        """The same with the graph's inputs by name, as :class:`ModelCard` lists them."""
        return self._session.run(inputs)

    def denoiser(self, label: int | None = None) -> Denoiser:
        """:meth:`denoise`, with the class bound."""
        return functools.partial(self.denoise, context=self.card.class_index(label))

    def joined(self, batches: Sequence[Images]) -> Images:
        """One array."""
        return np.concatenate(batches)
