"""What a kernel must do: the float64 reference's numbers, forward and in every gradient."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ssmdiff.errors import KernelUnavailableError
from ssmdiff.ops import Kernel, ScanInputs, TorchKernel, selective_scan, use_kernel
from ssmdiff.testing import probes
from ssmdiff.testing.report import NotApplicableError, ViolationError
from ssmdiff.testing.suite import Subject, Suite

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 2**-7}
"""Of the largest value of each tensor, against the reference in float64."""
SHAPES = (
    (1, 1, 1, 1, 1),
    (2, 35, 19, 3, 5),
    (1, 64, 16, 4, 16),
    (3, 7, 33, 2, 8),
    (2, 20, 5, 1, 3),
)
"""(B, L, D, K, N): one of everything, odd, even, more channels than tokens."""
GRADIENTS = ("u", "delta", "A", "B", "C", "D", "delta_bias")


class KernelSubject(Subject):
    """A kernel, and the devices and dtypes that it can run on here."""

    def __init__(self, kind: str, spec: str | Mapping[str, Any]) -> None:
        super().__init__(kind, spec)
        self.kernel: Kernel = self.build()
        devices = [torch.device("cpu")]
        if torch.accelerator.is_available():
            devices.append(torch.accelerator.current_accelerator() or devices[0])
        self.places: list[tuple[torch.device, torch.dtype]] = []
        self.reasons: dict[str, None] = {}
        for place in itertools.product(devices, TOLERANCE):
            reason = self.kernel.unavailable(*place)
            if reason is None:
                self.places.append(place)
            else:
                self.reasons[str(reason)] = None

    def somewhere(self) -> tuple[torch.device, torch.dtype]:
        """The last place of those where it runs: an accelerator before the CPU, and float32."""
        if not self.places:
            raise NotApplicableError(f"cannot run here: {'; '.join(self.reasons)}")
        preferred = [place for place in self.places if place[1] == torch.float32]
        return (preferred or self.places)[-1]


suite = Suite("kernel", KernelSubject)


def make_inputs(shape: tuple[int, int, int, int, int], seed: int = 0, **options: Any) -> ScanInputs:
    """Random inputs in float64 that are exact in bfloat16, so that no dtype rounds them."""
    batch, L, D, K, N = shape
    g = torch.Generator().manual_seed(seed)

    def normal(*sides: int) -> Tensor:
        return torch.randn(sides, generator=g).bfloat16().double()

    inputs = ScanInputs(
        normal(batch, L, D),
        normal(batch, K, L, D),
        (-torch.rand(K, D, N, generator=g) - 0.05).bfloat16().double(),
        normal(batch, K, L, N),
        normal(batch, K, L, N),
        torch.stack([torch.randperm(L, generator=g) for _ in range(K)]).int(),
        normal(K, D),
        normal(K, D),
        torch.rand(K, L, generator=g) < 0.1,
    )
    return inputs._replace(**options)


def results(kernel: Kernel, inputs: ScanInputs) -> dict[str, Tensor | None]:
    """The output and every gradient, by name."""
    g = torch.Generator().manual_seed(1)
    grad_y = torch.randn(inputs.u.shape, generator=g).bfloat16()
    y = kernel.forward(inputs)
    gradients = kernel.backward(grad_y.to(inputs.u), inputs)
    return {"y": y, **dict(zip(GRADIENTS, gradients, strict=True))}


def _compare(subject: KernelSubject, inputs: ScanInputs, told: str) -> float:
    """The largest relative error over all places, dtypes and tensors."""
    expected = results(TorchKernel(), inputs)
    largest = 0.0
    for device, dtype in subject.places:
        given = inputs.to(device, dtype)
        try:
            found = results(subject.kernel, given)
        except KernelUnavailableError:
            continue  # it says that it has no such call: an answer, not a wrong number
        for name, got in found.items():
            exact = expected[name]
            where = f"{name} on {device} in {dtype}, {told}"
            if got is None or exact is None:
                if got is not exact:
                    raise ViolationError(
                        f"{where} is {'missing' if got is None else 'there'}", "as D"
                    )
                continue
            like = given.u if name == "y" else getattr(given, name)
            if got.dtype != like.dtype or got.shape != like.shape or got.device != like.device:
                raise ViolationError(
                    f"{where} is {got.dtype} {tuple(got.shape)} on {got.device}",
                    f"{like.dtype} {tuple(like.shape)} on {like.device}",
                )
            error = got.cpu().double() - exact
            relative = float(error.abs().max()) / (float(exact.abs().max()) or 1.0)
            if not relative <= TOLERANCE[dtype]:
                raise ViolationError(
                    f"{where} is off by {relative:.1e} of the largest value",
                    f"at most {TOLERANCE[dtype]:.0e}, against the float64 reference",
                )
            if dtype != torch.bfloat16:
                largest = max(largest, relative)
    return largest


@suite.check
def availability(subject: KernelSubject) -> str:
    """It says where it can run, and why not where it cannot."""
    if not isinstance(getattr(subject.kernel, "name", None), str):
        raise ViolationError("there is no name", f"name = {subject.name!r}")
    if subject.kernel.name != subject.name:
        raise ViolationError(
            f"name is {subject.kernel.name!r}", f"{subject.name!r}, as it is listed"
        )
    if "" in subject.reasons:
        raise ViolationError("a reason is empty", "a sentence, or None where the kernel can run")
    subject.somewhere()
    return "runs on " + ", ".join(f"{device} {dtype}" for device, dtype in subject.places)


@suite.check
def numbers(subject: KernelSubject) -> str:
    """Forward and every gradient, on odd shapes, along random orders, with restarts."""
    subject.somewhere()
    largest = 0.0
    for shape, method in itertools.product(SHAPES, ("euler", "zoh")):
        told = f"B, L, D, K, N = {shape}, {method}"
        largest = max(largest, _compare(subject, make_inputs(shape, discretization=method), told))
    return f"{len(SHAPES)} shapes, euler and zoh: within {largest:.0e} of float64"


@suite.check
def absent_inputs(subject: KernelSubject) -> str:
    """D, delta_bias and restart may each be left out, and softplus switched off."""
    subject.somewhere()
    inputs = make_inputs(SHAPES[1])
    steps = inputs.delta.abs()
    for change in (
        {"D": None},
        {"delta_bias": None},
        {"restart": None},
        {"D": None, "delta_bias": None, "restart": None},
        {"delta": steps, "delta_bias": None, "delta_softplus": False},
    ):
        _compare(subject, inputs._replace(**change), f"without {', '.join(change)}")
    return "D, delta_bias, restart and softplus are optional"


@suite.check
def mixed_dtypes(subject: KernelSubject) -> str:
    """As under autocast: activations in bfloat16, parameters in float32; each keeps its own."""
    device, _ = subject.somewhere()
    if (device, torch.bfloat16) not in subject.places:
        raise NotApplicableError("does not take bfloat16")
    inputs = make_inputs(SHAPES[1]).to(device, torch.float32)
    half = {name: getattr(inputs, name).bfloat16() for name in ("u", "delta", "B", "C")}
    for name, got in results(subject.kernel, inputs._replace(**half)).items():
        expected = torch.bfloat16 if name in ("y", *half) else torch.float32
        if got is not None and got.dtype != expected:
            raise ViolationError(f"{name} is {got.dtype}", expected)
    return "each tensor keeps its dtype"


@suite.check
def layout(subject: KernelSubject) -> str:
    """The strides of the inputs do not matter."""
    device, dtype = subject.somewhere()
    inputs = make_inputs(SHAPES[1]).to(device, dtype)

    def strided(x: Tensor) -> Tensor:
        wide = x.new_zeros(*x.shape[:-2], x.shape[-1], 2 * x.shape[-2])
        wide[..., ::2] = x.transpose(-1, -2)
        return wide[..., ::2].transpose(-1, -2)

    values: list[Any] = [strided(x) if isinstance(x, Tensor) else x for x in inputs]
    apart = ScanInputs(*values)
    expected = results(subject.kernel, inputs)
    for name, got in results(subject.kernel, apart).items():
        exact = expected[name]
        if got is None or exact is None:
            continue
        error = probes.relative(got, exact)
        if not error <= TOLERANCE[dtype]:
            raise ViolationError(
                f"{name} of strided inputs is off by {error:.1e}", f"at most {TOLERANCE[dtype]:g}"
            )
    return "strided inputs give the same"


@suite.check
def inside_the_op(subject: KernelSubject) -> str:
    """It works where it will run: inside the op, where torch.autograd is off."""
    device, dtype = subject.somewhere()
    inputs = make_inputs(SHAPES[1], restart=None).to(device, dtype)
    grad_y = torch.randn(inputs.u.shape, generator=torch.Generator().manual_seed(1)).to(inputs.u)
    expected = subject.kernel.backward(grad_y, inputs)
    leaves = {name: getattr(inputs, name).clone().requires_grad_() for name in GRADIENTS}
    try:
        with use_kernel(subject.kernel):
            selective_scan(*inputs._replace(**leaves)).backward(grad_y)
    except RuntimeError as error:
        raise ViolationError(
            f"a backward pass through the op raised {type(error).__name__}: {error}",
            "gradients written out, without torch.autograd, which is off inside the op",
        ) from error
    found = {name: leaf.grad for name, leaf in leaves.items()}
    _same(found, expected._asdict(), "through the op")
    return "a backward pass through ssmdiff::selective_scan"


@suite.check
def every_element(subject: KernelSubject) -> str:
    """Every element of a result is written: memory that was never set holds NaN here."""
    device, dtype = subject.somewhere()
    for shape in SHAPES:
        inputs = make_inputs(shape).to(device, dtype)
        expected = results(subject.kernel, inputs)
        with _poisoned():
            got = results(subject.kernel, inputs)
        _same(got, expected, f"memory that was never set, B, L, D, K, N = {shape}")
    return "no memory is read before it is set"


@contextlib.contextmanager
def _poisoned() -> Iterator[None]:
    """torch.empty and its kin give NaN: torch fills what it hands out."""
    before = torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = True
    try:
        yield
    finally:
        memory.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(before, warn_only=warn)


@suite.check
def determinism(subject: KernelSubject) -> str:
    """The same bits every time, and the inputs left as they were."""
    device, dtype = subject.somewhere()
    inputs, untouched = (make_inputs(SHAPES[2]).to(device, dtype) for _ in range(2))
    first = results(subject.kernel, inputs)
    for name, value in untouched._asdict().items():
        if isinstance(value, Tensor) and not torch.equal(getattr(inputs, name), value):
            raise ViolationError(f"{name} was written to", "inputs as they were")
    _same(results(subject.kernel, inputs), first, "a second call")
    return "equal bits twice"


def _same(
    got: Mapping[str, Tensor | None], expected: Mapping[str, Tensor | None], told: str
) -> None:
    for name, value in expected.items():
        other = got[name]
        if value is None or other is None:
            continue
        if not torch.equal(other, value):
            raise ViolationError(f"{told}: {name} differs", "equal bits")
