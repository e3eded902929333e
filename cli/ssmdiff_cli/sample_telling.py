"""What ``--label`` and ``--tell`` say, as values of a model's conditions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ssmdiff.diffusion.conditions import LABEL, Condition, Conditions
from ssmdiff.errors import ConfigError, DataError, printable
from ssmdiff.runs.reading import Source, gather, make_readers

LEFT_OUT = "none"
_OF_DATA_SETS = re.compile(r", or [^.,]* --set data\.dataset\..*")
"""What helps where a data set reads a file, and not here."""
MOST_IMAGES = 100_000
"""Of a list with counts, such as t1=3."""


def told_of_flags(
    conditions: Conditions,
    label: str | None,
    tells: Sequence[str],
    count: int | None,
    flag_of_tells: str = "--tell",
    image_size: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Values by name, as :meth:`ssmdiff.ImageModel.sampling` takes them.

    Args:
        conditions: Of the model.
        label: Of ``--label``: it is of the condition ``label``, or of the one with names.
        tells: Of ``--tell``: ``NAME=VALUE`` each.
        count: Images of the set, which a range is spread over; None where nothing says.
        flag_of_tells: What messages call ``tells``.
        image_size: That masks and images are to have, where it is known.

    Raises:
        ConfigError: A value is none of its condition, or one is told twice.
    """
    found: dict[str, Any] = {}
    words = [] if label is None else [("--label", _of_label(conditions), label)]
    for word in tells:
        name, given, text = word.partition("=")
        if not given:
            raise ConfigError(
                f"{flag_of_tells} {word}: expected NAME=VALUE, such as {_example(conditions)}"
            )
        if not conditions:
            raise ConfigError(
                f"{flag_of_tells} {word}: the model is told nothing; train one that is, such as "
                "with --set 'model.conditions=[\"label\"]'"
            )
        words.append((flag_of_tells, name, text))
    for flag, name, text in words:
        if name in found:
            raise ConfigError(f"{name} is told twice, now by {flag} {text!r}; give it once")
        if not conditions and flag == "--label":
            found[name] = text  # refused with how a model is told one
        else:
            found[name] = _value(conditions.named(name), text, count, image_size)
    return found


def _of_label(conditions: Conditions) -> str:
    """Which condition ``--label`` is of."""
    named = [one.name for one in conditions if one.kind in ("label", "labels")]
    return named[0] if LABEL not in named and len(named) == 1 else LABEL


def _example(conditions: Conditions) -> str:
    one = next(iter(conditions), None)
    if one is None:
        return "angle=12"
    value = {"number": f"{one.low:g}", "mask": "FILE", "image": "FILE"}.get(one.kind)
    return f"{one.name}={value or one.names[0]}"


def _value(one: Condition, text: str, count: int | None, image_size: Sequence[int] | None) -> Any:
    """A value, or a list of them for the images in turn."""
    if text == LEFT_OUT:
        return None
    if one.kind == "number":
        return _numbers(one, text, count)
    if one.planes:
        if not text:
            raise ConfigError(f"{one.name} '': expected a FILE or FOLDER, or {LEFT_OUT}")
        return _pixels(one, Path(text), image_size)
    if text in one.names or not text:
        return text if one.kind == "label" else tuple(filter(None, [text]))
    found: list[Any] = []
    for part in text.split(","):
        name, given, times = part.rpartition("=")
        if not given or not times.isdecimal():
            name, times = part, "1"
        if int(times) + len(found) > MOST_IMAGES:
            raise ConfigError(f"{one.name} {text!r}: more than {MOST_IMAGES} images")
        each: Any = None if name == LEFT_OUT else name
        if one.kind == "labels" and each is not None:
            each = tuple(filter(None, name.split("+")))
        found += [each] * int(times)
    return found if len(found) != 1 else found[0]


def _numbers(one: Condition, text: str, count: int | None) -> Any:
    first, between, last = text.partition(":")
    try:
        if between:
            return np.linspace(float(first), float(last), count or 16).tolist()
        found = [None if part == LEFT_OUT else float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"{one.name} {text!r}: expected a number, several such as 1,2,3, a range such as "
            f"{one.low:g}:{one.high:g}, or {LEFT_OUT}; {one.expected()}"
        ) from None
    return found if len(found) != 1 else found[0]


def _pixels(one: Condition, path: Path, image_size: Sequence[int] | None) -> Any:
    """The mask or image of a file, or those of a folder, in the order of their names."""
    if not path.exists():
        raise ConfigError(f"{one.name}: there is no file or folder {printable(path)}")
    folder = path.is_dir()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if folder else [path]
    readers, _ = make_readers()
    found = gather(path if folder else path.parent, files, readers)
    if not found.sources:
        why = found.refused[0].reason if found.refused else "no reader knows what is there"
        raise ConfigError(f"{one.name}: {printable(path)} cannot be read: {why}")
    sources = [(readers[of], source) for of, source in found.sources]
    values = _Files(one, path if folder else path.parent, sources, image_size)
    return values if folder else values[0]


class _Files(Sequence[Any]):
    """Masks or images in files, read when they are asked for."""

    def __init__(
        self,
        one: Condition,
        root: Path,
        sources: Sequence[tuple[Any, Source]],
        image_size: Sequence[int] | None,
    ) -> None:
        self.one, self.root, self.sources, self.image_size = one, root, sources, image_size

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, i: Any) -> Any:
        """Checked, so that what is wrong is told with its file; a record reads all of them."""
        value = self._read(i)
        if self.image_size is not None:
            try:
                self.one.encoded(value, self.image_size)
            except ConfigError as error:
                file = self.root / self.sources[i][1].name
                raise ConfigError(f"{printable(file)}: {error}") from None
        return value

    def _read(self, i: Any) -> Any:
        reader, source = self.sources[i]
        try:
            values, header, _ = reader.read(source)
        except DataError as error:
            raise DataError(f"{self.one.name}: {_OF_DATA_SETS.sub('', str(error))}") from None
        if header.axes not in ("yx", "yxc"):
            raise ConfigError(f"{self.one.name}: {source.name} has axes {header.axes}; expected yx")
        if self.one.kind == "mask":
            flat = values if header.axes == "yx" else values[..., 0]
            return np.rint(flat).astype(np.int64) if (flat == np.rint(flat)).all() else flat
        planes = values[None] if header.axes == "yx" else np.moveaxis(values, -1, 0)
        black, white = header.value_range or (-1.0, 1.0)
        return (2 * (planes.astype(np.float64) - black) / (white - black) - 1).astype(np.float32)
