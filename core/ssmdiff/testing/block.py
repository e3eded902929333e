"""What a block must do: keep the shape, learn, and use its input, the time and its orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from ssmdiff.errors import ConfigError
from ssmdiff.orders.scan import Grid
from ssmdiff.testing import probes
from ssmdiff.testing.report import NotApplicableError, ViolationError
from ssmdiff.testing.suite import Subject, Suite

GRIDS: tuple[Grid, ...] = ((4, 6), (5, 3), (1, 1))
CHANNELS = (16, 32, 64)
"""Widths to try: a block may refuse one that its heads do not divide."""
TIME_CHANNELS = 12
DIRECTIONS = 2
BATCH = 2
TOLERANCE = 1e-4  # of the largest value, where only the sequence of sums may differ


class BlockSubject(Subject):
    """A block in evaluation mode, of a width that it accepts, its parameters off their start."""

    def __init__(self, kind: str, spec: str | Mapping[str, Any]) -> None:
        super().__init__(kind, spec)
        refused = ConfigError("")
        for self.channels in CHANNELS:
            try:
                self.block = self.new()
            except ConfigError as error:
                refused = error
                continue
            return
        raise refused

    def new(self, seed: int = 0) -> nn.Module:
        with probes.seeded(seed):
            block: nn.Module = self.build(
                channels=self.channels, time_channels=TIME_CHANNELS, directions=DIRECTIONS
            )
        return probes.move_parameters(block).eval()

    @property
    def scan_calls(self) -> int:
        return int(self.block.scan_calls)  # type: ignore[arg-type]

    def inputs(
        self, grid: Grid = GRIDS[0], batch: int = BATCH, seed: int = 0
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        g = torch.Generator().manual_seed(seed)
        x = torch.randn(batch, self.channels, *grid, generator=g)
        time = torch.randn(batch, TIME_CHANNELS, generator=g)
        return x, time, probes.orders_for([grid] * self.scan_calls)

    def __call__(self, x: Tensor, time: Tensor, orders: Sequence[Tensor]) -> Tensor:
        y: Tensor = self.block(x, time, orders)
        return y


suite = Suite("block", BlockSubject)


@suite.check
def orders(subject: BlockSubject) -> str:
    """``scan_calls`` says how many orders it takes, and each of them matters."""
    calls = getattr(subject.block, "scan_calls", None)
    if type(calls) is not int or calls < 0:
        raise ViolationError(
            f"scan_calls is {calls!r}",
            "how many S6 calls a forward pass makes, 0 for none",
            "write scan_calls = 1 in the class",
        )
    x, time, given = subject.inputs()
    y = subject(x, time, given)
    for i in range(calls):
        others = list(given)
        others[i] = probes.orders_for([GRIDS[0]] * calls, step=1)[i]
        if not probes.differ(y, subject(x, time, others)):
            raise ViolationError(
                f"another order {i} of {calls} gives the same output",
                "an output that depends on every order it is given",
                f"use orders[{i}], or count it out of scan_calls",
            )
    return f"{calls} orders, each of them used" if calls else "takes no orders"


@suite.check
def restarts(subject: BlockSubject) -> str:
    """The state starts anew where an order says so (atrous scans)."""
    if not subject.scan_calls:
        raise NotApplicableError("takes no orders")
    x, time, given = subject.inputs()
    y = subject(x, time, [probes.with_restarts(order) for order in given])
    if not probes.differ(y, subject(x, time, given)):
        raise ViolationError(
            "an order with restarts gives the same output as the order without",
            "sequences that end where an entry is -1 - token",
            "pass the order to ssmdiff.selective_scan as it is, or take it apart with "
            "ssmdiff.decode_order",
        )
    return "restarts are followed"


@suite.check
def shape(subject: BlockSubject) -> str:
    """The output has the shape and dtype of x, is finite, and x is left alone."""
    for grid in GRIDS:
        for batch in (1, 3):
            x, time, given = subject.inputs(grid, batch)
            before = x.clone()
            y = subject(x, time, given)
            _same_kind(y, x, f"x {tuple(x.shape)}")
            if not torch.equal(x, before):
                raise ViolationError(f"x {tuple(x.shape)} was written to", "x as it was")
    return f"(B, {subject.channels}, H, W) on {', '.join(f'{h} x {w}' for h, w in GRIDS)}"


def _same_kind(y: Any, x: Tensor, where: str) -> None:
    if not isinstance(y, Tensor):
        raise ViolationError(f"a {type(y).__name__} for {where}", "a tensor of the shape of x")
    got, expected = ((tuple(t.shape), t.dtype, t.device.type) for t in (y, x))
    if got != expected:
        raise ViolationError(
            f"shape {got[0]}, {got[1]} on {got[2]} for {where}",
            f"shape {expected[0]}, {expected[1]} on {expected[2]}, as x",
        )
    if y.device.type != "meta" and not y.isfinite().all():
        bad = int((~y.isfinite()).sum())
        raise ViolationError(
            f"{bad} of {y.numel()} values are not finite for {where}", "finite values"
        )


@suite.check
def layout(subject: BlockSubject) -> str:
    """The memory format of x changes nothing."""
    x, time, given = subject.inputs()
    plain, last = (
        subject(x.contiguous(memory_format=form), time, given)
        for form in (torch.contiguous_format, torch.channels_last)
    )
    _close(last, plain, "channels-last memory", "contiguous memory")
    return "contiguous and channels-last x give the same"


@suite.check
def float64(subject: BlockSubject) -> str:
    """In float64 everything stays float64."""
    x, time, given = subject.inputs((3, 2))
    y = subject.new().double()(x.double(), time.double(), given)
    _same_kind(y, x.double(), "x in float64")
    return "stays float64"


@suite.check
def device(subject: BlockSubject) -> str:
    """Everything happens on the device of x; tried on torch's meta device."""
    x, time, given = subject.inputs()
    y = subject.new().to("meta")(
        x.to("meta"), time.to("meta"), [order.to("meta") for order in given]
    )
    _same_kind(y, x.to("meta"), "x on the meta device")
    return "stays on the device of x"


