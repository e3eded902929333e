"""The numba kernel against the float64 reference, forward and on every gradient."""

from __future__ import annotations

import multiprocessing
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from ssmdiff.ops.kernels import Kernel, ScanInputs, note_order
from ssmdiff.ops.reference import TorchKernel
from ssmdiff.testing.kernel_cases import make_inputs, restarted
from torch import Tensor

pytest.importorskip("numba")
from ssmdiff_kernels.numba_scan import kernel as numba_kernel
from ssmdiff_kernels.numba_scan.kernel import NumbaKernel

KERNEL = NumbaKernel()
REFERENCE = TorchKernel()
CPU = torch.device("cpu")


def make(
    length: int = 17,
    channels: int = 16,
    directions: int = 2,
    states: int = 3,
    batch: int = 2,
    restart: bool = True,
    extras: bool = True,
    seed: int = 0,
    **options: object,
) -> ScanInputs:
    """Random float32 inputs in random orders."""
    shape = (batch, length, channels, directions, states)
    inputs = make_inputs(shape, seed, restart, extras, **options)
    return inputs.to("cpu", torch.float32)


def gradient_for(inputs: ScanInputs) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(inputs.u.shape, generator=generator).to(inputs.u.dtype)


def results(kernel: Kernel, inputs: ScanInputs, grad_y: Tensor) -> dict[str, Tensor]:
    """The output and all gradients that exist, by name."""
    gradients = kernel.backward(grad_y, inputs)._asdict()
    everything = {"y": kernel.forward(inputs), **gradients}
    return {name: value for name, value in everything.items() if value is not None}


def assert_close(inputs: ScanInputs, tolerance: float = 1e-5) -> None:
    """Every result within a tolerance, relative to the largest value of its tensor."""
    grad_y = gradient_for(inputs)
    got = results(KERNEL, inputs, grad_y)
    expected = results(REFERENCE, inputs.to(CPU, torch.float64), grad_y.double())
    assert got.keys() == expected.keys()
    for name, reference in expected.items():
        assert got[name].shape == reference.shape, name
        assert got[name].dtype == inputs.u.dtype, name
        assert reference.isfinite().all(), f"the reference of {name} is not finite"
        error = (got[name].double() - reference).abs().max()
        assert error <= tolerance * reference.abs().max(), f"{name}: {error:.3g}"


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.fixture(autouse=True)
def small_work_in_threads_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba_kernel, "_WORTH_A_THREAD", 1)


