"""What the registry and training ask of pluggy: managers of ssmdiff's hooks, and checks on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pluggy

from ssmdiff.errors import ContractError, did_you_mean
from ssmdiff.registry import hookspecs


def new_manager() -> pluggy.PluginManager:
    """A manager that knows the hooks of :mod:`ssmdiff.registry.hookspecs`."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def register(manager: pluggy.PluginManager, module: object, name: str) -> None:
    """Hand a plugin's module to pluggy.

    Raises:
        ContractError: It is for a newer interface, or a hook is none of ssmdiff's, lacks its mark
            or takes arguments that ssmdiff does not give.
    """
    _check_api(module)
    try:
        manager.register(module, name=name)
    except pluggy.PluginValidationError as error:
        raise ContractError(" ".join(str(error).split())) from error
    for hook in vars(module):
        if hook in vars(hookspecs) and hook.startswith("ssmdiff_"):
            if hasattr(vars(module)[hook], f"{hookspecs.PROJECT}_impl"):
                continue
            raise ContractError(f"hook {hook!r} is not marked with @ssmdiff.hookimpl")
    for caller in manager.get_hookcallers(module) or ():
        if not caller.has_spec():
            known = (hook for hook in vars(hookspecs) if hook.startswith("ssmdiff_"))
            raise ContractError(
                f"hook {caller.name!r} is not one of ssmdiff's; {did_you_mean(caller.name, known)}"
            )


def hooks_of(listeners: Sequence[object]) -> Any:
    """The hooks by which a training run tells its events, heard by these, in this order.

    Raises:
        ContractError: A listener has a hook that ssmdiff lacks, or with arguments it lacks.
    """
    manager = new_manager()
    try:
        for listener in reversed(listeners):  # the last to be registered hears first
            manager.register(listener)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise ContractError(" ".join(str(error).split())) from error
    return manager.hook


def _check_api(module: object) -> None:
    """Refuse a plugin for a newer plugin interface before its unknown hooks are called misspelt."""
    api = getattr(module, "SSMDIFF_API", hookspecs.API)
    if type(api) is not int or api < 1:
        raise ContractError(f"SSMDIFF_API is {api!r}; expected a whole number such as 1")
    if api > hookspecs.API:
        raise ContractError(
            f"needs ssmdiff >= plugin API {api}, and the ssmdiff that is installed has API "
            f"{hookspecs.API}. Try: pip install --upgrade ssmdiff"
        )
