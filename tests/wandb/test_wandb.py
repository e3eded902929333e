"""The callback against the real wandb, offline: nothing leaves the machine."""

import pytest
from ssmdiff.runs.config import resolve
from ssmdiff_train.job import train

pytest.importorskip("wandb", reason="the extra ssmdiff[wandb] is not installed")


@pytest.mark.slow
def test_a_run_is_recorded_offline(tmp_path):
    config = resolve(
        {
            "data": {"image_size": 16, "dataset": {"name": "phantom", "length": 8}},
            "model": {
                "backbone": {"name": "vmddpm", "channels": 8, "widths": [1], "stem_stride": 1},
                "block": "conv",
            },
            "train": {
                "steps": 2,
                "batch_size": 2,
                "bound_images": 2,
                "callbacks": [{"name": "wandb", "project": "heads", "mode": "offline"}],
            },
            "diffusion": {"timesteps": 10},
            "sample": {"steps": 1, "count": 1},
        }
    )
    folder = train(config, tmp_path / "run")
    (record,) = (folder.path / "wandb").glob("offline-run-*/*.wandb")
    data = record.read_bytes()
    for name in (b"train/loss", b"report/bits_per_dim", b"samples", b"heads"):
        assert name in data, name
    assert len((folder.path / "wandb-id").read_text()) == 8
    assert not (folder.path / "tensorboard").exists(), "only the callbacks that were asked for"
