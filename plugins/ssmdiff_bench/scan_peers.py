"""The selective scan as others compute it, over the inputs of our op, to be compared with.

All read sequences that were gathered into the order of each direction, and their outputs are
scattered back and summed: what VMamba calls CrossScan and CrossMerge.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from ssmdiff import Kernel, ScanInputs, backward_from, forward_keeping, restarts_in
from torch import Tensor

LEAVES = ("u", "delta", "A", "B", "C", "D", "delta_bias")


def selective_scan_ref(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> Tensor:
    """mamba-ssm's recurrence for machines without CUDA: a Python loop over time.

    Written from ``selective_scan_ref`` of mamba_ssm/ops/selective_scan_interface.py (state-spaces,
    Apache-2.0), for real A, softplus and no gate: u, delta (B, D, L), A (D, N), B, C (B, G, N, L)
    for G groups of channels, D and delta_bias (D,), to (B, D, L). float32, in u's dtype at the end.
    """
    dtype = u.dtype
    u, delta = u.float(), delta.float()
    delta = F.softplus(delta + delta_bias[..., None].float())
    repeat = A.shape[0] // B.shape[1]
    B = B.float().repeat_interleave(repeat, 1)
    C = C.float().repeat_interleave(repeat, 1)
    deltaA = torch.exp(torch.einsum("bdl,dn->bdln", delta, A))
    deltaB_u = torch.einsum("bdl,bdnl,bdl->bdln", delta, B, u)
    x = A.new_zeros(u.shape[0], *A.shape)
    ys = []
    for i in range(u.shape[2]):
        x = deltaA[:, :, i] * x + deltaB_u[:, :, i]
        ys.append(torch.einsum("bdn,bdn->bd", x, C[:, :, :, i]))
    return (torch.stack(ys, 2) + u * D[:, None]).to(dtype)


def mamba_reference(inputs: ScanInputs) -> Tensor:
    """Gather, mamba-ssm's recurrence with the K directions folded into the channels, merge."""
    _plain(inputs)
    D, bias = _given(inputs.D), _given(inputs.delta_bias)
    y = selective_scan_ref(
        inputs.u[:, inputs.order.long()].transpose(2, 3).flatten(1, 2),
        _gathered(inputs.delta, inputs).transpose(2, 3).flatten(1, 2),
        inputs.A.flatten(0, 1),
        _gathered(inputs.B, inputs).transpose(2, 3),
        _gathered(inputs.C, inputs).transpose(2, 3),
        D.flatten(),
        bias.flatten(),
    )
    return _merged(y.unflatten(1, inputs.A.shape[:2]).transpose(2, 3), inputs)


def parallel_scan(pscan: Callable[[Tensor, Tensor], Tensor], inputs: ScanInputs) -> Tensor:
    """Gather, mamba.py's form with the K directions folded into the batch, merge.

    As ``selective_scan`` of mambapy/mamba.py: all (B, L, D, N) decays and drives, a scan over
    them in 2 log2(L) passes, a matrix product with C. float32.

    Args:
        pscan: ``mambapy.pscan.pscan``: (B, L, D, N) a, x to h_t = a_t h_{t-1} + x_t.
        inputs: The op's, without restarts, euler.
    """
    _plain(inputs)
    D, bias = _given(inputs.D), _given(inputs.delta_bias)
    u = inputs.u[:, inputs.order.long()].float()  # (B, K, L, D)
    B, C = (_gathered(x, inputs).float() for x in (inputs.B, inputs.C))
    delta = F.softplus(_gathered(inputs.delta, inputs).float() + bias[:, None].float())
    decay = torch.exp(delta[..., None] * inputs.A[:, None])  # (B, K, L, D, N)
    drive = (delta * u)[..., None] * B[:, :, :, None]
    h = pscan(decay.flatten(0, 1), drive.flatten(0, 1)).view(decay.shape)
    y = (h @ C[..., None]).squeeze(-1) + D[:, None] * u
    return _merged(y.to(inputs.u.dtype), inputs)


def both_by_autograd(
    forward: Callable[[ScanInputs], Tensor], inputs: ScanInputs, grad_y: Tensor
) -> Tensor:
    """Forward and all gradients, as in training; the output."""
    leaves: dict[str, Any] = {
        name: getattr(inputs, name).detach().requires_grad_() for name in LEAVES
    }
    y = forward(inputs._replace(**leaves))
    torch.autograd.grad(y, list(leaves.values()), grad_y)
    return y.detach()


