"""Images on disk, against values known without the reader: what was stored, by arithmetic."""

from __future__ import annotations

import itertools
import os
import pickle
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmdiff
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from ssmdiff.errors import ConfigError, DataError, printable
from ssmdiff_data.finding import find_images
from ssmdiff_data.folder import FolderDataset
from ssmdiff_data.scaling import scale
from torch.utils.data import DataLoader

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (12, 10), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (12, 10), dtype=np.uint16)
COLOUR8 = RNG.integers(0, 256, (12, 10, 3), dtype=np.uint8)
ORIENTATION = 274


def png(path: Path, array: np.ndarray, bits: int, colour_type: int, *chunks: bytes) -> None:
    """A PNG written by hand, row filter 0: Pillow writes no 16-bit colour."""

    def chunk(body: bytes) -> bytes:
        return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))

    height, width = array.shape[:2]
    rows = b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    body = [b"IHDR" + header, *chunks, b"IDAT" + zlib.compress(rows), b"IEND"]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(part) for part in body))


def tiff(
    path: Path,
    array: np.ndarray,
    *,
    photometric: int = 1,
    sample_format: int = 1,
    orientation: int = 1,
) -> None:
    """An uncompressed little-endian TIFF of one strip, written by hand."""
    samples = 1 if array.ndim == 2 else array.shape[2]
    bits = array.dtype.itemsize * 8
    data = array.astype(array.dtype.newbyteorder("<")).tobytes()
    count = 11
    bits_at = 8 + 2 + 12 * count + 4
    data_at = bits_at + 2 * samples
    tags = [
        (256, 4, 1, array.shape[1]),
        (257, 4, 1, array.shape[0]),
        (258, 3, samples, bits if samples == 1 else bits_at),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, data_at),
        (274, 3, 1, orientation),
        (277, 3, 1, samples),
        (278, 4, 1, array.shape[0]),
        (279, 4, 1, len(data)),
        (339, 3, 1, sample_format),
    ]
    directory = struct.pack("<H", count) + b"".join(struct.pack("<HHII", *t) for t in tags)
    path.write_bytes(
        b"II*\0"
        + struct.pack("<I", 8)
        + directory
        + b"\0\0\0\0"
        + struct.pack("<H", bits) * samples
        + data
    )


def only(folder: Path, size: tuple[int, int] = (12, 10), **options: Any) -> np.ndarray:
    """The one image of a folder: (C, H, W)."""
    dataset = FolderDataset(size, path=str(folder), **options)
    assert len(dataset) == 1
    image = dataset[0].image
    assert image.shape == (dataset.channels, *size)
    assert image.dtype == torch.float32
    return image.numpy()


def unit(array: np.ndarray, white: float) -> np.ndarray:
    """(H, W) or (H, W, C), 0 to white, as (C, H, W) float64, -1 to 1."""
    values = array.astype(np.float64) / white * 2 - 1
    return values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)


