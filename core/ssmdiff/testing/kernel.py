"""What a kernel must do: the float64 reference's numbers, forward and in every gradient.

The inputs and the table of tolerances are in :mod:`ssmdiff.testing.kernel_cases`.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from ssmdiff.errors import KernelUnavailableError
from ssmdiff.ops import (
    ScanInputs,
    StateKeepingKernel,
    TorchKernel,
    selective_scan,
    states_of,
    use_kernel,
)
from ssmdiff.testing import kernel_cases as cases
from ssmdiff.testing.kernel_cases import METHODS, RESULTS, make_inputs
from ssmdiff.testing.kernel_subject import (
    SAME_BITS,
    KernelSubject,
    assert_agreement,
    assert_close,
    assert_equal_bits,
    assert_states_close,
    compare,
    compare_all,
)
from ssmdiff.testing.poison import poisoned
from ssmdiff.testing.report import NotApplicableError, ViolationError
from ssmdiff.testing.suite import Suite

suite = Suite("kernel", KernelSubject)


@suite.check
def availability(subject: KernelSubject) -> str:
    """It says where it can run, and why not where it cannot."""
    if not isinstance(getattr(subject.kernel, "name", None), str):
        raise ViolationError("there is no name", f"name = {subject.name!r}")
    if subject.kernel.name != subject.name:
        raise ViolationError(
            f"name is {subject.kernel.name!r}", f"{subject.name!r}, as it is listed"
        )
    preference = getattr(subject.kernel, "preference", None)
    if preference is not None and type(preference) is not int:
        raise ViolationError(
            f"preference is {preference!r}",
            "a whole number, so that `auto` can rank it, or None where it runs by name alone",
        )
    if "" in subject.reasons:
        raise ViolationError("a reason is empty", "a sentence, or None where the kernel can run")
    if subject.same_bits not in SAME_BITS:
        raise ViolationError(f"same_bits is {subject.same_bits!r}", f"one of {SAME_BITS}")
    subject.somewhere()
    return "runs on " + ", ".join(f"{device} {dtype}" for device, dtype in subject.targets)


@suite.check
def numbers(subject: KernelSubject) -> str:
    """Forward and every gradient, on odd shapes, along random orders, with restarts."""
    subject.somewhere()
    made = ((f"B, L, D, K, N = {shape}", make_inputs(shape)) for shape in cases.SHAPES)
    _, largest = compare_all(subject, made)
    return f"{len(cases.SHAPES)} shapes, euler and zoh: within {largest:.0e} of float64"


@suite.check
def edges(subject: KernelSubject) -> str:
    """One token, channel or state; K from 1 to 8; restarts at the first token and at every one."""
    subject.somewhere()
    count, largest = compare_all(subject, cases.edges())
    return f"{count} cases: within {largest:.0e} of float64"


@suite.check
def hostile(subject: KernelSubject) -> str:
    """Steps from 1e-6 to 50, A from 0 to -1e4, large and tiny B and C: finite and right."""
    subject.somewhere()
    targets, count, largest = subject.targets, 0, 0.0
    for place in targets:
        subject.targets = [place]  # what a dtype can hold decides how hostile its inputs are
        try:
            each, worst = compare_all(subject, cases.hostile(place[1]))
        finally:
            subject.targets = targets
        count, largest = count + each, max(largest, worst)
    return f"{count} cases: finite, and within {largest:.0e} of float64"


@suite.check
def long(subject: KernelSubject) -> str:
    """States that hardly decay, over many tokens."""
    subject.somewhere()
    _, largest = compare_all(subject, [cases.long()], ("euler",))
    return f"{cases.LONG} tokens: within {largest:.0e} of float64"


@suite.check
def not_a_number(subject: KernelSubject) -> str:
    """NaN in one number reaches the results that it reaches in the reference, and no others."""
    subject.somewhere()
    names = ("u", "delta", "A", "B", "C", "D", "delta_bias", "grad_y")
    for place, method, name in itertools.product(subject.targets, METHODS, names):
        exact = make_inputs(cases.NAN, restarts=False, discretization=method)
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
    """D, delta_bias and restarts may each be left out, and softplus switched off."""
    subject.somewhere()
    inputs = make_inputs(cases.SHAPES[1])
    steps = inputs.delta.abs()
    for change in (
        {"D": None},
        {"delta_bias": None},
        {"D": None, "delta_bias": None},
        {"delta": steps, "delta_bias": None, "delta_softplus": False},
    ):
        given = inputs._replace(**change)
        compare(subject, given, f"without {', '.join(change)}")
        compare(subject, cases.without_restarts(given), f"without {', '.join(change)}, restarts")
    return "D, delta_bias, restarts and softplus are optional"


@suite.check
def mixed_dtypes(subject: KernelSubject) -> str:
    """As under autocast: activations in 16 bits, parameters in float32; each keeps its own."""
    subject.somewhere()
    ran = []
    for device, dtype in subject.targets:
        if dtype not in (torch.bfloat16, torch.float16):
            continue
        inputs = subject.inputs(cases.SHAPES[1], device, torch.float32)
        half = {name: getattr(inputs, name).to(dtype) for name in ("u", "delta", "B", "C")}
        mixed = inputs._replace(**half)
        exact = cases.results(TorchKernel(), mixed.to("cpu", torch.float64))
        assert_close(cases.results(subject.kernel, mixed), exact, mixed, "parameters in float32")
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
    assert_close(cases.results(subject.kernel, apart), exact, apart, "strided inputs")
    return "strided inputs give the same bits"


@suite.check
def inside_the_op(subject: KernelSubject) -> str:
    """It works where it will run: inside the op, where torch.autograd is off."""
    device, dtype = subject.somewhere()
    inputs = make_inputs(cases.SHAPES[1], restarts=False).to(device, dtype)
    grad_y = torch.randn(inputs.u.shape, generator=torch.Generator().manual_seed(1)).to(inputs.u)
    expected = cases.results(subject.kernel, inputs, grad_y)
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
        assert_equal_bits({**expected, **found}, expected, "through the op")
    else:
        exact = {name: None if g is None else g.double() for name, g in expected.items()}
        assert_close({**expected, **found}, exact, inputs, "through the op")
    return "a backward pass through ssmdiff::selective_scan"


@suite.check
def kept_states(subject: KernelSubject) -> str:
    """The states it keeps for the backward pass are right, and so is all that needs none."""
    kernel = subject.kernel
    if not isinstance(kernel, StateKeepingKernel):
        raise NotApplicableError("keeps no states")
    device, dtype = subject.somewhere()
    largest = 0.0
    for shape, method in itertools.product(cases.KEPT, METHODS):
        inputs = subject.inputs(shape, device, dtype)._replace(discretization=method)
        case, seen = f"{shape}, {method}", inputs.to("cpu", torch.float64)
        try:
            _, states = kernel.forward_keeping(inputs)
        except KernelUnavailableError:
            continue
        assert_states_close(states, states_of(seen), case)
        found = cases.results(kernel, inputs, kept=False)
        exact = cases.results(TorchKernel(), seen)
        largest = max(largest, assert_close(found, exact, inputs, f"without kept states, {case}"))
    return f"{len(cases.KEPT)} shapes, with and without: within {largest:.0e} of float64"


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
        assert_agreement(
            subject, got, expected, inputs, f"memory that was never set, {shape}, {method}"
        )
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
        assert_agreement(
            subject, cases.results(subject.kernel, inputs), first, inputs, "a second call"
        )
    return (
        "equal bits twice" if subject.same_bits != "never" else "equal up to rounding, as it says"
    )


@suite.check
def threads(subject: KernelSubject) -> str:
    """One thread and two give the same bits, unless it says otherwise."""
    cpu = [dtype for device, dtype in subject.targets if device.type == "cpu"]
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
    assert_agreement(subject, found[1], found[0], inputs, "two threads, not one", bits)
    return "one thread and two: equal bits" if bits else "one thread and two: equal up to rounding"
