"""Every sampler gives what its paper says, at step counts that do and do not divide T.

The data is a Gaussian, whose denoiser is exact; a run and an ONNX file draw it, and the papers'
recurrences in float64 say value by value what comes out. DDIM stepped T // steps timesteps back
and gave 0.478 for a spread of 0.247; ``fixed_large`` left noise in the image.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import onnx
import published
import pytest
import ssmdiff
import torch
from model_files import card, write
from onnx import TensorProto, helper, numpy_helper
from ssmdiff_export.model_file import open_onnx
from ssmdiff_export.runtime import OnnxSampler
from ssmdiff_export.runtime.card import Process
from tiny_runs import tiny_run

T, MEAN, SPREAD = 1000, 0.1, 0.25
BETAS = ssmdiff.make_betas("linear", T)
ALPHA_BAR = np.cumprod(1 - BETAS)
SIDE, SEED, N = 8, 3, 2
STEPS = (7, 30, 77, 300, 501, 999)
PREDICTIONS = ("epsilon", "sample", "v_prediction")
WAYS = {
    "ddpm": ({"name": "ddpm", "clip_sample": False}, published.ddpm),
    "ddpm-large": (
        {"name": "ddpm", "clip_sample": False, "variance": "fixed_large"},
        functools.partial(published.ddpm, large=True),
    ),
    "ddim": ({"name": "ddim", "clip_sample": False}, published.ddim),
    "ddim-1": (
        {"name": "ddim", "clip_sample": False, "eta": 1.0},
        functools.partial(published.ddim, eta=1.0),
    ),
    "dpmpp": ({"name": "dpmpp"}, published.dpmpp),
    "unipc": ({"name": "unipc"}, published.unipc),
    "euler": ({"name": "euler"}, published.euler),
    "heun": ({"name": "heun"}, published.heun),
}
RANDOM = ("ddpm", "ddpm-large", "ddim-1")
PRODUCT = list(itertools.product(WAYS, STEPS, PREDICTIONS))
FAST = [case for i, case in enumerate(PRODUCT) if case[1] < 300 and (i + i // 3) % 3 == 0]


def x_0_of(x, alpha_bar):
    """The mean of the data given x = sqrt(ab) x_0 + sqrt(1 - ab) e."""
    precision = 1 / SPREAD**2 + alpha_bar / (1 - alpha_bar)
    return (MEAN / SPREAD**2 + np.sqrt(alpha_bar) / (1 - alpha_bar) * x) / precision


@functools.cache
def affine(prediction):
    """(T,) gain and offset of the exact network, float32: prediction = gain x + offset."""
    tables = []
    for x in (0.0, 1.0):
        x_0 = x_0_of(x, ALPHA_BAR)
        e = (x - np.sqrt(ALPHA_BAR) * x_0) / np.sqrt(1 - ALPHA_BAR)
        v = np.sqrt(ALPHA_BAR) * e - np.sqrt(1 - ALPHA_BAR) * x_0
        tables.append({"epsilon": e, "sample": x_0, "v_prediction": v}[prediction])
    return tuple(np.asarray(t, np.float32) for t in (tables[1] - tables[0], tables[0]))


class Exact(torch.nn.Module):
    """The exact network as a backbone without scans."""

    def __init__(self, prediction):
        super().__init__()
        self.gain, self.offset = (
            torch.nn.Parameter(torch.from_numpy(t)) for t in affine(prediction)
        )
        self.scan = ssmdiff.create("scan", "raster")

    def scan_slots(self, image_size):
        return ()

    def forward(self, x, timesteps, context, orders):
        t = timesteps.long()
        return self.gain[t][:, None, None, None] * x + self.offset[t][:, None, None, None]


def exact_file(path, prediction):
    """The exact network as an ONNX file of ours."""
    node, value = helper.make_node, helper.make_tensor_value_info
    gain, offset = affine(prediction)
    column = numpy_helper.from_array(np.array([-1, 1, 1, 1], np.int64), "column")
    tables = [numpy_helper.from_array(gain, "gain"), numpy_helper.from_array(offset, "offset")]
    nodes = [node("Cast", ["timesteps"], ["t"], to=TensorProto.INT64)]
    for name in ("gain", "offset"):
        nodes += [node("Gather", [name, "t"], [f"{name}_t"]),
                  node("Reshape", [f"{name}_t", "column"], [f"{name}_column"])]  # fmt: skip
    nodes += [node("Mul", ["gain_column", "x"], ["scaled"]),
              node("Add", ["scaled", "offset_column"], ["prediction"])]  # fmt: skip
    image = ["batch", 1, SIDE, SIDE]
    inputs = [value("x", TensorProto.FLOAT, image),
              value("timesteps", TensorProto.FLOAT, ["batch"])]  # fmt: skip
    outputs = [value("prediction", TensorProto.FLOAT, image)]
    graph = helper.make_graph(nodes, "exact", inputs, outputs, [*tables, column])
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )  # fmt: skip
    document = card(
        slots=(), recipes={}, channels=1, image_size=(SIDE, SIDE),
        diffusion=Process(T, "linear", 1e-4, 0.02, prediction),
    )  # fmt: skip
    helper.set_model_props(proto, {"ssmdiff": document.to_json()})
    onnx.checker.check_model(proto)
    return write(path, proto)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exact")

    @functools.cache
    def made(prediction):
        run = tiny_run(folder / prediction, diffusion={"timesteps": T, "prediction": prediction})
        run.model = Exact(prediction)
        path = exact_file(folder / f"{prediction}.onnx", prediction)
        return {"run": run, "file": OnnxSampler(path, threads=1), "torch": open_onnx(path)}

    return made


@functools.cache
def expected(way, steps):
    """The images of SEED by the paper's recurrence."""
    shape = (1, SIDE, SIDE)
    x = np.stack([ssmdiff.first_noise(SEED, i, shape) for i in range(N)]).astype(np.float64)

    def noise(step):
        return np.stack([ssmdiff.step_noise(SEED, i, step, shape) for i in range(N)])

    return WAYS[way][1](x, x_0_of, published.path_of(BETAS, steps), noise)


