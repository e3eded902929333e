"""Vectors of float32 lanes as numba types, and the few machine operations the scan needs.

Loops over channels are not left to the auto-vectoriser: a row of 16 channels is one LLVM
``<16 x float>``, which is lowered to whatever the machine has (one AVX-512 register, two of AVX,
four of NEON). A group is four rows, ``<64 x float>``: four components of the state at once, in
registers for as long as a loop runs. Jitted code then reads like the scalar recurrence,
``h = a * h + x * b``.

Arithmetic carries the ``contract`` flag alone: products and sums fuse into FMA instructions, but
nothing is reordered, and NaN and infinity go through. Sums over lanes have one fixed tree.

NOTE: the disk cache of a jitted function knows its own file only. :class:`SourceCache` adds these
sources to its key.
"""

from __future__ import annotations

import hashlib
import operator
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import config, njit, types
from numba.core import cgutils
from numba.core.caching import FunctionCache
from numba.core.datamodel.models import PrimitiveModel
from numba.core.datamodel.registry import register_default
from numba.core.imputils import lower_builtin
from numba.core.typing import signature
from numba.core.typing.templates import ConcreteTemplate, infer_global
from numba.extending import intrinsic

WIDTH = 16

_FLOAT = ir.FloatType()
INT32 = ir.IntType(32)
_FLAGS = ("contract",)


class VecType(types.Type):
    """The numba type of a vector of float32 lanes."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"Vec{lanes}")


vec, vec_group = VecType(WIDTH), VecType(4 * WIDTH)


@register_default(VecType)
class _VecModel(PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: VecType) -> None:
        super().__init__(manager, fe_type, floats(fe_type.lanes))


def floats(lanes: int) -> ir.VectorType:
    return ir.VectorType(_FLOAT, lanes)


def integers(lanes: int) -> ir.VectorType:
    return ir.VectorType(INT32, lanes)


class SourceCache(FunctionCache):  # type: ignore[misc]
    """A disk cache that starts anew when any of the kernel's numba sources changes."""

    _digest = hashlib.sha256(
        b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("numba_*.py")))
    ).hexdigest()

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), self._digest)


def compiled(function: Callable[..., Any]) -> Any:
    """Compile an entry point, to run without the GIL and to be cached on disk."""
    dispatcher = njit(nogil=True, boundscheck=False, error_model="numpy")(function)
    try:
        dispatcher._cache = SourceCache(function)
    except RuntimeError as error:  # neither this folder nor the user's cache can be written
        warnings.warn(
            f"{error}: the numba kernel is compiled anew, some seconds, in every process. "
            "To avoid that, set NUMBA_CACHE_DIR to a folder that can be written.",
            stacklevel=2,
        )
    return dispatcher


# Part of an entry point, always inlined into it.
inlined = njit(forceinline=True, boundscheck=False, error_model="numpy")


def shuffled(builder: ir.IRBuilder, x: ir.Value, y: ir.Value, lanes: list[int]) -> ir.Value:
    return builder.shuffle_vector(x, y, ir.Constant(integers(len(lanes)), lanes))


