"""Vectors and memory: loads and stores of rows, narrower dtypes, prefetches, a shared counter.

Arrays are float32, or uint16 with the bits of bfloat16: loads widen, stores round to nearest even.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ssmdiff_kernels.numba_vector import (
    INT32,
    WIDTH,
    filled,
    floats,
    integers,
    joined,
    shuffled,
    vec,
    vec_group,
)

_FLOAT = ir.FloatType()
_INT16 = ir.IntType(16)


@intrinsic
def pointer(typing_context: Any, array: Any) -> Any:
    """Where a flat array begins. The array must outlive it: nothing counts references to it.

    All functions here take pointers. An array that is handed from function to function has its
    references counted, by calls in the middle of a loop that cost more than the loop.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return context.make_array(sig.args[0])(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), codegen


@intrinsic
def keep_alive(typing_context: Any, array: Any) -> Any:
    """Does nothing, after the last use of a pointer into an array of this function."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return context.get_dummy_value()

    return types.void(array), codegen


def _address(
    context: Any, builder: ir.IRBuilder, sig: Any, args: Any, which: int, pointee: ir.Type
) -> ir.Value:
    """The address of element ``args[which + 1]`` behind the pointer ``args[which]``."""
    element = builder.gep(args[which], [args[which + 1]])
    return builder.bitcast(element, pointee.as_pointer())


def _narrow(array: Any) -> bool:
    """Whether an array holds bfloat16, as uint16."""
    return bool(array.dtype == types.uint16)


def _widened(builder: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    """bfloat16 to float32."""
    lanes = bits.type.count
    wide = builder.zext(bits, integers(lanes))
    shift = ir.Constant(integers(lanes), [16] * lanes)
    return builder.bitcast(builder.shl(wide, shift), floats(lanes))


def _narrowed(builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """float32 to bfloat16, to nearest, ties to even; NaN stays NaN."""
    lanes = x.type.count

    def constant(value: int) -> ir.Constant:
        return ir.Constant(integers(lanes), [value] * lanes)

    bits = builder.bitcast(x, integers(lanes))
    upper = builder.lshr(bits, constant(16))
    odd = builder.and_(upper, constant(1))
    rounded = builder.lshr(builder.add(bits, builder.add(odd, constant(0x7FFF))), constant(16))
    quiet = builder.or_(upper, constant(0x40))
    kept = builder.select(builder.fcmp_unordered("uno", x, x), quiet, rounded)
    return builder.trunc(kept, ir.VectorType(_INT16, lanes))


def _load(context: Any, builder: ir.IRBuilder, sig: Any, args: Any, lanes: int) -> ir.Value:
    """So many elements of the array ``args[0]`` from place ``args[1]`` on."""
    if _narrow(sig.args[0]):
        kind = ir.VectorType(_INT16, lanes)
        place = _address(context, builder, sig, args, 0, kind)
        return _widened(builder, builder.load(place, align=2))
    return builder.load(_address(context, builder, sig, args, 0, floats(lanes)), align=4)


@intrinsic
def load(typing_context: Any, array: Any, index: Any) -> Any:
    """The row ``array[index : index + 16]``."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return _load(context, builder, sig, args, WIDTH)

    return vec(array, types.intp), codegen


