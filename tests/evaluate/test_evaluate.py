"""The job: what is judged, by what, what is kept and what is written."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ssmdiff
import torch
from PIL import Image
from ssmdiff import ConfigError, DataError
from ssmdiff_evaluate.evaluation import protocol_digest
from ssmdiff_evaluate.job import evaluate
from ssmdiff_evaluate.sets import DataImages, DrawnImages, to_levels

FEW = {"features": ["pixels"], "metrics": ["frechet", "manifold", "copies"], "n": 48}


@pytest.fixture(scope="module")
def judged(run: Path):
    return evaluate(run, **FEW)


def folder_of(run: Path, n: int = 48) -> Path:
    return run / "evaluations" / f"seed-0-n-{n}"


def test_levels_are_those_of_a_png(tmp_path: Path) -> None:
    from ssmdiff.runs.pictures import write_image

    image = torch.linspace(-1, 1, 16 * 16).reshape(1, 16, 16)
    write_image(tmp_path / "a.png", image)
    with Image.open(tmp_path / "a.png") as picture:
        assert (np.asarray(picture) == to_levels(image.numpy())[0]).all()


def test_the_record_holds_each_figure_with_its_protocol(run: Path, judged) -> None:
    found = json.loads((folder_of(run) / "record.json").read_text())
    protocol = found["stamp"]["protocol"]
    assert protocol["reference"]["count"] == 96
    assert protocol["held_out"]["count"] == 1024
    assert protocol["samples"] == {"count": 48, "shape": [1, 16, 16]}
    assert protocol["features"]["pixels"]["options"] == {"components": 64, "side": 32}
    assert found["stamp"]["samples"]["scheduler"]["name"] == "dpmpp"
    assert found["model"]["parameters"] > 1000
    names = [figure["name"] for figure in found["figures"]]
    assert "FD pixels (n = 48)" in names
    assert "copies pixels (n = 48)" in names
    assert [figure["value"] for figure in found["figures"]] == [
        j.figure.value for j in judged.figures
    ]
    rows = list(csv.DictReader((folder_of(run) / "figures.csv").open()))
    assert [float(row["value"]) for row in rows] == [j.figure.value for j in judged.figures]


def test_the_distance_is_that_of_the_features_as_they_are(run: Path, judged) -> None:
    """Computed anew from the images, without cache, job or block sums."""
    from ssmdiff_metrics.frechet import frechet_distance

    trained = ssmdiff.load_run(run)
    images = to_levels(trained.sample(48, batch_size=64).numpy())
    reference = DataImages(ssmdiff.build_dataset(trained.config))
    network = ssmdiff.create("features", "pixels")
    network.fit(reference)
    expected = frechet_distance(network(reference.levels(range(96))), network(images))
    assert judged.find("FD pixels").value == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
def test_an_evaluation_that_was_stopped_goes_on_to_the_same_figures(
    run: Path, judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / "heads"
    shutil.copytree(run, copied)
    shutil.rmtree(copied / "evaluations", ignore_errors=True)
    calls = []
    plain = ssmdiff.Run.draw

    def stopped(self, *arguments):
        for batch, images in plain(self, *arguments):
            calls.append(list(batch))
            if len(calls) == 2:
                raise KeyboardInterrupt
            yield batch, images

    monkeypatch.setattr(ssmdiff.Run, "draw", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate(copied, **FEW, batch_size=16)
    again = evaluate(copied, **FEW, batch_size=16)
    assert calls == [
        list(range(16)), list(range(16, 32)), list(range(16, 32)), list(range(32, 48))
    ]  # fmt: skip
    assert len(again.figures) == len(judged.figures)
    calls.clear()
    cached = evaluate(copied, **FEW, batch_size=16)
    assert calls == []
    assert [j.figure for j in cached.figures] == [j.figure for j in again.figures]


@pytest.mark.slow
def test_two_processes_give_the_figures_of_one(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "heads"
    shutil.copytree(run, copied)
    shutil.rmtree(copied / "evaluations", ignore_errors=True)
    alone = evaluate(run, out=tmp_path / "alone", **FEW, batch_size=16)
    flags = "--count 48 --batch-size 16 --features pixels --metric frechet --metric manifold"
    command = f"-m torch.distributed.run --nproc-per-node 2 -m ssmdiff evaluate {copied} {flags}"
    subprocess.run([sys.executable, *command.split()], check=True, capture_output=True)
    found = json.loads((folder_of(copied) / "record.json").read_text())
    expected = {j.figure.name: j.figure.value for j in alone.figures}
    for figure in found["figures"]:
        assert figure["value"] == pytest.approx(expected[figure["name"]], rel=1e-10)


def test_a_folder_of_samples_is_judged_as_the_run_it_is_of(run: Path, judged, tmp_path) -> None:
    images = ssmdiff.load_run(run).sample(48, batch_size=64)
    folder = tmp_path / "drawn"
    folder.mkdir()
    for i, image in enumerate(to_levels(images.numpy())):
        Image.fromarray(image[0]).save(folder / f"{i:06d}.png")
    record = evaluate(folder, against=run, out=tmp_path / "out", **FEW)
    assert record.find("FD pixels").value == pytest.approx(judged.find("FD pixels").value)


def test_no_reference_is_refused_with_what_to_give(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(ConfigError, match="give the reference by --against"):
        evaluate(tmp_path / "images")


def test_images_of_another_size_are_refused(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "drawn"
    folder.mkdir()
    (folder / "samples.json").write_text("{}")
    for i in range(4):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / f"{i:06d}.png")
    with pytest.raises(ConfigError, match=r"\(1, 8, 8\).*\(1, 16, 16\).*--against"):
        evaluate(folder, against=run)


@pytest.mark.slow
def test_without_held_out_images_novelty_refuses_and_the_rest_goes_on(
    run: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    heads = ssmdiff.create("dataset", {"name": "phantom", "length": 60}, image_size=(16, 16))
    for i in range(60):
        Image.fromarray(to_levels(heads[i].image.numpy())[0]).save(data / f"p{i:03d}.png")
    record = evaluate(run, against=data, out=tmp_path / "out", **FEW)
    assert record.find("FD pixels").value > 0
    (refusal,) = record.refusals
    assert refusal.metric == "copies"
    assert "data.dataset.held_out" in refusal.reason
    page = (tmp_path / "out" / "index.html").read_text()
    assert "data.dataset.held_out" in page
    assert "This page holds synthetic images alone, and no real one." in page
    assert "Reference images" not in page
    assert page.count("data:image/png") == 4  # samples, histogram, distances, the run's loss


def test_real_images_stand_on_the_page_where_data_is_open_or_on_demand(
    run: Path, judged, tmp_path: Path
) -> None:
    page = (folder_of(run) / "index.html").read_text()
    first = re.search(r"<p class=\"holds[^>]*>(.*?)</p>", page).group(1)
    assert first == f"This page holds images of the data of {run} (phantom), which is open data."
    assert "Reference images" in page


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"features": ["texure"]}, "did you mean 'texture'"),
        ({"metrics": ["frechet", "fid"]}, "metric"),
        ({"features": [{"name": "pixels", "component": 3}]}, "did you mean 'components'"),
        ({"n": 1}, "at least two"),
        ({"steps": 0}, "steps"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_drawn(
    run: Path, tmp_path: Path, arguments: dict, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        evaluate(run, out=tmp_path / "out", **{"n": 8, **arguments})
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "drawn").exists()


@pytest.mark.slow
def test_protocols_agree_for_other_samples_and_differ_for_other_counts(
    run: Path, judged, tmp_path: Path
) -> None:
    few = {**FEW, "n": 40}
    other = evaluate(run, out=tmp_path / "a", **few)
    again = evaluate(run, out=tmp_path / "b", **few, scheduler="dpmpp")
    assert protocol_digest(other.stamp) == protocol_digest(again.stamp)
    assert protocol_digest(other.stamp) != protocol_digest(judged.stamp)


def test_a_damaged_part_is_named(run: Path, judged, tmp_path: Path) -> None:
    trained = ssmdiff.load_run(run)
    drawn = DrawnImages(trained, trained.sampling(), 4, tmp_path)
    drawn.draw()
    (part,) = drawn.folder.iterdir()
    part.write_bytes(part.read_bytes()[:40])
    with pytest.raises(DataError, match="Delete it, and go on"):
        DrawnImages(trained, trained.sampling(), 4, tmp_path).levels([0])


def test_a_file_is_opened_once(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the reference is a data set by name, whose size is the file's."""
    from ssmdiff.runs import exporting

    opened = []

    class Exporter:
        def open(self, path: Path):
            opened.append(path)
            return ssmdiff.load_run(run)

    monkeypatch.setattr(exporting, "exporter_of", lambda path: ("probe", Exporter()))
    file = tmp_path / "model.probe"
    file.write_bytes(b"x")
    record = evaluate(
        file, against="phantom", out=tmp_path / "out", reference=64, n=16,
        features=["pixels"], metrics=["mmd"],
    )  # fmt: skip
    assert record.stamp["protocol"]["reference"]["shape"] == [1, 16, 16]
    assert opened == [file]