@suite.check
def autocast(subject: BlockSubject) -> str:
    """Finite under bfloat16 autocast, as mixed precision training runs it."""
    x, time, given = subject.inputs()
    with torch.autocast("cpu", torch.bfloat16):
        y = subject(x, time, given)
    if y.shape != x.shape or not y.isfinite().all():
        raise ViolationError(f"{tuple(y.shape)} with values not finite", f"finite {tuple(x.shape)}")
    return f"finite, {y.dtype}"


@suite.check
def gradients(subject: BlockSubject) -> str:
    """Every parameter gets a gradient that is finite and not zero, and so does x."""
    block = subject.new().train()
    x, time, given = subject.inputs()
    leaves = {"x": x.requires_grad_(), "time": time.requires_grad_(), **_trained(block)}
    block(x, time, given).square().sum().backward()
    return gradients_of(leaves)


def _trained(module: nn.Module) -> dict[str, Tensor]:
    return {f"parameter {n!r}": p for n, p in module.named_parameters() if p.requires_grad}


def gradients_of(leaves: Mapping[str, Tensor]) -> str:
    """All of them there, finite, not zero."""
    if all(leaf.grad is None for leaf in leaves.values()):
        raise ViolationError("nothing has a gradient", "an output that can be trained")
    for name, leaf in leaves.items():
        if leaf.grad is None or not leaf.grad.any():
            raise ViolationError(
                f"{name} {tuple(leaf.shape)} gets no gradient",
                "a gradient in every parameter",
                "use it in forward, or do not make it a parameter",
            )
        if not leaf.grad.isfinite().all():
            raise ViolationError(f"{name} gets a gradient that is not finite", "finite gradients")
    return f"all {len(leaves)} tensors get one"


@suite.check
def uses_input(subject: BlockSubject) -> str:
    """Another x gives another output, and every token has a say."""
    x, time, given = subject.inputs()
    y = subject(x, time, given)
    if not probes.differ(y, subject(subject.inputs(seed=5)[0], time, given)):
        raise ViolationError("another x gives the same output", "an output that depends on x")
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(subject(x, time, given).square().sum(), x)
    idle = int((slope.abs().sum(1) == 0).sum())
    if idle:
        raise ViolationError(
            f"{idle} of {slope[:, 0].numel()} tokens change nothing", "every token to be used"
        )
    return "every token matters"


@suite.check
def uses_time(subject: BlockSubject) -> str:
    """Another time embedding gives another output."""
    x, time, given = subject.inputs()
    if not probes.differ(subject(x, time, given), subject(x, time + 1, given)):
        raise ViolationError(
            "another time embedding gives the same output",
            "an output that depends on the timestep: the noise level is not in x",
        )
    return "the timestep matters"


@suite.check
def batch(subject: BlockSubject) -> str:
    """An image is treated alone: neither the others of the batch nor their number matter."""
    x, time, given = subject.inputs(batch=3)
    together = subject(x, time, given)
    _close(subject(x[1:2], time[1:2], given), together[1:2], "an image alone", "in a batch of 3")
    poisoned = x.clone()
    poisoned[0] = float("nan")
    if not subject(poisoned, time, given)[1:].isfinite().all():
        raise ViolationError("NaN in one image reaches another of the batch", "images kept apart")
    return "images are kept apart"


def _close(got: Tensor, expected: Tensor, one: str, other: str) -> None:
    error = probes.relative(got, expected)
    if not error <= TOLERANCE:
        raise ViolationError(
            f"{one} and {other} differ by {error:.1e} of the largest value",
            f"at most {TOLERANCE:g}",
        )


@suite.check
def determinism(subject: BlockSubject) -> str:
    """In evaluation mode the same call gives the same bits, and draws no random number."""
    arguments = subject.inputs()
    state = torch.get_rng_state()
    first, second = subject(*arguments), subject(*arguments)
    if not torch.equal(torch.get_rng_state(), state):
        raise ViolationError("a call in evaluation mode draws random numbers", "none: call .eval()")
    if not torch.equal(first, second):
        raise ViolationError("two calls with the same arguments differ", "equal bits")
    return "equal bits twice"


@suite.check
def state(subject: BlockSubject) -> str:
    """Its state goes through safetensors into another one, which then gives the same bits."""
    stored = save({k: v.contiguous() for k, v in subject.block.state_dict().items()})
    other = subject.new(seed=1)
    other.load_state_dict(load(stored), strict=True)
    arguments = subject.inputs()
    if not torch.equal(other(*arguments), subject(*arguments)):
        raise ViolationError(
            "a block with the same state gives another output",
            "everything that forward uses in state_dict: parameters, or register_buffer",
        )
    return f"{len(subject.block.state_dict())} tensors"


@suite.check
def export(subject: BlockSubject) -> str:
    """``torch.export`` gives a graph with the orders as inputs, and the same numbers."""
    x, time, given = subject.inputs()
    program = torch.export.export(subject.block, (x, time, given), strict=False).module()
    others = probes.orders_for([GRIDS[0]] * subject.scan_calls, step=1)
    arguments = (x + 1, time - 1, others)
    _close(program(*arguments), subject.block(*arguments), "the exported graph", "the block")
    return "the exported graph agrees"
