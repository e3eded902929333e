"""NVIDIA's own bindings in a test, in processes of their own, and what their classes offer.

The builder of TensorRT comes from elsewhere than PyPI; its bindings do not. They run here over

    lean    TensorRT's lean runtime: its registry of plugins, and no builder
    rtx     TensorRT for RTX: parser and builder, which build no quick plugins

The loader finds either under the names that the bindings ask for.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

NEEDED = "pip install --no-deps -r requirements-tensorrt.txt"
ALIAS = "import sys, tensorrt_bindings; sys.modules['tensorrt'] = tensorrt_bindings\n"
OLD = Path(sys.prefix) / "tensorrt-10"
"""Where .ci/run puts the binding of TensorRT 10, whose module has the name of that of 11."""
# What the bindings take from libraries that are not here; none of it is called.
ABSENT = {
    "lean": "createInferBuilder_INTERNAL createNvOnnxParserRefitter_INTERNAL "
    "createNvOnnxParser_INTERNAL getBuilderPluginRegistry getNvOnnxParserVersion "
    "initLibNvInferPlugins",
    "rtx": "initLibNvInferPlugins",
}


def environment(folder: Path, under: str, major: int = 11) -> dict[str, str]:
    """Of a process that imports ``tensorrt_bindings``; skips where something is not here.

    Args:
        folder: For links to the libraries.
        under: ``lean`` or ``rtx``.
        major: Of the binding: 10 or 11.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("needs a C compiler, for libraries that are named and not called")
    paths = [str(Path(__file__).parent)]
    if major == 10:
        if not OLD.is_dir():
            pytest.skip(f"the binding of TensorRT 10 is not in {OLD}: .ci/run puts it there")
        paths.insert(0, str(OLD))
    elif importlib.util.find_spec("tensorrt_bindings") is None:
        pytest.skip(f"tensorrt_bindings is not installed: {NEEDED}")
    spec = importlib.util.find_spec(f"tensorrt_{under}_libs")
    if spec is None or spec.origin is None:
        pytest.skip(f"tensorrt_{under}_libs is not installed: {NEEDED}")
    here = Path(spec.origin).parent
    links = {f"libnvinfer.so.{major}": "libnvinfer_lean.so.*"}
    if under == "rtx":
        links = {
            f"libnvinfer.so.{major}": "libtensorrt_rtx.so.*",
            f"libnvonnxparser.so.{major}": "libtensorrt_onnxparser_rtx.so.*",
            "libtensorrt_rtx.so": "libtensorrt_rtx.so.*",
            "libtensorrt_rtx.so.1": "libtensorrt_rtx.so.*",
        }
    folder.mkdir(exist_ok=True)
    for name, pattern in links.items():
        (library,) = here.glob(pattern)
        (folder / name).symlink_to(library)
    source = folder / "absent.c"
    names = ABSENT[under].split()
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in names))
    for name in (f"libnvinfer_plugin.so.{major}", f"libnvonnxparser.so.{major}"):
        if name not in links:
            made = [compiler, "-shared", "-fPIC", "-o", str(folder / name), str(source)]
            subprocess.run(made, check=True)
    return {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": ":".join(paths)}


def run(program: str | Path, environment: dict[str, str], *arguments: object) -> str:
    """What a program prints on stdout: a file, or text in which ``tensorrt`` is the real one."""
    what = [str(program)] if isinstance(program, Path) else ["-c", ALIAS + program]
    done = subprocess.run(
        [sys.executable, *what, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def offered_by_binding(environment: dict[str, str], classes: list[str]) -> dict[str, Any]:
    """:func:`offered` of the real ``tensorrt``, asked in a process of its own."""
    program = f"import json, real_binding\nclasses = {classes!r}\n"
    program += "print(json.dumps(real_binding.offered(tensorrt_bindings, classes)))"
    found: dict[str, Any] = json.loads(run(program, environment))
    return found


def offered(trt: Any, classes: list[str]) -> dict[str, Any]:
    """Of each class: members of an enumeration with their values, or methods with their arguments.

    The arguments are a list for each overload; None stands for a property.
    """
    return {name: _of(getattr(trt, name)) for name in classes if hasattr(trt, name)}


def _of(kind: Any) -> dict[str, Any]:
    if hasattr(kind, "__members__"):
        return {
            name: value.value if isinstance(value, Enum) else int(value)
            for name, value in kind.__members__.items()
        }
    members = {name: getattr(kind, name) for name in dir(kind) if not name.startswith("_")}
    return {
        name: arguments(member) if callable(member) else None
        for name, member in members.items()
        if not isinstance(member, type)
    }


def arguments(function: Any) -> list[list[str]]:
    """Names of the arguments, without self: of each overload that pybind11 writes into a docstring,
    or of a Python function."""
    try:
        return [[n for n in inspect.signature(function).parameters if n != "self"]]
    except (ValueError, TypeError):
        pattern = re.compile(rf"^(?:\d+\. )?{re.escape(function.__name__)}\((.*)\) -> .*$", re.M)
        return [_names(line) for line in pattern.findall(function.__doc__ or "")]


def _names(text: str) -> list[str]:
    """``self: X, shape: Tuple[int, int] = ()`` to ``["shape"]``."""
    depth, parts = 0, [""]
    for letter in text:
        depth += (letter in "([{<") - (letter in ")]}>")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    names = [re.split(r"[:=]", part)[0].strip() for part in parts if part.strip()]
    return [name for name in names if name not in ("self", "*", "/")]
