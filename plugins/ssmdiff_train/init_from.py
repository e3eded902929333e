"""``train.init_from``: a run that begins with the weights of another.

Networks are matched by their names and those of their parameters, whatever the methods of the two
runs are. What fits neither as it is nor by a rule of :mod:`ssmdiff_train.fitting` is refused.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ssmdiff import (
    CheckpointError,
    Config,
    ConfigError,
    ImageDataset,
    Method,
    Run,
    RunFolder,
    SsmdiffError,
    build_method,
    differences,
    load_run,
    load_state,
    resolve,
    terms_of,
    told_conditions,
)
from torch import Tensor

from ssmdiff_train import fitting
from ssmdiff_train.fitting import Change, Fit, Shapes

KEY = "init_from"
"""Of the record, in the provenance of config.toml and of each checkpoint."""
NAMED = ("backbone", "block", "gan")
"""Kinds of component that have to be the same."""
SHAPING = ("model.", "method.", "data.image_size")
"""What the keys begin with that may be of the shapes of a network."""
PROCESS = "diffusion."
TOLD = ("method.", "model.", PROCESS, "data.image_size", "train.kernel")
"""What the keys begin with that are told where they differ and the weights fit."""
SHOWN = 3
AVERAGED = "ema"


@dataclass(frozen=True)
class Begun:
    """What is known of what a run begins with."""

    record: Mapping[str, Any]
    """Kept in the run's folder and in its checkpoints."""
    lines: Sequence[str]
    """For whoever watches."""
    doubts: Sequence[str]
    """What may be wrong with it."""


@dataclass(frozen=True)
class _Taken:
    """What was taken of another run.

    Attributes:
        run: The other run.
        where: Its folder, as it was given.
        fits: Of each network, what became of its tensors.
        parameters: How many parameters were taken as they are.
        differs: Keys of the configuration with the values there and here.
    """

    run: Run
    where: Path
    fits: Mapping[str, Fit]
    parameters: int
    differs: Mapping[str, tuple[Any, Any]]

    def record(self) -> dict[str, Any]:
        """Where the weights are from and what became of them."""
        files = self.run.checkpoint.manifest["files"]
        read = [f"{self.file_of(name)}.safetensors" for name in self.fits]
        state = self.run.checkpoint.state().get("provenance", {})
        found = {
            "run": str(self.where),
            "checkpoint": self.run.checkpoint.path.name,
            "weights_sha256": {file: files[file]["sha256"] for file in read},
            "taken": {"tensors": len(self._all("taken")), "parameters": self.parameters},
            "mapped": self.mapped(),
            "new": self._all("new"),
            "left_out": self._all("left_out"),
            "differs": self._differences(),
            "data": dict(self.run.data),
            KEY: state.get(KEY, {}),
        }
        return {key: value for key, value in found.items() if value not in ({}, [])}

    def lines(self) -> Iterator[str]:
        """The same in words."""
        files = self.run.checkpoint.manifest["files"]
        digest = files[f"{AVERAGED}.safetensors"]["sha256"]
        place = f"{self.where}, {self.run.checkpoint.path.name}"
        yield f"begins with: the averaged weights of {place} (sha256 {digest[:12]})"
        others = [name for name in self.fits if self.file_of(name) != AVERAGED]
        if others:
            yield f"  of the {', '.join(others)} the weights as they were, which are not averaged"
        taken = len(self._all("taken"))
        yield f"  taken as they are: {taken} tensors, {self.parameters:,} parameters"
        ways: dict[str, list[str]] = {}
        for name, how in self.mapped().items():
            ways.setdefault(how, []).append(name)
        for how, names in ways.items():
            yield f"  mapped, {how}: {_some(names)}"
        if new := self._all("new"):
            yield f"  new, at zero, so that the answers are those of before: {_some(new)}"
        if left_out := self._all("left_out"):
            yield f"  left out: {_some(left_out)}"
        for line in self._differences():
            yield f"  differs: {line}"
        for terms in _terms(self.record()):
            yield f"  trained on: {terms}"

    def doubts(self) -> Iterator[str]:
        """A network that was trained to answer something else."""
        if then_now := self.differs.get(f"{PROCESS}prediction"):
            then, now = then_now
            yield (
                f"the network of {self.where} predicts {then!r} and this run trains it to predict "
                f"{now!r}, so its first answers are wrong. Try: --set diffusion.prediction={then}"
            )

    def mapped(self) -> dict[str, str]:
        """How each tensor was made that is not the old one."""
        return {
            self._name(n, t): how for n, fit in self.fits.items() for t, how in fit.mapped.items()
        }

    def file_of(self, network: str) -> str:
        """Which file of the checkpoint its weights are from."""
        return AVERAGED if network == self.run.method.drawing else network

    def _all(self, what: str) -> list[str]:
        return [self._name(n, t) for n, fit in self.fits.items() for t in getattr(fit, what)]

    def _name(self, network: str, tensor: str) -> str:
        return tensor if len(self.fits) == 1 else f"{network}.{tensor}"

    def _differences(self) -> list[str]:
        return [f"{key}: {_text(old)} -> {_text(new)}" for key, (old, new) in self.differs.items()]


