"""Functions that a network is made of and an exporter knows by name.

An exporter may have an operator for what a block computes in many steps. The block names the
function, and the exporter calls another in its place while it traces; neither knows the other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])
_in_place: dict[str, Callable[..., Any]] = {}


def replaceable(name: str) -> Callable[[Function], Function]:
    """Mark a function of a block: what replaces it takes its arguments and gives its result.

    Args:
        name: By which exporters know what it computes; docs/write-a-block.md lists those that ours
            know, with their signatures.
    """

    def mark(function: Function) -> Function:
        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            return _in_place.get(name, function)(*arguments, **named)

        return call  # type: ignore[return-value]

    return mark


@contextmanager
def replacing(functions: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Call these in the place of the functions of their names, in this process, for a while."""
    before = dict(_in_place)
    _in_place.update(functions)
    try:
        yield
    finally:
        _in_place.clear()
        _in_place.update(before)
