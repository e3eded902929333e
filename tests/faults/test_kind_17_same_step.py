"""Kind 17: a checkpoint of a step that is saved anew is there at every moment."""

import pytest
import torch
from dying import dies_at_every_change
from ssmdiff.errors import CheckpointError
from ssmdiff.runs import checkpoint


def save(folder, step, value):
    return checkpoint.save(folder, step, {"model": {"w": torch.full((9,), value)}}, {"v": value})


def test_killed_at_any_change_one_of_the_two_is_there(tmp_path, monkeypatch):
    save(tmp_path, 1, 0.0)
    save(tmp_path, 2, 1.0)
    seen = set()
    for moment in dies_at_every_change(monkeypatch, lambda: save(tmp_path, 2, 2.0)):
        found, skipped = checkpoint.latest(tmp_path)
        assert (found.step, skipped) == (2, []), moment
        value = found.state()["v"]
        assert torch.equal(found.tensors("model")["w"], torch.full((9,), value))
        seen.add(value)
        checkpoint.sweep(tmp_path)
        assert checkpoint.latest(tmp_path)[0].state()["v"] == value
        assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]
        checkpoint.discard(tmp_path / "step-00000002")
        save(tmp_path, 2, 1.0)
    assert seen == {1.0, 2.0}
    assert checkpoint.latest(tmp_path)[0].state()["v"] == 2.0
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_one_is_replaced_whole(tmp_path):
    save(tmp_path, 1, 0.0)
    (save(tmp_path, 2, 1.0).path / "state.json").write_text("{}")
    assert checkpoint.latest(tmp_path)[0].step == 1
    save(tmp_path, 2, 2.0)
    found, skipped = checkpoint.latest(tmp_path)
    assert (found.step, found.state()["v"], skipped) == (2, 2.0, [])


def test_a_failed_save_keeps_the_old_one(tmp_path, monkeypatch):
    save(tmp_path, 2, 1.0)

    def full(self, target):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.rename", full)
        with pytest.raises(CheckpointError, match="No space left"):
            save(tmp_path, 2, 2.0)
    assert checkpoint.latest(tmp_path)[0].state()["v"] == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000002"]


def test_deleting_an_old_one_never_leaves_half_of_it(tmp_path, monkeypatch):
    for step in range(1, 5):
        save(tmp_path, step, 0.0)
    for _ in dies_at_every_change(monkeypatch, lambda: checkpoint.prune(tmp_path, 2)):
        for path in checkpoint.candidates(tmp_path):
            checkpoint.verify(path)
        checkpoint.sweep(tmp_path)
        for step in (1, 2):
            save(tmp_path, step, 0.0)
