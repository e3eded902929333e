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
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ssmdiff.errors import ConfigError, did_you_mean
from ssmdiff.orders.scan import size_text

LABEL = "label"
"""The condition that every data set with classes has."""
ConditionKind = Literal["label", "labels", "number", "mask", "image"]
Told = Mapping[str, Any]
"""What one image is told: values by the names of conditions; one that is missing is left out."""
Encoded = tuple[NDArray[np.float32], ...]

_WAVES = math.pi * np.array([0.5, 1.0, 2.0, 4.0])  # of a number on -1 .. 1
_LISTED = 8
_NAMED = ("label", "labels", "mask")
_GOLDEN = (math.sqrt(5) - 1) / 2  # multiples of it spread evenly over 0 .. 1, however many


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
        words = (*self.names, *self.moved_by)
        fine = (
            isinstance(self.name, str)
            and re.fullmatch(r"[A-Za-z][\w-]*", self.name)
            and self.kind in get_args(ConditionKind)
            and isinstance(self.names, tuple)
            and all(isinstance(word, str) and word for word in words)
            and len(set(self.names)) == len(self.names) >= (self.kind in _NAMED)
            and all(isinstance(n, int | float) and math.isfinite(n) for n in (self.low, self.high))
            and self.low <= self.high
            and isinstance(self.channels, int)
            and 1 <= self.channels <= 4096
            and isinstance(self.optional, bool)
            and isinstance(self.unit, str)
        )
        if not fine:
            raise ConfigError(
                f"{self!r:.300} is no condition; expected a word as its name, kind "
                f"{', '.join(get_args(ConditionKind))}, different names for {', '.join(_NAMED)}, "
                "low <= high, and 1 to 4096 channels"
            )

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
        number = int(value) if isinstance(value, str) and value.isdecimal() else value
        if isinstance(number, str):
            near = did_you_mean(number, self.names)
            raise ConfigError(f"there is no {self.name} {number!r}; {near}")
        whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
        if not whole or not 0 <= number < len(self.names):
            raise self._refused(f"{value!r} is none of its numbers")
        return int(number)

    def encoded(self, value: Any, image_size: Sequence[int]) -> NDArray[np.float32]:
        """(width,) or (planes, *image_size); None is left out.

        Raises:
            ConfigError: The value is none of this condition, or it may not be left out.
        """
        if value is None and not self.optional:
            raise self._refused("is missing, and the model needs it")
        shape = (self.planes, *image_size) if self.planes else (self.width,)
        found = np.zeros(shape, np.float32)
        if value is None:
            found[-1] = not self.planes
        else:
            own = self._planes(value, shape[1:]) if self.planes else self._numbers(value)
            found[: len(own)], found[len(own) :] = own, self.planes > 0
        return found

    def usual(self, i: int) -> Any:
        """What image i of a set is told unless something else is asked for: names in turn, numbers
        all over the range; pixels nobody can make up."""
        if self.kind == "number":
            return self.low + (self.high - self.low) * ((i + 0.5) * _GOLDEN % 1.0)
        member = i % max(1, len(self.names))
        return {"label": member, "labels": [member]}.get(self.kind)

    def recorded(self, value: Any) -> Any:
        """A value as JSON: numbers of names, a number, of pixels their digest; None is left out."""
        if value is None or self.kind == "number":
            return value if value is None else float(value)
        if self.planes:
            return "sha256:" + hashlib.sha256(np.asarray(value).tobytes()).hexdigest()
        return self.index(value) if self.kind == "label" else self._members(value)

    def captions(self, values: Sequence[Any]) -> list[str]:
        """Values in a word or two each, for people: numbers by as many digits as tell them apart,
        a name that ASCII cannot show by its number; pixels are seen, and have none."""
        numbers = {float(v) for v in values if v is not None} if self.kind == "number" else set()
        texts = ({v: f"{v:.{digits}g}" for v in numbers} for digits in range(3, 18))
        shown = next(text for text in texts if len(set(text.values())) == len(numbers))

        def word(value: Any) -> str:
            if value is None or self.planes:
                return f"{self.name} left out" if value is None else ""
            if self.kind == "number":
                return f"{self.name} {shown[float(value)]}"
            return "+".join(map(self._shown, self._members(value))) or f"no {self.name}"

        return [word(value) for value in values]

    def _shown(self, i: int) -> str:
        letters = unicodedata.normalize("NFKD", self.names[i])
        known = all(c.isascii() or unicodedata.combining(c) for c in letters)
        return self.names[i] if known else f"{self.name} {i}"

    def expected(self) -> str:
        """What it may be, in a clause."""
        if self.kind == "number":
            return f"expected {self.low:g} to {self.high:g} {self.unit}".rstrip()
        if self.kind == "image":
            return f"expected {self.channels} channel(s) of floating point, -1 to 1"
        shown = ", ".join(f"{i} {name}" for i, name in enumerate(self.names[:_LISTED]))
        more = len(self.names) - _LISTED
        return f"expected {shown}" + (f" and {more} more" if more > 0 else "")

    def _refused(self, got: str) -> ConfigError:
        return ConfigError(f"{self.name} {got}; {self.expected()}")

    def _members(self, value: Any) -> list[int]:
        if self.kind == "label":
            return [self.index(value)]
        if isinstance(value, set | frozenset | list | tuple):
            return sorted({self.index(one) for one in value})
        bits = np.asarray(value)
        if bits.shape != (len(self.names),) or not np.isin(bits, (0, 1)).all():
            raise self._refused(f"is {value!r}, neither a list nor as many zeros and ones")
        return np.flatnonzero(bits).tolist()

    def _numbers(self, value: Any) -> NDArray[Any]:
        if self.kind != "number":
            return np.isin(np.arange(len(self.names)), self._members(value))
        real = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not real or not self.low <= float(value) <= self.high:
            raise self._refused(f"is {value!r}")
        z = 2 * (float(value) - self.low) / ((self.high - self.low) or 1) - 1
        return np.array([z, *np.sin(z * _WAVES), *np.cos(z * _WAVES)])

    def _planes(self, value: Any, image_size: Sequence[int]) -> NDArray[Any]:
        pixels, mask = np.asarray(value), self.kind == "mask"
        shape = tuple(image_size) if mask else (self.channels, *image_size)
        if pixels.shape != shape:
            raise ConfigError(
                f"{self.kind} {self.name} is {size_text(pixels.shape)}; expected "
                f"{size_text(shape)}, as the images of the model are"
            )
        if pixels.dtype.kind not in ("iub" if mask else "f"):
            raise self._refused(f"is of {pixels.dtype}")
        if not mask and not (np.abs(pixels) <= 1).all():
            raise self._refused("holds other values")
        if not mask:
            return pixels
        low, high = int(pixels.min()), int(pixels.max())
        if low < 0 or high >= len(self.names):
            strange = low if low < 0 else high
            raise self._refused(f"holds the number {strange}, which the model never saw")
        return np.stack([pixels == number for number in range(len(self.names))])


