"""``--label`` and ``--tell``: what they mean and refuse, and what stands beside images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmdiff
from PIL import Image
from ssmdiff import Condition, Conditions, ConfigError, DataError
from ssmdiff.runs import compose
from ssmdiff_cli.main import app
from ssmdiff_cli.sample_telling import told_of_flags
from tiny_runs import tiny_run
from typer.testing import CliRunner

SIZE = (8, 8)
TOLD = Conditions(
    [
        Condition("label", "label", ("t1", "flair"), optional=True),
        Condition("findings", "labels", ("nodule", "effusion")),
        Condition("angle", "number", low=-10.0, high=10.0, unit="degrees"),
        Condition("mask", "mask", ("out", "in")),
        Condition("other", "image"),
    ]
)


def of(*tells: str, label: str | None = None, count: int | None = 4) -> dict[str, Any]:
    return told_of_flags(TOLD, label, tells, count)


def test_what_the_flags_say() -> None:
    assert of(label="flair") == {"label": "flair"}
    assert of(label="t1=3,flair=1") == {"label": ["t1"] * 3 + ["flair"]}
    assert of(label="none") == {"label": None}
    assert of(label="t1,none") == {"label": ["t1", None]}
    assert of("label=1") == {"label": "1"}
    assert of("findings=nodule+effusion") == {"findings": ("nodule", "effusion")}
    assert of("findings=") == {"findings": ()}
    assert of("findings=nodule=2,effusion") == {
        "findings": [("nodule",), ("nodule",), ("effusion",)]
    }
    assert of("angle=-2.5") == {"angle": -2.5}
    assert of("angle=-10:5", count=4) == {"angle": [-10, -5, 0, 5]}
    assert of("angle=1,2,none") == {"angle": [1, 2, None]}
    only = Conditions([TOLD.named("findings")])
    assert told_of_flags(only, "nodule", [], 1) == {"findings": ("nodule",)}


@pytest.mark.parametrize(
    ("tells", "label", "said"),
    [
        (["angel=1"], None, r"no condition 'angel'; did you mean 'angle'\?"),
        (["angle"], None, "expected NAME=VALUE, such as label=t1"),
        (["label=t1"], "flair", "label is told twice, now by --tell 't1'"),
        (["angle=1", "angle=2"], None, "angle is told twice"),
        (["angle=far"], None, "angle 'far': expected a number, .* -10 to 10 degrees"),
        (["mask=nowhere"], None, "mask: there is no file or folder nowhere"),
        ([], "t1=9999999", "more than 100000 images"),
    ],
)
def test_what_the_flags_refuse(tells: list[str], label: str | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        of(*tells, label=label)


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two masks, and what is none of the model's."""
    folder = tmp_path_factory.mktemp("pixels")
    for name, rows in (("a", 2), ("b", 6)):
        mask = np.zeros(SIZE, np.uint8)
        mask[:rows] = 1
        (folder / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    Image.fromarray(np.full(SIZE, 255, np.uint8)).save(folder / "white.png")
    small = Image.fromarray(np.zeros((4, 4), np.uint8))
    small.save(folder / "small.png")
    whole = (folder / "masks" / "a.png").read_bytes()
    for name, content in {"some/a": whole, "cut/a": whole[:45]}.items():
        (folder / name).parent.mkdir()
        (folder / f"{name}.png").write_bytes(content)
    small.save(folder / "some" / "b.png")
    return folder


def test_masks_and_images_of_files(masks: Path) -> None:
    found = of(f"mask={masks / 'masks'}", f"other={masks / 'white.png'}")
    assert [int(mask.sum()) for mask in found["mask"]] == [16, 48], "in the order of their names"
    assert found["other"].shape == (1, *SIZE)
    assert found["other"].dtype == np.float32
    assert set(found["other"].ravel()) == {1.0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("told") / "run"
    tiny_run(folder, ("t1", "flair"), conditions=TOLD)
    return folder


def sample(run: Path, out: Path, masks: Path, *flags: str) -> Any:
    own = [f"mask={masks / 'masks'}", f"other={masks / 'white.png'}"]
    given = [flag.partition("=")[0] for flag in flags]
    tells = [*flags, *(one for one in own if one.partition("=")[0] not in given)]
    words = [word for tell in tells for word in ("--tell", tell)]
    arguments = ["sample", run, "--n", 4, "--steps", 2, "--format", "npy", "--out", out, *words]
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_a_folder_says_what_each_image_was_told(run: Path, masks: Path, tmp_path: Path) -> None:
    done = sample(run, tmp_path / "a", masks, "angle=-10:5", "label=t1=1,none=1")
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "a" / "samples.json").read_text())
    each = list(record["each"].values())
    assert list(record["each"]) == [f"{i:06d}.npy" for i in range(4)]
    assert [one["angle"] for one in each] == [-10, -5, 0, 5]
    assert [one["label"] for one in each] == [0, None, 0, None]
    assert [one["findings"] for one in each] == [[0], [1], [0], [1]], "in turn by default"
    assert each[0]["mask"] == each[2]["mask"] != each[1]["mask"]
    assert record["label"] == [0, None]
    assert record["told"]["angle"] == [-10, -5, 0, 5]
    assert "labels" not in record, "some were left without"
    images = [np.load(tmp_path / "a" / name) for name in record["each"]]
    pixels = [np.asarray(Image.open(p)) for p in sorted((masks / "masks").iterdir())]
    expected = ssmdiff.load_run(run).sample(
        4, steps=2, batch_size=4, label=["t1", None],
        told={"angle": [-10, -5, 0, 5], "mask": pixels, "other": np.ones((1, *SIZE), np.float32)},
    )  # fmt: skip
    np.testing.assert_allclose(images, expected, atol=1e-5)
    assert sample(run, tmp_path / "a", masks, "angle=-10:5", "label=t1=1,none=1").exit_code == 0
    other = sample(run, tmp_path / "a", masks, "angle=0", "label=t1=1,none=1")
    assert other.exit_code == 2
    assert "drawn with another told" in other.output


