"""``ssmdiff.train``: the job `train` from Python, and what of a configuration it takes."""

from __future__ import annotations

import pytest
import ssmdiff
from ssmdiff.errors import ConfigError
from ssmdiff.runs.config import merge, resolve
from ssmdiff_train import process
from tiny_config import TINY


@pytest.fixture
def asked(monkeypatch):
    """What reaches the training process, which trains nothing."""
    calls = []
    monkeypatch.setattr(process, "run_training", lambda *arguments: calls.append(arguments))
    return calls


def test_a_mapping_trains_and_the_run_is_sampled(tmp_path):
    folder = ssmdiff.train(TINY, tmp_path / "run", train={"steps": 2}, seed=3)
    run = ssmdiff.load_run(folder.path)
    assert (run.config.seed, run.config.train.steps) == (3, 2)
    assert run.config.model.backbone["channels"] == 8
    assert run.sample(1, steps=1).shape == (1, 1, 16, 16)
    assert list((folder.path / "tensorboard").glob("events.*"))

    again = ssmdiff.train(out=tmp_path / "run", resume=True, train={"steps": 3})
    assert ssmdiff.load_run(again.path).checkpoint.path.name == "step-00000003"

    # Replaced by a run without TensorBoard: no event of the old one stays, and what is not a run's.
    (folder.path / "tensorboard" / "notes.txt").write_text("mine")
    ssmdiff.train(TINY, folder.path, overwrite=True, train={"steps": 1, "callbacks": []})
    assert [p.name for p in (folder.path / "tensorboard").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("config", "layers", "preset"),
    [
        (None, {}, "tiny"),
        ("small", {}, "small"),
        ({"seed": 3}, {"train": {"steps": 5}}, "tiny"),
        ("small", {"seed": 4, "model": {"scan": "cross"}}, "small"),
    ],
)
def test_a_preset_a_mapping_and_keywords_are_layers(asked, tmp_path, config, layers, preset):
    folder = ssmdiff.train(config, tmp_path / "run", **layers)
    expected = merge(ssmdiff.load_preset(preset), config if isinstance(config, dict) else {})
    ((whole, path, resume, overwrite, _, callbacks),) = asked
    assert whole == resolve(expected, layers)
    assert path.path == folder.path == tmp_path / "run"
    assert (resume, overwrite, list(callbacks)) == (False, False, [])


def test_a_whole_configuration_is_taken_as_it_is(asked, tiny, tmp_path):
    config = tiny()
    ssmdiff.train(config, tmp_path / "run", progress=True)
    ssmdiff.train(config, tmp_path / "run", overwrite=True, seed=9)
    assert asked[0][0] is config
    assert [type(listener).__name__ for listener in asked[0][5]] == ["ConsoleProgress"]
    assert asked[1][0] == resolve(config.to_dict(), {"seed": 9})
    assert asked[1][3] is True


def test_without_a_folder_a_new_one_is_made_under_runs(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "vmddpm-mss-cross-phantom-001").mkdir(parents=True)
    folder = ssmdiff.train("tiny", model={"scan": "cross"})
    assert str(folder.path) == "runs/vmddpm-mss-cross-phantom-002"


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        (["tny"], {}, "did you mean 'tiny'"),
        ([], {"trian": {"steps": 3}}, "trian: unknown key; did you mean 'train'"),
        ([], {"train": {"stpes": 3}}, r"train\.stpes: unknown key; did you mean 'steps'"),
        ([], {"resume": True}, "resume needs out"),
    ],
)
def test_what_cannot_be_trained_is_told_first(asked, arguments, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        ssmdiff.train(*arguments, **options)
    assert not asked


def test_a_run_is_resumed_with_its_own_configuration(asked, tiny, tmp_path):
    ssmdiff.RunFolder(tmp_path / "run").create(tiny(seed=7))
    ssmdiff.train(out=tmp_path / "run", resume=True, train={"steps": 9}, allow_changes=["seed"])
    ((whole, _, resume, _, changes, _),) = asked
    assert (whole.seed, whole.train.steps, whole.model) == (7, 9, tiny().model)
    assert resume is True
    assert list(changes) == ["seed"]
    ssmdiff.train("small", tmp_path / "run", resume=True, train={"steps": 9})
    over = resolve(tiny(seed=7), ssmdiff.load_preset("small"), {"train": {"steps": 9}})
    assert asked[1][0] == over


def test_other_jobs_have_the_optimiser_of_training(tiny):
    import torch

    model = torch.nn.Linear(2, 2)
    optimizer = ssmdiff.job("train").build_optimizer(model, tiny().train)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.0]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2
