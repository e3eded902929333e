"""A flow that is told conditions: guided, begun from an image, filled in, in torch and a file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import ssmdiff
import torch
from small_flows import small
from ssmdiff import FillIn, FromImage, Guidance, load_run
from ssmdiff_evaluate.likelihood import bits_of
from ssmdiff_export.runtime import OnnxSampler

pytestmark = pytest.mark.slow
SAMPLERS = ("flow-euler", "flow-heun", "flow-adams")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, OnnxSampler]:
    """A run that is told the class and a mask, and its ONNX file."""
    folder = tmp_path_factory.mktemp("told")
    config = small(
        train={"steps": 8, "learning_rate": 5e-3},
        model={"conditions": ["label", "mask"]},
        data={"image_size": 16, "dataset": {"name": "phantom", "length": 40}},
    )
    ssmdiff.train(config, folder / "run")
    ssmdiff.job("export")(folder / "run", folder / "flow.onnx")
    return load_run(folder / "run"), OnnxSampler(folder / "flow.onnx", threads=1)


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    """Of a head, in two numbers of the mask."""
    pixels = np.zeros((16, 16), np.int64)
    pixels[4:12, 4:12] = 1
    return pixels


@pytest.mark.parametrize("scheduler", SAMPLERS)
def test_guided_images_are_the_same_in_torch_and_from_a_file(
    made: tuple[Any, OnnxSampler], mask: np.ndarray, scheduler: str
) -> None:
    run, sampler = made
    asked: dict[str, Any] = {"seed": 2, "steps": 4, "scheduler": scheduler, "told": {"mask": mask}}
    plain = run.sample(3, **asked)
    guided = run.sample(3, guidance=Guidance(3.0, rescale=0.5), **asked)
    assert (guided - plain).abs().max() > 0.01
    assert (run.sample(3, **{**asked, "told": {"mask": 1 - mask}}) - plain).abs().max() > 0.01
    found = sampler.sample(3, guidance=Guidance(3.0, rescale=0.5), **asked)
    np.testing.assert_allclose(found, guided.numpy(), atol=5e-5)


@pytest.mark.parametrize("scheduler", SAMPLERS)
def test_what_is_known_of_a_filled_image_stays_to_the_bit(
    made: tuple[Any, OnnxSampler], mask: np.ndarray, scheduler: str
) -> None:
    run, sampler = made
    held_out = ssmdiff.build_dataset(run.config).held_out
    image = held_out[0].image.numpy()
    unknown = np.zeros((1, 16, 16), bool)
    unknown[..., 8:] = True
    asked: dict[str, Any] = {"steps": 6, "scheduler": scheduler, "told": {"mask": mask}}
    filled = run.sample(2, course=FillIn([image], [unknown], repeats=2), **asked).numpy()
    for one in filled:
        np.testing.assert_array_equal(one[..., :8], image[..., :8])
        assert np.abs(one[..., 8:] - image[..., 8:]).max() > 0.01
    found = sampler.sample(2, course=FillIn([image], [unknown], repeats=2), **asked)
    np.testing.assert_allclose(found, filled, atol=5e-5)


@pytest.mark.parametrize("scheduler", SAMPLERS)
def test_a_walk_that_begins_near_an_image_stays_near_it(
    made: tuple[Any, OnnxSampler], mask: np.ndarray, scheduler: str
) -> None:
    """x_t = (1 - t) x_0 + t noise where it begins: the less is walked, the nearer it ends."""
    run, _ = made
    image = ssmdiff.build_dataset(run.config).held_out[1].image
    asked: dict[str, Any] = {"steps": 10, "scheduler": scheduler, "told": {"mask": mask}}
    apart = [
        float(
            (run.sample(2, course=FromImage([image.numpy()], s), **asked) - image).square().mean()
        )
        for s in (0.1, 0.5, 1.0)
    ]
    assert apart[0] < apart[1] < apart[2]
    assert apart[0] < 0.05


def test_bits_are_told_under_what_each_image_is_told(made: tuple[Any, OnnxSampler]) -> None:
    run, _ = made
    dataset = ssmdiff.build_dataset(run.config)
    ((name, value),) = bits_of(run, dataset, 2, seed=0).items()
    assert name == "bits per dimension of 2 held-out images"
    assert 4 < value < 12
    with torch.no_grad():
        told = [
            ssmdiff.told_of(dataset.held_out, dataset.held_out[i])
            for i in (0, len(dataset.held_out) - 1)
        ]
        others = ssmdiff.told_entries(run.conditions, told[::-1], (16, 16))
        x_0 = torch.stack([dataset.held_out[i].image for i in (0, len(dataset.held_out) - 1)])
        x_0 = ((x_0 + 1) * 127.5).round() / 127.5 - 1
        swapped = run.method.bits_per_dim(run.model, {"x_0": x_0, **others}, 0)
    assert abs(float(swapped.mean()) - value) > 1e-5, "under the other's class and mask"
