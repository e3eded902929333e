"""Images from an exported file, with numpy and ONNX Runtime alone.

:class:`FilePlan` draws the orders that a card describes, :class:`CardModel` is what the sampling
loop asks of a model, but the network; :class:`ArrayModel` calls one on numpy arrays, wherever it
runs; :class:`OnnxSampler` has it, a :class:`Session` of ONNX Runtime on the provider that was asked
for and no other. The path for GPUs is written after the documentation and has not run: there was no
GPU.
"""

from __future__ import annotations

import functools
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ssmdiff
from numpy.typing import NDArray
from ssmdiff import (
    Denoiser,
    ExportError,
    ImageModel,
    Noise,
    NoiseScheduler,
    OneCall,
    SamplingSettings,
    Scan,
    ScanOrder,
    checked_order,
    make_flow_scheduler,
    make_scheduler,
    refuse_walk,
    stream,
)

from ssmdiff_export.runtime.card import ModelCard
from ssmdiff_export.runtime.files import check_model_file
from ssmdiff_export.runtime.session import Session

Array = NDArray[np.float32]
Images = TypeVar("Images")


@dataclass(frozen=True)
class FilePlan:
    """What :class:`ssmdiff.OrderPlan` is to a model in torch: orders by (seed, step, slot).

    Args:
        card: Says which slots are random, and how their orders are drawn.
        seed: Of the images.
    """

    card: ModelCard
    seed: int = 0

    def draw(self, step: int, seed: int | None = None) -> tuple[ScanOrder, ...]:
        """The orders of one step, of the slots that the graph takes orders for.

        A seed that is given stands for that of the plan.
        """
        drawn = []
        seed = self.seed if seed is None else seed
        for i, slot in enumerate(self.card.slots):
            if slot.order is None:
                continue
            generator = stream(seed, "order", step, i)
            if slot.recipe is not None:
                drawn.append(self.card.recipes[slot.recipe].draw(generator))
            else:
                drawn.append(checked_order(self._scan.at(i), slot.grid, generator))
        return tuple(drawn)

    @functools.cached_property
    def _scan(self) -> Scan:
        """The scan itself, for orders without a recipe: needs its package, and no torch.

        Raises:
            ExportError: It is not installed here.
        """
        name = self.card.scan["name"]
        try:
            scan: Scan = ssmdiff.create("scan", self.card.scan)
        except (ModuleNotFoundError, ssmdiff.SsmdiffError) as error:
            made_with = self.card.components.get("model.scan", name)
            raise ExportError(
                f"the orders of scan {name!r} are random and the file has no recipe for them, so "
                f"the scan and what ssmdiff requires have to be installed where it is sampled; the "
                f"model was made with {made_with}: {error}"
            ) from error
        self._warn_if_another(scan)
        return scan

    def _warn_if_another(self, scan: Scan) -> None:
        """The graph takes any order: one of a changed scan is drawn from without an error."""
        for i, slot in enumerate(self.card.slots):
            if slot.order is None or slot.recipe is not None or slot.digest is None:
                continue
            found = checked_order(scan.at(i), slot.grid, stream(0, "order", 0, i)).digest
            if found != slot.digest:
                made_with = self.card.components.get("model.scan", self.card.scan["name"])
                warnings.warn(
                    f"the scan that is installed here gives other orders than that of the file, "
                    f"which was made with {made_with} (slot {i}: {slot.digest} -> {found}), so "
                    "what it draws is not what was trained. Try: install what it was made with",
                    stacklevel=4,
                )
                return


def feeds(card: ModelCard, orders: Sequence[ScanOrder]) -> dict[str, NDArray[np.integer]]:
    """What :meth:`FilePlan.draw` gave, as inputs of the graph by name."""
    names = [slot.order for slot in card.slots if slot.order is not None]
    return {name: order.coded for name, order in zip(names, orders, strict=True)}


class CardModel(ImageModel[Images]):
    """A model in a file; it lacks the denoiser.

    Attributes:
        card: What the file says about itself.
    """

    card: ModelCard

    def __repr__(self) -> str:
        file = self.origin().get("file", "in memory")
        return f"<{type(self).__name__} {file}: {repr(self.card)[len('<ModelCard ') :]}"

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return self.card.shape

    @property
    def noise(self) -> Noise:
        """What an image is made from."""
        return self.card.noise

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of a conditional model; none of any other."""
        return self.card.class_names if self.card.class_conditional else ()

    @abstractmethod
    def denoiser(self) -> Denoiser: ...

    def origin(self) -> dict[str, Any]:
        """What the weights are, and their agreement with torch, as JSON."""
        parity = self.card.parity
        return {
            "checkpoint": self.card.checkpoint,
            "weights_sha256": self.card.weights_sha256,
            "parity": None if parity is None else vars(parity),
        }

    def plan(self, seed: int = 0) -> FilePlan:
        """The orders of every step under a seed."""
        return FilePlan(self.card, seed)

    def sampling(
        self,
        scheduler: str | Mapping[str, Any] | None = None,
        steps: int | None = None,
        seed: int = 0,
        label: int | str | None = None,
    ) -> SamplingSettings:
        """What was asked for, over the model's own scheduler and steps."""
        if self.card.latent is not None:
            refuse_walk(scheduler, steps)
            return SamplingSettings({}, self.card.steps, seed, self.class_index(label))
        table = self.card.scheduler_table(scheduler)
        steps = self.card.steps if steps is None else steps
        return SamplingSettings(table, steps, seed, self.class_index(label))

    def new_scheduler(self, table: Mapping[str, Any]) -> NoiseScheduler:
        """One of those that need numpy alone: ddpm, ddim, dpmpp, unipc, euler, heun; of a flow
        flow-euler, flow-heun, flow-adams."""
        if self.card.latent is not None:
            return OneCall()
        if self.card.flow is not None:
            return make_flow_scheduler(table, **self.card.flow.wired())
        return make_scheduler(table, **self.card.process.wired())


class ArrayModel(CardModel[Array]):
    """A model whose graph takes numpy arrays, wherever it runs; it lacks :meth:`run`."""

    def denoise(
        self,
        x: Array,
        timesteps: NDArray[Any],
        orders: Sequence[ScanOrder] = (),
        context: int | NDArray[Any] | None = None,
    ) -> Array:
        """One call of the network.

        Args:
            x: (B, C, H, W) noisy images; of a generator, (B, Z) latent vectors.
            timesteps: (B,); of no use to a generator.
            orders: Of the random scans, from ``plan(seed).draw(step)``; none if all are fixed.
            context: A class index or (B,) of them, for a conditional model.
        """
        inputs: dict[str, NDArray[Any]] = {
            "x": np.ascontiguousarray(x, dtype=np.float32),
            **feeds(self.card, orders),
        }
        if self.card.latent is None:
            inputs["timesteps"] = np.asarray(timesteps, dtype=np.float32)
        if context is not None:
            inputs["context"] = np.full(len(x), context, dtype=np.int64)
        return self.run(inputs)

    @abstractmethod
    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Array:
        """The same with the graph's inputs by name, as :class:`ModelCard` lists them."""

    def denoiser(self) -> Denoiser:
        """:meth:`denoise`."""
        return self.denoise

    def joined(self, batches: Sequence[Array]) -> Array:
        """One array."""
        return np.concatenate(batches)


class OnnxSampler(ArrayModel):
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

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Array:
        """The same with the graph's inputs by name, as :class:`ModelCard` lists them."""
        return self._session.run(inputs)
