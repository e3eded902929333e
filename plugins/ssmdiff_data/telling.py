"""What ``ssmdiff data show`` says: a record for programs, and lines of it for people."""

from __future__ import annotations

import math
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ssmdiff import printable, size_text

from ssmdiff_data.finding import in_words
from ssmdiff_data.looking import bars, exact_duplicates, histogram, near_duplicates
from ssmdiff_data.showing import Found, Item
from ssmdiff_data.splitting import pseudonym

BINS = 48
_LISTED = 5
_DEEP = ("uint16", "int16")


def record(found: Found) -> dict[str, Any]:
    """All that is told, as plain values; of patients counts and salted hashes alone."""
    items, looks = found.items, found.looks
    salt = secrets.token_bytes(16)  # thrown away: the hashes of two calls cannot be joined
    told = {
        "files": found.files,
        "images": len(items),
        "looked_at": len(looks),
        "readers": _counts(item.reader for item in items),
        "modalities": _counts(item.header.modality or "unknown" for item in items),
        "axes": _counts(item.header.axes for item in items),
        "depths": _counts(item.header.depth for item in items),
        "shapes": _counts(size_text(item.header.shape) for item in items),
        "spacings_mm": _counts(_spacing(item) for item in items),
        "series": len({item.header.series for item in items if item.header.series}),
        "patients": len(found.patients),
        "images_of_patients": {
            pseudonym(name, salt): count for name, count in sorted(found.patients.items())
        },
        "images_without_patient": sum(not item.patient for item in items),
        "splits": _counts(item.split for item in items if item.split),
        "values": _values(found),
        "left_out": _left_out(found),
        "passed_over": {kind: len(names) for kind, names in sorted(found.passed_over.items())},
        "duplicates": _duplicates(found),
    }
    return {**told, "warnings": _warnings(found, told)}


def _counts(words: Iterable[str]) -> dict[str, int]:
    """The commonest first."""
    counts = Counter(words)
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _spacing(item: Item) -> str:
    if item.header.spacing is None:
        return "unknown"
    return " x ".join(f"{length:.3g}" for length in item.header.spacing)


def _kinds(found: Found) -> Mapping[tuple[str, str, str], list[int]]:
    """Images looked at whose values mean the same: modality, units and depth."""
    kinds: dict[tuple[str, str, str], list[int]] = {}
    for i in found.looks:
        header = found.items[i].header
        kinds.setdefault((header.modality, header.units, header.depth), []).append(i)
    return kinds


def _values(found: Found) -> list[dict[str, Any]]:
    told = []
    for (modality, units, depth), members in sorted(_kinds(found).items()):
        looks = [found.looks[i] for i in members]
        least, most, counts = histogram(looks, BINS)
        lows, highs = zip(*(seen.window for seen in looks), strict=True)
        told.append(
            {
                "modality": modality,
                "units": units,
                "depth": depth,
                "images": len(looks),
                "least": least,
                "most": most,
                "histogram": counts,
                "black": [min(lows), max(lows)],
                "white": [min(highs), max(highs)],
                "window": _counts(seen.why for seen in looks),
            }
        )
    return told


