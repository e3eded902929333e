"""A GAN in a run folder: trained, resumed, sampled, judged, exported, as a diffusion is."""

from __future__ import annotations

import json
import tomllib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmdiff
import torch
from small_gans import small
from ssmdiff import ConfigError, RunFolder, hookimpl, load_run
from ssmdiff_cli.main import app
from torch import Tensor
from typer.testing import CliRunner, Result

FILES = ("generator", "discriminator", "ema", "generator-optimizer", "discriminator-optimizer")
NAMES = ["dcgan", pytest.param("sagan", marks=pytest.mark.slow),
         pytest.param("unetgan", marks=pytest.mark.slow)]  # fmt: skip


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def tensors(folder: RunFolder | Path, checkpoint: str = "latest") -> dict[str, dict[str, Tensor]]:
    found = (folder if isinstance(folder, RunFolder) else RunFolder(folder)).checkpoint(checkpoint)
    return {name: found.tensors(name) for name in FILES}


def assert_equal(ours: dict[str, dict[str, Tensor]], theirs: dict[str, dict[str, Tensor]]) -> None:
    for name in FILES:
        assert ours[name].keys() == theirs[name].keys(), name
        for key, value in ours[name].items():
            assert torch.equal(value, theirs[name][key]), f"{name}: {key}"


def lines(folder: Path) -> list[dict[str, Any]]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k != "images_per_s"} for row in rows]


# Training


def test_a_run_holds_both_networks_and_says_what_it_is(trained: Path) -> None:
    written = tomllib.loads((trained / "config.toml").read_text())
    assert written["method"]["name"] == "gan"
    assert written["method"]["network"] == {"name": "dcgan", "width": 4}
    assert written["method"]["loss"] == {"name": "bce"}
    assert not {"model", "diffusion"} & written.keys(), "nothing of a diffusion"
    assert written["sample"] == {"count": 4}
    made = written["provenance"]["components"]
    assert {"method", "method.network", "method.loss", "data.dataset"} == made.keys()
    found = sorted(p.name for p in (trained / "checkpoints" / "step-00000002").iterdir())
    assert found == sorted(
        [*(f"{name}.safetensors" for name in FILES), "manifest.json", "state.json"]
    )
    (first, last) = lines(trained)
    assert first.keys() == last.keys()
    assert {"loss", "discriminator_loss", "verdicts_right", "gradient_norm"} <= first.keys()
    assert (trained / "samples" / "step-00000002.png").is_file()
    assert "gan dcgan, loss bce, step-00000002" in repr(RunFolder(trained))
    assert "gan dcgan, loss bce" in repr(load_run(trained))


def test_both_networks_move_and_the_average_is_of_the_generator(trained: Path) -> None:
    torch.manual_seed(ssmdiff.stream_seed(5, "weights"))
    begun = ssmdiff.build_method(small(), 1)
    found = tensors(trained)
    for name, network in begun.networks.items():
        for key, value in network.named_parameters():
            assert not torch.equal(value, found[name][key]), f"{name}: {key} did not move"
    assert found["ema"].keys() == found["generator"].keys()
    moments = {key.rpartition("/")[2] for key in found["discriminator-optimizer"]}
    assert moments == {"exp_avg", "exp_avg_sq", "step"}
    steps = [float(v) for k, v in found["discriminator-optimizer"].items() if k.endswith("/step")]
    assert set(steps) == {2.0}, "the discriminator's gradients of the generator's update are none"


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_is_the_one_never_stopped_to_the_bit(name: str, tmp_path: Path) -> None:
    method = {"augment": ["colour", "translation", "cutout"]} if name == "dcgan" else {}
    config = small(name, method=method, train={"steps": 4, "schedule": "cosine"})
    whole = ssmdiff.train(config, tmp_path / "whole")

    class Stop:
        @hookimpl
        def ssmdiff_step_end(self, record: ssmdiff.StepRecord) -> None:
            if record.step == 2:
                raise KeyboardInterrupt

    config = small(
        name, method=method, train={"steps": 4, "schedule": "cosine", "checkpoint_every": 1}
    )
    with pytest.raises(KeyboardInterrupt):
        ssmdiff.train(config, tmp_path / "cut", callbacks=[Stop()])
    assert RunFolder(tmp_path / "cut").checkpoint().step == 1
    cut = ssmdiff.train(None, tmp_path / "cut", resume=True)
    assert_equal(tensors(cut), tensors(whole))
    assert lines(cut.path) == lines(whole.path)


