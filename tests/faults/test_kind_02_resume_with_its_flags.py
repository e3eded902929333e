"""``--resume`` with the flags that made the run: equal values pass, others are shown old -> new."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import ssmdiff
from ssmdiff.errors import ConfigError
from ssmdiff_cli.main import app
from ssmdiff_train import resume
from typer.testing import CliRunner

MADE = (
    "train --preset tiny --config own.toml --scan hilbert --set model.scan.paths=2 --data phantom "
    "--image-size 8 --batch-size 2 --seed 3 --out run"
)
OWN = """
[model.backbone]
channels = 8
widths = [1]
[train]
bound_images = 0
sample_every = 0
callbacks = []
[sample]
steps = 1
count = 1
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture
def command(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[int, str]]:
    monkeypatch.chdir(place)

    def run(text: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, shlex.split(text))
        return result.exit_code, result.output

    if not (place / "run").exists():
        (place / "own.toml").write_text(OWN)
        assert run(f"{MADE} --steps 1")[0] == 0
    return run


def steps_done(place: Path) -> int:
    return ssmdiff.RunFolder(place / "run").checkpoint().step


def test_the_whole_command_again_goes_on(command, place) -> None:
    """Its steps alone are new, which it says."""
    before = tomllib.loads((place / "run/config.toml").read_text())
    goal = before["train"]["steps"] + 1
    with pytest.warns(UserWarning, match=rf"train\.steps: {goal - 1} -> {goal}$"):
        code, output = command(f"{MADE} --steps {goal} --resume")
    assert code == 0, output
    assert steps_done(place) == goal
    after = tomllib.loads((place / "run/config.toml").read_text())
    before["train"]["steps"] = goal
    assert after == before


@pytest.mark.parametrize(
    ("other", "shown"),
    [
        ("--seed 4", ["seed: 3 -> 4"]),
        pytest.param("--preset small", ["train.learning_rate: 0.001 -> 0.0002",
                     "model.backbone.channels: 8 -> 48"], marks=pytest.mark.slow),
        ("--scan cross", ["model.scan.name: 'hilbert' -> 'cross'",
                          "model.scan.paths: 2 -> not set"]),
        ("--set model.scan.paths=4", ["model.scan.paths: 2 -> 4"]),
    ],
)  # fmt: skip
def test_a_value_that_differs_is_shown_old_to_new(command, place, other, shown) -> None:
    written = (place / "run/config.toml").read_bytes()
    code, output = command(f"train --out run --resume {other}")
    assert code == 2
    for line in shown:
        assert f"\n  {line}" in output, output
    assert "image_size: [8, 8] -> [64, 64]" in output or "small" not in other
    assert (place / "run/config.toml").read_bytes() == written


def test_from_python_too(command, place) -> None:
    goal = steps_done(place)
    folder = ssmdiff.train("tiny", "run", resume=True, data={"image_size": 8}, seed=3,
                           train={"steps": goal, "batch_size": 2},
                           model={"backbone": {"channels": 8, "widths": [1]}})  # fmt: skip
    assert folder.checkpoint().step == goal


# Kind 3


@pytest.mark.parametrize(("key", "hint"), [("", "no such key; known: "), ("see", "'seed'")])
def test_kind_03_only_whole_keys_may_change(command, place, key, hint) -> None:
    written = (place / "run/config.toml").read_bytes()
    line = f"train --out run --resume --seed 4 --lr 0.5 --allow-config-change '{key}'"
    code, output = command(line)
    assert code == 2
    assert f"--allow-config-change {key!r}: " in output
    assert hint in output
    assert (place / "run/config.toml").read_bytes() == written


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("train", "name its keys: train.activation_checkpointing, "),
        ("s", "there is no such key"),
        ("train.learning_rat", "did you mean 'train.learning_rate'"),
        ("model.scan", "name its keys: model.scan.by_layer, model.scan.name, model.scan.paths"),
        ("model.scan.", "there is no such key"),
    ],
)
def test_kind_03_what_is_no_key_is_refused(key, hint) -> None:
    before = ssmdiff.resolve({"model": {"scan": "hilbert"}})
    after = ssmdiff.resolve(before, {"seed": 4, "train": {"learning_rate": 0.5}})
    with pytest.raises(ConfigError) as refused:
        resume.refuse_changes(before, after, ("a", "a"), [key], "run")
    assert f"--allow-config-change {key!r}: " in str(refused.value)
    assert hint in str(refused.value)


def test_kind_03_a_whole_key_frees_itself_alone(command, place) -> None:
    line = "train --out run --resume --seed 4 --lr 0.5 --allow-config-change seed"
    code, output = command(line)
    assert code == 2
    assert "train.learning_rate: 0.001 -> 0.5" in output
    assert "seed: 3" not in output


def test_kind_03_every_key_of_the_configuration_can_be_named() -> None:
    config = ssmdiff.resolve(ssmdiff.load_preset("tiny"))
    for key in ("train.micro_batch_size", "diffusion.min_snr_gamma", "model.scan.base",
                "data.image_size", "train.callbacks", "seed"):  # fmt: skip
        told = resume.refuse_changes(config, config, ("a", "b"), ["data.fingerprint", key], "run")
        assert re.search(r"data\.fingerprint: 'a' -> 'b'$", told)
    with pytest.raises(ConfigError, match=r"data\.fingerprint: 'a' -> 'b'"):
        resume.refuse_changes(config, config, ("a", "b"), ["seed"], "run")