def compare(models, way, steps, prediction, sources):
    target = expected(way, steps).clip(-1, 1)
    for source in sources:
        model = models(prediction)[source]
        images = np.asarray(model.sample(N, seed=SEED, steps=steps, scheduler=WAYS[way][0]))
        np.testing.assert_allclose(images, target, rtol=0, atol=1e-3, err_msg=source)
        assert abs(images.mean() - target.mean()) < 1e-3
        assert abs(images.std() - target.std()) < 1e-3


@pytest.mark.parametrize(("way", "steps", "prediction"), FAST)
def test_a_run_and_a_file_give_the_values_of_the_paper(models, way, steps, prediction):
    compare(models, way, steps, prediction, ("run", "file"))


@pytest.mark.slow
@pytest.mark.parametrize(("way", "steps", "prediction"), PRODUCT)
def test_everywhere_a_run_and_a_file_give_the_values_of_the_paper(models, way, steps, prediction):
    compare(models, way, steps, prediction, ("run", "file", "torch"))


def mean_and_spread(way, steps):
    """Of all images, exactly: a step is affine in x, and so is a run without noise."""
    path, update = published.path_of(BETAS, steps), WAYS[way][1]
    if way not in RANDOM:
        zero, one = update(np.array([0.0, 1.0]), x_0_of, path, None)
        return zero, one - zero
    mean, variance = 0.0, 1.0
    for i in range(steps):
        part = path[i : i + 2] if path[i + 1] < 1 else path[i:]
        added = 0.0
        if part[1] < 1:
            added = float(update(np.zeros(1), x_0_of, [*part], lambda _: np.ones(1))[0])
            added -= float(update(np.zeros(1), x_0_of, [*part], lambda _: np.zeros(1))[0])
        zero, one = update(np.array([0.0, 1.0]), x_0_of, [*part], lambda _: np.zeros(2))
        mean, variance = zero + (one - zero) * mean, (one - zero) ** 2 * variance + added**2
    return mean, np.sqrt(variance)


@pytest.mark.parametrize("steps", [300, 501, 999])
@pytest.mark.parametrize("way", WAYS)
def test_many_steps_give_the_spread_of_the_data(way, steps):
    mean, spread = mean_and_spread(way, steps)
    # NOTE(paper): with the small variance the update as published is 4.4% short in 300 steps.
    short = way in ("ddpm", "ddim-1") and steps == 300
    assert mean == pytest.approx(MEAN, abs=0.03 * SPREAD)
    assert spread == pytest.approx(0.2389 if short else SPREAD, rel=0.001 if short else 0.03)


