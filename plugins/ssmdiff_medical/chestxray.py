"""ChestX-ray14: 112,120 frontal radiographs of 30,805 patients."""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field
from ssmdiff import Case, DataError, DataTerms

from ssmdiff_medical.published import Published, layout
from ssmdiff_medical.references import CHESTXRAY14

FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis",
    "Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip
NONE, SEVERAL = "No Finding", "Several findings"
TABLES = ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
SHA256 = {
    "train": "61fbe896321c1c1c8b75f3e4f3a08e4fef6486d95ef8a667c31d4d60dca6cb81",
    "test": "38ca5ef7f756092946f57c1a59faca882ed589a1ab1f72590b45dc06c6d5e1cc",
}
"""Of the official lists, without a final newline."""
FIRST = {
    34_999: "e4a91f7fa98bb20bd89f8ca21c7c34878fcde2b055b1822112c3fb0058255ba8",
    112_120: "9e749a0b70e21f2803b792b4e4d4c2d7bf7560e2c4bd75780a5b83904df79b7a",
}
"""Of so many names from the first, sorted, a newline after each: the paper's, and all."""
_NAME = re.compile(r"(\d{8})_(\d{3})\.png", re.ASCII)
_IMAGE, _LABELS, _PATIENT, _VIEW, _COLUMNS = 0, 1, 3, 6, 11


class ChestXray14(Published):
    """ChestX-ray14, from its official folder: a table, two lists, and the archives unpacked."""

    NAME: ClassVar[str] = "chestxray14"
    TERMS: ClassVar[DataTerms] = DataTerms(
        "ChestX-ray14",
        "free to use; the NIH Clinical Center asks to be named and linked to",
        CHESTXRAY14,
        "https://nihcc.app.box.com/v/ChestXray-NIHCC",
    )
    CLASSES: ClassVar[tuple[str, ...]] = (NONE, *FINDINGS, SEVERAL)
    COLUMNS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "findings": {
            "kind": "labels",
            "names": FINDINGS,
            "columns": tuple(finding.lower() for finding in FINDINGS),
        }
    }
    RECIPE: ClassVar[Mapping[str, Any]] = {
        "values": "range:0,255",
        "resize": "center",
        "channels": 1,
        "bits": 8,
    }
    AUGMENTATION: ClassVar[Mapping[str, Any]] = {"flip": False}  # the heart is on the left
    # About a thousand files have four channels; nothing in them is transparent.
    READER: ClassVar[Mapping[str, Mapping[str, Any]]] = {"picture": {"alpha": "black"}}
    MODALITY: ClassVar[str] = "DX"
    BODY_PART: ClassVar[str] = "CHEST"

    @classmethod
    def cases(
        cls,
        root: Path,
        first: Annotated[int, Field(ge=1)] | None = None,
        official: bool = True,
    ) -> Iterator[Case]:
        """The radiographs, by their names.

        Args:
            root: The folder of the table, the lists and ``images`` or ``images_001`` to ``012``.
            first: Only so many from the first by name: 34999 are the paper's.
            official: Hold the names and the lists against the digests of the official ones.
        """
        rows = read_table(_table(root))
        names = sorted(rows)[:first]
        sides = {name: side for side in LISTS for name in _list(root, side, official)}
        if official:
            _check_names(names)
        unlisted = [name for name in names if name not in sides]
        if unlisted:
            raise DataError(f"{unlisted[0]} is in neither of {' and '.join(LISTS.values())}")
        places = _images(root)
        missing = [name for name in names if name not in places]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(names)} images of the table are not in {root}, the first "
                f"{missing[0]}. Unpack all archives, or take those of the first four: --set "
                "first=34999"
            )
        for name in names:
            found, patient, view = rows[name]
            label = SEVERAL if len(found) > 1 else found[0]
            numbers = {finding.lower(): float(finding in found) for finding in FINDINGS}
            numbers["posterior_anterior"] = float(view == "PA")
            files = {"image": (places[name],)}
            yield Case(files, name, patient, label, sides[name], numbers)

    @classmethod
    def notes(cls, kept: int | None = None) -> Iterator[str]:
        if kept is None:
            yield (
                "labels of ChestX-ray14 are mined from reports; images with tubes, markers and "
                "text are among them"
            )
            return
        paper = ", exactly the paper's" if kept == 34_999 else ""
        yield f"slice rule: every image once, {kept} in this store{paper}"


def read_table(path: Path) -> dict[str, tuple[list[str], str, str]]:
    """Name -> findings, patient, view; by position, since two names of the header hold a comma.

    Raises:
        DataError: A row is not of that table.
    """
    found: dict[str, tuple[list[str], str, str]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            next(rows, None)
            for number, row in enumerate(rows, start=2):
                if not row:
                    continue
                match = _NAME.fullmatch(row[_IMAGE]) if len(row) >= _COLUMNS else None
                labels = row[_LABELS].split("|") if match else []
                if match is None or not set(labels) <= {NONE, *FINDINGS}:
                    raise DataError(
                        f"{path}, line {number}: expected 00000001_000.png, its findings and nine "
                        f"more cells; got {','.join(row)!r:.80}"
                    )
                if int(match[1]) != int(row[_PATIENT]):
                    raise DataError(
                        f"{path}, line {number}: {row[_IMAGE]} is of patient {row[_PATIENT]!r}; "
                        f"expected {int(match[1])}, as its name says"
                    )
                found[row[_IMAGE]] = (labels, match[1], row[_VIEW])
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return found


def _table(root: Path) -> Path:
    for name in TABLES:
        if (root / name).is_file():
            return root / name
    raise layout("ChestX-ray14", root, " or ".join(TABLES), "neither is there")


def _list(root: Path, side: str, official: bool) -> Sequence[str]:
    """The names of an official list.

    Raises:
        DataError: It is missing, or not the official one.
    """
    path = root / LISTS[side]
    try:
        names = path.read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}; the official lists split it") from None
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    if official and digest != SHA256[side]:
        raise DataError(
            f"{path} is not the official list: its SHA-256 is {digest[:16]}..., expected "
            f"{SHA256[side][:16]}... Get it anew, or use your own with --set official=false"
        )
    return names


def _check_names(names: Sequence[str]) -> None:
    expected = FIRST.get(len(names))
    digest = hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()
    if expected is not None and digest != expected:
        raise DataError(
            f"the {len(names)} names of the table are not the official ones (SHA-256 "
            f"{digest[:16]}..., expected {expected[:16]}...). Get the table anew, or use your own "
            "with --set official=false"
        )


def _images(root: Path) -> dict[str, Path]:
    """Every image by its name: in ``images``, or in ``images_001/images`` and so on."""
    found: dict[str, Path] = {}
    folders = [
        root / "images",
        *sorted(root.glob("images_*/images")),
        *sorted(root.glob("images_*")),
    ]
    for folder in folders:
        if folder.is_dir():
            with os.scandir(folder) as entries:
                found |= {e.name: Path(e.path) for e in entries if e.name.endswith(".png")}
    return found
