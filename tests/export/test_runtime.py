"""Sampling from a file: the images of torch's loop, on the provider asked for."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import onnxruntime
import pytest
import ssmdiff
import torch
from model_files import CHANNELS, SIDE, L, card, model, write
from onnx.reference import ReferenceEvaluator
from ssmdiff.errors import ConfigError, ExportError
from ssmdiff.orders.scan import OrderPlan, ScanSlot
from ssmdiff_export.model_file import open_onnx
from ssmdiff_export.runtime import OnnxSampler
from ssmdiff_export.runtime.card import Slot
from ssmdiff_export.runtime.sampler import FilePlan
from ssmdiff_export.runtime.session import PROVIDERS


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(scope="module")
def sampler(file):
    return OnnxSampler(file, threads=1)


@pytest.mark.parametrize("table", ["ddim", "ddpm", "dpmpp", "unipc", "euler", "heun"])
def test_numpy_draws_the_images_that_torchs_loop_draws(file, sampler, table):
    ours = sampler.sample(5, seed=3, steps=6, scheduler=table, batch_size=2)
    theirs = open_onnx(file).sample(5, seed=3, steps=6, scheduler=table).numpy()
    assert ours.dtype == np.float32
    assert ours.shape == (5, CHANNELS, SIDE, SIDE)
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_an_image_depends_on_seed_and_index_alone(sampler):
    together = sampler.sample(4, seed=1, scheduler="ddpm")
    np.testing.assert_allclose(
        sampler.sample(3, seed=1, scheduler="ddpm", batch_size=1), together[:3], atol=1e-6
    )
    assert np.abs(sampler.sample(4, seed=2, scheduler="ddpm") - together).max() > 0.01


def test_the_denoiser_is_the_graph(file, sampler):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, CHANNELS, SIDE, SIDE), dtype=np.float32)
    t = np.array([5, 80, 999])
    orders = sampler.plan(7).draw(2)
    inputs = {"x": x, "timesteps": t.astype(np.float32), "order_0": orders[0].coded}
    (expected,) = ReferenceEvaluator(str(file)).run(None, inputs)
    np.testing.assert_allclose(sampler.denoise(x, t, orders), expected, rtol=1e-4, atol=1e-5)
    other = sampler.denoise(x, t, sampler.plan(7).draw(3))
    assert np.abs(other - expected).max() > 1e-3


def test_orders_by_recipe_are_those_of_the_plan_in_torch():
    """Recipes of regenerate, restarts included, under the streams of OrderPlan."""
    scan = ssmdiff.create("scan", {"name": "regenerate", "base": "atrous", "block": 2})
    slots = (ScanSlot((8, 8)), ScanSlot((4, 4)), ScanSlot((8, 8)))
    recipes = {f"recipe_{g[0]}": scan.recipe(g) for g in ((8, 8), (4, 4))}
    own = tuple(Slot(s.grid, f"order_{i}", f"recipe_{s.grid[0]}") for i, s in enumerate(slots))
    plan = FilePlan(card(slots=own, recipes=recipes), seed=11)
    for step in (0, 5):
        expected = OrderPlan(scan, slots, 11).draw(step)
        for mine, theirs in zip(plan.draw(step), expected, strict=True):
            np.testing.assert_array_equal(mine.index, theirs.index)
            np.testing.assert_array_equal(mine.restart, theirs.restart)


def test_orders_without_a_recipe_come_from_the_installed_scan():
    slots = (Slot((4, 4)), Slot((4, 4), "order_1"))
    scan = {"name": "shuffle", "paths": 3}
    plan = FilePlan(card(slots=slots, recipes={}, scan=scan), seed=2)
    expected = OrderPlan(ssmdiff.create("scan", scan), (ScanSlot((4, 4)),) * 2, 2).draw(9)
    (drawn,) = plan.draw(9)
    np.testing.assert_array_equal(drawn.index, expected[1].index)


def test_a_scan_that_is_not_installed_is_named():
    slots = (Slot((4, 4), "order_0"),)
    made_with = {"model.scan": "corkscrew: ssmdiff-corkscrew 2.0"}
    plan = FilePlan(
        card(slots=slots, recipes={}, scan={"name": "corkscrew"}, components=made_with), seed=0
    )
    with pytest.raises(ExportError, match=r"'corkscrew' are random.*ssmdiff-corkscrew 2\.0"):
        plan.draw(0)


def test_restarts_are_in_the_sign():
    order = ssmdiff.ScanOrder(np.array([[2, 0, 1]]), np.array([[True, False, True]]))
    assert order.coded.tolist() == [[-3, 0, -2]]


def test_a_conditional_file_draws_the_class_asked_for(tmp_path):
    document = card(class_conditional=True, class_names=("a", "b"))
    path = write(tmp_path / "model.onnx", model(document, conditional=True))
    sampler = OnnxSampler(path)
    first, second = (sampler.sample(2, label=label) for label in (0, 1))
    assert np.abs(first - second).max() > 0.01
    np.testing.assert_array_equal(sampler.sample(2), [first[0], second[1]])
    theirs = open_onnx(path).sample(2, label=1).numpy()
    np.testing.assert_allclose(second, theirs, rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match="label 2 is none of its numbers; expected 0 a, 1 b"):
        sampler.sample(2, label=2)


def test_a_label_for_an_unconditional_file_is_refused(sampler):
    with pytest.raises(ConfigError, match="the model is told none"):
        sampler.sample(1, label=0)


def test_schedulers_of_plugins_draw_through_torch(file, sampler):
    images = open_onnx(file).sample(2, scheduler="diffusers")
    assert torch.isfinite(images).all()
    with pytest.raises(ConfigError, match=r"'diffusers' is not one of ddpm, .*need numpy alone"):
        sampler.sample(2, scheduler="diffusers")


def test_options_of_the_models_own_scheduler_are_kept(sampler):
    own = sampler.card.scheduler_table("ddim")
    assert own == {"name": "ddim", "clip_sample": True}
    assert sampler.card.scheduler_table({"name": "ddim", "clip_sample": False}) != own
    assert sampler.card.scheduler_table("euler") == {"name": "euler"}


@pytest.mark.parametrize("bad", [{"n": 0}, {"batch_size": 0}, {"steps": 0}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(sampler, bad):
    with pytest.raises(ConfigError):
        sampler.sample(**{"n": 1, **bad})


class TestProviders:
    def test_an_unknown_provider_is_refused(self, file):
        with pytest.raises(ConfigError, match="no provider 'tpu'; expected cpu, cuda, tensorrt"):
            OnnxSampler(file, "tpu")

    @pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
    def test_x12_a_provider_that_is_not_there_is_an_error(self, file, provider):
        if PROVIDERS[provider][0] in onnxruntime.get_available_providers():
            pytest.skip("this ONNX Runtime has it")
        with pytest.raises(ConfigError, match=r"asked for, and .* has .*cpu.*onnxruntime-gpu"):
            OnnxSampler(file, provider)

    @pytest.mark.filterwarnings("ignore:Specified provider")
    def test_x12_a_silent_fall_back_to_the_cpu_is_an_error(self, file, monkeypatch):
        """As when the CUDA provider is in the package and its libraries are not on the machine."""
        monkeypatch.setattr(
            onnxruntime,
            "get_available_providers",
            lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        )
        with pytest.raises(ExportError, match="fell back from CUDAExecutionProvider to CPU"):
            OnnxSampler(file, "cuda")

    def test_a_library_that_is_not_there_is_an_error(self, file, tmp_path):
        with pytest.raises(ConfigError, match=r"no operator library .*--ort-library"):
            OnnxSampler(file, library=tmp_path / "none.so")

    def test_a_library_that_is_none_is_an_error(self, file, tmp_path):
        (tmp_path / "no.so").write_bytes(b"text")
        with pytest.raises(ExportError, match="ONNX Runtime refuses"):
            OnnxSampler(file, library=tmp_path / "no.so")


def test_a_graph_that_is_not_what_its_card_says_is_refused(tmp_path):
    path = write(tmp_path / "model.onnx", model(card(channels=3)))
    with pytest.raises(ExportError, match=r"its model card promises images of \(3, 4, 4\)"):
        OnnxSampler(path)


BLOCKED = """
    import sys
    for name in ("torch", "pluggy", "pydantic", "onnx", "rich", "typer", "diffusers", "tomli_w",
                 "safetensors", "onnxscript", "PIL"):
        sys.modules[name] = None
    from ssmdiff_export.runtime import OnnxSampler
    sampler = OnnxSampler(sys.argv[1])
    for name in ("ddpm", "ddim", "dpmpp", "unipc", "euler", "heun"):
        images = sampler.sample(2, seed=4, steps=3, scheduler=name)
        print(repr(float(images.sum())), images.shape)
    import ssmdiff
    assert callable(ssmdiff.registry) and callable(ssmdiff.create)
"""


def test_the_runtime_needs_numpy_and_onnxruntime_alone(file, sampler):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BLOCKED), file],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = ("ddpm", "ddim", "dpmpp", "unipc", "euler", "heun")
    for name, line in zip(names, done.stdout.splitlines(), strict=True):
        images = sampler.sample(2, seed=4, steps=3, scheduler=name)
        total, _, shape = line.partition(" ")
        assert shape == str((2, CHANNELS, SIDE, SIDE))
        assert float(total) == pytest.approx(float(images.sum()), abs=1e-3)


def test_without_onnxruntime_the_extra_is_named(file):
    code = f"""
        import sys
        sys.modules["onnxruntime"] = None
        from ssmdiff_export.runtime import OnnxSampler
        OnnxSampler({str(file)!r})
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )
    assert "pip install 'ssmdiff[onnx]'" in done.stderr


def test_the_recipe_in_the_card_is_the_one_drawn_from(sampler):
    (order,) = sampler.plan(0).draw(0)
    assert sorted(order.index[0]) == list(range(L))
    assert order.restart.sum(axis=1).tolist() == [1, 1]
