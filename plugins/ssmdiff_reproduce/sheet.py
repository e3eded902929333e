"""Figure 2: images of every system beside each other, those of the data first where they may be."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from ssmdiff import build_dataset, to_levels, write_atomically

from ssmdiff_reproduce.forms import NAMES, page
from ssmdiff_reproduce.plan import SHOWN, Cell, Planned
from ssmdiff_reproduce.running import SHEET, failure, is_done

Levels = NDArray[np.uint8]
_SIDE, _GAP, _LABEL, _HEAD = 96, 4, 250, 26


@dataclass(frozen=True)
class Sheet:
    """Figure 2.

    Args:
        png: The picture.
        paths: The files by their suffix.
        missing: Systems without images -> why.
    """

    png: bytes
    paths: dict[str, Path]
    missing: dict[str, str]


def make_sheet(planned: Planned, show_real: bool) -> Sheet:
    """The sheet of a plan, from what its cells left in files, written into OUT.

    Args:
        planned: Of ``figure-2``.
        show_real: Show images of the data also where it is not marked open.
    """
    sources = [s for s in planned.scale.data if any(c.data == s for c in planned.cells)]
    real = {source: _real(planned, source, show_real) for source in sources}
    systems = list(dict.fromkeys(cell.system for cell in planned.cells))
    labels = [planned.scale.systems[system].label for system in systems]
    rows: list[tuple[str, list[Levels | None]]] = [
        (label, [_drawn(planned, source, system) for source in sources])
        for label, system in zip(labels, systems, strict=True)
    ]
    if any(images is not None for images in real.values()):
        rows.insert(0, ("real", [real[source] for source in sources]))
    heads = [planned.scale.data[source].label for source in sources]
    png = _picture(heads, rows)
    shown = [planned.scale.data[s].label for s, images in real.items() if images is not None]
    missing = {str(c): failure(c) or "not drawn" for c in planned.cells if not is_done(c)}
    notes = [
        f"The first {SHOWN} images of seed 0 of each system, none chosen; the rows of one data set "
        "were trained on equally many images.",
        *(f"Left out: {name}: {reason}." for name, reason in planned.left_out.items()),
        *(f"Missing: {cell}: {reason}." for cell, reason in missing.items()),
    ]
    title = f"Figure 2 of {NAMES[planned.paper]}, scale {planned.scale_name}"
    paths = {suffix: planned.out / f"figure-2.{suffix}" for suffix in ("png", "html")}
    write_atomically(paths["png"], png)
    text = page(title, notes, png, ", ".join(shown))
    write_atomically(paths["html"], text.encode())
    return Sheet(png, paths, missing)


def _drawn(planned: Planned, source: str, system: str) -> Levels | None:
    cells: Sequence[Cell] = [
        c for c in planned.cells if (c.data, c.system) == (source, system) and is_done(c)
    ]
    return np.load(cells[0].folder / SHEET, allow_pickle=False) if cells else None


def _real(planned: Planned, source: str, show_real: bool) -> Levels | None:
    """Evenly spread images of the data; None where they may not be shown."""
    config = next(t.config for t in planned.tasks if t.cells[0].data == source)
    dataset: Any = build_dataset(config)
    if not (show_real or getattr(dataset, "is_open", False)):
        return None
    chosen = np.linspace(0, len(dataset) - 1, min(SHOWN, len(dataset))).astype(int)
    return np.stack([to_levels(np.asarray(dataset[int(i)].image)) for i in chosen])


def _picture(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Levels | None]]]) -> bytes:
    """Rows of images with a word before each, a block of columns for each data set."""
    block = SHOWN * (_SIDE + _GAP) + 3 * _GAP
    size = (_LABEL + len(heads) * block, _HEAD + len(rows) * (_SIDE + _GAP))
    canvas = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    for i, head in enumerate(heads):
        pen.text((_LABEL + i * block, 4), head, fill="#1d2733", font=font)
    for r, (label, blocks) in enumerate(rows):
        top = _HEAD + r * (_SIDE + _GAP)
        pen.text((4, top + _SIDE // 2 - 9), label, fill="#1d2733", font=font)
        for b, images in enumerate(blocks):
            for i, image in enumerate(images if images is not None else ()):
                rgb = np.moveaxis(image[:3] if len(image) >= 3 else image[:1].repeat(3, 0), 0, -1)
                one = Image.fromarray(np.ascontiguousarray(rgb))
                way = Image.Resampling.NEAREST if max(one.size) < _SIDE else Image.Resampling.BOX
                left = _LABEL + b * block + i * (_SIDE + _GAP)
                canvas.paste(one.resize((_SIDE, _SIDE), way), (left, top))
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()
