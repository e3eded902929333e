"""CUDA graphs in sampling: what goes into the buffers, with a capture that a CPU can do."""

import warnings

import numpy as np
import pytest
import torch
from ssmdiff.diffusion.cuda_graphs import CaptureError, RecordedDenoiser, capture_cuda
from ssmdiff.diffusion.denoisers import TorchDenoiser
from ssmdiff.diffusion.guidance import Guidance, GuidedDenoiser
from ssmdiff.ops import note_order, restarts_in


def replayed_on_cpu(captures):
    """A capture as a graph behaves: it replays over the same buffers, into the same output."""

    def capture(run):
        output = run()
        captures.append(None)
        return lambda: output.copy_(run()), output

    return capture


def denoiser(x, timesteps, orders):
    """Depends on everything that it is given."""
    y = x * 2 + timesteps[:, None, None, None]
    for order in orders:
        weights = torch.arange(order.numel(), dtype=x.dtype)
        y = y + (order.flatten() * weights).sum()
        if restarts_in(order) is not False:
            y = y + (order < 0).sum()
    return y


def call(seed, batch=2, restart=True, floating=False):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 1, 4, 4, generator=generator)
    timestep = torch.tensor(10 + seed, dtype=torch.float32 if floating else torch.int64)
    first = note_order(torch.randperm(16, generator=generator)[None].int(), restarts=False)
    second = torch.randperm(16, generator=generator)[None].int()
    second[0, torch.rand(16, generator=generator) < 0.5] *= -1  # token 0 is left as it is
    second = note_order(second, restarts=True)
    orders = [first, second if restart else first]
    return x, timestep.expand(batch), orders


def test_every_call_reads_its_own_inputs_and_keeps_its_own_output():
    captures = []
    graphed = RecordedDenoiser(denoiser, replayed_on_cpu(captures))
    with torch.inference_mode():
        outputs = [graphed(*call(seed)) for seed in range(4)]
        for seed, output in enumerate(outputs):
            torch.testing.assert_close(output, denoiser(*call(seed)))
    assert len(captures) == 1


def test_the_buffers_are_its_own():
    graphed = RecordedDenoiser(denoiser, replayed_on_cpu([]))
    x, timesteps, orders = call(0)
    graphed(x, timesteps, orders)
    graphed(*call(1))
    torch.testing.assert_close(x, call(0)[0])
    assert torch.equal(orders[0], call(0)[2][0])


def test_other_shapes_and_types_are_recorded_apart():
    captures = []
    graphed = RecordedDenoiser(denoiser, replayed_on_cpu(captures))
    forms = [{}, {"batch": 3}, {"restart": False}, {"floating": True}]
    for _ in range(2):
        for form in forms:
            torch.testing.assert_close(graphed(*call(1, **form)), denoiser(*call(1, **form)))
    assert len(captures) == len(forms)


@pytest.mark.parametrize(("calls", "recorded"), [(1, 2), (2, 1)])
def test_guidance_records_a_graph_for_each_number_of_images(calls, recorded):
    """Twice the images inside of the interval, as many outside; both branches of two calls replay
    one graph, and the second does not write over the first."""
    captures = []

    def network(x, timesteps, orders, context):
        return denoiser(x, timesteps, orders) * (1 + context[:, :1, None, None])

    told, away = torch.tensor([[2.0], [3.0]]), torch.tensor([[0.5], [1.0]])
    chosen = Guidance(3.0, interval=(0.0, 0.5), calls=calls)
    walk = np.array([11.0, 10.0])
    graphed = TorchDenoiser(RecordedDenoiser(network, replayed_on_cpu(captures)))
    guided = GuidedDenoiser(graphed, chosen, [away.numpy()], walk)
    for seed in (0, 1, 0, 1):
        x, timesteps, _ = call(seed)
        found = guided(x, timesteps.float(), [], told)
        cond, uncond = (network(x, timesteps, [], one) for one in (told, away))
        expected = uncond + 3 * (cond - uncond) if seed else cond
        torch.testing.assert_close(found, expected)
    assert len(captures) == recorded


def test_what_cannot_be_recorded_runs_as_it_is_and_says_why_once():
    attempts = []

    def refuses(run):
        attempts.append(None)
        raise CaptureError("operation not permitted when stream is capturing")

    graphed = RecordedDenoiser(denoiser, refuses)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for seed in range(3):
            torch.testing.assert_close(graphed(*call(seed)), denoiser(*call(seed)))
    (warning,) = warned
    assert "without CUDA graphs" in str(warning.message)
    assert "not permitted" in str(warning.message)
    assert len(attempts) == 1


def test_an_error_of_the_denoiser_itself_is_not_hidden():
    def broken(x, timesteps, orders):
        raise ValueError("a shape that does not fit")

    with pytest.raises(ValueError, match="does not fit"):
        RecordedDenoiser(broken, replayed_on_cpu([]))(*call(0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
class TestOnACard:
    def test_a_replayed_network_gives_the_images_of_a_plain_one(self):
        from ssmdiff.diffusion.denoisers import TorchDenoiser, module_denoiser
        from ssmdiff.diffusion.sampling import sample
        from ssmdiff.runs import compose
        from ssmdiff.runs.config import resolve

        config = resolve({"data": {"image_size": 32}})
        torch.manual_seed(0)
        model = compose.build_backbone(config, 1).eval().cuda()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        plan = compose.order_plan(model, config)
        scheduler = compose.build_scheduler(config, compose.build_diffusion(config))
        plain = module_denoiser(model)
        images = [
            sample(
                TorchDenoiser(one, torch.device("cuda")),
                scheduler,
                plan,
                seed=0,
                shape=(1, 32, 32),
                indices=range(3),
                steps=5,
            )
            for one in (plain, RecordedDenoiser(plain))
        ]
        torch.testing.assert_close(images[1], images[0], rtol=1e-4, atol=1e-4)

    def test_a_wait_for_the_device_is_refused_as_such(self):
        x = torch.ones(4, device="cuda")
        with pytest.raises(CaptureError):
            capture_cuda(lambda: x * x.sum().item())
