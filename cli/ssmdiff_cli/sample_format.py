"""The format that samples are written in: a writer by name, and what it may say of an image."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ssmdiff import __version__
from ssmdiff.diffusion.image_model import ImageModel, SamplingSettings
from ssmdiff.registry.registry import create
from ssmdiff.runs.reading import ImageFacts, Writer
from ssmdiff.runs.run import Run
from torch import Tensor

SETTINGS = ("seed", "made_by", "classes", "format", "labels", "each", "names", "reading")
"""Keys of a folder's record that do not say which run drew its images."""


@dataclass(frozen=True)
class SampleFormat:
    """A writer, and the facts that the images of a set have in common."""

    writer: Writer
    key: str | dict[str, Any]
    """As the folder's record has it: the name, with its options where some were given."""
    facts: ImageFacts
    names: Sequence[str] | None = None
    """Of the images, without the suffix; their numbers by default."""

    @classmethod
    def of(
        cls,
        spec: str | Mapping[str, Any],
        model: ImageModel[Tensor],
        sampling: SamplingSettings,
        record: Mapping[str, Any],
    ) -> SampleFormat:
        """The format asked for, once it has shown that it holds the model's images.

        Raises:
            ConfigError: No such format or option, or it does not hold such images.
            PluginError: It needs a package that is not installed.
        """
        key = spec if isinstance(spec, str) else dict(spec)
        found = cls(create("writer", key), key, _facts(model, sampling, record))
        with tempfile.TemporaryDirectory() as place:
            found.write(found.path(Path(place), 0), torch.zeros(model.shape), 0, "")
        return found

    def name(self, i: int) -> str:
        """The file of an image, relative to the folder."""
        return (f"{i:06d}" if self.names is None else self.names[i]) + self.writer.suffix

    def path(self, folder: Path, i: int) -> Path:
        return folder / self.name(i)

    def number_of(self, name: str) -> int | None:
        """Which image a file of ours is; None of any other."""
        found = re.fullmatch(r"(\d{6,})" + re.escape(self.writer.suffix), name)
        return int(found[1]) if found else None

    def write(self, path: Path, image: Tensor, i: int, label: str) -> None:
        facts = replace(self.facts, index=i, label=label)
        self.writer.write(path, image.detach().cpu().float().numpy(), facts)

    def is_whole(self, path: Path) -> bool:
        """Whether an image is there from its beginning to its end, as far as the writer can say."""
        try:
            told = getattr(self.writer, "whole", None)
            return bool(told(path)) if told else path.stat().st_size > 0
        except OSError:
            return False

    def load(self, path: Path) -> Tensor | None:
        """An image as it was drawn, for the grid; None where the writer cannot read."""
        read = getattr(self.writer, "load", None)
        return torch.from_numpy(np.array(read(path, self.facts), np.float32)) if read else None


def _facts(
    model: ImageModel[Tensor], sampling: SamplingSettings, record: Mapping[str, Any]
) -> ImageFacts:
    """What the run knows of its data, and which run that is: a hash, no name of a folder."""
    since = {"guidance": None, "made_of": None}  # the word of a plain draw is as it was before
    deciding = {
        key: value
        for key, value in record.items()
        if key not in SETTINGS and since.get(key, ...) != value
    }
    word = hashlib.sha256(json.dumps(deciding, sort_keys=True, default=str).encode()).hexdigest()
    step = re.search(r"\d+", str(record.get("checkpoint", "")))
    return replace(
        _known_of_data(model),
        run=word[:16],
        seed=sampling.seed,
        step=int(step[0]) if step else 0,
        versions={"ssmdiff": __version__},
    )


def _known_of_data(model: ImageModel[Tensor]) -> ImageFacts:
    """What a run keeps of its data's images, ``provenance.data.images`` of a checkpoint's state;
    else its data set's option ``value_range``. Exported files know neither."""
    if not isinstance(model, Run):
        return ImageFacts()
    asked = {"value_range": model.config.data.dataset.get("value_range")}
    data = getattr(model, "data", {})  # a run that an author's exporter opens may keep none
    return ImageFacts.of_record(data.get("images") or asked)
