"""Parts of known behaviour that stand in for the others while one component is checked."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssmdiff.networks.backbone import order_tensors
from ssmdiff.ops import decode_order, selective_scan
from ssmdiff.orders.scan import Grid, OrderPlan, Scan, ScanOrder, ScanSlot
from ssmdiff.testing.report import ViolationError

CPU = torch.device("cpu")


class ProbeScan(Scan):
    """K random permutations, fresh for every call."""

    stochastic = True

    def __init__(self, directions: int = 2) -> None:
        self._directions = directions

    def directions(self, dims: int) -> int:
        return self._directions

    def order(self, grid: Grid, generator: np.random.Generator | None = None) -> ScanOrder:
        assert generator is not None
        tokens = int(np.prod(grid))
        return ScanOrder(np.stack([generator.permutation(tokens) for _ in range(self._directions)]))


Call = tuple[int, Grid, Tensor]
"""The slot of an S6 call, the grid that its block was called on, and the order it was given."""


class ProbeBlock(nn.Module):
    """Two S6 calls over the projected tokens; keeps what it is called with in ``log``."""

    scan_calls = 2
    A: Tensor

    def __init__(self, channels: int, time_channels: int, slot: int, log: list[Call]) -> None:
        super().__init__()
        self.slot, self.log = slot, log
        self.time = nn.Linear(time_channels, channels)
        self.x_proj = nn.Linear(channels, 4)  # B and C of two directions
        # No parameter: on a grid of one token it would get no gradient, and the backbone the blame.
        self.register_buffer("A", -torch.ones(2, channels, 1))

    def forward(self, x: Tensor, time: Tensor, orders: Sequence[Tensor]) -> Tensor:
        if not torch.compiler.is_compiling():
            if len(orders) != self.scan_calls:
                raise ViolationError(
                    f"the block at slot {self.slot} is given {len(orders)} orders",
                    f"{self.scan_calls}, as its scan_calls says",
                )
            for i, order in enumerate(orders):
                self.log.append((self.slot + i, tuple(x.shape[2:]), order))
        h = x.flatten(2).transpose(1, 2)
        for order in orders:
            u = F.layer_norm(h + self.time(time)[:, None], h.shape[-1:])
            B, C = self.x_proj(u).unflatten(-1, (2, 2)).permute(2, 0, 3, 1)[..., None].contiguous()
            delta = u[:, None].expand(-1, 2, -1, -1).contiguous()
            h = h + selective_scan(u, delta, self.A, B, C, order)
        return h.transpose(1, 2).reshape(x.shape)

    def __deepcopy__(self, memo: dict[int, object]) -> ProbeBlock:
        """A copy reports to the same log."""
        memo[id(self.log)] = self.log
        copied = nn.Module.__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__ = copy.deepcopy(self.__dict__, memo)
        return copied


def orders_for(slots: Sequence[Grid], scan: Scan | None = None, step: int = 0) -> list[Tensor]:
    """Orders of those grids on the CPU."""
    plan = OrderPlan(scan or ProbeScan(), tuple(ScanSlot(grid) for grid in slots), seed=3)
    return list(order_tensors(plan.draw(step), CPU))


def with_restarts(order: Tensor) -> Tensor:
    """The same order; the state starts anew at every third token."""
    tokens, _ = decode_order(order)
    restart = torch.zeros(tokens.shape, dtype=torch.bool)
    restart[:, ::3] = True
    return coded(tokens, restart)


def coded(tokens: Tensor, restart: Tensor) -> Tensor:
    """The order that visits (K, L) tokens, its state anew where (K, L) bool ``restart`` is True."""
    return torch.tensor(ScanOrder(tokens.numpy(), restart.numpy()).coded)


def move_parameters(module: nn.Module) -> nn.Module:
    """Move every parameter a little: a layer that starts at zero hides what feeds it."""
    g = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=g)
            parameter.add_(0.05 * noise.to(parameter.dtype))
    return module


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's global generator at this seed inside, as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def global_states() -> tuple[Any, ...]:
    """The states of Python's, numpy's and torch's global generators, comparable."""
    state: Any = np.random.get_state(legacy=False)
    numpy = (state["state"]["key"].tobytes(), state["state"]["pos"])
    return random.getstate(), numpy, torch.get_rng_state().numpy().tobytes()


@contextlib.contextmanager
def disturbed_globals() -> Iterator[None]:
    """Other global random states inside, the old ones back afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with seeded(12345):
            random.seed(12345)
            np.random.seed(12345)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def differ(a: Tensor, b: Tensor) -> bool:
    """Whether two results differ by more than rounding."""
    a, b = a.detach(), b.detach()
    scale = float(torch.maximum(a.abs().max(), b.abs().max())) or 1.0
    return float((a - b).abs().max()) > 1e-7 * scale


def relative(got: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest value."""
    got, expected = got.detach().double(), expected.detach().double()
    scale = float(expected.abs().max()) or 1.0
    return float((got - expected).abs().max()) / scale
