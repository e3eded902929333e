"""Vectors and memory: loads and stores of rows, narrower dtypes, prefetches, a shared counter.

Arrays are float32, or uint16 with the bits of bfloat16: loads widen, stores round to nearest even.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ssmdiff_kernels.numba_scan.vectors import (
    FLOAT,
    INT32,
    ROWS,
    WIDTH,
    broadcast,
    call,
    concatenate,
    floats,
    integers,
    rows_in,
    shuffle,
    vec,
    vec_group,
)

_INT16 = ir.IntType(16)


@intrinsic
def keep_alive(typing_context: Any, array: Any) -> Any:
    """Does nothing, after the last use of a pointer into an array of this function."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return context.get_dummy_value()

    return types.void(array), codegen


@intrinsic
def after(typing_context: Any, place: Any, count: Any) -> Any:
    """A pointer so many elements further on."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return builder.gep(args[0], [args[1]])

    return place(place, types.intp), codegen


def _address(builder: ir.IRBuilder, args: Any, pointee: ir.Type) -> ir.Value:
    """The address of element ``args[1]`` behind the pointer ``args[0]``."""
    return builder.bitcast(builder.gep(args[0], [args[1]]), pointee.as_pointer())


def _is_bfloat16(array: Any) -> bool:
    """Whether an array holds bfloat16, as uint16."""
    return bool(array.dtype == types.uint16)


def _to_float32(builder: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    """bfloat16 to float32."""
    lanes = bits.type.count
    wide = builder.zext(bits, integers(lanes))
    shift = ir.Constant(integers(lanes), [16] * lanes)
    return builder.bitcast(builder.shl(wide, shift), floats(lanes))


def _to_bfloat16(builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """float32 to bfloat16, to nearest, ties to even; NaN stays NaN."""
    lanes = x.type.count

    def constant(value: int) -> ir.Constant:
        return ir.Constant(integers(lanes), [value] * lanes)

    bits = builder.bitcast(x, integers(lanes))
    upper = builder.lshr(bits, constant(16))
    odd = builder.and_(upper, constant(1))
    rounded = builder.lshr(builder.add(bits, builder.add(odd, constant(0x7FFF))), constant(16))
    quiet = builder.or_(upper, constant(0x40))
    result = builder.select(builder.fcmp_unordered("uno", x, x), quiet, rounded)
    return builder.trunc(result, ir.VectorType(_INT16, lanes))


def _load(builder: ir.IRBuilder, sig: Any, args: Any, lanes: int) -> ir.Value:
    """So many elements of the array ``args[0]`` from place ``args[1]`` on."""
    if _is_bfloat16(sig.args[0]):
        kind = ir.VectorType(_INT16, lanes)
        place = _address(builder, args, kind)
        return _to_float32(builder, builder.load(place, align=2))
    return builder.load(_address(builder, args, floats(lanes)), align=4)


@intrinsic
def load(typing_context: Any, array: Any, index: Any) -> Any:
    """The row ``array[index : index + 16]``."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return _load(builder, sig, args, WIDTH)

    return vec(array, types.intp), codegen


@intrinsic
def load_group(typing_context: Any, array: Any, index: Any) -> Any:
    """The four rows from ``array[index]`` on."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return _load(builder, sig, args, vec_group.lanes)

    return vec_group(array, types.intp), codegen


@intrinsic
def spread_group(typing_context: Any, array: Any, index: Any) -> Any:
    """``array[index]`` in all lanes of the first row, ``array[index + 1]`` in the second, ...

    Of a float32 array. One broadcasting load for each row. One load and a shuffle is as fast, but
    LLVM then fuses the other product of a h + B (d u) with the sum: other last bits.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        first = _address(builder, args, FLOAT)
        places = [builder.gep(first, [INT32(row)]) for row in range(ROWS)]
        numbers = [builder.load(place, align=4) for place in places]
        return concatenate(builder, [broadcast(builder, x, WIDTH) for x in numbers])

    return vec_group(array, types.intp), codegen


