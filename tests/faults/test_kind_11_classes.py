"""A conditional model draws its classes in turn, says which, and knows them by their names.

Without a label it drew the first class alone, and recorded null.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from model_files import card, model, write
from ssmdiff_cli.main import app
from tiny_runs import tiny_run
from typer.testing import CliRunner

CLASSES = ("disc", "ring", "square")


def sample(source, *flags):
    arguments = ["sample", source, "--steps", 3, "--format", "npy", *flags]
    return CliRunner().invoke(app, [str(a) for a in arguments])


def images(folder):
    return {path.name: np.load(path) for path in sorted(folder.glob("*.npy"))}


@pytest.fixture(scope="module", params=["run", "file"])
def source(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("conditional")
    if request.param == "run":
        tiny_run(folder / "run", CLASSES)
        return folder / "run"
    document = card(class_conditional=True, class_names=CLASSES)
    return write(folder / "model.onnx", model(document, conditional=True))


def test_the_classes_come_in_turn_and_are_recorded_for_each_image(source, tmp_path):
    done = sample(source, "--n", 5, "--batch-size", 4, "--out", tmp_path / "turns")
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "turns" / "samples.json").read_text())
    names = [f"{i:06d}.npy" for i in range(5)]
    assert record["labels"] == dict(zip(names, (*CLASSES, *CLASSES[:2]), strict=True))
    assert record["label"] is None
    turns = images(tmp_path / "turns")
    for label, name in enumerate(CLASSES):
        out = tmp_path / name
        assert sample(source, "--n", 5, "--label", name, "--out", out).exit_code == 0
        of_one = json.loads((out / "samples.json").read_text())
        assert of_one["label"] == label
        assert set(of_one["labels"].values()) == {name}
        alone = images(out)
        for i, image in enumerate(names):
            same = np.allclose(alone[image], turns[image], atol=1e-5)
            assert same is (i % 3 == label)


def test_a_name_and_its_number_are_one_class(source, tmp_path):
    by_name, by_number = tmp_path / "name", tmp_path / "number"
    assert sample(source, "--n", 1, "--label", "ring", "--out", by_name).exit_code == 0
    assert sample(source, "--n", 1, "--label", 1, "--out", by_number).exit_code == 0
    np.testing.assert_equal(images(by_name), images(by_number))


@pytest.mark.parametrize(
    ("label", "message"),
    [("rng", "did you mean 'ring'?"), ("3", "expected 0 disc, 1 ring, 2 square"),
     ("-1", "there is no label '-1'")],
)  # fmt: skip
def test_a_class_that_is_not_there_is_refused_and_leaves_nothing(source, tmp_path, label, message):
    done = sample(source, "--n", 1, "--label", label, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert message in done.output
    assert not (tmp_path / "out").exists()
