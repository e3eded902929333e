"""Compiling the library of custom ops: which compiler, which folder, and how often."""

from __future__ import annotations

import os

import pytest
from ssmdiff.errors import ExportError
from ssmdiff_export.ort_library import build


def test_a_library_for_each_compiler_and_version(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    paths = []
    for version in (98, 99):
        compiler = tmp_path / "compiler"
        compiler.write_text(
            f'#!/bin/sh\n[ "$1" = --version ] && echo {version} && exit\n'
            f'for last; do :; done; echo built by {version} > "$last"\n'
        )
        compiler.chmod(0o700)
        monkeypatch.setenv("CXX", str(compiler))
        paths.append(build.library())
        assert paths[-1].read_text() == f"built by {version}\n"
        paths[-1].write_text("kept\n")
        assert build.library().read_text() == "kept\n", "found in the cache"
        assert build.library(rebuild=True).read_text() == f"built by {version}\n"
    assert set((tmp_path / "ssmdiff").iterdir()) == set(paths)
    assert len(set(paths)) == 2


def test_no_compiler(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ExportError, match=r"needs a C\+\+ compiler, and c\+\+.*Try:"):
        build.library()
    monkeypatch.setenv("CXX", "clang++-99 -O1")
    with pytest.raises(ExportError, match=r"CXX is 'clang\+\+-99', which is not on the PATH"):
        build.library()


def test_a_compiler_that_fails(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] || { echo no such flag >&2; exit 1; }\n')
    compiler.chmod(0o700)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(ExportError, match=r"(?s)the compiler failed.*no such flag.*Try:"):
        build.library()
    assert not list((tmp_path / "ssmdiff").iterdir())


def test_the_cache_must_be_a_folder_of_the_users_own(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "ssmdiff").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ExportError, match="is a link or belongs to another user"):
        build.cache_folder()
    (tmp_path / "ssmdiff").unlink()
    (tmp_path / "ssmdiff").mkdir()
    (tmp_path / "ssmdiff").chmod(0o777)
    assert build.cache_folder().stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(ExportError, match="belongs to another user"):
        build.cache_folder()
