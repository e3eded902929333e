"""DDPM's UNet behind the backbone interface: the published sizes, the library's own numbers."""

from __future__ import annotations

from typing import Any

import pytest
import ssmdiff
import torch
from ssmdiff import ConfigError

pytestmark = pytest.mark.slow  # the import of diffusers takes seconds

SMALL = {"channels": 8, "widths": [1, 2], "layers": 1}


def network(context_channels: int = 0, in_channels: int = 1, **options: Any) -> Any:
    return ssmdiff.create(
        "backbone", {"name": "unet", **options}, in_channels=in_channels, out_channels=in_channels,
        scan=None, block=None, context_channels=context_channels,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "millions"),
    [
        ({}, 35.7),  # CIFAR-10, Ho et al. 2020, appendix B
        ({"widths": [1, 1, 2, 2, 4, 4], "attention": [4]}, 114),  # LSUN and CelebA-HQ, likewise
    ],
)
def test_it_has_the_published_numbers_of_parameters(
    options: dict[str, Any], millions: float
) -> None:
    with torch.device("meta"):
        model = network(in_channels=3, **options)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.005)


def test_it_computes_what_the_library_does_with_the_settings_of_ddpm() -> None:
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    model = network(context_channels=3, attention=[0], **SMALL)
    theirs = UNet2DModel(
        in_channels=1, out_channels=1, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D"), attention_head_dim=None, norm_num_groups=2,
        norm_eps=1e-6, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1,
        num_class_embeds=3,
    )  # fmt: skip
    x, t, label = torch.randn(2, 1, 8, 12), torch.tensor([0, 999]), torch.tensor([0, 2])
    with torch.no_grad():
        assert not model(x, t, label).any(), "it starts at zero"
        torch.nn.init.normal_(model.unet.conv_out.weight)
        theirs.load_state_dict(model.unet.state_dict())
        torch.testing.assert_close(model(x, t, label), theirs(x, t, label).sample)
        assert not torch.equal(model(x, t, label), model(x, t, torch.tensor([1, 2])))


def test_recomputing_activations_changes_no_gradient() -> None:
    from ssmdiff.nn import recompute_activations

    torch.manual_seed(0)
    model = network(**SMALL)
    torch.nn.init.normal_(model.unet.conv_out.weight)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 900])
    found = []
    for recompute in (False, True):
        if recompute:
            recompute_activations(model)
        model.zero_grad()
        model(x, t).square().sum().backward()
        assert model.unet.is_gradient_checkpointing is recompute
        found.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_sizes_and_stages_that_it_has_not_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"there is no stage 2; widths \[1, 2\] make the stages"):
        network(attention=[0, 2], **SMALL)
    with pytest.raises(ConfigError, match=r"multiple of 2 \(1 halvings\); nearest: 8 x 8"):
        network(**SMALL)(torch.zeros(1, 1, 7, 8), torch.tensor(0))
    assert network(**SMALL).scan_slots((8, 8)) == []


def test_a_run_of_it_is_trained_and_drawn_by_two_schedulers(tmp_path) -> None:
    config = {
        "data": {"dataset": {"name": "phantom", "length": 8}, "image_size": 8},
        "model": {"backbone": {"name": "unet", **SMALL}},
        "train": {"steps": 2, "batch_size": 2, "bound_images": 0, "callbacks": []},
        "sample": {"steps": 2, "count": 1},
    }
    run = ssmdiff.load_run(ssmdiff.train(config, tmp_path / "run").path)
    assert run.plan().slots == ()
    drawn = [run.sample(2, steps=4, scheduler=name) for name in ("ddpm", "ddim")]
    assert all(x.isfinite().all() and x.shape == (2, 1, 8, 8) for x in drawn)
    assert not torch.equal(*drawn)
