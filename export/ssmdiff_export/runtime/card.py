"""The model card: what an exported file says about itself, enough to sample from it.

One JSON document under the key ``ssmdiff`` of the file's metadata. A file is not trusted: every
value is checked here, before any of them is used. The names by which graphs, libraries and plugins
know the scan are here too, since whoever writes or reads a file needs both.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from ssmdiff import (
    MAX_ENTRIES,
    BetaSchedule,
    ContractError,
    ExportError,
    GroupShuffle,
    Prediction,
    ScanSlot,
    make_betas,
    size_text,
)

from ssmdiff_export.runtime import checks
from ssmdiff_export.runtime.checks import Table

FORMAT = 1
MAX_BYTES = 1 << 24
"""Most of it are the recipes of random orders, a few bytes per token."""
PRECISIONS = ("fp32", "fp16", "bf16")

ScanBody = Literal["scan", "chunked", "linear-attention"]
"""How the scan is computed: the functions of our node, for where no operator of that name is
installed, or ONNX's own operator in the place of our node."""
LINEAR_ATTENTION: ScanBody = "linear-attention"
BODIES: tuple[ScanBody, ...] = ("scan", "chunked")
"""Those of the node's function."""

METADATA = "ssmdiff"
"""The key of ``metadata_props`` under which the model card stands."""
DOMAIN = "ssmdiff"
DOMAIN_VERSION = 1
EULER = "SelectiveScan"
ZOH = "SelectiveScanZoh"
OPERATORS = {"euler": EULER, "zoh": ZOH}
FUSED = (
    "CrossScan",
    "CrossScanZoh",
    "DepthwiseConv",
    "DepthwiseConvSilu",
    "GroupNormSilu",
    "TimedGroupNormSilu",
    "Softplus",
)
"""Operators of more than one node of ONNX: see :mod:`ssmdiff_export.fused`."""
INPUTS = ("u", "delta", "A", "B", "C", "order")
ATTRIBUTES: dict[str, str | int] = {"plugin_namespace": "ssmdiff", "plugin_version": "1", "aot": 1}
"""By these TensorRT finds our plugin; elsewhere they mean nothing."""
OPSETS = {"fp32": 20, "fp16": 20, "bf16": 22}
"""Of ONNX, by precision. 20 is read by every runtime of the last years; before 22 convolutions have
no bfloat16."""


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


