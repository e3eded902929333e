"""The torch.export archive: loaded from its file, it predicts what the model predicts."""

from __future__ import annotations

import pytest
import torch
from ssmdiff_export.pt2 import export_pt2
from ssmdiff_export.runtime.card import ModelCard
from ssmdiff_export.verify import TOLERANCE
from tiny_runs import STACK, tiny_run


@pytest.mark.slow
def test_an_archive_is_compared_with_torch_from_its_file(tmp_path) -> None:
    run = tiny_run(tmp_path / "run", scan="regenerate", backbone=STACK)
    report = export_pt2(run, tmp_path / "model.pt2")
    assert report.parity.max_rel < TOLERANCE["fp32"]
    assert not report.parity.blank
    extra = {"ssmdiff": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    assert ModelCard.from_json(extra["ssmdiff"]).parity.max_abs == report.parity.max_abs
    calls = [n.target for n in program.graph.nodes if n.op == "call_function"]
    assert calls.count(torch.ops.ssmdiff.selective_scan.default) == 2
