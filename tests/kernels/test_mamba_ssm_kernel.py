"""The mamba-ssm kernel over a stand-in for its compiled module, with the same calls and checks."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ssmdiff.errors import KernelUnavailableError
from ssmdiff.ops.kernels import Kernel, ScanInputs
from ssmdiff.ops.reference import TorchKernel
from ssmdiff.testing import kernel_cases as cases
from ssmdiff.testing import suite_for
from ssmdiff.testing.kernel_cases import make_inputs
from ssmdiff_kernels.mamba_ssm_kernel import MODULE, MambaSsmKernel
from torch import Tensor

KERNEL = MambaSsmKernel()
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def _published(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor,
    D: Tensor | None, delta_bias: Tensor | None, delta_softplus: bool,
) -> Tensor:  # fmt: skip
    """`selective_scan_ref` of state-spaces/mamba as its equations: (B, D, L), time last."""
    dtype = u.dtype
    u, delta, B, C = (x.float() for x in (u, delta, B, C))
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    share = A.shape[0] // B.shape[1]
    B, C = (x.repeat_interleave(share, 1) for x in (B, C))  # a group's channels are neighbours
    h = torch.zeros(*u.shape[:2], A.shape[1])
    y = []
    for t in range(u.shape[2]):
        step = delta[:, :, t, None]
        h = torch.exp(step * A) * h + step * B[..., t] * u[:, :, t, None]
        y.append((h * C[..., t]).sum(-1))
    out = torch.stack(y, -1)
    return (out if D is None else out + u * D[:, None]).to(dtype)


def _check(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *others: Any) -> None:
    """The checks at the head of its fwd and bwd, csrc/selective_scan/selective_scan.cpp."""
    batch, channels, length = u.shape
    groups, states = B.shape[1], A.shape[1]
    assert u.dtype in (torch.float32, torch.float16, torch.bfloat16)
    assert delta.dtype == B.dtype == C.dtype == u.dtype
    assert A.dtype == torch.float32
    assert delta.shape == u.shape
    assert A.shape == (channels, states)
    assert B.shape == C.shape == (batch, groups, states, length)
    assert all(x.stride(-1) == 1 or x.shape[-1] == 1 for x in (u, delta, B, C))
    for vector in others:
        assert vector is None or (vector.dtype == torch.float32 and vector.shape == (channels,))


def fwd(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor,
    D: Tensor | None, z: None, delta_bias: Tensor | None, delta_softplus: bool,
) -> list[Tensor]:  # fmt: skip
    assert z is None
    _check(u, delta, A, B, C, D, delta_bias)
    out = _published(u, delta, A, B, C, D, delta_bias, delta_softplus)
    chunks = -(-u.shape[2] // 2048)
    return [out, torch.zeros(*u.shape[:2], chunks, 2 * A.shape[1])]


def bwd(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor,
    D: Tensor | None, z: None, delta_bias: Tensor | None,
    dout: Tensor, x: Tensor, out: None, dz: None, delta_softplus: bool, recompute_out_z: bool,
) -> list[Tensor | None]:  # fmt: skip
    assert z is None
    assert out is None
    assert dz is None
    assert not recompute_out_z
    _check(u, delta, A, B, C, D, delta_bias)
    assert dout.shape == u.shape
    assert dout.dtype == u.dtype
    assert dout.stride(-1) == 1 or dout.shape[-1] == 1
    assert x.shape == (*u.shape[:2], -(-u.shape[2] // 2048), 2 * A.shape[1])
    given = [u, delta, A, B, C, D, delta_bias]

    def differentiate() -> list[Tensor | None]:
        leaves = [None if v is None else v.detach().clone().requires_grad_() for v in given]
        y = _published(*leaves, delta_softplus)  # type: ignore[arg-type]
        present = [leaf for leaf in leaves if leaf is not None]
        found = iter(torch.autograd.grad(y, present, dout))
        return [None if leaf is None else next(found) for leaf in leaves]

    # The CUDA kernel needs no autograd, which is off inside the op, but on in a thread of its own.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(differentiate).result()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType(MODULE)
    module.fwd, module.bwd = fwd, bwd  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, MODULE, module)
    return


def make(directions: int = 3, extras: bool = True, **options: object) -> ScanInputs:
    shape = (2, 21, 5, directions, 3)
    inputs = make_inputs(shape, restarts=False, extras=extras, **options)
    return inputs.to("cpu", torch.float32)


def assert_close(inputs: ScanInputs, tolerance: float) -> None:
    grad_y = torch.randn(inputs.u.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    exact = inputs.to("cpu", torch.float64)
    expected = TorchKernel().backward(grad_y.double(), exact)._asdict()
    expected["y"] = TorchKernel().forward(exact)
    got = KERNEL.backward(grad_y.to(inputs.u), inputs)._asdict()
    got["y"] = KERNEL.forward(inputs)
    for name, reference in expected.items():
        if reference is None:
            assert got[name] is None, name
            continue
        dtype = inputs.u.dtype if name == "y" else getattr(inputs, name).dtype
        assert got[name].dtype == dtype, name
        assert got[name].shape == reference.shape, name
        error = (got[name].cpu().double() - reference).abs().max()
        assert error <= tolerance * reference.abs().max(), f"{name}: {error:.3g}"


@pytest.mark.parametrize("extras", [True, False])
@pytest.mark.parametrize("delta_softplus", [True, False])
@pytest.mark.parametrize("directions", [1, 3])
@pytest.mark.usefixtures("stand_in")
def test_agrees_with_the_reference(directions: int, delta_softplus: bool, extras: bool) -> None:
    inputs = make(directions, extras)
    if not delta_softplus:
        inputs = inputs._replace(delta=inputs.delta.abs(), delta_bias=None, delta_softplus=False)
    assert_close(inputs, 1e-5)


@pytest.mark.usefixtures("stand_in")
def test_bfloat16() -> None:
    """Each direction's output and gradient is rounded before they are summed."""
    assert_close(make().to("cpu", torch.bfloat16), 2**-6)


