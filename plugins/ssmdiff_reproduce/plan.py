"""The plan of a table: which runs are trained, and what is judged from the weights of each.

OUT/
    runs/DATA/SYSTEM/seed-0/                 a run of ssmdiff train
    evaluations/DATA/SYSTEM-seed-0/          an evaluation of it by ssmdiff evaluate
        cell.json                            what was asked for and what it took: the cell is done
    figure-2/DATA/SYSTEM-seed-0/             likewise, of the images of the sheet
    table-1.md, .tex, .html, .json, figure-2.png, .html

Tables of one OUT share the runs that they have in common.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssmdiff import (
    Config,
    ConfigError,
    Layer,
    assignments,
    did_you_mean,
    load_preset,
    merge,
    registry,
    resolve,
)

from ssmdiff_reproduce.scales import DataSet, Scale, System

FREE = ("train.checkpoint_every", "train.checkpoint_minutes", "train.max_hours", "data.workers")
"""Keys that may differ from those of a run that is there: they alter no image."""
SHOWN = 8
"""Images of a system in the sheet of figure 2."""


@dataclass(frozen=True)
class Cell:
    """A system on a data set under a seed, and how its images are judged.

    Args:
        data: The data set, as the scale calls it.
        system: Likewise.
        seed: Of training and of the images.
        folder: Where its evaluation goes.
        asked: What decides the evaluation besides the weights, as JSON.
    """

    data: str
    system: str
    seed: int
    folder: Path
    asked: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.data}, {self.system}, seed {self.seed}"


@dataclass(frozen=True)
class Task:
    """A run and the cells that are judged from its weights; one process does all of it.

    Args:
        number: Its place in the plan.
        config: Of the run.
        run: Its folder.
        cells: One or several.
    """

    number: int
    config: Config
    run: Path
    cells: Sequence[Cell]

    def __str__(self) -> str:
        first = self.cells[0]
        names = ", ".join(cell.system for cell in self.cells)
        return f"{first.data}, {names}, seed {first.seed}"


@dataclass(frozen=True)
class Planned:
    """A table that can be computed.

    Args:
        paper: Its name.
        table: Its number.
        scale: What the cells are made from.
        scale_name: ``paper`` or ``cpu``.
        out: The folder of everything.
        tasks: In the order in which they are shared out.
        left_out: What cannot be computed here -> why.
    """

    paper: str
    table: str
    scale: Scale
    scale_name: str
    out: Path
    tasks: Sequence[Task]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def cells(self) -> list[Cell]:
        return [cell for task in self.tasks for cell in task.cells]

    @property
    def base(self) -> str:
        """The system that the others are held against."""
        return self.scale.tables[self.table].base


def make_plan(
    paper: str,
    table: str,
    scale: Scale,
    scale_name: str,
    out: Path,
    data: Mapping[str, str] | None = None,
    systems: Iterable[str] = (),
    seeds: int | None = None,
    sets: Sequence[str] = (),
    judged: Mapping[str, Mapping[str, Any]] | None = None,
    steps: int | None = None,
) -> Planned:
    """Every cell of a table, each configuration resolved and checked.

    Args:
        paper: Its name.
        table: Its number.
        scale: What the cells are made from.
        scale_name: What it is called.
        out: The folder of everything.
        data: Data sets by name with their stores, an empty text for those that need none; None
            takes all that need none.
        systems: Those of the table that are wanted; all by default.
        seeds: How many, from 0; by default as the scale has it.
        sets: ``path.to.key=value``, over the configuration of every run that has such a key.
        judged: Options of feature networks and metrics, by name.
        steps: Sampling steps of every system that has some, in the place of its own.

    Raises:
        ConfigError: There is no such table, data set, system or key, or nothing is left.
    """
    if table not in scale.tables:
        raise ConfigError(f"--table {table!r}: {did_you_mean(table, list(scale.tables))}")
    plan = scale.tables[table]
    wanted = list(systems) or list(plan.systems)
    _refuse_strangers("--systems", wanted, plan.systems)
    left_out: dict[str, str] = {}
    sources = _sources(scale, data, left_out)
    present = []
    for name in wanted:
        if reason := _lacks(scale.systems[name]):
            left_out[name] = reason
        else:
            present.append(name)
    overlay = _Overlay(sets)
    picture = table.startswith("figure")
    features, metrics = ([], []) if picture else _with_options(scale, judged or {})
    place = out / (table if picture else "evaluations")
    tasks: list[Task] = []
    for seed in range(seeds or plan.seeds):
        for source, path in sources.items():
            chosen = plan.only.get(source, plan.systems)
            here = [name for name in present if name in chosen]
            for trained in dict.fromkeys(scale.systems[n].weights or n for n in here):
                names = [n for n in here if (scale.systems[n].weights or n) == trained]
                config = _config(scale, source, path, trained, seed, overlay)
                cells = [
                    Cell(
                        source,
                        name,
                        seed,
                        place / source / f"{name}-seed-{seed}",
                        {
                            "run": digest_of(config),
                            "drawn": SHOWN if picture else scale.drawn,
                            "features": features,
                            "metrics": metrics,
                            "reference": scale.reference,
                            "against": scale.data[source].reference,
                            "held_out": scale.data[source].held_out,
                            "draw": _draw(scale.systems[name], config, steps),
                        },
                    )
                    for name in names
                ]
                run = out / "runs" / source / trained / f"seed-{seed}"
                tasks.append(Task(len(tasks), config, run, cells))
    overlay.refuse_lost()
    if not tasks:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ConfigError(f"nothing of table {table} can be computed here: {reasons}")
    _refuse_unequal(tasks)
    return Planned(paper, table, scale, scale_name, out, tasks, left_out)


def _sources(
    scale: Scale, data: Mapping[str, str] | None, left_out: dict[str, str]
) -> dict[str, str]:
    """The data sets that are there, with their stores."""
    if data is None:
        for name, one in scale.data.items():
            if one.store:
                left_out[name] = f"no store of it was given; --data {name}=STORE"
        return {name: "" for name, one in scale.data.items() if not one.store}
    _refuse_strangers("--data", data, scale.data)
    for name, path in data.items():
        if bool(path) != scale.data[name].store:
            wanted = f"{name}=STORE" if scale.data[name].store else name
            raise ConfigError(f"--data {name}{'=' * bool(path)}{path}: expected --data {wanted}")
    left_out.update({name: "not asked for" for name in scale.data if name not in data})
    return {name: data[name] for name in scale.data if name in data}


def _lacks(system: System) -> str:
    """Why a system cannot be trained here; empty if it can."""
    if system.needs is None:
        return ""
    kind, name = system.needs
    known = {(e.kind.name, e.component.name) for e in registry().all()}
    return "" if (kind, name) in known else f"there is no {kind} {name!r} here"


def digest_of(config: Config) -> str:
    """What a run is trained as, in sixteen letters, without keys that alter no image."""
    values = config.to_dict()
    kept = {
        section: {k: v for k, v in table.items() if f"{section}.{k}" not in FREE}
        if isinstance(table, Mapping)
        else table
        for section, table in values.items()
    }
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def _draw(system: System, config: Config, steps: int | None) -> dict[str, Any]:
    """Scheduler and steps of a system, where they are not those of its run."""
    own: dict[str, Any] = system.draw.model_dump(exclude_none=True)
    known = config.keys()
    if steps is not None and "sample.steps" in known:
        own["steps"] = steps
    return own


class _Overlay:
    """``--set`` over configurations that have not all the same keys: a system of another network
    has not the options of this one."""

    def __init__(self, sets: Sequence[str]) -> None:
        self.texts = list(sets)
        self.arrived: set[str] = set()

    def over(self, config: Config) -> dict[str, Any]:
        keys = config.keys()
        found: dict[str, Any] = {}
        for text in self.texts:
            path = text.partition("=")[0].strip()
            if any(f"{key}.".startswith(f"{path}.") for key in keys):
                self.arrived.add(text)
                found = merge(found, assignments([text]))
        return found

    def refuse_lost(self) -> None:
        for text in self.texts:
            if text not in self.arrived:
                raise ConfigError(f"--set {text}: no run of this table has such a key")


def _config(
    scale: Scale, source: str, path: str, trained: str, seed: int, overlay: _Overlay
) -> Config:
    """Preset < scale < system < data set < --set < what all runs have in common."""
    data, system = scale.data[source], scale.systems[trained]
    of_data = load_preset(data.preset or scale.preset)
    images = of_data.get("data", {})
    layers: list[Any] = [
        load_preset(system.preset) if system.preset else of_data,
        Layer({"data": images}, f"the data of {of_data.source}", base=True),
        Layer(scale.config, f"the scale of {source}", base=True),
        Layer(system.config, f"the system {trained}"),
    ]
    if data.dataset or path:
        table = _dataset(data, path, images.get("dataset", {}))
        layers.append(Layer({"data": {"dataset": table}}, f"data {source}"))
    layers.append(Layer({"seed": seed}, "the plan"))
    config = resolve(*layers)
    if over := overlay.over(config):
        config = resolve(*layers, Layer(over, "--set"))
    steps = math.ceil(scale.images_seen / config.train.batch_size)
    return resolve(config, Layer({"train": {"steps": steps}}, "the plan"))


def _dataset(data: DataSet, path: str, below: Mapping[str, Any]) -> dict[str, Any]:
    """The component with the store's path, by name: the preset's, unless the scale names one."""
    table = {**({"name": below["name"]} if "name" in below else {}), **data.dataset}
    return {**table, **({"path": path} if path else {})}


def _with_options(
    scale: Scale, judged: Mapping[str, Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Feature networks and metrics with ``--judge NAME.option=value`` over their own options.

    Raises:
        ConfigError: There is none of that name.
    """
    known = [str(table["name"]) for table in (*scale.features, *scale.metrics)]
    _refuse_strangers("--judge", judged, known)
    features, metrics = (
        [{**table, **judged.get(str(table["name"]), {})} for table in tables]
        for tables in (scale.features, scale.metrics)
    )
    return features, metrics


def _refuse_strangers(flag: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"{flag} {name}: {did_you_mean(name, list(known))}")


def _refuse_unequal(tasks: Sequence[Task]) -> None:
    """Check that every run sees as many images as any other.

    Raises:
        ConfigError: One does not.
    """
    seen = {str(t): t.config.train.steps * t.config.train.batch_size for t in tasks}
    if len(set(seen.values())) > 1:
        most, least = max(seen, key=seen.__getitem__), min(seen, key=seen.__getitem__)
        raise ConfigError(
            f"the runs do not see equally many images: {most} {seen[most]:,}, {least} "
            f"{seen[least]:,}. Choose --images-seen that every batch size divides"
        )
