"""A run begins with another's weights: their bits, its first loss, and what is kept of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import ssmdiff
import torch
from other_runs import SHORT, STILL, begun, written
from ssmdiff import (
    RunFolder,
    RunInterruptedError,
    load_run,
    order_tensors,
    stream,
)
from ssmdiff_cli.main import app
from ssmdiff_train.callbacks import read_metrics
from ssmdiff_train.job import train
from test_resume import InterruptIn
from typer.testing import CliRunner


def losses(folder):
    return [row["loss"] for row in read_metrics(folder.path / "metrics.jsonl") if "loss" in row]


# The weights


def test_the_averaged_weights_are_taken_to_the_bit(tiny, old, tmp_path):
    path, tensors = old
    state = torch.get_rng_state()
    config = tiny(model=STILL, train={"init_from": path})
    method, found = begun(config, tmp_path / "new")
    torch.manual_seed(12)
    ssmdiff.build_method(tiny(), 1)
    after = torch.get_rng_state()
    own = method.model.state_dict()
    assert own.keys() == tensors["ema"].keys()
    for name, value in own.items():
        assert torch.equal(value, tensors["ema"][name]), name
        assert not torch.equal(value, tensors["model"][name]), f"{name}: not the average"
    count = sum(p.numel() for p in method.model.parameters())
    assert found.record["taken"] == {"tensors": len(own), "parameters": count}
    assert not found.record.keys() & {"mapped", "new", "left_out", "differs"}
    begun(config, tmp_path / "new")
    assert torch.equal(torch.get_rng_state(), after), "no random stream was moved"
    torch.set_rng_state(state)


def test_the_first_step_starts_there_and_so_does_the_average(tiny, old, tmp_path):
    """Adam's first step is as long as the learning rate, at most; of the average nine elevenths
    are new: 1 - (1 + n) / (10 + n) for n = 1. Whatever it is trained to predict."""
    path, tensors = old
    config = tiny(
        model=STILL,
        diffusion={"prediction": "v_prediction"},
        train={**SHORT, "init_from": path, "ema_decay": 0.9},
    )
    with pytest.warns(UserWarning, match="its first answers are wrong"):
        folder = train(config, tmp_path / "new")
    checkpoint = folder.checkpoint()
    model, ema = checkpoint.tensors("model"), checkpoint.tensors("ema")
    for name, begins in tensors["ema"].items():
        step = (model[name] - begins).abs().max()
        assert 0 < step <= 1.01e-3, f"{name}: {step}"
        expected = begins + 9 / 11 * (model[name] - begins)
        torch.testing.assert_close(ema[name], expected, rtol=0, atol=1e-6)
    state = checkpoint.state()
    assert (state["step"], state["images_seen"], state["ema_updates"]) == (1, 4, 2)
    steps = {float(v) for k, v in checkpoint.tensors("optimizer").items() if k.endswith("/step")}
    assert steps == {1.0}, "a fresh optimiser"


@pytest.mark.slow
def test_the_first_loss_is_that_of_the_other_run_on_the_same_images(tiny, old, tmp_path):
    """L_simple by its formula, of the other run's averaged network, on images 0 to 3."""
    path, _ = old
    config = tiny(
        model=STILL, data={"flip": False}, train={**SHORT, "init_from": path, "batch_size": 4}
    )
    folder = train(config, tmp_path / "new")
    dataset, run = ssmdiff.build_dataset(config), load_run(path)
    order = ssmdiff.permutation(stream(config.seed, "epoch", 0), len(dataset))
    betas = np.linspace(1e-4, 0.02, 100)
    alpha_bar = np.cumprod(1 - betas)
    noisy, noises, steps = [], [], []
    for i in range(4):
        draws = stream(config.seed, "training image", i)
        t = int(draws.integers(100))
        x_0 = dataset[int(order[i])].image
        noise = torch.from_numpy(draws.standard_normal(tuple(x_0.shape), dtype=np.float32))
        noisy.append(alpha_bar[t] ** 0.5 * x_0 + (1 - alpha_bar[t]) ** 0.5 * noise)
        noises.append(noise)
        steps.append(t)
    orders = order_tensors(run.plan().draw(0), torch.device("cpu"))
    with torch.no_grad():
        said = run.model(x=torch.stack(noisy).float(), timesteps=torch.tensor(steps), orders=orders)
    expected = float((said - torch.stack(noises)).square().mean())
    assert losses(folder)[0] == pytest.approx(expected, rel=1e-5)
    fresh = train(tiny(model=STILL, data={"flip": False}, train=SHORT), tmp_path / "fresh")
    assert abs(losses(fresh)[0] - expected) > 1e-3, "and not that of a network that begins anew"


