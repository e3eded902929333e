"""What went wrong in a step: where values stopped being finite, whose code raised, what ran out."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ssmdiff import Config, Plugin, PluginBrokenError, SsmdiffError, name_of, registry, size_text
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
        # A hook is not called inside a module that was compiled without it.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "no module's output: the loss or a gradient alone"


def explain(error: Exception, step: int, config: Config, fallback: str) -> SsmdiffError:
    """An exception that a step raised, with what a person needs to go on.

    Args:
        error: Neither one of ours nor an interrupt.
        step: The step that raised, counted from 1.
        config: The run's configuration.
        kept: Which checkpoint there is to go back to.
    """
    if isinstance(error, torch.OutOfMemoryError):
        train, size = config.train, size_text(config.data.image_size)
        part = train.micro_batch_size or train.batch_size
        return SsmdiffError(
            f"step {step}: the device is out of memory with {part} images of {size} in "
            f"{train.precision}; {fallback}. Try --set train.micro_batch_size={max(1, part // 2)} "
            "(the batch stays the same), --precision bf16, or a smaller image or model"
        )
    if config.train.compile and _by_the_compiler(error):
        return SsmdiffError(
            f"step {step}: torch.compile failed: {name_of(error).partition(chr(10))[0]}; "
            f"{fallback}. Go on without --compile"
        )
    plugin = _raised_by(error)
    who = f"plugin {plugin.name!r} ({plugin.source}) raised" if plugin else "the code raised"
    return PluginBrokenError(f"step {step}: {who} {name_of(error)}; {fallback}")


def _by_the_compiler(error: Exception) -> bool:
    from torch._dynamo.exc import TorchDynamoException  # over a second to import

    return isinstance(error, TorchDynamoException)


def newest_checkpoint_clause(candidates: list[Path]) -> str:
    """A clause on the newest checkpoint."""
    if candidates:
        return f"the last good checkpoint is {candidates[0]}"
    return "there is no checkpoint yet"


def _raised_by(error: Exception) -> Plugin | None:
    """The plugin whose code is innermost in the traceback."""
    owners = {plugin.module.partition(".")[0]: plugin for plugin in registry().plugins}
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        owner = owners.get(str(frame.f_globals.get("__name__", "")).partition(".")[0])
        if owner and owner.module.partition(".")[0] not in ("ssmdiff", __package__):
            return owner
    return None