def write(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "array", "white"),
    [
        ("a.png", GREY8, 255),
        ("a.tif", GREY8, 255),
        ("a.TIFF", GREY8, 255),
        ("a.npy", GREY8, 255),
        ("a.npy", GREY8[..., None], 255),
        ("a.png", GREY16, 65535),
        ("a.tif", GREY16, 65535),
        ("a.npy", GREY16, 65535),
        ("a.npy", GREY16.astype(">u2"), 65535),
        ("a.npy", np.asfortranarray(GREY16), 65535),
        ("a.PNG", COLOUR8, 255),
        ("a.tif", COLOUR8, 255),
        ("a.npy", COLOUR8, 255),
        ("a.npy", np.stack([GREY16] * 3, -1), 65535),
        ("a.png", GREY8 > 100, 1),
        ("a.tif", GREY8 > 100, 1),
        ("a.npy", GREY8 > 100, 1),
    ],
)
def test_stored_values_come_back_at_their_depth(
    tmp_path: Path, name: str, array: np.ndarray, white: int
) -> None:
    write(tmp_path / name, array)
    expected = unit(array, white)
    np.testing.assert_allclose(only(tmp_path), expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize("name", ["ramp.png", "ramp.tif", "ramp.npy"])
def test_a_16_bit_ramp_keeps_its_levels(tmp_path: Path, name: str) -> None:
    ramp = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    write(tmp_path / name, ramp)
    image = only(tmp_path, (64, 64))
    assert len(np.unique(image)) == 4096
    assert image.mean() == pytest.approx(2 * 32760 / 65535 - 1, abs=1e-6)
    assert image.min() == -1
    assert image.max() == pytest.approx(2 * 65520 / 65535 - 1, abs=1e-7)


def test_jpeg_grey_and_colour_within_its_loss(tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.JPG", quality=95)
    np.testing.assert_allclose(only(tmp_path, (64, 64)), unit(smooth, 255), atol=0.03)
    colour = np.stack([smooth, smooth[::-1], smooth.T], -1)
    Image.fromarray(colour).save(tmp_path / "a.JPG", quality=95, subsampling=0)
    np.testing.assert_allclose(only(tmp_path, (64, 64)), unit(colour, 255), atol=0.06)


def test_12_bit_data_in_16_bits_needs_its_range_stated(tmp_path: Path) -> None:
    array = GREY16 // 16
    array[0, 0] = 4095
    write(tmp_path / "a.png", array)
    assert only(tmp_path).max() == pytest.approx(4095 / 65535 * 2 - 1)
    image = only(tmp_path, value_range=(0.0, 4095.0))
    np.testing.assert_allclose(image, unit(array, 4095), atol=2e-7)


def test_hounsfield_window_clips_only_when_told(tmp_path: Path) -> None:
    array = np.array([[-1024, -160, 40, 240, 3071]] * 5, dtype=np.int16)
    write(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=r"a\.npy: int16 values have no known black and white"):
        FolderDataset((5, 5), path=str(tmp_path))
    dataset = FolderDataset((5, 5), path=str(tmp_path), value_range=(-160.0, 240.0))
    with pytest.raises(DataError, match=r"values from -1024 to 3071; expected -160 to 240"):
        dataset[0]
    image = only(tmp_path, (5, 5), value_range=(-160.0, 240.0), clip=True)
    np.testing.assert_allclose(image[0, 0], [-1, -1, 0, 1, 1], atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", "int32", "int64"])
def test_floats_and_signed_integers_take_the_range(tmp_path: Path, dtype: str) -> None:
    array = np.arange(-60, 60).reshape(12, 10).astype(dtype)
    write(tmp_path / "a.npy", array)
    image = only(tmp_path, value_range=(-60.0, 60.0))
    np.testing.assert_allclose(image[0], array.astype(np.float64) / 60, atol=1e-6)


def test_float_and_signed_tiff_take_the_range(tmp_path: Path) -> None:
    array = np.linspace(-3, 5, 120, dtype=np.float32).reshape(12, 10)
    tiff(tmp_path / "a.tif", array, sample_format=3)
    expected = np.linspace(-1, 1, 120).reshape(12, 10)
    np.testing.assert_allclose(only(tmp_path, value_range=(-3.0, 5.0))[0], expected, atol=1e-6)
    signed = np.linspace(-1000, 1000, 120).astype(np.int16).reshape(12, 10)
    tiff(tmp_path / "a.tif", signed, sample_format=2)
    image = only(tmp_path, value_range=(-1000.0, 1000.0))
    np.testing.assert_allclose(image[0], signed / 1000, atol=1e-6)


@pytest.mark.parametrize("array", [GREY8, GREY16])
def test_tiff_white_is_zero_is_turned_round(tmp_path: Path, array: np.ndarray) -> None:
    tiff(tmp_path / "a.tif", array, photometric=0)
    white = np.iinfo(array.dtype).max
    np.testing.assert_allclose(only(tmp_path), -unit(array, white), atol=2e-7)


def test_palette_becomes_rgb(tmp_path: Path) -> None:
    picture = Image.new("P", (10, 12), 1)
    picture.putpalette([0, 0, 0, 255, 0, 51])
    picture.save(tmp_path / "a.png")
    image = only(tmp_path)
    np.testing.assert_allclose(image[:, 3, 3], [1, -1, -0.6], atol=1e-6)


@pytest.mark.parametrize(("behind", "value"), [("black", -1.0), ("white", 1.0)])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_blended_over_the_colour_asked_for(
    tmp_path: Path, mode: str, behind: str, value: float
) -> None:
    array = np.zeros((12, 10, len(mode)), np.uint8)
    array[..., :-1] = 102  # -0.2
    array[6:, :, -1] = 255
    array[:2, :, -1] = 51  # one fifth
    Image.fromarray(array).save(tmp_path / "a.png")
    image = only(tmp_path, alpha=behind)
    assert image.shape[0] == len(mode) - 1
    np.testing.assert_allclose(image[:, 6:], -0.2, atol=1e-6)
    np.testing.assert_allclose(image[:, 2:6], value, atol=1e-6)
    np.testing.assert_allclose(image[:, :2], 0.2 * -0.2 + 0.8 * value, atol=1e-6)


def test_channels_are_converted_only_when_asked(tmp_path: Path) -> None:
    primaries = np.zeros((12, 10, 3), np.uint8)
    primaries[:4, :, 0] = primaries[4:8, :, 1] = primaries[8:, :, 2] = 255
    write(tmp_path / "a.png", primaries)
    assert only(tmp_path).shape[0] == 3
    luma = only(tmp_path, channels=1)[0, [0, 5, 10], 0]
    np.testing.assert_allclose(luma, 2 * np.array([0.299, 0.587, 0.114]) - 1, atol=1e-6)
    write(tmp_path / "a.png", GREY8)
    tripled = only(tmp_path, channels=3)
    np.testing.assert_allclose(tripled, np.repeat(unit(GREY8, 255), 3, 0), atol=2e-7)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [(1, lambda a: a), (3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1))],
)
def test_exif_orientation_is_applied(
    tmp_path: Path, depth: type, orientation: int, upright: Any
) -> None:
    array = np.arange(12, dtype=depth).reshape(3, 4)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(array).save(tmp_path / "a.png", exif=exif)
    expected = upright(array)
    image = only(tmp_path, expected.shape)
    np.testing.assert_allclose(image, unit(expected, np.iinfo(depth).max), atol=1e-6)


@pytest.mark.parametrize("array", [GREY8, GREY16, COLOUR8])
def test_turned_uncompressed_tiff_is_not_scrambled(tmp_path: Path, array: np.ndarray) -> None:
    tiff(tmp_path / "a.tif", array, photometric=1 if array.ndim == 2 else 2, orientation=6)
    expected = unit(np.rot90(array, -1), np.iinfo(array.dtype).max)
    np.testing.assert_allclose(only(tmp_path, (10, 12)), expected, atol=2e-7)


def test_center_covers_the_size_and_cuts_the_middle(tmp_path: Path) -> None:
    wide = np.zeros((20, 60), np.uint8)
    wide[:, 20:40] = 255
    write(tmp_path / "a.png", wide)
    assert (only(tmp_path, (20, 20)) == 1).all()
    assert (only(tmp_path, (10, 10))[:, :, 1:-1] > 0.99).all()
    padded = only(tmp_path, (60, 60), resize="pad")[0]
    assert (padded[:20] == -1).all()
    assert (padded[40:] == -1).all()
    np.testing.assert_array_equal(padded[20:40], unit(wide, 255)[0])
    stretched = only(tmp_path, (20, 6), resize="stretch")[0]
    assert stretched[:, 2:4].min() > 0.8
    assert stretched[:, [0, 5]].max() < -0.9


def test_scaling_is_antialiased_and_keeps_ramps() -> None:
    checks = torch.from_numpy(np.indices((64, 64)).sum(0) % 2 * 2.0 - 1).float()[None]
    assert scale(checks, (8, 8), "center").abs().max() < 0.02
    ramp = torch.linspace(-0.9, 0.9, 64).expand(1, 64, 64)
    halved = scale(ramp, (32, 32), "center")
    expected = ramp.reshape(1, 64, 32, 2).mean(-1)[:, :32]
    torch.testing.assert_close(halved[..., 3:-3], expected[..., 3:-3], atol=1e-4, rtol=0)
    step = torch.cat([torch.full((1, 9, 4), -1.0), torch.full((1, 9, 5), 1.0)], -1)
    assert scale(step, (33, 33), "center").abs().max() <= 1


@pytest.mark.parametrize("shape", [(1, 20000), (20000, 1), (1, 1), (7, 9), (300, 200)])
@pytest.mark.parametrize("resize", ["center", "pad", "stretch"])
@pytest.mark.parametrize("size", [(8, 8), (16, 6)])
def test_any_size_is_scaled_to_the_size(
    shape: tuple[int, int], resize: Any, size: tuple[int, int]
) -> None:
    image = scale(torch.full((1, *shape), 0.25), size, resize)
    assert image.shape == (1, *size)
    kept = image[image != -1]
    torch.testing.assert_close(kept, torch.full_like(kept, 0.25))
    assert resize == "pad" or (image != -1).all()


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16]), hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)
    )
)
def test_every_unsigned_array_survives(tmp_path_factory: Any, array: np.ndarray) -> None:
    folder = tmp_path_factory.mktemp("any")
    write(folder / "a.npy", array)
    image = only(folder, array.shape)
    back = np.round((image[0].astype(np.float64) + 1) / 2 * np.iinfo(array.dtype).max)
    np.testing.assert_array_equal(back, array)


