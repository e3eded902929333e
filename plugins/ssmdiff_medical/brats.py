"""BraTS: brain tumours in four MR sequences, by the names of 2018 to 2023."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from ssmdiff import Case, DataError, DataTerms

from ssmdiff_medical.published import Published, layout
from ssmdiff_medical.references import BRATS

Modality = Literal["t1", "t1ce", "t2", "flair"]

_PATIENT = re.compile(
    r"(?:Brats1[789]|BraTS1[789])_\w+|BraTS20_(?:Training|Validation)_\d{3}|BraTS2021_\d{5}"
    r"|(?P<person>BraTS-GLI-\d{5})-\d{3}",
    re.ASCII,
)
_ENDINGS = {
    "t1": ("_t1", "-t1n"),
    "t1ce": ("_t1ce", "-t1c"),
    "t2": ("_t2", "-t2w"),
    "flair": ("_flair", "-t2f"),
    "seg": ("_seg", "-seg"),
}
_GRADES = ("HGG", "LGG")
_DEEPEST = 3
_PAPER = 6528
_SURVIVAL = "survival_data.csv"


class Brats(Published):
    """BraTS 2018, from its official folder of ``HGG`` and ``LGG``; later years by their names."""

    NAME: ClassVar[str] = "brats2018"
    TERMS: ClassVar[DataTerms] = DataTerms(
        "BraTS 2018",
        "by registration with the organisers of the challenge, under their terms of use",
        BRATS,
        "https://www.med.upenn.edu/sbia/brats2018/data.html",
    )
    CLASSES: ClassVar[tuple[str, ...]] = (*_GRADES, "unknown")
    MASK: ClassVar[tuple[str, ...]] = (
        "background",
        "necrotic or non-enhancing core",
        "oedema",
        "enhancing (2023)",
        "enhancing (2018 to 2021)",
    )
    RECIPE: ClassVar[Mapping[str, Any]] = {
        "axis": "axial",
        "slices": "content:0.15",
        "values": "percentile:0.1,99.9",
        "resize": "pad",
    }
    AUGMENTATION: ClassVar[Mapping[str, Any]] = {"flip": True}
    MODALITY: ClassVar[str] = "MR"
    BODY_PART: ClassVar[str] = "BRAIN"

    @classmethod
    def cases(
        cls,
        root: Path,
        modality: Modality = "flair",
        all_modalities: bool = False,
        masks: bool = True,
    ) -> Iterator[Case]:
        """One case for each patient; for each point of time in the names of 2023.

        Args:
            root: The training data, or a folder that holds it.
            modality: Which sequence is the image. The paper names none.
            all_modalities: The other three too, each an array by its name.
            masks: With the labels; the validation patients have none.
        """
        folders = list(_patients(root, _DEEPEST))
        if not folders:
            raise layout(
                "BraTS", root, "HGG/Brats18_SITE_ID_1, or BraTS20_Training_001, BraTS2021_00000, "
                "BraTS-GLI-00000-000", "there is no such folder",
            )  # fmt: skip
        survival = _survival(root)
        for folder in folders:
            files = {"image": (_file(folder, modality),)}
            if all_modalities:
                others = [name for name in ("t1", "t1ce", "t2", "flair") if name != modality]
                files |= {name: (_file(folder, name),) for name in others}
            if masks:
                files["mask"] = (_segmentation(folder),)
            match = _PATIENT.fullmatch(folder.name)
            person = (match and match["person"]) or folder.name
            grade = folder.parent.name if folder.parent.name in _GRADES else "unknown"
            age, days = survival.get(folder.name, (math.nan, math.nan))
            numbers = {"age_years": age, "survival_days": days}
            name = folder.relative_to(root).as_posix()
            yield Case(files, name, person, grade, "", numbers)

    @classmethod
    def notes(cls, kept: int | None = None) -> Iterator[str]:
        if kept is None:
            yield "modality: the paper names none; --set modality=t1, t1ce, t2 or flair chooses"
            return
        yield (
            f"slice rule: axial slices of which 15 % are not background, {kept} in this store; "
            f"the 285 training patients have 44,175 in all. The paper's {_PAPER:,} are unexplained"
        )


def _patients(folder: Path, depth: int) -> Iterator[Path]:
    """Folders of patients, sorted by name within each folder."""
    try:
        inner = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        raise DataError(f"cannot list the folder {folder}: {error.strerror}") from None
    for path in inner:
        if _PATIENT.fullmatch(path.name):
            yield path
        elif depth > 1:
            yield from _patients(path, depth - 1)


def _file(folder: Path, what: str) -> Path:
    for ending in _ENDINGS[what]:
        for suffix in (".nii.gz", ".nii"):
            if (path := folder / f"{folder.name}{ending}{suffix}").is_file():
                return path
    raise DataError(f"{folder} has no {what}: expected {folder.name}{_ENDINGS[what][0]}.nii.gz")


def _segmentation(folder: Path) -> Path:
    """The labels; those of one patient of 2020 have another name."""
    try:
        return _file(folder, "seg")
    except DataError as error:
        others = sorted(folder.glob("*Segm*.nii*"))
        if len(others) != 1:
            raise DataError(f"{error}. Without labels: --set masks=false") from None
        return others[0]


def _survival(root: Path) -> dict[str, tuple[float, float]]:
    """Age in years and survival in days, by the patient; read by position, since years differ."""
    found: dict[str, tuple[float, float]] = {}
    for path in sorted([*root.glob(_SURVIVAL), *root.glob(f"*/{_SURVIVAL}")]):
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in list(csv.reader(file))[1:]:
                if len(row) >= 3:
                    found[row[0]] = (_number(row[1]), _number(row[2]))
    return found


def _number(text: str) -> float:
    """``ALIVE (361 days later)`` is no number of days until death."""
    try:
        return float(text)
    except ValueError:
        return math.nan