@pytest.mark.parametrize(
    ("metrics", "looked_at"),
    [
        (["mmd"], ["reference", "samples"]),
        pytest.param(["nearness"], ["reference", "samples", "held out"], marks=pytest.mark.slow),
        (["copies"], ["reference", "held out", "samples", "mirrored"]),
        pytest.param(["ms-ssim"], [], marks=pytest.mark.slow),
    ],
    ids=lambda value: "-".join(value) or "none",
)
def test_what_no_metric_asks_for_is_not_looked_at(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metrics, looked_at
) -> None:
    from ssmdiff_evaluate import evaluation

    seen = []
    plain = evaluation.features_of

    def watched(images, *arguments):
        names = {96: "reference", 12: "samples", 1024: "held out"}
        mirrored = type(images).__name__ == "Mirrored"
        seen.append("mirrored" if mirrored else names[len(images)])
        return plain(images, *arguments)

    monkeypatch.setattr(evaluation, "features_of", watched)
    record = evaluate(run, out=tmp_path / "out", n=12, features=["pixels"], metrics=metrics)
    assert sorted(seen) == sorted(looked_at)
    assert record.figures
    features = record.stamp["protocol"]["features"]
    assert list(features) == (["pixels"] if looked_at else [])


def test_of_an_unconditional_model_use_is_refused_in_a_sentence_and_the_rest_goes_on(
    run: Path, tmp_path: Path
) -> None:
    asked = {"features": ["pixels"], "metrics": ["mmd", "classifier"], "n": 12}
    record = evaluate(run, out=tmp_path / "out", **asked)
    assert record.find("KD pixels")
    (refusal,) = record.refusals
    assert (refusal.section, refusal.metric, refusal.features) == ("use", "classifier", "images")
    assert "model.class_conditional = true" in refusal.reason
    page = (tmp_path / "out" / "index.html").read_text()
    assert "classifier over images: it needs to know the class of each sample" in page


