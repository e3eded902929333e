"""What a run measures of itself as it trains: held-out loss, evaluations, the best checkpoint."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from ssmdiff import BestCheckpoint, Figure, RunFolder, Watched, load_run, stream
from ssmdiff.errors import CheckpointError, ConfigError, PluginError, RunInterruptedError
from ssmdiff_train.callbacks import draw_loss_curve, read_metrics
from ssmdiff_train.command import closing_lines
from ssmdiff_train.job import train
from test_resume import InterruptIn, assert_same, outcome

NAME = "FD pixels (n = 44)"
PIXELS = {"name": "pixels", "components": 8}


@pytest.fixture
def watched(tiny, monkeypatch):
    """A run of convolutions that measures its held-out loss and is judged, every second step."""
    monkeypatch.setattr("ssmdiff_train.callbacks.draw_loss_curve", lambda *_: None)  # dear

    def build(evaluate=None, data=None, **changes):
        settings = {
            "held_out_every": 2, "held_out_images": 6, "evaluate_every": 2, "callbacks": [],
            "evaluate": {"n": 44, "features": [PIXELS], **(evaluate or {})}, **changes,
        }  # fmt: skip
        dataset = {"name": "phantom", "length": 40} if data is None else data
        return tiny(train=settings, data={"dataset": dataset}, model={"block": {"name": "conv"}})

    return build


def measured(folder: RunFolder) -> list[dict]:
    """The metrics without how fast the machine was."""
    rows = read_metrics(folder.path / "metrics.jsonl")
    return [{key: row[key] for key in row if key != "images_per_s"} for row in rows]


def values_of(folder: RunFolder, name: str) -> dict[int, float]:
    return {row["step"]: row[name] for row in measured(folder) if name in row}


class Judge:
    """Stands for the job: the figure of each step is given."""

    def __init__(self, values, better="lower"):
        self.values, self.better, self.asked = values, better, []

    def prove(self):
        return "judged by a list"

    def __call__(self, folder, checkpoint):
        assert (folder / "checkpoints" / checkpoint / "manifest.json").is_file()
        self.asked.append(checkpoint)
        step = int(checkpoint.partition("-")[2])
        figure = Figure("score", self.values[step - 1], self.better)
        return Watched([figure], figure, "protocol")

    def watch(self, config, dataset):
        return self


@pytest.fixture
def judged_by(monkeypatch):
    def install(*values, better="lower"):
        judge = Judge(values, better)
        monkeypatch.setattr("ssmdiff_train.watching.job", {"evaluate": judge}.__getitem__)
        return judge

    return install


# The loss on held-out images


def test_the_held_out_loss_is_that_of_the_averaged_weights_by_the_paper(watched, tmp_path):
    """Eq. 1 and 4 written out, image by image, on the checkpoint: no batch, no loop."""
    config = watched(evaluate_every=0, steps=4)
    folder = train(config, tmp_path / "run")
    found = values_of(folder, "held_out_loss")
    assert list(found) == [2, 4]

    run = load_run(folder.path)
    held_out = config_data(config).held_out
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 100))
    places, parts = stream(5, "held-out places").random(6), stream(5, "held-out timesteps")
    order = np.argsort(parts.bit_generator.random_raw(6), kind="stable")
    losses = []
    for i in range(6):
        x_0 = held_out[i * len(held_out) // 6].image
        t = int((order[i] + places[i]) * 100 / 6)
        noise = torch.from_numpy(
            stream(5, "held-out noise", i).standard_normal((1, 16, 16), dtype=np.float32)
        )
        x_t = math.sqrt(alpha_bar[t]) * x_0 + math.sqrt(1 - alpha_bar[t]) * noise
        with torch.no_grad():
            predicted = run.model(x=x_t[None].float(), timesteps=torch.tensor([t]), orders=())
        losses.append(float(((predicted[0] - noise).double() ** 2).mean()))
    assert found[4] == pytest.approx(np.mean(losses), rel=1e-5)


def config_data(config):
    from ssmdiff import build_dataset

    return build_dataset(config)


def test_timesteps_are_one_in_each_equal_part(watched):
    from ssmdiff import Conditions, build_method
    from ssmdiff_train.watching import HeldOutLoss

    config = watched(held_out_images=50)
    draws = HeldOutLoss(config, config_data(config).held_out, build_method(config, 1, Conditions()))
    assert sorted(t // 2 for t in draws.batch["timestep"].tolist()) == list(range(50))


@pytest.mark.slow
def test_l_simple_is_told_beside_a_weighted_loss(watched, tiny, tmp_path):
    config = watched(evaluate_every=0, steps=2)
    weighted = config.model_copy(
        update={"diffusion": config.diffusion.model_copy(update={"min_snr_gamma": 5.0})}
    )
    folder = train(weighted, tmp_path / "run")
    loss, simple = (values_of(folder, n)[2] for n in ("held_out_loss", "held_out_l_simple"))
    assert 0 < loss < simple


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"held_out_every": 3, "steps": 5}, [3, 5]),
        ({"held_out_every": 6, "steps": 5}, []),
        ({"held_out_every": 0, "steps": 5}, []),
    ],
)
def test_when_it_is_measured(watched, tmp_path, changes, steps):
    folder = train(watched(evaluate_every=0, **changes), tmp_path / "run")
    assert list(values_of(folder, "held_out_loss")) == steps


def test_data_that_holds_nothing_out_is_trained_as_before(watched, tmp_path):
    folder = train(watched(evaluate_every=0, steps=2, data=heads(tmp_path, 6)), tmp_path / "run")
    assert [set(row) & {"held_out_loss"} for row in measured(folder)] == [set(), set()]


def heads(folder: Path, count: int) -> dict:
    """A folder of images without patients, as a data set's table."""
    from PIL import Image

    (folder / "images").mkdir()
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
    return {"name": "folder", "path": str(folder / "images")}


