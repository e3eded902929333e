"""The plan of tables I and II: cells, configurations, shares, commands for a queue."""

from __future__ import annotations

import os
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import ssmdiff
import torch
from ssmdiff import ConfigError, load_preset, registry, resolve
from ssmdiff_cli.main import app
from ssmdiff_reproduce import job
from ssmdiff_reproduce.papers import PRINTED
from ssmdiff_reproduce.plan import Planned
from ssmdiff_reproduce.scales import SCALES, load_scale
from ssmdiff_reproduce.sharing import Share, alone
from typer.testing import CliRunner

pytestmark = pytest.mark.needs_plugin("ssmdiff_evaluate", "ssmdiff_train")

GANS = {"dcgan", "sagan", "unet-gan"}


def gans_here() -> bool:
    return any(e.kind.name == "gan" for e in registry().all())


def by_system(planned: Planned) -> dict[str, ssmdiff.Config]:
    return {task.cells[0].system: task.config for task in planned.tasks}


@pytest.mark.parametrize("scale", SCALES)
def test_what_the_paper_prints_has_a_row_in_each_scale(scale: str) -> None:
    found = load_scale("vm-ddpm", scale)
    for table, printed in PRINTED.items():
        assert printed.keys() <= set(found.tables[table].systems)
    assert sum(len(row) for table in PRINTED.values() for row in table.values()) == 24
    assert PRINTED["1"]["vm-ddpm"] == PRINTED["2"]["vm-ddpm"]
    assert PRINTED["2"]["cross"] == {"chestxray14": 16.783, "brats2018": 13.578, "acdc": 40.691}
    assert found.drawn == {"paper": 50_000, "cpu": 256}[scale]


def test_table_1_is_trained_once_for_ddpm_and_ddim(tmp_path: Path) -> None:
    planned = job.plan("vm-ddpm", 1, "cpu", tmp_path)
    assert {*planned.left_out} - {"slices"} == (set() if gans_here() else GANS)
    shared = next(task for task in planned.tasks if task.cells[0].system == "ddpm")
    assert [cell.system for cell in shared.cells] == ["ddpm", "ddim", "unet"]
    assert [cell.asked["draw"] for cell in shared.cells] == [
        {"scheduler": "ddpm", "steps": 250},
        {"scheduler": "ddim", "steps": 25},
        {},  # as the run has it, so as VM-DDPM's
    ]
    assert shared.config.model.backbone["name"] == "unet"
    configs = by_system(planned)
    assert configs["conv"].model.block["name"] == "conv"
    assert configs["vm-unet"].model.backbone["name"] == "vmunet"
    assert configs["vm-unet"].model.block["name"] == "vss"
    assert {c.train.steps * c.train.batch_size for c in configs.values()} == {12_000}
    tiny = resolve(load_preset("tiny"))
    assert configs["vm-ddpm"].model == tiny.model
    diffusions = [c for c in configs.values() if c.method["name"] == "diffusion"]
    assert len(diffusions) == 4
    for key in ("diffusion.prediction", "diffusion.beta_schedule", "sample.scheduler"):
        values = {str(c.to_dict()[key.split(".")[0]][key.split(".")[1]]) for c in diffusions}
        assert len(values) == 1, key
    assert configs["vm-ddpm"].diffusion.prediction == "v_prediction"
    assert configs["vm-ddpm"].diffusion.beta_schedule == "cosine"
    assert not any(tmp_path.iterdir()), "a plan writes nothing"


