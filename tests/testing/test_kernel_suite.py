"""The suite of kernels finds what is wrong with one, and says it."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import torch
from ssmdiff.testing import Report, check_kernel, suite_for
from ssmdiff.testing import kernel_cases as cases
from ssmdiff.testing.poison import poisoned

pytestmark = pytest.mark.usefixtures("fresh_registry")


def failures(report: Report) -> dict[str, str]:
    return {finding.name: finding.detail for finding in report.failures}


KERNEL = """
    import torch
    import ssmdiff

    def bad():
        from ssmdiff.ops import TorchKernel
        from ssmdiff.testing import kernel_cases as cases

        class Bad(TorchKernel):
            name = "{name}"
            {attribute}

            def forward(self, inputs):
                y = super().forward(inputs)
                {forward}
                return y

            def backward(self, grad_y, inputs):
                found = super().backward(grad_y, inputs)
                {backward}
                return found

            def unavailable(self, device, dtype):
                return {reason}

        return Bad()

    @ssmdiff.hookimpl
    def ssmdiff_kernels():
        yield ssmdiff.Component("bad", bad, "does something wrong")
"""

SINGLE = "None if dtype in (torch.float64, torch.float32) else 'not 16 bits'"
NOTHING = {"name": "bad", "attribute": "", "forward": "", "backward": "", "reason": SINGLE}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The faults lie in the reference, which takes a Python step for each token."""
    monkeypatch.setattr(cases, "LONG", 100)
    monkeypatch.setattr(cases, "SHAPES", cases.SHAPES[:2])
    monkeypatch.setattr(cases, "SMALL", ((2, 25, 17, 2, 5),))


@pytest.mark.parametrize(
    ("change", "check", "said"),
    [
        ({"name": "other"}, "availability", "name is 'other'; expected 'bad'"),
        (
            {"attribute": "preference = '50'"},
            "availability",
            "preference is '50'",
        ),
        ({"attribute": "preference = True"}, "availability", "preference is True"),
        ({"forward": "y = y * 1.001"}, "numbers", "y on cpu in torch.float64"),
        ({"forward": "y = y.float()"}, "numbers", "torch.float32 (1, 1, 1)"),
        ({"forward": "y = torch.full_like(y, torch.nan)"}, "numbers", "is NaN or infinite"),
        ({"forward": "y[..., 0] *= 1.0001"}, "numbers", "largest value of its channel"),
        ({"forward": "y[..., 0] *= 1.0001"}, "numbers", "arithmetic in another order"),
        ({"forward": "y = y * (1 + 1e-4 * (inputs.order.shape[0] > 5))"}, "edges", "K = 6"),
        (
            {"forward": "y = TorchKernel().forward(inputs._replace(A=inputs.A.clamp(min=-99)))"},
            "hostile",
            "delta from 1e-6 to 50",
        ),
        ({"forward": "y = y.where(inputs.delta[:, 0] < 30, torch.inf)"}, "hostile", "finite"),
        ({"forward": "y = y * (1 + 1e-4 * (y.shape[1] > 90))"}, "long", "L = 100"),
        ({"forward": "y = y.nan_to_num()"}, "not-a-number", "lacks"),
        ({"forward": "y = y + 0 * inputs.u.sum()"}, "not-a-number", "NaN in one number of u"),
        (
            {"backward": "found = found._replace(B=found.B.nan_to_num())"},
            "not-a-number",
            "B has 0 NaN where",
        ),
        (
            {"forward": "y = y * (1 + 1e-6 * torch.get_num_threads())"},
            "threads",
            "two threads, not one: y differs",
        ),
        ({"attribute": "same_bits = 'sometimes'"}, "availability", "'never'"),
        (
            {"forward": "y = torch.empty_like(y).copy_(y) if 0 else (inputs.u.mul_(1.5), y)[1]"},
            "determinism",
            "was written to",
        ),
        ({"forward": "y = y + 0 * torch.empty(9).sum()"}, "every-element", "never set"),
        ({"forward": "y = y + 0 * torch.empty_like(y)"}, "every-element", "never set"),
        ({"forward": "y = y + 0 * y.new_empty(1)"}, "every-element", "never set"),
        (
            {"forward": "import numpy; y = y + float(numpy.empty(4096, 'f')[99]) * 1e-30"},
            "every-element",
            "never set",
        ),
        (
            {
                "backward": "dA = torch.empty_like(found.A); dA[..., 1:] = found.A[..., 1:];"
                "found = found._replace(A=dA)"
            },
            "every-element",
            "A differs",
        ),
        ({"backward": "found = found._replace(B=-found.B)"}, "numbers", "B on cpu"),
        (
            {"backward": "found = found._replace(A=found.A.bfloat16().float())"},
            "numbers",
            "A on cpu",
        ),
        (
            {"backward": "found = found._replace(D=found.u.new_zeros(1))"},
            "numbers",
            "D on cpu in torch.float64",
        ),
        (
            {
                "backward": "x = inputs.u.clone().requires_grad_();"
                "torch.autograd.grad((2 * x).sum(), x)"
            },
            "inside-the-op",
            "without torch.autograd",
        ),
        (
            {"forward": "y = TorchKernel().forward(cases.without_restarts(inputs))"},
            "numbers",
            "y on cpu",
        ),
        (
            {"forward": "y = TorchKernel().forward(inputs._replace(discretization='euler'))"},
            "numbers",
            "zoh is off by",
        ),
    ],
)
def test_faults(install, change: dict[str, str], check: str, said: str) -> None:
    install("ssmdiff-bad", KERNEL.format(**NOTHING | change))
    suite = suite_for("kernel")
    finding = suite.finding(suite.subject("bad"), check)
    assert not finding.ok
    assert said in finding.detail


