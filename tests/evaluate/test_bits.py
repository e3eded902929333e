"""Bits per dimension beside an evaluation: of the images that they should be of, as the method has
them, and refused where there are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import ssmdiff
import torch
from ssmdiff import ConfigError
from ssmdiff_cli.main import app
from ssmdiff_evaluate.likelihood import bits_of, refuse_bits
from typer.testing import CliRunner


def test_bits_are_the_methods_of_evenly_spread_held_out_images(run: Path) -> None:
    opened = ssmdiff.load_run(run)
    dataset = ssmdiff.build_dataset(opened.config)
    held_out = dataset.held_out
    ((name, value),) = bits_of(opened, dataset, 3, seed=4).items()
    assert name == "bits per dimension of 3 held-out images"
    places = [0, (len(held_out) - 1) // 2, len(held_out) - 1]
    x_0 = torch.stack([held_out[i].image for i in places])
    x_0 = ((x_0 + 1) * 127.5).round() / 127.5 - 1
    label = torch.zeros(3, dtype=torch.int64)
    with torch.no_grad():
        wanted = opened.method.bits_per_dim(opened.model, {"x_0": x_0, "label": label}, 4)
    assert value == pytest.approx(float(wanted.mean()), rel=1e-9)

    class NothingHeldOut:
        class_names = held_out.class_names

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            return held_out[index]

    (name,) = bits_of(opened, NothingHeldOut(), 5, seed=4)
    assert name == "bits per dimension of 2 training images"


def test_a_model_without_a_likelihood_is_refused_before_work(run: Path) -> None:
    refuse_bits(ssmdiff.load_run(run))
    with pytest.raises(ConfigError, match="an exported file has no gradients"):
        refuse_bits(object())  # type: ignore[arg-type]

    class Gan(ssmdiff.Method):
        updates = denoiser = new_scheduler = None

    class Opened:
        method = Gan()
        config = ssmdiff.load_run(run).config

    with pytest.raises(ConfigError, match="method 'diffusion' has no likelihood; leave it out"):
        refuse_bits(Opened())  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_command_tells_them_and_keeps_them(run: Path, tmp_path: Path) -> None:
    asked = [run, "--n", 16, "--features", "pixels", "--metric", "ms-ssim", "--bits", 2]
    result = CliRunner().invoke(app, ["evaluate", *map(str, asked), "--out", str(tmp_path / "e")])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "e" / "record.json").read_text())
    value = record["model"]["bits per dimension of 2 held-out images"]
    assert 1 < value < 20
    assert f"bits per dimension of 2 held-out images {value:>10.3f}" in result.output
