"""The triton kernel against the float64 reference, forward and on every gradient, and compiled.

There is no GPU here: Triton's interpreter runs the same source on CPU tensors. It is chosen when
triton is first imported, for the whole process, and `auto` would then take this kernel everywhere.
So the tests that need it run in a process of their own, which one test here starts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ssmdiff.ops.kernels import Kernel, ScanInputs, note_order
from ssmdiff.ops.reference import TorchKernel
from ssmdiff.testing import kernel_cases as cases
from ssmdiff.testing import suite_for
from ssmdiff.testing.kernel_cases import make_inputs, restarted
from torch import Tensor

pytest.importorskip("triton")
from ssmdiff_kernels import triton_kernel
from ssmdiff_kernels.triton_kernel import TritonKernel

KERNEL = TritonKernel()
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

interpreted = pytest.mark.skipif(
    not INTERPRETED, reason="runs where TRITON_INTERPRET=1: see test_in_the_interpreter"
)
# Triton's interpreter cuts float32 to bfloat16 where a card, as torch, rounds to the nearest.
TOLERANCE = {
    torch.float32: 1e-5,
    torch.bfloat16: 2**-7 if INTERPRETED else 2**-8,
    torch.float16: 2**-10,
}


def make(
    length: int = 17,
    channels: int = 8,
    directions: int = 1,
    states: int = 3,
    batch: int = 1,
    restart: bool = True,
    extras: bool = True,
    device: torch.device = CPU,
    **options: object,
) -> ScanInputs:
    """Random inputs that are exact in every dtype, in random orders."""
    shape = (batch, length, channels, directions, states)
    inputs = make_inputs(shape, restarts=restart, extras=extras, **options)
    return inputs.to(device, torch.float32)


def gradient_for(inputs: ScanInputs) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(inputs.u.shape, generator=generator).bfloat16()
    return values.to(inputs.u.device, inputs.u.dtype)


def results(kernel: Kernel, inputs: ScanInputs, grad_y: Tensor) -> dict[str, Tensor]:
    """The output and all gradients that exist, by name."""
    gradients = kernel.backward(grad_y, inputs)._asdict()
    everything = {"y": kernel.forward(inputs), **gradients}
    return {name: value for name, value in everything.items() if value is not None}


def assert_close(inputs: ScanInputs) -> None:
    """Every result within its dtype's tolerance, relative to the largest value of its tensor."""
    grad_y = gradient_for(inputs)
    got = results(KERNEL, inputs, grad_y)
    exact = inputs.to("cpu", torch.float64)
    expected = results(TorchKernel(), exact, grad_y.cpu().double())
    assert got.keys() == expected.keys()
    for name, reference in expected.items():
        dtype = inputs.u.dtype if name == "y" else getattr(inputs, name).dtype
        assert got[name].shape == reference.shape, name
        assert got[name].dtype == dtype, name
        assert got[name].is_contiguous(), name
        error = (got[name].cpu().double() - reference).abs().max()
        assert error <= TOLERANCE[dtype] * reference.abs().max(), f"{name}: {error:.3g}"


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_is_a_kernel() -> None:
    assert isinstance(KERNEL, Kernel)
    assert KERNEL.name == "triton"


def test_says_why_it_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "float64" in (KERNEL.unavailable(CUDA, torch.float64) or "")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "the tensors are on cpu" in (KERNEL.unavailable(CPU, torch.float32) or "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert KERNEL.unavailable(CUDA, torch.float32) == "no GPU was found"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'ssmdiff[cuda]'" in (KERNEL.unavailable(CUDA, torch.float32) or "")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(INTERPRETED, reason="this is the process that it starts")
def test_in_the_interpreter() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__],
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout


