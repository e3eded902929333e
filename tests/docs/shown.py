"""The commands of the documents, and what they say of the configuration, read from the words alone.

Independent of the program: a table of its flags, TOML for values, and the files of the presets.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PRESET = ROOT / "core" / "ssmdiff" / "runs" / "presets"
FLAGS = {
    "--method": "method",
    "--gan": "method.network",
    "--scan": "model.scan",
    "--backbone": "model.backbone",
    "--block": "model.block",
    "--data": "data.dataset",
    "--image-size": "data.image_size",
    "--workers": "data.workers",
    "--steps": "train.steps",
    "--batch-size": "train.batch_size",
    "--lr": "train.learning_rate",
    "--precision": "train.precision",
    "--kernel": "train.kernel",
    "--max-hours": "train.max_hours",
    "--init-from": "train.init_from",
    "--init-checkpoint": "train.init_checkpoint",
    "--seed": "seed",
}
SWITCHES = {
    "--activation-checkpointing": "train.activation_checkpointing",
    "--compile": "train.compile",
}
OTHERS = ("--out", "--preset", "--config", "--allow-config-change")  # with a value
PARTS = (
    "method", "method.network", "method.loss", "model.scan", "model.backbone", "model.block",
    "data.dataset", "sample.scheduler",
)  # fmt: skip
OF_A_DIFFUSION = ("model.", "diffusion.", "sample.scheduler.", "sample.steps", "train.bound_images",
                  "train.held_out")  # fmt: skip
"""How the keys begin that other methods may leave out, and that a preset then loses."""

# Appended to every `ssmdiff train`, so that it takes seconds; everything else is as written.
QUICK = [
    "--set", "model.backbone.channels=8", "--set", "model.backbone.widths=[1,2]",
    "--set", "train.bound_images=0", "--set", "train.batch_size=2", "--set", "sample.steps=2",
    "--set", "sample.count=2",
]  # fmt: skip
QUICK_GAN = ["--set", "train.batch_size=2", "--set", "sample.count=2"]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def console(page: Path) -> list[str]:
    """The commands of console blocks."""
    return [
        line.removeprefix("$ ")
        for block in blocks(page, "console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


def quick(line: str) -> list[str]:
    """The words of a command behind ``ssmdiff``, with what makes it take seconds."""
    words = shlex.split(line)
    assert words[0] == "ssmdiff", f"{line}: only ssmdiff commands go into console blocks"
    words = words[1:]
    if words[:2] == ["bench", "scan"]:
        words += ["--tokens", "8,16", "--channels", "4", "--states", "2", "--repeats", "2"]
    if words[0] == "train":
        words += (QUICK_GAN if "--gan" in words else QUICK) + (
            [] if "--steps" in words else ["--steps", "2"]
        )
    return words


def commands(page: Path) -> list[str]:
    """``ssmdiff train`` and ``ssmdiff config show`` wherever a page has them, in order."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"(?:^|\$ |`|^ {4})(ssmdiff (?:train|config show)\b[^`\n]*)", text, re.M)
    return [line.strip() for line in found]


def leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of all that is no table."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def said(line: str | list[str]) -> dict[str, Any]:
    """Dotted path -> value that a command line says, its preset included."""
    words = shlex.split(line) if isinstance(line, str) else ["ssmdiff", *line]
    words = words[3 if words[1] == "config" else 2 :]
    keys: dict[str, Any] = {}
    sets: dict[str, Any] = {}
    preset = "" if "--resume" in words else "tiny"
    if "--gan" in words:
        own = f"tiny-{words[words.index('--gan') + 1]}"
        preset = own if (PRESET / f"{own}.toml").exists() else "tiny-dcgan"
    while words:
        word = words.pop(0)
        if word in SWITCHES:
            keys[SWITCHES[word]] = True
        elif word == "--gan":
            keys |= {"method.name": "gan", "method.network.name": words.pop(0)}
        elif word in FLAGS:
            keys |= flag(FLAGS[word], words.pop(0))
        elif word == "--set":
            path, _, text = words.pop(0).partition("=")
            sets |= flag(path, text) if path in PARTS else dict(leaves({path: toml(text)}))
        elif word in OTHERS:
            value = words.pop(0)
            preset = value if word == "--preset" else preset
        else:
            assert word in ("--resume", "--overwrite", "--json"), word
    keys |= sets
    if preset:
        below = dict(leaves(tomllib.loads((PRESET / f"{preset}.toml").read_text())))
        for part in PARTS:
            if keys.get(f"{part}.name", below.get(f"{part}.name")) != below.get(f"{part}.name"):
                below = {key: v for key, v in below.items() if not key.startswith(f"{part}.")}
        if keys.get("method.name", "diffusion") != "diffusion":
            below = {key: v for key, v in below.items() if not key.startswith(OF_A_DIFFUSION)}
        keys = below | keys
    size = keys.get("data.image_size")
    return keys | ({"data.image_size": [size, size]} if isinstance(size, int) else {})


def flag(key: str, text: str) -> dict[str, Any]:
    """A flag with its text: a component by its name, a folder, pixels, a number or a word."""
    if key == "data.dataset" and (Path(text).exists() or "/" in text):
        name = "store" if text.startswith("stores/") else "folder"
        return {f"{key}.name": name, f"{key}.path": text}
    if key in PARTS:
        return {f"{key}.name": text}
    if key == "data.image_size" and "x" in text:
        return {key: [int(side) for side in text.split("x")]}
    return {key: toml(text)}


def toml(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def differing(line: str | list[str], config: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Key -> (what the command says, what the configuration has), where they differ."""
    found = dict(leaves(config))
    return {
        key: (value, found.get(key))
        for key, value in said(line).items()
        if not same(value, found.get(key))
    }


def same(value: Any, found: Any) -> bool:
    """Equal; a table in a list has what was said, and more."""
    if isinstance(value, list) and isinstance(found, list) and len(value) == len(found):
        return all(same(a, b) for a, b in zip(value, found, strict=True))
    if isinstance(found, Mapping):
        named = {"name": value} if isinstance(value, str) else value
        return isinstance(named, Mapping) and found.items() >= named.items()
    return bool(value == found)
