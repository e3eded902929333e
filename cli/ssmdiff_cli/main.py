"""``ssmdiff``: the entry point, and how errors become exit codes.

0 ok, 1 failed, 2 usage or configuration, 3 plugin, 4 data, 5 diverged, 130/143 interrupted and
saved.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated, Any

import typer
from ssmdiff import __version__
from ssmdiff.errors import SsmdiffError, did_you_mean
from typer.core import TyperGroup

# Before torch loads OpenMP, whose threads would otherwise spin while they wait. That costs nothing
# on an idle machine, and much where another program runs too (docs/performance.md).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from ssmdiff_bench import command as bench
from ssmdiff_export import command as export
from ssmdiff_train import command as train

from ssmdiff_cli import check, cite, config, doctor, plugins, sample, scans


class _Commands(TyperGroup):
    """Turns ssmdiff's errors into a sentence and an exit code; refuses unknown commands."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            ctx.fail(
                f"there is no command {args[0]!r}; {did_you_mean(args[0], self.list_commands(ctx))}"
            )
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
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
        except OSError as error:
            # A full disk, a file that may not be read: the machine's fault, no bug to trace.
            typer.echo(f"ssmdiff: {error}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_Commands,
    name="ssmdiff",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.train)
app.command("sample")(sample.sample)
app.command("export")(export.export)
app.add_typer(bench.app, name="bench")
app.add_typer(plugins.app, name="plugins")
app.add_typer(scans.app, name="scans")
app.add_typer(config.app, name="config")
app.command("doctor")(doctor.doctor)
app.command("cite")(cite.cite)
scans.app.command("check")(check.check_scan)
plugins.app.command("check")(check.check_plugin)
OURS = ("train", "sample", "export", "bench", "plugins", "scans", "config", "doctor", "cite")


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
    _add_plugin_commands(sys.argv[1:2])
    app()


def _add_plugin_commands(first: list[str]) -> None:
    """Sub-commands of plugins; a call of one of ours has no need to look for them."""
    if first and first[0] in OURS:
        return
    from ssmdiff.registry.registry import registry

    for name, sub_app in registry().commands():
        if name not in OURS:
            app.add_typer(sub_app, name=name)


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    """One line, without the source line that Python adds; library noise stays out of the way."""
    if category is UserWarning:
        typer.echo(f"warning: {message}", err=True)


if __name__ == "__main__":
    main()