def _left_out(found: Found) -> list[dict[str, Any]]:
    """By reason, the commonest first, with the names of a few."""
    names: dict[str, list[str]] = {}
    for one in found.left_out:
        names.setdefault(found.masked(one.reason), []).append(found.masked(printable(one.name)))
    ordered = sorted(names.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return [{"reason": why, "images": len(of), "such_as": of[:_LISTED]} for why, of in ordered]


def _duplicates(found: Found) -> dict[str, Any]:
    order = sorted(found.looks)
    looks = [found.looks[i] for i in order]
    exact = [[order[i] for i in group] for group in exact_duplicates(looks)]
    near = [(order[i], order[j]) for i, j in near_duplicates(looks)]

    def crossing(groups: Sequence[Sequence[int]]) -> int:
        splits = [{found.items[i].split for i in group} - {""} for group in groups]
        return sum(len(of) > 1 for of in splits)

    def named(groups: Sequence[Sequence[int]]) -> list[list[str]]:
        return [
            [found.masked(printable(found.items[i].name)) for i in group[:_LISTED]]
            for group in groups[:_LISTED]
        ]

    sides: dict[str, set[str]] = {}
    for item in found.items:
        if item.patient and item.split:
            sides.setdefault(item.patient, set()).add(item.split)
    return {
        "exact": len(exact),
        "exact_across_splits": crossing(exact),
        "such_as": named(exact),
        "near": len(near),
        "near_across_splits": crossing(near),
        "near_such_as": named(near),
        "patients_across_splits": sum(len(of) > 1 for of in sides.values()),
    }


def _warnings(found: Found, told: Mapping[str, Any]) -> list[str]:
    total = len(found.items)
    said = Counter(text for item in found.items for text in set(item.header.warnings))
    warnings = [
        f"{count} of {total} images: {found.masked(text)}" for text, count in said.most_common()
    ]
    known = [name for name in told["modalities"] if name != "unknown"]
    if len(known) > 1:
        warnings.append(
            f"{len(known)} modalities lie together, {_words(told['modalities'])}: one model would "
            "be trained on all of them; keep them in folders of their own"
        )
    volumes = sum("z" in item.header.axes for item in found.items)
    if 0 < volumes < total:
        warnings.append(f"{volumes} volumes and {total - volumes} pictures lie together")
    for (_, _, depth), members in _kinds(found).items():
        looks = [found.looks[i] for i in members]
        most, least = max(s.most for s in looks), min(s.least for s in looks)
        bits = int(most).bit_length()
        white = min(s.window[1] for s in looks)
        if depth in _DEEP and least >= 0 and 8 < bits < 15 and white > 2 ** (bits + 1):
            warnings.append(
                f"{len(looks)} images of {depth} hold values up to {most:g}, as if they had {bits} "
                f"bits: with the range of their type they are near black. Try range:0,{2**bits - 1}"
            )
        if flat := sum(seen.flat for seen in looks):
            warnings.append(f"{flat} of {len(looks)} images of {depth} hold one value alone")
    copies = told["duplicates"]
    for kind, what in (("exact", "have the same values"), ("near", "look the same")):
        if copies[kind]:
            across = copies[f"{kind}_across_splits"]
            groups = "groups" if kind == "exact" else "pairs"
            warnings.append(
                f"{copies[kind]} {groups} of images {what}"
                + (f", {across} of them across splits" if across else "")
            )
    if copies["patients_across_splits"]:
        warnings.append(
            f"{copies['patients_across_splits']} patients are in more than one split, by the "
            "names of the folders"
        )
    return warnings + [
        f"reader {name!r} cannot be used here: {why}" for name, why in found.unavailable.items()
    ]


def lines(found: Found, told: Mapping[str, Any]) -> list[str]:
    """The record for people."""
    place = found.masked(printable(found.root))
    text = [f"{place}: {told['files']} files, {told['images']} images"]

    def say(title: str, words: str) -> None:
        text.append(f"  {title + ':':10} {words}")

    say("readers", _words(told["readers"]))
    say("modality", _words(told["modalities"]))
    if told["patients"]:
        without = told["images_without_patient"]
        more = f"; of {without} images it is not known" if without else ""
        say("patients", f"{told['patients']}, {told['series']} series{more}")
    else:
        say("patients", "not known; --group finds them in the files' names")
    if told["splits"]:
        say("splits", f"{_words(told['splits'])}, by the folders' names")
    say("axes", _words(told["axes"]))
    say("shapes", _words(told["shapes"]))
    say("spacing", f"{_words(told['spacings_mm'])} (mm)")
    part = "all" if told["looked_at"] == told["images"] else f"{told['looked_at']} of the"
    say("values", f"of {part} images")
    for kind in told["values"]:
        what = " ".join(filter(None, (kind["modality"], kind["depth"], kind["units"])))
        text.append(
            f"    {kind['images']} {what}: {kind['least']:g} to {kind['most']:g}; black "
            f"{_between(kind['black'])}, white {_between(kind['white'])} "
            f"({next(iter(kind['window'])).partition(',')[0].partition(';')[0]})"
        )
        text.append(f"    |{bars(kind['histogram'])}|")
    say("left out", in_words(found.passed_over) if found.passed_over else "nothing")
    for one in told["left_out"][:_LISTED]:
        text.append(f"    {one['images']} such as {one['such_as'][0]}: {one['reason']}")
    if (others := len(told["left_out"]) - _LISTED) > 0:
        text.append(f"    and {others} other reasons (--json has all)")
    for names, title in (("such_as", "same"), ("near_such_as", "alike")):
        if groups := told["duplicates"][names]:
            say(title, "; ".join(" = ".join(group) for group in groups[:2]))
    return [found.masked(line) for line in text]


def _words(counts: Mapping[str, int]) -> str:
    shown = ", ".join(f"{count} {word}" for word, count in list(counts.items())[:_LISTED])
    more = len(counts) - _LISTED
    return shown + (f", and {more} more" if more > 0 else "")


def _between(values: Sequence[float]) -> str:
    low, high = values
    return f"{low:g}" if math.isclose(low, high) else f"{low:g} to {high:g}"