def test_the_record_holds_what_the_model_costs_also_when_nothing_is_drawn(
    run: Path, judged
) -> None:
    found = json.loads((folder_of(run) / "record.json").read_text())["model"]
    assert found["multiply-adds of an image"] == 2 * found["multiply-adds of a call"] > 10**5
    assert found["images a second"] > 0
    assert 50 < found["peak memory while drawing (MB)"] < 20_000
    assert found["device"] == "cpu"
    again = evaluate(run, **FEW)
    assert again.model == found


def test_classes_are_those_that_the_record_beside_the_images_says(tmp_path: Path) -> None:
    from ssmdiff_evaluate.sets import SampledFolder

    names = ["healthy", "lesion", "healthy"]
    for i in range(3):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"{i:06d}.png")
    assert SampledFolder(tmp_path).labels is None
    told = {"classes": ["healthy", "lesion"], "seed": 0}
    told["labels"] = {f"{i:06d}.png": name for i, name in enumerate(names)}
    (tmp_path / "samples.json").write_text(json.dumps(told))
    found = SampledFolder(tmp_path)
    assert found.class_names == ("healthy", "lesion")
    assert found.labels.tolist() == [0, 1, 0]
    assert SampledFolder(tmp_path, 2).labels.tolist() == [0, 1]
    del told["labels"]["000001.png"]
    (tmp_path / "samples.json").write_text(json.dumps(told))
    assert SampledFolder(tmp_path).labels is None
    (tmp_path / "samples.json").write_text("[1]")
    with pytest.raises(DataError, match="no record of ssmdiff sample"):
        SampledFolder(tmp_path)


@pytest.mark.parametrize("form", ["png16", {"name": "npy", "units": "data"}])
def test_samples_of_other_formats_are_refused_in_a_sentence(tmp_path: Path, form) -> None:
    from ssmdiff_evaluate.sets import SampledFolder

    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "000000.png")
    (tmp_path / "samples.json").write_text(json.dumps({"format": form}))
    with pytest.raises(DataError, match="evaluate reads png and npy"):
        SampledFolder(tmp_path)
