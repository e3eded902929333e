"""A run's configuration: defaults < preset < file < ``--set`` < named flags. Imports no torch.

Every part is checked when the configuration is resolved, before data or a device is touched: the
fixed keys here, the options of each component against its factory. Unknown keys are refused with
the nearest known one.
"""

from __future__ import annotations

import functools
import operator
import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, Field, field_validator, model_validator

from ssmdiff.diffusion.betas import BetaSchedule, Prediction
from ssmdiff.errors import ConfigError, did_you_mean
from ssmdiff.registry.options import STRICT, Seed, validate
from ssmdiff.registry.registry import registry

MAX_FILE_BYTES = 1 << 20
DEFAULT_PRESET = "tiny"
DEFAULTS = "defaults"
_PRESETS = files("ssmdiff.runs") / "presets"

ComponentTable = dict[str, Any]
"""A component's name and its options: ``{name = "regenerate", base = "cross"}``."""

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A table of the configuration: frozen, strict, unknown keys refused."""

    model_config = STRICT


class DataConfig(Section):
    """Where the images come from."""

    dataset: ComponentTable
    image_size: tuple[Positive, ...] = (32, 32)
    flip: bool = True
    """Mirror every other image left to right, at random."""
    workers: Annotated[int, Field(ge=0, le=64)] = 0

    @field_validator("image_size", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            return (value, value)
        return tuple(value) if isinstance(value, list) else value


class ModelConfig(Section):
    """The denoiser: a backbone of blocks along a scan."""

    backbone: ComponentTable
    block: ComponentTable
    scan: ComponentTable
    class_conditional: bool = False


class DiffusionConfig(Section):
    """The forward process and what the network predicts (eq. 1 to 4)."""

    timesteps: Annotated[int, Field(ge=2, le=100_000)] = 1000
    beta_schedule: BetaSchedule = "linear"
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    prediction: Prediction = "epsilon"
    min_snr_gamma: Annotated[float, Field(gt=0)] | None = None


class TrainConfig(Section):
    """Optimisation. Batch sizes count images over all processes."""

    steps: Positive = 1000
    batch_size: Positive = 16
    micro_batch_size: Positive | None = None
    """Images of one forward pass on one process; None takes a process's whole share."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: Count = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    grad_clip: Annotated[float, Field(gt=0)] | None = 1.0
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
    keep_checkpoints: Annotated[int, Field(ge=2)] = 3
    sample_every: Count = 1000
    """Steps between sample grids; 0 for none but the last."""
    bound_images: Count = 16
    """Images over which L_vb (eq. 3) is reported at the end; 0 for none."""
    callbacks: tuple[ComponentTable, ...]
    """Who listens to the run."""


class SampleConfig(Section):
    """How images are drawn from the trained model."""

    scheduler: ComponentTable
    steps: Positive = 50
    count: Annotated[int, Field(ge=1, le=256)] = 16
    """Images of a sample grid."""


class Config(Section):
    """Everything that a run depends on, besides the code and the data."""

    seed: Seed = 0
    data: DataConfig
    model: ModelConfig
    diffusion: DiffusionConfig = DiffusionConfig()
    train: TrainConfig
    sample: SampleConfig

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if self.diffusion.beta_end < self.diffusion.beta_start:
            raise ValueError("diffusion.beta_end is below diffusion.beta_start")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without those that are None."""
        return self.model_dump(mode="json", exclude_none=True)

    def to_toml(self) -> str:
        return tomli_w.dumps(self.to_dict())

    def components(self) -> dict[str, tuple[str, ComponentTable]]:
        """Each component's kind and table, by its dotted path."""
        listeners = {
            f"train.callbacks.{i}": ("callback", table)
            for i, table in enumerate(self.train.callbacks)
        }
        return {
            "data.dataset": ("dataset", self.data.dataset),
            "model.backbone": ("backbone", self.model.backbone),
            "model.block": ("block", self.model.block),
            "model.scan": ("scan", self.model.scan),
            "sample.scheduler": ("scheduler", self.sample.scheduler),
            **listeners,
        }


def resolve(*layers: Mapping[str, Any]) -> Config:
    """Merge layers, later over earlier, and check everything; components get all their options.

    Below all layers lies ``presets/defaults.toml``, the one place that names components.

    Raises:
        ConfigError: A key or value is wrong; every problem is listed with its dotted path.
        PluginError: A component's plugin is broken or in conflict.
    """
    merged = functools.reduce(merge, layers, _read_preset(DEFAULTS))
    config = validate(Config, merged, "")
    values = config.to_dict()
    for path, (kind, table) in config.components().items():
        *sections, key = path.split(".")
        place = functools.reduce(operator.getitem, sections, values)
        options = _without_none(registry().options(kind, table, path))
        place[int(key) if isinstance(place, list) else key] = options
    if config.train.kernel != "auto":
        registry().find("kernel", config.train.kernel)
    return validate(Config, values, "")


def _without_none(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value is not None}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``base``, table by table; a component with another name starts afresh."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, str) and isinstance(below, Mapping) and "name" in below:
            value = {"name": value}
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            renamed = "name" in value and value["name"] != below.get("name")
            merged[key] = dict(value) if renamed else merge(below, value)
        else:
            merged[key] = value
    return merged


def presets() -> list[str]:
    """Names of the presets shipped in the package."""
    names = (p.name.removesuffix(".toml") for p in _PRESETS.iterdir() if p.name.endswith(".toml"))
    return sorted(name for name in names if name != DEFAULTS)


def load_preset(name: str) -> dict[str, Any]:
    """The layer of a shipped preset."""
    if name not in presets():
        raise ConfigError(f"there is no preset {name!r}; {did_you_mean(name, presets())}")
    return _read_preset(name)


def _read_preset(name: str) -> dict[str, Any]:
    return tomllib.loads((_PRESETS / f"{name}.toml").read_text("utf-8"))


def load_file(path: Path) -> dict[str, Any]:
    """The layer of a TOML file.

    Raises:
        ConfigError: It is missing, no regular file, too large, or no TOML.
    """
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise ConfigError(f"config file {path} {what}")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ConfigError(
            f"config file {path} has {path.stat().st_size} bytes; at most {MAX_FILE_BYTES} are read"
        )
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} is no TOML: {error}") from None


def assignments(texts: Iterable[str]) -> dict[str, Any]:
    """The layer of ``--set path.to.key=value`` arguments; values as TOML, else as plain text."""
    layer: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"--set {text!r}: expected path.to.key=value")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value
        single: dict[str, Any] = {keys[-1]: parsed}
        for key in reversed(keys[:-1]):
            single = {key: single}
        layer = merge(layer, single)
    return layer


def differences(before: Config, after: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted path -> (before, after) of every value that differs."""
    old, new = _flat(before.to_dict()), _flat(after.to_dict())
    return {
        key: (old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    }


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
