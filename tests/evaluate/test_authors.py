"""An author's metric and feature network, from a package of their own, in an evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ssmdiff_cli.main import app
from ssmdiff_evaluate.job import evaluate
from typer.testing import CliRunner

PACKAGE = """
    import hashlib

    import numpy as np
    from ssmdiff import Component, ConfigError, Figure, hookimpl

    class Corners:
        '''Mean grey of four quarters.'''

        trained_on_reference = False

        def fit(self, reference):
            if len(reference) < 1:
                raise ConfigError("corners need an image")

        def __call__(self, levels):
            height, width = (side // 2 for side in levels.shape[2:])
            parts = [levels[..., :height, :width], levels[..., :height, width:],
                     levels[..., height:, :width], levels[..., height:, width:]]
            return np.stack([p.mean(axis=(1, 2, 3)) for p in parts], axis=1).astype(np.float32)

        def digest(self):
            return hashlib.sha256(b"corners-1").hexdigest()

    class Apart:
        section = "quality"
        needs = ("reference", "samples")

        def __init__(self, scale: float = 1.0) -> None:
            self.scale = scale

        def __call__(self, evaluation):
            a, b = evaluation.reference.features, evaluation.samples.features
            if min(len(a), len(b)) < 3:
                raise ConfigError("apart needs three images")
            away = np.abs(a.astype(float).mean(axis=0) - b.astype(float).mean(axis=0)).mean()
            return [Figure(f"apart {evaluation.network}", self.scale * float(away), "lower")]

    @hookimpl
    def ssmdiff_features():
        yield Component("corners", Corners, "grey of the quarters of an image")

    @hookimpl
    def ssmdiff_metrics():
        yield Component("apart", Apart, "how far mean features are apart")
"""


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_registry")
def test_they_are_listed_checked_and_in_the_report(install, run: Path, tmp_path: Path) -> None:
    import ssmdiff
    from ssmdiff.registry.registry import registry
    from ssmdiff_evaluate.sets import DataImages

    install("quarters", PACKAGE, version="0.3")
    registry.cache_clear()
    runner = CliRunner()
    listed = runner.invoke(app, ["plugins", "list", "--json"])
    (package,) = [
        p for p in json.loads(listed.stdout)["plugins"] if p["distribution"] == "quarters"
    ]
    assert (package["version"], package["status"]) == ("0.3", "ok")
    assert {(c["kind"], c["name"]) for c in package["components"]} == {
        ("features", "corners"), ("metric", "apart")
    }  # fmt: skip
    for name in ("corners", "apart"):
        checked = runner.invoke(app, ["plugins", "check", name])
        assert checked.exit_code == 0, checked.output
        assert "determinism" in checked.output or "randomness" in checked.output

    out = tmp_path / "out"
    record = evaluate(
        run, out=out, n=8, features=["corners", "pixels"], metrics=[{"name": "apart", "scale": 2.0}]
    )
    trained = ssmdiff.load_run(run)
    drawn = ssmdiff.to_levels(trained.sample(8, batch_size=64).numpy())
    real = DataImages(ssmdiff.build_dataset(trained.config)).levels(range(96))
    quarters = [
        images[:, 0].reshape(-1, 2, 8, 2, 8).mean(axis=(2, 4)).reshape(-1, 4).mean(axis=0)
        for images in (real, drawn)
    ]
    expected = 2 * abs(quarters[0] - quarters[1]).mean()
    assert record.find("apart corners").value == pytest.approx(expected, rel=1e-5)
    written = json.loads((out / "record.json").read_text())
    assert written["stamp"]["protocol"]["features"]["corners"]["size"] == 4
    assert written["stamp"]["metrics"] == {"apart": {"scale": 2.0}}
    assert [figure["name"] for figure in written["figures"]] == ["apart corners", "apart pixels"]
    page = (out / "index.html").read_text()
    assert f'<td>apart corners</td><td class="n">{expected:.4g}</td>' in page
