"""--max-hours: a run stops and saves in time, and goes on to the bit."""

import pytest
import torch
from ssmdiff import RunFolder, hookimpl
from ssmdiff.errors import OutOfTimeError, RunInterruptedError
from ssmdiff_train import limit
from ssmdiff_train.callbacks import read_metrics
from ssmdiff_train.job import train
from ssmdiff_train.limit import OUT_OF_TIME, TimeLimit
from ssmdiff_train.step import TrainingStep


def steps_take(monkeypatch, seconds):
    """Put the clocks on by so much in every step."""
    now, plain = [0.0], TrainingStep.__call__

    def step(self, *arguments):
        now[0] += seconds
        return plain(self, *arguments)

    monkeypatch.setattr(TrainingStep, "__call__", step)
    for name in ("monotonic", "perf_counter"):
        monkeypatch.setattr(limit.time, name, lambda: now[0])
    return now


@pytest.mark.slow
def test_it_stops_saves_and_goes_on_to_the_bit(tiny, tmp_path, monkeypatch):
    whole = train(tiny(train={"steps": 12}), tmp_path / "whole")
    config = tiny(train={"steps": 12, "max_hours": 1.0, "checkpoint_minutes": 1e6})
    now, heard = steps_take(monkeypatch, 600.0), []

    class Listener:
        @hookimpl
        def ssmdiff_run_end(self, status):
            heard.append(status)

    with pytest.raises(OutOfTimeError) as stopped:
        train(config, tmp_path / "run", callbacks=[Listener()])
    assert heard == ["interrupted"]
    assert stopped.value.exit_code == 75
    assert isinstance(stopped.value, RunInterruptedError)
    run = RunFolder(tmp_path / "run")
    step = run.checkpoint().step
    assert step == 5, "six steps are an hour, and the save needs time too"
    assert now[0] < 3600
    assert f"stopped in time for train.max_hours after step {step} of 12; saved" in str(
        stopped.value
    )
    assert f"ssmdiff train --out {run.path} --resume" in str(stopped.value)
    while run.checkpoint().step < 12:
        before = run.checkpoint().step
        try:
            train(None, run.path, resume=True)
        except OutOfTimeError:
            assert run.checkpoint().step > before
    for name in ("model", "ema", "optimizer"):
        ours, theirs = run.checkpoint().tensors(name), whole.checkpoint().tensors(name)
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    losses = [
        [row["loss"] for row in read_metrics(f.path / "metrics.jsonl") if "loss" in row]
        for f in (run, whole)
    ]
    assert losses[0] == losses[1]


def test_the_time_of_a_save_and_of_samples_is_kept_back(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(limit.time, "monotonic", lambda: now[0])
    clock = TimeLimit(10.0, 0)
    assert clock.signal() == 0
    clock.stepped(100.0, 0.0)
    assert clock.margin_s == pytest.approx(2 * 100 + 30)
    clock.saved(600.0)
    clock.stepped(50.0, 900.0)
    assert clock.margin_s == pytest.approx(2 * 600 + 2 * 100 + 900 + 30)
    now[0] = 36_000 - clock.margin_s - 1
    assert clock.signal() == 0
    now[0] += 1
    assert clock.signal() == OUT_OF_TIME


def test_a_save_is_reckoned_with_before_one_was_made():
    assert TimeLimit(1.0, 10 * 10**9).margin_s > 2 * 10e9 / 100e6


@pytest.mark.slow
def test_a_limit_shorter_than_a_step_does_one_step_each_time(tiny, tmp_path):
    config = tiny(train={"steps": 9, "max_hours": 1e-6})
    steps: list[int] = []
    for again in (False, True):
        with pytest.raises(OutOfTimeError):
            train(config, tmp_path / "run", resume=again)
        steps.append(RunFolder(tmp_path / "run").checkpoint().step)
    assert steps == sorted(set(steps)), "each start comes further"


def test_no_limit_is_none():
    clock = TimeLimit(None, 10**12)
    clock.stepped(1e9, 1e9)
    assert clock.signal() == 0
