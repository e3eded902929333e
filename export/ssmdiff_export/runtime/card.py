"""The model card: what an exported file says about itself, enough to sample from it.

One JSON document under the key ``ssmdiff`` of the file's metadata. A file is not trusted: every
value is checked here, before any of them is used. The names by which graphs, libraries and plugins
know the scan are here too, since whoever writes or reads a file needs both.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from ssmdiff import (
    LABEL,
    Condition,
    Conditions,
    ExportError,
    GroupShuffle,
    Noise,
    ScanSlot,
    size_text,
)

from ssmdiff_export.runtime import checks
from ssmdiff_export.runtime.checks import Table
from ssmdiff_export.runtime.parts import ExternalData as ExternalData
from ssmdiff_export.runtime.parts import Flow as Flow
from ssmdiff_export.runtime.parts import Latent as Latent
from ssmdiff_export.runtime.parts import Parity as Parity
from ssmdiff_export.runtime.parts import Process as Process
from ssmdiff_export.runtime.parts import Slot as Slot
from ssmdiff_export.runtime.parts import (
    external_of,
    flow_of,
    latent_of,
    parity_of,
    process_of,
    recipes_of,
    slot_of,
    told_of,
)

FORMAT, OF_GENERATORS, OF_FLOWS = 1, 2, 3
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
class ModelCard:
    """What a file was made from and how to sample from it. Component tables are name and options.

    Attributes:
        ssmdiff: Version that exported it.
        components: Dotted path in the configuration -> ``name: distribution version``.
        scan: Component tables, as are ``block``, ``backbone`` and ``scheduler``.
        image_size: (H, W).
        channels: C.
        class_names: Of the data; empty without classes.
        class_conditional: Whether the model is told the class.
        conditions: What it is told of each image: numbers are the graph's input ``context``, planes
            further channels of ``x``. Files of before 0.2 have none, and ``context`` is the class.
        diffusion: The forward process; None of a generator and of a flow.
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
        latent: Of a generator, whose ``scan``, ``block``, ``backbone`` and ``scheduler`` are empty.
        flow: Of a rectified flow; None of any other.

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
    diffusion: Process | None
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
    latent: Latent | None = None
    conditions: Conditions = field(default_factory=Conditions)
    flow: Flow | None = None

    def __repr__(self) -> str:
        """One line: the parts and the size of an image."""
        return f"<ModelCard {self._parts()}, images {size_text(self.shape)}>"

    def __str__(self) -> str:
        """A page for a person: what it draws, from what it was made, how near it is to torch."""
        black, white = self.normalisation
        lines = {
            "network": self._parts(),
            "images": f"{size_text(self.shape)}, black {black:g} and white {white:g}",
            **(self._walk() if self.latent is None else _of_one_call(self.latent)),
            "file": f"{self.precision}, scan body {self.body}, from {self.checkpoint} "
            f"by ssmdiff {self.ssmdiff}",
        }
        if self.class_names:
            known = ", ".join(self.class_names)
            lines["classes"] = known if self.class_conditional else f"{known} (not asked for)"
        if others := [one for one in self.conditions if one.name != LABEL]:
            lines["told"] = "; ".join(f"{one.name}: {one.expected()}" for one in others)
        if self.terms:
            lines["data"] = f"{self.terms.get('name')}: {self.terms.get('licence')}"
        if self.parity is not None:
            lines["torch"] = (
                f"{self.parity.max_abs:.1e} apart at most over {self.parity.cases} cases; "
                f"{self.parity.tolerance:g} is allowed"
            )
        return "\n".join(f"{name:<9} {text}" for name, text in lines.items())

    def _walk(self) -> dict[str, str]:
        """How images are drawn in steps, for a person."""
        drawn = sum(slot.order is not None for slot in self.slots)
        return {
            "process": str(self.walk),
            "sampling": f"{self.scheduler['name']}, {self.steps} steps",
            "scans": f"{len(self.slots)} calls, {drawn} of them with an order drawn anew each step",
        }

    def _parts(self) -> str:
        if self.latent is not None:
            return f"generator of gan {self.latent.network['name']}"
        tables = {"backbone": self.backbone, "block": self.block, "scan": self.scan}
        return ", ".join(f"{kind} {table['name']}" for kind, table in tables.items())

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.channels, *self.image_size)

    @property
    def told(self) -> Conditions:
        """What the model is told, of an older file as well."""
        if self.conditions or not self.class_conditional:
            return self.conditions
        return Conditions([Condition(LABEL, "label", self.class_names)])

    @property
    def takes_classes(self) -> bool:
        """Whether ``context`` is whole numbers, the classes, as in files of before 0.2."""
        return self.class_conditional and not self.conditions

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of ``x``, without the batch."""
        channels, *sides = self.noise.shape
        return (channels + self.conditions.planes, *sides)

    @property
    def scan_slots(self) -> tuple[ScanSlot, ...]:
        """The grids of all S6 calls."""
        return tuple(ScanSlot(slot.grid) for slot in self.slots)

    @property
    def noise(self) -> Noise:
        """What an image is made from."""
        if self.latent is None:
            return Noise(self.shape)
        return Noise((self.latent.size,), self.latent.distribution)

    @property
    def process(self) -> Process:
        """The forward process.

        Raises:
            ExportError: It is the file of a generator.
        """
        if self.diffusion is None:
            what = "generator" if self.flow is None else "flow"
            raise ExportError(f"the file holds a {what}, which was trained by no forward process")
        return self.diffusion

    @property
    def walk(self) -> Process | Flow:
        """The way from images to noise that was trained.

        Raises:
            ExportError: It is the file of a generator.
        """
        return self.process if self.flow is None else self.flow

    def betas(self) -> NDArray[np.float64]:
        """(T,) of the forward process."""
        return self.process.betas()

    def scheduler_table(self, asked: str | Mapping[str, Any] | None) -> dict[str, Any]:
        """The noise scheduler to use: the one asked for, over the model's own if it is the same."""
        table = {"name": asked} if isinstance(asked, str) else dict(asked or self.scheduler)
        same = table.get("name") == self.scheduler["name"]
        return {**self.scheduler, **table} if same else table

    def to_json(self) -> str:
        """The document, one line."""
        version = FORMAT if self.diffusion else OF_GENERATORS if self.latent else OF_FLOWS
        document = {"format": version} | {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self)
        }
        if not self.terms:  # a file of data without terms is that of before
            del document["terms"]
        document["conditions"] = self.conditions.record()
        if not self.conditions:
            del document["conditions"]
        document["sample"] = {
            "scheduler": document.pop("scheduler"),
            "steps": document.pop("steps"),
        }
        for key in NOT_OF[version]:
            del document[key]
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
        if version not in NOT_OF:
            raise ExportError(
                f"the model card has format {version}; this version reads {FORMAT} to {OF_FLOWS}. "
                "Try: pip install --upgrade ssmdiff"
            )
        slots = tuple(
            slot_of(table.inner(t, f"slots.{i}")) for i, t in enumerate(table.rows("slots"))
        )
        card = cls(
            ssmdiff=table.take("ssmdiff", checks.text),
            components=table.take("components", checks.texts),
            image_size=table.take("image_size", checks.image_size),
            channels=table.take("channels", checks.whole(1, 4096)),
            class_names=table.take("class_names", checks.names),
            class_conditional=table.take("class_conditional", checks.flag),
            **(
                {**ONE_CALL, "latent": latent_of(table.table("latent"))}
                if version == OF_GENERATORS
                else _walk(table, version)
            ),
            precision=table.take("precision", checks.one_of(PRECISIONS)),
            body=table.take("body", checks.one_of(get_args(ScanBody))),
            checkpoint=table.take("checkpoint", checks.text),
            weights_sha256=table.take("weights_sha256", checks.sha256),
            slots=slots,
            recipes=recipes_of(table.table("recipes"), slots),
            parity=parity_of(table.table("parity")) if table.has("parity") else None,
            external_data=external_of(table.table("external_data"))
            if table.has("external_data")
            else None,
            normalisation=table.take("normalisation", checks.normalisation),
            terms=table.take("terms", checks.texts) if table.has("terms") else {},
            conditions=told_of(table.take("conditions", checks.json_list))
            if table.has("conditions")
            else Conditions(),
        )
        table.finish()
        _check_slots(card)
        return card