@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.parametrize(("backend", "arch", "lanes"), [("cuda", 90, 32), ("hip", "gfx942", 64)])
def test_compiles_for_a_card_that_is_not_here(backend: str, arch: int | str, lanes: int) -> None:
    from ssmdiff_kernels import triton_scan
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    half = ("u", "delta", "B", "C", "dy", "ddelta")
    kinds = {"order": "*i32", **dict.fromkeys(half, "*bf16")}
    sizes = dict.fromkeys(("K", "L", "D", "N", "chunks", "T", "per_image", "per_direction"), "i32")
    sizes["per_token"] = "i32"
    values = {
        "BLOCK_N": 16, "SOFTPLUS": True, "ZOH": False, "RESTART": True, "BLOCK_D": 32, "SPAN": 2,
    }  # fmt: skip
    for function in (triton_scan.outputs, triton_scan.gradients):
        names = function.arg_names
        types = {name: sizes.get(name, kinds.get(name, "*fp32")) for name in names}
        source = ASTSource(
            function,
            {**types, **dict.fromkeys(values, "constexpr")},
            {(names.index(name),): value for name, value in values.items()},
        )
        binary = compile(source, GPUTarget(backend, arch, lanes), {"num_warps": 1})
        assert binary.asm[(binary.metadata.target.backend == "cuda" and "cubin") or "hsaco"]


