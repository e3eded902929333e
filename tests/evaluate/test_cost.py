"""What a model costs, against sums over its layers and against what memory is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ssmdiff
import torch
import torch.nn.functional as F
from ssmdiff import SamplingSettings
from ssmdiff_evaluate import cost
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode


class Model:
    """A network as :func:`cost.multiply_adds` takes it: a run without a folder."""

    def __init__(self, network: nn.Module, plan: Any, shape: tuple[int, ...]) -> None:
        self.model, self._plan, self.shape = network, plan, shape
        self.noise = ssmdiff.Noise(shape)

    def plan(self) -> Any:
        return self._plan

    def told(self, sampling: SamplingSettings, indices: Any) -> list[Any]:
        return [{}]

    def encoded(self, told: list[Any]) -> tuple[()]:
        return ()

    def denoiser(self) -> Any:
        from ssmdiff import TorchDenoiser, module_denoiser

        return TorchDenoiser(module_denoiser(self.model))


def built(block: str) -> Model:
    config = ssmdiff.resolve(
        ssmdiff.load_preset("tiny"),
        {
            "data": {"image_size": 16},
            "model": {
                "backbone": {"name": "vmddpm", "channels": 8, "widths": [1, 2], "layers": 1},
                "block": {"name": block},
            },
        },
    )
    network = ssmdiff.build_backbone(config, 1).eval()
    return Model(network, ssmdiff.order_plan(network, config), (1, 16, 16))


class Products(TorchFunctionMode):
    """Multiply-adds of convolutions and linear maps by their shapes, as they are called."""

    total = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if function in (F.conv2d, F.linear):
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            self.total += found.numel() * weight[0].numel()
        return found


def of_layers(model: Model) -> int:
    orders = model.plan().draw(0, 0)
    with Products() as counted:
        model.denoiser()(torch.zeros(1, *model.shape), torch.zeros(1, dtype=torch.int64), orders)
    return counted.total


def test_convolutions_and_products_are_counted_as_their_shapes_say() -> None:
    model = built("conv")
    assert cost.multiply_adds(model) == of_layers(model) > 100_000


class Recorded(Model):
    """As a run on a GPU: what records the launches of the network calls it some times first."""

    cuda_graphs = True

    def denoiser(self) -> Any:
        denoise = super().denoiser()

        def several(*given: Any) -> Any:
            return [denoise(*given) for _ in range(4 if self.cuda_graphs else 1)][-1]

        return several


def test_one_call_is_counted_where_launches_are_recorded() -> None:
    model = built("conv")
    on_a_gpu = Recorded(model.model, model.plan(), model.shape)
    assert cost.multiply_adds(on_a_gpu) == cost.multiply_adds(model)
    assert on_a_gpu.cuda_graphs


def scans_of(model: Model) -> list[Any]:
    """The inputs of each call of the scan, as the kernel is given them."""
    seen: list[Any] = []

    class Watching(ssmdiff.TorchKernel):
        def forward(self, inputs: ssmdiff.ScanInputs) -> torch.Tensor:
            seen.append(inputs)
            return super().forward(inputs)

    with ssmdiff.use_kernel(Watching()):
        orders = model.plan().draw(0, 0)
        model.denoiser()(torch.zeros(1, *model.shape), torch.zeros(1, dtype=torch.int64), orders)
    return seen


def test_the_scan_is_counted_by_its_closed_form() -> None:
    model = built("vss")
    scans = scans_of(model)
    assert scans
    expected = 0
    for scan in scans:
        batch, directions, tokens, channels = scan.delta.shape
        for _ in range(scan.A.shape[-1]):  # delta A, (delta u) B, a h + x, C h
            expected += 4 * batch * directions * tokens * channels
        expected += scan.delta.numel() * (1 + (scan.D is not None))  # delta u, D u
    with FlopCounterMode(display=False) as bare:
        orders = model.plan().draw(0, 0)
        model.denoiser()(torch.zeros(1, *model.shape), torch.zeros(1, dtype=torch.int64), orders)
    without = bare.get_total_flops() // 2
    assert cost.multiply_adds(model) - without == expected > 0
    assert without > 0


def test_scan_multiply_adds_by_hand() -> None:
    """One image, two directions, three tokens, one channel, two states: 6 x (4 x 2 + 1), and D."""
    assert cost.scan_multiply_adds(1, 2, 3, 1, 2, skip=False) == 54
    assert cost.scan_multiply_adds(1, 2, 3, 1, 2, skip=True) == 60


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone forgets a peak")
def test_the_peak_of_memory_is_that_of_what_is_done_inside(python) -> None:
    """In a process of its own: one that has trained keeps what was freed, and takes it again."""
    done = python("""
        import numpy as np
        from ssmdiff_evaluate import cost

        before = np.ones(40_000_000)  # 320 MB, gone before
        del before
        with cost.measured("cpu") as little:
            np.ones(1000)
        with cost.measured("cpu") as much:
            np.ones(40_000_000)
        print(much["mb"] - little["mb"], much["s"])
    """)
    more_mb, took_s = map(float, done.stdout.split())
    assert 300 < more_mb < 400
    assert took_s > 0


def test_a_network_of_spectral_norms_is_counted_and_stays_trainable() -> None:
    from torch.nn.utils.parametrizations import spectral_norm

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = spectral_norm(nn.Conv2d(1, 3, 3, padding=1))

        def forward(self, x: Any, timesteps: Any, context: Any = None, orders: Any = ()) -> Any:
            return self.layer(x)

    network = Network().eval()
    plan = ssmdiff.OrderPlan(None, (), 0)
    assert cost.multiply_adds(Model(network, plan, (1, 8, 8))) == 8 * 8 * 3 * 9
    assert all(p.requires_grad for p in network.parameters())