@pytest.mark.slow
def test_parts_of_a_batch_and_reader_processes_change_nothing_that_they_should_not(
    tmp_path: Path,
) -> None:
    """A discriminator without batch norm: the same gradient from parts, but for rounding."""
    network = {"name": "sagan", "width": 8}
    whole = small(method={"network": network, "loss": {"name": "hinge"}}, train={"steps": 1})
    parts = ssmdiff.resolve(whole, {"train": {"micro_batch_size": 2}, "data": {"workers": 1}})
    first = lines(ssmdiff.train(whole, tmp_path / "whole").path)[0]
    second = lines(ssmdiff.train(parts, tmp_path / "parts").path)[0]
    # The generator's batch norm sees two images in the place of four, so its images are others.
    assert second["discriminator_loss"] == pytest.approx(first["discriminator_loss"], rel=0.2)


def test_a_key_of_another_method_is_refused_with_who_gave_it() -> None:
    for arguments, key, by in (
        (["--set", "model.scan=cross"], "model.scan", "--set model.scan"),
        (["--scan", "cross"], "model.scan.name", "--scan"),
        (["--set", "diffusion.timesteps=10"], "diffusion.timesteps", "--set diffusion.timesteps"),
        (["--set", "sample.steps=5"], "sample.steps", "--set sample.steps"),
        (["--set", "train.held_out_every=5"], "train.held_out_every", "--set train.held_out_every"),
        (["--activation-checkpointing"], "train.activation_checkpointing", "--activation-check"),
    ):
        result = run("train", "--gan", "dcgan", *arguments)
        assert result.exit_code == 2, result.output
        text = " ".join(result.output.split())
        assert key in text
        assert by in text
        assert "method 'gan', by --gan, has no use for it" in text


def test_what_is_of_a_gan_is_refused_elsewhere() -> None:
    with pytest.raises(ConfigError, match=r"method\.network: unknown key"):
        ssmdiff.resolve({"method": {"network": "dcgan"}})
    with pytest.raises(ConfigError, match="did you mean 'sagan'"):
        ssmdiff.resolve({"method": {"name": "gan", "network": "sagn"}})
    with pytest.raises(ConfigError, match=r"method\.latent.*uniform"):
        ssmdiff.resolve({"method": {"name": "gan", "latent": "cauchy"}})


def test_a_gan_is_chosen_by_one_flag_with_its_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def remember(config: Any, *given: Any, **more: Any) -> None:
        asked.append(config)
        raise ConfigError("enough")

    from ssmdiff_train.job import Train

    monkeypatch.setattr(Train, "__call__", lambda self, *given, **more: remember(*given, **more))
    run("train", "--gan", "sagan", "--set", "method.loss=hinge", "--steps", 7)
    (config,) = asked
    preset = ssmdiff.resolve(ssmdiff.load_preset("tiny-sagan"))
    assert config.method == preset.method | {"loss": {"name": "hinge"}}
    assert config.train.learning_rate == preset.train.learning_rate
    assert config.train.steps == 7
    run("train", "--preset", "tiny-dcgan", "--gan", "unetgan", "--method", "gan")
    network = {"name": "unetgan", "width": 64, "cutmix": 0.5, "consistency": 1.0}
    assert asked[-1].method["network"] == network


@pytest.mark.parametrize("name", ["dcgan", "sagan", "unetgan"])
def test_the_presets_are_what_they_say(name: str) -> None:
    """As many parameters as tiny within a fifth; the paper's settings."""

    def count(preset: str) -> int:
        config = ssmdiff.resolve(ssmdiff.load_preset(preset))
        networks = ssmdiff.build_method(config, 1).networks.values()
        return sum(p.numel() for network in networks for p in network.parameters())

    assert count(f"tiny-{name}") == pytest.approx(count("tiny"), rel=0.2)
    paper = ssmdiff.resolve(ssmdiff.load_preset(f"paper-{name}"))
    assert paper.method["latent"] == "uniform"
    assert paper.method["latent_size"] == 1000
    assert paper.method["loss"] == {"name": "bce"}
    assert (paper.data.image_size, paper.train.batch_size) == ((128, 128), 16)
    assert paper.train.learning_rate == 1e-4


