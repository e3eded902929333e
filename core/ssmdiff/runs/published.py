"""What a published data set is: how its folder is read, and on which terms it may be used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol


class DataTerms(NamedTuple):
    """On which terms images may be used, and what is cited for them.

    They go into a store, from there into every run and exported file, and onto its pages.
    """

    name: str
    licence: str
    """In words: ``CC BY-NC-SA 4.0``, or what is known of it."""
    cite: str
    """A reference in one line, or BibTeX, as of a component."""
    url: str = ""


def terms_of(found: object) -> DataTerms | None:
    """Terms from the table of a record or from a data set; None where there are none."""
    words = found if isinstance(found, Mapping) else getattr(found, "terms", None)
    if isinstance(words, DataTerms):
        return words
    keys = DataTerms._fields
    if not isinstance(words, Mapping) or not all(isinstance(words.get(k), str) for k in keys):
        return None
    return DataTerms(*(words[key] for key in keys))


def data_record(dataset: object) -> dict[str, Any]:
    """What a run keeps of its data: ``terms``, and what its ``images`` are in their own units.

    Keys are there where something is known; none of it identifies anybody.
    """
    record: dict[str, Any] = {}
    if (terms := terms_of(dataset)) is not None:
        record["terms"] = terms._asdict()
    facts = getattr(dataset, "image_facts", None)
    if facts is not None:
        known = {
            "value_range": facts.value_range and list(facts.value_range),
            "spacing": facts.spacing and list(facts.spacing),
            "units": facts.units,
            "modality": facts.modality,
            "body_part": facts.body_part,
        }
        if images := {key: value for key, value in known.items() if value}:
            record["images"] = images
    return record


@dataclass(frozen=True)
class Case:
    """What is prepared as a whole: a volume or a picture of one person, and what lies beside it."""

    files: Mapping[str, tuple[Path, ...]]
    """Name of an array -> its files. ``image`` is there; ``mask`` holds labels of pixels."""
    name: str
    """Relative to the folder; for messages, and never written down."""
    patient: str
    """Likewise: a store has a salted hash of it."""
    label: str = ""
    """The name of its class."""
    split: str = ""
    """Of the official lists, if there are any."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Further columns of the table; the same in all cases."""


class PublishedDataset(Protocol):
    """What the class of a data set has that ``ssmdiff data prepare FOLDER --as NAME`` can read.

    The class reads the official folder; its instances serve the store that was made of it. It may
    have ``COLUMNS``, what some numbers of its cases are where they are no plain numbers, by the
    name of a condition: ``{"findings": {"kind": "labels", "names": ("mass", "nodule"), "columns":
    ("has_mass", "has_nodule")}}``, each column 0 or 1; or of kind ``label``, one column of numbers.
    """

    TERMS: DataTerms
    CLASSES: tuple[str, ...]
    """Empty where there are no classes."""
    MASK: tuple[str, ...]
    """What the labels 0, 1, ... of the array ``mask`` stand for; empty where there is none."""
    RECIPE: Mapping[str, Any]
    """How it is prepared unless something else is asked for: options of ``ssmdiff data prepare``
    by name, such as ``{"axis": "axial", "slices": "content:0.15"}``."""
    MODALITY: str
    """``MR``, ``CT``, ``DX``, ...: DICOM's words, as of the next."""
    BODY_PART: str

    @classmethod
    def cases(cls, root: Path) -> Iterable[Case]:
        """Everything in the folder that belongs to the data set; further typed parameters with a
        default are options, ``ssmdiff data prepare --set NAME=VALUE``.

        Raises:
            DataError: The folder has another layout, with what was expected and found.
        """
        ...

    @classmethod
    def notes(cls, kept: int | None = None) -> Iterable[str]:
        """What a person should know, before (None) and after ``kept`` images were chosen."""
        ...
