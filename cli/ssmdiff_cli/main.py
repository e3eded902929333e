"""``ssmdiff``: the entry point, and how errors become exit codes.

0 ok, 1 failed, 2 usage or configuration, 3 plugin, 4 data, 5 diverged, 75 out of time and saved,
130/143 interrupted and saved.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from ssmdiff import __version__
from ssmdiff.errors import SsmdiffError

# Before torch loads OpenMP, whose threads would otherwise spin while they wait. That costs nothing
# on an idle machine, and much where another program runs too (docs/performance.md).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from ssmdiff_cli.commands import PluginCommands, example_text


class _Commands(PluginCommands):
    """Turns ssmdiff's errors into a sentence and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _errors_as_sentences():  # the list of commands is asked for here
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with _errors_as_sentences():
            return super().invoke(ctx)


@contextmanager
def _errors_as_sentences() -> Iterator[None]:
    try:
        yield
    except SsmdiffError as error:
        typer.echo(f"ssmdiff: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        typer.echo("ssmdiff: interrupted", err=True)
        raise typer.Exit(130) from error
    except BrokenPipeError as error:
        # The reader of our output has gone, as in `ssmdiff plugins list | head -1`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from error
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        advice = "Try less at once, such as a smaller --batch-size"
        typer.echo(f"ssmdiff: out of memory{_how_much(error)}. {advice}", err=True)
        raise typer.Exit(1) from error
    except OSError as error:
        # A full disk, a file that may not be read: the machine's fault, no bug to trace.
        typer.echo(f"ssmdiff: {error}", err=True)
        raise typer.Exit(1) from error


def _out_of_memory(error: Exception) -> bool:
    """Of a device or of the host; torch's class by its name, since torch is not imported here."""
    names = {one.__name__ for one in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "allocate memory" in str(error)


def _how_much(error: Exception) -> str:
    """What was asked for and what there is, if it says so; advice on torch's allocator follows."""
    text = ". ".join(str(error).split(". ")[:3])
    return f" ({text})" if text else ""


app = typer.Typer(
    cls=_Commands,
    name="ssmdiff",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    # Without a bound of its own help is 80 columns wide on any terminal.
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 1000},
    epilog=example_text(
        [
            "ssmdiff train",
            "ssmdiff train --data images --image-size 64 --out runs/mine",
            "ssmdiff sample runs/mine --n 16 --out drawn",
        ]
    ),
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"ssmdiff {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show and exit.")
    ] = False,
) -> None:
    """State-space (Mamba) diffusion models from plugins: train, sample, look inside."""


def main() -> None:
    """Run the command line and exit with its code."""
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    # By name, so that `python -m ssmdiff` explains itself and completes as the command does.
    app(prog_name="ssmdiff")


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    """One line, without the source line that Python adds; library noise stays out of the way."""
    if category is UserWarning:
        typer.echo(f"warning: {message}", err=True)


if __name__ == "__main__":
    main()
