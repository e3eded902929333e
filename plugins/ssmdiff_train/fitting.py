"""The weights of one network for the same network of other channels or conditions, by tensor.

Nothing here knows an architecture. What depends on the channels of the images, or on what the model
is told of them, is seen by building the network for another number of them: the axes that are
longer by then are theirs.

Channels: an image whose channels are all equal gets the answer that it had, in every channel. Where
a weight reads the image, each channel has the mean of the old ones, times old / new; where it gives
the image, the mean.

Conditions: a row belongs to a condition, and of a class to that class, by name. The row of a class
that was not there is the mean of the classes of its condition; one of a condition that was not
there is zero, so that the answers are the old ones whatever is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from ssmdiff import Condition, Conditions
from torch import Tensor, nn
from torch.nn.utils import parametrize

Shapes = Mapping[str, Sequence[int]]
"""Of the tensors of a network, by name."""
POWER_STEPS = 15
"""Of the power method, as torch's ``spectral_norm`` takes at its start."""


class Row(NamedTuple):
    """A number or a plane that a network is told, by name."""

    condition: str
    word: str
    """Of a class its name; of anything else its place in the condition."""
    of_class: bool


def rows_of(conditions: Conditions, planes: bool) -> list[Row]:
    """Of all that has a place in the image, or of all that has none, in the network's order."""
    return [
        row
        for one in conditions
        if (count := one.planes if planes else one.width)
        for row in _rows_of_one(one, count)
    ]


def _rows_of_one(condition: Condition, count: int) -> list[Row]:
    named = [Row(condition.name, name, True) for name in condition.names]
    others = range(len(named), count)  # the numbers of a number, channels, and what is left out
    more = [Row(condition.name, condition.kind + f" {i}" * (not named), False) for i in others]
    return [*named, *more]


class Rows(NamedTuple):
    """Where a tensor holds something for each of several things."""

    axis: int
    each: int
    """Rows of one of them; those of the first come first."""
    besides: int
    """Rows that belong to none: after channels, before planes."""


@dataclass(frozen=True)
class Change:
    """From the old network to the new one: in channels, in numbers or in planes that it is told.

    Attributes:
        old: What the old one was built for.
        new: Likewise.
        rows: By the name of a tensor, where it depends on them.
        optional: Tensors that are there for some of them and not for others.
    """

    old: Sequence[Row]
    new: Sequence[Row]
    rows: Mapping[str, Sequence[Rows]] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()


class Changes(NamedTuple):
    """Of a network."""

    channels: Change
    numbers: Change
    planes: Change


