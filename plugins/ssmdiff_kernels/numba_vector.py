"""A vector of 16 float32 lanes as a numba type, and the few machine operations the scan needs.

Loops over channels are not left to the auto-vectoriser: a vector is one LLVM ``<16 x float>``,
which is lowered to whatever the machine has (one AVX-512 register, two of AVX, four of NEON).
Jitted code then reads like the scalar recurrence, ``h = a * h + x * b``, one value for 16 channels.

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
from typing import Any

from llvmlite import ir
from numba import njit, types
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
_INT32 = ir.IntType(32)
_LANES = ir.VectorType(_FLOAT, WIDTH)
_BITS = ir.VectorType(_INT32, WIDTH)
_FLAGS = ("contract",)


class VecType(types.Type):
    """The numba type of a vector of 16 float32 lanes."""

    def __init__(self) -> None:
        super().__init__(name="Vec16")


vec = VecType()


@register_default(VecType)
class _VecModel(PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: VecType) -> None:
        super().__init__(manager, fe_type, _LANES)


class SourceCache(FunctionCache):  # type: ignore[misc]
    """A disk cache that starts anew when any of the kernel's numba sources changes."""

    _digest = hashlib.sha256(
        b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("numba_*.py")))
    ).hexdigest()

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), self._digest)


def compiled(function: Callable[..., None]) -> Any:
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


def _broadcast(builder: ir.IRBuilder, scalar: ir.Value) -> ir.Value:
    single = builder.insert_element(ir.Constant(_LANES, ir.Undefined), scalar, _INT32(0))
    return builder.shuffle_vector(
        single, ir.Constant(_LANES, ir.Undefined), ir.Constant(_BITS, [0] * WIDTH)
    )


_OPERANDS = [
    signature(vec, vec, vec),
    signature(vec, vec, types.float32),
    signature(vec, types.float32, vec),
]


def _define_operator(python_operator: Any, instruction: str) -> None:
    """Give ``Vec op Vec``, ``Vec op float32`` and ``float32 op Vec`` an LLVM instruction."""

    class Template(ConcreteTemplate):  # type: ignore[misc]
        cases = _OPERANDS

    infer_global(python_operator)(Template)

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        x, y = (
            value if kind == vec else _broadcast(builder, value)
            for kind, value in zip(sig.args, args, strict=True)
        )
        return getattr(builder, instruction)(x, y, flags=_FLAGS)

    for case in _OPERANDS:
        lower_builtin(python_operator, *case.args)(lower)


_define_operator(operator.add, "fadd")
_define_operator(operator.sub, "fsub")
_define_operator(operator.mul, "fmul")
_define_operator(operator.truediv, "fdiv")


def _address(
    context: Any, builder: ir.IRBuilder, sig: Any, args: Any, which: int, pointee: ir.Type
) -> ir.Value:
    """The address of element ``args[which + 1]`` of the flat array ``args[which]``."""
    array = context.make_array(sig.args[which])(context, builder, args[which])
    element = builder.gep(array.data, [args[which + 1]])
    return builder.bitcast(element, pointee.as_pointer())


@intrinsic
def splat(typing_context: Any, value: Any) -> Any:
    """All lanes equal to a float32."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return _broadcast(builder, args[0])

    return vec(types.float32), codegen


@intrinsic
def splat_at(typing_context: Any, array: Any, index: Any) -> Any:
    """All lanes equal to ``array[index]``: one broadcasting load."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        address = _address(context, builder, sig, args, 0, _FLOAT)
        return _broadcast(builder, builder.load(address, align=4))

    return vec(array, types.intp), codegen


@intrinsic
def load(typing_context: Any, array: Any, index: Any) -> Any:
    """The lanes ``array[index : index + 16]``."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return builder.load(_address(context, builder, sig, args, 0, _LANES), align=4)

    return vec(array, types.intp), codegen


@intrinsic
def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """``array[index : index + 16] = value``."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        builder.store(args[2], _address(context, builder, sig, args, 0, _LANES), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vec), codegen


def _mask(builder: ir.IRBuilder, width: ir.Value) -> ir.Value:
    """Lanes below ``width``, an int64."""
    count = builder.trunc(width, _INT32)
    single = builder.insert_element(ir.Constant(_BITS, ir.Undefined), count, _INT32(0))
    counts = builder.shuffle_vector(
        single, ir.Constant(_BITS, ir.Undefined), ir.Constant(_BITS, [0] * WIDTH)
    )
    return builder.icmp_signed("<", ir.Constant(_BITS, list(range(WIDTH))), counts)