@pytest.mark.parametrize(
    ("tell", "said"),
    [
        ("mask={0}/small.png", "small.png: mask mask is 4 x 4; expected 8 x 8"),
        ("mask={0}/white.png", "white.png: mask holds the number 255, which the model never saw"),
        ("mask={0}/some", "some/b.png: mask mask is 4 x 4; expected 8 x 8"),
        (
            "mask={0}/cut",
            "cut/a.png: it is cut short or damaged (OSError: image file is truncated)",
        ),
        ("mask=", "mask '': expected a FILE or FOLDER, or none"),
        ("angle=11", "angle is 11.0; expected -10 to 10 degrees"),
        ("findings=none", "findings is missing, and the model needs it"),
        ("findings=nodul", "there is no findings 'nodul'; did you mean 'nodule'?"),
        ("other={0}/small.png", "image other is 1 x 4 x 4; expected 1 x 8 x 8"),
    ],
)
def test_what_cannot_be_told_is_a_sentence_and_leaves_nothing(
    run: Path, masks: Path, tmp_path: Path, tell: str, said: str
) -> None:
    done = sample(run, tmp_path / "out", masks, tell.format(masks))
    assert done.exit_code == (4 if "cut" in tell else 2), done.output
    assert said in " ".join(done.output.split())
    assert "data.dataset" not in done.output, "which is no option here"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--tell", "--negative"])
def test_a_model_that_is_told_nothing_says_so(flag: str) -> None:
    with pytest.raises(ConfigError, match=f"{flag} age=5: the model is told nothing; train one"):
        told_of_flags(Conditions(), None, ["age=5"], 4, flag)


def test_a_run_without_its_data_asks_for_masks(run: Path) -> None:
    with pytest.raises(ConfigError, match="mask is not given, and the run has none at hand"):
        ssmdiff.load_run(run).sample(1)


def test_a_run_whose_data_cannot_be_opened_asks_for_masks_too(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(config: object) -> None:
        raise DataError("there is no folder images")

    monkeypatch.setattr(compose, "build_dataset", gone)
    said = "mask is not given, .* since its data cannot be opened: there is no folder images; give"
    with pytest.raises(ConfigError, match=said):
        ssmdiff.load_run(run).sample(1)
