"""What an exported model is by its card: what the sampling loop asks, but the network itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, TypeVar

from ssmdiff import Denoiser, ImageModel, NoiseScheduler, SamplingSettings, make_scheduler

from ssmdiff_export.runtime.card import ModelCard
from ssmdiff_export.runtime.orders import FilePlan

Images = TypeVar("Images")


class CardModel(ImageModel[Images]):
    """A model in a file; it lacks the denoiser.

    Attributes:
        card: What the file says about itself.
    """

    card: ModelCard

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return self.card.shape

    @abstractmethod
    def denoiser(self, label: int | None = None) -> Denoiser: ...

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
        label: int | None = None,
    ) -> SamplingSettings:
        """What was asked for, over the model's own scheduler and steps."""
        table = self.card.scheduler_table(scheduler)
        return SamplingSettings(table, self.card.steps if steps is None else steps, seed, label)

    def new_scheduler(self, table: Mapping[str, Any]) -> NoiseScheduler:
        """One of those that need numpy alone: ddpm, ddim, dpmpp, unipc, euler, heun."""
        return make_scheduler(table, self.card.betas(), self.card.diffusion.prediction)
