"""What a scale of a paper's tables is: data sets, systems and how both are judged, from a file.

``vm-ddpm.paper.toml`` and ``vm-ddpm.cpu.toml`` lie beside this module. A system is a name with a
table of the configuration that is laid over that of its data set; whatever ``ssmdiff train`` can
train can be one.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from ssmdiff import ConfigError, did_you_mean, validate

Positive = Annotated[int, Field(ge=1)]
Table = dict[str, Any]
SCALES = ("paper", "cpu")


class Section(BaseModel):
    """A table of the file: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Draw(Section):
    """How images are drawn; what is None is as the run was configured."""

    scheduler: str | None = None
    steps: Positive | None = None


class System(Section):
    """A row of a table."""

    label: str
    preset: str = ""
    """In the place of the data set's, of which what it says of the data stays."""
    config: Table = {}
    """Laid over the configuration of the data set."""
    draw: Draw = Draw()
    weights: str = ""
    """The system that it draws from; it is not trained itself."""
    needs: tuple[str, str] | None = None
    """Kind and name of a component without which the row is left out, and said to be."""


class DataSet(Section):
    """A data set of a table."""

    label: str
    preset: str = ""
    """In the place of the scale's."""
    dataset: Table = {}
    """The component and its options, over the preset's."""
    reference: Table = {}
    """A data set that the images are held against; by default the one that is trained on."""
    store: bool = False
    """It is a store that the user gives."""
    held_out: bool = False
    """Images are held against those that the store holds out, where it holds some out."""


class Plan(Section):
    """What stands in one table."""

    systems: tuple[str, ...]
    seeds: Positive
    base: str
    """The system that the others are held against, seed by seed."""
    only: dict[str, tuple[str, ...]] = {}
    """Systems of a data set that has not all of them."""


class Scale(Section):
    """Everything that the cells of a paper's tables are made from."""

    preset: str
    images_seen: Positive
    """Of each training run."""
    drawn: Annotated[int, Field(ge=2)]
    """Images that are judged."""
    distance: str
    """How the name of the figure begins that stands in the table."""
    comparable: bool
    """Whether it may be held against the paper's."""
    why_not: str = ""
    features: tuple[Table, ...]
    metrics: tuple[Table, ...]
    reference: Annotated[int, Field(ge=2)]
    """Reference images at most."""
    config: Table = {}
    """Laid over the preset."""
    data: dict[str, DataSet]
    systems: dict[str, System]
    tables: dict[str, Plan]

    @model_validator(mode="after")
    def _names(self) -> Scale:
        for name, plan in self.tables.items():
            named = {*plan.systems, plan.base, *(s for only in plan.only.values() for s in only)}
            if strange := sorted(named - self.systems.keys()):
                raise ValueError(f"tables.{name} names systems that there are not: {strange}")
        for name, system in self.systems.items():
            if system.weights and system.weights not in self.systems:
                raise ValueError(f"systems.{name}.weights: there is no system {system.weights}")
        return self


def load_scale(paper: str, name: str) -> Scale:
    """A scale by its name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in SCALES:
        raise ConfigError(f"--scale {name!r}: {did_you_mean(name, SCALES)}")
    text = (files("ssmdiff_reproduce") / f"{paper}.{name}.toml").read_text("utf-8")
    return validate(Scale, tomllib.loads(text), f"{paper}.{name}.toml")


def changed(scale: Scale, **values: Any) -> Scale:
    """A scale with other values, those that are None left as they are.

    Raises:
        ConfigError: One is out of range.
    """
    given: Mapping[str, Any] = {key: value for key, value in values.items() if value is not None}
    return validate(Scale, {**scale.model_dump(), **given}, "reproduce")
