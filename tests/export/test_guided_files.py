"""Guidance and filling in are outside of the network: an ONNX file does as its run does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ssmdiff import Condition, FillIn, FromImage, Guidance, load_run
from ssmdiff_export.model_file import open_onnx
from ssmdiff_export.onnx_export import export_onnx
from ssmdiff_export.runtime import OnnxSampler
from tiny_runs import SMALLEST, tiny_run

pytestmark = pytest.mark.slow  # for the export of a file

TOLD = [
    Condition("label", "label", ("t1", "flair"), optional=True),
    Condition("other", "image", optional=True),
]
OTHER = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 8, 8)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run, its file in numpy, and its file as ``ssmdiff sample`` opens it."""
    folder: Path = tmp_path_factory.mktemp("guided")
    run = tiny_run(folder / "run", ("t1", "flair"), conditions=TOLD, backbone=SMALLEST)
    export_onnx(run, folder / "model.onnx", verify=False)
    file = folder / "model.onnx"
    return {"run": load_run(folder / "run"), "numpy": OnnxSampler(file), "torch": open_onnx(file)}


GUIDED = {
    "one batch": Guidance(3.0),
    "two calls": Guidance(3.0, calls=2),
    "rescaled": Guidance(4.0, rescale=0.7),
    "inside": Guidance(4.0, interval=(0.2, 0.8)),
    "away": Guidance(2.0, negative={"label": "t1"}),
    "nothing told": Guidance(0.0),
}


@pytest.mark.parametrize("how", GUIDED)
def test_a_file_is_guided_as_its_run_is(models, how: str) -> None:
    asked = {"steps": 6, "label": "flair", "told": {"other": OTHER}, "batch_size": 4}
    images = {
        name: np.asarray(model.sample(4, guidance=GUIDED[how], **asked))
        for name, model in models.items()
    }
    np.testing.assert_allclose(images["numpy"], images["run"], atol=2e-4)
    np.testing.assert_allclose(images["torch"], images["run"], atol=2e-4)
    plain = models["numpy"].sample(4, **asked)
    assert np.abs(images["numpy"] - plain).mean() > 1e-3


def test_two_calls_and_one_batch_are_the_same_guidance(models) -> None:
    asked = {"steps": 6, "label": "flair", "told": {"other": OTHER}}
    one, two = (models["numpy"].sample(3, guidance=Guidance(3.0, calls=c), **asked) for c in (1, 2))
    np.testing.assert_allclose(one, two, atol=2e-5)


@pytest.mark.parametrize("name", ["run", "numpy", "torch"])
def test_scale_one_is_one_call_and_the_same_bits(models, name: str) -> None:
    model, seen = models[name], []
    network = model.denoiser()
    plain = np.asarray(model.sample(2, steps=3, told={"other": OTHER}))

    class Counting:
        asarray = staticmethod(getattr(network, "asarray", np.asarray))

        def __call__(self, x, *given):
            seen.append(len(x))
            return network(x, *given)

    model.denoiser = Counting
    try:
        found = np.asarray(model.sample(2, steps=3, told={"other": OTHER}, guidance=1.0))
        assert seen == [2] * 3
        np.testing.assert_array_equal(found, plain)
        seen.clear()
        model.sample(2, steps=3, told={"other": OTHER}, guidance=2.0)
        assert seen == [4] * 3
        seen.clear()
        outside = Guidance(2.0, interval=(0.5, 1.0), calls=2)
        model.sample(2, steps=4, told={"other": OTHER}, guidance=outside)
        assert seen == [2, 2, 2, 2, 2, 2], "one call in two steps, two in the others"
    finally:
        del model.denoiser


@pytest.mark.parametrize("course", ["filled in", "begun from"])
def test_a_file_walks_the_courses_of_its_run(models, course: str) -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (2, 1, 8, 8)).astype(np.float32)
    unknown = np.zeros((2, 1, 8, 8), bool)
    unknown[..., :3] = True
    courses = {"filled in": FillIn(images, unknown, 2), "begun from": FromImage(images, 0.5)}
    asked = {"steps": 8, "told": {"other": OTHER}, "guidance": 2.0, "course": courses[course]}
    found = {name: np.asarray(model.sample(2, **asked)) for name, model in models.items()}
    np.testing.assert_allclose(found["numpy"], found["run"], atol=2e-4)
    np.testing.assert_allclose(found["torch"], found["run"], atol=2e-4)
    if course == "filled in":
        for made in found.values():
            np.testing.assert_array_equal(made[~unknown], images[~unknown])
