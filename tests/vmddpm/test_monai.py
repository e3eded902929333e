"""The backbone under MONAI's inferer and noise schedulers, both unmodified."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from networks import SMALL, network

inferers = pytest.importorskip("monai.inferers")
schedulers = pytest.importorskip("monai.networks.schedulers")


@pytest.mark.parametrize("context_channels", [0, 2])
def test_trains(context_channels: int) -> None:
    model = network(context_channels=context_channels, **SMALL)
    inferer = inferers.DiffusionInferer(schedulers.DDPMScheduler(num_train_timesteps=1000))
    images, labels = torch.full((4, 1, 8, 8), -0.5), torch.tensor([0, 1, 0, 1])
    images[labels == 1] = 0.5
    adam = torch.optim.Adam(model.parameters(), lr=6e-3)
    noise, timesteps = torch.randn(images.shape), torch.tensor([100, 400, 700, 999])
    losses = []
    for _ in range(10):
        prediction = inferer(
            inputs=images,
            diffusion_model=model,
            noise=noise,
            timesteps=timesteps,
            condition=labels if context_channels else None,
        )
        loss = F.mse_loss(prediction, noise)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert all(torch.tensor(losses).isfinite())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler"])
@pytest.mark.parametrize("context_channels", [0, 2])
def test_samples(name: str, context_channels: int) -> None:
    model = network(context_channels=context_channels, **SMALL).eval()
    scheduler = getattr(schedulers, name)(num_train_timesteps=100)
    scheduler.set_timesteps(4)
    images = inferers.DiffusionInferer(scheduler).sample(
        input_noise=torch.randn(2, 1, 8, 8),
        diffusion_model=model,
        conditioning=torch.tensor([0, 1]) if context_channels else None,
        verbose=False,
    )
    assert images.shape == (2, 1, 8, 8)
    assert images.isfinite().all()
