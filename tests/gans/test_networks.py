"""DCGAN, SAGAN and U-Net GAN against the shapes and counts of their papers, without memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import ssmdiff
import torch
from ssmdiff import ConfigError, Gan
from ssmdiff.testing import check
from ssmdiff_gans.dcgan import DCGAN
from ssmdiff_gans.layers import Attention
from ssmdiff_gans.sagan import SAGAN
from ssmdiff_gans.unetgan import UNetGAN
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm

RGB = 3
FACTORS = {128: (16, 8, 4, 2, 1), 256: (16, 16, 8, 4, 2, 1), 32: (4, 2, 1)}
"""Channels of the maps in units of the width, from 4 x 4 doubled up."""


def on_meta(factory: Callable[..., Gan], side: int, latent: int, **options: int) -> Gan:
    """Networks without memory; the power method has nothing to iterate on."""
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        patch.setattr(_SpectralNorm, "_power_method", lambda *given: None)
        return factory(channels=RGB, image_size=(side, side), latent_size=latent, **options)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def shapes(network: nn.Module, kinds: tuple[type, ...], x: Tensor) -> list[tuple[int, ...]]:
    """(C, H, W) that each module of these kinds gives, and at last what comes out."""
    found: list[tuple[int, ...]] = []
    for module in network.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda m, given, y: found.append(tuple(y.shape[1:])))
    with torch.no_grad():
        network(x)
    return found


def conv(inside: int, outside: int, side: int, bias: bool = True) -> int:
    return inside * outside * side * side + bias * outside


# DCGAN


def test_dcgan_is_figure_1_of_its_paper() -> None:
    pair = on_meta(DCGAN, 64, 100, width=128)
    found = shapes(pair.generator, (nn.ConvTranspose2d,), torch.empty(2, 100, device="meta"))
    assert found == [(1024, 4, 4), (512, 8, 8), (256, 16, 16), (128, 32, 32), (3, 64, 64)]
    weights = sum(conv(i, o, 4, bias=False) for i, o in
                  [(100, 1024), (1024, 512), (512, 256), (256, 128), (128, 3)])  # fmt: skip
    assert count(pair.generator) == weights + 2 * (1024 + 512 + 256 + 128)


def test_dcgan_has_the_parameters_of_pytorchs_example() -> None:
    """3,576,704 and 2,765,568, as its readers have counted them at 64 x 64 with z of 100."""
    pair = on_meta(DCGAN, 64, 100)
    assert (count(pair.generator), count(pair.discriminator)) == (3_576_704, 2_765_568)


def test_dcgan_has_a_stage_more_at_128() -> None:
    pair = on_meta(DCGAN, 128, 1000)
    found = shapes(pair.generator, (nn.ConvTranspose2d,), torch.empty(2, 1000, device="meta"))
    assert [shape[0] for shape in found] == [1024, 512, 256, 128, 64, RGB]
    images = torch.empty(2, RGB, 128, 128, device="meta")
    found = shapes(pair.discriminator, (nn.Conv2d,), images)
    assert found[-1] == (1, 1, 1)
    assert found[:-1] == [(64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8), (1024, 4, 4)]
    norms = [m for m in pair.discriminator.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [norm.num_features for norm in norms] == [128, 256, 512, 1024], "none after the first"


def test_dcgan_begins_as_its_paper_has_it() -> None:
    torch.manual_seed(0)
    pair = DCGAN(channels=1, image_size=(32, 32), latent_size=64, width=32)
    for network in (pair.generator, pair.discriminator):
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                assert float(module.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
            if isinstance(module, nn.BatchNorm2d):
                assert float(module.weight.detach().mean()) == pytest.approx(1.0, abs=0.02)


# SAGAN


def residual(inside: int, outside: int) -> int:
    return conv(inside, outside, 3) + conv(outside, outside, 3) + conv(inside, outside, 1)


def attention(channels: int) -> int:
    """Query and key of C/8, value of C/2 and back, without biases, and the gain."""
    return 2 * channels * channels // 8 + 2 * channels * channels // 2 + 1


def test_sagan_has_the_maps_and_parameters_of_its_paper() -> None:
    pair = on_meta(SAGAN, 128, 128)
    z, images = torch.empty(2, 128, device="meta"), torch.empty(2, RGB, 128, 128, device="meta")
    from ssmdiff_gans.layers import DownBlock, UpBlock

    found = shapes(pair.generator, (UpBlock, Attention), z)
    assert found == [(1024, 8, 8), (512, 16, 16), (256, 32, 32), (256, 32, 32), (128, 64, 64),
                     (64, 128, 128)]  # fmt: skip
    found = shapes(pair.discriminator, (DownBlock, Attention), images)
    assert found == [(64, 64, 64), (128, 32, 32), (128, 32, 32), (256, 16, 16), (512, 8, 8),
                     (1024, 4, 4), (1024, 4, 4)]  # fmt: skip

    ups = [(1024, 1024), (1024, 512), (512, 256), (256, 128), (128, 64)]
    norms = sum(2 * (i + o) for i, o in ups) + 2 * 64
    generator = (128 + 1) * 1024 * 16 + sum(residual(*u) for u in ups) + norms
    assert count(pair.generator) == generator + attention(256) + conv(64, RGB, 3)
    downs = [(RGB, 64), (64, 128), (128, 256), (256, 512), (512, 1024)]
    last = 2 * conv(1024, 1024, 3)
    discriminator = sum(residual(*d) for d in downs) + last + attention(128) + 1024 + 1
    assert count(pair.discriminator) == discriminator


def test_sagans_attention_is_nothing_at_first_and_sees_the_whole_map() -> None:
    from ssmdiff_gans.sagan import MAKE

    torch.manual_seed(0)
    layer = Attention(MAKE, 8).eval()
    x = torch.randn(1, 8, 6, 6)
    assert torch.equal(layer(x), x)
    with torch.no_grad():
        layer.gain.fill_(1.0)
    changed = x.clone()
    changed[0, :, 5, 5] += 3
    apart = (layer(changed) - layer(x)).abs().amax(1)[0]
    assert float(apart[0, 0].detach()) > 1e-4, "a pixel hears of the one farthest away"
    # Against einsum over all pairs of places.
    q, k, v = (m(x) for m in (layer.query, layer.key, layer.value))
    k, v = (nn.functional.max_pool2d(m, 2) for m in (k, v))
    weights = torch.einsum("bchw,bcij->bhwij", q, k).flatten(3).softmax(-1)
    mixed = torch.einsum("bhwl,bcl->bchw", weights, v.flatten(2))
    torch.testing.assert_close(layer(x), x + layer.out(mixed))


# U-Net GAN


def test_unetgan_has_the_maps_and_parameters_of_its_paper() -> None:
    """Encoder 1, 2, 4, 8, 16 times the width, decoder 8, 4, 2, 1, 1, skips put beside."""
    from ssmdiff_gans.layers import DownBlock, UpBlock

    pair = on_meta(UNetGAN, 128, 128)
    images = torch.empty(2, RGB, 128, 128, device="meta")
    found = shapes(pair.discriminator, (DownBlock, UpBlock), images)
    assert found == [(64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8), (1024, 4, 4),
                     (512, 8, 8), (256, 16, 16), (128, 32, 32), (64, 64, 64),
                     (64, 128, 128)]  # fmt: skip
    with torch.no_grad():
        whole, pixels = pair.discriminator(images)
    assert (whole.shape, pixels.shape) == ((2, 1), (2, 1, 128, 128))

    downs = [(RGB, 64), (64, 128), (128, 256), (256, 512), (512, 1024)]
    ups = [(1024, 512), (512 + 512, 256), (256 + 256, 128), (128 + 128, 64), (64 + 64, 64)]
    wanted = sum(residual(*one) for one in downs + ups) + (1024 + 1) + (64 + 1)
    assert count(pair.discriminator) == wanted

    parts = [22, 22, 21, 21, 21, 21]  # of 128 numbers, one for the start and one a block
    blocks = [(1024, 1024), (1024, 512), (512, 256), (256, 128), (128, 64)]
    wanted = (parts[0] + 1) * 1024 * 16 + 2 * 64 + conv(64, RGB, 3)
    wanted += sum(
        residual(i, o) + 2 * p * (i + o) for p, (i, o) in zip(parts[1:], blocks, strict=True)
    )
    assert count(pair.generator) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("side", [32, 128, 256])
@pytest.mark.parametrize("factory", [DCGAN, SAGAN, UNetGAN])
def test_each_makes_images_of_each_size(factory: Callable[..., Gan], side: int) -> None:
    pair = on_meta(factory, side, 1000)
    with torch.no_grad():
        images = pair.generator(torch.empty(2, 1000, device="meta"))
        verdicts = ssmdiff.verdicts_of(pair.discriminator(images))
    assert images.shape == (2, RGB, side, side)
    assert verdicts[0].shape == (2, 1)
    assert len(FACTORS[side]) == math.log2(side // 4)


@pytest.mark.parametrize("name", ["dcgan", "sagan", "unetgan"])
@pytest.mark.parametrize("size", [(100, 100), (8, 8), (48, 32), (32,), (33, 32)])
def test_a_size_that_cannot_be_made_is_refused(name: str, size: tuple[int, ...]) -> None:
    if size == (48, 32):  # 6 x 4 doubled three times
        size = (40, 36)
    with pytest.raises(ConfigError, match="shorter side is 16, 32, 64, 128 or 256"):
        ssmdiff.create("gan", name, channels=1, image_size=size, latent_size=8)


def test_pictures_may_be_wide() -> None:
    pair = ssmdiff.create("gan", "sagan", channels=1, image_size=(32, 48), latent_size=8, width=2)
    assert pair.generator(torch.zeros(2, 8)).shape == (2, 1, 32, 48)


def test_z_has_a_number_for_every_block_of_unetgan() -> None:
    with pytest.raises(ConfigError, match="latent_size is 3, expected at least 4"):
        ssmdiff.create("gan", "unetgan", channels=1, image_size=(32, 32), latent_size=3)


# Spectral norm


def largest_singular_value(module: nn.Module) -> float:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return float(torch.linalg.matrix_norm(weight.detach().flatten(1).double(), 2))


def normalised(network: nn.Module) -> list[nn.Module]:
    return [m for m in network.modules() if hasattr(m, "parametrizations")]


@pytest.mark.parametrize("name", ["sagan", pytest.param("unetgan", marks=pytest.mark.slow)])
def test_spectral_norms_are_at_one(name: str) -> None:
    torch.manual_seed(1)
    pair = ssmdiff.create("gan", name, channels=1, image_size=(32, 32), latent_size=16, width=4)
    given = {pair.generator: torch.randn(2, 16), pair.discriminator: torch.randn(2, 1, 32, 32)}
    for network, x in given.items():
        plain = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert normalised(network) == plain, "every convolution and linear map has it"
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(3.0).add_(0.1 * torch.randn_like(parameter))
            network(x)  # a step of the power method for every weight
            for module in normalised(network):
                for _ in range(300):
                    module.weight  # and one for this
        network.eval()
        found = [largest_singular_value(m) for m in normalised(network)]
        assert found == pytest.approx([1.0] * len(found), abs=0.02)


# The contract


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("gan", {"name": "dcgan", "width": 4}),
        pytest.param("gan", {"name": "sagan", "width": 8}, marks=pytest.mark.slow),
        pytest.param("gan", {"name": "unetgan", "width": 4}, marks=pytest.mark.slow),
        ("loss", "bce"),
        ("loss", "hinge"),
        pytest.param(
            "method",
            {"name": "gan", "latent_size": 8, "network": {"name": "dcgan", "width": 4}},
            marks=pytest.mark.slow,
        ),
        pytest.param("method", "diffusion", marks=pytest.mark.slow),
    ],
)
def test_each_keeps_its_contract(kind: str, spec: object) -> None:
    report = check(kind, spec)
    assert report.ok, str(report)
