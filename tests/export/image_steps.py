"""The image of docker/Dockerfile, made without Docker: its steps, in fresh environments."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import venv
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"


@dataclass
class Stage:
    """An image in the making: what stands at / is in ``root``, its Python in an environment."""

    root: Path
    name: str
    workdir: str = "/"
    user: str = "root"
    entrypoint: list[str] = field(default_factory=list)

    def inside(self, path: str) -> Path:
        """A path of the image on this machine."""
        return self.root / (path if path.startswith("/") else f"{self.workdir}/{path}").lstrip("/")

    def shell(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a line there: paths from / are those of the stage."""
        line = re.sub(r"(?<![\w./])/(wheels|src|work)\b", lambda m: str(self.root / m[1]), line)
        place = self.inside("")
        place.mkdir(parents=True, exist_ok=True)
        path = f"{self.root}/environment/bin:/usr/bin:/bin"
        kept = {k: v for k, v in os.environ.items() if k.startswith("PIP_")}
        return subprocess.run(
            ["sh", "-c", line], cwd=place, capture_output=True, text=True, timeout=600,
            env={**kept, "PATH": path, "PIP_NO_COMPILE": "1"},
        )  # fmt: skip


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def built(place: Path) -> Stage:
    """The last stage of the Dockerfile, made here without Docker."""
    stages: list[Stage] = []
    for word, rest in instructions():
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            assert re.fullmatch(r"python:3\.1\d-slim", image)
            stages.append(Stage(place / f"stage-{len(stages)}", name))
            stages[-1].root.mkdir()
            venv.create(stages[-1].root / "environment", with_pip=True)
        elif word == "WORKDIR":
            stages[-1].workdir = rest
            stages[-1].inside("").mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            *sources, target = rest.split()
            origin = ROOT
            if sources[0].startswith("--from="):
                name = sources.pop(0).removeprefix("--from=")
                (origin,) = (stage.root for stage in stages if stage.name == name)
            for source in sources:
                copy(origin / source.lstrip("/"), stages[-1].inside(target), len(sources) > 1)
        elif word == "RUN":
            done = stages[-1].shell(rest)
            if "No matching distribution" in done.stderr:
                pytest.skip(f"no package index here: {done.stderr.strip().splitlines()[-1]}")
            assert done.returncode == 0, f"{rest}\n{done.stdout}{done.stderr}"
        elif word == "USER":
            stages[-1].user = rest
        else:
            assert word == "ENTRYPOINT", f"this test does not know what {word} does"
            stages[-1].entrypoint = json.loads(rest)
    return stages[-1]


def copy(source: Path, target: Path, into: bool) -> None:
    if source.is_dir():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignored)
        return
    target = target / source.name if into or target.is_dir() else target
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