def _masked(builder: ir.IRBuilder, name: str, result: ir.Type, arguments: list[ir.Value]) -> Any:
    kind = ir.FunctionType(result, [value.type for value in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, arguments)


@intrinsic
def load_part(typing_context: Any, array: Any, index: Any, width: Any) -> Any:
    """``array[index : index + width]`` and zeros behind it; touches no other memory."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        address = _address(context, builder, sig, args, 0, _LANES)
        zeros = ir.Constant(_LANES, [0.0] * WIDTH)
        arguments = [address, _INT32(4), _mask(builder, args[2]), zeros]
        return _masked(builder, "llvm.masked.load.v16f32.p0v16f32", _LANES, arguments)

    return vec(array, types.intp, types.intp), codegen


@intrinsic
def store_part(typing_context: Any, array: Any, index: Any, value: Any, width: Any) -> Any:
    """``array[index : index + width] = value``; touches no other memory."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        address = _address(context, builder, sig, args, 0, _LANES)
        arguments = [args[2], address, _INT32(4), _mask(builder, args[3])]
        _masked(builder, "llvm.masked.store.v16f32.p0v16f32", ir.VoidType(), arguments)
        return context.get_dummy_value()

    return types.void(array, types.intp, vec, types.intp), codegen


@intrinsic
def where_less(typing_context: Any, x: Any, y: Any, if_less: Any, otherwise: Any) -> Any:
    """``if_less`` in lanes where x < y, else (and where either is NaN) ``otherwise``."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        x, y, if_less, otherwise = args
        return builder.select(builder.fcmp_ordered("<", x, y), if_less, otherwise)

    return vec(vec, vec, vec, vec), codegen


@intrinsic
def shift_to_exponent(typing_context: Any, x: Any) -> Any:
    """The lowest 9 bits of each lane moved to the place of sign and exponent, zeros behind them."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        bits = builder.bitcast(args[0], _BITS)
        return builder.bitcast(builder.shl(bits, ir.Constant(_BITS, [23] * WIDTH)), _LANES)

    return vec(vec), codegen


@intrinsic
def lane_sums(
    typing_context: Any, source: Any, index: Any, target: Any, place: Any, accumulate: Any
) -> Any:
    """Sum the lanes of the four vectors at ``source[index]`` into four floats at ``target[place]``.

    They are added to what is there if ``accumulate``, and replace it otherwise.

    Two rounds of pairwise interleaving leave, in each quarter of one vector, a partial sum of each
    of the four; the quarters are then added. About four instructions a vector instead of nine.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        def shuffled(x: ir.Value, y: ir.Value, lanes: list[int]) -> ir.Value:
            pattern = ir.Constant(ir.VectorType(_INT32, len(lanes)), lanes)
            return builder.shuffle_vector(x, y, pattern)

        def interleaved(x: ir.Value, y: ir.Value, first: list[int], second: list[int]) -> ir.Value:
            quarters = range(0, WIDTH, 4)
            low, high = ([q + i for q in quarters for i in half] for half in (first, second))
            return builder.fadd(shuffled(x, y, low), shuffled(x, y, high))

        def folded(x: ir.Value) -> ir.Value:
            lanes = list(range(x.type.count))
            half = len(lanes) // 2
            return builder.fadd(shuffled(x, x, lanes[:half]), shuffled(x, x, lanes[half:]))

        address = _address(context, builder, sig, args, 0, _FLOAT)
        rows = []
        for row in range(4):
            start = builder.gep(address, [_INT32(row * WIDTH)])
            rows.append(builder.load(builder.bitcast(start, _LANES.as_pointer()), align=4))
        other = WIDTH  # lanes of the second operand count on from here
        pairs = [
            interleaved(x, y, [0, other, 1, other + 1], [2, other + 2, 3, other + 3])
            for x, y in ((rows[0], rows[1]), (rows[2], rows[3]))
        ]
        quads = interleaved(
            pairs[0], pairs[1], [0, 1, other, other + 1], [2, 3, other + 2, other + 3]
        )
        sums = folded(folded(quads))
        destination = _address(context, builder, sig, args, 2, sums.type)
        with builder.if_else(args[4]) as (then, otherwise):
            with then:
                total = builder.fadd(builder.load(destination, align=4), sums)
                builder.store(total, destination, align=4)
            with otherwise:
                builder.store(sums, destination, align=4)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp, types.boolean), codegen


@intrinsic
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of ``array[index]``; an address outside the array does no harm."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        address = _address(context, builder, sig, args, 0, ir.IntType(8))
        kind = ir.FunctionType(ir.VoidType(), [address.type, _INT32, _INT32, _INT32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [address, _INT32(0), _INT32(3), _INT32(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


@intrinsic
def fetch_add(typing_context: Any, counter: Any) -> Any:
    """Add one to ``counter[0]`` (int64) for all threads at once, and return what it was."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        array = context.make_array(sig.args[0])(context, builder, args[0])
        return builder.atomic_rmw("add", array.data, ir.IntType(64)(1), "monotonic")

    return types.int64(counter), codegen