@intrinsic
def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """``array[index : index + lanes] = value``."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        x, align = args[2], 4
        if _is_bfloat16(sig.args[0]):
            x, align = _to_bfloat16(builder, x), 2
        builder.store(x, _address(builder, args, x.type), align=align)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


def _mask(builder: ir.IRBuilder, width: ir.Value) -> ir.Value:
    """Lanes of a row below ``width``, an int64."""
    counts = broadcast(builder, builder.trunc(width, INT32), WIDTH)
    return builder.icmp_signed("<", ir.Constant(integers(WIDTH), list(range(WIDTH))), counts)


@intrinsic
def load_part(typing_context: Any, array: Any, index: Any, width: Any) -> Any:
    """``array[index : index + width]`` and zeros behind it; touches no other memory."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        bfloat16 = _is_bfloat16(sig.args[0])
        kind = ir.VectorType(_INT16, WIDTH) if bfloat16 else floats(WIDTH)
        address = _address(builder, args, kind)
        zeros = ir.Constant(kind, [0 if bfloat16 else 0.0] * WIDTH)
        arguments = [address, INT32(2 if bfloat16 else 4), _mask(builder, args[2]), zeros]
        suffix = "i16" if bfloat16 else "f32"
        name = f"llvm.masked.load.v16{suffix}.p0v16{suffix}"
        x = call(builder, name, kind, arguments)
        return _to_float32(builder, x) if bfloat16 else x

    return vec(array, types.intp, types.intp), codegen


@intrinsic
def store_part(typing_context: Any, array: Any, index: Any, value: Any, width: Any) -> Any:
    """``array[index : index + width] = value``; touches no other memory."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        bfloat16 = _is_bfloat16(sig.args[0])
        x = _to_bfloat16(builder, args[2]) if bfloat16 else args[2]
        address = _address(builder, args, x.type)
        arguments = [x, address, INT32(2 if bfloat16 else 4), _mask(builder, args[3])]
        suffix = "i16" if bfloat16 else "f32"
        name = f"llvm.masked.store.v16{suffix}.p0v16{suffix}"
        call(builder, name, ir.VoidType(), arguments)
        return context.get_dummy_value()

    return types.void(array, types.intp, vec, types.intp), codegen


@intrinsic
def add_lane_sums(typing_context: Any, array: Any, index: Any, x: Any) -> Any:
    """Add the sum of the lanes of each row of a group to one float, from ``array[index]`` on.

    Two rounds of pairwise interleaving leave, in each quarter of one row, a partial sum of each of
    the four; the quarters are then added. Four instructions a row instead of nine.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        def interleave(x: ir.Value, y: ir.Value, first: list[int], second: list[int]) -> ir.Value:
            quarters = range(0, WIDTH, 4)
            low, high = ([q + i for q in quarters for i in half] for half in (first, second))
            return builder.fadd(shuffle(builder, x, y, low), shuffle(builder, x, y, high))

        def fold(x: ir.Value) -> ir.Value:
            lanes = list(range(x.type.count))
            half = len(lanes) // 2
            low, high = shuffle(builder, x, x, lanes[:half]), shuffle(builder, x, x, lanes[half:])
            return builder.fadd(low, high)

        rows = rows_in(builder, args[2])
        other = WIDTH  # lanes of the second operand count on from here
        pairs = [
            interleave(x, y, [0, other, 1, other + 1], [2, other + 2, 3, other + 3])
            for x, y in ((rows[0], rows[1]), (rows[2], rows[3]))
        ]
        first, second = pairs
        quads = interleave(first, second, [0, 1, other, other + 1], [2, 3, other + 2, other + 3])
        sums = fold(fold(quads))
        place = _address(builder, args, sums.type)
        before = builder.load(place, align=4)
        builder.store(builder.fadd(sums, before), place, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vec_group), codegen


@intrinsic
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of ``array[index]``; an address outside the array does no harm.

    Into the second-level cache: what a chunk will need would drive out of the first what the
    present one works on.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        address = _address(builder, args, ir.IntType(8))
        to_read, second_level, data = INT32(0), INT32(2), INT32(1)
        arguments = [address, to_read, second_level, data]
        call(builder, "llvm.prefetch.p0i8", ir.VoidType(), arguments)
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


@intrinsic
def count_up(typing_context: Any, counters: Any, index: Any) -> Any:
    """Add one to ``counters[index]``, an int64, and return what it was.

    Whoever sees a count has before it what the threads that counted wrote earlier.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        place = builder.gep(args[0], [args[1]])
        return builder.atomic_rmw("add", place, ir.IntType(64)(1), "acq_rel")

    return types.int64(counters, types.intp), codegen