def test_files_are_sorted_recursive_and_any_case(tmp_path: Path) -> None:
    names = ["b.PNG", "a.png", "sub/deep/c.JPeG", "sub/a.tif", "Z.npy", "a.b.png"]
    for i, name in enumerate(names):
        path = write((tmp_path / name).with_suffix(".npy"), np.full((2, 2), i, np.uint8))
        if not name.endswith(".npy"):
            Image.fromarray(np.load(path)).save(tmp_path / name)
            path.unlink()
    for name in ["notes.txt", ".hidden.png", ".cache/x.png", "__MACOSX/._a.png", "readme"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"junk")
    found = find_images(tmp_path)
    assert found.images == ["Z.npy", "a.b.png", "a.png", "b.PNG", "sub/a.tif", "sub/deep/c.JPeG"]
    assert found.left_out == {
        ".txt": ["notes.txt"], "no suffix": ["readme"],
        "hidden": [".cache", ".hidden.png", "__MACOSX/._a.png"],
    }  # fmt: skip
    dataset = FolderDataset((2, 2), path=str(tmp_path))
    values = [round((float(dataset[i].image[0, 0, 0]) + 1) * 127.5) for i in range(6)]
    assert values == [4, 5, 1, 0, 3, 2]


def test_labels_are_the_first_folders(tmp_path: Path) -> None:
    for name in ["tumour/x.png", "healthy/b/y.png", "healthy/a.png"]:
        write(tmp_path / name, GREY8)
    dataset = FolderDataset((8, 8), path=str(tmp_path), labels="folders")
    assert dataset.class_names == ("healthy", "tumour")
    assert [dataset[i].label for i in range(3)] == [0, 0, 1]
    assert FolderDataset((8, 8), path=str(tmp_path)).class_names == ()
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DataError, match=r"1 class folders .* hold no image that can be used: empty"
    ):
        FolderDataset((8, 8), path=str(tmp_path), labels="folders")
    (tmp_path / "empty").rmdir()
    write(tmp_path / "loose.png", GREY8)
    with pytest.raises(DataError, match=r"lie in no class folder .* such as loose\.png"):
        FolderDataset((8, 8), path=str(tmp_path), labels="folders")


