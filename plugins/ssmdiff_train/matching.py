"""Which weights of one run go into the networks of another, or the sentence on why none do."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssmdiff import (
    Condition,
    Conditions,
    Config,
    ConfigError,
    Method,
    Run,
    SsmdiffError,
    build_method,
    differences,
    resolve,
)
from torch import Tensor

from ssmdiff_train import fitting
from ssmdiff_train.fitting import Change, Changes, Fit, Row, Shapes

NAMED = ("backbone", "block", "gan")
"""Kinds of component that have to be the same."""
SHAPING = ("model.", "method.", "data.image_size")
"""What the keys begin with that may be of the shapes of a network."""
SHOWN = 3


@dataclass(frozen=True)
class Built:
    """What networks are built for, besides their configuration."""

    channels: int
    conditions: Conditions

    def method(self, config: Config) -> Method:
        """Networks for these."""
        return build_method(config, self.channels, self.conditions)

    def rows(self) -> list[Row]:
        """The channels, which have no names."""
        return [Row("channels", str(i), False) for i in range(self.channels)]


def fitted(config: Config, run: Run, method: Method, own: Built, place: str) -> dict[str, Fit]:
    """The old weights for each network.

    Args:
        config: Of the new run.
        run: The old one.
        method: The new one's.
        own: What that was built for.
        place: The old weights, for messages.

    Raises:
        ConfigError: Some do not fit.
    """
    _refuse_other_parts(config, run, place)
    missing = sorted(method.networks.keys() - run.method.networks.keys())
    if missing:
        raise ConfigError(
            f"{place} has weights of {', '.join(run.method.networks)}, and this run of method "
            f"{config.method['name']!r} needs those of {', '.join(missing)} too. Begin with a run "
            "that has them, or without --init-from"
        )
    weights = {name: _tensors(run, name) for name in method.networks}
    here = _shapes(_states(method))
    changes = _changes(config, here, Built(run.channels, run.conditions), own)
    fits = {
        name: fitting.fit(network, weights[name], changes[name])
        for name, network in method.networks.items()
    }
    several = len(fits) > 1
    misfits = [f"{n}.{m}" if several else m for n, found in fits.items() for m in found.misfits]
    if misfits:
        keys = _causes(config, run, own, here)
        raise ConfigError(_misfit(place, misfits, keys))
    return fits


def _tensors(run: Run, network: str) -> Mapping[str, Tensor]:
    """Of a network of the old run: averaged where an average is kept."""
    if network == run.method.drawing:
        return run.model.state_dict()
    return run.checkpoint.tensors(network)


def _states(method: Method) -> dict[str, Mapping[str, Tensor]]:
    return {name: network.state_dict() for name, network in method.networks.items()}


def _shapes(networks: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Shapes]:
    return {n: {key: tuple(v.shape) for key, v in held.items()} for n, held in networks.items()}


def _changes(
    config: Config, here: Mapping[str, Shapes], old: Built, new: Built
) -> dict[str, Changes]:
    """By network, what depends on what differs between what the two runs are built for.

    Args:
        config: Of the new run.
        here: Shapes of its networks.
        old: What the old run's were built for.
        new: What these are built for.
    """

    def found(then: Sequence[Row], now: Sequence[Row], other: Built, count: int) -> list[Change]:
        same = [Change(then, now)] * len(here)
        if list(then) == list(now):
            return same
        try:
            there = _shapes(_states(other.method(config)))
        except SsmdiffError:  # it cannot be: then nothing is known to depend on them
            return same
        return [
            fitting.change(then, now, shapes, there.get(name, shapes), count)
            for name, shapes in here.items()
        ]

    told, channels = (
        new.conditions,
        found(old.rows(), new.rows(), Built(old.channels, new.conditions), old.channels),
    )
    sides = []
    for planes in (False, True):
        then, now = (fitting.rows_of(one.conditions, planes) for one in (old, new))
        kind: Any = ("image" if planes else "label", () if planes else ("one",))
        other = Conditions([*told, Condition("x" * 80, kind[0], kind[1])])
        if now and not then:  # the tensors that are there for them alone
            other = Conditions(one for one in told if not (one.planes if planes else one.width))
        count = len(fitting.rows_of(other, planes))
        sides.append(found(then, now, Built(new.channels, other), count))
    return {
        n: Changes(*each) for n, each in zip(here, zip(channels, *sides, strict=True), strict=True)
    }


def _refuse_other_parts(config: Config, run: Run, place: str) -> None:
    """Check that both runs have a backbone, a block or a GAN of one name.

    Raises:
        ConfigError: They have not.
    """
    then, now = run.config.components(), config.components()
    for path in sorted(then.keys() & now.keys()):
        (kind, old), (_, new) = then[path], now[path]
        if kind in NAMED and old["name"] != new["name"]:
            differing = differences(run.config, config).items()
            chosen = {key: pair for key, pair in differing if key.startswith(f"{path}.")}
            raise ConfigError(
                f"{place} has the {kind} {old['name']!r} and this run {new['name']!r}; weights of "
                f"one are none of another. {_advice(chosen)}"
            )


def _causes(
    config: Config, run: Run, own: Built, here: Mapping[str, Shapes]
) -> dict[str, tuple[Any, Any]]:
    """The keys that differ, with the values there and here, by which the shapes are others: each is
    tried by itself."""
    found = {}
    for key, (old, new) in differences(run.config, config).items():
        if old is None or not key.startswith(SHAPING):
            continue
        table: Any = old
        for part in reversed(key.split(".")):
            table = {part: table}
        try:
            other = resolve(config, table)
        except SsmdiffError:  # an option of a component that this run has not
            continue
        try:
            same = _shapes(_states(own.method(other))) == here
        except SsmdiffError:  # it does not go with the others
            same = False
        if not same:
            found[key] = (old, new)
    return found


def _misfit(place: str, misfits: Sequence[str], keys: Mapping[str, tuple[Any, Any]]) -> str:
    """The sentence on weights that do not fit."""
    told = [
        f"{key} ({in_words(old)} there, {in_words(new)} here)" for key, (old, new) in keys.items()
    ]
    why = "No key of the configurations accounts for it; was it made with other code?"
    if told:
        why = f"It comes of {', '.join(told)}."
    return (
        f"{place}: its weights do not fit this run's network: {some(misfits, '; ')}. {why} "
        f"{_advice(keys)}"
    )


def _advice(keys: Mapping[str, tuple[Any, Any]]) -> str:
    """How this run would have the old values."""
    sets = " ".join(
        f"--set {shlex.quote(f'{key}={_value(old)}')}"
        for key, (old, _) in keys.items()
        if old is not None
    )
    return f"Try: {sets + ', or ' if sets else ''}begin without --init-from"


def _value(value: Any) -> str:
    """As ``--set`` takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def in_words(value: Any) -> str:
    """A value of a configuration."""
    return "not set" if value is None else repr(value)


def some(names: Sequence[str], between: str = ", ") -> str:
    """The first few, and how many more there are."""
    more = len(names) - SHOWN
    return between.join(names[:SHOWN]) + (f"{between}and {more} more" if more > 0 else "")
