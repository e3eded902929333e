"""Options of the step that change its memory or its speed, and nothing that it computes."""

import copy
import gc
import weakref

import numpy as np
import pytest
import ssmdiff
import torch
from ssmdiff import hookimpl, order_tensors
from ssmdiff.errors import ConfigError, DivergedError, KernelUnavailableError, SsmdiffError
from ssmdiff.networks import compiling
from ssmdiff.networks.backbone import recompute_activations
from ssmdiff.ops import load_kernel, use_kernel
from ssmdiff.orders.scan import OrderPlan, ScanOrder, fixed_order
from ssmdiff.runs import compose
from ssmdiff.runs.run import load_run
from ssmdiff_train.callbacks import read_metrics
from ssmdiff_train.job import train
from ssmdiff_train.loop import Trainer
from torch import nn

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _reference_kernel():
    with use_kernel("torch"):
        yield


# The smallest UNet, without dropout: a compiler has its own place for the random state.
PLAIN = {"backbone": {"name": "vmddpm", "channels": 8, "widths": [1], "layers": 1},
         "block": {"name": "mss", "state": 4, "expand": 1}}  # fmt: skip


def losses(folder):
    return [row["loss"] for row in read_metrics(folder.path / "metrics.jsonl") if "loss" in row]


def backbone(config):
    """A model whose zero layers carry signal, and what it is called with."""
    torch.manual_seed(0)
    model = compose.build_backbone(config, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    size = config.data.image_size
    plan = compose.order_plan(model, config)
    x, timesteps = torch.randn(2, 1, *size), torch.tensor([3, 70])
    return model, lambda step: {
        "x": x, "timesteps": timesteps, "orders": order_tensors(plan.draw(step), CPU),
    }  # fmt: skip


def gradients(model, inputs):
    torch.manual_seed(7)  # dropout
    model.zero_grad()
    model(**inputs).square().mean().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def saved_bytes(model, inputs):
    """What autograd keeps of a forward pass, each storage once, parameters and inputs not."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(x):
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        y = model(**inputs)
    assert y.requires_grad
    return sum(kept.values())


ISOTROPIC = {"backbone": {"name": "isotropic", "channels": 16, "depth": 4, "patch": 2}}


# Activation checkpointing


@pytest.mark.parametrize("model", [{}, ISOTROPIC], ids=["vmddpm", "isotropic"])
def test_recomputed_layers_give_the_same_gradients_from_less_than_half_the_memory(tiny, model):
    """With dropout, which has to be drawn twice alike."""
    model, inputs = backbone(tiny(model=model))
    again = copy.deepcopy(model)
    recompute_activations(again)
    plain, recomputed = gradients(model, inputs(0)), gradients(again, inputs(0))
    for name, gradient in plain.items():
        assert torch.equal(gradient, recomputed[name]), name
    assert saved_bytes(again, inputs(0)) < 0.5 * saved_bytes(model, inputs(0))


def test_a_run_with_recomputation_is_the_same_run(tiny, tmp_path):
    plain = train(tiny(), tmp_path / "plain")
    config = tiny(train={"activation_checkpointing": True, "micro_batch_size": 4})
    assert losses(train(config, tmp_path / "less")) == losses(plain)


def test_a_backbone_without_recomputation_is_told_by_name():
    with pytest.raises(ConfigError, match=r"the backbone Linear cannot recompute its layers"):
        recompute_activations(nn.Linear(2, 2))


def test_a_kernel_that_cannot_run_here_is_refused_before_anything_is_written(tiny, tmp_path):
    absent = next(
        n for n in ("triton", "mamba-ssm") if load_kernel(n).unavailable(CPU, torch.float32)
    )
    with pytest.raises(KernelUnavailableError, match=absent):
        train(tiny(train={"kernel": absent}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_command_line_takes_both_options(tmp_path, eager_backend):
    from ssmdiff_cli.main import app
    from typer.testing import CliRunner

    words = ["train", "--steps", "1", "--batch-size", "2", "--image-size", "16", "--out"]
    words += [str(tmp_path / "run"), "--activation-checkpointing", "--compile", "--kernel", "torch"]
    for setting in ("channels=8", "widths=[1]"):
        words += ["--set", f"model.backbone.{setting}"]
    for setting in ("train.bound_images=0", "sample.steps=1", "sample.count=1"):
        words += ["--set", setting]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    train_config = load_run(tmp_path / "run").config.train
    assert train_config.activation_checkpointing
    assert train_config.compile
    assert eager_backend.frame_count == 1


# Compilation


@pytest.fixture
def eager_backend(monkeypatch):
    """torch.compile without code generation; the number of graphs that it was given."""
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(compiling, "BACKEND", counter)
    yield counter
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize(
    "recompute", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["", "recomputed"]
)
def test_one_compilation_serves_every_step_of_random_orders(tiny, eager_backend, recompute):
    model, inputs = backbone(tiny(model=PLAIN))
    compiled = copy.deepcopy(model)
    if recompute:
        recompute_activations(compiled)
    compiling.compile_backbone(compiled)
    assert compiled.state_dict().keys() == model.state_dict().keys()
    torch._dynamo.utils.counters.clear()
    for step in range(4):
        expected = gradients(model, inputs(step))
        for name, gradient in gradients(compiled, inputs(step)).items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6, msg=name)
    assert eager_backend.frame_count == 1
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_a_compiled_run_is_one_graph_with_the_losses_and_keys_of_a_plain_one(
    tiny, tmp_path, eager_backend, precision
):
    folders = []
    for compiled in (False, True):
        changes = {"compile": compiled, "precision": precision, "steps": 3}
        folders.append(train(tiny(model=PLAIN, train=changes), tmp_path / str(compiled)))
    plain, folder = folders
    tolerance = 1e-5 if precision == "fp32" else 2e-2
    assert losses(folder) == pytest.approx(losses(plain), rel=tolerance)
    assert eager_backend.frame_count == 1
    keys = folder.checkpoint().tensors("model").keys()
    assert keys == plain.checkpoint().tensors("model").keys()


@pytest.mark.slow
def test_a_compiled_run_is_resumed_without_compilation(tiny, tmp_path, eager_backend):
    def config(steps, compiled):
        changes = {"steps": steps, "compile": compiled, "schedule": "constant"}
        return tiny(model=PLAIN, train=changes)

    whole = train(config(4, False), tmp_path / "whole")
    for steps, compiled in ((2, True), (4, False)):
        folder = train(config(steps, compiled), tmp_path / "parts", resume=steps > 2)
    assert losses(folder) == pytest.approx(losses(whole), rel=1e-5)


@pytest.mark.slow
def test_a_compiled_run_samples_the_same_images(tiny, tmp_path, eager_backend):
    path = train(tiny(model=PLAIN, train={"steps": 2}), tmp_path / "run").path
    plain = load_run(path).sample(2, steps=3)
    torch.testing.assert_close(load_run(path).compile().sample(2, steps=3), plain)
    assert eager_backend.frame_count == 1


def test_without_a_compiler_a_sentence_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler.* leave out --compile"):
        compiling.compile_backbone(nn.Linear(2, 2))


def test_a_failed_compilation_is_told_with_the_way_out(tiny, tmp_path, monkeypatch):
    def broken(graph, inputs):
        raise ValueError("no code for this")

    torch._dynamo.reset()
    monkeypatch.setattr(compiling, "BACKEND", broken)
    with pytest.raises(SsmdiffError, match=r"step 1: torch.compile failed.*without --compile"):
        train(tiny(train={"compile": True}), tmp_path / "run")


@pytest.mark.slow
def test_divergence_of_a_compiled_run_names_the_module(tiny, tmp_path, eager_backend):
    """A hook that looks for it is not called in compiled code."""
    spoilt = []

    class Watch:
        @hookimpl
        def ssmdiff_step_end(self, record):
            with torch.no_grad():
                spoilt[0].encoder[0][0].resnet.conv1.bias.fill_(1e38)

    plain = Trainer.run

    def run(self, stop):
        spoilt.append(self.method.model)
        return plain(self, stop)

    config = tiny(model=PLAIN, train={"compile": True})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "run", run)
        with pytest.raises(DivergedError, match=r"the output of 'encoder\.0\.0\.resnet"):
            train(config, tmp_path / "run", callbacks=[Watch()])


# Orders on the device


def test_a_fixed_order_is_copied_once_and_a_random_one_when_it_is_drawn(tiny):
    cross = ssmdiff.create("scan", "cross")
    table = fixed_order(cross, (4, 4))
    first, second = (order_tensors([table, table], CPU) for _ in range(2))
    assert first[0] is first[1] is second[0]
    np.testing.assert_array_equal(first[0].numpy(), table.index)

    model, _ = backbone(tiny())
    plan = compose.order_plan(model, tiny())
    tables = plan.draw(0)
    orders = order_tensors(tables, CPU)
    for order, drawn in zip(orders, tables, strict=True):
        np.testing.assert_array_equal(order.numpy(), drawn.index)
    other = order_tensors(plan.draw(1), CPU)
    assert any(not torch.equal(a, b) for a, b in zip(orders, other, strict=True))


def test_copies_go_with_their_tables():

    table = ScanOrder(np.arange(4)[None])
    copied = weakref.ref(order_tensors([table], CPU)[0])
    assert copied() is not None
    del table
    gc.collect()
    assert copied() is None


def test_an_order_met_first_in_sampling_serves_training(tiny):
    """A tensor made in inference mode cannot be saved for a backward pass."""
    config = tiny(model={"scan": {"name": "cross"}})
    model, _ = backbone(config)
    fixed_order.cache_clear()
    plan: OrderPlan = compose.order_plan(model, config)
    with torch.inference_mode():
        order_tensors(plan.draw(0), CPU)
    orders = order_tensors(plan.draw(0), CPU)
    y = model(x=torch.randn(1, 1, 16, 16), timesteps=torch.tensor([1]), orders=orders)
    y.square().mean().backward()


def test_a_fake_copy_is_not_kept():
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    table = ScanOrder(np.arange(4)[None])
    with FakeTensorMode():
        assert isinstance(order_tensors([table], CPU)[0], FakeTensor)
    assert type(order_tensors([table], CPU)[0]) is torch.Tensor