def test_pickled_and_in_loader_workers(tmp_path: Path) -> None:
    for i in range(5):
        write(tmp_path / f"{i}.png", GREY16 + np.uint16(i))
    dataset = FolderDataset((6, 5), path=str(tmp_path))
    loaded = [s.image for s in DataLoader(dataset, batch_size=None, num_workers=2)]
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.fingerprint() == dataset.fingerprint()
    for i, image in enumerate(loaded):
        assert image.equal(dataset[i].image)
        assert image.equal(copy[i].image)


def test_fingerprint_survives_a_copy_and_tells_options_apart(tmp_path: Path) -> None:
    write(tmp_path / "one/a.png", COLOUR8)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    os.utime(tmp_path / "two/a.png", (1, 1))
    first = FolderDataset((8, 8), path=str(tmp_path / "one")).fingerprint()
    assert FolderDataset((8, 8), path=str(tmp_path / "two")).fingerprint() == first
    variants: list[dict[str, Any]] = [
        {"channels": 1},
        {"resize": "pad"},
        {"clip": True},
        {"alpha": "black"},
        {"value_range": (0.0, 256.0)},
    ]
    digests = {
        FolderDataset((8, 8), path=str(tmp_path / "one"), **v).fingerprint() for v in variants
    }
    digests.add(FolderDataset((8, 9), path=str(tmp_path / "one")).fingerprint())
    assert len(digests | {first}) == 7
    same = FolderDataset((8, 8), path=str(tmp_path / "one"), max_pixels=1000, on_bad="quarantine")
    assert same.fingerprint() == first


