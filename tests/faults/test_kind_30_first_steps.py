"""Kind 30: rates of recent steps, no estimate before one was timed, honest words about samples."""

import io
import json

import pytest
from rich.console import Console
from ssmdiff import StepRecord, resolve
from ssmdiff_train.callbacks import ConsoleProgress, draw_loss_curve, in_time
from typer.testing import CliRunner


def progress(steps=1000, **attributes):
    text = io.StringIO()
    console = ConsoleProgress(Console(file=text, width=200))
    for name, value in attributes.items():
        setattr(console, name, value)
    console.ssmdiff_run_start(config=resolve({"train": {"steps": steps}}), step=0)
    return console, text


def step(console, number, seconds, loss=1.0, batch=10):
    console.ssmdiff_step_end(
        record=StepRecord(number, number * batch, loss, 1e-3, 1.0, batch / seconds)
    )


def test_the_first_step_gives_no_estimate_and_counts_in_none():
    console, text = progress(LINE_EVERY_S=0.0)
    step(console, 1, 60.0)  # the kernel is compiled in it
    assert "left" not in text.getvalue()
    assert "images/s" not in text.getvalue()
    step(console, 2, 0.5)
    assert "20.0 images/s" in text.getvalue()
    assert f"{in_time(998 * 0.5)} left" in text.getvalue()


def test_rate_and_loss_are_of_the_recent_steps():
    console, text = progress(LINE_EVERY_S=0.0)
    for number in range(1, 101):
        step(console, number, 2.0 if number <= 80 else 0.25, 5.0 if number <= 80 else 1.0)
    last = text.getvalue().splitlines()[-1]
    assert "loss 1.0000  40.0 images/s" in last
    assert f"{in_time(900 * 0.25)} left" in last


def test_a_batch_of_another_size_after_a_resume_is_timed_as_it_is():
    console, text = progress(LINE_EVERY_S=0.0)
    for number, seen in ((11, 1040), (12, 1080), (13, 1120)):
        console.ssmdiff_step_end(record=StepRecord(number, seen, 1.0, 1e-3, 1.0, 20.0))
    assert "20.0 images/s" in text.getvalue()
    assert f"{in_time(987 * 2.0)} left" in text.getvalue()


def test_a_long_first_step_says_that_a_kernel_is_compiled():
    for compiles in (True, False):
        console, text = progress(PATIENCE_S=0.0, compiles=compiles)
        if console._timer:
            console._timer.join(10)
        assert ("compiling the scan kernel, once" in text.getvalue()) == compiles


def test_a_short_first_step_says_nothing_of_it():
    console, text = progress(PATIENCE_S=3600.0, compiles=True)
    step(console, 1, 0.1)
    console.ssmdiff_run_end()
    assert "compiling" not in text.getvalue()
    assert console._timer is None


def test_samples_of_few_steps_are_called_noise_once(tmp_path):
    console, text = progress()
    for number in (2, 4, 900):
        console.ssmdiff_samples_made(path=tmp_path / "a.png", step=number)
    assert text.getvalue().count("samples of so few steps (2) are noise") == 1
    assert text.getvalue().count("noise") == 1
    assert "600 steps of 16 images" in text.getvalue()
    console, text = progress()
    console.ssmdiff_samples_made(path=tmp_path / "a.png", step=900)
    assert "noise" not in text.getvalue()


def test_the_curve_does_not_lag(tmp_path, monkeypatch):
    """A loss that falls along a line is its own mean; a mean of what lies behind is above it."""
    from matplotlib.axes import Axes

    drawn = []
    plain = Axes.plot

    def remember(self, x, y, **options):
        drawn.append(list(y))
        return plain(self, x, y, **options)

    monkeypatch.setattr(Axes, "plot", remember)
    lines = [{"step": i, "loss": 10 - 0.01 * i} for i in range(400)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    draw_loss_curve(tmp_path / "metrics.jsonl", tmp_path / "loss.png")
    losses, smooth = drawn
    assert smooth[50:350] == pytest.approx(losses[50:350], abs=1e-9)


@pytest.mark.slow
def test_the_closing_lines_name_curve_metrics_and_tensorboard(tmp_path):
    from ssmdiff_cli.main import app

    out = tmp_path / "run"
    arguments = [
        "train", "--image-size", "16", "--block", "conv", "--steps", "1", "--batch-size", "2",
        "--set", "model.backbone.channels=8", "--set", "model.backbone.widths=[1]",
        "--set", "train.bound_images=0", "--set", "sample.steps=1", "--set", "sample.count=1",
        "--out", str(out),
    ]  # fmt: skip
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    for place in (out / "loss.png", out / "metrics.jsonl"):
        assert str(place) in done.stdout
        assert place.exists()
    assert f"tensorboard --logdir {out}" in done.stdout
    assert "M parameters" in done.stderr
