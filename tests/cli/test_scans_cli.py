"""``ssmdiff scans``, as a person meets it."""

import json
import os
import subprocess
import sys
import time

import pytest
from PIL import Image
from ssmdiff.registry.registry import Registry
from ssmdiff_cli.main import app
from typer.testing import CliRunner


def invoke(*arguments):
    return CliRunner().invoke(app, ["scans", *map(str, arguments)])


def test_list_takes_under_two_seconds_and_imports_no_torch():
    """Every plugin is loaded, every scan is built and measured; best of three on a busy machine."""
    code = (
        "import sys; sys.argv = ['ssmdiff', 'scans', 'list']\n"
        "from ssmdiff_cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = ('torch', 'matplotlib', 'numba', 'PIL')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    times_s = []
    for _ in range(3):
        start_s = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        times_s.append(time.perf_counter() - start_s)
        assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr
    assert min(times_s) < 2.0


def test_list_says_of_each_scan_what_it_is(monkeypatch, fresh_registry):
    monkeypatch.setenv("SSMDIFF_PLUGINS", "")  # a stranger's summary may be longer
    lines = invoke("list").output.splitlines()
    (hilbert,) = [line for line in lines if line.startswith("hilbert ")]
    assert hilbert.split()[1:10] == ["1", "2-D,", "3-D", "fixed", "yes", "9.9", "213", "9.9", "213"]
    (cross,) = [line for line in lines if line.startswith("cross ")]
    assert cross.split()[1:9] == ["4", "any", "fixed", "-", "8.5", "16", "1.0", "1"]
    (atrous,) = [line for line in lines if line.startswith("atrous ")]
    assert atrous.split()[5:9] == ["-"] * 4
    assert max(map(len, lines)) < 140


def test_list_as_json():
    rows = {row["name"]: row for row in json.loads(invoke("list", "--json").output)}
    assert set(Registry(allowed=[]).names("scan")) <= set(rows)
    assert rows["tri"]["axes"] == [3]
    assert rows["tri"]["grid"] == [8, 8, 8]
    assert rows["regenerate"]["stochastic"] is True
    assert rows["random"]["stochastic"] is False
    assert rows["snake"]["continuous"] is True
    assert rows["snake"]["jumps"] == 0
    assert rows["atrous"]["mean_dt"] is None
    assert rows["atrous"]["apart"] == 1.0
    assert "arXiv:2405.05667" in rows["regenerate"]["cite"]


def test_a_broken_scan_of_a_stranger_breaks_no_row_of_the_others(install, fresh_registry):
    install(
        "ssmdiff-crooked",
        """
        import numpy as np, ssmdiff

        class Crooked(ssmdiff.Scan):
            def directions(self, dims):
                return 1

            def order(self, grid, generator=None):
                return ssmdiff.ScanOrder(np.zeros((1, int(np.prod(grid))), dtype=int))

        class Raising(Crooked):
            def order(self, grid, generator=None):
                raise IndexError("far out")

        @ssmdiff.hookimpl
        def ssmdiff_scans():
            yield ssmdiff.Component("crooked", Crooked, "the same token again")
            yield ssmdiff.Component("raising", Raising, "raises")
        """,
    )
    result = invoke("list")
    assert result.exit_code == 0
    assert "crooked        BROKEN: scan Crooked on a 4 grid: direction 0 is no per" in result.output
    assert "raising        BROKEN: IndexError: far out" in result.output
    assert "hilbert" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["hilbert"],
        ["cross", "--grid", "5x12"],
        ["zigzag", "--grid", "8", "--layers", "3"],
        ["regenerate", "--set", "base=hilbert", "--set", "block=2", "--seed", "7"],
        ["hilbert", "--set", "paths=8", "--direction", "5"],
        ["tri", "--grid", "2x3x4"],
        ["layers", "--set", 'scans=["hilbert", "snake", "snake"]'],
    ],
)
def test_show_writes_a_picture(arguments, tmp_path):
    out = tmp_path / "new" / "scan.png"
    result = invoke("show", *arguments, "--out", out)
    assert result.exit_code == 0, result.output
    assert result.output.strip() == str(out)
    with Image.open(out) as image:
        assert image.format == "PNG"
        assert min(image.size) > 200


def test_show_names_the_picture_after_the_scan(tmp_path):
    os.chdir(tmp_path)
    assert invoke("show", "spiral", "--grid", "6x6").output == "spiral.png\n"
    assert (tmp_path / "spiral.png").exists()


def test_a_scan_by_layer_shows_each_of_its_paths_once():
    drawn = invoke("show", "zigzag", "--grid", "3x4", "--ascii").output
    assert [line for line in drawn.splitlines() if "layer" in line] == [
        f"layer {i}" for i in range(8)
    ]
    drawn = invoke("show", "layers", "--grid", "3x4", "--ascii").output
    assert [line for line in drawn.splitlines() if "layer" in line] == ["layer 0", "layer 1"]


def test_show_ascii_draws_in_the_terminal_and_writes_nothing(tmp_path):
    os.chdir(tmp_path)
    result = invoke("show", "spiral", "--grid", "3x4", "--ascii")
    assert result.output == (
        "S>o>o>o\n      v\no>o>E o\n^     v\no<o<o<o\n\n 0  1  2  3\n 9 10 11  4\n 8  7  6  5\n\n"
    )
    assert result.output.isascii()
    assert list(tmp_path.iterdir()) == []


def test_a_draw_is_reproduced_by_its_seed():
    arguments = ("show", "shuffle", "--grid", "6x6", "--ascii")
    one, same, other = (invoke(*arguments, "--seed", s).output for s in (1, 1, 2))
    assert one == same
    assert one != other


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["show", "hilbrt"], "did you mean 'hilbert'?"),
        (["show", "hilbert", "--set", "pats=8"], "did you mean 'paths'?"),
        (["show", "hilbert", "--set", "paths=9"], "option 'paths'"),
        (["show", "regenerate", "--set", "base=rastr"], "did you mean 'raster'?"),
        (["show", "hilbert", "--grid", "16y16"], "expected tokens such as 16x16"),
        (["show", "hilbert", "--grid", "0x4"], "expected tokens such as 16x16"),
        (["show", "hilbert", "--grid", "999x999"], "cannot be drawn"),
        (["show", "spiral", "--grid", "4x4x4"], "cannot serve a grid of 3 axes"),
        (["show", "tri"], "it serves volumes (D, H, W)"),
        (["show", "cross", "--direction", "4"], "0 to 3"),
        (["show", "cross", "--layers", "0"], "expected 1 to 64"),
        (["show", "cross", "--out", "cross.jpg"], "ending in .png"),
        (["show", "cross", "--grid", "4x4x4", "--ascii"], "no picture in characters"),
        (["show", "cross", "--seed", "-1"], "seed is -1"),
    ],
)
def test_what_is_wrong_is_told_with_the_next_step(arguments, sentence, tmp_path):
    os.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert sentence in result.output
    assert list(tmp_path.iterdir()) == []
