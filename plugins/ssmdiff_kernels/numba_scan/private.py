"""What this room uses of numba beyond `numba` and `numba.extending`, all in this file.

- ``numba.core.caching.FunctionCache`` and ``Dispatcher._cache``: a disk cache that knows all
  sources of the kernel. numba's own knows the file of the entry point alone.
- ``context.make_array``: where an array begins.

They may change with any version of numba; nothing else here depends on its inner rooms.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core.caching import FunctionCache
from numba.extending import intrinsic

_HERE = Path(__file__).parent
_SOURCES = (*sorted(_HERE.glob("*.py")), _HERE.parent / "constants.py")


class SourceCache(FunctionCache):  # type: ignore[misc]
    """A disk cache that starts anew when any of the kernel's sources changes."""

    _digest = hashlib.sha256(b"".join(path.read_bytes() for path in _SOURCES)).hexdigest()

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


@intrinsic
def pointer(typing_context: Any, array: Any) -> Any:
    """Where a flat array begins. The array must outlive it: nothing counts references to it.

    All functions of this room take pointers. An array that is handed from function to function has
    its references counted, by calls in the middle of a loop that cost more than the loop.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return context.make_array(sig.args[0])(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), codegen
