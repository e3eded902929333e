"""The orders of an exported model's random scans, drawn as an OrderPlan draws them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import ssmdiff
from numpy.typing import NDArray
from ssmdiff import ExportError, Scan, ScanOrder, checked_order, stream

from ssmdiff_export.runtime.card import ModelCard


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
        return scan


def feeds(card: ModelCard, orders: Sequence[ScanOrder]) -> dict[str, NDArray[np.integer]]:
    """What :meth:`FilePlan.draw` gave, as inputs of the graph by name."""
    names = [slot.order for slot in card.slots if slot.order is not None]
    return {name: order.coded for name, order in zip(names, orders, strict=True)}
