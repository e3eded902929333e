"""A key that is given arrives in the configuration, or is refused by name: whatever layer sets it.

The expectation is worked out here from the rule alone: the highest layer that names a component
chooses it, options beside another name are of that one, and of one key the highest layer wins.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import ssmdiff
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ssmdiff.errors import ConfigError
from ssmdiff.registry.registry import registry
from ssmdiff_cli.main import app
from ssmdiff_train import process
from typer.testing import CliRunner

SLOTS = {
    "model.scan": "scan",
    "model.block": "block",
    "model.backbone": "backbone",
    "data.dataset": "dataset",
    "sample.scheduler": "scheduler",
}
FLAGS = {"model.scan": "--scan", "model.block": "--block", "model.backbone": "--backbone",
         "data.dataset": "--data"}  # fmt: skip
PRESETS = Path(ssmdiff.__file__).parent / "runs" / "presets"
CANDIDATES = (True, False, 1, 2, 3, 4, 8, 0.25, "raster", "cross", "zoh", "pad", "add", "folders",
              "fixed_large", "rms", [0, 4095], [1, 2], "images")  # fmt: skip
PLAIN = {
    "train.steps": ("--steps", [3, 4]),
    "train.batch_size": ("--batch-size", [2, 3]),
    "train.learning_rate": ("--lr", [0.5, 0.25]),
    "data.workers": ("--workers", [1, 2]),
    "seed": ("--seed", [7, 8]),
    "train.warmup_steps": (None, [5, 6]),
    "data.flip": (None, [False]),
    "diffusion.timesteps": (None, [200, 300]),
    "train.grad_clip": (None, [0, 0.5]),
}


OF_FILES = {"folder", "store", "acdc", "brats2018", "chestxray14"}
"""Data sets that need a path."""


def accepted(kind: str, name: str) -> dict[str, list[Any]]:
    """Options of a component with some values that each is valid with, tried on it alone."""
    spec: dict[str, Any] = {"name": name} | ({"path": "images"} if name in OF_FILES else {})
    known = registry().options(kind, spec)
    found: dict[str, list[Any]] = {}
    for option in known.keys() - {"name"}:
        for value in CANDIDATES:
            try:
                registry().options(kind, {**spec, option: value})
            except ConfigError:
                continue
            if value != known[option]:
                found.setdefault(option, []).append(value)
    return found


COMPONENTS = {
    path: {
        name: accepted(kind, name)
        for name in registry().names(kind)
        if not name.startswith("flow-")  # schedulers of another method than the one that is trained
    }
    for path, kind in SLOTS.items()
}


class Given(NamedTuple):
    """What one run of the command is told."""

    preset: str | None
    file: dict[str, Any]
    flags: list[str]
    sets: list[tuple[str, Any]]


@st.composite
def commands(draw: st.DrawFn) -> Given:
    """Names and options of two components and two plain keys, each in the layer that was drawn."""
    file: dict[str, Any] = {}
    flags: list[str] = []
    sets: list[tuple[str, Any]] = []
    for path in draw(st.lists(st.sampled_from(sorted(SLOTS)), min_size=1, max_size=2, unique=True)):
        section, key = path.split(".")
        names = st.sampled_from(sorted(COMPONENTS[path]))
        table: dict[str, Any] = {}
        if draw(st.booleans()):
            table["name"] = draw(names)
        if path in FLAGS and draw(st.booleans()):
            flags += [FLAGS[path], draw(names)]
        if draw(st.booleans()):
            name = draw(names)
            sets.append(draw(st.sampled_from([(path, name), (f"{path}.name", name)])))
        named = [*flags[1::2], table.get("name"), *(value for _, value in sets)]
        named = [name for name in named if isinstance(name, str) and name in COMPONENTS[path]]
        of = draw(st.sampled_from(named) if named else names)
        for option in draw(st.lists(st.sampled_from([*sorted(COMPONENTS[path][of]), "nonsense"]),
                                    max_size=2, unique=True)):  # fmt: skip
            value = draw(st.sampled_from(COMPONENTS[path][of].get(option, [1])))
            where = draw(st.sampled_from(["file", "set", "both"]))
            if where != "set":
                table[option] = value
            if where != "file":
                sets.append((f"{path}.{option}", value))
        if path == "data.dataset" and OF_FILES & set(named):
            sets.append((f"{path}.path", "images"))
        if table:
            file.setdefault(section, {})[key] = table
    for path in draw(st.lists(st.sampled_from(sorted(PLAIN)), max_size=2, unique=True)):
        flag, values = PLAIN[path]
        for where in draw(st.lists(st.sampled_from(["file", "flag", "set"]), unique=True)):
            value = draw(st.sampled_from(values))
            if where == "flag" and flag:
                flags += [flag, str(value)]
            elif where == "set":
                sets.append((path, value))
            elif where == "file":
                place = file
                *sections, key = path.split(".")
                for part in sections:
                    place = place.setdefault(part, {})
                place[key] = value
    preset = draw(st.sampled_from([None, "tiny", "small", "paper-128"]))
    return Given(preset, file, flags, draw(st.permutations(sets)))


def leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def at(table: Any, path: str) -> Any:
    for key in path.split("."):
        table = table.get(key) if isinstance(table, Mapping) else None
    return table


def expected(told: Given) -> tuple[dict[str, Any], set[str]]:
    """Key -> value that must arrive, and the keys of which one must be refused by name."""
    preset = tomllib.loads((PRESETS / f"{told.preset or 'tiny'}.toml").read_text())
    defaults = tomllib.loads((PRESETS / "defaults.toml").read_text())
    arrive: dict[str, Any] = dict(leaves(told.file))
    refused: set[str] = set()
    by_flag = dict(zip(told.flags[::2], told.flags[1::2], strict=True))
    sets = {f"{k}.name" if k in SLOTS else k: v for k, v in told.sets}
    for path, (flag, _) in PLAIN.items():
        if flag in by_flag:
            arrive[path] = json.loads(by_flag[flag])
            if sets.get(path, arrive[path]) != arrive[path]:
                refused.add(path)
    arrive |= {path: by_flag[flag] for path, flag in FLAGS.items() if flag in by_flag} | sets
    for path in SLOTS:
        in_file = at(told.file, path) or {}
        name = (sets.get(f"{path}.name") or by_flag.get(FLAGS.get(path, "")) or in_file.get("name")
                or at(preset, f"{path}.name") or at(defaults, f"{path}.name"))  # fmt: skip
        arrive.pop(path, None)
        arrive[f"{path}.name"] = name
        if in_file.get("name", name) != name:
            refused |= {f"{path}.{option}" for option in in_file.keys() - {"name"}}
        known = registry().options(
            SLOTS[path], {"name": name} | ({"path": "images"} if name in OF_FILES else {})
        )
        given_options = [k for k in arrive if k.startswith(f"{path}.")]
        refused |= {k for k in given_options if k.removeprefix(f"{path}.") not in known}
        for option, value in (at(preset, path) or {}).items():
            if at(preset, f"{path}.name") == name:
                arrive.setdefault(f"{path}.{option}", value)
    return arrive, refused


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


def line(told: Given, place: Path) -> list[str]:
    words = ["train", *told.flags, "--out", str(place / "run")]
    words += ["--preset", told.preset] if told.preset else []
    for path, value in told.sets:
        text = value if isinstance(value, str) else json.dumps(value)
        words += ["--set", f"{path}={text}"]
    if told.file:
        (place / "given.toml").write_text(toml(told.file))
        words += ["--config", str(place / "given.toml")]
    return words


def toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """By hand: plain keys first, then the tables inside."""
    plain = [f"{k} = {json.dumps(v)}" for k, v in table.items() if not isinstance(v, Mapping)]
    inside = [toml(v, f"{prefix}{k}.") for k, v in table.items() if isinstance(v, Mapping)]
    head = [f"[{prefix[:-1]}]"] if prefix else []
    return "\n".join([*head, *plain, *inside]) + "\n"


def resolved(words: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str]:
    """The configuration that reaches the training process, which trains nothing; the output."""
    asked: list[Any] = []
    monkeypatch.setattr(process, "run_training", lambda *arguments: asked.append(arguments[0]))
    result = CliRunner().invoke(app, words)
    assert (result.exit_code == 0) == bool(asked), result.output
    assert result.exit_code in (0, 2), result.output
    return (asked[0] if asked else None), result.output


@given(told=commands())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_key_arrives_or_is_refused_by_name(told, place, monkeypatch) -> None:
    arrive, refused = expected(told)
    config, output = resolved(line(told, place), monkeypatch)
    if refused:
        assert config is None, f"{refused} of {told}"
        assert any(key in output for key in refused), output
        return
    assert config is not None, output
    found = dict(leaves(config.model_dump(mode="json")))
    assert {key: found.get(key) for key in arrive} == arrive


@given(told=commands())
@settings(max_examples=40)
def test_every_key_of_a_python_layer_arrives_or_is_refused_by_name(told) -> None:
    """A mapping is a file, and a mapping above it is ``--set``."""
    over: dict[str, Any] = {}
    for path, value in told.sets:
        *sections, key = (f"{path}.name" if path in SLOTS else path).split(".")
        place = over
        for part in sections:
            place = place.setdefault(part, {})
        place[key] = value
    told = Given(told.preset, told.file, [], list(leaves(over)))
    arrive, refused = expected(told)
    layers = [ssmdiff.load_preset(told.preset or "tiny"), told.file, over]
    if refused:
        with pytest.raises(ConfigError) as raised:
            ssmdiff.resolve(*layers)
        assert any(key in str(raised.value) for key in refused), str(raised.value)
        return
    found = dict(leaves(ssmdiff.resolve(*layers).model_dump(mode="json")))
    assert {key: found.get(key) for key in arrive} == arrive
