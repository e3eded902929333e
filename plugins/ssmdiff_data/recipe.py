"""What a person decides about a store: options of ``ssmdiff data prepare``, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ssmdiff import ConfigError, did_you_mean

from ssmdiff_data.scaling import Resize
from ssmdiff_data.slicing import ALL, AXES, Axis, SliceRule, parse_slices
from ssmdiff_data.splitting import parse_shares
from ssmdiff_data.value_rules import ValueRule, parse_rule

SIZE = (128, 128)


@dataclass(frozen=True)
class Recipe:
    """How files become images: with the files and the salt, all that a store depends on."""

    axis: Axis = "axial"
    slices: SliceRule = ALL
    values: ValueRule | None = None
    """None: by what each file says, see ``value_rules``."""
    image_size: tuple[int, int] = SIZE
    resize: Resize = "pad"
    channels: Literal[1, 3] | None = None
    bits: Literal[8, 16] | None = None
    """None: 8 where all files have 8, else 16."""
    shares: Mapping[str, float] | None = None
    """None: a tenth of the patients is ``test``, if there are ten or more."""
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Split -> lines of a list."""
    seed: int = 0
    """Of the shares."""
    group: str | None = None
    """A regular expression that finds the patient in a file's name."""
    labels: Literal["none", "folders"] = "none"
    """``folders``: the class is the first folder under the one that is read."""
    mask: str | None = None
    """What the name of a mask has more than that of its image: ``_seg``."""
    table: str | None = None
    """A CSV file of what is known of each image, see ``table``."""
    columns: tuple[str, ...] = ()
    """Which of its columns go into the store: ``age``, or with its kind ``age:number``."""
    on_bad: Literal["error", "leave-out"] = "error"

    def record(self) -> dict[str, Any]:
        """For the store: what decides its images, and neither lists nor patterns, which may name
        patients."""
        return {
            "axis": self.axis,
            "slices": str(self.slices),
            "values": str(self.values) if self.values else "by the files",
            "image_size": list(self.image_size),
            "resize": self.resize,
            "seed": self.seed,
            "splits": "by lists" if self.lists else dict(self.shares) if self.shares else "default",
        }


def make_recipe(**given: Any) -> Recipe:
    """A recipe from options as they are typed; None is as if an option was not given.

    Raises:
        ConfigError: One is unknown, or not of its form.
    """
    options = {key: value for key, value in given.items() if value is not None}
    known = Recipe.__dataclass_fields__
    for key in options:
        if key not in known:
            raise ConfigError(f"{key}: no such option of data prepare; {did_you_mean(key, known)}")
    if isinstance(options.get("slices"), str):
        options["slices"] = parse_slices(options["slices"])
    if isinstance(options.get("values"), str):
        options["values"] = parse_rule(options["values"])
    if isinstance(options.get("shares"), str):
        options["shares"] = parse_shares(options["shares"])
    size = options.get("image_size")
    if isinstance(size, int):
        options["image_size"] = (size, size)
    elif size is not None:
        options["image_size"] = tuple(size)
    if size is not None and len(options["image_size"]) != 2:
        raise ConfigError(f"--image-size {size}: expected pixels of a picture, 128 or 128x96")
    choices: dict[str, tuple[Any, ...]] = {
        "axis": AXES,
        "resize": ("center", "pad", "stretch"),
        "channels": (1, 3),
        "bits": (8, 16),
        "labels": ("none", "folders"),
        "on_bad": ("error", "leave-out"),
    }
    for key, allowed in choices.items():
        if key in options and options[key] not in allowed:
            words = ", ".join(map(str, allowed))
            raise ConfigError(f"--{key.replace('_', '-')} {options[key]}: expected one of {words}")
    if bool(options.get("table")) != bool(options.get("columns")):
        raise ConfigError(
            "--table and --columns go together: columns are named, since what is in a store is "
            "told to models; such as --table ages.csv --columns age,sex:label"
        )
    if isinstance(options.get("columns"), str):
        options["columns"] = tuple(part.strip() for part in options["columns"].split(","))
    if options.get("shares") and options.get("lists"):
        raise ConfigError("--split draws the splits and --split-list gives them; choose one")
    return Recipe(**options)
