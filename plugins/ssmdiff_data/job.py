"""The job ``data``, for Python and for other jobs: ``ssmdiff.job("data")``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssmdiff_data.prepare import prepare
from ssmdiff_data.showing import SAMPLE, find, sheet_of
from ssmdiff_data.showing_data import data_at, record_of, sheet_of_data
from ssmdiff_data.telling import record


class Data:
    """Looks at images, and prepares them for training."""

    prepare = staticmethod(prepare)

    def show(
        self,
        path: str | Path,
        *,
        sample: int | None = SAMPLE,
        seed: int = 0,
        group: str | None = None,
        readers: Sequence[str] = (),
        sheet: str | Path | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """What a file or a folder holds: counts, shapes, values, what is left out and wrong.

        Of a store, of a data set by its name, and with options: what can be told of its images.

        Args:
            path: The file or the folder, a store, or the name of a data set.
            sample: So many images are decoded, drawn by the seed; None for all.
            seed: Of the sample.
            group: A regular expression that finds the patient in a file's name.
            readers: By name; every reader by default.
            sheet: Where to write a contact sheet, a PNG.
            options: Of the data set that training would make of it, as ``data.dataset`` has them.

        Raises:
            DataError: There is no such folder, or nothing in it can be read.
            ConfigError: There is no such reader or option, or ``group`` is no regular expression.
        """
        if (dataset := data_at(Path(path), options or {})) is not None:
            if sheet is not None:
                write_sheet(sheet, *sheet_of_data(dataset))
            return record_of(str(path), dataset, sample, seed)
        found = find(path, sample=sample, seed=seed, group=group, readers=readers)
        if sheet is not None:
            write_sheet(sheet, *sheet_of(found))
        return record(found)


def write_sheet(path: str | Path, pictures: Sequence[Any], words: Sequence[str]) -> None:
    """A contact sheet, with the window that each picture is seen under."""
    import torch
    from ssmdiff import write_grid

    write_grid(Path(path), torch.stack(list(pictures)), words)


data = Data()
