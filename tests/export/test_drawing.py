"""The command of the runtime: images into one file, whole or not at all."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
from model_files import write
from ssmdiff.errors import ConfigError, ExportError
from ssmdiff_export.runtime import OnnxSampler, drawing


@pytest.fixture(scope="module")
def sampler(tmp_path_factory) -> OnnxSampler:
    return OnnxSampler(write(tmp_path_factory.mktemp("model") / "model.onnx"), threads=1)


def asked(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    drawing.arguments(parser)
    return parser.parse_args([str(word) for word in words])


def test_any_part_of_a_set_is_what_the_sampler_draws(sampler, tmp_path) -> None:
    out = tmp_path / "images.npy"
    options = ("--n", 5, "--first", 2, "--seed", 3, "--steps", 4, "--scheduler", "ddpm")
    line = drawing.draw(sampler, asked(*options, "--batch-size", 2, "--out", out))
    assert line.startswith(f"images: {out}, 5 of seed 3, ")
    wanted = sampler.sample(7, seed=3, steps=4, scheduler="ddpm")[2:]
    images = np.load(out)
    assert (images.shape, images.dtype) == (wanted.shape, np.float32)
    np.testing.assert_allclose(images, wanted, rtol=0, atol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["images.npy"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--out", "there.npy"], "there.npy is there already; choose another --out"),
        (["--out", "images.png"], r"expected a name that ends with \.npy"),
        (["--out", "a.npy", "--n", 0], "--n is at least 1"),
        (["--out", "a.npy", "--seed", -1], "--seed at least 0"),
        (["--out", "a.npy", "--label", "b"], "the model is told none"),
        (["--out", "a.npy", "--scheduler", "ddpn"], "ddpn"),
        (["--out", "a.npy", "--batch-size", 0], "expected at least 1"),
        (["--out", "none/a.npy"], "cannot write none/a.npy: No such file"),
    ],
)
def test_what_cannot_be_drawn_leaves_nothing(
    sampler, tmp_path, monkeypatch, words, sentence
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.npy").write_bytes(b"mine")
    with pytest.raises((ConfigError, ExportError), match=sentence):
        drawing.draw(sampler, asked("--n", 1, "--steps", 1, *words))
    assert [p.name for p in tmp_path.iterdir()] == ["there.npy"]
    assert (tmp_path / "there.npy").read_bytes() == b"mine"


def test_a_long_wait_is_told_of(sampler, tmp_path, monkeypatch, capsys) -> None:
    times = iter(float(3 * i) for i in range(100))
    monkeypatch.setattr(drawing.time, "monotonic", lambda: next(times))
    drawing.draw(
        sampler, asked("--n", 3, "--steps", 2, "--batch-size", 2, "--out", tmp_path / "a.npy")
    )
    assert capsys.readouterr().err.splitlines() == [f"call {i} of 4" for i in range(1, 5)]


def test_an_error_is_one_sentence_with_its_exit_code(capsys) -> None:
    def work() -> str:
        raise ConfigError("no such thing")

    with pytest.raises(SystemExit) as stopped:
        drawing.run(work)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: no such thing\n"
