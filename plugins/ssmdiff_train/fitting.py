"""The weights of one network for the same network of other channels or classes, tensor by tensor.

Nothing here knows an architecture. What depends on the channels of the images, or on the classes,
is seen by building the network for another number of them: the axes that are longer by then are
theirs.

Channels: an image whose channels are all equal gets the answer that it had, in every channel. Where
a weight reads the image, each channel has the mean of the old ones, times old / new; where it gives
the image, the mean.

Classes: a row belongs to a class by its name. That of a class which was not there is the mean of
the classes that were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from ssmdiff import LABEL, Condition, Conditions
from torch import Tensor, nn
from torch.nn.utils import parametrize

Shapes = Mapping[str, Sequence[int]]
"""Of the tensors of a network, by name."""
POWER_STEPS = 15
"""Of the power method, as torch's ``spectral_norm`` takes at its start."""


class Rows(NamedTuple):
    """Where a tensor holds something for each channel or class."""

    axis: int
    each: int
    """Rows of one of them; those of the first come first."""
    besides: int
    """Rows after them that belong to none."""


Row = tuple[str, str | int]
"""A row by its name: ``("class", "lesion")``, or ``("besides", 0)`` after the classes."""


@dataclass(frozen=True)
class Change:
    """From the old network to the new one, in channels or in classes.

    Attributes:
        old: What the old one was built for: the names of its classes, numbers of its channels.
        new: Likewise.
        rows: By the name of a tensor, where it depends on them.
        optional: Tensors that are there for some numbers of them and not for others.
    """

    old: Sequence[str]
    new: Sequence[str]
    rows: Mapping[str, Sequence[Rows]] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()


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
    old: Sequence[str], new: Sequence[str], here: Shapes, there: Shapes, count: int
) -> Change:
    """What depends on channels or classes, from a network built for another number of them.

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


def fit(network: nn.Module, old: Mapping[str, Tensor], channels: Change, classes: Change) -> Fit:
    """The old weights for a network; nothing is loaded.

    Args:
        network: The new one.
        old: Tensors of the old one, by the same names.
        channels: From its images to those of now.
        classes: From its classes to those of now.
    """
    found, own = Fit(), network.state_dict()
    for name, mine in own.items():
        values, how = old.get(name), ""
        if values is None and name in classes.optional:
            found.tensors[name] = torch.zeros_like(mine)
            found.new.append(name)
            continue
        if values is not None:
            shape = tuple(values.shape)
            values, how = _mapped(network, name, values, channels, classes)
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
        if name in classes.optional:
            found.left_out.append(name)
        else:
            found.misfits.append(f"{name} is {tuple(old[name].shape)} there and not here")
    return found


def _mapped(
    network: nn.Module, name: str, values: Tensor, channels: Change, classes: Change
) -> tuple[Tensor | None, str]:
    """The values for the channels and classes of now, and how; None where there is no rule."""
    how = []
    for rows in channels.rows.get(name, ()):
        old, new = len(channels.old), len(channels.new)
        if rows.besides or values.dim() <= rows.axis or values.shape[rows.axis] != old * rows.each:
            return None, ""
        reads = _reads_along(network, name, rows.axis) and values.dim() > 1
        values = for_channels(values, rows.axis, old, new, reads)
        how.append(f"{old} -> {new} channels")
    for rows in classes.rows.get(name, ()):
        besides = values.shape[rows.axis] - len(classes.old) if values.dim() > rows.axis else -1
        if rows.each != 1 or besides < 0:
            return None, ""
        names = rows_of(classes.old, besides), rows_of(classes.new, rows.besides)
        if names[0] != names[1]:
            values = for_rows(values, rows.axis, *names)
            how.append(in_words(*names))
    return values, "; ".join(how)


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


def rows_of(classes: Iterable[str], besides: int) -> list[Row]:
    """The names of rows: of each class, and of what comes after them."""
    return [*(("class", name) for name in classes), *(("besides", i) for i in range(besides))]


def for_rows(values: Tensor, axis: int, old: Sequence[Row], new: Sequence[Row]) -> Tensor:
    """Rows along an axis by their names; a name that was not there has the mean of the classes."""
    place = {row: i for i, row in enumerate(old)}
    classes = [i for row, i in place.items() if row[0] == "class"] or list(place.values())
    mean = values.index_select(axis, torch.tensor(classes)).mean(axis, keepdim=True)
    rows = [values.narrow(axis, place[row], 1) if row in place else mean for row in new]
    return torch.cat(rows, axis)


def in_words(old: Sequence[Row], new: Sequence[Row]) -> str:
    """Which rows are kept by name, new, and left out."""

    def listed(rows: Iterable[Row]) -> str:
        return ", ".join(str(name) if kind == "class" else "of none" for kind, name in rows)

    ways = (
        ("kept by name: ", [row for row in new if row in old]),
        ("new, the mean of the old: ", [row for row in new if row not in old]),
        ("left out: ", [row for row in old if row not in new]),
    )
    return "classes " + "; ".join(word + listed(rows) for word, rows in ways if rows)


def classes_in(conditions: Conditions) -> tuple[str, ...]:
    """The classes that a model is told; none where it is told none."""
    return next((one.names for one in conditions if one.name == LABEL), ())


def besides_classes(conditions: Conditions) -> list[Condition]:
    """What else it is told."""
    return [one for one in conditions if one.name != LABEL]


def with_classes(conditions: Conditions, number: int) -> Conditions:
    """The same, of so many classes."""
    names = tuple(map(str, range(number)))
    label = [one for one in conditions if one.name == LABEL] or [Condition(LABEL, "label", names)]
    classes = [replace(one, names=names) for one in label if number]
    return Conditions([*classes, *besides_classes(conditions)])


def names_of(conditions: Conditions) -> str:
    """In words."""
    return ", ".join(conditions.names) or "nothing"


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
