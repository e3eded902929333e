"""Vectors of float32 lanes as numba types, and the few machine operations the scan needs.

Loops over channels are not left to the auto-vectoriser: a row of 16 channels is one LLVM
``<16 x float>``, which is lowered to whatever the machine has (one AVX-512 register, two of AVX,
four of NEON). A group is four rows, ``<64 x float>``: four components of the state at once, in
registers for as long as a loop runs. Jitted code then reads like the scalar recurrence,
``h = a * h + x * b``.

Arithmetic carries the ``contract`` flag alone: products and sums fuse into FMA instructions, but
nothing is reordered, and NaN and infinity go through. Sums over lanes have one fixed tree.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

WIDTH = 16
"""Lanes of a row: channels of a block."""
ROWS = 4
"""Rows of a group: components of the state that a walk takes at a time."""

INT32 = ir.IntType(32)
FLOAT = ir.FloatType()
_FLAGS = ("contract",)


class VecType(types.Type):
    """The numba type of a vector of float32 lanes."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"Vec{lanes}")


vec, vec_group = VecType(WIDTH), VecType(ROWS * WIDTH)


@register_model(VecType)
class _VecModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: VecType) -> None:
        super().__init__(manager, fe_type, floats(fe_type.lanes))


def floats(lanes: int) -> ir.VectorType:
    return ir.VectorType(FLOAT, lanes)


def integers(lanes: int) -> ir.VectorType:
    return ir.VectorType(INT32, lanes)


def call(builder: ir.IRBuilder, name: str, result: ir.Type, arguments: list[ir.Value]) -> ir.Value:
    """Call one of LLVM's own functions."""
    function = builder.module.globals.get(name)
    if function is None:
        kind = ir.FunctionType(result, [value.type for value in arguments])
        function = ir.Function(builder.module, kind, name)
    return builder.call(function, arguments)


def shuffle(builder: ir.IRBuilder, x: ir.Value, y: ir.Value, lanes: list[int]) -> ir.Value:
    """These lanes of x and y, the second one's counted on from the first one's."""
    return builder.shuffle_vector(x, y, ir.Constant(integers(len(lanes)), lanes))


def rows_in(builder: ir.IRBuilder, x: ir.Value) -> list[ir.Value]:
    """The rows of a row or group."""
    starts = range(0, x.type.count, WIDTH)
    return [shuffle(builder, x, x, list(range(i, i + WIDTH))) for i in starts]


