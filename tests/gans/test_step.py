"""What is computed in a step of a GAN, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import ssmdiff
import torch
import torch.nn.functional as F
from ssmdiff import Adam
from ssmdiff_gans import augment
from ssmdiff_gans.losses import CrossEntropy, Hinge
from ssmdiff_gans.method import GanMethod, mean_loss
from ssmdiff_gans.unetgan import boxes
from torch import Tensor, nn

# Losses


def test_cross_entropy_is_torchs_with_logits() -> None:
    verdict, loss = torch.tensor([-40.0, -1.0, 0.0, 2.5, 40.0]), CrossEntropy()
    for found, target in (
        (loss.real(verdict), torch.ones(5)),
        (loss.fake(verdict), torch.zeros(5)),
        (loss.generator(verdict), torch.ones(5)),
    ):
        wanted = F.binary_cross_entropy_with_logits(verdict, target, reduction="none")
        torch.testing.assert_close(found, wanted)


def test_hinge_is_its_formula() -> None:
    verdict, loss = torch.tensor([-2.0, -0.5, 0.5, 2.0]), Hinge()
    assert loss.real(verdict).tolist() == [3.0, 1.5, 0.5, 0.0]
    assert loss.fake(verdict).tolist() == [0.0, 0.5, 1.5, 3.0]
    assert loss.generator(verdict).tolist() == [2.0, 0.5, -0.5, -2.0]


def test_ways_of_judging_weigh_the_same_whatever_their_size() -> None:
    whole, pixels = torch.tensor([[2.0], [4.0]]), torch.zeros(2, 1, 8, 8)
    assert mean_loss([whole, pixels], lambda v: v).tolist() == [1.0, 2.0]


# CutMix


class Judge(nn.Module):
    """Verdicts that are sums: by hand they are sums too."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        blurred = F.avg_pool2d(images, 3, 1, 1)
        return images.sum((1, 2, 3))[:, None], images + 2 * blurred


def test_the_consistency_loss_by_hand() -> None:
    """Eq. 6 to 8 in numpy, pixel by pixel, with the masks given as boxes of numbers."""
    pair = ssmdiff.create(
        "gan", {"name": "unetgan", "width": 1, "cutmix": 0.5}, channels=1, image_size=(16, 16),
        latent_size=8,
    )  # fmt: skip
    g = torch.Generator().manual_seed(0)
    real, fake = (torch.rand(3, 1, 16, 16, generator=g) for _ in range(2))
    judge = Judge()
    verdicts = judge(real), judge(fake)
    # Image 0: mixed, a box of 8 x 8 at row 2, column 7; image 1: not mixed; image 2: all of it.
    uniforms = torch.tensor([
        [0.1, 0.25, 2.5 / 9, 7.5 / 9],
        [0.9, 0.25, 0.0, 0.0],
        [0.2, 1.0, 0.3, 0.4],
    ])  # fmt: skip
    found = pair.regularisation(judge, CrossEntropy(), real, fake, verdicts, uniforms, 1.0)

    def log_sigmoid(v: float) -> float:
        return -math.log1p(math.exp(-v))

    wanted = [0.0, 0.0, 0.0]
    for i, (top, left, side) in {0: (2, 7, 8), 2: (0, 0, 16)}.items():
        mask = np.ones((16, 16))
        mask[top : top + side, left : left + side] = 0
        x, made = real[i, 0].double().numpy(), fake[i, 0].double().numpy()
        mix = mask * x + (1 - mask) * made

        def decoded(image: np.ndarray) -> np.ndarray:
            padded = np.pad(image, 1)
            sums = sum(padded[r : r + 16, c : c + 16] for r in range(3) for c in range(3))
            return image + 2 * sums / 9

        encoder = -log_sigmoid(-mix.sum())
        logits, aim = decoded(mix), mask * decoded(x) + (1 - mask) * decoded(made)
        pixels = -sum(
            mask[r, c] * log_sigmoid(logits[r, c]) + (1 - mask[r, c]) * log_sigmoid(-logits[r, c])
            for r in range(16) for c in range(16)
        ) / 256  # fmt: skip
        wanted[i] = (encoder + pixels) / 2 + ((logits - aim) ** 2).sum() / 256
    assert found.tolist() == pytest.approx(wanted, rel=1e-4)
    assert wanted[0] > 0
    none_yet = pair.regularisation(judge, CrossEntropy(), real, fake, verdicts, uniforms, 0.0)
    assert none_yet.tolist() == [0, 0, 0], "mixing begins with nothing"
    half = pair.regularisation(judge, CrossEntropy(), real, fake, verdicts, uniforms, 0.1)
    assert (half > 0).tolist() == [False, False, False], "0.5 * 0.2 is below both coins"


def test_boxes_take_a_uniform_share_and_lie_inside() -> None:
    uniforms = torch.rand(4000, 4, generator=torch.Generator().manual_seed(3))
    masks = boxes(uniforms, (32, 48))
    assert masks.shape == (4000, 1, 32, 48)
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    shares = 1 - masks.mean((1, 2, 3))
    torch.testing.assert_close(shares, uniforms[:, 1], atol=0.06, rtol=0)
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.02)


# Differentiable augmentation