@dataclass(frozen=True)
class ModelCard:
    """What a file was made from and how to sample from it. Component tables are name and options.

    Attributes:
        ssmdiff: Version that exported it.
        components: Dotted path in the configuration -> ``name: distribution version``.
        scan: Component tables, as are ``block``, ``backbone`` and ``scheduler``.
        image_size: (H, W).
        channels: C.
        class_names: Of the data; empty without classes.
        class_conditional: Whether the graph has the input ``context``.
        diffusion: The forward process.
        scheduler: The noise scheduler to sample with unless another is asked for.
        steps: Sampling steps, likewise.
        precision: Of the weights and activations.
        body: How the scan is computed where the operator is not installed.
        checkpoint: Name of the checkpoint.
        weights_sha256: Of the averaged weights.
        slots: Every S6 call in order.
        recipes: How random orders are drawn, by id.
        parity: Agreement with torch; None where it was not compared.
        external_data: The file with the weights; None where they are in the file itself.
        normalisation: What black and white are in the images.
        terms: On which terms the data may be used that it was trained on, and what is cited for it:
            ``name``, ``licence``, ``cite``, ``url``; empty where they are not known.

    ``print(card)`` is a page for a person, ``repr(card)`` a line.
    """

    ssmdiff: str
    components: Mapping[str, str]
    scan: Mapping[str, Any]
    block: Mapping[str, Any]
    backbone: Mapping[str, Any]
    image_size: tuple[int, int]
    channels: int
    class_names: tuple[str, ...]
    class_conditional: bool
    diffusion: Process
    scheduler: Mapping[str, Any]
    steps: int
    precision: str
    body: str
    checkpoint: str
    weights_sha256: str
    slots: tuple[Slot, ...]
    recipes: Mapping[str, GroupShuffle] = field(default_factory=dict)
    parity: Parity | None = None
    external_data: ExternalData | None = None
    normalisation: tuple[float, float] = (-1.0, 1.0)
    terms: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """One line: the parts and the size of an image."""
        return f"<ModelCard {self._parts()}, images {size_text(self.shape)}>"

    def __str__(self) -> str:
        """A page for a person: what it draws, from what it was made, how near it is to torch."""
        process, drawn = self.diffusion, sum(slot.order is not None for slot in self.slots)
        black, white = self.normalisation
        lines = {
            "network": self._parts(),
            "images": f"{size_text(self.shape)}, black {black:g} and white {white:g}",
            "process": f"{process.timesteps} timesteps, {process.beta_schedule} betas from "
            f"{process.beta_start:g} to {process.beta_end:g}, predicts {process.prediction}",
            "sampling": f"{self.scheduler['name']}, {self.steps} steps",
            "scans": f"{len(self.slots)} calls, {drawn} of them with an order drawn anew each step",
            "file": f"{self.precision}, scan body {self.body}, from {self.checkpoint} "
            f"by ssmdiff {self.ssmdiff}",
        }
        if self.class_names:
            known = ", ".join(self.class_names)
            lines["classes"] = known if self.class_conditional else f"{known} (not asked for)"
        if self.terms:
            lines["data"] = f"{self.terms.get('name')}: {self.terms.get('licence')}"
        if self.parity is not None:
            lines["torch"] = (
                f"{self.parity.max_abs:.1e} apart at most over {self.parity.cases} cases; "
                f"{self.parity.tolerance:g} is allowed"
            )
        return "\n".join(f"{name:<9} {text}" for name, text in lines.items())

    def _parts(self) -> str:
        tables = {"backbone": self.backbone, "block": self.block, "scan": self.scan}
        return ", ".join(f"{kind} {table['name']}" for kind, table in tables.items())

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.channels, *self.image_size)

    @property
    def scan_slots(self) -> tuple[ScanSlot, ...]:
        """The grids of all S6 calls."""
        return tuple(ScanSlot(slot.grid) for slot in self.slots)

    def betas(self) -> NDArray[np.float64]:
        """(T,) of the forward process."""
        d = self.diffusion
        return make_betas(d.beta_schedule, d.timesteps, d.beta_start, d.beta_end)

    def scheduler_table(self, asked: str | Mapping[str, Any] | None) -> dict[str, Any]:
        """The noise scheduler to use: the one asked for, over the model's own if it is the same."""
        table = {"name": asked} if isinstance(asked, str) else dict(asked or self.scheduler)
        same = table.get("name") == self.scheduler["name"]
        return {**self.scheduler, **table} if same else table

    def to_json(self) -> str:
        """The document, one line."""
        document = {"format": FORMAT} | {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self)
        }
        if not self.terms:  # a file of data without terms is that of before
            del document["terms"]
        document["sample"] = {
            "scheduler": document.pop("scheduler"),
            "steps": document.pop("steps"),
        }
        document["recipes"] = {key: recipe.to_json() for key, recipe in self.recipes.items()}
        return json.dumps(document, default=_plain, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> ModelCard:
        """The card of a document.

        Raises:
            ExportError: It is too large, no strict JSON, or a value is missing, unknown or wrong.
        """
        if len(text) > MAX_BYTES:
            raise ExportError(f"the model card has {len(text)} bytes; at most {MAX_BYTES} are read")
        table = Table(checks.strict_json(text), "model card")
        version = table.take("format", checks.whole(1))
        if version != FORMAT:
            raise ExportError(
                f"the model card has format {version}; this version reads {FORMAT}. "
                "Try: pip install --upgrade ssmdiff"
            )
        sample = table.table("sample")
        slots = tuple(
            _slot(table.inner(t, f"slots.{i}")) for i, t in enumerate(table.rows("slots"))
        )
        card = cls(
            ssmdiff=table.take("ssmdiff", checks.text),
            components=table.take("components", checks.texts),
            scan=table.take("scan", checks.component),
            block=table.take("block", checks.component),
            backbone=table.take("backbone", checks.component),
            image_size=table.take("image_size", checks.image_size),
            channels=table.take("channels", checks.whole(1, 4096)),
            class_names=table.take("class_names", checks.names),
            class_conditional=table.take("class_conditional", checks.flag),
            diffusion=_process(table.table("diffusion")),
            scheduler=sample.take("scheduler", checks.component),
            steps=sample.take("steps", checks.whole(1, 100_000)),
            precision=table.take("precision", checks.one_of(PRECISIONS)),
            body=table.take("body", checks.one_of(get_args(ScanBody))),
            checkpoint=table.take("checkpoint", checks.text),
            weights_sha256=table.take("weights_sha256", checks.sha256),
            slots=slots,
            recipes=_recipes(table.table("recipes"), slots),
            parity=_parity(table.table("parity")) if table.has("parity") else None,
            external_data=_external(table.table("external_data"))
            if table.has("external_data")
            else None,
            normalisation=table.take("normalisation", checks.normalisation),
            terms=table.take("terms", checks.texts) if table.has("terms") else {},
        )
        sample.finish()
        table.finish()
        _check_slots(card)
        return card


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return dict(value)


def _slot(table: Table) -> Slot:
    slot = Slot(
        table.take("grid", checks.grid),
        table.take("order", checks.text) if table.has("order") else None,
        table.take("recipe", checks.text) if table.has("recipe") else None,
        table.take("digest", checks.text) if table.has("digest") else None,
    )
    table.finish()
    return slot


def _process(table: Table) -> Process:
    process = Process(
        table.take("timesteps", checks.whole(2, 100_000)),
        table.take("beta_schedule", checks.one_of(get_args(BetaSchedule))),
        table.take("beta_start", checks.between(0, 1)),
        table.take("beta_end", checks.between(0, 1)),
        table.take("prediction", checks.one_of(get_args(Prediction))),
    )
    table.finish()
    return process


def _parity(table: Table) -> Parity:
    parity = Parity(
        table.take("max_abs", checks.at_least_0),
        table.take("max_rel", checks.at_least_0),
        table.take("tolerance", checks.at_least_0),
        table.take("cases", checks.whole(1)),
    )
    table.finish()
    return parity


def _external(table: Table) -> ExternalData:
    external = ExternalData(
        table.take("location", checks.text),
        table.take("bytes", checks.whole(0)),
        table.take("sha256", checks.sha256),
    )
    table.finish()
    return external


def _recipes(table: Table, slots: tuple[Slot, ...]) -> dict[str, GroupShuffle]:
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


def _check_slots(card: ModelCard) -> None:
    for i, slot in enumerate(card.slots):
        where = f"model card: slot {i}"
        if slot.order not in (None, f"order_{i}"):
            raise ExportError(f"{where} reads {slot.order!r:.60}; expected 'order_{i}'")
        if slot.recipe is not None and (slot.order is None or slot.recipe not in card.recipes):
            raise ExportError(f"{where} has no order, or no recipe {slot.recipe!r:.60}")
    if card.class_conditional and not card.class_names:
        raise ExportError("model card: the model is conditional and names no classes")