def test_a_run_of_another_method_with_the_same_networks_is_taken(
    tiny, old, tmp_path, install, fresh_registry
):
    """Networks are matched by name, not by what trained them."""
    install(
        "ssmdiff-other",
        """
        import ssmdiff

        class Other(ssmdiff.DiffusionMethod):
            pass

        @ssmdiff.hookimpl
        def ssmdiff_methods():
            yield ssmdiff.Component("other", Other, "a diffusion by another name")
        """,
    )
    path, tensors = old
    config = tiny(method="other", train={"init_from": path})
    method, found = begun(config, tmp_path / "new")
    assert torch.equal(method.model.stem.weight, tensors["ema"]["stem.weight"])
    assert "method.name: 'diffusion' -> 'other'" in found.record["differs"]


# What is kept


@pytest.mark.slow
def test_a_resumed_run_needs_the_other_no_more_and_has_the_same_bits(tiny, tmp_path):
    path, conv = str(tmp_path / "old"), {"block": {"name": "conv"}}
    written(tmp_path / "old", tiny(model=conv))
    config = tiny(
        model=conv, train={"steps": 4, "callbacks": [], "held_out_every": 0, "init_from": path}
    )
    whole = train(config, tmp_path / "whole")
    with pytest.raises(RunInterruptedError):
        train(config, tmp_path / "parts", callbacks=[InterruptIn(2)])
    kept = tomllib.loads((tmp_path / "parts/config.toml").read_text())
    shutil.rmtree(path)
    parts = train(config, tmp_path / "parts", resume=True)
    assert losses(whole) == losses(parts)
    ours, theirs = parts.checkpoint(), whole.checkpoint()
    for name in ("model", "ema", "optimizer"):
        for key, value in theirs.tensors(name).items():
            assert torch.equal(value, ours.tensors(name)[key]), f"{name}: {key}"
    again = tomllib.loads((tmp_path / "parts/config.toml").read_text())
    record = again["provenance"]["init_from"]
    assert record == kept["provenance"]["init_from"]
    assert record == ours.state()["provenance"]["init_from"]
    assert again["train"]["init_from"] == record["run"] == path
    assert record["checkpoint"] == "step-00000007"


def test_the_record_holds_the_hash_of_the_weights(tiny, old, tmp_path):
    path, _ = old
    _, found = begun(tiny(train={"init_from": path}), tmp_path / "new")
    file = Path(path, "checkpoints/step-00000007/ema.safetensors")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert found.record["weights_sha256"] == {"ema.safetensors": digest}
    assert f"(sha256 {digest[:12]})" in found.lines[0]


def test_terms_of_the_data_before_are_kept_and_told_from_run_to_run(tiny, tmp_path):
    terms = {"name": "ACDC", "licence": "CC BY-NC-SA 4.0", "cite": "Bernard 2018", "url": ""}
    written(tmp_path / "a", tiny(), data={"terms": terms})
    _, first = begun(tiny(train={"init_from": str(tmp_path / "a")}), tmp_path / "b")
    assert any("ACDC (CC BY-NC-SA 4.0)" in line for line in first.lines)
    written(tmp_path / "b", tiny(), init_from=dict(first.record))
    _, second = begun(tiny(train={"init_from": str(tmp_path / "b")}), tmp_path / "c")
    assert second.record["init_from"] == first.record
    assert any("ACDC (CC BY-NC-SA 4.0)" in line for line in second.lines)


def test_the_named_checkpoint_is_taken(tiny, old, tmp_path):
    path, _ = old
    folder = RunFolder(Path(path))
    found = folder.checkpoint()
    other = {name: found.tensors(name) for name in ("model", "ema")}
    other["ema"] = {key: value + 1 for key, value in other["ema"].items()}
    folder.save_checkpoint(9, other, found.state())
    for name, added in ((None, 1), ("latest", 1), ("step-00000007", 0)):
        chosen = {"init_from": path} | ({"init_checkpoint": name} if name else {})
        method, record = begun(tiny(train=chosen), tmp_path / "new")
        expected = found.tensors("ema")["stem.weight"] + added
        assert torch.equal(method.model.stem.weight, expected), name
        assert record.record["checkpoint"] == ("step-00000009" if added else name)
    (folder.checkpoints / "best.json").write_text(json.dumps(
        {"checkpoint": "step-00000007", "figure": "f", "value": 1.0, "better": "lower",
         "protocol": "p"}
    ))  # fmt: skip
    chosen = {"init_from": path, "init_checkpoint": "best"}
    _, record = begun(tiny(train=chosen), tmp_path / "new")
    assert record.record["checkpoint"] == "step-00000007"


