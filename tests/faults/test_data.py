"""Rows D1 to D16 of the faults catalogue, as far as PNG, TIFF, JPEG and .npy files go."""

from __future__ import annotations

import io
import logging
import os
import socket
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmdiff
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from ssmdiff.errors import DataError
from ssmdiff_data.folder import FolderDataset
from ssmdiff_data.images import ReadRules, read_image
from torch.utils.data import DataLoader

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
MARKER = "DOE^JANE-19700101"


def encoded(kind: str) -> bytes:
    """A 64 x 64 colour image in one of the formats; TIFF compressed, as most are."""
    file = io.BytesIO()
    if kind == "npy":
        np.save(file, NOISE)
    elif kind == "tif":
        Image.fromarray(NOISE).save(file, "TIFF", compression="tiff_adobe_deflate")
    else:
        Image.fromarray(NOISE).save(file, {"png": "PNG", "jpg": "JPEG"}[kind])
    return file.getvalue()


def good(folder: Path, count: int = 1) -> None:
    for i in range(count):
        Image.fromarray(NOISE).save(folder / f"good{i:03d}.png")


def dataset(folder: Path, **options: Any) -> FolderDataset:
    return FolderDataset((16, 16), path=str(folder), **options)


def refuses(folder: Path, *words: str, **options: Any) -> str:
    """Building the data set fails with exit code 4 and a message that holds the words."""
    with pytest.raises(DataError) as caught:
        dataset(folder, **options)
    assert caught.value.exit_code == 4
    message = str(caught.value)
    for word in (*words, str(folder)):
        assert word in message, message
    return message


KINDS = pytest.mark.parametrize("kind", ["png", "jpg", "tif", "npy"])
QUIET = pytest.mark.filterwarnings("ignore:Corrupt EXIF data")