def test_options_are_checked_by_the_registry(tmp_path: Path) -> None:
    write(tmp_path / "a.png", GREY8)
    dataset = ssmdiff.create(
        "dataset", "folder", image_size=(8, 8), path=str(tmp_path), value_range=[0, 255], channels=3
    )
    assert dataset[0].image.shape == (3, 8, 8)
    bad: list[dict[str, Any]] = [
        {},
        {"path": str(tmp_path), "chanels": 1},
        {"path": str(tmp_path), "channels": 2},
        {"path": str(tmp_path), "value_range": [1, 0]},
        {"path": str(tmp_path), "max_pixels": 10**9},
        {"path": str(tmp_path), "max_bad_fraction": 1.5},
    ]
    for options in bad:
        with pytest.raises(ConfigError):
            ssmdiff.create("dataset", "folder", image_size=(8, 8), **options)
    with pytest.raises(ConfigError, match=r"expected\s+\(height, width\)"):
        FolderDataset((8, 8, 8), path=str(tmp_path))


def test_index_out_of_range_is_an_index_error(tmp_path: Path) -> None:
    write(tmp_path / "a.png", GREY8)
    dataset = FolderDataset((8, 8), path=str(tmp_path))
    for index in (-1, 1):
        with pytest.raises(IndexError):
            dataset[index]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 3, 4, 5)), "shape"),
        (np.zeros((3, 12, 10), np.uint8), "moveaxis"),
        (np.zeros((12, 10, 4), np.uint8), "shape"),
        (np.zeros((12, 10), np.complex64), "complex64"),
        (np.zeros((12, 10), "datetime64[s]"), "datetime64"),
        (np.zeros((12, 10), [("a", "u1")]), "expected numbers"),
        (np.array([[{}]], dtype=object), "object"),
        (np.zeros((0, 10), np.uint8), "nothing in it"),
        (np.zeros((12, 10), np.uint32), "value_range"),
        (np.zeros((12, 10), np.float32), "value_range"),
    ],
)
def test_arrays_that_are_no_image_are_refused(tmp_path: Path, array: Any, words: str) -> None:
    write(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=words) as caught:
        FolderDataset((8, 8), path=str(tmp_path))
    assert str(tmp_path / "a.npy") in str(caught.value)