def test_augmentation_by_hand() -> None:
    images = torch.arange(2 * 16 * 16, dtype=torch.float64).reshape(2, 1, 16, 16) / 256 - 1
    u = torch.full((2, augment.UNIFORMS), 0.5, dtype=torch.float64)
    for change in ("colour", "translation"):
        torch.testing.assert_close(augment.changed(images, [change], u), images)  # nothing at 1/2
    u[0, 0], u[0, 2] = 0.9, 0.0  # brighter by 0.4, contrast of one half
    found = augment.changed(images, ["colour"], u)
    bright = images[0] + 0.4
    torch.testing.assert_close(found[0], bright.mean() + (bright - bright.mean()) / 2)
    u[0, 3:5] = torch.tensor([0.0, 0.99])  # up by two rows and left by two columns, or the reverse
    found = augment.changed(images, ["translation"], u)
    wanted = torch.zeros(1, 16, 16, dtype=torch.float64)
    wanted[:, 2:, :-2] = images[0, :, :-2, 2:]
    torch.testing.assert_close(found[0], wanted)
    torch.testing.assert_close(found[1], images[1])
    u[0, 5:7] = torch.tensor([0.0, 0.5])  # the middle at row 0, column 8
    found = augment.changed(images, ["cutout"], u)
    wanted = images[0].clone()
    wanted[:, :4, 4:12] = 0
    torch.testing.assert_close(found[0], wanted)


def test_augmentation_of_colour_images_keeps_their_grey() -> None:
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    u = torch.full((2, augment.UNIFORMS), 0.5, dtype=torch.float64)
    u[:, 1] = 0.0  # no saturation
    found = augment.changed(images, ["colour"], u)
    torch.testing.assert_close(found, images.mean(1, keepdim=True).expand(-1, 3, -1, -1))


def test_gradients_go_through_every_change() -> None:
    images = torch.rand(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    u = torch.rand(2, augment.UNIFORMS, dtype=torch.float64)
    changes = ["colour", "translation", "cutout"]
    assert torch.autograd.gradcheck(lambda x: augment.changed(x, changes, u), images)


# The step


def built(**options: object) -> GanMethod:
    table = {"name": "gan", "latent_size": 8, "network": {"name": "dcgan", "width": 2}, **options}
    config = ssmdiff.resolve({"method": table, "data": {"image_size": 16}})
    torch.manual_seed(0)
    method = ssmdiff.build_method(config, 1)
    assert isinstance(method, GanMethod)
    return method


def drawn(method: GanMethod, count: int = 4) -> dict[str, Tensor]:
    images = torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    rows = [method.draws(ssmdiff.stream(2, "training image", i), x, lambda x: x)
            for i, x in enumerate(images)]  # fmt: skip
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def test_z_is_uniform_over_the_paper_s_range_or_normal() -> None:
    z = built(latent_size=1000).noise.draw(ssmdiff.stream(0, "sample", 0))
    assert z.shape == (1000,)
    assert -1 <= z.min() < -0.98
    assert 0.98 < z.max() < 1
    assert z.std() == pytest.approx(1 / math.sqrt(3), abs=0.03)
    z = built(latent_size=1000, latent="normal").noise.draw(ssmdiff.stream(0, "sample", 0))
    assert z.std() == pytest.approx(1, abs=0.08)


def test_the_two_losses_of_a_step_are_their_formulas() -> None:
    method = built(loss="hinge")
    batch = drawn(method)
    judge, make = method.updates(method.networks)
    assert (judge.network, make.network) == ("discriminator", "generator")
    generator, discriminator = method.networks["generator"], method.networks["discriminator"]
    with torch.no_grad():
        fake, other = (generator(batch["latents"][:, i]) for i in range(2))
        on_real, on_fake, on_other = (discriminator(x)[:, 0] for x in (batch["x_0"], fake, other))
    told = judge.losses(batch, (), 0.5)
    torch.testing.assert_close(told["loss"], F.relu(1 - on_real) + F.relu(1 + on_fake))
    right = ((on_real > 0).float() + (on_fake <= 0).float()) / 2
    torch.testing.assert_close(told["verdicts_right"], right)
    torch.testing.assert_close(make.losses(batch, (), 0.5)["loss"], -on_other)
    assert not torch.equal(fake, other), "either update has a z of its own"


def test_each_is_optimised_as_its_paper_has_it_unless_told_otherwise() -> None:
    assert built().adam("generator") == Adam(1.0, (0.5, 0.999))
    method = built(network={"name": "sagan", "width": 2})
    assert method.adam("discriminator") == Adam(4.0, (0.0, 0.9))
    method = built(
        network={"name": "unetgan", "width": 2}, discriminator_rate=2.0, betas=[0.1, 0.9]
    )
    assert method.adam("discriminator") == Adam(2.0, (0.1, 0.9))
    assert method.adam("generator") == Adam(1.0, (0.1, 0.9))


def test_every_side_of_a_step_is_changed_by_numbers_of_its_own() -> None:
    plain, method = built(), built(augment=["cutout"])
    batch = drawn(method)
    assert batch["uniforms"].shape == (4, 3 * augment.UNIFORMS)
    seen: list[Tensor] = []
    method.networks["discriminator"].register_forward_hook(lambda m, x, y: seen.append(x[0]))
    for update in method.updates(method.networks):
        update.losses(batch, (), 0.5)
    real, fake, other = seen
    holes = [(x == 0) for x in (real, fake, other)]
    assert all(hole.any() for hole in holes)
    assert not torch.equal(holes[0], holes[1])
    assert not torch.equal(holes[1], holes[2])
    torch.testing.assert_close(real[~holes[0]], batch["x_0"][~holes[0]])
    assert drawn(plain)["uniforms"].shape == (4, 0)
