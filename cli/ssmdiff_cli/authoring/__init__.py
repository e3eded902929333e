"""``ssmdiff plugins new``: a package of one component, to begin one's own with."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from ssmdiff.errors import ConfigError, ContractError, did_you_mean
from ssmdiff.registry.component import KINDS, Component
from ssmdiff.registry.registry import registry

USES = {
    "scan": "ssmdiff train --scan $name",
    "block": "ssmdiff train --block $name",
    "backbone": "ssmdiff train --backbone $name",
    "method": "ssmdiff train --method $name",
    "gan": "ssmdiff train --gan $name",
    "loss": "ssmdiff train --gan dcgan --set method.loss=$name",
    "scheduler": "ssmdiff sample runs/demo --scheduler $name",
    "kernel": "ssmdiff train --kernel $name",
    "dataset": "ssmdiff train --data $name",
    "reader": "ssmdiff data show FOLDER --reader $name",
    "writer": "ssmdiff sample runs/demo --format $name",
    "exporter": "ssmdiff export runs/demo --to $name --out demo.safetensors",
    "features": "ssmdiff evaluate runs/demo --features $name",
    "metric": "ssmdiff evaluate runs/demo --metric $name",
    "callback": """ssmdiff train --set 'train.callbacks=[{name="$name"}]'""",
    "command": "ssmdiff $name runs/demo",
}
"""What a component of each kind is used by, once it is installed."""
_SUFFIX = ".txt"  # of a template, so that nothing takes it for a module of ssmdiff's


def write_package(name: str, kind: str = "scan", out: Path | None = None) -> Path:
    """Write a package that installs, passes its tests, and offers one component.

    Args:
        name: Of the component; the distribution is called ``ssmdiff-<name>``.
        kind: One of :data:`ssmdiff.registry.component.KINDS`.
        out: The folder, new or empty; ``ssmdiff-<name>`` here by default.

    Raises:
        ConfigError: The name or the kind is not allowed, the name is taken, or the folder is not
            empty.
    """
    if kind not in KINDS:
        raise ConfigError(f"--kind {kind}: {did_you_mean(kind, KINDS)}")
    try:
        Component(name, object, "a name to try")
    except ContractError as error:
        raise ConfigError(str(error)) from error
    if name in registry().names(kind):
        owner = registry().find(kind, name).label
        raise ConfigError(f"there is {owner} already, and no name can be taken twice")
    folder = out or Path(f"ssmdiff-{name}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there and not empty; choose another --out")
    words = name.replace("_", "-").split("-")
    values = {
        "name": name,
        "kind": kind,
        "hook": KINDS[kind].hook,
        "module": "ssmdiff_" + name.replace("-", "_"),
        "cls": "".join(word.capitalize() for word in words),
        "use": Template(USES[kind]).substitute(name=name),
    }
    templates = resources.files(__package__) / "templates"
    for source in ("any", kind):
        _write(templates / source, folder, values)
    return folder


def _write(source: Traversable, target: Path, values: dict[str, str]) -> None:
    """Fill in a folder of templates; names of files are filled in too."""
    for entry in source.iterdir():
        path = target / Template(entry.name.replace("MODULE", "$module")).substitute(values)
        if entry.is_dir():
            _write(entry, path, values)
        elif entry.name.endswith(_SUFFIX):
            path.parent.mkdir(parents=True, exist_ok=True)
            text = Template(entry.read_text(encoding="utf-8")).substitute(values)
            path.with_name(path.name.removesuffix(_SUFFIX)).write_text(text, encoding="utf-8")