KEEPS = """
            def forward_keeping(self, inputs):
                from ssmdiff.ops import states_of
                states = states_of(inputs)
                {keeping}
                return self.forward(inputs), states

            def backward(self, grad_y, inputs, states=None):
                found = TorchKernel.backward(self, grad_y, inputs)
                {backward}
                return found
"""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"keeping": "states = states[:, :, 1:]"}, "(1, 2, 1, 5, 17)"),
        ({"keeping": "states = states.roll(1, 2)"}, "steps kept_every(N), 2 kept_every(N)"),
        ({"keeping": "states = states.bfloat16()"}, "are torch.bfloat16"),
        (
            {"backward": "found = found if states is not None else found._replace(B=-found.B)"},
            "without kept states",
        ),
    ],
)
def test_faults_of_a_kernel_that_keeps_states(install, monkeypatch, change, said) -> None:
    monkeypatch.setattr(cases, "KEPT", ((1, 70, 17, 2, 5),))
    keeps = KEEPS.format(**{"keeping": "", "backward": ""} | change)
    before, after = KERNEL.format(**NOTHING).split("            def backward", 1)
    _, after = after.split("            def unavailable", 1)
    install("ssmdiff-bad", f"{before}{keeps}\n            def unavailable{after}")
    suite = suite_for("kernel")
    finding = suite.finding(suite.subject("bad"), "kept-states")
    assert finding.ok == (not said)
    assert said in finding.detail


def test_memory_that_is_not_set_and_not_used_is_no_fault(install) -> None:
    unused = "extra = torch.empty(9); y = y + 0 * extra.sum().nan_to_num(1)"
    install("ssmdiff-bad", KERNEL.format(**NOTHING | {"forward": unused}))
    assert check_kernel("bad").ok


def test_a_kernel_that_cannot_run_here_is_skipped_and_says_why(install) -> None:
    install("ssmdiff-bad", KERNEL.format(**NOTHING | {"reason": "'it needs a quantum computer'"}))
    report = check_kernel("bad")
    assert report.ok
    assert {finding.status for finding in report} == {"skip"}
    assert "quantum" in str(report)


@pytest.mark.parametrize("says", ["", "same_bits = 'never'"])
def test_a_kernel_may_say_that_its_bits_vary(install, says: str) -> None:
    change = {
        "attribute": says,
        # Another factor in every call, not by chance.
        "forward": "self.n = getattr(self, 'n', 0) + 1; y = y * (1 + 5e-7 * (self.n % 13))",
        "reason": "None if dtype == torch.float32 else 'only float32'",
    }
    install("ssmdiff-bad", KERNEL.format(**NOTHING | change))
    found = failures(check_kernel("bad"))
    assert set(found) == (set() if says else {"every-element", "determinism", "threads"})


def test_every_tolerance_has_a_reason_and_none_can_be_changed() -> None:
    for dtype, row in cases.TOLERANCE.items():
        assert all(torch.finfo(dtype).eps / 2 < limit < 0.02 for limit in row[:-1])
        assert len(row.reason) > 40
    with pytest.raises(TypeError):
        cases.TOLERANCE[torch.float32] = cases.TOLERANCE[torch.bfloat16]  # type: ignore[index]


def test_errors_are_relative_to_the_channel() -> None:
    exact = torch.tensor([[1.0, 1e-6], [2.0, 2e-6]], dtype=torch.float64)
    got = exact.float()
    got[1, 1] *= 1.5
    assert cases.error_of("y", got, exact) == pytest.approx(0.5, rel=1e-6)
    assert cases.error_of("D", got, exact) == pytest.approx(5e-7, rel=1e-2)


def test_errors_do_not_count_where_the_dtype_overflows_and_do_elsewhere() -> None:
    exact = torch.tensor([[1e6], [1.0]], dtype=torch.float64)
    assert cases.error_of("y", torch.tensor([[torch.inf], [1.0]]).half(), exact) == 0
    assert cases.error_of("y", torch.tensor([[torch.inf], [1.0]]), exact) == torch.inf
    assert cases.error_of("y", torch.tensor([[torch.inf], [torch.nan]]).half(), exact) == torch.inf


def test_memory_that_was_never_set_shows() -> None:
    """However a kernel asks for it: torch, numpy, and what numba compiles."""

    @numba.njit
    def compiled(size: int) -> float:
        return np.empty(size, np.float32)[size // 2]

    compiled(2000)
    with poisoned():
        x = torch.zeros(3)
        for fresh in (torch.empty(3), torch.empty_like(x), x.new_empty(3), x.new_empty(3, 3).t()):
            assert fresh.isnan().all()
        assert torch.empty_strided((3,), (2,)).isnan().all()
        for value in (np.empty(2000, np.float32)[1000], compiled(2000), compiled(2_000_000)):
            assert value == np.frombuffer(b"\xfe" * 4, np.float32)[0]
    assert not torch.are_deterministic_algorithms_enabled()
