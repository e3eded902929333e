"""What a run was made with, and whether it is what is here: versions, components, orders."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from ssmdiff.orders.scan import OrderPlan
from ssmdiff.registry.registry import registry
from ssmdiff.runs.sections import Config

_DISTRIBUTION = "ssmdiff"
_NAME = re.compile(r"[\w.-]+")


def versions() -> dict[str, str]:
    """Python, the platform, and what ssmdiff and its extras require, where it is installed."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in (_DISTRIBUTION, *_required()):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _required() -> list[str]:
    """The distributions that our metadata name, ours aside."""
    try:
        lines = requires(_DISTRIBUTION) or []
    except PackageNotFoundError:  # run from a source tree that was never installed
        return []
    names = {match.group() for line in lines if (match := _NAME.match(line))}
    return sorted(names - {_DISTRIBUTION})


def providers(config: Config) -> dict[str, str]:
    """Dotted path of each component -> ``name: distribution version``."""
    return {
        path: f"{table['name']}: {registry().find(kind, table['name']).plugin.source}"
        for path, (kind, table) in config.components().items()
    }


def provenance(config: Config) -> dict[str, Any]:
    """The table that goes into ``config.toml`` and into every checkpoint."""
    return {"versions": versions(), "components": providers(config)}


def order_digests(plan: OrderPlan) -> list[str]:
    """Of each slot; of a random scan, what it draws first under seed 0."""
    return [order.digest for order in plan.draw(0, seed=0)]


def made_otherwise(
    state: Mapping[str, Any], config: Config, plan: OrderPlan, *tables: str
) -> dict[str, tuple[str, str]]:
    """What is here in the place of what a checkpoint was made with: key -> then, now.

    A component of another distribution than ssmdiff is compared by its version, and the scan by
    the orders that it gives, whatever its version says: an order that changed is another model.

    Args:
        state: Of the checkpoint; what it does not tell is not compared.
        config: Of the run.
        plan: The orders as they are drawn here.
        tables: Whose components count, such as ``model``.
    """
    made = state.get("provenance", {})
    then, now = made.get("components", {}), providers(config)
    changes = {
        f"provenance.{key}": (then[key], now[key])
        for key in now.keys() & then.keys()
        if key.split(".")[0] in tables and _is_another(then[key], now[key])
    }
    model, size = config.to_dict().get("model"), list(config.data.image_size)
    before = state.get("config", {"model": model, "data": {"image_size": size}})
    same_model = (before.get("model"), list(before["data"]["image_size"])) == (model, size)
    digests, known = order_digests(plan), made.get("orders")
    if known and same_model and known != digests:
        slots = [i for i, (a, b) in enumerate(zip(known, digests, strict=False)) if a != b] or [0]
        where = f"slot {slots[0]} ({len(slots)} of {len(known)} differ)"
        changes["provenance.orders"] = (f"{where} {known[slots[0]]}", digests[slots[0]])
    return dict(sorted(changes.items()))


def _is_another(then: str, now: str) -> bool:
    """Whether a component of one name is of another distribution or version; ours stays itself."""
    old, new = (value.rpartition(": ") for value in (then, now))
    ours = all(source.startswith(f"{_DISTRIBUTION} ") for source in (old[2], new[2]))
    return old[0] == new[0] and old[2] != new[2] and not ours