@pytest.fixture
def threads() -> Iterator[None]:
    """Leave torch's number of threads as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_is_a_kernel() -> None:
    assert isinstance(KERNEL, Kernel)
    assert KERNEL.name == "numba"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_is_available_on_the_cpu(dtype: torch.dtype) -> None:
    assert KERNEL.unavailable(CPU, dtype) is None


def test_says_why_it_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "float64" in (KERNEL.unavailable(CPU, torch.float64) or "")
    assert "cuda" in (KERNEL.unavailable(torch.device("cuda"), torch.float32) or "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'ssmdiff[cpu]'" in (KERNEL.unavailable(CPU, torch.float32) or "")


@pytest.mark.parametrize("discretization", ["euler", "zoh"])
@pytest.mark.parametrize("channels", [1, 8, 16, 40])
@pytest.mark.parametrize("states", [1, 3, 16])
@pytest.mark.parametrize("directions", [1, 2, 4])
def test_agrees_with_the_reference(
    directions: int, states: int, channels: int, discretization: str
) -> None:
    assert_close(
        make(channels=channels, directions=directions, states=states, discretization=discretization)
    )


@pytest.mark.parametrize("discretization", ["euler", "zoh"])
@pytest.mark.parametrize("delta_softplus", [True, False])
@pytest.mark.parametrize("extras", [True, False])
@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("length", [1, 17, 70])
def test_agrees_with_every_option(
    length: int, restart: bool, extras: bool, delta_softplus: bool, discretization: str
) -> None:
    inputs = make(
        length,
        channels=24,
        restart=restart,
        extras=extras,
        delta_softplus=delta_softplus,
        discretization=discretization,
    )
    assert_close(inputs)


@pytest.mark.parametrize("length", [31, 32, 33, 64, 65])
def test_agrees_around_the_length_of_a_chunk(length: int) -> None:
    assert_close(make(length, channels=5, restart=False))


@pytest.mark.parametrize("discretization", ["euler", "zoh"])
def test_agrees_over_many_steps(discretization: str) -> None:
    assert_close(make(1024, channels=20, states=16, batch=1, discretization=discretization))


def test_agrees_with_one_only_of_D_and_bias() -> None:
    inputs = make()
    assert_close(inputs._replace(D=None))
    assert_close(inputs._replace(delta_bias=None))


@pytest.mark.parametrize("channels", [67, 200])
@pytest.mark.parametrize("count", [1, 4])
def test_agrees_in_strips_of_blocks(channels: int, count: int, threads: None) -> None:
    """Strips of one block and of several, the last one narrower; dB and dC summed over groups."""
    torch.set_num_threads(count)
    assert_close(make(channels=channels, states=16))


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names x86 features")
def test_without_wide_vectors(tmp_path: Path) -> None:
    """What a processor without AVX-512 runs: the exponential by a polynomial."""
    program = (
        "from ssmdiff_kernels.numba_scan.vectors import HAS_TABLES; assert not HAS_TABLES\n"
        "from tests.kernels.test_numba_kernel import assert_close, make\n"
        "assert_close(make(70, 40, 2, 16)); assert_close(make(70, 40, 2, 16, discretization='zoh'))"
    )
    features = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}
    environment = os.environ | features | {"NUMBA_CACHE_DIR": str(tmp_path)}
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], cwd=root, env=environment, check=True)


def test_restart_at_every_step_and_at_none() -> None:
    inputs = make(restart=False)
    assert_close(restarted(inputs, torch.ones_like(inputs.order, dtype=torch.bool)))
    none = inputs._replace(order=note_order(inputs.order.clone(), restarts=False))
    assert torch.equal(KERNEL.forward(none), KERNEL.forward(inputs))


@pytest.mark.parametrize("discretization", ["euler", "zoh"])
def test_extreme_steps_and_decays(discretization: str) -> None:
    """Steps from 1e-6 to 50 and A from -1e-8 to -1e4: exp(d A) is 1, 0 or anything between."""
    inputs = make(64, 16, 2, 7, delta_softplus=False, extras=False, discretization=discretization)
    generator = torch.Generator().manual_seed(2)
    delta = torch.logspace(-6, torch.tensor(50.0).log10().item(), inputs.delta.numel())
    shuffled = delta[torch.randperm(delta.numel(), generator=generator)].view(inputs.delta.shape)
    A = -torch.logspace(-8, 4, inputs.A.numel()).view(inputs.A.shape)
    assert_close(inputs._replace(delta=shuffled, A=A))


@pytest.mark.parametrize("discretization", ["euler", "zoh"])
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 0.05, 0.5, 5.0, 100.0])
def test_each_size_of_the_exponent_by_itself(scale: float, discretization: str) -> None:
    """All exponents d A of one size: a gain or a slope that cancels there would show."""
    inputs = make(delta_softplus=False, extras=False, discretization=discretization)
    near = inputs.delta / inputs.delta.max() + 0.5
    assert_close(inputs._replace(delta=near, A=-scale * torch.ones_like(inputs.A)))


def test_softplus_over_its_whole_range() -> None:
    inputs = make(40, 8, 1, 3, extras=False, restart=False)
    delta = torch.linspace(-80, 60, inputs.delta.numel()).view(inputs.delta.shape)
    assert_close(inputs._replace(delta=delta))
    assert_close(inputs._replace(delta=torch.full_like(delta, -15)))  # steps of 3e-7 by themselves


@pytest.mark.parametrize("discretization", ["euler", "zoh"])
def test_a_masked_token_takes_no_step(discretization: str) -> None:
    """softplus(-inf) = 0: the state stays as it is, and the token gets the skip alone."""
    inputs = make(40, 24, 2, 5, restart=False, discretization=discretization)
    delta = inputs.delta.clone()
    delta[:, :, 7:30:3] = -torch.inf
    if discretization == "euler":
        assert_close(inputs._replace(delta=delta))
    least = inputs._replace(delta=delta.clamp(min=-80))  # the reference's zoh divides 0 by 0
    masked = inputs._replace(delta=delta)
    torch.testing.assert_close(KERNEL.forward(masked), KERNEL.forward(least), rtol=0, atol=1e-6)


def test_decays_beyond_the_exponents_of_a_float() -> None:
    """d A down to -1e30: nothing is left of the state, and nothing of the sums is infinite."""
    inputs = make(40, 24, 2, 5, delta_softplus=False, extras=False)
    A = -torch.logspace(0, 30, inputs.A.numel()).view(inputs.A.shape)
    assert_close(inputs._replace(A=A))


def test_zoh_at_A_equal_to_zero_is_the_limit() -> None:
    """There exp(d A) = 1 and the gain is d, as in euler; the reference divides zero by zero."""
    inputs = make()
    still = inputs._replace(A=torch.zeros_like(inputs.A))
    expected = REFERENCE.forward(still.to(CPU, torch.float64))
    got = KERNEL.forward(still._replace(discretization="zoh"))
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["u", "delta", "A", "B", "C", "D", "delta_bias"])
@pytest.mark.parametrize("discretization", ["euler", "zoh"])
def test_nan_goes_through(name: str, discretization: str) -> None:
    inputs = make(restart=False, discretization=discretization)
    poisoned = getattr(inputs, name).clone()
    poisoned.view(-1)[0] = float("nan")
    assert KERNEL.forward(inputs._replace(**{name: poisoned})).isnan().any()


@pytest.mark.parametrize("discretization", ["euler", "zoh"])
@pytest.mark.parametrize("states", [1, 16])
def test_bfloat16(states: int, discretization: str) -> None:
    """Arithmetic is float32: what is lost is the rounding of the results to 8 bits."""
    inputs = make(40, 24, 2, states, discretization=discretization)
    inputs = ScanInputs(
        *(
            x.to(torch.bfloat16) if isinstance(x, Tensor) and x.is_floating_point() else x
            for x in inputs
        )
    )
    assert_close(inputs, tolerance=2**-8)


def test_mixed_dtypes_keep_their_own() -> None:
    """As under autocast: activations in bfloat16, parameters in float32."""
    inputs = make()
    half = {name: getattr(inputs, name).to(torch.bfloat16) for name in ("u", "delta", "B", "C")}
    inputs = inputs._replace(**half)
    gradients = KERNEL.backward(gradient_for(inputs), inputs)
    assert KERNEL.forward(inputs).dtype == torch.bfloat16
    for name, gradient in gradients._asdict().items():
        assert gradient.dtype == getattr(inputs, name).dtype, name


@pytest.mark.parametrize("channels", [16, 40])
@pytest.mark.parametrize("states", [3, 16])
def test_every_element_is_written(
    channels: int, states: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make(channels=channels, states=states)
    expected = results(KERNEL, inputs, gradient_for(inputs))
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(float("nan")))
    got = results(KERNEL, inputs, gradient_for(inputs))
    monkeypatch.undo()
    assert_equal(expected, got)


def test_inputs_are_left_alone() -> None:
    inputs, untouched = make(), make()
    results(KERNEL, inputs, gradient_for(inputs))
    for name, value in untouched._asdict().items():
        if isinstance(value, Tensor):
            assert torch.equal(getattr(inputs, name), value), name


def test_same_bits_whatever_the_number_of_threads(threads: None) -> None:
    inputs = make(100, 200, 4, 16)
    expected = None
    for count in (1, 2, 2, 3, 8):
        torch.set_num_threads(count)
        got = results(KERNEL, inputs, gradient_for(inputs))
        assert_equal(expected or got, got)
        expected = got


def test_layout_of_the_inputs_does_not_matter() -> None:
    inputs = make(channels=40)

    def strided(x: Tensor) -> Tensor:
        """The same values, every second element of a larger tensor with its last axes swapped."""
        wide = x.new_zeros(*x.shape[:-2], x.shape[-1], 2 * x.shape[-2])
        wide[..., ::2] = x.transpose(-1, -2)
        return wide[..., ::2].transpose(-1, -2)

    apart = ScanInputs(*(strided(x) if isinstance(x, Tensor) else x for x in inputs))
    assert not apart.delta.is_contiguous()
    grad_y = gradient_for(inputs)
    assert_equal(results(KERNEL, inputs, grad_y), results(KERNEL, apart, strided(grad_y)))
    expanded = torch.ones(()).expand(grad_y.shape)  # the gradient of a plain sum
    assert_equal(results(KERNEL, inputs, expanded), results(KERNEL, inputs, expanded.contiguous()))


def test_calls_from_several_threads() -> None:
    inputs = make(100, 40, 2, 16)
    grad_y = gradient_for(inputs)
    expected = results(KERNEL, inputs, grad_y)
    got: list[dict[str, Tensor]] = []
    callers = [
        threading.Thread(target=lambda: got.append(results(KERNEL, inputs, grad_y)))
        for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
    assert len(got) == len(callers)
    for each in got:
        assert_equal(expected, each)


def _compute(inputs: ScanInputs, queue: multiprocessing.SimpleQueue) -> None:
    torch.set_num_threads(1)  # what a data loader's worker does; torch's own pool is gone here
    first = KERNEL.forward(inputs)
    torch.set_num_threads(2)
    queue.put(bool(torch.equal(first, KERNEL.forward(inputs))))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_runs_in_a_process_forked_after_use(threads: None) -> None:
    """A fork inherits the pool but not its threads; waiting for them would never end."""
    torch.set_num_threads(2)
    inputs = make(100, 40)
    KERNEL.forward(inputs)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_compute, args=(inputs, queue))
    child.start()
    child.join(timeout=60)
    alive = child.is_alive()
    if alive:
        child.kill()
    assert not alive, "the child process hangs"
    assert child.exitcode == 0
    assert queue.get()


def test_gradients_are_the_slope_along_a_random_direction() -> None:
    """Independent of the reference's own adjoint: the slope along a random direction."""
    inputs = make(20, 8, 2, 3, discretization="zoh")
    grad_y = gradient_for(inputs)
    gradients = KERNEL.backward(grad_y, inputs)
    generator = torch.Generator().manual_seed(3)
    for name, gradient in gradients._asdict().items():
        value = getattr(inputs, name).double()
        step = torch.randn(value.shape, generator=generator, dtype=torch.float64) * 1e-6
        if name == "A":
            step = step * value.abs()
        plus, minus = (
            REFERENCE.forward(inputs.to(CPU, torch.float64)._replace(**{name: value + sign * step}))
            for sign in (1, -1)
        )
        slope = ((plus - minus) * grad_y).sum() / 2
        torch.testing.assert_close((gradient * step).sum(), slope, rtol=1e-4, atol=1e-11)