def test_scans_are_held_against_each_other_at_equal_work_from_equal_weights(tmp_path: Path) -> None:
    planned = job.plan("vm-ddpm", 2, "cpu", tmp_path, seeds=1, sets=["model.backbone.channels=8"])
    paths = {
        name: ssmdiff.create("scan", config.model.scan).directions(2)
        for name, config in by_system(planned).items()
        if name != "conv"
    }
    assert paths.pop("bidirectional") == 2, "there and back: told in the row's name"
    assert set(paths) == {"cross", "vm-ddpm", "random", "shuffle", "hilbert"}
    assert set(paths.values()) == {4}
    begun = {}
    for name, config in by_system(planned).items():
        torch.manual_seed(0)
        begun[name] = ssmdiff.build_method(config, 1).networks["model"].state_dict()
    base = begun["cross"]
    for name in paths:
        assert begun[name].keys() == base.keys()
        assert all(torch.equal(begun[name][key], base[key]) for key in base), name


def test_vm_unet_s_form_has_the_plain_cross_scan(tmp_path: Path) -> None:
    """Sequence Regeneration is what VM-DDPM claims; the baseline may not have it."""
    for scale, data in (("cpu", None), ("paper", {"acdc": "x"})):
        planned = job.plan("vm-ddpm", 1, scale, tmp_path, data=data, systems=["vm-unet"])
        assert by_system(planned)["vm-unet"].model.scan == {"name": "cross"}


def test_table_2_has_pairs_of_one_seed_that_differ_in_the_scan_alone(tmp_path: Path) -> None:
    planned = job.plan("vm-ddpm", 2, "cpu", tmp_path)
    assert len(planned.tasks) == 3 * 7
    for seed in range(3):
        here = {t.cells[0].system: t.config for t in planned.tasks if t.cells[0].seed == seed}
        base = here.pop("cross")
        assert base.seed == seed
        for system, config in here.items():
            unlike = {key.split(".")[1] for key in ssmdiff.differences(base, config)}
            # A convolution reads no scan.
            assert unlike == ({"block", "scan"} if system == "conv" else {"scan"}), system
    one = job.plan("vm-ddpm", "2", "cpu", tmp_path, data={"slices": "store"}, seeds=1)
    assert {cell.system for cell in one.cells} == {"cross", "vm-ddpm", "conv"}
    assert one.tasks[0].config.data.dataset["path"] == "store"
    assert one.left_out == {"heads": "not asked for"}


def test_the_paper_scale_is_its_presets(tmp_path: Path) -> None:
    data = {name: f"stores/{name}" for name in ("acdc", "brats2018", "chestxray14")}
    planned = job.plan("vm-ddpm", 2, "paper", tmp_path, data=data)
    assert len(planned.tasks) == 9
    for task in planned.tasks:
        (cell,) = task.cells
        preset = resolve(load_preset(f"paper-{cell.data}"))
        assert task.config.data.dataset["name"] == cell.data
        assert task.config.data.dataset["path"] == data[cell.data]
        assert task.config.model.backbone == preset.model.backbone
        assert task.config.train.steps == preset.train.steps == 300_000
        assert cell.asked["features"] == [{"name": "inception"}]
        assert (cell.asked["drawn"], cell.asked["draw"]["steps"]) == (50_000, 1000)
    with pytest.raises(ConfigError, match="nothing of table 2 can be computed here: chestxray14: "):
        job.plan("vm-ddpm", 2, "paper", tmp_path)


def test_a_key_arrives_where_a_run_has_it_or_is_refused(tmp_path: Path) -> None:
    def planned(*sets: str, table: int = 1, **more: object) -> Planned:
        return job.plan("vm-ddpm", table, "cpu", tmp_path, sets=sets, **more)

    configs = by_system(planned("model.backbone.stem_stride=2", "train.batch_size=8"))
    assert configs["conv"].model.backbone["stem_stride"] == 2
    assert "stem_stride" not in configs["ddpm"].model.backbone
    assert {c.train.steps for c in configs.values()} == {1500}, "equal images seen"
    with pytest.raises(ConfigError, match=r"--set model.backbone.chanels=8: no run of this table"):
        planned("model.backbone.chanels=8")
    more = {"judged": {"texture": {}}, "steps": 3, "n": 7, "reference": 9}
    told = planned(systems=["ddim"], **more).cells[0].asked
    assert (told["draw"]["steps"], told["drawn"], told["reference"]) == (3, 7, 9)
    for asked, said in (
        ({"judged": {"inception": {}}}, r"--judge inception.*'?frechet"),
        ({"systems": ["crss"]}, r"--systems crss"),
        ({"data": {"heads": "store"}}, r"--data heads=store: expected --data heads"),
        ({"data": {"slices": ""}}, r"--data slices: expected --data slices=STORE"),
    ):
        with pytest.raises(ConfigError, match=said):
            planned(**asked)


