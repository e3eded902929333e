"""What a run is judged by as it trains is what ``ssmdiff evaluate`` says of its checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ssmdiff
from ssmdiff import ConfigError, Figure
from ssmdiff_evaluate.job import evaluate
from ssmdiff_evaluate.watching import RunWatch, StandIn

SMALL = {
    "data": {"dataset": {"name": "phantom", "length": 48}, "image_size": 16},
    "model": {
        "backbone": {"name": "vmddpm", "channels": 8, "widths": [1, 2], "layers": 1},
        "block": {"name": "conv"},
    },
    "train": {
        "steps": 4, "batch_size": 4, "sample_every": 0, "bound_images": 0, "callbacks": [],
        "evaluate_every": 2,
        "evaluate": {
            "n": 44, "features": ["pixels"], "metrics": ["frechet", "mmd"], "best": "KD",
            "batch_size": 16,
        },
    },
    "sample": {"steps": 2, "count": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """A run that was judged twice, and how many images its feature network looked at."""
    from ssmdiff_metrics.pixels import Pixels

    looked_at: list[int] = []
    plain = Pixels.__call__

    def counting(self, levels):
        looked_at.append(len(levels))
        return plain(self, levels)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Pixels, "__call__", counting)
        folder = ssmdiff.train(SMALL, tmp_path_factory.mktemp("watched") / "run")
    return folder, looked_at


def rows_of(run: Path) -> dict[int, dict[str, float]]:
    """Step -> what was reported of it."""
    found: dict[int, dict[str, float]] = {}
    for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        if "loss" not in line:
            found.setdefault(line.pop("step"), {}).update(line)
    return found


def assert_as_evaluated(run: Path, out: Path) -> None:
    rows = rows_of(run)
    assert list(rows) == [2, 4]
    for step, row in rows.items():
        record = evaluate(
            run, out=out / str(step), n=44, features=["pixels"], metrics=["frechet", "mmd"],
            checkpoint=f"step-{step:08d}", batch_size=16,
        )  # fmt: skip
        expected = {judged.figure.name: judged.figure.value for judged in record.figures}
        assert row == pytest.approx(expected, rel=1e-6)
        kept = json.loads((run / "judged" / f"step-{step:08d}.json").read_text())
        assert kept["stamp"]["protocol"]["samples"]["count"] == 44
        assert {f["name"]: f["value"] for f in kept["figures"]} == row


@pytest.mark.slow
def test_figures_of_training_are_those_of_evaluate(trained, tmp_path: Path) -> None:
    assert_as_evaluated(trained[0].path, tmp_path)


def test_the_best_is_the_least_of_those_recorded(trained) -> None:
    folder, _ = trained
    values = {step: row["KD pixels (n = 44)"] for step, row in rows_of(folder.path).items()}
    best = folder.best()
    assert best.figure == "KD pixels (n = 44)"
    assert best.value == min(values.values()) == values[int(best.checkpoint[-8:])]


def test_what_is_real_is_looked_at_once(trained) -> None:
    """The reference and, in the trial, as many held-out images; then samples alone."""
    _, looked_at = trained
    assert looked_at == [48, 44, 44, 44]


def test_what_was_drawn_for_earlier_checkpoints_is_let_go(trained) -> None:
    (kept,) = (trained[0].path / "judged" / "drawn").iterdir()
    assert sorted(path.name for path in kept.iterdir()) == [
        "part-000000-16.npy", "part-000001-16.npy", "part-000002-12.npy"
    ]  # fmt: skip


class Ten:
    """Ten images of one pixel, each its own number, of no class."""

    shape, class_names, labels = (1, 1, 1), (), None

    def __len__(self) -> int:
        return 10

    def levels(self, indices) -> np.ndarray:
        return np.array(indices, np.uint8).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize(("count", "expected"), [(4, [0, 2, 5, 7]), (12, [*range(10), 0, 1])])
def test_images_stand_in_from_all_over_or_again(count: int, expected: list[int]) -> None:
    assert StandIn(Ten(), count).levels(range(count)).ravel().tolist() == expected


def chosen(best: str, *figures: Figure) -> str:
    watch = RunWatch.__new__(RunWatch)
    watch.asked = SimpleNamespace(best=best)
    return watch._chosen(figures).name


def test_the_figure_of_the_best_is_one() -> None:
    short, long = (Figure(f"FD texture ({n})", 1.0, "lower") for n in ("n = 128", "n to infinity"))
    density = Figure("density texture (n = 128)", 1.0, "reference", reference=0.9)
    assert chosen("", short, long) == short.name
    assert chosen(long.name, short, long) == long.name
    assert chosen("FD texture (n =", short, long) == short.name
    with pytest.raises(ConfigError, match=r"may be FD .*128\) or FD .*infinity\); give more"):
        chosen("FD", short, long)
    with pytest.raises(ConfigError, match=r"no such figure; did you mean 'density texture"):
        chosen("density texture (n = 182)", short, density)
    with pytest.raises(ConfigError, match=r"density texture.*best where real images have it"):
        chosen("density", short, density)


@pytest.mark.slow
def test_two_processes_judge_as_one_and_do_not_wait_for_ever(tmp_path: Path) -> None:
    run = tmp_path / "run"
    script = tmp_path / "two.py"
    script.write_text(
        "import json, sys, ssmdiff\n"
        f"ssmdiff.train(json.loads({json.dumps(json.dumps(SMALL))}), {str(run)!r})\n"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
              "--master-port", "0", "--standalone", str(script)]  # fmt: skip
    done = subprocess.run(
        launch, capture_output=True, text=True, timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert_as_evaluated(run, tmp_path)
    assert ssmdiff.load_run(run, "best").checkpoint.path.name in ("step-00000002", "step-00000004")


@pytest.mark.slow
def test_sample_draws_of_the_best(trained, tmp_path: Path) -> None:
    from PIL import Image
    from ssmdiff_evaluate.sets import to_levels

    folder, _ = trained
    folder.keep_best(folder.best().model_copy(update={"checkpoint": "step-00000002"}))
    command = ["sample", str(folder.path), "--checkpoint", "best", "--n", "2", "--out"]
    done = subprocess.run(
        [sys.executable, "-m", "ssmdiff", *command, str(tmp_path / "out")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "out" / "000000.png") as picture:
        drawn = np.asarray(picture)
    levels = [
        to_levels(ssmdiff.load_run(folder.path, f"step-{n:08d}").sample(2).numpy())[0, 0]
        for n in (2, 4)
    ]
    assert (drawn == levels[0]).all()
    assert not (levels[0] == levels[1]).all(), "the newest draws others"
