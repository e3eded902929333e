"""docs/deploy.md, word for word: each of its commands is run, in its order, or this test fails.

What is not at hand has a stand-in: Docker (the steps of the Dockerfile, in fresh environments) and
NVIDIA's server (a small one by ONNX Runtime). The environment of "numpy and ONNX Runtime alone" is
a fresh one.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import ssmdiff
from shown import ROOT, quick
from ssmdiff_cli.main import app
from typer.testing import CliRunner

PAGE = ROOT / "docs" / "deploy.md"
FOUND = re.findall(r"^```(\w*)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


class Reader:
    """Somebody who follows the page, in one folder."""

    def __init__(self, place: Path, stack: ExitStack) -> None:
        import image_steps
        import stand_in_server

        self.steps, self.server = image_steps, stand_in_server
        self.place, self.stack = place, stack
        self.image = None
        self.url = ""
        venv.create(place / "environment", with_pip=False)  # pip is that of the tests

    def shell(self, *words: str, where: Path | None = None) -> None:
        path = f"{self.place}/environment/bin:/usr/bin:/bin"
        kept = {k: v for k, v in os.environ.items() if k.startswith("PIP_")}
        done = subprocess.run(
            words, cwd=where or self.place, capture_output=True, text=True, timeout=300,
            env={**kept, "PATH": path, "PIP_NO_COMPILE": "1"},
        )  # fmt: skip
        if "No matching distribution" in done.stderr:
            pytest.skip(f"no package index here: {done.stderr.strip().splitlines()[-1]}")
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"

    def run(self, line: str) -> None:
        words = shlex.split(line)
        python = str(self.place / "environment" / "bin" / "python")
        match words:
            case ["ssmdiff", *_]:
                result = CliRunner().invoke(app, quick(line))
                assert result.exit_code == 0, f"{line}\n{result.output}"
            case ["pip", *rest]:
                pip = [sys.executable, "-m", "pip", "--python", python]
                self.shell(*pip, *rest, where=ROOT if "." in rest else None)
            case ["python", *rest]:
                if "http://localhost:8000" in rest:
                    rest[rest.index("http://localhost:8000")] = self.url
                self.shell(python, *rest)
            case ["docker", "build", "--file", file, "--tag", _, "."]:
                assert ROOT / file == self.steps.DOCKERFILE
                (self.place / "docker").mkdir()
                self.image = self.steps.built(self.place / "docker")
            case ["docker", "run", *_]:
                self.docker_run(words)
            case ["tritonserver", option]:
                folder = self.place / option.removeprefix("--model-repository=")
                self.url, _ = self.stack.enter_context(self.server.serving(folder))
            case _:
                assert "/" in words[0], f"{line}: this test does not know how to run it"
                assert (self.place / words[0]).exists(), line  # a line of a list of files

    def docker_run(self, words: list[str]) -> None:
        """``--volume "$PWD:/work"``: what lies here is there, and comes back."""
        assert self.image is not None
        assert words[2:7] == ["--rm", "--volume", "$PWD:/work", "--user", "$(id -u):$(id -g)"]
        assert words[7] == "ssmdiff-cpu"
        inside = self.image.inside("")
        assert inside == self.image.root / "work"
        (inside / "model.onnx").write_bytes((self.place / "model.onnx").read_bytes())
        done = self.image.shell(shlex.join([*self.image.entrypoint, *words[8:]]))
        assert done.returncode == 0, done.stderr
        (written,) = inside.glob("*.npy")
        written.replace(self.place / written.name)


@pytest.fixture
def reader(tmp_path, monkeypatch) -> Iterator[Reader]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "tests" / "export")
    with ExitStack() as stack:
        yield Reader(tmp_path, stack)


@pytest.mark.slow
def test_every_command_of_the_page_runs_and_draws_the_images_of_torch(reader, tmp_path) -> None:
    for language, block in FOUND:
        if language == "python":
            save = "\nimport numpy\nnumpy.save('python.npy', images)\n"
            reader.shell(str(tmp_path / "environment/bin/python"), "-c", block + save)
            continue
        assert language in ("", "console"), f"{language}: this test does not know how to run it"
        for line in block.splitlines():
            reader.run(line.removeprefix("$ "))

    wanted = ssmdiff.load_run(tmp_path / "runs/heads").sample(4, seed=0, steps=10).numpy()
    for name in ("images", "python", "of-docker", "served"):
        images = np.load(tmp_path / f"{name}.npy")
        assert images.dtype == np.float32
        assert np.abs(images - wanted).max() < 2e-3, name
    assert len(list((tmp_path / "drawn").glob("00*.png"))) == 4
    assert np.ptp(wanted) > 0.1

    # The image holds what the page says, and nobody's rights.
    image = reader.image
    listed = json.loads(image.shell("python -m pip list --format json").stdout)
    names = {package["name"].lower().replace("_", "-") for package in listed}
    pinned = re.findall(r"^([\w-]+)==", (ROOT / "docker/requirements.txt").read_text(), re.M)
    assert names - {"pip", "setuptools"} == {*pinned, "ssmdiff"}
    assert image.user.split(":")[0] not in ("root", "0")