# The command


def command(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


@pytest.mark.slow
def test_the_command_tells_what_was_taken_and_goes_on_with_the_same_words(tiny, tmp_path):
    """Three-channel pictures of two classes, from a run of one channel and one class of them."""
    from PIL import Image

    config = tiny(model={"class_conditional": True})
    written(tmp_path / "old", config, classes=("healthy", "lesion"))
    chance = np.random.default_rng(0)
    for name in ("lesion", "tumour"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(4):
            pixels = chance.integers(0, 256, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    words = ["--data", tmp_path / "images", "--init-from", tmp_path / "old",
             "--set", "model.class_conditional=true", "--set", "data.dataset.labels=folders",
             "--set", "model.backbone.channels=8", "--set", "model.backbone.widths=[1,2]",
             "--set", "model.block.state=4", "--set", "model.backbone.dropout=0.1",
             "--set", "train.bound_images=0", "--set", "sample.steps=2",
             "--set", "diffusion.prediction=epsilon", "--set", "diffusion.beta_schedule=linear",
             "--image-size", "16", "--batch-size", "4", "--out", tmp_path / "new"]  # fmt: skip
    done = command(*words, "--steps", 1)
    assert done.exit_code == 0, done.output
    for line in (
        f"begins with: the averaged weights of {tmp_path / 'old'}, step-00000007 (sha256 ",
        "  mapped, 1 -> 3 channels: stem.weight, out_conv.weight, out_conv.bias",
        "  mapped, label: kept by name lesion / new, the mean of the old tumour / "
        "left out healthy: embedding.label.weight",
        "  differs: diffusion.timesteps: 100 -> 1000",
    ):
        assert line in done.output, done.output
    config = tomllib.loads((tmp_path / "new/config.toml").read_text())
    assert config["provenance"]["init_from"]["mapped"]["stem.weight"] == "1 -> 3 channels"
    shutil.rmtree(tmp_path / "old")
    again = command(*words, "--steps", 2, "--resume")
    assert again.exit_code == 0, again.output
    assert "begins with" not in again.output
    assert RunFolder(tmp_path / "new").checkpoint().step == 2
    missing = command(*words, "--overwrite")
    assert missing.exit_code == 1
    assert "there is no run folder" in missing.output + missing.stderr


@pytest.mark.slow
def test_two_processes_begin_as_one(tiny, old, tmp_path):
    path, _ = old
    config = tmp_path / "config.toml"
    config.write_text(tiny(model=STILL, train={"init_from": path, "steps": 3}).to_toml())
    arguments = ["-m", "ssmdiff", "train", "--config", config]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0",
              "--standalone"]  # fmt: skip
    for name, words in (("one", arguments), ("two", [*launch, *arguments])):
        done = subprocess.run(
            [sys.executable, *map(str, words), "--out", str(tmp_path / name)],
            capture_output=True, text=True, timeout=240,
            env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    np.testing.assert_allclose(losses(one), losses(two), rtol=0, atol=1e-5)
    for key, value in one.checkpoint().tensors("ema").items():
        np.testing.assert_allclose(
            value.numpy(), two.checkpoint().tensors("ema")[key].numpy(), atol=1e-4
        )


@pytest.mark.slow
def test_a_run_that_began_so_is_exported_as_any(tiny, tmp_path):
    small = {"backbone": {"widths": [1]}, "block": {"name": "conv"}}
    written(tmp_path / "old", tiny(model=small))
    config = tiny(model=small, train={**SHORT, "init_from": str(tmp_path / "old")})
    folder = train(config, tmp_path / "new")
    result = ssmdiff.job("export")(folder.path, tmp_path / "new.onnx")
    assert result.files[0].exists()
    ours = load_run(folder.path).sample(2, seed=3, steps=2)
    theirs = ssmdiff.open_model(tmp_path / "new.onnx").sample(2, seed=3, steps=2)
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=1e-4)
