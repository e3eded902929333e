"""What is known of an image, each thing made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


class Told(Mapping[str, Any]):
    """What is known of an image, by the names of conditions, for ``ImageItem.told``.

    Masks and further pictures cost time to read or draw, and most runs are told none of them.
    It is pickled as a plain dict, with all that is known.

    Args:
        makers: A function of each value.
    """

    def __init__(self, **makers: Callable[[], Any]) -> None:
        self._makers = makers

    def __getitem__(self, name: str) -> Any:
        return self._makers[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)