# Nothing that training does is moved


def test_bits_of_training_are_the_same_watched_or_not(watched, tmp_path):
    plain = train(watched(held_out_every=0, evaluate_every=0, steps=4), tmp_path / "plain")
    seen = train(watched(steps=4), tmp_path / "watched")
    assert len(values_of(seen, NAME)) == 2
    assert_same(outcome(plain), outcome(seen))


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 4])
def test_stopped_and_resumed_it_measures_the_same(watched, tmp_path, step):
    """Stopped between two measurements, and in a step after which one is due."""
    whole = train(watched(), tmp_path / "whole")
    with pytest.raises(RunInterruptedError):
        train(watched(), tmp_path / "parts", callbacks=[InterruptIn(step)])
    parts = train(watched(), tmp_path / "parts", resume=True)
    assert measured(parts) == measured(whole)
    assert parts.best() == whole.best()


@pytest.mark.slow
@pytest.mark.parametrize("where", ["ssmdiff_evaluate.watching.judge", "RunFolder.keep_best"])
def test_killed_in_an_evaluation_it_goes_on_to_the_same(watched, tmp_path, monkeypatch, where):
    """In the second: before its figures are known, and between figures and best checkpoint."""
    whole = train(watched(), tmp_path / "whole")
    target = where if "." in where.removeprefix("RunFolder.") else f"ssmdiff.runs.run.{where}"
    calls = []

    def dies(self, *arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return plain(self, *arguments)

    from ssmdiff_evaluate import watching

    plain = RunFolder.keep_best if "keep" in where else watching.judge
    with monkeypatch.context() as patched:
        patched.setattr(target, dies)
        with pytest.raises(KeyboardInterrupt):
            train(watched(), tmp_path / "killed")
    killed = train(watched(), tmp_path / "killed", resume=True)
    assert measured(killed) == measured(whole)
    assert killed.best() == whole.best()


# The best checkpoint


@pytest.mark.parametrize(
    ("better", "step", "left"),
    [("lower", 2, [2, 5, 6]), pytest.param("higher", 4, [4, 5, 6], marks=pytest.mark.slow)],
)
def test_the_best_is_kept_beside_the_newest(watched, judged_by, tmp_path, better, step, left):
    values = [5.0, 2.0, 3.0, 9.0, 2.0, 4.0]
    judged_by(*values, better=better)
    config = watched(evaluate_every=1, keep_checkpoints=2, checkpoint_every=1)
    folder = train(config, tmp_path / "run")
    recorded = values_of(folder, "score")
    assert list(recorded.values()) == values
    assert folder.best() == BestCheckpoint(
        checkpoint=f"step-{step:08d}", figure="score", value=values[step - 1], better=better,
        protocol="protocol",
    )  # fmt: skip
    assert folder.best().value == (min if better == "lower" else max)(recorded.values())
    kept = sorted(path.name for path in folder.checkpoints.glob("step-*"))
    assert kept == [f"step-{n:08d}" for n in left]
    assert load_run(folder.path, "best").checkpoint.path.name == f"step-{step:08d}"
    assert folder.checkpoint().step == 6, "a run goes on from the newest"
    lines = list(closing_lines(folder))
    assert lines[0].startswith("held-out loss: ")
    assert lines[1].startswith(f"best: step-{step:08d}, score {values[step - 1]:.4g}; ssmdiff samp")


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_its_best(watched, judged_by, tmp_path):
    judge = judged_by(5.0, 1.0, 3.0, 2.0)
    config = watched(evaluate_every=1, steps=4)
    with pytest.raises(RunInterruptedError):
        train(config, tmp_path / "run", callbacks=[InterruptIn(3)])
    folder = train(config, tmp_path / "run", resume=True)
    assert judge.asked == [f"step-{n:08d}" for n in range(1, 5)]
    assert folder.best().checkpoint == "step-00000002"
    assert folder.checkpoint("best").step == 2


@pytest.mark.slow
def test_judged_otherwise_the_best_is_chosen_anew_and_said(watched, judged_by, tmp_path):
    judged_by(1.0, 2.0)
    folder = train(watched(evaluate_every=1, steps=2, schedule="constant"), tmp_path / "run")
    other = folder.best().model_copy(update={"protocol": "another", "value": 0.5})
    folder.keep_best(other)
    judged_by(1.0, 2.0, 3.0)
    with pytest.warns(UserWarning, match="step-00000001 by score, was judged otherwise"):
        train(watched(evaluate_every=1, steps=3, schedule="constant"), folder.path, resume=True)
    assert (folder.best().checkpoint, folder.best().protocol) == ("step-00000002", "protocol")


def test_no_best_and_a_damaged_one_are_sentences(watched, tmp_path):
    folder = train(watched(held_out_every=0, evaluate_every=0, steps=1), tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"names no best checkpoint.*train\.evaluate_every"):
        load_run(folder.path, "best")
    for text, sentence in (
        ('{"checkpoint": "../step-00000001"}', "best.json.checkpoint"),
        ('{"checkpoint": ', "no valid JSON"),
    ):
        (folder.checkpoints / "best.json").write_text(text)
        with pytest.raises(CheckpointError, match=sentence):
            folder.checkpoint("best")


# What it tells


@pytest.mark.slow
def test_curves_and_tensorboard_have_what_metrics_have(watched, judged_by, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    judged_by(5.0, 2.0, 3.0, 9.0, 2.0, 4.0)
    config = watched(evaluate_every=1, callbacks=["tensorboard"])
    folder = train(config, tmp_path / "run")
    events = EventAccumulator(str(folder.path / "tensorboard")).Reload()
    for tag, name in (("report/score", "score"), ("report/held_out_loss", "held_out_loss")):
        told = {event.step: event.value for event in events.Scalars(tag)}
        assert told == pytest.approx(values_of(folder, name), rel=1e-6)
    lines = [row for row in measured(folder) if "score" not in row]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    for path in (folder.path, tmp_path):
        draw_loss_curve(path / "metrics.jsonl", path / "loss.png")
    assert height(folder.path / "loss.png") > height(tmp_path / "loss.png"), "a panel more"


def height(picture: Path) -> int:
    from PIL import Image

    with Image.open(picture) as image:
        return image.height


# What cannot be is refused before anything is written


@pytest.mark.parametrize(
    ("evaluate", "sentence"),
    [
        ({"n": 10}, r"train\.evaluate\.n = 10: metric 'frechet' over 'pixels'.*too few"),
        ({"features": ["texure"]}, "did you mean 'texture'"),
        ({"metrics": [{"name": "frechet", "block": 30}]}, "did you mean 'blocks'"),
        ({"feature": ["texture"]}, r"train\.evaluate\.feature: unknown key; did you mean"),
        ({"best": "FID"}, r"train\.evaluate\.best = 'FID': there is no such figure; .*FD pixels"),
        ({"metrics": ["manifold"], "best": "density"}, "best where real images have it"),
    ],
)
def test_refused_before_a_step(watched, tmp_path, evaluate, sentence):
    with pytest.raises(ConfigError, match=sentence):
        train(watched(evaluate), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_metric_that_needs_held_out_images_is_refused_without_any(watched, tmp_path):
    config = watched({"metrics": ["copies"]}, data=heads(tmp_path, 44))
    with pytest.raises(ConfigError, match=r"metric 'copies'.*data\.dataset\.held_out") as refused:
        train(config, tmp_path / "run")
    assert str(refused.value).startswith("train.evaluate_every = 2 with train.evaluate.n = 44: ")
    assert not (tmp_path / "run").exists()


def test_data_that_nothing_can_be_judged_by_is_refused(watched, tmp_path):
    with pytest.raises(ConfigError, match=r"train\.evaluate_every = 2: .*at least two images"):
        train(watched(data=heads(tmp_path, 1)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_package_that_is_missing_is_missed_before_a_step(watched, tmp_path, monkeypatch):
    import sys

    for name in [n for n in sys.modules if n.startswith(("skimage", "ssmdiff_metrics.texture"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(PluginError, match=r"skimage.*ssmdiff\[evaluate\]"):
        train(watched({"features": ["texture"]}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
