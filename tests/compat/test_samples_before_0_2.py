"""Runs and files of before 0.2 give the images that they gave, in 8-bit levels.

Where the old samplers were wrong the images differ by design; docs/sampling.md lists when.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from ssmdiff import ConfigError, load_run
from ssmdiff_export.model_file import open_onnx
from ssmdiff_export.runtime import OnnxSampler

BEFORE = Path(__file__).parent / "before_0.2"
INDEX = json.loads((BEFORE / "samples" / "index.json").read_text())
CASES = [
    pytest.param(run, key, marks=[pytest.mark.slow] if i else [])
    for i, (run, drawn) in enumerate(INDEX.items())
    for key in drawn
]
FILES = [(path.stem, key) for path in sorted((BEFORE / "onnx").glob("*.onnx"))
         for key in np.load(path.with_suffix(".npz")).files]  # fmt: skip
WAS_RIGHT = ("ddpm-30",)
"""Foreseen to differ, and the old steps went to the next timestep there."""

loaded = functools.cache(load_run)


def levels(images: np.ndarray) -> np.ndarray:
    return np.round((np.asarray(images) + 1) * 127.5)


def same(images: np.ndarray, before: np.ndarray) -> bool:
    """Equal levels, but for a value in a hundred that rounding moved over an edge."""
    apart = np.abs(levels(images) - levels(before))
    return bool(apart.max() <= 1 and (apart > 0).mean() <= 0.01)


@pytest.mark.parametrize(("run", "key"), CASES)
def test_a_run_gives_the_images_that_it_gave(run: str, key: str) -> None:
    row = INDEX[run][key]
    draw = functools.partial(
        loaded(BEFORE / "trained" / run).sample, 2, seed=0, batch_size=2, steps=row["steps"],
        scheduler=row["scheduler"], label=row["label"],
    )  # fmt: skip
    images = draw().numpy()
    if "failed" in row:
        assert np.isfinite(images).all()
        return
    before = np.load(BEFORE / "samples" / row["file"])[key]
    if "by_design" in row and key not in WAS_RIGHT:
        assert not same(images, before), row["by_design"]
    else:
        assert same(images, before)


@pytest.mark.parametrize(("name", "key"), FILES)
def test_a_file_gives_the_images_that_it_gave(name: str, key: str) -> None:
    path, row = BEFORE / "onnx" / f"{name}.onnx", INDEX[name][key]
    before = np.load(path.with_suffix(".npz"))[key]
    for model in OnnxSampler(path, threads=1), open_onnx(path):
        images = model.sample(
            2, seed=0, steps=10, scheduler=row["scheduler"], label=row["label"], batch_size=2
        )
        assert same(np.asarray(images), before) is ("by_design" not in row)


def test_a_file_of_before_draws_unipc_without_torch() -> None:
    sampler = OnnxSampler(BEFORE / "onnx" / "regenerate.onnx", threads=1)
    images = sampler.sample(2, seed=0, steps=10, scheduler="unipc", batch_size=2)
    assert same(images, np.load(BEFORE / "samples" / "regenerate.npz")["unipc-10"])


def test_more_steps_than_it_was_trained_with_are_refused() -> None:
    with pytest.raises(ConfigError, match="from 1 to 1000"):
        loaded(BEFORE / "trained" / "regenerate").sample(1, steps=1001)
