"""How much memory a training step takes, found before one is done.

The step is walked through with tensors that have a shape and no content. What they would hold is
added up where they are made, and taken off where the last reference to them goes: the largest sum
is that of a real step, but for what kernels take inside of an operation.
"""

from __future__ import annotations

import resource
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FACTOR = 2.0
"""The test holds the estimate within this factor of what a step was seen to take."""


class _Tally(TorchDispatchMode):
    """Bytes of the storages that are alive, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now: int = 0
        self.most: int = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for value in tree_leaves(made):
            if isinstance(value, FakeTensor):
                self.add(value)
        return made

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._seen:
            return
        self._seen.add(storage)
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, size)

    def _gone(self, size: int) -> None:
        self.now -= size


def activation_bytes(
    model: nn.Module,
    image: tuple[int, ...],
    batch: int,
    forward: Callable[[nn.Module, Tensor, Tensor], Tensor],
    device: torch.device,
    dtype: torch.dtype | None,
) -> int:
    """The most that forward and backward of a batch hold at once, gradients of weights among it.

    Args:
        model: It stays as it is.
        image: (C, *image_size).
        batch: Images of one forward pass.
        forward: Of model, images and timesteps to the prediction.
        device: Where the step will be.
        dtype: Of autocast, None for none.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        own = dict(model.named_parameters()) | dict(model.named_buffers())
        fake = {name: mode.from_tensor(value) for name, value in own.items()}
        for name, value in fake.items():
            value.requires_grad_(own[name].requires_grad)
        x = torch.empty((batch, *image), device=device)
        t = torch.zeros(batch, dtype=torch.int64, device=device)
        tally = _Tally()
        for value in fake.values():
            tally._seen.add(value.untyped_storage())
        eager = torch.compiler.set_stance("force_eager")
        cast = torch.autocast(device.type, dtype, enabled=dtype is not None)
        with eager, tally, cast:
            loss = torch.func.functional_call(_Forward(model, forward), _inside(fake), (x, t)).sum()
            loss.backward()
        return int(tally.most)


def _inside(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"model.{name}": value for name, value in tensors.items()}


class _Forward(nn.Module):
    def __init__(self, model: nn.Module, call: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model, self.call = model, call

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.call(self.model, x, t)


def free_bytes(device: torch.device) -> int | None:
    """What can still be allocated there, by the system, its control group and the limits set."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    found = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("MemAvailable"))
        found.append(int(line.split()[1]) * 1024)
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):
        limit, used = (int((group / f"memory.{n}").read_text()) for n in ("max", "current"))
        found.append(limit - used)
    with suppress(OSError, ValueError):
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            found.append(limit - pages * resource.getpagesize())
    return min(found, default=None)
