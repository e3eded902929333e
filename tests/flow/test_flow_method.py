"""The method itself: times, the way to noise, the loss, and what a configuration makes of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import ssmdiff
import torch
from small_flows import small
from ssmdiff import ConfigError, order_tensors, stream
from ssmdiff_cli.main import app
from ssmdiff_flow.times import Times, shift_of_size
from torch import Tensor
from torch.utils.data import default_collate
from typer.testing import CliRunner

CPU = torch.device("cpu")


def batch_of(method: Any, count: int = 4) -> dict[str, Tensor]:
    """Images of noise with what the method draws for them."""
    items = []
    for i in range(count):
        image = torch.from_numpy(stream(1, "image", i).standard_normal((1, 16, 16), np.float32))
        draws = method.draws(stream(2, "training image", i), image, lambda x: x)
        items.append({"label": torch.tensor(0), **draws})
    found: dict[str, Tensor] = default_collate(items)
    return found


def built(**method: Any) -> Any:
    """A method whose network says something, which an untrained one does not."""
    torch.manual_seed(0)
    made = ssmdiff.build_method(small(method=method), 1, ssmdiff.Conditions())
    for parameter in made.model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return made.model.eval() and made


# Times


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.5, 0.7)])
def test_logit_normal_times_have_their_distribution(mean: float, std: float) -> None:
    """Against scipy's normal distribution of the logits, by Kolmogorov and Smirnov."""
    from scipy import stats

    times = Times("logit-normal", mean, std)
    drawn = np.array([times.at(u) for u in stream(0, "times").random(4000)])
    found = stats.kstest(np.log(drawn / (1 - drawn)), stats.norm(mean, std).cdf)
    assert found.pvalue > 0.05
    assert stats.kstest(drawn, "uniform").pvalue < 1e-6, "and that of another is told from it"


def test_uniform_and_shifted_times_have_theirs() -> None:
    """P(t' < x) = P(t < x / (s - (s - 1) x)) for the shift s."""
    from scipy import stats

    shares = stream(1, "times").random(4000)
    assert stats.kstest([Times().at(u) for u in shares], "uniform").pvalue > 0.05
    found = [Times(shift=3.0).at(u) for u in shares]
    assert stats.kstest(found, lambda x: x / (3 - 2 * x)).pvalue > 0.05
    assert np.median(found) == pytest.approx(0.75, abs=0.02)


def test_the_ends_of_a_stream_are_times() -> None:
    for density in ("uniform", "logit-normal"):
        for share in (0.0, 1 - 2.0**-53):
            assert 0 <= Times(density, shift=2.0).at(share) <= 1


def test_the_shift_by_size_is_the_root_of_the_pixels() -> None:
    """Esser et al., section 5.3.2: sqrt(m / n), 2 for sides twice as long."""
    assert shift_of_size((128, 128), 64) == 2.0
    assert shift_of_size((32, 64), 64) == pytest.approx(math.sqrt(1 / 2))
    assert built(shift="by-size", base_size=4).shift == 4.0
    assert built(shift="by-size").shift == 0.25
    assert built(shift=3).times == Times("logit-normal", 0.0, 1.0, 3.0)


# The way, and the loss


def test_the_loss_is_the_squared_error_of_the_velocity_in_numpy() -> None:
    method = built(times="uniform")
    batch, orders = batch_of(method), order_tensors(method.plan.draw(0), CPU)
    (update,) = method.updates(method.networks)
    with torch.no_grad():
        found = update.losses(batch, orders, 0.0)
    assert list(found) == ["loss"]
    x_0, noise, t = (batch[name].numpy().astype(np.float64) for name in ("x_0", "noise", "time"))
    assert len(set(t.tolist())) == 4
    for i in range(4):
        x_t = (1 - t[i]) * x_0[i] + t[i] * noise[i]
        with torch.no_grad():
            v = method.model(
                x=torch.from_numpy(x_t[None]).float(),
                timesteps=torch.tensor([1000 * t[i]]),
                orders=orders,
            )
        wanted = np.mean((v[0].numpy() - (noise[i] - x_0[i])) ** 2)
        assert float(found["loss"][i]) == pytest.approx(wanted, rel=1e-5)


def test_the_way_is_straight_from_the_image_to_the_noise() -> None:
    """What the network sees at t = 0 and 1, and in between; what it is told there."""
    method = built(times="uniform")
    seen: dict[str, Tensor] = {}

    class Spy(torch.nn.Module):
        def forward(self, x: Tensor, timesteps: Tensor, context: Any, orders: Any) -> Tensor:
            seen.update(x=x, timesteps=timesteps)
            return torch.zeros_like(x)

    batch = batch_of(method) | {"time": torch.tensor([0.0, 0.25, 0.5, 1.0])}
    losses = method.losses(Spy(), batch, ())
    x_0, noise = batch["x_0"], batch["noise"]
    assert torch.equal(seen["x"][0], x_0[0])
    assert torch.equal(seen["x"][3], noise[3])
    torch.testing.assert_close(seen["x"][1], 0.75 * x_0[1] + 0.25 * noise[1])
    assert seen["timesteps"].tolist() == [0.0, 250.0, 500.0, 1000.0]
    torch.testing.assert_close(losses, (noise - x_0).square().flatten(1).mean(1))


