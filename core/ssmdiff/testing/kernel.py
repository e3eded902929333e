"""What a kernel must do: the float64 reference's numbers, forward and in every gradient.

The inputs and the table of tolerances are in :mod:`ssmdiff.testing.kernel_cases`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ssmdiff.errors import KernelUnavailableError
from ssmdiff.ops import Kernel, ScanInputs, TorchKernel, selective_scan, use_kernel
from ssmdiff.testing import kernel_cases as cases
from ssmdiff.testing.kernel_cases import METHODS, RESULTS, TOLERANCE, make_inputs
from ssmdiff.testing.poison import poisoned
from ssmdiff.testing.report import NotApplicableError, ViolationError
from ssmdiff.testing.suite import Subject, Suite

SAME_BITS = ("always", "per thread count", "never")
"""What a kernel may say in ``same_bits`` of calls with equal inputs; it is held to the first if it
says nothing."""

Results = Mapping[str, Tensor | None]


class KernelSubject(Subject):
    """A kernel, and the devices and dtypes that it can run on here."""

    def __init__(self, kind: str, spec: str | Mapping[str, Any]) -> None:
        super().__init__(kind, spec)
        self.kernel: Kernel = self.build()
        self.same_bits: str = getattr(self.kernel, "same_bits", SAME_BITS[0])
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

    @functools.cached_property
    def restarts(self) -> bool:
        """Whether it takes restarts; it may refuse them, as mamba-ssm's does."""
        try:
            self.kernel.forward(make_inputs((1, 3, 2, 1, 1)).to(*self.somewhere()))
        except KernelUnavailableError:
            return False
        return True

    def inputs(self, shape: cases.Shape, device: torch.device, dtype: torch.dtype) -> ScanInputs:
        """Random inputs there, with restarts where it takes them."""
        inputs = make_inputs(shape).to(device, dtype)
        return inputs if self.restarts else inputs._replace(restart=None)

    def somewhere(self) -> tuple[torch.device, torch.dtype]:
        """The last place of those where it runs: an accelerator before the CPU, and float32."""
        if not self.places:
            raise NotApplicableError(f"cannot run here: {'; '.join(self.reasons)}")
        preferred = [place for place in self.places if place[1] == torch.float32]
        return (preferred or self.places)[-1]


suite = Suite("kernel", KernelSubject)


def _compare(subject: KernelSubject, inputs: ScanInputs, told: str) -> float | None:
    """The largest float32 (or float64) error over all places and results of one case.

    None where the kernel refuses the call, which is an answer and not a wrong number.
    """
    exact: Results = {}
    known: ScanInputs | None = None
    largest: float | None = None
    for device, dtype in subject.places:
        given = inputs.to(device, dtype)
        try:
            found = cases.results(subject.kernel, given)
        except KernelUnavailableError:
            continue
        seen = given.to("cpu", torch.float64)  # as the dtype holds them
        if known is None or not _equal_inputs(seen, known):
            known, exact = seen, cases.results(TorchKernel(), seen)
        relative = _hold(found, exact, given, told)
        single = dtype in (torch.float64, torch.float32)
        largest = max(largest or 0.0, relative if single else 0.0)
    return largest


def _equal_inputs(one: ScanInputs, other: ScanInputs) -> bool:
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if isinstance(a, Tensor)]
    return all(isinstance(b, Tensor) and torch.equal(a, b) for a, b in pairs)


def _hold(found: Results, exact: Results, given: ScanInputs, told: str) -> float:
    """The largest error of one call's results, each of which is held against the table."""
    largest = 0.0
    for name in RESULTS:
        got, expected = found[name], exact[name]
        like = given.u if name == "y" else getattr(given, name)
        where = f"{name} on {given.u.device} in {given.u.dtype}, {told}"
        if got is None or expected is None:
            if got is not expected:
                raise ViolationError(f"{where} is {'missing' if got is None else 'there'}", "as D")
            continue
        if got.dtype != like.dtype or got.shape != like.shape or got.device != like.device:
            raise ViolationError(
                f"{where} is {got.dtype} {tuple(got.shape)} on {got.device}",
                f"{like.dtype} {tuple(like.shape)} on {like.device}",
            )
        error, limit = cases.error_of(name, got, expected), cases.limit_of(name, got.dtype)
        if error == float("inf"):
            raise ViolationError(
                f"{where} is NaN or infinite", "finite values where the float64 reference's are"
            )
        if not error <= limit:
            raise ViolationError(
                f"{where} is off by {error:.1e} of the largest value of its channel",
                f"at most {limit:.0e}, against the float64 reference ({got.dtype}: "
                f"{TOLERANCE[got.dtype].reason})",
            )
        largest = max(largest, error)
    return largest


