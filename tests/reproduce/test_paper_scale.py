"""Scale ``paper``, the whole of it in small: three data sets from their trees to the tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import ssmdiff
from ssmdiff import registry
from ssmdiff_cli.main import app
from ssmdiff_reproduce import job
from ssmdiff_reproduce.papers import DATA, PRINTED
from ssmdiff_reproduce.plan import Planned
from trees import OPTIONS, TREES
from typer.testing import CliRunner

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs_plugin(
        "ssmdiff_evaluate", "ssmdiff_train", "ssmdiff_medical", "ssmdiff_data"
    ),
]

SETS = (
    "data.image_size=32", "train.batch_size=2", "model.backbone.channels=8",
    "model.backbone.layers=1", "model.backbone.stem_stride=2", "train.bound_images=0",
    "train.sample_every=0", "train.callbacks=[]", "sample.steps=2", "sample.count=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("paper")
    for name, make in TREES.items():
        make(root / name)
        line = ["data", "prepare", str(root / name), "--as", name, "--image-size", "32"]
        result = CliRunner().invoke(
            app, [*line, *OPTIONS[name], "--out", str(root / "stores" / name)]
        )
        assert result.exit_code == 0, result.output
    return {name: str(root / "stores" / name) for name in TREES}


def test_the_whole_plan_runs_from_folder_trees_to_tables(
    stores: dict[str, str], inception_file: dict[str, str], tmp_path: Path
) -> None:
    # The GANs of table I and of the figure are cut in width too, where their plugin is there.
    gans = any(entry.kind.name == "gan" for entry in registry().all())

    def planned(table: str) -> Planned:
        sets = (*SETS, "method.network.width=8") if gans and table != "2" else SETS
        more: dict[str, Any] = {"images_seen": 4, "n": 4, "steps": 2, "sets": sets}
        judged = {"inception": inception_file, "mmd": {"subsets": 2}}
        return job.plan("vm-ddpm", table, "paper", tmp_path, data=stores, judged=judged, **more)

    for table in ("1", "2"):
        plan = planned(table)
        outcome = job.run(plan)
        assert not outcome.failed
        assert not outcome.differing
        assert len(outcome.lines) == len(plan.cells) == 3 * len({c.system for c in plan.cells})
        for line in outcome.lines:
            assert line.images_seen == 4
            assert "4 images are too few for 20 blocks" in line.note, "so few are no FID"
        printed = [line.printed for line in outcome.lines if line.system == "VM-DDPM"]
        assert printed == list(PRINTED[table]["vm-ddpm"].values())
        for cell in plan.cells:
            record = json.loads((cell.folder / "record.json").read_text())
            protocol = record["stamp"]["protocol"]
            assert protocol["features"]["inception"]["size"] == 2048
            assert protocol["reference"]["count"] == 4
            assert protocol["samples"] == {"count": 4, "shape": [1, 32, 32]}
            (distance,) = (f for f in record["figures"] if f["metric"] == "mmd")
            assert distance["name"].startswith("KID")
        for task in plan.tasks:
            config = ssmdiff.RunFolder(task.run).config()
            assert config.data.dataset["name"] == task.cells[0].data
            assert config.train.steps == 2
            assert config.data.flip is True
        page = (tmp_path / f"table-{table}.md").read_text()
        assert all(label in page for label in DATA.values())
        assert "11.783" in page
    # Tables share what they have in common: VM-DDPM's and the convolutions' runs of table 1.
    again = planned("2")
    said: list[str] = []
    job.run(again, say=said.append)
    assert said == []
    sheet = job.run(planned("figure-2"))
    assert not sheet.missing
    assert "no real one" in sheet.paths["html"].read_text()