# Images


def test_batch_norms_of_the_average_are_counted_from_its_own_images(trained: Path) -> None:
    found = tensors(trained)
    own, moved = found["ema"], found["generator"]
    config = RunFolder(trained).config()
    z = np.stack(
        [
            2 * ssmdiff.stream(config.seed, "standing", i).random(8, dtype=np.float32) - 1
            for i in range(256)
        ]
    )
    # The first map by hand: z is one pixel, so a transposed convolution is a product of matrices.
    first = np.einsum("nz,zchw->nchw", z, own["layers.0.weight"].numpy()).astype(np.float64)
    parts = first.reshape(4, 64, *first.shape[1:])
    np.testing.assert_allclose(own["layers.1.running_mean"], first.mean((0, 2, 3)), atol=1e-6)
    variance = parts.var((1, 3, 4), ddof=1).mean(0)
    np.testing.assert_allclose(own["layers.1.running_var"], variance, rtol=1e-4)
    assert not torch.allclose(own["layers.1.running_var"], moved["layers.1.running_var"], rtol=0.02)
    model = load_run(trained).model
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ssmdiff.build_method(config, 1).settle(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_an_image_is_a_function_of_seed_and_index(trained: Path) -> None:
    opened = load_run(trained)
    whole = opened.sample(6, seed=3)
    assert whole.shape == (6, 1, 16, 16)
    assert -1 <= float(whole.min()) < float(whole.max()) <= 1
    for batch_size in (1, 4):
        assert torch.allclose(opened.sample(6, seed=3, batch_size=batch_size), whole, atol=1e-6)
    assert torch.allclose(opened.sample(seed=3, indices=[4]), whole[4:5], atol=1e-6)
    assert not torch.allclose(opened.sample(1, seed=4), whole[:1])
    z = ssmdiff.first_noise(3, 0, (8,), "uniform")
    with torch.no_grad():
        by_hand = opened.model(torch.from_numpy(z)[None])
    assert torch.allclose(by_hand, whole[:1], atol=1e-6)
    weights = tensors(trained)["ema"]
    assert all(torch.equal(v, weights[k]) for k, v in opened.model.state_dict().items())
    raw = load_run(trained, ema=False)
    assert not torch.equal(raw.sample(1), opened.sample(1))


def test_sampling_by_the_command_writes_what_a_gan_has(trained: Path, tmp_path: Path) -> None:
    result = run("sample", trained, "--n", 3, "--out", tmp_path / "drawn")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "drawn" / "samples.json").read_text())
    assert (record["steps"], record["scheduler"]) == (1, {})
    assert len(list((tmp_path / "drawn").glob("00000?.png"))) == 3


@pytest.mark.parametrize(("flag", "value"), [("--steps", 10), ("--scheduler", "ddim")])
def test_what_a_walk_needs_is_refused(
    trained: Path, tmp_path: Path, flag: str, value: object
) -> None:
    result = run("sample", trained, flag, value, "--n", 1, "--out", tmp_path / "drawn")
    assert result.exit_code == 2
    text = " ".join(result.output.split())
    assert f"{flag[2:]} = {value!r} was asked for" in text
    assert "makes an image in one call" in text
    assert not (tmp_path / "drawn").exists()
    assert run("sample", trained, "--label", 0, "--out", tmp_path / "drawn").exit_code == 2


