"""What an export is doing, on the terminal while it does it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

Stage = Callable[[str], None]
"""Called with what begins now, such as ``"tracing"``."""


@contextmanager
def stages(show: bool) -> Iterator[Stage]:
    """A spinner that names the stage, on stderr; nothing where that is no terminal."""
    if not show:
        yield lambda _: None
        return
    with Console(file=sys.stderr).status("exporting") as status:
        yield lambda stage: status.update(f"exporting: {stage}")