ONE_CALL: dict[str, Any] = {
    "scan": {}, "block": {}, "backbone": {}, "diffusion": None, "scheduler": {}, "steps": 1
}  # fmt: skip
"""What a card has of a generator in the place of :data:`OF_A_WALK`."""
OF_A_WALK = ("scan", "block", "backbone", "diffusion", "sample")
NOT_OF = {
    FORMAT: ("latent", "flow"),
    OF_GENERATORS: (*OF_A_WALK, "flow"),
    OF_FLOWS: ("latent", "diffusion"),
}
"""What a document of each format lacks."""


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return dict(value)


def _walk(table: Table, version: int) -> dict[str, Any]:
    """How a denoiser was trained and is sampled."""
    sample = table.table("sample")
    found = {
        "scan": table.take("scan", checks.component),
        "block": table.take("block", checks.component),
        "backbone": table.take("backbone", checks.component),
        "diffusion": process_of(table.table("diffusion")) if version == FORMAT else None,
        "flow": flow_of(table.table("flow")) if version == OF_FLOWS else None,
        "scheduler": sample.take("scheduler", checks.component),
        "steps": sample.take("steps", checks.whole(1, 100_000)),
    }
    sample.finish()
    return found


def _of_one_call(latent: Latent) -> dict[str, str]:
    """How images are made in one call, for a person."""
    return {"latent": f"{latent.size} numbers, {latent.distribution}", "sampling": "one call"}


def _check_slots(card: ModelCard) -> None:
    for i, slot in enumerate(card.slots):
        where = f"model card: slot {i}"
        if slot.order not in (None, f"order_{i}"):
            raise ExportError(f"{where} reads {slot.order!r:.60}; expected 'order_{i}'")
        if slot.recipe is not None and (slot.order is None or slot.recipe not in card.recipes):
            raise ExportError(f"{where} has no order, or no recipe {slot.recipe!r:.60}")
    if card.class_conditional and not card.class_names:
        raise ExportError("model card: the model is conditional and names no classes")
    if card.conditions and (LABEL in card.conditions.names) != card.class_conditional:
        raise ExportError("model card: class_conditional and the conditions do not agree")
