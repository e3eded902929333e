"""torch.compile for a backbone: in training and in sampling, with its orders as inputs.

Compiled code is kept beside the module and not around it, so the names in its state do not change,
and checkpoints are the same with and without. Orders and timesteps are inputs of the graph: one
compilation serves every step of a batch size.
"""

from __future__ import annotations

import importlib
import os
import shutil

import torch
from torch import nn

from ssmdiff.errors import ConfigError

BACKEND = "inductor"

_COMPILERS = ("g++", "clang++", "icpx", "cl")


def compile_backbone(model: nn.Module) -> None:
    """Compile a module in place; the work is done at its next call.

    Raises:
        ConfigError: There is nothing here to compile with.
    """
    if BACKEND == "inductor":
        _refuse_without_compiler(next(model.parameters()).device)
    model.compile(backend=BACKEND)


def _refuse_without_compiler(device: torch.device) -> None:
    """Say now what is missing, and not in a traceback after the data has been read."""
    wanted = (os.environ.get("CXX") or "", *_COMPILERS)
    if not any(name and shutil.which(name) for name in wanted):
        raise ConfigError(
            "--compile needs a C++ compiler, and there is none on the PATH or in $CXX (looked for "
            f"{', '.join(_COMPILERS)}); install one, such as g++, or leave out --compile"
        )
    if device.type == "cuda":
        try:
            importlib.import_module("triton")
        except Exception as error:  # absent, or installed and broken
            raise ConfigError(
                f"--compile needs Triton ({type(error).__name__}: {error}); try: pip install triton"
            ) from error