def _compare_all(
    subject: KernelSubject, made: Iterable[tuple[str, ScanInputs]], methods: Iterable[str] = METHODS
) -> tuple[int, float]:
    """How many cases were compared, and the largest error."""
    largest, count = 0.0, 0
    for (told, inputs), method in itertools.product(list(made), methods):
        given = inputs._replace(discretization=method)
        if not subject.restarts:
            given = given._replace(restart=None)
        error = _compare(subject, given, f"{told}, {method}")
        if error is not None:
            count, largest = count + 1, max(largest, error)
    if not count:
        raise NotApplicableError("it refuses every such call")
    return count, largest


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
    if subject.same_bits not in SAME_BITS:
        raise ViolationError(f"same_bits is {subject.same_bits!r}", f"one of {SAME_BITS}")
    subject.somewhere()
    return "runs on " + ", ".join(f"{device} {dtype}" for device, dtype in subject.places)


@suite.check
def numbers(subject: KernelSubject) -> str:
    """Forward and every gradient, on odd shapes, along random orders, with restarts."""
    subject.somewhere()
    made = ((f"B, L, D, K, N = {shape}", make_inputs(shape)) for shape in cases.SHAPES)
    _, largest = _compare_all(subject, made)
    return f"{len(cases.SHAPES)} shapes, euler and zoh: within {largest:.0e} of float64"


@suite.check
def edges(subject: KernelSubject) -> str:
    """One token, channel or state; K from 1 to 8; restarts at the first token and at every one."""
    subject.somewhere()
    count, largest = _compare_all(subject, cases.edges())
    return f"{count} cases: within {largest:.0e} of float64"


@suite.check
def hostile(subject: KernelSubject) -> str:
    """Steps from 1e-6 to 50, A from 0 to -1e4, large and tiny B and C: finite and right."""
    subject.somewhere()
    places, count, largest = subject.places, 0, 0.0
    for place in places:
        subject.places = [place]  # what a dtype can hold decides how hostile its inputs are
        try:
            each, worst = _compare_all(subject, cases.hostile(place[1]))
        finally:
            subject.places = places
        count, largest = count + each, max(largest, worst)
    return f"{count} cases: finite, and within {largest:.0e} of float64"


@suite.check
def long(subject: KernelSubject) -> str:
    """States that hardly decay, over many tokens."""
    subject.somewhere()
    _, largest = _compare_all(subject, [cases.long()], ("euler",))
    return f"{cases.LONG} tokens: within {largest:.0e} of float64"


@suite.check
def not_a_number(subject: KernelSubject) -> str:
    """NaN in one number reaches the results that it reaches in the reference, and no others."""
    subject.somewhere()
    names = ("u", "delta", "A", "B", "C", "D", "delta_bias", "grad_y")
    for place, method, name in itertools.product(subject.places, METHODS, names):
        exact = make_inputs(cases.NAN, restart=None, discretization=method)
        given = {**exact._asdict(), "grad_y": cases.gradient_of_y(exact)}
        given[name] = given[name].clone()
        place_of_nan = (-1, ..., 4, 2) if given[name].dim() > 2 else (-1, 2)
        given[name][place_of_nan] = torch.nan  # in the last image, or direction
        grad_y = given.pop("grad_y")
        exact = ScanInputs(**given)
        inputs = exact.to(*place)
        try:
            found = cases.results(subject.kernel, inputs, grad_y.to(inputs.u))
        except KernelUnavailableError:
            continue
        for result, expected in cases.results(TorchKernel(), exact, grad_y).items():
            got = found[result]
            if got is None or expected is None:
                continue
            nan, wanted = got.cpu().isnan(), expected.isnan()
            more, fewer = int((nan & ~wanted).sum()), int((wanted & ~nan).sum())
            if more or fewer:
                raise ViolationError(
                    f"NaN in one number of {name}, {method}, {place[0]} {place[1]}: {result} has "
                    f"{more} NaN where the reference has none and lacks {fewer} that it has",
                    "NaN exactly where the reference has it",
                )
    return "NaN goes where the reference's goes, forward and in every gradient"


@suite.check
def absent_inputs(subject: KernelSubject) -> str:
    """D, delta_bias and restart may each be left out, and softplus switched off."""
    subject.somewhere()
    inputs = make_inputs(cases.SHAPES[1])
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
    """As under autocast: activations in 16 bits, parameters in float32; each keeps its own."""
    subject.somewhere()
    ran = []
    for device, dtype in subject.places:
        if dtype not in (torch.bfloat16, torch.float16):
            continue
        inputs = subject.inputs(cases.SHAPES[1], device, torch.float32)
        half = {name: getattr(inputs, name).to(dtype) for name in ("u", "delta", "B", "C")}
        mixed = inputs._replace(**half)
        exact = cases.results(TorchKernel(), mixed.to("cpu", torch.float64))
        _hold(cases.results(subject.kernel, mixed), exact, mixed, "parameters in float32")
        ran.append(str(dtype))
    if not ran:
        raise NotApplicableError("takes no 16 bits")
    return f"{', '.join(ran)} beside float32: each tensor keeps its dtype"