@interpreted
@pytest.mark.parametrize(
    "check",
    [n for n in suite_for("kernel").checks if n not in ("edges", "threads", "kept-states")],
)
def test_contract(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The contract suite with less of everything: a step takes milliseconds here.

    Its edges, 40 cases, are left to the tests below and to a GPU; the interpreter has one thread,
    and the kernel keeps no states.
    """
    monkeypatch.setattr(cases, "SHAPES", ((1, 1, 1, 1, 1), (2, 5, 19, 2, 3), (1, 35, 3, 1, 1)))
    monkeypatch.setattr(cases, "SMALL", ((1, 6, 17, 1, 3),))
    monkeypatch.setattr(cases, "NAN", (2, 5, 19, 2, 3))
    monkeypatch.setattr(cases, "LONG", 70)  # two chunks
    suite = suite_for("kernel")
    subject = suite.subject("triton")
    if check != "mixed-dtypes":
        subject.places = [(CPU, torch.float32)]
    finding = suite.finding(subject, check)
    assert finding.ok, finding.detail
    assert not finding.skipped, finding.detail


@interpreted
@pytest.mark.parametrize(
    ("length", "channels", "directions", "states", "discretization"),
    [
        (1, 1, 1, 1, "zoh"),
        (9, 8, 4, 3, "euler"),
        (17, 40, 2, 1, "zoh"),
        (17, 40, 1, 16, "euler"),
        (70, 8, 1, 16, "zoh"),
        (70, 1, 1, 3, "euler"),
        (32, 8, 1, 3, "euler"),  # the length of a chunk, and a step on either side
        (33, 8, 1, 3, "euler"),
        (31, 8, 1, 3, "euler"),
    ],
)
def test_agrees_with_the_reference(
    length: int, channels: int, directions: int, states: int, discretization: str
) -> None:
    assert_close(make(length, channels, directions, states, discretization=discretization))


@interpreted
@pytest.mark.parametrize("change", ["restart", "extras", "delta_softplus"])
def test_agrees_without(change: str) -> None:
    assert_close(make(35, 3, **{change: False}))


@interpreted
@pytest.mark.parametrize("name", ["D", "delta_bias"])
def test_agrees_with_one_only_of_D_and_bias(name: str) -> None:
    assert_close(make(5, 3, **{name: None}))


@interpreted
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits(dtype: torch.dtype) -> None:
    """Arithmetic is float32: what is lost is the rounding of the results."""
    assert_close(make(17, directions=2, discretization="zoh").to("cpu", dtype))


@interpreted
def test_slices_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workspace for one image at a time: the same as all at once, up to the order of the sums."""
    inputs = make(9, directions=2, batch=3)
    monkeypatch.setattr(triton_kernel, "WORKSPACE", 1)
    assert_close(inputs)
    monkeypatch.undo()
    assert_close(inputs)


@interpreted
def test_B_and_C_are_read_where_they_lie() -> None:
    """The blocks give views of one projection: rows of it hold both."""
    inputs = make(9, 5, 2, batch=2)
    both = torch.cat([inputs.B, inputs.C], -1).transpose(1, 2).contiguous().transpose(1, 2)
    B, C = both.split(inputs.B.shape[-1], -1)
    assert B.stride() == C.stride() != inputs.B.stride()
    expected = results(KERNEL, inputs, gradient_for(inputs))
    assert_equal(expected, results(KERNEL, inputs._replace(B=B, C=C), gradient_for(inputs)))


@interpreted
def test_restart_at_every_step_and_at_none() -> None:
    inputs = make(35, 3, restart=False)
    assert_close(restarted(inputs, torch.ones_like(inputs.order, dtype=torch.bool)))
    none = inputs._replace(order=note_order(inputs.order.clone(), restarts=False))
    assert torch.equal(KERNEL.forward(none), KERNEL.forward(inputs))


@interpreted
@pytest.mark.parametrize("discretization", ["euler", "zoh"])
def test_extreme_steps_and_decays(discretization: str) -> None:
    """Steps from 1e-6 to 50 and A from -1e-8 to -1e4: exp(d A) is 1, 0 or anything between."""
    inputs = make(40, 16, 1, 7, delta_softplus=False, extras=False, discretization=discretization)
    generator = torch.Generator().manual_seed(2)
    delta = torch.logspace(-6, torch.tensor(50.0).log10().item(), inputs.delta.numel())
    shuffled = delta[torch.randperm(delta.numel(), generator=generator)].view(inputs.delta.shape)
    A = -torch.logspace(-8, 4, inputs.A.numel()).view(inputs.A.shape)
    assert_close(inputs._replace(delta=shuffled, A=A))


@interpreted
def test_softplus_over_its_whole_range() -> None:
    inputs = make(20, 8, 1, 1, extras=False, restart=False)
    delta = torch.linspace(-80, 60, inputs.delta.numel()).view(inputs.delta.shape)
    assert_close(inputs._replace(delta=delta))
    assert_close(inputs._replace(delta=torch.full_like(delta, -15)))  # steps of 3e-7 by themselves


@interpreted
def test_every_element_is_written_and_twice_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, untouched = make(35, 40), make(35, 40)
    expected = results(KERNEL, inputs, gradient_for(inputs))
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(float("nan")))
    got = results(KERNEL, inputs, gradient_for(inputs))
    monkeypatch.undo()
    assert_equal(expected, got)
    for name, value in untouched._asdict().items():
        if isinstance(value, Tensor):
            assert torch.equal(getattr(inputs, name), value), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize(
    ("length", "channels", "directions", "states", "discretization", "dtype"),
    [
        *(
            (35, 19, 3, 5, discretization, dtype)  # some ten seconds each, for the compiler
            for discretization in ("euler", "zoh")
            for dtype in TOLERANCE
        ),
        (1, 1, 1, 1, "zoh", torch.float32),
        (1000, 192, 4, 16, "euler", torch.bfloat16),
        (257, 40, 2, 64, "euler", torch.bfloat16),
    ],
)
def test_on_a_gpu(
    length: int,
    channels: int,
    directions: int,
    states: int,
    discretization: str,
    dtype: torch.dtype,
) -> None:
    inputs = make(length, channels, directions, states, 2, discretization=discretization)
    assert_close(inputs.to(CUDA, dtype))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_equal_bits_twice_on_a_gpu() -> None:
    inputs = make(1000, 200, 4, 16, batch=4, device=CUDA)
    expected = results(KERNEL, inputs, gradient_for(inputs))
    assert_equal(expected, results(KERNEL, inputs, gradient_for(inputs)))