def test_a_gan_is_neither_guided_nor_begun_from_an_image(trained: Path, tmp_path: Path) -> None:
    model = load_run(trained)
    with pytest.raises(ConfigError, match="guidance 2 was asked for, and the model makes an image"):
        model.sample(2, guidance=2.0)
    images = torch.zeros(1, *model.shape)
    for course in (ssmdiff.FromImage(images, 0.5), ssmdiff.FillIn(images, images[:, :1] == 0)):
        with pytest.raises(ConfigError, match="in one call, so none is begun from another or fill"):
            model.sample(2, course=course)
    done = run("sample", trained, "--guidance", 2, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_gan_is_judged_and_compared(trained: Path, tmp_path: Path) -> None:
    other = ssmdiff.train(small(method={"loss": {"name": "hinge"}}), tmp_path / "other").path
    for path in (trained, other):
        line = ["evaluate", path, "--n", 32, "--features", "pixels", "--metric", "frechet",
                "--metric", "ms-ssim", "--out", tmp_path / f"of-{path.name}"]  # fmt: skip
        result = run(*line)
        assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / f"of-{trained.name}" / "record.json").read_text())
    parameters = sum(p.numel() for p in load_run(trained).model.parameters())
    assert record["model"]["parameters"] == parameters
    # 8 x 16 x (4 x 4) of the first transposed convolution, and of the others at each input pixel.
    call = 8 * 8 * 16 + 8 * 4 * 16 * 16 + 4 * 1 * 16 * 64
    assert record["model"]["multiply-adds of a call"] == call
    assert record["model"]["multiply-adds of an image"] == call
    folders = [tmp_path / f"of-{p.name}" for p in (trained, other)]
    result = run("compare", *folders, "--out", tmp_path / "compared")
    assert result.exit_code == 0, result.output


# What is told


def told(folder: Path, config: ssmdiff.Config) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ssmdiff.train(config, folder)
    return [str(one.message) for one in caught]


@pytest.mark.slow
def test_a_discriminator_that_has_won_is_told_once_and_a_fair_one_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ssmdiff_gans import telling

    monkeypatch.setattr(telling, "WINDOW", 10)
    won = small(
        method={"discriminator_rate": 30.0},
        train={"steps": 40, "learning_rate": 1e-4, "batch_size": 8},
    )
    doubts = [one for one in told(tmp_path / "won", won) if "has won" in one]
    assert len(doubts) == 1
    assert "method.discriminator_rate" in doubts[0]
    even = ssmdiff.resolve(won, {"method": {"discriminator_rate": 0.01}})
    assert not [one for one in told(tmp_path / "even", even) if "has won" in one]


def test_a_won_discriminator_is_told_again_after_the_generator_came_back() -> None:
    from ssmdiff_gans.telling import WINDOW, Discriminated

    watch, found = Discriminated(), []
    for step, right in enumerate([1.0] * 2 * WINDOW + [0.5] * WINDOW + [1.0] * 2 * WINDOW):
        found += watch.after(step, right)
    assert len(found) == 2
    assert found[0].startswith(f"step {WINDOW - 1}: ")


def look(drawn: Tensor, real: Tensor, step: int = 10) -> ssmdiff.Look:
    return ssmdiff.Look(step, {}, lambda n: drawn[:n], lambda n: real[:n])


@pytest.mark.slow
def test_one_image_again_and_again_is_a_collapse_and_as_varied_as_real_ones_is_none() -> None:
    from ssmdiff_gans.telling import SIMILARITY, Collapse

    data = ssmdiff.create("dataset", {"name": "phantom", "length": 128}, image_size=(32, 32))
    real, other = (torch.stack([data[i].image for i in range(k, k + 64)]) for k in (0, 64))
    watch = Collapse(10)
    assert watch.begin() == ""
    figures, doubts = watch.after(look(other, real))
    assert doubts == []
    noisy = other[:1] + 0.02 * torch.randn(
        64, 1, 32, 32, generator=torch.Generator().manual_seed(0)
    )
    alike, (doubt,) = watch.after(look(noisy.clamp(-1, 1), real))
    assert "the generator has collapsed" in doubt
    assert alike[SIMILARITY] > 0.9 > figures[SIMILARITY]
    assert watch.after(look(noisy, real, step=11)) == ({}, []), "looked at every ten steps alone"


def test_that_collapse_is_not_looked_for_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from ssmdiff_gans import telling

    monkeypatch.setattr(telling, "SIMILAR", {"name": "ms-ssimm"})
    method = ssmdiff.build_method(small(method={"collapse_every": 10}), 1)
    (line,) = [one for one in method.told() if "collapse" in one]
    assert line.startswith("collapse is not looked for: there is no metric")
