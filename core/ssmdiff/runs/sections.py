"""A run's configuration: its sections, the fixed keys, their types and ranges. Imports no torch."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, Field, field_validator, model_validator

from ssmdiff.diffusion.betas import BetaSchedule, Prediction
from ssmdiff.diffusion.schedulers import DIFFUSION
from ssmdiff.registry.options import STRICT, Seed
from ssmdiff.registry.registry import registry

COMPONENTS = {
    "data.dataset": "dataset",
    "method": "method",
    "method.network": "gan",
    "method.loss": "loss",
    "model.backbone": "backbone",
    "model.block": "block",
    "model.scan": "scan",
    "sample.scheduler": "scheduler",
}
"""Where the one component of a kind stands; one that is within another comes after it."""

OF_SOME_METHODS = (
    "model",
    "diffusion",
    "sample.scheduler",
    "sample.steps",
    "train.activation_checkpointing",
    "train.bound_images",
    "train.condition_dropout",
    "train.held_out_every",
    "train.held_out_images",
)
"""Keys and tables that a method may have no use for; one of a method that does not read them is
neither taken nor kept."""

ComponentTable = dict[str, Any]
"""A component's name and its options: ``{name = "regenerate", base = "cross"}``."""

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A table of the configuration: frozen, strict, unknown keys refused."""

    model_config = STRICT


class AugmentConfig(Section):
    """What is done to each image at random before noise is added; None: what the data set declares,
    and nothing where it declares nothing."""

    rotate_deg: Annotated[float, Field(ge=0, le=180)] | None = None
    shift: Annotated[float, Field(ge=0, le=0.5)] | None = None
    """A share of the sides."""
    zoom: Annotated[float, Field(ge=0, le=0.5)] | None = None
    """A factor of 1 - zoom to 1 + zoom."""


class DataConfig(Section):
    """Where the images come from."""

    dataset: ComponentTable
    image_size: tuple[Positive, ...] = (32, 32)
    flip: bool | None = None
    """Mirror every other image left to right, at random; None: as the data set declares."""
    augment: AugmentConfig = AugmentConfig()
    workers: Annotated[int, Field(ge=0, le=64)] = 0

    @field_validator("image_size", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            return (value, value)
        return tuple(value) if isinstance(value, list) else value


class ModelConfig(Section):
    """The denoiser: a backbone of blocks along a scan."""

    backbone: ComponentTable = {}
    block: ComponentTable = {}
    scan: ComponentTable = {}
    class_conditional: bool = False
    """Whether the model is told the class of an image, and never left without it."""
    conditions: tuple[str, ...] = ()
    """What else the model is told of an image: names of what the data set declares."""


class DiffusionConfig(Section):
    """The forward process and what the network predicts (eq. 1 to 4)."""

    timesteps: Annotated[int, Field(ge=2, le=100_000)] = 1000
    beta_schedule: BetaSchedule = "linear"
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    prediction: Prediction = "epsilon"
    min_snr_gamma: Annotated[float, Field(gt=0)] | None = None


def _tables(value: Any) -> Any:
    """Names as tables with a name."""
    if not isinstance(value, list | tuple):
        return value
    return tuple({"name": one} if isinstance(one, str) else one for one in value)


class EvaluateConfig(Section):
    """How a run is judged as it trains, by the job ``evaluate``."""

    n: Annotated[int, Field(ge=2)] = 256
    """Images that are drawn each time, the first of seed 0."""
    features: tuple[ComponentTable, ...] = ()
    """Feature networks: names, or tables with a name; none of them is the job's own choice."""
    metrics: tuple[ComponentTable, ...] = ()
    """Metrics, likewise."""
    best: str = ""
    """How the name of the figure begins by which the best checkpoint is kept; empty: the first."""
    batch_size: Positive = 64
    """Images drawn at once."""

    @field_validator("features", "metrics", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return _tables(value)


class TrainConfig(Section):
    """Optimisation. Batch sizes count images over all processes."""

    init_from: Annotated[str, Field(min_length=1)] | None = None
    """A run's folder, whose averaged weights this run begins with; None: it begins at random."""
    init_checkpoint: Annotated[str, Field(pattern=r"^(latest|best|step-\d{8,})$")] | None = None
    """Which of its checkpoints; None: the latest."""
    steps: Positive = 1000
    batch_size: Positive = 16
    micro_batch_size: Positive | None = None
    """Images of one forward pass on one process; None takes a process's whole share."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: Count = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    grad_clip: Annotated[float, Field(ge=0)] = 1.0
    """The largest norm of the gradient; 0 for any."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    activation_checkpointing: bool = False
    """Recompute each layer in the backward pass: much less memory, about a third more time."""
    compile: bool = False
    """Compile the network with torch.compile: a minute or more at first; no gain seen on CPUs."""
    kernel: str = "auto"
    checkpoint_every: Positive = 1000
    """Steps between checkpoints."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 30.0
    """At most so long between two checkpoints."""
    max_hours: Annotated[float, Field(gt=0)] | None = None
    """Stop and save before so many hours are over; --resume goes on, with as many again."""
    keep_checkpoints: Annotated[int, Field(ge=2)] = 3
    sample_every: Count = 1000
    """Steps between sample grids; 0 for none but the last."""
    held_out_every: Count = 100
    """Steps between losses on held-out images, where the data has some; 0 for none."""
    held_out_images: Positive = 64
    """How many of them."""
    evaluate_every: Count = 0
    """Steps between evaluations of the averaged weights, which keep the best; 0 for none."""
    evaluate: EvaluateConfig = EvaluateConfig()
    bound_images: Count = 16
    """Images over which bits per dimension are reported at the end, of a diffusion L_vb (eq. 3); 0
    for none."""
    condition_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """How often a model of ``model.conditions`` is told nothing of an image, and each alone."""
    callbacks: tuple[ComponentTable, ...]
    """Who listens to the run: names, or tables with a name."""

    @field_validator("callbacks", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return _tables(value)


class SampleConfig(Section):
    """How images are drawn from the trained model."""

    scheduler: ComponentTable = {}
    steps: Positive = 50
    count: Annotated[int, Field(ge=1, le=256)] = 16
    """Images of a sample grid."""


class Config(Section):
    """Everything that a run depends on, besides the code and the data."""

    seed: Seed = 0
    data: DataConfig
    method: ComponentTable = {"name": "diffusion"}
    """What is trained, and how images come out of it; runs of before 0.2 do not say it."""
    model: ModelConfig = ModelConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    train: TrainConfig
    sample: SampleConfig = SampleConfig()

    @field_validator("method", mode="before")
    @classmethod
    def _a_table(cls, value: Any) -> Any:
        table = {"name": value} if isinstance(value, str) else value
        if isinstance(table, Mapping) and not isinstance(table.get("name"), str):
            raise ValueError("a method is a name, or a table with a 'name'")
        return table

    @model_validator(mode="after")
    def _fits(self) -> Config:
        start, end = self.diffusion.beta_start, self.diffusion.beta_end
        if end < start:
            raise ValueError(
                f"diffusion.beta_end is {end:g}, below diffusion.beta_start, {start:g}"
            )
        told = self.model.conditions
        if self.model.class_conditional and told and "label" not in told:
            raise ValueError(
                "model.class_conditional is true and model.conditions have no 'label'; give "
                "model.conditions alone"
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain values that the method reads, without those that are None."""
        return without(self.model_dump(mode="json", exclude_none=True), self.unread())

    def to_toml(self) -> str:
        return tomli_w.dumps(self.to_dict())

    def unread(self) -> tuple[str, ...]:
        """Those of :data:`OF_SOME_METHODS` that are none of this method's."""
        return unread_by(self.method["name"])

    @property
    def sampling_steps(self) -> int:
        """``sample.steps``; 1 where the method makes an image in one call."""
        return 1 if "sample.steps" in self.unread() else self.sample.steps

    def components(self) -> dict[str, tuple[str, ComponentTable]]:
        """Each component's kind and table, by its dotted path."""
        return _components(self.to_dict())

    def completed(self) -> dict[str, Any]:
        """All values, None included, with every option of every component.

        Raises:
            ConfigError: An option is unknown, of the wrong type or out of range.
            PluginError: A component's plugin is broken or in conflict.
        """
        values = without(self.model_dump(mode="json"), self.unread())
        known: set[str] = set()
        # The options of one component may be others, which are there once it is complete.
        while new := [item for item in _components(values).items() if item[0] not in known]:
            path, (kind, table) = new[0]
            known.add(path)
            *sections, key = path.split(".")
            place = functools.reduce(operator.getitem, sections, values)
            place[int(key) if isinstance(place, list) else key] = registry().options(
                kind, table, path
            )
        return values

    def keys(self) -> set[str]:
        """Every key that this configuration has, by its dotted path."""
        return set(flat(self.completed()))


def said_by(method: str, attribute: str, default: Any) -> Any:
    """What the class of a method says of itself, such as ``reads``.

    Raises:
        ConfigError: There is no such method.
        PluginError: Its plugin is broken or in conflict.
    """
    return getattr(registry().find("method", method).factory(), attribute, default)


def unread_by(method: str) -> tuple[str, ...]:
    """Those of :data:`OF_SOME_METHODS` that a method does not read; see :func:`said_by`."""
    reads = said_by(method, "reads", ())
    return tuple(key for key in OF_SOME_METHODS if key not in reads)


def without(values: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Tables without what stands at some dotted paths; a table that is left empty goes too."""
    kept = dict(values)
    for path in keys:
        key, _, rest = path.partition(".")
        inner = kept.get(key)
        kept[key] = without(inner, [rest]) if rest and isinstance(inner, Mapping) else inner
        if not rest or kept[key] in (None, {}):
            kept.pop(key)
    return kept


def at(values: Any, path: str) -> Any:
    """What stands at a dotted path of tables, None where nothing does."""
    for key in path.split("."):
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def _components(values: Mapping[str, Any]) -> dict[str, tuple[str, ComponentTable]]:
    """Each component's kind and table in a whole configuration, by its dotted path."""
    listed = (
        ("train.callbacks", "callback"),
        ("train.evaluate.features", "features"),
        ("train.evaluate.metrics", "metric"),
    )
    found = {
        path: (kind, table) for path, kind in COMPONENTS.items() if (table := at(values, path))
    }
    return found | {
        f"{path}.{i}": (kind, table)
        for path, kind in listed
        for i, table in enumerate(at(values, path) or ())
    }


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted path -> value of everything in a table that is no table itself."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[prefix + key] = value
    return values


def parts_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Kind -> name of the components that make up what is trained; the method itself where it has
    none, or is not the one that a backbone is trained by unless another is chosen.

    Raises:
        LookupError: There is nothing of that.
    """
    found = {kind: at(values, path) for path, kind in COMPONENTS.items() if _of_a_network(path)}
    tables = {k: t for k, t in found.items() if t} or {"method": values["method"]}
    if "backbone" in tables and (at(values, "method.name") or DIFFUSION) != DIFFUSION:
        tables = {"method": values["method"], **tables}
    return {k: t if isinstance(t, str) else t["name"] for k, t in tables.items()}


def _of_a_network(path: str) -> bool:
    return path.startswith(("model.", "method."))
