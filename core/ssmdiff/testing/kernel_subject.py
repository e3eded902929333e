"""A kernel under the checks of :mod:`ssmdiff.testing.kernel`, and how its results are compared."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ssmdiff.errors import KernelUnavailableError
from ssmdiff.ops import Kernel, ScanInputs, TorchKernel
from ssmdiff.testing import kernel_cases as cases
from ssmdiff.testing.kernel_cases import METHODS, RESULTS, TOLERANCE, make_inputs
from ssmdiff.testing.report import NotApplicableError, ViolationError
from ssmdiff.testing.suite import Subject

SAME_BITS = ("always", "per thread count", "never")
"""What a kernel may say in ``same_bits`` of calls with equal inputs; the first is expected of one
that says nothing."""

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
        self.targets: list[tuple[torch.device, torch.dtype]] = []
        self.reasons: dict[str, None] = {}
        for place in itertools.product(devices, TOLERANCE):
            reason = self.kernel.unavailable(*place)
            if reason is None:
                self.targets.append(place)
            else:
                self.reasons[str(reason)] = None

    @functools.cached_property
    def restarts(self) -> bool:
        """Whether it takes restarts; it may refuse them, as mamba-ssm's does."""
        try:
            inputs = make_inputs((1, 3, 2, 1, 1))
            everywhere = torch.ones_like(inputs.order, dtype=torch.bool)
            self.kernel.forward(cases.restarted(inputs, everywhere).to(*self.somewhere()))
        except KernelUnavailableError:
            return False
        return True

    def inputs(self, shape: cases.Shape, device: torch.device, dtype: torch.dtype) -> ScanInputs:
        """Random inputs there, with restarts where it takes them."""
        inputs = make_inputs(shape).to(device, dtype)
        return inputs if self.restarts else cases.without_restarts(inputs)

    def somewhere(self) -> tuple[torch.device, torch.dtype]:
        """The last place of those where it runs: an accelerator before the CPU, and float32."""
        if not self.targets:
            raise NotApplicableError(f"cannot run here: {'; '.join(self.reasons)}")
        preferred = [place for place in self.targets if place[1] == torch.float32]
        return (preferred or self.targets)[-1]


def compare(subject: KernelSubject, inputs: ScanInputs, case: str) -> float | None:
    """The largest float32 (or float64) error over all targets and results of one case.

    None where the kernel refuses the call, which is an answer and not a wrong number.
    """
    exact: Results = {}
    known: ScanInputs | None = None
    largest: float | None = None
    for device, dtype in subject.targets:
        given = inputs.to(device, dtype)
        try:
            found = cases.results(subject.kernel, given)
        except KernelUnavailableError:
            continue
        seen = given.to("cpu", torch.float64)  # as the dtype holds them
        if known is None or not _equal_inputs(seen, known):
            known, exact = seen, cases.results(TorchKernel(), seen)
        relative = assert_close(found, exact, given, case)
        single = dtype in (torch.float64, torch.float32)
        largest = max(largest or 0.0, relative if single else 0.0)
    return largest


def _equal_inputs(one: ScanInputs, other: ScanInputs) -> bool:
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if isinstance(a, Tensor)]
    return all(isinstance(b, Tensor) and torch.equal(a, b) for a, b in pairs)


def assert_close(found: Results, exact: Results, given: ScanInputs, case: str) -> float:
    """The largest error of one call's results, each compared with the reference by the table."""
    largest = 0.0
    for name in RESULTS:
        got, expected = found[name], exact[name]
        like = given.u if name == "y" else getattr(given, name)
        where = f"{name} on {given.u.device} in {given.u.dtype}, {case}"
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


def assert_states_close(states: Tensor, exact: Tensor, case: str) -> None:
    """Kept states are compared as y is, but are never in 16 bits."""
    dtype = torch.float64 if states.dtype == torch.float64 else torch.float32
    if states.dtype != dtype or states.shape != exact.shape:
        raise ViolationError(
            f"the kept states are {states.dtype} {tuple(states.shape)}, {case}",
            f"{dtype} {tuple(exact.shape)}, (B, K, S, N, D) as ssmdiff.ops.kept_shape says",
        )
    error = cases.error_of("y", states, exact) if exact.numel() else 0.0
    if not error <= cases.limit_of("y", dtype):
        raise ViolationError(
            f"the kept states are off by {error:.1e} of the largest value of their channel, {case}",
            f"the states before steps kept_every(N), 2 kept_every(N), ..., within "
            f"{cases.limit_of('y', dtype):.0e}",
        )


def compare_all(
    subject: KernelSubject, made: Iterable[tuple[str, ScanInputs]], methods: Iterable[str] = METHODS
) -> tuple[int, float]:
    """How many cases were compared, and the largest error."""
    largest, count = 0.0, 0
    for (case, inputs), method in itertools.product(list(made), methods):
        given = inputs._replace(discretization=method)
        if not subject.restarts:
            given = cases.without_restarts(given)
        error = compare(subject, given, f"{case}, {method}")
        if error is not None:
            count, largest = count + 1, max(largest, error)
    if not count:
        raise NotApplicableError("it refuses every such call")
    return count, largest


def assert_agreement(
    subject: KernelSubject,
    got: Results,
    expected: Results,
    inputs: ScanInputs,
    case: str,
    bits: bool | None = None,
) -> None:
    """Equal bits, or where the kernel does not promise them, equal within the table."""
    if subject.same_bits != "never" if bits is None else bits:
        assert_equal_bits(got, expected, case)
    else:
        assert_close(
            got, {n: None if x is None else x.double() for n, x in expected.items()}, inputs, case
        )


def assert_equal_bits(
    got: Mapping[str, Tensor | None], expected: Mapping[str, Tensor | None], case: str
) -> None:
    for name, value in expected.items():
        other = got[name]
        if value is None or other is None:
            continue
        if not torch.equal(other, value):
            raise ViolationError(f"{case}: {name} differs", "equal bits")
