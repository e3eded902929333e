"""What a folder of images tells of them beside their pixels: a table, masks, further pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssmdiff import Condition, Conditions, ConfigError, DataError, ImageHeader, printable
from torch import Tensor

from ssmdiff_data.beside import Folder, Masks, Others, parse_others
from ssmdiff_data.describing import condition_in_words
from ssmdiff_data.images import ReadRules
from ssmdiff_data.scaling import Resize, lowered
from ssmdiff_data.table import LABEL, Column, read_table
from ssmdiff_data.told import Told

LOW = "low"


class Asked(NamedTuple):
    """Options of the data set: where more is known of its images, relative to its folder."""

    table: str | None
    columns: Sequence[str] | None
    masks: str | None
    mask_names: Sequence[str] | None
    others: Sequence[str]

    def folders(self, root: Path) -> list[Path]:
        """Those that lie beside the images, and whose pictures are none of theirs."""
        others = parse_others(self.others).values()
        return [_placed(root, path) for path in (self.masks, *others) if path is not None]


class FolderTells:
    """What is told of the images of a folder.

    Args:
        root: The folder.
        names: Of the images.
        headers: Likewise.
        own: Indices of those that are trained on.
        channels: Of the images.
        asked: Options.
        rules: How pictures are read.

    Raises:
        ConfigError: Options that do not fit each other, or tell nothing.
        DataError: A table, mask or picture that cannot be used.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        headers: Sequence[ImageHeader],
        own: Sequence[int],
        channels: int,
        asked: Asked,
        rules: ReadRules,
    ) -> None:
        self.label: Column | None = None
        self.lines: tuple[str, ...] = ()
        self.warnings: tuple[str, ...] = ()
        self._columns: dict[str, Column] = {}
        if asked.table is not None:
            found = read_table(_placed(root, asked.table), names, own, asked.columns)
            self._columns = {column.condition.name: column for column in found.columns}
            self.label = self._columns.pop(LABEL, None)
            self.lines, self.warnings = found.lines, found.warnings
        elif asked.columns is not None:
            raise ConfigError("data.dataset.columns are those of data.dataset.table: give both")
        if self.label is not None and None in self.label.values:
            first = names[list(self.label.values).index(None)]
            raise DataError(
                f"the column 'label' says nothing of {printable(first)}; expected the class of "
                "every image. Call the column otherwise if it is not known of all"
            )
        sizes = [(header.size("y"), header.size("x")) for header in headers]
        self._pictures: dict[str, Masks | Others] = {}
        if asked.masks is not None:
            beside = Folder("data.dataset.masks", _placed(root, asked.masks), names)
            self._pictures["mask"] = Masks(beside, sizes, asked.mask_names, rules.max_pixels)
        elif asked.mask_names is not None:
            raise ConfigError("data.dataset.mask_names are those of data.dataset.masks: give both")
        for name, path in parse_others(asked.others).items():
            beside = Folder(f"data.dataset.others, {name}", _placed(root, path), names)
            self._pictures[name] = Others(name, beside, sizes, rules)
        self.conditions: tuple[Condition, ...] = Conditions(
            [
                *(column.condition for column in self._columns.values()),
                *(picture.condition for picture in self._pictures.values()),
                Condition(LOW, "image", channels=channels),
            ]
        )

    def of(self, i: int, image: Tensor, how: Resize) -> Told:
        """Of image ``i``, which comes out as ``image``."""
        size = (image.shape[-2], image.shape[-1])
        known = {
            name: _given(column.values[i])
            for name, column in self._columns.items()
            if column.values[i] is not None
        }
        pictures = {name: _read(picture, i, size, how) for name, picture in self._pictures.items()}
        return Told(**known, **pictures, low=lambda: lowered(image))

    def made_from(self, own: Sequence[int]) -> Iterator[bytes]:
        """For the fingerprint; nothing where nothing was asked for."""
        columns = [*self._columns.values(), *([self.label] if self.label else [])]
        for column in columns:
            values = [column.values[i] for i in own]
            yield hashlib.sha256(f"{column.condition} {values}".encode()).digest()
        for picture in self._pictures.values():
            yield from picture.folder.made_from(own)

    def in_words(self, own: Sequence[int]) -> list[str]:
        """Lines for people: what can be told of the images that are trained on."""
        values: Mapping[str, Sequence[Any]] = {
            name: [column.values[i] for i in own] for name, column in self._columns.items()
        }
        return [
            *(
                condition_in_words(one, values.get(one.name))
                for one in self.conditions
                if one.name != LOW
            ),
            *self.lines,
        ]

    @property
    def places(self) -> tuple[Path, ...]:
        """Folders of further pictures."""
        return tuple(picture.folder.root for picture in self._pictures.values())


def _placed(root: Path, path: str) -> Path:
    return root / Path(path).expanduser()


def _given(value: Any) -> Callable[[], Any]:
    return lambda: value


def _read(picture: Masks | Others, i: int, size: tuple[int, int], how: Resize) -> Callable[[], Any]:
    return lambda: picture.read(i, size, how)