def filled(builder: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    """A scalar in so many lanes, or a row over and over."""
    if isinstance(value.type, ir.VectorType):
        repeats = lanes // value.type.count
        return value if repeats == 1 else shuffled(builder, value, value, [*range(WIDTH)] * repeats)
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    single = builder.insert_element(undefined, value, INT32(0))
    return shuffled(builder, single, undefined, [0] * lanes)


def joined(builder: ir.IRBuilder, rows: list[ir.Value]) -> ir.Value:
    """Rows one after another; their number is a power of two."""
    while len(rows) > 1:
        lanes = list(range(2 * rows[0].type.count))
        halves = zip(rows[::2], rows[1::2], strict=True)
        rows = [shuffled(builder, low, high, lanes) for low, high in halves]
    return rows[0]


def _lanes(kind: Any) -> int:
    return kind.lanes if isinstance(kind, VecType) else 1


def _define_operator(python_operator: Any, instruction: str) -> None:
    """Give the operator an LLVM instruction, for scalars, rows and groups; the wider one counts."""
    pairs = [
        (vec, vec, vec),
        (vec, vec, types.float32),
        (vec, types.float32, vec),
        (vec_group, vec_group, vec_group),
        (vec_group, vec_group, vec),
        (vec_group, vec, vec_group),
        (vec_group, vec_group, types.float32),
        (vec_group, types.float32, vec_group),
    ]

    class Template(ConcreteTemplate):  # type: ignore[misc]
        cases: ClassVar[list[Any]] = [signature(*kinds) for kinds in pairs]

    infer_global(python_operator)(Template)

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        x, y = (filled(builder, value, sig.return_type.lanes) for value in args)
        return getattr(builder, instruction)(x, y, flags=_FLAGS)

    for case in Template.cases:
        lower_builtin(python_operator, *case.args)(lower)


_define_operator(operator.add, "fadd")
_define_operator(operator.sub, "fsub")
_define_operator(operator.mul, "fmul")
_define_operator(operator.truediv, "fdiv")


@intrinsic
def splat(typing_context: Any, value: Any) -> Any:
    """A row equal to a float32 everywhere."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return filled(builder, args[0], WIDTH)

    return vec(types.float32), codegen


@intrinsic
def splat_group(typing_context: Any, value: Any) -> Any:
    """A group equal to a float32 everywhere."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return filled(builder, args[0], vec_group.lanes)

    return vec_group(types.float32), codegen


@intrinsic
def rows_of(typing_context: Any, x: Any) -> Any:
    """How many rows x has: 1 or 4."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return ir.Constant(ir.IntType(64), sig.args[0].lanes // WIDTH)

    return types.int64(x), codegen


def _widest(*kinds: Any) -> Any:
    return max(kinds, key=_lanes)


@intrinsic
def where_less(typing_context: Any, x: Any, y: Any, if_less: Any, otherwise: Any) -> Any:
    """``if_less`` in lanes where x < y, else (and where either is NaN) ``otherwise``."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        x, y, low, high = (filled(builder, value, sig.return_type.lanes) for value in args)
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
        for row in range(0, sig.args[0].lanes, WIDTH):
            lanes = list(range(row, row + WIDTH))
            product = builder.fmul(
                shuffled(builder, x, x, lanes), shuffled(builder, y, y, lanes), flags=_FLAGS
            )
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
def held(typing_context: Any, x: Any) -> Any:
    """x, such that LLVM takes it for unknown.

    A constant it would rather load again, in every turn of a loop, than hold in a register.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        kind = args[0].type
        return builder.asm(ir.FunctionType(kind, [kind]), "", "=v,0", args, False)

    return x(x), codegen


@intrinsic
def lookup(typing_context: Any, low: Any, high: Any, x: Any) -> Any:
    """The element of low and high, one behind the other, that the lowest five bits of x name.

    Needs ``HAS_TABLES``.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        kind = integers(WIDTH)
        name = "llvm.x86.avx512.vpermi2var.d.512"
        permute = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(kind, [kind, kind, kind]), name
        )
        low, high = (builder.bitcast(table, kind) for table in args[:2])
        bits = builder.bitcast(args[2], integers(sig.args[2].lanes))
        rows = []
        for row in range(0, sig.args[2].lanes, WIDTH):
            i = shuffled(builder, bits, bits, list(range(row, row + WIDTH)))
            rows.append(builder.call(permute, [low, i, high]))
        return builder.bitcast(joined(builder, rows), floats(sig.args[2].lanes))

    return x(low, high, x), codegen


@intrinsic
def scaled(typing_context: Any, x: Any, exponent: Any) -> Any:
    """x times 2^floor(exponent), 0 or infinity beyond float32. Needs ``HAS_TABLES``."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        kind, mask = floats(WIDTH), ir.IntType(16)
        name = "llvm.x86.avx512.mask.scalef.ps.512"
        scalef = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(kind, [kind, kind, kind, mask, INT32]), name
        )
        rows = []
        for row in range(0, sig.args[0].lanes, WIDTH):
            lanes = list(range(row, row + WIDTH))
            value, power = (shuffled(builder, y, y, lanes) for y in args)
            zeros = ir.Constant(kind, [0.0] * WIDTH)
            rows.append(builder.call(scalef, [value, power, zeros, mask(0xFFFF), INT32(4)]))
        return joined(builder, rows)

    return x(x, exponent), codegen
