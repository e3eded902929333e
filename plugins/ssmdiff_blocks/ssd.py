"""State space duality: the recurrence of Mamba-2 as matrix products over chunks (Dao and Gu 2024).

Glossary: K directions, L tokens in visiting order, H heads of P channels, N state, Q tokens of a
chunk. Everything here is in visiting order; a token's place on the grid plays no part.

    a_t = exp(delta_t A)                        one decay for a whole head
    h_t = a_t h_{t-1} + delta_t x_t B_t^T       (P, N), h_{t-1} = 0 where restart_t
    y_t = h_t C_t + D x_t

Inside a chunk y is a masked product like attention's; between chunks the states (P, N) are passed
on. That is section 6 of the paper; the products of decays are sums of logarithms of each
segment, never differences of long sums, which lose float32's digits.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from ssmdiff.nn import replaceable
from torch import Tensor

from ssmdiff_blocks.sequence import installed, runs_on, sequence_numbers


@replaceable("state-space-duality")
def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    restart: Tensor | None = None,
    chunk: int = 64,
) -> Tensor:
    """The scan of Mamba-2, direction by direction.

    mamba-ssm's Triton kernel ``mamba_chunk_scan_combined`` runs on CUDA where it is installed,
    called with the signature of version 2.2. NOTE: that path is tested against a stand-in
    alone; it has not been run on a GPU here.

    Args:
        x: (B, K, L, H, P) in visiting order.
        dt: (B, K, L, H) step sizes before bias and softplus.
        A: (K, H) negative, float32 or wider.
        B: (B, K, L, N), shared by the heads.
        C: (B, K, L, N), shared by the heads.
        D: (K, H).
        dt_bias: (K, H).
        restart: (K, L) bool or None.
        chunk: Q, a power of two.

    Returns:
        (B, K, L, H, P) in x's dtype. Decays, states and sums are float32, or wider for a wider x.
    """
    kernel = None
    if runs_on(x):
        kernel = installed("mamba_ssm.ops.triton.ssd_combined", "mamba_chunk_scan_combined")
    if kernel is None:
        return _chunked(x, dt, A, B, C, D, dt_bias, restart, chunk)
    rows = [
        kernel(
            x[:, k],
            dt[:, k],
            A[k],
            B[:, k, :, None],  # one group of heads
            C[:, k, :, None],
            chunk,
            D=D[k],
            dt_bias=dt_bias[k],
            seq_idx=sequence_numbers(restart, k, x.shape[0]),
            dt_softplus=True,
        )
        for k in range(x.shape[1])
    ]
    return torch.stack(rows, dim=1)


def _chunked(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    restart: Tensor | None,
    chunk: int,
) -> Tensor:
    dtype, length = torch.promote_types(x.dtype, torch.float32), x.shape[2]
    chunk = min(chunk, length)
    # Autocast would run the products in bfloat16. Entered where it is on alone: an exported graph
    # needs no region for it.
    device = x.device.type
    on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    with torch.autocast(device, enabled=False) if on else nullcontext():
        xs, B, C = x.to(dtype), B.to(dtype), C.to(dtype)
        delta = F.softplus(dt.to(dtype) + dt_bias.to(dtype)[:, None])
        # A step of size 0 changes nothing: the last chunk is filled up with them.
        drive = _chunks((xs * delta[..., None]).transpose(2, 3), 3, chunk)  # (B, K, H, c, Q, P)
        a = _chunks((delta * A.to(dtype)[:, None]).transpose(2, 3), 3, chunk)  # (B, K, H, c, Q)
        B, C = (_chunks(v[:, :, None], 3, chunk) for v in (B, C))  # (B, K, 1, c, Q, N)
        anew = None if restart is None else _chunks(restart[:, None], 2, chunk)  # (K, 1, c, Q)

        within = _decays(a, anew)
        y = (C @ B.mT * within) @ drive
        states = (B * within[..., -1, :, None]).mT @ drive  # (B, K, H, c, N, P): what a chunk adds
        between = _decays(a.sum(-1), None if anew is None else anew.any(-1))
        after = (between @ states.flatten(-2)).unflatten(-1, states.shape[-2:])
        entering = torch.cat([torch.zeros_like(after[..., :1, :, :]), after[..., :-1, :, :]], -3)
        carry = a.cumsum(-1).exp()
        if anew is not None:
            carry = carry * (anew.cumsum(-1) == 0)
        y = y + (C @ entering) * carry[..., None]
        y = y.flatten(3, 4)[:, :, :, :length].transpose(2, 3) + D.to(dtype)[:, None, :, None] * xs
    return y.to(x.dtype)


def _chunks(x: Tensor, dim: int, chunk: int) -> Tensor:
    """Axis ``dim`` of L tokens as (chunks, Q), with zeros after the last token."""
    fill = [0, 0] * (x.dim() - 1 - dim) + [0, -x.shape[dim] % chunk]
    chunks: Tensor = F.pad(x, fill).unflatten(dim, (-1, chunk))
    return chunks


def _decays(log_decay: Tensor, restart: Tensor | None) -> Tensor:
    """prod_{j < m <= i} a_m at [i, j]: 0 above the diagonal and where a restart lies in between.

    Args:
        log_decay: (..., T), log a.
        restart: (..., T) bool that broadcasts against it, or None.

    Returns:
        (..., T, T).
    """
    steps = log_decay.shape[-1]
    lower = torch.ones(steps, steps, dtype=torch.bool, device=log_decay.device).tril()
    rows = log_decay[..., None].expand(*log_decay.shape, steps)
    sums = rows.masked_fill(~lower.tril(-1), 0).cumsum(-2)
    if restart is not None:
        number = restart.cumsum(-1)
        lower = lower & (number[..., :, None] == number[..., None, :])
    return torch.where(lower, sums, -torch.inf).exp()
