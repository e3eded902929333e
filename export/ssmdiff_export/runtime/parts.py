"""The parts of a model card, each with how it is read from a document that is not trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import numpy as np
from numpy.typing import NDArray
from ssmdiff import (
    DIFFUSION,
    FLOW,
    MAX_ENTRIES,
    BetaSchedule,
    Conditions,
    ConfigError,
    ContractError,
    Distribution,
    ExportError,
    GroupShuffle,
    Prediction,
    make_betas,
)

from ssmdiff_export.runtime import checks
from ssmdiff_export.runtime.checks import Table

MAX_TOLD = 1 << 14
"""Numbers, and planes, that a file may be told."""


@dataclass(frozen=True)
class Slot:
    """One S6 call of the network.

    ``order`` is the graph's input for its order, None where the order is fixed and in the graph;
    ``recipe`` says how the order is drawn, None where its scan has to be installed for that.
    ``digest`` is that of the order, or of the first that is drawn under seed 0; files of before 0.2
    have none.
    """

    grid: tuple[int, ...]
    order: str | None = None
    recipe: str | None = None
    digest: str | None = None

    @property
    def tokens(self) -> int:
        """L."""
        return math.prod(self.grid)


@dataclass(frozen=True)
class Process:
    """The forward process that was trained, and what the network predicts."""

    timesteps: int
    beta_schedule: BetaSchedule
    beta_start: float
    beta_end: float
    prediction: Prediction

    of: ClassVar[str] = DIFFUSION

    def __str__(self) -> str:
        return (
            f"{self.timesteps} timesteps, {self.beta_schedule} betas from {self.beta_start:g} to "
            f"{self.beta_end:g}, predicts {self.prediction}"
        )

    def betas(self) -> NDArray[np.float64]:
        """(T,)."""
        return make_betas(self.beta_schedule, self.timesteps, self.beta_start, self.beta_end)

    def wired(self) -> dict[str, Any]:
        """What a noise scheduler is told of it."""
        return {"betas": self.betas(), "prediction_type": self.prediction}


@dataclass(frozen=True)
class Flow:
    """The straight way from images to noise that was trained, of which the network predicts the
    velocity.

    Args:
        shift: Of the times of training.
    """

    shift: float

    of: ClassVar[str] = FLOW

    def __str__(self) -> str:
        return f"rectified flow, times shifted by {self.shift:g}, predicts the velocity"

    def wired(self) -> dict[str, Any]:
        """What a noise scheduler is told of it."""
        return {"trained_shift": self.shift}


@dataclass(frozen=True)
class Latent:
    """What a generator makes an image of, in one call: it has no process, no steps and no scans."""

    network: Mapping[str, Any]
    """Component table of its GAN."""
    size: int
    distribution: Distribution


@dataclass(frozen=True)
class Parity:
    """How far the file was from torch when it was exported, over all compared cases."""

    max_abs: float
    max_rel: float
    tolerance: float
    cases: int


@dataclass(frozen=True)
class ExternalData:
    """The file beside the model that holds its weights, when it is large."""

    location: str
    bytes: int
    sha256: str


def slot_of(table: Table) -> Slot:
    slot = Slot(
        table.take("grid", checks.grid),
        table.take("order", checks.text) if table.has("order") else None,
        table.take("recipe", checks.text) if table.has("recipe") else None,
        table.take("digest", checks.text) if table.has("digest") else None,
    )
    table.finish()
    return slot


def process_of(table: Table) -> Process:
    process = Process(
        table.take("timesteps", checks.whole(2, 100_000)),
        table.take("beta_schedule", checks.one_of(get_args(BetaSchedule))),
        table.take("beta_start", checks.between(0, 1)),
        table.take("beta_end", checks.between(0, 1)),
        table.take("prediction", checks.one_of(get_args(Prediction))),
    )
    table.finish()
    return process


def flow_of(table: Table) -> Flow:
    """How a flow was trained."""
    flow = Flow(table.take("shift", checks.between(0, math.inf)))
    table.finish()
    return flow


def latent_of(table: Table) -> Latent:
    """What a generator makes images of."""
    latent = Latent(
        table.take("network", checks.component),
        table.take("size", checks.whole(1, 65_536)),
        table.take("distribution", checks.one_of(get_args(Distribution))),
    )
    table.finish()
    return latent


def parity_of(table: Table) -> Parity:
    parity = Parity(
        table.take("max_abs", checks.at_least_0),
        table.take("max_rel", checks.at_least_0),
        table.take("tolerance", checks.at_least_0),
        table.take("cases", checks.whole(1)),
    )
    table.finish()
    return parity


def external_of(table: Table) -> ExternalData:
    external = ExternalData(
        table.take("location", checks.text),
        table.take("bytes", checks.whole(0)),
        table.take("sha256", checks.sha256),
    )
    table.finish()
    return external


def told_of(record: list[Any]) -> Conditions:
    try:
        found = Conditions.from_record(record)
    except ConfigError as error:
        raise ExportError(f"model card: {error}") from None
    if found.width > MAX_TOLD or found.planes > MAX_TOLD:
        raise ExportError(
            f"model card: its conditions are {found.width} numbers and {found.planes} planes; at "
            f"most {MAX_TOLD} of either are read"
        )
    return found


def recipes_of(table: Table, slots: tuple[Slot, ...]) -> dict[str, GroupShuffle]:
    """The recipes, each unpacked only after its size was held against a slot that uses it."""
    recipes: dict[str, GroupShuffle] = {}
    entries = 0
    for key in table.values:
        recipe = table.take(key, checks.json_object)
        lengths = {slot.tokens for slot in slots if slot.recipe == key}
        tokens, rows = recipe.get("length"), recipe.get("directions")
        if type(tokens) is not int or lengths != {tokens}:
            raise ExportError(
                f"model card: recipe {key!r:.60} is for {checks.shown(tokens)} tokens; the slots "
                f"that use it have {sorted(lengths) or 'none'}"
            )
        entries += tokens * (rows if type(rows) is int else 1)
        if entries > MAX_ENTRIES:
            raise ExportError(f"model card: the recipes hold over {MAX_ENTRIES} places")
        try:
            recipes[key] = GroupShuffle.from_json(recipe)
        except ContractError as error:
            raise ExportError(f"model card: recipe {key!r:.60}: {error}") from error
    return recipes