@pytest.mark.parametrize(
    ("colour_type", "samples"), [(2, 3), (4, 2), (6, 4)], ids=["rgb", "la", "rgba"]
)
def test_16_bit_colour_png_is_refused_not_cut(
    tmp_path: Path, colour_type: int, samples: int
) -> None:
    array = RNG.integers(0, 65536, (12, 10, samples), dtype=np.uint16)
    png(tmp_path / "a.png", array, 16, colour_type)
    with pytest.raises(DataError, match=r"16-bit .* would cut to 8 bits. Save it as .npy"):
        FolderDataset((8, 8), path=str(tmp_path), alpha="black")


def test_tiff_that_pillow_would_misread_is_refused(tmp_path: Path) -> None:
    colour16 = np.stack([GREY16] * 3, -1)
    tiff(tmp_path / "a.tif", colour16, photometric=2)
    with pytest.raises(DataError, match="16-bit RGB, which Pillow would cut to 8 bits"):
        FolderDataset((8, 8), path=str(tmp_path))
    tiff(tmp_path / "a.tif", GREY8.astype(np.int8), sample_format=2)
    with pytest.raises(DataError, match="signed 8-bit"):
        FolderDataset((8, 8), path=str(tmp_path), value_range=(-128.0, 127.0))
    tiff(tmp_path / "a.tif", GREY8.astype(np.uint32))
    with pytest.raises(DataError, match="32-bit"):
        FolderDataset((8, 8), path=str(tmp_path), value_range=(0.0, 255.0))
    tiff(tmp_path / "a.tif", GREY8.astype(np.float32), photometric=0, sample_format=3)
    with pytest.raises(DataError, match="WhiteIsZero"):
        FolderDataset((8, 8), path=str(tmp_path), value_range=(0.0, 255.0))


def test_several_pages_are_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(GREY8), Image.fromarray(255 - GREY8)]
    for name in ("a.tif", "a.png"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
        with pytest.raises(DataError, match="several pages or frames"):
            FolderDataset((8, 8), path=str(tmp_path))
        (tmp_path / name).unlink()


def test_one_range_is_not_stretched_over_two_depths(tmp_path: Path) -> None:
    write(tmp_path / "a.png", GREY8)
    write(tmp_path / "b.png", GREY16)
    assert len(FolderDataset((8, 8), path=str(tmp_path))) == 2
    with pytest.raises(DataError, match=r"differ in depth: 1 of 1 channel \(uint8\).*uint16"):
        FolderDataset((8, 8), path=str(tmp_path), value_range=(0.0, 65535.0))


def test_transparency_hidden_in_a_chunk_is_found(tmp_path: Path) -> None:
    transparent = b"tRNS" + struct.pack(">H", 0)
    for bits, array in ((8, GREY8), (16, GREY16)):
        png(tmp_path / "a.png", array, bits, 0, transparent)
        with pytest.raises(DataError, match=r"alpha|transparency"):
            FolderDataset((8, 8), path=str(tmp_path))


@pytest.mark.parametrize("text", ["plain.png", "ä b.png", "line\nbreak.png", "\x1b[31mred.png"])
def test_names_print_on_one_line(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert text.isprintable() == (shown == text)
    shown.encode("utf-8")


def test_suffixes_do_not_decide_the_format(tmp_path: Path) -> None:
    for stored, suffix in itertools.permutations(["PNG", "TIFF"], 2):
        path = tmp_path / f"a.{suffix.lower()}"
        Image.fromarray(GREY8).save(path, format=stored)
        np.testing.assert_allclose(only(tmp_path), unit(GREY8, 255), atol=2e-7)
        path.unlink()