@dataclass
class Fit:
    """What became of each tensor.

    Attributes:
        tensors: Of the new network, all of them.
        taken: Names of those that are the old ones.
        mapped: Of those that were made from the old ones, with how.
        new: Of those that were not there, and are zero.
        left_out: Of those old ones that have no place.
        misfits: A clause on each that cannot be had.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)
    mapped: dict[str, str] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    misfits: list[str] = field(default_factory=list)


def change(
    old: Sequence[Row], new: Sequence[Row], here: Shapes, there: Shapes, count: int
) -> Change:
    """What depends on channels or conditions, from a network built for another number of them.

    Args:
        old: Of the old network.
        new: Of this one.
        here: Its shapes.
        there: Shapes of one that was built for ``count`` of them.
        count: Not as many as ``new`` has.
    """
    rows: dict[str, list[Rows]] = {}
    for name in here.keys() & there.keys():
        for axis, lengths in enumerate(zip(here[name], there[name], strict=False)):
            each, rest = divmod(lengths[0] - lengths[1], len(new) - count)
            if each > 0 and not rest and len(here[name]) == len(there[name]):
                found = Rows(axis, each, lengths[0] - each * len(new))
                rows.setdefault(name, []).append(found)
    return Change(old, new, rows, frozenset(here.keys() ^ there.keys()))


def fit(network: nn.Module, old: Mapping[str, Tensor], changes: Changes) -> Fit:
    """The old weights for a network; nothing is loaded.

    Args:
        network: The new one.
        old: Tensors of the old one, by the same names.
        changes: From what the old one was built for.
    """
    found, own = Fit(), network.state_dict()
    optional = changes.numbers.optional | changes.planes.optional
    for name, mine in own.items():
        values, how = old.get(name), ""
        if values is None and name in optional:
            found.tensors[name] = torch.zeros_like(mine)
            found.new.append(name)
            continue
        if values is not None:
            shape = tuple(values.shape)
            values, how = _mapped(network, name, values, changes)
        if values is None or values.shape != mine.shape:
            there = "not" if name not in old else str(shape)
            found.misfits.append(f"{name} is {there} there and {tuple(mine.shape)} here")
            continue
        found.tensors[name] = values
        if how:
            found.mapped[name] = how
        else:
            found.taken.append(name)
    for name in sorted(old.keys() - own.keys()):
        if name in optional:
            found.left_out.append(name)
        else:
            found.misfits.append(f"{name} is {tuple(old[name].shape)} there and not here")
    return found


def _mapped(
    network: nn.Module, name: str, values: Tensor, changes: Changes
) -> tuple[Tensor | None, str]:
    """The values for the channels and conditions of now, and how; None where there is no rule."""
    how = []
    before, planes = len(changes.channels.old), changes.planes
    for rows in changes.channels.rows.get(name, ()):
        sizes = _parted(values, rows.axis, before * rows.each)
        # An axis with rows besides those of the channels reads the image and planes after it.
        if (rows.besides, sizes[1]) not in ((0, 0), (len(planes.new), len(planes.old))):
            return None, ""
        channels, rest = values.split(sizes, rows.axis)
        now = len(changes.channels.new)
        reads = values.dim() > 1 and _reads_along(network, name, rows.axis)
        mapped = for_channels(channels, rows.axis, before, now, reads)
        values = torch.cat([mapped, rest], rows.axis)
        how.append(f"{before} -> {now} channels")
    for told in (changes.numbers, planes):
        for rows in told.rows.get(name, ()):
            sizes = _parted(values, rows.axis, rows.besides)
            if rows.each != 1 or sizes[1] != len(told.old):
                return None, ""
            rest, ours = values.split(sizes, rows.axis)
            values = torch.cat([rest, for_rows(ours, rows.axis, told.old, told.new)], rows.axis)
            how.append(in_words(told.old, told.new))
    return values, "; ".join(how)


def _parted(values: Tensor, axis: int, first: int) -> list[int]:
    """How many rows of an axis are the first ones, and how many come after; -1 for too few."""
    length = values.shape[axis] if axis < values.dim() else -1
    return [first, length - first if length >= first else -1]


def for_channels(values: Tensor, axis: int, old: int, new: int, reads: bool) -> Tensor:
    """A weight for ``new`` channels instead of ``old``, which lie along ``axis`` one after another.

    Args:
        reads: Whether it reads the image along that axis, and does not give it.
    """
    each: Tensor = values.unflatten(axis, (old, -1))
    one = each.mean(axis, keepdim=True) * (old / new if reads else 1.0)
    return one.repeat_interleave(new, axis).flatten(axis, axis + 1)


def _reads_along(network: nn.Module, name: str, axis: int) -> bool:
    """Whether a weight reads along an axis: the second, of a transposed convolution the first."""
    module, transposed = network, False
    for part in name.split(".")[:-1]:
        module = getattr(module, part)
        transposed = transposed or getattr(module, "transposed", False) is True
    return axis == (0 if transposed else 1)


def for_rows(values: Tensor, axis: int, old: Sequence[Row], new: Sequence[Row]) -> Tensor:
    """Rows along an axis by their names; of one that was not there, the mean of the classes of its
    condition, and zero where that had none."""
    place = {row: i for i, row in enumerate(old)}
    rows = [values.narrow(axis, 0, 0)]
    for row in new:
        classes = [i for i, one in enumerate(old) if one.of_class and _same(one, row)]
        if row in place:
            rows.append(values.narrow(axis, place[row], 1))
        elif classes:
            chosen = values.index_select(axis, torch.tensor(classes))
            rows.append(chosen.mean(axis, keepdim=True))
        else:
            shape = [1 if i == axis else size for i, size in enumerate(values.shape)]
            rows.append(values.new_zeros(shape))
    return torch.cat(rows, axis)


def _same(row: Row, other: Row) -> bool:
    return row.condition == other.condition


def in_words(old: Sequence[Row], new: Sequence[Row]) -> str:
    """Which rows are kept by name, new, and left out: by condition."""
    conditions = dict.fromkeys(row.condition for row in (*new, *old))
    return "; ".join(
        _one_in_words(
            [row for row in old if row.condition == name],
            [row for row in new if row.condition == name],
        )
        for name in conditions
    )


def _one_in_words(old: Sequence[Row], new: Sequence[Row]) -> str:
    name = (*old, *new)[0].condition
    if not old:
        return f"{name} new, at zero"
    if not new:
        return f"{name} left out"
    if list(old) == list(new):
        return f"{name} kept"
    added = "the mean of the old" if any(row.of_class for row in old) else "at zero"
    ways = (
        ("kept by name", [row for row in new if row in old]),
        (f"new, {added}", [row for row in new if row not in old]),
        ("left out", [row for row in old if row not in new]),
    )
    told = (f"{way} {', '.join(row.word for row in rows)}" for way, rows in ways if rows)
    return f"{name}: {' / '.join(told)}"


@torch.no_grad()
def settle_norms(network: nn.Module, mapped: Iterable[str]) -> None:
    """Find the largest singular values of mapped weights anew, where a network divides by them."""
    for name, module in network.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        if any(path.startswith(f"{name}.parametrizations.") for path in mapped):
            was = module.training
            module.train()
            for _ in range(POWER_STEPS):
                for weight in module.parametrizations:  # type: ignore[union-attr]
                    getattr(module, weight)
            module.train(was)
