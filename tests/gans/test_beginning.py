"""A GAN that begins with another's weights: both networks, one channel or three."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ssmdiff
import torch
from small_gans import small
from ssmdiff import ConfigError, Method, RunFolder
from ssmdiff_train import init_from
from torch.nn.utils import parametrize


def begun(
    run: Path, out: Path, channels: int = 1, name: str = "dcgan", **changes: Any
) -> tuple[Method, init_from.Begun]:
    config = small(name, train={"init_from": str(run)}, **changes)
    torch.manual_seed(1)
    method = ssmdiff.build_method(config, channels)
    found = init_from.begin(config, RunFolder(out), method, channels, ssmdiff.Conditions())
    assert found is not None
    return method, found


def test_both_networks_are_taken_the_generator_averaged(trained: Path, tmp_path: Path) -> None:
    method, found = begun(trained, tmp_path / "new")
    checkpoint = RunFolder(trained).checkpoint()
    for name, file in (("generator", "ema"), ("discriminator", "discriminator")):
        tensors = checkpoint.tensors(file)
        for key, value in method.networks[name].state_dict().items():
            assert torch.equal(value, tensors[key]), f"{name}: {key}"
    assert found.record["weights_sha256"].keys() == {"ema.safetensors", "discriminator.safetensors"}
    assert "  of the discriminator the weights as they were, which are not averaged" in found.lines


@pytest.mark.slow
def test_a_step_of_it_trains_and_goes_on(trained: Path, tmp_path: Path) -> None:
    config = small(train={"init_from": str(trained), "steps": 1})
    folder = ssmdiff.train(config, tmp_path / "new")
    begins = RunFolder(trained).checkpoint().tensors("discriminator")["layers.0.weight"]
    moved = folder.checkpoint().tensors("discriminator")["layers.0.weight"] - begins
    assert 0 < moved.abs().max() <= 2.02e-4, "Adam's first step, at the learning rate"
    assert folder.checkpoint().state()["ema_updates"] == 2


def test_three_channels_are_three_times_the_picture_of_one(trained: Path, tmp_path: Path) -> None:
    """Transposed convolutions give along the second axis, convolutions read along it."""
    method, found = begun(trained, tmp_path / "new", channels=3)
    old, _ = begun(trained, tmp_path / "new")
    z, grey = torch.rand(4, 8) * 2 - 1, torch.rand(4, 1, 16, 16) * 2 - 1
    with torch.no_grad():
        pictures, before = (m.networks["generator"].eval()(z) for m in (method, old))
        verdicts = method.networks["discriminator"].eval()(grey.expand(-1, 3, -1, -1))
        judged = old.networks["discriminator"].eval()(grey)
    torch.testing.assert_close(pictures, before.expand(-1, 3, -1, -1))
    torch.testing.assert_close(verdicts, judged, rtol=1e-4, atol=1e-5)
    assert len(found.record["mapped"]) == 2
    assert {name.partition(".")[0] for name in found.record["mapped"]} == {
        "generator", "discriminator",
    }  # fmt: skip


@pytest.mark.slow
def test_under_spectral_norm_mapped_weights_have_singular_value_one(tmp_path: Path) -> None:
    """The vectors of the power method are found anew, so that the first call divides rightly."""
    run = ssmdiff.train(small("sagan"), tmp_path / "run").path
    method, found = begun(run, tmp_path / "new", channels=3, name="sagan")
    mapped = [name for name in found.record["mapped"] if ".parametrizations." in name]
    owners = {name.partition(".parametrizations.")[0] for name in mapped}
    assert len(owners) == 3, owners  # the generator's last layer, the discriminator's first two
    for path in owners:
        network, _, inner = path.partition(".")
        module = method.networks[network].eval().get_submodule(inner)
        assert parametrize.is_parametrized(module)
        matrix = module.weight.detach().flatten(1)
        assert float(torch.linalg.matrix_norm(matrix, 2)) == pytest.approx(1, abs=0.02), path


@pytest.mark.slow
def test_another_kind_of_run_is_refused(trained: Path, tmp_path: Path) -> None:
    config = ssmdiff.resolve({"train": {"init_from": str(trained)}})
    with pytest.raises(ConfigError) as said:
        ssmdiff.train(config, tmp_path / "new")
    assert "has weights of generator, discriminator" in str(said.value)
    assert "method 'diffusion' needs those of model too" in str(said.value)
    assert not (tmp_path / "new").exists()


def test_another_gan_or_another_size_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the gan 'dcgan' and this run 'sagan'"):
        begun(trained, tmp_path / "new", name="sagan")
    larger = {"image_size": 32, "dataset": {"name": "phantom", "length": 12}}
    with pytest.raises(ConfigError) as said:
        begun(trained, tmp_path / "new", data=larger)
    assert "--set 'data.image_size=[16, 16]'" in str(said.value)
    with pytest.raises(ConfigError, match=r"--set method\.latent_size=8"):
        begun(trained, tmp_path / "new", method={"latent_size": 4})
