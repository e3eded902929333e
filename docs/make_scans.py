"""Writes the tables of docs/scans.md and its gallery: ``python docs/make_scans.py``."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo
from ssmdiff.registry.registry import Registry
from ssmdiff_cli.scan_figures import figures_of, table
from ssmdiff_cli.scan_pictures import draw_blocks
from ssmdiff_cli.scans import panels_of

PAGE = Path(__file__).with_name("scans.md")
GALLERY = Path(__file__).parent / "images" / "scans" / "gallery.png"
COLOURS = 128  # of the gallery, which keeps it under 300 kB


def figures_table(registry: Registry) -> str:
    """One row a scan, with its default options."""
    lines = [
        "| scan | what it is | K | grids | draws | continuous | jumps "
        "| mean \\|dt\\| | max | best mean | best max |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table(registry):
        grids = "any" if row["axes"] == [1, 2, 3] else ", ".join(f"{n}-D" for n in row["axes"])
        cells = [
            f"`{row['name']}`",
            row["summary"],
            row["directions"],
            grids,
            "random" if row["stochastic"] else "fixed",
            "yes" if row["continuous"] else "",
            row["jumps"],
            *(_number(row[key]) for key in ("mean_dt", "max_dt", "best_mean_dt", "best_max_dt")),
        ]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def options_table(registry: Registry) -> str:
    """The options of each scan with their ranges, the default first, and where it comes from."""
    lines = ["| scan | options | from |", "|---|---|---|"]
    for entry in registry.all("scan"):
        factory = entry.factory()
        hints = get_type_hints(factory.__init__, include_extras=True)
        options = [
            f"`{name}` = {_default(parameter.default)}{_range(hints[name])}"
            for name, parameter in inspect.signature(factory).parameters.items()
        ]
        cells = [f"`{entry.component.name}`", "; ".join(options), entry.component.cite]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _default(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _range(hint: Any) -> str:
    """What else an option may be, from its type: `` (1, 2, 4, 8)``, `` (1 to 64)`` or nothing."""
    if get_origin(hint) is Literal:
        return f" ({', '.join(map(str, get_args(hint)))})"
    limits: dict[str, Any] = {}
    for field in getattr(hint, "__metadata__", ()):
        if isinstance(field, FieldInfo):
            for limit in field.metadata:
                limits |= {k: v for k in ("ge", "le") if (v := getattr(limit, k, None)) is not None}
    return f" ({limits['ge']} to {limits['le']})" if len(limits) == 2 else ""


def page(text: str, tables: dict[str, str]) -> str:
    """The page with each table between its two comments."""
    for name, made in tables.items():
        begin, end = f"<!-- {name}: made by docs/make_scans.py -->", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n{made}\n{end}{after}"
    return text


def tables(registry: Registry) -> dict[str, str]:
    """Every table of the page by name."""
    return {"figures": figures_table(registry), "options": options_table(registry)}


def gallery(registry: Registry, path: Path) -> None:
    """Every direction of every scan, or every layer, on one sheet."""
    from PIL import Image

    blocks = []
    for entry in registry.all("scan"):
        scan = registry.create("scan", entry.component.name)
        grid = (4, 4, 4) if len(figures_of(scan)[0]) == 3 else (8, 8)
        panels = panels_of(scan, grid)
        words = [entry.component.name]
        for what in ("direction", "layer"):
            count = len({panel.title.partition(f"{what} ")[2][:1] for panel in panels})
            words += [f"{count} {what}s"] * (count > 1)
        blocks.append((", ".join(words), panels))
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_blocks(blocks, path, columns=6, block_in=2.0)
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def main() -> None:
    built_ins = Registry(allowed=[])
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), tables(built_ins)), encoding="utf-8")
    gallery(built_ins, GALLERY)
    print(f"{PAGE}\n{GALLERY}", file=sys.stderr)


if __name__ == "__main__":
    main()
