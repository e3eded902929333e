"""The command line as a person meets it."""

import json
import os
import resource
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from ssmdiff_cli.main import app
from typer.testing import CliRunner

SMALL = [
    "--set", "model.backbone.channels=8", "--set", "model.backbone.widths=[1,2]",
    "--set", "model.block.state=4", "--set", "diffusion.timesteps=100",
    "--set", "train.bound_images=0", "--batch-size", "4",
]  # fmt: skip


def run(*arguments, **options):
    line = [sys.executable, "-m", "ssmdiff", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=240, **options)


def invoke(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_help_is_quick_and_imports_no_torch():
    """Under 0.5 s of processor time, the best of three: what else runs here does not count."""
    times_s = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = run("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 0
        assert "train" in done.stdout
    assert min(times_s) < 0.5
    probe = (
        "import sys; sys.argv = ['ssmdiff', '--help']\n"
        "from ssmdiff_cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'numba', 'diffusers', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.stdout.strip().endswith("[]")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "--scan", "regenrate"], "did you mean 'regenerate'?"),
        (["train", "--backbone", "vmdpm"], "did you mean 'vmddpm'?"),
        (["train", "--block", "mms"], "did you mean 'mss'?"),
        (
            ["train", "--data", "fantom"],
            "there is no such folder and no data set of that name; did you mean 'phantom'?",
        ),
        (["train", "--image-size", "6x"], "expected pixels such as 64"),
        (["train", "--image-size", "31"], "nearest"),
        (["train", "--set", "train.stpes=3"], "train.stpes: unknown key; did you mean 'steps'?"),
        (["train", "--set", "model.backbone.channels=true"], "valid integer"),
        (["train", "--set", "model.scan.bse=raster"], "model.scan.bse: unknown key"),
        (["train", "--set", "nonsense"], "expected path.to.key=value"),
        (["train", "--preset", "tny"], "did you mean 'tiny'?"),
        (["train", "--kernel", "nunba"], "did you mean 'numba'?"),
        (["train", "--resume"], "--resume needs --out"),
        (["train", "--config", "missing.toml"], "does not exist"),
        (["train", "--stepz", "3"], "No such option"),
        (["trian"], "did you mean 'train'?"),
        (["config", "show", "--set", "seed=-1"], "greater than or equal to 0"),
    ],
)
def test_usage_and_configuration_errors_exit_2_with_the_next_step(arguments, sentence, tmp_path):
    os.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert sentence in result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.rglob("config.toml")), "nothing is written for a wrong command"


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_a_folder_without_images_exits_4_and_is_named(tmp_path, name):
    (tmp_path / "empty").mkdir()
    result = invoke("train", "--data", tmp_path / name, "--out", tmp_path / "run")
    assert result.exit_code == 4
    assert str(tmp_path / name) in result.output.replace("\n", "")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    draws = np.random.default_rng(0)
    for i in range(6):
        pixels = (draws.random((70 + i, 66)) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def trained(pictures):
    """The command of the issue, on a folder of PNGs."""
    out = pictures.parent / "trained"
    done = run("train", "--data", pictures, "--image-size", "64", "--steps", "20", "--out", out,
               *SMALL, "--set", "sample.steps=2")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return out


def test_train_on_a_folder_and_sample_from_it(trained, tmp_path):
    out = tmp_path / "images"
    result = invoke("sample", trained, "--n", 4, "--steps", 10, "--out", out)
    assert result.exit_code == 0, result.output
    names = sorted(p.name for p in out.iterdir())
    assert names == ["000000.png", "000001.png", "000002.png", "000003.png", "grid.png",
                     "samples.json"]  # fmt: skip
    with Image.open(out / "000003.png") as image:
        assert (image.size, image.mode) == ((64, 64), "L")


def test_sampling_goes_on_where_it_stopped(trained, tmp_path):
    out = tmp_path / "images"
    arguments = ["sample", trained, "--steps", 3, "--out", out]
    assert invoke(*arguments, "--n", 2).exit_code == 0
    first = (out / "000001.png").stat().st_mtime_ns, (out / "000001.png").read_bytes()
    assert invoke(*arguments, "--n", 5, "--batch-size", 2).exit_code == 0
    assert first == ((out / "000001.png").stat().st_mtime_ns, (out / "000001.png").read_bytes())
    whole = tmp_path / "whole"
    assert invoke("sample", trained, "--steps", 3, "--out", whole, "--n", 5).exit_code == 0
    for i in range(5):
        a, b = (np.asarray(Image.open(f / f"{i:06d}.png"), dtype=int) for f in (out, whole))
        assert np.abs(a - b).max() <= 1


def test_sampling_with_other_settings_into_the_same_folder_is_refused(trained, tmp_path):
    out = tmp_path / "images"
    assert invoke("sample", trained, "--steps", 2, "--n", 1, "--out", out).exit_code == 0
    result = invoke("sample", trained, "--steps", 3, "--n", 1, "--out", out)
    assert result.exit_code == 2
    assert "drawn with another steps" in result.output
    again = invoke("sample", trained, "--steps", 3, "--n", 1, "--out", out, "--overwrite")
    assert again.exit_code == 0


def test_sampling_never_writes_into_a_folder_of_something_else(trained, pictures):
    result = invoke("sample", trained, "--n", 1, "--out", pictures)
    assert result.exit_code == 2
    assert "choose another --out" in result.output


@pytest.mark.parametrize("name", ["ddpm", "dpmpp", "unipc", "euler", "heun"])
def test_every_scheduler_samples_from_the_command_line(trained, tmp_path, name):
    result = invoke("sample", trained, "--n", 1, "--steps", 3, "--scheduler", name,
                    "--format", "npy", "--out", tmp_path / name)  # fmt: skip
    assert result.exit_code == 0, result.output
    image = np.load(tmp_path / name / "000000.npy")
    assert image.shape == (1, 64, 64)
    assert image.dtype == np.float32
    assert np.abs(image).max() <= 1


def test_sample_of_a_missing_run_is_told(trained, tmp_path):
    result = invoke("sample", tmp_path / "none", "--out", tmp_path / "o")
    assert result.exit_code == 1
    assert "there is no run folder" in result.output
    near = invoke("sample", str(trained)[:-1], "--out", tmp_path / "o")
    assert "did you mean 'trained'?" in near.output


def test_f5_a_second_run_in_the_same_folder_needs_a_word(trained, pictures):
    arguments = ["train", "--data", pictures, "--steps", 1, *SMALL]
    result = invoke(*arguments, "--out", trained)
    assert result.exit_code == 2
    assert "--resume" in result.output
    assert "--overwrite" in result.output


def test_f5_overwrite_touches_nothing_that_is_no_run(pictures):
    kept = sorted(p.name for p in pictures.iterdir())
    result = invoke("train", "--steps", 1, "--out", pictures, "--overwrite", *SMALL)
    assert result.exit_code == 2
    assert "holds no run" in result.output
    assert sorted(p.name for p in pictures.iterdir()) == kept


def test_f5_the_data_folder_is_never_the_run_folder(pictures):
    result = invoke("train", "--data", pictures, "--image-size", "64", "--out", pictures, *SMALL)
    assert result.exit_code == 2
    assert "holds the data" in result.output


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"seed = 1\nseed = 2\n", "is no TOML"),
        (b"\x00\xff\xfe", "is no TOML"),
        (b"\xef\xbb\xbfseed = 3\n", None),
        (b"", None),
        (b"#" * (1 << 21), "bytes; at most"),
        (b"[train]\nsteps = nan\n", "train.steps"),
        (b"[train]\nlearning_rate = inf\n", "finite number"),
        (b'[train]\nsteps = "10"\n', "train.steps: got '10'"),
        (b"[Train]\nsteps = 1\n", "Train: unknown key; did you mean 'train'?"),
    ],
)
def test_f1_to_f3_config_files_are_read_or_refused_whole(tmp_path, content, sentence):
    (tmp_path / "c.toml").write_bytes(content)
    result = invoke("config", "show", "--config", tmp_path / "c.toml")
    if sentence is None:
        assert result.exit_code == 0, result.output
    else:
        assert result.exit_code == 2, result.output
        assert sentence in result.output