def begin(config: Config, folder: RunFolder, method: Method, dataset: ImageDataset) -> Begun | None:
    """Give the networks of a new run the weights that it is to begin with; None where it is none.

    No random stream is moved.

    Raises:
        ConfigError: They do not fit; nothing was loaded.
        CheckpointError: There is no such run or checkpoint, or it is damaged.
    """
    train = config.train
    if train.init_from is None:
        if train.init_checkpoint is not None:
            raise ConfigError(
                f"train.init_checkpoint = {train.init_checkpoint!r} is of the run that "
                "train.init_from names, and there is none. Give --init-from RUN too"
            )
        return None
    where = Path(train.init_from).expanduser()
    out = folder.path.resolve()
    if out in (where.resolve(), *where.resolve().parents):
        raise ConfigError(
            f"train.init_from = {where} lies in --out {folder.path}, which is written anew; choose "
            "another --out, or go on with that run by --resume"
        )
    with torch.random.fork_rng(devices=[]):
        try:
            run = load_run(where, train.init_checkpoint or "latest")
        except (CheckpointError, ConfigError) as error:
            raise type(error)(f"train.init_from: {error}") from error
        fits = _fitted(config, run, method, dataset, where)
    for name, network in method.networks.items():
        load_state(network, fits[name].tensors, run.checkpoint.path)
        fitting.settle_norms(network, fits[name].mapped)
    differs = _told_differences(run.config, config)
    taken = _Taken(run, where, fits, _parameters(method, fits), differs)
    return Begun(taken.record(), tuple(taken.lines()), tuple(taken.doubts()))


def _told_differences(then: Config, now: Config) -> dict[str, tuple[Any, Any]]:
    """The keys that are told; of another method not each of those that it does not read."""
    keys = tuple(key for key in TOLD if key != PROCESS or then.method["name"] == now.method["name"])
    return {k: pair for k, pair in differences(then, now).items() if k.startswith(keys)}


