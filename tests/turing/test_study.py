"""A page and its key: what stands in them, and that nothing tells real from synthetic."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import ssmdiff
from PIL import Image
from ssmdiff import ConfigError, DataError, DataTerms
from ssmdiff_turing.images import Kind
from ssmdiff_turing.page import study_page
from ssmdiff_turing.study import PAIRS, SINGLE, make_study, png
from studies import PLANTED, truths, write_images

turing = ssmdiff.job("turing")


def data_of(page: Path | str) -> dict:
    text = page if isinstance(page, str) else page.read_text()
    (block,) = re.findall(r'<script type="application/json" id="study">(.*?)</script>', text, re.S)
    return json.loads(block)


def pictures_of(page: Path | str) -> list[bytes]:
    return [base64.b64decode(url.partition(",")[2]) for url in data_of(page)["pictures"]]


def chunks_of(picture: bytes) -> list[tuple[bytes, int]]:
    found, place = [], 8
    while place < len(picture):
        (length,) = struct.unpack(">I", picture[place : place + 4])
        found.append((picture[place + 4 : place + 8], length))
        place += 12 + length
    return found


def test_the_page_shows_the_pixels_of_both_kinds_as_the_key_says(folders, tmp_path: Path) -> None:
    synthetic, real = folders
    page = turing.make(synthetic, real, tmp_path / "study", n=10)
    key = json.loads((tmp_path / "study" / "key.json").read_text())
    assert (tmp_path / "study" / "handout" / "study.html") == page
    assert [p.name for p in (tmp_path / "study" / "handout").iterdir()] == ["study.html"]
    sources = {
        "synthetic": sorted(synthetic.iterdir()),
        "real": sorted(real.iterdir(), key=lambda p: p.name),
    }
    shown = pictures_of(page)
    assert sorted(truths(tmp_path / "study" / "key.json")) == ["real"] * 10 + ["synthetic"] * 10
    for picture, image in zip(shown, key["images"], strict=True):
        with (
            Image.open(BytesIO(picture)) as seen,
            Image.open(sources[image["kind"]][image["index"]]) as source,
        ):
            assert (np.asarray(seen) == np.asarray(source)).all()
        assert hashlib.sha256(picture).hexdigest() == image["sha256"]


def test_the_hash_is_of_the_key_and_the_nonce_is_new_each_time(folders, tmp_path: Path) -> None:
    keys = []
    for name in "ab":
        page = turing.make(*folders, tmp_path / name, n=10)
        key = json.loads((tmp_path / name / "key.json").read_text())
        text = json.dumps(key, sort_keys=True, separators=(",", ":"))
        assert data_of(page)["study"] == hashlib.sha256(text.encode()).hexdigest()
        assert key["nonce"] not in page.read_text()
        keys.append(key)
    assert len(bytes.fromhex(keys[0]["nonce"])) == 32
    assert keys[0]["nonce"] != keys[1]["nonce"]
    kinds = [[(i["kind"], i["index"]) for i in key["images"]] for key in keys]
    assert kinds[0] != kinds[1]  # the same seed: the order is not of it
    assert sorted(kinds[0]) == sorted(kinds[1])  # and the images are


def test_all_images_have_the_same_bytes_but_for_their_pixels(folders, tmp_path: Path) -> None:
    shown = pictures_of(turing.make(*folders, tmp_path / "study", n=10))
    assert {tuple(chunks_of(p)) for p in shown} == {tuple(chunks_of(shown[0]))}
    assert [kind for kind, _ in chunks_of(shown[0])] == [b"IHDR", b"IDAT", b"IEND"]
    assert {p[:41] for p in shown} == {shown[0][:41]}  # signature, header, begin of the rows


def test_what_real_files_carry_besides_pixels_is_not_in_the_page(folders, tmp_path: Path) -> None:
    synthetic, real = folders
    assert PLANTED[0].encode() in next(real.iterdir()).read_bytes()
    page = turing.make(synthetic, real, tmp_path / "study", n=10)
    raw = page.read_bytes() + b"".join(pictures_of(page))
    for word in (*PLANTED, str(real), str(synthetic), real.name + "/"):
        assert word.encode() not in raw, word
    for word in PLANTED:  # the key is for whoever makes the study; names are not needed there
        assert word not in (tmp_path / "study" / "key.json").read_text()


def test_the_first_line_says_that_real_images_are_there(folders, tmp_path: Path) -> None:
    text = turing.make(*folders, tmp_path / "study", n=10).read_text()
    first = re.search(r"<body>\s*<p class=\"holds\">(.*?)</p>", text).group(1)
    assert first == "This page holds 10 real images. Keep it where they may be kept."
    opened = turing.make(folders[0], "phantom", tmp_path / "open", n=10).read_text()
    assert "This page holds 10 real images of open data." in opened


def test_pairs_hold_one_of_each_kind(folders, tmp_path: Path) -> None:
    page = turing.make(*folders, tmp_path / "study", n=12, forced_choice=True)
    kinds = truths(tmp_path / "study" / "key.json")
    pairs = [tuple(kinds[i : i + 2]) for i in range(0, 24, 2)]
    assert {frozenset(pair) for pair in pairs} == {frozenset({"real", "synthetic"})}
    assert len(set(pairs)) == 2  # the synthetic one is A of some and B of others
    assert data_of(page)["total"] == 12


def test_a_png_without_compression_is_read_by_others() -> None:
    for channels in (1, 3):
        levels = np.random.default_rng(0).integers(0, 256, (channels, 5, 7)).astype(np.uint8)
        with Image.open(BytesIO(png(levels))) as seen:
            assert seen.mode == ("L" if channels == 1 else "RGB")
            assert (np.moveaxis(np.atleast_3d(np.asarray(seen)), -1, 0) == levels).all()


def features_of(page: str, pictures: list[bytes]) -> np.ndarray:
    """What may be seen of each image without looking at its pixels."""
    lengths = [len(p) for p in pictures]
    rows = []
    for i, picture in enumerate(pictures):
        chunks = chunks_of(picture)
        around = [lengths[j] if 0 <= j < len(lengths) else 0 for j in (i - 1, i + 1)]
        header = list(picture[16:29])  # width, height, depth, colour type, ...
        depth = [len(chunks), sum(length for _, length in chunks), sum(map(ord, str(chunks)))]
        stored = list(picture[41:48])  # how the stream of pixels begins
        place = [i, i % 2, page.find(base64.b64encode(picture)[:60].decode()) / len(page)]
        rows.append([lengths[i], *around, *header, *depth, *stored, *place])
    return np.array(rows, float)


@pytest.mark.slow
def test_a_classifier_finds_nothing_over_twenty_pages(tmp_path: Path) -> None:
    """And finds everything on the same features, were the images compressed."""
    from sklearn.ensemble import RandomForestClassifier

    def accuracy(compressed: bool) -> tuple[float, int]:
        seen, kinds = [], []
        for number in range(20):
            rng = np.random.default_rng(number)
            noise = rng.integers(0, 256, (10, 1, 16, 16)).astype(np.uint8)
            smooth = (noise // 64 + np.arange(16, dtype=np.uint8)[:, None] * 8).astype(np.uint8)
            study = make_study(
                Kind(noise, tuple(range(10)), {}),
                Kind(smooth, tuple(range(10)), {}),
                design=SINGLE,
                margin=0.15,
                counted="low",
                made="",
            )
            page, pictures = study_page(study, (16, 16)), list(study.pictures)
            if compressed:
                for i, picture in enumerate(pictures):
                    buffer = BytesIO()
                    with Image.open(BytesIO(picture)) as image:
                        image.save(buffer, "PNG")
                    pictures[i] = buffer.getvalue()
            seen.append(features_of(page, pictures))
            kinds.append([image["kind"] == "real" for image in study.key["images"]])
        x, y = np.concatenate(seen), np.concatenate(kinds)
        halves = np.arange(len(y)) < len(y) // 2
        right = 0
        for train in (halves, ~halves):
            model = RandomForestClassifier(100, random_state=0).fit(x[train], y[train])
            right += int((model.predict(x[~train]) == y[~train]).sum())
        return right / len(y), len(y)

    share, n = accuracy(compressed=False)
    assert abs(share - 0.5) < 3 * 0.5 / n**0.5
    assert accuracy(compressed=True)[0] > 0.95


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"n": 13}, r"drawn holds 12 images; expected at least 13"),
        ({"n": 1}, r"at least 2 images"),
        ({"margin": 1.0}, r"margin is 1.0; expected a number between 0 and 1"),
        ({"margin": 0.5, "forced_choice": True}, r"between 0 and 0.5"),
        ({"counted": "sure"}, r"counted is 'sure'; expected low, medium, high"),
        ({"steps": 5}, r"--steps: .*drawn already"),
        ({"held_out": True}, r"holds nobody out"),
        ({"real": "nowhere"}, r"--real nowhere: there is no such run, folder or data set; known: "),
        ({"real": "fantom"}, r"--real fantom: .* data set; did you mean 'phantom'\?"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    folders, tmp_path: Path, change: dict, sentence: str
) -> None:
    arguments = {"model": folders[0], "real": folders[1], "n": 10, **change}
    with pytest.raises(ConfigError, match=sentence):
        turing.make(out=tmp_path / "study", **arguments)
    assert not (tmp_path / "study").exists()


def test_a_folder_that_is_there_is_not_touched(folders, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is there already"):
        turing.make(*folders, tmp_path / "drawn", n=10)


def test_sizes_that_differ_are_refused(folders, tmp_path: Path) -> None:
    small = write_images(tmp_path / "small", 12, smooth=True, seed=2, side=8, name="a{i}")
    with pytest.raises(ConfigError, match=r"8 x 8 pixels.*16 x 16.*told by their blur"):
        turing.make(folders[0], small, tmp_path / "study", n=10)
    large = write_images(tmp_path / "large", 12, smooth=True, seed=2, side=32, name="a{i}")
    turing.make(folders[0], large, tmp_path / "study", n=10)  # read at 16, as training reads it
    assert (data_of(tmp_path / "study/handout/study.html")["width"]) == 16
    write_images(tmp_path / "drawn" / "more", 1, smooth=False, seed=3, side=8)
    (tmp_path / "drawn/more/000000.png").rename(tmp_path / "drawn/000099.png")
    with pytest.raises(ConfigError, match=r"drawn holds images of 8 x 8 and 16 x 16 pixels"):
        turing.make(folders[0], folders[1], tmp_path / "mixed", n=13)


def test_real_images_inside_of_the_synthetic_ones_are_refused(folders, tmp_path: Path) -> None:
    synthetic, _ = folders
    inner = write_images(synthetic / "inner", 12, smooth=True, seed=5)
    for real in (synthetic, inner):
        with pytest.raises(ConfigError, match="lie within each other"):
            turing.make(synthetic, real, tmp_path / "study", n=10)


def test_one_image_in_both_sets_is_refused(folders, tmp_path: Path) -> None:
    synthetic, real = folders
    for i in range(12):
        (real / f"copy-{i}.png").write_bytes((synthetic / f"{i:06d}.png").read_bytes())
    for path in real.glob("scan-*"):
        path.unlink()
    with pytest.raises(
        ConfigError, match=r"real image \d+ is synthetic image \d+, pixel for pixel"
    ):
        turing.make(synthetic, real, tmp_path / "study", n=12)


def test_seeds_decide_which_images_are_taken(folders, tmp_path: Path) -> None:
    taken = []
    for i, seed in enumerate((0, 0, 1)):
        turing.make(*folders, tmp_path / f"{i}", n=6, seed=seed)
        key = json.loads((tmp_path / f"{i}" / "key.json").read_text())
        taken.append(sorted((image["kind"], image["index"]) for image in key["images"]))
    assert taken[0] == taken[1] != taken[2]


def test_real_images_may_be_those_of_patients_held_out(folders, tmp_path: Path) -> None:
    page = turing.make(folders[0], "phantom", tmp_path / "study", n=3, held_out=True)
    heads = ssmdiff.create("dataset", "phantom", image_size=(16, 16)).held_out
    images = json.loads((tmp_path / "study" / "key.json").read_text())["images"]
    for picture, image in zip(pictures_of(page), images, strict=True):
        if image["kind"] == "real":
            levels = ssmdiff.to_levels(heads[image["index"]].image.numpy())
            with Image.open(BytesIO(picture)) as seen:
                assert (np.asarray(seen) == levels[0]).all()


@pytest.mark.slow
def test_images_of_a_run_are_those_of_the_seed(tmp_path: Path, monkeypatch) -> None:
    run = ssmdiff.train(
        data={"dataset": {"name": "phantom", "length": 32}, "image_size": 16},
        model={
            "backbone": {"name": "vmddpm", "channels": 8, "widths": [1, 2], "layers": 1},
            "block": {"name": "conv"},
        },
        train={"steps": 2, "batch_size": 2, "sample_every": 0, "bound_images": 0, "callbacks": []},
        sample={"steps": 2, "count": 1},
        out=tmp_path / "run",
    ).path
    page = turing.make(run, run, tmp_path / "study", n=4, seed=7, batch_size=4)
    drawn = ssmdiff.to_levels(ssmdiff.load_run(run).sample(4, seed=7, batch_size=4).numpy())
    heads = ssmdiff.build_dataset(ssmdiff.load_run(run).config)
    images = json.loads((tmp_path / "study" / "key.json").read_text())["images"]
    for picture, image in zip(pictures_of(page), images, strict=True):
        real = image["kind"] == "real"
        i = image["index"]
        levels = ssmdiff.to_levels(heads[i].image.numpy()) if real else drawn[i]
        with Image.open(BytesIO(picture)) as seen:
            assert (np.asarray(seen) == levels[0]).all()
    colour = tmp_path / "colour"
    colour.mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(colour / f"{i}.png")
    monkeypatch.setattr(ssmdiff.Run, "draw", lambda *_: pytest.fail("drawn before it is refused"))
    with pytest.raises(ConfigError, match="16 x 16 with 1 channel and the real ones"):
        turing.make(run, colour, tmp_path / "other", n=4)
    with pytest.raises(ConfigError, match="colour holds 4 images; expected at least 5"):
        turing.make(run, colour, tmp_path / "other", n=5)


def test_samples_in_other_units_are_refused(folders, tmp_path: Path) -> None:
    told = {"format": {"name": "png16", "units": "data"}}
    (folders[0] / "samples.json").write_text(json.dumps(told))
    with pytest.raises(DataError, match="of --format png16, in units of the data"):
        turing.make(*folders, tmp_path / "study", n=10)


def test_one_window_and_one_rounding_for_both_kinds(folders, tmp_path: Path) -> None:
    """Values of a model as .npy give the levels that an 8-bit file of a real image has."""
    values = np.linspace(-1, 1, 256, dtype=np.float32).reshape(1, 16, 16)
    drawn = tmp_path / "values"
    drawn.mkdir()
    for i in range(2):
        np.save(drawn / f"{i:06d}.npy", values if i else values[:, ::-1])
    page = turing.make(drawn, folders[1], tmp_path / "study", n=2)
    kinds = truths(tmp_path / "study" / "key.json")
    for picture in [p for p, k in zip(pictures_of(page), kinds, strict=True) if k == "synthetic"]:
        with Image.open(BytesIO(picture)) as seen:
            assert sorted(np.asarray(seen).ravel().tolist()) == list(range(256))


def test_pages_differ_where_the_design_does() -> None:
    rng = np.random.default_rng(0)
    kinds = [
        Kind(rng.integers(0, 256, (4, 1, 8, 8)).astype(np.uint8), tuple(range(4)), {})
        for _ in range(2)
    ]
    study = make_study(*kinds, design=PAIRS, margin=0.1, counted="medium", made="now")
    terms = DataTerms("Hearts", "CC BY 4.0", "A. Author, 2020")
    page = study_page(study, (8, 8), title="<Ward & 7>", terms=terms)
    assert "Real images of Hearts: CC BY 4.0. To be cited: A. Author, 2020" in page
    assert "<title>&lt;Ward &amp; 7&gt;</title>" in page
    assert "Which is synthetic?" in page
    assert study.key["counted"] == "medium"
    assert zlib.crc32(study.pictures[0]) != zlib.crc32(study.pictures[1])