def test_what_is_not_known_is_refused(tmp_path: Path) -> None:
    for arguments, said in (
        ((3, "cpu"), r"--table 3 of vm-ddpm is not computed here"),
        ((1, None), r"--table 1 needs --scale: paper or cpu"),
        ((1, "gpu"), r"--scale 'gpu'"),
    ):
        with pytest.raises(ConfigError, match=said):
            job.plan("vm-ddpm", *arguments, tmp_path)
    with pytest.raises(ConfigError, match=r"the plan has the tasks 0 to 20"):
        job.run(job.plan("vm-ddpm", 2, "cpu", tmp_path), task=21)


@pytest.mark.parametrize("world", [1, 2, 5, 40])
def test_every_task_is_one_process_s(tmp_path: Path, world: int) -> None:
    tasks = job.plan("vm-ddpm", 2, "cpu", tmp_path).tasks
    shares = [Share(rank, world).of(tasks) for rank in range(world)]
    dealt = sorted(task.number for share in shares for task in share)
    assert dealt == [task.number for task in tasks]
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1


def test_a_run_is_of_one_process_and_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "host"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    for visible, own in (("2,3", "3"), ("7", "7"), (None, None)):
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with alone() as share:
            assert share == Share(5, 8)
            assert not told.keys() & os.environ.keys()
            if visible is not None:
                assert os.environ["CUDA_VISIBLE_DEVICES"] == own
        assert told.items() <= os.environ.items()
        assert os.environ.get("CUDA_VISIBLE_DEVICES") == visible


def test_a_queue_gets_the_same_plan(tmp_path: Path) -> None:
    line = ["reproduce", "vm-ddpm", "--table", "2", "--scale", "cpu", "--out", str(tmp_path)]
    line += ["--seeds", "2", "--systems", "cross,conv", "--set", "train.max_hours=1.5"]
    line += ["--data", "slices=some where", "--judge", "frechet.blocks=25"]
    for way, files in (("commands", ["commands.txt"]), ("slurm", ["cells.sbatch", "table.sbatch"])):
        result = CliRunner().invoke(app, [*line, "--write", way])
        assert result.exit_code == 0, result.output
        assert [Path(text).name for text in result.output.split("\n")[:-1]] == files
    commands = [shlex.split(text) for text in (tmp_path / "commands.txt").read_text().splitlines()]
    assert [words[-2:] for words in commands[:-1]] == [["--task", str(i)] for i in range(4)]
    words = commands[-1]
    assert words[:4] == ["ssmdiff", "reproduce", "vm-ddpm", "--table"]
    pairs = set(pairwise(words))
    assert ("--data", f"slices={Path('some where').resolve()}") in pairs
    assert {
        ("--seeds", "2"),
        ("--systems", "cross,conv"),
        ("--judge", "frechet.blocks=25"),
    } <= pairs
    assert ("--set", "train.max_hours=1.5") in pairs
    array = (tmp_path / "cells.sbatch").read_text()
    assert "#SBATCH --array=0-3\n" in array
    assert '--task "$SLURM_ARRAY_TASK_ID"' in array
    assert "-eq 75 ] && exec scontrol requeue" in array
    again = CliRunner().invoke(app, [*words[1:], "--plan"])
    assert again.exit_code == 0, again.output
    assert "4 runs, 4 cells, 0 of them done" in again.output