def test_pseudo_huber_is_that_of_its_paper_over_the_root_of_the_numbers() -> None:
    """Song and Dhariwal: sqrt(|e|^2 + c^2) - c with c = 0.00054 sqrt(d), for d = 256."""
    squared, huber = built(), built(error="pseudo-huber")
    batch, orders = batch_of(squared), order_tensors(squared.plan.draw(0), CPU)
    with torch.no_grad():
        plain = squared.losses(squared.model, batch, orders).double()
        told = huber.held_out(huber.model, batch, orders)
    c = 0.00054 * math.sqrt(256)
    wanted = ((256 * plain + c**2).sqrt() - c) / math.sqrt(256)
    torch.testing.assert_close(told["loss"].double(), wanted, rtol=1e-5, atol=0)
    torch.testing.assert_close(told["squared"].double(), plain, rtol=1e-5, atol=0)
    assert list(squared.held_out(squared.model, batch, orders)) == ["loss"]


def test_held_out_times_are_one_in_each_equal_part_of_those_of_training() -> None:
    method = built(std=0.8, shift=2.0)
    parts = np.arange(10)[::-1] + 0.5
    times = method.spread(parts, 10)["time"].double().numpy()
    unshifted = times / (2 - times)
    from scipy import stats

    shares = stats.norm(0, 0.8).cdf(np.log(unshifted / (1 - unshifted)))
    np.testing.assert_allclose(shares, parts / 10, atol=1e-5)


def test_a_step_moves_the_velocity_towards_what_it_should_be() -> None:
    """Of one image, learnt by heart, the loss falls: the gradient is that of the loss."""
    method = built(times="uniform")
    batch, orders = batch_of(method), order_tensors(method.plan.draw(0), CPU)
    optimiser = torch.optim.Adam(method.model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = method.losses(method.model, batch, orders).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_the_likelihood_of_a_network_is_one_backward_pass_of_it_a_sign() -> None:
    """The estimate over a network of blocks and scans, against finite differences of it."""
    method = built()
    method.model.double()
    images = torch.zeros(2, 1, 16, 16, dtype=torch.float64)
    velocity = method.velocity(method.model, {"label": torch.zeros(2, dtype=torch.int64)})
    from ssmdiff_flow.likelihood import _slopes

    z = torch.from_numpy(np.sign(stream(0, "signs").random((2, 1, 16, 16)) - 0.5))
    x = images + 0.1 * z
    _, found = _slopes(velocity, x, 0.4, torch.float64, [z])
    t, step = torch.full((2,), 0.4, dtype=torch.float64), 1e-4
    with torch.no_grad():
        change = (velocity(x + step * z, t) - velocity(x - step * z, t)) / (2 * step)
    wanted = (z * change).flatten(1).sum(1)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


# The configuration


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_flow_over_any_preset_takes_a_scheduler_of_its_own() -> None:
    tiny = ssmdiff.load_preset("tiny")
    config = ssmdiff.resolve(tiny, {"method": "flow"})
    assert config.sample.scheduler == {"name": "flow-adams", "order": 2}
    assert config.model.backbone["channels"] == 32, "the rest of the preset stays"
    assert config.train.bound_images == 0, "asked for, it is told; it takes long"
    assert "diffusion" not in config.to_dict()
    assert config.method["times"] == "logit-normal"
    back = ssmdiff.resolve(config, {"method": "diffusion"})
    assert back.sample.scheduler["name"] == "ddim"
    assert "diffusion" in back.to_dict()
    plain = ssmdiff.resolve(tiny)
    assert plain.sample.scheduler["name"] == "dpmpp", "and a diffusion is as it was"
    assert plain.train.bound_images == 16


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_the_presets_are_those_of_the_diffusion_but_for_what_a_flow_is(size: str) -> None:
    flow = ssmdiff.resolve(ssmdiff.load_preset(f"{size}-flow")).to_dict()
    over = ssmdiff.resolve(
        ssmdiff.load_preset(size), {"method": "flow", "sample": {"steps": 25}}
    ).to_dict()
    assert flow == over
    assert ssmdiff.resolve(Layer(flow)).to_dict() == flow, "and it is what it says"


def Layer(values: Any) -> Any:
    return ssmdiff.Layer(values, "a run", base=True)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--set", "sample.scheduler.name=ddim"],
         "scheduler 'ddim' walks back the process 'diffusion', and the model is trained on "
         "'rectified-flow'; expected one of flow-adams, flow-euler, flow-heun"),
        (["--set", "diffusion.timesteps=10"], "method 'flow', by --set method, has no use for it"),
        (["--set", "method.shift=0"], "method.shift"),
        (["--set", "method.shift=by-sice"], "method.shift"),
        (["--set", "method.std=0"], "method.std"),
        (["--set", "method.times=cosine"], "method.times"),
        (["--set", "method.eror=squared"], "did you mean 'error'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_flow_is_refused_in_a_sentence(flags: list[str], sentence: str) -> None:
    result = run("config", "show", "--set", "method=flow", *flags)
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split()).replace("error: ", "")


def test_a_diffusion_refuses_a_flows_scheduler() -> None:
    with pytest.raises(ConfigError, match=r"by layer 1: scheduler 'flow-heun' .* one of d"):
        ssmdiff.resolve({"sample": {"scheduler": "flow-heun"}})
    with pytest.raises(ConfigError, match="named 'flow-hoin'; did you mean 'flow-heun'"):
        ssmdiff.resolve({"sample": {"scheduler": "flow-hoin"}})
