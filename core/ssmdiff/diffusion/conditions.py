"""What a model is told of an image, besides its noise: declared, encoded, recorded; in numpy.

A data set declares conditions, a model is told some of them by name. What has no place in the image
becomes one vector, ``context`` (B, M); what has a place becomes further input channels, ``place``
(B, P, *image_size). Networks and files know these two arrays and nothing else, so that a condition
of any kind means the same to all of them. Axis letters: B images, M numbers, P planes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ssmdiff.errors import ConfigError, did_you_mean
from ssmdiff.orders.scan import size_text

ConditionKind = Literal["label", "labels", "number", "mask", "image"]
Told = Mapping[str, Any]
"""What one image is told: values by the names of conditions; one that is missing is left out."""
Encoded = tuple[NDArray[np.float32], ...]

_WAVES = math.pi * np.array([0.5, 1.0, 2.0, 4.0])  # of a number on -1 .. 1
_LISTED = 8


@dataclass(frozen=True)
class Condition:
    """Something that an image can be asked to show, such as its class, an angle or a mask.

    ========  ===============================================  ====================================
    kind      value of an image                                encoding
    ========  ===============================================  ====================================
    label     number or name of one of ``names``               n numbers, one of them 1
    labels    set or list of such; or an array (n,) of 0 or 1  n numbers, 0 or 1
    number    ``low`` to ``high``                              9 numbers: z, -1 to 1, and its waves
    mask      (H, W) integers, numbers of ``names``            n planes, one of them 1 at each pixel
    image     (channels, H, W), -1 to 1                        its channels
    ========  ===============================================  ====================================

    An optional one has one number, or a kind ``image`` one plane, more, which says that it is left
    out, or there; the planes of a mask that is left out are all 0.

    Args:
        name: A word; also its key in ``ImageItem.told``.
        kind: Of its values.
        names: Of classes, findings, or what the numbers of a mask's pixels stand for.
        low: Smallest number that the model saw, or will.
        high: Largest.
        unit: Of a number, such as ``degrees``.
        channels: Of an image.
        optional: Whether the model may be left without it.
        moved_by: Augmentations that would make it untrue: ``flip``, ``rotate_deg``, ``shift``,
            ``zoom``.

    Raises:
        ConfigError: It cannot be one.
    """

    name: str
    kind: ConditionKind
    names: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    unit: str = ""
    channels: int = 1
    optional: bool = False
    moved_by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        words = all(
            isinstance(words, tuple) and all(isinstance(word, str) and word for word in words)
            for words in (self.names, self.moved_by)
        )
        numbers = all(
            isinstance(number, int | float) and math.isfinite(number)
            for number in (self.low, self.high)
        )
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z][\w-]*", self.name):
            fault = "a name is a word of letters, digits, '-' and '_'"
        elif self.kind not in get_args(ConditionKind):
            fault = f"kind is {self.kind!r}; expected {', '.join(get_args(ConditionKind))}"
        elif not words or len(set(self.names)) < len(self.names):
            fault = f"names are {self.names!r}; expected different words"
        elif self.kind in ("label", "labels", "mask") and not self.names:
            fault = f"a condition of kind {self.kind} needs the names of its values"
        elif self.kind == "number" and not (numbers and self.low <= self.high):
            fault = f"low is {self.low!r} and high {self.high!r}; expected low <= high"
        elif not isinstance(self.channels, int) or not 1 <= self.channels <= 4096:
            fault = f"channels is {self.channels!r}; expected 1 to 4096"
        elif not isinstance(self.optional, bool) or not isinstance(self.unit, str):
            fault = (
                f"optional is {self.optional!r} and unit {self.unit!r}; expected yes or no, text"
            )
        else:
            return
        raise ConfigError(f"condition {self.name!r}: {fault}")

    @property
    def width(self) -> int:
        """How many numbers of ``context`` are its own."""
        own = {"label": len(self.names), "labels": len(self.names), "number": 1 + 2 * len(_WAVES)}
        return own[self.kind] + self.optional if self.kind in own else 0

    @property
    def planes(self) -> int:
        """How many channels of ``place`` are its own."""
        own = {"mask": len(self.names), "image": self.channels + self.optional}
        return own.get(self.kind, 0)

    def index(self, value: Any) -> int:
        """The number of one of ``names``, given by its name or its number.

        Raises:
            ConfigError: There is no such one.
        """
        if isinstance(value, str) and value in self.names:
            return self.names.index(value)
        if isinstance(value, str) and not value.isdecimal():
            raise ConfigError(
                f"{self.name}: there is no {value!r}; {did_you_mean(value, self.names)}"
            )
        if not isinstance(value, int | np.integer | str) or isinstance(value, bool):
            raise ConfigError(f"{self.name} is {value!r}; expected a name or a number")
        if not 0 <= int(value) < len(self.names):
            raise ConfigError(f"{self.name} {value} is out of range; {self._known()}")
        return int(value)

    def encoded(self, value: Any, image_size: Sequence[int]) -> NDArray[np.float32]:
        """(width,) or (planes, *image_size); None is left out.

        Raises:
            ConfigError: The value is none of this condition, or it may not be left out.
        """
        if value is None and not self.optional:
            raise ConfigError(f"{self.name} is missing, and the model needs it; {self._known()}")
        if self.planes:
            planes = np.zeros((self.planes, *image_size), np.float32)
            if value is not None:
                own = self._planes(value, tuple(image_size))
                planes[: len(own)] = own
                planes[len(own) :] = 1
            return planes
        numbers = np.zeros(self.width, np.float32)
        if value is None:
            numbers[-1] = 1
        elif self.kind == "number":
            waves = self._on_range(value) * _WAVES
            own = [self._on_range(value), *np.sin(waves), *np.cos(waves)]
            numbers[: len(own)] = own
        else:
            numbers[self._members(value)] = 1
        return numbers

    def recorded(self, value: Any) -> Any:
        """A value as JSON: numbers of names, a number, of pixels their digest."""
        if value is None:
            return None
        if self.kind == "number":
            return float(value)
        if self.planes:
            return "sha256:" + hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return self.index(value) if self.kind == "label" else self._members(value)

    def caption(self, value: Any) -> str:
        """A value in a word or two, for people; pixels are seen, and have none."""
        if value is None:
            return "left out" if self.kind == "label" else f"{self.name} left out"
        if self.kind == "number":
            return f"{self.name} {float(value):.3g}"
        if self.planes:
            return ""
        return "+".join(self.names[i] for i in self._members(value)) or f"no {self.name}"

    def _members(self, value: Any) -> list[int]:
        if self.kind == "label":
            return [self.index(value)]
        if isinstance(value, set | frozenset | list | tuple):
            return sorted({self.index(one) for one in value})
        bits = np.asarray(value)
        if bits.shape != (len(self.names),) or not np.isin(bits, (0, 1)).all():
            raise ConfigError(
                f"{self.name} is {value!r}; expected a list of names or numbers, or an array of "
                f"{len(self.names)} zeros and ones; {self._known()}"
            )
        return np.flatnonzero(bits).tolist()

    def _on_range(self, value: Any) -> float:
        real = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not real or not self.low <= float(value) <= self.high:
            raise ConfigError(f"{self.name} is {value!r}; {self._known()}")
        return 2 * (float(value) - self.low) / ((self.high - self.low) or 1) - 1

    def _planes(self, value: Any, image_size: tuple[int, ...]) -> NDArray[np.float32]:
        pixels = np.asarray(value)
        shape = image_size if self.kind == "mask" else (self.channels, *image_size)
        if pixels.shape != shape:
            raise ConfigError(
                f"{self.kind} {self.name} is {size_text(pixels.shape)}; expected "
                f"{size_text(shape)}, as the images of the model are"
            )
        if self.kind == "image":
            if pixels.dtype.kind != "f" or not (np.abs(pixels) <= 1).all():
                raise ConfigError(f"image {self.name}: expected floating point from -1 to 1")
            return pixels.astype(np.float32)
        if pixels.dtype.kind not in "iub":
            raise ConfigError(
                f"mask {self.name} is of {pixels.dtype}; expected whole numbers; {self._known()}"
            )
        known = np.arange(len(self.names)).reshape(-1, *[1] * len(shape))
        low, high = int(pixels.min()), int(pixels.max())
        if low < 0 or high >= len(known):
            raise ConfigError(
                f"mask {self.name} holds the number {low if low < 0 else high}, which the model "
                f"never saw; {self._known()}"
            )
        return (pixels[None] == known).astype(np.float32)

    def _known(self) -> str:
        """A clause: what it may be."""
        if self.kind == "number":
            return f"expected {self.low:g} to {self.high:g} {self.unit}".rstrip()
        if self.kind == "image":
            return f"expected an image of {self.channels} channels"
        shown = ", ".join(f"{i} {name}" for i, name in enumerate(self.names[:_LISTED]))
        more = len(self.names) - _LISTED
        return f"expected {shown}" + (f" and {more} more" if more > 0 else "")


class Conditions(tuple[Condition, ...]):
    """What a model is told, in this order; or what a data set can tell.

    Raises:
        ConfigError: Two have one name.
    """

    def __new__(cls, conditions: Iterable[Condition] = ()) -> Conditions:
        made = super().__new__(cls, conditions)
        for name in made.names:
            if made.names.count(name) > 1:
                raise ConfigError(f"there are two conditions of the name {name!r}; expected one")
        return made

    @property
    def names(self) -> list[str]:
        """Theirs, in order."""
        return [one.name for one in self]

    @property
    def width(self) -> int:
        """M of ``context``."""
        return sum(one.width for one in self)

    @property
    def planes(self) -> int:
        """P of ``place``."""
        return sum(one.planes for one in self)

    def named(self, name: str) -> Condition:
        """One of them.

        Raises:
            ConfigError: There is none of this name.
        """
        if name not in self.names:
            raise ConfigError(f"there is no condition {name!r}; {did_you_mean(name, self.names)}")
        return self[self.names.index(name)]

    def chosen(self, names: Iterable[str], optional: bool = False) -> Conditions:
        """Those that a model is told; all of them optional, if so asked.

        Raises:
            ConfigError: One is unknown, named twice, or a number that is always the same.
        """
        found = [self.named(name) for name in names]
        for one in found:
            if one.kind == "number" and one.low == one.high:
                raise ConfigError(
                    f"{one.name} is {one.low:g} for every image, so there is nothing to tell"
                )
        return Conditions(dataclasses.replace(x, optional=x.optional or optional) for x in found)

    def encoded(self, told: Sequence[Told], image_size: Sequence[int]) -> Encoded:
        """What the network is given: ``context`` (B, M) if there is any, ``place`` likewise.

        Args:
            told: Of each image.
            image_size: (H, W).

        Raises:
            ConfigError: A value that cannot be told, an unknown name, or a required one missing.
        """
        for image in told:
            for name in image:
                self.named(name)
        parts = [[one.encoded(image.get(one.name), image_size) for image in told] for one in self]
        context = [np.stack(part) for one, part in zip(self, parts, strict=True) if one.width]
        place = [np.stack(part) for one, part in zip(self, parts, strict=True) if one.planes]
        return tuple(np.concatenate(part, axis=1) for part in (context, place) if part)

    def nothing(self, told: Sequence[Told], image_size: Sequence[int]) -> Encoded:
        """The same with all left out that may be: what guidance leads away from."""
        required = {one.name for one in self if not one.optional}
        kept = [{name: v for name, v in image.items() if name in required} for image in told]
        return self.encoded(kept, image_size)

    def recorded(self, image: Told) -> dict[str, Any]:
        """What an image was told, as JSON; None is left out."""
        return {one.name: one.recorded(image.get(one.name)) for one in self}

    def caption(self, image: Told) -> str:
        """What an image was told, in a few words."""
        return ", ".join(filter(None, (one.caption(image.get(one.name)) for one in self)))

    def record(self) -> list[dict[str, Any]]:
        """As JSON."""
        return [
            {
                field.name: list(value) if isinstance(value, tuple) else value
                for field in dataclasses.fields(one)
                if (value := getattr(one, field.name)) != field.default
            }
            for one in self
        ]

    @classmethod
    def from_record(cls, record: Any) -> Conditions:
        """Those of :meth:`record`, which may come from a stranger.

        Raises:
            ConfigError: It is no such record.
        """
        try:
            return cls(
                Condition(**{k: tuple(v) if isinstance(v, list) else v for k, v in one.items()})
                for one in record
            )
        except (TypeError, AttributeError):
            raise ConfigError(
                "the list of conditions is none that ssmdiff writes; expected tables of "
                + ", ".join(field.name for field in dataclasses.fields(Condition))
            ) from None
