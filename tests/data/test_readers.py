"""Readers of pictures and arrays: stacks, archives, and who reads a file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmdiff
from PIL import Image
from ssmdiff import DataError, ImageData, ImageHeader, Source
from ssmdiff.errors import ContractError

RNG = np.random.default_rng(0)
PAGES = RNG.integers(0, 65536, (6, 5, 7), dtype=np.uint16)


def save(path: Path, pages: np.ndarray, **options: Any) -> Path:
    first, *others = [Image.fromarray(page) for page in pages]
    first.save(path, "TIFF", save_all=True, append_images=others, **options)
    return path


def read(path: Path, reader: str = "picture", **options: Any) -> ImageData:
    built = ssmdiff.create("reader", reader, **options)
    (source,) = built.sources(path.parent, iter([path]))
    data: ImageData = built.read(source)
    assert data.header == built.header(source)
    return data


@pytest.mark.parametrize(
    ("note", "axes", "shape"),
    [
        ("", "zyx", (6, 5, 7)),
        ("ImageJ=1.53t\nimages=6\nslices=6\n", "zyx", (6, 5, 7)),
        ("ImageJ=1.53t\nimages=6\nframes=6\n", "tyx", (6, 5, 7)),
        ("ImageJ=1.53t\nimages=6\nslices=2\nframes=3\nhyperstack=true\n", "tzyx", (3, 2, 5, 7)),
        ("ImageJ=1.53t\nimages=6\nslices=2\nframes=2\n", "zyx", (6, 5, 7)),
    ],
)
@pytest.mark.parametrize("compression", [None, "tiff_adobe_deflate"])
def test_pages_are_slices_or_times(
    tmp_path: Path, note: str, axes: str, shape: tuple[int, ...], compression: str | None
) -> None:
    options = {"description": note, "compression": compression}
    path = save(tmp_path / "a.tif", PAGES, **{k: v for k, v in options.items() if v})
    data = read(path)
    assert (data.header.axes, data.header.shape) == (axes, shape)
    assert (data.values == PAGES.reshape(shape)).all()
    assert data.values.dtype == np.uint16
    assert data.header.value_range == (0, 65535)


def test_stacks_that_no_volume_is_made_of_are_refused(tmp_path: Path) -> None:
    note = "ImageJ=1.53t\nimages=6\nchannels=3\nslices=2\n"
    with pytest.raises(DataError, match="3 each are channels"):
        read(save(tmp_path / "a.tif", PAGES, description=note))
    mixed = [Image.fromarray(PAGES[0]), Image.fromarray(PAGES[1][:4])]
    mixed[0].save(tmp_path / "b.tif", save_all=True, append_images=mixed[1:])
    with pytest.raises(DataError, match="page 1 is 4 x 7 of mode I;16, and page 0 is 5 x 7"):
        read(tmp_path / "b.tif")
    with pytest.raises(DataError, match="6 planes"):
        read(save(tmp_path / "c.tif", PAGES), stacks=False)


def test_a_tiff_that_has_fewer_rows_than_it_claims_is_refused(tmp_path: Path) -> None:
    whole = save(tmp_path / "a.tif", PAGES[:1]).read_bytes()
    tag = (257).to_bytes(2, "little") + (4).to_bytes(2, "little") + (1).to_bytes(4, "little")
    if tag not in whole:
        tag = (257).to_bytes(2, "little") + (3).to_bytes(2, "little") + (1).to_bytes(4, "little")
    place = whole.index(tag) + 8
    changed = whole[:place] + (500).to_bytes(2, "little") + whole[place + 2 :]
    (tmp_path / "a.tif").write_bytes(changed)
    with pytest.raises(DataError, match="7000 bytes of pixels"):
        read(tmp_path / "a.tif")


def test_the_header_knows_what_exif_turns(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    for name in ("a.jpg", "a.png", "a.tif"):
        Image.fromarray(PAGES[0].astype(np.uint8)).save(tmp_path / name, exif=exif)
        assert read(tmp_path / name).header.shape == (7, 5)


def test_a_pictures_values_are_as_they_are_stored(tmp_path: Path) -> None:
    levels = PAGES[0].astype(np.uint8)
    for image, axes in ((levels, "yx"), (np.stack([levels] * 3, -1), "yxc")):
        Image.fromarray(image).save(tmp_path / "a.png")
        data = read(tmp_path / "a.png")
        assert (data.values == image).all()
        assert (data.values.dtype, data.header.axes) == (np.uint8, axes)
    alpha = np.dstack([levels, levels, levels, np.full_like(levels, 51)])
    Image.fromarray(alpha).save(tmp_path / "a.png")
    blended = read(tmp_path / "a.png", alpha="white").values
    assert np.abs(blended - (alpha[..., :3] * 0.2 + 255 * 0.8)).max() < 1e-4
    with pytest.raises(DataError, match="alpha channel"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((4, 5), "yx"), ((4, 5, 3), "yxc"), ((2, 4, 5), "zyx"), ((2, 4, 5, 1), "zyxc"),
     ((2, 3, 4, 5), "tzyx")],
)  # fmt: skip
def test_every_array_of_an_archive_is_an_image(
    tmp_path: Path, shape: tuple[int, ...], axes: str
) -> None:
    image = RNG.normal(size=shape)
    np.savez_compressed(tmp_path / "a.npz", image=image, label=3, words=np.array(["a"]))
    np.save(tmp_path / "a.npy", image)
    found = ssmdiff.gather(tmp_path, [tmp_path / "a.npz", tmp_path / "a.npy"])
    assert [(of, source.part) for of, source in found.sources] == [
        ("picture", ""),
        ("npz", "image"),
    ]
    readers, _ = ssmdiff.make_readers()
    for of, source in found.sources:
        data = readers[of].read(source)
        assert (data.header.axes, data.header.value_range) == (axes, None)
        assert (data.values == image).all()


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.array([1, 2]), "shape"),
        (np.array(["a", "b"]), "expected numbers"),
        (np.zeros((0, 4)), "nothing in it"),
        (np.full((3, 4), np.nan), "12 of 12 values are NaN"),
        (np.zeros((2, 2, 2, 2, 2)), "shape"),
        (np.zeros((2, 2), complex), "expected numbers"),
    ],
)
def test_what_is_no_image_in_an_archive_is_a_sentence(
    tmp_path: Path, image: np.ndarray, said: str
) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, image=image)
    found = ssmdiff.gather(tmp_path, [path])
    if found.refused:
        assert said in found.refused[0].reason
        return
    with pytest.raises(DataError, match=said):
        ssmdiff.create("reader", "npz").read(found.sources[0][1])


def test_an_archive_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, image=np.zeros((64, 64)))
    with zipfile.ZipFile(path) as whole:
        array = whole.read("image.npy")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as changed:
        changed.writestr("image.npy", array.replace(b"(64, 64)", b"(640000, 40000)"[:8]))
    source = Source((path,), "a.npz", "image")
    reader = ssmdiff.create("reader", "npz")
    with pytest.raises(DataError):
        reader.read(source)
    np.savez(path, image=np.zeros((640, 640)))
    with pytest.raises(DataError, match=r"at most 0\.001 GB"):
        ssmdiff.create("reader", "npz", max_bytes=10**6).read(source)


def test_a_zip_of_something_else_is_nobodys(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("word/document.xml", "x")
    assert ssmdiff.gather(tmp_path, [tmp_path / "a.npz"]).unclaimed == (tmp_path / "a.npz",)


class Claims:
    """Claims all files, and has a suffix."""

    def __init__(self, suffix: str) -> None:
        self.suffixes = frozenset({suffix})

    def claims(self, path: Path, head: bytes) -> bool:
        return head == b"x"

    def sources(self, root: Path, files: Any) -> Any:
        return [Source((path,), path.name) for path in files]


def test_of_several_readers_the_one_of_the_suffix_reads_a_file(tmp_path: Path) -> None:
    for name in ("f.b", "f.c", "g.b"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "other").write_bytes(b"y")
    readers: Any = {"second": Claims(".b"), "first": Claims(".a")}
    counted = []
    files = sorted(tmp_path.iterdir())
    found = ssmdiff.gather(tmp_path, files, readers, lambda: counted.append(1))
    assert {source.name: of for of, source in found.sources} == {
        "f.b": "second", "f.c": "first", "g.b": "second",
    }  # fmt: skip
    assert found.unclaimed == (tmp_path / "other",)
    assert len(counted) == len(files)
    assert ssmdiff.reader_of(tmp_path / "absent", readers) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"axes": "xy"},
        {"axes": "zyx"},
        {"shape": (0, 3)},
        {"spacing": (1.0,)},
        {"spacing": (1.0, -1.0)},
        {"affine": ((1.0,),)},
        {"affine": ((float("nan"),) * 4,) * 4},
    ],
)
def test_a_header_that_contradicts_itself_is_refused(wrong: dict[str, Any]) -> None:
    sound: dict[str, Any] = {"shape": (2, 3), "axes": "yx", "depth": "uint8", "spacing": (1.0, 2.0)}
    assert ImageHeader(**sound).size("z") == 1
    assert ImageHeader(**sound).size("x") == 3
    assert "Hans" not in repr(ImageHeader(**sound, patient="Hans", series="Hans"))
    with pytest.raises(ContractError):
        ImageHeader(**{**sound, **wrong})
