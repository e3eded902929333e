"""The suite of commands finds what is wrong with one, and says it."""

from __future__ import annotations

import pytest
from ssmdiff.errors import ConfigError
from ssmdiff.testing import Report, check_command

pytestmark = pytest.mark.usefixtures("fresh_registry")


def failures(report: Report) -> dict[str, str]:
    return {finding.name: finding.detail for finding in report.failures}


COMMAND = """
    import ssmdiff
    {head}

    def count({parameters}) -> None:
        {words}
        {body}

    def job(run: str) -> int:
        '''How many letters a run has.'''
        return len(run)

    class Several:
        def letters(self, run: str) -> int:
            '''Of a run.'''
            return len(run)

    class Untyped(Several):
        def words(self, run):
            '''Of a run.'''
            return len(run.split())

    several, untyped_several = Several(), Untyped()

    @ssmdiff.hookimpl
    def ssmdiff_commands():
        yield ssmdiff.Command("count", {factory}, "counts letters", job={job})
"""
SOUND = {
    "head": "",
    "parameters": "run: str",
    "words": "'''Count the letters of a run.'''",
    "body": "print(len(run))",
    "factory": "'ssmdiff_bad:count'",
    "job": "'ssmdiff_bad:job'",
}


@pytest.mark.parametrize(
    ("change", "check", "said"),
    [
        ({}, None, ""),
        ({"job": "None"}, None, ""),
        ({"head": "import torch"}, "listing", "ssmdiff --help imports torch"),
        ({"words": ""}, "help-text", "does not say what it does; expected a docstring"),
        ({"factory": "'ssmdiff_bad:missing'"}, "help-text", "cannot be imported"),
        ({"job": "'ssmdiff_bad:missing'"}, "job", "cannot be imported from 'ssmdiff_bad:missing'"),
        ({"job": "'ssmdiff_bad:several'"}, None, ""),
        (
            {"job": "'ssmdiff_bad:untyped_several'"},
            "job",
            "run of the job's words has no type",
        ),
        ({"job": "'math:pi'"}, "job", "the job is a float; expected a function, or an object"),
        ({"job": "lambda run: run"}, "job", "the job says nothing about itself"),
        ({"job": "untyped"}, "job", "parameter run of the job has no type"),
    ],
)
def test_commands(install, change: dict[str, str], check: str | None, said: str) -> None:
    if change.get("job") == "untyped":
        change = {**change, "head": "def untyped(run): 'Nothing.'"}
    install("ssmdiff-bad", COMMAND.format(**SOUND | change))
    found = failures(check_command("count"))
    if check is None:
        assert not found
    else:
        assert said in found[check]


GROUP = """
    import typer
    from typer.core import TyperGroup
    import ssmdiff

    class Lenient(TyperGroup):
        def parse_args(self, ctx, args):
            return super().parse_args(ctx, [word for word in args if word == "--help"])

    app = typer.Typer(cls={cls}, help="Counts letters.", invoke_without_command=True)

    @app.callback()
    def letters() -> None:
        '''Count the letters of a run.'''

    @app.command("all")
    def count() -> None:
        '''Of all runs.'''

    @ssmdiff.hookimpl
    def ssmdiff_commands():
        yield ssmdiff.Command("count", "ssmdiff_bad:app", "counts letters")
"""


def test_a_group_of_commands_is_sound(install) -> None:
    install("ssmdiff-bad", GROUP.format(cls="TyperGroup"))
    assert not failures(check_command("count"))


def test_a_flag_that_is_swallowed_is_found(install) -> None:
    install("ssmdiff-bad", GROUP.format(cls="Lenient"))
    assert "--no-such-flag ends with 0" in failures(check_command("count"))["unknown-flags"]


def test_a_command_has_no_options_but_its_flags(install) -> None:
    install("ssmdiff-bad", COMMAND.format(**SOUND))
    with pytest.raises(ConfigError, match="takes no options but its own flags; got n"):
        check_command({"name": "count", "n": 3})