@pytest.mark.usefixtures("stand_in")
def test_mixed_dtypes_are_not_rounded_to_the_narrowest() -> None:
    inputs = make()
    assert_close(inputs._replace(u=inputs.u.bfloat16(), B=inputs.B.bfloat16()), 2**-8)


@pytest.mark.parametrize(
    "check", [name for name in suite_for("kernel").checks if name != "kept-states"]
)
@pytest.mark.usefixtures("stand_in")
def test_contract_with_the_stand_in(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every check of kernels, on the CPU, where the stand-in is; but it keeps no states."""
    monkeypatch.setattr(cases, "LONG", 512)  # the stand-in is as slow as the reference
    own = MambaSsmKernel.unavailable
    monkeypatch.setattr(
        MambaSsmKernel, "unavailable", lambda self, device, dtype: own(self, CUDA, dtype)
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    suite = suite_for("kernel")
    subject = suite.subject("mamba-ssm")
    assert {dtype for _, dtype in subject.targets} == {torch.float32, torch.bfloat16, torch.float16}
    finding = suite.finding(subject, check)
    assert finding.ok, finding.detail
    assert not finding.skipped, finding.detail


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"discretization": "zoh"}, "zoh"),
        ({"order": -1 - torch.arange(21, dtype=torch.int32).expand(3, -1)}, "restarts"),
        ({"A": -torch.ones(3, 5, 300)}, "N = 300"),
    ],
)
def test_refuses_what_it_cannot_do(change: dict[str, Any], told: str) -> None:
    inputs = make(**change)
    with pytest.raises(KernelUnavailableError, match=f"{told}.*--kernel triton"):
        KERNEL.forward(inputs)
    with pytest.raises(KernelUnavailableError, match=told):
        KERNEL.backward(inputs.u, inputs)


def test_is_a_kernel() -> None:
    assert isinstance(KERNEL, Kernel)
    assert KERNEL.name == "mamba-ssm"


def test_says_why_it_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, stand_in: None, tmp_path: Any
) -> None:
    assert "float64" in (KERNEL.unavailable(CUDA, torch.float64) or "")
    assert "the tensors are on cpu" in (KERNEL.unavailable(CPU, torch.float32) or "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert KERNEL.unavailable(CUDA, torch.float32) == "no GPU was found"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert KERNEL.unavailable(CUDA, torch.float32) is None
    monkeypatch.delitem(sys.modules, MODULE)
    (tmp_path / f"{MODULE}.py").write_text("raise ImportError('undefined symbol: _ZN3c10')")
    monkeypatch.syspath_prepend(tmp_path)
    assert "does not load (undefined symbol" in (KERNEL.unavailable(CUDA, torch.float32) or "")


def test_names_what_is_missing_and_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, MODULE, None)
    reason = KERNEL.unavailable(CUDA, torch.float32) or ""
    assert "try: MAMBA_FORCE_BUILD=TRUE pip install --no-build-isolation --no-deps mamba" in reason


@pytest.mark.gpu
@pytest.mark.skipif(
    KERNEL.unavailable(CUDA, torch.float32) is not None, reason="mamba-ssm cannot run here"
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu(dtype: torch.dtype) -> None:
    assert_close(make().to(CUDA, dtype), 1e-4 if dtype == torch.float32 else 2**-6)
