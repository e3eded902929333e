"""``train.init_from``: a run that begins with the weights of another.

Networks are matched by their names and those of their parameters, whatever the methods of the two
runs are. What fits neither as it is nor by a rule of :mod:`ssmdiff_train.fitting` is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ssmdiff import (
    CheckpointError,
    Conditions,
    Config,
    ConfigError,
    Method,
    Run,
    RunFolder,
    differences,
    load_run,
    load_state,
    terms_of,
)

from ssmdiff_train import fitting
from ssmdiff_train.fitting import Fit
from ssmdiff_train.matching import Built, fitted, in_words, some

KEY = "init_from"
"""Of the record, in the provenance of config.toml and of each checkpoint."""
PROCESS = "diffusion."
TOLD = ("method.", "model.", PROCESS, "data.image_size", "train.kernel")
"""What the keys begin with that are told where they differ and the weights fit."""
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
            yield f"  mapped, {how}: {some(names)}"
        if new := self._all("new"):
            yield f"  new, at zero, so that the answers are those of before: {some(new)}"
        if left_out := self._all("left_out"):
            yield f"  left out: {some(left_out)}"
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
        return [
            f"{key}: {in_words(old)} -> {in_words(new)}" for key, (old, new) in self.differs.items()
        ]


def begin(
    config: Config, folder: RunFolder, method: Method, channels: int, conditions: Conditions
) -> Begun | None:
    """Give the networks of a new run the weights that it is to begin with; None where it is none.

    No random stream is moved.

    Args:
        config: Of the new run.
        folder: Where it will be.
        method: What is trained, built for these:
        channels: C of its images.
        conditions: What its model is told of each.

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
        place = f"train.init_from = {where} ({run.checkpoint.path.name})"
        fits = fitted(config, run, method, Built(channels, conditions), place)
    for name, network in method.networks.items():
        load_state(network, fits[name].tensors, run.checkpoint.path)
        fitting.settle_norms(network, fits[name].mapped)
    differs = _told_differences(run.config, config) | _ranges(run.conditions, conditions)
    taken = _Taken(run, where, fits, _parameters(method, fits), differs)
    return Begun(taken.record(), tuple(taken.lines()), tuple(taken.doubts()))


def _told_differences(then: Config, now: Config) -> dict[str, tuple[Any, Any]]:
    """The keys that are told; of another method not each of those that it does not read."""
    keys = tuple(key for key in TOLD if key != PROCESS or then.method["name"] == now.method["name"])
    return {k: pair for k, pair in differences(then, now).items() if k.startswith(keys)}


def _ranges(old: Conditions, new: Conditions) -> dict[str, tuple[str, str]]:
    """Numbers that are told on another scale: the same weights read them as others."""
    found = {}
    for one in new:
        then = next((x for x in old if (x.name, x.kind) == (one.name, one.kind)), one)
        texts = [f"{x.low:g} to {x.high:g} {x.unit}".rstrip() for x in (then, one)]
        if one.kind == "number" and texts[0] != texts[1]:
            found[f"range of {one.name}"] = (texts[0], texts[1])
    return found


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
