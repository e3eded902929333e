"""The order of the op on a device: made of a ScanOrder, checked, and decoded.

An order is int32 (K, L), ``order[k, t]`` the token visited at time t, coded as ``-1 - token`` where
the state starts anew. It is as :attr:`ssmdiff.ScanOrder.coded` has it, and a plain tensor.

What is known of an order is noted on its tensor and holds until the tensor is written to: that it
was checked, so that the op does not check it at every call, and whether it has restarts, so that
those who want tokens and restarts apart need not look for them. An order without a note is as good;
it is checked at every call.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from numpy.typing import NDArray
from torch import Tensor

from ssmdiff.errors import ConfigError, ContractError
from ssmdiff.orders.scan_order import ScanOrder, check_permutations


class _Note(NamedTuple):
    version: int
    restarts: bool


def order_tensors(orders: Sequence[ScanOrder], device: torch.device) -> tuple[Tensor, ...]:
    """The orders of a plan on a device. Each table is copied there once, and never written to.

    The copies live as long as their tables: those of fixed scans from step to step, those of random
    ones for the step that drew them. To a GPU they go through pinned memory, without a wait.
    """
    # Under a mode that watches or replaces tensors (a fake one, say) a copy is no plain tensor, and
    # must not be met again outside of it.
    cache = {} if _is_watched() else _on_device
    found = []
    for order in orders:
        copies = cache.setdefault(order, {})
        if device not in copies:
            copies[device] = note_order(_copy_to(order.coded, device), order.restart is not None)
        found.append(copies[device])
    return tuple(found)


_on_device: MutableMapping[ScanOrder, dict[torch.device, Tensor]] = WeakKeyDictionary()


def _copy_to(table: NDArray[Any], device: torch.device) -> Tensor:
    # No inference tensor even while sampling: training meets the same copy.
    with torch.inference_mode(False):
        host = torch.tensor(table)
        if device.type == "cuda":
            return host.pin_memory().to(device, non_blocking=True)
        return host.to(device)


def note_order(order: Tensor, restarts: bool) -> Tensor:
    """The tensor, with a note that it holds a checked order and whether that has restarts."""
    order._ssmdiff_order = _Note(_version(order), restarts)  # type: ignore[attr-defined]
    return order


def restarts_in(order: Tensor) -> bool | None:
    """Whether the order has restarts, as far as it is noted; None where nothing is."""
    note = None if torch.compiler.is_dynamo_compiling() else getattr(order, "_ssmdiff_order", None)
    return note.restarts if note is not None and note.version == _version(order) else None


def _version(order: Tensor) -> int:
    """How often it was written to; inference tensors do not count that."""
    return 0 if order.is_inference() else order._version


def order_rows(order: Tensor) -> list[Tensor]:
    """Each direction alone, (1, L), with the note of the whole."""
    rows = [order[k : k + 1] for k in range(order.shape[0])]
    restarts = restarts_in(order)
    return rows if restarts is None else [note_order(row, restarts) for row in rows]


def decode_order(order: Tensor) -> tuple[Tensor, Tensor | None]:
    """Tokens (K, L) int32, and where the state starts anew, (K, L) bool or None for nowhere."""
    if restarts_in(order) is False:
        return order, None
    restart = order < 0
    return torch.where(restart, -1 - order, order), restart


def check_order(order: Tensor) -> None:
    """Refuse an order that a kernel would read or write outside of its tensors for.

    On a GPU it waits for the device. Not where the values are not there to be read, in a graph that
    is traced or recorded, and not where the order is noted as checked.

    Raises:
        ConfigError: A row is no permutation of 0 .. L - 1, but for the sign.
    """
    if restarts_in(order) is not None or not _is_readable(order):
        return
    coded = order.detach().cpu().numpy()
    try:
        check_permutations(coded ^ (coded >> 31))  # -1 - token is token with all bits turned
    except ContractError as error:
        raise ConfigError(
            f"selective_scan: order: {error}. Each row holds every token once, as t or as "
            "-1 - t where the state starts anew; ssmdiff.ScanOrder(index).coded makes one"
        ) from error


def _is_readable(order: Tensor) -> bool:
    if torch.compiler.is_compiling() or type(order) is not Tensor or order.is_meta:
        return False
    if _is_watched() or torch._C._functorch.is_functorch_wrapped_tensor(order):
        return False
    return not (order.is_cuda and torch.cuda.is_current_stream_capturing())


def _is_watched() -> bool:
    """Whether a mode of torch replaces or records what tensors do: fake tensors, tracers.

    torch has no public name for it.
    """
    return bool(torch._C._len_torch_dispatch_stack() > 0)
