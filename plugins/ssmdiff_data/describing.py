"""What a folder of images says of itself before it is trained on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ssmdiff import Condition, DataError, ImageHeader, printable, size_text

from ssmdiff_data.images import ReadRules, Spread, read_spread

READ = 32
"""So many files are decoded to see where their values lie."""
_LISTED = 5
_THREADS = 8
_NARROW = 0.25
"""Values that fill a smaller part of the range than this are warned of."""


def sizes_in_words(headers: Sequence[ImageHeader], size: tuple[int, int], how: str) -> str:
    """``all 512 x 512, scaled to 64 x 64 (center)``."""
    sizes = Counter((header.size("y"), header.size("x")) for header in headers)
    (commonest, count), *_ = sizes.most_common(1)
    if len(sizes) == 1:
        files = f"all {size_text(commonest)}"
    else:
        low, high = min(sizes, key=math.prod), max(sizes, key=math.prod)
        files = (
            f"{len(sizes)} sizes from {size_text(low)} to {size_text(high)}, {count} of "
            f"{size_text(commonest)}"
        )
    if set(sizes) == {size}:
        return f"sizes: {files}"
    return f"sizes: {files}; each becomes {size_text(size)} (resize = {how!r})"


def classes_in_words(names: Sequence[str], labels: Sequence[int]) -> str:
    """``classes: cat 20, dog 12``."""
    if not names:
        return "classes: none (--set data.dataset.labels=folders takes the folders' names)"
    counts = Counter(labels)
    shown = ", ".join(f"{name} {counts[i]}" for i, name in enumerate(names[: 2 * _LISTED]))
    more = f", and {len(names) - 2 * _LISTED} more" if len(names) > 2 * _LISTED else ""
    return f"classes: {shown}{more}"


def condition_in_words(condition: Condition, values: Sequence[Any] | None = None) -> str:
    """``told: age, a number from 20 to 88 years (of 12 of 40 images it is not known)``.

    Args:
        condition: What can be told.
        values: Of the images, None where one is not known; for counts.
    """
    kind, names = condition.kind, condition.names
    if kind == "number":
        what = f"a number from {condition.low:g} to {condition.high:g} {condition.unit}".rstrip()
    elif kind == "image":
        what = f"an image of {condition.channels} channel{'s' * (condition.channels > 1)}"
    else:
        what = {"label": "a class", "labels": "findings", "mask": "a mask"}[kind] + ": "
        counts = counts_of(condition, values or ())
        shown = [
            f"{name} {counts[i]}" if values is not None else name
            for i, name in enumerate(names[: 2 * _LISTED])
        ]
        more = len(names) - len(shown)
        what += ", ".join(shown) + (f", and {more} more" if more else "")
    unknown = sum(value is None for value in values or ())
    gaps = f" (of {unknown} of {len(values or ())} images it is not known)" if unknown else ""
    return f"told: {condition.name}, {what}{gaps}"


def counts_of(condition: Condition, values: Sequence[Any]) -> list[int]:
    """How many images have each of the condition's names."""
    sets = condition.kind == "labels"
    counts = Counter(
        i for value in values if value is not None for i in (value if sets else (value,))
    )
    return [counts[i] for i in range(len(condition.names))]


def spread_over(count: int) -> list[int]:
    """Indices of the files that are looked at."""
    return sorted({i * count // READ for i in range(READ)})


def values_in_words(
    root: Path, looked_at: Mapping[str, ImageHeader], total: int, rules: ReadRules
) -> tuple[list[str], list[str]]:
    """The range in use and where the values lie in it; and what seems wrong with that."""

    def spread(name: str) -> Spread | str:
        try:
            return read_spread(root / name, rules)
        except DataError as error:
            return f"{error}. Training stops where it meets it"

    with ThreadPoolExecutor(_THREADS) as pool:
        spreads = dict(zip(looked_at, pool.map(spread, looked_at), strict=True))
    lines = []
    warnings = [bad for bad in spreads.values() if isinstance(bad, str)]
    how = "value_range" if rules.value_range else "the files' type"
    ranges = {header.value_range for header in looked_at.values() if header.value_range}
    for low, high in sorted(ranges):
        found = {
            name: spread
            for name, spread in spreads.items()
            if isinstance(spread, Spread) and looked_at[name].value_range == (low, high)
        }
        if not found:
            continue
        least, most = min(s.least for s in found.values()), max(s.most for s in found.values())
        depths = "/".join(sorted({looked_at[name].depth for name in found}))
        outside = sum(s.outside for s in found.values()) / len(found)
        cut = f"; {outside:.1%} of them lie beyond" if outside else ""
        cut += " and are cut (clip = true)" if outside and rules.clip else ""
        whose = f"all {total} images" if len(found) == total else f"{len(found)} of {total} images"
        lines.append(
            f"values: {depths}, black {low:g} and white {high:g} by {how}; those of {whose} lie "
            f"from {least:g} to {most:g}{cut}"
        )
        warnings += _narrow(least, most, low, high, rules, whose)
        warnings += _flat(found)
    return lines, warnings


def _narrow(
    least: float, most: float, low: float, high: float, rules: ReadRules, whose: str
) -> list[str]:
    inside = min(most, high) - max(least, low)
    if not 0 < inside < _NARROW * (high - low) or most == least:
        return []
    whole = float(low).is_integer() and float(most).is_integer() and low == 0
    bits = int(most).bit_length()
    if whole and least < most / 2 and bits:
        black, white = 0.0, 2.0**bits - 1
        likely = f"as if they had {bits} bits"
    else:
        black, white, likely = math.floor(least), math.ceil(most), "in a narrow band"
    if rules.value_range and (black, white) == rules.value_range:
        return []
    looks = "near black" if most < (low + high) / 2 else "of nearly one grey"
    return [
        f"the values of {whose} lie from {least:g} to {most:g}, {likely}, and "
        f"{inside / (high - low):.1%} of the range {low:g} to {high:g} is used: the model will see "
        f"images {looks}. Try --set data.dataset.value_range=[{black:g},{white:g}]"
    ]


def _flat(found: Mapping[str, Spread]) -> list[str]:
    flat = [name for name, spread in found.items() if spread.least == spread.most]
    if not flat:
        return []
    shown = ", ".join(map(printable, flat[:_LISTED]))
    more = f" and {len(flat) - _LISTED} more" if len(flat) > _LISTED else ""
    return [f"{len(flat)} of {len(found)} images looked at hold one value alone: {shown}{more}"]