def test_f3_a_folder_as_config_is_refused(tmp_path):
    result = invoke("config", "show", "--config", tmp_path)
    assert result.exit_code == 2
    assert "is not a file" in result.output


def test_config_layers_override_in_the_order_of_the_design(tmp_path):
    (tmp_path / "c.toml").write_text(
        "[train]\nsteps = 7\nbatch_size = 2\n[data]\nimage_size = 64\n"
    )
    result = invoke("config", "show", "--preset", "paper-128", "--config", tmp_path / "c.toml",
                    "--set", "train.batch_size=3", "--json")  # fmt: skip
    shown = json.loads(result.output)
    assert shown["train"]["steps"] == 7
    assert shown["train"]["batch_size"] == 3
    assert shown["data"]["image_size"] == [64, 64]
    assert shown["model"]["backbone"]["widths"] == [1, 2, 4, 8]


def test_another_component_drops_the_options_of_the_former(tmp_path):
    result = invoke("config", "show", "--set", "model.block=conv", "--json")
    assert result.exit_code == 0, result.output
    block = json.loads(result.output)["model"]["block"]
    assert block["name"] == "conv"
    assert "state" not in block


def test_f7_a_closed_pipe_leaves_no_traceback():
    line = f"{sys.executable} -m ssmdiff plugins list | head -1"
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, env=os.environ | {"LANG": "C"}
    )
    assert done.stderr == ""


def test_plugins_list_and_scans_list_for_programs():
    plugins = json.loads(invoke("plugins", "list", "--json").output)
    names = {c["name"] for p in plugins["plugins"] for c in p["components"]}
    assert {"regenerate", "vmddpm", "mss", "conv", "numba", "phantom", "folder"} <= names
    scans = {row["name"]: row for row in json.loads(invoke("scans", "list", "--json").output)}
    assert scans["cross"]["directions"] == 4
    assert scans["regenerate"]["stochastic"] is True


@pytest.mark.slow
def test_doctor_finds_every_kernel_right():
    report = json.loads(invoke("doctor", "--json").output)
    assert report["ok"]
    status = {row["name"]: row["status"] for row in report["kernels"]}
    assert status["torch"] == "ok"
    assert status["numba"] == "ok"


@pytest.mark.slow
def test_the_three_commands_of_the_ablation(tmp_path):
    """CSM, regenerated CSM, CNN."""
    for i, choice in enumerate(
        (["--scan", "cross"], ["--scan", "regenerate"], ["--block", "conv"])
    ):
        arguments = SMALL[:4] + SMALL[6:] if choice[0] == "--block" else SMALL
        result = invoke("train", *choice, "--backbone", "vmddpm", "--image-size", "16",
                        "--steps", 2, "--set", "sample.steps=1", "--out", tmp_path / str(i),
                        *arguments)  # fmt: skip
        assert result.exit_code == 0, result.output
