"""The loop learns, averages, reports, and says where it went wrong."""

import itertools
import json
import math

import numpy as np
import pytest
import ssmdiff
import torch
from PIL import Image
from ssmdiff import differences, hookimpl
from ssmdiff.errors import ConfigError, ContractError, DivergedError, PluginBrokenError
from ssmdiff.runs.diffusion_method import DiffusionMethod
from ssmdiff.runs.pictures import EDGE, WORDS
from ssmdiff_train.callbacks import read_metrics
from ssmdiff_train.job import train
from ssmdiff_train.optimizer import build_ema, build_optimizer, learning_rate


def test_a_run_leaves_what_the_design_promises(tiny, tmp_path):
    config = tiny(train={"steps": 4, "sample_every": 2, "bound_images": 2})
    folder = train(config, tmp_path / "run")
    names = {p.relative_to(folder.path).as_posix() for p in folder.path.rglob("*.*")}
    assert {"config.toml", "metrics.jsonl", "loss.png", "samples/step-00000002.png",
            "samples/step-00000004.png"} <= names  # fmt: skip
    assert any("tfevents" in name for name in names)
    assert not any(name.endswith((".pt", ".pkl", ".ckpt", ".lock")) for name in names)
    opened = folder.config()  # without those who listened, whose plugins may be gone by then
    assert opened.train.callbacks == ()
    settled = {f"data.augment.{name}" for name in ("rotate_deg", "shift", "zoom")}
    assert differences(config, opened).keys() <= {"train.callbacks", "data.flip", *settled}
    assert opened.data.flip is True, "as the heads declare"
    assert set(opened.data.augment.model_dump().values()) == {0.0}, "the heads declare none"
    assert [one["name"] for one in folder.config_layer()["train"]["callbacks"]] == ["tensorboard"]
    text = folder.config_file.read_text()
    assert "[provenance.versions]" in text
    assert '"model.scan" = "regenerate: ssmdiff' in text
    rows = read_metrics(folder.path / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    (bits,) = [row["bits_per_dim"] for row in rows if "bits_per_dim" in row]
    assert 0 < bits < 20
    with Image.open(folder.samples / "step-00000004.png") as grid:
        assert grid.mode == "L"
        # Four drawn and four real ones side by side, 16 x 16 enlarged to 96, gaps of 2 likewise.
        block = 2 * (96 + 12) + 12
        assert grid.size == (2 * block + EDGE, block + WORDS)
    state = json.loads((folder.checkpoint().path / "state.json").read_text())
    assert state["images_seen"] == 16


def test_the_loss_falls(tiny, tmp_path):
    config = tiny(train={"steps": 60, "batch_size": 8}, model={"block": {"name": "conv"}})
    folder = train(config, tmp_path / "run")
    losses = [row["loss"] for row in read_metrics(folder.path / "metrics.jsonl")]
    assert losses[0] == pytest.approx(1.0, abs=0.15)  # the output starts at zero
    assert np.mean(losses[-10:]) < 0.75


def test_accumulation_gives_the_steps_of_the_whole_batch(tiny, tmp_path):
    whole = tiny(train={"steps": 4}, model={"backbone": {"dropout": 0.0}})
    parts = tiny(train={"steps": 4, "micro_batch_size": 3}, model={"backbone": {"dropout": 0.0}})
    losses = [
        [row["loss"] for row in read_metrics(train(c, tmp_path / n).path / "metrics.jsonl")]
        for n, c in (("whole", whole), ("parts", parts))
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_bf16_trains_with_the_state_in_float32(tiny, tmp_path):
    folder = train(tiny(train={"steps": 3, "precision": "bf16"}), tmp_path / "run")
    assert all(math.isfinite(row["loss"]) for row in read_metrics(folder.path / "metrics.jsonl"))
    weights = folder.checkpoint().tensors("model")
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {
        torch.float32
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has fp16")
def test_fp16_without_a_gpu_is_refused(tiny, tmp_path):
    with pytest.raises(ConfigError, match="needs a GPU"):
        train(tiny(train={"precision": "fp16"}), tmp_path / "run")


def test_conditional_run_draws_a_class(tiny, tmp_path):
    config = tiny(train={"steps": 2}, model={"class_conditional": True})
    run = ssmdiff.load_run(train(config, tmp_path / "run").path)
    # The zero-initialised output makes two steps too few to tell classes apart: break it.
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    first, second = run.sample(1, label=0), run.sample(1, label=1)
    assert not torch.equal(first, second)
    with pytest.raises(
        ConfigError, match="label 2 is none of its numbers; expected 0 healthy, 1 lesion"
    ):
        run.sample(1, label=2)


def test_samples_of_a_run_do_not_depend_on_the_batch(tiny, tmp_path):
    run = ssmdiff.load_run(train(tiny(train={"steps": 2}), tmp_path / "run").path)
    torch.testing.assert_close(run.sample(3, batch_size=2), run.sample(3, batch_size=3))
    assert run.sample(2, seed=1).shape == (2, 1, 16, 16)


# Divergence: N1, N2


class _Poison(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


def test_n1_nan_in_a_block_stops_names_it_and_keeps_the_last_checkpoint(
    tiny, tmp_path, monkeypatch
):
    from ssmdiff_vmddpm.blocks import MSSBlock

    plain, calls = MSSBlock.forward, []

    def poisoned(self, x, time, orders):
        calls.append(None)
        y = plain(self, x, time, orders)
        return y * float("nan") if len(calls) > 18 else y

    monkeypatch.setattr(MSSBlock, "forward", poisoned)
    with pytest.raises(DivergedError) as diverged:
        train(tiny(train={"checkpoint_every": 1}), tmp_path / "run")
    message = str(diverged.value)
    assert "(MSSBlock)" in message
    assert "learning rate 0.00" in message
    from ssmdiff.runs.run import RunFolder

    kept = RunFolder(tmp_path / "run").checkpoint()
    assert str(kept.path) in message
    assert f"step {kept.step + 1} is not finite" in message
    assert diverged.value.exit_code == 5


def test_n2_nan_in_a_gradient_alone_stops(tiny, tmp_path, monkeypatch):
    plain = DiffusionMethod.losses
    monkeypatch.setattr(DiffusionMethod, "losses", lambda *a: _Poison.apply(plain(*a)))
    with pytest.raises(DivergedError, match=r"gradient norm nan.*no checkpoint yet"):
        train(tiny(), tmp_path / "run")


def test_p14_a_plugin_that_raises_is_named_with_the_step_and_the_checkpoint(
    tiny, tmp_path, monkeypatch
):
    from ssmdiff_vmddpm import blocks

    plain, calls = blocks.to_map, []

    def fails(x, grid):
        calls.append(None)
        if len(calls) > 36:
            blocks.math.sqrt("no number")
        return plain(x, grid)

    monkeypatch.setattr(blocks, "to_map", fails)
    with pytest.raises(PluginBrokenError) as broken:
        train(tiny(train={"checkpoint_every": 1}), tmp_path / "run")
    assert "plugin 'vmddpm' (ssmdiff " in str(broken.value)
    assert "TypeError" in str(broken.value)
    assert "the last good checkpoint is" in str(broken.value)


def test_n5_out_of_memory_says_what_was_tried_and_what_to_try(tiny, tmp_path, monkeypatch):
    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(DiffusionMethod, "losses", full)
    with pytest.raises(ssmdiff.SsmdiffError) as refused:
        train(tiny(), tmp_path / "run")
    assert refused.value.exit_code == 1
    assert "step 1" in str(refused.value)
    assert "4 images of 16 x 16 in fp32" in str(refused.value)
    assert "train.micro_batch_size=2" in str(refused.value)


def test_a_listener_with_a_misspelt_hook_is_refused(tiny, tmp_path):
    class Listener:
        @hookimpl
        def ssmdiff_step_ends(self, record): ...

    with pytest.raises(ContractError, match="ssmdiff_step_ends"):
        train(tiny(), tmp_path / "run", callbacks=[Listener()])


# Listeners, rates, averages


def test_callbacks_hear_everything_in_order(tiny, tmp_path):
    heard = []

    class Listener:
        @hookimpl
        def ssmdiff_run_start(self, config, step):
            heard.append(("start", step, config.train.steps))

        @hookimpl
        def ssmdiff_step_end(self, record):
            heard.append(("step", record.step))

        @hookimpl
        def ssmdiff_checkpoint_saved(self, path):
            heard.append(("checkpoint", path.name))

        @hookimpl
        def ssmdiff_samples_made(self, step):
            heard.append(("samples", step))

        @hookimpl
        def ssmdiff_run_end(self, status):
            heard.append(("end", status))

    train(tiny(train={"steps": 2, "checkpoint_every": 1}), tmp_path / "r", callbacks=[Listener()])
    assert heard == [
        ("start", 0, 2), ("step", 1), ("checkpoint", "step-00000001"), ("step", 2),
        ("checkpoint", "step-00000002"), ("samples", 2), ("end", "finished"),
    ]  # fmt: skip


def test_learning_rate_warms_up_and_follows_the_cosine(tiny):
    config = tiny(train={"steps": 100, "warmup_steps": 10}).train
    rates = [learning_rate(config, step) for step in range(100)]
    assert all(a < b for a, b in itertools.pairwise(rates[:11]))
    assert rates[10] == pytest.approx(config.learning_rate)
    assert rates[55] == pytest.approx(config.learning_rate / 2)
    assert rates[99] < 0.01 * config.learning_rate


def test_ema_is_the_recurrence_it_says():
    model = torch.nn.Linear(2, 2)
    ema = build_ema(model, 0.5)
    expected = model.weight.detach().clone()
    for n in range(5):
        with torch.no_grad():
            model.weight.add_(1.0)
        ema.update_parameters(model)
        decay = 0.0 if n == 0 else min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * model.weight.detach()
        torch.testing.assert_close(ema.module.weight.detach(), expected)


def test_state_space_parameters_do_not_decay(tiny):
    from ssmdiff.runs.compose import build_backbone

    config = tiny(train={"weight_decay": 0.1})
    model = build_backbone(config, 1)
    decayed, kept = build_optimizer(model, config.train).param_groups
    names = {id(p): n for n, p in model.named_parameters()}
    assert kept["weight_decay"] == 0
    kept_names = {names[id(p)] for p in kept["params"]}
    for ending in ("A_log", ".D", "dt_bias"):
        assert any(name.endswith(ending) for name in kept_names), ending
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert len(kept["params"]) + len(decayed["params"]) == len(names)