class Conditions(tuple[Condition, ...]):
    """What a model is told, in this order; or what a data set can tell.

    Raises:
        ConfigError: Two have one name.
    """

    def __new__(cls, conditions: Iterable[Condition] = ()) -> Conditions:
        made = super().__new__(cls, conditions)
        if twice := [name for name in made.names if made.names.count(name) > 1]:
            raise ConfigError(f"there are two conditions of the name {twice[0]!r}; expected one")
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
                raise ConfigError(f"{one.name} is {one.low:g} for every image: nothing to tell")
        return Conditions(dataclasses.replace(x, optional=x.optional or optional) for x in found)

    def asked(self, told: Told) -> dict[str, Sequence[Any]]:
        """What the images of a set are told, by name: a list has a value for each image, in turn;
        any other value, None for left out among them, is that of all.

        Raises:
            ConfigError: A name or value that the model was never told.
        """
        found = {}
        for name, value in told.items():
            one = self.named(name)
            several = isinstance(value, Sequence) and not isinstance(value, str | tuple)
            found[name] = values = value if several else [value]
            if not len(values):
                raise ConfigError(f"{name} is an empty list; {one.expected()}")
            for each in () if one.planes else values:
                one.encoded(each, ())
        return found

    def told(self, asked: Mapping[str, Sequence[Any]], i: int) -> Told:
        """What image i of a set is told, by :meth:`asked`; the usual where nothing was."""
        given = {name: values[i % len(values)] for name, values in asked.items()}
        return {one.name: given.get(one.name, one.usual(i)) for one in self}

    def encoded(self, told: Sequence[Told], image_size: Sequence[int]) -> Encoded:
        """What the network is given: ``context`` (B, M) if there is any, ``place`` likewise.

        Args:
            told: Of each image.
            image_size: (H, W).

        Raises:
            ConfigError: A value that cannot be told, an unknown name, or a required one missing.
        """
        for name in {name for image in told for name in image}:
            self.named(name)

        def joined(mine: Sequence[Condition], image: Told) -> NDArray[np.float32]:
            return np.concatenate([x.encoded(image.get(x.name), image_size) for x in mine])

        parts = [one for one in self if one.width], [one for one in self if one.planes]
        return tuple(np.stack([joined(mine, image) for image in told]) for mine in parts if mine)

    def nothing(self, told: Sequence[Told], image_size: Sequence[int]) -> Encoded:
        """The same with all left out that may be: what guidance leads away from."""
        required = {one.name for one in self if not one.optional}
        kept = [{name: v for name, v in image.items() if name in required} for image in told]
        return self.encoded(kept, image_size)

    def recorded(self, image: Told) -> dict[str, Any]:
        """What an image was told, as JSON; None is left out."""
        return {one.name: one.recorded(image.get(one.name)) for one in self}

    def recorded_asked(self, asked: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """What :meth:`asked` gave, as JSON; what a data set tells by the data set's digest."""
        return {
            name: getattr(values, "fingerprint", None) or [*map(self.named(name).recorded, values)]
            for name, values in asked.items()
        }

    def captions(self, images: Sequence[Told]) -> list[str]:
        """What each image was told, in a few words; none of a model that is told nothing."""
        each = [one.captions([image.get(one.name) for image in images]) for one in self]
        return [", ".join(filter(None, words)) for words in zip(*each, strict=True)]

    def record(self) -> list[dict[str, Any]]:
        """As JSON."""
        fields = dataclasses.fields(Condition)
        values = [{f.name: getattr(one, f.name) for f in fields} for one in self]
        return [{f.name: v[f.name] for f in fields if v[f.name] != f.default} for v in values]

    @classmethod
    def from_record(cls, record: Any) -> Conditions:
        """Those of :meth:`record`, which may come from a stranger.

        Raises:
            ConfigError: It is no such record.
        """
        try:
            tables: list[dict[str, Any]] = [
                {k: tuple(v) if isinstance(v, list) else v for k, v in one.items()}
                for one in record
            ]
            return cls(Condition(**table) for table in tables)
        except (TypeError, AttributeError):
            fields = ", ".join(field.name for field in dataclasses.fields(Condition))
            raise ConfigError(f"no list of conditions; expected tables of {fields}") from None
