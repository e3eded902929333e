"""What a command must do: answer --help at once, refuse what it does not know, and offer its job.

Each command is called in a process of its own, as the shell calls it.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import subprocess
import sys
from typing import Any

from ssmdiff.testing.report import NotApplicableError, ViolationError
from ssmdiff.testing.suite import Subject, Suite

SECONDS = 120
UNKNOWN = "--no-such-flag"
_PROGRAM = f"""
import contextlib, io, json, sys
from ssmdiff.__main__ import main

def call(*arguments):
    sys.argv = ["ssmdiff", *arguments]
    said = io.StringIO()
    code = 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as end:
            code = end.code
        except BaseException as error:
            code, _ = 1, said.write(f"Traceback: {{error!r}}")
    return {{"code": code, "said": said.getvalue(), "torch": "torch" in sys.modules}}

name = sys.argv[1]
found = [call("--help"), call(name, "--help"), call(name, "{UNKNOWN}")]
print(json.dumps(found))
"""


class CommandSubject(Subject):
    """A command, and what it answers in a process of its own."""

    @functools.cached_property
    def answers(self) -> list[dict[str, Any]]:
        """Of ``ssmdiff --help``, ``ssmdiff NAME --help`` and a flag that nobody knows."""
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, self.name],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        if done.returncode or not done.stdout.strip():
            raise ViolationError(
                f"ssmdiff {self.name} --help ended with {done.returncode}: {done.stderr[-300:]}",
                "a help text",
            )
        answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
        return answers


suite = Suite("command", CommandSubject)


@suite.check
def listing(subject: CommandSubject) -> str:
    """``ssmdiff --help`` shows it with its summary, and imports nothing heavy for that."""
    answer = subject.answers[0]
    if answer["code"] or subject.name not in answer["said"]:
        raise ViolationError(
            f"ssmdiff --help ends with {answer['code']} and does not name it", "its name there"
        )
    if answer["torch"]:
        raise ViolationError(
            "ssmdiff --help imports torch",
            "a light plugin module",
            "name the command and its job by strings, 'package.module:function'",
        )
    return "listed, without an import of torch"


@suite.check
def help_text(subject: CommandSubject) -> str:
    """``--help`` says what it does, at once."""
    answer = subject.answers[1]
    if answer["code"] or f"ssmdiff {subject.name}" not in answer["said"]:
        raise ViolationError(
            f"ssmdiff {subject.name} --help ends with {answer['code']}: {answer['said'][-300:]}",
            "its usage",
        )
    said = [line for line in answer["said"].splitlines() if line.strip()]
    if len(said) < 2 or said[1].lstrip().startswith(("Options", "Arguments", "-")):
        raise ViolationError("--help does not say what it does", "a docstring of one line or more")
    if answer["torch"]:
        raise ViolationError(
            "--help imports torch",
            "an answer at once",
            "import the job inside of the command's function",
        )
    return str(said[1]).strip()


@suite.check
def unknown_flags(subject: CommandSubject) -> str:
    """A flag that it does not know is a usage error, exit code 2, without a traceback."""
    answer = subject.answers[2]
    if answer["code"] != 2 or "Traceback" in answer["said"]:
        raise ViolationError(
            f"{UNKNOWN} ends with {answer['code']}: {answer['said'][-200:]}",
            "exit code 2 and a sentence",
        )
    return "an unknown flag exits with 2"


@suite.check
def job(subject: CommandSubject) -> str:
    """What Python and other jobs call, the job or its methods, says what it does and takes."""
    found = subject.entry.job()
    if found is None:
        raise NotApplicableError("offers nothing to Python")
    offered = {f"the job's {name}": method for name, method in _methods(found).items()}
    if callable(found):
        offered["the job"] = found
    if not offered:
        raise ViolationError(
            f"the job is a {type(found).__name__}", "a function, or an object with methods"
        )
    for name, function in offered.items():
        if not inspect.getdoc(function):
            raise ViolationError(f"{name} says nothing about itself", "a docstring")
        parameters = inspect.signature(function).parameters.items()
        untyped = [key for key, value in parameters if value.annotation is value.empty]
        if untyped:
            raise ViolationError(
                f"parameter {', '.join(untyped)} of {name} has no type", "a type for each"
            )
    return f"ssmdiff.job({subject.name!r}) is {', '.join(offered)}"


def _methods(found: object) -> dict[str, Any]:
    """The public methods of an object; a function has none."""
    if inspect.isroutine(found):
        return {}
    return {
        name: method
        for name, method in inspect.getmembers(found, inspect.ismethod)
        if not name.startswith("_")
    }
