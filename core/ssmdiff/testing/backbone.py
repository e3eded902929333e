"""What a backbone must do: serve sizes, tell its S6 calls, use time, orders and what it is told."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ssmdiff.errors import ConfigError
from ssmdiff.orders.scan import Grid, size_text
from ssmdiff.testing import probes
from ssmdiff.testing.block import gradients_of
from ssmdiff.testing.report import NotApplicableError, ViolationError
from ssmdiff.testing.suite import Subject, Suite

SIZES: tuple[Grid, ...] = ((8, 8), (8, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64))
ODD_SIZES: tuple[Grid, ...] = ((1, 1), (7, 5), (31, 33), (32, 33))
CHANNELS, NUMBERS, PLANES, BATCH = 2, 3, 2, 2
TOLERANCE = 1e-4  # of the largest value, where only the sequence of sums may differ


class BackboneSubject(Subject):
    """A backbone of probe blocks, its parameters off their start, and the sizes that it serves."""

    def __init__(self, kind: str, spec: str | Mapping[str, Any]) -> None:
        super().__init__(kind, spec)
        self.log: list[probes.Call] = []
        self.model = self.new()
        self.sizes = [size for size in SIZES if self.serves(size)]

    def new(self, context_channels: int = 0, planes: int = 0) -> nn.Module:
        def block(channels: int, time_channels: int, *, slot: int) -> nn.Module:
            self.built.append(slot)
            return probes.ProbeBlock(channels, time_channels, slot, self.log)

        self.built: list[int] = []

        with probes.seeded(0):
            model: nn.Module = self.build(
                in_channels=CHANNELS + planes,
                out_channels=CHANNELS,
                scan=probes.ProbeScan(),
                block=block,
                context_channels=context_channels,
            )
        return probes.move_parameters(model).eval()

    def serves(self, size: Grid) -> bool:
        try:
            self.slots(size)
        except ConfigError:
            return False
        return True

    def slots(self, size: Grid) -> list[Grid]:
        return [slot.grid for slot in self.model.scan_slots(size)]  # type: ignore[operator]

    @property
    def size(self) -> Grid:
        """The smallest size with more than one token in its largest grid."""
        if not self.sizes:
            raise NotApplicableError("no size is served; see 'sizes'")
        return self.sizes[0]

    def inputs(self, size: Grid | None = None, batch: int = BATCH, step: int = 0) -> dict[str, Any]:
        """Keyword arguments of a call."""
        size = size or self.size
        g = torch.Generator().manual_seed(batch)
        return {
            "x": torch.randn(batch, CHANNELS, *size, generator=g),
            "timesteps": torch.arange(1, batch + 1) * 7,
            "orders": probes.orders_for(self.slots(size), step=step),
        }

    def __call__(self, **arguments: Any) -> Tensor:
        with torch.no_grad():
            y: Tensor = self.model(**arguments)
        return y


suite = Suite("backbone", BackboneSubject)


@suite.check
def sizes(subject: BackboneSubject) -> str:
    """It serves some sizes, with the output in the shape of x."""
    if not subject.sizes:
        raise ViolationError(
            f"refuses all of {', '.join(map(size_text, SIZES))}",
            "at least one of these image sizes",
        )
    for size in subject.sizes[:3]:
        for batch in (1, 3):
            _shaped(subject(**subject.inputs(size, batch)), (batch, CHANNELS, *size), size)
    return f"serves {', '.join(map(size_text, subject.sizes))}"


def _shaped(y: Any, expected: tuple[int, ...], size: Grid) -> None:
    if not isinstance(y, Tensor) or tuple(y.shape) != expected or y.dtype != torch.float32:
        got = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise ViolationError(
            f"{got} for images of {size_text(size)}", f"torch.float32 {expected}, as x"
        )
    if not y.isfinite().all():
        raise ViolationError(
            f"values that are not finite for images of {size_text(size)}", "finite values"
        )


@suite.check
def refusals(subject: BackboneSubject) -> str:
    """A size that it cannot serve is a ConfigError, from ``scan_slots`` and from the call."""
    refused = 0
    for size in (*ODD_SIZES, *SIZES):
        if subject.serves(size):
            if size in ODD_SIZES:
                x = torch.randn(1, CHANNELS, *size)
                _shaped(subject(x=x, timesteps=torch.tensor([3])), tuple(x.shape), size)
            continue
        refused += 1
        try:
            subject(x=torch.randn(1, CHANNELS, *size), timesteps=torch.tensor([3]))
        except ConfigError:
            continue
        raise ViolationError(
            f"scan_slots refuses {size_text(size)} and the call serves it",
            "a ConfigError from both",
        )
    return f"{refused} sizes refused with a ConfigError"


@suite.check
def slots(subject: BackboneSubject) -> str:
    """``scan_slots`` lists the S6 calls, each with its grid; each block gets its own orders."""
    for size in subject.sizes[:3]:
        arguments = subject.inputs(size)
        subject.log.clear()
        subject(**arguments)
        calls, expected = sorted(subject.log, key=lambda call: call[0]), subject.slots(size)
        if [slot for slot, _, _ in calls] != list(range(len(expected))):
            raise ViolationError(
                f"the S6 calls of a forward pass are at the slots {[slot for slot, _, _ in calls]} "
                f"for images of {size_text(size)}",
                f"each of the {len(expected)} slots once, as scan_slots says",
            )
        if [grid for _, grid, _ in calls] != expected:
            raise ViolationError(
                f"blocks are called on the grids {[grid for _, grid, _ in calls]} for images of "
                f"{size_text(size)}",
                f"{expected}, as scan_slots says, one for each order that a block takes",
            )
        for (slot, _, used), given in zip(calls, arguments["orders"], strict=True):
            if not torch.equal(used, given):
                raise ViolationError(
                    f"the S6 call at slot {slot} is given another order",
                    f"order {slot} of the call's: ssmdiff.nn.orders_of(block, orders)",
                )
    if not subject.sizes:
        raise NotApplicableError("no size is served; see 'sizes'")
    return f"{len(subject.slots(subject.size))} S6 calls on images of {size_text(subject.size)}"


@suite.check
def building(subject: BackboneSubject) -> str:
    """Each block is built for slots of its own: a scan may vary by slot."""
    calls = probes.ProbeBlock.scan_calls
    taken = sorted(slot + i for slot in subject.built for i in range(calls))
    wanted = len(subject.slots(subject.size))
    if taken != list(range(wanted)):
        raise ViolationError(
            f"blocks of {calls} S6 calls are built for the slots {subject.built}",
            f"each of the {wanted} slots of scan_slots in one block",
            "block(channels, time_channels, slot=...), the slot of the block's first S6 call",
        )
    return f"{len(subject.built)} blocks"


@suite.check
def timesteps(subject: BackboneSubject) -> str:
    """Timesteps may be (), (1,) or (B,), integer or float, and they matter."""
    arguments = subject.inputs()
    del arguments["timesteps"]
    expected = subject(timesteps=torch.tensor([5] * BATCH), **arguments)
    for t in (torch.tensor(5), torch.tensor([5]), torch.tensor(5.0), torch.tensor([5.0] * BATCH)):
        error = probes.relative(subject(timesteps=t, **arguments), expected)
        if not error <= TOLERANCE:
            raise ViolationError(
                f"timesteps of shape {tuple(t.shape)} in {t.dtype} change the result by "
                f"{error:.1e}",
                "the same for (), (1,) and (B,), integer and float",
            )
    if not probes.differ(expected, subject(timesteps=torch.tensor(400), **arguments)):
        raise ViolationError(
            "other timesteps give the same output", "an output that depends on them"
        )
    return "(), (1,) and (B,), integer and float"


@suite.check
def orders(subject: BackboneSubject) -> str:
    """Given orders are used; without them it draws its own, governed by torch.manual_seed."""
    given = subject.inputs()
    if not given["orders"]:
        raise NotApplicableError("makes no S6 call")
    y = subject(**given)
    if not probes.differ(y, subject(**{**given, "orders": subject.inputs(step=1)["orders"]})):
        raise ViolationError("other orders give the same output", "the orders that are given, used")
    del given["orders"]
    drawn = []
    for seed in (1, 1, 2):
        with probes.seeded(seed):
            drawn.append(subject(**given))
    if not torch.equal(drawn[0], drawn[1]):
        raise ViolationError(
            "two calls without orders differ under one torch.manual_seed",
            "orders drawn from torch's global generator",
            "orders = ssmdiff.own_orders(self.scan, slots, x.device)",
        )
    if not probes.differ(drawn[0], drawn[2]):
        raise ViolationError("calls under two seeds are equal", "fresh orders of a random scan")
    return "used where given, else drawn"


@suite.check
def context(subject: BackboneSubject) -> str:
    """A model that is told (B, M) numbers uses each of them."""
    try:
        model = subject.new(context_channels=NUMBERS)
    except ConfigError as error:
        raise NotApplicableError(f"is told no numbers: {error}") from error
    arguments = subject.inputs()
    told = [*torch.eye(NUMBERS), torch.full((NUMBERS,), 0.5)]
    with torch.no_grad():
        ys = [model(context=numbers.expand(BATCH, -1), **arguments) for numbers in told]
    if any(not probes.differ(ys[-1], y) for y in ys[:-1]):
        raise ViolationError(
            "other numbers give the same output", "an output that depends on each of context"
        )
    return f"{NUMBERS} numbers"


@suite.check
def place(subject: BackboneSubject) -> str:
    """Further channels of the input are used, and the output has those of the image."""
    model, arguments = subject.new(planes=PLANES), subject.inputs()
    planes = torch.zeros(BATCH, PLANES, *subject.size)
    ys = []
    for number in range(PLANES + 1):
        told = planes.clone()
        told[:, :number] = 1
        x = torch.cat([arguments["x"], told], dim=1)
        with torch.no_grad():
            ys.append(model(**{**arguments, "x": x}))
    _shaped(ys[0], (BATCH, CHANNELS, *subject.size), subject.size)
    if any(not probes.differ(a, b) for a, b in itertools.pairwise(ys)):
        raise ViolationError(
            "another plane gives the same output", "an output that depends on each input channel"
        )
    return f"{PLANES} planes beside {CHANNELS} channels"


@suite.check
def batch(subject: BackboneSubject) -> str:
    """An image is treated alone."""
    arguments = subject.inputs(batch=3)
    one = {**arguments, "x": arguments["x"][1:2], "timesteps": arguments["timesteps"][1:2]}
    error = probes.relative(subject(**one), subject(**arguments)[1:2])
    if not error <= TOLERANCE:
        raise ViolationError(
            f"an image alone and in a batch of 3 differ by {error:.1e}", f"at most {TOLERANCE:g}"
        )
    return "images are kept apart"


@suite.check
def gradients(subject: BackboneSubject) -> str:
    """Every parameter gets a gradient, those of a conditional model too."""
    try:
        model = subject.new(context_channels=NUMBERS).train()
        labels = {"context": torch.eye(NUMBERS)}
    except ConfigError:
        model, labels = subject.new().train(), {}
    arguments = subject.inputs(batch=3)
    model(**arguments, **labels).square().sum().backward()
    return gradients_of(
        {f"parameter {n!r}": p for n, p in model.named_parameters() if p.requires_grad}
    )


@suite.check
def autocast(subject: BackboneSubject) -> str:
    """Finite under bfloat16 autocast, as mixed precision training runs it."""
    with torch.autocast("cpu", torch.bfloat16):
        y = subject(**subject.inputs())
    if not y.isfinite().all():
        raise ViolationError("values that are not finite in bfloat16", "finite values")
    return f"finite, {y.dtype}"


@suite.check
def determinism(subject: BackboneSubject) -> str:
    """In evaluation mode equal bits twice, and from a deep copy, which averaged weights are."""
    arguments = subject.inputs()
    y = subject(**arguments)
    if not torch.equal(y, subject(**arguments)):
        raise ViolationError("two calls with the same arguments differ", "equal bits")
    with torch.no_grad():
        copied = copy.deepcopy(subject.model)(**arguments)
    if not torch.equal(y, copied):
        raise ViolationError("a deep copy gives another output", "equal bits")
    return "equal bits twice and from a deep copy"


@suite.check
def state(subject: BackboneSubject) -> str:
    """Its state goes into another one, which then gives the same bits."""
    other = subject.new()
    with torch.no_grad():
        for tensor in (*other.parameters(), *other.buffers()):
            tensor.zero_()
    other.load_state_dict(subject.model.state_dict(), strict=True)
    arguments = subject.inputs()
    with torch.no_grad():
        equal = torch.equal(other.eval()(**arguments), subject(**arguments))
    if not equal:
        raise ViolationError(
            "a model with the same state gives another output",
            "everything that forward uses in state_dict: parameters, or register_buffer",
        )
    return f"{len(subject.model.state_dict())} tensors"


@suite.check
def export(subject: BackboneSubject) -> str:
    """``torch.export`` gives a graph with the orders as inputs, and the same numbers."""
    example = subject.inputs()
    program = torch.export.export(subject.model, (), example, strict=False).module()
    for step in (0, 1):
        arguments = subject.inputs(step=step)
        with torch.no_grad():
            error = probes.relative(program(**arguments), subject.model(**arguments))
        if not error <= TOLERANCE:
            raise ViolationError(
                f"the exported graph differs by {error:.1e} with the orders of step {step}",
                f"at most {TOLERANCE:g}",
            )
    return "the exported graph agrees, with other orders too"
