"""The packages that ``plugins new`` writes keep the contract of their kind and are used by name.

That pip installs them and that their own tests pass is in ``tests/examples/test_pages.py``.
"""

from __future__ import annotations

import importlib
import json
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ssmdiff
from ssmdiff.registry.component import KINDS
from ssmdiff.testing import check
from ssmdiff_cli.authoring import write_package
from ssmdiff_cli.main import app
from typer.testing import CliRunner, Result

pytestmark = pytest.mark.usefixtures("fresh_registry")

New = Callable[[str], Path]
SLOW = {
    "kernel",
    "scan",
}  # whose whole suite takes long, and which their own tests run in test_pages
SMALL = {"backbone": {"channels": 8, "depth": 2}}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[New]:
    """``new(kind)`` writes the package ``ssmdiff-my-KIND``, importable and found as installed."""
    before = set(sys.modules)

    def write(kind: str) -> Path:
        folder = write_package(f"my-{kind}", kind, tmp_path / f"ssmdiff-my-{kind}")
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        info = folder / f"ssmdiff_my_{kind}-{project['version']}.dist-info"
        info.mkdir()
        head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        (info / "METADATA").write_text(head)
        ((point, module),) = project["entry-points"]["ssmdiff"].items()
        (info / "entry_points.txt").write_text(f"[ssmdiff]\n{point} = {module}\n")
        monkeypatch.syspath_prepend(folder)
        importlib.invalidate_caches()
        ssmdiff.registry.cache_clear()
        return folder

    yield write
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
    importlib.invalidate_caches()


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.slow) if k in SLOW else k for k in KINDS]
)
def test_a_new_package_keeps_the_contract_of_its_kind(kind: str, new: New) -> None:
    new(kind)
    report = check(kind, {"name": f"my-{kind}", **SMALL.get(kind, {})})
    assert report.ok, str(report)
    assert report.subject.startswith(f"{kind} 'my-{kind}' (ssmdiff-my-{kind} 0.1.0)")


