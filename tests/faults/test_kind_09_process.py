"""A process in which training and sampling do not meet is told, with numbers, before training."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import ssmdiff
from ssmdiff_cli.main import app
from ssmdiff_train.of_diffusion import doubt_of
from typer.testing import CliRunner

SMALL = ["--image-size", "8", "--batch-size", "2", "--steps", "1", "--set", "train.bound_images=0",
         "--set", "sample.steps=1", "--set", "sample.count=1", "--set", "model.backbone.channels=8",
         "--set", "model.backbone.widths=[1]", "--set", "model.block.state=4"]  # fmt: skip


def doubt(schedule, T, start=1e-4, end=0.02):
    return doubt_of(ssmdiff.Diffusion(ssmdiff.make_betas(schedule, T, start, end)))


@pytest.mark.parametrize(
    ("schedule", "T"), [("linear", 100), ("linear", 300), ("scaled_linear", 250), ("sigmoid", 50)]
)
def test_what_is_left_of_the_image_is_told(schedule, T):
    left = np.cumprod(1 - ssmdiff.make_betas(schedule, T))[-1]
    told = doubt(schedule, T)
    assert f"alpha_bar is {left:.2g} at the last of {T} timesteps" in told
    assert f"holds {np.sqrt(left):.0%} of the image" in told


@pytest.mark.parametrize(("schedule", "T"), [("linear", 100), ("linear", 20_000)])
def test_the_value_that_is_advised_cures_it(schedule, T):
    told = doubt(schedule, T)
    end = float(told.partition("diffusion.beta_end = ")[2].partition(",")[0])
    assert doubt(schedule, T, min(1e-4, end), end) == ""


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "cosine", "sigmoid"])
def test_the_usual_processes_are_not_doubted(schedule):
    assert doubt(schedule, 1000) == ""
    assert doubt("scaled_linear", 1000, 0.00085, 0.012) == ""
    assert doubt("cosine", 2) == ""


def test_vanishing_betas_are_told():
    assert "less than float32 holds" in doubt("linear", 20_000)
    assert "'cosine'" in doubt("linear", 2)
    assert "beta_end" not in doubt("linear", 2)


@pytest.mark.parametrize(("T", "times"), [("100", 1), ("1000", 0)])
def test_training_tells_it_once_before_the_first_step(T, times, tmp_path):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        done = CliRunner().invoke(
            app,
            ["train", *SMALL, "--set", "diffusion.beta_schedule=linear",
             "--set", f"diffusion.timesteps={T}", "--out", str(tmp_path / T)],
        )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = [str(w.message) for w in told if "alpha_bar" in str(w.message)]
    assert len(found) == times
    if times:
        assert "alpha_bar is 0.36 at the last of 100 timesteps" in found[0]
        assert "diffusion.beta_end = 0.2" in found[0]