class ExpandScanMerge:
    """VMamba's expand, scan, merge over our own kernel: K gathered copies, K plain scans, a sum.

    The copies are made at once, as in VMamba; each is then walked straight by a scan of one
    direction, since the op holds one u for all of them. The gradients are gathered and scattered by
    hand, so that autograd costs it nothing.
    """

    def __init__(self, inner: Kernel) -> None:
        self.inner = inner

    def forward(self, inputs: ScanInputs) -> Tensor:
        """y (B, L, D), as the kernel's."""
        y = _empty_output(inputs)
        for k, order, part in _parts(inputs):
            y[:, k, order] = self.inner.forward(part)
        return y.sum(1)

    def both(self, inputs: ScanInputs, grad_y: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Both passes over the same copies, as autograd keeps them.

        Returns y and all gradients, in the order of :data:`LEAVES`.
        """
        parts = list(_parts(inputs))
        y, kept = _empty_output(inputs), []
        for k, order, part in parts:
            y[:, k, order], states = forward_keeping(self.inner, part)
            kept.append(states)
        y = y.sum(1)
        du, ddelta = torch.empty_like(inputs.delta), torch.empty_like(inputs.delta)
        dB, dC = torch.empty_like(inputs.B), torch.empty_like(inputs.C)
        others = []
        for (k, order, part), states in zip(parts, kept, strict=True):
            g = backward_from(self.inner, grad_y[:, order], part, states)
            du[:, k, order], ddelta[:, k : k + 1, order] = g.u, g.delta
            dB[:, k : k + 1, order], dC[:, k : k + 1, order] = g.B, g.C
            others.append((g.A, _given(g.D), _given(g.delta_bias)))
        dA, dD, dbias = (torch.cat(x) for x in zip(*others, strict=True))
        return y, (du.sum(1), ddelta, dA, dB, dC, dD, dbias)


def _empty_output(inputs: ScanInputs) -> Tensor:
    return torch.empty(inputs.delta.shape, dtype=inputs.u.dtype, device=inputs.u.device)


Part = tuple[int, Tensor, ScanInputs]
"""A direction, its order (L,) int64, and the inputs of its plain scan."""


def _parts(s: ScanInputs) -> Iterator[Part]:
    _plain(s)
    D, bias, orders = _given(s.D), _given(s.delta_bias), s.order.long()
    straight = torch.arange(s.order.shape[1], dtype=torch.int32, device=s.u.device)[None]
    for k, order in enumerate(orders):
        delta, B, C = (x[:, k : k + 1, order] for x in (s.delta, s.B, s.C))
        one = slice(k, k + 1)
        yield k, order, s._replace(
            u=s.u[:, order], delta=delta, A=s.A[one], B=B, C=C, order=straight, D=D[one],
            delta_bias=bias[one],
        )  # fmt: skip


def mambapy_forward() -> Callable[[ScanInputs], Tensor]:
    """:func:`parallel_scan` with the scan of the package mambapy.

    Raises:
        ImportError: It is not installed.
    """
    return functools.partial(parallel_scan, importlib.import_module("mambapy.pscan").pscan)


def _plain(inputs: ScanInputs) -> None:
    assert not restarts_in(inputs.order), "the peers have no restarts"
    assert inputs.discretization == "euler", "the peers have euler alone"
    assert inputs.delta_softplus, "the peers apply softplus"


def _given(x: Tensor | None) -> Tensor:
    assert x is not None, "the peers take D and delta_bias"
    return x


def _gathered(x: Tensor, inputs: ScanInputs) -> Tensor:
    """(B, K, L, .) in grid order to visiting order."""
    return x.gather(2, inputs.order.long()[None, :, :, None].expand(x.shape))


def _merged(y: Tensor, inputs: ScanInputs) -> Tensor:
    """(B, K, L, D) in visiting order to (B, L, D) in grid order, summed."""
    at = inputs.order.long()[None, :, :, None].expand(y.shape)
    return torch.zeros_like(y).scatter(2, at, y).sum(1)
