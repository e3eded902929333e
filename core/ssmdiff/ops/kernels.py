"""What a kernel is, and what it is given: the order on a device, and the inputs of the scan.

A kernel computes the selective scan and its gradients. It is an implementation detail of one op:
every kernel takes the same inputs and agrees with the float64 reference.

An order is int32 (K, L), ``order[k, t]`` the token visited at time t, coded as ``-1 - token`` where
the state starts anew. It is as :attr:`ssmdiff.ScanOrder.coded` has it, and a plain tensor. What is
known of an order is noted on its tensor and holds until the tensor is written to: that it was
checked, so that the op does not check it at every call, and whether it has restarts, so that those
who want tokens and restarts apart need not look for them. An order without a note is as good; it is
checked at every call.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from ssmdiff.errors import ConfigError, ContractError
from ssmdiff.orders.scan import check_permutations


class _Note(NamedTuple):
    version: int
    restarts: bool


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
    if restarts_in(order) is not None or not is_readable(order):
        return
    with torch._C._DisableFuncTorch():  # under a transform even a plain tensor's copy is wrapped
        coded = order.detach().cpu().numpy()
    try:
        check_permutations(coded ^ (coded >> 31))  # -1 - token is token with all bits turned
    except ContractError as error:
        raise ConfigError(
            f"selective_scan: order: {error}. Each row holds every token once, as t or as "
            "-1 - t where the state starts anew; ssmdiff.ScanOrder(index).coded makes one"
        ) from error


def is_readable(order: Tensor) -> bool:
    """Whether the values are there to be read: no tracer, capture or transform is at work."""
    if torch.compiler.is_compiling() or type(order) is not Tensor or order.is_meta:
        return False
    if is_watched() or torch._C._functorch.is_functorch_wrapped_tensor(order):
        return False
    return not (order.is_cuda and torch.cuda.is_current_stream_capturing())


def is_watched() -> bool:
    """Whether a mode of torch replaces or records what tensors do: fake tensors, tracers.

    torch has no public name for it.
    """
    return bool(torch._C._len_torch_dispatch_stack() > 0)


class ScanInputs(NamedTuple):
    """The arguments of :func:`ssmdiff.selective_scan`, checked, as every kernel receives them."""

    u: Tensor  # (B, L, D)
    delta: Tensor  # (B, K, L, D)
    A: Tensor  # (K, D, N), negative
    B: Tensor  # (B, K, L, N)
    C: Tensor  # (B, K, L, N)
    order: Tensor  # (K, L) int32: the token visited at time t, -1 - token after a restart
    D: Tensor | None = None  # (K, D)
    delta_bias: Tensor | None = None  # (K, D)
    delta_softplus: bool = True
    discretization: str = "euler"

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> ScanInputs:
        """On another device; floating tensors in another dtype, if one is given."""

        def moved(value: Tensor) -> Tensor:
            return value.to(device, dtype if value.is_floating_point() else None)

        changes: dict[str, Any] = {
            name: moved(value)
            for name, value in self._asdict().items()
            if isinstance(value, Tensor)
        }
        if (restarts := restarts_in(self.order)) is not None:
            note_order(changes["order"], restarts)
        return self._replace(**changes)


class ScanGradients(NamedTuple):
    """Gradients of a scalar with respect to the tensors of :class:`ScanInputs`, in their dtypes."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    delta_bias: Tensor | None


@runtime_checkable
class Kernel(Protocol):
    """An implementation of the selective scan. State and accumulation are float32 or wider."""

    name: str

    @property
    def preference(self) -> int | None:
        """``auto`` takes the kernel of the largest one that can run; None: by name alone."""
        ...

    def unavailable(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why this kernel cannot run for tensors of that device and dtype, or None if it can."""
        ...

    def forward(self, inputs: ScanInputs) -> Tensor:
        """The output y (B, L, D) in the dtype of ``inputs.u``, tokens in grid order."""
        ...

    def backward(self, grad_y: Tensor, inputs: ScanInputs) -> ScanGradients:
        """All gradients, from the inputs alone: nothing of size (B, K, L, D, N) is ever stored."""
        ...


@runtime_checkable
class StateKeepingKernel(Kernel, Protocol):
    """A kernel whose forward pass can leave states for its backward pass to start from.

    It saves the backward pass a walk through the whole sequence. Training uses it; a traced graph,
    whose kernel is chosen when it runs, asks for ``forward`` and gives ``backward`` no states.
    """

    def forward_keeping(self, inputs: ScanInputs) -> tuple[Tensor, Tensor]:
        """y as ``forward`` gives it, and the states of :func:`kept_shape`."""
        ...

    def backward(
        self, grad_y: Tensor, inputs: ScanInputs, states: Tensor | None = None
    ) -> ScanGradients:
        """All gradients, from the inputs and the states if any are given."""
        ...


def kept_every(components: int) -> int:
    """How many steps lie between two kept states of N components.

    32 up to N = 16, and in proportion beyond: what is kept is at most half as large as delta.
    """
    return 32 * -(-components // 16)


def kept_shape(inputs: ScanInputs) -> tuple[int, int, int, int, int]:
    """(B, K, S, N, D): the shape of the kept states h, float32 (float64 of float64 inputs).

    Entry s is the state before step ``(s + 1) * kept_every(N)``, and before a restart there. The
    state before the first step is zero, and not kept: S is 0 for short sequences.
    """
    batch, directions, length, channels = inputs.delta.shape
    components = inputs.A.shape[-1]
    return batch, directions, (length - 1) // kept_every(components), components, channels


def forward_keeping(kernel: Kernel, inputs: ScanInputs) -> tuple[Tensor, Tensor | None]:
    """The forward pass of training: y, and the states if the kernel keeps any."""
    if isinstance(kernel, StateKeepingKernel):
        return kernel.forward_keeping(inputs)
    return kernel.forward(inputs), None


def backward_from(
    kernel: Kernel, grad_y: Tensor, inputs: ScanInputs, states: Tensor | None
) -> ScanGradients:
    """The backward pass, from kept states if there are any and the kernel can start from them."""
    if states is not None and isinstance(kernel, StateKeepingKernel):
        return kernel.backward(grad_y, inputs, states)
    return kernel.backward(grad_y, inputs)


def both_passes(kernel: Kernel, inputs: ScanInputs, grad_y: Tensor) -> tuple[Tensor, ScanGradients]:
    """y and all gradients, as in training."""
    y, states = forward_keeping(kernel, inputs)
    return y, backward_from(kernel, grad_y, inputs, states)
