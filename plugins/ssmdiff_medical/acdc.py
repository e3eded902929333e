"""ACDC: cardiac MRI of 150 patients at the end of diastole and of systole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from ssmdiff import Case, DataError, DataTerms

from ssmdiff_medical.published import Published, layout
from ssmdiff_medical.references import ACDC

_PATIENT = re.compile(r"patient\d{3}")
_SPLITS = {"training": "train", "testing": "test"}
_ALL = 1902
"""Slices of the 200 volumes of the 100 training patients."""
_PAPER = 1798


class Acdc(Published):
    """ACDC, from its official folder ``database/{training,testing}/patientNNN``."""

    NAME: ClassVar[str] = "acdc"
    TERMS: ClassVar[DataTerms] = DataTerms(
        "ACDC",
        "CC BY-NC-SA 4.0; whether weights trained on it may be used commercially is not settled",
        ACDC,
        "https://humanheart-project.creatis.insa-lyon.fr",
    )
    CLASSES: ClassVar[tuple[str, ...]] = ("NOR", "MINF", "DCM", "HCM", "RV")
    MASK: ClassVar[tuple[str, ...]] = (
        "background",
        "right ventricle",
        "myocardium",
        "left ventricle",
    )
    RECIPE: ClassVar[Mapping[str, Any]] = {
        "axis": "axial",
        "slices": "all",
        "values": "percentile:0.1,99.9",
        "resize": "pad",
    }
    # Some headers say the wrong side, and a heart has sides: no flips.
    AUGMENTATION: ClassVar[Mapping[str, Any]] = {
        "flip": False,
        "rotate_deg": 10.0,
        "shift": 0.05,
        "zoom": 0.1,
    }
    MODALITY: ClassVar[str] = "MR"
    BODY_PART: ClassVar[str] = "HEART"

    @classmethod
    def cases(cls, root: Path, masks: bool = True, testing: bool = True) -> Iterator[Case]:
        """The volumes at the end of diastole and of systole.

        Args:
            root: ``database``, or the folder that holds it.
            masks: With the labels; the testing patients had none while the challenge ran.
            testing: The 50 testing patients too, as the split ``test``.
        """
        base = root / "database" if (root / "database").is_dir() else root
        if not (base / "training").is_dir():
            raise layout("ACDC", root, "database/training/patient001", "there is no training")
        for folder, split in _SPLITS.items():
            if split == "train" or testing:
                for patient in sorted((base / folder).glob("patient*")):
                    if _PATIENT.fullmatch(patient.name) and patient.is_dir():
                        yield from cls._of(base, patient, split, masks)

    @classmethod
    def _of(cls, base: Path, patient: Path, split: str, masks: bool) -> Iterator[Case]:
        info = _info(patient / "Info.cfg")
        for phase in ("ED", "ES"):
            try:
                frame = int(info[phase])
                group = info["Group"]
            except (KeyError, ValueError):
                raise DataError(
                    f"{patient / 'Info.cfg'} has no {phase} or Group; expected ED, ES and Group"
                ) from None
            if group not in cls.CLASSES:
                raise DataError(f"{patient / 'Info.cfg'}: Group {group!r}; expected {cls.CLASSES}")
            stem = f"{patient.name}_frame{frame:02d}"
            files = {"image": (_file(patient, stem),)}
            if masks:
                files["mask"] = (_file(patient, f"{stem}_gt"),)
            name = f"{patient.relative_to(base).as_posix()}/{stem}"
            numbers = {"end_systole": float(phase == "ES")}
            yield Case(files, name, patient.name, group, split, numbers)

    @classmethod
    def notes(cls, kept: int | None = None) -> Iterator[str]:
        if kept is None:
            yield "left and right of ACDC: some headers say the wrong side, so flips are off"
            return
        yield (
            f"slice rule: every slice at ED and ES, {kept} in this store; the training patients "
            f"have {_ALL}. The paper says {_PAPER:,} and not how it chose them: the "
            f"{_ALL - _PAPER} that it lacks are unexplained"
        )


def _info(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; it says ED and ES") from None
    return {
        key.strip(): value.strip()
        for key, _, value in (line.partition(":") for line in text.splitlines())
    }


def _file(patient: Path, stem: str) -> Path:
    for suffix in (".nii.gz", ".nii"):
        if (path := patient / f"{stem}{suffix}").is_file():
            return path
    advice = ""
    if stem.endswith("_gt"):
        advice = ". Without labels: --set masks=false; without these patients: --set testing=false"
    raise DataError(f"{patient / stem}.nii.gz is missing{advice}")
