"""CUDA C to PTX with NVIDIA's run-time compiler; needs the library ``libnvrtc`` and no GPU.

The library comes with CUDA builds of torch, with the CUDA toolkit, and from PyPI:
``pip install nvidia-cuda-nvrtc`` (CUDA 13) or ``nvidia-cuda-nvrtc-cu12``.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import importlib.util
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path

from ssmdiff import ExportError

ARCHITECTURE = "compute_80"  # Ampere and all that followed; TensorRT compiles the PTX for the GPU
# The oldest PTX with everything kernel.cu uses (bfloat16 conversion came with 7.0, sm_80). Drivers
# refuse PTX newer than themselves, and TensorRT hands the PTX to the driver.
PTX_VERSION = "7.8"
_INSTALL = "install it with: pip install nvidia-cuda-nvrtc"
REALS = {"fp32": "Float", "fp16": "Half", "bf16": "BFloat16"}
LARGEST_STATE = 256


def kernel_name(zoh: bool, real: str, state: int) -> str:
    """The name of the entry that :func:`scan_ptx` makes."""
    return f"ssmdiff_selective_scan{'_zoh' if zoh else ''}_{real}_n{state}"


@functools.lru_cache(maxsize=64)
def scan_ptx(zoh: bool, real: str, state: int) -> str:
    """The selective scan of ``kernel.cu`` as PTX with one entry.

    Args:
        zoh: The exact gain of ``SelectiveScanZoh``, or Euler's.
        real: ``fp32``, ``fp16`` or ``bf16``: of u, B, C and y.
        state: N, 1 to 256; above 64 the state no longer fits a thread's registers.

    Raises:
        ExportError: NVRTC is missing or refuses the source, or the state is too large.
    """
    if not 1 <= state <= LARGEST_STATE:
        raise ExportError(
            f"the TensorRT plugin scans states of 1 to {LARGEST_STATE}, got N = {state}"
        )
    defines = {
        "KERNEL": kernel_name(zoh, real, state),
        "REAL": REALS[real],
        "STATE": str(state),
        "ZOH": str(int(zoh)),
    }
    return compile_ptx(kernel_source(), defines)


def kernel_source() -> str:
    """``kernel.cu``."""
    return (files("ssmdiff_export.tensorrt") / "kernel.cu").read_text(encoding="utf-8")


def compile_ptx(source: str, defines: Mapping[str, str]) -> str:
    """Compile CUDA C that includes no header.

    Raises:
        ExportError: NVRTC is missing, or the source does not compile; its log is in the message.
    """
    nvrtc = library()
    program = ctypes.c_void_p()
    _check(
        nvrtc,
        nvrtc.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None
        ),
    )
    try:
        options = [f"--gpu-architecture={ARCHITECTURE}", "--std=c++17"]
        options += [f"-D{name}={value}" for name, value in defines.items()]
        array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if nvrtc.nvrtcCompileProgram(program, len(options), array):
            raise ExportError(
                "NVRTC refuses the kernel:\n" + _text(nvrtc, program, "ProgramLog").strip()
            )
        return lower_version(_text(nvrtc, program, "PTX"))
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def lower_version(ptx: str) -> str:
    """Declare :data:`PTX_VERSION` where NVRTC declared its own, newer one.

    Raises:
        ExportError: This is no PTX.
    """
    lowered, found = re.subn(r"(?m)^\.version \d+\.\d+$", f".version {PTX_VERSION}", ptx)
    if found != 1:
        raise ExportError(f"NVRTC gave no PTX; expected one .version line, found {found}")
    return lowered


@functools.cache
def library() -> ctypes.CDLL:
    """NVRTC, from the Python environment or the system.

    Raises:
        ExportError: There is none.
    """
    tried = []
    for place in _places():
        try:
            return ctypes.CDLL(place)
        except OSError as error:
            tried.append(f"{place}: {error}")
    detail = "".join(f"\n{line}" for line in tried)
    raise ExportError(f"NVRTC, the CUDA compiler library, is not here; {_INSTALL}{detail}")


def _places() -> Iterator[str]:
    # The wheels unpack into the namespace package "nvidia": cu13/lib, cuda_nvrtc/lib (CUDA 12).
    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or []) if spec else []:
        for pattern in ("*/lib/libnvrtc.so.*", "*/bin/nvrtc64_*.dll", "*/bin/*/nvrtc64_*.dll"):
            found = sorted(Path(root).glob(pattern), reverse=True)
            yield from (str(path) for path in found if ".alt" not in path.name)
    system = ctypes.util.find_library("nvrtc")
    if system:
        yield system


def _text(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> str:
    size = ctypes.c_size_t()
    _check(nvrtc, getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(nvrtc, getattr(nvrtc, f"nvrtcGet{what}")(program, buffer))
    return buffer.value.decode(errors="replace")


def _check(nvrtc: ctypes.CDLL, code: int) -> None:
    if code:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise ExportError(f"NVRTC fails: {nvrtc.nvrtcGetErrorString(code).decode()}")