@intrinsic
def load_like(typing_context: Any, array: Any, index: Any, pattern: Any) -> Any:
    """As many lanes as ``pattern`` has, from ``array[index]`` on."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return _load(context, builder, sig, args, sig.args[2].lanes)

    return pattern(array, types.intp, pattern), codegen


@intrinsic
def spread_like(typing_context: Any, array: Any, index: Any, pattern: Any) -> Any:
    """``array[index]`` in all lanes of the first row, ``array[index + 1]`` in the second, ...

    Of a float32 array. One broadcasting load for each row: LLVM shuffles what it loads at once.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        address = _address(context, builder, sig, args, 0, _FLOAT)
        parts = [
            filled(builder, builder.load(builder.gep(address, [INT32(row)]), align=4), WIDTH)
            for row in range(sig.args[2].lanes // WIDTH)
        ]
        return joined(builder, parts)

    return pattern(array, types.intp, pattern), codegen


@intrinsic
def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """``array[index : index + lanes] = value``."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        x, align = args[2], 4
        if _narrow(sig.args[0]):
            x, align = _narrowed(builder, x), 2
        builder.store(x, _address(context, builder, sig, args, 0, x.type), align=align)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


def _mask(builder: ir.IRBuilder, width: ir.Value) -> ir.Value:
    """Lanes of a row below ``width``, an int64."""
    counts = filled(builder, builder.trunc(width, INT32), WIDTH)
    return builder.icmp_signed("<", ir.Constant(integers(WIDTH), list(range(WIDTH))), counts)


def _masked(builder: ir.IRBuilder, name: str, result: ir.Type, arguments: list[ir.Value]) -> Any:
    kind = ir.FunctionType(result, [value.type for value in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, arguments)


@intrinsic
def load_part(typing_context: Any, array: Any, index: Any, width: Any) -> Any:
    """``array[index : index + width]`` and zeros behind it; touches no other memory."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        narrow = _narrow(sig.args[0])
        kind = ir.VectorType(_INT16, WIDTH) if narrow else floats(WIDTH)
        address = _address(context, builder, sig, args, 0, kind)
        zeros = ir.Constant(kind, [0 if narrow else 0.0] * WIDTH)
        arguments = [address, INT32(2 if narrow else 4), _mask(builder, args[2]), zeros]
        suffix = "i16" if narrow else "f32"
        name = f"llvm.masked.load.v16{suffix}.p0v16{suffix}"
        x = _masked(builder, name, kind, arguments)
        return _widened(builder, x) if narrow else x

    return vec(array, types.intp, types.intp), codegen


@intrinsic
def store_part(typing_context: Any, array: Any, index: Any, value: Any, width: Any) -> Any:
    """``array[index : index + width] = value``; touches no other memory."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        narrow = _narrow(sig.args[0])
        x = _narrowed(builder, args[2]) if narrow else args[2]
        address = _address(context, builder, sig, args, 0, x.type)
        arguments = [x, address, INT32(2 if narrow else 4), _mask(builder, args[3])]
        suffix = "i16" if narrow else "f32"
        name = f"llvm.masked.store.v16{suffix}.p0v16{suffix}"
        _masked(builder, name, ir.VoidType(), arguments)
        return context.get_dummy_value()

    return types.void(array, types.intp, vec, types.intp), codegen


@intrinsic
def add_lane_sums(typing_context: Any, x: Any, target: Any, place: Any) -> Any:
    """Add the sum of the lanes of each row of x to one float, from ``target[place]`` on.

    Of a group: two rounds of pairwise interleaving leave, in each quarter of one row, a partial sum
    of each of the four; the quarters are then added. Four instructions a row instead of nine.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        def interleaved(x: ir.Value, y: ir.Value, first: list[int], second: list[int]) -> ir.Value:
            quarters = range(0, WIDTH, 4)
            low, high = ([q + i for q in quarters for i in half] for half in (first, second))
            return builder.fadd(shuffled(builder, x, y, low), shuffled(builder, x, y, high))

        def folded(x: ir.Value) -> ir.Value:
            lanes = list(range(x.type.count))
            half = len(lanes) // 2
            low, high = shuffled(builder, x, x, lanes[:half]), shuffled(builder, x, x, lanes[half:])
            return builder.fadd(low, high)

        sums = args[0]
        if sig.args[0] == vec_group:
            rows = [
                shuffled(builder, sums, sums, list(range(row, row + WIDTH)))
                for row in range(0, 4 * WIDTH, WIDTH)
            ]
            other = WIDTH  # lanes of the second operand count on from here
            pairs = [
                interleaved(x, y, [0, other, 1, other + 1], [2, other + 2, 3, other + 3])
                for x, y in ((rows[0], rows[1]), (rows[2], rows[3]))
            ]
            quads = interleaved(
                pairs[0], pairs[1], [0, 1, other, other + 1], [2, 3, other + 2, other + 3]
            )
            sums = folded(folded(quads))
        else:
            while sums.type.count > 1:
                sums = folded(sums)
        place = _address(context, builder, sig, args, 1, sums.type)
        before = builder.load(place, align=4)
        builder.store(builder.fadd(sums, before), place, align=4)
        return context.get_dummy_value()

    return types.void(x, target, types.intp), codegen


@intrinsic
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of ``array[index]``; an address outside the array does no harm.

    Into the second-level cache: what a chunk will need would drive out of the first what the
    present one works on.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        address = _address(context, builder, sig, args, 0, ir.IntType(8))
        kind = ir.FunctionType(ir.VoidType(), [address.type, INT32, INT32, INT32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [address, INT32(0), INT32(2), INT32(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


@intrinsic
def fetch_add(typing_context: Any, counters: Any, index: Any) -> Any:
    """Add one to ``counters[index]``, an int64, and return what it was.

    Whoever sees a count has before it what the threads that counted wrote earlier.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        place = builder.gep(args[0], [args[1]])
        return builder.atomic_rmw("add", place, ir.IntType(64)(1), "acq_rel")

    return types.int64(counters, types.intp), codegen


@intrinsic
def counted(typing_context: Any, counters: Any, index: Any) -> Any:
    """What `fetch_add` has made of ``counters[index]`` by now."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return builder.load_atomic(builder.gep(args[0], [args[1]]), "acquire", 8)

    return types.int64(counters, types.intp), codegen


@intrinsic
def pause(typing_context: Any) -> Any:
    """Wait some nanoseconds and leave the core to its other thread, where the machine can."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        if platform.machine() in ("x86_64", "AMD64"):
            kind = ir.FunctionType(ir.VoidType(), [])
            name = "llvm.x86.sse2.pause"
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), codegen
