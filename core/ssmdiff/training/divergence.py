"""Finds where values that are not finite first appear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def first_non_finite(model: nn.Module, forward: Callable[[], Any]) -> str:
    """Run ``forward`` again and name the first place that is not finite.

    Returns:
        A clause such as ``the output of 'encoder.0.block' (MSSBlock)``.
    """
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"parameter {name!r}"
    found: list[str] = []

    def check(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if not found and isinstance(output, Tensor) and not torch.isfinite(output).all():
                found.append(f"the output of {name!r} ({type(module).__name__})")

        return hook

    # A module's hook runs after those inside it, so the innermost culprit is named.
    handles = [m.register_forward_hook(check(name)) for name, m in model.named_modules() if name]
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "no module's output: the loss or a gradient alone"
