"""Images from an exported file, with numpy and ONNX Runtime alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ssmdiff import ConfigError, ScanOrder, first_noise, step_noise

from ssmdiff_export.runtime.card import ModelCard
from ssmdiff_export.runtime.files import check_model_file
from ssmdiff_export.runtime.orders import FilePlan, feeds
from ssmdiff_export.runtime.schedulers import build_scheduler
from ssmdiff_export.runtime.session import Session

Images = NDArray[np.float32]


class OnnxSampler:
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
        self.card: ModelCard = self.report.card
        self.provider = provider
        self._session = Session(self.report, provider, library, threads)

    def denoise(
        self,
        x: Images,
        timesteps: NDArray[Any],
        orders: Sequence[ScanOrder] = (),
        context: NDArray[Any] | None = None,
    ) -> Images:
        """One call of the network.

        Args:
            x: (B, C, H, W) noisy images.
            timesteps: (B,).
            orders: Of the random scans, from ``plan(seed).draw(step)``; none
                where all orders are fixed.
            context: (B,) class indices, for a conditional model.
        """
        inputs: dict[str, NDArray[Any]] = {
            "x": np.ascontiguousarray(x, dtype=np.float32),
            "timesteps": np.asarray(timesteps, dtype=np.float32),
            **feeds(self.card, orders),
        }
        if context is not None:
            inputs["context"] = np.asarray(context, dtype=np.int64)
        return self.run(inputs)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Images:
        """The same with the graph's inputs by name, as :class:`ModelCard` lists them."""
        return self._session.run(inputs)

    def plan(self, seed: int) -> FilePlan:
        """The orders of every step under a seed."""
        return FilePlan(self.card, seed)

    def sample(
        self,
        n: int = 16,
        seed: int = 0,
        steps: int | None = None,
        scheduler: str | Mapping[str, Any] | None = None,
        label: int | None = None,
        batch_size: int = 16,
        on_step: Callable[[], None] | None = None,
    ) -> Images:
        """Draw images 0 to n - 1 of a seed.

        Args:
            n: How many.
            seed: Image i depends on (seed, i) alone, not on n or ``batch_size``.
            steps: Sampling steps; by default the model's.
            scheduler: ddpm, ddim, dpmpp, euler or heun by name, or a table with options; by
                default the model's.
            label: The class to draw, for a conditional model.
            batch_size: Images drawn at once.
            on_step: Called after each call of the network.

        Returns:
            (n, C, H, W) float32, -1 to 1.

        Raises:
            ConfigError: The scheduler has no numpy form, or a value is out of range.
        """
        if n < 1 or batch_size < 1:
            raise ConfigError(f"n is {n} and batch_size {batch_size}; expected at least 1")
        table = self.card.scheduler_table(scheduler)
        steps = self.card.steps if steps is None else steps
        batches = [
            self._batch(range(i, min(i + batch_size, n)), seed, steps, table, label, on_step)
            for i in range(0, n, batch_size)
        ]
        return np.concatenate(batches)

    def _batch(
        self,
        indices: Sequence[int],
        seed: int,
        steps: int,
        table: Mapping[str, Any],
        label: int | None,
        on_step: Callable[[], None] | None,
    ) -> Images:
        card, shape = self.card, self.card.shape
        scheduler = build_scheduler(table, card.betas(), card.diffusion.prediction, steps)
        plan, index = self.plan(seed), card.class_index(label)
        context = None if index is None else np.full(len(indices), index, dtype=np.int64)
        noise = np.stack([first_noise(seed, i, shape) for i in indices])
        x = noise * np.float32(scheduler.initial_scale)
        for step, t in enumerate(scheduler.timesteps):
            timesteps = np.full(len(x), t, dtype=np.float32)
            prediction = self.denoise(
                scheduler.scaled(x, step), timesteps, plan.draw(step), context
            )
            if scheduler.random:
                noise = np.stack([step_noise(seed, i, step, shape) for i in indices])
            x = scheduler.step(prediction, step, x, noise)
            if on_step:
                on_step()
        return x.clip(-1, 1)
