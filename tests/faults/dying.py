"""A process that dies before its n-th change to the file system, without the process."""

import os
from collections.abc import Callable, Iterator

import pytest

CHANGES = ("rename", "replace", "mkdir", "unlink", "remove", "rmdir", "link", "fsync")


class Died(BaseException):
    """No clean-up may follow: every later change raises it too."""


def dies_at_every_change(
    monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]
) -> Iterator[int]:
    """Run ``work`` again and again, dying at its first change, its second, ... to the last.

    Between two runs the caller looks at what is left, and makes it as it was.
    """
    for last in range(1000):
        done = 0

        def counted(plain: Callable[..., object], last: int = last) -> Callable[..., object]:
            def change(*arguments: object, **options: object) -> object:
                nonlocal done
                done += 1
                if done > last:
                    raise Died
                return plain(*arguments, **options)

            return change

        with monkeypatch.context() as patch:
            for name in CHANGES:
                patch.setattr(os, name, counted(getattr(os, name)))
            try:
                work()
            except Died:
                pass
            else:
                return
        yield last
    pytest.fail("it never comes to an end")
