"""A conditional model is judged as it is used: the flags of ``sample``, and images of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmdiff
from ssmdiff import Condition, Guidance, to_levels
from ssmdiff_cli.main import app
from ssmdiff_evaluate import cost
from ssmdiff_evaluate.job import evaluate
from tiny_runs import SMALLEST, tiny_run
from typer.testing import CliRunner

TOLD = [
    Condition("label", "label", ("healthy", "lesion"), optional=True),
    Condition("angle", "number", low=-10, high=10, optional=True),
]
AGAINST = {"name": "phantom", "length": 24}
FEW: dict[str, Any] = {"n": 6, "features": ["pixels"], "metrics": ["mmd"], "steps": 3}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("runs")
    tiny_run(place / "plain", backbone=SMALLEST)
    tiny_run(place / "told", conditions=TOLD, backbone=SMALLEST)
    return {name: place / name for name in ("plain", "told")}


def drawn(run: Path, guidance: dict[str, Any] | None) -> np.ndarray:
    """The images that were judged under this guidance, from where they are kept."""
    records = [json.loads(p.read_text()) for p in run.glob("evaluations/*/record.json")]
    (samples,) = [r["stamp"]["samples"] for r in records
                  if r["stamp"]["samples"].get("guidance") == guidance]  # fmt: skip
    folder = run / "evaluations" / "drawn" / samples["digest"][:16]
    return np.load(folder / "part-000000-6.npy")


def test_another_guidance_judges_other_images_and_replaces_none(
    runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, draws = runs["told"], []
    plain = ssmdiff.Run.draw

    def counting(self, *arguments, **options):
        draws.append(arguments[1])
        return plain(self, *arguments, **options)

    monkeypatch.setattr(ssmdiff.Run, "draw", counting)
    led = Guidance(3.0, rescale=0.5, interval=(0.0, 0.7), negative={"label": "healthy"})
    asked = ({}, {"guidance": 3.0}, {"guidance": led, "told": {"label": "lesion"}})
    figures = [evaluate(run, AGAINST, **FEW, **one).figures for one in asked]
    assert len(draws) == 3
    assert [evaluate(run, AGAINST, **FEW, **one).figures for one in asked] == figures
    assert len(draws) == 3, "nothing is drawn twice"
    names = sorted(path.parent.name for path in run.glob("evaluations/*/record.json"))
    assert names[:2] == ["seed-0-n-6", "seed-0-n-6-guidance-3"]
    assert names[2].startswith("seed-0-n-6-guidance-3-")
    told = ssmdiff.load_run(run)
    for one, record in zip(asked, (None, GUIDED, LED), strict=True):
        expected = told.sample(6, steps=3, batch_size=64, **one)
        np.testing.assert_array_equal(drawn(run, record), to_levels(expected.numpy()))
    facts = json.loads((run / "evaluations" / names[1] / "record.json").read_text())["model"]
    assert facts["guidance"] == 3


GUIDED = {"scale": 3.0, "rescale": 0.0, "interval": [0.0, 1.0], "calls": 1, "negative": {}}
LED = {"scale": 3.0, "rescale": 0.5, "interval": [0.0, 0.7], "calls": 1,
       "negative": {"label": [0]}}  # fmt: skip


def call(*words: Any) -> Any:
    few = [
        "--n",
        6,
        "--features",
        "pixels",
        "--metric",
        "mmd",
        "--steps",
        3,
        "--against",
        "phantom",
    ]
    return CliRunner().invoke(app, [str(word) for word in ["evaluate", *words, *few]])


def test_the_flags_are_those_of_sample(runs) -> None:
    done = call(
        runs["told"], "--label", "lesion=2,none=1", "--tell", "angle=-10:10", "--guidance", 2,
        "--guidance-calls", 2, "--reference", 24,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    page = Path(done.output.split("page:")[1].strip())
    assert page.parent.name.startswith("seed-0-n-6-guidance-2-")
    samples = json.loads((page.parent / "record.json").read_text())["stamp"]["samples"]
    assert samples["told"] == {"label": [1, 1, None], "angle": [-10, -6, -2, 2, 6, 10]}
    assert samples["guidance"]["calls"] == 2


@pytest.mark.parametrize(
    ("model", "words", "said"),
    [
        ("plain", ["--guidance", "2"], "guidance 2 was asked for, and the model is told nothing"),
        ("plain", ["--label", "x"], "label 'x' was asked for, and the model is told none"),
        ("told", ["--label", "leson"], "there is no label 'leson'; did you mean 'lesion'?"),
        ("told", ["--negative", "label=healthy"], "--negative was given without --guidance"),
        ("told", ["--guidance", "2", "--guidance-interval", "0.4:0.5"], "holds none of 3 steps"),
        ("images", ["--guidance", "2", "--label", "x"], "--label, --guidance: images holds images"),
        ("nowhere", ["--guidance", "2"], "nowhere is no run, no exported file"),
    ],
)
def test_what_cannot_be_judged_so_is_a_sentence(
    runs, tmp_path, monkeypatch, model: str, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    done = call(runs.get(model, model), *words, "--out", "out")
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "guidance",
    [None, Guidance(0.0), Guidance(3.0), Guidance(0.0, rescale=0.5),
     Guidance(3.0, interval=(0.3, 0.8), calls=2)],
)  # fmt: skip
def test_what_an_image_costs_counts_both_branches(runs, guidance) -> None:
    """As many multiply-adds as the network's calls have, counted while it draws."""
    run = ssmdiff.load_run(runs["told"])
    sampling = run.guided(run.sampling("heun", 5), guidance)
    seen: list[int] = []
    handle = run.model.register_forward_pre_hook(
        lambda _, args, given: seen.append(len(given["x"])), with_kwargs=True
    )
    list(run.draw(sampling, [0]))
    handle.remove()
    facts = cost.facts_of(run, sampling)
    assert facts[cost.IMAGE] == sum(seen) * facts[cost.CALL]
