"""A set of images may be drawn by several processes, in parts that begin and end anywhere.

What they write is what one process writes, to the byte; none harms what another has recorded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from ssmdiff_cli.main import app
from ssmdiff_cli.sample_share import ROWS, Share
from tiny_runs import STACK, UNET, tiny_run
from typer.testing import CliRunner

N, BATCH = 22, 8


def arguments(run, out, *flags):
    return ["sample", *map(str, (run, "--steps", 3, "--batch-size", BATCH, "--out", out, *flags))]


def sample(run, out, *flags):
    done = CliRunner().invoke(app, arguments(run, out, *flags))
    assert done.exit_code == 0, done.output


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module", params=["unet", "stack"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    backbone = {"unet": UNET, "stack": STACK}[request.param]
    tiny_run(folder, ("disc", "ring"), backbone=backbone)
    return folder


@pytest.fixture(scope="module")
def whole(run):
    out = run.parent / "whole"
    sample(run, out, "--n", N)
    return files(out)


@pytest.mark.parametrize("parts", [("0:11", "11:22"), ("11:22", "0:11"), ("0:1", "13:22", "1:13")])
def test_parts_give_the_bytes_of_the_whole(run, whole, tmp_path, parts):
    for part in parts:
        sample(run, tmp_path / "parts", "--indices", part)
    assert files(tmp_path / "parts") == whole


def test_parts_give_the_float32_bits_of_the_whole(run, tmp_path):
    """Which levels of 8 bits would round away: an image has the neighbours that it has in one."""
    flags = ["--format", "npy"]
    sample(run, tmp_path / "whole", "--n", N, *flags)
    for part in ("0:3", "3:11", "11:22"):
        sample(run, tmp_path / "parts", "--indices", part, *flags)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_a_set_that_grows_gives_the_bytes_of_the_whole(run, whole, tmp_path):
    for n in (3, 6, 9, N):
        sample(run, tmp_path / "grown", "--n", n)
    grown = files(tmp_path / "grown")
    assert grown.keys() == whole.keys()
    small = {f"{i:06d}.png" for i in range(3)}  # of a set that is smaller than the rows at once
    assert {name for name in whole if grown[name] != whole[name]} <= small | {"grid.png"}


@pytest.mark.parametrize("name", ["000009.png", "000021.png"])
@pytest.mark.parametrize("end", [0, 60, -1])
def test_an_image_that_was_cut_short_is_drawn_again(run, whole, tmp_path, name, end):
    out = tmp_path / "cut"
    sample(run, out, "--n", N)
    (out / name).write_bytes(whole[name][:end])
    sample(run, out, "--n", N)
    assert files(out) == whole


@pytest.mark.slow
def test_processes_at_once_in_one_folder_harm_nothing(run, whole, tmp_path):
    """Each on its own part, one of them by two; two of them begin with images of other settings."""
    out = tmp_path / "shared"
    sample(run, out, "--n", 3, "--seed", 5)
    command = [sys.executable, "-m", "ssmdiff"]
    flags = (["--overwrite", "--indices", part] for part in ("0:5", "5:13", "13:22", "0:5"))
    jobs = [
        subprocess.Popen([*command, *arguments(run, out, *each)], stderr=subprocess.PIPE)
        for each in flags
    ]
    for job in jobs:
        _, errors = job.communicate(timeout=300)
        assert job.returncode == 0, errors
    assert files(out) == whole


@pytest.mark.slow
def test_the_processes_of_torchrun_share_the_images(run, whole, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               "--nproc-per-node", "2", "-m", "ssmdiff"]  # fmt: skip
    done = subprocess.run(
        [*command, *arguments(run, tmp_path / "out", "--count", N)],
        capture_output=True, text=True, timeout=300, check=False, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("images:") == 1
    assert files(tmp_path / "out") == whole


def test_a_share_has_each_of_its_images_once_and_batches_do_not_move():
    """Whatever the part and the number of processes, an image has the same neighbours."""
    for start, stop in ((0, 22), (5, 22), (0, 9), (7, 9), (21, 22), (8, 16)):
        for processes in (1, 2, 3):
            for size in (22, None):
                shares = [
                    Share(range(start, stop), size, 4, rank, processes) for rank in range(processes)
                ]
                batches = [pair for share in shares for pair in share.batches()]
                drawn = sorted(i for _, wanted in batches for i in wanted)
                assert drawn == list(range(start, stop))
                for batch, wanted in batches:
                    assert set(wanted) <= set(batch)
                    assert batch == range(batch.start, batch.start + 4)
                    assert batch.start % 4 == 0
    assert list(Share(range(3), 3, 16).batches()) == [(range(3), range(3))]
    ends = [batch.stop for batch, _ in Share(range(22), 22, 16).batches()]
    assert ends == [16, 22 + -22 % ROWS]


@pytest.mark.parametrize("indices", ["5", "5:5", "7:3", "-1:4", "a:b", "1:2:3", ":5", "3:"])
def test_what_is_no_range_is_refused(run, tmp_path, indices):
    done = CliRunner().invoke(app, arguments(run, tmp_path / "out", "--indices", indices))
    assert done.exit_code == 2
    assert "expected a range such as 0:5000" in done.output
    assert not (tmp_path / "out").exists()


def test_a_range_beyond_the_set_is_refused(run, tmp_path):
    done = CliRunner().invoke(
        app, arguments(run, tmp_path / "out", "--n", 4, "--indices", "0:5")
    )  # fmt: skip
    assert done.exit_code == 2
    assert "beyond the 4 images of --n" in done.output


def test_the_record_tells_of_the_images_of_all_parts(run, tmp_path):
    sample(run, tmp_path / "parts", "--indices", "3:5", "--format", "npy")
    sample(run, tmp_path / "parts", "--indices", "0:2", "--format", "npy")
    record = json.loads((tmp_path / "parts" / "samples.json").read_text())
    assert record["labels"] == {"000000.npy": "disc", "000001.npy": "ring",
                                "000003.npy": "ring", "000004.npy": "disc"}  # fmt: skip
    assert np.load(tmp_path / "parts" / "000003.npy").shape == (1, 8, 8)


PEAK = """
import resource, sys
from ssmdiff_cli.main import app
app(sys.argv[1:], standalone_mode=False)
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.night
@pytest.mark.parametrize("suffix", ["png", "npy"])
def test_memory_does_not_grow_with_the_number_of_images(tmp_path, suffix):
    """10,000 images of 3 x 64 x 64, 492 MB as float32, take what 100 take, within a tenth."""
    stack = {"name": "isotropic", "channels": 16, "depth": 1, "patch": 8}
    tiny_run(tmp_path / "run", channels=3, side=64, backbone=stack)
    peaks = {}
    for n in (100, 10_000):
        done = subprocess.run(
            [sys.executable, "-c", PEAK, "sample", str(tmp_path / "run"), "--n", str(n),
             "--steps", "2", "--format", suffix, "--out", str(tmp_path / str(n))],
            capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        peaks[n] = int(done.stdout.rpartition("peak ")[2])
    print(peaks)
    assert len(list((tmp_path / "10000").glob(f"[0-9]*.{suffix}"))) == 10_000
    assert peaks[10_000] < 1.1 * peaks[100]