@suite.check
def layout(subject: KernelSubject) -> str:
    """The strides of the inputs do not matter."""
    device, dtype = subject.somewhere()
    inputs = subject.inputs(cases.SHAPES[1], device, dtype)

    def strided(x: Tensor) -> Tensor:
        wide = x.new_zeros(*x.shape[:-2], x.shape[-1], 2 * x.shape[-2])
        wide[..., ::2] = x.transpose(-1, -2)
        return wide[..., ::2].transpose(-1, -2)

    values: list[Any] = [strided(x) if isinstance(x, Tensor) else x for x in inputs]
    exact = cases.results(TorchKernel(), inputs.to("cpu", torch.float64))
    apart = ScanInputs(*values)
    _hold(cases.results(subject.kernel, apart), exact, apart, "strided inputs")
    return "strided inputs give the same"


@suite.check
def inside_the_op(subject: KernelSubject) -> str:
    """It works where it will run: inside the op, where torch.autograd is off."""
    device, dtype = subject.somewhere()
    inputs = make_inputs(cases.SHAPES[1], restart=None).to(device, dtype)
    grad_y = torch.randn(inputs.u.shape, generator=torch.Generator().manual_seed(1)).to(inputs.u)
    expected = subject.kernel.backward(grad_y, inputs)
    leaves = {name: getattr(inputs, name).clone().requires_grad_() for name in RESULTS[1:]}
    try:
        with use_kernel(subject.kernel):
            selective_scan(*inputs._replace(**leaves)).backward(grad_y)
    except RuntimeError as error:
        raise ViolationError(
            f"a backward pass through the op raised {type(error).__name__}: {error}",
            "gradients written out, without torch.autograd, which is off inside the op",
        ) from error
    found = {name: leaf.grad for name, leaf in leaves.items()}
    if subject.same_bits == "always":
        _same(found, expected._asdict(), "through the op")
    else:
        exact = {name: None if g is None else g.double() for name, g in expected._asdict().items()}
        _hold({"y": None, **found}, {"y": None, **exact}, inputs, "through the op")
    return "a backward pass through ssmdiff::selective_scan"


@suite.check
def every_element(subject: KernelSubject) -> str:
    """Every element of a result is written: memory that was never set holds NaN here."""
    device, dtype = subject.somewhere()
    for shape, method in itertools.product(cases.SHAPES, METHODS):
        inputs = subject.inputs(shape, device, dtype)._replace(discretization=method)
        try:
            expected = cases.results(subject.kernel, inputs)
        except KernelUnavailableError:
            continue
        with poisoned():
            got = cases.results(subject.kernel, inputs)
        _agree(subject, got, expected, inputs, f"memory that was never set, {shape}, {method}")
    return "no memory is read before it is set"


@suite.check
def determinism(subject: KernelSubject) -> str:
    """The same bits every time, unless it says otherwise, and the inputs left as they were."""
    device, dtype = subject.somewhere()
    for shape in (cases.SHAPES[1], *cases.SMALL):
        inputs, untouched = (subject.inputs(shape, device, dtype) for _ in range(2))
        first = cases.results(subject.kernel, inputs)
        for name, value in untouched._asdict().items():
            if isinstance(value, Tensor) and not torch.equal(getattr(inputs, name), value):
                raise ViolationError(f"{name} was written to", "inputs as they were")
        _agree(subject, cases.results(subject.kernel, inputs), first, inputs, "a second call")
    return (
        "equal bits twice" if subject.same_bits != "never" else "equal up to rounding, as it says"
    )


@suite.check
def threads(subject: KernelSubject) -> str:
    """One thread and two give the same bits, unless it says otherwise."""
    cpu = [dtype for device, dtype in subject.places if device.type == "cpu"]
    if not cpu:
        raise NotApplicableError("does not run on the CPU")
    dtype = torch.float32 if torch.float32 in cpu else cpu[-1]
    before = torch.get_num_threads()
    found = []
    inputs = subject.inputs((2, 35, 50, 3, 5), torch.device("cpu"), dtype)
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(cases.results(subject.kernel, inputs))
    finally:
        torch.set_num_threads(before)
    bits = subject.same_bits == "always"
    _agree(subject, found[1], found[0], inputs, "two threads, not one", bits)
    return "one thread and two: equal bits" if bits else "one thread and two: equal up to rounding"


def _agree(
    subject: KernelSubject,
    got: Results,
    expected: Results,
    inputs: ScanInputs,
    told: str,
    bits: bool | None = None,
) -> None:
    """Equal bits, or where the kernel does not promise them, equal within the table."""
    if subject.same_bits != "never" if bits is None else bits:
        _same(got, expected, told)
    else:
        _hold(
            got, {n: None if x is None else x.double() for n, x in expected.items()}, inputs, told
        )


def _same(
    got: Mapping[str, Tensor | None], expected: Mapping[str, Tensor | None], told: str
) -> None:
    for name, value in expected.items():
        other = got[name]
        if value is None or other is None:
            continue
        if not torch.equal(other, value):
            raise ViolationError(f"{told}: {name} differs", "equal bits")