def broadcast(builder: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    """A scalar in so many lanes, or a row over and over."""
    if isinstance(value.type, ir.VectorType):
        repeats = lanes // value.type.count
        return value if repeats == 1 else shuffle(builder, value, value, [*range(WIDTH)] * repeats)
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    single = builder.insert_element(undefined, value, INT32(0))
    return shuffle(builder, single, undefined, [0] * lanes)


def concatenate(builder: ir.IRBuilder, rows: list[ir.Value]) -> ir.Value:
    """Rows one after another; their number is a power of two."""
    while len(rows) > 1:
        lanes = list(range(2 * rows[0].type.count))
        halves = zip(rows[::2], rows[1::2], strict=True)
        rows = [shuffle(builder, low, high, lanes) for low, high in halves]
    return rows[0]


def _lanes(kind: Any) -> int:
    return kind.lanes if isinstance(kind, VecType) else 1


def _widest(*kinds: Any) -> Any:
    return max(kinds, key=_lanes)


def _define_operator(python_operator: Any, instruction: str) -> None:
    """Give the operator an LLVM instruction, for scalars, rows and groups; the wider one counts."""
    operands = (types.float32, vec, vec_group)

    @type_callable(python_operator)
    def _(context: Any) -> Callable[[Any, Any], Any]:
        def typer(x: Any, y: Any) -> Any:
            known = x in operands and y in operands
            return _widest(x, y) if known and _lanes(_widest(x, y)) > 1 else None

        return typer

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        x, y = (broadcast(builder, value, sig.return_type.lanes) for value in args)
        return getattr(builder, instruction)(x, y, flags=_FLAGS)

    for wide, other in ((vec, types.float32), (vec_group, types.float32), (vec_group, vec)):
        lower_builtin(python_operator, wide, wide)(lower)
        lower_builtin(python_operator, wide, other)(lower)
        lower_builtin(python_operator, other, wide)(lower)


_define_operator(operator.add, "fadd")
_define_operator(operator.sub, "fsub")
_define_operator(operator.mul, "fmul")
_define_operator(operator.truediv, "fdiv")


@intrinsic
def splat(typing_context: Any, value: Any) -> Any:
    """A row equal to a float32 everywhere."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return broadcast(builder, args[0], WIDTH)

    return vec(types.float32), codegen


@intrinsic
def splat_group(typing_context: Any, value: Any) -> Any:
    """A group equal to a float32 everywhere."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return broadcast(builder, args[0], vec_group.lanes)

    return vec_group(types.float32), codegen


@intrinsic
def where_less(typing_context: Any, x: Any, y: Any, if_less: Any, otherwise: Any) -> Any:
    """``if_less`` in lanes where x < y, else (and where either is NaN) ``otherwise``."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        x, y, low, high = (broadcast(builder, value, sig.return_type.lanes) for value in args)
        return builder.select(builder.fcmp_ordered("<", x, y), low, high)

    return _widest(x, y, if_less, otherwise)(x, y, if_less, otherwise), codegen


@intrinsic
def shift_to_exponent(typing_context: Any, x: Any) -> Any:
    """The lowest 9 bits of each lane moved to the place of sign and exponent, zeros behind them."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        lanes = sig.args[0].lanes
        bits = builder.bitcast(args[0], integers(lanes))
        shift = ir.Constant(integers(lanes), [23] * lanes)
        return builder.bitcast(builder.shl(bits, shift), floats(lanes))

    return x(x), codegen


@intrinsic
def add_products(typing_context: Any, x: Any, y: Any, total: Any) -> Any:
    """``total`` plus the product of x and y, summed over the rows one after another."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        x, y, total = args
        for x_row, y_row in zip(rows_in(builder, x), rows_in(builder, y), strict=True):
            product = builder.fmul(x_row, y_row, flags=_FLAGS)
            total = builder.fadd(total, product, flags=_FLAGS)
        return total

    return vec(x, y, vec), codegen


def _has(feature: str) -> bool:
    """Whether numba compiles for a processor with that feature."""
    if config.CPU_FEATURES is not None:
        return f"+{feature}" in config.CPU_FEATURES.split(",")
    return config.CPU_NAME in (None, "host") and bool(llvm.get_host_cpu_features().get(feature))


HAS_TABLES = _has("avx512f")
"""Whether a lookup of 16 lanes in 32 floats is one instruction here."""

_BITS_OF_POWERS = [int(np.float32(2.0 ** (i / 32)).view(np.int32)) for i in range(32)]


@intrinsic
def powers_of_32nds(typing_context: Any, half: Any) -> Any:
    """2^(i / 32) for i from 0 to 15, the half 0, or from 16 to 31, the half 1."""
    if not isinstance(half, types.Literal):
        return None

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        first = half.literal_value * WIDTH
        bits = ir.Constant(integers(WIDTH), _BITS_OF_POWERS[first : first + WIDTH])
        return builder.bitcast(bits, floats(WIDTH))

    return vec(half), codegen


@intrinsic
def opaque(typing_context: Any, x: Any) -> Any:
    """x, such that LLVM takes it for unknown.

    A constant it would rather load again, in every turn of a loop, than leave in a register.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        kind = args[0].type
        return builder.asm(ir.FunctionType(kind, [kind]), "", "=v,0", args, False)

    return x(x), codegen


@intrinsic
def look_up(typing_context: Any, low: Any, high: Any, x: Any) -> Any:
    """The element of low and high, one behind the other, that the lowest five bits of x name.

    Needs ``HAS_TABLES``.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        kind = integers(WIDTH)
        name = "llvm.x86.avx512.vpermi2var.d.512"
        low, high = (builder.bitcast(table, kind) for table in args[:2])
        places = [builder.bitcast(row, kind) for row in rows_in(builder, args[2])]
        rows = [call(builder, name, kind, [low, i, high]) for i in places]
        return builder.bitcast(concatenate(builder, rows), floats(sig.args[2].lanes))

    return x(low, high, x), codegen


@intrinsic
def times_power(typing_context: Any, x: Any, exponent: Any) -> Any:
    """x times 2^floor(exponent), 0 or infinity beyond float32. Needs ``HAS_TABLES``."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        kind, all_lanes = floats(WIDTH), ir.IntType(16)(0xFFFF)
        name = "llvm.x86.avx512.mask.scalef.ps.512"
        zeros = ir.Constant(kind, [0.0] * WIDTH)
        pairs = zip(*(rows_in(builder, value) for value in args), strict=True)
        rows = [call(builder, name, kind, [*pair, zeros, all_lanes, INT32(4)]) for pair in pairs]
        return concatenate(builder, rows)

    return x(x, exponent), codegen
