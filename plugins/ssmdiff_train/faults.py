"""What went wrong in a step: where values stopped being finite, whose code raised, what ran out."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from ssmdiff import (
    Config,
    DataError,
    Plugin,
    PluginBrokenError,
    SsmdiffError,
    name_of,
    registry,
    size_text,
)
from torch import Tensor, nn

from ssmdiff_train.stream import Unread


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
        fallback: Which checkpoint there is to go back to.
    """
    if ran_out := out_of_memory(error):
        return memory_error(ran_out, f"step {step}", config, fallback)
    if config.train.compile and _by_the_compiler(error):
        return SsmdiffError(
            f"step {step}: torch.compile failed: {name_of(error).partition(chr(10))[0]}; "
            f"{fallback}. Go on without --compile"
        )
    plugin = _raised_by(error)
    who = f"plugin {plugin.name!r} ({plugin.source}) raised" if plugin else "the code raised"
    return PluginBrokenError(f"step {step}: {who} {name_of(error)}; {fallback}")


_HOST_WORDS = (
    "can't allocate memory",
    "Cannot allocate memory",
    "unable to allocate shared memory",
)


def out_of_memory(error: BaseException) -> Literal["device", "host", None]:
    """Which memory there was not enough of, if that is what an error says."""
    if isinstance(error, torch.OutOfMemoryError):
        return "device"
    full = isinstance(error, OSError) and error.errno == errno.ENOMEM
    told = isinstance(error, RuntimeError) and any(words in str(error) for words in _HOST_WORDS)
    return "host" if isinstance(error, MemoryError) or full or told else None


def memory_error(
    which: Literal["device", "host"], where: str, config: Config, fallback: str
) -> SsmdiffError:
    """One sentence of what was tried, and of every option that would take less."""
    train = config.train
    part = train.micro_batch_size or train.batch_size
    return SsmdiffError(
        f"{where}: the {which} is out of memory with {part} images of "
        f"{size_text(config.data.image_size)} in {train.precision}; {fallback}. "
        f"Try {less_memory(config, which)}"
    )


def less_memory(config: Config, which: Literal["device", "host"] = "host") -> str:
    """The options of a run that would take less memory, those first that change no result."""
    train, ways = config.train, []
    part = train.micro_batch_size or train.batch_size
    if part > 1:
        ways.append(f"--set train.micro_batch_size={part // 2} (the batch stays the same)")
    if not train.activation_checkpointing:
        ways.append("--activation-checkpointing")
    if which == "host" and config.data.workers:
        ways.append("fewer --workers")
    if train.precision == "fp32":
        ways.append("--precision bf16")
    return f"{', '.join(ways)}{', or ' if ways else ''}a smaller --batch-size, image or model"


def unreadable(unread: Unread, total: int, config: Config) -> Exception:
    """The error of an image that could not be read, with its number."""
    error, image = (
        unread.error,
        f"image {unread.item} of {total} (number {unread.number} of the run)",
    )
    if out_of_memory(error):
        return error
    if isinstance(error, DataError | OSError):
        return DataError(f"{image} cannot be used: {error}")
    if isinstance(error, SsmdiffError):
        return error
    entry = registry().find("dataset", config.data.dataset["name"])
    return PluginBrokenError(f"{image}: {entry.label} raised {name_of(error)}")


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
