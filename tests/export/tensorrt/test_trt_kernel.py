"""kernel.cu: its arithmetic, compiled for the CPU, and what NVRTC makes of it."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from ssmdiff.errors import ExportError
from ssmdiff_export.tensorrt import nvrtc

HERE = Path(__file__).parent
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Of the largest value: float32 arithmetic, and the last place of the 16-bit output.
TOLERANCES = {"fp32": 2e-6, "fp16": 6e-4, "bf16": 5e-3}
OUTPUT_AND_INPUTS = (
    ["u64"] * 6 + ["u32"] * 3 + ["u64"]
)  # u, delta, A, B, C, order, then L, D, K, then y


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Compile kernel.cu for the CPU, once per variant."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "kernel.cu").write_text(nvrtc.kernel_source())
    libraries: dict[tuple[bool, str, int], ctypes.CDLL] = {}

    def compile_variant(zoh: bool, real: str, state: int) -> ctypes.CDLL:
        key = (zoh, real, state)
        if key not in libraries:
            name = nvrtc.kernel_name(zoh, real, state)
            target = folder / f"{name}.so"
            options = [f"-DKERNEL={name}", f"-DREAL={nvrtc.REALS[real]}"]
            options += [f"-DSTATE={state}", f"-DZOH={int(zoh)}", f"-I{folder}"]
            command = [compiler, "-std=c++17", "-O1", "-shared", "-fPIC", "-Wno-unknown-pragmas"]
            subprocess.run(
                [*command, *options, "-x", "c++", str(HERE / "cpu_shim.h"), "-o", str(target)],
                check=True,
            )
            libraries[key] = ctypes.CDLL(str(target))
        return libraries[key]

    return compile_variant


def inputs(real: str, B: int, L: int, D: int, K: int, N: int, seed: int = 0):
    """A scan's inputs with some restarts; steps from 1e-4 to 3, decays from slow to fast."""
    g = torch.Generator().manual_seed(seed)
    dtype = DTYPES[real]
    delta = 10 ** (torch.rand(B, K, L, D, generator=g) * 4.5 - 4)
    A = -(10 ** (torch.rand(K, D, N, generator=g) * 4 - 3))
    order = torch.stack([torch.randperm(L, generator=g) for _ in range(K)])
    restart = torch.rand(K, L, generator=g) < 0.15
    order = torch.where(restart, -1 - order, order).int()
    randn = lambda *shape: torch.randn(*shape, generator=g).to(dtype)  # noqa: E731
    return randn(B, L, D), delta, A, randn(B, K, L, N), randn(B, K, L, N), order


def reference(zoh: bool, u, delta, A, B, C, order):
    """The recurrence in float64, token by token."""
    u, delta, A, B, C = (x.double() for x in (u, delta, A, B, C))
    images, K, L, D = delta.shape
    y = torch.zeros(images, K, L, D, dtype=torch.float64)
    for k in range(K):
        h = torch.zeros(images, D, A.shape[2], dtype=torch.float64)
        for entry in order[k].tolist():
            token = -1 - entry if entry < 0 else entry
            h = h * (entry >= 0)
            d = delta[:, k, token, :, None]
            gain = torch.expm1(d * A[k]) / A[k] if zoh else d
            h = torch.exp(d * A[k]) * h + gain * u[:, token, :, None] * B[:, k, token, None, :]
            y[:, k, token] = (h * C[:, k, token, None, :]).sum(-1)
    return y


