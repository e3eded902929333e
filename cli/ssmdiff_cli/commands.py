"""The commands all come from plugins: listed by name and summary, imported when called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer
from ssmdiff.errors import ConfigError, PluginBrokenError, PluginNotFoundError, SsmdiffError
from ssmdiff.registry.plugin import Registered, is_part_of, missing_module, name_of
from ssmdiff.registry.registry import registry
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command


class PluginCommands(TyperGroup):
    """A group whose commands are the registry's components of kind ``command``."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, ours first; those in conflict are among them."""
        found = registry()
        first = {e.component.name: not e.plugin.built_in for e in found.all("command")}
        return sorted(found.names("command"), key=lambda name: (first.get(name, True), name))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Name and summary alone: what ``--help`` shows imports no command."""
        if cmd_name not in registry().names("command"):
            return None
        entries = [e for e in registry().all("command") if e.component.name == cmd_name]
        summary = entries[0].component.summary if entries else "in conflict: see plugins list"
        return TyperCommand(cmd_name, short_help=summary, rich_markup_mode=None)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is called, imported now.

        Raises:
            ConfigError: There is none of that name.
            PluginError: Its plugin is missing, broken or in conflict.
        """
        if args[0].startswith("-"):
            return super().resolve_command(ctx, args)
        try:
            return args[0], loaded(args[0]), args[1:]
        except SsmdiffError:
            if ctx.resilient_parsing:  # a shell that completes: what is wrong is told when it runs
                return args[0], TyperCommand(args[0], rich_markup_mode=None), []
            raise


def loaded(name: str) -> Any:
    """The command of that name as click runs it.

    Raises:
        ConfigError: There is none; commands come from plugins.
        PluginError: Its plugin is missing, broken or in conflict.
    """
    from ssmdiff.runs import jobs

    if name in jobs.EXTRAS and name not in registry().names("command"):
        raise PluginNotFoundError(f"commands come from plugins; {jobs.not_installed(name)}")
    try:
        entry = registry().find("command", name)
    except ConfigError as error:
        raise ConfigError(
            f"{error}\ncommands come from plugins; those that are installed: ssmdiff plugins list"
        ) from error
    return _of(entry, entry.factory())


def _of(entry: Registered, factory: Any) -> Any:
    name = entry.component.name
    parent = typer.Typer(add_completion=False, rich_markup_mode=None)
    parent.callback()(lambda: None)
    if isinstance(factory, typer.Typer):
        parent.add_typer(factory, name=name)
    elif callable(factory):
        parent.command(name)(factory)
    else:
        raise PluginBrokenError(
            f"{entry.label} is a {type(factory).__name__}; expected a function or a typer.Typer"
        )
    try:
        command = get_command(parent).commands[name]  # type: ignore[attr-defined]
    except Exception as error:  # whatever Typer says of a stranger's parameters
        raise PluginBrokenError(
            f"{entry.label}: Typer cannot read its parameters: {name_of(error)}"
        ) from error
    invoke = command.invoke

    def invoke_or_explain(ctx: Any) -> Any:
        """A package that the command imports when it runs, and that is not installed."""
        try:
            return invoke(ctx)
        except ModuleNotFoundError as error:
            if is_part_of(entry.plugin.module, error.name):
                raise
            raise PluginBrokenError(
                f"{entry.label} {missing_module(error, entry.plugin)}"
            ) from error

    command.invoke = invoke_or_explain
    _show_examples(command, getattr(entry.component, "examples", ()), f"ssmdiff {name}")
    return command


def _show_examples(command: Any, examples: tuple[str, ...], path: str) -> None:
    """Below the help of a command and of each of its sub-commands, those that call it."""
    lines = [line for line in examples if f"{line} ".startswith(f"{path} ")]
    if lines:
        command.epilog = example_text(lines)
    for name, inner in getattr(command, "commands", {}).items():
        _show_examples(inner, examples, f"{path} {name}")


def example_text(lines: Sequence[str]) -> str:
    """An epilog whose lines stay as they are."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