# Clipping, and data that fills -1 to 1 unevenly

POINTS = np.linspace(-1, 1, 21)
SHARES = 0.45 * (POINTS == -1) + 0.55 * (1.1 - POINTS) ** 2 / ((1.1 - POINTS) ** 2).sum()
"""Nearly half of it black, and the rest rather dark than bright."""
BOLD, BLIND_FROM = 1.06, ALPHA_BAR[20]
"""The network is a little too sure, beyond -1, where it is clipped; and from a noise level on it
knows nothing and reads the image off x, so that whatever shifted x on the way stays."""
CLIPPED = {
    "ddpm": ({"name": "ddpm"}, published.ddpm),
    "ddpm-large": (
        {"name": "ddpm", "variance": "fixed_large"},
        functools.partial(published.ddpm, large=True),
    ),
    "ddim": ({"name": "ddim"}, published.ddim),
    "ddim-1": ({"name": "ddim", "eta": 1.0}, functools.partial(published.ddim, eta=1.0)),
}


def bold(x, alpha_bar):
    """BOLD times the mean of the points given x; x itself where there is little noise."""
    blind = x / np.sqrt(alpha_bar)
    seen = np.asarray(alpha_bar) > BLIND_FROM
    alpha_bar = np.asarray(alpha_bar)[..., None]
    x = x[..., None]
    log = np.log(SHARES) - (x - np.sqrt(alpha_bar) * POINTS) ** 2 / (2 * (1 - alpha_bar))
    weight = np.exp(log - log.max(-1, keepdims=True))
    return np.where(seen, blind, BOLD * (weight * POINTS).sum(-1) / weight.sum(-1))


def draw_clipped(table, steps, prediction, shape):
    """By the loop in numpy, from the network's own output."""

    def network(x, timesteps, orders):
        ab = ALPHA_BAR[timesteps.astype(int)][:, None, None, None]
        x = x.astype(np.float64)
        x_0 = bold(x, ab)
        e = (x - np.sqrt(ab) * x_0) / np.sqrt(1 - ab)
        v = np.sqrt(ab) * e - np.sqrt(1 - ab) * x_0
        return {"epsilon": e, "sample": x_0, "v_prediction": v}[prediction].astype(np.float32)

    class NoPlan:
        def draw(self, step, seed):
            return ()

    scheduler = ssmdiff.make_scheduler(table, BETAS, prediction)
    return ssmdiff.sample(
        network, scheduler, NoPlan(), seed=SEED, shape=shape, indices=range(N), steps=steps
    )


@pytest.mark.parametrize("steps", [7, 77, pytest.param(501, marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", CLIPPED)
def test_a_clipped_x_0_and_its_noise_belong_together(way, steps):
    """Value by value: a step that kept the noise of the unclipped x_0 would shift the image."""
    table, update = CLIPPED[way]
    shape = (1, SIDE, SIDE)
    x = np.stack([ssmdiff.first_noise(SEED, i, shape) for i in range(N)]).astype(np.float64)
    target = update(
        x,
        lambda x, ab: bold(x, ab).clip(-1, 1),
        published.path_of(BETAS, steps),
        lambda step: np.stack([ssmdiff.step_noise(SEED, i, step, shape) for i in range(N)]),
    )
    for prediction in PREDICTIONS:
        images = draw_clipped(table, steps, prediction, shape)
        np.testing.assert_allclose(
            images, target.clip(-1, 1), rtol=0, atol=1e-3, err_msg=prediction
        )


@pytest.mark.slow
@pytest.mark.parametrize("way", [*CLIPPED, "dpmpp", "unipc", "euler", "heun"])
def test_the_mean_does_not_drift_with_the_number_of_steps(way):
    table = {**WAYS, **CLIPPED}[way][0]
    means = [draw_clipped(table, n, "epsilon", (1, 32, 32)).mean() for n in (300, 501, 999)]
    np.testing.assert_allclose(means, means[-1], rtol=0, atol=0.03 if way in RANDOM else 0.002)