@pytest.mark.slow
def test_new_packages_of_every_kind_are_used_by_their_names(new: New, tmp_path: Path) -> None:
    """Trained, exported, sampled, written, read, judged, and looked at by the command."""
    for kind in KINDS:
        new(kind)
    parts = {kind: {"name": f"my-{kind}", **SMALL.get(kind, {})} for kind in ("scan", "block")}
    config = ssmdiff.resolve(
        {
            "data": {"image_size": [8, 8], "dataset": {"name": "my-dataset", "length": 4}},
            "model": {"backbone": {"name": "my-backbone", **SMALL["backbone"]}, **parts},
            "train": {
                "steps": 2,
                "batch_size": 2,
                "bound_images": 0,
                "kernel": "my-kernel",
                "callbacks": [{"name": "my-callback", "every": 2}],
            },
            "diffusion": {"timesteps": 10},
            "sample": {"scheduler": "my-scheduler", "steps": 2, "count": 1},
        }
    )
    try:
        folder = ssmdiff.train(config, tmp_path / "run")
    finally:
        ssmdiff.set_kernel("auto")
    written = folder.config_file.read_text()
    for kind in ("scan", "block", "backbone", "scheduler", "dataset", "callback"):
        assert f"ssmdiff-my-{kind} 0.1.0" in written
    rows = (folder.path / "my-callback.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in rows] == [["step", "images_seen"], ["2", "4"]]

    file = tmp_path / "model.safetensors"
    ssmdiff.job("export")(folder.path, file, "my-exporter", note="of a test")
    drawn = tmp_path / "drawn"
    result = run("sample", file, "--n", 2, "--steps", 2, "--out", drawn)
    assert result.exit_code == 0, result.output
    assert len(list(drawn.glob("00000?.png"))) == 2

    line = ["sample", folder.path, "--n", 2, "--steps", 2, "--format", "my-writer"]
    result = run(*line, "--out", tmp_path / "written")
    assert result.exit_code == 0, result.output
    result = run("data", "show", tmp_path / "written", "--reader", "my-reader", "--json")
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert (shown["readers"], shown["depths"]) == ({"my-reader": 2}, {"uint16": 2})

    line = ["evaluate", folder.path, "--n", 4, "--steps", 2, "--out", tmp_path / "judged", "--json"]
    result = run(*line, "--features", "my-features", "--metric", "my-metric")
    assert result.exit_code == 0, result.output
    record = json.loads(result.output[result.output.index("{") :])
    assert list(record["stamp"]["protocol"]["features"]) == ["my-features"]
    (figure,) = record["figures"]
    assert (figure["metric"], figure["name"]) == ("my-metric", "my-metric (n = 4)")
    assert figure["name"] in (tmp_path / "judged" / "index.html").read_text()

    result = run("my-command", folder.path, "--n", 2, "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.output)
    assert (said["backbone"], said["scan"], said["images"]) == ("my-backbone", "my-scan", 2)


TRAIN = {"steps": 2, "batch_size": 4, "callbacks": []}
DATA = {"image_size": 16, "dataset": {"name": "phantom", "length": 8}}


def judged(folder: Path, out: Path, *more: object) -> list[str]:
    """Sampled and evaluated by the commands; the names of the figures."""
    drawn = run("sample", folder, "--n", 3, *more, "--out", out / "drawn")
    assert drawn.exit_code == 0, drawn.output
    assert len(list((out / "drawn").glob("00000?.png"))) == 3
    line = ["evaluate", folder, "--n", 8, *more, "--features", "pixels", "--metric", "mmd"]
    found = run(*line, "--out", out / "judged", "--json")
    assert found.exit_code == 0, found.output
    record = json.loads(found.output[found.output.index("{") :])
    return [figure["name"] for figure in record["figures"]]


@pytest.mark.slow
def test_a_gan_and_a_loss_of_strangers_are_trained_sampled_and_judged(
    new: New, tmp_path: Path
) -> None:
    new("gan")
    new("loss")
    out = tmp_path / "run"
    line = ["train", "--gan", "my-gan", "--set", "method.loss=my-loss",
            "--set", "train.callbacks=[]",
            "--set", "data.dataset.length=8", "--set", "method.network.width=8"]  # fmt: skip
    result = run(*line, "--image-size", 16, "--steps", 2, "--batch-size", 4, "--out", out)
    assert result.exit_code == 0, result.output
    written = tomllib.loads((out / "config.toml").read_text())
    assert written["method"]["network"] == {"name": "my-gan", "width": 8}
    assert written["method"]["loss"] == {"name": "my-loss", "real_value": 2.0}
    made = written["provenance"]["components"]
    assert made["method.network"] == "my-gan: ssmdiff-my-gan 0.1.0"
    assert made["method.loss"] == "my-loss: ssmdiff-my-loss 0.1.0"
    assert judged(out, tmp_path)
    ssmdiff.train(None, out, resume=True, train={"steps": 3})
    file = tmp_path / "generator.onnx"
    assert run("export", out, "--out", file).exit_code == 0
    assert run("sample", file, "--n", 2, "--out", tmp_path / "of-file").exit_code == 0


@pytest.mark.slow
def test_a_method_of_a_stranger_is_trained_sampled_and_judged(new: New, tmp_path: Path) -> None:
    new("method")
    model = {"backbone": {"name": "vmddpm", "channels": 8, "widths": [1]}, "block": "conv"}
    config = ssmdiff.resolve(
        {
            "method": "my-method",
            "data": DATA,
            "model": model,
            "train": TRAIN,
            "sample": {"steps": 3},
        }
    )
    out = ssmdiff.train(config, tmp_path / "run").path
    written = tomllib.loads((out / "config.toml").read_text())
    assert written["method"] == {"name": "my-method"}
    assert "diffusion" not in written, "it reads the model and the steps alone"
    assert written["sample"] == {"count": 16, "steps": 3}
    assert judged(out, tmp_path, "--steps", 4)
    assert run("sample", out, "--scheduler", "ddim", "--out", tmp_path / "x").exit_code == 2
    result = run("export", out, "--out", tmp_path / "model.onnx")
    assert result.exit_code == 1
    assert "trained by method 'my-method'" in " ".join(result.output.split())


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_that_writes_it_says_what_is_next(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "package"
    result = run("plugins", "new", "my-part", "--kind", kind, "--out", folder)
    assert result.exit_code == 0, result.output
    assert f"pip install -e '{folder}[test]'" in result.output
    assert "ssmdiff plugins check my-part" in result.output
    assert "my-part" in (folder / "README.md").read_text().splitlines()[-1]