def _fitted(
    config: Config, run: Run, method: Method, dataset: ImageDataset, where: Path
) -> dict[str, Fit]:
    """The old weights for each network.

    Raises:
        ConfigError: Some do not fit.
    """
    place = f"train.init_from = {where} ({run.checkpoint.path.name})"
    _refuse_other_parts(config, run, place)
    missing = sorted(method.networks.keys() - run.method.networks.keys())
    if missing:
        raise ConfigError(
            f"{place} has weights of {', '.join(run.method.networks)}, and this run of method "
            f"{config.method['name']!r} needs those of {', '.join(missing)} too. Begin with a run "
            "that has them, or without --init-from"
        )
    weights = {name: _tensors(run, name) for name in method.networks}
    here, count = _shapes(_states(method)), dataset.channels
    conditions = told_conditions(config, dataset)
    classes = fitting.classes_in(conditions)
    if fitting.besides_classes(conditions) != fitting.besides_classes(run.conditions):
        there, now = fitting.names_of(run.conditions), fitting.names_of(conditions)
        raise ConfigError(
            f"{place} is told {there} and this run {now}; expected the same, but for the classes. "
            "Try: --set "
            f"{shlex.quote(f'model.conditions={json.dumps(run.conditions.names)}')}, or begin "
            "without --init-from"
        )
    of_channels = _changes(
        here,
        [str(i) for i in range(run.channels)],
        [str(i) for i in range(count)],
        run.channels != count,
        lambda channels: build_method(config, channels, conditions),
    )
    # Of the same classes there may be rows besides theirs, which a tensor's shape tells.
    others = list(run.class_names) != list(classes) or bool(classes and _shapes(weights) != here)
    of_classes = _changes(
        here,
        run.class_names,
        classes,
        others,
        lambda number: build_method(config, count, fitting.with_classes(conditions, number)),
    )
    fits = {
        name: fitting.fit(network, weights[name], of_channels[name], of_classes[name])
        for name, network in method.networks.items()
    }
    several = len(fits) > 1
    misfits = [f"{n}.{m}" if several else m for n, found in fits.items() for m in found.misfits]
    if misfits:
        keys = _causes(config, run, lambda other: build_method(other, count, conditions), here)
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
    here: Mapping[str, Shapes],
    old: Sequence[str],
    new: Sequence[str],
    asked: bool,
    build: Callable[[int], Method],
) -> dict[str, Change]:
    """By network, what depends on channels or classes; nothing where that is not asked.

    Args:
        here: Shapes of the new networks.
        old: Channels or classes of the other run.
        new: Of this one.
        asked: Whether to look.
        build: The new networks for so many of them.
    """
    same = {name: Change(old, new) for name in here}
    if not asked:
        return same
    count = len(old) if len(old) != len(new) else len(new) + 1
    try:
        there = _shapes(_states(build(count)))
    except SsmdiffError:  # it cannot be for so many: then nothing is known to depend on them
        return same
    return {
        name: fitting.change(old, new, shapes, there.get(name, shapes), count)
        for name, shapes in here.items()
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
    config: Config, run: Run, build: Callable[[Config], Method], here: Mapping[str, Shapes]
) -> dict[str, tuple[Any, Any]]:
    """The keys that differ, with the values there and here, by which the shapes are others: each is
    tried by itself."""
    found = {}
    for key, (old, new) in differences(run.config, config).items():
        if old is None or key == "model.class_conditional" or not key.startswith(SHAPING):
            continue
        table: Any = old
        for part in reversed(key.split(".")):
            table = {part: table}
        try:
            other = resolve(config, table)
        except SsmdiffError:  # an option of a component that this run has not
            continue
        try:
            same = _shapes(_states(build(other))) == here
        except SsmdiffError:  # it does not go with the others
            same = False
        if not same:
            found[key] = (old, new)
    return found


def _misfit(place: str, misfits: Sequence[str], keys: Mapping[str, tuple[Any, Any]]) -> str:
    """The sentence on weights that do not fit."""
    told = [f"{key} ({_text(old)} there, {_text(new)} here)" for key, (old, new) in keys.items()]
    why = "No key of the configurations accounts for it; was it made with other code?"
    if told:
        why = f"It comes of {', '.join(told)}."
    return (
        f"{place}: its weights do not fit this run's network: {_some(misfits, '; ')}. {why} "
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


def _text(value: Any) -> str:
    return "not set" if value is None else repr(value)


def _some(names: Sequence[str], between: str = ", ") -> str:
    more = len(names) - SHOWN
    return between.join(names[:SHOWN]) + (f"{between}and {more} more" if more > 0 else "")


def _parameters(method: Method, fits: Mapping[str, Fit]) -> int:
    """How many parameters are taken as they are."""
    return sum(
        value.numel()
        for name, network in method.networks.items()
        for path, value in network.named_parameters()
        if path in fits[name].taken
    )


def _terms(record: Mapping[str, Any]) -> Iterator[str]:
    """On which terms the data may be used that the weights were trained on, and those before."""
    while record:
        if terms := terms_of(record.get("data", {}).get("terms")):
            yield f"{terms.name} ({terms.licence}), whose terms may reach the weights"
        record = record.get(KEY, {})
