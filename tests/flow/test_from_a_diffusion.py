"""A flow begins with the weights of a diffusion, and a diffusion with those of a flow: the networks
are one, what they are asked is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import ssmdiff
import torch
from small_flows import small

STEP = 1e-3  # the learning rate, which Adam's first step is as long as


@pytest.mark.slow
def test_networks_are_matched_whatever_trained_them(trained: Path, tmp_path: Path) -> None:
    table = small().to_dict() | {"method": {"name": "diffusion"}, "sample": {"steps": 2}}
    told = {"train": {"init_from": str(trained), "steps": 1}}
    diffusion = ssmdiff.train(ssmdiff.resolve(table, told), tmp_path / "diffusion").path
    begins = {"init_from": str(diffusion), "steps": 1}
    flow = ssmdiff.train(small(train=begins), tmp_path / "flow").path
    for before, after, names in (
        (trained, diffusion, "'flow' -> 'diffusion'"),
        (diffusion, flow, "'diffusion' -> 'flow'"),
    ):
        old, new = (ssmdiff.RunFolder(path).checkpoint() for path in (before, after))
        for name, value in old.tensors("ema").items():
            moved = float((new.tensors("model")[name] - value).abs().max())
            assert moved <= 1.01 * STEP, name
        assert not torch.equal(
            new.tensors("model")["stem.weight"], old.tensors("ema")["stem.weight"]
        )
        differs = new.state()["provenance"]["init_from"]["differs"]
        assert f"method.name: {names}" in differs
        assert not any(line.startswith("diffusion.") for line in differs)
