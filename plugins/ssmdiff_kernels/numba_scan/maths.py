"""exp, expm1, softplus and friends on vectors of float32 lanes, to about 4e-7 relative.

Each is written to be accurate where the scan needs it: ``exp(z) - 1`` and the derivative of the zoh
gain near z = 0, softplus where it is tiny. NaN goes in and comes out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ssmdiff_kernels import constants
from ssmdiff_kernels.numba_scan.private import inlined
from ssmdiff_kernels.numba_scan.vectors import (
    HAS_TABLES,
    look_up,
    opaque,
    powers_of_32nds,
    shift_to_exponent,
    splat,
    times_power,
    where_less,
)

f32 = np.float32

LOG2_E, LN_2 = f32(constants.LOG2_E), f32(constants.LN_2)
# Added to x in [-126, 127): the lowest bits of the sum are round(x) + 127, a float's exponent.
_ROUND = f32(1.5 * 2**23 + 127)
_ROUND_32 = f32(1.5 * 2**18)  # the same for multiples of 1/32, without the exponent
_LOWEST = f32(-126)  # 2^-126 is the smallest normal number; the decay never gets smaller
_ZERO, _HALF, _ONE, _TWO = f32(0), f32(0.5), f32(1), f32(2)

# On [-1/64, 1/64] of (2^r - 1) / r; error of 2^r 5.3e-8.
_T0, _T1 = f32(0.69315734), f32(0.24022866)
# Minimax polynomials on [-1/2, 1/2]: of (2^r - 1) / r, and of the derivative of (exp(z) - 1) / z.
# Errors 3.2e-7 and 9e-8 before rounding.
_E0, _E1, _E2, _E3, _E4 = map(
    f32, (0.69314718056, 0.24022349039, 0.05550381014, 0.00966636852, 0.00133813025)
)
_L0, _L1, _L2, _L3, _L4 = map(f32, constants.ATANH)
_P0, _P1, _P2, _P3, _P4, _P5 = map(
    f32,
    (0.50000008523, 0.33333334414, 0.12499386492, 0.03333255510, 0.00700981081, 0.00119876986),
)


@inlined
def exp2_and_less_one(x: Any) -> Any:
    """2^x and 2^x - 1, the second without cancellation, for x below 127.

    x = i + r with i an integer and r in [-1/2, 1/2]: 2^x = 2^i + 2^i (2^r - 1).
    """
    x = where_less(x, _LOWEST, _LOWEST, x)
    shifted = x + _ROUND
    scale = shift_to_exponent(shifted)
    r = x - (shifted - _ROUND)
    small = r * (_E0 + r * (_E1 + r * (_E2 + r * (_E3 + r * _E4))))
    return scale * small + scale, scale * small + (scale - _ONE)


class Exp2Table(NamedTuple):
    """What ``exp2`` needs in registers."""

    low: Any  # 2^(i / 32) for i < 16
    high: Any  # and from there on
    round: Any
    t0: Any
    t1: Any


@inlined
def _table() -> Exp2Table:
    return Exp2Table(
        opaque(powers_of_32nds(0)),
        opaque(powers_of_32nds(1)),
        opaque(splat(_ROUND_32)),
        opaque(splat(_T0)),
        opaque(splat(_T1)),
    )


@inlined
def _exp2_by_table(x: Any, table: Exp2Table) -> Any:
    """2^x for finite x, where x = i / 32 + r with an integer i and r in [-1/64, 1/64].

    Beyond 2^18, where i is no longer right, r still is small, and the scale is 0 or infinity.
    """
    shifted = x + table.round
    nearest = shifted - table.round
    r = x - nearest
    power = look_up(table.low, table.high, shifted)
    return times_power(power * r * (table.t0 + r * table.t1) + power, nearest)


@inlined
def _no_table() -> None:
    return None


@inlined
def _exp2_by_polynomial(x: Any, table: None) -> Any:
    power, _ = exp2_and_less_one(x)
    return power


# The table takes half of the multiplications; both are within 2e-7. A loop has it made before.
exp2 = _exp2_by_table if HAS_TABLES else _exp2_by_polynomial
exp2_table = _table if HAS_TABLES else _no_table


@inlined
def magnitude(x: Any) -> Any:
    """|x|."""
    return where_less(x, _ZERO, _ZERO - x, x)


@inlined
def softplus(x: Any, table: Any) -> Any:
    """log(1 + exp(x)), relatively accurate on either side of 0.

    With w = exp(-|x|) and s = w / (2 + w) it is max(x, 0) + 2 atanh(s). Above 20, where torch
    switches to x, the second term is below a float32's resolution.
    """
    x_log2 = magnitude(x) * (-LOG2_E)
    x_log2 = where_less(x_log2, _LOWEST, _LOWEST, x_log2)  # infinite x have their limits too
    w = exp2(x_log2, table)
    s = w / (w + _TWO)
    v = s * s
    log1p = s * (_L0 + v * (_L1 + v * (_L2 + v * (_L3 + v * _L4))))
    return where_less(x, _ZERO, _ZERO, x) + log1p


@inlined
def zoh_gain_slope(z: Any, d: Any, a: Any, gain: Any, inverse_A: Any) -> Any:
    """dg/dA of the zoh gain g = (exp(d A) - 1) / A, with z = d A and a = exp(z).

    It is (d a - g) / A; below |z| = 1/2 that cancels, and d^2 times a polynomial takes its place.
    """
    near = d * d * (_P0 + z * (_P1 + z * (_P2 + z * (_P3 + z * (_P4 + z * _P5)))))
    return where_less(magnitude(z), _HALF, near, (d * a - gain) * inverse_A)
