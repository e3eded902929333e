"""The plain reference of the selective scan: the recurrence as the papers write it, its adjoint.

Glossary, with the shapes of :class:`~ssmdiff.ops.kernels.ScanInputs`:

    d_t   = softplus(delta_t + delta_bias)                       step size           (B, K, D)
    a_t   = exp(d_t A)                                           decay               (B, K, D, N)
    b_t   = d_t B_t                       discretization "euler" (Mamba's kernels)   (B, K, D, N)
    b_t   = (exp(d_t A) - 1) / A B_t      discretization "zoh"   (VM-DDPM, eq. 6)
    h_t   = a_t h_{t-1} + b_t u_t         with h_{t-1} = 0 where restart_t            (B, K, D, N)
    y_t   = sum_n C_t h_t + D u_t         added at token_t, summed over k  (B, D)

It runs anywhere and in any floating dtype, in float64 when the inputs are float64 and in float32
otherwise, one Python step per token. Fast kernels are compared with it; it is compared with
closed forms, with eq. 7 and with finite differences.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssmdiff.ops.kernels import ScanGradients, ScanInputs, decode_order, kept_every, kept_shape


class TorchKernel:
    """The reference as a kernel: any device, any dtype, slow."""

    name = "torch"
    preference = None  # what remains where no other can run

    def unavailable(self, device: torch.device, dtype: torch.dtype) -> str | None:
        return None

    def forward(self, inputs: ScanInputs) -> Tensor:
        scan = Sequences(inputs)
        h, y = scan.start(), []
        for t in range(scan.length):
            h = scan.step(scan.after_restart(h, t), t)
            y.append((h * scan.C[:, :, t, None, :]).sum(-1))
        return scan.merge(torch.stack(y, 2) + scan.skip()).to(inputs.u.dtype)

    def backward(self, grad_y: Tensor, inputs: ScanInputs) -> ScanGradients:
        scan = Sequences(inputs)
        dy = grad_y.to(scan.u.dtype)[:, scan.order]  # (B, K, L, D)
        h = scan.start()
        before = []  # the state that enters each step, after any restart
        for t in range(scan.length):
            before.append(scan.after_restart(h, t))
            h = scan.step(before[t], t)

        du, ddelta = torch.zeros_like(scan.delta), torch.zeros_like(scan.delta)
        dB, dC = torch.zeros_like(scan.B), torch.zeros_like(scan.C)
        dA = torch.zeros_like(scan.A)
        dh = torch.zeros_like(h)
        for t in reversed(range(scan.length)):
            a, g, x = scan.decay(t), scan.gain(t), scan.drive(t)
            B_t, u_t = scan.B[:, :, t, None, :], scan.u[:, :, t, :, None]
            dC[:, :, t] = (dy[:, :, t, :, None] * (a * before[t] + g * x)).sum(2)
            dh = dh + dy[:, :, t, :, None] * scan.C[:, :, t, None, :]
            da, dg = dh * before[t], dh * x
            du[:, :, t] = (dh * g * B_t).sum(-1)
            dB[:, :, t] = (dh * g * u_t).sum(2)
            d, A = scan.delta[:, :, t, :, None], scan.A
            if scan.zoh:  # g = (exp(d A) - 1) / A
                ddelta[:, :, t] = (da * a * A + dg * a).sum(-1)
                dA += (da * a * d + dg * d * d * zoh_moment(d * A, 1)).sum(0)
            else:  # g = d
                ddelta[:, :, t] = (da * a * A + dg).sum(-1)
                dA += (da * a * d).sum(0)
            dh = scan.after_restart(dh * a, t)

        dD = None
        if scan.D is not None:
            dD = (dy * scan.u).sum((0, 2))
            du = du + dy * scan.D[:, None]
        if inputs.delta_softplus:
            ddelta = ddelta * torch.sigmoid(scan.delta_raw)
        dbias = None if inputs.delta_bias is None else ddelta.sum((0, 2))

        def like(gradient: Tensor | None, value: Tensor | None) -> Tensor | None:
            return None if gradient is None or value is None else gradient.to(value.dtype)

        return ScanGradients(
            u=scan.merge(du).to(inputs.u.dtype),
            delta=scan.to_grid(ddelta).to(inputs.delta.dtype),
            A=dA.to(inputs.A.dtype),
            B=scan.to_grid(dB).to(inputs.B.dtype),
            C=scan.to_grid(dC).to(inputs.C.dtype),
            D=like(dD, inputs.D),
            delta_bias=like(dbias, inputs.delta_bias),
        )


def states_of(inputs: ScanInputs) -> Tensor:
    """The states that a kernel may keep, of :func:`~ssmdiff.ops.kernels.kept_shape`."""
    scan, every = Sequences(inputs), kept_every(inputs.A.shape[-1])
    h, states = scan.start(), scan.u.new_empty(kept_shape(inputs))
    for t in range(every * states.shape[2]):
        h = scan.step(scan.after_restart(h, t), t)
        if (t + 1) % every == 0:
            states[:, :, t // every] = h.transpose(-1, -2)
    return states


class Sequences:
    """The inputs gathered into visiting order, (B, K, L, .), in the dtype of the state."""

    def __init__(self, inputs: ScanInputs) -> None:
        double = inputs.u.dtype == torch.float64
        dtype = torch.float64 if double else torch.float32
        tokens, self.restart = decode_order(inputs.order)
        self.order = tokens.long()
        self.length = self.order.shape[1]
        self.zoh = inputs.discretization == "zoh"
        self.A = inputs.A.to(dtype)
        self.D = None if inputs.D is None else inputs.D.to(dtype)
        self.u = inputs.u.to(dtype)[:, self.order]
        self.B, self.C = (self.gather(x.to(dtype)) for x in (inputs.B, inputs.C))
        delta = self.gather(inputs.delta.to(dtype))
        if inputs.delta_bias is not None:
            delta = delta + inputs.delta_bias.to(dtype)[:, None]
        self.delta_raw = delta
        self.delta = F.softplus(delta) if inputs.delta_softplus else delta

    def gather(self, x: Tensor) -> Tensor:
        return x.gather(2, self.order[None, :, :, None].expand(x.shape))

    def to_grid(self, x: Tensor) -> Tensor:
        """Undo the gather: (B, K, L, .) in visiting order to grid order."""
        return torch.zeros_like(x).scatter(2, self.order[None, :, :, None].expand(x.shape), x)

    def merge(self, x: Tensor) -> Tensor:
        """Sum the directions, each at the token's own place: (B, K, L, D) to (B, L, D)."""
        return self.to_grid(x).sum(1)

    def start(self) -> Tensor:
        """The state before the first step."""
        return self.u.new_zeros(*self.delta.shape[:2], *self.A.shape[1:])

    def step(self, before: Tensor, t: int) -> Tensor:
        """The state after step t, from the one that enters it."""
        return self.decay(t) * before + self.gain(t) * self.drive(t)

    def decay(self, t: int) -> Tensor:
        return torch.exp(self.delta[:, :, t, :, None] * self.A)

    def gain(self, t: int) -> Tensor:
        delta = self.delta[:, :, t, :, None]
        return delta * _zoh_ratio(delta * self.A) if self.zoh else delta

    def drive(self, t: int) -> Tensor:
        return self.B[:, :, t, None, :] * self.u[:, :, t, :, None]

    def after_restart(self, state: Tensor, t: int) -> Tensor:
        if self.restart is None:
            return state
        return state.masked_fill(self.restart[None, :, t, None, None], 0)

    def skip(self) -> Tensor | float:
        return 0.0 if self.D is None else self.u * self.D[:, None]


def _zoh_ratio(z: Tensor) -> Tensor:
    """(exp(z) - 1) / z: the zoh gain over delta, 1 at z = 0."""
    return torch.where(z == 0, 1.0, torch.expm1(z) / z)


def zoh_moment(z: Tensor, k: int) -> Tensor:
    """The integral of s^k exp(s z) for s from 0 to 1.

    For k = 0 the zoh gain over delta, (exp(z) - 1) / z; for k = 1 its derivative by z, which is
    that by A over delta^2. Near 0, where the closed forms and their derivatives cancel, a series.
    """
    near = z.abs() < 0.5
    small, z = torch.where(near, z, 0.0), torch.where(near, 1.0, z)
    series = torch.zeros_like(z)
    for n in reversed(range(15)):
        series = series * small + 1 / (math.factorial(n) * (n + k + 1))
    gain = torch.expm1(z) / z
    return torch.where(near, series, (torch.exp(z) - gain) / z if k else gain)