@KINDS
@pytest.mark.parametrize("percent", [10, 50, 99])
@QUIET
def test_d1_truncated_image_raises_and_names_the_file(
    tmp_path: Path, kind: str, percent: int
) -> None:
    data = encoded(kind)
    (tmp_path / f"cut.{kind}").write_bytes(data[: len(data) * percent // 100])
    with pytest.raises(DataError, match=rf"cut\.{kind}"):
        dataset(tmp_path)[0]
    refuses(tmp_path, f"cut.{kind}", on_bad="quarantine", max_bad_fraction=1.0)


def test_d1_error_keeps_its_class_and_name_out_of_a_loader_worker(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(encoded("png")[:6000])
    loader = DataLoader(dataset(tmp_path), batch_size=None, num_workers=1)
    with pytest.raises(DataError, match=r"cut\.png") as caught:
        list(loader)
    assert caught.value.exit_code == 4


@KINDS
@QUIET
def test_d1_quarantine_leaves_out_and_lists(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    good(tmp_path, 39)
    data = encoded(kind)
    (tmp_path / f"cut.{kind}").write_bytes(data[: len(data) // 2])
    with caplog.at_level(logging.INFO):
        images = dataset(tmp_path, on_bad="quarantine")
    assert len(images) == 39
    assert [item.path for item in images.quarantined] == [f"cut.{kind}"]
    assert f"cut.{kind}" in images.quarantined[0].reason
    assert all(images[i].image.isfinite().all() for i in range(39))
    assert "1 of 40 image files are quarantined" in caplog.text
    assert "cut" not in caplog.text


def test_d1_too_many_bad_files_abort(tmp_path: Path) -> None:
    good(tmp_path, 90)
    for i in range(10):
        (tmp_path / f"bad{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n junk")
    message = refuses(tmp_path, "10 of 100", "max_bad_fraction allows 0.05", on_bad="quarantine")
    assert "bad0.png" in message
    assert "bad9.png" not in message
    assert "and 5 more" in message
    refuses(tmp_path, "10 of 100", "data.dataset.on_bad=quarantine")
    assert len(dataset(tmp_path, on_bad="quarantine", max_bad_fraction=0.1)) == 90


@KINDS
@settings(max_examples=60)
@given(changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_d1_damaged_bytes_give_an_image_or_a_data_error(
    tmp_path_factory: Any, kind: str, changes: list[tuple[float, int]]
) -> None:
    data = bytearray(encoded(kind))
    for place, byte in changes:
        # Most damage to the first bytes: headers are where readers go wrong.
        data[int(place**4 * (len(data) - 1))] = byte
    path = tmp_path_factory.mktemp("fuzz") / f"x.{kind}"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = read_image(path, ReadRules(10**6, None, False, "black"))
        except DataError as error:
            message = str(error)
        else:
            assert image.dtype == np.float32
            assert np.abs(image).max() <= 1
            return
    assert str(path) in message


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "npy"])
@pytest.mark.parametrize("content", [b"", b"hello, world\n" * 9, b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_d2_not_an_image_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    good(tmp_path)
    (tmp_path / f"odd.{suffix}").write_bytes(content)
    refuses(tmp_path, f"odd.{suffix}", "empty (0 bytes)" if not content else "1 of 2")


def within(seconds: float, call: Callable[[], None]) -> None:
    """Fail, not hang, when the call never comes back."""
    failure: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it hangs"
    if failure:
        raise failure[0]


@pytest.mark.parametrize("suffix", ["png", "tif", "npy"])
def test_d2_fifo_socket_device_and_dangling_link_do_not_hang(tmp_path: Path, suffix: str) -> None:
    good(tmp_path)
    odd = tmp_path / f"odd.{suffix}"
    os.mkfifo(odd)
    within(20, lambda: refuses(tmp_path, str(odd), "a FIFO", "regular file") and None)
    odd.unlink()
    odd.symlink_to("/dev/zero")
    within(20, lambda: refuses(tmp_path, str(odd), "a device") and None)
    odd.unlink()
    odd.symlink_to(tmp_path / "nowhere")
    refuses(tmp_path, str(odd), "a link to nothing")
    odd.unlink()
    odd.symlink_to(odd)
    refuses(tmp_path, str(odd))
    odd.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        cwd = Path.cwd()
        os.chdir(tmp_path)  # the names of sockets are short
        try:
            server.bind(odd.name)
        finally:
            os.chdir(cwd)
        refuses(tmp_path, str(odd), "a socket")


def test_d2_file_replaced_by_a_fifo_after_the_check_does_not_hang(tmp_path: Path) -> None:
    good(tmp_path)
    images = dataset(tmp_path)
    path = tmp_path / "good000.png"
    path.unlink()
    with pytest.raises(DataError, match=r"good000\.png: the file is no longer there"):
        images[0]
    os.mkfifo(path)

    def read() -> None:
        with pytest.raises(DataError, match="a FIFO"):
            images[0]

    within(20, read)


def test_d2_a_folder_named_like_an_image_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "scan.png").mkdir()
    good(tmp_path / "scan.png", 2)
    assert len(dataset(tmp_path)) == 2


def test_d2_the_path_itself(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    refuses(file, "is a file; expected a folder")
    refuses(tmp_path / "missing", "no folder")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    within(20, lambda: refuses(fifo, "is a FIFO; expected a folder") and None)


def png_claiming(width: int, height: int) -> bytes:
    def chunk(body: bytes) -> bytes:
        return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))

    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(header) + chunk(data) + chunk(b"IEND")


def npy_claiming(height: int, width: int) -> bytes:
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (height, width)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + bytes(100)


def jpeg_claiming(height: int, width: int) -> bytes:
    data = encoded("jpg")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


@pytest.mark.parametrize("side", [8_200, 10_000, 60_000])  # above our limit, Pillow's, twice that
@pytest.mark.parametrize("kind", ["png", "jpg", "npy"])
def test_d3_decompression_bomb(tmp_path: Path, kind: str, side: int) -> None:
    maker = {"png": png_claiming, "jpg": jpeg_claiming, "npy": npy_claiming}[kind]
    (tmp_path / f"bomb.{kind}").write_bytes(maker(side, side))
    good(tmp_path)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        refuses(tmp_path, f"bomb.{kind}")
    assert not [w for w in shown if issubclass(w.category, Image.DecompressionBombWarning)]


def test_d3_the_limit_comes_from_the_config(tmp_path: Path) -> None:
    good(tmp_path)
    assert len(dataset(tmp_path, max_pixels=64 * 64)) == 1
    refuses(tmp_path, "64 x 64 pixels", "max_pixels = 4095", max_pixels=4095)
    with pytest.raises(ssmdiff.SsmdiffError, match="max_pixels"):
        ssmdiff.create("dataset", "folder", image_size=(8, 8), path=str(tmp_path), max_pixels=10**9)


def test_d3_a_bomb_that_replaces_a_good_file_is_not_decoded(tmp_path: Path) -> None:
    good(tmp_path)
    images = dataset(tmp_path)
    (tmp_path / "good000.png").write_bytes(png_claiming(8_200, 8_200))
    with pytest.raises(DataError, match="max_pixels"):
        images[0]


@pytest.mark.parametrize("suffix", ["png", "tif", "npy"])
def test_d4_a_16_bit_ramp_survives(tmp_path: Path, suffix: str) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    if suffix == "npy":
        np.save(tmp_path / "ramp.npy", ramp)
    else:
        Image.fromarray(ramp).save(tmp_path / f"ramp.{suffix}")
    image = FolderDataset((256, 256), path=str(tmp_path))[0].image
    assert len(image.unique()) == 65536
    assert image.mean().item() == pytest.approx(0, abs=1e-6)
    assert (image.min().item(), image.max().item()) == (-1, 1)


def test_d9_mixed_channels_need_a_policy_and_sizes_do_not(tmp_path: Path) -> None:
    for i, shape in enumerate([(40, 50), (31, 7), (64, 64)]):
        Image.fromarray(NOISE[: shape[0], : shape[1]]).save(tmp_path / f"rgb{i}.png")
    assert {tuple(s.image.shape) for s in map(dataset(tmp_path).__getitem__, range(3))} == {
        (3, 16, 16)
    }
    Image.fromarray(NOISE[..., 0]).save(tmp_path / "grey.png")
    refuses(
        tmp_path,
        "differ in channels: 3 of 3 channels (uint8), such as rgb0.png; 1 of 1 channel (uint8)",
        "data.dataset.channels=1",
    )
    for channels in (1, 3):
        images = dataset(tmp_path, channels=channels)
        assert {images[i].image.shape[0] for i in range(4)} == {channels}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "CMYK", "LAB"])
def test_d9_alpha_and_cmyk_are_refused(tmp_path: Path, mode: str) -> None:
    good(tmp_path)
    name = "odd.png" if mode in ("RGBA", "LA") else "odd.tif"
    Image.new(mode, (20, 20)).save(tmp_path / name)
    message = refuses(tmp_path, name, channels=3)
    assert ("alpha=black" in message) == (mode in ("RGBA", "LA"))
    if mode in ("RGBA", "LA"):
        assert len(dataset(tmp_path, channels=3, alpha="white")) == 2


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_d10_exif_rotation(tmp_path: Path, suffix: str) -> None:
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, :16] = 255  # orientation 6: the left of what is stored is the top of what is seen
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(stored).save(tmp_path / f"a.{suffix}", exif=exif)
    image = FolderDataset((32, 16), path=str(tmp_path))[0].image
    assert image[:, :16].min() > 0.9
    assert image[:, 16:].max() < -0.9


def test_d12_empty_folder_and_one_image(tmp_path: Path) -> None:
    refuses(tmp_path, "no images in", ".png", "Other files there: none")
    (tmp_path / "a.dcm").write_bytes(b"DICM")
    (tmp_path / "b.dcm").write_bytes(b"DICM")
    refuses(tmp_path, "2 DICOM (a.dcm, b.dcm)")
    good(tmp_path)
    assert len(dataset(tmp_path)) == 1


def test_d13_names_of_every_sort(tmp_path: Path) -> None:
    names = ["ünï çødé.png", "a b.png", "new\nline.png", "x" * 251 + ".png", "\x1b[31m.png"]
    raw = [os.fsencode(name) for name in names] + [b"caf\xe9.png", b"\xff\xfe.png"]
    for name in raw:
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:  # noqa: PTH123
            file.write(encoded("png"))
    images = dataset(tmp_path)
    assert len(images) == len(raw)
    assert all(images[i].image.shape == (3, 16, 16) for i in range(len(raw)))
    images.fingerprint()
    for name in raw:
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:  # noqa: PTH123
            file.write(b"junk")
    message = refuses(tmp_path, "7 of 7")
    message.encode("utf-8")
    assert all(line.isprintable() for line in message.split("\n"))
    assert len(message.split("\n")) == 1 + 5 + 1


@pytest.mark.timeout(60)
def test_d13_link_loops_are_bounded(tmp_path: Path) -> None:
    good(tmp_path)
    for name in "abcdef":
        (tmp_path / name).mkdir()
        good(tmp_path / name)
    for folder in "abcdef":
        (tmp_path / folder / "up").symlink_to(tmp_path)
        (tmp_path / folder / "itself").symlink_to(tmp_path / folder / "itself")
        for other in "abcdef":
            (tmp_path / folder / f"to-{other}").symlink_to(tmp_path / other)
    assert len(dataset(tmp_path)) == 7


def test_d14_fingerprint_tells_a_change(tmp_path: Path) -> None:
    good(tmp_path, 3)
    seen = [dataset(tmp_path).fingerprint()]
    assert dataset(tmp_path).fingerprint() == seen[0]
    good(tmp_path, 4)
    seen.append(dataset(tmp_path).fingerprint())
    (tmp_path / "good003.png").rename(tmp_path / "good004.png")
    seen.append(dataset(tmp_path).fingerprint())
    Image.fromarray(NOISE[:32]).save(tmp_path / "good004.png")
    seen.append(dataset(tmp_path).fingerprint())
    assert len(set(seen)) == 4


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("suffix", ["npy", "tif"])
def test_d15_nan_is_an_error_that_names_the_file(tmp_path: Path, suffix: str, value: float) -> None:
    array = np.zeros((20, 20), np.float32)
    array[3, 4] = value
    if suffix == "npy":
        np.save(tmp_path / "hole.npy", array)
    else:
        Image.fromarray(array).save(tmp_path / "hole.tif")
    images = dataset(tmp_path, value_range=(0.0, 1.0))
    with pytest.raises(DataError, match=rf"hole\.{suffix}: 1 of 400 values are NaN or infinite"):
        images[0]
    refuses(tmp_path, "NaN", on_bad="quarantine", value_range=(0.0, 1.0))


def test_d15_constant_images_are_finite_and_a_wrong_range_is_an_error(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "a.png")
    assert (dataset(tmp_path)[0].image + 1).abs().max() < 1e-6
    np.save(tmp_path / "a.npy", np.full((20, 20), 4095, np.uint16))
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.npy: values from 4095 to 4095; expected 0 to 1"):
        dataset(tmp_path, value_range=(0.0, 1.0))[0]


def test_d16_names_stay_out_of_the_log_and_the_fingerprint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    good(folder, 40)
    Image.fromarray(NOISE).save(folder / f"{MARKER}.png")
    (folder / f"{MARKER}-cut.png").write_bytes(encoded("png")[:3000])
    with caplog.at_level(logging.DEBUG):
        images = dataset(folder, on_bad="quarantine")
        names = [images[i].label for i in range(len(images))]
    assert len(names) == 41
    assert MARKER not in caplog.text
    assert MARKER not in images.fingerprint()
    assert len(images.fingerprint()) == 64
    assert MARKER in images.quarantined[0].path