def launch(library, threads: int, tensors) -> torch.Tensor:
    u, delta, A, B, C, order = (x.contiguous() for x in tensors)
    images, K, L, D = delta.shape
    y = torch.full((images, K, L, D), float("nan"), dtype=u.dtype)
    blocks = images * K * -(-D // threads)
    pointers = [ctypes.c_void_p(x.data_ptr()) for x in (u, delta, A, B, C, order)]
    library.launch(blocks, threads, *pointers, L, D, K, ctypes.c_void_p(y.data_ptr()))
    return y


@pytest.mark.parametrize("zoh", [False, True], ids=["euler", "zoh"])
@pytest.mark.parametrize("real", sorted(DTYPES))
@pytest.mark.parametrize(
    ("B", "L", "D", "K", "N", "threads"),
    [(2, 35, 19, 3, 16, 8), (1, 1, 1, 1, 16, 64), (3, 20, 65, 2, 16, 64), (1, 17, 6, 4, 5, 4)],
)
def test_the_arithmetic_is_the_recurrence(compiled, zoh, real, B, L, D, K, N, threads):
    tensors = inputs(real, B, L, D, K, N)
    y = launch(compiled(zoh, real, N), threads, tensors).double()
    expected = reference(zoh, *tensors)
    assert torch.isfinite(y).all()
    assert (y - expected).abs().max() <= TOLERANCES[real] * expected.abs().max()


@pytest.mark.parametrize("N", [1, 80])
def test_the_state_may_have_another_size(compiled, N):
    tensors = inputs("fp32", 2, 12, 7, 2, N)
    y = launch(compiled(True, "fp32", N), 4, tensors).double()
    expected = reference(True, *tensors)
    assert (y - expected).abs().max() <= 2e-6 * expected.abs().max()


def test_the_gain_of_zoh_does_not_cancel_where_the_step_is_small(compiled):
    u, delta, A, B, C, order = inputs("fp32", 1, 8, 4, 1, 16)
    delta = delta * 1e-6
    tensors = (u, delta, A, B, C, order)
    y = launch(compiled(True, "fp32", 16), 4, tensors).double()
    expected = reference(True, *tensors)
    assert (y - expected).abs().max() <= 2e-6 * expected.abs().max()


def test_a_restart_forgets_even_an_infinite_state(compiled):
    u, delta, A, B, C, _ = inputs("fp32", 1, 4, 3, 1, 16)
    u = u.abs() + 1
    u[:, 0] = float("inf")
    order = torch.tensor([[0, 1, -1 - 2, 3]], dtype=torch.int32)
    y = launch(compiled(False, "fp32", 16), 4, (u, delta, A, B, C, order))
    assert not torch.isfinite(y[:, :, :2]).any()
    assert torch.isfinite(y[:, :, 2:]).all()


@pytest.mark.parametrize("entry", [6, 2**31 - 1, -(2**31), -1 - 6])
def test_a_token_off_the_grid_reads_nothing_and_gives_nan(compiled, entry):
    tensors = inputs("fp32", 1, 6, 3, 1, 16)
    order = torch.tensor([[1, 2, entry, 3, 4, 5]], dtype=torch.int32)
    y = launch(compiled(False, "fp32", 16), 4, (*tensors[:5], order))
    assert torch.isfinite(y[:, :, [1, 2]]).all()
    assert torch.isnan(y[:, :, [0, 3, 4, 5]]).all()


def ptx_or_skip(zoh: bool, real: str, state: int) -> str:
    try:
        nvrtc.library()
    except ExportError:
        pytest.skip("NVRTC is not installed (pip install nvidia-cuda-nvrtc)")
    return nvrtc.scan_ptx(zoh, real, state)


@pytest.mark.parametrize("zoh", [False, True], ids=["euler", "zoh"])
@pytest.mark.parametrize("real", sorted(DTYPES))
def test_the_ptx_has_one_entry_with_tensorrts_parameters(zoh, real):
    ptx = ptx_or_skip(zoh, real, 16)
    assert re.findall(r"\.entry (\w+)", ptx) == [nvrtc.kernel_name(zoh, real, 16)]
    signature = ptx[ptx.index(".entry") : ptx.index("{")]
    kinds = re.findall(r"\.param \.(\w+)(?: \.ptr \.align \d+)? \w+_param_(\d+)", signature)
    assert [int(place) for _, place in kinds] == list(range(10))
    assert [kind for kind, _ in kinds] == OUTPUT_AND_INPUTS
    assert ".target sm_80" in ptx
    assert f".version {nvrtc.PTX_VERSION}\n" in ptx
    assert ".local" not in ptx, "the state of N = 16 must stay in registers"
    assert "ex2.approx.ftz.f32" in ptx
    assert ("cvt.rn.f16.f32" in ptx) == (real == "fp16")
    assert ("cvt.rn.bf16.f32" in ptx) == (real == "bf16")
    assert ".extern" not in ptx, "TensorRT links nothing to the kernel"


def test_a_large_state_compiles_too():
    assert ".entry ssmdiff_selective_scan_fp32_n256(" in ptx_or_skip(False, "fp32", 256)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_ptxas_takes_the_ptx_and_spills_nothing(tmp_path, arch):
    if shutil.which("ptxas") is None:
        pytest.skip("ptxas (the CUDA toolkit) is not installed")
    ptx = tmp_path / "kernel.ptx"
    for zoh, real in [(False, "fp32"), (True, "fp16"), (True, "bf16")]:
        ptx.write_text(ptx_or_skip(zoh, real, 16))
        done = subprocess.run(
            ["ptxas", "-v", f"-arch={arch}", str(ptx), "-o", str(tmp_path / "kernel.cubin")],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "0 bytes spill stores, 0 bytes spill loads" in done.stderr
        registers = re.search(r"Used (\d+) registers", done.stderr)
        assert registers is not None
        assert int(registers[1]) <= 128


def test_a_state_out_of_range_is_refused_with_its_limits():
    with pytest.raises(ExportError, match=r"1 to 256, got N = 257"):
        nvrtc.scan_ptx(False, "fp32", 257)


def test_a_source_that_does_not_compile_shows_nvrtcs_log():
    ptx_or_skip(False, "fp32", 1)
    with pytest.raises(ExportError, match=r"kernel.cu\(1\): error"):
        nvrtc.compile_ptx("int broken(", {})


def test_without_nvrtc_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(nvrtc, "_places", lambda: iter(["/nowhere/libnvrtc.so.13"]))
    nvrtc.library.cache_clear()
    try:
        with pytest.raises(ExportError, match=r"pip install nvidia-cuda-nvrtc\n/nowhere/"):
            nvrtc.library()
    finally:
        nvrtc.library.cache_clear()
